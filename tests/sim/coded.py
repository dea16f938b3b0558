"""The erasure-coded policy of some runs: its ring, its workers on a device, and what must be true of its fragments at rest.

One of the containers has it, policy 1; the other ones stay with whole copies.  Its part of a device is an engine of its own, in a
folder of the same disk, with workers of its own.  Neighbours: script.py (which runs have one), cluster.py (the machines), ledger.py
(removals), rest.py.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from ring.daemon.worker import Worker
from ring.device import Device
from ring.names import Span
from ring.placement import Ring
from ring.policy import Policies, Policy
from ring.service.keeper import Keeper
from ring.service.overlap import Overlap
from ring.timestamp import TICKS_MAX, Timestamp
from ring.world.interface import World
from storage.client.cluster import ClusterStorage
from storage.client.node import Kind, Node
from storage.erasure.interface import Coding
from storage.object.device import OpenDevice
from storage.object.entry import Held
from storage.object.policy_device import open_policy
from storage.object.record import RecordKind
from storage.object.settler import Settler, end_coded
from storage.object.store import ObjectStore
from storage.object.updater import ObjectUpdater
from storage.sync.moving import Watcher
from tests.sim.rings import HASHER, PART_POWER, device_of

if TYPE_CHECKING:
    from tests.sim.options import Options

POLICY = 1
NAMES = ("whole", "coded")  # of the policies
RING = f"object-{POLICY}"
RECONSTRUCT_EVERY_S = 10.0
LEFTOVER_S = 15.0
COMPACT_EVERY_S = 3.0


def policies(coding: Coding) -> Policies:
    coded = Policy(POLICY, NAMES[POLICY], coding.count, k=coding.k, m=coding.m)
    return Policies([Policy(0, NAMES[0], 3, default=True), coded])


def first_coded_ring(coding: Coding, members: int) -> Ring:
    """Over all machines but one, so that it can change, if so many are enough."""
    count = max(coding.count, members - 1)
    table = tuple(array("H", [(p + place) % count for p in range(1 << PART_POWER)]) for place in range(coding.count))
    return Ring(1, PART_POWER, tuple(device_of(number) for number in range(count)), table, HASHER)


async def open_part(world: World, opened: OpenDevice, store: type[ObjectStore], keeper: Keeper, segment_bytes: int) -> ObjectStore:
    """The policy's engine on a device."""
    part = store(world, await open_policy(world, opened, POLICY), HASHER, segment_bytes_max=segment_bytes)
    part.standing.horizon = lambda name: keeper.overlaps[RING].horizon
    return part


def workers_of(
    options: Options,
    world: World,
    device: Device,
    store: ObjectStore,
    facade: ClusterStorage,
    overlap: Callable[[str], Overlap],
    nodes: Callable[[Device], Node],
    watcher: Watcher,
    *,
    promise_s: float,
    segment_bytes: int,
) -> list[Worker]:
    """As tools.deploy.background has them, but for the auditor and the expirer."""
    coding = options.coded
    assert coding is not None

    settle = partial(end_coded, facade.coded, store, POLICY)
    reconstructor = options.reconstructor(
        world,
        device,
        store,
        facade.reach,
        POLICY,
        coding,
        partial(overlap, RING),
        lambda one: nodes(one).of(POLICY),
        interval_s=RECONSTRUCT_EVERY_S,
        leftover_s=LEFTOVER_S,
        watcher=watcher,
    )
    updater = ObjectUpdater(world, store, partial(overlap, "container"), nodes)
    settler = Settler(store, partial(overlap, RING), settle, interval_s=3.0, age_s=promise_s, turn_s=4.0)
    compactor = options.compactor(world, store, interval_s=COMPACT_EVERY_S, grace_s=1.0, headroom_bytes=segment_bytes)
    for worker in (reconstructor, updater, settler, compactor):
        worker.name = worker.name.replace("object", RING, 1)
    return [reconstructor, updater, settler, compactor]


async def left_staged(store: ObjectStore) -> list[str]:
    """Nobody is to commit it any more, and nobody has let go of it."""
    found = await store.staging.waiting(Timestamp(TICKS_MAX), 10)
    return [
        f"{seen.version.path} {seen.stamp.timestamp} {seen.data.value} {seen.index} {'refused' * seen.refused}" for seen in found
    ]


def misplaced(store: ObjectStore, span: Span, place: int, coding: Coding, pack_cut_bytes: int) -> list[str]:
    """What the primary of that place has of a partition, and should have in another form."""
    found = []
    at: bytes | None = span.bounds[0]
    while at is not None:
        page, at = store.index.page(at, span.bounds[1], limit=1000)
        found += [held.key.hex() for held in page if not _fits(held, place, coding, pack_cut_bytes)]
    return found


def _fits(held: Held, place: int, coding: Coding, pack_cut_bytes: int) -> bool:
    entry = held.entry
    if held.kind is Kind.TOMBSTONE:
        return True
    if entry.size <= pack_cut_bytes:
        return entry.kind is RecordKind.OBJECT_INLINE or (entry.kind is RecordKind.NOTE and place > coding.m)
    return entry.kind is RecordKind.FRAGMENT and entry.index == place
