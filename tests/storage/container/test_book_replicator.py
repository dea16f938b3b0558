"""The book replicator repairs what nobody else does: an emptied device's listings, rows that only one replica has."""

from __future__ import annotations

import pytest
import trio

from ring.daemon.worker import once
from ring.device import Device
from ring.names import Path
from ring.service.overlap import Overlap
from ring.timestamp import Timestamp
from storage.client.interface import Row
from storage.client.local import LocalNode
from storage.client.node import BookHeader
from storage.container.replicator import BookReplicator
from tests.storage.client.ground import Distant, Ground, make_ring

ACCOUNT = Path("AUTH_a")
CONTAINERS = [Path("AUTH_a", f"c{number}") for number in range(6)]


@pytest.fixture
async def ground(nursery: trio.Nursery) -> Ground:
    ground = await Ground.with_engines(nursery)
    for container in CONTAINERS:
        await ground.storage.put_container(container, {"x-container-meta-a": "1"})
    return ground


def rings(ground: Ground, kind: str) -> Overlap:
    return ground.rings.account if kind == "account" else ground.rings.container


def replicator(ground: Ground, number: int) -> BookReplicator:
    def nodes(device: Device):  # type: ignore[no-untyped-def]  # a Node by its shape
        return ground.nodes[device.id]

    return BookReplicator(
        ground.rings.container.ring.device(number), ground.engines[number][1], lambda kind: rings(ground, kind), nodes
    )


def primaries(ground: Ground, path: Path) -> list[int]:
    ring = rings(ground, "container" if path.container else "account").ring
    return [device.id for device in ring.primaries(ring.partition(path))]


def rows(first: int, count: int, ticks: int) -> list[Row]:
    return [Row(f"o{number:05d}", Timestamp(ticks), 1, "e") for number in range(first, first + count)]


async def names(ground: Ground, number: int, path: Path) -> list[tuple[str, int, bool]]:
    page = await ground.nodes[number].rows(path, start="", end="", limit=10_000, reverse=False)
    return [] if page is None else [(row.name, row.timestamp.ticks, row.deleted) for row in page.rows]


async def settle(ground: Ground) -> None:
    for _, books in ground.engines:
        await books.flush()


async def test_an_emptied_device_gets_its_books_back(ground: Ground, autojump_clock: trio.testing.MockClock) -> None:
    for container in CONTAINERS:
        for number in primaries(ground, container):
            await ground.nodes[number].merge_rows(container, rows(0, 50, 5))
    await settle(ground)
    await ground.reformat(2)
    for number in (0, 1, 3):
        await once(replicator(ground, number))
    await settle(ground)
    for path in [ACCOUNT, *CONTAINERS]:
        copies = [await ground.nodes[number].book(path) for number in primaries(ground, path)]
        assert copies[0] is not None and copies.count(copies[0]) == 3
        listings = [await names(ground, number, path) for number in primaries(ground, path)]
        assert listings.count(listings[0]) == 3 and listings[0]
    for number in range(4):
        worker = replicator(ground, number)
        await once(worker)
        assert worker.merged == 0


async def test_replicas_that_each_miss_something_become_equal(ground: Ground, autojump_clock: trio.testing.MockClock) -> None:
    """Pages of 1,000 rows that end at different names on each side, deletions, and headers set apart."""
    container = CONTAINERS[0]
    one, two, three = (ground.nodes[number] for number in primaries(ground, container))
    await one.merge_rows(container, rows(0, 1500, 5))
    await two.merge_rows(container, rows(700, 1800, 5))
    await two.merge_rows(container, [Row("o00001", Timestamp(6), deleted=True), Row("o00800", Timestamp(4))])
    await three.merge_rows(container, rows(2500, 10, 7))
    for node, name in ((one, "a"), (two, "b"), (three, "c")):
        await node.merge_header(BookHeader(container, None, None, metadata={f"x-container-meta-{name}": ("9", Timestamp.at(2e9))}))
    await settle(ground)
    for number in (*primaries(ground, container), primaries(ground, container)[0]):
        await once(replicator(ground, number))
        await settle(ground)
    listings = [await names(ground, number, container) for number in primaries(ground, container)]
    assert listings.count(listings[0]) == 3
    assert len(listings[0]) == 2510
    assert ("o00001", 6, True) in listings[0] and ("o00800", 5, False) in listings[0]
    states = [await ground.nodes[number].book(container) for number in primaries(ground, container)]
    assert states.count(states[0]) == 3
    assert states[0] is not None
    assert [name[-1] for name, (value, _) in states[0].header.metadata.items() if value == "9"] == ["a", "b", "c"]


async def test_a_book_that_moved_is_dropped_where_it_was_when_all_have_it(
    ground: Ground, autojump_clock: trio.testing.MockClock
) -> None:
    container = CONTAINERS[0]
    old = primaries(ground, container)
    ground.rings.container = Overlap.of(make_ring(4, 3, shift=2))
    new = primaries(ground, container)
    (left,) = set(old) - set(new)
    (joined,) = set(new) - set(old)
    await settle(ground)
    node = ground.nodes[joined]
    assert isinstance(node, LocalNode)
    away = Distant(node)
    away.cut = True
    ground.nodes[joined] = away  # type: ignore[call-overload]  # a Node by its shape
    worker = replicator(ground, left)
    await once(worker)
    assert worker.dropped == 0 and worker.unanswered > 0
    ground.nodes[joined] = node
    for _ in range(2):
        worker = replicator(ground, left)
        await once(worker)
        await settle(ground)
    assert await ground.nodes[left].book(container) is None
    assert await ground.nodes[joined].book(container) == await ground.nodes[new[0]].book(container)
