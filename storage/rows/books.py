"""Books: the containers and accounts of one device; the book half of a Node (storage.client.node).

A merge becomes durable in the commit log, then visible in RAM (overlay), then goes to the tables (apply.py).  A read looks at the
overlay in front of the tables and holds no transaction across an await.  Everything is kept by the book's hash, so a partition is a
range of keys.  One Books owns a device's books: sums are followed in RAM and written with the rows they count.

Tables: "rows" (names.py), "books" (hash -> header), "book_state" (b"s" + hash -> sums, b"d" + hash -> owes its account a report),
"tree" (kinds "container" and "account"; storage.sync.tree).  Format: docs/formats/rows.md.

Never touches: quorums, other devices (storage.client), objects (storage.object), rings: whoever asks about a partition says the
part power it is meant with, and those of the container and the account ring may differ.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import trio

from ring.errors import BadInput, DiskFault, FormatError, RingfortError, Unavailable
from ring.names import NameHasher, Path, Span
from ring.timestamp import Timestamp, TimestampSource
from ring.world.interface import World, Write
from storage.client.interface import Row
from storage.client.node import BookHeader, BookState, LeafDigests, RowPage
from storage.container.shards import SUMS, is_shard
from storage.container.stats import DirtyStats, StatsMark, report
from storage.rows.apply import OVERLAY_ROWS_MAX, Applier, Batch
from storage.rows.commit import GroupCommit, Merge, Pending
from storage.rows.entry import Entry
from storage.rows.log import FOLDER, HeaderRecord, Record, RowsRecord, log_path
from storage.rows.look import PAGE_ROWS_MAX, current, page
from storage.rows.merge import normal_header
from storage.rows.names import INLINE_MAX, branch_writes, kinds_of, row_key
from storage.rows.overlay import REMOVED, Overlay
from storage.rows.page import PackedRows
from storage.rows.replay import put_away, read_log
from storage.rows.row import check_row, pack_header, pack_row, seal, unpack_row, unseal
from storage.rows.sums import BOOK_SUMS, OWES, leave_page, owing, sums_writes
from storage.rows.tables import BooksDevice, BookTables, as_fault
from storage.sync.standing import BOOKS_PATH, Standing
from storage.sync.tree import Toggles, combine, digests, leaf_span, partition_from

RECORD_ROWS_MAX = 1000
HEADER_BYTES_MAX = 1 << 20
ENTRIES_MAX = 4096  # in RAM


class Books:
    def __init__(self, world: World, device: BooksDevice, hasher: NameHasher) -> None:
        self._device = device
        self._tables = BookTables(device.tables)
        self._hasher = hasher
        self._timestamps = TimestampSource(world.clock)
        self._entries: dict[bytes, Entry] = {}
        self._overlay = Overlay()  # takes merges
        self._applying = Overlay()  # on its way to the tables
        self._stats = DirtyStats()
        self.notice_rows = 0  # 0: nobody wants to know
        self.noticed: dict[bytes, None] = {}  # hashes of containers that were found with more live rows, or with rows in transit
        self.damage: list[str] = []  # what the last start found missing in the log: other replicas have it
        self.disk = device.disk
        self.standing = Standing(device.disk, BOOKS_PATH)  # for the rings "container" and "account"
        self._log: GroupCommit | None = None
        self._applier: Applier | None = None

    # ---- life

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Replay the log, report that the books are open, and serve merges until cancelled.

        Raises DiskFault or FormatError when they cannot be opened (before ``started``); later faults take the device out of
        service and are told to whoever asks."""
        last_sequence = await self._replay()
        log = GroupCommit(
            self._device.disk,
            last_sequence,
            self._settle,
            may_go_on=lambda: self._overlay.row_count < OVERLAY_ROWS_MAX,
            on_sealed=self._wake,
        )
        applier = Applier(self._device, self._tables, log, self._row_count, self._swap, self._applied)
        log.start()
        self._log, self._applier = log, applier
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(log.run)
                nursery.start_soon(applier.run)
                task_status.started()
        finally:
            self._log = self._applier = None
            with trio.CancelScope(shield=True):
                await log.close()

    async def flush(self) -> None:
        """Until all that is visible now is in the tables.  DiskFault when the device cannot."""
        applier = self._applier
        if applier is None:
            raise Unavailable("the books of this device are not open")
        await applier.once()

    async def close(self) -> None:
        """After ``run`` was cancelled: the log holds what the tables do not."""
        self._entries.clear()

    # ---- the book half of a Node

    async def merge_header(self, header: BookHeader) -> BookState:
        """Merge by timestamps; durable when it returns.  The state after."""
        return await self.begin_header(header).wait()

    async def merge_rows(self, book: Path, rows: Sequence[Row]) -> BookState | None:
        """Last write wins, durable when it returns.  None: this device has no header of the book, or the book is a shard that was
        replaced, and took nothing.  Any other deleted book takes rows: they are late ones, or another replica's."""
        merge = self.begin_rows(book, rows)
        return None if merge is None else await merge.wait()

    async def book(self, path: Path) -> BookState | None:
        self._check()
        entry = self._entry(self._hasher.hash(path))
        return None if entry is None else entry.state

    async def rows(self, path: Path, *, start: str, end: str, limit: int, reverse: bool) -> RowPage | None:
        """Rows with start < name < end ("" is no bound), tombstones included, at most ``limit`` (cut at PAGE_ROWS_MAX)."""
        self._check()
        return self._page(self._hasher.hash(path), start.encode(), end.encode() or None, limit=limit, reverse=reverse)

    def may_answer(self, path: Path) -> None:
        """Before what is held of a book counts as what is known of it: Unavailable while the device is behind."""
        self.standing.check("container" if path.container else "account")

    async def digests(self, kind: str, span: Span) -> LeafDigests:
        """Of what is in the tables: merges of the last second may be missing.  Kinds: "book", or "container" or "account" alone."""
        self._check()
        found = combine(*(digests(self._tables, one, span) for one in kinds_of(kind)))
        return LeafDigests(found.root, found.leaves, min(map(self.standing.mark, kinds_of(kind))))

    async def leaf(self, kind: str, span: Span, leaf: int) -> Sequence[tuple[bytes, bytes]]:
        """(hash, digest) of the books in a leaf, as in the tables."""
        self._check()
        found = []
        start, end = leaf_span(span, leaf).bounds
        while True:
            pairs = self._tables.scan("books", start, end, limit=PAGE_ROWS_MAX)
            for book, header in pairs:
                entry = self._load(book, header)
                if entry is not None and entry.kind in kinds_of(kind):
                    found.append((book, entry.digest()))
            if len(pairs) < PAGE_ROWS_MAX:
                return found
            start = pairs[-1][0] + b"\0"

    # ---- the same, begun without waiting

    def begin_header(self, header: BookHeader) -> Merge:
        """Raises BadInput, DiskFault, Unavailable."""
        self._check()
        header.path.check()
        if header.path.object:
            raise BadInput(f"{header.path} is no book")
        packed = pack_header(normal_header(header))
        if len(packed) > HEADER_BYTES_MAX:
            raise BadInput(f"the metadata of {header.path} is larger than {HEADER_BYTES_MAX} bytes")
        if header.exists:
            self._device.admit(len(packed))
        book = self._hasher.hash(header.path)
        entry = self._entry(book)
        if entry is None:
            entry = self._entries.setdefault(book, Entry(book))
        merge = self._begin(entry, [HeaderRecord(book, packed)])
        if header.deleted is not None and is_shard(header.path):
            entry.closed = True  # rows that come from now on would stand behind this in the log
        return merge

    def begin_rows(self, book: Path, rows: Sequence[Row]) -> Merge | None:
        """None: no header here, or a closed shard.  Raises BadInput, DiskFault, Unavailable."""
        self._check()
        for row in rows:
            check_row(row, book)
        entry = self._entry(self._hasher.hash(book))
        if entry is None or entry.closed:
            return None
        packed = [pack_row(row) for row in rows]
        if not all(row.deleted for row in rows):  # what is deleted makes room
            self._device.admit(sum(map(len, packed)))
        records = [RowsRecord(entry.book, packed[at : at + RECORD_ROWS_MAX]) for at in range(0, len(packed), RECORD_ROWS_MAX)]
        return self._begin(entry, records)

    # ---- for the replicator and the updater

    async def partition_from(self, kind: str, start: bytes, part_power: int) -> Span | None:
        """The first partition at or behind ``start`` (b"", or where another one ends) with a book of the kind, as in the tables;
        numbered as by a ring with this part power.  At b"" all that is visible goes to the tables first, so a pass from there on
        leaves out nothing that was there when it began."""
        self._check()
        if not start:
            await self.flush()
        found = [partition_from(self._tables, one, start, part_power) for one in kinds_of(kind)]
        return min((span for span in found if span is not None), default=None)

    async def export(self, book: bytes) -> tuple[BookHeader, AsyncIterator[PackedRows]] | None:
        """All that this device knows of a book, by its hash: header, and rows in pages (each as it is when it is read)."""
        self._check()
        entry = self._entry(book)
        return None if entry is None else (entry.state.header, self._pages(book))

    def header(self, book: bytes) -> BookHeader | None:
        """By its hash."""
        self._check()
        entry = self._entry(book)
        return None if entry is None else entry.state.header

    def transit(self, book: bytes) -> tuple[bool, bool]:
        """Of a book, by its hash: whether its rows are in transit, and whether there are any."""
        self._check()
        entry = self._entry(book)
        return (False, False) if entry is None else (entry.draining, bool(entry.rows_digest))

    def dirty(self, limit: int) -> list[StatsMark]:
        """Reports that containers of this device owe their accounts, as of now; in turn, so ask again for the next ones."""
        self._check()
        marks = []
        for book in self._stats.take(limit):
            entry = self._entry(book)
            if entry is None:
                self._stats.clean(book)
            else:
                marks.append(report(book, entry.state, self._timestamps.next()))
        return marks

    def reports(self, after: bytes, limit: int) -> tuple[list[StatsMark], bytes | None]:
        """What containers in the tables would report, the first ones whose hash is above ``after``, owed or not; where to go on
        (None: these were the last)."""
        self._check()
        books = [book for book, _ in self._tables.scan("books", after + b"\0", limit=limit)]
        entries = [entry for entry in map(self._entry, books) if entry is not None and entry.kind == "container"]
        marks = [report(entry.book, entry.state, self._timestamps.next()) for entry in entries]
        return marks, books[-1] if len(books) == limit else None

    def owe(self, book: bytes, above: Timestamp) -> None:
        """Its report is to be sent again, with a stamp above this one."""
        self._timestamps.next(above)
        self._stats.touch(book)
        self._wake()

    def clean(self, marks: Sequence[StatsMark]) -> None:
        """These reports are durable at a majority.  A container that changed meanwhile goes on owing.  Forgotten by a crash within
        a second or so: then they are sent again, which changes nothing."""
        for mark in marks:
            entry = self._entry(mark.book)
            if entry is None or mark.same(report(mark.book, entry.state, self._timestamps.next())):
                self._stats.clean(mark.book)
        self._wake()

    async def drop(self, book: bytes, digest: bytes) -> bool:
        """Let go of a book that is no longer this device's, if it is still what ``leaf`` said of it (``digest``) and no row in it
        is in transit: for the replicator, when every primary has acknowledged that content.  Merges of the book are refused
        meanwhile.  False: it changed, or there is none; nothing was dropped."""
        self._check()
        entry, applier = self._entry(book), self._applier
        if entry is None or applier is None or entry.pins or entry.leaving:
            return False
        entry.leaving = True
        try:
            await applier.once()  # then neither overlay nor log knows of it
            async with applier.lock:
                if entry.digest() != digest or (entry.draining and entry.rows_digest):
                    return False
                while not await leave_page(self._tables, entry, RECORD_ROWS_MAX):
                    pass
                self._entries.pop(entry.book, None)
                self._stats.forget(entry.book)
                return True
        except DiskFault as fault:
            self._device.fail(fault.message, fault.__cause__)
            raise
        finally:
            entry.leaving = False

    async def discard(self, book: Path, rows: Sequence[Row]) -> int:
        """Let go of rows in transit that a majority has where they belong.  What changed meanwhile stays.  How many went; a crash
        within a second or so brings them back, to be forwarded again."""
        return await self.let_go(book, rows) if self.transit(self._hasher.hash(book))[0] else 0

    async def let_go(self, book: Path, rows: Sequence[Row]) -> int:
        """As ``discard``, of any rows: of tombstones that everybody may forget, of what a device brought back.  What a tombstone
        hides must be in no log of this device any more: ``flush`` first, when nothing so old can come."""
        self._check()
        if self._overlay.row_count >= OVERLAY_ROWS_MAX // 2:
            await self.flush()
        entry = self._entry(self._hasher.hash(book))
        if entry is None or entry.leaving:
            return 0
        gone = 0
        for row in rows:
            name, packed = row.name.encode(), pack_row(row)
            if self._packed(entry.book, name) == packed:
                entry.forget_row(packed)
                self._overlay.put(entry.book, name, REMOVED)
                gone += 1
        if gone:
            self._entries[entry.book] = entry
            if book.container and not all(row.deleted for row in rows):
                self._stats.touch(entry.book)
            self._wake()
        return gone

    # ---- inside

    def _check(self) -> None:
        if self._log is None:
            raise Unavailable("the books of this device are not open")
        self._device.check()

    def _row_count(self) -> int | None:
        """Rows that wait for the tables; None when nothing does."""
        if self._overlay or self._stats.changed or (self._log is not None and self._log.has_segment):
            return self._overlay.row_count
        return None

    def _wake(self) -> None:
        if self._applier is not None:
            self._applier.wake()

    def _entry(self, book: bytes) -> Entry | None:
        """None when there is no header, or none that is durable yet."""
        entry = self._entries.get(book)
        if entry is None:
            header = self._tables.get("books", book)
            if header is None:
                return None
            entry = self._load(book, header)
            if entry is None:
                return None
            if len(self._entries) >= ENTRIES_MAX:
                self._shrink()
            self._entries[book] = entry
        return entry if entry.header is not None else None

    def _load(self, book: bytes, header: bytes) -> Entry | None:
        """None: it was dropped between two looks."""
        sums = self._tables.get("book_state", BOOK_SUMS + book)
        if sums is None:
            if self._tables.get("books", book) is None:
                return None
            raise DiskFault("a book without sums in a device's tables")
        return Entry.load(book, unseal(header), unseal(sums))

    def _shrink(self) -> None:
        busy = self._overlay.touched | self._applying.touched
        self._entries = {book: entry for book, entry in self._entries.items() if entry.pins or entry.leaving or book in busy}

    def _begin(self, entry: Entry, records: Sequence[Record]) -> Merge:
        assert self._log is not None
        if entry.leaving:
            raise Unavailable("the book is on its way to another device")
        pending = []
        for record in records:
            pending.append(self._log.submit(record, entry.unpin))
            self._entries[entry.book] = entry
            entry.pins += 1
        return Merge(entry, pending)

    def _settle(self, batch: Sequence[Pending]) -> None:
        """The batch is durable: make it visible."""
        for pending in batch:
            error: RingfortError | None = None
            try:
                self._merge(pending.record)
            except (DiskFault, FormatError) as fault:
                error = fault
            if error is not None:
                self._device.fail(error.message)
            pending.finish(error)
        self._wake()

    def _merge(self, record: Record) -> None:
        book = record.book
        entry = self._entries[book]
        before = entry.header, entry.count, entry.bytes_used
        if isinstance(record, HeaderRecord):
            if entry.merge_header(record.header):
                self._overlay.headers.add(book)
                self._overlay.touched.add(book)
        else:
            for packed in record.rows:
                self._merge_row(entry, packed)
        assert entry.header is not None
        if entry.header.path.container:
            after = entry.header, entry.count, entry.bytes_used
            if before[0] is None or _life(before[0]) != _life(entry.header) or before[1:] != after[1:]:
                self._stats.touch(book)
                self._overlay.touched.add(book)
            if self.notice_rows and (entry.draining or entry.count > self.notice_rows):
                self.noticed[book] = None

    def _merge_row(self, entry: Entry, packed: bytes) -> None:
        name = unpack_row(packed).name.encode()
        if entry.merge_row(packed, self._packed(entry.book, name)):
            self._overlay.put(entry.book, name, packed)

    def _packed(self, book: bytes, name: bytes) -> bytes | None:
        return current(self._tables, (self._applying, self._overlay), book, name)

    def _page(self, book: bytes, start: bytes, end: bytes | None, *, limit: int, reverse: bool) -> RowPage | None:
        entry = self._entry(book)
        if entry is None:
            return None
        return page(self._tables, (self._applying, self._overlay), entry, start, end, limit=limit, reverse=reverse)

    async def _pages(self, book: bytes) -> AsyncIterator[PackedRows]:
        start = b""
        while True:
            self._check()
            found = self._page(book, start, None, limit=RECORD_ROWS_MAX, reverse=False)
            if found is None or not found.rows:
                return
            assert isinstance(found.rows, PackedRows)
            yield found.rows
            if found.complete:
                return
            start = found.rows[-1].name.encode()

    # ---- to the tables

    def _swap(self) -> Batch:
        """The overlay becomes the batch that is being applied."""
        assert not self._applying
        batch, self._applying, self._overlay = self._overlay, self._overlay, Overlay()
        writes: list[Write] = []
        for book, rows in batch.books.items():
            for name in rows.names:
                packed = rows.packed[name]
                if len(name) > INLINE_MAX and packed is not REMOVED:
                    writes += branch_writes(book, name)
                writes.append(Write("rows", row_key(book, name), seal(packed) if packed is not REMOVED else None))
        toggles = {kind: Toggles(kind) for kind in kinds_of("book")}
        for book in sorted(batch.touched):
            entry = self._entries[book]
            writes += sums_writes(entry, toggles[entry.kind])
            if book in batch.headers:
                writes.append(Write("books", book, seal(entry.header_packed)))
        for book, owes in self._stats.take_changed():
            writes.append(Write("book_state", OWES + book, seal(b"") if owes else None))
        return Batch(writes, list(toggles.values()))

    def _applied(self) -> None:
        self._applying = Overlay()

    # ---- at start

    async def _replay(self) -> int:
        """What the log has and the tables may lack goes to the tables.  The last sequence number used."""
        disk = self._device.disk
        try:
            await disk.make_dirs(FOLDER)
            self._entries.clear()
            self._overlay, self._applying, self._stats = Overlay(), Overlay(), DirtyStats()
            await self.standing.load()
            for book in owing(self._tables):
                self._stats.load(book)
            self.damage.clear()
            damaged, sequences = set[int](), list[int]()
            async for sequence, segment in read_log(disk):
                sequences.append(sequence)
                if segment.damage:
                    self.damage.append(segment.damage)
                    damaged.add(sequence)
                for record in segment.records:
                    if not self._replay_record(record):
                        self.damage.append(f"{log_path(sequence)}: rows of a book whose header is lost")
                        damaged.add(sequence)
            batch = self._swap()
            tree_writes = [write for toggles in batch.toggles for write in toggles.writes(self._tables)]
            if batch.writes or tree_writes:
                await self._tables.commit([*batch.writes, *tree_writes])
            self._applied()
            if damaged:
                await self.standing.take_back()
            await put_away(self._device, sequences, damaged)
            empty = [kind for kind in kinds_of("book") if partition_from(self._tables, kind, b"", 0) is None]
            await self.standing.opened(empty, empty=True)
        except OSError as error:
            raise as_fault(error, "the books of this device cannot be opened") from error
        return sequences[-1] if sequences else 0

    def _replay_record(self, record: Record) -> bool:
        """False: rows of an unknown book."""
        if self._entry(record.book) is None:
            if not isinstance(record, HeaderRecord):
                return False
            self._entries[record.book] = Entry(record.book)
        self._merge(record)
        return True


def _life(header: BookHeader) -> tuple[object, ...]:
    return header.created, header.deleted, header.metadata.get(SUMS)
