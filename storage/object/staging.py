"""Staging: the fragment half of a device's store, for an erasure-coded policy (storage.client.fragments has its promises).

Data is staged first: durable, beside what is shown, and counted in storage.object.staged.  A commit writes a record of a shown
version, which says all again that the staged one said; the merge rule of the index decides as for any other version.  Steps of one
name take turns, and each is durable before the next one looks: so a version that was refused is never committed by its writer,
whatever a replay of the log sees later.  Whoever waits for a step may go away; the step runs to its end.

What a conditional write stages is taken only where its promise stands, and while it lies here nothing ends that promise but who
was given it: so whatever becomes of clocks and of frozen writers, nothing older comes in before it is known what became of it.

Neighbours: store.py (whose device it is), staged.py (what is staged), upload.py and files.py (fragments are files).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec
import trio

from ring.errors import BadInput, Conflict, DiskFault, FormatError
from ring.names import Path
from ring.timestamp import Timestamp
from ring.wire.message import Piece
from ring.world.interface import Buffer
from storage.client.bodies import OnePiece
from storage.client.errors import PromisedAbove
from storage.client.fragments import Seen
from storage.client.node import Debt, Kind, Version, WriteReply
from storage.erasure.fragment import Fragment, decode_fragment, encode_fragment
from storage.erasure.quorum import Data
from storage.object.compression import decompress
from storage.object.entry import Held
from storage.object.errors import BadRecord
from storage.object.files import FileWriter, disk_fault, file_path, open_pieces
from storage.object.record import Info, Record, RecordKind, debt_info, decode_record, info_of, version_of
from storage.object.segments import Place
from storage.object.staged import Staged, etag_in, key_of, timestamp_in
from storage.object.upload import FileUpload
from storage.sync.standing import OBJECTS

if TYPE_CHECKING:
    from storage.object.store import ObjectStore

_LOCKS = 256
_SHOWN_AS = {
    RecordKind.STAGED_COPY: RecordKind.OBJECT_INLINE,
    RecordKind.STAGED_FILE: RecordKind.FRAGMENT,
    RecordKind.STAGED_NOTE: RecordKind.NOTE,
}
_DATA = {
    RecordKind.STAGED_COPY: Data.COPY,
    RecordKind.STAGED_FILE: Data.FRAGMENT,
    RecordKind.OBJECT_INLINE: Data.COPY,
    RecordKind.OBJECT_FILE: Data.COPY,
    RecordKind.FRAGMENT: Data.FRAGMENT,
}


class Staging:
    """``FragmentEngine`` of a device."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._locks = [trio.Lock() for _ in range(_LOCKS)]  # by the last byte of the hash

    # ---- what is here

    async def sightings(self, path: Path) -> Sequence[Seen]:
        self._store.standing.check(OBJECTS)
        return await self.here(path)

    async def here(self, path: Path) -> Sequence[Seen]:
        """``sightings``, for the device's own workers: also while it was away and is being compared."""
        name_hash = self._store.hash(path)
        held = self._store.newest(name_hash)
        found: list[Seen] = []
        told = self._store.index.doubts.told(name_hash, path)
        if told is not None:
            found.append(Seen(told, True, Data.NONE))
        elif held is not None:
            version = await self._store.reader.describe(held, path)
            found.append(Seen(version, True, _DATA.get(held.entry.kind, Data.NONE), held.entry.index))
        return found + await self.staged(path)

    async def staged(self, path: Path) -> list[Seen]:
        """What is staged or refused of a name."""
        name_hash, found = self._store.hash(path), list[Seen]()
        if name_hash in self._store.index.staged:
            for key, _ in self._store.index.staged.of(name_hash):
                found += await self._staged(key)
        return found

    async def waiting(self, before: Timestamp, limit: int) -> list[Seen]:
        """What is staged or refused and was written before that, the oldest first."""
        found: list[Seen] = []
        for key in self._store.index.staged.before(before)[:limit]:
            found += await self._staged(key)
        return found

    async def _staged(self, key: bytes) -> list[Seen]:
        staged = self._store.index.staged.get(key)
        if staged is None:
            return []
        try:
            record = await self._record(key, staged)
        except DiskFault:
            return []  # what cannot be read is not there
        kind = Kind.OBJECT if record.info.etag else Kind.TOMBSTONE
        version = version_of(kind, record.timestamp, record.info)
        data = _DATA.get(staged.kind, Data.NONE)
        return [Seen(version, False, data, staged.index, staged.refused is not None)]

    # ---- writing

    async def begin(self, path: Path, size: int, piece_bytes: int) -> FragmentFile:
        store = self._store
        store.check()
        store.device.admit(size)
        if piece_bytes < 1:
            raise BadInput("a fragment's pieces have at least one byte")
        name_hash = store.hash(path)
        try:
            writer = await FileWriter.begin(store.device.disk, name_hash, size or None, block_bytes=piece_bytes)
        except OSError as error:
            store.device.erred(error, f"a file of {name_hash.hex()}")
            raise disk_fault(store.device.device_id, "begin a fragment's file", error) from error
        return FragmentFile(self, store, path, name_hash, writer, sized=bool(size))

    async def stage(self, version: Version, data: Buffer | None, *, seen: bool = False, promised: bool = False) -> WriteReply:
        if data is not None and (version.kind is not Kind.OBJECT or len(data) != version.size):
            raise BadInput("a whole copy of an object has as many bytes as it says")
        has_room = self._store.index.promises.stands(self._store.hash(version.path), version.timestamp)
        self._store.device.admit(len(data or b""), promised=has_room)
        kind = RecordKind.STAGED_NOTE if data is None else RecordKind.STAGED_COPY
        record = Record(kind, self._store.hash(version.path), version.timestamp, info_of(version, None), data or b"")
        async with self.turn(record.hash):
            superseded = self.admit(record.hash, version, seen=seen, promised=promised) or self.closed(
                record.hash, version, seen=seen
            )
            if superseded is None and not self._adds_nothing(record, version):
                await self._write(record)
        return superseded or WriteReply(version.timestamp, paid=True)

    def _adds_nothing(self, record: Record, version: Version) -> bool:
        """What is shown is as much: a message that came twice, which would stay staged with nobody to commit it."""
        held = self._store.newest(record.hash)
        if held is None or held.rank != _rank(version):
            return False
        return record.kind is RecordKind.STAGED_NOTE or held.entry.kind is RecordKind.OBJECT_INLINE

    def admit(self, name_hash: bytes, version: Version, *, seen: bool, promised: bool = False) -> WriteReply | None:
        """Whether a version may be staged or committed now: None, or the answer when something newer is shown.  Conflict when it
        was refused; PromisedAbove, with the version's own timestamp when that was ``promised`` and is so no more."""
        rank = _rank(version)
        held = self._store.newest(name_hash)
        if held is not None and held.rank > rank:
            return WriteReply(held.above(rank), paid=True)
        lost = self._store.index.doubts.above(name_hash, rank)
        if lost is not None:
            return WriteReply(lost, paid=True)
        staged = self._store.index.staged.get(key_of(name_hash, version.timestamp, version.etag))
        if staged is not None and staged.refused is not None and not seen:
            raise Conflict(f"{version.path}: this version was refused")
        self._store.admission.check(name_hash, version.timestamp)
        shown = held is not None and held.rank == rank
        if promised and not shown and not self._store.index.promises.stands(name_hash, version.timestamp):
            raise PromisedAbove(f"{version.path}: the promise for {version.timestamp} does not stand here", version.timestamp)
        return None

    def closed(self, name_hash: bytes, version: Version, *, seen: bool) -> WriteReply | None:
        """The answer to what would be staged where the ring has closed; None when it may be.  What was staged before that may be
        committed: a device that has it is not clean before it is decided."""
        staged = self._store.index.staged.get(key_of(name_hash, version.timestamp, version.etag))
        if seen or (staged is not None and staged.place is not None):
            return None
        above = self._store.standing.closed_above(OBJECTS, version.timestamp)
        return None if above is None else WriteReply(above, paid=True)

    async def commit(self, version: Version, debt: Debt | None, *, seen: bool = False) -> WriteReply:
        name_hash = self._store.hash(version.path)
        key = key_of(name_hash, version.timestamp, version.etag)
        async with self.turn(name_hash):
            while True:
                staged = self._store.index.staged.get(key)
                there = staged is not None and staged.place is not None
                held = self._store.newest(name_hash)
                if held is not None and held.rank == _rank(version) and not there:
                    return WriteReply(version.timestamp, paid=debt is None or not self._store.index.owes(held.key))
                superseded = self.admit(name_hash, version, seen=seen)
                if superseded is not None:
                    return replace(superseded, never=there)  # a commit would have ended what is staged
                if staged is None or not there:
                    raise Conflict(f"{version.path}: nothing of this version is staged")
                old = await self._record(key, staged)
                now = self._store.index.staged.get(key)
                if now is not None and now.serial == staged.serial and self.admit(name_hash, version, seen=seen) is None:
                    break
            info = await self._with_metadata(name_hash, old)
            info = msgspec.structs.replace(info, debt=None if debt is None else debt_info(debt))
            kind = _SHOWN_AS[staged.kind] if version.kind is Kind.OBJECT else RecordKind.TOMBSTONE
            record = Record(kind, name_hash, version.timestamp, info, old.data, old.zstd)
            with trio.CancelScope(shield=True):
                landed = await self._store.packs.submit(record).wait()
        return WriteReply(landed.newest, paid=debt is None or not landed.taken)

    async def _with_metadata(self, name_hash: bytes, record: Record) -> Info:
        """What a staged record says; when the version is shown already in another form, with the POSTs that came to it."""
        held = self._store.newest(name_hash)
        if held is None or (held.timestamp, held.entry.etag) != (record.timestamp, record.info.etag):
            return record.info
        posted_at = record.info.posted_at
        if held.modified <= (Timestamp.unpack(posted_at) if posted_at else held.timestamp):
            return record.info
        return info_of(await self._store.reader.describe(held, Path(*record.info.path)), None, record.info.file)

    async def refuse(self, version: Version) -> None:
        name_hash = self._store.hash(version.path)
        rank = _rank(version)
        async with self.turn(name_hash):
            held = self._store.newest(name_hash)
            staged = self._store.index.staged.get(key_of(name_hash, version.timestamp, version.etag))
            if (held is not None and held.rank >= rank) or (staged is not None and staged.refused is not None):
                return
            await self._write(Record(RecordKind.REFUSED, name_hash, version.timestamp, info_of(version, None)))

    async def forget(self, version: Version) -> None:
        name_hash = self._store.hash(version.path)
        key = key_of(name_hash, version.timestamp, version.etag)
        async with self.turn(name_hash):
            held, staged = self._store.newest(name_hash), self._store.index.staged.get(key)
            if staged is None:
                return
            shown = held is not None and held.rank > _rank(version)
            if staged.refused is None and not shown:
                raise Conflict(f"{version.path}: this version may still be committed")
            info = Info(("", "", ""), etag=version.etag)
            await self._write(Record(RecordKind.UNSTAGED, name_hash, version.timestamp, info))

    async def end_promise(self, path: Path, ballot: Timestamp) -> bool:
        """Of a write that nobody comes back for.  False: what it has staged here may yet be committed, and the promise stands."""
        name_hash = self._store.hash(path)
        async with self.turn(name_hash):
            of_it = (staged for key, staged in self._store.index.staged.of(name_hash) if timestamp_in(key) == ballot)
            if any(staged.place is not None for staged in of_it):
                return False
            with trio.CancelScope(shield=True):
                await self._store.release(path, ballot)
        return True

    def turn(self, name_hash: bytes) -> trio.Lock:
        return self._locks[name_hash[-1]]

    async def _write(self, record: Record) -> None:
        with trio.CancelScope(shield=True):
            await self._store.packs.submit(record).wait()

    # ---- reading

    async def describe(self, version: Version) -> Fragment | None:
        found = await self._find(version)
        return None if found is None or not found[0].data_describes else decode_fragment(found[1].data)

    async def read(self, version: Version, offset: int, length: int) -> AsyncIterator[Piece] | None:
        found = await self._find(version)
        if found is None:
            return None
        where, record = found
        if not where.data_describes:
            if record.kind not in (RecordKind.STAGED_COPY, RecordKind.OBJECT_INLINE):
                return None
            data = decompress(record.data, record.info.size) if record.zstd else record.data
            return OnePiece(bytes(data[offset : offset + length]))
        file = record.info.file
        assert file is not None
        path = file_path(record.hash, record.timestamp, file.serial)
        end = min(where.file_bytes, offset + length)
        try:
            return await open_pieces(self._store.device.disk, path, file, where.file_bytes, offset, end, where.bad)
        except FileNotFoundError:
            if where.held is not None and self._store.refers(record.hash, path):
                raise where.bad("its file is gone") from None
            return None
        except OSError as error:
            self._store.device.erred(error, record.hash.hex())
            raise disk_fault(self._store.device.device_id, "open a fragment's file", error) from error

    async def _find(self, version: Version) -> tuple[_Where, Record] | None:
        """What is shown of that version, or else what is staged of it.  DiskFault."""
        name_hash = self._store.hash(version.path)
        held = self._store.newest(name_hash)
        if held is not None and (held.timestamp, held.entry.etag) == (version.timestamp, version.etag):
            if held.kind is Kind.TOMBSTONE:
                return None
            return _Where(self._store, held, held.entry.file_bytes), await self._store.reader.record(held)
        key = key_of(name_hash, version.timestamp, version.etag)
        staged = self._store.index.staged.get(key)
        if staged is None or staged.place is None:
            return None
        return _Where(self._store, None, staged.file_bytes), await self._record(key, staged)

    async def _record(self, key: bytes, staged: Staged) -> Record:
        """Of a staged version; of one that is only refused, the refusal's.  DiskFault."""
        while True:
            place = staged.place or staged.refused
            assert place is not None
            try:
                data, salt = await self._bytes(place)
                record = decode_record(data, salt)
                if record.hash != key[:16] or (record.timestamp, record.info.etag) != (timestamp_in(key), etag_in(key)):
                    raise BadRecord("another record lies where it should")
                return record
            except (DiskFault, BadRecord, FormatError) as error:
                now = self._store.index.staged.get(key)
                if now is not None and now != staged:
                    staged = now  # compaction moved it, or it was refused
                    continue
                if isinstance(error, DiskFault):
                    raise
                raise DiskFault(f"device {self._store.device.device_id}: what is staged is damaged: {error.message}") from error

    async def _bytes(self, place: Place) -> tuple[bytes, int]:
        try:
            found = self._store.segments.read_now(place, place.length)
        except OSError:
            found = None
        return found if found is not None else await self._store.segments.read(place, place.length)


def _rank(version: Version) -> tuple[Timestamp, bool, str]:
    return version.timestamp, version.kind is Kind.TOMBSTONE, version.etag


class _Where:
    """Whether a version is shown (``held``) or staged."""

    def __init__(self, store: ObjectStore, held: Held | None, file_bytes: int) -> None:
        self._store = store
        self.held = held
        self.file_bytes = file_bytes

    @property
    def data_describes(self) -> bool:
        return self.file_bytes > 0

    def bad(self, problem: str) -> DiskFault:
        if self.held is not None:
            return self._store.reader.bad(self.held, problem)
        return DiskFault(f"device {self._store.device.device_id}: what is staged: {problem}")


class FragmentFile(FileUpload):
    """A fragment on its way in."""

    def __init__(
        self, staging: Staging, store: ObjectStore, path: Path, name_hash: bytes, writer: FileWriter, *, sized: bool
    ) -> None:
        super().__init__(store, path, name_hash, writer, sized=sized)
        self._staging = staging

    async def stage(self, version: Version, fragment: Fragment, *, seen: bool = False, promised: bool = False) -> WriteReply:
        self._check()
        origin = fragment.origin
        same = (origin.hash, origin.timestamp, origin.etag, origin.size)
        if version.path != self._path or same != (self._hash, version.timestamp, version.etag, version.size):
            raise BadInput("the fragment is of another version than it is staged for")
        if self._writer.size != origin.layout.fragment_bytes or self._writer.checksums != fragment.crcs:
            raise BadInput("the bytes that came are not those of the fragment")
        # What is refused here is as it was, and may be staged later.
        self._staging.admit(self._hash, version, seen=seen, promised=promised)
        self._committing = True
        try:
            async with self._staging.turn(self._hash):
                superseded = self._staging.admit(self._hash, version, seen=seen, promised=promised)
                closed = self._staging.closed(self._hash, version, seen=seen)
                if closed is not None:
                    return closed
                with trio.CancelScope(shield=True):  # also what is superseded: it may be all that its writer has left of it
                    await self._commit(version, None, RecordKind.STAGED_FILE, encode_fragment(fragment))
        finally:
            await self._discard()
        return superseded or WriteReply(version.timestamp, paid=True)
