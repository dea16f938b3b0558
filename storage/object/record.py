"""Records: the bytes that commit every object, delete, POST, drop and promise to a device.  Pure codec, no I/O.

A record is ``magic | length | crc32 | hash | version | kind | metadata | data | crc32``.  The first checksum covers all up to
the data, so that a HEAD need not read it; the second covers the data and starts from the first, so that the two parts of one record
belong together.  The first starts from its segment's salt: an object whose body is a copy of a pack does not pass for records when
a damaged segment is searched for the next good one.

``data`` is what is stored: compression.py makes it of an object's bytes and back.  A record that compaction moved also says from
where (``origin``), so that the index can be told whatever happened in between.  Neighbours: packs.py writes records, scan.py finds
them, index.py remembers where the newest ones are.  Format: docs/formats/pack.md; golden bytes: tests/golden/pack*.bin.
"""

from __future__ import annotations

import struct
import zlib
from enum import IntEnum
from typing import NamedTuple

import msgspec

from ring.errors import BadInput
from ring.names import Path
from ring.timestamp import Timestamp
from ring.world.interface import Buffer
from storage.client.interface import Row
from storage.client.node import Debt, Kind, Version
from storage.object.errors import BadRecord, ForeignRecord

MAGIC = b"\xd5RF\x01"
HEAD = struct.Struct(">4sII16s12sBBxxI")  # magic, length, crc32, hash, version, kind, flags, metadata length
HEAD_BYTES = HEAD.size
FOOT_BYTES = 4
META_BYTES_MAX = 1 << 20
DATA_BYTES_MAX = 16 << 20
_ORIGIN = struct.Struct(">II")  # segment, offset
RECORD_BYTES_MAX = HEAD_BYTES + META_BYTES_MAX + _ORIGIN.size + DATA_BYTES_MAX + FOOT_BYTES
FLAG_ZSTD = 1  # the data is a zstd frame
FLAG_MOVED = 2  # an origin stands before the data
_FLAGS = FLAG_ZSTD | FLAG_MOVED
_LENGTH = struct.Struct(">I")
_CHECKED = struct.Struct(">16s12sBBxxI")  # what follows the first crc32
_COPY_BYTES_MAX = 32 << 10  # data up to here is joined with its head: one buffer is cheaper than three


class RecordKind(IntEnum):
    OBJECT_INLINE = 1  # the data is in the record
    OBJECT_FILE = 2  # the data is in a file that was durable before the record
    TOMBSTONE = 3
    METADATA = 4  # a POST to the version with this hash and version
    DROP = 5  # this device no longer holds the version (handed off, reclaimed, quarantined); not a deletion
    PROMISE = 6  # this device takes nothing of the name below this version any more (promises.py)
    RELEASE = 7  # ... and this takes that back
    STAGED_COPY = 8  # durable beside what is shown, and not shown (staged.py): a whole object, in the record
    STAGED_FILE = 9  # ... a fragment: in a file that was durable before; the data describes it (docs/formats/fragment.md)
    STAGED_NOTE = 10  # ... that there is this version; others have its data
    FRAGMENT = 11  # a version of which this device has a fragment, as in STAGED_FILE
    NOTE = 12  # a version of which this device has no data
    REFUSED = 13  # what has this hash, version and ETag cannot be committed here by its writer any more
    UNSTAGED = 14  # ... and this lets go of it, and of what was staged


IN_FILE = frozenset({RecordKind.OBJECT_FILE, RecordKind.FRAGMENT, RecordKind.STAGED_FILE})
STAGED_KINDS = frozenset(
    {RecordKind.STAGED_COPY, RecordKind.STAGED_FILE, RecordKind.STAGED_NOTE, RecordKind.REFUSED, RecordKind.UNSTAGED}
)
DESCRIBED = frozenset({RecordKind.STAGED_FILE, RecordKind.FRAGMENT})  # their data describes a fragment


class DebtInfo(msgspec.Struct, array_like=True, frozen=True):
    """A container row still to be sent (storage.client.node.Debt)."""

    container: tuple[str, ...]  # account, container, and the shard where one is meant
    device_ids: tuple[int, ...]
    name: str
    timestamp: bytes
    size: int
    etag: str
    content_type: str
    count: int
    deleted: bool


class FileInfo(msgspec.Struct, array_like=True, frozen=True):
    """Where a large object's data is: the file's name ends in ``-<serial>`` unless it is 0; ``crcs`` has 4 bytes for each block."""

    serial: int
    block_bytes: int
    crcs: bytes


class Info(msgspec.Struct, array_like=True, frozen=True):
    """The metadata part of a record."""

    path: tuple[str, str, str]
    size: int = 0
    etag: str = ""
    content_type: str = ""
    metadata: dict[str, str] = {}
    posted_at: bytes = b""  # packed timestamp of the newest POST; empty: there was none
    debt: DebtInfo | None = None
    file: FileInfo | None = None
    reason: str = ""  # of a drop
    origin: bytes = b""  # packed timestamp of the version that this one is a copy of, under a newer timestamp


_encode_info = msgspec.msgpack.Encoder().encode
_decode_info = msgspec.msgpack.Decoder(Info).decode


class Origin(NamedTuple):
    """Where a record that was moved lay before."""

    segment: int
    offset: int


class Record(msgspec.Struct, frozen=True):
    kind: RecordKind
    hash: bytes
    timestamp: Timestamp
    info: Info
    data: Buffer = b""  # as it is stored
    zstd: bool = False  # the data is a zstd frame
    origin: Origin | None = None


class Head(msgspec.Struct, frozen=True):
    """The fixed part of a record, as read; its checksum is not looked at yet."""

    length: int  # of the whole record
    checksum: int
    hash: bytes
    version: bytes
    kind: int
    flags: int
    meta_length: int

    @property
    def known(self) -> bool:
        """Whether this program knows what such a record means."""
        return self.kind <= RecordKind.UNSTAGED and not self.flags & ~_FLAGS

    @property
    def key(self) -> bytes:
        """hash | inverted timestamp, as in the index."""
        return self.hash + bytes(0xFF ^ byte for byte in self.version)


def encode_info(info: Info) -> bytes:
    """BadInput when it is longer than a record may hold."""
    meta = _encode_info(info)
    if len(meta) > META_BYTES_MAX:
        raise BadInput(
            f"the object's metadata takes {len(meta)} bytes; at most {META_BYTES_MAX} fit", hint="shorten its headers or its name"
        )
    return meta


def encode_record(record: Record, salt: int, meta: bytes | None = None) -> tuple[list[Buffer], int, int]:
    """The buffers that make the record, its length, and the length of its metadata part (``meta``, when it was encoded before)."""
    if meta is None:
        meta = encode_info(record.info)
    data, data_length = record.data, len(record.data)
    assert data_length <= DATA_BYTES_MAX, "whoever takes a body looks at its size first"
    flags, origin = FLAG_ZSTD if record.zstd else 0, b""
    if record.origin is not None:
        flags, origin = flags | FLAG_MOVED, _ORIGIN.pack(*record.origin)
    length = HEAD_BYTES + len(meta) + len(origin) + data_length + FOOT_BYTES
    length_field = _LENGTH.pack(length)
    checked = _CHECKED.pack(record.hash, record.timestamp.pack(), record.kind, flags, len(meta)) + meta
    checksum = zlib.crc32(checked, zlib.crc32(length_field, salt))
    head = b"".join((MAGIC, length_field, _LENGTH.pack(checksum), checked, origin))
    foot = _LENGTH.pack(zlib.crc32(data, zlib.crc32(origin, checksum) if origin else checksum))
    if data_length <= _COPY_BYTES_MAX:
        return [b"".join((head, data, foot))], length, len(meta)
    return [head, data, foot], length, len(meta)


def decode_head(data: Buffer, at: int = 0) -> Head:
    """The fixed part that begins at ``data[at]``; HEAD_BYTES must be there.  BadRecord when it cannot be one."""
    magic, length, checksum, digest, version, kind, flags, meta_length = HEAD.unpack_from(data, at)
    if magic != MAGIC:
        raise BadRecord("no record begins here")
    if not kind or meta_length > META_BYTES_MAX:
        raise BadRecord("the record's head is damaged")
    if not HEAD_BYTES + meta_length + FOOT_BYTES <= length <= RECORD_BYTES_MAX:
        raise BadRecord("the record's length is damaged")
    return Head(length, checksum, digest, version, kind, flags, meta_length)


def decode_info(data: Buffer, salt: int, at: int = 0) -> tuple[Head, Info]:
    """Head and metadata of the record at ``data[at]``, checked; its data need not be there.  BadRecord, ForeignRecord."""
    head = _checked_head(data, salt, at)
    if not head.known:
        raise ForeignRecord("the record is of a newer format", hint="run the newer version of ringfort that wrote it")
    return head, _info(data, at, head)


NO_INFO = Info(("", "", ""))


def decode_record(data: Buffer, salt: int, at: int = 0, *, raw: bool = False) -> Record:
    """The whole record at ``data[at]``, every byte checked; its data is a view.  ``raw``: its metadata is not decoded (NO_INFO).
    BadRecord, ForeignRecord."""
    head = _checked_head(data, salt, at)
    view = memoryview(data)
    end = at + head.length - FOOT_BYTES
    if len(data) < end + FOOT_BYTES:
        raise BadRecord("the record is cut off")
    body = view[at + HEAD_BYTES + head.meta_length : end]
    if zlib.crc32(body, head.checksum) != _LENGTH.unpack_from(data, end)[0]:
        raise BadRecord("the record's data is damaged")
    if not head.known:
        raise ForeignRecord("the record is of a newer format", hint="run the newer version of ringfort that wrote it")
    origin = None
    if head.flags & FLAG_MOVED:
        if len(body) < _ORIGIN.size:
            raise BadRecord("the record is too short for where it came from")
        origin, body = Origin(*_ORIGIN.unpack_from(body)), body[_ORIGIN.size :]
    zstd = bool(head.flags & FLAG_ZSTD)
    info = NO_INFO if raw else _info(data, at, head)
    return Record(RecordKind(head.kind), head.hash, Timestamp.unpack(head.version), info, body, zstd, origin)


def _checked_head(data: Buffer, salt: int, at: int) -> Head:
    if len(data) - at < HEAD_BYTES:
        raise BadRecord("the record is cut off")
    head = decode_head(data, at)
    end = at + HEAD_BYTES + head.meta_length
    if len(data) < end:
        raise BadRecord("the record is cut off")
    view = memoryview(data)
    if zlib.crc32(view[at + 12 : end], zlib.crc32(view[at + 4 : at + 8], salt)) != head.checksum:
        raise BadRecord("the record's metadata is damaged")
    return head


def decode_meta(meta: Buffer) -> Info:
    """A record's metadata part, which was checked.  BadRecord."""
    try:
        return _decode_info(meta)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise BadRecord("the record's metadata is not of this format") from error


def _info(data: Buffer, at: int, head: Head) -> Info:
    return decode_meta(memoryview(data)[at + HEAD_BYTES : at + HEAD_BYTES + head.meta_length])


# ---- between records and what a Node speaks of


def info_of(version: Version, debt: Debt | None, file: FileInfo | None = None) -> Info:
    posted = version.metadata_timestamp
    return Info(
        (version.path.account, version.path.container, version.path.object),
        version.size,
        version.etag,
        version.content_type,
        dict(version.metadata),
        posted.pack() if posted is not None else b"",
        None if debt is None else debt_info(debt),
        file,
        origin=b"" if version.origin is None else version.origin.pack(),
    )


def version_of(kind: Kind, timestamp: Timestamp, info: Info) -> Version:
    posted = Timestamp.unpack(info.posted_at) if info.posted_at else None
    origin = Timestamp.unpack(info.origin) if info.origin else None
    return Version(Path(*info.path), timestamp, kind, info.size, info.etag, info.content_type, info.metadata, posted, origin)


def debt_of(info: DebtInfo) -> Debt:
    row = Row(info.name, Timestamp.unpack(info.timestamp), info.size, info.etag, info.content_type, info.count, info.deleted)
    account, container, *shard = info.container
    return Debt(row, Path(account, container), info.device_ids, *shard)


def debt_info(debt: Debt) -> DebtInfo:
    row = debt.row
    return DebtInfo(
        (debt.container.account, debt.container.container, *((debt.shard,) if debt.shard else ())),
        debt.device_ids,
        row.name,
        row.timestamp.pack(),
        row.size,
        row.etag,
        row.content_type,
        row.count,
        row.deleted,
    )
