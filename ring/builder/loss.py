"""What is lost when devices fail at the same time: partitions with 0, 1, 2, ... copies left, counted on the table itself.

Named failures and single tiers are exact.  Random failures: the mean is exact (hypergeometric); how bad it gets and how often comes
from trials, or exactly where the table allows.  Nothing here knows of time (``durability.py`` does); a table is read and never
changed.  Pure and deterministic from the seed.  Neighbours: ``measure.py`` (tiers by number), ``tools.cli.ring.analysis``.

*Left* is a tuple: ``left[n]`` is the number of partitions with n replicas on devices that work.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ring.builder.certificate import LEVELS
from ring.builder.measure import IDS, Levels, Table, alike, square
from ring.builder.quota import Tier
from ring.builder.shuffle import Shuffler
from ring.device import Device
from ring.errors import BadInput
from ring.placement import NO_DEVICE

Left = tuple[int, ...]
Z_95 = 1.959964  # standard normal quantile of a two-sided 95 % interval
# A trial that fails fewer devices than this walks only the partitions of those; else it counts all partitions at once.
FEW = 64


def copies_left(table: Table, failed: Collection[int]) -> Left:
    """When these device ids fail together."""
    return _left(_alive(square(table), failed), len(table))


def _alive(whole: NDArray[np.uint16], failed: Collection[int]) -> NDArray[np.uint8]:
    """Replicas left, by partition; ``whole`` as measure.square makes it."""
    works = np.ones(IDS, np.uint8)
    works[list(failed)] = 0
    works[NO_DEVICE] = 0
    alive = np.zeros(whole.shape[1], np.uint8)
    for row in whole:
        alive += works[row]
    return alive


def _left(alive: NDArray[np.uint8], replicas: int) -> Left:
    return tuple(map(int, np.bincount(alive, minlength=replicas + 1)))


# ---- one tier


@dataclass(frozen=True, slots=True)
class TierLoss:
    """When all of a tier fails."""

    tier: Tier
    devices: int
    left: Left


@dataclass(frozen=True, slots=True)
class LevelLoss:
    """Of all tiers of one level, each failing alone."""

    level: str
    tiers: int
    worst: TierLoss  # the one with most partitions at 0 copies, then at 1, and so on; the first of equals
    losing: int  # tiers whose failure leaves some partition without a copy


def by_level(table: Table, devices: Sequence[Device]) -> list[LevelLoss]:
    """Region, zone, server, device.  Every tier of the ring is tried: one pass over the table for each level."""
    whole = square(table)
    levels = Levels(devices)
    replicas = len(table)
    total = (whole != NO_DEVICE).sum(axis=0, dtype=np.int32)
    base = np.bincount(total, minlength=replicas + 1)
    result = []
    for level, name in enumerate(LEVELS):
        tiers, index = levels.tiers[level], levels.index[level]
        numbers = index[whole]
        count, first = alike(numbers)
        width = replicas + 1
        size = (len(tiers) + 1) * width
        owned = np.broadcast_to(total, numbers.shape)[first]
        after = np.bincount(numbers[first] * width + owned - np.minimum(count[first], owned), minlength=size).reshape(-1, width)
        before = np.bincount(numbers[first] * width + owned, minlength=size).reshape(-1, width)
        lefts = [tuple(map(int, row)) for row in (base - before + after)[: len(tiers)]]
        sizes = np.bincount(index[[device.id for device in devices]], minlength=len(tiers))
        worst = max(range(len(tiers)), key=lambda number: lefts[number])
        loss = TierLoss(tiers[worst], int(sizes[worst]), lefts[worst])
        result.append(LevelLoss(name, len(tiers), loss, sum(1 for left in lefts if left[0] > base[0])))
    return result


# ---- random devices


@dataclass(frozen=True, slots=True)
class RandomLoss:
    """When ``failed`` devices, each set of them as likely as any other, fail together with those that are named."""

    failed: int
    among: int  # devices that hold something and have not failed already
    trials: int
    mean: tuple[float, ...]  # as a Left, exact
    worst: Left  # of the trials
    any_lost: float  # the probability that some partition has no copy left
    any_lost_low: float  # its 95 % interval (Wilson's); all three the same when exact
    any_lost_high: float
    exact: bool


def random_failures(table: Table, count: int, *, trials: int, seed: int, failed: Collection[int] = ()) -> RandomLoss:
    """BadInput when fewer than ``count`` devices are left to fail."""
    whole = square(table)
    pool = sorted(set(map(int, np.unique(whole))) - {NO_DEVICE} - set(failed))
    if not 0 < count <= len(pool):
        raise BadInput(f"{count} devices cannot fail: {len(pool)} hold something", hint="--random K, K from 1 on")
    if trials < 1:
        raise BadInput("a simulation needs at least one trial")
    start = _alive(whole, failed)
    lefts = _trials(whole, pool, count, trials, Shuffler(seed), start)
    worst = max(lefts)
    exact = _any_lost(whole, failed, start, len(pool), count)
    hits = sum(1 for left in lefts if left[0])
    low, high = _wilson(hits, trials) if exact is None else (exact, exact)
    return RandomLoss(
        failed=count,
        among=len(pool),
        trials=trials,
        mean=_mean(_left(start, len(table)), len(pool), count),
        worst=worst,
        any_lost=hits / trials if exact is None else exact,
        any_lost_low=low,
        any_lost_high=high,
        exact=exact is not None,
    )


def _mean(left: Left, among: int, count: int) -> tuple[float, ...]:
    """Of a partition's n copies left, k fail with the probability C(n, k) C(among - n, count - k) / C(among, count)."""
    ways = math.comb(among, count)
    result = [0.0] * len(left)
    for copies, partitions in enumerate(left):
        for lost in range(min(copies, count) + 1):
            if partitions and count - lost <= among - copies:
                result[copies - lost] += partitions * (math.comb(copies, lost) * math.comb(among - copies, count - lost) / ways)
    return tuple(result)


def _any_lost(whole: NDArray[np.uint16], failed: Collection[int], alive: NDArray[np.uint8], among: int, count: int) -> float | None:
    """The exact probability that some partition has no copy left, None where only trials tell.

    With as many failures as the smallest number of copies left, a set of devices loses something exactly when it is one of
    the sets that hold such a partition (a copyset): so it is their number by that of all sets.
    """
    least = int(alive.min())
    if least == 0:
        return 1.0
    if count < least:
        return 0.0
    if count > least:
        return 1.0 if count == among else None
    return distinct_sets(np.where(np.isin(whole, list(failed)), NO_DEVICE, whole)[:, alive == least]) / math.comb(among, count)


def distinct_sets(whole: NDArray[np.uint16]) -> int:
    """How many different sets of devices hold the partitions: the copysets of a table."""
    ordered = np.sort(whole, axis=0)
    if len(ordered) <= 4:
        packed = np.zeros(ordered.shape[1], np.uint64)
        for row in ordered:
            packed = (packed << np.uint64(16)) | row
        return len(np.unique(packed))
    columns = np.ascontiguousarray(ordered.T)
    return len(np.unique(columns.view([("", columns.dtype)] * columns.shape[1]).ravel()))


def _trials(
    whole: NDArray[np.uint16], pool: list[int], count: int, trials: int, shuffler: Shuffler, start: NDArray[np.uint8]
) -> list[Left]:
    replicas = len(whole)
    begin = np.array(_left(start, replicas), np.int64)
    walk = _walker(whole, start, begin) if count < FEW else None
    devices = np.array(pool)
    result = []
    for _ in range(trials):
        order = shuffler.order(len(devices))
        if walk is not None:
            result.append(walk(devices[order[:count]]))
            continue
        works = np.zeros(IDS, np.uint8)
        works[devices[order[count:]]] = 1
        alive = np.zeros(whole.shape[1], np.uint8)
        for row in whole:
            alive += works[row]
        result.append(_left(alive, replicas))
    return result


def _walker(whole: NDArray[np.uint16], start: NDArray[np.uint8], begin: NDArray[np.int64]) -> Callable[[NDArray[np.int64]], Left]:
    """Counts what some devices leave, by way of the partitions that they hold."""
    width, partitions = whole.shape
    order = np.argsort(whole, axis=None, kind="stable")
    held = (order % partitions).astype(np.int32)
    bounds = np.searchsorted(whole.ravel()[order], np.arange(IDS + 1))
    lost = np.zeros(partitions, np.int32)

    def walk(chosen: NDArray[np.int64]) -> Left:
        pieces = [held[bounds[device_id] : bounds[device_id + 1]] for device_id in chosen]
        for piece in pieces:
            lost[piece] += 1  # a device holds a partition once
        touched = np.concatenate(pieces)
        times = lost[touched]
        lost[touched] = 0
        # A partition that lost n copies stands n times in touched: weigh it by 1/n.
        weight = 1.0 / times
        before = np.bincount(start[touched], weights=weight, minlength=width + 1)
        after = np.bincount(start[touched] - times, weights=weight, minlength=width + 1)
        return tuple(map(int, begin + np.rint(after).astype(np.int64) - np.rint(before).astype(np.int64)))

    return walk


def _wilson(hits: int, trials: int) -> tuple[float, float]:
    """Wilson's score interval (JASA 22, 1927): sound also when nothing or everything was hit."""
    share = hits / trials
    spread = Z_95 * math.sqrt(share * (1 - share) / trials + Z_95**2 / (4 * trials**2))
    scale = 1 + Z_95**2 / trials
    middle = share + Z_95**2 / (2 * trials)
    return max(0.0, (middle - spread) / scale), min(1.0, (middle + spread) / scale)
