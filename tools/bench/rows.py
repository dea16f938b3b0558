"""Rows of one device: merges per second, and the cpu of a listing page.

    python -m tools.bench.rows [--folder DIR] [--rows 100000] [--seconds 2]

Measures storage.rows.books on the real world (its fsync is that of the folder's disk) and storage.container.listing on top.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import click
import trio

from ring.names import NameHasher, Path
from ring.timestamp import Timestamp
from ring.world.real import make_world
from storage.client.interface import Query, Row
from storage.client.node import BookHeader
from storage.container.listing import ListingMerge
from storage.object.device import TABLE_NAMES, Label, OpenDevice
from storage.rows.books import Books

CONTAINER = Path("AUTH_bench", "photos")
ETAG = "d41d8cd98f00b204e9800998ecf8427e"


def row(number: int, ticks: int = 1) -> Row:
    return Row(
        f"photos/2024/{number:08d}.jpg", Timestamp(170_000_000_000_000 + ticks), 4096 + number, ETAG, "application/octet-stream"
    )


async def merges(books: Books, waiting: int, seconds: float, start: int) -> tuple[float, float, int]:
    """Rows per second and ms of cpu per row with ``waiting`` merges of one row under way; the next free row number."""
    number = start
    deadline = trio.current_time() + seconds

    async def one() -> None:
        nonlocal number
        while trio.current_time() < deadline:
            number += 1
            await books.merge_rows(CONTAINER, [row(number)])

    wall, cpu = time.perf_counter(), time.process_time()
    async with trio.open_nursery() as nursery:
        for _ in range(waiting):
            nursery.start_soon(one)
    count = number - start
    return count / (time.perf_counter() - wall), (time.process_time() - cpu) / count * 1e3, number


async def page_cpu(books: Books, query: Query, replicas: int, times: int = 50) -> float:
    """Median ms of cpu of one page merged from ``replicas`` (the same device asked so often)."""
    taken = []
    for _ in range(times):
        begin = time.process_time()
        merge = ListingMerge(query)
        while (fetch := merge.next_fetch()) is not None:
            pages = []
            for _ in range(replicas):
                page = await books.rows(CONTAINER, start=fetch.start, end=fetch.end, limit=fetch.limit, reverse=fetch.reverse)
                assert page is not None
                pages.append(page)
            merge.receive(pages)
        assert len(merge.page().items) == query.limit
        taken.append(time.process_time() - begin)
    return statistics.median(taken) * 1e3


async def fill(books: Books, count: int, first: int = 0) -> float:
    """Rows per second, merged 1,000 at once, until all are in the tables."""
    begin = time.perf_counter()
    for start in range(first, count, 1000):
        await books.merge_rows(CONTAINER, [row(n) for n in range(start, min(count, start + 1000))])
    await books.flush()
    return (count - first) / (time.perf_counter() - begin)


@asynccontextmanager
async def bench_books(folder: str) -> AsyncIterator[Books]:
    """One container on a device in ``folder``."""
    world = make_world()
    disk = world.open_disk(folder)
    device = OpenDevice(disk, await disk.open_tables("tables", TABLE_NAMES), 1, Label("bench", 1))
    books = Books(world, device, NameHasher(b"", b""))
    async with trio.open_nursery() as nursery:
        await nursery.start(books.run)
        await books.merge_header(_header())
        yield books
        nursery.cancel_scope.cancel()
    await device.close()


async def bench(folder: str, rows: int, seconds: float, show: Callable[[str], None]) -> None:
    async with bench_books(folder) as books:
        number = rows
        for waiting in (1, 16, 64):
            rate, cpu, number = await merges(books, waiting, seconds, number)
            show(f"merge, {waiting:3} waiting   {rate:10,.0f} rows/s   {cpu:7.3f} ms cpu/row")
        show(f"merge, 1,000 at once {await fill(books, rows):10,.0f} rows/s")
        middle = row(rows // 2).name
        for replicas in (1, 2):
            cpu = await page_cpu(books, Query(marker=middle, limit=1000), replicas)
            show(f"page of 1,000 out of {rows:,}, {replicas} replicas   {cpu:6.2f} ms cpu")
        await books.merge_rows(CONTAINER, [row(n, 2) for n in range(rows // 2, rows // 2 + 500, 50)])
        cpu = await page_cpu(books, Query(marker=middle, limit=1000), 2)
        show(f"  the same, 10 of them only in the overlay   {cpu:6.2f} ms cpu")


def _header() -> BookHeader:
    return BookHeader(CONTAINER, Timestamp(1), None)


@click.command()
@click.option(
    "--folder", type=click.Path(file_okay=False, exists=True), help="on the disk to measure; a temporary one below it is used"
)
@click.option("--rows", default=100_000, show_default=True)
@click.option("--seconds", default=2.0, show_default=True, help="for each number of waiting merges")
def main(folder: str | None, rows: int, seconds: float) -> None:
    """Merges per second and the cpu of a listing page, on one device."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        trio.run(bench, place, rows, seconds, click.echo)


if __name__ == "__main__":
    main()
