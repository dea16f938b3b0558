"""A cell: a process of its own with mounts and processes of its own, so that nothing of it outlives it.

Inside of a Linux mount and PID namespace (util-linux ``unshare``) whatever is mounted or started goes when the cell's first process
goes, however that ends; and that one ends when its standard input closes, so also when the test is killed.  Real root mounts ext4
images; who is not root may, in a user namespace, still mount tmpfs.  Where neither is permitted (a container without rights), the
program runs without a cell, kills what it started itself, and mounts nothing.

Neighbours: disks.py (mounts), storm.py (runs in one).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from enum import Enum
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
_UNSHARE = ("unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc")
_AS_USER = ("--user", "--map-root-user")
HIDDEN = ("/usr/sbin/libvirtd", "/usr/bin/libvirtd")  # a daemon that a cloud starts must not be one of the cell's


class Mounts(Enum):
    """What can be mounted."""

    EXT4 = "ext4"  # on loop devices
    TMPFS = "tmpfs"
    NONE = "none"


def _works(argv: Sequence[str]) -> bool:
    try:
        return subprocess.run([*argv, "true"], capture_output=True, timeout=20, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def find_cell(most: Mounts = Mounts.EXT4) -> tuple[Mounts, list[str]]:
    """The best that this machine permits, at most ``most``, and the command that runs a program in it ([]: none)."""
    if most is Mounts.NONE:
        return Mounts.NONE, []
    if most is Mounts.EXT4 and os.geteuid() == 0 and _works(_UNSHARE):
        return (Mounts.EXT4 if _has_loop() else Mounts.TMPFS), list(_UNSHARE)
    as_user = [_UNSHARE[0], *_AS_USER, *_UNSHARE[1:]]
    return (Mounts.TMPFS, as_user) if _works(as_user) else (Mounts.NONE, [])


def _has_loop() -> bool:
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    return os.access("/dev/loop-control", os.R_OK | os.W_OK) and shutil.which("mkfs.ext4", path=path) is not None


def start(module: str, arguments: Sequence[str], cell: Sequence[str]) -> subprocess.Popen[str]:
    """``python -m module`` in a cell; its output and errors are one pipe.  Closing its input, or killing it, ends all of it."""
    return subprocess.Popen(
        [*cell, sys.executable, "-m", module, *arguments],
        cwd=TOP,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def end_with_parent(clean: Callable[[], None]) -> None:
    """Inside: call ``clean`` and end at once when standard input closes.  In a cell that ends everything."""

    def watch() -> None:
        while os.read(0, 4096):
            pass
        try:
            clean()
        finally:
            os._exit(3)

    threading.Thread(target=watch, daemon=True).start()


def hide_daemons() -> None:
    """Inside: the cell's processes find no libvirt to start."""
    for path in HIDDEN:
        if os.path.exists(path):
            subprocess.run(["mount", "--bind", "/dev/null", path], check=True, timeout=20)
