"""Real processes on loopback, killed: what was acknowledged is there afterwards."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from random import Random

import httpx
import pytest

from tools.deploy.session import CloudClient, CloudFailed, RunningCloud

pytestmark = pytest.mark.live


@pytest.fixture
def running(tmp_path: Path) -> Iterator[list[RunningCloud]]:
    """The cloud that runs now, in a list so that a test can put another in its place."""
    found = [RunningCloud.start(tmp_path / "cloud", "--workers", "2")]
    yield found
    assert found[0].stop() == 0
    assert not found[0].ready.exists()


def test_everything_killed_everything_there(running: list[RunningCloud]) -> None:
    rng = Random(1)
    client = CloudClient(running[0].data)
    client.s3("PUT", "/kill")
    acked: dict[str, bytes] = {}
    for number in range(60):
        data = rng.randbytes(rng.choice((0, 100, 4096, 300_000)))
        client.s3("PUT", f"/kill/{number:03}", content=data)
        acked[f"{number:03}"] = data
    client.close()
    running[0].kill()
    running[0] = RunningCloud.start(running[0].data)
    client = CloudClient(running[0].data)
    for name, data in acked.items():
        assert client.s3("GET", f"/kill/{name}").content == data
    listed = client.call("object-store", "GET", "/kill?format=json").json()
    assert [(row["name"], row["bytes"]) for row in listed] == [(name, len(data)) for name, data in sorted(acked.items())]
    client.close()


def test_a_worker_that_is_killed_comes_back(running: list[RunningCloud]) -> None:
    client = CloudClient(running[0].data)
    client.s3("PUT", "/worker")
    acked = []
    victims = running[0].workers()
    for number in range(80):
        if number in (20, 50):
            os.kill(victims[0 if number == 20 else 1], signal.SIGKILL)
        try:
            client.s3("PUT", f"/worker/{number:03}", content=b"%d" % number)
        except (CloudFailed, httpx.TransportError):
            continue  # not acknowledged: it may be there or not
        acked.append(f"{number:03}")
    assert len(acked) > 40
    client.wait("the first object", lambda: _status(client, f"/worker/{acked[0]}"), "there")
    for name in acked:
        assert client.s3("GET", f"/worker/{name}").content == b"%d" % int(name)
    assert len(running[0].workers()) == 2
    client.close()


def _status(client: CloudClient, path: str) -> str:
    try:
        client.s3("GET", path)
    except (CloudFailed, httpx.TransportError) as error:
        return str(error)
    return "there"
