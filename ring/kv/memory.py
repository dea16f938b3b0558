"""MemoryKV: control state in this process alone, gone with it.  For tests and the simulator.

Needs no task of its own: leases lapse by trio's clock, seen by whoever calls next or waits for events.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import trio

from ring.kv.feed import Feed, FeedWatch
from ring.kv.interface import Entry, Event, LeaseId, Operation, Outcome, Unchanged, Watch
from ring.kv.state import Deadlines, Draft, State


class MemoryKV:
    def __init__(self) -> None:
        self._state = State()
        self._deadlines = Deadlines()
        self._feed = Feed()
        self._waits: set[trio.CancelScope] = set()  # of watchers; each ends when the next lease lapses

    async def get(self, key: str) -> Entry | None:
        await trio.lowlevel.checkpoint()
        self._lapse()
        return self._state.get(key)

    async def range(self, prefix: str, *, limit: int | None = None) -> list[Entry]:
        await trio.lowlevel.checkpoint()
        self._lapse()
        return self._state.range(prefix, limit)

    async def transact(self, compares: Sequence[Unchanged], operations: Sequence[Operation]) -> Outcome:
        await trio.lowlevel.checkpoint()
        self._lapse()
        draft = Draft(self._state)
        outcome = draft.transact(compares, operations)
        self._commit(draft)
        return outcome

    def watch(self, prefix: str) -> AbstractAsyncContextManager[Watch]:
        return self._watch(prefix)

    @asynccontextmanager
    async def _watch(self, prefix: str) -> AsyncIterator[Watch]:
        await trio.lowlevel.checkpoint()
        self._lapse()
        watch = _MemoryWatch(self, FeedWatch(prefix, self._state.range(prefix), self._state.revision))
        self._feed.add(watch.inner)
        try:
            yield watch
        finally:
            self._feed.discard(watch.inner)

    async def grant(self, ttl_s: float) -> LeaseId:
        await trio.lowlevel.checkpoint()
        self._lapse()
        draft = Draft(self._state)
        lease = draft.grant(ttl_s)
        self._commit(draft)
        return lease

    async def keep_alive(self, lease: LeaseId) -> None:
        await trio.lowlevel.checkpoint()
        self._lapse()
        self._deadlines.renew(lease, self._state, trio.current_time())

    async def revoke(self, lease: LeaseId) -> None:
        await trio.lowlevel.checkpoint()
        self._lapse()
        draft = Draft(self._state)
        draft.revoke(lease)
        self._commit(draft)

    def break_watches(self) -> None:
        """What a lost connection does to watchers, for tests of those who must watch again."""
        self._feed.break_all("asked to")

    def _commit(self, draft: Draft) -> None:
        now = trio.current_time()
        for change in draft.changes:
            self._deadlines.follow(change, now)
            self._feed.publish(self._state.apply(change))
        if draft.changes:
            for scope in self._waits:
                scope.deadline = min(scope.deadline, self._deadlines.next())

    def _lapse(self) -> None:
        draft = Draft(self._state)
        for lease in self._deadlines.lapsed(trio.current_time()):
            draft.revoke(lease)
        self._commit(draft)

    async def next(self, watch: FeedWatch) -> list[Event]:
        """The watch's next events; leases lapse while it waits."""
        events: list[Event] = []
        while not events:
            self._lapse()
            with trio.CancelScope(deadline=self._deadlines.next()) as scope:
                self._waits.add(scope)
                try:
                    events = await watch.next()
                finally:
                    self._waits.discard(scope)
        return events


class _MemoryWatch:
    def __init__(self, store: MemoryKV, inner: FeedWatch) -> None:
        self._store = store
        self.inner = inner
        self.entries = inner.entries
        self.revision = inner.revision

    async def next(self) -> list[Event]:
        return await self._store.next(self.inner)
