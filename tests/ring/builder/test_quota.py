"""How much every device should hold: by hand, and against brute force on trees small enough to try everything."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from ring.builder.builder import Builder
from ring.builder.quota import Targets, Tier, pour, required_overload, spread, targets, tiers_of
from ring.device import Device
from ring.errors import BadInput
from tests.ring.builder.ground import REPLICAS, Spot, builder_of, builders, spots

FULL = 1e30  # an overload beyond any need


def by_tier(devices: Sequence[Device], by_device: Mapping[int, Fraction] | Mapping[int, int]) -> dict[Tier, Fraction]:
    """What the devices have, summed for every tier."""
    sums: dict[Tier, Fraction] = {}
    for device in devices:
        if device.id in by_device:
            for tier in ((), *tiers_of(device)):
                sums[tier] = sums.get(tier, Fraction(0)) + by_device[device.id]
    return sums


def families(devices: Sequence[Device], goal: Targets) -> dict[Tier, list[Tier]]:
    """Of every tier with weight its parts."""
    parts: dict[Tier, set[Tier]] = {}
    for device in devices:
        if device.id in goal.shares:
            for parent, child in itertools.pairwise(((), *tiers_of(device))):
                parts.setdefault(parent, set()).add(child)
    return {parent: sorted(children, key=str) for parent, children in parts.items()}


# ---- shares


@settings(deadline=None)
@given(builders())
def test_shares_go_by_weight_up_to_one_replica_of_every_partition(builder: Builder) -> None:
    shares = builder.targets().shares
    assert sum(shares.values()) == sum(builder.rows)
    assert set(shares) == {device.id for device in builder.present if device.weight > 0}
    full = {device_id for device_id, share in shares.items() if share == builder.partition_count}
    assert all(0 < share <= builder.partition_count for share in shares.values())
    per_weight = {share / Fraction(builder.device(i).weight) for i, share in shares.items() if i not in full}
    assert len(per_weight) <= 1  # one level for all that are not full,
    for level, device_id in itertools.product(per_weight, full):  # which those that are full would be above
        assert Fraction(builder.device(device_id).weight) * level >= builder.partition_count


def test_a_device_too_heavy_for_its_weight_leaves_the_rest_to_the_others() -> None:
    builder = builder_of((1, 1, 1, 1000.0), (1, 2, 1, 1.0), (1, 3, 1, 2.0), (1, 4, 1, 1.0))
    assert builder.targets().quotas == {0: 64, 1: 32, 2: 64, 3: 32}


@pytest.mark.parametrize(("replicas", "devices"), [(3, 2), (2.5, 2), (1, 0), (4, 3)])
def test_fewer_devices_than_replicas_are_refused(replicas: float, devices: int) -> None:
    builder = builder_of(*[(1, 1, 1, 1.0)] * devices, (1, 1, 1, 0.0), replicas=replicas)
    for ask in (builder.targets, builder.required_overload):
        with pytest.raises(BadInput, match=f"{math.ceil(replicas)} replicas need at least {math.ceil(replicas)} devices"):
            ask()


# ---- quotas


@settings(deadline=None)
@given(builders(), st.integers(0, 2**32))
def test_every_tier_gets_its_value_rounded_down_or_up(builder: Builder, seed: int) -> None:
    held = {device.id: seed * (device.id + 1) % 97 for device in builder.present}
    goal = targets(builder.present, builder.rows, builder.overload, held)
    wanted, quotas = by_tier(builder.present, goal.wanted), by_tier(builder.present, goal.quotas)
    assert quotas[()] == wanted[()] == sum(builder.rows)
    assert quotas.keys() == wanted.keys() == goal.limits.keys()
    for tier, value in wanted.items():
        assert abs(quotas[tier] - value) < 1
        assert goal.limits[tier] == math.ceil(quotas[tier] / builder.partition_count)
    assert all(0 <= quota <= builder.partition_count for quota in goal.quotas.values())


@settings(deadline=None)
@given(builders())
def test_without_overload_all_are_within_one_partition_of_their_share(builder: Builder) -> None:
    builder.overload = 0.0
    goal = builder.targets()
    assert goal.wanted == goal.shares
    assert all(abs(goal.quotas[device_id] - share) < 1 for device_id, share in goal.shares.items())


def roundings(
    tier: Tier, quota: int, parts: Mapping[Tier, Sequence[Tier]], wanted: Mapping[Tier, Fraction]
) -> Iterator[dict[int, int]]:
    """All ways to give out ``quota`` below ``tier`` so that every tier has its value rounded down or up: quotas by device id."""
    if tier not in parts:
        yield {int(tier[3]): quota}
        return
    choices = [range(math.floor(wanted[part]), math.ceil(wanted[part]) + 1) for part in parts[tier]]
    for given_out in itertools.product(*choices):
        if sum(given_out) == quota:
            below = [list(roundings(part, mine, parts, wanted)) for part, mine in zip(parts[tier], given_out, strict=True)]
            for picked in itertools.product(*below):
                yield {device_id: mine for each in picked for device_id, mine in each.items()}


@settings(deadline=None)
@given(st.data())
def test_of_all_roundings_the_quotas_are_one_that_needs_the_fewest_moves(data: st.DataObject) -> None:
    replicas = data.draw(st.sampled_from([1, 1.5, 2, 2.5, 3]))
    builder = builder_of(
        *data.draw(spots(least=math.ceil(replicas), most=6)), replicas=replicas, part_power=data.draw(st.integers(0, 4))
    )
    builder.overload = data.draw(st.sampled_from([0.0, 0.1, 2.0]))
    held = {device.id: data.draw(st.integers(0, builder.partition_count)) for device in builder.present}
    goal = targets(builder.present, builder.rows, builder.overload, held)

    def moves(quotas: Mapping[int, int]) -> int:
        return sum(max(0, count - quotas.get(device_id, 0)) for device_id, count in held.items())

    every = roundings((), sum(builder.rows), families(builder.present, goal), by_tier(builder.present, goal.wanted))
    assert moves(goal.quotas) == min(moves(quotas) for quotas in every)


# ---- dispersion


def most_even(replicas: int, device_counts: Sequence[int]) -> list[list[int]]:
    """Of all ways to have so many replicas of a partition in tiers, those that no other is more even than: the fullest tier holds
    least, then the next to fullest, and so on."""
    ways = [list(way) for way in itertools.product(*(range(count + 1) for count in device_counts)) if sum(way) == replicas]
    best = min(sorted(way, reverse=True) for way in ways)
    return [way for way in ways if sorted(way, reverse=True) == best]


@settings(deadline=None)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=4), st.data())
def test_spread_is_the_least_and_the_most_of_all_most_even_ways(counts: list[int], data: st.DataObject) -> None:
    replicas = data.draw(st.integers(0, sum(counts)))
    ways = most_even(replicas, counts)
    assert spread(replicas, counts, up=True) == [max(column) for column in zip(*ways, strict=True)]
    assert spread(replicas, counts, up=False) == [min(column) for column in zip(*ways, strict=True)]


@settings(deadline=None)
@given(st.data())
def test_with_all_the_overload_it_takes_every_tier_spreads_its_replicas_as_evenly_as_its_devices_allow(data: st.DataObject) -> None:
    replicas = data.draw(st.sampled_from(REPLICAS))
    builder = builder_of(*data.draw(spots(least=math.ceil(replicas), most=8)), replicas=replicas, part_power=3)
    goal = targets(builder.present, builder.rows, FULL)
    wanted, count = by_tier(builder.present, goal.wanted), builder.partition_count
    inside = {tier: sum(d.id in goal.shares and tier in ((), *tiers_of(d)) for d in builder.present) for tier in wanted}
    for parent, parts in families(builder.present, goal).items():
        sizes = [inside[part] for part in parts]
        fewest, most = math.floor(wanted[parent] / count), math.ceil(wanted[parent] / count)
        for number, part in enumerate(parts):
            least = min(way[number] for way in most_even(fewest, sizes))
            top = max(way[number] for way in most_even(most, sizes))
            assert least <= wanted[part] / count <= top


def test_two_zones_and_a_small_third_without_and_with_overload() -> None:
    where: list[Spot] = [(1, zone, 1, 1.0) for zone in (1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3)]
    builder = builder_of(*where, part_power=8)
    by_weight = builder.targets()
    assert [math.floor(by_weight.wanted[i]) for i in (0, 4, 8)] == [69, 69, 69]
    assert by_weight.limits[(1, 1)] == 2
    # the third zone needs 256 on three devices instead of 768 * 3 / 11: 11/9 of it
    assert builder.required_overload() == pytest.approx(2 / 9)
    builder.set_overload(1 / 9)
    assert [float(builder.targets().wanted[i]) for i in (0, 8)] == pytest.approx([66.909, 77.576], abs=0.001)
    builder.set_overload(0.2223)
    assert builder.targets().quotas == dict.fromkeys(range(8), 64) | {8: 85, 9: 85, 10: 86}
    assert builder.targets().limits[(1, 1)] == 1


@settings(deadline=None)
@given(builders(), st.floats(0, 3))
def test_overload_is_what_a_device_may_hold_above_its_share_and_no_more(builder: Builder, overload: float) -> None:
    goal = targets(builder.present, builder.rows, overload)
    for device_id, wanted in goal.wanted.items():
        assert wanted <= goal.shares[device_id] * (1 + Fraction(overload))
    assert sum(goal.wanted.values()) == sum(builder.rows)


@settings(deadline=None)
@given(builders())
@example(builder_of((1, 1, 1, 1.0), (1, 2, 1, 1.0), (1, 2, 2, 1.0), (1, 3, 1, 1.0)))
def test_the_required_overload_is_enough_and_anything_less_is_not(builder: Builder) -> None:
    needed = builder.required_overload()
    spread_out = targets(builder.present, builder.rows, FULL).wanted
    enough = targets(builder.present, builder.rows, needed * (1 + 1e-12)).wanted
    assert enough == spread_out
    assert needed >= 0
    assume(needed > 0)
    less = targets(builder.present, builder.rows, needed * 0.999).wanted
    worst = max(spread_out, key=lambda i: spread_out[i] / less[i])
    assert less[worst] < spread_out[worst]


@pytest.mark.parametrize(
    ("total", "vessels", "expected"),
    [
        (10, [(1, 0, 10), (1, 0, 10)], [5, 5]),
        (10, [(1, 0, 10), (4, 0, 10)], [2, 8]),
        (10, [(1, 0, 10), (9, 0, 6)], [4, 6]),  # what is full leaves the rest
        (10, [(1, 3, 10), (9, 0, 10)], [3, 7]),
        (10, [(1, 4, 10), (9, 0, 5), (1, 0, 10)], [4, 5, 1]),  # bounds on both sides
        (12, [(2, 4, 4), (0.5, 8, 8)], [4, 8]),
    ],
)
def test_pour(total: int, vessels: list[tuple[float, int, int]], expected: list[int]) -> None:
    assert pour(Fraction(total), [(Fraction(weight), low, high) for weight, low, high in vessels]) == expected


@given(st.lists(st.tuples(st.integers(1, 1000), st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=8), st.data())
def test_what_is_poured_stays_within_bounds_and_at_one_level_between_them(
    drawn: list[tuple[int, int, int]], data: st.DataObject
) -> None:
    vessels = [(Fraction(weight), low, low + extra) for weight, low, extra in drawn]
    bounds = [sum(low for _, low, _ in vessels), sum(high for *_, high in vessels)]
    total = data.draw(st.fractions(*bounds))
    filled = pour(total, vessels)
    assert sum(filled) == total
    assert all(low <= value <= high for value, (_, low, high) in zip(filled, vessels, strict=True))
    levels = [value / weight for value, (weight, low, high) in zip(filled, vessels, strict=True) if low < value < high]
    assert len(set(levels)) <= 1
    for level in levels:
        for value, (weight, low, high) in zip(filled, vessels, strict=True):
            assert value == min(max(weight * level, low), high)


def test_required_overload_counts_only_devices_with_weight() -> None:
    devices = builder_of((1, 1, 1, 1.0), (1, 1, 1, 1.0), (1, 2, 1, 1.0), (1, 3, 1, 0.0), replicas=2).present
    assert required_overload(devices, [64, 64]) == pytest.approx(0.5)  # 64 instead of 128 / 3 in the second zone
