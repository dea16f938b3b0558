"""The object updater brings rows that were late: lost to a container device that was away when the object was written."""

from __future__ import annotations

import trio

from ring.daemon.worker import once
from ring.names import Path
from ring.service.overlap import Overlap
from ring.wire.message import BytesBody
from storage.client.interface import NewObject
from storage.client.local import LocalNode
from storage.client.reach import Settings
from storage.object.updater import ObjectUpdater
from tests.storage.client.ground import Distant, Ground, make_ring

CONTAINER = Path("AUTH_a", "c")
PATHS = [Path("AUTH_a", "c", f"o{number}") for number in range(10)]


async def ground_with_late_rows(nursery: trio.Nursery) -> tuple[Ground, list[int]]:
    """Rows of PATHS are owed to two of the container's devices."""
    ground = await Ground.with_engines(nursery, Settings(pack_cut_bytes=4096, repair_delay_s=1e6))
    await ground.storage.put_container(CONTAINER, {})
    await ground.storage.put_object(Path("AUTH_a", "c", "first"), NewObject(), BytesBody(b"x"))
    ring = ground.rings.container.ring
    late = [device.id for device in ring.primaries(ring.partition(CONTAINER))][:2]
    good = {number: ground.nodes[number] for number in late}

    class Refusing(Distant):
        def __getattr__(self, name: str):  # type: ignore[no-untyped-def]  # any method of the node
            self.cut = name == "merge_rows"
            return super().__getattr__(name)

    for number in late:
        node = good[number]
        assert isinstance(node, LocalNode)
        ground.nodes[number] = Refusing(node)
    for path in PATHS:
        stored = await ground.storage.put_object(path, NewObject(), BytesBody(b"1234"))
        assert not stored.listed
    for number in late:
        ground.nodes[number] = good[number]
    await trio.sleep(10)
    return ground, late


def updaters(ground: Ground) -> list[ObjectUpdater]:
    return [
        ObjectUpdater(ground.world, store, lambda: ground.rings.container, lambda device: ground.nodes[device.id])
        for store, _ in ground.engines
    ]


async def count(ground: Ground, number: int) -> int:
    state = await ground.nodes[number].book(CONTAINER)
    return state.count if state is not None else -1


async def test_late_rows_arrive(nursery: trio.Nursery, autojump_clock: trio.testing.MockClock) -> None:
    ground, late = await ground_with_late_rows(nursery)
    assert [await count(ground, number) for number in late] == [1, 1]
    workers = updaters(ground)
    for worker in workers:
        await once(worker)
    assert [await count(ground, number) for number in late] == [11, 11]
    assert sum(worker.paid for worker in workers) == 2 * len(PATHS)
    assert [store.unpaid(10) for store, _ in ground.engines] == [[]] * 4


async def test_a_device_that_does_not_answer_is_owed_still(nursery: trio.Nursery, autojump_clock: trio.testing.MockClock) -> None:
    ground, late = await ground_with_late_rows(nursery)
    node = ground.nodes[late[0]]
    assert isinstance(node, LocalNode)
    away = Distant(node)
    away.cut = True
    ground.nodes[late[0]] = away  # type: ignore[call-overload]  # a Node by its shape
    workers = updaters(ground)
    for worker in workers:
        await once(worker)
    assert await count(ground, late[1]) == 11
    ground.nodes[late[0]] = node
    assert await count(ground, late[0]) == 1
    for worker in workers:
        await once(worker)
    assert await count(ground, late[0]) == 11


async def test_a_container_that_moved_is_paid_where_it_is(nursery: trio.Nursery, autojump_clock: trio.testing.MockClock) -> None:
    ground, _ = await ground_with_late_rows(nursery)
    ground.rings.container = Overlap.of(make_ring(4, 3, shift=2))
    ring = ground.rings.container.ring
    now = [device.id for device in ring.primaries(ring.partition(CONTAINER))]
    state = await ground.storage.head_container(CONTAINER)
    header = (await ground.nodes[(now[0] + 1) % 4].book(CONTAINER)) or (await ground.nodes[now[0]].book(CONTAINER))
    assert header is not None and state.object_count >= 1
    for number in now:
        await ground.nodes[number].merge_header(header.header)
    for worker in updaters(ground):
        await once(worker)
    for number in now:
        assert await count(ground, number) >= len(PATHS)
