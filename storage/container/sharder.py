"""The sharder of a device: cuts listings that grew too large into shards, joins small ones, and forwards rows that are in transit.

A Worker: one page of rows or one step of one container at a time.  It is level-triggered: it looks at what stands (the map in
control state and in the root's header, the headers of shards, the rows that this device holds) and does the next thing that is
missing, so it may be cut off anywhere, and several may do the same at once.  docs/ARCHITECTURE.md ("Shards of a listing") has the
argument.

    cut       this device holds a book with too many rows: find pivots, write the map that cuts it
    join      ... a shard with few, whose neighbour has few: write the map that joins them
    drive     ... a root with a map: bring the map to a majority, make its shards, close and forget what they replaced; its sums
    forward   ... rows of such a root, or of a shard that was replaced: to a majority of where they belong, then let go of them

The primaries of a book take turns: the first at once, the others when nothing has changed for a while, so that mostly one of them
works.  Neighbours: shards (the map), storage.rows.books (this device), storage.client.sharding (majorities), ring.kv (which map
comes after which).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace
from itertools import groupby

import trio

from ring.daemon.worker import Busy, Idle, Progress, walked
from ring.device import Device
from ring.errors import BadInput, Unavailable
from ring.kv.interface import KV, Put, Unchanged
from ring.names import Path
from ring.service.overlap import Overlap
from ring.timestamp import ZERO, TimestampSource
from ring.world.interface import World
from storage.client.interface import Row
from storage.client.node import BookHeader, BookState
from storage.client.sharding import Sharding
from storage.container.shards import (
    MAP,
    OF,
    SUMS,
    Shard,
    ShardMap,
    above,
    decode,
    encode,
    first_map,
    is_shard,
    made_at,
    map_of,
    of_value,
    pivot,
    root_of,
    shard_path,
    shards_account,
    sums_value,
)
from storage.rows.books import Books

PREFIX = "shards/"  # in control state; behind it the name of the hidden account
FORWARD_ROWS = 1000
SCAN_ROWS = 10_000
MAP_CACHE_S = 2.0
NOTICE_S = 1.0  # between looks at what Books noticed
ANYTHING = object()  # what a turn is about that need not be waited for again


@dataclass(frozen=True, slots=True)
class Limits:
    rows: int = 10_000_000  # a book with more live rows is cut
    join_after_s: float = 6 * 3600.0  # a shard is joined with its neighbour when both are so old
    patience_s: float = 5.0  # the next primary acts when nothing has changed for so long
    sums_s: float = 5.0  # between looks at the sums of a container's shards
    step_s: float = 0.5  # between looks at a map that is not settled
    interval_s: float = 600.0  # between passes over all books

    @property
    def part_rows(self) -> int:
        """Of a new shard, about."""
        return max(1, self.rows // 2)

    @property
    def join_rows(self) -> int:
        """Two neighbours with so few together are joined: far from where they would be cut again."""
        return self.rows // 4


@dataclass(slots=True)
class _Scan:
    """A walk through a book for pivots: behind the k-th of ``parts`` equal parts."""

    parts: int
    total: int
    cursor: str = ""
    last: str = ""  # the last live name
    seen: int = 0
    pivots: list[str] = field(default_factory=list)

    def take(self, name: str) -> None:
        due = len(self.pivots) + 1
        if self.last and due < self.parts and self.seen * self.parts >= due * self.total:
            self.pivots.append(pivot(self.last, name))
        self.last = name
        self.seen += 1


class Sharder:
    """``overlap`` gives the container ring in force."""

    def __init__(
        self,
        world: World,
        device: Device,
        books: Books,
        overlap: Callable[[], Overlap],
        sharding: Sharding,
        kv: KV,
        *,
        limits: Limits | None = None,
    ) -> None:
        self.name = f"container-sharder d{device.id}"
        self.cuts = 0  # maps that this device wrote, since the start
        self.joins = 0
        self.forwarded = 0  # rows that this device let go of
        self._world = world
        self._device = device
        self._books = books
        self._overlap = overlap
        self._sharding = sharding
        self._kv = kv
        self._limits = limits or Limits()
        self._timestamps = TimestampSource(world.clock)
        self._due: dict[bytes, float] = {}  # books to look at, by hash: when
        self._start: bytes | None = b""  # hashes from here on are to be looked through; None: between passes
        self._next_pass = 0.0
        self._pass_over = False  # and not said yet
        self._scans: dict[bytes, _Scan] = {}
        self._cursors: dict[bytes, str] = {}  # how far the rows of a book were forwarded
        self._turns: dict[tuple[bytes, str], tuple[Hashable, float]] = {}
        self._driven: dict[bytes, float] = {}
        self._maps: dict[Path, tuple[ShardMap, float]] = {}  # as a majority said, and until when that will do
        self._rows_left: dict[bytes, int] = {}  # live ones in transit
        self._shards: dict[bytes, int] = {}  # of roots of this device; 0 where another primary is the first and counts them
        books.notice_rows = self._limits.rows

    def progress(self) -> Progress:
        left = sum(self._rows_left.values())
        facts = {
            "cut_containers": sum(count > 0 for count in self._shards.values()),
            "shards": sum(self._shards.values()),
            "cuts": self.cuts,
            "joins": self.joins,
            "forwarded_rows": self.forwarded,
            "rows_left": left,
        }
        return Progress(walked(self._start), left, facts)

    def begin(self) -> None:
        """A pass over all books, now."""
        if self._start is None:
            self._start = b""

    async def work(self) -> Busy | Idle:
        """One step of the container that waits the longest; when none waits, one partition of the pass."""
        now = trio.current_time()
        if self._books.standing.behind("container"):
            return Idle(now + NOTICE_S, False)  # what it holds may have been deleted meanwhile
        self._timestamps.stay_above(self._overlap().horizon.closed)  # a map says by its stamp that it is new
        for book in self._books.noticed:
            self._due.setdefault(book, now)
        self._books.noticed.clear()
        book, due = min(self._due.items(), key=lambda item: item[1], default=(b"", now + 1))
        if due <= now:
            self._due[book] = now + self._limits.patience_s  # if it fails
            before = self.forwarded
            wait_s = await self._look(book)
            if wait_s is None:
                self._forget(book)
            else:
                self._due[book] = trio.current_time() + wait_s
            return Busy(max(1, self.forwarded - before))
        if self._start is None:
            if now < self._next_pass:
                over, self._pass_over = self._pass_over, False
                return Idle(min([now + NOTICE_S, self._next_pass, *self._due.values()]), over)
            self._start = b""
        span = await self._books.partition_from("container", self._start, self._overlap().ring.part_power)
        if span is None:
            self._end_pass()
            return Busy()
        for leaf in (await self._books.digests("container", span)).leaves:
            for book, _ in await self._books.leaf("container", span, leaf):
                header = self._books.header(book)
                if header is None:
                    continue
                state = await self._books.book(header.path)
                if is_shard(header.path) or MAP in header.metadata or (state is not None and state.count > self._limits.rows):
                    self._due.setdefault(book, trio.current_time())
        self._start = span.bounds[1]
        if self._start is None:
            self._end_pass()
        return Busy()

    def _end_pass(self) -> None:
        self._start, self._pass_over = None, True
        self._next_pass = trio.current_time() + self._limits.interval_s

    # ---- a book of this device: each returns when to look again (seconds; None: when it is noticed, or by a pass)

    async def _look(self, book: bytes) -> float | None:
        header = self._books.header(book)
        state = None if header is None else await self._books.book(header.path)
        if state is None:
            return None
        header, path = state.header, state.header.path
        if not is_shard(path):
            if MAP in header.metadata:
                return await self._root(book, state)
            return await self._cut(book, state, path) if header.exists and state.count > self._limits.rows else None
        root = root_of(header.metadata)
        if root is None:
            raise Unavailable(f"{path} does not say whose shard it is", hint="another replica of it may")
        if not header.exists:
            return await self._forward(book, state, root)
        if state.count > self._limits.rows:
            return await self._cut(book, state, root)
        return await self._join(book, state, root) if state.count <= self._limits.join_rows else None

    async def _root(self, book: bytes, state: BookState) -> float:
        now = trio.current_time()
        known = map_of(state.header.metadata)
        assert known is not None
        self._shards[book] = 0 if self._place(state.header.path) else len(known.shards)
        pause_s = self._limits.sums_s if known.settled else self._limits.step_s
        drive_in = self._driven.get(book, -pause_s) + pause_s - now
        drive_in = max(drive_in, self._wait_s(book, "drive", known.version, state.header.path) if not known.settled else drive_in)
        if drive_in <= 0:
            self._driven[book] = now
            await self._drive(state.header.path, known)
            drive_in = self._limits.step_s
        forward_in = await self._forward(book, state, state.header.path)
        return drive_in if forward_in is None else min(drive_in, forward_in)

    async def _cut(self, book: bytes, state: BookState, root: Path) -> float | None:
        wait_s = self._wait_s(book, "cut", True, state.header.path)
        if wait_s:
            return wait_s
        scan = self._scans.get(book)
        if scan is None:
            parts = max(2, -(-state.count // self._limits.part_rows))
            scan = self._scans[book] = _Scan(parts, state.count)
        page = await self._books.rows(state.header.path, start=scan.cursor, end="", limit=SCAN_ROWS, reverse=False)
        if page is not None:
            for row in page.rows:
                if not row.deleted:
                    scan.take(row.name)
            if not page.complete:
                scan.cursor = page.rows[-1].name
                return 0.0
        del self._scans[book]
        if not scan.pivots:
            return None
        current, modified, _ = await self._newest(root)
        if current is not None and state.header.path == root:  # written, and whoever wrote it came no further
            await self._publish(root, current)
            return None
        stamp = self._timestamps.next(current.stamp if current is not None else None)
        try:
            if current is None:
                new = first_map(scan.pivots, stamp)
            else:
                at = current.index(state.header.path.container)
                if at is None or not current.shards[at].settled:
                    return None
                new = current.split(at, scan.pivots, stamp)
        except BadInput as error:
            raise Unavailable(f"{root} cannot be cut: {error.message}", hint=error.hint) from error
        if await self._write(root, modified, new):
            self.cuts += 1
            await self._publish(root, new)
        return None

    async def _join(self, book: bytes, state: BookState, root: Path) -> float | None:
        header = state.header
        if not self._old_enough(header.path.container):
            return None
        wait_s = self._wait_s(book, "join", True, header.path)
        if wait_s:
            return wait_s
        current, modified, whole = await self._newest(root)
        at = None if current is None else current.index(header.path.container)
        if current is None or at is None or len(current.shards) < 2 or whole is None or whole.count:
            return None
        for first in (at, at - 1):
            pair = current.shards[max(first, 0) : first + 2]
            if len(pair) < 2 or not all(shard.settled and self._old_enough(shard.name) for shard in pair):
                continue
            states = [await self._sharding.state(shard_path(root, shard.name)) for shard in pair]
            if sum(self._limits.rows if one is None else one.count for one in states) > self._limits.join_rows:
                continue
            new = current.join(first, self._timestamps.next(current.stamp))
            if await self._write(root, modified, new):
                self.joins += 1
                await self._publish(root, new)
            break
        return None

    async def _drive(self, root: Path, known: ShardMap) -> None:
        """The next steps of a root's map; at rest, its sums."""
        current, modified, state = await self._newest(root)
        if current is None or state is None:
            return
        if not current.settled or current != known:
            await self._publish(root, current)
        policy = state.header.policy
        if not all(shard.active for shard in current.shards):
            for shard in current.shards:
                if not shard.active:
                    await self._sharding.merge_header(_shard_header(root, shard.name, policy))
            await self._step(root, modified, current.opened(self._timestamps.next(current.stamp)))
        elif current.sources:
            for source in current.sources:
                await self._sharding.merge_header(_closing_header(root, source, current, policy))
                if await self._sharding.is_emptied(shard_path(root, source)):
                    await self._step(root, modified, current.emptied(source, self._timestamps.next(current.stamp)))
                    return
        await self._sum_up(root, state)

    async def _sum_up(self, root: Path, state: BookState) -> None:
        stamp = self._timestamps.next(state.header.metadata[SUMS][1] if SUMS in state.header.metadata else None)
        account = await self._sharding.state(shards_account(root))
        if account is None:
            return
        sums = sums_value(account.objects, account.bytes_used)
        if SUMS not in state.header.metadata or state.header.metadata[SUMS][0] != sums:
            await self._sharding.merge_header(replace(state.header, metadata={SUMS: (sums, stamp)}))

    async def _forward(self, book: bytes, state: BookState, root: Path) -> float | None:
        """A page of rows in transit.  None: there are none."""
        path, cursor = state.header.path, self._cursors.get(book, "")
        page = await self._books.rows(path, start=cursor, end="", limit=FORWARD_ROWS, reverse=False)
        if page is None or not page.rows:
            if self._cursors.pop(book, ""):
                return 0.0
            self._rows_left.pop(book, None)
            return None
        self._rows_left[book] = state.count
        current = await self._map(root)
        before, wait_s = self.forwarded, 0.0
        after = cursor
        for shard, group in groupby(page.rows, key=lambda row: current.place(row.name)):
            rows = list(group)
            wait_s = max(wait_s, await self._hand_over(book, root, shard, path, rows, after))
            after = rows[-1].name
        if self.forwarded == before:
            self._cursors.pop(book, None)
            return max(wait_s, self._limits.step_s / 10)
        self._cursors[book] = "" if page.complete else page.rows[-1].name
        return 0.0

    async def _hand_over(self, book: bytes, root: Path, shard: Shard, path: Path, rows: list[Row], after: str) -> float:
        """Rows of one shard: let go of what a majority of it has.  0, or how long to wait."""
        if not shard.active:
            return self._limits.step_s
        target = shard_path(root, shard.name)
        lacking = await self._sharding.lacking(target, rows, after)
        if lacking:
            wait_s = self._wait_s(book, "forward", lacking[0].name, path)
            if wait_s:
                names = {row.name for row in lacking}
                self.forwarded += await self._books.discard(path, [row for row in rows if row.name not in names])
                return wait_s
            if not await self._sharding.give(target, lacking):
                self._maps.pop(root, None)
                return self._limits.step_s
            self._turns[book, "forward"] = ANYTHING, self._turns[book, "forward"][1]  # not to wait again at every page
        self.forwarded += await self._books.discard(path, rows)
        return 0.0

    # ---- the map

    async def _map(self, root: Path) -> ShardMap:
        """As a majority of the root knows it; an old one is harmless."""
        found = self._maps.get(root)
        if found is not None and found[1] > trio.current_time():
            return found[0]
        state = await self._sharding.state(root)
        current = None if state is None else map_of(state.header.metadata)
        if current is None:
            raise Unavailable(f"{root}: a majority knows no map of its shards")
        if len(self._maps) > 1000:
            self._maps.clear()
        self._maps[root] = current, trio.current_time() + MAP_CACHE_S
        return current

    async def _newest(self, root: Path) -> tuple[ShardMap | None, int, BookState | None]:
        """The newest map, the revision of its record in control state, and what a majority knows of the root.

        A control state that knows less than the root has lost something; it is told again."""
        entry = await self._kv.get(_key(root))
        state = await self._sharding.state(root)
        there = None if state is None else map_of(state.header.metadata)
        current = None if entry is None else decode(entry.value.decode())
        modified = 0 if entry is None else entry.modified
        if there is not None and (current is None or current.version < there.version):
            if not await self._write(root, modified, there):
                raise Unavailable(f"{root}: its map of shards has just been changed")
            entry = await self._kv.get(_key(root))
            current, modified = there, 0 if entry is None else entry.modified
        return current, modified, state

    async def _write(self, root: Path, modified: int, new: ShardMap) -> bool:
        """After the map that was last changed at ``modified``; False when another one came first."""
        outcome = await self._kv.transact([Unchanged(_key(root), modified)], [Put(_key(root), encode(new).encode())])
        return outcome.succeeded

    async def _step(self, root: Path, modified: int, new: ShardMap) -> None:
        if await self._write(root, modified, new):
            await self._publish(root, new)

    async def _publish(self, root: Path, current: ShardMap) -> None:
        """To a majority of the root."""
        state = await self._sharding.state(root)
        if state is None:
            raise Unavailable(f"{root}: a majority does not know of it")
        await self._sharding.merge_header(replace(state.header, metadata={MAP: (encode(current), current.stamp)}))
        self._maps.pop(root, None)

    # ---- turns

    def _wait_s(self, book: bytes, what: str, about: Hashable, path: Path) -> float:
        """Until it is this device's turn to do ``what``: the later, the later it comes among the primaries; from anew when what it
        is ``about`` has changed, unless it had to do it before."""
        now = trio.current_time()
        last, since = self._turns.setdefault((book, what), (about, now))
        if last is not ANYTHING and last != about:
            self._turns[book, what] = about, now
            since = now
        return max(0.0, since + self._place(path) * self._limits.patience_s - now)

    def _place(self, book: Path) -> int:
        """Of this device among the primaries: 0 for the first."""
        ids = [device.id for device in self._overlap().places(book).devices]
        return ids.index(self._device.id) if self._device.id in ids else len(ids)

    def _old_enough(self, shard: str) -> bool:
        return self._world.clock.now() - made_at(shard).seconds >= self._limits.join_after_s

    def _forget(self, book: bytes) -> None:
        for kept in (self._due, self._scans, self._cursors, self._driven, self._rows_left, self._shards):
            kept.pop(book, None)
        for what in ("cut", "join", "drive", "forward"):
            self._turns.pop((book, what), None)


def _key(root: Path) -> str:
    return PREFIX + shards_account(root).account.lstrip("\0")


def _shard_header(root: Path, name: str, policy: int) -> BookHeader:
    """The same, whoever makes it."""
    at = made_at(name)
    return BookHeader(shard_path(root, name), at, None, policy, {OF: (of_value(root), at)})


def _closing_header(root: Path, source: str, current: ShardMap, policy: int) -> BookHeader:
    at = min((made_at(shard.name) for shard in current.shards if source in shard.sources), default=ZERO)
    return replace(_shard_header(root, source, policy), deleted=above(max(at, made_at(source))))
