"""The container updater tells accounts what their containers hold; nobody else does."""

from __future__ import annotations

import msgspec
import trio

from ring.daemon.worker import once
from ring.device import Device
from ring.names import Path
from ring.wire.message import BytesBody
from storage.client.interface import NewObject, Query, Row
from storage.client.local import LocalNode
from storage.container.stats import StatsMark
from storage.container.updater import COMPARE_EVERY_S, ContainerUpdater
from tests.storage.client.ground import Distant, Ground

ACCOUNT, CONTAINER = Path("AUTH_a"), Path("AUTH_a", "c")


def updater(ground: Ground, number: int) -> ContainerUpdater:
    def nodes(device: Device):  # type: ignore[no-untyped-def]  # a Node by its shape
        return ground.nodes[device.id]

    return ContainerUpdater(
        ground.rings.account.ring.device(number), ground.engines[number][1], lambda: ground.rings.account, nodes
    )


async def pass_all(ground: Ground) -> None:
    for number in range(4):
        await once(updater(ground, number))


async def put(ground: Ground, name: str, data: bytes) -> None:
    await ground.storage.put_object(Path("AUTH_a", "c", name), NewObject(), BytesBody(data))


async def test_stale_sums_become_true(nursery: trio.Nursery, autojump_clock: trio.testing.MockClock) -> None:
    ground = await Ground.with_engines(nursery)
    await ground.storage.put_container(CONTAINER, {})
    await put(ground, "a", b"12345")
    await put(ground, "b", b"123")
    meta = await ground.storage.head_account(ACCOUNT)
    assert (meta.container_count, meta.object_count, meta.bytes_used) == (1, 0, 0)
    await pass_all(ground)
    meta = await ground.storage.head_account(ACCOUNT)
    assert (meta.container_count, meta.object_count, meta.bytes_used) == (1, 2, 8)
    (row,) = (await ground.storage.list_account(ACCOUNT, Query())).items
    assert isinstance(row, Row) and (row.name, row.count, row.size) == ("c", 2, 8)
    await ground.storage.delete_object(Path("AUTH_a", "c", "a"))
    await pass_all(ground)
    meta = await ground.storage.head_account(ACCOUNT)
    assert (meta.object_count, meta.bytes_used) == (1, 3)


async def test_a_report_of_a_replica_that_missed_the_deletion_loses(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    ground = await Ground.with_engines(nursery)
    await ground.storage.put_container(CONTAINER, {})
    ring = ground.rings.container.ring
    missed = ring.primaries(ring.partition(CONTAINER))[0].id
    node = ground.nodes[missed]
    assert isinstance(node, LocalNode)
    away = Distant(node)
    ground.nodes[missed] = away  # type: ignore[call-overload]  # a Node by its shape
    away.cut = True
    await ground.storage.delete_container(CONTAINER)
    ground.nodes[missed] = node
    await pass_all(ground)
    assert (await ground.storage.list_account(ACCOUNT, Query())).items == []


async def test_an_account_that_was_not_made_with_its_container_is_made(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    ground = await Ground.with_engines(nursery)
    await ground.storage.put_container(CONTAINER, {})
    for number in range(4):
        state = await ground.nodes[number].book(CONTAINER)
        await ground.reformat(number)
        if state is not None:
            await ground.nodes[number].merge_header(state.header)
    assert [await node.book(ACCOUNT) for node in ground.nodes] == [None] * 4
    await pass_all(ground)
    assert [item.name for item in (await ground.storage.list_account(ACCOUNT, Query())).items] == ["c"]


async def test_without_a_majority_the_report_is_owed_still(nursery: trio.Nursery, autojump_clock: trio.testing.MockClock) -> None:
    ground = await Ground.with_engines(nursery)
    await ground.storage.put_container(CONTAINER, {})
    await put(ground, "a", b"12345")
    ring = ground.rings.account.ring
    nodes = list(ground.nodes)
    for device in ring.primaries(ring.partition(ACCOUNT))[:2]:
        node = nodes[device.id]
        assert isinstance(node, LocalNode)
        away = Distant(node)
        away.cut = True
        ground.nodes[device.id] = away  # type: ignore[call-overload]  # a Node by its shape
    await pass_all(ground)
    ground.nodes[:] = nodes
    await pass_all(ground)
    assert (await ground.storage.head_account(ACCOUNT)).bytes_used == 5


async def test_a_report_with_a_stamp_from_the_future_is_corrected(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    """Its device had a clock that was ahead, and holds the container no more."""
    ground = await Ground.with_engines(nursery)
    await ground.storage.put_container(CONTAINER, {})
    await put(ground, "a", b"12345")
    await pass_all(ground)
    (row,) = (await ground.storage.list_account(ACCOUNT, Query())).items
    assert isinstance(row, Row)
    seconds = int(row.etag[:10]) + 20
    wrong = msgspec.structs.replace(row, etag=f"{seconds:010d}{row.etag[10:]}", size=99, count=7)
    await ground.storage._books.merge_rows(ACCOUNT, [wrong])
    await put(ground, "b", b"1")
    await pass_all(ground)
    await pass_all(ground)
    meta = await ground.storage.head_account(ACCOUNT)
    assert (meta.object_count, meta.bytes_used) == (2, 6)


async def test_what_a_replica_that_is_none_any_more_said_last_is_corrected(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    """Nothing is written to the container afterwards, and nothing is owed."""
    ground = await Ground.with_engines(nursery)
    await ground.storage.put_container(CONTAINER, {})
    await put(ground, "a", b"12345")
    updaters = [updater(ground, number) for number in range(4)]
    for one in updaters:
        await once(one)
    for _, books in ground.engines:
        await books.flush()
    await trio.sleep(COMPARE_EVERY_S)
    (row,) = (await ground.storage.list_account(ACCOUNT, Query())).items
    assert isinstance(row, Row)
    seconds = int(row.etag[:10]) + 20
    await ground.storage._books.merge_rows(
        ACCOUNT, [msgspec.structs.replace(row, etag=f"{seconds:010d}{row.etag[10:]}", size=99, count=7)]
    )
    await trio.sleep(1)  # virtual: until all replicas of the account have it
    assert (await ground.storage.head_account(ACCOUNT)).object_count == 7
    for one in updaters:
        await once(one)
    meta = await ground.storage.head_account(ACCOUNT)
    assert (meta.object_count, meta.bytes_used) == (1, 5)
    assert sum(one.corrected for one in updaters) > 0


async def test_all_containers_are_compared_however_many(nursery: trio.Nursery, autojump_clock: trio.testing.MockClock) -> None:
    ground = await Ground.with_engines(nursery)
    for number in range(7):
        await ground.storage.put_container(Path("AUTH_a", f"c{number}"), {})
    books = ground.engines[0][1]
    await books.flush()
    marks, following = books.reports(b"", 100)
    assert following is None
    paged: list[StatsMark] = []
    after: bytes | None = b""
    while after is not None:
        page, after = books.reports(after, 2)
        paged += page
    assert [mark.book for mark in paged] == [mark.book for mark in marks] == sorted(mark.book for mark in marks)
    assert {mark.row.name for mark in marks} <= {f"c{number}" for number in range(7)} and len(marks) > 1
