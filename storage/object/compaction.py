"""Compaction of a device's packs: what is alive in some segments goes into a new one, which takes their place in the log.

A Worker.  It takes neighbours in the log (victims.py says which), copies what must stay, in its order, to a file without a name,
syncs it, reads it back from the medium, and gives it a name that says for which segments it stands.  From that moment on it *is*
that part of the log.  Then the index is told where things lie, batch by batch, what something newer replaced is left alone;
after a grace for readers, each record of the old segments is looked up once more, and only when nothing names them they are
unlinked.  Whatever fails or is cut off before the name leaves everything as it was; after it, the same steps are gone through again
(a record says where it came from).  A full disk is never made fuller: the room is looked at first, and some of it is left alone.

What must stay.  A replay of the log folds the records of each name, in order, into one entry.  The fold after compaction has to end
in the same entry, whatever is compacted next, so a record of a name may leave exactly when it is

- an object, tombstone or POST that the index does not name, and whose debt is not owed.  It is dead for good: something above it
  took its place, or a drop took it away, and both facts outlive it.  What is above is held now, or was itself replaced by something
  above; and a drop takes away everything at or below its version that stands before it, so it does not matter whether what
  it was made for is still there.  (One drop at a time per name, made for what is held, meets that or something newer.)  A tombstone
  that is held is named by the index, so it stays until it is reclaimed, which is a drop.
- a drop, and no record of its name stands before it: neither among what this compaction keeps, nor in a segment in front of it.
  The latter is known of a segment in which nothing is dead, and of a compacted one whose making began when the drop was in the
  log already (SegmentHead.clean), unless it had to keep something dead.  And it does not say what is in doubt (doubts.py).
- a release, or an UNSTAGED, when a drop in its place might leave: one that went before the promise, or before what had been staged,
  would make that count again.  A promise that is not open, and what is staged no more, may leave as what is dead.

Large files are not touched: their records move, the files stay.  Records of kinds that this program does not know keep their
segment as it is.  Bytes in which no record is found may go when the medium confirms that, and no entry points at them.

Neighbours: segments.py, index.py (``relocate``), store.py (its device), ring.daemon.worker.  Decides nothing about pace.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from enum import Enum

import trio

from ring.daemon.worker import Busy, Idle, Progress
from ring.errors import DiskFault, FormatError
from ring.world.interface import Buffer, File, World
from storage.object.device import PACKS
from storage.object.files import disk_fault
from storage.object.packs import SEGMENT_BYTES_MAX
from storage.object.record import Origin, Record, RecordKind, decode_meta, encode_record
from storage.object.scan import Damaged, Found, Scanner
from storage.object.segment import COMPACTED, SEGMENT_HEAD_BYTES, SegmentHead, SegmentName
from storage.object.segments import XATTR, Place, Segment
from storage.object.store import COMMIT_RECORDS, ObjectStore
from storage.object.victims import State, choose, drops_free

THRESHOLD = 0.3  # of a segment's bytes must be had back: on disk is at most 1.4 times what is alive, and mostly less
INTERVAL_S = 60.0
GRACE_S = 1.0
UNIT_BYTES = 1 << 20
RECORDS_BETWEEN_YIELDS = 256
HEADROOM_BYTES = 2 * SEGMENT_BYTES_MAX
_TAKE_AWAY = (RecordKind.DROP, RecordKind.RELEASE, RecordKind.UNSTAGED)
DEBT_S = 3600.0  # so long dead records that owed a row are taken to owe it still


class Phase(Enum):
    COPY = "copy"  # to a file without a name
    CHECK = "check"  # that the medium has it
    SWITCH = "switch"  # the index
    VERIFY = "verify"  # that nothing names the old ones
    REMOVE = "remove"


@dataclass(slots=True)
class _Job:
    victims: list[SegmentName]
    phase: Phase
    bytes_all: int  # to go through, in all phases
    done: int = 0
    head: SegmentHead | None = None  # of what is made; None: nothing has to stay
    file: File | None = None  # while it has no name
    free: list[bool] = field(default_factory=list)  # for each victim, whether its drops may leave
    size: int = 0  # of what is made
    bound: int = 0  # bytes in it that are dead
    at: int = 0  # which of the segments is read
    scanner: Scanner | None = None
    offset: int = 0
    drop_bytes: int = 0
    indebted: set[bytes] = field(default_factory=set)  # hashes of which something dead stays


class _Keep(Exception):
    """The segment stays as it is."""

    def __init__(self, name: SegmentName, why: str) -> None:
        super().__init__(why)
        self.name = name


class Compactor:
    """``threshold``: the part of a segment that must be dead; ``headroom_bytes`` of the disk's room are left alone."""

    def __init__(
        self,
        world: World,
        store: ObjectStore,
        *,
        threshold: float = THRESHOLD,
        interval_s: float = INTERVAL_S,
        grace_s: float = GRACE_S,
        headroom_bytes: int = HEADROOM_BYTES,
    ) -> None:
        self.name = f"object-compactor d{store.device.device_id}"
        self.compactions = 0  # facts since the start
        self.moved_bytes = 0
        self.reclaimed_bytes = 0
        self.kept: dict[int, str] = {}  # segments that are left as they are, and why
        self._world = world
        self._store = store
        self._index = store.index
        self._segments = store.segments
        self._disk = store.device.disk
        self._threshold = threshold
        self._interval_s = interval_s
        self._grace_s = grace_s
        self._headroom_bytes = headroom_bytes
        self._clean: dict[int, int] = {}  # what the heads of segments say
        self._bound: dict[int, tuple[int, float]] = {}  # bytes that a debt keeps in a segment, and how long to believe it
        self._job: _Job | None = None

    def progress(self) -> Progress:
        """Of the compaction that is under way."""
        job = self._job
        facts = {
            "compactions": self.compactions,
            "moved_bytes": self.moved_bytes,
            "reclaimed_bytes": self.reclaimed_bytes,
            "kept": len(self.kept),
        }
        return Progress(1.0 if job is None else min(1.0, job.done / max(1, job.bytes_all)), facts=facts)

    def begin(self) -> None:
        """Called again, it looks at all segments."""

    async def work(self) -> Busy | Idle:
        """About a MiB of one phase.  DiskFault, DiskFull: everything is as it was, or will be gone on with."""
        self._store.device.check()
        try:
            if self._job is None:
                self._job = await self._left_over() or await self._begin()
            if self._job is None:
                return Idle.after(self._interval_s)
            return await self._step(self._job)
        except _Keep as stop:
            self.kept[stop.name.sequence] = str(stop)
            await self._abandon()
            return Busy(0)
        except OSError as error:
            await self._abandon()
            raise disk_fault(self._store.device.device_id, "compact its packs", error) from error
        except BaseException:
            await self._abandon()
            raise

    async def _abandon(self) -> None:
        """What has no name is gone; what has one is gone on with."""
        job, self._job = self._job, None
        if job is not None and job.file is not None:
            with trio.CancelScope(shield=True), suppress(OSError):
                await job.file.close()

    # ---- which

    async def _left_over(self) -> _Job | None:
        """Segments whose place another one has taken: by a crash or an error they are still there."""
        victims = [name for name in self._segments.replaced if name.sequence not in self.kept]
        if not victims:
            return None
        made = next(name for name in self._segments.order if name.first <= victims[0].first and victims[0].last <= name.last)
        victims = [name for name in victims if made.first <= name.first and name.last <= made.last]
        try:
            segment = await self._open(made)
        except _Keep as stop:
            raise _Keep(victims[0], str(stop)) from stop
        size = sum([await self._segments.size(name) for name in victims])
        return _Job(victims, Phase.SWITCH, 2 * size, head=segment.head, size=segment.size)

    async def _begin(self) -> _Job | None:
        await self._index.commit()
        log = [await self._state(name) for name in self._segments.order[:-1]]
        log = [state if self._settled(state.name) else replace(state, kept=True) for state in log]
        space = await self._disk.space()
        headroom = min(self._headroom_bytes, space.total_bytes // 50)
        room = max(space.free_bytes - headroom, space.free_bytes // 2)
        bytes_max = self._store.packs.segment_bytes_max
        victims = choose(log, threshold=self._threshold, bytes_max=bytes_max, room_bytes=room)
        if not victims:
            return None
        free = [free for state, free in zip(log, drops_free(log, victims), strict=True) if state.name in victims]
        size = sum([await self._segments.size(name) for name in victims])
        sequence = self._segments.next_compacted()
        salt = int.from_bytes(self._world.entropy.token(4), "big")
        clean = self._segments.order[-1].last  # all that is in the log before it has landed
        head = SegmentHead(sequence, self._store.device.device_id, salt, clean, (victims[0].first, victims[-1].last))
        file = await self._disk.open_unnamed(PACKS)
        job = _Job(victims, Phase.COPY, 4 * size, head=head, file=file, free=free, size=head.length)
        self._job = job  # so that the file is closed, whatever happens
        await file.append([bytes(head.length)], sync=False)
        return job

    async def _state(self, name: SegmentName) -> State:
        weight = self._index.weights.get(name.sequence)
        kept = name.sequence in self.kept
        if name.sequence >= COMPACTED and name.sequence not in self._clean and not kept:
            try:
                self._clean[name.sequence] = (await self._open(name)).head.clean
            except _Keep as stop:
                self.kept[name.sequence] = str(stop)
                kept = True
        bound, until = self._bound.get(name.sequence, (0, 0.0))
        bound = bound if trio.current_time() < until else 0
        clean = self._clean.get(name.sequence, 0)
        size = await self._segments.size(name) - SEGMENT_HEAD_BYTES
        return State(name, max(1, size), weight.live, weight.drops, bound, clean, kept)

    def _settled(self, name: SegmentName) -> bool:
        """Whether the tables say all that it did, and nothing else stands in its place."""
        if any(name.first <= left.first and left.last <= name.last for left in self._segments.replaced):
            return False
        return name.last < self._index.position.segment

    async def _open(self, name: SegmentName) -> Segment:
        try:
            return await self._segments.segment(name.sequence)
        except FormatError as error:
            raise _Keep(name, f"its head cannot be read: {error.message}") from error

    # ---- a unit

    async def _step(self, job: _Job) -> Busy:
        match job.phase:
            case Phase.COPY:
                done = await self._copy(job)
            case Phase.CHECK:
                done = await self._check(job)
            case Phase.SWITCH:
                done = await self._switch(job)
            case Phase.VERIFY:
                done = await self._verify(job)
            case Phase.REMOVE:
                done = await self._remove(job)
        job.done += done.done_bytes
        return done

    async def _read(self, job: _Job, segment: Segment) -> tuple[list[Found | Damaged], int, bool]:
        """What the next piece of a segment has: findings, bytes read, whether that was all."""
        if job.scanner is None:
            job.scanner, job.offset = Scanner(segment.head.salt, segment.head.length, raw=True), segment.head.length
        try:
            data = await segment.file.pread(job.offset, min(UNIT_BYTES, segment.size - job.offset))
        except OSError as error:
            self.kept[segment.head.sequence] = f"it cannot be read: {error.strerror or error}"
            raise
        job.offset += len(data)
        last = job.offset >= segment.size or not data
        findings = job.scanner.feed(data, last=last)
        if last:
            job.scanner = None
        return findings, len(data), last

    async def _copy(self, job: _Job) -> Busy:
        assert job.head is not None and job.file is not None
        name = job.victims[job.at]
        await self._open(name)
        buffers: list[Buffer] = []
        async with self._segments.reading(name.sequence) as segment:
            findings, read_bytes, last = await self._read(job, segment)
            for number, finding in enumerate(findings):
                if number % RECORDS_BETWEEN_YIELDS == RECORDS_BETWEEN_YIELDS - 1:
                    await trio.lowlevel.checkpoint()
                if isinstance(finding, Damaged):
                    await self._confirm(name, segment, finding)
                elif self._stays(job, name, finding):
                    old, origin = finding.record, Origin(name.sequence, finding.offset)
                    record = Record(old.kind, old.hash, old.timestamp, old.info, old.data, old.zstd, origin)
                    parts, length, _ = encode_record(record, job.head.salt, finding.meta)
                    buffers += parts
                    job.size += length
                    self.moved_bytes += length
                    if record.kind in _TAKE_AWAY:
                        job.drop_bytes += length
        if buffers:
            await job.file.append(buffers, sync=False)
        if last:
            job.at += 1
            if job.at == len(job.victims):
                await self._finish(job, job.head, job.file)
        return Busy(1, read_bytes)

    def _stays(self, job: _Job, name: SegmentName, finding: Found) -> bool:
        """The rule of the module's docstring."""
        record = finding.record
        with self._asking_the_index():
            if self._index.names(record.hash, name.sequence, finding.offset):
                return True
            if record.kind in _TAKE_AWAY:
                bound = record.hash in job.indebted or (
                    record.kind is RecordKind.DROP
                    and record.hash in self._index.doubts
                    and self._index.doubts.needs(record.hash, record.timestamp, decode_meta(finding.meta))
                )
                if bound:
                    job.bound += finding.length
                return not job.free[job.at] or bound
            if not self._index.owes(record.hash + record.timestamp.pack_inverted()):
                return False
        if decode_meta(finding.meta).debt is None:
            return False
        job.indebted.add(record.hash)
        job.bound += finding.length
        return True

    async def _confirm(self, name: SegmentName, segment: Segment, damaged: Damaged) -> None:
        """Bytes without a record: let them go only when the medium says the same as the page cache."""
        if damaged.foreign:
            raise _Keep(name, "it holds a record of a newer format")
        data = await segment.file.pread_medium(damaged.offset, damaged.end - damaged.offset)
        again = Scanner(segment.head.salt, damaged.offset).feed(data, last=True)
        if any(isinstance(finding, Found) or finding.foreign for finding in again):
            raise _Keep(name, "its medium and the page cache do not agree")

    async def _finish(self, job: _Job, head: SegmentHead, file: File) -> None:
        job.at, job.scanner = 0, None
        if job.size == head.length:  # nothing stays
            job.head = job.file = None
            await file.close()
            job.phase = Phase.VERIFY
            return
        if job.indebted:
            job.head = head = replace(head, clean=0)
        await file.pwrite(0, head.encode())
        await file.set_xattr(XATTR, head.encode())
        await file.sync()
        job.phase, job.offset = Phase.CHECK, 0

    async def _check(self, job: _Job) -> Busy:
        """What was written is read from the medium before anything depends on it."""
        assert job.head is not None and job.file is not None
        if job.scanner is None:
            if await job.file.pread_medium(0, job.head.length) != job.head.encode():
                raise DiskFault(f"device {self._store.device.device_id}: the head of a new segment is not as it was written")
            job.scanner, job.offset = Scanner(job.head.salt, job.head.length, only_damage=True), job.head.length
        data = await job.file.pread_medium(job.offset, min(UNIT_BYTES, job.size - job.offset))
        job.offset += len(data)
        last = job.offset >= job.size or not data
        findings = job.scanner.feed(data, last=last)
        if any(isinstance(finding, Damaged) for finding in findings) or (last and job.offset != job.size):
            raise DiskFault(f"device {self._store.device.device_id}: a new segment is not as it was written")
        if last:
            job.scanner = None
            with trio.CancelScope(shield=True):
                await self._segments.install(job.head, job.file, job.size)
                job.file = None
            job.phase = Phase.SWITCH
            self._clean[job.head.sequence] = job.head.clean
            self._bound[job.head.sequence] = job.bound, trio.current_time() + DEBT_S
        return Busy(1, len(data))

    async def _switch(self, job: _Job) -> Busy:
        assert job.head is not None
        sequence = job.head.sequence
        async with self._segments.reading(sequence) as segment:
            if job.scanner is None:
                job.drop_bytes = 0
            findings, read_bytes, last = await self._read(job, segment)
        for number, finding in enumerate(findings):
            if number % RECORDS_BETWEEN_YIELDS == RECORDS_BETWEEN_YIELDS - 1:
                await trio.lowlevel.checkpoint()
            if isinstance(finding, Damaged):
                raise _Keep(job.victims[0], f"segment {sequence:08x}, which takes its place, is damaged")
            record = finding.record
            if record.kind in _TAKE_AWAY:
                job.drop_bytes += finding.length
            elif record.origin is not None:
                place = Place(sequence, finding.offset, finding.length, finding.meta_length)
                with self._asking_the_index():
                    self._index.relocate(record.hash, *record.origin, place)
        if last:
            self._index.weigh_moved(sequence, job.drop_bytes)
        if last or self._index.backlog >= COMMIT_RECORDS:
            await self._index.commit()
        if last:
            job.phase = Phase.VERIFY
            await trio.sleep(self._grace_s)
        return Busy(1, read_bytes)

    async def _verify(self, job: _Job) -> Busy:
        """No entry may name what is about to go: by the weights, and record by record."""
        name = job.victims[job.at]
        sequences = {victim.sequence for victim in job.victims}
        if self._index.weights.get(name.sequence).live:
            raise _Keep(name, "the index still names something in it")
        async with self._segments.reading(name.sequence) as segment:
            findings, read_bytes, last = await self._read(job, segment)
        for number, finding in enumerate(findings):
            if number % RECORDS_BETWEEN_YIELDS == RECORDS_BETWEEN_YIELDS - 1:
                await trio.lowlevel.checkpoint()
            if isinstance(finding, Found):
                with self._asking_the_index():
                    named = self._index.names_any(finding.record.hash, sequences)
                if named:
                    raise _Keep(name, "the index still names something in it")
        if last:
            job.at += 1
            if job.at == len(job.victims):
                job.phase, job.at = Phase.REMOVE, 0
        return Busy(1, read_bytes)

    async def _remove(self, job: _Job) -> Busy:
        """In the order of the log: a drop must not go before what it took away."""
        if job.at == 0:
            await self._index.commit()  # the tables must know that all of it is dead
        name = job.victims[job.at]
        size = await self._segments.size(name)
        await self._segments.remove(name)
        self._index.forget_segment(name.sequence)
        self._clean.pop(name.sequence, None)
        self._bound.pop(name.sequence, None)
        self.reclaimed_bytes += size
        job.at += 1
        if job.at == len(job.victims):
            self.reclaimed_bytes -= job.size if job.head is not None else 0
            self.compactions += 1
            self._job = None
            await self._index.commit()
        return Busy(1)

    @contextmanager
    def _asking_the_index(self) -> Iterator[None]:
        try:
            yield
        except (OSError, FormatError) as error:
            raise self._store.index_failed(error) from error
