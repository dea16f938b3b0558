"""How fast background work may go, and how long to wait after it failed.

Pure: the caller brings the time.  Work is paid for after it was done, since only then its size is known: the bucket goes into debt
and the next unit waits until the debt is paid.
"""

from __future__ import annotations

from dataclasses import dataclass, field

WAIT_LEAST_S = 1e-6  # what rounding leaves of a debt that was waited for: a clock may not even tell it


@dataclass(slots=True)
class TokenBucket:
    """``rate`` tokens a second, at most ``burst`` saved up; rate 0 means no limit.  ``speed``: the part of the rate that holds
    since the last call."""

    rate: float
    burst: float
    _tokens: float = field(init=False)
    _at: float | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self._tokens = self.burst

    def spend(self, amount: float, now: float, speed: float = 1.0) -> None:
        """Pay for what was done; may go into debt."""
        if self.rate:
            self._fill(now, speed)
            self._tokens -= amount

    def wait_s(self, now: float, speed: float = 1.0) -> float:
        """How long until the debt is paid at this speed; 0 when there is none."""
        if not self.rate:
            return 0.0
        self._fill(now, speed)
        return max(-self._tokens / (self.rate * speed), 0.0)

    def _fill(self, now: float, speed: float) -> None:
        if self._at is not None:
            self._tokens = min(self._tokens + (now - self._at) * self.rate * speed, self.burst)
        self._at = now


@dataclass(slots=True)
class Pacing:
    """Limits of one worker, in items and bytes a second (0: none), and of the part of its time in which it works.

    At ``speed`` 1.0 it goes as fast as the limits allow.  Below, the limits are that part of themselves, and it works in no more
    than that part of its time: so also what has no limits, or is slower than they are, gives way."""

    items_per_s: float = 0.0
    bytes_per_s: float = 0.0
    _items: TokenBucket = field(init=False)
    _bytes: TokenBucket = field(init=False)
    _time: TokenBucket = field(init=False)

    def __post_init__(self) -> None:
        self._items = TokenBucket(self.items_per_s, self.items_per_s)
        self._bytes = TokenBucket(self.bytes_per_s, self.bytes_per_s)
        self._time = TokenBucket(1.0, 0.0)

    def spend(self, items: int, byte_count: int, took_s: float, now: float, speed: float = 1.0) -> None:
        self._items.spend(items, now, speed)
        self._bytes.spend(byte_count, now, speed)
        self._time.spend(took_s * (1.0 - speed), now, speed)  # while it worked, the rest of it was paid

    def wait_s(self, now: float, speed: float = 1.0) -> float:
        """How long until it may go on, if the speed stays."""
        assert speed > 0
        wait_s = max(bucket.wait_s(now, speed) for bucket in (self._items, self._bytes, self._time))
        return wait_s if wait_s > WAIT_LEAST_S else 0.0


@dataclass(slots=True)
class Backoff:
    """Waits that double from ``first_s`` to ``most_s`` while failures follow each other."""

    first_s: float = 1.0
    most_s: float = 300.0
    failures: int = 0

    def failed(self) -> float:
        """How long to wait now."""
        wait_s = min(self.first_s * float(1 << min(self.failures, 40)), self.most_s)
        self.failures += 1
        return wait_s

    def succeeded(self) -> None:
        self.failures = 0
