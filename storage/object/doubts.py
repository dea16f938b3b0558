"""Doubts: versions that this device acknowledged, and of which it has nothing any more, because what it had rotted.

Its drop record says so (QUARANTINED), in the log like everything else.  From then on the device must not be one of a majority
that knows of nothing, or of something older: that it lacks the version is no evidence.  So it gives no answer of the name
(Doubted) until the version, or something above it, was brought here; of a tombstone all is known, so it goes on answering that.
It keeps nobody from repairing: it is not among what is held, so trees differ, no other device lets go of a copy because of it,
and copies and newer writes are taken as ever.  What is older than the version is told that something newer is here, as it would
have been.

A doubt ends when something at or above it lands, its newest metadata included, or when what is at or above it was let go of for
another reason.  All of them are in RAM, few as they are, and in the tables of the device behind the index's position.  Compaction
keeps their records, so an index that is made anew from the log has them, too.  Pure but for reading Tables.

Neighbours: index.py (owns this), store.py, admission.py and staging.py (ask before they answer), removal.py (writes the record),
replicator.py (vouches and confirms by it), storage.client.trust (the same for a whole disk).  Format: docs/formats/index.md.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from ring.names import Path, Span
from ring.timestamp import Timestamp
from ring.world.interface import Tables, Write
from storage.client.errors import Doubted
from storage.client.node import Kind, Version
from storage.object.entry import Held, rank_of_drop
from storage.object.record import Info, Record, RecordKind
from storage.object.state import STATE, under
from storage.sync.tree import digest

PREFIX = b"doubt"  # and the hash
QUARANTINED = "quarantined"  # the reason of such a drop

Rank = tuple[Timestamp, bool, str]


class Doubt(msgspec.Struct, array_like=True, frozen=True):
    version: bytes  # packed timestamp
    etag: str  # empty: a tombstone
    posted_at: bytes = b""  # packed timestamp of the newest POST

    @property
    def rank(self) -> Rank:
        return Timestamp.unpack(self.version), not self.etag, self.etag

    @property
    def modified(self) -> Timestamp:
        return Timestamp.unpack(self.posted_at or self.version)

    def key_digest(self, name_hash: bytes) -> tuple[bytes, bytes]:
        """As a device that has it would be compared."""
        key = name_hash + Timestamp.unpack(self.version).pack_inverted()
        kind = Kind.OBJECT if self.etag else Kind.TOMBSTONE
        return key, digest(key, bytes([kind]) + self.posted_at + self.etag.encode())

    def ended_by(self, held: Held) -> bool:
        return (held.rank, held.modified) >= (self.rank, self.modified)


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Doubt).decode


class Doubts:
    """Now, with all that has landed."""

    def __init__(self) -> None:
        self.changed: set[bytes] = set()  # hashes: since ``take_changed``
        self._open: dict[bytes, Doubt] = {}  # by hash

    def __contains__(self, name_hash: bytes) -> bool:
        return name_hash in self._open

    def __len__(self) -> int:
        return len(self._open)

    def told(self, name_hash: bytes, path: Path, timestamp: Timestamp | None = None) -> Version | None:
        """Before anything else is answered of a name (or of that version of it): the tombstone that counts here; None: there is no
        doubt.  Doubted."""
        doubt = self._open.get(name_hash)
        if doubt is None or (timestamp is not None and timestamp.pack() != doubt.version):
            return None
        if doubt.etag:
            raise Doubted(f"{path}: what this device had of it is damaged, and was put aside: what it lacks says nothing")
        return Version(path, Timestamp.unpack(doubt.version), Kind.TOMBSTONE)

    def check_post(self, name_hash: bytes, path: Path, held: Held | None, timestamp: Timestamp) -> None:
        """Doubted, unless such metadata are news to what is in doubt, and their version is here again."""
        doubt = self._open.get(name_hash)
        if doubt is not None and (held is None or held.rank != doubt.rank or timestamp < doubt.modified):
            self.told(name_hash, path)

    def above(self, name_hash: bytes, rank: Rank) -> Timestamp | None:
        """What a write of this rank is told to be here; None when it is news."""
        doubt = self._open.get(name_hash)
        if doubt is None or doubt.rank <= rank:
            return None
        at = doubt.rank[0]
        return Timestamp(at.ticks, at.offset + 1) if at == rank[0] else at

    def within(self, span: Span) -> list[tuple[bytes, Doubt]]:
        if not self._open:
            return []
        start, end = span.bounds
        return [(name, doubt) for name, doubt in self._open.items() if start <= name and (end is None or name < end)]

    def needs(self, name_hash: bytes, timestamp: Timestamp, info: Info) -> bool:
        """Whether a drop record says what is in doubt."""
        doubt = self._open.get(name_hash)
        return doubt is not None and (info.reason, timestamp, info.etag) == (QUARANTINED, doubt.rank[0], doubt.etag)

    # ---- what lands

    def land(self, record: Record, old: Held | None, new: Held | None) -> None:
        """``old`` was held before it, ``new`` is now."""
        before = doubt = self._open.get(record.hash)
        if record.kind is RecordKind.DROP:
            rank = rank_of_drop(record)
            if record.info.reason == QUARANTINED and (doubt is None or rank >= doubt.rank):
                posted_at = record.info.posted_at
                if old is not None and old.rank == rank:  # a POST may have come since the record was made
                    posted_at = old.entry.posted_at
                doubt = Doubt(record.timestamp.pack(), record.info.etag, posted_at)
            elif doubt is not None and rank >= doubt.rank:
                doubt = None
        if doubt is not None and new is not None and doubt.ended_by(new):
            doubt = None
        if doubt is not before:
            self._set(record.hash, doubt)

    def end(self, name_hash: bytes) -> None:
        """All who are to have it have it, and this device is none of them."""
        self._set(name_hash, None)

    def _set(self, name_hash: bytes, doubt: Doubt | None) -> None:
        if doubt is None:
            self._open.pop(name_hash, None)
        else:
            self._open[name_hash] = doubt
        self.changed.add(name_hash)

    # ---- the tables

    def clear(self) -> None:
        self._open.clear()
        self.changed.clear()

    def load(self, tables: Tables) -> None:
        """FormatError when they are damaged."""
        self.clear()
        self._open.update(under(tables, PREFIX, _decode, "a doubt in the tables is damaged"))

    def take_changed(self) -> set[bytes]:
        changed, self.changed = self.changed, set()
        return changed

    def writes(self, hashes: Iterable[bytes]) -> list[Write]:
        """What makes the tables say the same of these."""
        found = []
        for name_hash in sorted(hashes):
            doubt = self._open.get(name_hash)
            found.append(Write(STATE, PREFIX + name_hash, None if doubt is None else _encode(doubt)))
        return found
