"""``ringfort ring``, as a conversation."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from ring.ringfile import decode, decode_builder
from tools.cli.main import run
from tools.cli.ring import NO_SECRETS

Capture = pytest.CaptureFixture[str]


def make(tmp_path: Path, devices: int = 3) -> str:
    file = str(tmp_path / "object.builder")
    assert run(["ring", file, "create", "6", "3", "1"]) == 0
    for zone in range(1, devices + 1):
        assert run(["ring", file, "add", f"r1z{zone}-10.0.0.{zone}:6200/sd{zone}_rack {zone}", "100"]) == 0
    return file


def test_create_add_rebalance_show(tmp_path: Path, capsys: Capture) -> None:
    file = make(tmp_path)
    assert "Device d0r1z1-10.0.0.1:6200/sd1 with 100.00 weight got id 0" in capsys.readouterr().out
    assert run(["ring", file, "rebalance", "--seed", "1"]) == 0
    assert capsys.readouterr().out == "Reassigned 192 (100.00%) partitions. Balance is now 0.00. Dispersion is now 0.00\n"
    assert run(["ring", file]) == 0
    assert capsys.readouterr().out == (
        "object.builder, build version 5\n"
        "64 partitions, 3.000000 replicas, 1 regions, 3 zones, 3 devices, 0.00 balance, 0.00 dispersion\n"
        "The minimum number of hours before a partition can be reassigned is 1 (0:00:00 remaining)\n"
        "Devices: id region zone ip address:port name weight partitions balance flags   meta\n"
        "          0      1    1   10.0.0.1:6200  sd1 100.00         64    0.00       rack 1\n"
        "          1      1    2   10.0.0.2:6200  sd2 100.00         64    0.00       rack 2\n"
        "          2      1    3   10.0.0.3:6200  sd3 100.00         64    0.00       rack 3\n"
    )
    ring = decode((tmp_path / "object.ring").read_bytes(), NO_SECRETS)
    assert len(ring.primaries(0)) == 3


def test_json(tmp_path: Path, capsys: Capture) -> None:
    file = make(tmp_path)
    run(["ring", file, "rebalance"])
    capsys.readouterr()
    assert run(["ring", file, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["partitions"] == 64
    assert next((d["id"], d["name"], d["partitions"], d["meta"]) for d in shown["devices"]) == (0, "sd1", 64, "rack 1")


def test_nothing_to_do_exits_1(tmp_path: Path, capsys: Capture) -> None:
    file = make(tmp_path)
    run(["ring", file, "rebalance"])
    builder, ring = ((tmp_path / name).read_bytes() for name in ("object.builder", "object.ring"))
    assert run(["ring", file, "rebalance"]) == 1
    assert run(["ring", file, "set_weight", "d0", "100"]) == 1
    assert "No partitions could be reassigned." in capsys.readouterr().out
    assert builder == (tmp_path / "object.builder").read_bytes()
    assert ring == (tmp_path / "object.ring").read_bytes()


def test_remove_and_the_name_without_a_suffix(tmp_path: Path) -> None:
    file = make(tmp_path, devices=4).removesuffix(".builder")
    assert run(["ring", file, "rebalance"]) == 0
    assert run(["ring", file, "remove", "10.0.0.2:6200/sd2"]) == 0
    assert run(["ring", file, "remove", "sd2"]) == 1
    assert run(["ring", file, "rebalance"]) == 0
    builder = decode_builder((tmp_path / "object.builder").read_bytes())
    assert builder.devices[1] is None
    assert builder.counts() == {0: 64, 2: 64, 3: 64}


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["add", "nonsense", "1"], "ringfort: not a device: nonsense\nhint: "),
        (["add", "r1z1-10.0.0.1:6200/sd1", "1"], "ringfort: d0r1z1-10.0.0.1:6200/sd1 is in the ring already\n"),
        (["add", "r1z1-10.0.0.1:6200/sd9", "heavy"], "ringfort: "),
        (["add", "r1z1-10.0.0.1:6200/sd9", "nan"], "ringfort: a weight is a number"),
        (["create", "6", "3", "1"], "ringfort: "),
        (["remove", "d9"], "ringfort: no device d9\n"),
        (["rebalance", "--sede", "1"], "ringfort: No such option"),
        (["frobnicate"], "ringfort: No such command 'frobnicate'."),
    ],
)
def test_errors_are_one_clear_line_and_exit_2(tmp_path: Path, capsys: Capture, arguments: list[str], line: str) -> None:
    file = make(tmp_path)
    before = (tmp_path / "object.builder").read_bytes()
    capsys.readouterr()
    assert run(["ring", file, *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(line)
    assert captured.out == ""
    assert before == (tmp_path / "object.builder").read_bytes()


def test_too_few_devices_missing_files_and_foreign_ones(tmp_path: Path, capsys: Capture) -> None:
    file = make(tmp_path, devices=2)
    assert run(["ring", file, "rebalance"]) == 2
    assert "3 replicas need at least 3 devices" in capsys.readouterr().err
    assert not (tmp_path / "object.ring").exists()
    assert run(["ring", str(tmp_path / "other")]) == 2
    assert capsys.readouterr().err.startswith(f"ringfort: there is no {tmp_path}/other.builder\nhint: ")
    assert run(["ring", str(tmp_path / "no" / "other"), "create", "4", "3", "1"]) == 2
    assert "No such file or directory" in capsys.readouterr().err
    (tmp_path / "bad.builder").write_bytes(b"hello")
    assert run(["ring", str(tmp_path / "bad.builder")]) == 2
    assert capsys.readouterr().err == "ringfort: not a builder file\n"


def test_the_version_is_the_project_s(capsys: Capture) -> None:
    run(["--version"])
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert capsys.readouterr().out == f"ringfort {project['version']}\n"


def test_top_level(capsys: Capture) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out.startswith("ringfort ")
    assert run(["nonsense"]) == 2
    assert run(["--nonsense"]) == 2
    assert "hint: ringfort --help" in capsys.readouterr().err
