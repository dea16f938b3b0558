"""The account reaper of a device: removes what is in deleted accounts, objects, then containers, and says when nothing is left.

A Worker: one page of a listing at a time.  Where it is in its walk is not kept: what was deleted is listed no more, so one that was
killed at any point goes on by beginning again.  Parts that manifests own are not its: the sweeper (proxy.large.sweeper) finds their
manifests gone, as after any delete.

When: ``delay_s`` after the DELETE.  Who: each of the account's primaries takes its share of the containers, by their hashes;
``help_s`` later everybody takes all, so what a device that is down should have done is done.  Both go by wall clocks of one machine
and only choose when work is done: whether the account is gone is asked of a majority at every unit, and a gone account cannot be
made again before ``settle_s`` without a container in it.  So nothing is deleted in an account that somebody could have made anew.

Neighbours: storage.client.reaping (does it), book (what gone means), storage.rows.books (this device's accounts).
Source: Swift, "The Account Reaper" (overview_reaper): delay_reaping, shares by container.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import trio

from ring.daemon.worker import Busy, Idle, Progress, walked
from ring.device import Device
from ring.errors import DiskFault, Unavailable
from ring.names import Path
from ring.service.overlap import Overlap
from ring.world.interface import World
from storage.account.book import gone
from storage.client.errors import ContainerNotEmpty, ContainerNotFound
from storage.client.interface import Row
from storage.client.node import BookState
from storage.client.reaping import Reaping
from storage.rows.books import Books

INTERVAL_S = 60.0
DELAY_S = 3600.0
HELP_S = 6 * 3600.0
SETTLE_S = 300.0  # longer than any unit may take
PAGE_ROWS = 64
AT_ONCE = 16


@dataclass(slots=True)
class Reaped:
    """Of one account, by this device; ``left`` is what the account's own sums say, of everybody's share."""

    account: Path
    deleted_at: float  # wall seconds
    objects: int = 0  # deleted
    containers: int = 0
    failed: int = 0  # left for the next round: too few primaries, or a container that is not empty yet
    objects_left: int = 0
    containers_left: int = 0


@dataclass(slots=True)
class _Round:
    """One walk through an account's containers."""

    progress: Reaped
    marker: str = ""
    seen: bool = False  # any container, of whoever's share
    over: bool = False  # all containers were listed
    todo: deque[Row] | None = None
    container: Row | None = None
    object_marker: str = ""


class Reaper:
    """``overlap`` gives the account ring in force."""

    def __init__(
        self,
        world: World,
        device: Device,
        books: Books,
        overlap: Callable[[], Overlap],
        reaping: Reaping,
        *,
        interval_s: float = INTERVAL_S,
        delay_s: float = DELAY_S,
        help_s: float = HELP_S,
        settle_s: float = SETTLE_S,
        page_rows: int = PAGE_ROWS,
    ) -> None:
        self.name = f"account-reaper d{device.id}"
        self.accounts: dict[Path, Reaped] = {}  # accounts of this device that are gone
        self.reaped = 0  # accounts, since the start, by this device's word
        self.unanswered = 0
        self._world = world
        self._device = device
        self._books = books
        self._overlap = overlap
        self._reaping = reaping
        self._interval_s = interval_s
        self._delay_s = delay_s
        self._help_s = help_s
        self._settle_s = settle_s
        self._page_rows = page_rows
        self._start: bytes | None = b""  # hashes from here on are to be looked through; None: between passes
        self._found: deque[Path] = deque()
        self._round: _Round | None = None
        self._empty_since: dict[Path, float] = {}  # trio's time

    def progress(self) -> Progress:
        """Of its walk through the device's accounts; the facts are of all of them that are gone."""
        gone_now = list(self.accounts.values())
        facts = {
            "accounts_left": len(gone_now),
            "containers_left": sum(one.containers_left for one in gone_now),
            "objects_left": sum(one.objects_left for one in gone_now),
            "containers": sum(one.containers for one in gone_now),
            "objects": sum(one.objects for one in gone_now),
            "failed": sum(one.failed for one in gone_now),
        }
        return Progress(walked(self._start), left=sum(one.objects_left for one in gone_now), facts=facts)

    def begin(self) -> None:
        """Called again, it looks at every account."""

    async def work(self) -> Busy | Idle:
        """One partition's accounts, or one page of a gone account's containers or of a container's objects."""
        if self._round is not None:
            return await self._step(self._round)
        if self._found:
            return await self._begin(self._found.popleft())
        if self._start is None:
            self._start = b""
            return Idle.after(self._interval_s)
        overlap = self._overlap()
        span = await self._books.partition_from("account", self._start, overlap.ring.part_power)
        if span is None:
            self._start = None
            return Busy(0)
        self._start = span.bounds[1]
        for leaf in (await self._books.digests("account", span)).leaves:
            for book, _ in await self._books.leaf("account", span, leaf):
                header = self._books.header(book)
                if header is not None and gone(header):
                    self._found.append(header.path)
                elif header is not None:
                    self._forget(header.path)
        return Busy()

    async def _begin(self, account: Path) -> Busy:
        """What this device holds of it may be old: a majority says whether it is gone."""
        state = await self._reaping.gone(account)
        if state is None:
            self._forget(account)
            return Busy()
        progress = self._told(state)
        if self._world.clock.now() >= progress.deleted_at + self._delay_s:
            self._round = _Round(progress)
        return Busy()

    def _told(self, state: BookState) -> Reaped:
        account, deleted = state.header.path, state.header.deleted
        assert deleted is not None
        progress = self.accounts.get(account)
        if progress is None or progress.deleted_at != deleted.seconds:
            progress = self.accounts[account] = Reaped(account, deleted.seconds)
        progress.objects_left, progress.containers_left = state.objects, state.count
        return progress

    def _forget(self, account: Path) -> None:
        self.accounts.pop(account, None)
        self._empty_since.pop(account, None)

    async def _step(self, now: _Round) -> Busy:
        """An error ends the round, or what there is to do in one container: the unit after it is another one."""
        self._round = None
        account = now.progress.account
        state = await self._reaping.gone(account)
        if state is None:
            self._forget(account)
            return Busy()
        self._told(state)
        if now.container is not None:
            container, now.container = now.container, None
            self._round = now
            done = await self._objects(now, container)
        elif now.todo:
            now.container, now.object_marker = now.todo.popleft(), ""
            done = Busy(0)
        elif not now.over:
            done = await self._containers(now)
        else:
            await self._end(now)
            return Busy()
        self._round = now
        return done

    async def _containers(self, now: _Round) -> Busy:
        account = now.progress.account
        rows = await self._reaping.containers(account, now.marker, self._page_rows)
        now.over = len(rows) < self._page_rows
        if rows:
            now.seen, now.marker = True, rows[-1].name
        now.todo = deque(row for row in rows if self._is_mine(now.progress, row))
        return Busy()

    def _is_mine(self, progress: Reaped, row: Row) -> bool:
        if self._world.clock.now() >= progress.deleted_at + self._delay_s + self._help_s:
            return True
        ring = self._overlap().ring
        ids = [device.id for device in ring.primaries(ring.partition(progress.account))]
        share = int.from_bytes(ring.hasher.hash(Path(progress.account.account, row.name))[-4:], "big") % len(ids)
        return ids[share] == self._device.id

    async def _objects(self, now: _Round, container: Row) -> Busy:
        path = Path(now.progress.account.account, container.name)
        try:
            rows = await self._reaping.objects(path, now.object_marker, self._page_rows)
        except ContainerNotFound:
            rows = []
        if rows:
            now.object_marker = rows[-1].name

            async def delete(row: Row) -> bool:
                return await self._reaping.delete_object(path, row)

            now.progress.objects += await self._each(now.progress, rows, delete)
        if len(rows) == self._page_rows:
            now.container = container
        else:
            try:
                now.progress.containers += await self._reaping.delete_container(now.progress.account, container)
            except ContainerNotEmpty:
                now.progress.failed += 1  # what failed, or came late: the next round
        return Busy(max(1, len(rows)))

    async def _each(self, progress: Reaped, rows: Sequence[Row], delete: Callable[[Row], Awaitable[bool]]) -> int:
        """How many were deleted.  Raises Unavailable when none could be."""
        failures: list[Unavailable | DiskFault] = []
        waiting = deque(rows)
        deleted = 0

        async def some() -> None:
            nonlocal deleted
            while waiting:
                try:
                    one = await delete(waiting.popleft())  # not inside of the sum: others add to it meanwhile
                    deleted += one
                except (Unavailable, DiskFault) as error:
                    failures.append(error)

        async with trio.open_nursery() as nursery:
            for _ in range(min(AT_ONCE, len(rows))):
                nursery.start_soon(some)
        progress.failed += len(failures)
        self.unanswered += len(failures)
        if len(failures) == len(rows):
            raise failures[0]
        return deleted

    async def _end(self, now: _Round) -> None:
        """All containers were listed.  None at all, for long enough: reaped."""
        account = now.progress.account
        if now.seen:
            self._empty_since.pop(account, None)
            return
        since = self._empty_since.setdefault(account, trio.current_time())
        if trio.current_time() - since >= self._settle_s:
            await self._reaping.mark_reaped(account)
            self.reaped += 1
            self._forget(account)
