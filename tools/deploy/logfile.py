"""The log file of a worker: bounded, and what it held before is kept once, as FILE.1.

The main process opens it as the worker's standard error; the worker itself puts a new one in its place when it is full, so that
tracebacks and what libraries print land in it too.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

LOG_BYTES_MAX = 16 << 20


def open_log(path: Path, *, bytes_max: int = LOG_BYTES_MAX) -> int:
    """A descriptor that appends; a full file is put aside first."""
    try:
        if path.stat().st_size >= bytes_max:
            os.replace(path, path.with_name(path.name + ".1"))
    except FileNotFoundError:
        pass
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)


def log_sink(path: Path, descriptor: int = 2, *, bytes_max: int = LOG_BYTES_MAX) -> Callable[[str], None]:
    """Writes lines to ``descriptor``, which is open on ``path``; when that is full it is open on a new file."""
    size = os.fstat(descriptor).st_size

    def write(line: str) -> None:
        nonlocal size
        data = line.encode(errors="backslashreplace") + b"\n"
        if size >= bytes_max:
            new = open_log(path, bytes_max=bytes_max)
            os.dup2(new, descriptor, inheritable=descriptor <= 2)
            os.close(new)
            size = os.fstat(descriptor).st_size
        try:
            size += os.write(descriptor, data)
        except OSError:
            size += len(data)  # the disk is full or gone: a line that is lost must not stop the cloud

    return write
