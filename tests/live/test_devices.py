"""Devices of a running cloud: one is unplugged and comes back, one is replaced, one is drained, while clients write and read."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Callable
from contextlib import closing

import pytest

from tests.live.conftest import Start
from tests.live.test_kill import Writer
from tests.live.test_ring_change import check, held
from tools.cli.main import run
from tools.deploy.session import CloudClient, RunningCloud

pytestmark = pytest.mark.live

SOON_S = 60.0

Node = Callable[..., tuple[int, dict[str, object]]]


@pytest.fixture
def node(capsys: pytest.CaptureFixture[str]) -> Node:
    def call(cloud: RunningCloud, verb: str, *arguments: str) -> tuple[int, dict[str, object]]:
        status = run(["node", verb, *arguments, "--data", str(cloud.data), "--json"])
        out, err = capsys.readouterr()
        assert status in (0, 1), (verb, out, err)
        found: dict[str, object] = json.loads(out)
        return status, found

    return call


def states(node: Node, cloud: RunningCloud) -> dict[int, str]:
    devices = node(cloud, "status")[1]["devices"]
    assert isinstance(devices, list)
    return {one["id"]: "refilling" if one["refilling"] else one["state"] for one in devices}


def wait_for(node: Node, cloud: RunningCloud, number: int, state: str) -> None:
    """A state comes by itself; how soon says nothing, but it does not take a minute."""
    until = time.monotonic() + SOON_S
    while (found := states(node, cloud).get(number)) != state:
        assert time.monotonic() < until, (found, state)
        time.sleep(0.1)


def test_devices_go_and_come_under_load(start: Start, node: Node, capsys: pytest.CaptureFixture[str]) -> None:
    cloud = start("--workers", "2")
    with closing(CloudClient(cloud.data)) as client:
        client.s3("PUT", "/kill")
    stop = threading.Event()
    writers = [Writer(cloud, number, stop) for number in range(2)]
    for writer in writers:
        writer.start()
    d2, aside = cloud.data / "devices" / "d2", cloud.data / "aside"
    try:
        wait_for(node, cloud, 2, "in service")
        d2.rename(aside)  # as when it is unmounted: an empty folder is there
        d2.mkdir(mode=0o700)
        wait_for(node, cloud, 2, "out")
        time.sleep(1.0)
        assert list(d2.iterdir()) == []
        assert run(["node", "replace", "d9", "--data", str(cloud.data)]) == 2
        assert run(["node", "replace", "d1", "--data", str(cloud.data)]) == 2
        assert "nothing to replace" in capsys.readouterr().err
        d2.rmdir()
        aside.rename(d2)
        wait_for(node, cloud, 2, "in service")

        d2.rename(aside)
        d2.mkdir(mode=0o700)
        assert node(cloud, "replace", "d2")[0] == 0  # waits until it is full again
        assert states(node, cloud)[2] == "in service"
        assert held(d2) > 0
    finally:
        stop.set()
        for writer in writers:
            writer.join()
    assert all(writer.acked for writer in writers)
    check(cloud, writers)

    new = d2.with_name("new")
    d2.rename(new)
    aside.rename(d2)  # the disk that was replaced comes back
    wait_for(node, cloud, 2, "out")
    d2.rename(aside)
    new.rename(d2)
    wait_for(node, cloud, 2, "in service")
    shutil.rmtree(aside)

    assert node(cloud, "drain", "d3", "--now") == (0, {"devices": [3], "drained": True, "replicas_left": 0})
    assert node(cloud, "drain", "d3", "--now") == (0, {"devices": [3], "drained": True, "replicas_left": 0})
    assert run(["node", "drain", "d2", "--data", str(cloud.data)]) == 2
    assert "leave 2 devices" in capsys.readouterr().err
    check(cloud, writers)
    cloud.stop()
    assert run(["node", "status", "--data", str(cloud.data)]) == 2
