"""The container updater of a device: tells accounts how many objects and bytes their containers hold.

A Worker: one batch of reports at a time.  ``Books`` keeps which containers owe a report, durably; every replica reports for
itself and the account keeps the latest (storage.container.stats, storage.rows.merge).  A report is settled when a majority of the
account's primaries has it (while it moves, of those by both rings).  It also finishes what a creation left half done: an account
that was to be made with its first container.

Neighbours: storage.rows.books (owes), the account's nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ring.daemon.worker import Busy, Idle, Progress
from ring.device import Device
from ring.errors import DiskFault, Unavailable
from ring.names import Path
from ring.service.overlap import Overlap
from ring.timestamp import Timestamp
from storage.client.node import BookHeader, Node
from storage.container.stats import StatsMark
from storage.rows.books import Books

INTERVAL_S = 5.0
MARKS_AT_ONCE = 200


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
        self._books = books
        self._overlap = overlap
        self._nodes = nodes
        self._interval_s = interval_s

    def progress(self) -> Progress:
        return Progress(left=self.unsettled, facts={"reported": self.reported})

    def begin(self) -> None:
        """Called again, it looks at all that is owed."""

    async def work(self) -> Busy | Idle:
        accounts: dict[Path, list[StatsMark]] = {}
        for mark in self._books.dirty(MARKS_AT_ONCE):
            accounts.setdefault(mark.account, []).append(mark)
        settled: list[StatsMark] = []
        for account, marks in accounts.items():
            if await self._report(account, marks):
                settled += [mark for mark in marks if not await self._outdone(mark)]
        self._books.clean(settled)
        self.reported += len(settled)
        self.unsettled = sum(map(len, accounts.values())) - len(settled)
        return Busy(len(settled)) if settled else Idle.after(self._interval_s)

    async def _report(self, account: Path, marks: Sequence[StatsMark]) -> bool:
        places = self._overlap().places(account)
        rows = [mark.row for mark in marks]
        took = 0
        for index, device in enumerate(places.devices):
            node = self._nodes(device)
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

    async def _outdone(self, mark: StatsMark) -> bool:
        """Whether a report of something else stands, with a later stamp.  Its device may have had a clock that was ahead, and be no
        replica of the container any more, so that nobody else would ever correct it: this one is to be sent again, above it."""
        row = mark.row
        for device in self._overlap().places(mark.account).devices:
            try:
                page = await self._nodes(device).rows(mark.account, start="", end=row.name + "\0", limit=1, reverse=True)
            except (Unavailable, DiskFault):
                continue
            for held in page.rows if page is not None else ():
                same_life = (held.name, held.timestamp, held.deleted) == (row.name, row.timestamp, row.deleted)
                if same_life and held.etag > row.etag and (held.size, held.count) != (row.size, row.count):
                    self._books.stamp_above(Timestamp.parse(held.etag))
                    return True
            return False  # one that answers is enough: who stands elsewhere comes here
        return False
