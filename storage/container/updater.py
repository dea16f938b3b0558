"""The container updater of a device: tells accounts how many objects and bytes their containers hold.

A Worker: one batch of reports at a time.  ``Books`` keeps which containers owe a report, durably; every replica reports for
itself and the account keeps the latest (storage.container.stats, storage.rows.merge).  A report is settled when a majority of the
account's primaries has it (while it moves, of those by both rings).  It also finishes what a creation left half done: an account
that was to be made with its first container.

When nothing is owed it compares, a few containers at a time, what accounts say with what this device would report.  Who reported
last may have missed a row then, and be no replica any more, so that nobody else would ever correct it.

Neighbours: storage.rows.books (owes), the account's nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import trio

from ring.daemon.worker import Busy, Idle, Progress
from ring.device import Device
from ring.errors import DiskFault, Unavailable
from ring.names import Path
from ring.service.overlap import Overlap
from ring.timestamp import ZERO, Timestamp
from storage.client.interface import Row
from storage.client.node import BookHeader, Node
from storage.container.stats import StatsMark
from storage.rows.books import Books

INTERVAL_S = 5.0
MARKS_AT_ONCE = 200
COMPARE_EVERY_S = 30.0
COMPARED_AT_ONCE = 100


class ContainerUpdater:
    """``overlap`` gives the account ring in force."""

    def __init__(
        self,
        device: Device,
        books: Books,
        overlap: Callable[[], Overlap],
        nodes: Callable[[Device], Node],
        *,
        interval_s: float = INTERVAL_S,
    ) -> None:
        self.name = f"container-updater d{device.id}"
        self.reported = 0  # since the start
        self.unsettled = 0  # reports of the last unit that no majority took
        self.corrected = 0  # what an account had wrong, since the start
        self._books = books
        self._overlap = overlap
        self._nodes = nodes
        self._interval_s = interval_s
        self._compared = b""  # containers up to this hash
        self._compare_at = 0.0

    def progress(self) -> Progress:
        return Progress(left=self.unsettled, facts={"reported": self.reported, "corrected": self.corrected})

    def begin(self) -> None:
        """Called again, it looks at all that is owed."""

    async def work(self) -> Busy | Idle:
        if self._books.standing.behind("container"):
            return Idle.after(self._interval_s)  # what it holds may have been deleted meanwhile
        overlap = self._overlap()  # what is reported is as of now: nobody takes it who goes by newer rings
        accounts: dict[Path, list[StatsMark]] = {}
        for mark in self._books.dirty(MARKS_AT_ONCE):
            accounts.setdefault(mark.account, []).append(mark)
        settled: list[StatsMark] = []
        for account, marks in accounts.items():
            if await self._report(overlap, account, marks):
                settled += [mark for mark in marks if not await self._outdone(mark)]
        self._books.clean(settled)
        self.reported += len(settled)
        self.unsettled = sum(map(len, accounts.values())) - len(settled)
        if settled:
            return Busy(len(settled))
        if not accounts and trio.current_time() >= self._compare_at:
            self._compare_at = trio.current_time() + COMPARE_EVERY_S
            return await self._compare()
        return Idle.after(self._interval_s)

    async def _report(self, overlap: Overlap, account: Path, marks: Sequence[StatsMark]) -> bool:
        places = overlap.places(account)
        rows = [mark.row for mark in marks]
        took = 0
        for index, device in enumerate(places.devices):
            node = self._nodes(device)
            if overlap.claim.edition:
                node = node.under(overlap.claim)
            try:
                if await node.merge_rows(account, rows) is None:
                    live = [row.timestamp for row in rows if not row.deleted]
                    if not live:
                        continue
                    await node.merge_header(BookHeader(account, min(live), None))
                    await node.merge_rows(account, rows)
                took |= 1 << index
            except (Unavailable, DiskFault):
                continue  # unknown: another majority, or another time
        return places.voters.majority(took)

    async def _compare(self) -> Busy | Idle:
        marks, following = self._books.reports(self._compared, COMPARED_AT_ONCE)
        self._compared = following or b""
        wrong = 0
        for mark in marks:
            held = await self._held(mark)
            if held is not None and held.timestamp == mark.row.timestamp and not _same(held, mark.row):
                self._books.owe(mark.book, _stamp(held))
                wrong += 1
        self.corrected += wrong
        return Busy(wrong) if wrong else Idle.after(self._interval_s)

    async def _outdone(self, mark: StatsMark) -> bool:
        """Whether a report of something else stands, with a later stamp: its device may have had a clock that was ahead.  Then this
        one is to be sent again, above it."""
        held = await self._held(mark)
        if held is None or held.timestamp != mark.row.timestamp or _same(held, mark.row) or held.etag <= mark.row.etag:
            return False
        self._books.owe(mark.book, _stamp(held))
        return True

    async def _held(self, mark: StatsMark) -> Row | None:
        """What the account's first replica that answers has of the container; who stands elsewhere comes here."""
        for device in self._overlap().places(mark.account).devices:
            try:
                page = await self._nodes(device).rows(mark.account, start="", end=mark.row.name + "\0", limit=1, reverse=True)
            except (Unavailable, DiskFault):
                continue
            return next((row for row in page.rows if row.name == mark.row.name), None) if page is not None else None
        return None


def _same(held: Row, row: Row) -> bool:
    return (held.deleted, held.size, held.count) == (row.deleted, row.size, row.count)


def _stamp(held: Row) -> Timestamp:
    """None stands there before the first report."""
    return Timestamp.parse(held.etag) if held.etag else ZERO
