"""How many partitions are lost per year, expected from the table itself and given rates of failure and times of repair.

The model, exactly.  The *units* are the regions, zones, servers and devices of the ring.  Each fails and is repaired again and
again, independently of all others: it works for a time of mean 1/rate, then everything in it is gone for its repair time, then all
of it is back, copied from elsewhere.  A partition is *lost* at the moment from which each of its replicas is on a device that is
down, or in a server, zone or region that is down.  For alternating renewal units in their steady state the frequency of that is

    sum over units u of  w_u * dP/dq_u      w_u = 1 / (1/rate_u + repair_u): how often u fails
                                            q_u = w_u * repair_u: the part of time that it is down

where P, the probability that all of the partition is down, is linear in each q.  That is exact, and holds for every distribution of
the times with these means (Kumamoto and Henley, Probabilistic Risk Assessment, IEEE Press 1996, after Vesely 1970; Birnbaum 1969
for dP/dq).  The units above a partition's replicas are a tree, so P and its slope along w come from one walk up that
tree, with nothing enumerated, cut off, or averaged over the ring.  Sums over partitions are expectations, and need no independence
between partitions.

What the model leaves out, docs/ring-analysis.md says.  Reads a table, changes nothing.  Pure.  Neighbours: ``loss.py`` (what is
lost at one moment), ``measure.py`` (tiers by number).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ring.builder.certificate import LEVELS
from ring.builder.measure import Levels, Table, square
from ring.device import Device
from ring.errors import BadInput
from ring.placement import NO_DEVICE

HOURS_PER_YEAR = 8760.0
Floats = NDArray[np.float64]
CHUNK = 1 << 16  # partitions looked at together: what is worked on stays in the processor's cache
GRID_MAX = 1 << 26  # pairs of unit and device that are marked in memory rather than sorted out


@dataclass(frozen=True, slots=True)
class Hazard:
    """Of the units of one level."""

    per_year: float  # failures of one unit in a year of work; 0: they never fail
    repair_h: float | Floats  # until a failed one's copies are all back; one for all, or by unit (in the order of measure.Levels)

    def __post_init__(self) -> None:
        repair = np.asarray(self.repair_h, np.float64)
        if not (np.isfinite(self.per_year) and self.per_year >= 0):
            raise BadInput(f"a failure rate is a number from 0 on, not {self.per_year}")
        if not (np.isfinite(repair).all() and (repair >= 0).all()):
            raise BadInput("a repair takes a number of hours, from 0 on")


@dataclass(frozen=True, slots=True)
class LossPerYear:
    """When units down to and up to one level fail: the rows are cumulative, from devices alone to everything."""

    level: str  # the widest that fails: "server" means devices and servers
    per_year: float  # of its units, each
    repair_h: tuple[float, float]  # the shortest and the longest of its units that hold anything
    partitions: float  # expected to be lost in a year
    object_chance: float  # that a given object is lost in a year: partitions by all partitions


def loss_per_year(table: Table, devices: Sequence[Device], hazards: Mapping[str, Hazard]) -> list[LossPerYear]:
    """``hazards`` by level of loss.LEVELS; a level that is not there never fails.  Rows from device to region."""
    levels = Levels(devices)
    result: list[LossPerYear] = []
    for narrow in range(len(LEVELS) - 1, -1, -1):
        level = LEVELS[narrow]
        hazard = hazards.get(level, Hazard(0.0, 0.0))
        failing = {name: hazards[name] for name in LEVELS[narrow:] if name in hazards}
        if result and not hazard.per_year:
            lost = result[-1].partitions
        else:
            lost = float(by_partition(table, devices, failing).sum())
        index = levels.index[narrow]
        holding = np.unique(np.concatenate([index[np.unique(row)] for row in table]))
        repair = np.broadcast_to(np.asarray(hazard.repair_h, np.float64), (len(levels.tiers[narrow]),))[holding]
        bounds = (float(repair.min()), float(repair.max()))
        result.append(LossPerYear(level, hazard.per_year, bounds, lost, lost / len(table[0])))
    return result


def by_partition(table: Table, devices: Sequence[Device], hazards: Mapping[str, Hazard]) -> Floats:
    """Losses per year, expected, of each partition."""
    whole = square(table)
    levels = Levels(devices)
    failing = []
    for level in range(len(LEVELS) - 1, -1, -1):
        hazard = hazards.get(LEVELS[level], Hazard(0.0, 0.0))
        frequency, down = _frequency(hazard, len(levels.tiers[level]))
        failing.append((levels.index[level], frequency, down))
    pieces = [_losses(whole[:, start : start + CHUNK], failing) for start in range(0, whole.shape[1], CHUNK)]
    return np.concatenate(pieces)


def _frequency(hazard: Hazard, units: int) -> tuple[Floats, Floats]:
    """By unit: failures per year, and the part of its life that it is down; one more, no device's, that is neither."""
    repair = np.broadcast_to(np.asarray(hazard.repair_h, np.float64) / HOURS_PER_YEAR, (units,))
    frequency = np.zeros(units + 1)
    frequency[:units] = hazard.per_year / (1.0 + hazard.per_year * repair)
    down = np.zeros(units + 1)
    down[:units] = frequency[:units] * repair
    return frequency, down


def _losses(whole: NDArray[np.uint16], failing: Sequence[tuple[NDArray[np.int32], Floats, Floats]]) -> Floats:
    """Up the tree: the probability that all below a unit is down, and its slope along the frequencies, level by level.

    A branch stands in the row of its first replica; the other rows of it hold 1 and 0, which change no product.
    """
    there = whole != NO_DEVICE
    chance = np.where(there, 0.0, 1.0)  # a replica does not fail by itself
    slope = np.zeros(whole.shape)
    for index, frequency, down in failing:
        numbers = index[whole]
        for one in range(1, len(whole)):
            for other in range(one):
                same = there[one] & there[other] & (numbers[one] == numbers[other])
                if same.any():
                    slope[other][same] = slope[other][same] * chance[one][same] + chance[other][same] * slope[one][same]
                    chance[other][same] *= chance[one][same]
                    chance[one][same], slope[one][same] = 1.0, 0.0
                    there[one] &= ~same
        q = down[numbers]
        slope = np.where(there, frequency[numbers] * (1.0 - chance) + (1.0 - q) * slope, 0.0)
        chance = np.where(there, q + (1.0 - q) * chance, 1.0)
    total: Floats = chance[0]
    lost: Floats = slope[0]
    for row in range(1, len(whole)):
        lost = lost * chance[row] + total * slope[row]
        total = total * chance[row]
    return lost


# ---- how long a repair takes


def widths(table: Table, devices: Sequence[Device]) -> dict[str, NDArray[np.int64]]:
    """Scatter width by level and unit: how many devices outside it share a partition with one inside it, and so can rebuild it."""
    whole = square(table)
    levels = Levels(devices)
    positions = levels.index[3]
    result = {}
    for level, name in enumerate(LEVELS):
        units, index = len(levels.tiers[level]), levels.index[level]
        numbers, places = index[whole], positions[whole]
        keys = []
        for one in range(len(whole)):
            for other in range(len(whole)):
                meets = (numbers[one] != numbers[other]) & (whole[one] != NO_DEVICE) & (whole[other] != NO_DEVICE)
                keys.append(numbers[one][meets].astype(np.int64) * len(devices) + places[other][meets])
        if units * len(devices) <= GRID_MAX:
            grid = np.zeros(units * len(devices), bool)
            for key in keys:
                grid[key] = True
            result[name] = grid.reshape(units, len(devices)).sum(axis=1)
        else:
            pairs = np.unique(np.concatenate(keys))
            result[name] = np.bincount(pairs // len(devices), minlength=units)
    return result


def repair_hours(
    table: Table, devices: Sequence[Device], *, replica_bytes: float, rate: float, detect_h: float
) -> dict[str, Floats]:
    """By level and unit: until it is noticed, and until every device that shares a partition with it has sent its even part of what
    the unit held, ``replica_bytes`` for each replica, at ``rate`` bytes/s.  A unit that shares none has nothing to copy from."""
    if not (rate > 0 and np.isfinite(rate)):
        raise BadInput(f"a rate is more than 0 bytes/s, not {rate}")
    levels = Levels(devices)
    sources = widths(table, devices)
    result = {}
    for level, name in enumerate(LEVELS):
        index = levels.index[level]
        held = np.zeros(len(levels.tiers[level]) + 1)
        for row in table:
            held += np.bincount(index[row], minlength=len(held))
        width = sources[name]
        result[name] = detect_h + np.where(width > 0, held[:-1] * replica_bytes / (np.maximum(width, 1) * rate) / 3600.0, 0.0)
    return result
