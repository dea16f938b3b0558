"""A minute of storm over a cloud of real processes and small disks; what was promised must hold afterwards."""

from __future__ import annotations

import os
import time
from itertools import pairwise
from pathlib import Path

import pytest

from tests.live.cell import Mounts, find_cell, start
from tests.live.disks import POSSIBLE
from tests.live.plan import DISKS, PROCESSES, Deed, make_plan
from tests.live.storm import command, play

SEED = 1
SECONDS = 60.0
LEAST = 100  # acknowledged writes: less is no load, also on a busy machine

live = pytest.mark.live


@live
def test_a_storm(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = play(SEED, SECONDS, folder / "storm", timeout_s=SECONDS + 900)
    wrong = "\n".join(report.violations)
    assert not report.violations, f"the same schedule again: {command(SEED, SECONDS)}\n{wrong}"
    assert report.counts["acknowledged"] >= LEAST, report.counts
    assert report.counts["races won"] > 0, report.counts
    with capsys.disabled():
        if report.mounts == Mounts.NONE.value:  # said, and not skipped: the other half of the storm was played
            print("\nno disk was filled or unmounted: this machine permits no mounts, not even in a user namespace")


@live
def test_nothing_of_a_cell_outlives_it(folder: Path) -> None:
    """Neither its processes nor its mounts, however the program that asked for it ends."""
    _, cell = find_cell()
    if not cell:
        pytest.skip("this machine permits no namespaces: no cell can be made")
    ready = folder / "storm" / "cloud" / "ready"
    words = ["--seed", "1", "--seconds", "600", "--inside", find_cell()[0].value, "--folder", str(folder / "storm")]
    process = start("tests.live.storm", words, cell)
    deadline = time.monotonic() + 120
    while not ready.exists():
        assert process.poll() is None and time.monotonic() < deadline, "it did not start"
        time.sleep(0.05)
    assert holders(folder), "its processes are seen from here"
    assert process.stdin is not None and process.stdout is not None
    process.stdin.close()  # as when the test is killed
    process.wait(30)
    process.stdout.close()
    deadline = time.monotonic() + 30
    while holders(folder):
        assert time.monotonic() < deadline, "its processes live on"
        time.sleep(0.05)
    assert str(folder) not in Path("/proc/self/mountinfo").read_text()
    assert str(folder) not in "".join(backing.read_text() for backing in Path("/sys/block").glob("loop*/loop/backing_file"))


def holders(folder: Path) -> list[int]:
    """Processes that name the folder in their command."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if process.name != str(os.getpid()) and str(folder).encode() in (process / "cmdline").read_bytes():
                found.append(int(process.name))
        except OSError:
            continue
    return found


@pytest.mark.parametrize("seed", range(20))
def test_a_plan_is_the_same_again_and_has_everything(seed: int) -> None:
    plan = make_plan(seed, 60.0, workers=3, devices=5, disk_deeds=POSSIBLE[Mounts.EXT4])
    assert plan == make_plan(seed, 60.0, workers=3, devices=5, disk_deeds=POSSIBLE[Mounts.EXT4])
    assert plan != make_plan(seed + 1, 60.0, workers=3, devices=5, disk_deeds=POSSIBLE[Mounts.EXT4])
    assert {fault.deed for fault in plan} == {*PROCESSES, *DISKS}
    assert all(0 < fault.at_s < 60.0 for fault in plan)
    struck = [fault for fault in plan if fault.deed in DISKS]
    assert all(first.until_s < then.at_s for first, then in pairwise(struck)), "one disk at a time"
    assert {fault.target for fault in plan} <= set(range(-1, 5))


def test_without_mounts_the_processes_are_struck_all_the_same() -> None:
    plan = make_plan(1, 60.0, workers=3, devices=5, disk_deeds=POSSIBLE[Mounts.NONE])
    assert {fault.deed for fault in plan} == set(PROCESSES)
    tmpfs = make_plan(1, 60.0, workers=3, devices=5, disk_deeds=POSSIBLE[Mounts.TMPFS])
    assert {fault.deed for fault in tmpfs} == {*PROCESSES, Deed.FILL, Deed.UNMOUNT}
