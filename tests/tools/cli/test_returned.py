"""What came back with a device that was away: listed, and taken out."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from ring.names import Path as Name
from ring.service.edition import Edition, RingId, Standing
from ring.service.edition import encode as encode_edition
from ring.service.horizon import Horizon
from ring.timestamp import Timestamp
from storage.client.node import Kind, Version
from storage.object.device import LABEL_PATH, Label
from storage.object.returned import encode
from storage.sync.standing import OBJECTS_PATH, decode
from tools.cli.main import run
from tools.deploy.layout import CloudRecord, Layout, PolicyRecord
from tools.deploy.supervisor import lock

Capture = pytest.CaptureFixture[str]
TWO = PolicyRecord(name="two", replicas=2)
CLOUD = msgspec.json.encode(CloudRecord(cluster_id="c", devices=3, replicas=3, part_power=4, policies=(TWO,)))
VERSION = Version(
    Name("AUTH_a", "photos", "cat.jpg"),
    Timestamp(170000000012345),
    Kind.OBJECT,
    5,
    "e" * 32,
    "image/jpeg",
    {"x-object-meta-a": "1"},
)


@pytest.fixture
def cloud(tmp_path: Path) -> Path:
    """Two devices, of which one is not mounted."""
    (tmp_path / "devices/d1/quarantine").mkdir(parents=True)
    (tmp_path / "devices/d0").mkdir()
    (tmp_path / "devices/d1" / LABEL_PATH).write_bytes(Label("c", 1).encode())
    (tmp_path / "cloud.json").write_bytes(CLOUD)
    quarantine = tmp_path / "devices/d1/quarantine"
    (quarantine / "ab-cd.returned").write_bytes(encode(VERSION, 1700000600.0))
    (quarantine / "ab-cd.body").write_bytes(b"meow!")
    return tmp_path


def test_it_is_listed(cloud: Path, capsys: Capture) -> None:
    assert run(["returned", "--data", str(cloud)]) == 0
    out = capsys.readouterr().out
    assert "d1  1700000000.12345" in out and "/AUTH_a/photos/cat.jpg  ab-cd" in out and "1 versions" in out
    assert run(["returned", "--data", str(cloud), "--device", "d0", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []


def test_that_of_another_storage_policy_too(cloud: Path, tmp_path: Path, capsys: Capture) -> None:
    quarantine = cloud / "devices/d1/object-1/quarantine"
    quarantine.mkdir(parents=True)
    (quarantine / "ef-01.returned").write_bytes(encode(replace(VERSION, path=Name("AUTH_a", "cold", "hat.jpg")), 1700000600.0))
    (quarantine / "ef-01.body").write_bytes(b"straw")
    target = tmp_path / "out"
    assert run(["returned", "--data", str(cloud), "--device", "d1", "--export", str(target)]) == 0
    out = capsys.readouterr().out
    assert "/AUTH_a/photos/cat.jpg  ab-cd" in out and "/AUTH_a/cold/hat.jpg  ef-01" in out and "2 versions" in out
    assert (target / "d1-ef-01.body").read_bytes() == b"straw"


def test_it_is_exported(cloud: Path, tmp_path: Path, capsys: Capture) -> None:
    target = tmp_path / "out"
    assert run(["returned", "--data", str(cloud), "--export", str(target)]) == 0
    assert (target / "d1-ab-cd.body").read_bytes() == b"meow!"
    assert json.loads((target / "d1-ab-cd.json").read_text())["path"] == "/AUTH_a/photos/cat.jpg"
    assert run(["returned", "--data", str(cloud), "--export", str(target)]) == 2
    assert "is there already" in capsys.readouterr().err
    assert run(["returned", "--data", str(cloud), "--export", str(tmp_path / "no" / "out")]) == 2
    assert f"{tmp_path / 'no'} is not a folder" in capsys.readouterr().err


def test_a_device_that_is_not_there(cloud: Path, capsys: Capture) -> None:
    assert run(["returned", "--data", str(cloud), "--device", "7"]) == 2
    assert "there is no device 7" in capsys.readouterr().err
    assert run(["returned", "--data", str(cloud), "--device", "seven"]) == 2
    assert "'seven' is not a device" in capsys.readouterr().err


def test_a_person_may_say_that_a_device_is_right(cloud: Path, capsys: Capture) -> None:
    ring = RingId(1, 1)
    edition = Edition(3, {"object": Standing(ring, ring)}, {"object": Horizon(200, 100), "container": Horizon(50, 50)})
    (cloud / "rings/in-force").mkdir(parents=True)
    (cloud / "rings/in-force/edition.json").write_bytes(encode_edition(edition))
    assert run(["returned", "--data", str(cloud), "--believe", "1"]) == 0
    assert decode((cloud / "devices/d1" / OBJECTS_PATH).read_bytes(), "") == {"object": 100}
    assert run(["returned", "--data", str(cloud), "--believe", "1"]) == 1
    assert capsys.readouterr().out == "d1 is believed\nd1 is not behind\n"
    assert run(["returned", "--data", str(cloud), "--believe", "d0"]) == 2  # nothing is written to the folder below its mount
    assert "is not a device: it has no label" in capsys.readouterr().err and not list((cloud / "devices/d0").iterdir())
    running = lock(Layout(cloud))
    assert run(["returned", "--data", str(cloud), "--believe", "1"]) == 2
    os.close(running)
    assert "hint" in capsys.readouterr().err
