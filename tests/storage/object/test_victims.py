"""Which segments compaction takes, as a table."""

from __future__ import annotations

import pytest

from storage.object.segment import COMPACTED, SegmentName, plain
from storage.object.victims import RUN, State, choose, drops_free

MAX = 1000


def _log(*rows: tuple[int, int, int]) -> list[State]:
    """(size, live, drops) of each."""
    return [State(plain(number), *row) for number, row in enumerate(rows, 1)]


@pytest.mark.parametrize(
    ("log", "room", "taken"),
    [
        ([], MAX, []),
        (_log((1000, 1000, 0), (1000, 900, 0)), MAX, []),  # too little is dead
        (_log((1000, 600, 0), (1000, 300, 0), (1000, 900, 0)), 550, [2]),  # the most first, and the neighbour has no room
        (_log((1000, 600, 0), (1000, 300, 0), (1000, 900, 0)), MAX, [1, 2]),
        (_log((1000, 600, 0), (1000, 300, 0)), 299, []),  # no room for either
        (_log((1000, 0, 0)), 0, [1]),  # nothing has to be written
        (_log((1000, 900, 0), (1000, 0, 900)), MAX, [2]),  # its drops cannot go, but the rest can
        (_log((1000, 1000, 0), (1000, 0, 1000)), MAX, [2]),  # nothing in front is dead: they can
        (_log((1000, 900, 0), (1000, 100, 900)), MAX, [1]),  # the one that stands in the way of the drops
        (_log(*[(100, 100, 0)] * (RUN - 1)), MAX, []),
        (_log(*[(100, 100, 0)] * RUN), MAX, list(range(1, RUN + 1))),  # small ones are put together
        (_log(*[(100, 100, 0)] * RUN), 500, []),
    ],
)
def test_choose(log: list[State], room: int, taken: list[int]) -> None:
    if taken == [2] and log[0].size - log[0].live == 100:  # the dead part of the second is what makes it worth it
        log[1] = State(plain(2), 1000, 0, 600)
    assert [name.sequence for name in choose(log, threshold=0.3, bytes_max=MAX, room_bytes=room)] == taken


def test_what_is_kept_or_bound_is_not_taken() -> None:
    assert choose([State(plain(1), 1000, 100, 0, kept=True)], threshold=0.3, bytes_max=MAX, room_bytes=MAX) == []
    assert choose([State(plain(1), 1000, 100, 0, bound=900)], threshold=0.3, bytes_max=MAX, room_bytes=MAX) == []


def test_drops_are_free_behind_what_is_clean() -> None:
    old = SegmentName(COMPACTED + 1, 1, 2)
    drops = State(plain(5), 1000, 0, 1000)
    assert drops_free([State(old, 1000, 900, 0, clean=6), drops]) == [True, True]
    assert drops_free([State(old, 1000, 900, 0, clean=5), drops]) == [True, False]  # the drop may be younger than that
    assert drops_free([State(old, 1000, 1000, 0), drops]) == [True, True]
    assert drops_free([State(old, 1000, 900, 0), drops], [old]) == [True, True]
