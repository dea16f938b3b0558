"""A rebalance: the fewest replicas that can change device so that every device is at its quota and no tier is crowded.

Decides which replica goes where; ``quota.py`` says how many each device should hold, ``builder.py`` keeps the outcome.  Never
changes the table that it is given.  Pure, deterministic from the seed; numpy.

One pass moves at most one replica of any partition.  No fewer than ``lower bound`` = sum over devices of max(0, held - quota) can
move, over all passes.  A pass goes in three steps, each only for what the one before it left:

1. direct: surplus replicas and devices below quota are paired by lot, and the pairs that are legal move (all at once).
2. paths: a surplus replica that fits nowhere directly goes to a full device that hands one on, and so on to a device below
   quota: the augmenting path of a flow.  Paths through replicas that arrive in this pass anyway cost nothing: those go
   elsewhere, or stay where they came from and another leaves instead.  Only if there is no such path does a replica move that
   need not.
3. crowded: a replica in a crowded tier is exchanged for one that does not mind; every device keeps its count.

A move is legal when its partition has no replica on the target, and no tier that it enters has as many of the partition as its
limit.  Neighbours: ``paths.py`` (step 2), ``measure.py`` (levels).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ring.builder.measure import IDS, Levels, Table, alike, square
from ring.builder.quota import Targets
from ring.builder.shuffle import Shuffler, mix, order_by
from ring.device import Device
from ring.placement import NO_DEVICE

DIRECT_ROUNDS = 24
PAIRINGS = 4  # of the same candidates with other targets
EXCHANGE_ROUNDS = 96  # at most
EXCHANGE_IDLE = 4  # rounds without an exchange: there is none
EXCHANGE_TRIES = 4096  # in a round, or one for each crowded replica
Slots = NDArray[np.int64]  # places in the square table, row * partitions + partition
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Waits:
    """Replicas above their device's quota that a pass left there, and why."""

    locked: int = 0  # their partition moved within min_part_hours
    again: int = 0  # another replica of their partition moved in this pass
    stuck: int = 0  # no legal place
    crowded: int = 0  # partitions that stay crowded, for one of these reasons
    until: float | None = None  # wall seconds: when the last that waits for a time may move
    again_now: int = 0  # of ``again``, on removed devices: no time hinders the next pass

    @property
    def total(self) -> int:
        return self.locked + self.again + self.stuck


class State:
    """The table in the course of a pass.

    Invariants: a partition has no two replicas on one device; ``surplus`` is held - quota of every device; ``origin`` has every
    slot that differs from the table before the pass, and no two of one partition, but for slots that were empty."""

    def __init__(self, table: Table, devices: Sequence[Device], targets: Targets, free: Mask) -> None:
        """``free``: (replicas, partitions), the replicas that may move now.  Slots with NO_DEVICE are to be filled."""
        self.cells = square(table)
        self.rows = [len(row) for row in table]
        self.replicas, self.partitions = self.cells.shape
        self.levels = Levels(devices)
        self.tiers = [index[self.cells] for index in self.levels.index[:3]]
        self.limits = [self.levels.limits(level, targets.limits) for level in range(3)]
        quotas = np.zeros(IDS, np.int64)
        for device_id, quota in targets.quotas.items():
            quotas[device_id] = quota
        self.quotas = quotas
        exists = np.arange(self.partitions) < np.array(self.rows)[:, None]
        self.held = np.bincount(self.cells[exists], minlength=IDS)
        self.surplus = self.held - quotas
        self.free = free & exists
        self.empty = (self.cells == NO_DEVICE) & exists
        self.free |= self.empty
        self.free_at_first = self.free.copy()
        self.origin: dict[int, int] = {}

    # ---- looking

    def crowded(self, level: int) -> Mask:
        """(replicas, partitions): replicas that stand in a tier of the level with more of their partition than its limit."""
        tiers = self.tiers[level]
        count, _ = alike(tiers)
        result: Mask = (count > self.limits[level][tiers]) & (self.cells != NO_DEVICE)
        return result

    def crowded_anywhere(self) -> Mask:
        return self.crowded(0) | self.crowded(1) | self.crowded(2)

    def crowded_slots(self) -> Slots:
        slots: Slots = np.flatnonzero(self.crowded_anywhere() & self.free)
        return slots

    def is_crowded(self, slot: int) -> bool:
        column = slot % self.partitions
        row = slot // self.partitions
        here = [(index[:, column], index[row, column]) for index in self.tiers]
        return any(int((tiers == tier).sum()) > limits[tier] for (tiers, tier), limits in zip(here, self.limits, strict=True))

    def crowds(self, slot: int, targets: NDArray[np.int64]) -> NDArray[np.int64]:
        """By how many replicas the tiers of each target would be above their limits with one more of the slot's partition."""
        result = np.zeros(len(targets), np.int64)
        for level in range(3):
            there = self.levels.index[level][targets]
            count = (self.tiers[level][:, slot % self.partitions, None] == there).sum(axis=0)
            result += np.maximum(0, count + 1 - self.limits[level][there])
        return result

    def legal(self, slots: Slots, targets: NDArray[np.int64]) -> Mask:
        """May the replica in each slot go to the target beside it?  A replica that stands in a crowded tier must leave that."""
        columns = slots % self.partitions
        rows = slots // self.partitions
        result: Mask = ~(self.cells[:, columns] == targets).any(axis=0)
        for level in range(3):
            there = self.levels.index[level][targets]
            column_tiers = self.tiers[level][:, columns]
            here = self.tiers[level][rows, columns]
            count_there = (column_tiers == there).sum(axis=0)
            count_here = (column_tiers == here).sum(axis=0)
            limits = self.limits[level]
            result &= np.where(here == there, count_here <= limits[here], count_there < limits[there])
        return result

    def legal_grid(self, slots: Slots, targets: NDArray[np.int64]) -> Mask:
        """(slots, targets): as ``legal``, each with each.  ``targets`` ascend.  Decided server by server, as the devices of one are
        alike but for those that hold the partition."""
        columns, rows = slots % self.partitions, slots // self.partitions
        _, first, server = np.unique(self.levels.index[2][targets], return_index=True, return_inverse=True)
        fits = np.ones((len(slots), len(first)), bool)
        for level in range(3):
            there = self.levels.index[level][targets[first]]
            column_tiers = self.tiers[level][:, columns]
            here = self.tiers[level][rows, columns]
            count_there = (column_tiers[:, :, None] == there).sum(axis=0, dtype=np.int32)
            stays = (column_tiers == here).sum(axis=0) <= self.limits[level][here]
            fits &= np.where(here[:, None] == there, stays[:, None], count_there < self.limits[level][there])
        grid: Mask = fits[:, server]
        holders = self.cells[:, columns].astype(np.int64)
        places = np.minimum(np.searchsorted(targets, holders), len(targets) - 1)
        replica, number = np.nonzero(targets[places] == holders)
        grid[number, places[replica, number]] = False
        return grid

    # ---- moving

    def move(self, slots: Slots, targets: NDArray[np.int64]) -> None:
        """Legal moves, no two of one partition.  A slot that moved before in this pass goes on, or back."""
        flat = self.cells.reshape(-1)
        sources = flat[slots].astype(np.int64)
        flat[slots] = targets
        for level in range(3):
            self.tiers[level].reshape(-1)[slots] = self.levels.index[level][targets]
        np.subtract.at(self.surplus, sources, 1)
        np.add.at(self.surplus, targets, 1)
        for slot, source, target in zip(slots.tolist(), sources.tolist(), targets.tolist(), strict=True):
            before = self.origin.setdefault(slot, source)
            if before == target:
                del self.origin[slot]
        columns = slots % self.partitions
        self.free[:, columns] = self.empty[:, columns] & (self.cells[:, columns] == NO_DEVICE)

    def release(self, slot: int) -> None:
        """A slot whose move was taken back: its partition may move again."""
        column = slot % self.partitions
        self.free[:, column] = self.free_at_first[:, column]

    def table(self) -> Table:
        return tuple(self.cells[row, :length].copy() for row, length in enumerate(self.rows))


def direct(state: State, shuffler: Shuffler) -> None:
    """Step 1, in rounds: the odds of a legal pair fall as places fill."""
    crowded = state.crowded_anywhere()
    for attempt in range(DIRECT_ROUNDS):
        candidates = _candidates(state, crowded, shuffler, 4.0 * 2**attempt)
        if not len(candidates):
            return
        before = len(candidates)
        for _ in range(PAIRINGS):
            below = np.flatnonzero(state.surplus < 0)
            places = np.repeat(below, -state.surplus[below])
            if not len(candidates) or not len(places):
                break
            places = places[shuffler.order(len(places))][: len(candidates)]
            tried = candidates[: len(places)]
            legal = _one_per_partition(state, tried, state.legal(tried, places))
            state.move(tried[legal], places[legal])
            candidates = np.concatenate([tried[~legal], candidates[len(places) :]])
            candidates = candidates[state.free.reshape(-1)[candidates]]
            candidates = candidates[shuffler.order(len(candidates))]
        if len(candidates) > 0.98 * before and before < 4096:
            return


def _candidates(state: State, crowded: Mask, shuffler: Shuffler, part: float) -> Slots:
    """As many free replicas of each device as it has too many, crowded ones first, then by lot; of the others only ``part``
    times as many as there are too many are looked at."""
    flat = state.cells.reshape(-1)
    slots = np.flatnonzero(state.free.reshape(-1) & (state.surplus > 0)[flat])
    if not len(slots):
        return slots
    words = shuffler.words(len(slots))
    holders = flat[slots]
    chance = np.clip(part * state.surplus / np.maximum(1, state.held), 0.0, 1.0) * (2.0**32 - 1)
    kept = ((words >> np.uint64(32)) <= chance.astype(np.uint64)[holders]) | crowded.reshape(-1)[slots]
    slots, words, holders = slots[kept], mix(words[kept]), holders[kept]
    groups = (holders.astype(np.uint64) << np.uint64(1)) | (~crowded.reshape(-1)[slots]).astype(np.uint64)
    order = order_by(words, groups)
    slots, holders = slots[order], holders[order]
    begins = np.concatenate([[True], holders[1:] != holders[:-1]])
    starts = np.maximum.accumulate(np.where(begins, np.arange(len(holders)), 0))
    chosen = slots[np.arange(len(holders)) - starts < state.surplus[holders]]
    return chosen[shuffler.order(len(chosen))]


def _one_per_partition(state: State, slots: Slots, legal: Mask) -> Mask:
    """Of several legal slots of one partition the first."""
    chosen = np.flatnonzero(legal)
    _, first = np.unique(slots[chosen] % state.partitions, return_index=True)
    result = np.zeros(len(slots), bool)
    result[chosen[first]] = True
    return result


def exchange(state: State, shuffler: Shuffler) -> None:
    """Step 3: crowded replicas trade places with replicas drawn by lot, where that leaves both partitions uncrowded."""
    among, idle = True, 0  # an exchange of two crowded ones mends both: those first
    for _ in range(EXCHANGE_ROUNDS):
        crowded = state.crowded_slots()
        if not len(crowded) or idle == EXCHANGE_IDLE:
            return
        pool = crowded if among else np.flatnonzero(state.free.reshape(-1))
        waiting = len(crowded)
        crowded = np.tile(crowded, -(-EXCHANGE_TRIES // waiting))
        crowded = crowded[shuffler.order(len(crowded))]
        others = pool[shuffler.below(len(pool), len(crowded))]
        flat = state.cells.reshape(-1)
        mine, theirs = flat[crowded].astype(np.int64), flat[others].astype(np.int64)
        legal = (state.quotas[mine] > 0) & (state.quotas[theirs] > 0) & (mine != theirs)
        legal &= state.legal(crowded, theirs)
        legal &= state.legal(others, mine)
        legal &= crowded % state.partitions != others % state.partitions
        # each partition in one exchange only: neither twice on one side nor once on both
        both = np.concatenate([crowded % state.partitions, others % state.partitions])
        owner = np.full(state.partitions, -1, np.int64)
        numbers = np.arange(len(crowded))
        ranked = np.concatenate([numbers, numbers])
        keep = np.concatenate([legal, legal])
        owner[both[keep][::-1]] = ranked[keep][::-1]
        legal &= (owner[crowded % state.partitions] == numbers) & (owner[others % state.partitions] == numbers)
        chosen = np.flatnonzero(legal)
        idle = 0 if among or len(chosen) else idle + 1
        among = among and len(chosen) > waiting // 256
        if len(chosen):
            state.move(np.concatenate([crowded[chosen], others[chosen]]), np.concatenate([theirs[chosen], mine[chosen]]))
