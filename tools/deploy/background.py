"""The background workers of a worker process: for each of its devices an auditor, replicators (reconstructors for erasure-coded
policies), reclaimers, updaters, an expirer, a settler and a reaper; and the parts sweeper, which one process of the cloud runs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import trio

from proxy.app import FrontDoor
from ring.daemon.log import Log
from ring.daemon.metrics import Registry
from ring.daemon.pacing import Pacing
from ring.daemon.runner import Memory, Roster, Runner
from ring.daemon.worker import Worker
from ring.device import Device
from ring.errors import Unavailable
from ring.names import Path
from ring.policy import Consistency, Policy
from ring.service.keeper import Keeper
from ring.service.overlap import Overlap
from ring.timestamp import Timestamp
from ring.world.interface import World, Write
from storage.account.reaper import Reaper
from storage.client.node import Node
from storage.container.reclaimer import BookReclaimer
from storage.container.replicator import BookReplicator
from storage.container.sharder import Limits, Sharder
from storage.container.updater import ContainerUpdater
from storage.erasure.interface import Coding
from storage.object.auditor import Auditor
from storage.object.compaction import Compactor
from storage.object.device import OpenDevice
from storage.object.expirer import Expirer
from storage.object.files import disk_fault
from storage.object.filling import DeviceFiller, Mover
from storage.object.noting import Noter
from storage.object.reclaimer import ObjectReclaimer
from storage.object.reconstructor import Reconstructor
from storage.object.refill import Refiller
from storage.object.replicator import ObjectReplicator
from storage.object.settler import Settle, Settler, end_coded, end_promise
from storage.object.state import STATE
from storage.object.store import ObjectStore
from storage.object.updater import ObjectUpdater
from storage.sync.moving import Watcher
from storage.sync.proposal import Proposal
from tools.deploy.devices import OwnDevice, devices_named
from tools.deploy.settings import Background
from tools.deploy.storage import StorageRoom

MOVERS = ("-replicator", "-reconstructor", "-reclaimer")  # of a worker's name


def start_background(
    nursery: trio.Nursery,
    world: World,
    storage: StorageRoom,
    front: FrontDoor,
    log: Log,
    registry: Registry,
    *,
    rates: Background,
    speed: Callable[[], float],
    sweep: bool,
) -> Roster:
    """They run until the nursery is cancelled, or their device is closed; those of a device that comes later too.  ``speed``: the
    part of their rates that clients leave them."""
    roster = Roster()

    def runner(worker: Worker, pacing: Pacing, memory: Memory | None = None) -> Runner:
        own_speed = speed
        if isinstance(worker, ObjectReplicator):
            own_speed = partial(_urgent_speed, worker, speed, rates.yield_floor_urgent)
        return Runner(worker, pacing, world.clock, log, registry, speed=own_speed, memory=memory)

    async def run(own: OwnDevice, ended: trio.Event) -> None:
        try:
            with own.background:
                async with trio.open_nursery() as workers:
                    for worker, pacing in _of_device(world, storage, own, rates):
                        workers.start_soon(roster.run, runner(worker, pacing, DeviceMemory(own.opened, worker.name)))
        finally:
            ended.set()

    def start(own: OwnDevice) -> None:
        own.background_ended = trio.Event()
        nursery.start_soon(run, own, own.background_ended)

    for own in storage.devices.own.values():
        start(own)
    storage.devices.opened = start
    if sweep:
        pacing = Pacing(items_per_s=rates.sweep_items_per_s)
        nursery.start_soon(roster.run, runner(front.sweeper, pacing))
    nursery.start_soon(_wake_movers, storage.keeper, roster)
    return roster


def _urgent_speed(worker: ObjectReplicator, speed: Callable[[], float], floor: float) -> float:
    return max(speed(), floor) if worker.order.urgent else speed()


async def _wake_movers(keeper: Keeper, roster: Roster) -> None:
    """Until cancelled: a new ring is not waited for."""
    while True:
        await keeper.changed.wait()
        for kind in {name.partition(" ")[0] for name in roster.names if any(kind in name for kind in MOVERS)}:
            roster.wake(kind)


class DeviceMemory:
    """In the table "state" of a worker's own device."""

    def __init__(self, opened: OpenDevice, worker: str) -> None:
        self._opened = opened
        self._key = f"pass {worker.partition(' ')[0]}".encode()

    def load(self) -> bytes | None:
        try:
            return self._opened.tables.get(STATE, self._key)
        except OSError as error:
            raise disk_fault(self._opened.device_id, "read what a pass came to", error) from error

    async def save(self, data: bytes) -> None:
        try:
            await self._opened.tables.commit([Write(STATE, self._key, data)])
        except OSError as error:
            raise disk_fault(self._opened.device_id, "save what a pass came to", error) from error


def _device(keeper: Keeper, device_id: int) -> Device | None:
    return devices_named(list(keeper.overlaps.values())).get(device_id)


async def _settle(storage: StorageRoom, policy: int, path: Path, ballot: Timestamp) -> None:
    await storage.client.settle_object(policy, path)


def _of_device(world: World, storage: StorageRoom, own: OwnDevice, rates: Background) -> list[tuple[Worker, Pacing]]:
    keeper, device = storage.keeper, own.device
    nodes = storage.devices.node_of

    def overlap(name: str) -> Overlap:
        found = keeper.overlaps.get(name)
        if found is None:  # of a policy that is being added
            raise Unavailable(f"there is no ring {name} yet")
        return found

    def clear(edition: int) -> bool:  # what it lacks it cannot have brought anywhere
        return keeper.gate.clear(edition) and not own.trust.waits

    def proposal(name: str) -> Proposal:
        return Proposal(world.clock, partial(storage.confirmations.clean, name, device.id), age_s=rates.reclaim_age_s)

    def watcher(name: str) -> Watcher:
        return Watcher(clear, lambda overlap: storage.confirmations.confirm(name, device.id, overlap))

    def repair() -> Pacing:
        return Pacing(items_per_s=rates.repair_items_per_s)

    def of_policy(policy: Policy, store: ObjectStore) -> list[tuple[Worker, Pacing]]:
        ring = partial(overlap, policy.ring_name)

        def of_one(one: Device) -> Node:
            return nodes(one).of(policy.index)

        mover: ObjectReplicator | Reconstructor
        if policy.coded:
            coding, reach = Coding(policy.k, policy.m), storage.client.reach
            mover = Reconstructor(
                world,
                device,
                store,
                reach,
                policy.index,
                coding,
                ring,
                of_one,
                watcher=watcher(policy.ring_name),
            )
            fillers[policy.ring_name] = Noter(store, of_one)
        else:
            mover = fillers[policy.ring_name] = ObjectReplicator(device, store, ring, of_one, watcher=watcher(policy.ring_name))
        movers[policy.ring_name] = mover
        auditor, compactor = Auditor(world, store), Compactor(world, store)
        expirer = Expirer(world, store, ring, partial(storage.client.expire_object, policy.index))
        updater = ObjectUpdater(world, store, partial(overlap, "container"), nodes)
        reclaimer = ObjectReclaimer(
            world.clock, device, store, ring, of_one, proposal(policy.ring_name), coded=policy.coded, clear=clear
        )
        settle: Settle = partial(_settle, storage, policy.index)
        if policy.coded:
            settle = partial(end_coded, storage.client.coded, store, policy.index)
        elif policy.consistency is Consistency.AVAILABLE:
            settle = partial(end_promise, store)
        settler = Settler(store, ring, settle)
        for worker in (mover, auditor, compactor, expirer, updater, settler, reclaimer):
            worker.name = worker.name.replace("object", policy.ring_name, 1)
        return [
            (reclaimer, repair()),
            (auditor, Pacing(bytes_per_s=rates.audit_bytes_per_s)),
            (compactor, Pacing(bytes_per_s=rates.audit_bytes_per_s)),
            (mover, repair()),
            (expirer, repair()),
            (updater, repair()),
            (settler, repair()),
        ]

    def of_books(kind: str) -> BookReclaimer:
        sharding = storage.client.sharding
        return BookReclaimer(
            kind,
            world.clock,
            device,
            own.books,
            partial(overlap, kind),
            nodes,
            proposal(kind),
            sharding.map_of,
            sharding.listed,
            clear=clear,
        )

    movers: dict[str, ObjectReplicator | Reconstructor] = {}
    fillers: dict[str, Mover] = {}
    objects = [pair for policy in storage.policies for pair in of_policy(policy, own.stores[policy.index])]
    books = BookReplicator(device, own.books, overlap, nodes, watchers=watcher)
    own.progress = lambda name: movers[name].settling if name in movers else books.settling(name)
    storage.devices.fillers[device.id] = DeviceFiller(
        own.trust, fillers, own.books, books, partial(_device, keeper), known=keeper.gate.check_known
    )
    refill: list[tuple[Worker, Pacing]] = []
    if own.trust.waits:
        peers = storage.devices.filler_of
        own.refiller = Refiller(device.id, own.trust, lambda: keeper.overlaps, peers, own.refilled, own.memory)
        refill.append((own.refiller, Pacing(items_per_s=rates.refill_items_per_s)))
    return [
        *refill,
        *objects,
        (books, repair()),
        (of_books("container"), repair()),
        (of_books("account"), repair()),
        (
            Reaper(world, device, own.books, lambda: overlap("account"), storage.client.reaping, delay_s=rates.reap_delay_s),
            repair(),
        ),
        (ContainerUpdater(device, own.books, lambda: overlap("account"), nodes), repair()),
        (
            Sharder(
                world,
                device,
                own.books,
                partial(overlap, "container"),
                storage.client.sharding,
                storage.kv,
                limits=Limits(rows=rates.shard_rows),
            ),
            Pacing(items_per_s=rates.shard_rows_per_s),
        ),
    ]
