"""A watched device on a real file system that is unmounted, turns read-only, fills up, or dies."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from tests.storage.object.watch_child import DEEDS

ROOT = Path(__file__).parents[3]
UNSHARE = ("unshare", "--mount", "--propagation", "private")


@cache
def cannot() -> str:
    """Why no file system can be mounted here; "" where one can."""
    if os.geteuid() or not shutil.which("mkfs.ext4") or not Path("/dev/loop-control").exists():
        return "mounting needs root, mkfs.ext4 and loop devices"
    tried = subprocess.run([*UNSHARE, "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True, check=False, timeout=30)
    return "" if tried.returncode == 0 else "this machine lets nobody mount"


@pytest.mark.live
@pytest.mark.parametrize("deed", sorted(DEEDS))
def test_what_happens_to_a_real_disk(deed: str, tmp_path: Path) -> None:
    if cannot():
        pytest.skip(cannot())
    child = [*UNSHARE, sys.executable, "-m", "tests.storage.object.watch_child", deed, str(tmp_path)]
    done = subprocess.run(child, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-4000:]
