"""One device's packs: durable 4 KiB puts and checked gets and what they cost in cpu, with bodies that compress and that do not;
then churn: how much lies on disk for each byte that is alive, round by round, without compaction and with it, and how fast it is.

python -m tools.bench.packs [FOLDER]             (on the disk of FOLDER; default: the current folder)
python -m tools.bench.packs [FOLDER] --churn     only the churn
python -m tools.bench.packs [FOLDER] --speed     only the puts and gets
"""

from __future__ import annotations

import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import trio

from ring.daemon.worker import once
from ring.names import NameHasher, Path
from ring.timestamp import Timestamp
from ring.world.interface import World
from ring.world.real import make_world
from storage.client.interface import Row
from storage.client.node import Debt, Kind, Version
from storage.object.compaction import Compactor
from storage.object.device import format_device, open_device
from storage.object.packs import SEGMENT_BYTES_MAX, Write
from storage.object.store import ObjectStore

SECONDS = 4.0
WRITERS = (1, 16, 64)
CHURN_OBJECTS = 8000
CHURN_ROUNDS = 8
CHURN_SEGMENT_BYTES = 16 << 20
NOISE = os.urandom(4096)
TEXT = b"".join(b'{"name": "photos/%x.jpg", "size": %d, "etag": "%x"}, ' % (n * 7919, n * 997, n * 10**17) for n in range(1, 99))[
    :4096
]
ETAG = "d41d8cd98f00b204e9800998ecf8427e"


def version_of(number: int, size: int = 4096) -> Version:
    metadata = {"x-object-meta-mtime": "1700000000.123"}
    return Version(
        Path("AUTH_bench", "c", f"o{number}"), Timestamp(10**14 + number), Kind.OBJECT, size, ETAG, "text/plain", metadata
    )


async def puts(store: ObjectStore, writers: int, first: int, data: bytes, seconds: float = SECONDS) -> tuple[int, float, float]:
    """Number of puts, seconds, seconds of cpu (of the whole process)."""
    number = first
    until = time.perf_counter() + seconds

    async def writer() -> None:
        nonlocal number
        while time.perf_counter() < until:
            number += 1
            version = version_of(number)
            row = Row(version.path.object, version.timestamp, 4096, ETAG, "text/plain")
            reply = await store.put_small(version, data, Debt(row, version.path.parent, (1,)))
            assert reply.newest == version.timestamp
            store.mark_paid([store.key(version.path, version.timestamp)])

    begin, cpu = time.perf_counter(), time.process_time()
    async with trio.open_nursery() as nursery:
        for _ in range(writers):
            nursery.start_soon(writer)
    return number - first, time.perf_counter() - begin, time.process_time() - cpu


async def _gets(store: ObjectStore, first: int, count: int) -> tuple[int, float, float]:
    begin, cpu, number = time.perf_counter(), time.process_time(), 0
    while time.perf_counter() - begin < SECONDS:
        reading = await store.get(version_of(first + number % count + 1).path, None, 0, None)
        assert reading is not None
        async for piece in reading.pieces:
            assert isinstance(piece, bytes)
        number += 1
        if number % 100 == 0:
            await trio.lowlevel.checkpoint()
    return number, time.perf_counter() - begin, time.process_time() - cpu


async def _heads(store: ObjectStore, count: int) -> tuple[int, float, float]:
    begin, cpu, number = time.perf_counter(), time.process_time(), 0
    while time.perf_counter() - begin < SECONDS:
        assert await store.head(version_of(number % count + 1).path) is not None
        number += 1
        if number % 100 == 0:
            await trio.lowlevel.checkpoint()
    return number, time.perf_counter() - begin, time.process_time() - cpu


def _print(what: str, result: tuple[int, float, float], more: str = "") -> None:
    count, seconds, cpu = result
    print(f"{what:30} {count / seconds:10.0f}/s  {1e6 * cpu / count:8.1f} us cpu each  {more}", flush=True)


@asynccontextmanager
async def bench_device(
    folder: str, name: str, segment_bytes_max: int = SEGMENT_BYTES_MAX
) -> AsyncIterator[tuple[World, ObjectStore]]:
    """The device ``name`` in ``folder``: made, if it is not there yet, and open."""
    root = os.path.join(folder, name)
    world = make_world()
    if not os.path.exists(root):
        os.mkdir(root)
        await format_device(world.open_disk(root), "bench", 1)
    device = await open_device(world, root, "bench", 1)
    store = ObjectStore(world, device, NameHasher(b"a", b"b"), segment_bytes_max=segment_bytes_max)
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run)
        yield world, store
        nursery.cancel_scope.cancel()
    await store.close()
    await device.close()


async def speed(folder: str) -> None:
    async with bench_device(folder, "speed") as (_, store):
        total = 0
        firsts = {}
        for what, data in (("noise", NOISE), ("text", TEXT)):
            firsts[what] = total
            for writers in WRITERS:
                batches, records = store.packs.batches, store.packs.records
                result = await puts(store, writers, total, data)
                total += result[0]
                size = (store.packs.records - records) / max(1, store.packs.batches - batches)
                _print(f"put 4 KiB {what}, {writers} writers", result, f"{size:.1f} records a sync")
        _print("get 4 KiB noise", await _gets(store, 0, firsts["text"]))
        _print("get 4 KiB text", await _gets(store, firsts["text"], total - firsts["text"]))
        _print("head", await _heads(store, total))


@dataclass(slots=True)
class Churn:
    """What overwriting at random came to."""

    ratios: list[float] = field(default_factory=list)  # after each round, bytes in packs for each byte that is alive
    compactions: int = 0
    moved_bytes: int = 0
    reclaimed_bytes: int = 0
    written_bytes: int = 0
    seconds: float = 0.0  # of compacting
    cpu_s: float = 0.0

    @property
    def mb_per_s(self) -> float:
        """Of old segments gone through: copied, read back, verified."""
        return (self.moved_bytes + self.reclaimed_bytes) / max(self.seconds, 1e-9) / 1e6

    @property
    def cpu_ms_per_mb(self) -> float:
        return 1e3 * self.cpu_s / max((self.moved_bytes + self.reclaimed_bytes) / 1e6, 1e-9)


async def churned(
    folder: str,
    *,
    compacting: bool,
    objects: int = CHURN_OBJECTS,
    rounds: int = CHURN_ROUNDS,
    segment_bytes: int = CHURN_SEGMENT_BYTES,
) -> Churn:
    """Each round overwrites as many objects as there are, picked at random."""
    found = Churn()
    async with bench_device(folder, f"churn-{compacting}", segment_bytes) as (world, store):
        compactor = Compactor(world, store, grace_s=0.0)
        rng = random.Random(1)
        ticks = 10**14
        for round_number in range(rounds + 1):
            ticks += objects
            names = range(objects) if not round_number else [rng.randrange(objects) for _ in range(objects)]
            await overwrite(store, names, ticks)
            found.written_bytes += objects * 4096
            if compacting:
                begin, cpu_begin = time.perf_counter(), time.process_time()
                await once(compactor)
                found.seconds += time.perf_counter() - begin
                found.cpu_s += time.process_time() - cpu_begin
            live = sum(weight.live for _, weight in store.index.weights.all())
            packs = os.path.join(folder, f"churn-{compacting}", "packs")
            found.ratios.append(sum(entry.stat().st_size for entry in os.scandir(packs)) / live)
        found.compactions, found.moved_bytes = compactor.compactions, compactor.moved_bytes
        found.reclaimed_bytes = compactor.reclaimed_bytes
    return found


async def churn(folder: str) -> None:
    print(f"churn: {CHURN_OBJECTS} objects of 4 KiB, segments of {CHURN_SEGMENT_BYTES >> 20} MiB, random overwrites")
    for compacting in (False, True):
        found = await churned(folder, compacting=compacting)
        print(f"  {'with' if compacting else 'without'} compaction, bytes on disk for each that is alive, after each round:")
        print("   ", "  ".join(f"{ratio:.2f}" for ratio in found.ratios))
        if compacting:
            print(
                f"    {found.compactions} compactions: {found.moved_bytes >> 20} MiB moved, {found.reclaimed_bytes >> 20} MiB given"
                f" back, {found.moved_bytes / found.written_bytes:.2f} bytes moved for each that was written"
            )
            print(
                f"    {found.mb_per_s:.0f} MB/s of old segments gone through (copied, read back, verified),"
                f" {found.cpu_ms_per_mb:.1f} ms cpu for each MB"
            )


async def overwrite(store: ObjectStore, names: Iterable[int], ticks: int) -> None:
    waiting: list[Write] = []
    for place, name in enumerate(names):
        known = version_of(name)
        version = replace(known, timestamp=Timestamp(ticks + place))
        waiting.append(store.begin_small(version, NOISE, None))
        if len(waiting) == 64:
            for write in waiting:
                await write.wait()
            waiting.clear()
            await store.room()
    for write in waiting:
        await write.wait()


async def bench(folder: str, parts: Sequence[str]) -> None:
    if "speed" in parts:
        await speed(folder)
    if "churn" in parts:
        await churn(folder)


def main() -> None:
    words = sys.argv[1:]
    folders = [word for word in words if not word.startswith("--")]
    parts = [part for part in ("speed", "churn") if f"--{part}" in words] or ["speed", "churn"]
    folder = tempfile.mkdtemp(prefix="bench-packs-", dir=folders[0] if folders else ".")
    try:
        trio.run(bench, folder, parts)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
