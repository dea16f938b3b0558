"""The state machine of a device, as a table: what it was, what happened, what it is."""

from __future__ import annotations

import errno
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ring.world.interface import Space
from storage.object.health import (
    ERRORS_MAX,
    ERRORS_WINDOW_S,
    FULL_LEAST_S,
    RESERVE_BYTES,
    WAITS_S,
    Change,
    Health,
    Reserve,
    State,
)

RESERVE = Reserve(100, 0.1)
TOTAL = 10_000  # so 100 are kept back
ROOM = Space(TOTAL, 5_000)


def error(number: int) -> OSError:
    return OSError(number, os.strerror(number))


def in_state(state: State) -> Health:
    """At 0 s."""
    health = Health(RESERVE)
    health.looked(ROOM, 0.0)
    match state:
        case State.FULL:
            health.looked(Space(TOTAL, 99), 0.0)
        case State.READ_ONLY:
            health.looked(Space(TOTAL, 5_000, read_only=True), 0.0)
        case State.OUT:
            health.missing("it has no label", 0.0)
    assert health.state is state
    return health


LOOKS = {
    "room": ROOM,
    "as much as is kept back": Space(TOTAL, 100),
    "less": Space(TOTAL, 99),
    "not a quarter more": Space(TOTAL, 124),
    "a quarter more": Space(TOTAL, 125),
    "read-only": Space(TOTAL, 5_000, read_only=True),
    "read-only and less": Space(TOTAL, 99, read_only=True),
}
S, F, R, O = State.IN_SERVICE, State.FULL, State.READ_ONLY, State.OUT  # noqa: E741 - columns


@pytest.mark.parametrize(
    ("event", "after"),
    [  # ............................. from: in service, full, read-only, out
        ("room", (S, S, O, O)),
        ("as much as is kept back", (S, F, O, O)),
        ("less", (F, F, O, O)),
        ("not a quarter more", (S, F, O, O)),
        ("a quarter more", (S, S, O, O)),
        ("read-only", (R, R, R, O)),
        ("read-only and less", (R, R, R, O)),
        (errno.EROFS, (R, R, R, O)),
        (errno.ENOSPC, (F, F, R, O)),
        (errno.EDQUOT, (F, F, R, O)),
        (errno.ENODEV, (O, O, O, O)),
        (errno.ESTALE, (O, O, O, O)),
        (errno.EIO, (S, F, R, O)),  # the first one
        (errno.ETIMEDOUT, (O, O, O, O)),  # the disk does not answer
        (errno.ENOENT, (S, F, R, O)),  # says nothing of the disk
        (errno.EMFILE, (S, F, R, O)),
        ("missing", (O, O, O, O)),
        ("failed", (O, O, R, O)),  # an engine that cannot write any more; what it holds is read
        ("opened", (S, S, S, S)),
    ],
)
def test_one_event(event: str | int, after: tuple[State, ...]) -> None:
    for before, expected in zip(State, after, strict=True):
        health = in_state(before)
        changes: list[Change] = []
        health.changed = changes.append
        if isinstance(event, int):
            health.erred(error(event), "a place", 1.0)
        elif event in LOOKS:
            health.looked(LOOKS[event], 1.0)
        elif event == "missing":
            health.missing("another disk is mounted there", 1.0)
        elif event == "failed":
            health.failed("its index cannot be read", 1.0)
        else:
            health.opened(1.0)
        assert health.state is expected, (before, event)
        assert health.out is (expected is State.OUT)
        assert health.since == (0.0 if expected is before else 1.0)
        assert bool(health.reason) is (expected is not State.IN_SERVICE)
        assert [(c.before, c.after) for c in changes if c.before is not c.after] == (
            [(before, expected)] if before is not expected else []
        )


def test_errors_of_several_places_take_it_out_and_old_ones_do_not_count() -> None:
    health = in_state(State.IN_SERVICE)
    for _ in range(5):
        health.erred(error(errno.EIO), "one bad sector", 1.0)
    assert not health.out
    assert ERRORS_MAX == 2
    health.erred(error(errno.EIO), "another", 1.0 + ERRORS_WINDOW_S)
    assert not health.reason
    health.erred(error(errno.EIO), "a third", 2.0 + ERRORS_WINDOW_S)
    assert "2 times" in health.reason
    assert "a third" in health.reason


def test_when_it_is_full_new_data_is_refused_and_deletes_are_not() -> None:
    health = in_state(State.FULL)
    assert not health.admits(0)
    assert health.takes_writes
    read_only = in_state(State.READ_ONLY)
    assert not read_only.admits(0)
    assert not read_only.takes_writes
    assert not in_state(State.OUT).takes_writes


def test_what_is_kept_back_is_not_used_up_between_two_looks() -> None:
    health = in_state(State.IN_SERVICE)
    assert not health.admits(4_901)  # of 5,000 free, 100 are kept back
    assert health.admits(4_000)
    assert health.admits(900)
    assert not health.admits(1)
    assert health.state is State.IN_SERVICE  # a look decides that: what is on its way may be given up
    health.looked(Space(TOTAL, 2_000), 1.0)
    assert health.admits(1_900)


def test_a_full_disk_that_still_has_free_bytes_is_left_alone_for_a_while() -> None:
    health = in_state(State.IN_SERVICE)
    health.erred(error(errno.ENOSPC), "a segment", 1.0)  # no inodes, a quota
    health.looked(ROOM, 2.0)
    assert not health.admits(1)
    health.looked(ROOM, 1.0 + FULL_LEAST_S)
    assert health.admits(1)


def test_it_waits_longer_each_time_and_a_lost_mount_does_not_count() -> None:
    health = in_state(State.IN_SERVICE)
    now = 0.0
    for _ in range(10):
        health.missing("not mounted", now)
        assert health.wait_s(now) == 0.0
        health.opened(now)
    waits = []
    for _ in range(len(WAITS_S) + 2):
        health.failed("its disk failed", now)
        waits.append(health.wait_s(now))
        now += waits[-1]
        assert health.wait_s(now) == 0.0
        health.trying()
        assert not health.out
        assert health.state is State.OUT  # its engines may begin, and nobody is served yet
        health.opened(now)
    assert waits == [*WAITS_S, WAITS_S[-1], WAITS_S[-1]]
    health.failed("its disk failed", now + ERRORS_WINDOW_S)
    assert health.wait_s(now + ERRORS_WINDOW_S) == WAITS_S[0]


def test_an_attempt_that_fails_leaves_it_out() -> None:
    health = in_state(State.OUT)
    health.trying()
    health.missing("it has no label", 2.0)
    assert health.out
    health.trying()
    health.failed("its tables cannot be opened", 3.0)
    assert health.out
    assert health.reason == "its tables cannot be opened"
    assert health.since == 0.0  # it was out all the time


@pytest.mark.parametrize(("total", "kept"), [(1 << 40, RESERVE_BYTES), (1 << 30, (1 << 30) // 100), (0, 0)])
def test_the_reserve_is_a_size_and_at_most_a_share(total: int, kept: int) -> None:
    assert Reserve().of(total) == kept


EVENTS = st.one_of(
    st.tuples(st.just("look"), st.sampled_from(sorted(LOOKS))),
    st.tuples(st.just("erred"), st.sampled_from([errno.EIO, errno.EROFS, errno.ENOSPC, errno.ENODEV, errno.ENOENT])),
    st.tuples(st.just("missing"), st.just("")),
    st.tuples(st.just("failed"), st.just("")),
)


@given(st.lists(EVENTS, max_size=30))
def test_out_stays_out_until_it_is_opened(events: list[tuple[str, str | int]]) -> None:
    health = Health(RESERVE)
    was_out = False
    for now, (kind, what) in enumerate(events):
        match kind:
            case "look":
                health.looked(LOOKS[str(what)], float(now))
            case "erred":
                health.erred(error(int(what)), f"at {now}", float(now))
            case "missing":
                health.missing("no label", float(now))
            case "failed":
                health.failed("an engine", float(now))
        was_out = was_out or health.out
        assert health.out == was_out
        assert health.out == (health.state is State.OUT)
        if health.state is not State.IN_SERVICE:
            assert health.reason
            assert not health.admits(0)
    health.trying()
    health.opened(99.0)
    assert health.admits(0) or (health.space is not None and health.space.free_bytes < 100)


def test_what_could_not_be_written_down_is_not_tried_again() -> None:
    health = in_state(State.IN_SERVICE)
    health.stays_out = True
    health.failed("acknowledged records were lost", 1.0)
    assert health.wait_s(1e9) == float("inf")
