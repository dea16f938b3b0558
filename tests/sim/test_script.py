"""Scripts: drawn from the seed alone, kept in part, spelled on a command line; and runs made shorter by leaving parts out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.sim.faults import FAULTS
from tests.sim.kinds import DESTRUCTIVE, FAULT_KINDS, HONEST, SINCE
from tests.sim.mutants import MUTANTS
from tests.sim.run import Report, command, script_of
from tests.sim.script import Keep, Traits, draw, numbers_of, spell, unspell
from tests.sim.shrink import Shrinker, mark


def test_every_kind_of_fault_is_one() -> None:
    assert set(FAULTS) == {*FAULT_KINDS, *SINCE, *HONEST, *DESTRUCTIVE}


def test_a_seed_has_one_script_and_seeds_have_many() -> None:
    scripts = [draw(seed, 7, Traits()) for seed in range(40)]
    assert scripts == [draw(seed, 7, Traits()) for seed in range(40)]
    assert len({script.kinds for script in scripts}) > 30
    assert {kind for script in scripts for kind in script.kinds} == set(FAULTS)
    assert 5 < sum(script.destructive for script in scripts) < 35
    assert sum(script.door for script in scripts) == sum(script.wire for script in scripts) == 10


def test_what_a_mutant_needs_is_in_its_script() -> None:
    assert "unmount" in script_of(1, "blank-disk-is-new").kinds
    assert all(mutant.apply.__doc__ for mutant in MUTANTS.values())


def test_a_part_keeps_its_numbers() -> None:
    whole = draw(3, 7, Traits())
    part = whole.kept(Keep(frozenset({1}), frozenset(), frozenset({2, 121})))
    assert [fault.number for fault in part.faults] == [1] and part.faults[0] == whole.faults[1]
    assert part.changes == () and [request.number for request in part.requests] == [2, 121]
    assert len(part.clients) == len(whole.clients)
    assert whole.kept(Keep()) == whole


@given(st.frozensets(st.integers(0, 1000), max_size=60))
def test_numbers_on_a_command_line(numbers: frozenset[int]) -> None:
    assert unspell(spell(numbers)) == numbers


def test_commands() -> None:
    assert command(7) == ".venv/bin/python -m tests.sim --seed 7"
    keep = Keep(frozenset({1, 2, 3, 7}), frozenset(), frozenset({9}), 2)
    assert command(7, "skip-fsync", keep) == (
        ".venv/bin/python -m tests.sim --seed 7 --mutant skip-fsync --faults 1-3,7 --changes none --requests 9 --salt 2"
    )
    with pytest.raises(ValueError, match="invalid literal"):
        unspell("x")


def failing(keep: Keep) -> bool:
    """A bug that takes one fault and two requests, in an order of tasks that leaving things out may spoil."""
    faults, requests = keep.faults or frozenset(), keep.requests or frozenset()
    return 3 in faults and {17, 130} <= requests and (len(requests) % 2 == 0 or keep.salt == 1)


def test_a_failing_run_is_made_short() -> None:
    played = []

    def play(seed: int, mutant: str, keep: Keep) -> Report:
        played.append(keep)
        return Report(seed, mutant, keep, ["c0/x: deleted, and back again:\n  put #9"] if failing(keep) else [])

    script = draw(1, 7, Traits())
    assert 3 in numbers_of(script.faults) and {17, 130} <= numbers_of(script.requests)
    found = Shrinker(1, "", 1e9, play=play).run(Report(1, "", Keep(), ["c1/y: deleted, and back again:\n  put #4"]))
    assert (found.keep.faults, found.keep.changes) == (frozenset({3}), frozenset())
    assert found.keep.requests == frozenset({17, 130}) and len(played) < 600


def test_shrinking_ends_when_its_time_is_up() -> None:
    now = iter(range(1000))
    shrinker = Shrinker(1, "", 10, play=lambda seed, mutant, keep: Report(seed, mutant, keep), clock=lambda: next(now))
    found = shrinker.run(Report(1, "", Keep(), ["it broke"]))
    assert found.violations == ["it broke"] and shrinker.tries < 12
    assert found.keep.faults == numbers_of(draw(1, 7, Traits()).faults)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("c0/x: deleted, and back again:\n 1", "r/p: deleted, and back again:\n 2", True),
        ("c0/x: deleted, and back again:", "c0/x: acknowledged, and not found:", False),
        ("device 3 lets go of the last good copy of ab12: handed off", "device 4 lets go of the last good copy of cd: x", True),
        ("a task failed:\n  File x\nKeyError: 3", "a task failed:\n  File y\nKeyError: 4", True),
        ("a task failed:\nKeyError: 3", "a task failed:\nValueError: 3", False),
    ],
)
def test_which_failures_are_the_same(one: str, other: str, same: bool) -> None:
    marks = [mark(Report(1, "", violations=[words])) for words in (one, other)]
    assert (marks[0] == marks[1]) is same and all(marks)
