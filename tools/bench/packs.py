"""How fast one device takes small objects: durable 4 KiB puts and checked 4 KiB gets, and what they cost in cpu.

python -m tools.bench.packs [FOLDER]        (on the disk of FOLDER; default: the current folder)
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import tempfile
import time

import trio

from ring.names import NameHasher, Path
from ring.timestamp import Timestamp
from ring.world.real import make_world
from storage.client.interface import Row
from storage.client.node import Debt, Kind, Version
from storage.object.device import format_device, open_device
from storage.object.store import ObjectStore

SECONDS = 4.0
WRITERS = (1, 16, 64)
DATA = os.urandom(4096)
ETAG = hashlib.md5(DATA).hexdigest()


def _version(number: int) -> Version:
    metadata = {"x-object-meta-mtime": "1700000000.123"}
    return Version(
        Path("AUTH_bench", "c", f"o{number}"), Timestamp(10**14 + number), Kind.OBJECT, 4096, ETAG, "text/plain", metadata
    )


async def _puts(store: ObjectStore, writers: int, first: int) -> tuple[int, float, float]:
    """Number of puts, seconds, seconds of cpu (of the whole process)."""
    number = first
    until = time.perf_counter() + SECONDS

    async def writer() -> None:
        nonlocal number
        while time.perf_counter() < until:
            number += 1
            version = _version(number)
            row = Row(version.path.object, version.timestamp, 4096, ETAG, "text/plain")
            reply = await store.put_small(version, DATA, Debt(row, version.path.parent, (1,)))
            assert reply.newest == version.timestamp
            store.mark_paid([store.key(version.path, version.timestamp)])

    begin, cpu = time.perf_counter(), time.process_time()
    async with trio.open_nursery() as nursery:
        for _ in range(writers):
            nursery.start_soon(writer)
    return number - first, time.perf_counter() - begin, time.process_time() - cpu


async def _gets(store: ObjectStore, count: int) -> tuple[int, float, float]:
    begin, cpu, number = time.perf_counter(), time.process_time(), 0
    while time.perf_counter() - begin < SECONDS:
        reading = await store.get(_version(number % count + 1).path, None, 0, None)
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
        assert await store.head(_version(number % count + 1).path) is not None
        number += 1
        if number % 100 == 0:
            await trio.lowlevel.checkpoint()
    return number, time.perf_counter() - begin, time.process_time() - cpu


def _print(what: str, result: tuple[int, float, float], more: str = "") -> None:
    count, seconds, cpu = result
    print(f"{what:24} {count / seconds:10.0f}/s  {1e6 * cpu / count:8.1f} us cpu each  {more}", flush=True)


async def bench(root: str) -> None:
    world = make_world()
    disk = world.open_disk(root)
    begin = time.perf_counter()
    await format_device(disk, "bench", 1)
    print(f"formatted in {time.perf_counter() - begin:.2f} s")
    device = await open_device(world, root, "bench", 1)
    store = ObjectStore(world, device, NameHasher(b"a", b"b"))
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run)
        total = 0
        for writers in WRITERS:
            batches, records = store.packs.batches, store.packs.records
            result = await _puts(store, writers, total)
            total += result[0]
            size = (store.packs.records - records) / max(1, store.packs.batches - batches)
            _print(f"put 4 KiB, {writers} writers", result, f"{size:.1f} records a sync")
        _print("get 4 KiB", await _gets(store, total))
        _print("head", await _heads(store, total))
        nursery.cancel_scope.cancel()
    await store.close()
    await device.close()


def main() -> None:
    folder = tempfile.mkdtemp(prefix="bench-packs-", dir=sys.argv[1] if len(sys.argv) > 1 else ".")
    try:
        trio.run(bench, folder)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
