"""The ring file (what every node reads) and the builder file (what an operator edits), byte for byte: docs/formats/ring.md.

Codecs are pure; ``read_*`` and ``write_*`` go through a Disk and replace whole files.  Everything a file says is checked before
it is believed: foreign, cut, flipped or newer bytes are a FormatError.  Neighbours: ``placement.py`` (Ring), ``builder.py``.
"""

from __future__ import annotations

import sys
import zlib
from array import array
from collections.abc import Callable, Sequence
from typing import Literal, TypeVar

import msgspec
import zstandard

from ring.builder import PART_POWER_MAX, Builder
from ring.device import Device
from ring.errors import FormatError
from ring.names import NameHasher
from ring.placement import NO_DEVICE, Ring
from ring.world.interface import Disk

RING_MAGIC = b"RFRING\r\n"
BUILDER_MAGIC = b"RFBUILD\n"
FORMAT_VERSION = 1
_FIXED = 24  # magic 8, format version 2, zero 2, header length 4, body length 4, crc32 4


class _DeviceRecord(msgspec.Struct, forbid_unknown_fields=True):
    region: int
    zone: int
    ip: str
    port: int
    name: str
    weight: float
    meta: str = ""


class _RingHeader(msgspec.Struct, forbid_unknown_fields=True):
    version: int
    part_power: int
    rows: list[int]
    devices: list[_DeviceRecord | None]


class _BuilderHeader(msgspec.Struct, forbid_unknown_fields=True):
    version: int
    part_power: int
    replicas: float
    min_part_hours: int
    rows: list[int]
    devices: list[_DeviceRecord | None]
    removed: list[int]


Header = TypeVar("Header", _RingHeader, _BuilderHeader)


# ---- ring


def encode(ring: Ring) -> bytes:
    """The hasher's secrets are not part of a ring file."""
    header = _RingHeader(ring.version, ring.part_power, [len(row) for row in ring.table], _records(ring.devices))
    return _seal(RING_MAGIC, msgspec.json.encode(header), b"".join(_pack(row) for row in ring.table))


def decode(data: bytes, hasher: NameHasher) -> Ring:
    """FormatError unless it is a whole ring file of a format that we know."""
    header, body = _unseal(RING_MAGIC, "ring file", data, _RingHeader, lambda h: 2 * sum(h.rows))
    devices = _devices(header.devices)
    return Ring(header.version, header.part_power, tuple(devices), _table(header, devices, body), hasher)


async def read_ring(disk: Disk, path: str, hasher: NameHasher) -> Ring:
    """OSError as the disk gave it (FileNotFoundError when there is none)."""
    return decode(await disk.read_file(path), hasher)


async def write_ring(disk: Disk, path: str, ring: Ring) -> None:
    await disk.replace_file(path, encode(ring))


# ---- builder


def encode_builder(builder: Builder) -> bytes:
    header = _BuilderHeader(
        version=builder.version,
        part_power=builder.part_power,
        replicas=builder.replicas,
        min_part_hours=builder.min_part_hours,
        rows=[len(row) for row in builder.table],
        devices=_records(builder.devices),
        removed=sorted(builder.removed),
    )
    body = b"".join(_pack(row) for row in builder.table) + _pack(builder.moved_at)
    return _seal(BUILDER_MAGIC, msgspec.json.encode(header), body)


def decode_builder(data: bytes) -> Builder:
    header, body = _unseal(BUILDER_MAGIC, "builder file", data, _BuilderHeader, lambda h: 2 * sum(h.rows) + (4 << h.part_power))
    devices = _devices(header.devices)
    table_bytes = 2 * sum(header.rows)
    if any(not 0 <= i < len(devices) or devices[i] is None for i in header.removed):
        raise FormatError("a builder file removes a device that it does not have")
    builder = Builder(
        part_power=header.part_power,
        replicas=header.replicas,
        min_part_hours=header.min_part_hours,
        version=header.version,
        devices=devices,
        removed=set(header.removed),
        table=_table(header, devices, body[:table_bytes]),
        moved_at=_unpack("I", body[table_bytes:]),
    )
    if header.rows and header.rows != builder.rows:
        raise FormatError("a builder file's rows are not those of its replica count")
    return builder


async def read_builder(disk: Disk, path: str) -> Builder:
    """OSError as the disk gave it (FileNotFoundError when there is none)."""
    return decode_builder(await disk.read_file(path))


async def write_builder(disk: Disk, path: str, builder: Builder) -> None:
    await disk.replace_file(path, encode_builder(builder))


# ---- the envelope


def _seal(magic: bytes, header: bytes, body: bytes) -> bytes:
    packed = zstandard.ZstdCompressor(level=9).compress(body)
    start = magic + FORMAT_VERSION.to_bytes(2, "big") + bytes(2)
    start += len(header).to_bytes(4, "big") + len(packed).to_bytes(4, "big")
    rest = header + packed
    return start + zlib.crc32(rest, zlib.crc32(start)).to_bytes(4, "big") + rest


def _unseal(magic: bytes, kind: str, data: bytes, model: type[Header], body_bytes: Callable[[Header], int]) -> tuple[Header, bytes]:
    if data[:8] != magic:
        raise FormatError(f"not a {kind}")
    if len(data) < _FIXED:
        raise FormatError(f"a {kind} is cut short")
    version = int.from_bytes(data[8:10], "big")
    if version > FORMAT_VERSION:
        raise FormatError(f"a {kind} of format {version}, this is {FORMAT_VERSION}", hint="upgrade this node first")
    header_length, body_length = int.from_bytes(data[12:16], "big"), int.from_bytes(data[16:20], "big")
    if len(data) != _FIXED + header_length + body_length:
        raise FormatError(f"a {kind} is cut short or has something behind its end")
    if zlib.crc32(data[_FIXED:], zlib.crc32(data[:20])) != int.from_bytes(data[20:24], "big") or version < 1:
        raise FormatError(f"a {kind} fails its checksum")
    try:
        header = msgspec.json.decode(data[_FIXED : _FIXED + header_length], type=model)
        if not 0 <= header.part_power <= PART_POWER_MAX or any(not 0 < row <= 1 << header.part_power for row in header.rows):
            raise FormatError(f"a {kind} with rows that its part power does not have")
        size = body_bytes(header)
        body = zstandard.ZstdDecompressor().decompress(data[_FIXED + header_length :], max_output_size=max(1, size))
    except (msgspec.DecodeError, zstandard.ZstdError, UnicodeDecodeError) as error:
        raise FormatError(f"a {kind} that cannot be read: {error}") from error
    if len(body) != size:
        raise FormatError(f"a {kind} whose table has {len(body)} bytes, not {size}")
    return header, body


def _records(devices: Sequence[Device | None]) -> list[_DeviceRecord | None]:
    return [None if d is None else _DeviceRecord(d.region, d.zone, d.ip, d.port, d.name, d.weight, d.meta) for d in devices]


def _devices(records: Sequence[_DeviceRecord | None]) -> list[Device | None]:
    return [
        None if r is None else Device(i, r.region, r.zone, r.ip, r.port, r.name, r.weight, r.meta) for i, r in enumerate(records)
    ]


def _table(header: Header, devices: Sequence[Device | None], body: bytes) -> tuple[array[int], ...]:
    table = []
    start = 0
    for length in header.rows:
        table.append(_unpack("H", body[start : start + 2 * length]))
        start += 2 * length
    for device_id in {device_id for row in table for device_id in row} - {NO_DEVICE}:
        if device_id >= len(devices) or devices[device_id] is None:
            raise FormatError(f"the table names d{device_id}, which is not in the ring")
    return tuple(table)


def _pack(row: array[int]) -> bytes:
    """Little-endian."""
    if sys.byteorder == "big":
        row = array(row.typecode, row)
        row.byteswap()
    return row.tobytes()


def _unpack(typecode: Literal["H", "I"], data: bytes) -> array[int]:
    row = array(typecode, data)
    if sys.byteorder == "big":
        row.byteswap()
    return row
