"""Losses per year: by hand, and against a Monte-Carlo play of the same model in virtual time."""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Callable, Mapping

import numpy as np
import pytest

from ring.builder.certificate import LEVELS
from ring.builder.durability import HOURS_PER_YEAR, Hazard, by_partition, loss_per_year, repair_hours, widths
from ring.builder.measure import Table
from ring.device import Device
from ring.errors import BadInput


def device(device_id: int, region: int, zone: int, server: int) -> Device:
    return Device(device_id, region, zone, f"10.{region}.{zone}.{server}", 6200, f"sd{device_id}", 100.0)


def table(*rows: list[int]) -> Table:
    return tuple(np.array(row, np.uint16) for row in rows)


# region 1: zone 1 (server 1: d0 d1, server 2: d2), zone 2 (d3); region 2: one server (d4, d5)
DEVICES = [device(0, 1, 1, 1), device(1, 1, 1, 1), device(2, 1, 1, 2), device(3, 1, 2, 1), device(4, 2, 1, 1), device(5, 2, 1, 1)]
#           apart  zone  server  region  two replicas only
TABLE = table([0, 0, 0, 0, 5], [3, 2, 1, 3, 2], [4, 4, 3, 2])


def test_devices_alone_by_hand() -> None:
    """All of n independent replicas down: n * w * q^(n-1) a year."""
    rate, repair_h = 0.02, 87.6
    w = 1 / (1 / rate + repair_h / HOURS_PER_YEAR)
    q = w * repair_h / HOURS_PER_YEAR
    lost = by_partition(TABLE, DEVICES, {"device": Hazard(rate, repair_h)})
    assert lost == pytest.approx([3 * w * q**2] * 4 + [2 * w * q], rel=1e-12)


def test_one_unit_that_holds_all_loses_at_its_own_rate() -> None:
    rows = table([4], [5])
    assert by_partition(rows, DEVICES, {"region": Hazard(0.5, 0.0)}) == pytest.approx([0.5], rel=1e-12)
    both = by_partition(rows, DEVICES, {"region": Hazard(0.5, 0.0), "server": Hazard(0.25, 0.0)})
    assert both == pytest.approx([0.75], rel=1e-12)


def test_rows_are_cumulative_from_devices_up() -> None:
    hazards = {"device": Hazard(0.5, 100.0), "zone": Hazard(0.1, 300.0), "region": Hazard(0.01, 900.0)}
    rows = loss_per_year(TABLE, DEVICES, hazards)
    assert [row.level for row in rows] == ["device", "server", "zone", "region"]
    assert rows[1].partitions == rows[0].partitions  # servers never fail
    assert rows[0].partitions < rows[2].partitions < rows[3].partitions
    assert rows[3].partitions == pytest.approx(by_partition(TABLE, DEVICES, hazards).sum())
    assert rows[3].object_chance == pytest.approx(rows[3].partitions / 5)
    assert rows[3].repair_h == (900.0, 900.0)


Draw = Callable[[random.Random, float], float]


def exponential(rng: random.Random, mean: float) -> float:
    return rng.expovariate(1 / mean)


def constant(rng: random.Random, mean: float) -> float:
    return mean


def play(rows: Table, hazards: Mapping[str, Hazard], repair: Draw, years: float, seed: int) -> list[int]:
    """The same words as the model's, event by event: units fail and are repaired; a partition is lost when its last way is gone.

    Gives the losses of each partition.
    """
    rng = random.Random(seed)
    paths = {d.id: [(d.region,), (d.region, d.zone), (d.region, d.zone, d.ip), (d.region, d.zone, d.ip, d.id)] for d in DEVICES}
    units = {unit: LEVELS[level] for path in paths.values() for level, unit in enumerate(path)}
    holders = [[int(row[p]) for row in rows if p < len(row)] for p in range(len(rows[0]))]
    below = {unit: [p for p, ids in enumerate(holders) if any(unit in paths[i] for i in ids)] for unit in units}
    down: set[tuple[int | str, ...]] = set()
    events: list[tuple[float, int, tuple[int | str, ...]]] = []
    count = 0
    for unit, level in sorted(units.items(), key=str):
        if level in hazards:
            heapq.heappush(events, (exponential(rng, 1 / hazards[level].per_year), count, unit))
            count += 1
    gone = [False] * len(holders)
    lost = [0] * len(holders)
    while events[0][0] < years:
        now, _, unit = heapq.heappop(events)
        hazard = hazards[units[unit]]
        if unit in down:
            down.remove(unit)
            wait = exponential(rng, 1 / hazard.per_year)
        else:
            down.add(unit)
            wait = repair(rng, float(hazard.repair_h) / HOURS_PER_YEAR)
        count += 1
        heapq.heappush(events, (now + wait, count, unit))
        for p in below[unit]:
            was, gone[p] = gone[p], all(any(one in down for one in paths[i]) for i in holders[p])
            lost[p] += gone[p] and not was
    return lost


@pytest.mark.parametrize(("repair", "seed"), [(exponential, 11), (constant, 12)])
@pytest.mark.parametrize("levels", [("device",), ("device", "server"), ("device", "server", "zone", "region")])
def test_the_model_against_playing_it(repair: Draw, seed: int, levels: tuple[str, ...]) -> None:
    """Rates so high that thousands of losses are seen, and that what is rare in a real cluster (three units down) is not."""
    all_hazards = {
        "device": Hazard(4.0, 700.0),
        "server": Hazard(1.0, 500.0),
        "zone": Hazard(0.5, 900.0),
        "region": Hazard(0.2, 1500.0),
    }
    hazards = {level: all_hazards[level] for level in levels}
    years = 3000.0
    lost = play(TABLE, hazards, repair, years, seed)
    expected = by_partition(TABLE, DEVICES, hazards)
    for partition, (seen, rate) in enumerate(zip(lost, expected, strict=True)):
        # Losses cluster a little, so that their variance is not quite their mean: allow for twice as much.
        error = math.sqrt(2 * rate * years)
        assert abs(seen - rate * years) < 4 * error, (partition, seen, rate * years)
    assert sum(lost) == pytest.approx(expected.sum() * years, rel=0.06)


def test_placement_matters() -> None:
    """Only the table tells these apart: 1: three regions' worth apart; 2: in one zone; 3: on one server."""
    hazards = {"device": Hazard(0.02, 24.0), "server": Hazard(0.01, 24.0), "zone": Hazard(0.001, 24.0)}
    apart, zone, server, _, _ = by_partition(TABLE, DEVICES, hazards)
    assert apart < zone < server


def test_scatter_widths_by_hand() -> None:
    found = widths(TABLE, DEVICES)
    #  pairs: 0-3 0-4 3-4 0-2 2-4 0-1 1-3 (0-3) 2-3 2-5
    assert list(found["device"]) == [4, 2, 4, 4, 3, 1]
    assert list(found["server"]) == [
        3,
        4,
        4,
        3,
    ]  # r1z1-1 (d0 d1): d2 d3 d4; r1z1-2 (d2): d0 d3 d4 d5; r1z2 (d3); r2 (d4 d5): d0 d2 d3
    assert list(found["zone"]) == [3, 4, 3]
    assert list(found["region"]) == [2, 3]


def test_repair_takes_what_is_held_by_the_width_at_the_rate() -> None:
    hours = repair_hours(TABLE, DEVICES, replica_bytes=3.6e12, rate=1e9, detect_h=0.5)
    held = [4, 1, 3, 3, 2, 1]
    assert hours["device"] == pytest.approx([0.5 + count / width for count, width in zip(held, [4, 2, 4, 4, 3, 1], strict=True)])
    assert hours["region"] == pytest.approx([0.5 + 11 / 2, 0.5 + 3 / 3])


def test_nothing_to_copy_from_takes_no_copying() -> None:
    rows = table([0, 1])
    assert repair_hours(rows, DEVICES, replica_bytes=1e12, rate=1.0, detect_h=2.0)["device"] == pytest.approx([2.0] * 6)
    assert by_partition(rows, DEVICES, {"device": Hazard(0.1, 0.0)}) == pytest.approx([0.1, 0.1])


def test_the_widths_of_a_large_ring_are_sorted_out_alike(many: int = 9000) -> None:
    """Above GRID_MAX pairs the same is counted in another way."""
    devices = [device(i, 1, i % 3, i // 3) for i in range(many)]
    rows = table(list(range(many)), [(i + 1) % many for i in range(many)], [(i + 2) % many for i in range(many)])
    found = widths(rows, devices)
    assert set(map(int, found["device"])) == {4}
    assert [int(w) for w in found["zone"]] == [many - many // 3] * 3


@pytest.mark.parametrize(("rate", "repair_h"), [(-1.0, 1.0), (math.nan, 1.0), (math.inf, 1.0), (1.0, -1.0), (1.0, math.nan)])
def test_nonsense_is_refused(rate: float, repair_h: float) -> None:
    with pytest.raises(BadInput):
        Hazard(rate, repair_h)


@pytest.mark.parametrize("rate", [0.0, -1.0, math.nan, math.inf])
def test_a_rate_of_nothing_is_refused(rate: float) -> None:
    with pytest.raises(BadInput):
        repair_hours(TABLE, DEVICES, replica_bytes=1.0, rate=rate, detect_h=0.0)
