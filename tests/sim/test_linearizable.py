"""The checker itself: histories that a register can and cannot have, and every small one against trying all orders."""

from __future__ import annotations

from itertools import permutations
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.sim.linearizable import ALWAYS, Condition, Fate, Operation, TooHard, When, violation

ABSENT = Condition(When.ABSENT)


def write(start: float, end: float, value: int, condition: Condition = ALWAYS, fate: Fate = Fate.DONE) -> Operation:
    return Operation(start, end, value, condition=condition, fate=fate)


def read(start: float, end: float, saw: int) -> Operation:
    return Operation(start, end, saw=saw)


def equal(value: int) -> Condition:
    return Condition(When.EQUAL, value)


@pytest.mark.parametrize(
    ("possible", "history"),
    [
        (True, []),
        (True, [write(0, 1, 5), read(2, 3, 5)]),
        (False, [write(0, 1, 5), read(2, 3, 0)]),
        (True, [write(0, 4, 5), read(1, 2, 0), read(2.5, 3, 5)]),
        (False, [write(0, 6, 5), read(1, 2, 5), read(3, 4, 0)]),  # seen, and gone again
        (True, [write(0, 1, 5), write(2, 3, 0), read(4, 5, 0)]),
        (False, [write(0, 1, 5), write(2, 3, 0), read(4, 5, 5)]),  # a deletion that did not stay
        (True, [write(0, 1, 5, fate=Fate.UNKNOWN), read(2, 3, 0), read(4, 5, 5)]),
        (False, [write(0, 1, 5, fate=Fate.UNKNOWN), read(2, 3, 5), read(4, 5, 0)]),
        (False, [write(2, 3, 5, fate=Fate.UNKNOWN), read(0, 1, 5)]),  # before it was begun
        # One effect only: it was seen, written over, and came again.
        (False, [write(0, 9, 5), read(1, 2, 5), write(3, 4, 6), read(5, 6, 5)]),
        (False, [write(0, 9, 5, fate=Fate.UNKNOWN), read(1, 2, 5), write(3, 4, 6), read(5, 6, 5)]),
        # One winner of a race.
        (True, [write(0, 3, 5, ABSENT), write(1, 4, 6, ABSENT, Fate.FAILED), read(5, 6, 5)]),
        (False, [write(0, 3, 5, ABSENT), write(1, 4, 6, ABSENT)]),
        (False, [write(0, 3, 5, ABSENT, Fate.FAILED), write(1, 4, 6, ABSENT, Fate.FAILED)]),
        (True, [write(0, 3, 5, ABSENT, Fate.FAILED), write(1, 4, 6, ABSENT, Fate.UNKNOWN)]),
        (False, [write(0, 1, 5), write(2, 9, 6, equal(5)), write(2, 9, 7, equal(5))]),
        (True, [write(0, 1, 5), write(2, 9, 6, equal(5)), write(2, 9, 7, equal(6))]),
        # A plain write in between was lost.
        (False, [write(0, 1, 5), write(2, 9, 6, equal(5)), write(3, 4, 7), read(5, 6, 7), read(10, 11, 6)]),
        (True, [write(0, 1, 5), write(2, 9, 6, Condition(When.PRESENT)), write(3, 4, 7), read(5, 6, 7), read(10, 11, 6)]),
        # Done with although it was answered that the condition failed.
        (False, [write(0, 1, 5), write(2, 3, 6, Condition(When.OTHER, 5), Fate.FAILED), read(4, 5, 6)]),
        (False, [write(0, 1, 5), write(2, 3, 6, Condition(When.OTHER, 4), Fate.FAILED)]),
    ],
)
def test_histories(possible: bool, history: list[Operation]) -> None:
    assert (violation(history) is None) == possible
    assert (violation(history[::-1]) is None) == possible


def test_a_violation_says_what_cannot_be_explained() -> None:
    told = violation([write(0, 1, 5), read(2, 3, 5), read(4, 5, 0)])
    assert told is not None and "value is 5" in told and "read 0 done [4.000, 5.000]" in told


def test_a_long_history_with_many_unknown_writes_is_no_trouble() -> None:
    history = [write(2 * n, 2 * n + 3, n + 1, fate=Fate.UNKNOWN if n % 3 else Fate.DONE) for n in range(150)]
    history += [read(2 * n + 3.5, 2 * n + 3.9, n + 1) for n in range(0, 150, 3)]
    assert violation(history) is None
    assert violation([*history, read(600, 601, 1)]) is not None


def test_a_search_that_is_given_up_says_so() -> None:
    history = [write(0, 100, n) for n in range(1, 14)] + [read(101, 102, 21)]
    with pytest.raises(TooHard):
        violation(history, steps_max=100)


# ---- against all orders

CONDITIONS = st.one_of(st.just(ALWAYS), st.just(ABSENT), st.just(Condition(When.PRESENT)), st.builds(equal, st.integers(1, 4)))


@st.composite
def histories(draw: st.DrawFn) -> list[Operation]:
    count = draw(st.integers(1, 5))
    found: list[Operation] = []
    for number in range(count):
        start = draw(st.integers(0, 6))
        end = start + draw(st.integers(1, 6))
        if draw(st.booleans()):
            found.append(read(start, end, draw(st.integers(0, count))))
        else:
            condition = draw(CONDITIONS)
            fates = [Fate.DONE, Fate.UNKNOWN] if condition is ALWAYS else list(Fate)
            value = number + 1 if draw(st.booleans()) else 0
            found.append(write(start, end, value, condition, draw(st.sampled_from(fates))))
    return found


@given(histories())
def test_the_search_finds_an_order_exactly_when_there_is_one(history: list[Operation]) -> None:
    assert (violation(history) is None) == _by_all_orders(history)


def _by_all_orders(history: list[Operation]) -> bool:
    sure = [o for o in history if o.fate is not Fate.UNKNOWN]
    unsure = [o for o in history if o.fate is Fate.UNKNOWN]
    for chosen in range(1 << len(unsure)):
        taken = sure + [o for place, o in enumerate(unsure) if chosen >> place & 1]
        if any(_explains(order) for order in permutations(taken)):
            return True
    return False


def _explains(order: tuple[Operation, ...]) -> bool:
    value: int | None = 0
    for place, operation in enumerate(order):
        if any(_end(later) < operation.start for later in order[place + 1 :]):
            return False
        assert value is not None
        value = operation.step(value)
        if value is None:
            return False
    return True


def _end(operation: Operation) -> float:
    return inf if operation.fate is Fate.UNKNOWN else operation.end
