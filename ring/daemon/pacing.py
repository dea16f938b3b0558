"""How fast background work may go, and how long to wait after it failed.

Pure: the caller brings the time.  Work is paid for after it was done, since only then its size is known: the bucket goes into debt
and the next unit waits until the debt is paid.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class TokenBucket:
    """``rate`` tokens a second, at most ``burst`` saved up; rate 0 means no limit."""

    rate: float
    burst: float
    _tokens: float = field(init=False)
    _at: float | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self._tokens = self.burst

    def spend(self, amount: float, now: float) -> None:
        """Pay for what was done; may go into debt."""
        if self.rate:
            self._fill(now)
            self._tokens -= amount

    def wait_s(self, now: float) -> float:
        """How long until the debt is paid; 0 when there is none."""
        if not self.rate:
            return 0.0
        self._fill(now)
        return max(-self._tokens / self.rate, 0.0)

    def _fill(self, now: float) -> None:
        if self._at is not None:
            self._tokens = min(self._tokens + (now - self._at) * self.rate, self.burst)
        self._at = now


@dataclass(slots=True)
class Pacing:
    """Limits of one worker, in items and bytes a second (0: none).  Under full pressure from clients (1.0) work costs
    ``yield_factor`` times as much, so it goes that much slower, but never stops."""

    items_per_s: float = 0.0
    bytes_per_s: float = 0.0
    yield_factor: float = 10.0
    _items: TokenBucket = field(init=False)
    _bytes: TokenBucket = field(init=False)

    def __post_init__(self) -> None:
        self._items = TokenBucket(self.items_per_s, self.items_per_s)
        self._bytes = TokenBucket(self.bytes_per_s, self.bytes_per_s)

    def spend(self, items: int, byte_count: int, now: float, *, pressure: float = 0.0) -> None:
        """``pressure`` is 0.0 (idle) to 1.0 (clients wait)."""
        factor = 1.0 + (self.yield_factor - 1.0) * min(max(pressure, 0.0), 1.0)
        self._items.spend(items * factor, now)
        self._bytes.spend(byte_count * factor, now)

    def wait_s(self, now: float) -> float:
        return max(self._items.wait_s(now), self._bytes.wait_s(now))


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
