"""The book replicator of a device: makes the replicas of its containers and accounts equal, by merging both ways.

A Worker: one partition at a time.  It compares set-hash trees with each other primary; of a book that differs, headers are merged
first, then rows, page by page over the same range of names on both sides: what is missing or older on either side goes there (but
rows in transit to shards, which the sharder brings on, and which keep the device from confirming a new ring).  A
device that is no primary of a book drops it only when every primary holds exactly this content, and not while a new ring is not
settled and the one before it names this device.

Neighbours: storage.rows.books (this device), storage.rows.merge (the rule), storage.client nodes (the others).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence

import trio

from ring.daemon.worker import Busy, Idle, Progress, walked
from ring.device import Device
from ring.errors import DiskFault, Unavailable
from ring.names import Path, Span
from ring.service.overlap import Overlap
from storage.client.interface import Row
from storage.client.node import Node, RowPage
from storage.rows.books import Books
from storage.rows.merge import supersedes
from storage.sync.moving import AGAIN_S, Moving, Watcher
from storage.sync.tree import differing

INTERVAL_S = 30.0
ROWS_AT_ONCE = 1000
KINDS = ("container", "account")


class BookReplicator:
    """``overlaps`` gives the ring in force for "container" and "account"; ``watchers`` likewise."""

    def __init__(
        self,
        device: Device,
        books: Books,
        overlaps: Callable[[str], Overlap],
        nodes: Callable[[Device], Node],
        *,
        interval_s: float = INTERVAL_S,
        watchers: Callable[[str], Watcher] = lambda kind: Watcher(),
    ) -> None:
        self.name = f"book-replicator d{device.id}"
        self.merged = 0  # books, since the start
        self.dropped = 0
        self.unanswered = 0  # comparisons that a node did not answer
        self._device = device
        self._books = books
        self._overlaps = overlaps
        self._nodes = nodes
        self._interval_s = interval_s
        self.moving = {kind: Moving(watchers(kind)) for kind in KINDS}
        self._todo = _everything()

    def settling(self, kind: str) -> float:
        """How far it is with this ring in force: 0 to 1, 1 when that is confirmed."""
        start = next((start for todo, start in self._todo if todo == kind), None)
        return self.moving[kind].progress(walked(start), self._overlaps(kind))

    def progress(self) -> Progress:
        done = len(KINDS) - len(self._todo) + sum(walked(start) for _, start in self._todo)
        return Progress(done / len(KINDS), facts={"merged": self.merged, "dropped": self.dropped, "unanswered": self.unanswered})

    def begin(self) -> None:
        """Called again, it looks at everything anew."""

    async def work(self) -> Busy | Idle:
        """One partition of one kind."""
        for kind, moving in self.moving.items():
            overlap = self._overlaps(kind)
            if wait_s := moving.wait_s(overlap):
                return Idle.after(wait_s, over=False)
            if moving.begins(overlap):
                self._walk(kind)
            span = moving.again(trio.current_time())
            if span is not None:
                return Busy(max(1, await self._look(overlap, kind, span)))
        if not self._todo and (idle := self._rest()):
            return idle
        kind, start = self._todo[0]
        overlap = self._overlaps(kind)
        span = await self._books.partition_from(kind, start, overlap.ring.part_power)
        end = span.bounds[1] if span is not None else None
        self._todo.popleft()
        if end is not None:
            self._todo.appendleft((kind, end))
        try:
            merged = await self._look(overlap, kind, span) if span is not None else 0
        finally:  # an error must not keep the pass at this one, nor from its end: it is looked at again
            if end is None:
                self.moving[kind].walked(trio.current_time())
        return Busy(max(1, merged))

    def _rest(self) -> Idle | None:
        """Everything was looked at: wait, or None when there is more to do at once."""
        waiting = [kind for kind, moving in self.moving.items() if not moving.confirmed]
        if not waiting:
            self._todo = _everything()
            return Idle.after(self._interval_s)
        for kind in waiting:
            if self.moving[kind].too_many:
                self.moving[kind].restart()
                self._walk(kind)
        return None if self._todo else Idle.after(AGAIN_S, over=False)

    def _walk(self, kind: str) -> None:
        """From the beginning, over all of this kind."""
        self._todo = deque([(kind, b""), *(todo for todo in self._todo if todo[0] != kind)])

    async def _look(self, overlap: Overlap, kind: str, span: Span) -> int:
        self.moving[kind].look(span)
        merged, whole = await self._partition(overlap, kind, span)
        if whole and self._overlaps(kind) is overlap:
            self.moving[kind].found(span)
        return merged

    async def _partition(self, overlap: Overlap, kind: str, span: Span) -> tuple[int, bool]:
        """(books, whether all of it is at all primaries)."""
        primaries = overlap.ring.primaries(span.partition)
        merged = 0
        reached: list[Node] = []
        for device in primaries:
            if device.id == self._device.id:
                continue
            node = self._nodes(device)
            if overlap.claim.edition:
                node = node.under(overlap.claim)
            try:
                merged += await self._merge_with(node, kind, span)
                reached.append(node)
            except (Unavailable, DiskFault):
                self.unanswered += 1  # unknown: nothing follows from it
        is_primary = any(device.id == self._device.id for device in primaries)
        whole = len(reached) == len(primaries) - is_primary
        if whole and not is_primary and not (overlap.moving and self._device.id in overlap.settled_at(span)):
            await self._drop(reached, kind, span)
        self.merged += merged
        if whole and not self.moving[kind].confirmed:
            whole = not await self._in_transit(kind, span)
        return merged, whole

    async def fill(self, kind: str, device: Device, span: Span) -> tuple[int, bool]:
        """Make one device equal with this one: books, and whether it has all now.  Asked by no edition.  Unavailable, DiskFault."""
        merged = await self._merge_with(self._nodes(device), kind, span)
        return merged, not await self._in_transit(kind, span)

    async def _in_transit(self, kind: str, span: Span) -> bool:
        """Whether this device has rows that are on their way to shards: then not all it holds is where it should be."""
        for leaf in (await self._books.digests(kind, span)).leaves:
            for book, _ in await self._books.leaf(kind, span, leaf):
                if all(self._books.transit(book)):
                    return True
        return False

    async def _merge_with(self, node: Node, kind: str, span: Span) -> int:
        merged = 0
        leaves = differing(await self._books.digests(kind, span), await node.digests(kind, span))
        for leaf in leaves:
            theirs = dict(await node.leaf(kind, span, leaf))
            for book, digest in await self._books.leaf(kind, span, leaf):
                if theirs.get(book) != digest:
                    await self._merge_book(node, book)
                    merged += 1
        return merged

    async def _merge_book(self, node: Node, book: bytes) -> None:
        exported = await self._books.export(book)
        if exported is None:
            return
        header, _ = exported
        state = await node.merge_header(header)
        if state.header != header:
            await self._books.merge_header(state.header)
        if self._books.transit(book)[0]:
            return  # each device forwards its own rows (sharder)
        cursor: str | None = ""
        while cursor is not None:
            cursor = await self._merge_page(node, header.path, cursor)

    async def _merge_page(self, node: Node, path: Path, after: str) -> str | None:
        """The rows behind ``after``; where to go on, None at the end."""
        mine = await self._books.rows(path, start=after, end="", limit=ROWS_AT_ONCE, reverse=False)
        theirs = await node.rows(path, start=after, end="", limit=ROWS_AT_ONCE, reverse=False)
        if mine is None or theirs is None:
            return None  # dropped meanwhile
        ends = [page.rows[-1].name for page in (mine, theirs) if not page.complete]
        horizon = min(ends) if ends else None
        ours, others = _until(mine, horizon), _until(theirs, horizon)
        push = [row for name, row in ours.items() if name not in others or supersedes(row, others[name])]
        pull = [row for name, row in others.items() if name not in ours or supersedes(row, ours[name])]
        if push:
            await node.merge_rows(path, push)
        if pull:
            await self._books.merge_rows(path, pull)
        return horizon

    async def _drop(self, primaries: Sequence[Node], kind: str, span: Span) -> None:
        """Let go of the books that every primary holds with this very content."""
        for leaf in (await self._books.digests(kind, span)).leaves:
            try:
                theirs = [dict(await node.leaf(kind, span, leaf)) for node in primaries]
            except (Unavailable, DiskFault):
                self.unanswered += 1
                return
            for book, digest in await self._books.leaf(kind, span, leaf):
                if all(held.get(book) == digest for held in theirs):
                    self.dropped += await self._books.drop(book, digest)


def _everything() -> deque[tuple[str, bytes]]:
    """What a pass has to look at: per kind, from which hash on."""
    return deque((kind, b"") for kind in KINDS)


def _until(page: RowPage, horizon: str | None) -> Mapping[str, Row]:
    return {row.name: row for row in page.rows if horizon is None or row.name <= horizon}
