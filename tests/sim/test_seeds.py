"""Three hundred seeds of the simulated cluster, the seeds that once failed, and the mutants that must be noticed.

Seeds run in processes of their own, as many at a time as there are cores.  A failure is shrunk, and prints the command that
replays it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from ring.world.real import make_world
from tests.sim import hunt
from tests.sim.__main__ import shrunk, words
from tests.sim.mutants import MUTANTS
from tests.sim.regressions import REGRESSIONS
from tests.sim.run import Report

SEEDS = range(1, 301)
MUTANTS_LEAST = 12
SEEDS_A_MUTANT = 30
SHRINK_S = 30.0
SHOWN = 5


def failed(jobs: Sequence[hunt.Job]) -> list[Report]:
    return sorted((report for report in hunt.reports(jobs) if report.violations), key=lambda report: report.seed)


def told(reports: Sequence[Report]) -> str:
    """The first one shrunk; of some others what they are."""
    if not reports:
        return ""
    return "\n\n".join([words(shrunk(reports[0], SHRINK_S)), *(words(report) for report in reports[:SHOWN])])


def test_seeds() -> None:
    found = failed([(seed, "") for seed in SEEDS])
    assert not found, told(found)


def test_seeds_that_failed_once() -> None:
    found = failed([(seed, "") for seed in REGRESSIONS])
    assert not found, "\n\n".join(f"{words(report)}\n(once: {REGRESSIONS[report.seed]})" for report in found)


def test_mutants_are_caught_by_their_seeds() -> None:
    """Or by one of those that follow: whatever is changed in the product makes another story of a seed.  ``make sim-mutants`` finds
    new ones."""
    missed = {name: mutant.seed for name, mutant in MUTANTS.items() if mutant.seed}
    assert len(missed) >= MUTANTS_LEAST
    for further in range(SEEDS_A_MUTANT):
        jobs = [(seed + further, name) for name, seed in missed.items()]
        for report in hunt.reports(jobs):
            if report.noticed:
                del missed[report.mutant]
        if not missed:
            return
    raise AssertionError(f"nobody noticed {', '.join(sorted(missed))}: make sim-mutants")


async def test_a_seed_is_the_same_in_every_process() -> None:
    """Also where strings hash differently: otherwise the command of a failing seed would show something else."""
    for seed in ("2", "4"):  # HTTP, and the node protocol
        traces = set()
        for salt in ("0", "1", "random"):
            argv = ["env", f"PYTHONHASHSEED={salt}", sys.executable, "-m", "tests.sim", "--seed", seed]
            status, trace, errors = await make_world().process.run(argv, timeout_s=300)
            assert status == 0, errors.decode()
            traces.add(trace)
        assert len(traces) == 1
