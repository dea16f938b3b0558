"""Returned: versions that a device brought back after it was away and that no primary knows: put aside, not pushed.

Whether they were deleted while the device was away, nobody can say any more.  So each is kept as two files in ``quarantine``:
``NAME.returned``, which says all about it, and ``NAME.body``, its bytes.  Both are durable before the device lets go of it.  An
operator looks at them, and takes out what is to be had back (tools.cli.returned).

Neighbours: returning (puts aside), store (lets go), files (large ones).  Format: docs/formats/returned.md.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from dataclasses import dataclass

from ring.errors import BadInput, FormatError, NewerFormat, NotFound
from ring.names import Path
from ring.timestamp import Timestamp
from ring.world.interface import Disk, OpenMode
from storage.client.bodies import drained
from storage.client.node import Kind, Version
from storage.object.device import QUARANTINE
from storage.object.files import disk_fault, file_name, file_path
from storage.object.record import RecordKind
from storage.object.store import ObjectStore

MAGIC = "ringfort returned"
FORMAT = 1
SUFFIX, BODY_SUFFIX = ".returned", ".body"
FRAGMENT_SUFFIX, FRAGMENT_BODY_SUFFIX = ".returned-fragment", ".fragment"
REASON = "unknown to all primaries"  # of the drop
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Returned:
    """``name``: of its files, without their suffixes."""

    name: str
    version: Version
    put_aside_at: float  # wall seconds
    fragment: str = ""  # its description in hex, when that is all there is of the version

    @property
    def body_path(self) -> str:
        return f"{QUARANTINE}/{self.name}{FRAGMENT_BODY_SUFFIX if self.fragment else BODY_SUFFIX}"


def encode(version: Version, put_aside_at: float, *, fragment: str = "") -> bytes:
    """``fragment``: its description (docs/formats/fragment.md) in hex, when only that is kept."""
    path, posted = version.path, version.metadata_timestamp
    body = {
        "magic": MAGIC,
        "format": FORMAT,
        "path": [path.account, path.container, path.object],
        "timestamp": str(version.timestamp),
        "size": version.size,
        "etag": version.etag,
        "content_type": version.content_type,
        "metadata": dict(version.metadata),
        "metadata_timestamp": "" if posted is None else str(posted),
        "put_aside_at": put_aside_at,
    }
    if fragment:
        body["fragment"] = fragment
    return (json.dumps({**body, "checksum": _checksum(body)}, indent=1, sort_keys=True) + "\n").encode()


def decode(data: bytes, name: str) -> Returned:
    """FormatError when it is damaged, or newer than this program."""
    try:
        body = json.loads(data)
        checksum = body.pop("checksum")
        if body["magic"] != MAGIC or checksum != _checksum(body):
            raise FormatError(f"{name}{SUFFIX} is damaged")
        if body["format"] > FORMAT:
            raise NewerFormat("what was put aside", int(body["format"]), FORMAT, path=f"{name}{SUFFIX}")
        posted = body["metadata_timestamp"]
        version = Version(
            Path(*body["path"]),
            Timestamp.parse(body["timestamp"]),
            Kind.OBJECT,
            int(body["size"]),
            str(body["etag"]),
            str(body["content_type"]),
            {str(key): str(value) for key, value in body["metadata"].items()},
            Timestamp.parse(posted) if posted else None,
        )
        return Returned(name, version, float(body["put_aside_at"]), str(body.get("fragment", "")))
    except (ValueError, KeyError, TypeError, AttributeError, BadInput) as error:
        raise FormatError(f"{name}{SUFFIX} says nothing of a version") from error


async def put_aside(store: ObjectStore, key: bytes, now: float) -> bool:
    """Keep a version apart and let go of it; False when it is not held (any more).  DiskFault, Unavailable."""
    held = store.index.get(key)
    reading = None if held is None else await store.object_by_key(key)
    if held is None or reading is None:
        return False
    name = file_name(held.hash, held.timestamp, 0)
    disk, body_path = store.device.disk, f"{QUARANTINE}/{name}{BODY_SUFFIX}"
    large = held.entry.in_file
    body = b"" if large else await drained(reading.pieces)
    if large:
        await _close(reading.pieces)
    try:
        await disk.replace_file(f"{QUARANTINE}/{name}{SUFFIX}", encode(reading.version, now))
        if large:
            await disk.rename(file_path(held.hash, held.timestamp, held.entry.serial), body_path)
        else:
            await disk.replace_file(body_path, body)
    except OSError as error:
        raise disk_fault(store.device.device_id, "put a returned version aside", error) from error
    store.mark_paid([key])  # nobody is to list it
    return await store.drop(key, REASON)


async def put_fragment_aside(store: ObjectStore, key: bytes, now: float) -> bool:
    """``put_aside``, of what a device of an erasure-coded policy has of a version by itself: a fragment, as NAME.fragment, with
    NAME.returned-fragment beside it.  A note has nothing to be kept."""
    held = store.index.get(key)
    if held is None:
        return False
    if held.entry.kind is RecordKind.FRAGMENT:
        record = await store.reader.record(held)
        version = await store.reader.describe(held, Path(*record.info.path))
        name, disk = file_name(held.hash, held.timestamp, 0), store.device.disk
        try:
            data = encode(version, now, fragment=bytes(record.data).hex())
            await disk.replace_file(f"{QUARANTINE}/{name}{FRAGMENT_SUFFIX}", data)
            with suppress(FileNotFoundError):  # it was moved before
                await disk.rename(
                    file_path(held.hash, held.timestamp, held.entry.serial), f"{QUARANTINE}/{name}{FRAGMENT_BODY_SUFFIX}"
                )
        except OSError as error:
            raise disk_fault(store.device.device_id, "put a returned fragment aside", error) from error
    store.mark_paid([key])  # nobody is to list it
    return await store.drop(key, REASON)


async def listing(disk: Disk) -> list[Returned]:
    """All of a device, by path.  FormatError, OSError."""
    names = [
        (name, suffix) for name in await disk.list_dir(QUARANTINE) for suffix in (SUFFIX, FRAGMENT_SUFFIX) if name.endswith(suffix)
    ]
    found = [decode(await disk.read_file(f"{QUARANTINE}/{name}"), name.removesuffix(suffix)) for name, suffix in names]
    return sorted(found, key=lambda one: (str(one.version.path), one.version.timestamp))


async def body_of(disk: Disk, returned: Returned) -> AsyncIterator[bytes]:
    """Its bytes, or its fragment's, about a MiB at a time.  NotFound when they are not there; OSError."""
    info = await disk.info(returned.body_path)
    if info is None:
        raise NotFound(f"the bytes of {returned.version.path} are not there")
    size = info.size if returned.fragment else returned.version.size
    file = await disk.open(returned.body_path, OpenMode.READ)
    try:
        for at in range(0, size, _CHUNK_BYTES):
            yield await file.pread(at, min(_CHUNK_BYTES, size - at))
    finally:
        await file.close()


async def _close(pieces: object) -> None:
    aclose = getattr(pieces, "aclose", None)
    if aclose is not None:
        await aclose()


def _checksum(body: Mapping[str, object]) -> str:
    return f"{zlib.crc32(json.dumps(body, sort_keys=True, separators=(',', ':')).encode()):08x}"
