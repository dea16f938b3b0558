"""Verbs that change devices."""

from __future__ import annotations

from pathlib import Path

import pytest

from ring.device import Device
from tests.tools.cli.ring.desk import Desk


def test_add_one_and_several_with_all_parts(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.done("create", 4, 2, 1)
    assert desk.done("add", "r1z1-10.0.0.1:6200/sdb1", "100") == (
        'Device d0r1z1-10.0.0.1:6200R10.0.0.1:6200/sdb1_"" with 100.0 weight got id 0\n'
    )
    assert desk.done("add", "r1z2-10.0.0.2:6200R10.1.0.2:6201/sdb1_rack 7_a", "1e2", "r2z3-[FD00:0::1]:6200/nvme0n1", "0.5") == (
        'Device d1r1z2-10.0.0.2:6200R10.1.0.2:6201/sdb1_"rack 7_a" with 100.0 weight got id 1\n'
        'Device d2r2z3-[fd00::1]:6200R[fd00::1]:6200/nvme0n1_"" with 0.5 weight got id 2\n'
    )
    by_option = "--region 3 --zone 4 --ip node.example --port 6200 --device sdc --weight 7 --yes"
    desk.done("add", *by_option.split(), "--replication-port", 6300, "--meta", "m")
    assert desk.builder.devices == [
        Device(0, 1, 1, "10.0.0.1", 6200, "sdb1", 100.0),
        Device(1, 1, 2, "10.0.0.2", 6200, "sdb1", 100.0, "rack 7_a", "10.1.0.2", 6201),
        Device(2, 2, 3, "fd00::1", 6200, "nvme0n1", 0.5),
        Device(3, 3, 4, "node.example", 6200, "sdc", 7.0, "m", "node.example", 6300),
    ]


def test_a_device_without_a_region_is_in_region_1(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.done("create", 4, 2, 1)
    said = desk("add", "z5-10.0.0.1:6200/sdb1", "100")
    assert said.err == "WARNING: No region specified for z5-10.0.0.1:6200/sdb1. Defaulting to region 1.\n"
    assert [(d.region, d.zone) for d in desk.builder.present] == [(1, 5)]


def test_add_is_all_or_nothing(tmp_path: Path) -> None:
    desk = Desk.with_zones(tmp_path, 2)
    before = desk.files()
    assert desk("add", "r1z3-10.0.3.1:6200/sdb", "100", "r1z1-10.0.1.1:6200/sdb", "100").status == 2
    assert desk("add", "r1z3-10.0.3.1:6200/sdb", "100", "r1z3-10.0.3.1:6200/sdb", "100").status == 2
    assert desk("add", "r1z3-10.0.3.1:6200/sdb", "100", "r1z4-10.0.4.1:6200/sdb").status == 2
    assert desk.files() == before


def test_set_weight(tmp_path: Path) -> None:
    desk = Desk.with_zones(tmp_path)
    assert desk.done("set_weight", "d1", "50", "10.0.3.1", "0") == (
        'd1r1z2-10.0.2.1:6200R10.0.2.1:6200/sdb_"" weight set to 50.0\n'
        'd2r1z3-10.0.3.1:6200R10.0.3.1:6200/sdb_"" weight set to 0.0\n'
    )
    desk.done("set_weight", "--zone", "1", "--device", "sdb", "70")
    assert [d.weight for d in desk.builder.present] == [70, 50, 0]
    before = desk.files()
    said = desk("set_weight", "d1", "50")
    assert (said.status, said.out) == (1, 'd1r1z2-10.0.2.1:6200R10.0.2.1:6200/sdb_"" is so already\n')
    assert desk.files() == before


def test_set_region_and_zone(tmp_path: Path) -> None:
    desk = Desk.with_zones(tmp_path)
    assert desk.done("set_region", "d1", "2") == 'd1r2z2-10.0.2.1:6200R10.0.2.1:6200/sdb_"" region set to 2\n'
    assert desk.done("set_zone", "--ip", "10.0.3.1", "7", "-y") == 'd2r1z7-10.0.3.1:6200R10.0.3.1:6200/sdb_"" zone set to 7\n'
    assert [(d.region, d.zone) for d in desk.builder.present] == [(1, 1), (2, 2), (1, 7)]
    assert desk("set_zone", "d2", "7").status == 1


def test_set_info(tmp_path: Path) -> None:
    desk = Desk.with_zones(tmp_path)
    assert desk.done("set_info", "d0", "10.0.9.9:7000R10.1.9.9:7001/sdx_new", "d1", "_only: meta") == (
        'Device d0r1z1-10.0.1.1:6200R10.0.1.1:6200/sdb_"" is now d0r1z1-10.0.9.9:7000R10.1.9.9:7001/sdx_"new"\n'
        'Device d1r1z2-10.0.2.1:6200R10.0.2.1:6200/sdb_"" is now d1r1z2-10.0.2.1:6200R10.0.2.1:6200/sdb_"only: meta"\n'
    )
    desk.done("set_info", "d2", ":7000")
    desk.done("set_info", "--id", "1", "--change-ip", "node2.example", "--change-device", "sdy", "--change-meta", "")
    desk.done("set_info", "d0", "R:7002")
    assert desk.builder.present == [
        Device(0, 1, 1, "10.0.9.9", 7000, "sdx", 100.0, "new", "10.1.9.9", 7002),
        Device(1, 1, 2, "node2.example", 6200, "sdy", 100.0),
        Device(2, 1, 3, "10.0.3.1", 7000, "sdb", 100.0),
    ]
    assert desk("set_info", "d2", ":7000").status == 1


def test_two_servers_may_swap_no_address_on_the_way(tmp_path: Path) -> None:
    """A change that would make two devices one is refused, and so is all that stood with it."""
    desk = Desk.with_zones(tmp_path)
    before = desk.files()
    said = desk("set_info", "d2", "_x", "d0", "10.0.2.1")
    assert said.status == 2
    assert said.err.startswith("ringfort: d1r1z2-10.0.2.1:6200/sdb is in the ring already\n")
    assert desk.files() == before


def test_remove(tmp_path: Path) -> None:
    desk = Desk.with_zones(tmp_path, 5)
    desk.placed()
    assert desk.done("remove", "d0") == (
        'd0r1z1-10.0.1.1:6200R10.0.1.1:6200/sdb_"" marked for removal and will be removed next rebalance.\n'
    )
    again = desk("remove", "d0")
    assert (again.status, again.out) == (1, 'd0r1z1-10.0.1.1:6200R10.0.1.1:6200/sdb_"" is being removed already\n')
    for change in (["set_weight", "d0", "5"], ["set_zone", "d0", "5"], ["set_region", "d0", "5"]):
        refused = desk(*change)
        assert (refused.status, refused.err) == (
            2,
            'ringfort: d0r1z1-10.0.1.1:6200R10.0.1.1:6200/sdb_"" is marked for removal; nothing was changed\n',
        )
    desk.placed()
    assert desk.builder.devices[0] is None
    desk.done("remove", "d1", "d1", "d1r1z2")  # one device, however often it is named
    assert desk.builder.removed == {1}


@pytest.mark.parametrize(
    ("arguments", "question"),
    [
        (["remove", "10.0.1.1", "10.0.2.1"], "remove these 2 devices"),
        (["remove", "r1"], "remove these 3 devices"),
        (["remove", "--region", "1"], "remove these 3 devices"),
        (["set_weight", "r1", "5"], "update the weight for these 3 devices"),
        (["set_weight", "--device", "sdb", "5"], "update the weight for these 3 devices"),
        (["set_region", "r1", "5"], "update the region for these 3 devices"),
        (["set_zone", "/sdb", "5"], "update the zone for these 3 devices"),
        (["set_info", "/sdb", "_x"], "update the info for these 3 devices"),
        (["set_info", "--region", "1", "--change-meta", "x"], "update the info for these 3 devices"),
    ],
)
def test_more_than_one_device_has_to_be_confirmed(tmp_path: Path, arguments: list[str], question: str) -> None:
    desk = Desk.with_zones(tmp_path)
    desk.placed()
    before = desk.files()
    for typed, end in [
        ("n\n", "not confirmed"),
        ("\n", "not confirmed"),
        ("yes\n", "not confirmed"),
        ("", "nobody was there to be asked"),
    ]:
        said = desk(*arguments, typed=typed)
        assert said.status == 2
        assert f"Are you sure you want to {question}? (y/N) " in said.out
        assert said.err.startswith(f"ringfort: {end}; nothing was changed\n")
        assert desk.files() == before
    typed_y = desk(*arguments, typed="y\n")
    assert typed_y.status == 0
    assert typed_y.out.startswith('Matched more than one device:\n    d0r1z1-10.0.1.1:6200R10.0.1.1:6200/sdb_""\n    d1')
    after = desk.builder
    desk.path.write_bytes(before["object.builder"])
    assert desk(*arguments, "--yes").status == 0
    assert desk.builder == after


def test_add_and_remove_wait_for_the_end_of_a_partition_power_increase(tmp_path: Path) -> None:
    desk = Desk.with_zones(tmp_path, 4)
    desk.placed()
    desk.done("prepare_increase_partition_power")
    for arguments in (["add", "r1z1-10.0.9.9:6200/sdb", "100"], ["remove", "d0"], ["rebalance"]):
        said = desk(*arguments)
        assert (said.status, said.err.partition("\n")[0]) == (2, "ringfort: the partition power is being increased")
