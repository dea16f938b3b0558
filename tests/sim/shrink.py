"""A failing run made short: what it does not need is left out, as long as it still fails in the same way.

In the order in which leaving out pays: whole kinds of fault, ring changes, whole clients, then halves, quarters, ... of what is
left of faults, of requests.  A candidate counts when the same checker speaks up (``mark``).  Leaving something out gives everything
after it other delays, so a candidate is tried with a few salts (the same script, another order of things).  Bounded by time.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from tests.sim.run import Report, play, script_of
from tests.sim.script import Keep, Script, numbers_of

SALTS = 3
Play = Callable[[int, str, Keep], Report]


def mark(report: Report) -> str:
    """Which checker spoke up: its words without names and numbers."""
    if not report.violations:
        return ""
    first = report.violations[0]
    if first.startswith("a task failed"):
        return "a task failed: " + first.strip().splitlines()[-1].partition(":")[0]
    words = re.sub(r"\S*[\d/#:]\S*", "", first.partition("\n")[0])
    return " ".join(words.split()[:6])


@dataclass
class Shrinker:
    seed: int
    mutant: str
    limit_s: float
    play: Play = lambda seed, mutant, keep: play(seed, mutant, keep, keep_trace=False)
    told: Callable[[str], object] = lambda line: None
    clock: Callable[[], float] = time.monotonic
    tries: int = 0
    _until: float = field(init=False, default=0.0)

    def run(self, report: Report) -> Report:
        """The shortest run found that fails like ``report``."""
        self._until = self.clock() + self.limit_s
        best, wanted = report, mark(report)
        script = script_of(self.seed, self.mutant).kept(report.keep)
        best = replace_keep(best, _explicit(script, report.keep.salt))
        progress = True
        while progress and self.clock() < self._until:
            progress = False
            for keep in _candidates(script_of(self.seed, self.mutant).kept(best.keep), best.keep):
                found = self._fails(keep, wanted)
                if found is not None:
                    best, progress = found, True
                    self.told(f"{_size(found.keep)}: still fails")
                    break
                if self.clock() >= self._until:
                    break
        return best

    def _fails(self, keep: Keep, wanted: str) -> Report | None:
        for salt in dict.fromkeys((keep.salt, *range(SALTS))):
            if self.clock() >= self._until:
                return None
            self.tries += 1
            report = self.play(self.seed, self.mutant, replace(keep, salt=salt))
            if mark(report) == wanted:
                return report
        return None


def replace_keep(report: Report, keep: Keep) -> Report:
    return replace(report, keep=keep)


def _explicit(script: Script, salt: int) -> Keep:
    return Keep(numbers_of(script.faults), numbers_of(script.changes), numbers_of(script.requests), salt)


def _candidates(script: Script, keep: Keep) -> Iterator[Keep]:
    """Shorter ones, the boldest first."""
    faults, changes, requests = (numbers or frozenset() for numbers in (keep.faults, keep.changes, keep.requests))
    if faults:
        yield replace(keep, faults=frozenset[int]())
    if changes:
        yield replace(keep, changes=frozenset[int]())
    for kind in dict.fromkeys(fault.kind for fault in script.faults):
        yield replace(keep, faults=faults - {fault.number for fault in script.faults if fault.kind == kind})
    for client in script.clients:
        if client:
            yield replace(keep, requests=requests - {request.number for request in client})
    if len(requests) > 1:  # the ends of all clients at once
        first_half = [request.number for client in script.clients for request in client[: len(client) // 2]]
        yield replace(keep, requests=frozenset(first_half))
    yield from (replace(keep, faults=kept) for kept in _without_parts(faults))
    yield from (replace(keep, changes=kept) for kept in _without_parts(changes))
    yield from (replace(keep, requests=kept) for kept in _without_parts(requests))


def _without_parts(numbers: frozenset[int]) -> Iterator[frozenset[int]]:
    """Without a half, a quarter, ..., one."""
    ordered = sorted(numbers)
    size = len(ordered) // 2
    while size:
        for at in range(0, len(ordered), size):
            yield numbers - set(ordered[at : at + size])
        size //= 2
    if len(ordered) == 1:
        yield frozenset()


def _size(keep: Keep) -> str:
    return ", ".join(
        f"{len(numbers or ())} {name}"
        for name, numbers in (("faults", keep.faults), ("ring changes", keep.changes), ("requests", keep.requests))
    )
