"""Is what happened to one name what one register could have shown?  Pure.

The register holds a value, 0 for "not there".  Every operation takes effect at one moment between its start and its end, in an
order that explains all answers; one whose fate is unknown takes effect at any one moment after its start, or never.  ``violation``
looks for such an order as Wing and Gong do ("Testing and Verifying Concurrent Objects", 1993), with Lowe's memory of what was tried
("Testing for linearizability", 2017).  An answer that changes nothing and fits the value of the moment is taken at once: it can
only be in the way later.  A write of unknown fate is taken only while an answer that is left could need it.

Values must be unique: no two writes of a name leave the same one, but for 0.  Neighbours: history.py (what clients saw), the tests
that race writers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from math import inf

NOTHING = 0
STEPS_MAX = 2_000_000


class When(Enum):
    """What a conditional operation asks of the value that it finds."""

    ALWAYS = "always"
    ABSENT = "absent"  # If-None-Match: *
    PRESENT = "present"  # If-Match: *
    EQUAL = "equal"  # If-Match: the ETag of a value
    OTHER = "other"  # If-None-Match: the ETag of a value


@dataclass(frozen=True, slots=True)
class Condition:
    when: When = When.ALWAYS
    value: int = NOTHING

    def holds(self, found: int) -> bool:
        match self.when:
            case When.ALWAYS:
                return True
            case When.ABSENT:
                return found == NOTHING
            case When.PRESENT:
                return found != NOTHING
            case When.EQUAL:
                return found == self.value
            case When.OTHER:
                return found != self.value


ALWAYS = Condition()


class Fate(Enum):
    DONE = "done"
    FAILED = "failed"  # the condition did not hold: nothing was changed
    UNKNOWN = "unknown"  # it may have been done, or may be done later


@dataclass(frozen=True, slots=True)
class Operation:
    """``writes``: the value that it leaves (0: a deletion); None for a read, and then ``saw`` is what it saw.  Times: any clock."""

    start: float
    end: float = inf
    writes: int | None = None
    saw: int = NOTHING
    condition: Condition = ALWAYS
    fate: Fate = Fate.DONE
    label: str = ""

    def step(self, found: int) -> int | None:
        """The value after it, when it may take effect upon this one; else None."""
        if self.writes is None:
            return found if found == self.saw else None
        holds = self.condition.holds(found)
        if self.fate is Fate.FAILED:
            return None if holds else found
        return self.writes if holds else None

    def __str__(self) -> str:
        what = f"read {self.saw}" if self.writes is None else f"write {self.writes}"
        if self.condition is not ALWAYS:
            what += f" if {self.condition.when.value} {self.condition.value or ''}"
        end = "never" if self.end == inf else f"{self.end:.3f}"
        return f"{what} {self.fate.value} [{self.start:.3f}, {end}] {self.label}"


class TooHard(Exception):
    """The search was given up: neither yes nor no."""


def violation(operations: Iterable[Operation], *, first: int = NOTHING, steps_max: int = STEPS_MAX) -> str | None:
    """None when one register, holding ``first`` at the beginning, explains all answers; else which operation cannot be explained
    after the longest explanation of the others, in words.  TooHard after ``steps_max`` configurations."""
    known = [o for o in operations if not (o.writes is None and o.fate is Fate.UNKNOWN)]  # a read without an answer says nothing
    search = _Search(sorted(known, key=lambda operation: (operation.start, operation.end)))
    seen: set[tuple[int, int]] = set()
    best, best_at = -1, (0, first)
    stack = [(0, first)]
    parents: dict[tuple[int, int], tuple[tuple[int, int], int]] = {}
    while stack:
        at = done, value = stack.pop()
        if (done, search.shape(done, value)) in seen:
            continue
        seen.add((done, search.shape(done, value)))
        if len(seen) > steps_max:
            raise TooHard(f"{len(search.ordered)} operations: no answer after {steps_max} steps")
        if done & search.must == search.must:
            return None
        explained = (done & search.must).bit_count()
        if explained > best:
            best, best_at = explained, at
        for place, after in search.following(done, value):
            found = done | 1 << place, after
            if (found[0], search.shape(*found)) not in seen:
                parents[found] = at, place
                stack.append(found)
    return _told(search.ordered, search.must, best_at[1], _order(parents, best_at))


class _Search:
    """``ordered`` by start.  A configuration is (bits of those that took effect, the value)."""

    def __init__(self, ordered: Sequence[Operation]) -> None:
        self.ordered = ordered
        self.must = sum(1 << place for place, operation in enumerate(ordered) if operation.fate is not Fate.UNKNOWN)
        self._ends = [inf if operation.fate is Fate.UNKNOWN else operation.end for operation in ordered]
        self._naming: dict[int, int] = {}  # value -> bits of those whose answer speaks of that very value
        self._conditional = 0  # bits of those that ask anything of what they find
        for place, operation in enumerate(ordered):
            if operation.writes is None:
                self._name(operation.saw, place)
            elif operation.condition.when is not When.ALWAYS:
                self._conditional |= 1 << place
                if operation.condition.when in (When.EQUAL, When.OTHER):
                    self._name(operation.condition.value, place)

    def _name(self, value: int, place: int) -> None:
        self._naming[value] = self._naming.get(value, 0) | 1 << place

    def _named(self, done: int, value: int) -> bool:
        return bool(self._naming.get(value, 0) & ~done)

    def shape(self, done: int, value: int) -> int:
        """Values that nobody who is left speaks of are all the same."""
        return value if value == NOTHING or self._named(done, value) else -1

    def following(self, done: int, value: int) -> list[tuple[int, int]]:
        """(which operation, the value after it) of those that can come next; those to be tried first come last."""
        horizon = min(end for place, end in enumerate(self._ends) if not done >> place & 1)  # who starts behind it comes later
        unsure, sure = list[tuple[int, int]](), list[tuple[int, int]]()
        alike: set[int] = set()  # of writes that differ in nothing that matters, the earliest will do
        for place, operation in enumerate(self.ordered):
            if operation.start > horizon:
                break
            if done >> place & 1:
                continue
            after = operation.step(value)
            if after is None:
                continue
            if operation.fate is Fate.UNKNOWN:
                shape = self.shape(done, after)
                wanted = shape != -1 or bool(self._conditional & ~done & ~(1 << place))
                if not wanted or after == value or shape in alike:
                    continue
                if operation.condition.when is When.ALWAYS and (shape == -1 or after == NOTHING):
                    alike.add(shape)
                unsure.append((place, after))
            elif operation.writes is None or operation.fate is Fate.FAILED:
                return [(place, after)]
            else:
                sure.append((place, after))
        return [*unsure, *reversed(sure)]


def _order(parents: dict[tuple[int, int], tuple[tuple[int, int], int]], at: tuple[int, int]) -> list[int]:
    order: list[int] = []
    while at in parents:
        at, place = parents[at]
        order.append(place)
    return order[::-1]


def _told(ordered: Sequence[Operation], must: int, value: int, order: Sequence[int]) -> str:
    stuck = [operation for place, operation in enumerate(ordered) if must >> place & 1 and place not in order]
    lines = [f"no order explains it; after the last of these the value is {value}:"]
    lines += [f"    {ordered[place]}" for place in order[-8:]]
    lines.append("and then one of these cannot be explained:")
    lines += [f"    {operation}" for operation in sorted(stuck, key=lambda operation: operation.end)[:4]]
    return "\n".join(lines)
