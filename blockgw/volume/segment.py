"""Codec of segment and checkpoint objects (docs/formats/volume-objects.md).  Pure.

A segment is written once, named ``segment-<epoch, 8 hex>-<sequence, 16 hex>``: a frame with its header, then the data of its
extents one after another.  A checkpoint, ``checkpoint-<epoch>-<sequence>``, is a frame with the whole map.  A frame is

    magic 8 bytes  version u32  length u32  crc32 u32 of the payload  payload (msgpack; a checkpoint's is zstd-compressed)
"""

from __future__ import annotations

import struct
import zlib
from typing import TypeVar

import msgspec
import zstandard

from ring.errors import FormatError, NewerFormat

_FRAME = struct.Struct("<8sIII")
FRAME_BYTES = _FRAME.size
VERSION = 1
SEGMENT_MAGIC = b"RFVSEG1\n"
CHECKPOINT_MAGIC = b"RFVCKP1\n"
CHECKPOINT_BYTES_MAX = 1 << 30


class SegmentId(msgspec.Struct, frozen=True, array_like=True):
    epoch: int
    sequence: int

    @property
    def name(self) -> str:
        return f"segment-{self.epoch:08x}-{self.sequence:016x}"


class SegmentExtent(msgspec.Struct, frozen=True, array_like=True):
    start: int
    length: int
    zero: bool  # discarded: no data


class SegmentHeader(msgspec.Struct, frozen=True, array_like=True):
    log_sequence: int  # every log record up to this one is in this segment or an earlier one
    extents: tuple[SegmentExtent, ...]


class CheckpointExtent(msgspec.Struct, frozen=True, array_like=True):
    start: int
    length: int
    segment: SegmentId | None  # None: reads as zeroes
    offset: int


class Checkpoint(msgspec.Struct, frozen=True, array_like=True):
    next_segment: int  # sequence of the first segment it does not cover
    log_sequence: int
    extents: tuple[CheckpointExtent, ...]


def checkpoint_name(epoch: int, sequence: int) -> str:
    return f"checkpoint-{epoch:08x}-{sequence:016x}"


def encode_segment_header(header: SegmentHeader) -> bytes:
    return _frame(SEGMENT_MAGIC, msgspec.msgpack.encode(header))


def decode_segment_header(data: bytes) -> tuple[SegmentHeader, int]:
    """The header, and where the data begins.  FormatError."""
    payload = _unframe(SEGMENT_MAGIC, data)
    return _decode(payload, SegmentHeader), FRAME_BYTES + len(payload)


def segment_header_length(data: bytes) -> int:
    """From a segment's first FRAME_BYTES: how many bytes header and frame have."""
    magic, _, length, _ = _FRAME.unpack_from(data)
    if magic != SEGMENT_MAGIC:
        raise FormatError("not a volume segment")
    return FRAME_BYTES + int(length)


def encode_checkpoint(checkpoint: Checkpoint) -> bytes:
    return _frame(CHECKPOINT_MAGIC, zstandard.ZstdCompressor(level=1).compress(msgspec.msgpack.encode(checkpoint)))


def decode_checkpoint(data: bytes) -> Checkpoint:
    payload = _unframe(CHECKPOINT_MAGIC, data)
    try:
        raw = zstandard.ZstdDecompressor().decompress(payload, max_output_size=CHECKPOINT_BYTES_MAX)
    except zstandard.ZstdError as error:
        raise FormatError("a checkpoint does not decompress") from error
    return _decode(raw, Checkpoint)


def _frame(magic: bytes, payload: bytes) -> bytes:
    return _FRAME.pack(magic, VERSION, len(payload), zlib.crc32(payload)) + payload


def _unframe(magic: bytes, data: bytes) -> bytes:
    if len(data) < FRAME_BYTES or data[:8] != magic:
        raise FormatError(f"not a {magic[2:6].decode()} object")
    _, version, length, crc = _FRAME.unpack_from(data)
    if version > VERSION:
        raise NewerFormat("a volume object", version, VERSION)
    payload = data[FRAME_BYTES : FRAME_BYTES + length]
    if version != VERSION or len(payload) != length or zlib.crc32(payload) != crc:
        raise FormatError("a volume object is damaged")
    return payload


T = TypeVar("T")


def _decode(payload: bytes, kind: type[T]) -> T:
    try:
        return msgspec.msgpack.decode(payload, type=kind)
    except msgspec.DecodeError as error:
        raise FormatError(f"a volume object cannot be read: {error}") from error
