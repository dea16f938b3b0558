"""The index of a device: which version of each name it holds and where the record lies.  A cache of the log.

Decides, in ``land``, what a record does to what is held; the live path and the replay after a start go through the same few
lines, in the order of the log, so they cannot differ.  Changes live in RAM until ``commit`` writes them to the tables in one
transaction with the set-hash tree, the due times, the debts, the open promises and the position in the log up to which all of this
is true.  Its only I/O is the tables'.

Key: hash (16) | inverted timestamp (12); only the newest version of a name is kept.  Neighbours: entry.py says what a record makes
of what is held; packs.py calls ``land``, compaction.py ``relocate``, store.py reads, weights.py counts what is alive where,
promises.py which ballots are open, past.py what was held, doubts.py what was lost, storage.sync.tree holds the digests.  Format:
docs/formats/index.md.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Sequence, Set
from contextlib import asynccontextmanager, suppress

import msgspec
import trio

from ring.errors import DiskFault, FormatError
from ring.names import Span
from ring.timestamp import ZERO, Timestamp
from ring.world.interface import Tables, Write
from storage.client.node import LeafDigests
from storage.object import doubts, due
from storage.object.entry import Entry, Held, held_of, newer, posted, rank_of_drop, version_of
from storage.object.layer import OWED, TABLE, Change, Layer, OwedInfo
from storage.object.packs import Landed
from storage.object.past import Past
from storage.object.promises import PREFIX as PROMISE_PREFIX
from storage.object.promises import Promise, Promises
from storage.object.record import Record, RecordKind
from storage.object.segment import LOG_START, Position
from storage.object.segments import Place
from storage.object.staged import PREFIX as STAGED_PREFIX
from storage.object.staged import STAGED_KINDS, Staged, StagedVersions, etag_in, key_of, timestamp_in
from storage.object.state import STATE
from storage.object.weights import PREFIX as WEIGHT_PREFIX
from storage.object.weights import Weights
from storage.sync import tree

POSITION_KEY = b"position"
VERSION_KEY = b"version"  # of the index's format; one of another is made anew
VERSION = b"\x03"
KEY_BYTES = 28
_SCAN_ROWS = 1000
_SEEN_MAX = 4096

_encode = msgspec.msgpack.Encoder().encode
_decode_owed = msgspec.msgpack.Decoder(OwedInfo).decode
_decode_position = msgspec.msgpack.Decoder(Position).decode


class Index:
    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._fresh = Layer()
        self._committing: Layer | None = None
        self._seen: dict[bytes, Held | None] = {}  # what the table said since the last commit: reads and writes look twice
        self._lock = trio.Lock()
        self._distrusted = False
        self._unsure = False  # whether the tables have what a commit that failed was to bring
        self.position = LOG_START  # of the log: committed up to here
        self.landed = LOG_START  # and in RAM up to here
        self.weights = Weights()
        self.promises = Promises()
        self.staged = StagedVersions()
        self.doubts = doubts.Doubts()
        self.past = Past()
        self.forgotten: list[Held] = []  # superseded or dropped versions whose files may go; store.py takes them

    # ---- reading

    def newest(self, name_hash: bytes) -> Held | None:
        """The version of a name that is held, tombstones included.  FormatError when the table is damaged."""
        change = self._change(name_hash)
        if change is not None:
            return change.held
        if name_hash in self._seen:
            return self._seen[name_hash]
        held = self._in_table(name_hash)
        if len(self._seen) >= _SEEN_MAX:
            self._seen.clear()
        self._seen[name_hash] = held
        return held

    def get(self, key: bytes) -> Held | None:
        """The version with this very key."""
        held = self.newest(key[:16])
        return held if held is not None and held.key == key else None

    def page(self, start: bytes, end: bytes | None, *, limit: int) -> tuple[list[Held], bytes | None]:
        """In key order, what start <= key < end holds, about ``limit`` at a time; where the next page starts (None: nowhere)."""
        pairs = self._tables.scan(TABLE, start, end, limit=limit)
        following = pairs[-1][0] + b"\0" if len(pairs) == limit else None
        stop = following or end
        found = {key[:16]: held_of(key, value) for key, value in pairs}
        first, last = start[:16], b"\xff" * 16 if stop is None else stop[:16]
        for name_hash, change in self._changes():
            if first <= name_hash <= last:
                found.pop(name_hash, None)
                held = change.held
                if held is not None and start <= held.key and (stop is None or held.key < stop):
                    found[name_hash] = held
        return sorted(found.values(), key=_key), following

    @property
    def backlog(self) -> int:
        """Changes that wait for ``commit``."""
        return len(self._fresh) + len(self.staged.changed)

    def _change(self, name_hash: bytes) -> Change | None:
        change = self._fresh.changes.get(name_hash)
        if change is None and self._committing is not None:
            change = self._committing.changes.get(name_hash)
        return change

    def _changes(self) -> Iterator[tuple[bytes, Change]]:
        """Older ones first, so that the newer of a name comes last."""
        if self._committing is not None:
            for name_hash, change in self._committing.changes.items():
                if name_hash not in self._fresh.changes:
                    yield name_hash, change
        yield from self._fresh.changes.items()

    def _in_table(self, name_hash: bytes) -> Held | None:
        pairs = self._tables.scan(TABLE, name_hash, name_hash + b"\xff" * 13, limit=1)
        return held_of(*pairs[0]) if pairs else None

    # ---- the merge rule

    def land(self, record: Record, place: Place) -> Landed:
        """Take a durable record, in the order of the log."""
        old = self.newest(record.hash)
        self.landed = Position(place.segment, place.offset + place.length)
        if record.kind is RecordKind.PROMISE or record.kind is RecordKind.RELEASE:
            return self._promise(record, place, old)
        if record.kind in STAGED_KINDS:
            return self._stage(record, place, old)
        if record.kind is RecordKind.METADATA:
            new = posted(old, record, place)
        elif record.kind is RecordKind.DROP:
            new = None if old is not None and old.rank <= rank_of_drop(record) else old
            self.weights.dropped(place)
            self._fresh.weighed.add(place.segment)
        else:
            new = newer(old, record, place)
        if new is not old:
            self._set(record.hash, old, new)
        taken = new is not old
        if record.kind is RecordKind.DROP or record.hash in self.doubts:
            self.doubts.land(record, old, new)
        if record.kind is not RecordKind.METADATA and record.hash in self.promises:
            self._weigh_promises(record.hash, self.promises.settle(record.hash, record.timestamp), -1)
        if record.hash in self.staged:
            self._unstage(record)
        if taken and record.info.debt is not None:
            self._fresh.owed[record.hash + record.timestamp.pack_inverted()] = OwedInfo(record.kind, record.info)
            if old is not None and old.timestamp != record.timestamp:
                self.mark_paid([old.key])  # the new row replaces the old one
        if record.kind is RecordKind.METADATA:
            return Landed(taken, new.modified if new is not None else record.timestamp)
        if taken or old is None:
            return Landed(taken, record.timestamp)
        return Landed(taken, *self.answer(old, version_of(record, place).rank))

    def answer(self, held: Held, rank: tuple[Timestamp, bool, str]) -> tuple[Timestamp, bool]:
        """What a write with this ``rank``, at most that of ``held``, is told to be held, and whether it surely never was here."""
        if held.origin == rank[0] and held.rank[1:] == rank[1:]:
            return rank[0], False  # a copy of this very write is held
        newest = held.above(rank)
        return newest, newest > rank[0] and self.past.never(held.hash, rank[0], held.known, other=True)

    def _set(self, name_hash: bytes, old: Held | None, new: Held | None) -> None:
        change = self._fresh.changes.get(name_hash)
        if change is None:
            self._fresh.changes[name_hash] = Change(new, old)  # what is held now is what the table will have by then
        else:
            change.held = new
        self._weigh(old, -1)
        self._weigh(new, 1)
        if new is None and old is not None:
            self.past.dropped(name_hash, old.timestamp)
        elif new is not None and (old is None or new.timestamp != old.timestamp):
            self.past.replaced(name_hash, None if old is None else old.known)
        if old is not None and old.entry.in_file and (new is None or new.entry.place != old.entry.place):
            self.forgotten.append(old)

    def _weigh(self, held: Held | None, sign: int) -> None:
        if held is None:
            return
        entry = held.entry
        self.weights.add(entry.place, sign)
        self._fresh.weighed.add(entry.place.segment)
        if entry.posted is not None:
            self.weights.add(entry.posted, sign)
            self._fresh.weighed.add(entry.posted.segment)

    def _promise(self, record: Record, place: Place, held: Held | None) -> Landed:
        newest = held.timestamp if held is not None else ZERO
        if record.kind is RecordKind.RELEASE:
            self._weigh_promises(record.hash, self.promises.release(record.hash, record.timestamp), -1)
            self.weights.dropped(place)  # as a drop, it stays until what it takes back is gone
            self._fresh.weighed.add(place.segment)
            return Landed(True, newest)
        modified = None if held is None else held.modified
        promise = self.promises.open(record, place, modified)
        if promise is None:
            return Landed(False, max(newest, modified or ZERO))
        self._weigh_promises(record.hash, [promise], 1)
        return Landed(True, newest, held=held)

    def _weigh_promises(self, name_hash: bytes, promises: Iterable[Promise], sign: int) -> None:
        for promise in promises:
            self.weights.add(promise.place, sign)
            self._fresh.weighed.add(promise.place.segment)
            self._fresh.promised.add((name_hash, promise.ballot))

    def _stage(self, record: Record, place: Place, held: Held | None) -> Landed:
        """What is shown stays as it is."""
        before, after = self.staged.land(record, place)
        if record.kind is RecordKind.UNSTAGED:
            self.weights.dropped(place)  # likewise
            self._fresh.weighed.add(place.segment)
        self._weigh_staged(before, -1)
        self._weigh_staged(after, 1)
        if before is not None and before.kind is RecordKind.STAGED_FILE and (after is None or after.serial != before.serial):
            self._forget_file(record.hash, record.timestamp, record.info.etag, before)
        return Landed(True, held.timestamp if held is not None else record.timestamp)

    def _unstage(self, record: Record) -> None:
        """A record of a shown version, or a drop, landed."""
        if record.kind is RecordKind.DROP:
            gone = self.staged.end_below(record.hash, rank_of_drop(record))
        else:
            key = key_of(record.hash, record.timestamp, record.info.etag)
            staged = self.staged.end(key) if record.kind is not RecordKind.METADATA else None
            gone = [(key, staged)] if staged is not None else []
        for key, staged in gone:
            self._weigh_staged(staged, -1)
            if staged.kind is RecordKind.STAGED_FILE:
                self._forget_file(record.hash, timestamp_in(key), etag_in(key), staged)

    def _forget_file(self, name_hash: bytes, timestamp: Timestamp, etag: str, staged: Staged) -> None:
        """Its file may go, unless what is shown has it by now: store.py looks."""
        assert staged.place is not None
        self.forgotten.append(Held(name_hash, timestamp, Entry(staged.kind, staged.place, 0, etag, serial=staged.serial)))

    def _weigh_staged(self, staged: Staged | None, sign: int) -> None:
        for place in staged.places if staged is not None else ():
            self.weights.add(place, sign)
            self._fresh.weighed.add(place.segment)

    # ---- compaction

    def names(self, name_hash: bytes, segment: int, offset: int) -> bool:
        """Whether the entry of this hash, or an open promise, names the record at this place."""
        others = (*self.promises.places(name_hash), *self.staged.places(name_hash))
        if any(place[:2] == (segment, offset) for place in others):
            return True
        held = self.newest(name_hash)
        if held is None:
            return False
        return any(place is not None and place[:2] == (segment, offset) for place in (held.entry.place, held.entry.posted))

    def names_any(self, name_hash: bytes, segments: Set[int]) -> bool:
        """Whether the entry of this hash, or an open promise, names any record in these segments."""
        if self.promises.names_any(name_hash, segments) or self.staged.names_any(name_hash, segments):
            return True
        held = self.newest(name_hash)
        if held is None:
            return False
        return held.entry.place.segment in segments or (held.entry.posted is not None and held.entry.posted.segment in segments)

    def relocate(self, name_hash: bytes, segment: int, offset: int, place: Place) -> bool:
        """A durable copy of the record at segment and offset lies at ``place``: name that one.  False when the entry does not name
        the old one (any more): something newer came meanwhile."""
        promise = self.promises.relocate(name_hash, segment, offset, place)
        if promise is not None:
            self._weigh_promises(name_hash, [promise], -1)
            self._weigh_promises(name_hash, [msgspec.structs.replace(promise, place=place)], 1)
            return True
        was = self.staged.relocate(name_hash, segment, offset, place)
        if was is not None:
            self.weights.add(was, -1)
            self.weights.add(place, 1)
            self._fresh.weighed |= {was.segment, place.segment}
            return True
        held = self.newest(name_hash)
        if held is None:
            return False
        entry = held.entry
        if entry.place[:2] == (segment, offset):
            new = msgspec.structs.replace(entry, place=place)
        elif entry.posted is not None and entry.posted[:2] == (segment, offset):
            new = msgspec.structs.replace(entry, posted=place)
        else:
            return False
        moved = Held(held.hash, held.timestamp, new)
        change = self._fresh.changes.get(name_hash)
        if change is None:
            self._fresh.changes[name_hash] = Change(moved, held)
        else:
            change.held = moved
        self._weigh(held, -1)
        self._weigh(moved, 1)
        return True

    def weigh_moved(self, sequence: int, drop_bytes: int) -> None:
        """Compaction made a segment with drop records of so many bytes."""
        self.weights.set_drops(sequence, drop_bytes)
        self._fresh.weighed.add(sequence)

    def forget_segment(self, sequence: int) -> None:
        """It is gone, and no entry named it."""
        self.weights.forget(sequence)
        self._fresh.weighed.add(sequence)

    # ---- debts

    def owes(self, key: bytes) -> bool:
        for layer in self._layers():
            if key in layer.owed:
                return layer.owed[key] is not None
        return self._tables.get(OWED, key) is not None

    def owed(self, limit: int) -> list[tuple[bytes, OwedInfo]]:
        found: dict[bytes, OwedInfo] = {}
        known: set[bytes] = set()
        for layer in self._layers():
            for key, owed in layer.owed.items():
                if key not in known:
                    known.add(key)
                    if owed is not None:
                        found[key] = owed
        start = b""
        while len(found) < limit:
            pairs = self._tables.scan(OWED, start, None, limit=limit)
            for key, value in pairs:
                if key not in known:
                    try:
                        found[key] = _decode_owed(value)
                    except msgspec.DecodeError as error:
                        raise FormatError("the table of debts is damaged") from error
            if len(pairs) < limit:
                break
            start = pairs[-1][0] + b"\0"
        return list(found.items())[:limit]

    def owe(self, key: bytes, owed: OwedInfo) -> None:
        """In place of what it owes so far."""
        self._fresh.owed[key] = owed

    def mark_paid(self, keys: Iterable[bytes]) -> None:
        for key in keys:
            if self._fresh.owed.pop(key, None) is None and self.owes(key):
                self._fresh.owed[key] = None

    def _layers(self) -> Sequence[Layer]:
        return (self._fresh,) if self._committing is None else (self._fresh, self._committing)

    # ---- the tables

    def load(self) -> None:
        """Read where the last commit left off (LOG_START when there was none).  FormatError when it cannot be gone on from."""
        value = self._tables.get(STATE, POSITION_KEY)
        try:
            self.position = self.landed = LOG_START if value is None else _decode_position(value)
        except msgspec.DecodeError as error:
            raise FormatError("the index's position in the log is damaged") from error
        if value is None and self._tables.scan(TABLE, limit=1):
            raise FormatError("the index was given up")
        if value is not None and self._tables.get(STATE, VERSION_KEY) != VERSION:
            raise FormatError("the index is of another format")
        self.weights.load(self._tables)
        self.promises.load(self._tables)
        self.staged.load(self._tables)
        self.doubts.load(self._tables)

    async def clear(self) -> None:
        """Forget everything, so that the log can be replayed from its start.  May be interrupted and begun again."""
        await self._tables.commit([Write(STATE, POSITION_KEY, None)])
        self.position = self.landed = LOG_START
        self._fresh = Layer()
        self.weights.clear()
        self.promises.clear()
        self.staged.clear()
        self.doubts.clear()
        for table, prefix in (
            ("tree", b"o"),
            (STATE, WEIGHT_PREFIX),
            (STATE, PROMISE_PREFIX),
            (STATE, STAGED_PREFIX),
            (STATE, doubts.PREFIX),
            (OWED, b""),
            (due.TABLE, b""),
            (TABLE, b""),
        ):  # the last one tells ``load``
            end = prefix[:-1] + bytes([prefix[-1] + 1]) if prefix else None
            while pairs := self._tables.scan(table, prefix, end, limit=10 * _SCAN_ROWS):
                await self._tables.commit([Write(table, key, None) for key, _ in pairs])
        self._seen.clear()

    async def distrust(self) -> None:
        """What the tables hold is damaged: commit no more, and let the next start make them anew.  DiskFault."""
        async with self._lock:
            self._distrusted = True
            try:
                await self._tables.commit([Write(STATE, POSITION_KEY, None)])
            except (OSError, FormatError) as error:
                raise DiskFault(f"the index cannot be written: {error}") from error

    async def commit(self) -> None:
        """Write all that was landed before the call.  Nothing is lost when it fails (DiskFault)."""
        async with self._lock:
            if self._distrusted:
                raise DiskFault("the index is damaged")
            position = self.landed
            if position == self.position and not self.backlog:
                return
            self._rebase()
            layer = self._committing = self._fresh
            self._fresh, doubted = Layer(), self.doubts.take_changed()
            try:
                layer.staged |= self.staged.take_changed()
                as_now = self.weights.writes(layer.weighed) + self.promises.writes(layer.promised)  # before anything else lands
                as_now += self.staged.writes(layer.staged) + self.doubts.writes(doubted)
                with trio.CancelScope(shield=True):
                    await self._tables.commit(self._writes(layer, position, as_now))
            except (OSError, FormatError) as error:
                self._take_back(layer)
                self.doubts.changed |= doubted
                raise DiskFault(f"the index cannot be written: {error}") from error
            finally:
                self._committing = None
                self._seen.clear()
            self.position = position
            self._unsure = False

    async def try_commit(self, possible: bool) -> None:
        """So that little is in RAM.  Where it fails all is as it was: the device's own commits fail, too, and tell of it."""
        if possible:
            with suppress(DiskFault):
                await self.commit()

    def _writes(self, layer: Layer, position: Position, as_now: Sequence[Write]) -> list[Write]:
        writes = [*layer.writes(), *layer.toggles().writes(self._tables), *as_now]
        writes.append(Write(STATE, VERSION_KEY, VERSION))
        writes.append(Write(STATE, POSITION_KEY, _encode(position)))
        return writes

    def _take_back(self, layer: Layer) -> None:
        """The commit failed: what was landed meanwhile goes on top of ``layer`` again."""
        layer.put_on_top(self._fresh)
        self.staged.changed |= layer.staged
        self._fresh = layer
        self._unsure = True

    def _rebase(self) -> None:
        """A disk that hangs may do what was given up: to toggle that in the tree once more would take it back.  DiskFault."""
        if not self._unsure:
            return
        try:
            for name_hash, change in self._fresh.changes.items():
                change.base = self._in_table(name_hash)
        except (OSError, FormatError) as error:
            raise DiskFault(f"the index cannot be read: {error}") from error

    # ---- the tree

    async def digests(self, span: Span) -> LeafDigests:
        """Of all that has landed, whether or not it can be committed.  DiskFault when the index is damaged."""
        async with self._still():
            of_layer = self._fresh.toggles(*span.bounds).digests(span)
            return tree.combine(tree.digests(self._tables, "object", span), of_layer)

    async def partition_from(self, start: bytes, part_power: int) -> Span | None:
        """The first partition at or behind ``start`` of which anything is held; likewise."""
        async with self._still():
            found = tree.partition_from(self._tables, "object", start, part_power)
            landed = [name_hash for name_hash, change in self._fresh.changes.items() if change.held and name_hash >= start]
            spans = [] if found is None else [found]
            if landed:
                spans.append(Span.of(min(landed), part_power))
            return min(spans, default=None)

    @asynccontextmanager
    async def _still(self) -> AsyncIterator[None]:
        """While no commit is half way: tables and ``_fresh`` together are what has landed."""
        async with self._lock:
            if self._distrusted:
                raise DiskFault("the index is damaged")
            self._rebase()
            yield


def _key(held: Held) -> bytes:
    return held.key
