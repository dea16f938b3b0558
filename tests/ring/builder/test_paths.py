"""Searches for paths: what has shown itself to lead nowhere is not searched again, and patience has an end."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ring.builder.measure import Table
from ring.builder.moves import Mask, Slots, State
from ring.builder.paths import ASKED, Paths
from ring.builder.quota import Targets, tiers_of
from ring.builder.shuffle import Shuffler
from ring.device import Device

DEVICES = [Device(number, 1, number + 1, f"10.0.0.{number + 1}", 6200, "sdb", 1.0) for number in range(3)]
ROOMY = Targets({}, {}, {}, {tier: 2 for device in DEVICES for tier in ((), *tiers_of(device))})


class CountingState(State):
    looks = 0

    def legal_grid(self, slots: Slots, targets: NDArray[np.int64]) -> Mask:
        self.looks += 1
        return super().legal_grid(slots, targets)


def state_of(*rows: Sequence[int], quotas: dict[int, int]) -> CountingState:
    table: Table = tuple(np.array(row, np.uint16) for row in rows)
    goal = Targets({}, {}, quotas, ROOMY.limits)
    return CountingState(table, DEVICES, goal, np.ones((len(rows), len(rows[0])), bool))


def test_what_led_nowhere_is_not_searched_again_in_a_hurry() -> None:
    state = state_of([0, 0], [1, 1], quotas={0: 1, 1: 3})  # both partitions of device 0 are on device 1 already
    paths = Paths(state, Shuffler(1), patience=3 * ASKED)
    assert not paths.settle(0, detours=True)
    looks = state.looks
    assert looks > 0
    assert not paths.settle(0, detours=True)
    assert state.looks == looks


def test_without_patience_nothing_is_searched_or_changed() -> None:
    rows, quotas = ([0, 0], [1, 2]), {0: 1, 1: 2, 2: 1}
    state = state_of(*rows, quotas=quotas)
    assert not Paths(state, Shuffler(1), patience=0).settle(0, detours=True)
    assert state.cells.tolist() == list(rows)
    assert Paths(state, Shuffler(1)).settle(0, detours=True)
    assert state.cells.tolist() == [[0, 1], [1, 2]]
