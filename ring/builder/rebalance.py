"""One rebalance, put together: the steps of ``moves.py`` and ``paths.py`` over a table, and the account of what they left.

Decides nothing about single moves.  Pure, deterministic from the seed; numpy.  Neighbours: ``builder.py`` (when, and what is kept).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ring.builder.measure import IDS, Table, square
from ring.builder.moves import Slots, State, Waits, direct, exchange
from ring.builder.paths import Paths
from ring.builder.quota import Targets
from ring.builder.shuffle import Shuffler
from ring.device import Device
from ring.placement import NO_DEVICE

_CHUNKS = 64
ATTEMPTS = 8
ATTEMPT_CELLS = 1 << 16  # of all attempts together


@dataclass(frozen=True, slots=True)
class Outcome:
    table: Table
    moved: Slots  # partitions
    moves: int
    lower_bound: int
    waits: Waits

    @property
    def rest(self) -> int:
        """What another choice of moves might have spared the next pass."""
        return self.waits.again + self.waits.stuck + self.waits.crowded


def rebalanced(
    table: Table,
    devices: Sequence[Device],
    goal: Targets,
    removed: Set[int],
    unlocks_at: NDArray[np.float64],
    now: float,
    seed: int,
) -> Outcome:
    """``unlocks_at``: by partition, the wall second from which it may move; replicas on ``removed`` devices may at any time.

    Chance decides which of many equal moves are made first; on a small or crowded ring what is left after that may have no path.
    Where a pass is not plainly the best there is, more are tried, as long as that is cheap, and the best of them counts."""
    gone = np.zeros(IDS, bool)
    gone[list(removed)] = True
    free = (unlocks_at <= now) | gone[square(table)]

    def attempt(seed: int) -> Outcome:
        return _attempt(State(table, devices, goal, free), gone, unlocks_at, now, Shuffler(seed))

    best = attempt(seed)
    waits_anyway = bool((unlocks_at > now).any())
    seeds = Shuffler(~seed).words(min(ATTEMPTS, ATTEMPT_CELLS // max(1, sum(map(len, table)))))
    for other in seeds.tolist():
        if best.moves <= best.lower_bound and (waits_anyway or not best.rest):
            break
        again = attempt(other)
        if (again.rest, again.moves) < (best.rest, best.moves):
            best = again
    return best


def _attempt(state: State, gone: NDArray[np.bool_], unlocks_at: NDArray[np.float64], now: float, shuffler: Shuffler) -> Outcome:
    lower_bound = int(np.maximum(state.surplus, 0).sum())
    before = state.cells.copy()
    _fill(state, shuffler)
    direct(state, shuffler)
    _settle(state, shuffler, unlocks_at > now, gone)
    exchange(state, shuffler)
    _uncrowd(state, shuffler)
    if len(state.origin) > lower_bound:
        Paths(state, shuffler).thrift(lower_bound)
    _rescue(state, gone)
    changed = state.cells != before
    moved = np.flatnonzero(changed.any(axis=0))
    waits = _waits(state, changed.any(axis=0), unlocks_at, now, gone)
    return Outcome(state.table(), moved, int(changed.sum()), lower_bound, waits)


def _fill(state: State, shuffler: Shuffler) -> None:
    """New replicas get their places first.  They are no loss to anybody, so several of one partition may; the others of
    their partition stay then."""
    if not state.empty.any():
        return
    movable = state.free
    state.free = state.empty.copy()
    for _ in range(state.replicas):
        direct(state, shuffler)
    filled = state.empty & (state.cells != NO_DEVICE)
    state.free = movable & ~filled.any(axis=0) | (state.empty & ~filled)


def _settle(state: State, shuffler: Shuffler, locked: NDArray[np.bool_], gone: NDArray[np.bool_]) -> None:
    over = np.flatnonzero(state.surplus > 0)
    if not len(over):
        return
    paths = Paths(state, shuffler)
    for device in over[np.argsort(-state.surplus[over], kind="stable")].tolist():
        held = np.flatnonzero((state.cells == device).any(axis=0))
        detours = bool(gone[device]) or not locked[held].any()  # what waits for its time finds a place without
        while state.surplus[device] > 0 and paths.settle(device, detours=detours):
            pass


def _uncrowd(state: State, shuffler: Shuffler) -> None:
    crowded = state.crowded_slots()
    if not len(crowded):
        return
    paths = Paths(state, shuffler)
    for slot in crowded.tolist():
        if state.free.reshape(-1)[slot] and state.is_crowded(slot):
            paths.place(slot, detours=True)


def _rescue(state: State, gone: NDArray[np.bool_]) -> None:
    """Replicas on removed devices, and new ones, that no path could place (what is in their way may not move yet) go where they
    crowd least, if need be to a device at its quota: from there a later pass moves one replica straight on, while a crowded
    partition would have to move again itself."""
    anywhere = np.flatnonzero(state.quotas > 0)
    new = state.empty & (state.cells == NO_DEVICE)
    for slot in np.flatnonzero(new | (gone[state.cells] & state.free)).tolist():
        if not state.free.reshape(-1)[slot]:
            continue
        targets = anywhere[~np.isin(anywhere, state.cells[:, slot % state.partitions])]
        if len(targets):
            fill = state.surplus[targets] / state.quotas[targets]
            best = np.lexsort((fill, state.surplus[targets] >= 0, state.crowds(slot, targets)))
            state.move(np.array([slot]), targets[best[:1]])


def _waits(state: State, moved: NDArray[np.bool_], unlocks_at: NDArray[np.float64], now: float, gone: NDArray[np.bool_]) -> Waits:
    locked = again = again_now = stuck = 0
    until: float | None = None
    for device in np.flatnonzero(state.surplus > 0).tolist():
        left = int(state.surplus[device])
        held = np.flatnonzero((state.cells == device).any(axis=0))
        times = np.sort(unlocks_at[held[(unlocks_at[held] > now) & ~moved[held]]])
        waiting = min(left, len(times))
        if waiting:
            until = max(until or 0.0, float(times[waiting - 1]))
        follows = min(left - waiting, int(moved[held].sum()))
        again_now += follows if gone[device] else 0
        locked, again, stuck = locked + waiting, again + follows, stuck + left - waiting - follows
    crowded = int(state.crowded_anywhere().any(axis=0).sum())
    return Waits(locked, again, stuck, crowded, until, again_now)


def resized(table: Table, rows: Sequence[int], quotas: Mapping[int, int], seed: int) -> Table:
    """The table with rows of these lengths: NO_DEVICE where a replica is new; where one is too many, the one whose device is
    furthest above its quota is let go."""
    old = square(table)
    partitions = old.shape[1]
    keep = np.where(np.arange(partitions) < rows[-1], len(rows), len(rows) - 1)
    height = max(len(rows), len(table))
    cells = np.full((height, partitions), NO_DEVICE, np.uint16)
    cells[: len(table)] = old
    shuffler = Shuffler(seed)
    weight = np.zeros(IDS, np.float64)
    for device_id, quota in quotas.items():
        weight[device_id] = quota
    present = cells != NO_DEVICE
    held = np.bincount(cells[present], minlength=IDS).astype(np.float64)
    order = shuffler.order(partitions)
    for chunk in np.array_split(order, min(_CHUNKS, partitions)):
        while True:
            surplus = present[:, chunk].sum(axis=0) > keep[chunk]
            columns = chunk[surplus]
            if not len(columns):
                break
            score = np.where(
                present[:, columns], (held - weight)[cells[:, columns]] / np.maximum(weight, 1)[cells[:, columns]], -np.inf
            )
            row = np.argmax(score, axis=0)
            np.subtract.at(held, cells[row, columns], 1)
            cells[row, columns] = NO_DEVICE
            present[row, columns] = False
    packed = np.argsort(~present, axis=0, kind="stable")
    cells = np.take_along_axis(cells, packed, axis=0)
    return tuple(cells[row, :length].copy() for row, length in enumerate(rows))
