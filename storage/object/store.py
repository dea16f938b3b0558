"""ObjectStore: the objects of one device (the object half of storage.client.node.Node, and what its workers need).

Owns the log (packs.py), the index (index.py) and the large files (files.py, upload.py, reader.py), replays the log when it
starts, and keeps two tasks: one commits the index now and then, one unlinks the files of superseded versions and examines what a
reader found damaged.  Decides nothing about other devices and pays no debts: it keeps them (``unpaid``, ``mark_paid``).

A small GET or HEAD is one look-up and one read from the page cache, without a task or a thread.  Errors of every call, beside those
named: DeviceOutOfService (Unavailable), DiskFault, DiskFull.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from contextlib import aclosing, suppress

import trio

from ring.errors import BadInput, DiskFault, FormatError, NewerFormat
from ring.names import NameHasher, Path, Span
from ring.timestamp import ZERO, Timestamp
from ring.world.interface import Buffer, World
from storage.client.errors import ObjectNotFound
from storage.client.node import Debt, Kind, LeafDigests, Named, NodeReading, Promised, Upload, Version, WriteReply
from storage.object import due
from storage.object.admission import Admission, check_meant
from storage.object.device import OpenDevice
from storage.object.entry import Held
from storage.object.errors import DeviceOutOfService
from storage.object.files import FileWriter, disk_fault, file_path, remove
from storage.object.index import Index
from storage.object.packs import BATCH_BYTES_MAX, SEGMENT_BYTES_MAX, Landed, Packs, Write
from storage.object.reader import Reader
from storage.object.record import (
    DATA_BYTES_MAX,
    RECORD_BYTES_MAX,
    Record,
    RecordKind,
    debt_of,
    info_of,
    version_of,
)
from storage.object.removal import Removal
from storage.object.scan import Damaged, Found, StartReport
from storage.object.segment import COMPACTED, LOG_START, Position
from storage.object.segments import Place
from storage.object.staging import Staging
from storage.object.upload import FileUpload
from storage.sync import tree
from storage.sync.standing import OBJECTS, OBJECTS_PATH, Standing

COMMIT_INTERVAL_S = 1.0
COMMIT_RECORDS = 1000
BACKLOG_MAX = 20_000  # changes in RAM; beyond it writers wait for the index
COMMIT_FAILURES_MAX = 5
REPLAY_BATCH = 10_000
SMALL_BYTES_MAX = DATA_BYTES_MAX
SUSPECTS_MAX = 1000
TORN_BYTES_MAX = BATCH_BYTES_MAX + RECORD_BYTES_MAX
SYSTEM_METADATA = "x-sysmeta-"


class ObjectStore:
    def __init__(self, world: World, device: OpenDevice, hasher: NameHasher, *, segment_bytes_max: int = SEGMENT_BYTES_MAX) -> None:
        self.device = device
        self.index = Index(device.tables)
        self.packs = Packs(world, device, self._land, segment_bytes_max=segment_bytes_max)
        self.segments = self.packs.segments
        self.reader = Reader(device, self.segments, world.offload, self._newest, self._suspect, self.refers)
        self.admission = Admission(world.clock, hasher, self.index, self.packs, self.reader)
        self.staging = Staging(self)
        self.standing = Standing(device.disk, OBJECTS_PATH)
        self.in_doubt: set[str] = set()  # files that have a name and wait for their record
        self.removal = Removal(self)
        self.report = StartReport()
        self._hasher = hasher
        self._ready = False
        self._suspects: deque[bytes] = deque(maxlen=SUSPECTS_MAX)  # keys
        self._changed = trio.Event()  # the index has something to commit
        self._many = trio.Event()  # ... and it should be now
        self._to_clean = trio.Event()
        self._committed = trio.Event()
        self._commit_failures = 0
        self._index_damaged = False

    # ---- life

    async def open(self) -> None:
        """Bring the index up to the end of the log.  DeviceOutOfService when the disk does not let us."""
        try:
            await self._open()
        except NewerFormat as error:
            self.device.fail(error.message)
            raise DeviceOutOfService(
                f"device {self.device.device_id} cannot be opened: {error.message}", hint=error.hint
            ) from error
        except (OSError, FormatError, DiskFault) as error:
            self.device.fail(f"it cannot be opened: {error}")
            raise DeviceOutOfService(
                f"device {self.device.device_id} cannot be opened: {error}",
                hint="if its tables are damaged, move its folder 'tables' away: they are made anew from the log and from replicas",
            ) from error

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Open, then serve until cancelled.  Started when it can be used."""
        await self.open()
        try:
            async with trio.open_nursery() as nursery:
                await nursery.start(self.packs.run)
                nursery.start_soon(self._commit_loop)
                nursery.start_soon(self._clean_loop)
                self._ready = True
                task_status.started()
        finally:
            self._ready = False

    async def close(self) -> None:
        """After ``run`` ended.  Leaves nothing to replay, if the disk lets it."""
        self._ready = False
        if not self.device.fault:
            with suppress(DiskFault):  # only the next start would have been faster
                await self.index.commit()
        await self.packs.close()

    async def _open(self) -> None:
        await self.standing.load()
        await self.packs.open()
        cut_short = False  # the log ends before what it once had
        try:
            self.index.load()
            if not self._in_log(self.index.position):
                cut_short = True
                raise FormatError("the index is ahead of the log")
            for sequence, weight in self.index.weights.all():
                if not self.segments.exists(sequence):
                    if weight.live:
                        cut_short = True
                        raise FormatError("the index names a segment that is not there")
                    self.index.forget_segment(sequence)
            await self._replay()
        except NewerFormat:
            raise  # the index is all right
        except FormatError:
            if cut_short:
                await self.standing.take_back()
                await self.device.lacks("its log ends before what it once had")
            await self.index.clear()
            await self._replay()
        self.index.past.clear(self.admission.latest if self.segments.order else ZERO)
        await self.index.commit()
        empty = tree.partition_from(self.device.tables, "object", b"", 0) is None
        await self.standing.opened((OBJECTS,), empty=empty)

    def _in_log(self, position: Position) -> bool:
        if position == LOG_START:
            return True
        return position.segment < COMPACTED and self.segments.stands(position.segment) and position <= self.packs.end

    async def _replay(self) -> None:
        self.report = StartReport(rebuilt=self.index.position == LOG_START and bool(self.segments.order))
        torn: Damaged | None = None
        async with aclosing(self.segments.scan(self.index.position)) as findings:
            async for segment, finding in findings:
                sequence = segment.head.sequence
                if isinstance(finding, Found):
                    self._land(finding.record, Place(sequence, finding.offset, finding.length, finding.meta_length))
                    self.report.replayed += 1
                    if self.index.backlog >= REPLAY_BATCH:
                        await self.index.commit()
                elif finding.to_end and sequence == self.segments.order[-1].sequence:
                    torn = finding
                else:
                    await self._damaged(sequence, finding.offset, finding.end)
        if torn is None:
            return
        if torn.end - torn.offset <= TORN_BYTES_MAX:
            self.report.torn_bytes = torn.end - torn.offset
            await self.packs.cut(torn.offset)
        else:  # more than one append can leave: it was acknowledged and has rotted
            await self._damaged(self.segments.order[-1].sequence, torn.offset, torn.end)
            self.packs.seal()

    async def _damaged(self, sequence: int, offset: int, end: int) -> None:
        """Written down before the index knows of what comes after it: the next start would not see it."""
        if not self.report.damaged:
            await self.standing.take_back()
            await self.device.lacks(f"its log is damaged at byte {offset} of segment {sequence}")
        self.report.damaged.append((sequence, offset, end))

    async def _commit_loop(self) -> None:
        while True:
            await self._changed.wait()
            with trio.move_on_after(COMMIT_INTERVAL_S):
                await self._many.wait()
            self._changed = trio.Event()
            self._many = trio.Event()
            try:
                if self.device.health.takes_writes:  # else what was landed is in the log, and in RAM
                    await self.index.commit()
                self._commit_failures = 0
            except DiskFault as error:
                self._commit_failures += 1
                self.device.erred(error.__cause__, "its index")
                if self._commit_failures >= COMMIT_FAILURES_MAX:
                    self.device.fail(str(error), error.__cause__)
                self._changed.set()
                await trio.sleep(COMMIT_INTERVAL_S)
            self._committed.set()
            self._committed = trio.Event()

    async def _clean_loop(self) -> None:
        while True:
            await self._to_clean.wait()
            self._to_clean = trio.Event()
            forgotten, self.index.forgotten = self.index.forgotten, []
            for held in forgotten:
                with suppress(OSError, DeviceOutOfService):  # what stays is an orphan, and the auditor's
                    await self._remove_file(held)
            if self._index_damaged:
                with suppress(DiskFault):  # then the next start meets the damage again, and so do we
                    await self.index.distrust()
            while self._suspects and not self.device.fault:
                with suppress(DiskFault, DeviceOutOfService):  # the auditor comes by again
                    await self.examine(self._suspects.popleft())

    async def _remove_file(self, held: Held) -> None:
        path = file_path(held.hash, held.timestamp, held.entry.serial)
        if path not in self.in_doubt and not self.refers(held.hash, path):
            await remove(self.device.disk, path)

    def _land(self, record: Record, place: Place) -> Landed:
        try:
            landed = self.index.land(record, place)
        except (OSError, FormatError) as error:
            if self._ready:
                self.index_failed(error)
            raise
        if record.kind is RecordKind.DROP:
            self.removal.dropped(record.hash)
        self._changed.set()
        if self.index.backlog >= COMMIT_RECORDS:
            self._many.set()
        if self.index.forgotten:
            self._to_clean.set()
        return landed

    # ---- writing

    async def put_small(self, version: Version, data: Buffer, debt: Debt | None) -> WriteReply:
        """A whole object, or a tombstone (data empty).  BadInput above SMALL_BYTES_MAX, or when it is not as long as it says."""
        if self.index.backlog > BACKLOG_MAX:
            await self.room()
        return await self.begin_small(version, data, debt).wait()

    def begin_small(self, version: Version, data: Buffer, debt: Debt | None) -> Write:
        """``put_small`` without the waiting."""
        if len(data) != version.size or len(data) > SMALL_BYTES_MAX:
            raise BadInput(f"{len(data)} bytes are not the {version.size} of the object, or more than {SMALL_BYTES_MAX}")
        name_hash = self._hasher.hash(version.path)
        known = self.known(name_hash, version, debt)
        if known is not None:
            return known
        self.admission.check(name_hash, version.timestamp)
        kind = RecordKind.TOMBSTONE if version.kind is Kind.TOMBSTONE else RecordKind.OBJECT_INLINE
        if version.kind is Kind.OBJECT:
            self.device.admit(len(data), promised=self.index.promises.stands(name_hash, version.timestamp))
        record = Record(kind, name_hash, version.timestamp, info_of(version, debt), data)
        return Write(None, self.packs.submit(record), debt)

    async def put_large(self, path: Path, size: int | None) -> Upload:
        self._check()
        self.device.admit(size or 0)
        name_hash = self._hasher.hash(path)
        try:
            writer = await FileWriter.begin(self.device.disk, name_hash, size)
        except OSError as error:
            self.device.erred(error, f"a file of {name_hash.hex()}")
            raise disk_fault(self.device.device_id, "begin an object's file", error) from error
        return FileUpload(self, path, name_hash, writer, sized=size is not None)

    async def post(
        self, path: Path, metadata: Mapping[str, str], content_type: str, timestamp: Timestamp, of: Named | None = None
    ) -> WriteReply:
        """Replace the client's metadata; the system's (x-sysmeta-*) stays.  ObjectNotFound, Superseded."""
        name_hash = self._hasher.hash(path)
        held = self._newest(name_hash)
        self.index.doubts.check_post(name_hash, path, held, timestamp)
        check_meant(path, held, of)
        if held is None or held.kind is Kind.TOMBSTONE:
            raise ObjectNotFound(f"{path} does not exist here")
        if timestamp <= held.modified:
            return WriteReply(held.modified, paid=True)
        self.device.admit(0)
        old = await self.reader.describe(held, path)
        kept = {name: value for name, value in old.metadata.items() if name.startswith(SYSTEM_METADATA)}
        new = Version(
            path, old.timestamp, old.kind, old.size, old.etag, content_type or old.content_type, {**kept, **metadata}, timestamp
        )
        self.admission.check(held.hash, held.timestamp)
        self.admission.check_clock(held.hash, timestamp)
        landed = await self.packs.submit(self._metadata_record(held.hash, new)).wait()
        if not landed.taken:
            check_meant(path, self._newest(name_hash), of)  # it was replaced in this moment
        return WriteReply(landed.newest, paid=True)

    async def drop(self, key: bytes, reason: str) -> bool:
        """Let go of a version that others hold (a handoff's, a reclaimed tombstone); False when it is not held (any more).

        Conflict while it owes a container row.  It is no deletion: nothing is told to anybody."""
        return await self.removal.drop(key, reason)

    async def quarantine(self, key: bytes) -> bool:
        """Put a damaged version aside, so that a sound copy can come from another device; False when it is not held (any more)."""
        return await self.removal.quarantine(key)

    def known(self, name_hash: bytes, version: Version, debt: Debt | None) -> Write | None:
        """The answer to a write of a version that is held already, or is older than what is, or than where the ring has closed;
        None when it is news."""
        old = self._newest(name_hash)
        rank = version.timestamp, version.kind is Kind.TOMBSTONE, version.etag
        if old is None or rank > old.rank:
            above = self.index.doubts.above(name_hash, rank)
            if above is None and debt is not None:
                above = self.standing.closed_above(OBJECTS, version.timestamp)
            return None if above is None else Write(WriteReply(above, paid=True), None, None)
        same = rank == old.rank
        if same and version.metadata_timestamp is not None and version.metadata_timestamp > old.modified:
            self.admission.check(name_hash, version.timestamp)
            return Write(None, self.packs.submit(self._metadata_record(name_hash, version)), None)
        newest, never = self.index.answer(old, rank)
        mine = same or newest == rank[0]
        return Write(WriteReply(newest, paid=not (mine and self.index.owes(old.key)), never=never), None, None)

    def _metadata_record(self, name_hash: bytes, version: Version) -> Record:
        return Record(RecordKind.METADATA, name_hash, version.timestamp, info_of(version, None))

    async def promise(self, path: Path, ballot: Timestamp, ours: Sequence[Timestamp]) -> Promised:
        self._check()
        self.standing.check(OBJECTS)
        self.device.admit(0, promised=True)  # else it could not take what it is promised to
        return await self.admission.promise(path, ballot, ours)

    async def release(self, path: Path, ballot: Timestamp) -> None:
        self._check()
        await self.admission.release(path, ballot)

    async def room(self) -> None:
        """Wait until the index keeps up with the log."""
        while self.index.backlog > BACKLOG_MAX:
            self.device.check_writable()
            self._many.set()
            await self._committed.wait()

    # ---- for staging.py

    def hash(self, path: Path) -> bytes:
        return self._hasher.hash(path)

    def newest(self, name_hash: bytes) -> Held | None:
        """What is shown.  DeviceOutOfService."""
        return self._newest(name_hash)

    def check(self) -> None:
        self._check()

    # ---- reading

    async def head(self, path: Path) -> Version | None:
        self.standing.check(OBJECTS)
        name_hash = self._hasher.hash(path)
        held, told = self._newest(name_hash), self.index.doubts.told(name_hash, path)
        return told if told is not None or held is None else await self.reader.describe(held, path)

    async def get(self, path: Path, timestamp: Timestamp | None, offset: int, length: int | None) -> NodeReading | None:
        name_hash = self._hasher.hash(path)
        if timestamp is None:
            self.standing.check(OBJECTS)
        while True:
            held = self._newest(name_hash)
            if held is None or held.kind is Kind.TOMBSTONE or (timestamp is not None and held.timestamp != timestamp):
                self.index.doubts.told(name_hash, path, timestamp)
                return None
            if not held.entry.whole:
                return None
            reading = await self.reader.open(held, offset, length)
            if reading is not None:
                return reading

    async def object_by_key(self, key: bytes) -> NodeReading | None:
        while (held := self._get(key)) is not None and held.entry.whole:
            reading = await self.reader.open(held, 0, None)
            if reading is not None:
                return reading
        return None

    # ---- for the workers of the device

    def key(self, path: Path, timestamp: Timestamp) -> bytes:
        """hash | inverted timestamp: how the index, the tree and the debts name a version."""
        return self._hasher.hash(path) + timestamp.pack_inverted()

    async def partition_from(self, start: bytes, part_power: int) -> Span | None:
        """The first partition, by a ring with this part power, at or behind ``start`` of which anything is held."""
        self._check()
        await self.index.try_commit(self.device.health.takes_writes)
        return await self.index.partition_from(start, part_power)

    async def digests(self, span: Span) -> LeafDigests:
        self._check()
        await self.index.try_commit(self.device.health.takes_writes)
        found = await self.index.digests(span)
        return LeafDigests(found.root, found.leaves, self.standing.mark(OBJECTS))

    async def leaf(self, span: Span, leaf: int) -> Sequence[tuple[bytes, bytes]]:
        """(key, digest) of what the leaf holds, in key order."""
        self._check()
        start: bytes | None
        start, end = tree.leaf_span(span, leaf).bounds
        found: list[tuple[bytes, bytes]] = []
        while start is not None:
            page, start = self.index.page(start, end, limit=1000)
            found += [(held.key, held.digest) for held in page]
            await trio.lowlevel.checkpoint()
        return found

    async def due(self, after: bytes, until: int, *, limit: int) -> list[tuple[int, bytes]]:
        """(when, key) of objects that are to go at ``until`` or before, earliest first, behind the row ``after`` of
        storage.object.due (b"": from the first)."""
        self._check()
        if not after:
            await self.index.try_commit(self.device.health.takes_writes)
        return due.page(self.device.tables, after, until, limit=limit)

    async def path_of(self, key: bytes) -> Path | None:
        """Whose version this is; None when it is not held (any more)."""
        held = self._get(key)
        return None if held is None else await self.reader.path(held)

    def unpaid(self, limit: int) -> list[tuple[bytes, Version, Debt]]:
        """Debts that are not known to be paid, those of writes under way included.  Paying twice does no harm."""
        self._check()
        found = []
        for key, owed in self.index.owed(limit):
            kind = Kind.TOMBSTONE if owed.kind is RecordKind.TOMBSTONE else Kind.OBJECT
            assert owed.info.debt is not None
            found.append((key, version_of(kind, Timestamp.unpack_inverted(key[16:]), owed.info), debt_of(owed.info.debt)))
        return found

    def mark_paid(self, keys: Iterable[bytes]) -> None:
        """Forget these debts, with the next commit of the index; after a crash before it they are handed out again."""
        self._check()
        self.index.mark_paid(keys)
        self._changed.set()

    async def settle(self, path: Path, timestamp: Timestamp) -> None:
        self.mark_paid([self.key(path, timestamp)])  # the debt of this version is paid

    async def examine(self, key: bytes) -> bool:
        """Read all of a version and quarantine it when it is damaged: False then."""
        return await self.removal.examine(key)

    @property
    def quarantined(self) -> int:
        """Since the start."""
        return self.removal.quarantined

    def refers(self, name_hash: bytes, path: str) -> bool:
        """Whether the index holds a version, shown or staged, whose data is the file ``path``."""
        held = self._newest(name_hash)
        if held is not None and held.entry.in_file and file_path(held.hash, held.timestamp, held.entry.serial) == path:
            return True
        return any(file_path(name_hash, at, serial) == path for at, serial in self.index.staged.files(name_hash))

    def _suspect(self, key: bytes) -> None:
        """A reader found it damaged: examine it soon."""
        self._suspects.append(key)
        self._to_clean.set()

    def _newest(self, name_hash: bytes) -> Held | None:
        self._check()
        try:
            return self.index.newest(name_hash)
        except (OSError, FormatError) as error:
            raise self.index_failed(error) from error

    def index_failed(self, error: Exception) -> DeviceOutOfService:
        """The index cannot be read: out of service, and made anew by the next start if it is damaged.  The error to raise."""
        self.device.fail(f"its index cannot be read: {error}", error)
        self._index_damaged = isinstance(error, FormatError)
        self._to_clean.set()
        return DeviceOutOfService(f"device {self.device.device_id} is out of service: {self.device.fault}")

    def _get(self, key: bytes) -> Held | None:
        held = self._newest(key[:16])
        return held if held is not None and held.key == key else None

    def _check(self) -> None:
        self.device.check()
        if not self._ready:
            raise DeviceOutOfService(f"device {self.device.device_id} is not running")
