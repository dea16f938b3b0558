"""Tally: what the passes of a Worker have come to, how fast it goes, and when it may be done.

Pure: the caller brings the time, both clocks of it.  Seconds in a Pass are those in which some process ran it; its figures survive
a restart as well as they were saved.  Neighbours: ``runner`` (which counts), tools.deploy.recon (which shows).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import msgspec

from ring.daemon.worker import Progress
from ring.errors import FormatError

RATE_S = 60.0  # rates are of about so long


@dataclass(frozen=True, slots=True)
class Pass:
    """What a pass has come to, up to now or in all."""

    began_at: float  # wall clock
    seconds: float = 0.0  # that it took, waiting for its pace and all, without those in which no process ran it
    units: int = 0
    done_bytes: int = 0
    errors: int = 0


class Remembered(msgspec.Struct, array_like=True, frozen=True):
    """What is kept over restarts: msgpack; fields are added at the end."""

    current: Pass | None
    last: Pass | None


@dataclass(slots=True)
class Rate:
    """So much a second, of about the last RATE_S: amounts count less the older they are."""

    _sum: float = 0.0
    _since: float | None = None
    _at: float = 0.0

    def add(self, amount: float, now: float) -> None:
        self._fade(now)
        self._sum += amount

    def per_s(self, now: float) -> float:
        self._fade(now)
        assert self._since is not None
        seen_s = -RATE_S * math.expm1(-(now - self._since) / RATE_S)
        return self._sum / seen_s if seen_s > 0 else 0.0

    def _fade(self, now: float) -> None:
        if self._since is None:
            self._since = now
        else:
            self._sum *= math.exp(-(now - self._at) / RATE_S)
        self._at = now


class Tally:
    def __init__(self, now: float) -> None:
        self.current: Pass | None = None  # None between passes
        self.last: Pass | None = None  # None: none has ended yet
        self.passes = 0  # that ended, since the process's start
        self.error = ""  # the last one, of the pass under way or the one before it
        self.units = Rate()
        self.done_bytes = Rate()
        self._speed = Rate()  # of the fraction
        self._fraction: float | None = None
        self._at = now
        self.tick(now)

    def begin(self, wall: float, now: float) -> None:
        """A unit is about to be done: of the pass under way, or of a new one."""
        if self.current is None:
            self.current, self._at = Pass(wall), now
            self._fraction = 0.0

    def tick(self, now: float) -> None:
        """Time passes."""
        if self.current is not None:
            self.current = replace(self.current, seconds=self.current.seconds + now - self._at)
        self._at = now
        for rate in (self.units, self.done_bytes, self._speed):
            rate.add(0, now)

    def done(self, units: int, done_bytes: int, fraction: float | None, now: float) -> None:
        assert self.current is not None
        self.tick(now)
        self.current = replace(self.current, units=self.current.units + units, done_bytes=self.current.done_bytes + done_bytes)
        self.units.add(units, now)
        self.done_bytes.add(done_bytes, now)
        if fraction is not None and self._fraction is not None:
            self._speed.add(max(fraction - self._fraction, 0.0), now)
        self._fraction = fraction

    def failed(self, error: str, now: float) -> None:
        assert self.current is not None
        self.tick(now)
        self.current = replace(self.current, errors=self.current.errors + 1)
        self.error = error

    def unbegun(self) -> None:
        """What ``begin`` began was no pass: there was none to make yet."""
        if self.current is not None and not (self.current.units or self.current.errors):
            self.current = None

    def over(self, now: float) -> Pass:
        """The pass has ended."""
        assert self.current is not None
        self.tick(now)
        ended, self.last, self.current = self.current, self.current, None
        self.passes += 1
        if not ended.errors:
            self.error = ""
        self._speed = Rate()
        return ended

    def eta_s(self, progress: Progress, now: float) -> float | None:
        """Until the end of the pass; None between passes, and when it cannot be said."""
        if self.current is None:
            return None
        if progress.fraction is not None:
            left, speed = 1.0 - progress.fraction, self._speed.per_s(now)
        elif progress.left is not None:
            left, speed = float(progress.left), self.units.per_s(now)
        else:
            return None
        if left <= 0:
            return 0.0
        return left / speed if speed > 0 else None

    # ---- over restarts

    def encode(self) -> bytes:
        return msgspec.msgpack.encode(Remembered(self.current, self.last))

    def restore(self, data: bytes, now: float, *, resumed: bool) -> None:
        """What an earlier process counted; ``resumed``: the Worker goes on with that pass.  FormatError: nothing is changed."""
        try:
            found = msgspec.msgpack.decode(data, type=Remembered)
        except msgspec.MsgspecError as error:
            raise FormatError(f"not what a worker's passes have come to: {error}") from error
        self.current, self.last, self._at = found.current if resumed else None, found.last, now
