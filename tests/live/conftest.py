"""A folder for clouds that come and go quickly, and what tests of running clouds share."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tools.deploy.session import RunningCloud

ROOM_BYTES = 1 << 30


def quick_folder() -> Path | None:
    """In memory, where such a file system can hold a cloud: its thousands of folders go at once there, and a killed process
    leaves the same behind as on a disk."""
    folder = Path("/dev/shm")
    try:
        if shutil.disk_usage(folder).free < ROOM_BYTES:
            return None
        descriptor = os.open(folder, os.O_RDWR | os.O_TMPFILE, 0o600)
    except OSError:
        return None
    try:
        os.setxattr(descriptor, "user.test", b"1")
    except OSError:
        return None
    finally:
        os.close(descriptor)
    return folder


@pytest.fixture
def folder() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="ringfort-live-", dir=quick_folder()))
    yield made
    shutil.rmtree(made)


Start = Callable[..., RunningCloud]


@pytest.fixture
def start(folder: Path) -> Iterator[Start]:
    """Start a cloud in the test's folder; what still runs at the end must stop in order."""
    started: list[RunningCloud] = []

    def begin(*arguments: str, name: str = "cloud") -> RunningCloud:
        started.append(RunningCloud.start(folder / name, *arguments))
        return started[-1]

    try:
        yield begin
        for cloud in started:
            if cloud.process.poll() is None:
                assert cloud.stop() == 0
                assert not cloud.ready.exists()
    finally:
        for cloud in started:
            if cloud.process.poll() is None:
                cloud.kill()
