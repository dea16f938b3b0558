"""What is staged on a device: versions that are durable beside what it shows, and are not shown before a commit; and refusals.

Every step is a record of the log, so it is durable before it is answered and has its place in the order of everything that lands:

    STAGED_COPY     a whole object in the record              STAGED_FILE   a fragment in a file that was durable before
    STAGED_NOTE     that there is such a version: no data     REFUSED       no writer can commit this version here any more
    UNSTAGED        this is let go of: nobody committed it, or something newer is at a majority

What commits is a record of a shown version (OBJECT_INLINE, FRAGMENT, NOTE) with the same hash, timestamp and ETag.  It says all
again that the staged one said, so what is shown never needs the staged record.  When it lands, what was staged ends, whether the
version was taken or something newer was there.

A replay of a log from which compaction has taken a dead commit may bring back something that was staged and is no more.  That does
no harm: it is below what took the commit's place, and the reconstructor lets go of it, as of all that stays staged too long.
An UNSTAGED is never taken out of the log before what it ends: that nobody may commit it any more stands nowhere else.

All of it is in RAM, and in the tables of the device behind the index's position: it is little, since it lasts for one write.  Pure
but for reading Tables.  Neighbours: index.py (owns this), staging.py (asks), storage.erasure.quorum (why there are two steps).
Format: docs/formats/index.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Set

import msgspec

from ring.timestamp import Timestamp
from ring.world.interface import Tables, Write
from storage.erasure.fragment import decode_fragment
from storage.object.record import STAGED_KINDS, Record, RecordKind
from storage.object.segments import Place
from storage.object.state import STATE, under

PREFIX = b"staged"  # and hash | inverted timestamp | ETag
KEY_BYTES = 28  # of hash and inverted timestamp


class Staged(msgspec.Struct, array_like=True, frozen=True):
    """One version.  ``place`` None: it is only refused."""

    kind: RecordKind  # STAGED_COPY, STAGED_FILE, STAGED_NOTE; REFUSED
    place: Place | None
    refused: Place | None = None  # of the refusal's record
    serial: int = 0  # of its file
    index: int = -1  # of its fragment
    file_bytes: int = 0

    @property
    def places(self) -> list[Place]:
        return [place for place in (self.place, self.refused) if place is not None]


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Staged).decode


def key_of(name_hash: bytes, timestamp: Timestamp, etag: str) -> bytes:
    return name_hash + timestamp.pack_inverted() + etag.encode()


def timestamp_in(key: bytes) -> Timestamp:
    return Timestamp.unpack_inverted(key[16:KEY_BYTES])


def etag_in(key: bytes) -> str:
    return key[KEY_BYTES:].decode()


def fragment_of(record: Record) -> tuple[int, int]:
    """Index of the fragment that a record describes, and the bytes of its file.  BadFragment."""
    fragment = decode_fragment(record.data)
    return fragment.index, fragment.origin.layout.fragment_bytes


class StagedVersions:
    """Now, with all that has landed."""

    def __init__(self) -> None:
        self._by_hash: dict[bytes, dict[bytes, Staged]] = {}
        self.changed: set[bytes] = set()  # keys, since the tables were told

    def __contains__(self, name_hash: bytes) -> bool:
        return name_hash in self._by_hash

    def __len__(self) -> int:
        return sum(map(len, self._by_hash.values()))

    def get(self, key: bytes) -> Staged | None:
        found = self._by_hash.get(key[:16])
        return None if found is None else found.get(key)

    def of(self, name_hash: bytes) -> list[tuple[bytes, Staged]]:
        """The newest first."""
        return sorted(self._by_hash.get(name_hash, {}).items())

    def files(self, name_hash: bytes) -> list[tuple[Timestamp, int]]:
        """Timestamp and serial of the files of a name."""
        found = self._by_hash.get(name_hash, {}).items()
        return [(timestamp_in(key), one.serial) for key, one in found if one.kind is RecordKind.STAGED_FILE]

    def before(self, timestamp: Timestamp) -> list[bytes]:
        """Keys of what was written before that, the oldest first."""
        keys = [key for versions in self._by_hash.values() for key in versions if timestamp_in(key) < timestamp]
        return sorted(keys, key=timestamp_in)

    # ---- what lands; each returns what was there before and what is there now

    def land(self, record: Record, place: Place) -> tuple[Staged | None, Staged | None]:
        key = key_of(record.hash, record.timestamp, record.info.etag)
        old = self.get(key)
        match record.kind:
            case RecordKind.UNSTAGED:
                new = None
            case RecordKind.REFUSED:
                new = Staged(RecordKind.REFUSED, None) if old is None else old
                new = msgspec.structs.replace(new, refused=place)
            case _:
                index, file_bytes = fragment_of(record) if record.kind is RecordKind.STAGED_FILE else (-1, 0)
                serial = record.info.file.serial if record.info.file is not None else 0
                refused = old.refused if old is not None else None
                new = Staged(record.kind, place, refused, serial, index, file_bytes)
        self._set(key, new)
        return old, new

    def end(self, key: bytes) -> Staged | None:
        """It was committed."""
        old = self.get(key)
        if old is not None:
            self._set(key, None)
        return old

    def end_below(self, name_hash: bytes, rank: tuple[Timestamp, bool, str]) -> list[tuple[bytes, Staged]]:
        """A drop takes away what is at or below its version."""
        gone = [(key, staged) for key, staged in self.of(name_hash) if (timestamp_in(key), False, etag_in(key)) <= rank]
        for key, _ in gone:
            self._set(key, None)
        return gone

    def _set(self, key: bytes, staged: Staged | None) -> None:
        versions = self._by_hash.setdefault(key[:16], {})
        if staged is not None:
            versions[key] = staged
        else:
            versions.pop(key, None)
        if not versions:
            del self._by_hash[key[:16]]
        self.changed.add(key)

    # ---- compaction

    def places(self, name_hash: bytes) -> Iterator[Place]:
        for staged in self._by_hash.get(name_hash, {}).values():
            yield from staged.places

    def names_any(self, name_hash: bytes, segments: Set[int]) -> bool:
        return any(place.segment in segments for place in self.places(name_hash))

    def relocate(self, name_hash: bytes, segment: int, offset: int, place: Place) -> Place | None:
        """The copy of a record lies at ``place``.  Where it lay, None when nothing names it (any more)."""
        for key, staged in self._by_hash.get(name_hash, {}).items():
            if staged.place is not None and staged.place[:2] == (segment, offset):
                self._set(key, msgspec.structs.replace(staged, place=place))
                return staged.place
            if staged.refused is not None and staged.refused[:2] == (segment, offset):
                self._set(key, msgspec.structs.replace(staged, refused=place))
                return staged.refused
        return None

    # ---- the tables

    def clear(self) -> None:
        self._by_hash.clear()
        self.changed.clear()

    def load(self, tables: Tables) -> None:
        """FormatError when they are damaged."""
        self.clear()
        for key, staged in under(tables, PREFIX, _decode, "what the tables say of a staged version is damaged"):
            self._by_hash.setdefault(key[:16], {})[key] = staged

    def take_changed(self) -> set[bytes]:
        taken, self.changed = self.changed, set()
        return taken

    def writes(self, keys: Iterable[bytes]) -> list[Write]:
        """What makes the tables say the same of these."""
        found = []
        for key in sorted(keys):
            staged = self.get(key)
            found.append(Write(STATE, PREFIX + key, None if staged is None else _encode(staged)))
        return found


__all__ = ["PREFIX", "STAGED_KINDS", "Staged", "StagedVersions", "etag_in", "fragment_of", "key_of", "timestamp_in"]
