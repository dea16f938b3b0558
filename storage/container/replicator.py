"""The book replicator of a device: makes the replicas of its containers and accounts equal, by merging both ways.

A Worker: a few partitions at a time, those first of which there are the fewest copies (storage.sync.order).  It compares set-hash
trees with each other primary; of a book that differs, headers are merged first, then rows, page by page over the same range of
names on both sides: what is missing or older on either side goes there (but rows in transit to shards, which the sharder brings on,
and which keep the device from confirming a new ring; and tombstones that may be forgotten, which go nowhere where nothing of the
name is known).  A device that is no primary of a book drops it only when every primary holds
exactly this content, and not while a new ring is not settled and the one before it names this device.

Neighbours: storage.rows.books (this device), storage.rows.merge (the rule), storage.client nodes (the others).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import trio

from ring.daemon.worker import Busy, Idle, Progress
from ring.device import Device
from ring.errors import DiskFault, RingfortError, Unavailable
from ring.names import Path, Span
from ring.placement import Ring
from ring.service.horizon import Horizon
from ring.service.overlap import Overlap
from storage.client.interface import Row
from storage.client.node import Node, RowPage
from storage.rows.books import Books
from storage.rows.merge import supersedes
from storage.sync.moving import AGAIN_S, Moving, Watcher
from storage.sync.order import Order
from storage.sync.tree import differing

INTERVAL_S = 30.0
ROWS_AT_ONCE = 1000
PARTITIONS_AT_ONCE = 256  # listed in one unit
LOOKS_AT_ONCE = 8
KINDS = ("container", "account")


@dataclass(frozen=True, slots=True)
class _Rule:
    """What of rows that others may have forgotten goes from one side to the other.  ``doubtful``: this device was away, and what
    it holds of that age may have been deleted."""

    horizon: Horizon
    doubtful: bool

    def is_news(self, row: Row) -> bool:
        """To a device that knows nothing of the name, and may have forgotten it."""
        return not (row.deleted and self.horizon.forgets(row.timestamp))

    def goes(self, row: Row, held: Row | None) -> bool:
        """From here to a device that holds that."""
        if held is not None:
            return supersedes(row, held)
        return self.is_news(row) and not (self.doubtful and self.horizon.forgets(row.timestamp))


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
        self.orders = {kind: Order() for kind in KINDS}
        self._rings: dict[str, Ring] = {}  # by which partitions were listed

    def settling(self, kind: str) -> float:
        """How far it is with this ring in force: 0 to 1, 1 when that is confirmed."""
        return self.moving[kind].progress(self.orders[kind].fraction, self._overlaps(kind))

    def progress(self) -> Progress:
        facts = {
            "merged": self.merged,
            "dropped": self.dropped,
            "unanswered": self.unanswered,
            "short_partitions": sum(order.short() for order in self.orders.values()),
            "single_partitions": sum(order.short(1) for order in self.orders.values()),
        }
        return Progress(sum(order.fraction for order in self.orders.values()) / len(KINDS), facts=facts)

    def begin(self) -> None:
        """Called again, it looks at everything anew."""

    async def work(self) -> Busy | Idle:
        """Some partitions of one kind."""
        for kind, moving in self.moving.items():
            overlap = self._overlaps(kind)
            if wait_s := moving.wait_s(overlap):
                return Idle.after(wait_s, over=False)
            if moving.begins(overlap) or self._rings.get(kind) is not overlap.ring:
                self._rings[kind] = overlap.ring  # its partitions may be numbered in another way
                self.orders[kind].begin()
        for kind, moving in self.moving.items():
            order, overlap, now = self.orders[kind], self._overlaps(kind), trio.current_time()
            spans = order.take(partial(moving.again, now), LOOKS_AT_ONCE)
            if spans:
                return Busy(max(len(spans), await self._look(overlap, kind, spans)))
            if order.start is not None:
                return await self._list(overlap, kind, order.start)
            moving.walked(now)
        return self._rest()

    def _rest(self) -> Busy | Idle:
        """Everything was looked at."""
        waiting = [kind for kind, moving in self.moving.items() if not moving.confirmed]
        if not waiting:
            for order in self.orders.values():
                order.begin()
            return Idle.after(self._interval_s)
        again = [kind for kind in waiting if self.moving[kind].too_many]
        for kind in again:
            self.moving[kind].restart()
            self.orders[kind].begin()
        return Busy(0) if again else Idle.after(AGAIN_S, over=False)

    async def _list(self, overlap: Overlap, kind: str, start: bytes) -> Busy:
        order = self.orders[kind]
        for _ in range(PARTITIONS_AT_ONCE):
            span = await self._books.partition_from(kind, start, overlap.ring.part_power)
            if span is None:
                order.listed()
                break
            ids = {device.id for device in overlap.ring.primaries(span.partition)}
            if overlap.moving:
                ids &= overlap.settled_at(span)  # the others have it yet to get
            order.add(span, ids - {self._device.id})
            end = span.bounds[1]
            if end is None:
                order.listed()
                break
            start = order.start = end
        return Busy(0)

    async def _look(self, overlap: Overlap, kind: str, spans: Sequence[Span]) -> int:
        """At all of them at once; how many books were merged."""
        merged = 0
        failures: list[RingfortError] = []

        async def one(span: Span) -> None:
            nonlocal merged
            self.moving[kind].look(span)
            try:
                books, whole = await self._partition(overlap, kind, span)
            except RingfortError as error:
                failures.append(error)
                return
            merged += books
            if whole and self._overlaps(kind) is overlap:
                self.moving[kind].found(span)

        async with trio.open_nursery() as nursery:
            for span in spans:
                nursery.start_soon(one, span)
        if failures:
            raise failures[0]
        return merged

    async def _partition(self, overlap: Overlap, kind: str, span: Span) -> tuple[int, bool]:
        """(books, whether all of it is at all primaries)."""
        order = self.orders[kind]
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
                order.answers(device.id)
            except (Unavailable, DiskFault):
                self.unanswered += 1  # unknown: nothing follows from it
                order.away(device.id)
        is_primary = any(device.id == self._device.id for device in primaries)
        whole = len(reached) == len(primaries) - is_primary
        if whole and not is_primary and not (overlap.moving and self._device.id in overlap.settled_at(span)):
            await self._drop(reached, kind, span)
        self.merged += merged
        order.found(span, None if whole else 1 + len(reached))
        if whole and not self.moving[kind].confirmed:
            whole = not await self._in_transit(kind, span)
        return merged, whole

    async def fill(self, kind: str, device: Device, span: Span) -> tuple[int, bool]:
        """Make one device equal with this one: books, and whether it has all now.  Asked by no edition.  Unavailable, DiskFault."""
        if self._books.standing.behind(kind):
            return 0, False
        if not (await self._books.digests(kind, span)).leaves:
            return 0, True
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
        rule = _Rule(self._overlaps(kind).horizon, doubtful=self._books.standing.behind(kind))
        leaves = differing(await self._books.digests(kind, span), await node.digests(kind, span))
        for leaf in leaves:
            theirs = dict(await node.leaf(kind, span, leaf))
            for book, digest in await self._books.leaf(kind, span, leaf):
                if theirs.get(book) != digest:
                    await self._merge_book(node, book, rule)
                    merged += 1
        return merged

    async def _merge_book(self, node: Node, book: bytes, rule: _Rule) -> None:
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
            cursor = await self._merge_page(node, header.path, cursor, rule)

    async def _merge_page(self, node: Node, path: Path, after: str, rule: _Rule) -> str | None:
        """The rows behind ``after``; where to go on, None at the end."""
        mine = await self._books.rows(path, start=after, end="", limit=ROWS_AT_ONCE, reverse=False)
        theirs = await node.rows(path, start=after, end="", limit=ROWS_AT_ONCE, reverse=False)
        if mine is None or theirs is None:
            return None  # dropped meanwhile
        ends = [page.rows[-1].name for page in (mine, theirs) if not page.complete]
        horizon = min(ends) if ends else None
        ours, others = _until(mine, horizon), _until(theirs, horizon)
        push = [row for name, row in ours.items() if rule.goes(row, others.get(name))]
        pull = [row for name, row in others.items() if (supersedes(row, ours[name]) if name in ours else rule.is_news(row))]
        if push:
            await node.merge_rows(path, push)
        if pull:
            await self._books.merge_rows(path, pull)
        return horizon

    async def _drop(self, primaries: Sequence[Node], kind: str, span: Span) -> None:
        """Let go of the books that every primary holds with this very content."""
        if self._books.standing.behind(kind):
            return
        for leaf in (await self._books.digests(kind, span)).leaves:
            try:
                theirs = [dict(await node.leaf(kind, span, leaf)) for node in primaries]
            except (Unavailable, DiskFault):
                self.unanswered += 1
                return
            for book, digest in await self._books.leaf(kind, span, leaf):
                if all(held.get(book) == digest for held in theirs):
                    self.dropped += await self._books.drop(book, digest)


def _until(page: RowPage, horizon: str | None) -> Mapping[str, Row]:
    return {row.name: row for row in page.rows if horizon is None or row.name <= horizon}
