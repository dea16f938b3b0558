"""What the tests of one device share: versions with a body that tells them apart, and a store that runs."""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path as FilePath

import trio

from ring.names import NameHasher, Path, Span
from ring.timestamp import Timestamp
from ring.wire.message import FileSlice
from ring.world.interface import World
from storage.client.errors import Doubted
from storage.client.interface import Row
from storage.client.node import Debt, Kind, NodeReading, Version, WriteReply
from storage.object.device import LABEL_PATH, OpenDevice, format_device, open_device
from storage.object.store import ObjectStore

CLUSTER = "8d7f4c2e-test"
GOLDEN = FilePath(__file__).parents[2] / "golden"
HASHER = NameHasher(b"pre", b"suf")
PART_POWER = 4
SPANS = [Span(PART_POWER, partition) for partition in range(1 << PART_POWER)]


def noise(seed: object, size: int) -> bytes:
    """Bytes that do not compress."""
    return random.Random(f"{seed}").randbytes(size)


def path(name: str) -> Path:
    return Path("AUTH_test", "photos", name)


def version(name: str, ticks: int, data: bytes | None, **more: object) -> Version:
    """Of an object, or a tombstone when ``data`` is None."""
    if data is None:
        return Version(path(name), Timestamp(ticks), Kind.TOMBSTONE)
    etag = hashlib.md5(data).hexdigest()
    fields = {"content_type": "text/plain", "metadata": {"x-object-meta-n": name}, **more}
    return Version(path(name), Timestamp(ticks), Kind.OBJECT, len(data), etag, **fields)  # type: ignore[arg-type]  # test shorthand


def debt(of: Version) -> Debt:
    row = Row(of.path.object, of.timestamp, of.size, of.etag, of.content_type, deleted=of.kind is Kind.TOMBSTONE)
    return Debt(row, of.path.parent, (2,))


def real_root(base: FilePath) -> str:
    """A root on the real disk, where a device was formatted in an earlier test or will be in this: its 4,096 folders cost more than
    most tests, so they are made once."""
    root = base / "device"
    for folder, _, names in os.walk(root):
        for name in names:
            if name != LABEL_PATH:
                os.unlink(os.path.join(folder, name))
    return str(root)


async def prepare(world: World, root: str) -> None:
    disk = world.open_disk(root)
    if await disk.info(LABEL_PATH) is not None:
        return
    await disk.make_dirs("")
    await format_device(disk, CLUSTER, 1)


@asynccontextmanager
async def serving(world: World, root: str, *, segment_bytes_max: int = 1 << 20) -> AsyncIterator[ObjectStore]:
    device: OpenDevice = await open_device(world, root, CLUSTER, 1)
    store = ObjectStore(world, device, HASHER, segment_bytes_max=segment_bytes_max)
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run)
        yield store
        nursery.cancel_scope.cancel()
    await store.close()
    await device.close()


async def put(store: ObjectStore, name: str, ticks: int, data: bytes | None, *, owe: bool = False) -> WriteReply:
    new = version(name, ticks, data)
    return await store.put_small(new, data or b"", debt(new) if owe else None)


async def put_file(
    store: ObjectStore, name: str, ticks: int, data: bytes, *, piece: int = 300_000, size: int | None = None
) -> WriteReply:
    upload = await store.put_large(path(name), size)
    for at in range(0, len(data), piece):
        await upload.write(data[at : at + piece])
    return await upload.commit(version(name, ticks, data), None)


async def body(reading: NodeReading | None) -> bytes | None:
    if reading is None:
        return None
    parts = []
    async for piece in reading.pieces:
        parts.append(await piece.file.pread(piece.offset, piece.length) if isinstance(piece, FileSlice) else piece)
    await reading.pieces.aclose()  # type: ignore[attr-defined]  # every AsyncIterator of a Node has it
    return b"".join(parts)


async def in_doubt(store: ObjectStore, name: str) -> bool:
    """Whether it gives no answer of the name, since what it had of it is damaged."""
    try:
        await store.head(path(name))
    except Doubted:
        return True
    return False


async def partitions(store: ObjectStore, part_power: int = PART_POWER) -> list[Span]:
    """All of which it holds anything."""
    found: list[Span] = []
    start: bytes | None = b""
    while start is not None and (span := await store.partition_from(start, part_power)) is not None:
        found.append(span)
        start = span.bounds[1]
    return found


async def read(store: ObjectStore, name: str, offset: int = 0, length: int | None = None) -> bytes | None:
    return await body(await store.get(path(name), None, offset, length))
