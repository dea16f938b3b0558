"""Which neighbours in the log compaction takes next.  Pure.

First what gives back most for what has to be copied; then, when drop records pile up because something older of their names may
still lie in front of them, the oldest segment that stands in their way; then runs of small segments, so that their number stays
small.  What is taken must fit into one segment and into the room that the device has.  Neighbours: compaction.py asks, weights.py
counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from storage.object.segment import SegmentName

SMALL = 8  # a segment is small below this part of the greatest size
RUN = 8  # so many small neighbours are put together
_EVER = 1 << 32


@dataclass(frozen=True, slots=True)
class State:
    """A segment of the log.  Bytes: ``size`` of its records, ``live`` and ``drops`` of them, ``bound`` dead or dropped but not
    to be had (a debt keeps them).  ``clean``: as in SegmentHead."""

    name: SegmentName
    size: int
    live: int
    drops: int
    bound: int = 0
    clean: int = 0
    kept: bool = False  # not to be touched

    @property
    def dead(self) -> int:
        return max(0, self.size - self.live - self.drops)


@dataclass(frozen=True, slots=True)
class _Choice:
    state: State
    gain: int
    keep: int


def choose(log: Sequence[State], *, threshold: float, bytes_max: int, room_bytes: int) -> list[SegmentName]:
    """Neighbours in the order of the log, or nothing.  ``threshold``: the part of a segment that must be had back by it;
    ``room_bytes``: what may be written."""
    free = drops_free(log)
    choices = []
    for state, drops_too in zip(log, free, strict=True):
        gain = max(0, state.dead + (state.drops if drops_too else 0) - state.bound)
        choices.append(_Choice(state, gain, state.size - gain))
    limit = min(bytes_max, room_bytes)
    best = max(
        (n for n, choice in enumerate(choices) if _worth(choice, threshold) and choice.keep <= limit),
        key=lambda n: (choices[n].gain / choices[n].state.size, -n),
        default=None,
    )
    if best is not None:
        first, last = _extend(choices, best, threshold, bytes_max, limit)
        return [choice.state.name for choice in choices[first : last + 1]]
    blocked = sum(state.drops for state, drops_too in zip(log, free, strict=True) if not drops_too)
    if blocked and blocked >= threshold * sum(state.size for state in log):
        for choice in choices:
            if not choice.state.kept and choice.state.dead > choice.state.bound and choice.keep <= limit:
                return [choice.state.name]
    return _small_run(choices, bytes_max, limit)


def drops_free(log: Sequence[State], victims: Sequence[SegmentName] = ()) -> list[bool]:
    """For each segment, whether its drop records may leave: nothing in front of it can hold what they took away.  What is dead in
    ``victims`` goes before it can matter."""
    found = []
    clean = _EVER
    for state in log:
        found.append(clean > state.name.last)
        if state.dead and state.name not in victims:
            clean = min(clean, state.clean)
    return found


def _worth(choice: _Choice, threshold: float) -> bool:
    return not choice.state.kept and choice.gain > 0 and choice.gain >= threshold * choice.state.size


def _small(choice: _Choice, bytes_max: int) -> bool:
    return not choice.state.kept and choice.state.size * SMALL <= bytes_max


def _extend(choices: Sequence[_Choice], best: int, threshold: float, bytes_max: int, limit: int) -> tuple[int, int]:
    first = last = best
    total = choices[best].keep
    while True:
        for at in (first - 1, last + 1):
            if not 0 <= at < len(choices) or total + choices[at].keep > limit:
                continue
            if _worth(choices[at], threshold / 2) or _small(choices[at], bytes_max):
                total += choices[at].keep
                first, last = min(first, at), max(last, at)
                break
        else:
            return first, last


def _small_run(choices: Sequence[_Choice], bytes_max: int, limit: int) -> list[SegmentName]:
    run: list[_Choice] = []
    for choice in choices:
        if not _small(choice, bytes_max) or sum(one.keep for one in run) + choice.keep > limit:
            run = []
        if _small(choice, bytes_max):
            run.append(choice)
        if len(run) == RUN:
            return [one.state.name for one in run]
    return []
