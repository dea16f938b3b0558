"""Reclaimer: what the reclaimers of a device have in common: the three walks, when each is due, and what follows from it.

A Worker: one partition at a time, in one of three walks (ring.service.horizon has the two steps that they belong to):

- **look**: the ring has closed at C and the device is not known to be clean up to there.  When the walk found nothing that speaks
  against it, the device's mark moves to C, durably, and it is reported.
- **forget**: the ring may forget what is not above H, and no write by an older edition is under way here any more.
- **compare**: the device is behind (storage.sync.standing): what it holds is compared with what the others do, before it counts.

What a walk does in a partition is the subclass's.  Neighbours: storage.object.reclaimer, storage.container.reclaimer (subclasses),
comparing (asks the others), proposal (reports), standing (the mark).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

import trio

from ring.daemon.worker import Busy, Idle, Progress, walked
from ring.device import Device
from ring.names import Span
from ring.placement import Ring
from ring.service.overlap import Overlap
from ring.timestamp import Timestamp
from storage.sync.proposal import Proposal
from storage.sync.standing import Standing

INTERVAL_S = 60.0
FORGET_AGAIN_S = 6 * 3600.0  # a tombstone that was brought back meanwhile (a read repairs with it) goes then


class Task(Enum):
    LOOK = "look"
    FORGET = "forget"
    COMPARE = "compare"


@dataclass(slots=True)
class _Walk:
    task: Task
    ticks: int  # up to here
    ring: Ring
    settled: Ring
    start: bytes | None = b""  # hashes from here on are to be looked at; None: all were
    failed: int = 0  # partitions of which it could not be said


class Returning(Protocol):
    """What compares a device that is behind."""

    put_aside: int  # facts since the start

    async def look(self, overlap: Overlap, span: Span, until: int) -> bool:
        """Whether all that is held of the partition up to there is known not to have been deleted."""


class Reclaimer(ABC):
    """``ring``: how ``standing`` calls it; ``overlap`` gives the one in force; ``clear``: whether no write by an edition older than
    this is under way (ring.service.gate)."""

    def __init__(
        self,
        name: str,
        ring: str,
        device: Device,
        standing: Standing,
        overlap: Callable[[], Overlap],
        proposal: Proposal,
        returning: Returning,
        *,
        clear: Callable[[int], bool],
        interval_s: float,
        forget_again_s: float,
    ) -> None:
        self.name = name
        self.reclaimed = 0  # tombstones, since the start
        self.kept = 0  # ... that could not go in the last walk
        self._ring = ring
        self._device = device
        self._standing = standing
        self._overlap = overlap
        self._proposal = proposal
        self._returning = returning
        self._clear = clear
        self._interval_s = interval_s
        self._forget_again_s = forget_again_s
        self._walk: _Walk | None = None
        self._forgotten: tuple[int, Ring | None] = (0, None)  # up to here, by a whole walk of this life by this ring
        self._forget_at = 0.0  # then once more
        self._looked = 0  # pages, in this unit

    def progress(self) -> Progress:
        walk, horizon = self._walk, self._overlap().horizon
        facts = {
            "reclaimed": self.reclaimed,
            "kept": self.kept,
            "behind": int(self._standing.behind(self._ring)),
            "horizon": Timestamp(horizon.reclaimed).seconds,
            "clean": Timestamp(self._standing.mark(self._ring)).seconds,
            "put_aside": self._returning.put_aside,
        }
        return Progress(walked(walk.start) if walk is not None else 1.0, facts=facts)

    def begin(self) -> None:
        """Called again, it looks at what there is to do."""
        return

    async def work(self) -> Busy | Idle:
        overlap = self._overlap()
        walk = self._walk
        if walk is None or walk.ring is not overlap.ring or walk.settled is not overlap.settled:
            walk = self._walk = self._begin(overlap)
        if walk is None:
            self._proposal.say(overlap, self._standing.mark(self._ring))
            return Idle.after(self._interval_s)
        if walk.start is None:
            self._walk = None
            await self._end(overlap, walk)
            return Idle.after(self._interval_s) if walk.failed else Busy(0)
        try:
            span = await self._next(walk.start, overlap.ring.part_power)
            if span is None:
                walk.start = None
                return Busy(0)
            walk.start = span.bounds[1]
            good = await self._partition(overlap, walk, span)
        except BaseException:
            walk.failed += 1
            raise
        walk.failed += not good
        looked, self._looked = self._looked, 0
        return Busy(max(1, looked))

    def _begin(self, overlap: Overlap) -> _Walk | None:
        """What is to be done by the horizon in force."""
        horizon, mark = overlap.horizon, self._standing.mark(self._ring)
        if mark < horizon.reclaimed:
            return _Walk(Task.COMPARE, horizon.reclaimed, overlap.ring, overlap.settled)
        if overlap.moving or not self._clear(overlap.claim.edition):
            return None
        done, by = self._forgotten
        if horizon.reclaimed and (horizon.reclaimed > done or by is not overlap.ring or trio.current_time() >= self._forget_at):
            self.kept = 0
            return _Walk(Task.FORGET, horizon.reclaimed, overlap.ring, overlap.settled)
        if mark < horizon.closed:
            return _Walk(Task.LOOK, horizon.closed, overlap.ring, overlap.settled)
        return None

    async def _end(self, overlap: Overlap, walk: _Walk) -> None:
        if walk.task is Task.FORGET:
            self._forgotten = walk.ticks, walk.ring
            self._forget_at = trio.current_time() + (self._interval_s if walk.failed else self._forget_again_s)
            return
        if walk.task is Task.LOOK and not self._nothing_pending(walk.ticks):
            walk.failed += 1
        if not walk.failed:
            await self._settle()
            await self._standing.move(self._ring, walk.ticks)
        self._proposal.say(overlap, self._standing.mark(self._ring))

    async def _partition(self, overlap: Overlap, walk: _Walk, span: Span) -> bool:
        """True when nothing is left to do, or to be waited for, in it."""
        match walk.task:
            case Task.LOOK:
                return await self._look(overlap, span, walk.ticks)
            case Task.FORGET:
                return await self._forget(overlap, span, walk.ticks)
            case Task.COMPARE:
                return await self._returning.look(overlap, span, walk.ticks)

    # ---- of what it is the reclaimer of

    @abstractmethod
    async def _next(self, start: bytes, part_power: int) -> Span | None:
        """The first partition at or behind ``start`` of which anything is held."""

    def _nothing_pending(self, ticks: int) -> bool:
        """Nothing that is not above it is under way in another form than as what is held."""
        return True

    @abstractmethod
    async def _settle(self) -> None:
        """Before the mark moves: what the walk saw is durable."""

    @abstractmethod
    async def _look(self, overlap: Overlap, span: Span, closed: int) -> bool:
        """Whether the device is clean up to there in this partition."""

    @abstractmethod
    async def _forget(self, overlap: Overlap, span: Span, until: int) -> bool:
        """Let go of its tombstones up to there; False when some could not go."""
