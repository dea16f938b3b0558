"""The reclaimer of a device's listings: says how far the device is clean, and lets go of row tombstones that everybody may forget.

One for containers and one for accounts, since each ring has a horizon of its own.  The walks are those of storage.sync.reclaimer:

- **look**: the device is clean up to C when of every partition, of what is not above C: a primary holds exactly the rows and the
  headers that every other primary holds (of accounts' rows: the same life of the same container, since sums change without a new
  timestamp); another device holds nothing; and no row is in transit (storage.container.shards), as this device knows or any other.
- **forget**: a tombstone goes when every other primary answers, is clean up to H itself, and holds this very tombstone or nothing
  of the name; when the book is not being replaced; and, in a shard, when the container's map has not changed since before H.
- **compare**: returning.py.

Why no row comes back.  Let T be a row's tombstone at or below H, v an older row of its name.  Where could v be?

- *Owed.*  Objects were reclaimed up to H before containers closed there, so no object device owes a row of that age, but one that
  is behind, and that pays none; a container device that reports a life of that age to an account is clean, or behind, likewise.
  What was sent before, by an older edition, is refused by a device that goes by H's (storage.client.payer keeps to the edition by
  which a row came to be owed).
- *In another replica.*  As of objects (storage.object.reclaimer).
- *In another book of the same container.*  Rows move between shards on their own, and two looks at two books are not one look.
  So in a shard T stays unless the container's map was settled before H was closed: then every device's look came after what was
  there before was closed and emptied at a majority, and a device that still had v there found that the others had not.
- *In this device's own log*, where it was logged when T was there already.  So all that was logged goes to the tables, and the log
  with it, before a walk lets go of anything.

Rows of the hidden accounts of shards stay: the deletion of a replaced shard has the time of its plan, which may lie below H.

Neighbours: storage.sync.reclaimer (when), storage.sync.comparing and windows (ask the others), storage.rows.books (this device),
replicator (makes replicas equal).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence

import trio

from ring.device import Device
from ring.errors import DiskFault, Unavailable
from ring.names import Path, Span
from ring.service.horizon import Horizon
from ring.service.overlap import Overlap
from ring.timestamp import ZERO, Timestamp
from ring.world.interface import Clock
from storage.client.interface import Row
from storage.client.node import BookHeader, Node
from storage.container.returning import Listed, Returning
from storage.container.shards import ShardMap, in_transit, is_shard, is_shards_account, root_of
from storage.container.windows import ROWS_AT_ONCE, window
from storage.rows.books import Books
from storage.sync.comparing import Others, ask, holders
from storage.sync.proposal import Proposal
from storage.sync.reclaimer import FORGET_AGAIN_S, INTERVAL_S, Reclaimer

GAP_ROWS_MAX = 100  # tombstones that are no further apart are asked for together
OLDEST_MAX = 1 << 16  # partitions of which the oldest tombstone is remembered

MapOf = Callable[[Path], Awaitable[ShardMap | None]]


class BookReclaimer(Reclaimer):
    """``kind``: "container" or "account"; ``overlap`` gives that ring in force.  ``map_of``: a container's map of shards, by a
    majority; ``listed``: its rows, likewise."""

    def __init__(
        self,
        kind: str,
        clock: Clock,
        device: Device,
        books: Books,
        overlap: Callable[[], Overlap],
        nodes: Callable[[Device], Node],
        proposal: Proposal,
        map_of: MapOf,
        listed: Listed,
        *,
        clear: Callable[[int], bool] = lambda edition: True,
        interval_s: float = INTERVAL_S,
        forget_again_s: float = FORGET_AGAIN_S,
    ) -> None:
        super().__init__(
            f"{kind}-reclaimer d{device.id}",
            kind,
            device,
            books.standing,
            overlap,
            proposal,
            Returning(kind, clock, device, books, nodes, listed),
            clear=clear,
            interval_s=interval_s,
            forget_again_s=forget_again_s,
        )
        self._kind = kind
        self._books = books
        self._nodes = nodes
        self._map_of = map_of
        self._oldest: dict[Span, tuple[bytes, Timestamp | None]] = {}  # root and oldest tombstone, as of the last walk

    async def _next(self, start: bytes, part_power: int) -> Span | None:
        return await self._books.partition_from(self._kind, start, part_power)  # from the first: flushes

    async def _settle(self) -> None:
        await self._books.flush()  # rows that were let go of are gone for good

    async def _ask(self, overlap: Overlap, span: Span, clean: int) -> tuple[Others, bool]:
        """And whether this device is to hold the partition."""
        devices = holders(overlap, span)
        others = [device for device in devices if device.id != self._device.id]
        answers = await ask(others, self._nodes, overlap, span, clean=clean, kind=self._kind)
        return answers, len(others) < len(devices)

    # ---- look

    async def _look(self, overlap: Overlap, span: Span, closed: int) -> bool:
        answers, is_primary = await self._ask(overlap, span, overlap.horizon.reclaimed)
        if answers.silent:
            return False
        mine = await self._books.digests(self._kind, span)
        differing = answers.differ(mine)
        for leaf in sorted(mine.leaves):
            theirs = await answers.leaf(span, leaf) if leaf in differing else []
            if theirs is None:
                return False
            for book, digest in await self._books.leaf(self._kind, span, leaf):
                header = self._books.header(book)
                same = is_primary and all(there.get(book) == (book, digest) for there in theirs)
                if header is None or (same and not all(self._books.transit(book))):
                    continue
                nodes = [answer.node for answer in answers.answers]
                if not await self._is_clean(header.path, nodes, Timestamp(closed), overlap.horizon, is_primary=is_primary):
                    return False
        return True

    async def _is_clean(self, path: Path, others: Sequence[Node], closed: Timestamp, horizon: Horizon, *, is_primary: bool) -> bool:
        after: str | None = ""
        while after is not None:
            try:
                found = await window(self._books, path, others, after)
            except (Unavailable, DiskFault):
                return False
            self._looked += 1
            if found.header is None:
                return True  # handed off meanwhile
            if not is_primary and _says(found.header, closed):
                return False
            if not all(_agree(found.header, other, closed) for other in found.headers):
                return False
            moves = not is_primary or any(header is not None and in_transit(header) for header in (found.header, *found.headers))
            for name, row in found.mine.items():
                if row.timestamp > closed or (row.deleted and horizon.forgets(row.timestamp)):
                    continue
                if moves or not all(self._same(row, there.get(name)) for there in found.theirs):
                    return False
            after = found.after
        return True

    def _same(self, row: Row, other: Row | None) -> bool:
        if other is None or self._kind == "container":
            return row == other
        return (row.timestamp, row.deleted) == (other.timestamp, other.deleted)

    # ---- forget

    async def _forget(self, overlap: Overlap, span: Span, until: int) -> bool:
        limit = Timestamp(until)
        root = (await self._books.digests(self._kind, span)).root
        known_root, oldest = self._oldest.get(span, (b"", None))
        if known_root == root and (oldest is None or oldest > limit):
            return True
        kept, oldest, answers = self.kept, None, None
        for book in await self._all_books(span):
            after: str | None = ""
            while after is not None and (header := self._books.header(book)) is not None:
                page = await self._books.rows(header.path, start=after, end="", limit=ROWS_AT_ONCE, reverse=False)
                self._looked += 1
                if page is None:
                    break
                for before, dead in _runs(page.rows, after, limit):
                    if answers is None:
                        answers, _ = await self._ask(overlap, span, until)
                    oldest = min([row.timestamp for row in dead] + ([oldest] if oldest else []))
                    await self._let_go(header, before, dead, answers, limit)
                young = [row.timestamp for row in page.rows if row.deleted and row.timestamp > limit]
                oldest = min(young + ([oldest] if oldest else []), default=None)
                after = None if page.complete else page.rows[-1].name
                await trio.lowlevel.checkpoint()
        if answers is None:  # nothing to be done: nor the next time, while it stays as it is
            if len(self._oldest) >= OLDEST_MAX:
                self._oldest.clear()
            self._oldest[span] = root, oldest
        return self.kept == kept

    async def _all_books(self, span: Span) -> list[bytes]:
        found: list[bytes] = []
        for leaf in (await self._books.digests(self._kind, span)).leaves:
            found += [book for book, _ in await self._books.leaf(self._kind, span, leaf)]
        return found

    async def _let_go(self, header: BookHeader, before: str, dead: Sequence[Row], answers: Others, limit: Timestamp) -> None:
        """Of tombstones that follow ``before``, as far as everybody may forget them."""
        going: Sequence[Row] = ()
        others = [answer.node for answer in answers.answers]
        try:
            if not answers.silent and await self._stays(header, limit):
                end = dead[-1].name + "\0"
                found = await window(self._books, header.path, others, before, end, limit=ROWS_AT_ONCE + GAP_ROWS_MAX)
                if not any(one is not None and in_transit(one) for one in (found.header, *found.headers)):
                    spoken = [row for row in dead if found.after is None or row.name <= found.after]
                    going = [row for row in spoken if all(there.get(row.name) in (None, row) for there in found.theirs)]
        except (Unavailable, DiskFault):
            going = ()
        gone = await self._books.let_go(header.path, going) if going else 0
        self.reclaimed += gone
        self.kept += len(dead) - gone

    async def _stays(self, header: BookHeader, limit: Timestamp) -> bool:
        """Whether its rows are where they belong, and were before ``limit`` was closed."""
        path = header.path
        if self._kind == "account":
            return not is_shards_account(path)
        if not is_shard(path):
            return not in_transit(header)
        root = root_of(header.metadata)
        current = None if root is None or not header.exists else await self._map_of(root)
        at = None if current is None else current.index(path.container)
        return current is not None and at is not None and current.shards[at].settled and current.stamp <= limit


def _runs(rows: Sequence[Row], after: str, limit: Timestamp) -> Iterator[tuple[str, list[Row]]]:
    """The tombstones not above ``limit``, those that are near to each other together, each time with a name that they follow."""
    dead: list[Row] = []
    before, previous, gap = after, after, 0
    for row in rows:
        if row.deleted and row.timestamp <= limit:
            if dead and gap > GAP_ROWS_MAX:
                yield before, dead
                dead = []
            if not dead:
                before = previous
            dead.append(row)
            gap = 0
        else:
            gap += 1
        previous = row.name
    if dead:
        yield before, dead


def _says(header: BookHeader, closed: Timestamp) -> bool:
    """Anything that is not above it."""
    times = [at for at in (header.created, header.deleted) if at is not None]
    return any(at <= closed for at in [*times, *(at for _, at in header.metadata.values())])


def _agree(mine: BookHeader, other: BookHeader | None, closed: Timestamp) -> bool:
    """Whether both say the same, of what is not above it."""
    if other is None:
        return not _says(mine, closed)
    lives = ((mine.created, other.created), (mine.deleted, other.deleted))
    if any(one != two and min(one or closed, two or closed) <= closed for one, two in lives):
        return False
    if mine.policy != other.policy and (mine.created or ZERO) <= closed:
        return False
    for name in mine.metadata.keys() | other.metadata.keys():
        one, two = mine.metadata.get(name), other.metadata.get(name)
        if one != two and min(found[1] for found in (one, two) if found is not None) <= closed:
            return False
    return True
