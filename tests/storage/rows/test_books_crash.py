"""Books against a dict, through crashes, failing syncs and full disks, by seed.

What was acknowledged, or was seen, is never older afterwards; sums and digests are those of the rows that are there.
"""

from __future__ import annotations

import random

import pytest
import trio

from ring.errors import DiskFault, Unavailable
from ring.names import Path, Span
from ring.timestamp import Timestamp
from ring.world.interface import World
from ring.world.sim import Medium, SimNode, Simulation, run
from storage.client.interface import Row
from storage.client.node import BookHeader
from storage.rows.books import Books
from storage.rows.merge import merge_headers, newest
from tests.storage.rows.device import HASHER, PART_POWER, ROOT, open_books

BOOKS = (Path("a"), Path("a", "c"), Path("a", "d"))
NAMES = ["a", "b", "c", "é" * 300, "x" * 100, "x" * 250]  # what an account may hold is shorter
LONG_NAMES = ["l" * 494, "l" * 495, "l" * 600 + "a", "l" * 1024]
LIVES = 4


class Model:
    """What must be there: acknowledged or seen; and what may be: tried."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.headers: dict[Path, BookHeader] = {}
        self.rows: dict[tuple[Path, str], Row] = {}
        self.tried: dict[tuple[Path, str], list[Row]] = {}

    def draw(self, book: Path) -> Row:
        rng = self.rng
        name = rng.choice(NAMES[:3] + NAMES[4:] + (NAMES[3:4] + LONG_NAMES if book.container else []))
        ticks, deleted = rng.randrange(1, 50), rng.random() < 0.3
        row = Row(name, Timestamp(ticks), rng.randrange(9), rng.choice("xy"), "t", rng.randrange(3), deleted)
        self.tried.setdefault((book, name), []).append(row)
        return row

    def acknowledge(self, book: Path, row: Row) -> None:
        held = self.rows.get((book, row.name))
        self.rows[book, row.name] = row if held is None else newest([held, row])

    async def check(self, books: Books) -> None:
        for book in BOOKS:
            state = await books.book(book)
            if state is None:
                assert book not in self.headers
                continue
            if book in self.headers:
                assert merge_headers(self.headers[book], state.header) == state.header
            self.headers[book] = state.header
            found: dict[str, Row] = {}
            for reverse in (False, True):
                page = await books.rows(book, start="", end="", limit=1000, reverse=reverse)
                assert page is not None and page.complete and page.state == state
                names = [row.name for row in page.rows]
                assert names == sorted(names, reverse=reverse)
                assert not found or found == {row.name: row for row in page.rows}
                found = {row.name: row for row in page.rows}
            for (of, name), row in self.rows.items():
                if of == book:
                    assert newest([row, found[name]]) == found[name]
            for name, row in found.items():
                assert row in self.tried[book, name]
                self.rows[book, name] = row
            live = [row for row in found.values() if not row.deleted]
            sums = (len(live), sum(row.size for row in live), sum(row.count for row in live))
            assert (state.count, state.bytes_used, state.objects) == sums

    async def check_digests(self, books: Books) -> None:
        """Equal to those of a device that got the same by another way."""
        await books.flush()
        async with open_books(Simulation(0).node("other").world) as fresh:
            for book, header in self.headers.items():
                await fresh.merge_header(header)
                await fresh.merge_rows(book, [row for (of, _), row in self.rows.items() if of == book])
            await fresh.flush()
            for book in BOOKS:
                span = Span.of(HASHER.hash(book), PART_POWER)
                assert await books.digests("book", span) == await fresh.digests("book", span)


async def client(model: Model, books: Books) -> None:
    rng = model.rng
    while True:
        book = rng.choice(BOOKS)
        try:
            if rng.random() < 0.1:
                header = BookHeader(book, Timestamp(rng.randrange(9)), Timestamp(rng.randrange(9)) if rng.random() < 0.3 else None)
                await books.merge_header(header)
                held = model.headers.get(book)
                model.headers[book] = header if held is None else merge_headers(held, header)
            else:
                rows = [model.draw(book) for _ in range(rng.choice([1, 1, 5]))]
                if await books.merge_rows(book, rows) is not None:
                    for row in rows:
                        model.acknowledge(book, row)
                else:
                    assert book not in model.headers
        except (DiskFault, Unavailable):
            await trio.sleep(0.01)
        await trio.sleep(rng.expovariate(1 / 0.002))


async def nemesis(model: Model, node: SimNode, medium: Medium) -> None:
    rng = model.rng
    while True:
        await trio.sleep(rng.expovariate(1 / 0.3))
        match rng.randrange(5):
            case 0:
                medium.sync_errors = 1
            case 1:
                medium.room_bytes = rng.randrange(2000)
            case 2:
                medium.room_bytes = None
            case 3:
                medium.slow_s = rng.choice([0.0, 0.05])
            case _:
                node.crash()


async def history(seed: int) -> None:
    model = Model(seed)
    node = Simulation(seed).node("n")
    medium = node.disk(ROOT)

    async def life(world: World) -> None:
        async with open_books(world) as books:
            await model.check(books)
            with trio.move_on_after(3):
                async with trio.open_nursery() as nursery:
                    for _ in range(4):
                        nursery.start_soon(client, model, books)
                    nursery.start_soon(nemesis, model, node, medium)
            if model.rng.random() < 0.5:  # else the next life finds what this one left in its log
                await model.check(books)

    async def last(world: World) -> None:
        async with open_books(world) as books:
            await model.check(books)
            await model.check_digests(books)
            assert books.damage == []

    for _ in range(LIVES):
        medium.heal()
        await node.run(life)
        if not node.up:
            node.restart()
    medium.heal()
    await node.run(last)
    assert node.up and model.rows


@pytest.mark.parametrize("seed", range(16))
def test_acknowledged_rows_survive(seed: int) -> None:
    run(seed, history, seed)
