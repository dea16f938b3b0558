"""A worker's log is bounded."""

from __future__ import annotations

import os
from pathlib import Path

from tools.deploy.logfile import log_sink, open_log


def test_a_full_log_is_put_aside_once(tmp_path: Path) -> None:
    path = tmp_path / "worker-0.log"
    descriptor = open_log(path, bytes_max=1000)
    sink = log_sink(path, descriptor, bytes_max=1000)
    for number in range(100):
        sink(f"line {number:04} " + "x" * 40)
    os.write(descriptor, b"Traceback of a library\n")  # by whoever prints there
    os.close(descriptor)
    files = {file.name: file.read_text() for file in tmp_path.iterdir()}
    assert set(files) == {"worker-0.log", "worker-0.log.1"}
    assert all(len(text) < 1100 for text in files.values())
    assert "line 0099" in files["worker-0.log"] and "Traceback" in files["worker-0.log"]
    assert (path.stat().st_mode & 0o777) == 0o600


def test_a_log_that_is_full_at_the_start(tmp_path: Path) -> None:
    path = tmp_path / "worker-0.log"
    path.write_bytes(b"old" * 1000)
    descriptor = open_log(path, bytes_max=1000)
    os.write(descriptor, b"new\n")
    os.close(descriptor)
    assert path.read_bytes() == b"new\n"
    assert path.with_name("worker-0.log.1").read_bytes() == b"old" * 1000
