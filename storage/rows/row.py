"""Bytes of rows and headers.  Pure.  Format: docs/formats/rows.md.

A packed row is a msgpack map of the row's fields by name, in a fixed order, without those that have their default; so equal rows
have equal bytes, and a row of an older format still reads when a field is added.  In the tables ("sealed") a crc32 follows it, in
little-endian order: then the crc32 of the whole value is a constant, and a page of values is checked in one pass.

Neighbours: merge (compares), page (many rows at once), log and books (keep them).
"""

from __future__ import annotations

from collections.abc import Iterable
from zlib import crc32

import msgspec

from ring.errors import BadInput, DiskFault, FormatError
from ring.names import NAME_BYTES_MAX, Path
from ring.timestamp import Timestamp
from storage.client.interface import Row
from storage.client.node import BookHeader

CRC_BYTES = 4
SEALED_CRC = 0x2144DF1C  # crc32(data + crc32(data) in little-endian order), whatever the data
TEXT_BYTES_MAX = 1024  # of an etag or a content type
INTEGER_MAX = 2**63 - 1


class _PackedTimestamp(msgspec.Struct, omit_defaults=True, frozen=True, gc=False):
    ticks: int
    offset: int = 0


class _PackedRow(msgspec.Struct, omit_defaults=True, frozen=True, gc=False):
    name: str
    timestamp: _PackedTimestamp
    size: int = 0
    etag: str = ""
    content_type: str = ""
    count: int = 0
    deleted: bool = False


class _PackedHeader(msgspec.Struct, array_like=True, frozen=True):
    account: str
    container: str
    created: bytes | None
    deleted: bytes | None
    policy: int
    metadata: list[tuple[str, str, bytes]]


_encode = msgspec.msgpack.Encoder().encode
_decode_row = msgspec.msgpack.Decoder(Row).decode
_decode_header = msgspec.msgpack.Decoder(_PackedHeader).decode


def pack_row(row: Row) -> bytes:
    timestamp = row.timestamp
    try:
        return _encode(
            _PackedRow(
                row.name,
                _PackedTimestamp(timestamp.ticks, timestamp.offset),
                row.size,
                row.etag,
                row.content_type,
                row.count,
                row.deleted,
            )
        )
    except (UnicodeEncodeError, OverflowError) as error:
        raise BadInput(f"a row cannot be stored: {error}") from error


def unpack_row(packed: bytes) -> Row:
    try:
        return _decode_row(packed)
    except msgspec.MsgspecError as error:
        raise FormatError(f"not a packed row: {error}") from error


def check_row(row: Row, book: Path) -> None:
    """BadInput for a row that no book may hold."""
    kind = "object" if book.container else "container"
    try:
        length = len(row.name.encode())
    except UnicodeEncodeError as error:
        raise BadInput(f"the {kind} name is not UTF-8 text") from error
    if not 1 <= length <= NAME_BYTES_MAX[kind]:
        raise BadInput(f"a {kind} name in a listing has 1 to {NAME_BYTES_MAX[kind]} bytes, not {length}")
    if not (0 <= row.size <= INTEGER_MAX and 0 <= row.count <= INTEGER_MAX):
        raise BadInput(f"the size or count of {row.name[:80]!r} is out of range")
    if len(row.etag) > TEXT_BYTES_MAX or len(row.content_type) > TEXT_BYTES_MAX:
        raise BadInput(f"the etag or content type of {row.name[:80]!r} is longer than {TEXT_BYTES_MAX}")


def pack_header(header: BookHeader) -> bytes:
    """Metadata in order of names: equal headers have equal bytes."""
    return _encode(
        _PackedHeader(
            header.path.account,
            header.path.container,
            None if header.created is None else header.created.pack(),
            None if header.deleted is None else header.deleted.pack(),
            header.policy,
            [(name, value, timestamp.pack()) for name, (value, timestamp) in sorted(header.metadata.items())],
        )
    )


def unpack_header(packed: bytes) -> BookHeader:
    try:
        fields = _decode_header(packed)
        return BookHeader(
            Path(fields.account, fields.container),
            None if fields.created is None else Timestamp.unpack(fields.created),
            None if fields.deleted is None else Timestamp.unpack(fields.deleted),
            fields.policy,
            {name: (value, Timestamp.unpack(timestamp)) for name, value, timestamp in fields.metadata},
        )
    except (msgspec.MsgspecError, BadInput) as error:
        raise FormatError(f"not a packed header: {error}") from error


def seal(packed: bytes) -> bytes:
    """As it lies in the tables."""
    return packed + crc32(packed).to_bytes(CRC_BYTES, "little")


def unseal(value: bytes) -> bytes:
    """DiskFault when it is not what was written."""
    if len(value) < CRC_BYTES or crc32(value) != SEALED_CRC:
        raise DiskFault("a damaged value in a device's tables")
    return value[:-CRC_BYTES]


def unseal_all(values: Iterable[bytes]) -> list[bytes]:
    """Like ``unseal`` of each, in two passes at C speed."""
    values = list(values)
    if values and (set(map(crc32, values)) != {SEALED_CRC} or min(map(len, values)) < CRC_BYTES):
        raise DiskFault("a damaged value in a device's tables")
    return [value[:-CRC_BYTES] for value in values]
