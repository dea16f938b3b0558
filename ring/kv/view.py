"""View: a prefix of the control state in RAM, kept by watch, so that look-ups never wait.

Moves events into a dictionary of decoded values; watches again by itself when the feed breaks, and until then keeps what it had.
What it says may be a moment old: ``wait`` for the revision of one's own transaction to read one's writes.  Agents that reconcile
wait for ``wait_change``: level-triggered, so that ten changes at once are one round of work.

    view = View(kv, "identity/users/", decode_user)
    await nursery.start(view.run)
    view.get("identity/users/42")
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections.abc import Callable
from typing import Generic, TypeVar, cast, overload

import trio

from ring.errors import Unavailable
from ring.kv.interface import KV, Entry, Event, Watch

T = TypeVar("T")
PATIENCE_S = 0.05  # how long ``wait`` trusts the feed to bring a revision before it asks for a fresh start
RETRY_S = (0.05, 1.0)  # first and longest pause before watching again


class View(Generic[T]):
    """``decode`` makes of an Entry what ``get`` and ``items`` give (the Entry itself unless given); what it raises ends ``run``."""

    @overload
    def __init__(self: View[Entry], kv: KV, prefix: str) -> None: ...

    @overload
    def __init__(self, kv: KV, prefix: str, decode: Callable[[Entry], T]) -> None: ...

    def __init__(self, kv: KV, prefix: str, decode: Callable[[Entry], T] | None = None) -> None:
        self.prefix = prefix
        self.revision = -1  # everything up to it is here; -1 before the first start
        self.changes = 0  # grows when something in the view changed
        self._kv = kv
        self._decode = decode if decode is not None else cast("Callable[[Entry], T]", _itself)
        self._values: dict[str, T] = {}
        self._modified: dict[str, int] = {}
        self._keys: list[str] = []
        self._moved = trio.Event()  # replaced whenever revision or changes grew
        self._wanted = -1
        self._listening = trio.CancelScope()  # around the wait for events

    # ---- looking

    def get(self, key: str) -> T | None:
        """By the whole key."""
        return self._values.get(key)

    def items(self, prefix: str = "") -> list[tuple[str, T]]:
        """In key order; ``prefix`` is of whole keys."""
        found = []
        for index in range(bisect_left(self._keys, prefix), len(self._keys)):
            key = self._keys[index]
            if not key.startswith(prefix):
                break
            found.append((key, self._values[key]))
        return found

    def __len__(self) -> int:
        return len(self._values)

    async def wait(self, revision: int) -> None:
        """Until the view holds everything up to ``revision``."""
        while self.revision < revision:
            self._wanted = max(self._wanted, revision)
            self._listening.deadline = min(self._listening.deadline, trio.current_time() + PATIENCE_S)
            await self._moved.wait()

    async def wait_change(self, after: int) -> int:
        """Until ``changes`` is more than ``after``; what it is then.

        An agent's loop: ``seen = view.changes``, do the work, ``await view.wait_change(seen)``: no change is missed."""
        while self.changes <= after:
            await self._moved.wait()
        return self.changes

    # ---- keeping up

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled.  Started when the view is first complete."""
        started = False
        pause = RETRY_S[0]
        while True:
            try:
                async with self._kv.watch(self.prefix) as watch:
                    self._load(watch)
                    if not started:
                        started = True
                        task_status.started()
                    pause = RETRY_S[0]
                    await self._follow(watch)
            except Unavailable:  # keep what we have, and watch again
                await trio.sleep(pause)
                pause = min(2 * pause, RETRY_S[1])

    async def _follow(self, watch: Watch) -> None:
        """Until a fresh start is needed: a revision is waited for that changed nothing here, so that no event will tell of it."""
        while True:
            patience = trio.current_time() + PATIENCE_S if self._wanted > self.revision else math.inf
            events: list[Event] = []
            with trio.CancelScope(deadline=patience) as self._listening:
                events = await watch.next()
            if not events:
                return
            self._apply(events)

    def _load(self, watch: Watch) -> None:
        entries = {entry.key: entry for entry in watch.entries}
        events = [Event(key, None, watch.revision) for key in self._keys if key not in entries]
        events += [Event(key, entry, watch.revision) for key, entry in entries.items() if self._modified.get(key) != entry.modified]
        self.revision = max(self.revision, watch.revision)
        self._apply(events)

    def _apply(self, events: list[Event]) -> None:
        for event in events:
            if event.entry is None:
                if event.key in self._values:
                    del self._values[event.key]
                    del self._modified[event.key]
                    del self._keys[bisect_left(self._keys, event.key)]
            else:
                value = self._decode(event.entry)
                if event.key not in self._values:
                    insort(self._keys, event.key)
                self._values[event.key] = value
                self._modified[event.key] = event.entry.modified
            self.revision = max(self.revision, event.revision)
        if events:
            self.changes += 1
        moved, self._moved = self._moved, trio.Event()
        moved.set()


def _itself(entry: Entry) -> Entry:
    return entry
