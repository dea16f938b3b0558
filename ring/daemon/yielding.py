"""Yielding: at which part of its pace background work may go, so that clients hardly notice it.

Pure: the caller brings the time.  The idea is that of LEDBAT (RFC 6817), which lets a transfer use what others leave: look at how
much longer clients' requests take than they do when nothing is in their way, go slower when it is more than the target, faster when
it is less.  How long they take at best is the least mean of an interval within the last minutes; since work that always runs would
never see it, work goes to its floor when clients come, and for a moment once a minute (the slowdowns of LEDBAT++).

Time counts for requests whose time is this machine's doing (small ones, and the beginning of the others' answers).  While clients
are only there with large bodies, nothing is known, and work goes at a middling pace.  The floor is never passed: repair does not
starve, however busy clients are.

Neighbours: pacing (what a speed does), tools.deploy.load (one speed for all processes of a machine).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import trio

from ring.wire.message import Handler, Request, Response

TICK_S = 0.5
SAMPLES = 8  # a mean is of so many requests at least
RISE = 0.1  # of the full speed, in a tick
BLIND = 0.3  # the speed while clients are there and nothing is known of them
ABSENT_S = 5.0  # without a request for so long, clients are gone
LOOK_EVERY_S = 60.0  # at the floor, to see how long requests take at best
LOOK_S = 2.0
INTERVAL_S = 60.0
INTERVALS = 10  # the best of so many of them counts
SMALL_BYTES = 64 << 10  # a body that does not wait for its client


@dataclass(slots=True)
class _Kind:
    """Of request: what is known of its times."""

    total_s: float = 0.0  # since the last mean
    count: int = 0
    mean_s: float = 0.0  # of the last ones
    best: deque[tuple[float, float]] = field(default_factory=deque)  # (interval's beginning, least mean in it)

    def take(self, now: float) -> float | None:
        """How much longer than at best they took: 0.5 is half as long again.  None: too few were seen."""
        if self.count < SAMPLES:
            return None
        self.mean_s, self.total_s, self.count = self.total_s / self.count, 0.0, 0
        while self.best and self.best[0][0] <= now - INTERVAL_S * INTERVALS:
            self.best.popleft()
        if not self.best or self.best[-1][0] <= now - INTERVAL_S:
            self.best.append((now, self.mean_s))
        elif self.mean_s < self.best[-1][1]:
            self.best[-1] = (self.best[-1][0], self.mean_s)
        base_s = min(mean_s for _, mean_s in self.best)
        return self.mean_s / base_s - 1.0 if base_s > 0 else 0.0


class Yielding:
    """``floor``: the least speed; ``target``: how much longer requests may take than at best."""

    def __init__(self, *, floor: float = 0.1, target: float = 0.5) -> None:
        assert 0 < floor <= 1 and target > 0
        self.floor = floor
        self.speed = 1.0
        self.slowdown = 0.0  # as last seen
        self.in_flight = 0
        self._target = target
        self._kinds: dict[str, _Kind] = {}
        self._seen_at: float | None = None  # a request, last
        self._looked_at = 0.0  # at the floor, last
        self._look_until = 0.0

    def began(self, now: float) -> None:
        """A client's request."""
        self.in_flight += 1
        self._arrived(now)

    def ended(self, now: float, kind: str = "", seconds: float = 0.0) -> None:
        """``kind`` and ``seconds``: of one whose time is this machine's doing."""
        self.in_flight -= 1
        self._seen_at = now
        if kind:
            found = self._kinds.get(kind)
            if found is None:
                found = self._kinds[kind] = _Kind()
            found.total_s += seconds
            found.count += 1

    def _arrived(self, now: float) -> None:
        if self._seen_at is None or now - self._seen_at > ABSENT_S:
            self._look(now)
        self._seen_at = now

    def _look(self, now: float) -> None:
        self._looked_at, self._look_until = now, now + LOOK_S
        self.speed = self.floor
        for kind in self._kinds.values():
            kind.total_s, kind.count = 0.0, 0

    def tick(self, now: float) -> None:
        """Every TICK_S."""
        if self.in_flight:
            self._seen_at = now
        here = self._seen_at is not None and now - self._seen_at <= ABSENT_S
        found = [slowdown for kind in self._kinds.values() if (slowdown := kind.take(now)) is not None]
        if now < self._look_until:
            return
        if not here:
            self.slowdown = 0.0
            self.speed = min(self.speed + RISE, 1.0)
        elif now - self._looked_at >= LOOK_EVERY_S and self.speed > 2 * self.floor:
            self._look(now)
        elif found:
            self.slowdown = max(found)
            room = max(1.0 - self.slowdown / self._target, -1.0)
            self.speed = self.speed + RISE * room if room > 0 else self.speed * (1.0 + room / 2)
        elif not any(kind.best for kind in self._kinds.values()):
            self.speed += max(min(BLIND - self.speed, RISE), -RISE)
        self.speed = min(max(self.speed, self.floor), 1.0)


def watched(handler: Handler, yielding: Yielding) -> Handler:
    """Tells ``yielding`` of every request: how long the head of its answer took, unless a large body came before that."""

    async def handle(request: Request) -> Response:
        began = trio.current_time()
        yielding.began(began)
        kind = request.method if _is_small(request) else ""
        try:
            return await handler(request)
        except BaseException:
            kind = ""
            raise
        finally:
            now = trio.current_time()
            yielding.ended(now, kind, now - began)

    return handle


def _is_small(request: Request) -> bool:
    if request.method in ("GET", "HEAD", "DELETE"):
        return True
    length = request.headers.get("content-length")
    return length is not None and length.isdigit() and int(length) <= SMALL_BYTES
