"""A fault at every step of letting go of a row's tombstone: it is there or is not; what it hid is not; sums and digests agree.

What the tombstone hid came once more when it was there already: it lies in the log, and did nothing.  A start that replays it must
not find the tombstone gone.
"""

from __future__ import annotations

import pytest

from ring.errors import DiskFault, FormatError, Unavailable
from ring.names import Path, Span
from ring.timestamp import Timestamp
from ring.world.interface import World
from ring.world.sim import SimNode, Simulation, run
from storage.client.interface import Row
from storage.client.node import BookHeader
from storage.rows.books import Books
from tests.storage.faults import FAULTS, Trip
from tests.storage.rows.device import ROOT, open_books

BOOK = Path("a", "c")
HEADER = BookHeader(BOOK, Timestamp(1), None)
STAYS, OLD, DEAD = (
    Row("stays", Timestamp(50), 3, "e"),
    Row("gone", Timestamp(100), 5, "e"),
    Row("gone", Timestamp(200), deleted=True),
)
MARK = 500


async def prepare(books: Books) -> None:
    await books.merge_header(HEADER)
    await books.merge_rows(BOOK, [STAYS, OLD, DEAD])
    await books.flush()
    await books.merge_rows(BOOK, [OLD])


async def reclaim(books: Books) -> None:
    """As a walk of storage.container.reclaimer does, and the one after it that finds the device clean."""
    await books.partition_from("container", b"", 4)
    await books.let_go(BOOK, [DEAD])
    await books.flush()
    await books.standing.move("container", MARK)


async def root_of(books: Books) -> bytes:
    await books.flush()
    return (await books.digests("container", Span(0, 0))).root


async def _roots() -> dict[bool, bytes]:
    """Of a device that never knew more, by whether it has the tombstone."""
    found = {}
    for number, dead in enumerate((True, False)):
        node = Simulation(number).node("n")
        async with open_books(node.world) as books:
            await books.merge_header(HEADER)
            await books.merge_rows(BOOK, [STAYS, *([DEAD] if dead else [])])
            found[dead] = await root_of(books)
    return found


async def _check(books: Books, roots: dict[bool, bytes]) -> None:
    page = await books.rows(BOOK, start="", end="", limit=10, reverse=False)
    assert page is not None and list(page.rows) in ([DEAD, STAYS], [STAYS])
    dead = len(page.rows) == 2
    assert (page.state.count, page.state.bytes_used) == (1, 3)
    assert await root_of(books) == roots[dead]
    assert not books.damage
    if books.standing.mark("container"):
        assert books.standing.mark("container") == MARK and not dead


async def _play(node: SimNode, fault: str, at: int) -> bool:
    """Whether there are so many operations that the fault happened."""
    roots = await _roots()
    medium, trip = node.disk(ROOT), Trip(node, fault, at)

    async def life(world: World) -> None:
        try:
            async with open_books(world) as books:
                await prepare(books)
                medium.trip = trip
                await reclaim(books)
                medium.trip = None
        except* (DiskFault, Unavailable, FormatError, OSError):
            pass  # the next start goes on

    await node.run(life)
    medium.trip = None
    if node.up:
        node.crash(power=True)
    node.restart()
    for _ in range(2):
        async with open_books(node.world) as books:
            await _check(books, roots)
    return trip.tripped


@pytest.mark.parametrize("fault", FAULTS)
def test_a_tombstone_that_goes_does_not_show_what_it_hid(fault: str) -> None:
    at = 1
    while run(at, _play, Simulation(at).node("n"), fault, at):
        at += 1
    assert at > 3  # the log's segments, the mark


async def _damage(node: SimNode, fault: str, at: int) -> bool:
    """A start that finds the log damaged takes the mark back, wherever it is cut off: a deletion may be what is missing."""
    medium, trip = node.disk(ROOT), Trip(node, fault, at)
    async with open_books(node.world) as books:
        await prepare(books)
        await books.merge_rows(BOOK, [STAYS])  # or the damage would be a torn end
        await books.standing.move("container", MARK)
    (path,) = [path for path in medium.files() if path.endswith(".log")]
    file = medium.file(path)
    file.content[60] ^= 1
    file.durable = bytearray(file.content)

    async def life(world: World) -> None:
        medium.trip = trip
        try:
            async with open_books(world):
                pass
        except* (DiskFault, Unavailable, FormatError, OSError):
            pass

    await node.run(life)
    medium.trip = None
    if node.up:
        node.crash(power=True)
    node.restart()
    async with open_books(node.world) as books:
        assert books.standing.mark("container") == 0
    return trip.tripped


@pytest.mark.parametrize("fault", FAULTS)
def test_a_start_that_finds_damage_takes_the_mark_back(fault: str) -> None:
    at = 1
    while run(at, _damage, Simulation(at).node("n"), fault, at):
        at += 1
    assert at > 3
