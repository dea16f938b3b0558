"""The fast way to ask which moves are legal says what the plain one says."""

from __future__ import annotations

from fractions import Fraction
from random import Random

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ring.builder.moves import State
from ring.builder.quota import Targets, tiers_of
from ring.device import Device
from ring.placement import NO_DEVICE

places = st.lists(st.tuples(st.integers(1, 2), st.integers(1, 3), st.integers(1, 3)), min_size=4, max_size=12)


@settings(deadline=None)
@given(places, st.integers(1, 4), st.randoms(use_true_random=False))
def test_the_grid_is_every_slot_with_every_target(given_places: list[tuple[int, int, int]], replicas: int, rng: Random) -> None:
    devices = [Device(2 * i, r, z, f"10.{r}.{z}.{s}", 6200, f"d{i}", 1.0) for i, (r, z, s) in enumerate(given_places)]
    ids = [device.id for device in devices]
    partitions = 8
    columns = [rng.sample(ids, replicas) for _ in range(partitions)]
    table = [np.array(row, np.uint16) for row in zip(*columns, strict=True)]
    table[0][rng.randrange(partitions)] = NO_DEVICE
    tiers = {
        tier for device in devices for tier in tiers_of(device)[: rng.randint(1, 4)]
    }  # some have no limit: nothing may go there
    shares = dict.fromkeys(ids, Fraction(1))
    goal = Targets(shares, shares, dict.fromkeys(ids, 1), {tier: rng.randint(0, 3) for tier in tiers})
    state = State(tuple(table), devices, goal, np.ones((replicas, partitions), bool))
    slots = np.array(rng.sample(range(replicas * partitions), rng.randint(1, replicas * partitions)), np.int64)
    targets = np.array(sorted(rng.sample(ids, rng.randint(1, len(ids)))), np.int64)
    grid = state.legal_grid(slots, targets)
    assert grid.shape == (len(slots), len(targets))
    for slot, row in zip(slots.tolist(), grid.tolist(), strict=True):
        assert state.legal(np.full(len(targets), slot), targets).tolist() == row
