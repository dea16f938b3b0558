"""The checks after a storm see what is wrong."""

from __future__ import annotations

from pathlib import Path

from tests.live import rest
from tests.live.load import Log
from tests.sim.history import Kind, Outcome
from tests.sim.linearizable import Condition, When
from tools.deploy.layout import Layout


def test_a_clean_history_is_clean() -> None:
    log = Log()
    put = log.history.begin(Kind.PUT, "calm/1", 1.0, "a", 1)
    put.end, put.outcome = 2.0, Outcome.ACKED
    read = log.history.begin(Kind.READ, "calm/1", 3.0, "b")
    read.end, read.outcome, read.value = 4.0, Outcome.ACKED, 1
    assert rest.histories(log) == []
    read.value = 0
    assert rest.histories(log) == [f"calm/1: acknowledged, and not found:\n    {put}\n    {read}"]


def test_two_winners_of_one_race_are_told() -> None:
    log = Log()
    for value, start in ((1, 1.0), (2, 1.5)):
        put = log.history.begin(Kind.PUT, "calm/race-0000", start, "a", value, Condition(When.ABSENT))
        put.end, put.outcome = 2.0, Outcome.ACKED
    log.won["calm/race-0000", ""] = 2
    found = rest.histories(log)
    assert len(found) == 2
    assert found[0].startswith("calm/race-0000 is not one register")
    assert found[1] == "calm/race-0000: 2 writes on the condition that nothing is there were acknowledged"


def test_a_traceback_in_a_log_is_told(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    layout.logs.mkdir()
    said = tmp_path / "cloud.log"
    said.write_text("worker 1 ended with status -9: starting it again in 0 s\n")
    layout.log(0).write_text('time=... level=error msg="work failed" error="DeviceOutOfService: gone"\n')
    assert rest.logs(layout, said) == []
    frames = "  File ...\n" * 1000
    layout.log(1).write_text(f"time=...\nTraceback (most recent call last):\n{frames}KeyError: 'x'\ntime=... msg=goes on\n")
    (found,) = rest.logs(layout, said)
    assert found.startswith("worker-1.log: Traceback") and found.endswith("KeyError: 'x'") and len(found) < 4000


def test_what_is_written_under_a_mount_is_told(tmp_path: Path) -> None:
    for name in ("d0", "d1"):
        (tmp_path / name).mkdir()
    assert rest.beneath(tmp_path) == []
    (tmp_path / "d1" / "kv").mkdir()
    assert rest.beneath(tmp_path) == ["written under the mount of d1: kv"]


def test_settle_tells_the_last_thing_it_saw() -> None:
    looks = iter([["a"], ["b"], []])
    assert rest.settle(lambda: next(looks), 60.0) == []
    assert rest.settle(lambda: ["still"], 0.0) == ["still"]
