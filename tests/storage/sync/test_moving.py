"""When a device has brought everything to where a new ring wants it: a transcript, and the replicators of real engines."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import cast

import pytest
import trio
from trio.testing import MockClock

from ring.daemon.worker import once
from ring.device import Device
from ring.errors import DiskFull
from ring.names import Path, Span
from ring.service.overlap import Overlap
from ring.wire.message import BytesBody
from storage.client.interface import NewObject
from storage.client.local import LocalNode
from storage.client.node import Node
from storage.container.replicator import BookReplicator
from storage.object.replicator import ObjectReplicator
from storage.rows.books import Books
from storage.sync.moving import AGAIN_S, CLEAR_S, FAILED_MAX, Moving, Watcher
from tests.storage.client.ground import Distant, Ground, make_device, make_ring

CONTAINER = Path("a", "c")
OLD, NEW = make_ring(4), make_ring(4, shift=1)
ONE, TWO = Span(4, 1), Span(4, 2)


def test_a_pass() -> None:
    told: list[Overlap] = []
    clear = False
    moving = Moving(Watcher(lambda edition: clear, told.append))
    steady, overlap = Overlap.of(OLD), Overlap(NEW, OLD)
    clear = True
    assert not moving.begins(steady) and moving.confirmed and moving.progress(1.0) == 1.0
    clear = False
    assert moving.progress(1.0, overlap) == 0.0 and moving.progress(1.0, steady) == 1.0  # nobody has come to it yet
    assert moving.wait_s(overlap) == CLEAR_S  # older writes are under way
    clear = True
    assert moving.wait_s(overlap) == 0 and moving.begins(overlap) and not moving.begins(overlap)
    assert 0.4 < moving.progress(0.5) < 0.6
    moving.look(ONE)
    moving.look(TWO)
    moving.found(ONE)
    assert moving.again(0.0) is None  # the walk comes first
    moving.walked(10.0)
    assert moving.again(10.0) is None and moving.again(10.0 + AGAIN_S) == TWO
    moving.look(TWO)
    assert moving.again(10.0 + AGAIN_S) is None  # each once, and then a while later
    assert moving.again(20.0) == TWO
    moving.look(TWO)
    assert not told
    moving.found(TWO)
    assert told == [overlap] and moving.confirmed and moving.again(100.0) is None


def test_a_newer_ring_begins_anew() -> None:
    told: list[Overlap] = []
    moving = Moving(Watcher(confirm=told.append))
    first, second = Overlap(NEW, OLD), Overlap(make_ring(4, shift=2), OLD)
    assert moving.begins(first)
    moving.look(ONE)
    assert moving.begins(second)
    moving.walked(0.0)
    assert told == [second]
    assert not moving.begins(Overlap.of(second.ring))  # it has settled


def test_too_many_that_were_not_reached() -> None:
    moving = Moving(Watcher())
    moving.begins(Overlap(NEW, OLD))
    for number in range(FAILED_MAX + 1):
        moving.look(Span(20, number))
    moving.walked(0.0)
    assert moving.too_many
    moving.restart()
    assert moving.walking and not moving.too_many


# ---- the replicators


class Pair:
    """The two replicators of a device, which go by rings that the test changes."""

    def __init__(self, ground: Ground, number: int, overlap: Callable[[], Overlap]) -> None:
        self.told: list[tuple[str, Overlap]] = []
        device = make_device(number)
        store, books = ground.engines[number]

        def nodes(device: Device) -> Node:
            return ground.nodes[device.id]

        def watcher(name: str) -> Watcher:
            return Watcher(confirm=lambda overlap: self.told.append((name, overlap)))

        self.objects = ObjectReplicator(device, store, overlap, nodes, watcher=watcher("object"))
        self.books = BookReplicator(device, books, lambda kind: overlap(), nodes, watchers=watcher)

    async def run(self) -> None:
        for worker in (self.objects, self.books):
            await once(worker)


async def filled(nursery: trio.Nursery) -> Ground:
    ground = await Ground.with_engines(nursery)
    await ground.storage.put_container(CONTAINER, {})
    for number in range(12):
        await ground.storage.put_object(Path("a", "c", f"o{number}"), NewObject(), BytesBody(b"%d" % number))
    await trio.sleep(2)
    return ground


async def test_everything_is_brought_before_it_is_confirmed_and_nothing_dropped_before_it_settled(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    ground = await filled(nursery)
    now = Overlap(NEW, OLD)
    pairs = [Pair(ground, number, lambda: now) for number in range(4)]
    for pair in pairs:
        await pair.run()
    assert all({name for name, _ in pair.told} == {"object", "container", "account"} for pair in pairs)
    for number in range(12):
        path = Path("a", "c", f"o{number}")
        for device in (*NEW.primaries(NEW.partition(path)), *OLD.primaries(OLD.partition(path))):
            assert await ground.engines[device.id][0].head(path) is not None
    now = Overlap.of(NEW)
    for _ in range(2):
        for pair in pairs:
            await pair.run()
    for number in range(12):
        path = Path("a", "c", f"o{number}")
        holders = {n for n in range(4) if await ground.engines[n][0].head(path) is not None}
        assert holders == {device.id for device in NEW.primaries(NEW.partition(path))}


@pytest.mark.parametrize("fails", ["partition_from", "digests"])
async def test_an_error_of_the_device_does_not_end_a_walk_for_ever(
    fails: str, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """Where it hit the last partition of a walk, the ring never settled."""
    ground = await filled(nursery)
    overlap = Overlap(NEW, OLD)
    last = next(path for n in range(1000) if OLD.partition(path := Path("a", f"c{n}")) == OLD.partition_count - 1)
    await ground.storage.put_container(last, {})
    await trio.sleep(2)
    device = OLD.primaries(OLD.partition(last))[0]
    books = ground.engines[device.id][1]
    told: list[str] = []
    errors = 0

    class Full:
        """Fails for a while."""

        def __getattr__(self, name: str) -> object:
            if name == fails and trio.current_time() < until:
                return self._fail
            return getattr(books, name)

        async def _fail(self, *arguments: object) -> None:
            nonlocal errors
            errors += 1
            raise DiskFull("no space left")

    def watcher(name: str) -> Watcher:
        return Watcher(confirm=lambda overlap: told.append(name))

    until = trio.current_time() + 10
    replicator = BookReplicator(
        device, cast(Books, Full()), lambda kind: overlap, lambda device: ground.nodes[device.id], watchers=watcher
    )
    while trio.current_time() < until + 5:
        with suppress(DiskFull):
            await once(replicator)
        await trio.sleep(1)
    assert errors > 1 and set(told) == {"container", "account"}


async def test_a_primary_that_does_not_answer_is_waited_for(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    ground = await filled(nursery)
    overlap = Overlap(NEW, OLD)
    pair = Pair(ground, 0, lambda: overlap)
    lines = []
    for number in range(1, 4):
        node = ground.nodes[number]
        assert isinstance(node, LocalNode)
        line = Distant(node)
        line.cut = True
        lines.append(line)
        ground.nodes[number] = line  # type: ignore[call-overload]
    for _ in range(5):
        await pair.run()
        await trio.sleep(AGAIN_S)
    assert "object" not in {name for name, _ in pair.told} and pair.objects.settling == 0.99
    for line in lines:
        line.cut = False
    for _ in range(3):
        await trio.sleep(AGAIN_S)
        await pair.run()
    assert {name for name, _ in pair.told} == {"object", "container", "account"}
    assert pair.objects.settling == 1.0 and pair.books.settling("account") == 1.0
