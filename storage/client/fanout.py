"""Fan-out: ask several nodes at once, and return as soon as their replies settle the matter.

The edge under the quorum objects: it carries replies, and decides nothing.  A call that is left behind keeps running in the
nursery that owns the fan-out: a write that was sent is never cut in half because the others were faster.  Calls in flight per
device are bounded; beyond the bound a device counts as failed at once, so that one that hangs cannot gather up tasks.

Neighbours: quorum (pure), objects and books (callers), local and remote (the nodes).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from enum import IntEnum
from typing import TypeVar

import trio

from ring.errors import RingfortError, Unavailable
from storage.client.node import Node
from storage.client.watch import Watch

T = TypeVar("T")
IN_FLIGHT_MAX = 512


class Progress(IntEnum):
    """What is known after a reply."""

    OPEN = 0
    DECIDED = 1  # the answer is known; more replies would be good to have, within a short grace
    SETTLED = 2  # nothing more is to be waited for


Receive = Callable[[int, T | RingfortError], Progress]


class Settling:
    """One caller waiting for replies.  ``receive`` goes on to get those that come later, for what is to be mended."""

    __slots__ = ("_decided", "_expired", "_settled", "_watch", "missing")

    def __init__(self, watch: Callable[[float], Watch]) -> None:
        self._watch = watch
        self._expired = False
        self._decided = trio.Event()
        self._settled = trio.Event()
        self.missing: set[int] = set()

    def advance(self, progress: Progress) -> None:
        if progress >= Progress.DECIDED:
            self._decided.set()
            if progress >= Progress.SETTLED:
                self._settled.set()

    @property
    def over(self) -> bool:
        return self._decided.is_set()

    def expire(self) -> None:
        """The time for deciding is over."""
        self._expired = not self._decided.is_set()
        self._decided.set()

    async def wait(self, timeout_s: float, grace_s: float) -> None:
        """Until decided, at most ``timeout_s``; then until settled, at most ``grace_s``."""
        if not self._decided.is_set():
            self._watch(timeout_s).add(self)
            await self._decided.wait()
        if not self._expired and not self._settled.is_set():
            with trio.move_on_after(grace_s):
                await self._settled.wait()


class Fanout:
    """``nursery`` outlives the calls: those left behind end in it."""

    def __init__(self, nursery: trio.Nursery, *, in_flight_max: int = IN_FLIGHT_MAX) -> None:
        self._nursery = nursery
        self._in_flight: dict[int, int] = {}
        self._in_flight_max = in_flight_max
        self._watches: dict[float, Watch] = {}

    def spawn(self, task: Callable[[], Awaitable[None]]) -> None:
        """Run a task that ends by itself in the nursery of the calls."""
        self._nursery.start_soon(task)

    def settling(self) -> Settling:
        return Settling(self._watch)

    def start(self, nodes: Sequence[Node], call: Callable[[int, Node], Awaitable[T]], receive: Receive[T]) -> Settling:
        """Call every node; replies go to ``receive`` as values: what the call returned, or the expected error it raised."""
        settling = self.settling()
        for index, node in enumerate(nodes):
            self.add(settling, index, node, call, receive)
        return settling

    def add(
        self, settling: Settling, index: int, node: Node, call: Callable[[int, Node], Awaitable[T]], receive: Receive[T]
    ) -> None:
        """One more call whose reply counts for ``settling``."""
        settling.missing.add(index)
        key = node.device.id
        if self._in_flight.get(key, 0) >= self._in_flight_max:
            settling.missing.discard(index)
            error = Unavailable(f"device {key} has {self._in_flight_max} calls unanswered")
            settling.advance(receive(index, error))
            return
        self._in_flight[key] = self._in_flight.get(key, 0) + 1
        self._nursery.start_soon(self._run, settling, index, node, call, receive)

    def _watch(self, timeout_s: float) -> Watch:
        watch = self._watches.get(timeout_s)
        if watch is None:
            watch = self._watches[timeout_s] = Watch(self._nursery, timeout_s)
        return watch

    async def _run(
        self, settling: Settling, index: int, node: Node, call: Callable[[int, Node], Awaitable[T]], receive: Receive[T]
    ) -> None:
        reply: T | RingfortError
        try:
            reply = await call(index, node)
        except RingfortError as error:
            reply = error
        finally:
            self._in_flight[node.device.id] -= 1
        settling.missing.discard(index)
        settling.advance(receive(index, reply))
