"""Augmenting paths: a surplus replica that fits nowhere directly finds its place through other devices.

A search from the device with one too many, breadth first.  Device x hands a replica to device y when that is legal: one that it
held before the pass (its own), or one that arrived in this pass, which goes elsewhere instead; an arrival can also go back to
where it came from, which then has one too many.  If another replica of the partition moves in this pass, x's can move in its
stead, to where that one goes: then the device that keeps that one has one too many.  A path ends at a device below quota.

First only edges that cost no move beyond the one that the surplus takes anyhow: own replicas of devices that were above quota,
and arrivals. Then, where ``detours`` allows it, any.  All edges of a path belong to different partitions, so that each is judged
by itself.

Neighbours: ``moves.py`` (State, and the steps before and after).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from ring.builder.moves import Mask, Slots, State
from ring.builder.shuffle import Shuffler
from ring.placement import NO_DEVICE

SAMPLE = 256  # replicas of a device that are tried for edges to devices that are full too
PATIENCE = 1 << 27  # what is spent in search of paths, in replicas x devices below quota that are tried: some ten seconds
ASKED = 1 << 13  # of it for each device that is asked
THRIFT = 1 << 18  # what is spent in search of cycles that save a move: devices asked x (devices that they look at + a start)
FIRST_CELLS = 512  # replicas x devices below quota that are tried at once, at first
FIRST_SLOTS = 8  # of them, tried first
Ids = NDArray[np.int64]


class Paths:
    def __init__(self, state: State, shuffler: Shuffler, *, patience: int = PATIENCE) -> None:
        """``patience``: a change of nearly everything can leave more to search than anybody waits for.  When it is spent no path is
        found any more: what has no place then waits for the next pass, as what has no path does."""
        self._state = state
        self._shuffler = shuffler
        flat = state.cells.reshape(-1).copy()
        for slot, source in state.origin.items():
            flat[slot] = source
        before = np.bincount(flat[flat != NO_DEVICE], minlength=NO_DEVICE + 1)
        self._above = before > state.quotas  # before the pass: what they hand on, they must
        self._above[NO_DEVICE] = True
        self._targets = np.flatnonzero(state.quotas > before)  # were below quota before the pass
        self._anywhere = np.flatnonzero(state.quotas > 0)
        order = np.argsort(flat, kind="stable")
        self._own_slots = order
        self._own_starts = np.searchsorted(flat[order], np.arange(NO_DEVICE + 2))
        self._patience = patience
        self._hurry = patience // 2  # from when on what led nowhere before is left out
        self._looks = 0
        self._hopeless: tuple[set[int], set[int]] = set(), set()  # devices that no path leads on from: without and with detours
        self._arrivals: dict[int, set[int]] = {}
        self._moved = np.full(state.partitions, -1, np.int64)  # the slot that moves in this pass
        for slot, source in state.origin.items():
            if source != NO_DEVICE:
                self._moved[slot % state.partitions] = slot
            self._arrivals.setdefault(int(state.cells.reshape(-1)[slot]), set()).add(slot)

    def settle(self, device: int, *, detours: bool) -> bool:
        """One replica leaves ``device`` and one arrives at a device below quota; False, and nothing changed, if there is no
        path.

        A search that fails has shown that the devices it came by lead nowhere, and a path found later seldom changes that: it goes
        through others only, and places below quota only get fewer.  So when half of the patience is spent, no device is searched
        in vain twice.  (Seldom, not never: paths that share a partition exclude each other.)"""
        thrifty, any_way = self._hopeless
        return self._search(device, self._targets, lambda x: bool(self._above[x]), hopeless=thrifty) or (
            detours and self._search(device, self._anywhere, lambda x: True, hopeless=any_way)
        )

    def place(self, slot: int, *, detours: bool) -> bool:
        """The replica in ``slot`` leaves its device for any legal one, whichever must hand on something for it."""
        state = self._state
        source = int(state.cells.reshape(-1)[slot])
        grid = state.legal_grid(np.array([slot]), self._anywhere)[0]
        choices = self._anywhere[grid]
        if not len(choices):
            return False
        choices = choices[np.argsort(state.surplus[choices], kind="stable")]
        for target in choices[:8].tolist():
            roomy = state.surplus[target] < 0
            self._step(slot, target)
            self._hopeless = set(), set()  # there is one more place below quota: where the replica was
            if roomy or state.surplus[target] <= 0 or self.settle(target, detours=detours):
                return True
            self._step(slot, source)
        return False

    def thrift(self, least: int) -> None:
        """Fewer moves to the same counts, ``least`` at the best: a replica goes back to where it came from, and a path that costs
        nothing takes what is one too many there to where one is missing now.  (A negative cycle of the flow.)  On large rings not
        all that are there are found."""
        state = self._state
        self._looks = THRIFT
        saved = True
        while saved:
            saved = False
            slots = np.array(sorted(slot for slot, source in state.origin.items() if source != NO_DEVICE), np.int64)
            sources = np.array([state.origin[slot] for slot in slots.tolist()], np.int64)
            for slot in slots[state.legal(slots, sources)].tolist():
                if len(state.origin) <= least or self._looks <= 0:
                    return
                source = state.origin.get(slot, NO_DEVICE)
                if source == NO_DEVICE or not state.legal(np.array([slot]), np.array([source]))[0]:
                    continue  # not any more
                target = int(state.cells.reshape(-1)[slot])
                self._step(slot, source)
                if state.surplus[source] <= 0 or self._search(source, self._anywhere, lambda x: False, swaps=True):
                    saved = True
                else:
                    self._step(slot, target)

    # ---- the search

    def _search(
        self,
        start: int,
        targets: Ids,
        hands_on_own: Callable[[int], bool],
        *,
        swaps: bool = False,
        hopeless: set[int] | None = None,
    ) -> bool:
        """``swaps``: what a device held before may move in the stead of another of its partition, at least.  ``hopeless`` grow
        when there is no path, and are left out in a hurry."""
        state = self._state
        vain = set() if hopeless is None else hopeless
        hopeless = vain if self._patience < self._hurry else set()
        below = np.flatnonzero(state.surplus < 0)
        if not len(below) or start in hopeless or self._patience <= 0:
            return False
        came: dict[int, tuple[int, int]] = {start: (-1, -1)}  # device -> the device before it, the slot handed on
        unseen = np.zeros(NO_DEVICE + 1, bool)
        unseen[targets] = True
        unseen[below] = False
        unseen[start] = False
        unseen[list(hopeless)] = False
        frontier = [start]
        while frontier:
            for giver in frontier:
                slots = self._slots(giver, came, hands_on_own(giver))
                found = self._first_legal(slots, below)
                if found is not None:
                    self._walk(came, giver, *found)
                    return True
            following = []
            for giver in frontier:
                self._looks -= len(targets) + 64
                self._patience -= ASKED
                if self._patience <= 0:
                    return False
                slots = self._slots(giver, came, hands_on_own(giver))
                for slot, taker in self._edges(giver, slots, swaps or hands_on_own(giver), np.flatnonzero(unseen), came):
                    if taker in hopeless:
                        continue
                    came[taker] = (giver, slot)
                    unseen[taker] = False
                    following.append(taker)
            frontier = following
        vain.update(came)
        return False

    def _slots(self, giver: int, came: dict[int, tuple[int, int]], own: bool) -> Slots:
        """What ``giver`` may hand on, in random order: no partition that is on the path to it already."""
        state = self._state
        arrivals = np.fromiter(sorted(self._arrivals.get(giver, ())), np.int64)
        if own:
            held = self._held(giver)
            held = held[state.free.reshape(-1)[held]]
            slots = np.concatenate([arrivals, held[self._shuffler.order(len(held))]])
        else:
            slots = arrivals
        used = self._used(giver, came)
        return slots[~np.isin(slots % state.partitions, used)] if used else slots

    def _held(self, giver: int) -> Slots:
        """What it held before the pass, and still does."""
        held: Slots = self._own_slots[self._own_starts[giver] : self._own_starts[giver + 1]]
        still: Mask = self._state.cells.reshape(-1)[held] == giver
        return held[still]

    def _may_move(self, slots: Slots) -> Mask:
        """Nothing but the move of another replica of their partition is in their way."""
        return self._state.free_at_first.reshape(-1)[slots]

    def _used(self, giver: int, came: dict[int, tuple[int, int]]) -> list[int]:
        used = []
        while came[giver][0] >= 0:
            giver, slot = came[giver]
            used.append(slot % self._state.partitions)
        return used

    def _first_legal(self, slots: Slots, below: Ids) -> tuple[int, int] | None:
        start, cells = 0, FIRST_CELLS  # the first few replicas mostly do; only where none does, all are looked at
        while start < len(slots):
            some = slots[start : start + max(1, cells // max(1, len(below)))]
            grid = self._state.legal_grid(some, below)
            self._patience -= grid.size
            places = np.flatnonzero(grid)
            if len(places):
                place = int(places[0])
                return int(some[place // len(below)]), int(below[place % len(below)])
            start, cells = start + len(some), min(4 * cells, 1 << 16)
        return None

    def _edges(
        self, giver: int, slots: Slots, own: bool, unseen: Ids, came: dict[int, tuple[int, int]]
    ) -> Iterator[tuple[int, int]]:
        """(slot, taker) for each device not seen yet that can take something from ``giver``."""
        state = self._state
        arrivals = self._arrivals.get(giver, set())
        some = slots[:SAMPLE]
        found: dict[int, int] = {}
        start, count = 0, FIRST_SLOTS
        while start < len(some) and len(unseen):  # nearly all takers can have one of the first few
            tried = some[start : start + count]
            grid = state.legal_grid(tried, unseen)
            takes = grid.any(axis=0)
            found |= zip(unseen[takes].tolist(), tried[grid.argmax(axis=0)[takes]].tolist(), strict=True)
            unseen = unseen[~takes]
            start, count = start + count, 4 * count
        for taker in sorted(found):
            yield found[taker], taker
        for slot in sorted(arrivals):
            source = state.origin[slot]
            if source not in came and source != NO_DEVICE and state.legal(np.array([slot]), np.array([source]))[0]:
                yield slot, source
        yield from self._instead(giver, own, came)

    def _instead(self, giver: int, own: bool, came: dict[int, tuple[int, int]]) -> Iterator[tuple[int, int]]:
        """Own replicas that can move in the stead of another one of their partition, which then stays where it was: (slot,
        there)."""
        state = self._state
        if not own:
            return
        slots = self._held(giver)
        slots = slots[self._may_move(slots) & (self._moved[slots % state.partitions] >= 0)]
        slots = slots[self._moved[slots % state.partitions] != slots]
        if not len(slots):
            return
        sources = np.array([state.origin[slot] for slot in self._moved[slots % state.partitions].tolist()])
        used = self._used(giver, came)
        for slot, source in zip(*(part[state.legal(slots, sources)].tolist() for part in (slots, sources)), strict=True):
            if source not in came and slot % state.partitions not in used:
                yield slot, source

    def _walk(self, came: dict[int, tuple[int, int]], giver: int, slot: int, taker: int) -> None:
        while True:
            self._step(slot, taker)
            taker = giver
            giver, slot = came[taker]
            if giver < 0:
                return

    def _step(self, slot: int, target: int) -> None:
        """From where it is to ``target``; back to where it came from counts as no move at all."""
        state = self._state
        instead = int(self._moved[slot % state.partitions])
        if instead not in (-1, slot):
            stays, target = target, int(state.cells.reshape(-1)[instead])
            self._step(instead, stays)
        source = int(state.cells.reshape(-1)[slot])
        state.move(np.array([slot]), np.array([target]))
        self._arrivals.get(source, set()).discard(slot)
        if slot in state.origin:
            self._arrivals.setdefault(target, set()).add(slot)
            self._moved[slot % state.partitions] = -1 if state.origin[slot] == NO_DEVICE else slot
        else:
            self._moved[slot % state.partitions] = -1
            state.release(slot)
