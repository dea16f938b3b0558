"""Real processes on loopback, killed: what was acknowledged is there afterwards."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from random import Random

import httpx
import pytest

from tests.live.conftest import Start
from tools.deploy.session import CloudClient, CloudFailed, RunningCloud

pytestmark = pytest.mark.live

FAILED = (CloudFailed, httpx.TransportError)
ENOUGH = 10  # names, of each writer
PATIENCE_S = 120.0  # for that, and for the cloud to come back: a busy machine is slow, and that is no failure


def test_everything_killed_everything_there(start: Start) -> None:
    rng = Random(1)
    cloud = start("--workers", "2")
    acked: dict[str, bytes] = {}
    with closing(CloudClient(cloud.data)) as client:
        client.s3("PUT", "/kill")
        for number in range(60):
            data = rng.randbytes(rng.choice((0, 100, 4096, 300_000)))
            client.s3("PUT", f"/kill/{number:03}", content=data)
            acked[f"{number:03}"] = data
    cloud.kill()
    with closing(CloudClient(start("--workers", "2").data)) as client:
        for name, data in acked.items():
            assert client.s3("GET", f"/kill/{name}").content == data
        listed = client.call("object-store", "GET", "/kill?format=json").json()
        assert [(row["name"], row["bytes"]) for row in listed] == [(name, len(data)) for name, data in sorted(acked.items())]


class Writer(threading.Thread):
    """Writes and overwrites objects, as fast as it can, whatever happens to the cloud."""

    def __init__(self, cloud: RunningCloud, number: int, stop: threading.Event) -> None:
        super().__init__()
        self.acked: dict[str, int] = {}  # name: the last version that was acknowledged
        self.tried: dict[str, int] = {}
        self.failures = 0
        self._cloud, self._number, self._stop_asked = cloud, number, stop
        self._rng = Random(number)

    def run(self) -> None:
        client = None
        while client is None:
            try:
                client = CloudClient(self._cloud.data)
            except FAILED:  # a worker was killed while it logged in
                if self._stop_asked.is_set():
                    return
                time.sleep(0.01)
        with closing(client):
            version = 0
            while not self._stop_asked.is_set():
                version += 1
                name = f"{self._number}-{self._rng.randrange(40):02}"
                self.tried[name] = version
                try:
                    client.s3("PUT", f"/kill/{name}", content=body(name, version))
                    self.acked[name] = version
                except FAILED:
                    self.failures += 1
                    time.sleep(0.01)


def body(name: str, version: int) -> bytes:
    return f"{name} {version} ".encode() * (1 + version * 7919 % 3000)


def versions(client: CloudClient, writers: list[Writer]) -> Iterator[str]:
    """What is wrong with the objects."""
    for writer in writers:
        for name, acked in writer.acked.items():
            content = b""

            def look(name: str = name) -> str:  # until workers have found each other again
                nonlocal content
                try:
                    content = client.s3("GET", f"/kill/{name}").content
                except FAILED as error:
                    return str(error)
                return "there"

            client.wait(f"{name}, of which version {acked} was acknowledged,", look, "there", timeout_s=PATIENCE_S)
            found = int(content.split(b" ", 2)[1])
            if content != body(name, found) or not acked <= found <= writer.tried[name]:
                yield f"{name} is version {found}; acknowledged {acked}, tried {writer.tried[name]}"


def test_workers_are_killed_while_they_are_used(start: Start) -> None:
    """Each worker in turn, also the one that owns the control state, under concurrent writers of objects, tokens and volumes."""
    cloud = start("--workers", "2")
    with closing(CloudClient(cloud.data)) as client:
        client.s3("PUT", "/kill")
        stop = threading.Event()
        writers = [Writer(cloud, number, stop) for number in range(3)]
        for writer in writers:
            writer.start()
        made: list[str] = []
        try:
            for turn in range(4):
                time.sleep(0.5)
                os.kill(cloud.workers()[turn % 2], signal.SIGKILL)
                deadline = time.monotonic() + PATIENCE_S
                while True:  # a token and a volume, of the cloud as it comes back
                    try:
                        with closing(CloudClient(cloud.data)) as fresh:
                            named = {"volume": {"size": 1, "name": f"turn {turn}"}}
                            made.append(fresh.call("block-storage", "POST", "/volumes", named).json()["volume"]["id"])
                        break
                    except FAILED:
                        assert time.monotonic() < deadline, "the cloud did not come back"
                        time.sleep(0.05)
                while len(cloud.workers()) < 2:
                    assert time.monotonic() < deadline, "a worker was not started again"
                    time.sleep(0.02)
            deadline = time.monotonic() + PATIENCE_S
            while any(len(writer.acked) < ENOUGH for writer in writers) and time.monotonic() < deadline:
                time.sleep(0.05)
        finally:
            stop.set()
            for writer in writers:
                writer.join()
        written = [(len(writer.acked), writer.failures) for writer in writers]
        assert all(names >= ENOUGH for names, _ in written), f"(names, failures) of the writers: {written}"
        assert list(versions(client, writers)) == []
        listed = {row["name"] for row in client.call("object-store", "GET", "/kill?format=json").json()}
        assert [name for writer in writers for name in writer.acked if name not in listed] == []
        for volume in made:
            client.wait("a volume", partial(_volume_status, client, volume), "available")


def _volume_status(client: CloudClient, volume_id: str) -> str:
    try:
        return str(client.call("block-storage", "GET", f"/volumes/{volume_id}").json()["volume"]["status"])
    except FAILED as error:
        return str(error)
