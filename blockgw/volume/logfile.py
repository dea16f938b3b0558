"""Codec of the write log (docs/formats/volume-log.md).  Pure.

A file is a header, then records in the order of their sequence numbers; integers are little-endian.

    header  "RFVLOG1\\n"  version u32  epoch u64  volume (16 bytes, UUID)  crc32 u32 of all before
    record  magic u32  kind u8  3 zero bytes  sequence u64  offset u64  length u32  crc32 u32 of the 28 bytes before, then of the
    data
            data (kind 1: ``length`` bytes; kind 2, discard: none)
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from uuid import UUID

from ring.errors import FormatError, NewerFormat
from ring.world.interface import Buffer

MAGIC = b"RFVLOG1\n"
VERSION = 1
_HEADER = struct.Struct("<8sIQ16sI")
_RECORD = struct.Struct("<IB3xQQI")
_CRC = struct.Struct("<I")
_RECORD_MAGIC = 0x56_4C_52_31
HEADER_BYTES = _HEADER.size
RECORD_BYTES = _RECORD.size + _CRC.size


class Kind(IntEnum):
    WRITE = 1
    DISCARD = 2


@dataclass(frozen=True, slots=True)
class Header:
    epoch: int
    volume: UUID


@dataclass(frozen=True, slots=True)
class Record:
    sequence: int
    kind: Kind
    offset: int
    length: int
    data: bytes


def encode_header(header: Header) -> bytes:
    body = _HEADER.pack(MAGIC, VERSION, header.epoch, header.volume.bytes, 0)[:-4]
    return body + _CRC.pack(zlib.crc32(body))


def decode_header(data: bytes) -> Header:
    """FormatError unless it is one of ours."""
    if len(data) < HEADER_BYTES or data[:8] != MAGIC:
        raise FormatError("not a volume log")
    _, version, epoch, volume, crc = _HEADER.unpack_from(data)
    if version > VERSION:
        raise NewerFormat("the volume log", version, VERSION)
    if version != VERSION or crc != zlib.crc32(data[: HEADER_BYTES - 4]):
        raise FormatError("the volume log's header is damaged")
    return Header(epoch, UUID(bytes=volume))


def encode_record(sequence: int, kind: Kind, offset: int, length: int, data: Buffer = b"") -> bytes:
    """The record without its data, which follows it as it is."""
    head = _RECORD.pack(_RECORD_MAGIC, kind, sequence, offset, length)
    return head + _CRC.pack(zlib.crc32(data, zlib.crc32(head)))


def decode_records(data: bytes) -> Iterator[Record]:
    """The whole records after the header, up to the first that is torn or damaged (what follows it was never acknowledged)."""
    at = HEADER_BYTES
    while at + RECORD_BYTES <= len(data):
        magic, kind, sequence, offset, length = _RECORD.unpack_from(data, at)
        end = at + RECORD_BYTES + (length if kind == Kind.WRITE else 0)
        if magic != _RECORD_MAGIC or kind not in (Kind.WRITE, Kind.DISCARD) or end > len(data):
            return
        body = data[at + RECORD_BYTES : end]
        (crc,) = _CRC.unpack_from(data, at + _RECORD.size)
        if crc != zlib.crc32(body, zlib.crc32(data[at : at + _RECORD.size])):
            return
        yield Record(sequence, Kind(kind), offset, length, body)
        at = end
