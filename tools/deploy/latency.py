"""Latencies of requests out of the metrics: counts by bucket, which can be added up, subtracted, and asked for percentiles.

Pure.  Neighbours: ring.daemon.requests (which counts), recon (which asks).
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field

_BUCKET = re.compile(r'ringfort_request_seconds_bucket\{server="([^"]+)",method="([^"]+)",le="([^"]+)"\} (\d+)')
_COUNT = re.compile(r'ringfort_requests_total\{server="([^"]+)",method="([^"]+)",status="(5\d\d)"\} (\d+)')


@dataclass(frozen=True, slots=True)
class Latency:
    """``counts``: requests that took no longer than this (seconds; infinity last), cumulative."""

    counts: Mapping[float, int] = field(default_factory=dict)
    errors: int = 0  # answers 5xx

    @property
    def total(self) -> int:
        return max(self.counts.values(), default=0)

    def __add__(self, other: Latency) -> Latency:
        bounds = self.counts.keys() | other.counts.keys()
        return Latency({le: self.counts.get(le, 0) + other.counts.get(le, 0) for le in bounds}, self.errors + other.errors)

    def since(self, earlier: Latency) -> Latency:
        """What came after that.  All of it, if a process was started again meanwhile."""
        counts = {le: count - earlier.counts.get(le, 0) for le, count in self.counts.items()}
        if any(count < 0 for count in counts.values()):
            return self
        return Latency(counts, max(self.errors - earlier.errors, 0))

    def percentile_s(self, percent: float) -> float | None:
        """The bucket's bound that so many did not exceed; None: there were none, or they took longer than any bound."""
        bounds = sorted(self.counts)
        if not self.total:
            return None
        at = bisect_left([self.counts[le] for le in bounds], self.total * percent / 100)
        return bounds[at] if bounds[at] != float("inf") else None


def latencies(metrics: str) -> dict[tuple[str, str], Latency]:
    """By API and method."""
    counts: dict[tuple[str, str], dict[float, int]] = {}
    for server, method, le, count in _BUCKET.findall(metrics):
        counts.setdefault((server, method), {})[float(le)] = int(count)
    errors: dict[tuple[str, str], int] = {}
    for server, method, _, count in _COUNT.findall(metrics):
        errors[server, method] = errors.get((server, method), 0) + int(count)
    return {kind: Latency(found, errors.get(kind, 0)) for kind, found in counts.items()}
