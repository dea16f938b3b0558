"""Rings change in a running cloud, while clients write and read: a device is added, the partition power grows, a device leaves."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from tests.live.conftest import Start
from tests.live.test_kill import Writer, versions
from tools.cli.main import run
from tools.deploy.session import CloudClient, RunningCloud

pytestmark = pytest.mark.live

LOAD_S = 1.0


@pytest.fixture
def ring(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """A ring command that works; what it said."""

    def call(cloud: RunningCloud, name: str, verb: str, *arguments: str) -> str:
        status = run(["ring", str(cloud.data / "rings" / f"{name}.builder"), verb, *arguments])
        out, err = capsys.readouterr()
        assert status == 0, (verb, out, err)
        return out

    return call


def change(cloud: RunningCloud, ring: Callable[..., str], name: str, *verb: str) -> None:
    ring(cloud, name, *verb)
    ring(cloud, name, "pretend_min_part_hours_passed")
    ring(cloud, name, "rebalance", "--force")
    said = json.loads(ring(cloud, name, "publish", "--data", str(cloud.data), "--format", "--settle", "--json"))
    assert all(worker["version"] == worker["settled"] == said["version"] for worker in said["workers"]), said


def held(device: Path) -> int:
    """Bytes in a device's log, and of its large files."""
    return sum(path.stat().st_size for folder in ("packs", "files") for path in (device / folder).rglob("*") if path.is_file())


def test_rings_change_under_load(start: Start, ring: Callable[..., str]) -> None:
    cloud = start("--workers", "2")
    with closing(CloudClient(cloud.data)) as client:
        client.s3("PUT", "/kill")
    stop = threading.Event()
    writers = [Writer(cloud, number, stop) for number in range(2)]
    for writer in writers:
        writer.start()
    try:
        time.sleep(LOAD_S)
        change(cloud, ring, "object", "add", "r1z1-127.0.0.1:0/d4", "100")
        assert devices(cloud, ring) == {"0", "1", "2", "3", "4"}
        assert held(cloud.data / "devices" / "d4") > 0
        for verb in ("prepare_increase_partition_power", "increase_partition_power", "finish_increase_partition_power"):
            ring(cloud, "object", verb)
        said = json.loads(ring(cloud, "object", "publish", "--data", str(cloud.data), "--settle", "--json"))
        assert said["partitions_moved"] == 0
        change(cloud, ring, "object", "remove", "d4")
        time.sleep(LOAD_S)
    finally:
        stop.set()
        for writer in writers:
            writer.join()
    assert [writer.failures for writer in writers] == [0, 0]
    assert devices(cloud, ring) == {"0", "1", "2", "3"}
    check(cloud, writers)
    cloud.kill()
    check(start("--workers", "3"), writers)  # it begins with the rings that were in force


def devices(cloud: RunningCloud, ring: Callable[..., str]) -> set[str]:
    """Those that are open."""
    out = ring(cloud, "object", "status", "--data", str(cloud.data), "--json")
    return {number for worker in json.loads(out) for number in worker["devices"]}


def check(cloud: RunningCloud, writers: Sequence[Writer]) -> None:
    with closing(CloudClient(cloud.data)) as client:
        assert list(versions(client, list(writers))) == []
        listed = {row["name"] for row in client.call("object-store", "GET", "/kill?format=json").json()}
        assert all(writer.acked and listed >= set(writer.acked) for writer in writers)


def test_what_cannot_be_published(start: Start, ring: Callable[..., str], capsys: pytest.CaptureFixture[str]) -> None:
    cloud = start("--workers", "1")
    data = str(cloud.data)
    file = str(cloud.data / "rings" / "object.builder")

    def refused(*arguments: str) -> str:
        assert run(["ring", *arguments]) == 2
        out, err = capsys.readouterr()
        lines = err.splitlines()
        assert out == "" and lines[0].startswith("ringfort: ") and lines[1].startswith("hint: "), err
        return lines[0]

    assert run(["ring", file, "publish", "--data", data]) == 1
    assert "published already" in capsys.readouterr().out
    ring(cloud, "object", "add", "r1z1-127.0.0.1:0/d4", "100")
    ring(cloud, "object", "pretend_min_part_hours_passed")
    ring(cloud, "object", "rebalance")
    assert "no formatted folder" in refused(file, "publish", "--data", data)
    assert not (cloud.data / "rings" / "published" / "object.ring").exists()
    (cloud.data / "devices" / "d4").mkdir()
    (cloud.data / "devices" / "d4" / "mine").write_text("not to be formatted")
    assert "is not empty" in refused(file, "publish", "--data", data, "--format")
    (cloud.data / "devices" / "d4" / "mine").unlink()
    ring(cloud, "object", "publish", "--data", data, "--format")
    other = str(cloud.data.parent / "object.builder")
    assert run(["ring", other, "create", "4", "3", "1"]) == 0
    for number in range(4):
        assert run(["ring", other, "add", f"r1z1-127.0.0.1:0/d{number}", "1"]) == 0
    assert run(["ring", other, "rebalance"]) in (0, 1)
    capsys.readouterr()
    assert "older one" in refused(other, "publish", "--data", data)
    for number in range(20):
        assert run(["ring", other, "set_weight", "d0", str(number + 2)]) == 0
    capsys.readouterr()
    assert "another builder" in refused(other, "publish", "--data", data)
    assert "no ring" in refused(str(cloud.data / "rings" / "nonsense"), "publish", "--data", data)
    (cloud.data / "devices" / "disk").mkdir()  # mounted by its name, and not by its id
    ring(cloud, "object", "add", "r1z1-127.0.0.1:0/disk", "100")
    ring(cloud, "object", "pretend_min_part_hours_passed")
    ring(cloud, "object", "rebalance")
    assert "its folder here would be" in refused(file, "publish", "--data", data, "--format")
    assert not (cloud.data / "devices" / "d5").exists()
    assert "not a cloud" in refused(file, "publish", "--data", str(cloud.data.parent))
