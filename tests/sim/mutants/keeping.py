"""Broken devices and their workers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, cast

import msgspec

from ring.daemon.worker import Busy, Idle
from ring.names import Path, Span
from ring.timestamp import Timestamp
from ring.world.interface import Disk, OpenMode, Tables, World, Write
from storage.client.bodies import OnePiece
from storage.client.interface import Row
from storage.client.node import Debt, NodeReading
from storage.client.payer import RowPayer
from storage.client.trust import Trust
from storage.container.reclaimer import BookReclaimer
from storage.container.sharder import Sharder
from storage.container.shards import Shard, ShardMap
from storage.container.updater import ContainerUpdater
from storage.object.admission import Admission
from storage.object.compaction import Compactor
from storage.object.doubts import Doubts
from storage.object.entry import Held
from storage.object.files import file_path
from storage.object.packs import Landed
from storage.object.reader import Reader
from storage.object.record import Info, Record, RecordKind
from storage.object.replicator import ObjectReplicator
from storage.object.segments import Place
from storage.object.store import ObjectStore
from storage.rows.books import Books
from storage.rows.commit import Merge
from tests.sim.options import SHARDS, Options


def skip_fsync(options: Options) -> None:
    """Disks acknowledge a sync and make nothing durable."""
    options.ignores_sync = True


def blank_disk_is_new(options: Options) -> None:
    """A device without a label is taken for a new one, and formatted."""
    options.formats_anything = True
    kinds = {"unmount": 4.0, "kill": 2.0, "power": 1.0, "isolate": 1.0}
    options.traits = replace(options.traits, kinds=kinds)


# ---- the log and the index


class StopsEarly(ObjectStore):
    def _land(self, record: Record, place: Place) -> Landed:
        if not self._ready:
            return Landed(taken=False, newest=record.timestamp)
        return super()._land(record, place)


def replay_stops_early(options: Options) -> None:
    """The start believes what the index says, and reads nothing of the log's tail."""
    options.store = StopsEarly
    options.traits = replace(options.traits, kinds={"kill": 3.0, "power-all": 4.0})


class AheadTables:
    """Commits the log position at once and what the log said a commit later: reads are right, until a crash."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._late: dict[tuple[str, bytes], Write] = {}

    def get(self, table: str, key: bytes) -> bytes | None:
        late = self._late.get((table, key))
        return late.value if late is not None else self._tables.get(table, key)

    def get_many(self, table: str, keys: Sequence[bytes]) -> list[bytes | None]:
        return [self.get(table, key) for key in keys]

    def scan(self, table: str, start: bytes = b"", end: bytes | None = None, **kwargs: Any) -> list[tuple[bytes, bytes]]:
        return self._tables.scan(table, start, end, **kwargs)

    async def commit(self, writes: Sequence[Write]) -> None:
        late, self._late = self._late, {(w.table, w.key): w for w in writes if w.table == "index" and w.value is not None}
        now = [w for w in writes if (w.table, w.key) not in self._late]
        held = [write for key, write in late.items() if key not in self._late]
        await self._tables.commit([*held, *now])

    async def close(self) -> None:
        await self._tables.close()


class WrappedDisk:
    def __init__(self, disk: Disk) -> None:
        self._disk = disk

    def __getattr__(self, name: str) -> Any:
        return getattr(self._disk, name)

    async def open_tables(self, path: str, tables: Sequence[str], **kwargs: Any) -> Tables:
        return cast(Tables, AheadTables(await self._disk.open_tables(path, tables, **kwargs)))


def position_too_far(options: Options) -> None:
    """The index says that it knows more of the log than its tables have."""
    options.world = lambda world: replace(world, open_disk=_once(lambda root: cast(Disk, WrappedDisk(world.open_disk(root)))))
    options.traits = replace(options.traits, kinds={"kill": 3.0, "power": 2.0, "power-all": 2.0, "isolate": 2.0})


def _once(open_disk: Callable[[str], Disk]) -> Callable[[str], Disk]:
    disks: dict[str, Disk] = {}

    def found(root: str) -> Disk:
        if root not in disks:
            disks[root] = open_disk(root)
        return disks[root]

    return found


class DropsLive(Compactor):
    def _stays(self, job: Any, name: Any, finding: Any) -> bool:
        return finding.record.hash[0] % 2 == 0 and super()._stays(job, name, finding)

    async def _verify(self, job: Any) -> Busy:
        """The real one would notice, and keep the segment."""
        job.phase, job.at = type(job.phase).REMOVE, 0
        return Busy(1)


def compaction_drops_live(options: Options) -> None:
    """Compaction leaves out some of what is alive, and does not look again."""
    options.compactor = DropsLive


# ---- what is read and put aside


class Trusting(Reader):
    async def open(self, held: Held, offset: int, length: int | None) -> NodeReading | None:
        if held.entry.kind is not RecordKind.OBJECT_FILE:
            return await super().open(held, offset, length)
        record = await self.record(held)
        version = await self.describe(held, Path(*record.info.path), record.info)
        end = held.entry.size if length is None else min(held.entry.size, offset + length)
        try:
            file = await self._device.disk.open(file_path(held.hash, held.timestamp, held.entry.serial), OpenMode.READ)
        except OSError:
            return await super().open(held, offset, length)
        data = await file.pread(offset, end - offset)
        await file.close()
        return NodeReading(version, OnePiece(data))

    async def problem(self, held: Held) -> str:
        return "" if held.entry.kind is RecordKind.OBJECT_FILE else await super().problem(held)


class TrustsItsDisk(ObjectStore):
    def __init__(self, world: World, *args: Any, **kwargs: Any) -> None:
        super().__init__(world, *args, **kwargs)
        self.reader = Trusting(self.device, self.segments, world.offload, self._newest, self._suspect, self.refers)


def trust_a_corrupt_block(options: Options) -> None:
    """Checksums of large objects are not looked at."""
    options.store = TrustsItsDisk
    kinds = {"rot": 6.0, "misdirected-write": 2.0, "lost-write": 2.0, "isolate": 1.0}
    options.traits = replace(options.traits, destructive=1.0, kinds=kinds)


class Hasty(ObjectStore):
    async def object_by_key(self, key: bytes) -> NodeReading | None:
        begun = self._clock()
        found = await super().object_by_key(key)
        if self._clock() - begun > 0.1:
            await self.quarantine(key)
        return found

    async def get(self, path: Path, timestamp: Timestamp | None, offset: int, length: int | None, **kwargs: Any) -> Any:
        begun = self._clock()
        found = await super().get(path, timestamp, offset, length, **kwargs)
        if found is not None and self._clock() - begun > 0.1:
            await self.quarantine(self.key(path, found.version.timestamp))
        return found

    def __init__(self, world: World, *args: Any, **kwargs: Any) -> None:
        super().__init__(world, *args, **kwargs)
        self._clock = world.clock.now


def quarantine_on_timeout(options: Options) -> None:
    """What a slow disk does not give at once is taken for damaged."""
    options.store = Hasty
    options.traits = replace(options.traits, kinds={"slow-disk": 4.0, "isolate": 1.0, "power": 1.0})


class LetsGoAtOnce(ObjectReplicator):
    async def _end(self, look: Any) -> None:
        await super()._end(look)
        if not look.is_primary:
            await self._drop(look.span, [])


def drop_before_all_have_it(options: Options) -> None:
    """A handoff lets go of its copies after it has tried to push them, whether they arrived or not."""
    options.replicator = LetsGoAtOnce
    kinds = {"isolate": 4.0, "cut": 3.0, "delay": 1.0}
    options.traits = replace(options.traits, ring_changes=1.0, destructive=0.0, kinds=kinds)


class NoDoubts(Doubts):
    def told(self, *args: Any, **kwargs: Any) -> None:
        return None

    def above(self, *args: Any, **kwargs: Any) -> None:
        return None

    def check_post(self, *args: Any, **kwargs: Any) -> None:
        return

    def within(self, *args: Any, **kwargs: Any) -> list[Any]:
        return []


class ForgetsWhatRots(ObjectStore):
    def __init__(self, world: World, *args: Any, **kwargs: Any) -> None:
        super().__init__(world, *args, **kwargs)
        self.index.doubts = NoDoubts()


def forget_what_rots(options: Options) -> None:
    """A device that put something damaged aside answers as if it had never had it."""
    options.store = ForgetsWhatRots
    options.traits = replace(options.traits, destructive=0.0, honest=1.0)


class VotesAtOnce(Trust):
    def check(self, path: Path, policy: int = 0) -> None:
        return


def vote_before_it_is_refilled(options: Options) -> None:
    """A new disk answers for what the old one held before anybody has brought it."""
    options.trust = VotesAtOnce
    options.traits = replace(options.traits, destructive=0.0, honest=1.0)


class ForgetsDeletions(ObjectStore):
    def mark_paid(self, keys: Iterable[bytes]) -> None:
        known = list(keys)
        super().mark_paid(known)
        for key in known:
            held = self.index.newest(key[:16])
            if held is not None and held.key == key and held.entry.kind is RecordKind.TOMBSTONE:
                self._many.set()
                self._reclaim(held)

    def _reclaim(self, held: Held) -> None:
        info = Info(("", "", ""), etag=held.entry.etag, reason="reclaimed")
        self.packs.submit(Record(RecordKind.DROP, held.hash, held.timestamp, info))


def reclaim_early(options: Options) -> None:
    """A tombstone goes as soon as its row is paid, whoever else has not heard of it."""
    options.store = ForgetsDeletions
    options.traits = replace(options.traits, kinds={"isolate": 4.0, "cut": 2.0, "power": 2.0, "kill": 1.0})


class ForgetsRows(BookReclaimer):
    async def work(self) -> Busy | Idle:
        for book in await self._all_books(Span(0, 0)):
            header = self._books.header(book)
            page = None if header is None else await self._books.rows(header.path, start="", end="", limit=1000, reverse=False)
            if header is not None and page is not None and not self._books.transit(book)[0]:
                self.reclaimed += await self._books.let_go(header.path, [row for row in page.rows if row.deleted])
        return Idle.after(1.0)


def reclaim_rows_early(options: Options) -> None:
    """A row's tombstone goes as soon as it is there, whoever else has not heard of it."""
    options.book_reclaimer, options.reclaim_age_s = ForgetsRows, 1e9  # nothing else is reclaimed
    options.traits = replace(options.traits, kinds={"isolate": 4.0, "cut": 2.0, "power": 2.0, "kill": 1.0})


class Forgetful(Admission):
    def check(self, name_hash: bytes, version: Timestamp) -> None:
        self.check_clock(name_hash, version)


class BreaksItsWord(ObjectStore):
    def __init__(self, world: World, *args: Any, **kwargs: Any) -> None:
        super().__init__(world, *args, **kwargs)
        self.admission = Forgetful(world.clock, self._hasher, self.index, self.packs, self.reader)


def skip_the_promise_check(options: Options) -> None:
    """A device takes what it promised a conditional write to refuse."""
    options.store = BreaksItsWord
    kinds = {"isolate": 2.0, "delay": 3.0, "jitter": 4.0, "freeze": 3.0, "slow-disk": 2.0, "reset": 1.0, "clock-step": 1.0}
    options.traits = replace(options.traits, racing=1.0, destructive=0.0, kinds=kinds)


# ---- listings


class PaysNothing(RowPayer):
    async def pay(self, debt: Debt) -> bool:
        return True


def forget_the_row_update(options: Options) -> None:
    """The row that a write owes counts as paid, and is sent to nobody."""
    options.payer = PaysNothing


class TakesTheLast(Books):
    def begin_rows(self, book: Path, rows: Sequence[Row]) -> Merge | None:
        """As if each row were new when it comes."""
        late = []
        for row in rows:
            there = self._rows_by_name(book, row.name)
            late.append(
                msgspec.structs.replace(row, timestamp=Timestamp(there.timestamp.ticks + 1)) if there and there > row else row
            )
        return super().begin_rows(book, late)

    def _rows_by_name(self, book: Path, name: str) -> Any:
        page = self._page(self._hasher.hash(book), b"", None, limit=1000, reverse=False)
        found = next((row for row in page.rows if row.name == name), None) if page is not None else None
        return _Dated(found) if found is not None else None


class _Dated:
    def __init__(self, row: Row) -> None:
        self.timestamp = row.timestamp

    def __gt__(self, other: Row) -> bool:
        return self.timestamp > other.timestamp


def rows_as_they_come(options: Options) -> None:
    """A listing keeps the row that came last, and not the newest."""
    options.books = TakesTheLast
    options.traits = replace(options.traits, kinds={"jitter": 3.0, "repeat": 3.0, "isolate": 2.0, "delay": 2.0})


class ReportsSometimes(ContainerUpdater):
    async def _report(self, overlap: Any, account: Path, marks: Any) -> bool:
        return True if self.reported > 1 else await super()._report(overlap, account, marks)


def report_once(options: Options) -> None:
    """A container tells its account of its sums twice, and never again."""
    options.container_updater = ReportsSometimes


class LosesRowsInTransit(Sharder):
    async def _hand_over(self, book: bytes, root: Path, shard: Shard, path: Path, rows: list[Row], after: str) -> float:
        if shard.active:
            self.forwarded += await self._books.discard(path, rows)
        return 0.0 if shard.active else 1.0


def let_go_of_rows_in_transit(options: Options) -> None:
    """A sharder takes rows out of the root before any device has them in their shard."""
    options.shards, options.sharder = SHARDS, LosesRowsInTransit


class ForgetsSources(Sharder):
    async def _step(self, root: Path, modified: int, new: ShardMap) -> None:
        shards = tuple(replace(shard, sources=()) for shard in new.shards)
        await super()._step(root, modified, replace(new, shards=shards))


def forget_what_a_shard_replaced(options: Options) -> None:
    """A map no longer names the shards whose rows are still to come: they are never closed and forwarded."""
    options.shards, options.sharder = SHARDS, ForgetsSources
