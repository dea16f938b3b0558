"""Compression of small values: whether it pays, zstd frames, and back within a bound.  Pure.

A value is compressed when it comes out at least an eighth smaller; what is tried first is a sample, so that bodies which are
compressed or encrypted already cost a few microseconds.  Names, sizes and ETags are those of the value: nobody outside of the
record knows.  Neighbours: packs.py packs what it writes (large values on a thread), reader.py unpacks.
"""

from __future__ import annotations

import zstandard

from ring.world.interface import Buffer
from storage.object.errors import BadRecord
from storage.object.record import DATA_BYTES_MAX

LEVEL = 1
TRY_BYTES_MIN = 512  # below, a frame saves less than it costs
OFFLOAD_BYTES = 64 << 10  # from here on it takes longer than handing it to a thread does
_SAMPLE_BYTES = 4096
_SAMPLED_FROM = 4 * _SAMPLE_BYTES  # shorter values are their own sample

_compressor = zstandard.ZstdCompressor(level=LEVEL, write_checksum=False)
_decompressor = zstandard.ZstdDecompressor()


def compress(data: Buffer) -> bytes | None:
    """A frame that is at least an eighth shorter, or None.  For calls from one thread."""
    return _compress(_compressor, data)


def compress_apart(data: Buffer) -> bytes | None:
    """``compress`` on any thread."""
    return _compress(zstandard.ZstdCompressor(level=LEVEL, write_checksum=False), data)


def decompress(frame: Buffer, size: int) -> bytes:
    """The value, which has ``size`` bytes: never more are made.  BadRecord when the frame is no such value."""
    return _decompress(_decompressor, frame, size)


def decompress_apart(frame: Buffer, size: int) -> bytes:
    """``decompress`` on any thread."""
    return _decompress(zstandard.ZstdDecompressor(), frame, size)


def _compress(compressor: zstandard.ZstdCompressor, data: Buffer) -> bytes | None:
    size = len(data)
    if size < TRY_BYTES_MIN:
        return None
    if size >= _SAMPLED_FROM:
        at = (size - _SAMPLE_BYTES) // 2
        if not _pays(len(compressor.compress(memoryview(data)[at : at + _SAMPLE_BYTES])), _SAMPLE_BYTES):
            return None
    frame = compressor.compress(data)
    return frame if _pays(len(frame), size) else None


def _decompress(decompressor: zstandard.ZstdDecompressor, frame: Buffer, size: int) -> bytes:
    try:
        if size > DATA_BYTES_MAX or zstandard.frame_content_size(frame) != size:
            raise BadRecord("the record's data unpacks to another size than its object has")
        data = decompressor.decompress(frame, max_output_size=max(1, size))
    except zstandard.ZstdError as error:
        raise BadRecord("the record's data cannot be unpacked") from error
    if len(data) != size:
        raise BadRecord("the record's data unpacks to another size than its object has")
    return data


def _pays(packed: int, size: int) -> bool:
    return packed <= size - size // 8
