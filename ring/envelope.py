"""The envelope that ring files and builder files share: magic, version, lengths, checksum, a JSON header and a zstd'd body.

Pure.  Everything a file says is checked before it is believed: foreign, cut, flipped or newer bytes are a FormatError.  Byte for
byte: docs/formats/ring.md.  Neighbours: ``ringfile.py`` and ``builder/builderfile.py`` say what is inside.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

import msgspec
import zstandard

from ring.device import Device
from ring.errors import FormatError, NewerFormat
from ring.placement import NO_DEVICE, PART_POWER_MAX

FORMAT_VERSION = 1
_FIXED = 24  # magic 8, format version 2, zero 2, header length 4, body length 4, crc32 4


class DeviceRecord(msgspec.Struct, forbid_unknown_fields=True):
    region: int
    zone: int
    ip: str
    port: int
    name: str
    weight: float
    meta: str = ""
    replication_ip: str | msgspec.UnsetType = msgspec.UNSET  # unset: as ``ip``
    replication_port: int | msgspec.UnsetType = msgspec.UNSET


class TableHeader(Protocol):
    """What every header has."""

    @property
    def part_power(self) -> int: ...
    @property
    def rows(self) -> Sequence[int]: ...
    @property
    def devices(self) -> Sequence[DeviceRecord | None]: ...


Header = TypeVar("Header", bound=TableHeader)


def seal(magic: bytes, header: msgspec.Struct, body: bytes) -> bytes:
    packed = zstandard.ZstdCompressor(level=9).compress(body)
    head = msgspec.json.encode(header)
    start = magic + FORMAT_VERSION.to_bytes(2, "big") + bytes(2)
    start += len(head).to_bytes(4, "big") + len(packed).to_bytes(4, "big")
    rest = head + packed
    return start + zlib.crc32(rest, zlib.crc32(start)).to_bytes(4, "big") + rest


def unseal(magic: bytes, kind: str, data: bytes, model: type[Header], body_bytes: Callable[[Header], int]) -> tuple[Header, bytes]:
    """The header and the body, which has ``body_bytes(header)`` bytes.  FormatError unless all of it is whole and known."""
    if data[:8] != magic:
        raise FormatError(f"not a {kind}")
    if len(data) < _FIXED:
        raise FormatError(f"a {kind} is cut short")
    version = int.from_bytes(data[8:10], "big")
    if version > FORMAT_VERSION:
        raise NewerFormat(f"a {kind}", version, FORMAT_VERSION)
    header_length, body_length = int.from_bytes(data[12:16], "big"), int.from_bytes(data[16:20], "big")
    if len(data) != _FIXED + header_length + body_length:
        raise FormatError(f"a {kind} is cut short or has something behind its end")
    whole = memoryview(data)
    if zlib.crc32(whole[_FIXED:], zlib.crc32(whole[:20])) != int.from_bytes(data[20:24], "big") or version < 1:
        raise FormatError(f"a {kind} fails its checksum")
    try:
        header = msgspec.json.decode(whole[_FIXED : _FIXED + header_length], type=model)
        if not 0 <= header.part_power <= PART_POWER_MAX or any(not 0 < row <= 1 << header.part_power for row in header.rows):
            raise FormatError(f"a {kind} with rows that its part power does not have")
        if any(row != 1 << header.part_power for row in header.rows[:-1]):
            raise FormatError(f"a {kind} in which a row before the last is short")
        if len(header.devices) > NO_DEVICE:
            raise FormatError(f"a {kind} with {len(header.devices)} device ids, there are {NO_DEVICE}")
        size, packed = body_bytes(header), whole[_FIXED + header_length :]
        if zstandard.frame_content_size(packed) not in (size, -1):  # -1: not said; else a frame that says more would be given it
            raise FormatError(f"a {kind} whose table has {zstandard.frame_content_size(packed)} bytes, not {size}")
        body = zstandard.ZstdDecompressor().decompress(packed, max_output_size=max(1, size))
    except (msgspec.DecodeError, zstandard.ZstdError, UnicodeDecodeError) as error:
        raise FormatError(f"a {kind} that cannot be read: {error}") from error
    if len(body) != size:
        raise FormatError(f"a {kind} whose table has {len(body)} bytes, not {size}")
    return header, body


def records_of(devices: Sequence[Device | None]) -> list[DeviceRecord | None]:
    return [None if d is None else _record(d) for d in devices]


def devices_of(records: Sequence[DeviceRecord | None]) -> list[Device | None]:
    return [None if r is None else _device(i, r) for i, r in enumerate(records)]


def _record(d: Device) -> DeviceRecord:
    record = DeviceRecord(d.region, d.zone, d.ip, d.port, d.name, d.weight, d.meta)
    if (d.replication_ip, d.replication_port) != (d.ip, d.port):
        record.replication_ip, record.replication_port = d.replication_ip, d.replication_port
    return record


def _device(device_id: int, r: DeviceRecord) -> Device:
    return Device(
        device_id,
        r.region,
        r.zone,
        r.ip,
        r.port,
        r.name,
        r.weight,
        r.meta,
        r.ip if isinstance(r.replication_ip, msgspec.UnsetType) else r.replication_ip,
        r.port if isinstance(r.replication_port, msgspec.UnsetType) else r.replication_port,
    )
