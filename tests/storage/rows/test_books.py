"""Books of one device: what a merge does, what a page shows, what the disk's faults may cost."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from ring.errors import BadInput, DiskFault, DiskFull, Unavailable
from ring.names import Path, Span
from ring.timestamp import Timestamp
from ring.world.interface import World
from ring.world.sim import Medium, SimWorld
from ring.world.sim.medium import FolderNode
from storage.client.interface import Row
from storage.client.node import BookHeader
from storage.object.errors import DeviceOutOfService
from storage.object.refill_mark import REFILL_PATH
from storage.rows.apply import OVERLAY_ROWS_MAX
from storage.rows.books import Books
from storage.sync.tree import ZERO, differing
from tests.storage.rows.device import HASHER, PART_POWER, ROOT, open_books, open_device

ACCOUNT, CONTAINER, OTHER = Path("a"), Path("a", "c"), Path("a", "d")


def header(path: Path = CONTAINER, created: int = 1) -> BookHeader:
    return BookHeader(path, Timestamp(created), None)


def row(name: str, ticks: int = 1, size: int = 10, *, deleted: bool = False, count: int = 0) -> Row:
    return Row(name, Timestamp(ticks), size, "e", "t", count, deleted)


async def names(books: Books, start: str = "", end: str = "", limit: int = 100, *, reverse: bool = False) -> tuple[list[str], bool]:
    page = await books.rows(CONTAINER, start=start, end=end, limit=limit, reverse=reverse)
    assert page is not None
    return [one.name for one in page.rows], page.complete


async def partitions(books: Books, kind: str, part_power: int) -> list[Span]:
    found: list[Span] = []
    start: bytes | None = b""
    while start is not None and (span := await books.partition_from(kind, start, part_power)) is not None:
        found.append(span)
        start = span.bounds[1]
    return found


@pytest.mark.parametrize("flush", [False, True])
async def test_last_write_wins_and_the_sums_follow(autojump_clock: MockClock, flush: bool) -> None:
    async with open_books(SimWorld()) as books:
        await books.merge_header(header())
        for rows, count, bytes_used in [
            ([row("a"), row("b", size=5)], 2, 15),
            ([row("a", 2, size=3)], 2, 8),
            ([row("a", 1, size=99)], 2, 8),  # older
            ([row("a", 2, size=3)], 2, 8),  # again
            ([row("b", 2, deleted=True)], 1, 3),
            ([row("c", deleted=True)], 1, 3),
            ([row("b", 3, size=7), row("b", 2, size=1)], 2, 10),
        ]:
            state = await books.merge_rows(CONTAINER, rows)
            if flush:
                await books.flush()
            assert state is not None
            assert (state.count, state.bytes_used, state.objects) == (count, bytes_used, 0)
            assert await books.book(CONTAINER) == state
        page = await books.rows(CONTAINER, start="", end="", limit=10, reverse=False)
        assert page is not None and page.state == state
        assert page.rows == [row("a", 2, size=3), row("b", 3, size=7), row("c", deleted=True)]


async def test_no_header_no_book(autojump_clock: MockClock) -> None:
    async with open_books(SimWorld()) as books:
        assert await books.merge_rows(CONTAINER, [row("a")]) is None
        assert await books.book(CONTAINER) is None
        assert await books.rows(CONTAINER, start="", end="", limit=1, reverse=False) is None
        assert await books.export(HASHER.hash(CONTAINER)) is None


async def test_a_deleted_book_does_not_exist_and_still_takes_late_rows(autojump_clock: MockClock) -> None:
    async with open_books(SimWorld()) as books:
        await books.merge_header(header())
        state = await books.merge_header(BookHeader(CONTAINER, None, Timestamp(2)))
        assert not state.header.exists
        state2 = await books.merge_rows(CONTAINER, [row("late")])
        assert state2 is not None and not state2.header.exists and state2.count == 1
        assert (await books.merge_header(header(created=3))).header.exists


async def test_an_account_sums_its_containers(autojump_clock: MockClock) -> None:
    async with open_books(SimWorld()) as books:
        await books.merge_header(header(ACCOUNT))
        await books.merge_rows(ACCOUNT, [row("c", size=100, count=3), row("d", size=1, count=4)])
        state = await books.merge_rows(ACCOUNT, [row("d", 2, count=9, deleted=True)])
        assert state is not None and (state.count, state.bytes_used, state.objects) == (1, 100, 3)


def logs(medium: Medium) -> list[str]:
    return [path for path in medium.files() if path.startswith("rows/")]


LONG = "l" * 494


@pytest.mark.parametrize("flush", [0, 3, 7])
@pytest.mark.parametrize(
    ("start", "end", "limit", "reverse", "expected", "complete"),
    [
        ("", "", 100, False, ["a", "b", "c", LONG, LONG + "x", LONG + "y" * 530, "z"], True),
        ("", "", 100, True, ["z", LONG + "y" * 530, LONG + "x", LONG, "c", "b", "a"], True),
        ("", "", 2, False, ["a", "b"], False),
        ("", "", 2, True, ["z", LONG + "y" * 530], False),
        ("a", "c", 100, False, ["b"], True),
        ("a", "c", 1, False, ["b"], True),
        ("b", "", 2, False, ["c", LONG], False),
        (LONG, "", 2, False, [LONG + "x", LONG + "y" * 530], False),
        (LONG + "x", "", 3, False, [LONG + "y" * 530, "z"], True),
        ("", LONG + "y", 2, True, [LONG + "x", LONG], False),
        ("m", "m", 5, False, [], True),
        ("z", "a", 5, True, [], True),
    ],
)
async def test_pages(
    autojump_clock: MockClock,
    flush: int,
    start: str,
    end: str,
    limit: int,
    reverse: bool,
    expected: list[str],
    complete: bool,
) -> None:
    """The first ``flush`` rows are in the tables, the others in the overlay."""
    async with open_books(SimWorld()) as books:
        await books.merge_header(header())
        for number, name in enumerate([LONG + "y" * 530, "c", LONG, "a", "z", LONG + "x", "b"]):
            if number == flush:
                await books.flush()
            await books.merge_rows(CONTAINER, [row(name)])
        assert await names(books, start, end, limit, reverse=reverse) == (expected, complete)


async def test_refused_input(autojump_clock: MockClock) -> None:
    async with open_books(SimWorld()) as books:
        await books.merge_header(header())
        with pytest.raises(BadInput):
            await books.merge_rows(CONTAINER, [row("a"), row("")])
        with pytest.raises(BadInput):
            await books.rows(CONTAINER, start="", end="", limit=0, reverse=False)
        with pytest.raises(BadInput):
            await books.merge_header(BookHeader(Path("a", "c", "o"), Timestamp(1), None))
        with pytest.raises(BadInput):
            await books.digests("object", Span(0, 0))
        with pytest.raises(BadInput):
            await books.merge_header(BookHeader(CONTAINER, None, None, 0, {"x": ("v" * (1 << 20), Timestamp(1))}))
        assert await names(books) == ([], True)


async def test_closed_books_are_unavailable(autojump_clock: MockClock) -> None:
    async with open_books(SimWorld()) as books:
        await books.merge_header(header())
    with pytest.raises(Unavailable):
        await books.book(CONTAINER)
    with pytest.raises(Unavailable):
        await books.merge_rows(CONTAINER, [row("a")])


async def test_what_waits_together_is_synced_together(autojump_clock: MockClock) -> None:
    async with open_books(SimWorld()) as books:
        await books.merge_header(header())
        log = books._log
        assert log is not None
        before = log.frames
        async with trio.open_nursery() as nursery:
            for number in range(64):
                nursery.start_soon(books.merge_rows, CONTAINER, [row(f"{number}")])
        assert log.frames - before <= 2
        state = await books.book(CONTAINER)
        assert state is not None and state.count == 64


async def test_merges_can_be_begun_on_several_books_by_one_task(autojump_clock: MockClock) -> None:
    async with open_books(SimWorld()) as books:
        begun = [books.begin_header(header()), books.begin_header(header(OTHER))]
        assert [(await merge.wait()).header.path for merge in begun] == [CONTAINER, OTHER]


async def test_the_log_goes_when_the_tables_have_it(autojump_clock: MockClock) -> None:
    world = SimWorld()
    medium = world.node.disk(ROOT)
    async with open_books(world) as books:
        await books.merge_header(header())
        await books.merge_rows(CONTAINER, [row("a")])
        assert logs(medium) == ["rows/00000001.log"]
        await trio.sleep(2)
        assert logs(medium) == []
        for _ in range(3):  # changes nothing, is logged all the same
            await books.merge_rows(CONTAINER, [row("a")])
        await trio.sleep(2)
        assert logs(medium) == []
        assert await names(books) == (["a"], True)


async def test_a_flood_waits_for_the_tables(autojump_clock: MockClock) -> None:
    async with open_books(SimWorld()) as books:
        await books.merge_header(header())
        count = OVERLAY_ROWS_MAX * 3 // 2
        async with trio.open_nursery() as nursery:
            for start in range(0, count, 500):
                nursery.start_soon(books.merge_rows, CONTAINER, [row(f"{n:06}") for n in range(start, start + 500)])
        await books.flush()
        state = await books.book(CONTAINER)
        assert state is not None and state.count == count
        found, at = 0, ""
        while True:
            page, complete = await names(books, at, limit=7000)
            found, at = found + len(page), page[-1]
            if complete:
                break
        assert found == count


# ---- faults


async def test_a_failed_sync_is_told_and_never_believed(autojump_clock: MockClock) -> None:
    """The row that failed may be there after a crash or not; those that were acknowledged are."""
    node = SimWorld().node
    medium = node.disk(ROOT)

    async def first(world: World) -> None:
        async with open_books(world) as books:
            await books.merge_header(header())
            await books.merge_rows(CONTAINER, [row("acked")])
            medium.sync_errors = 1
            with pytest.raises(DiskFault):
                await books.merge_rows(CONTAINER, [row("failed")])
            assert await names(books) == (["acked"], True)
            with pytest.raises(DiskFault):  # until what was acknowledged is out of the sealed segment
                await books.merge_rows(CONTAINER, [row("too soon")])
            await trio.sleep(0.1)
            assert logs(medium) == []
            await books.merge_rows(CONTAINER, [row("later")])
            node.crash(power=True)
            await trio.sleep(1)

    async def second(world: World) -> None:
        async with open_books(world) as books:
            assert await names(books) == (["acked", "later"], True)

    await node.run(first)
    node.restart()
    await node.run(second)


async def test_a_full_disk_refuses_and_recovers(autojump_clock: MockClock) -> None:
    world = SimWorld()
    medium = world.node.disk(ROOT)
    async with open_books(world) as books:
        await books.merge_header(header())
        medium.room_bytes = 0
        with pytest.raises(DiskFull):
            await books.merge_rows(CONTAINER, [row("a")])
        await trio.sleep(5)
        with pytest.raises(DiskFull):
            await books.merge_rows(CONTAINER, [row("a")])
        assert await names(books) == ([], True)
        medium.room_bytes = None
        await trio.sleep(5)
        await books.merge_rows(CONTAINER, [row("b")])
        assert await names(books) == (["b"], True)


async def test_what_is_in_the_tables_is_not_applied_again(autojump_clock: MockClock) -> None:
    """A disk that is unmounted while it is in use: open tables still commit, and the log's segment is not found by its path.  Each
    look at the tables tried the same batch once more, and toggled the tree again."""
    world = SimWorld()
    device = await open_device(world)
    medium = world.node.disk(ROOT)
    books = Books(world, device, HASHER)
    for tries in (1, 2):
        async with trio.open_nursery() as nursery:
            await nursery.start(books.run)
            await books.merge_header(header())
            await books.merge_rows(CONTAINER, [row("a", tries)])
            mounted, medium.root = medium.root, FolderNode()
            for _ in range(tries):
                with pytest.raises(DiskFault):
                    await books.flush()
            medium.root = mounted
            nursery.cancel_scope.cancel()
        await device.close()
        device = await open_device(world)
        books = Books(world, device, HASHER)
        async with trio.open_nursery() as nursery:
            await nursery.start(books.run)
            for span in await partitions(books, "container", PART_POWER):
                leaves = (await books.digests("container", span)).leaves
                held = {leaf: [digest for _, digest in await books.leaf("container", span, leaf)] for leaf in leaves}
                assert {leaf: [digest] for leaf, digest in leaves.items()} == held
            nursery.cancel_scope.cancel()
    await device.close()


async def test_tables_that_fail_take_the_device_out_and_the_log_has_it_all(autojump_clock: MockClock) -> None:
    node = SimWorld().node
    medium = node.disk(ROOT)

    async def first(world: World) -> None:
        async with open_books(world) as books:
            await books.merge_header(header())
            await books.merge_rows(CONTAINER, [row("a")])
            medium.dead = True
            await trio.sleep(5)
            with pytest.raises(DeviceOutOfService):
                await books.merge_rows(CONTAINER, [row("b")])
            with pytest.raises(DeviceOutOfService):
                await books.book(CONTAINER)

    async def second(world: World) -> None:
        medium.heal()
        async with open_books(world) as books:
            assert await names(books) == (["a"], True)

    await node.run(first)
    node.restart()
    await node.run(second)


async def test_a_damaged_log_loses_only_what_was_harmed_and_is_kept(autojump_clock: MockClock) -> None:
    node = SimWorld().node
    medium = node.disk(ROOT)

    async def first(world: World) -> None:
        async with open_books(world) as books:
            await books.merge_header(header())
            await books.merge_rows(CONTAINER, [row("a")])
            at = len(medium.file("rows/00000001.log").durable)
            await books.merge_rows(CONTAINER, [row("b")])
            for content in (medium.file("rows/00000001.log").durable, medium.file("rows/00000001.log").content):
                content[at - 3] ^= 1
            node.crash(power=False)
            await trio.sleep(1)

    async def second(world: World) -> None:
        async with open_books(world) as books:
            assert await names(books) == (["b"], True)
            assert len(books.damage) == 1
            assert medium.file(REFILL_PATH)
            assert logs(medium) == ["rows/00000001.log.damaged"]

    await node.run(first)
    node.restart()
    await node.run(second)


async def test_a_cancelled_caller_disturbs_nobody(autojump_clock: MockClock) -> None:
    async with open_books(SimWorld()) as books:
        await books.merge_header(header())
        with trio.move_on_after(0.0001) as scope:
            await books.merge_rows(CONTAINER, [row("a")])
        assert scope.cancelled_caught
        with trio.move_on_after(0.0001):
            await books.flush()
        state = await books.merge_rows(CONTAINER, [row("b")])
        await books.flush()
        assert state is not None and state.count == 2  # it went its way


# ---- anti-entropy and reports


async def test_equal_content_has_equal_digests_whatever_the_history(autojump_clock: MockClock) -> None:
    rows = [row("a"), row("b"), row("a", 2), row("b", 3, deleted=True), row("l" * 600)]
    span = Span.of(HASHER.hash(CONTAINER), PART_POWER)
    async with open_books(SimWorld(1)) as one, open_books(SimWorld(2)) as other:
        for books in (one, other):
            await books.merge_header(header())
        for each in rows:
            await one.merge_rows(CONTAINER, [each])
            await one.flush()
        await other.merge_rows(CONTAINER, rows[1:][::-1])
        await one.flush()
        await other.flush()
        digests = [await books.digests("book", span) for books in (one, other)]
        assert digests[0] == digests[1] and digests[0].root != ZERO
        assert await one.digests("container", span) == digests[0]
        assert (await one.digests("account", span)).root == ZERO

        await other.merge_rows(CONTAINER, [row("c")])
        await other.flush()
        digests[1] = await other.digests("book", span)
        (leaf,) = differing(*digests)
        ((key, mine),), ((same_key, theirs),) = [await books.leaf("book", span, leaf) for books in (one, other)]
        assert key == same_key == HASHER.hash(CONTAINER) and mine != theirs
        assert await one.leaf("account", span, leaf) == []

        exported = await other.export(key)
        assert exported is not None and exported[0] == header()
        async for page in exported[1]:
            await one.merge_rows(CONTAINER, page)
        await one.flush()
        assert await one.digests("book", span) == digests[1]


async def test_partitions_are_those_with_books(autojump_clock: MockClock) -> None:
    async with open_books(SimWorld()) as books:
        paths = [Path("a", f"c{number}") for number in range(6)] + [Path("b")]
        for path in paths:
            await books.merge_header(header(path))
        for _ in range(2):
            for kind, of in (("book", paths), ("container", paths[:6]), ("account", paths[6:])):
                for part_power in (0, 1, PART_POWER, 13, 24):
                    expected = {Span.of(HASHER.hash(path), part_power) for path in of}
                    assert await partitions(books, kind, part_power) == sorted(expected)
            await books.merge_rows(paths[0], [row("a")])  # changes their digests, not which they are


async def test_export_gives_all_rows_in_pages(autojump_clock: MockClock) -> None:
    async with open_books(SimWorld()) as books:
        await books.merge_header(header())
        expected = [f"{number:05}" for number in range(2500)]
        await books.merge_rows(CONTAINER, [row(name) for name in expected])
        exported = await books.export(HASHER.hash(CONTAINER))
        assert exported is not None
        pages = [page async for page in exported[1]]
        assert [one.name for page in pages for one in page] == expected and len(pages) == 3


async def test_a_book_is_dropped_only_as_it_was_seen(autojump_clock: MockClock) -> None:
    node = SimWorld().node
    key = HASHER.hash(CONTAINER)
    span = Span.of(key, PART_POWER)

    async def first(world: World) -> None:
        async with open_books(world) as books:
            await books.merge_header(header())
            await books.merge_header(header(OTHER))
            await books.merge_rows(CONTAINER, [row(f"{number:05}") for number in range(2500)])
            await books.flush()
            ((_, seen),) = [pair for leaf in range(4096) for pair in await books.leaf("book", span, leaf) if pair[0] == key]
            await books.merge_rows(CONTAINER, [row("new")])
            assert not await books.drop(key, seen)
            state = await books.book(CONTAINER)
            assert state is not None and state.count == 2501
            await books.merge_rows(CONTAINER, [row("new")])  # logged, and changes nothing
            await books.flush()
            ((_, seen),) = [pair for leaf in range(4096) for pair in await books.leaf("book", span, leaf) if pair[0] == key]
            async with trio.open_nursery() as nursery:

                async def meanwhile() -> None:
                    with pytest.raises(Unavailable):
                        await books.merge_rows(CONTAINER, [row("too late")])

                async def drop() -> None:
                    assert await books.drop(key, seen)

                nursery.start_soon(drop)
                await trio.sleep(0.0001)
                nursery.start_soon(meanwhile)
            assert await books.book(CONTAINER) is None
            assert await books.book(OTHER) is not None
            assert [mark.row.name for mark in books.dirty(10)] == ["d"]
            node.crash(power=True)
            await trio.sleep(1)

    async def second(world: World) -> None:
        async with open_books(world) as books:
            assert books.damage == []
            assert await books.book(CONTAINER) is None
            other = Span.of(HASHER.hash(OTHER), PART_POWER)
            assert await partitions(books, "book", PART_POWER) == [other]
            assert other == span or (await books.digests("book", span)).root == ZERO
            assert (await open_device(world)).tables.scan("rows", limit=5) == []
            await books.merge_header(header())
            assert await names(books) == ([], True)

    await node.run(first)
    node.restart()
    await node.run(second)


async def test_a_container_owes_a_report_until_it_is_clean(autojump_clock: MockClock) -> None:
    node = SimWorld().node

    async def first(world: World) -> None:
        async with open_books(world) as books:
            await books.merge_header(header(ACCOUNT))
            assert books.dirty(10) == []
            await books.merge_header(header(created=7))
            await books.merge_header(header(OTHER))
            await books.merge_rows(CONTAINER, [row("a", size=5)])
            marks = books.dirty(10)
            assert [(m.account, m.row.name, m.row.timestamp, m.row.size, m.row.count, m.row.deleted) for m in marks] == [
                (ACCOUNT, "c", Timestamp(7), 5, 1, False),
                (ACCOUNT, "d", Timestamp(1), 0, 0, False),
            ]
            assert [mark.row.name for mark in books.dirty(1) + books.dirty(1) + books.dirty(1)] == ["c", "d", "c"]  # in turn
            await books.merge_rows(CONTAINER, [row("b", size=5)])
            books.clean(marks)
            assert [mark.row.name for mark in books.dirty(10)] == ["c"]  # it changed meanwhile
            await books.flush()
            node.crash(power=True)
            await trio.sleep(1)

    async def second(world: World) -> None:
        async with open_books(world) as books:
            assert [mark.row.name for mark in books.dirty(10)] == ["c"]
            books.clean(books.dirty(10))
            await trio.sleep(2)
            await books.merge_rows(CONTAINER, [row("a", size=5)])  # says nothing new
            node.crash(power=True)
            await trio.sleep(1)

    async def third(world: World) -> None:
        async with open_books(world) as books:
            assert books.dirty(10) == []
            await books.merge_header(BookHeader(CONTAINER, None, Timestamp(9)))
            ((mark),) = books.dirty(10)
            assert mark.row.deleted and mark.row.timestamp == Timestamp(9)

    for life in (first, second, third):
        await node.run(life)
        if not node.up:
            node.restart()


async def test_reports_of_replicas_settle_at_the_account(autojump_clock: MockClock) -> None:
    """A replica that missed the deletion reports later, and changes nothing."""
    world, stale_world = SimWorld(1), SimWorld(2)
    async with open_books(world) as books, open_books(stale_world) as stale:
        await books.merge_header(header(ACCOUNT))
        for each in (books, stale):
            await each.merge_header(header())
        await stale.merge_rows(CONTAINER, [row("a")])
        reports = [stale.dirty(1)[0].row]
        await books.merge_header(BookHeader(CONTAINER, None, Timestamp(2)))
        reports.append(next(mark.row for mark in books.dirty(9) if mark.row.name == "c"))
        await trio.sleep(5)
        reports.append(stale.dirty(1)[0].row)
        assert reports[2].etag > reports[1].etag
        for one in reports:
            state = await books.merge_rows(ACCOUNT, [one])
        assert state is not None and (state.count, state.objects) == (0, 0)


async def test_what_is_in_the_tables_goes_there_once_also_when_its_log_stays(autojump_clock: MockClock) -> None:
    """A segment cannot be removed after the commit: who asks again does not count the same rows a second time."""
    span = Span.of(HASHER.hash(CONTAINER), PART_POWER)
    node = SimWorld(1).node
    medium = node.disk(ROOT)

    async def first(world: World) -> None:
        async with open_books(world) as books:
            await books.merge_header(header())
            await books.merge_rows(CONTAINER, [row("a")])
            before, medium.root = medium.root, None  # the disk is unmounted: what is open goes on, names are gone
            for _ in range(2):
                with pytest.raises(DiskFault):
                    await books.flush()
            medium.root = before

    async def second(world: World) -> None:
        async with open_books(world) as books, open_books(SimWorld(2)) as other:
            await other.merge_header(header())
            await other.merge_rows(CONTAINER, [row("a")])
            for each in (books, other):
                await each.flush()
            assert await books.digests("book", span) == await other.digests("book", span)

    await node.run(first)
    node.restart()
    await node.run(second)
