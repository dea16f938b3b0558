"""What one device does per second, what it costs in cpu, and what it costs the disk (``make bench-storage``).

    python -m tools.bench.storage [FOLDER] [--quick] [--full] [--json] [--page FILE]

On the disk of FOLDER (default: the current folder), in a temporary folder below it.  Packs are measured against a file for each
object in the same rounds; every figure is the median of its rounds.  The machine is shared with whatever else runs: compare cpu
and ratios.  ``--page`` writes the tables between the markers of a page (docs/performance/storage.md).  ``--quick``: one round,
two minutes; ``--full``: also a listing of 10^7 rows.

Neighbours: packs, rows, listings (each measures one room by itself), plainfiles (what packs are compared with), figures (tables).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path as FilePath

import trio

from ring.daemon.worker import Busy
from storage.client.bodies import loaded
from storage.object.auditor import Auditor
from storage.object.store import ObjectStore
from tools.bench import listings, packs, rows
from tools.bench.figures import Table, machine, together, write_between
from tools.bench.listings import written_bytes
from tools.bench.plainfiles import PlainFiles

PARTS = ("small", "large", "upkeep", "merges", "churn", "listings")
WRITERS = (1, 16, 64)
CHUNK_BYTES = 1 << 20
SHARD_ROWS = 10_000_000  # as in a cloud that nobody has tuned
MB = 1e6
BLOCK = os.urandom(CHUNK_BYTES)


@dataclass(frozen=True, slots=True)
class Scale:
    """How much of everything."""

    rounds: int
    seconds: float  # of each rate
    large: int  # bodies a round
    objects: int  # for scrub and rebuild
    churn_rounds: int
    listings: tuple[int, ...]  # rows
    large_bytes: int = 64 << 20
    churn_objects: int = packs.CHURN_OBJECTS


NORMAL = Scale(rounds=5, seconds=1.0, large=6, objects=50_000, churn_rounds=6, listings=(10_000, 1_000_000))
QUICK = Scale(rounds=1, seconds=0.5, large=2, objects=10_000, churn_rounds=2, listings=(10_000, 100_000))


class Bench:
    def __init__(self, folder: str, scale: Scale, say: Callable[[str], None], only: Collection[str] = ()) -> None:
        self._folder = folder
        self._only = frozenset(only or PARTS)
        self._scale = scale
        self._say = say
        self.small = Table(
            "Durable PUTs of 4 KiB a second",
            (
                "packs",
                "files",
                "packs / files",
                "packs, us cpu each",
                "files, us cpu each",
                "files / packs in cpu",
                "records a sync",
            ),
            note="(bodies that do not compress; cpu of all threads)",
        )
        self.bulk = Table("Many bytes", ("MB/s", "ms cpu a MB"))
        self.index = Table("The index made anew from the log", ("objects/s", "us cpu each"))
        self.rows = Table("Rows of listings", ("rows/s", "us cpu each", "bytes to disk each"), note="(one device, durable)")
        self.pages = Table(
            "Pages of 1,000 out of a container",
            ("ms", "ms cpu", "to the first line", "backwards, ms", "rows/s filled", "bytes to disk a row"),
        )
        self.churn = Table(
            "Bytes in packs for each that is alive",
            ("after the last round", "worst", "moved / written", "MB/s compacted", "ms cpu a MB"),
        )

    @property
    def tables(self) -> list[Table]:
        return [self.small, self.bulk, self.index, self.rows, self.pages, self.churn]

    async def run(self) -> None:
        for number in range(1, self._scale.rounds + 1):
            for part in (self._small, self._large, self._upkeep, self._merges):
                if part.__name__.strip("_") not in self._only:
                    continue
                place = os.path.join(self._folder, f"{part.__name__.strip('_')}-{number}")
                os.mkdir(place)
                begin = time.perf_counter()
                await part(place)
                if part != self._small:  # many small files go slowly on some disks, and would be in the way of what follows
                    await trio.to_thread.run_sync(shutil.rmtree, place)
                self._say(
                    f"round {number} of {self._scale.rounds}: {part.__name__.strip('_')}, {time.perf_counter() - begin:.0f} s"
                )
        if "churn" in self._only:
            await self._churn()
            self._say("churn")
        if "listings" in self._only:
            await self._listings()
            self._say("listings")

    # ---- small objects

    async def _small(self, place: str) -> None:
        plain = PlainFiles(os.path.join(place, "plain"))
        total = 0
        async with packs.bench_device(place, "packs") as (_, store):
            for writers in WRITERS:
                batches, records = store.packs.batches, store.packs.records
                count, seconds, cpu = await packs.puts(store, writers, total, packs.NOISE, self._scale.seconds)
                total += count
                size = (store.packs.records - records) / max(1, store.packs.batches - batches)
                files, files_s, files_cpu = await trio.to_thread.run_sync(plain.puts, writers, packs.NOISE, self._scale.seconds)
                self.small.put(
                    f"{writers} at once",
                    {
                        "packs": count / seconds,
                        "files": files / files_s,
                        "packs / files": (count / seconds) / (files / files_s),
                        "packs, us cpu each": 1e6 * cpu / count,
                        "files, us cpu each": 1e6 * files_cpu / files,
                        "files / packs in cpu": (files_cpu / files) / (cpu / count),
                        "records a sync": size,
                    },
                )

    # ---- large objects

    async def _large(self, place: str) -> None:
        count, size = self._scale.large, self._scale.large_bytes
        async with packs.bench_device(place, "large") as (world, store):
            begin, cpu = time.perf_counter(), time.process_time()
            for number in range(count):
                version = packs.version_of(number, size)
                upload = await store.put_large(version.path, size)
                for _ in range(size // CHUNK_BYTES):
                    await upload.write(BLOCK)
                await upload.commit(version, None)
            self._bulk("write of 64 MiB bodies, durable", count * size / MB, begin, cpu)
            await self._read(store, "read of 64 MiB bodies, checked, from the page cache")
            _forget(place)
            await self._read(store, "read of 64 MiB bodies, checked, from the disk")
            _forget(place)
            await self._scrub(Auditor(world, store, interval_s=0.0), "scrub of 64 MiB files, from the disk")

    async def _read(self, store: ObjectStore, line: str) -> None:
        begin, cpu = time.perf_counter(), time.process_time()
        for number in range(self._scale.large):
            reading = await store.get(packs.version_of(number).path, None, 0, None)
            assert reading is not None
            size = 0
            async for piece in reading.pieces:
                size += len(await loaded(piece))
            assert size == self._scale.large_bytes
        self._bulk(line, self._scale.large * self._scale.large_bytes / MB, begin, cpu)

    async def _scrub(self, auditor: Auditor, line: str) -> None:
        """One pass.  Units that read no bytes (a look into each of the 4,096 folders) are not counted: they cost the same
        whatever the device holds."""
        seconds = cpu_s = done_bytes = 0.0
        begun = False
        while True:
            begin, cpu = time.perf_counter(), time.process_time()
            done = await auditor.work()
            if not isinstance(done, Busy):
                if begun:
                    break
                continue
            begun = True
            if done.done_bytes:
                seconds, cpu_s = seconds + time.perf_counter() - begin, cpu_s + time.process_time() - cpu
                done_bytes += done.done_bytes
        assert auditor.damaged == 0
        self.bulk.put(line, {"MB/s": done_bytes / MB / seconds, "ms cpu a MB": 1e3 * cpu_s / (done_bytes / MB)})

    def _bulk(self, line: str, megabytes: float, begin: float, cpu: float) -> None:
        self.bulk.put(
            line,
            {
                "MB/s": megabytes / (time.perf_counter() - begin),
                "ms cpu a MB": 1e3 * (time.process_time() - cpu) / megabytes,
            },
        )

    # ---- scrub and rebuild

    async def _upkeep(self, place: str) -> None:
        count = self._scale.objects
        async with packs.bench_device(place, "upkeep") as (_, store):
            await packs.overwrite(store, range(count), 10**14)
        for where in ("page cache", "disk"):
            if where == "disk":
                _forget(place)
            async with packs.bench_device(place, "upkeep") as (world, store):
                await self._scrub(Auditor(world, store, interval_s=0.0), f"scrub of packs, from the {where}")
        shutil.rmtree(os.path.join(place, "upkeep", "tables"))
        begin, cpu = time.perf_counter(), time.process_time()
        async with packs.bench_device(place, "upkeep") as (_, store):
            seconds, cpu_s = time.perf_counter() - begin, time.process_time() - cpu
            assert store.report.rebuilt and store.report.replayed == count
        self.index.put("4 KiB each", {"objects/s": count / seconds, "us cpu each": 1e6 * cpu_s / count})

    # ---- rows

    async def _merges(self, place: str) -> None:
        async with rows.bench_books(place) as books:
            number = 0
            for waiting in WRITERS:
                written = written_bytes(place)
                rate, cpu_ms, after = await rows.merges(books, waiting, self._scale.seconds, number)
                await books.flush()
                each = (written_bytes(place) - written) / (after - number)
                number = after
                self.rows.put(
                    f"{waiting} waiting, one row each",
                    {"rows/s": rate, "us cpu each": 1e3 * cpu_ms, "bytes to disk each": each},
                )

    async def _listings(self) -> None:
        first = 0.0
        for count in self._scale.listings:
            place = os.path.join(self._folder, f"listing-{count}")
            os.mkdir(place)
            found = await listings.measure(place, count, 1, SHARD_ROWS, self._scale.seconds, self._say)
            first = first or found.page_ms
            self.pages.put(
                f"{count:,} rows",
                {
                    "ms": found.page_ms,
                    "ms cpu": found.page_cpu_ms,
                    "to the first line": found.page_ms / first,
                    "backwards, ms": found.reverse_ms,
                    "rows/s filled": found.fill_per_s,
                    "bytes to disk a row": found.fill_bytes,
                },
            )
            await trio.to_thread.run_sync(shutil.rmtree, place)

    # ---- space

    async def _churn(self) -> None:
        for compacting in (False, True):
            found = await packs.churned(
                self._folder, compacting=compacting, rounds=self._scale.churn_rounds, objects=self._scale.churn_objects
            )
            values = {"after the last round": found.ratios[-1], "worst": max(found.ratios)}
            if compacting:
                values |= {
                    "moved / written": found.moved_bytes / found.written_bytes,
                    "MB/s compacted": found.mb_per_s,
                    "ms cpu a MB": found.cpu_ms_per_mb,
                }
            what = "with" if compacting else "without"
            self.churn.put(f"{what} compaction, all overwritten {self._scale.churn_rounds} times at random", values)


def _forget(folder: str) -> None:
    """Have the page cache drop what lies in the folder's files."""
    os.sync()
    for path in FilePath(folder).rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(descriptor)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="what one device does per second, and what it costs")
    parser.add_argument("folder", nargs="?", default=".", help="on the disk to measure; a temporary folder below it is used")
    parser.add_argument("--quick", action="store_true", help="one round of everything, in at most two minutes; rough")
    parser.add_argument("--rounds", type=int, help=f"how often everything is measured (default {NORMAL.rounds})")
    parser.add_argument("--full", action="store_true", help="also a listing of 10^7 rows")
    parser.add_argument("--only", action="append", choices=PARTS, default=[], help="this part; may be given several times")
    parser.add_argument("--json", action="store_true", help="every round's figures as one JSON document")
    parser.add_argument("--page", type=FilePath, help="write the tables between the markers of this page")
    options = parser.parse_args(arguments)
    if options.only and options.page is not None:
        parser.error("--page needs all parts")
    scale = QUICK if options.quick else NORMAL
    if options.rounds is not None:
        if options.rounds < 1:
            parser.error("--rounds: at least 1")
        scale = replace(scale, rounds=options.rounds)
    if options.full:
        scale = replace(scale, listings=(*scale.listings, 10_000_000))
    folder = tempfile.mkdtemp(prefix="bench-storage-", dir=options.folder)
    try:
        before = machine(folder)
        bench = Bench(folder, scale, lambda line: print(line, file=sys.stderr, flush=True), options.only)
        begin = time.monotonic()
        trio.run(bench.run)
        after = machine(folder)
    finally:
        shutil.rmtree(folder)
    took = f"{scale.rounds} round{'s' if scale.rounds > 1 else ''}, {(time.monotonic() - begin) / 60:.0f} minutes"
    head = f"{datetime.now(UTC):%Y-%m-%d}, {took}.\n\nBefore: {before}.\nAfter: {after}."
    text = f"{head}\n\n{together(bench.tables)}"
    if options.json:
        figures = {"before": before, "after": after, "rounds": scale.rounds, "tables": [table.as_json() for table in bench.tables]}
        print(json.dumps(figures, indent=1))
    else:
        print(text)
    if options.page is not None:
        write_between(options.page, text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
