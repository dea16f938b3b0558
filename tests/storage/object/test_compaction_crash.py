"""Churn and compaction with a fault at every single step: nothing acknowledged is lost, nothing deleted comes back.

One history is played again and again.  Each time another operation of the disk is the one that a kill, a power loss, an error
before or after it was done, or a full disk meets.  Then the machine starts again, and what it holds is compared with what was
acknowledged; with an index made anew beside it; after the compaction has been gone on with to its end; and once more without its
tables.
"""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

import pytest
from trio.testing import MockClock

from ring.daemon.worker import once
from ring.errors import DiskFault, Unavailable
from ring.timestamp import Timestamp
from ring.world.interface import World
from ring.world.sim import SimWorld, run
from storage.client.node import Kind
from storage.object.device import Label
from storage.object.record import RecordKind
from storage.object.store import ObjectStore
from tests.storage.object.compaction_rig import assert_as_rebuilt, compactor
from tests.storage.object.object_rig import CLUSTER, HASHER, noise, path, put, put_file, read, serving

ROOT = "d1"
SEGMENT_BYTES = 3000
NAMES = tuple(f"n{number}" for number in range(8))
FAULTS = ("kill", "power", "error", "half", "full")
State = tuple[int, bytes | None, int] | None  # ticks, data (None: a tombstone), ticks of the POST; None: nothing is held


@dataclass
class Model:
    """What each name may be after a restart: one thing, or what was tried since as well."""

    may_be: dict[str, list[State]] = field(default_factory=lambda: {name: [None] for name in NAMES})

    async def attempt(self, name: str, state: State, done: Callable[[], object]) -> None:
        before = self.may_be[name]
        self.may_be[name] = [*before, state]
        try:
            await done()  # type: ignore[misc]  # a coroutine function
        except (DiskFault, Unavailable):
            return
        self.may_be[name] = [state]

    async def check(self, store: ObjectStore) -> None:
        for name in NAMES:
            assert await _state(store, name) in self.may_be[name], name


async def _state(store: ObjectStore, name: str) -> State:
    here = store.newest(HASHER.hash(path(name)))
    if here is None:
        return None
    head = await store.reader.describe(here, path(name))
    posted = head.metadata_timestamp.ticks if head.metadata_timestamp is not None else 0
    assert head.kind is Kind.OBJECT or head.size == 0
    return head.timestamp.ticks, await read(store, name), posted


async def _churn(store: ObjectStore, model: Model, rng: random.Random, ticks: int) -> None:
    """One write of some kind."""
    name = rng.choice(NAMES)
    states = model.may_be[name]
    held = states[0] if len(states) == 1 else None
    dice = rng.random()
    here = store.index.newest(HASHER.hash(path(name)))
    if held is not None and dice < 0.15 and here is not None and here.entry.kind is not RecordKind.OBJECT_FILE:
        key = store.key(path(name), Timestamp(held[0]))
        await model.attempt(name, None, lambda: store.quarantine(key))
    elif held is not None and held[1] is not None and dice < 0.25:
        await model.attempt(
            name, (held[0], held[1], ticks), lambda: store.post(path(name), {"x-object-meta-p": "1"}, "", Timestamp(ticks))
        )
    elif dice < 0.4:
        await model.attempt(name, (ticks, None, 0), lambda: put(store, name, ticks, None, owe=dice < 0.3))
    elif dice < 0.5:
        data = noise(ticks, 200)
        await model.attempt(name, (ticks, data, 0), lambda: put_file(store, name, ticks, data))
    else:
        data = noise(ticks, rng.randrange(500))
        await model.attempt(name, (ticks, data, 0), lambda: put(store, name, ticks, data, owe=dice < 0.6))


async def _history(world: World, model: Model, begin: Callable[[], None], end: Callable[[], None]) -> None:
    """Churn; then, from ``begin`` to ``end``, churn and compaction by turns; then compaction to its end."""
    rng = random.Random("history 8")
    async with serving(world, ROOT, segment_bytes_max=SEGMENT_BYTES) as store:
        for ticks in range(100, 150):
            await _churn(store, model, rng, ticks)
        await store.index.commit()
        worker = compactor(world, store)
        begin()
        for ticks in range(200, 235):
            await _compact(worker.work)
            await _churn(store, model, rng, ticks)
        for _ in range(3):
            await _compact(lambda: once(worker))
        end()
        if not store.device.fault:
            await model.check(store)
            await assert_as_rebuilt(world, store)


async def _compact(work: Callable[[], object]) -> None:
    with suppress(DiskFault, Unavailable):  # the next unit goes on
        await work()  # type: ignore[misc]  # a coroutine function


async def _play(fault: str, at: int) -> bool:
    """Whether there are so many operations that the fault happened."""
    world = SimWorld(1)
    node, medium = world.node, world.node.disk(ROOT)
    disk = world.open_disk(ROOT)
    await disk.make_dirs("")
    folders = {f"files/{HASHER.hash(path(name)).hex()[:3]}" for name in NAMES}
    await disk.make_dirs_many(["packs", "quarantine", *sorted(folders)])
    await disk.replace_file("device.json", Label(CLUSTER, 1).encode())
    model = Model()
    count, happened = 0, False

    def trip(done: Callable[[], object]) -> None:
        nonlocal count, happened
        count += 1
        if count < at or (count > at and fault != "full"):
            return
        happened = True
        if fault in ("kill", "power"):
            node.crash(power=fault == "power")
        elif fault == "full":
            if count < at + 12:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        else:
            if fault == "half" and "Tables" not in done.__qualname__:  # a commit that failed has not happened
                done()
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    def begin() -> None:
        medium.trip = trip

    def end() -> None:
        medium.trip = None

    await node.run(lambda world: _history(world, model, begin, end))
    end()
    if node.up:
        node.crash(power=True)
    node.restart()
    for tables in (True, False):
        if not tables:
            await node.world.open_disk(ROOT).unlink("tables/data.mdb")
        async with serving(node.world, ROOT, segment_bytes_max=SEGMENT_BYTES) as store:
            await model.check(store)
            await assert_as_rebuilt(node.world, store)
            await once(compactor(node.world, store))
            assert not store.segments.replaced
            await model.check(store)
            await assert_as_rebuilt(node.world, store)
    return happened


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_at_every_step(fault: str) -> None:
    at = 1
    while run(at, _play, fault, at):
        at += 1
    assert at > 100  # so many operations of the disk there are


async def test_the_history_compacts_all_kinds_of_records(autojump_clock: MockClock) -> None:
    """Else the test above would prove little."""
    world = SimWorld(1)
    disk = world.open_disk(ROOT)
    await disk.make_dirs("")
    await disk.make_dirs_many(["packs", "quarantine", *sorted({f"files/{HASHER.hash(path(name)).hex()[:3]}" for name in NAMES})])
    await disk.replace_file("device.json", Label(CLUSTER, 1).encode())
    model = Model()
    await _history(world, model, lambda: None, lambda: None)
    kinds = {
        "tombstones": any(state is not None and state[1] is None for states in model.may_be.values() for state in states),
        "objects": any(state is not None and state[1] for states in model.may_be.values() for state in states),
        "posts": any(state is not None and state[2] for states in model.may_be.values() for state in states),
        "drops": any(None in states for states in model.may_be.values()),
    }
    assert all(kinds.values()), kinds
    async with serving(world, ROOT, segment_bytes_max=SEGMENT_BYTES) as store:
        assert [name for name in store.segments.order if name.first != name.last]  # several became one
