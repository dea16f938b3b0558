"""An entry of the index: what it says of a version that is held, and what a record makes of it.  Pure.

Equal timestamps: a tombstone is above an object (as in storage.rows.merge, so that listings agree), else the greater ETag is.  A
drop takes away what is held at or below its version: compaction relies on that (its docstring has the argument).  Neighbours:
index.py (keeps entries), record.py (what they are made of), due.py.  Format: docs/formats/index.md; golden bytes:
tests/golden/index-entry.bin.
"""

from __future__ import annotations

import msgspec

from ring.errors import FormatError
from ring.timestamp import Timestamp
from storage.client.node import Kind
from storage.object import due
from storage.object.past import Known
from storage.object.record import IN_FILE, Info, Record, RecordKind
from storage.object.segments import Place
from storage.object.staged import fragment_of
from storage.sync.tree import digest

HEAD_BYTES_MAX = 256  # metadata up to here is in the entry, so that a HEAD reads no record


class EntryHead(msgspec.Struct, array_like=True, frozen=True):
    """What a HEAD needs beside the entry."""

    content_type: str
    metadata: dict[str, str]


class Entry(msgspec.Struct, array_like=True, frozen=True):
    """A version that is held.  ``place`` has its data (or its file's block checksums); ``posted`` is the newest POST's record."""

    kind: RecordKind  # OBJECT_INLINE, OBJECT_FILE or TOMBSTONE; FRAGMENT or NOTE
    place: Place
    size: int
    etag: str
    posted_at: bytes = b""
    posted: Place | None = None
    head: EntryHead | None = None  # None: too large, read the record
    serial: int = 0  # of an OBJECT_FILE's file
    due: int = 0  # seconds since 1970 when it is to go (X-Delete-At); 0: never
    origin: bytes = b""  # packed timestamp of the version that it is a copy of
    index: int = -1  # of a FRAGMENT
    file_bytes: int = 0  # of a FRAGMENT's file: ``size`` is the object's

    @property
    def in_file(self) -> bool:
        return self.kind in IN_FILE

    @property
    def whole(self) -> bool:
        """All of the version is here, whatever others hold."""
        return self.kind not in (RecordKind.FRAGMENT, RecordKind.NOTE)

    @property
    def stored_bytes(self) -> int:
        """Of its file."""
        return self.file_bytes if self.kind is RecordKind.FRAGMENT else self.size


class Held(msgspec.Struct, frozen=True):
    """An entry and whose it is."""

    hash: bytes
    timestamp: Timestamp
    entry: Entry

    @property
    def key(self) -> bytes:
        return self.hash + self.timestamp.pack_inverted()

    @property
    def modified(self) -> Timestamp:
        return Timestamp.unpack(self.entry.posted_at) if self.entry.posted_at else self.timestamp

    @property
    def due(self) -> int:
        return self.entry.due

    @property
    def origin(self) -> Timestamp | None:
        return Timestamp.unpack(self.entry.origin) if self.entry.origin else None

    @property
    def known(self) -> Known:
        return self.timestamp, self.origin

    @property
    def kind(self) -> Kind:
        return Kind.TOMBSTONE if self.entry.kind is RecordKind.TOMBSTONE else Kind.OBJECT

    @property
    def digest(self) -> bytes:
        """Over what replicas must agree on: the key, what kind of version, which content, which metadata.  Not how it is stored."""
        entry = self.entry
        return digest(self.key, bytes([self.kind]) + entry.posted_at + entry.etag.encode())

    def says(self, other: Held) -> bool:
        """Whether ``other`` is the same with the same content and metadata, wherever it lies: then it has the same digest."""
        mine, its = self.entry, other.entry
        return (self.timestamp, self.kind, mine.posted_at, mine.etag) == (other.timestamp, other.kind, its.posted_at, its.etag)

    @property
    def rank(self) -> tuple[Timestamp, bool, str]:
        return self.timestamp, self.kind is Kind.TOMBSTONE, self.entry.etag

    def above(self, rank: tuple[Timestamp, bool, str]) -> Timestamp:
        """What a write with this ``rank``, at most ours, is told to be held: above its own timestamp unless it is this one.

        Two front doors can give out one timestamp.  The write that lost the tie must not take our timestamp for its own success."""
        if rank[0] == self.timestamp and rank != self.rank:
            return Timestamp(self.timestamp.ticks, self.timestamp.offset + 1)
        return self.timestamp


encode_entry = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Entry).decode


def held_of(key: bytes, value: bytes) -> Held:
    try:
        return Held(key[:16], Timestamp.unpack_inverted(key[16:]), _decode(value))
    except msgspec.DecodeError as error:
        raise FormatError("an entry of the index is damaged") from error


def _head(info: Info) -> EntryHead | None:
    size = len(info.content_type) + sum(len(name) + len(value) for name, value in info.metadata.items())
    return EntryHead(info.content_type, info.metadata) if size <= HEAD_BYTES_MAX else None


def newer(old: Held | None, record: Record, place: Place) -> Held | None:
    """A version came: what is held afterwards."""
    new = version_of(record, place)
    if old is None or new.rank > old.rank:
        return new
    if new.rank == old.rank and new.modified > old.modified:
        return new
    if new.rank == old.rank and new.modified == old.modified and _says_more(new.entry, old.entry):
        return new
    return old


def _says_more(new: Entry, old: Entry) -> bool:
    """Of one version: data where there was none, or another fragment of it, which was brought because it belongs here.  Its record
    has the newest metadata in it: that of a POST that stands before it in the log may be gone when that is replayed."""
    if new.kind is RecordKind.FRAGMENT:
        return old.kind is RecordKind.NOTE or (old.kind is RecordKind.FRAGMENT and old.index != new.index)
    return new.kind is RecordKind.OBJECT_INLINE and old.kind is RecordKind.NOTE


def version_of(record: Record, place: Place) -> Held:
    info = record.info
    serial = info.file.serial if info.file is not None else 0
    entry = Entry(record.kind, place, info.size, info.etag, info.posted_at, None, _head(info), serial, due.of(record), info.origin)
    if record.kind is RecordKind.FRAGMENT:
        index, file_bytes = fragment_of(record)
        entry = msgspec.structs.replace(entry, index=index, file_bytes=file_bytes)
    return Held(record.hash, record.timestamp, entry)


def posted(old: Held | None, record: Record, place: Place) -> Held | None:
    """A POST came: it changes the version that it was made for, if that is still held."""
    if old is None or old.timestamp != record.timestamp or old.kind is Kind.TOMBSTONE or old.entry.etag != record.info.etag:
        return old
    if Timestamp.unpack(record.info.posted_at) <= old.modified:
        return old
    info = record.info
    entry = msgspec.structs.replace(old.entry, posted_at=info.posted_at, posted=place, head=_head(info), due=due.of(record))
    return Held(old.hash, old.timestamp, entry)


def rank_of_drop(record: Record) -> tuple[Timestamp, bool, str]:
    """An object has an ETag."""
    return record.timestamp, not record.info.etag, record.info.etag
