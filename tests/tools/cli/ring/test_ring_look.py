"""list_parts, dispersion, version, id, help."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.tools.cli.ring.desk import Desk
from tools.cli.ring.group import VERBS


def test_list_parts(tmp_path: Path) -> None:
    desk = Desk.with_zones(tmp_path, 4)
    refused = desk("list_parts", "d0")
    assert (refused.status, refused.err) == (2, f"ringfort: nothing is placed in {desk.path} yet\nhint: rebalance first\n")
    desk.placed()
    holders = {partition: desk.builder.holders(partition) for partition in range(64)}
    wanted = sorted(((p, len({0, 3} & {*h})) for p, h in holders.items() if {0, 3} & {*h}), key=lambda row: (-row[1], row[0]))
    assert {count for _, count in wanted} == {1, 2}
    assert desk("list_parts", "d0", "10.0.4.1", "--json").json == [{"partition": p, "matches": n} for p, n in wanted]
    text = desk.done("list_parts", "d0", "d3", "d0").splitlines()
    assert text[0] == "Partition   Matches"
    assert [tuple(map(int, line.split())) for line in text[1:]] == wanted
    one = desk("list_parts", "--device", "sdb", "--zone", "2", "--json").json
    assert [row["partition"] for row in one] == [p for p, h in holders.items() if 1 in h]
    assert desk("list_parts", "d9").err == "ringfort: No matching devices found\n"
    desk.done("add", "r1z5-10.0.5.1:6200/sdb", 100)
    assert desk("list_parts", "d4").err == "ringfort: the matching devices hold nothing\n"


def crowded(tmp_path: Path) -> Desk:
    """Zone 1 has half of the weight, and so two replicas of every second partition."""
    desk = Desk.with_zones(tmp_path)
    desk.done("add", "r1z1-10.0.1.2:6200/sdb", 100)
    desk.placed()
    return desk


def test_dispersion(tmp_path: Path) -> None:
    desk = crowded(tmp_path)
    brief = desk("dispersion")
    assert (brief.status, brief.out) == (
        1,
        "Dispersion is 16.666667, Balance is 0.000000, Overload is 0.00%\n"
        "Required overload is 33.333333%\n"
        "Worst tier is 33.333333 (r1z1)\n",
    )
    zones = desk("dispersion", r"r\d+z\d+$", "-v")
    assert (zones.status, zones.out.splitlines()[3:]) == (
        1,
        [
            "-" * 74,
            "Tier                           Parts      %    Max     0     1     2     3",
            "-" * 74,
            "r1z1                              96  33.33      1     0    32    32     0",
            "r1z2                              48   0.00      1    16    48     0     0",
            "r1z3                              48   0.00      1    16    48     0     0",
        ],
    )
    other = desk("dispersion", "r1z2", "--verbose")  # what is asked for is not crowded
    assert other.status == 0
    assert "Worst" not in other.out
    assert [line.split()[0] for line in other.out.splitlines()[5:]] == ["r1z2", "r1z2-10.0.2.1", "r1z2-10.0.2.1/sdb"]
    assert desk("dispersion", "nowhere", "-v").out.count("\n") == 2


def test_dispersion_as_json(tmp_path: Path) -> None:
    shown = crowded(tmp_path)("dispersion", "r1z1$", "--json").json
    assert shown == {
        "dispersion": 16.666667,
        "balance": 0.0,
        "overload": 0.0,
        "required_overload": pytest.approx(1 / 3),
        "worst_tier": {"tier": "r1z1", "percent": 33.333333},
        "tiers": [{"tier": "r1z1", "replicas": 96, "percent": 33.333333, "max": 1, "partitions": [0, 32, 32, 0]}],
    }


def test_dispersion_of_a_ring_with_too_few_devices(tmp_path: Path) -> None:
    desk = Desk.with_zones(tmp_path)
    desk.placed()
    desk.done("set_weight", "d0", 0)
    said = desk("dispersion")
    assert said.status == 0
    assert "Required overload is not to be said: 3 replicas need at least 3 devices with weight, there are 2\n" in said.out


def test_version_and_id(tmp_path: Path) -> None:
    desk = Desk.with_zones(tmp_path)
    assert desk("version").err == f"ringfort: there is no {tmp_path}/object.ring\nhint: rebalance writes it\n"
    desk.placed()
    desk.done("set_weight", "d0", 99)
    assert desk.done("version") == f"{tmp_path}/object.ring: Serialization version: 1 (2-byte IDs), build version: 5\n"
    as_json = desk("version", "--json").json
    assert as_json == {"path": f"{tmp_path}/object.ring", "format_version": 1, "device_id_bytes": 2, "version": 5}
    assert desk.done("id") == desk.builder.id + "\n"
    assert desk("id", "--json").json == {"id": desk.builder.id}
    desk.path.unlink()
    assert desk.run(["ring", f"{tmp_path}/object.ring", "version"]).status == 0  # needs no builder


def test_reading_changes_nothing_and_needs_no_right_to_write(tmp_path: Path) -> None:
    desk = crowded(tmp_path)
    before = desk.files()
    for arguments in (
        [],
        ["--json"],
        ["search", "d0"],
        ["list_parts", "d0"],
        ["dispersion", "-v"],
        ["version"],
        ["id"],
        ["validate"],
    ):
        assert desk(*arguments, room=0).status in (0, 1), arguments
    assert desk.files() == before


@pytest.mark.parametrize("name", [name for verbs in VERBS.values() for name in verbs])
def test_every_verb_has_help(tmp_path: Path, name: str) -> None:
    said = Desk(tmp_path)(name, "--help")
    assert said.status == 0
    assert said.out.startswith(f"Usage: ringfort ring FILE {name} ")
    assert max(map(len, said.out.splitlines())) <= 100


def test_help_lists_the_verbs_under_headings(tmp_path: Path) -> None:
    out = Desk(tmp_path).run(["ring", "--help"]).out
    assert [heading for heading in VERBS if f"\n{heading}:\n" not in out] == []
    assert [name for verbs in VERBS.values() for name in verbs if not re.search(f"\n  {name}[ \n]", out)] == []
