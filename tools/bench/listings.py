"""Listings of one container as it grows: pages, inserts, and what is written to disk, through the facade.

    python -m tools.bench.listings [--rows 10000 --rows 1000000 ...] [--shard-rows 10000000] [--replicas 3] [--folder DIR]

A container for each number of rows, filled through the row merge in batches of 1,000 to a majority of its replicas (all of which
are devices of this process, on one disk, with the real logs and tables).  Names come in runs of neighbours, each run anywhere.
With more rows than ``--shard-rows`` the sharders cut it while it is filled.  Everything that waits is brought to rest before pages
are measured, so that they are of the same state at every size; inserts go on for ``--seconds`` after that.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from array import array
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path as FilePath

import click
import trio

from ring.daemon.log import Level, Log
from ring.daemon.metrics import Registry
from ring.daemon.pacing import Pacing
from ring.daemon.runner import Runner
from ring.device import Device
from ring.kv.memory import MemoryKV
from ring.names import NameHasher, Path
from ring.placement import Ring
from ring.service.overlap import Overlap
from ring.timestamp import Timestamp, TimestampSource
from ring.world.real import make_world
from storage.client.cluster import ClusterStorage
from storage.client.interface import Query, Row
from storage.client.local import LocalNode
from storage.client.payer import RowPayer
from storage.client.reach import Rings
from storage.container.sharder import Limits, Sharder
from storage.container.shards import ShardMap, map_of, shard_path
from storage.object.device import format_device, open_device
from storage.object.store import ObjectStore
from storage.rows.books import Books
from tools.bench.figures import machine

HASHER = NameHasher(b"", b"")
CONTAINER = Path("AUTH_bench", "photos")
ETAG = "d41d8cd98f00b204e9800998ecf8427e"
BATCH_ROWS = 1000
PAGE_ROWS = 1000
PAGES = 60
WRITERS = 16
STEP = 7_368_787  # a prime: n * STEP mod count comes by every n
PROGRESS_S = 10.0
MAP_S = 1.0


@dataclass
class Figures:
    rows: int
    shards: int
    fill_per_s: float
    rest_s: float  # until everything was forwarded and in the tables
    fill_bytes: float  # written, per row and replica
    page_ms: float
    page_cpu_ms: float
    reverse_ms: float
    insert_per_s: float
    insert_bytes: float


@dataclass
class Cloud:
    storage: ClusterStorage
    books: list[Books]
    shard_rows: int
    map: ShardMap | None = None
    map_until: float = 0.0

    async def give(self, rows: list[Row]) -> None:
        """As front doors do: to the shard that a map of the last second names, else to the root."""
        if trio.current_time() > self.map_until:
            state = await self.storage.sharding.state(CONTAINER)
            assert state is not None
            self.map, self.map_until = map_of(state.header.metadata), trio.current_time() + MAP_S
        groups: dict[Path, list[Row]] = {}
        for row in rows:
            shard = self.map.place(row.name) if self.map is not None else None
            place = shard_path(CONTAINER, shard.name) if shard is not None and shard.active else CONTAINER
            groups.setdefault(place, []).append(row)
        for place, some in groups.items():
            if not await self.storage.sharding.give(place, some):
                assert await self.storage.sharding.give(CONTAINER, some)

    async def rest(self) -> float:
        begun = time.perf_counter()
        while True:
            for books in self.books:
                await books.flush()
            state = await self.storage.sharding.state(CONTAINER)
            assert state is not None
            self.map = map_of(state.header.metadata)
            waiting = [books for books in self.books if (await _left(books))]
            over = state.count if self.map is None else max((await self._largest()), 0)
            if not waiting and (self.map is None or self.map.settled) and over <= self.shard_rows:
                return time.perf_counter() - begun
            await trio.sleep(0.5)

    async def _largest(self) -> int:
        assert self.map is not None
        states = [await self.storage.sharding.state(shard_path(CONTAINER, shard.name)) for shard in self.map.shards]
        return max(state.count for state in states if state is not None)


async def _left(books: Books) -> bool:
    """Whether rows are in transit on this device."""
    state = await books.book(CONTAINER)
    if state is None or map_of(state.header.metadata) is None:
        return False
    page = await books.rows(CONTAINER, start="", end="", limit=1, reverse=False)
    return page is not None and bool(page.rows)


def row(number: int, ticks: int = 1) -> Row:
    return Row(f"photos/2024/{number:09d}.jpg", Timestamp(170_000_000_000_000 + ticks), 4096, ETAG, "image/jpeg")


@asynccontextmanager
async def cloud(folder: str, replicas: int, shard_rows: int) -> AsyncIterator[Cloud]:
    world = make_world()
    devices = [Device(number, 1, number, f"n{number}", 6200, f"d{number}", 1.0) for number in range(replicas)]
    ring = Ring(1, 4, tuple(devices), tuple(array("H", [(p + r) % replicas for p in range(16)]) for r in range(replicas)), HASHER)
    overlap = Overlap.of(ring)
    nodes: dict[int, LocalNode] = {}
    kv = MemoryKV()
    log = Log(lambda line: click.echo(line, err=True), world.clock, level=Level.WARNING)
    async with trio.open_nursery() as nursery:
        payer = RowPayer(nursery, nodes.get)
        rings = Rings(overlap, overlap, {0: overlap})
        storage = ClusterStorage(world, nursery, rings, lambda device: nodes[device.id], TimestampSource(world.clock))
        opened_all, all_books = [], []
        for device in devices:
            root = f"{folder}/d{device.id}"
            disk = world.open_disk(root)
            await disk.make_dirs("")
            await format_device(disk, "bench", device.id)
            opened = await open_device(world, root, "bench", device.id)
            store, books = ObjectStore(world, opened, HASHER), Books(world, opened, HASHER)
            await nursery.start(store.run)
            await nursery.start(books.run)
            nodes[device.id] = LocalNode(device, store, books, payer)
            limits = Limits(rows=shard_rows)
            sharder = Sharder(world, device, books, lambda: overlap, storage.sharding, kv, limits=limits)
            nursery.start_soon(Runner(sharder, Pacing(), world.clock, log, Registry()).run)
            opened_all.append(opened)
            all_books.append(books)
        await storage.put_container(CONTAINER, {})
        yield Cloud(storage, all_books, shard_rows)
        nursery.cancel_scope.cancel()
    for opened in opened_all:
        await opened.close()


async def measure(folder: str, count: int, replicas: int, shard_rows: int, seconds: float, show: Callable[[str], None]) -> Figures:
    async with cloud(folder, replicas, shard_rows) as at:
        written, begun = written_bytes(folder), time.perf_counter()
        shown = begun
        for start in range(0, count, BATCH_ROWS):
            # runs of neighbours, each run anywhere: as uploads of folders come
            first = (start // BATCH_ROWS * STEP) % (-(-count // BATCH_ROWS)) * BATCH_ROWS
            await at.give([row(number) for number in range(first, min(count, first + BATCH_ROWS))])
            if time.perf_counter() - shown > PROGRESS_S:
                shown = time.perf_counter()
                rate = (start + BATCH_ROWS) / (shown - begun)
                show(f"  {start + BATCH_ROWS:,} of {count:,} rows, {rate:,.0f} a second, {(count - start) / rate:,.0f} s to go")
        fill_s = time.perf_counter() - begun
        rest_s = await at.rest()
        fill_bytes = (written_bytes(folder) - written) / count / replicas
        listed = await at.storage.list_container(CONTAINER, Query(limit=PAGE_ROWS))
        assert len(listed.items) == min(PAGE_ROWS, count)
        page_ms, page_cpu_ms = await pages(at, count, reverse=False)
        reverse_ms, _ = await pages(at, count, reverse=True)
        written = written_bytes(folder)
        inserted, insert_per_s = await inserts(at, count, seconds)
        for books in at.books:
            await books.flush()
        insert_bytes = (written_bytes(folder) - written) / inserted / replicas
        shards = len(at.map.shards) if at.map is not None else 0
        return Figures(
            count, shards, count / fill_s, rest_s, fill_bytes, page_ms, page_cpu_ms, reverse_ms, insert_per_s, insert_bytes
        )


async def pages(at: Cloud, count: int, *, reverse: bool) -> tuple[float, float]:
    """Median ms, and ms of cpu, of pages of 1,000 from places all over the listing."""
    wall, cpu = [], []
    for number in range(PAGES):
        place = number * STEP % max(1, count - PAGE_ROWS)
        query = Query(marker=row(place + (PAGE_ROWS if reverse else 0)).name, limit=PAGE_ROWS, reverse=reverse)
        begun, spent = time.perf_counter(), time.process_time()
        page = await at.storage.list_container(CONTAINER, query)
        wall.append(time.perf_counter() - begun)
        cpu.append(time.process_time() - spent)
        assert len(page.items) >= min(PAGE_ROWS, count) - 1, (len(page.items), query)
    return statistics.median(wall) * 1e3, statistics.median(cpu) * 1e3


async def inserts(at: Cloud, count: int, seconds: float) -> tuple[int, float]:
    """How many rows, and rows a second: new names all over the listing, from so many writers, a batch of 16 each."""
    deadline = trio.current_time() + seconds
    inserted = 0

    async def writer(number: int) -> None:
        nonlocal inserted
        turn = number
        while trio.current_time() < deadline:
            rows = [row((turn * 16 + one) * STEP % count, 2) for one in range(16)]
            await at.give([Row(f"{one.name}-{turn}", one.timestamp, one.size, one.etag, one.content_type) for one in rows])
            turn += WRITERS
            inserted += len(rows)

    begun = time.perf_counter()
    async with trio.open_nursery() as nursery:
        for number in range(WRITERS):
            nursery.start_soon(writer, number)
    return inserted, inserted / (time.perf_counter() - begun)


def written_bytes(folder: str) -> int:
    """What was written to the folder's disk, by all processes of the machine: have nothing else running.

    Not write_bytes of proc(5): kernels with large folios count many times there what a page of 4 KiB in the middle of a file is.
    0 where there is no disk."""
    device = os.stat(folder).st_dev
    stat = FilePath(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/stat")
    if not stat.exists():
        return 0  # a file system in memory
    return 512 * int(stat.read_text().split()[6])


def table(all_figures: list[Figures]) -> str:
    """Markdown."""
    lines = [
        "| rows | shards | fill, rows/s | to rest, s | written per row, bytes | page of 1,000, ms | cpu, ms | reverse, ms "
        "| to the first | inserts/s | written per insert, bytes |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for one in all_figures:
        cells = [
            f"{one.rows:,}",
            str(one.shards),
            f"{one.fill_per_s:,.0f}",
            f"{one.rest_s:.0f}",
            f"{one.fill_bytes:,.0f}",
            f"{one.page_ms:.2f}",
            f"{one.page_cpu_ms:.2f}",
            f"{one.reverse_ms:.2f}",
            f"{one.page_ms / all_figures[0].page_ms:.2f}x",
            f"{one.insert_per_s:,.0f}",
            f"{one.insert_bytes:,.0f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


async def bench(folder: str, sizes: tuple[int, ...], replicas: int, shard_rows: int, seconds: float) -> None:
    click.echo(machine(folder))
    found = []
    for count in sizes:
        with tempfile.TemporaryDirectory(dir=folder) as place:
            found.append(await measure(place, count, replicas, shard_rows, seconds, lambda line: click.echo(line, err=True)))
        click.echo(table(found[-1:]).splitlines()[-1])
    click.echo(f"\n{replicas} replicas on one disk, shards of {shard_rows:,} rows at most\n")
    click.echo(table(found))


@click.command()
@click.option(
    "--folder", type=click.Path(file_okay=False, exists=True), help="on the disk to measure; temporary ones below it are used"
)
@click.option("--rows", multiple=True, default=(10_000, 1_000_000), show_default=True)
@click.option("--replicas", default=3, show_default=True)
@click.option("--shard-rows", default=10_000_000, show_default=True)
@click.option("--seconds", default=5.0, show_default=True, help="of inserts")
def main(folder: str | None, rows: tuple[int, ...], replicas: int, shard_rows: int, seconds: float) -> None:
    """Pages, inserts and bytes written of a container of so many rows."""
    trio.run(bench, folder or tempfile.gettempdir(), rows, replicas, shard_rows, seconds)


if __name__ == "__main__":
    main()
