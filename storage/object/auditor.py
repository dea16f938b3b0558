"""The auditor of a device: reads every byte it holds, again and again, and puts aside what has rotted.

A Worker (ring.daemon.worker): first the log, segment by segment in the order it lies; then the large files, folder by folder, with
a look at every file that no record names (an orphan of a crash).  A damaged version is quarantined, so that the replicator brings
a sound copy from another device; nothing is deleted but files of which the index knows that something newer replaced them.  Its
place is kept in the table "state".  Decides nothing about pace (ring.daemon.pacing does).  Neighbours: store.py, scan.py, files.py.
"""

from __future__ import annotations

from contextlib import suppress

import msgspec

from ring.daemon.worker import Busy, Idle, Progress
from ring.errors import DiskFault, FormatError
from ring.world.interface import File, OpenMode, World, Write
from storage.object.device import FILE_FOLDERS, QUARANTINE
from storage.object.entry import Held
from storage.object.files import block_problem, disk_fault, file_path, hash_of, remove, version_in
from storage.object.record import FileInfo
from storage.object.scan import Damaged, Scanner
from storage.object.state import STATE
from storage.object.store import ObjectStore

STATE_KEY = b"audit"
UNIT_BYTES = 1 << 20
SAVE_BYTES = 64 << 20  # the place is saved whenever so much was read
SECTOR_BYTES = 4096
FOLDERS_AT_ONCE = 16
PAGE = 100
INTERVAL_S = 7 * 86400.0
ORPHAN_GRACE_S = 3600.0


class Place(msgspec.Struct, array_like=True):
    """Where a pass is."""

    phase: str = "rest"  # packs, files, rest
    segment: int = 0
    offset: int = 0
    folder: int = 0
    key: bytes = b""  # the files of the folder before it are done
    finished_at: float = 0.0  # wall clock, of the last pass
    pack_bytes: int = 0  # read in this pass
    file_bytes: int = 0
    last_pack_bytes: int = 0  # in the last one
    last_file_bytes: int = 0


class Auditor:
    def __init__(
        self, world: World, store: ObjectStore, *, interval_s: float = INTERVAL_S, orphan_grace_s: float = ORPHAN_GRACE_S
    ) -> None:
        self.name = f"object-auditor d{store.device.device_id}"
        self.orphans = 0  # facts since the start
        self.damaged = 0
        self._world = world
        self._store = store
        self._disk = store.device.disk
        self._interval_s = interval_s
        self._orphan_grace_s = orphan_grace_s
        self._place: Place | None = None
        self._unsaved_bytes = 0
        self._scanner: Scanner | None = None
        self._scanned_to = 0
        self._file: _OpenFile | None = None
        self._segment_bytes = 0  # of the segment that is read
        self._wanted = False  # a pass, though it is not time

    def progress(self) -> Progress:
        """By bytes, as far as the last pass tells how they lie in packs and files."""
        facts = {"damaged": self.damaged, "orphans": self.orphans}
        if self._place is None:
            with suppress(DiskFault):  # the next unit meets it too
                self._place = self._load()
        place = self._place
        if place is None:
            return Progress(None, facts=facts)
        if place.phase == "rest":
            return Progress(1.0, facts=facts)
        known = place.last_pack_bytes + place.last_file_bytes
        packs = place.last_pack_bytes / known if known else 0.5
        if place.phase == "files":
            return Progress(packs + (1.0 - packs) * place.folder / len(FILE_FOLDERS), facts=facts)
        sequences = self._store.segments.sequences
        before = sum(number < place.segment for number in sequences)
        within = min(place.offset / self._segment_bytes, 1.0) if self._segment_bytes else 0.0
        return Progress(packs * min((before + within) / max(1, len(sequences)), 1.0), facts=facts)

    def begin(self) -> None:
        self._wanted = True

    async def work(self) -> Busy | Idle:
        """Read about a MiB."""
        self._store.device.check()
        place = self._place = self._place or self._load()
        done: Busy | None
        try:
            match place.phase:
                case "packs":
                    done = await self._audit_packs(place)
                case "files":
                    done = await self._audit_files(place)
                case _:
                    wait_s = place.finished_at + self._interval_s - self._world.clock.now()
                    if 0 < wait_s <= self._interval_s and not self._wanted:  # a clock that stepped back does not stop the audits
                        return Idle.after(wait_s, over=False)
                    self._wanted = False
                    place.phase, place.segment, place.offset, place.pack_bytes, place.file_bytes = "packs", 0, 0, 0, 0
                    return Busy(0)
        except BaseException:
            self._scanner = None  # go on from the place
            raise
        if done is None:
            await self._save(place)
            return Idle.after(self._interval_s)
        self._unsaved_bytes += done.done_bytes
        if self._unsaved_bytes >= SAVE_BYTES:
            await self._save(place)
        return done

    def _load(self) -> Place:
        """One that cannot be read is where a new pass begins: nothing but time is lost."""
        try:
            value = self._store.device.tables.get(STATE, STATE_KEY)
        except OSError as error:
            raise disk_fault(self._store.device.device_id, "read the auditor's place", error) from error
        try:
            return msgspec.msgpack.decode(value, type=Place) if value is not None else Place()
        except msgspec.MsgspecError:
            return Place()

    async def _save(self, place: Place) -> None:
        try:
            await self._store.device.tables.commit([Write(STATE, STATE_KEY, msgspec.msgpack.encode(place))])
        except OSError as error:
            raise disk_fault(self._store.device.device_id, "save the auditor's place", error) from error
        self._unsaved_bytes = 0

    # ---- the log

    async def _audit_packs(self, place: Place) -> Busy:
        sequence = next((number for number in self._store.segments.sequences if number >= place.segment), None)
        if sequence is None:
            place.phase, place.folder, place.key = "files", 0, b""
            return Busy(0)
        if sequence != place.segment:
            place.segment, place.offset, self._scanner = sequence, 0, None
        try:
            return await self._audit_segment(place, sequence)
        except FileNotFoundError:  # compaction took it away, and put what was alive in one that is still to come
            place.segment, place.offset, self._scanner = sequence + 1, 0, None
            return Busy(0)
        except FormatError as error:
            await self._damaged_range(sequence, 0, 1 << 62)
            place.segment += 1
            raise DiskFault(f"segment {sequence:08x}: {error.message}") from error
        except OSError as error:
            raise disk_fault(self._store.device.device_id, "open a segment", error) from error

    async def _audit_segment(self, place: Place, sequence: int) -> Busy:
        async with self._store.segments.reading(sequence) as segment:
            if self._scanner is None:
                self._scanned_to = max(place.offset, segment.head.length)
                self._scanner = Scanner(segment.head.salt, self._scanned_to, only_damage=True)
            end = self._segment_bytes = segment.size
            data = await _read(segment.file, self._scanned_to, min(UNIT_BYTES, end - self._scanned_to))
        self._scanned_to += len(data)
        last = self._scanned_to >= end or not data
        for finding in self._scanner.feed(data, last=last):
            if isinstance(finding, Damaged):
                await self._damaged_range(sequence, finding.offset, finding.end)
        place.offset = self._scanner.offset
        if last:
            place.segment, place.offset, self._scanner = sequence + 1, 0, None
        place.pack_bytes += len(data)
        return Busy(1, len(data))

    async def _damaged_range(self, sequence: int, offset: int, end: int) -> None:
        """Quarantine whatever the index has there.  Nothing, if only superseded records lie there."""
        start: bytes | None = b""
        while start is not None:
            page, start = self._store.index.page(start, None, limit=1000)
            for held in page:
                for place in (held.entry.place, held.entry.posted):
                    if (
                        place is not None
                        and place.segment == sequence
                        and place.offset < end
                        and offset < place.offset + place.length
                    ):
                        await self._examine(held.key)
                        break

    async def _examine(self, key: bytes) -> None:
        if not await self._store.examine(key):
            self.damaged += 1

    # ---- large files

    async def _audit_files(self, place: Place) -> Busy | None:
        """None when the pass is over."""
        for _ in range(FOLDERS_AT_ONCE):
            if self._file is not None:
                read_bytes = await self._audit_block(place, self._file)
                place.file_bytes += read_bytes
                return Busy(1, read_bytes)
            if place.folder == len(FILE_FOLDERS):
                place.phase, place.finished_at = "rest", self._world.clock.now()
                place.last_pack_bytes, place.last_file_bytes = place.pack_bytes, place.file_bytes
                return None
            start = max(place.key, _prefix(place.folder))
            end = _prefix(place.folder + 1) if place.folder + 1 < len(FILE_FOLDERS) else None
            page, following = self._store.index.page(start, end, limit=PAGE)
            held = next((held for held in page if held.entry.in_file), None)
            if held is not None:
                await self._open(place, held)
            elif following is not None:
                place.key = following
            else:
                await self._sweep(FILE_FOLDERS[place.folder])
                place.folder, place.key = place.folder + 1, b""
        return Busy(1)

    async def _open(self, place: Place, held: Held) -> None:
        try:
            info = (await self._store.reader.record(held)).info.file
            file = await self._disk.open(file_path(held.hash, held.timestamp, held.entry.serial), OpenMode.READ)
        except (OSError, DiskFault):
            await self._examine(held.key)
            place.key = held.key + b"\0"
            return
        assert info is not None
        self._file = _OpenFile(held, file, info)

    async def _audit_block(self, place: Place, current: _OpenFile) -> int:
        block, entry = current.block, current.held.entry
        start = block * current.info.block_bytes
        problem = ""
        if start < entry.stored_bytes:
            problem = await block_problem(current.file, current.info, entry.stored_bytes, block)
            current.block += 1
        if problem or start + current.info.block_bytes >= entry.stored_bytes:
            self._file = None
            await current.file.close()
            if problem:
                await self._examine(current.held.key)
            place.key = current.held.key + b"\0"
        return max(0, min(current.info.block_bytes, entry.stored_bytes - start))

    async def _sweep(self, folder: str) -> None:
        """Look at the files that no record names."""
        try:
            for name in await self._disk.list_dir(folder):
                name_hash, timestamp = hash_of(name), version_in(name)
                path = f"{folder}/{name}"
                if name_hash is None or timestamp is None or path in self._store.in_doubt or self._store.refers(name_hash, path):
                    continue
                info = await self._disk.info(path)
                if info is None or info.modified + self._orphan_grace_s > self._world.clock.now():
                    continue
                if path in self._store.in_doubt or self._store.refers(name_hash, path):
                    continue
                newest = self._store.index.newest(name_hash)
                self.orphans += 1
                if newest is not None and newest.timestamp > timestamp:
                    await remove(self._disk, path)
                else:  # that nothing names it may be the index's fault
                    with suppress(FileNotFoundError):
                        await self._disk.rename(path, f"{QUARANTINE}/{name}")
        except OSError as error:
            raise disk_fault(self._store.device.device_id, f"sweep {folder}", error) from error


class _OpenFile:
    def __init__(self, held: Held, file: File, info: FileInfo) -> None:
        self.held = held
        self.file = file
        self.info = info
        self.block = 0


def _prefix(folder: int) -> bytes:
    """Where the keys of a folder begin: 12 bits."""
    return (folder << 4).to_bytes(2, "big")


async def _read(file: File, offset: int, length: int) -> bytes:
    """What cannot be read counts as zeros, sector by sector: a scan then finds which records are gone."""
    try:
        return await file.pread(offset, length)
    except OSError:
        pieces = []
        at = offset
        while at < offset + length:
            upto = min((at // SECTOR_BYTES + 1) * SECTOR_BYTES, offset + length)
            try:
                pieces.append(await file.pread(at, upto - at))
            except OSError:
                pieces.append(bytes(upto - at))
            at = upto
        return b"".join(pieces)
