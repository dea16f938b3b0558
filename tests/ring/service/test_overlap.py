"""Whose majority counts while a ring moves: tables, and the promise that any two operations meet."""

from __future__ import annotations

import random
from array import array
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ring.device import Device
from ring.names import NameHasher, Path, Span
from ring.placement import Ring
from ring.service.overlap import Overlap
from ring.service.settling import Waiting, may_do_without, waiting
from ring.service.voters import Voters, plain

HASHER = NameHasher(b"pre", b"suf")
PATH = Path("a", "c", "o")
DEVICES = 7


def ring(table: Sequence[Sequence[int]], version: int = 1, *, gone: Sequence[int] = ()) -> Ring:
    """``table``: by partition the devices."""
    devices = tuple(None if n in gone else Device(n, 1, n, f"n{n}", 0, f"d{n}", 1.0) for n in range(DEVICES))
    rows = tuple(array("H", [holders[replica] for holders in table]) for replica in range(len(table[0])))
    return Ring(version, (len(table) - 1).bit_length(), devices, rows, HASHER)


def everywhere(*holders: int, version: int = 1, gone: Sequence[int] = ()) -> Ring:
    return ring([holders], version, gone=gone)


def test_nothing_moves() -> None:
    one = everywhere(1, 2, 3)
    places = Overlap.of(one).places(PATH)
    assert [device.id for device in places.devices] == [1, 2, 3]
    assert places.voters == plain(3)
    assert Overlap.of(one).places(PATH) is not places
    overlap = Overlap.of(one)
    assert overlap.places(PATH) is overlap.places(PATH)  # a look-up, the second time
    assert (overlap.moving, overlap.moved()) == (False, [])


@pytest.mark.parametrize(
    ("old", "new", "asked", "majorities", "minorities"),
    [
        ((1, 2, 3), (1, 2, 4), [1, 2, 4, 3], [{1, 2}, {1, 4, 3}, {2, 3, 4}], [{1, 4}, {1, 3}, {3, 4}, {1}]),
        ((1, 2, 3), (4, 5, 6), [4, 5, 6, 1, 2, 3], [{1, 2, 4, 5}, {2, 3, 5, 6}], [{1, 2, 3, 4}, {4, 5, 6}, {1, 2, 3}]),
        ((1, 2, 3), (3, 2, 1), [3, 2, 1], [{1, 2}], [{1}, set()]),  # the same devices in another order
        ((1, 2), (1, 2, 3), [1, 2, 3], [{1, 2}], [{1, 3}, {2, 3}]),
    ],
)
def test_a_majority_of_both(
    old: Sequence[int], new: Sequence[int], asked: list[int], majorities: list[set[int]], minorities: list[set[int]]
) -> None:
    places = Overlap(everywhere(*new, version=2), everywhere(*old)).places(PATH)
    assert [device.id for device in places.devices] == asked
    bits = {device.id: 1 << index for index, device in enumerate(places.devices)}
    for chosen in majorities:
        assert places.voters.majority(sum(bits[n] for n in chosen)), chosen
    for chosen in minorities:
        assert not places.voters.majority(sum(bits[n] for n in chosen)), chosen
    assert places.primaries == len(new)


triples = st.lists(st.integers(0, DEVICES - 1), min_size=1, max_size=4, unique=True)


@given(triples, st.lists(triples, min_size=2, max_size=2), st.data())
def test_two_front_doors_with_different_unsettled_rings_meet(
    settled: list[int], newer: list[list[int]], data: st.DataObject
) -> None:
    """Whatever the rings between are: both ask the settled one's majority.  Also when every replica moved."""
    before = everywhere(*settled)
    sets = []
    for version, holders in enumerate(newer, 2):
        places = Overlap(everywhere(*holders, version=version), before).places(PATH)
        chosen = data.draw(st.sets(st.sampled_from(range(len(places.devices)))))
        if not places.voters.majority(sum(1 << index for index in chosen)):
            return
        sets.append({places.devices[index].id for index in chosen})
    assert sets[0] & sets[1]


def test_one_can_be_told_without_the_other() -> None:
    assert Voters.of([0, 1, 2], [0, 1, 3]).majority(0b0011)
    assert not Voters.of([0, 1, 2], [0, 3, 4]).majority(0b00110)


@pytest.mark.parametrize(("old_power", "new_power"), [(1, 2), (2, 1), (0, 2), (1, 1)])
def test_powers_may_differ(old_power: int, new_power: int) -> None:
    old = ring([[p % DEVICES, (p + 1) % DEVICES] for p in range(1 << old_power)])
    new = ring([[(p + 3) % DEVICES, (p + 4) % DEVICES] for p in range(1 << new_power)], 2)
    overlap = Overlap(new, old)
    for number in range(40):
        path = Path("a", "c", str(number))
        places = overlap.places(path)
        by_new = [device.id for device in new.primaries(new.partition(path))]
        by_old = [device.id for device in old.primaries(old.partition(path))]
        assert [device.id for device in places.devices[: places.primaries]] == by_new
        assert {device.id for device in places.devices} == {*by_new, *by_old}
        assert set(by_old) <= overlap.settled_at(Span(new_power, new.partition(path)))


@given(st.integers(0, 2), st.integers(0, 2), st.integers(1, 3), st.integers(1, 3), st.randoms())
def test_moved_partitions_are_those_with_other_devices(
    old_power: int, new_power: int, old_width: int, new_width: int, chance: random.Random
) -> None:
    old = ring([chance.sample(range(3), old_width) for _ in range(1 << old_power)])
    new = ring([chance.sample(range(3), new_width) for _ in range(1 << new_power)], 2)
    finest = max(old_power, new_power)
    assert Overlap(new, old).moved() == [
        number
        for number in range(1 << finest)
        if {d.id for d in new.primaries(number >> (finest - new_power))}
        != {d.id for d in old.primaries(number >> (finest - old_power))}
    ]


def test_a_power_that_grows_moves_nothing() -> None:
    old = ring([[0, 1, 2], [3, 4, 5]])
    new = ring([[0, 1, 2], [0, 1, 2], [3, 4, 5], [3, 4, 5]], 2)
    overlap = Overlap(new, old)
    assert overlap.moving and overlap.moved() == []
    assert overlap.places(PATH).voters == plain(3)


# ---- settling


def test_every_listed_device_must_confirm() -> None:
    overlap = Overlap(everywhere(1, 2, 4, version=2), everywhere(1, 2, 3))
    assert waiting(overlap, {1, 2}) == Waiting((3, 4), ())
    assert waiting(overlap, {1, 2, 3, 4, 6}) == Waiting((), ())


def test_one_that_was_removed_may_be_done_without_but_not_two() -> None:
    overlap = Overlap(everywhere(1, 2, 4, version=2, gone=[3]), everywhere(1, 2, 3))
    assert waiting(overlap, {1, 2, 4}) == Waiting((), (3,))
    assert may_do_without(overlap, {3})
    two = Overlap(everywhere(1, 4, 5, version=2, gone=[2, 3]), everywhere(1, 2, 3))
    assert waiting(two, {1, 4, 5}) == Waiting((), (2, 3))
    assert not may_do_without(two, {2, 3})


@given(st.lists(triples, min_size=1, max_size=4), st.sets(st.integers(0, DEVICES - 1)), st.data())
def test_what_may_be_done_without_held_no_acknowledged_write_alone(
    table: list[list[int]], gone: set[int], data: st.DataObject
) -> None:
    """The invariant of settling: every majority that can have acknowledged a write has a device among those that confirmed."""
    width = min(len(holders) for holders in table)
    table = [holders[:width] for holders in (table * 4)[:4]]
    settled = ring(table)
    if not may_do_without(Overlap(everywhere(0, version=2), settled), gone):
        return
    holders = table[data.draw(st.integers(0, 3))]
    acked = data.draw(st.sets(st.sampled_from(holders)))
    if plain(width).majority(sum(1 << holders.index(n) for n in acked)):
        assert acked - gone
