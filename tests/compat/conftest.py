"""One running cloud for all tests with released clients, and the guest image that they boot."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tools.deploy import libvirtd
from tools.deploy.guest.image import build, package_cache
from tools.deploy.session import CloudClient, RunningCloud


@dataclass(frozen=True, slots=True)
class Cloud:
    data: Path
    environment: dict[str, str]  # of the clients: nothing of the caller's own clouds

    def run(self, program: str, *arguments: str, timeout_s: float = 180.0) -> str:
        """A client's command line, which must succeed; its standard output."""
        done = self.try_run(program, *arguments, timeout_s=timeout_s)
        assert done.returncode == 0, f"{program} {' '.join(arguments)}: {done.stdout[-2000:]} {done.stderr[-2000:]}"
        return done.stdout

    def try_run(self, program: str, *arguments: str, timeout_s: float = 180.0) -> subprocess.CompletedProcess[str]:
        path = Path(sys.executable).parent / program
        return subprocess.run(
            [str(path), *arguments],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )


@pytest.fixture(scope="session")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    started = libvirtd.ensure()
    folder = tmp_path_factory.mktemp("compat")
    data = folder / "cloud"
    running = RunningCloud.start(data)
    try:
        environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "LC_ALL": "C.UTF-8"}
        environment["OS_CLIENT_CONFIG_FILE"] = str(data / "clouds.yaml")
        environment["AWS_EC2_METADATA_DISABLED"] = "true"
        for name in ("s3.env", "openrc"):
            for line in (data / name).read_text().splitlines():
                key, _, value = line.removeprefix("export ").partition("=")
                environment[key] = value.strip("'")
        yield Cloud(data, environment)
    finally:
        status = running.stop()
        started.stop()
    assert status == 0


@pytest.fixture(scope="session")
def client(cloud: Cloud) -> Iterator[CloudClient]:
    client = CloudClient(cloud.data)
    yield client
    client.close()


@pytest.fixture(scope="session")
def guest_image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("image") / "guest.raw"
    build(target, package_cache())
    return target
