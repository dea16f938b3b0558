"""A hundred seeds of the simulated cluster, the seeds that once failed, and the mutants that must be noticed.

Seeds run in processes of their own, as many at a time as there are cores.  A failure prints the command that replays it.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed

import pytest

from ring.world.real import make_world
from tests.sim.mutants import MUTANTS
from tests.sim.regressions import REGRESSIONS
from tests.sim.run import Report, command, play

SEEDS = range(1, 101)
MUTANT_SEEDS = range(1, 51)


def play_all(seeds: Iterable[int], mutant: str = "", *, until_first: bool = False) -> list[Report]:
    """The reports that have violations, by seed."""
    found = []
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count(), mp_context=context) as pool:
        waiting = [pool.submit(play, seed, mutant, keep_trace=False) for seed in seeds]
        for future in as_completed(waiting):
            report = future.result()
            if report.violations:
                found.append(report)
                if until_first:
                    pool.shutdown(cancel_futures=True)
                    break
    return sorted(found, key=lambda report: report.seed)


def words(report: Report) -> str:
    return "\n".join(
        [f"seed {report.seed} broke a promise; replay it with\n    {command(report.seed, report.mutant)}", *report.violations]
    )


def test_seeds() -> None:
    failed = play_all(SEEDS)
    assert not failed, "\n\n".join(words(report) for report in failed[:5])


def test_seeds_that_failed_once() -> None:
    failed = play_all(REGRESSIONS)
    assert not failed, "\n\n".join(f"{words(report)}\n(once: {REGRESSIONS[report.seed]})" for report in failed)


@pytest.mark.parametrize("mutant", sorted(MUTANTS))
def test_mutants_are_caught(mutant: str) -> None:
    """Within 50 seeds some checker speaks up; that a task failed, or that time ran out, is not enough."""
    assert play_all(MUTANT_SEEDS, mutant, until_first=True), f"nobody noticed {mutant}"


async def test_a_seed_is_the_same_in_every_process() -> None:
    """Also where strings hash differently: otherwise the command of a failing seed would show something else."""
    traces = set()
    for salt in ("0", "1", "random"):
        argv = ["env", f"PYTHONHASHSEED={salt}", sys.executable, "-m", "tests.sim", "--seed", "4"]
        status, trace, errors = await make_world().process.run(argv, timeout_s=300)
        assert status == 0, errors.decode()
        traces.add(trace)
    assert len(traces) == 1
