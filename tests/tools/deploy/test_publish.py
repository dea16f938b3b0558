"""What ``publish`` says of a cloud: whether one runs, and how far its devices are."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tools.deploy.asking import in_use
from tools.deploy.layout import Layout
from tools.deploy.publish import settled_share, taken_up
from tools.deploy.ring_status import RingState, WorkerRings

HOLD = """
import sys
from pathlib import Path
from tools.deploy.layout import Layout
from tools.deploy.supervisor import lock
lock(Layout(Path(sys.argv[1])))
print("held", flush=True)
sys.stdin.read()
"""


def test_a_cloud_whose_workers_do_not_answer_yet_is_in_use(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    assert not in_use(layout)
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None and holder.stdin is not None
        assert holder.stdout.readline() == "held\n"
        assert in_use(layout)
        holder.stdin.close()
        assert holder.wait() == 0
    assert not in_use(layout)


def test_a_worker_that_goes_by_an_older_version_has_settled_nothing_of_a_newer() -> None:
    old = WorkerRings(0, 1, {"object": RingState(1, 1, {0: 1.0, 2: 1.0})})
    new = WorkerRings(1, 2, {"object": RingState(2, 1, {1: 0.5, 3: 1.0})})
    assert settled_share([old, new, None], "object", 2) == 1.5 / 4
    assert settled_share([old, new, None], "object", 1) == 3.5 / 4
    assert taken_up([old, new, None], "object", 2) == 1
