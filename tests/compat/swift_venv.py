"""OpenStack Swift, as released, in a venv of its own: what our rings are compared with.

Installed once per machine into ~/.cache/ringfort-tests/swift-VERSION and kept; test runs that start together wait for the one
that installs.  Nothing of Swift is ever imported into a process of ours.  Its scripts are run as modules (``RING_BUILDER``), as
the venv is built under another name first.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

SWIFT_VERSION = "2.38.3"
RING_BUILDER = ("-m", "swift.cli.ringbuilder")  # behind swift_python(): what swift-ring-builder is


def swift_python() -> Path:
    """An interpreter that can import ``swift``.  RuntimeError with pip's last words when it cannot be installed."""
    cache = Path.home() / ".cache/ringfort-tests"
    cache.mkdir(parents=True, exist_ok=True)
    home = cache / f"swift-{SWIFT_VERSION}"
    python = home / "bin/python"
    with (cache / f"swift-{SWIFT_VERSION}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not python.exists():  # never there, or made with a Python that is gone
            shutil.rmtree(home, ignore_errors=True)
            building = cache / f"swift-{SWIFT_VERSION}.building"
            shutil.rmtree(building, ignore_errors=True)  # of an installer that was killed
            subprocess.run([sys.executable, "-m", "venv", str(building)], check=True, stdin=subprocess.DEVNULL)
            _install(building)
            building.rename(home)
    return python


def _install(venv: Path) -> None:
    pip = [str(venv / "bin/python"), "-m", "pip", "install", "--disable-pip-version-check", "-q", f"swift=={SWIFT_VERSION}"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(pip, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"swift {SWIFT_VERSION} cannot be installed: {done.stderr[-2000:]}")
