"""No verb: the table, and its JSON."""

from __future__ import annotations

from pathlib import Path

from tests.tools.cli.ring.desk import Desk


def test_an_empty_ring(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.done("create", 4, 3, 1)
    builder_id = desk.builder.id
    assert len(builder_id) == 32
    assert desk.done().splitlines() == [
        f"{desk.path}, build version 1, id {builder_id}",
        "16 partitions, 3.000000 replicas, 0 regions, 0 zones, 0 devices, 2-byte IDs, 0.00 balance, 0.00 dispersion",
        "The minimum number of hours before a partition can be reassigned is 1 (0:00:00 remaining)",
        "The overload factor is 0.00% (0.000000)",
        f"Ring file {tmp_path}/object.ring not found, probably it hasn't been written yet",
        "Devices:   id region zone ip address:port replication ip:port  name weight partitions balance flags meta",
        "There are no devices in this ring, or all devices have been deleted",
    ]


def test_the_columns_of_swift_ring_builder(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.done("create", 6, 3, 1)
    desk.done("add", "r1z3-[fd00::3]:6200/sdb1_a shelf", 100)
    desk.done("add", "r1z2-10.0.0.2:6200R10.1.0.2:6201/sdb1_meta", 100)
    desk.done("add", "r1z1-10.0.0.1:16200/sdb1", 100, "r1z1-10.0.0.1:16200/nvme0n1p1", 0)
    assert desk("rebalance").status == 0
    desk.clock.seconds += 1
    assert desk.done().splitlines()[1:] == [
        "64 partitions, 3.000000 replicas, 1 regions, 3 zones, 4 devices, 2-byte IDs, 0.00 balance, 0.00 dispersion",
        "The minimum number of hours before a partition can be reassigned is 1 (0:59:59 remaining)",
        "The overload factor is 0.00% (0.000000)",
        f"Ring file {tmp_path}/object.ring is up-to-date",
        "Devices:   id region zone ip address:port  replication ip:port       name weight partitions balance flags meta",
        "            3      1    1   10.0.0.1:16200       10.0.0.1:16200 nvme0n1p1   0.00          0    0.00",
        "            2      1    1   10.0.0.1:16200       10.0.0.1:16200      sdb1 100.00         64    0.00",
        "            1      1    2   10.0.0.2:6200        10.1.0.2:6201       sdb1 100.00         64    0.00       meta",
        "            0      1    3  [fd00::3]:6200       [fd00::3]:6200       sdb1 100.00         64    0.00       a shelf",
    ]
    assert desk("remove", "d2").status == 0
    line = next(line for line in desk.done().splitlines() if line.startswith("            2 "))
    assert line == "            2      1    1   10.0.0.1:16200       10.0.0.1:16200      sdb1   0.00         64  999.99   DEL"


def test_devices_hold_nothing_before_the_first_rebalance(tmp_path: Path) -> None:
    desk = Desk.with_zones(tmp_path)
    shown = desk.done()
    assert "3 devices, 2-byte IDs, 100.00 balance, 0.00 dispersion" in shown
    assert shown.count("          0 -100.00") == 3


def test_whether_the_ring_file_is_what_the_builder_says(tmp_path: Path) -> None:
    desk = Desk.with_zones(tmp_path)

    def state() -> str:
        return str(desk("--json").json["ring"]["state"])

    assert state() == "not found"
    desk.placed()
    assert state() == "up-to-date"
    desk.done("set_overload", "10%")
    assert state() == "up-to-date"  # no node sees a difference
    desk.done("set_info", "d1", "_moved")
    assert state() == "obsolete"
    assert f"Ring file {tmp_path}/object.ring is obsolete" in desk.done()
    desk.done("write_ring")
    assert state() == "up-to-date"
    ring = tmp_path / "object.ring"
    ring.write_bytes(ring.read_bytes()[:-1])
    assert state() == "invalid"
    assert f"Ring file {tmp_path}/object.ring is invalid: a ring file is cut short" in desk.done()


def test_json_says_all_of_it(tmp_path: Path) -> None:
    desk = Desk.with_zones(tmp_path)
    desk.placed()
    desk.hours_pass(0.5)
    shown = desk("--json").json
    assert {name: value for name, value in shown.items() if name not in ("devices", "id")} == {
        "version": 5,
        "part_power": 6,
        "next_part_power": None,
        "partitions": 64,
        "replicas": 3.0,
        "min_part_hours": 1,
        "min_part_seconds_left": 1800,
        "overload": 0.0,
        "balance": 0.0,
        "dispersion": 0.0,
        "regions": 1,
        "zones": 3,
        "ring": {"path": str(tmp_path / "object.ring"), "state": "up-to-date"},
    }
    assert shown["id"] == desk.builder.id
    assert shown["devices"][1] == {
        "id": 1,
        "region": 1,
        "zone": 2,
        "ip": "10.0.2.1",
        "port": 6200,
        "name": "sdb",
        "weight": 100.0,
        "meta": "",
        "replication_ip": "10.0.2.1",
        "replication_port": 6200,
        "partitions": 64,
        "balance": 0.0,
        "removed": False,
    }
    assert desk("--json") == desk.run(["ring", "--json", str(desk.path)])


def test_a_ring_with_fewer_devices_than_replicas_is_shown_all_the_same(tmp_path: Path) -> None:
    desk = Desk.with_zones(tmp_path)
    desk.placed()
    desk.done("remove", "d0")
    assert "2      1    3" in desk.done()
    assert desk("--json").json["balance"] == 999.99


def test_a_partition_power_increase_is_shown_with_its_next_step(tmp_path: Path) -> None:
    desk = Desk.with_zones(tmp_path)
    desk.placed()
    desk.done("prepare_increase_partition_power")
    assert desk.done().endswith(
        "\n\nPreparing increase of partition power (6 -> 7)\nNext: increase_partition_power, or cancel_increase_partition_power\n"
    )
    desk.done("increase_partition_power")
    assert desk.done().endswith(
        "\n\nIncreased partition power (6 -> 7)\nFirst: write_ring and publish\nNext: finish_increase_partition_power\n"
    )
    desk.done("write_ring")
    assert desk.done().endswith("\n\nIncreased partition power (6 -> 7)\nNext: finish_increase_partition_power\n")
    assert desk.ring.part_power == 7
