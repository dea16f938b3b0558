"""The commit log of a device's books: frames of records in segments ``rows/<sequence, 8 hex>.log``.  Pure codec.

A segment is a head and then frames to its end.  One frame is one append and one sync, so a frame is durable in whole or was never
acknowledged, and the frame that a crash tore can only be the last of the last segment.  What cannot be read is therefore of two
kinds: a torn tail (nothing whole comes after it; dropped) and damage (a whole frame comes after it, or it is not the last segment).
Damage loses only what was harmed; other replicas have it, and anti-entropy brings it back.

Neighbours: commit (writes), books (replays).  Format: docs/formats/rows.md.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from zlib import crc32

import msgspec

from ring.errors import FormatError, NewerFormat

FOLDER = "rows"
LOG_MAGIC = b"RFROWLOG"
LOG_VERSION = 1
FRAME_MAGIC = b"\xf5RWF"
_HEAD = struct.Struct(">8sHxxII")  # magic, version, sequence, crc32
_FRAME = struct.Struct(">4sIII")  # magic, length, number within the segment from 0, crc32
LOG_HEAD_BYTES = _HEAD.size
FRAME_HEAD_BYTES = _FRAME.size
FRAME_BYTES_MAX = 64 << 20


class RowsRecord(msgspec.Struct, array_like=True, tag=1, frozen=True):
    """Rows to merge into a book that has a header."""

    book: bytes  # hash
    rows: list[bytes]  # packed


class HeaderRecord(msgspec.Struct, array_like=True, tag=2, frozen=True):
    """A header to merge."""

    book: bytes  # hash
    header: bytes  # packed


Record = RowsRecord | HeaderRecord

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[Record]).decode


def log_path(sequence: int) -> str:
    return f"{FOLDER}/{sequence:08x}.log"


def sequence_of(name: str) -> int | None:
    """From a name in the folder; None when it is not a segment's."""
    stem, _, suffix = name.partition(".")
    if suffix != "log" or len(stem) != 8 or set(stem) - set("0123456789abcdef"):
        return None
    return int(stem, 16)


def encode_head(sequence: int) -> bytes:
    body = _HEAD.pack(LOG_MAGIC, LOG_VERSION, sequence, 0)[:-4]
    return body + crc32(body).to_bytes(4, "big")


def encode_frame(sequence: int, number: int, records: Sequence[Record]) -> bytes:
    """``number`` counts the frames of segment ``sequence`` from 0."""
    payload = _encode(records)
    assert len(payload) <= FRAME_BYTES_MAX
    return _FRAME.pack(FRAME_MAGIC, len(payload), number, _checksum(sequence, number, payload)) + payload


@dataclass(slots=True)
class Decoded:
    records: list[Record]
    damage: str = ""  # what of the acknowledged frames is missing; "" when nothing is


def decode_segment(data: bytes, sequence: int, *, last: bool) -> Decoded:
    """Every record that can be read.  ``last``: no later segment exists, so that a torn tail is no damage.

    An empty segment was created and never written.  Raises FormatError for a format that is too new."""
    found = Decoded([])
    if not data:
        return found
    try:
        at = _decode_head(data, sequence)
    except _Torn as torn:
        at = _next_frame(data, 0, sequence)
        if at < len(data) or not last:
            found.damage = f"{log_path(sequence)}: {torn}"
    number = 0
    while at < len(data):
        try:
            payload, found_number, after = _decode_frame(data, at, sequence)
        except _Torn as torn:
            after = _next_frame(data, at + 1, sequence)
            if after < len(data) or not last:
                found.damage = found.damage or f"{log_path(sequence)}: {torn} at byte {at}"
        else:
            if found_number != number:
                found.damage = found.damage or f"{log_path(sequence)}: frame {number} is missing"
            number = found_number + 1
            try:
                found.records += _decode(payload)
            except msgspec.MsgspecError as error:
                raise FormatError(f"{log_path(sequence)}: a frame at byte {at} that this program cannot read: {error}") from error
        at = after
    return found


class _Torn(Exception):
    """Nothing whole at this place."""


def _decode_head(data: bytes, sequence: int) -> int:
    if len(data) < LOG_HEAD_BYTES:
        raise _Torn("its head is cut off")
    magic, version, found, checksum = _HEAD.unpack_from(data)
    if magic != LOG_MAGIC or checksum != crc32(data[: LOG_HEAD_BYTES - 4]):
        raise _Torn("its head is damaged")
    if version > LOG_VERSION:
        raise NewerFormat("the log of rows", version, LOG_VERSION, path=log_path(sequence))
    if found != sequence:
        raise FormatError(f"{log_path(sequence)} calls itself {log_path(found)}")
    return LOG_HEAD_BYTES


def _decode_frame(data: bytes, at: int, sequence: int) -> tuple[bytes, int, int]:
    """Its payload, its number, and where the next one begins."""
    if len(data) - at < FRAME_HEAD_BYTES:
        raise _Torn("a frame's head is cut off")
    magic, length, number, checksum = _FRAME.unpack_from(data, at)
    if magic != FRAME_MAGIC or length > FRAME_BYTES_MAX:
        raise _Torn("no frame")
    end = at + FRAME_HEAD_BYTES + length
    payload = data[at + FRAME_HEAD_BYTES : end]
    if len(payload) != length or checksum != _checksum(sequence, number, payload):
        raise _Torn("a frame with a wrong checksum")
    return payload, number, end


def _next_frame(data: bytes, at: int, sequence: int) -> int:
    """Where the next whole frame begins, from ``at`` on; the end of ``data`` when there is none."""
    while (at := data.find(FRAME_MAGIC, at)) >= 0:
        try:
            _decode_frame(data, at, sequence)
        except _Torn:
            at += 1
        else:
            return at
    return len(data)


def _checksum(sequence: int, number: int, payload: bytes) -> int:
    return crc32(payload, crc32(struct.pack(">II", sequence, number)))
