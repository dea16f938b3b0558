"""Promises: the ballots of conditional writes below which this device takes nothing of a name any more.

A promise is a record of the log, so it is durable before it is given and has its place in the order of everything else that
lands.  It is *open* until a version at or above its ballot lands (which says the same by itself) or it is released (the write that
it was given to will never be made).  Several can be open for a name: each belongs to another write, and what counts is the
greatest.  A released one leaves the lesser ones as they are: what they were given for may still come.  Nothing that an open promise
forbids is ever written to the log: it is refused before (store.py), so a replay has nothing to decide, whatever compaction has left
out.

All open ones are in RAM, and in the tables of the device behind the index's position.  Pure but for reading Tables.  Neighbours:
index.py (owns this), store.py (gives promises), settler.py (sees to those that nobody comes back for), compaction.py (keeps the
records of those that are open), storage.client.register (asks for them).  Format: docs/formats/index.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Set

import msgspec

from ring.names import Path
from ring.timestamp import Timestamp
from ring.world.interface import Tables, Write
from storage.object.record import Record
from storage.object.segments import Place
from storage.object.state import STATE, under

PREFIX = b"promise"  # and hash | inverted ballot
OPEN_MAX = 64  # of one name


class Promise(msgspec.Struct, array_like=True, frozen=True):
    ballot: bytes  # packed timestamp
    path: tuple[str, str, str]
    place: Place  # of its record

    @property
    def at(self) -> Timestamp:
        return Timestamp.unpack(self.ballot)


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Promise).decode


class Promises:
    """Now, with all that has landed."""

    def __init__(self) -> None:
        self._open: dict[bytes, tuple[Promise, ...]] = {}  # by hash; the least ballot first

    def __contains__(self, name_hash: bytes) -> bool:
        return name_hash in self._open

    def __len__(self) -> int:
        return sum(map(len, self._open.values()))

    def above(self, name_hash: bytes) -> Timestamp | None:
        """Below this nothing of the name is taken; None: anything is."""
        found = self._open.get(name_hash)
        return found[-1].at if found is not None else None

    def stands(self, name_hash: bytes, ballot: Timestamp) -> bool:
        packed = ballot.pack()
        return any(promise.ballot == packed for promise in self._open.get(name_hash, ()))

    def full(self, name_hash: bytes) -> bool:
        return len(self._open.get(name_hash, ())) >= OPEN_MAX

    def all(self) -> list[tuple[Path, Timestamp]]:
        """Names and ballots of the open ones, the least ballot first."""
        found = [(promise.at, promise.path) for promises in self._open.values() for promise in promises]
        return [(Path(*path), at) for at, path in sorted(found)]

    # ---- what lands; each returns the promises that were opened or closed by it

    def open(self, record: Record, place: Place, held: Timestamp | None) -> Promise | None:
        """A promise's record landed where ``held`` is the newest.  None: it is no promise: something above it was there first."""
        if held is not None and held >= record.timestamp:
            return None
        promise = Promise(record.timestamp.pack(), record.info.path, place)
        others = [other for other in self._open.get(record.hash, ()) if other.ballot != promise.ballot]
        self._open[record.hash] = tuple(sorted((*others, promise), key=_ballot))
        return promise

    def release(self, name_hash: bytes, ballot: Timestamp) -> list[Promise]:
        packed = ballot.pack()
        return self._close(name_hash, lambda promise: promise.ballot == packed)

    def settle(self, name_hash: bytes, version: Timestamp) -> list[Promise]:
        """A version of the name landed."""
        packed = version.pack()
        return self._close(name_hash, lambda promise: promise.ballot <= packed)

    def _close(self, name_hash: bytes, closes: Callable[[Promise], bool]) -> list[Promise]:
        promises = self._open.get(name_hash, ())
        closed = [promise for promise in promises if closes(promise)]
        if closed:
            left = tuple(promise for promise in promises if promise not in closed)
            if left:
                self._open[name_hash] = left
            else:
                del self._open[name_hash]
        return closed

    # ---- compaction

    def places(self, name_hash: bytes) -> Iterator[Place]:
        for promise in self._open.get(name_hash, ()):
            yield promise.place

    def names_any(self, name_hash: bytes, segments: Set[int]) -> bool:
        return any(place.segment in segments for place in self.places(name_hash))

    def relocate(self, name_hash: bytes, segment: int, offset: int, place: Place) -> Promise | None:
        """The copy of a promise's record lies at ``place``.  The promise as it was, None when it is not open (any more)."""
        promises = self._open.get(name_hash, ())
        for number, promise in enumerate(promises):
            if promise.place[:2] == (segment, offset):
                moved = msgspec.structs.replace(promise, place=place)
                self._open[name_hash] = (*promises[:number], moved, *promises[number + 1 :])
                return promise
        return None

    # ---- the tables

    def clear(self) -> None:
        self._open.clear()

    def load(self, tables: Tables) -> None:
        """FormatError when they are damaged."""
        self._open.clear()
        for rest, promise in under(tables, PREFIX, _decode, "a promise in the tables is damaged"):
            name_hash = rest[:16]
            self._open[name_hash] = (promise, *self._open.get(name_hash, ()))  # the keys of a name: the greatest ballot first

    def writes(self, hashes_and_ballots: Iterable[tuple[bytes, bytes]]) -> list[Write]:
        """What makes the tables say the same of these."""
        found = []
        for name_hash, ballot in sorted(hashes_and_ballots):
            promise = next((p for p in self._open.get(name_hash, ()) if p.ballot == ballot), None)
            key = PREFIX + name_hash + Timestamp.unpack(ballot).pack_inverted()
            found.append(Write(STATE, key, None if promise is None else _encode(promise)))
        return found


def _ballot(promise: Promise) -> bytes:
    return promise.ballot
