"""What is told of runs that do not end as they should."""

from __future__ import annotations

import pytest

from tests.sim import hunt
from tests.sim.run import play


def test_a_run_without_an_end_is_a_finding() -> None:
    report = play(1, ends_within_s=5.0)
    assert [violation.partition(";")[0] for violation in report.violations] == ["no end after 5 virtual s"]
    assert report.noticed


def test_reports_come_of_all_jobs() -> None:
    jobs = [(seed, "") for seed in (1, 2, 3)]
    assert sorted((report.seed, report.mutant) for report in hunt.reports(jobs, cores=2)) == jobs


def test_a_failure_of_the_hunt_itself_is_raised() -> None:
    with pytest.raises(KeyError, match="no such mutant"):
        list(hunt.reports([(1, "no such mutant")], cores=1))
