"""What the reconstructor shall do: a table, and for any state of any object: nothing is lost on the way, and it ends well."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ring.timestamp import Timestamp
from storage.erasure.interface import Coding
from storage.erasure.plan import Drop, Held, Plan, Push, Rebuild, in_order, plan
from storage.erasure.quorum import Stamp, durable_fragments

FOUR = Coding(4, 2)
PRIMARIES = [10, 11, 12, 13, 14, 15]
OLD, NEW = Stamp(Timestamp(1)), Stamp(Timestamp(2))


def held(*indexes: int, stamp: Stamp = NEW, shift: int = 10) -> list[Held]:
    """Each on its primary, unless shifted elsewhere."""
    return [Held(shift + index, index, stamp) for index in indexes]


ALL = held(0, 1, 2, 3, 4, 5)


def test_all_is_well() -> None:
    assert plan(FOUR, PRIMARIES, ALL) == Plan(NEW, 2, (), ())


def test_nothing_is_known() -> None:
    assert plan(FOUR, PRIMARIES, []) is None
    assert plan(FOUR, PRIMARIES, [], silent=PRIMARIES) is None


def test_what_is_missing_is_rebuilt_from_all_that_is_there() -> None:
    have = held(0, 1, 3, 4)
    assert plan(FOUR, PRIMARIES, have) == Plan(NEW, 0, (2, 5), (Rebuild(2, 12, tuple(have)), Rebuild(5, 15, tuple(have))))


def test_only_the_newest_version_counts() -> None:
    have = [*held(0, 1, 2, 3), *held(4, 5, stamp=OLD)]
    found = plan(FOUR, PRIMARIES, have)
    assert found is not None and found.missing == (4, 5)
    assert all(isinstance(step, Rebuild) and step.sources == tuple(held(0, 1, 2, 3)) for step in found.steps)


def test_a_fragment_on_a_handoff_is_pushed_and_then_dropped() -> None:
    away = Held(99, 5, NEW)
    assert plan(FOUR, PRIMARIES, [*ALL[:5], away]) == Plan(NEW, 2, (), (Push(5, 99, 15),))
    assert plan(FOUR, PRIMARIES, [*ALL, away]) == Plan(NEW, 2, (), (Drop(5, 99),))


def test_fragments_that_changed_places() -> None:
    """As a new ring has it: primaries 14 and 15 hold each other's."""
    have = [*ALL[:4], Held(14, 5, NEW), Held(15, 4, NEW)]
    assert plan(FOUR, PRIMARIES, have) == Plan(NEW, 2, (), (Push(4, 15, 14),)), "the other one when a copy of it may go"
    after = [*ALL[:5], Held(15, 4, NEW)]
    assert plan(FOUR, PRIMARIES, after) == Plan(NEW, 1, (5,), (Rebuild(5, 15, tuple(ALL[:5])), Drop(4, 15)))


def test_a_fragment_gives_way_only_when_enough_others_stay() -> None:
    """A ring moved every fragment by one place, and one device does not answer."""
    moved = [Held(10 + (index + 1) % 6, index, NEW) for index in range(5)]  # 5 lay on what is now primary 10
    assert plan(FOUR, PRIMARIES, moved, silent=[10]) == Plan(NEW, 1, (5,), ())
    found = plan(FOUR, PRIMARIES, moved)
    assert found is not None and found.steps == (Push(0, 11, 10),), "there is room at 10: nothing gives way yet"
    found = plan(FOUR, PRIMARIES, [*moved, Held(10, 0, NEW)])
    assert found is not None and Push(1, 12, 11) in found.steps, "0 is elsewhere by now"


def test_what_has_no_spare_fragment_is_moved_one_at_a_time() -> None:
    swapped = [Held(10, 1, NEW), Held(11, 0, NEW), Held(12, 2, NEW)]
    found = plan(Coding(2, 1), PRIMARIES[:3], swapped)
    assert found is not None and found.steps == (Push(0, 11, 10),)
    assert plan(Coding(2, 1), PRIMARIES[:3], swapped, silent=[12]) == Plan(NEW, 0, (2,), ()), "it may not come back"


def test_a_silent_primary_may_have_its_fragment() -> None:
    """One of them may be away, as in a write; with two, a handoff gets one, and what is on handoffs stays."""
    assert plan(FOUR, PRIMARIES, ALL[:5], silent=[15], handoffs=[98, 99]) == Plan(NEW, 1, (5,), ())
    have = tuple(ALL[:4])
    assert plan(FOUR, PRIMARIES, have, silent=[14, 15], handoffs=[98, 99]) == Plan(NEW, 0, (4, 5), (Rebuild(4, 98, have),))
    assert plan(FOUR, PRIMARIES, have, silent=[14, 15]) == Plan(NEW, 0, (4, 5), ())
    assert plan(FOUR, PRIMARIES, [*have, Held(98, 4, NEW)], silent=[14, 15], handoffs=[98, 99]) == Plan(NEW, 1, (5,), ())


def test_a_handoff_that_holds_something_gets_no_second_fragment() -> None:
    found = plan(Coding(4, 4), [*PRIMARIES, 16, 17], [*ALL[:4], Held(98, 4, NEW)], silent=[14, 15, 16, 17], handoffs=[98, 99])
    assert found is not None
    assert [(step.index, step.target_id) for step in found.steps if isinstance(step, Rebuild)] == [(5, 99)]


def test_too_few_and_nothing_is_touched() -> None:
    have = [*held(0, 1, 2), Held(99, 1, NEW), *held(3, 4, 5, stamp=OLD)]
    assert plan(FOUR, PRIMARIES, have) == Plan(NEW, -1, (3, 4, 5), ())


def test_what_a_silent_device_said_before_does_not_count() -> None:
    assert plan(FOUR, PRIMARIES, ALL, silent=[10]) == Plan(NEW, 1, (0,), ())


def test_the_most_urgent_first() -> None:
    plans = {
        "one left, one lost": Plan(NEW, 1, (0,), ()),
        "none left, two lost": Plan(NEW, 0, (0, 1), ()),
        "cannot be read": Plan(NEW, -1, (0, 1, 2), ()),
        "none left, three lost": Plan(NEW, 0, (0, 1, 2), ()),
        "all there": Plan(NEW, 2, (), ()),
        "cannot be read at all": Plan(NEW, -3, (0, 1, 2, 3, 4), ()),
    }
    names = {id(one): name for name, one in plans.items()}
    assert [names[id(one)] for one in in_order(plans.values())] == [
        "none left, three lost",
        "none left, two lost",
        "one left, one lost",
        "all there",
        "cannot be read",
        "cannot be read at all",
    ]


# ---- any state


def perform(step: Push | Rebuild | Drop, state: set[Held], stamp: Stamp, k: int) -> None:
    """As the reconstructor does it: a device has one fragment of a version; what is there no more is rebuilt, if it can be."""
    match step:
        case Push(index, _, target) | Rebuild(index, target, _):
            if isinstance(step, Rebuild):
                assert {one.stamp for one in step.sources} == {stamp}
                assert len({one.index for one in step.sources}) == len(step.sources) >= k
            if (isinstance(step, Push) and Held(step.source_id, index, stamp) in state) or len(indexes(state, stamp)) >= k:
                state -= {one for one in state if (one.device_id, one.stamp) == (target, stamp)}
                state.add(Held(target, index, stamp))
        case Drop(index, device):
            state.discard(Held(device, index, stamp))  # its own may have taken the place meanwhile


def indexes(state: set[Held], stamp: Stamp) -> set[int]:
    return {one.index for one in state if one.stamp == stamp}


@settings(deadline=None, max_examples=300)
@given(st.integers(1, 6), st.integers(1, 4), st.randoms(use_true_random=False))
def test_from_any_state_it_ends_well(k: int, m: int, rng: random.Random) -> None:
    coding = Coding(k, m)
    devices = list(range(100, 100 + coding.count + 4))
    primaries, handoffs = devices[: coding.count], devices[coding.count :]
    rng.shuffle(devices)
    lies = {(rng.choice(devices), rng.choice([OLD, NEW])): rng.randrange(coding.count) for _ in range(rng.randrange(20))}
    lies |= {(primary, NEW): index for index, primary in enumerate(primaries) if rng.random() < 0.6}
    state = {Held(device, index, stamp) for (device, stamp), index in lies.items()}
    silent = {device for device in devices if rng.random() < rng.choice([0, 0.2])}
    known = {one for one in state if one.device_id not in silent}
    before = set(state)
    awake = [device for device in handoffs if device not in silent]
    for _ in range(2 + 2 * coding.count):  # a fragment may have to make room before another can come to its place
        found = plan(coding, primaries, [one for one in state if one.device_id not in silent], silent, awake)
        if found is None:
            assert not known
            return
        stamp, redundancy, steps = found.stamp, found.redundancy, found.steps
        assert stamp == max(one.stamp for one in known)
        assert found.redundancy == len(indexes({one for one in state if one.device_id not in silent}, stamp)) - k
        for step in found.steps:
            touched = {step.device_id} if isinstance(step, Drop) else {step.target_id}
            assert not touched & silent
            there = len(indexes(state, stamp))
            perform(step, state, stamp, k)
            least = k if not silent else durable_fragments(k, m)
            assert len(indexes(state, stamp)) >= min(there, least), "a step left too few different fragments"
    assert {one for one in before if one.stamp != stamp} <= state, "other versions are not its business"
    if redundancy < 0:
        assert state == before
        return
    assert steps == (), "it does not come to an end"
    for index, primary in enumerate(primaries):
        if primary in silent:
            continue
        if Held(primary, index, stamp) in state:
            others = {one for one in state if (one.index, one.stamp) == (index, stamp) and one.device_id not in silent}
            assert not {one.device_id for one in others} - {primary} & set(handoffs)
            continue
        assert silent, "all answered, and it does not have its own"
        own = [one.index for one in state if (one.device_id, one.stamp) == (primary, stamp)]
        assert own, "nothing was in the way"
        assert [one.index for one in state if one.stamp == stamp and one.device_id not in silent].count(own[0]) == 1
    placed = len(indexes({one for one in state if one.device_id not in silent}, stamp))
    free = len([device for device in awake if all(one.device_id != device for one in state)])
    assert placed >= min(durable_fragments(k, m), placed + free)


@pytest.mark.parametrize("silent", [0, 1, 2, 3, 4])
def test_stand_ins_bring_it_to_what_a_write_leaves(silent: int) -> None:
    coding, primaries = Coding(8, 4), list(range(12))
    found = plan(coding, primaries, held(*range(12 - silent), shift=0), range(12 - silent, 12), [90, 91, 92, 93])
    assert found is not None
    assert len(found.steps) == max(0, silent - 2)
