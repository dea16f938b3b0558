"""rebalance and what it says, validate, write_ring, write_builder."""

from __future__ import annotations

from array import array
from pathlib import Path

from ring.placement import NO_DEVICE, Ring
from ring.ringfile import encode
from tests.tools.cli.ring.desk import NOON, Desk
from tools.cli.ring.file import NO_SECRETS

UTC_NOON = "2027-01-15 08:00:00 UTC"


def test_the_first_rebalance_writes_the_ring_and_backups(tmp_path: Path) -> None:
    desk = Desk.with_zones(tmp_path)
    assert desk.done("rebalance") == "Reassigned 192 (300.00%) partitions. Balance is now 0.00.  Dispersion is now 0.00\n"
    assert desk.ring.version == desk.builder.version == 5
    assert sorted(desk.files()) == [
        f"backups/{NOON:.0f}.object.builder",  # of create
        f"backups/{NOON + 1:.0f}.object.builder",
        f"backups/{NOON + 1:.0f}.object.ring",
        "object.builder",
        "object.ring",
    ]
    files = desk.files()
    assert files[f"backups/{NOON + 1:.0f}.object.builder"] == files["object.builder"]
    assert files[f"backups/{NOON + 1:.0f}.object.ring"] == files["object.ring"]


def test_nothing_to_do_changes_nothing(tmp_path: Path) -> None:
    desk = Desk.with_zones(tmp_path)
    desk.placed()
    before = desk.files()
    said = desk("rebalance")
    assert (said.status, said.out) == (1, "No partitions could be reassigned.\nThere is no need to do so at this time.\n")
    assert desk.files() == before
    desk.done("set_info", "d0", "_x")
    assert desk("rebalance").out.endswith(f"\nRing file {tmp_path}/object.ring is obsolete: write_ring brings it up to date.\n")


def test_what_waits_is_said_with_the_time_from_which_it_may_move(tmp_path: Path) -> None:
    desk = Desk.with_zones(tmp_path)
    desk.placed()
    desk.done("add", "r1z4-10.0.4.1:6200/sdb", 100)
    desk.hours_pass(0.25)
    before = desk.files()
    said = desk("rebalance")
    assert (said.status, said.out.splitlines()) == (
        1,
        [
            "No partitions could be reassigned.",
            "48 replicas are still to move: 48 when min_part_hours have passed since the last move in their partition.",
            "Nothing hinders the last from 2027-01-15 09:00:00 UTC on, in 0:45:00: rebalance again then.",
        ],
    )
    assert desk.files() == before
    as_json = desk("rebalance", "--json").json
    assert (as_json["written"], as_json["waits"]["locked"], as_json["waits"]["until"]) == (False, 48, NOON + 3600)
    desk.hours_pass(0.75)
    assert desk("rebalance").out == "Reassigned 48 (75.00%) partitions. Balance is now 0.00.  Dispersion is now 0.00\n"


def test_a_pass_that_cannot_finish_says_so(tmp_path: Path) -> None:
    """Two devices are drained; partitions that were on both can have one replica moved at a time."""
    desk = Desk.with_zones(tmp_path, 1, servers=6)
    desk.placed()
    desk.hours_pass(2)
    desk.done("set_weight", "d0", 0, "d1", 0)
    both = sum(row["matches"] == 2 for row in desk("list_parts", "d0", "d1", "--json").json)
    assert both > 0
    said = desk("rebalance", "--debug")
    assert said.status == 1
    assert f"{both} replicas are still to move: {both} after another replica of their partition" in said.out
    assert "Nothing hinders the last from 2027-01-15 11:00:00 UTC on, in 1:00:00: rebalance again then." in said.out
    assert f"Waiting: 0 locked, {both} again, 0 stuck" in said.out
    assert "NOTE: a device is 999.99 % off its share." in said.out
    desk.hours_pass(1)
    desk.done("rebalance")
    assert [desk.builder.counts()[device_id] for device_id in (0, 1)] == [0, 0]


def test_the_seed_decides(tmp_path: Path) -> None:
    tables = []
    for number, arguments in enumerate((["--seed", "7"], ["7"], ["-s", "8"], ["--seed", "a word"], ["--seed", "a word"])):
        (tmp_path / str(number)).mkdir()
        desk = Desk.with_zones(tmp_path / str(number), 4)
        desk.placed(*arguments)
        tables.append([desk.builder.holders(partition) for partition in range(64)])
    assert tables[0] == tables[1]
    assert tables[3] == tables[4]
    assert tables[0] != tables[2] != tables[3] != tables[0]


def test_less_than_one_percent_is_not_worth_a_ring_unless_forced(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.done("create", 10, 3, 0)
    for zone, weight in ((1, 200), (2, 150), (3, 100)):
        desk.done("add", f"r1z{zone}-10.0.{zone}.1:6200/sdb", weight, f"r1z{zone}-10.0.{zone}.2:6200/sdb", weight)
    desk.placed()
    desk.done("set_overload", 0.002)
    before = desk.files()
    said = desk("rebalance")
    assert (said.status, said.out) == (
        1,
        "Nothing was written: 1 move would change balance and dispersion by less than 1 %. "
        "rebalance --force writes them all the same.\n",
    )
    assert desk("rebalance", "--json").json["written"] is False
    assert desk.files() == before
    assert desk.placed("--force").startswith("Reassigned 1 ")
    desk.done("set_weight", "d0", 201)  # a device that changed is worth a ring whatever it gains
    assert desk.placed().startswith("Reassigned ")


def test_an_empty_device_leaves_with_a_ring_of_its_own(tmp_path: Path) -> None:
    desk = Desk.with_zones(tmp_path, 4)
    desk.done("set_weight", "d3", 0)
    desk.placed()
    desk.done("remove", "d3")
    assert "DEL" in desk.done()
    assert desk.done("rebalance").startswith("Reassigned 0 (0.00%) partitions.")
    assert [device.id for device in desk.ring.devices if device is not None] == [0, 1, 2]
    assert desk("--json").json["ring"]["state"] == "up-to-date"


def test_force_writes_even_when_nothing_moves(tmp_path: Path) -> None:
    desk = Desk.with_zones(tmp_path)
    desk.placed()
    (tmp_path / "object.ring").unlink()
    assert desk("rebalance").status == 1
    assert desk.done("rebalance", "--force").startswith("Reassigned 0 (0.00%) partitions.")
    assert desk.ring.version == 5


def test_crowding_is_a_warning(tmp_path: Path) -> None:
    desk = Desk.with_zones(tmp_path)
    desk.done("add", "r1z1-10.0.1.2:6200/sdb", 100)
    said = desk("rebalance")
    assert said.status == 1
    assert "NOTE: 16.67 % of the replicas stand where their partition is crowded.\n" in said.out
    assert desk("--json").json["dispersion"] == 16.67


def test_replicas_that_change_are_written(tmp_path: Path) -> None:
    desk = Desk.with_zones(tmp_path, 4)
    desk.placed()
    for replicas in (2, 2.5, 3):
        desk.hours_pass(2)
        version = desk.builder.version
        desk.done("set_replicas", replicas)
        assert desk("rebalance").out.startswith("Reassigned"), replicas
        assert sum(map(len, desk.ring.table)) == 64 * replicas
        assert desk.ring.version == desk.builder.version > version + 1


def test_validate(tmp_path: Path) -> None:
    desk = Desk.with_zones(tmp_path)
    assert desk("validate").status == 2
    desk.placed()
    assert desk.done("validate") == f"{desk.path} is sound, build version 5\n"
    assert desk("validate", "--json").json == {"valid": True, "version": 5, "partitions": 64, "replicas": 3.0}


def test_write_ring(tmp_path: Path) -> None:
    desk = Desk.with_zones(tmp_path)
    assert desk("write_ring").err == "ringfort: nothing is placed yet\nhint: rebalance first\n"
    desk.placed()
    desk.done("set_info", "d0", "_x")
    builder = desk.path.read_bytes()
    assert desk.done("write_ring") == f"Ring file {tmp_path}/object.ring is up-to-date, build version 6\n"
    assert (desk.ring.version, desk.ring.device(0).meta) == (6, "x")
    assert desk.path.read_bytes() == builder
    assert (tmp_path / f"backups/{NOON + 2:.0f}.object.ring").read_bytes() == (tmp_path / "object.ring").read_bytes()


def test_a_lost_builder_is_made_anew_from_its_ring(tmp_path: Path) -> None:
    desk = Desk.with_zones(tmp_path, 4)
    desk.done("set_replicas", 2.5)
    desk.placed()
    lost = desk.builder
    refused = desk("write_builder")
    assert (refused.status, refused.err.partition("\n")[0]) == (2, f"ringfort: {desk.path} exists already")
    desk.path.unlink()
    desk.hours_pass(5)
    desk.done("write_builder", 7)
    made = desk.builder
    assert (made.version, made.replicas, made.min_part_hours, made.devices) == (lost.version, 2.5, 7, lost.devices)
    assert [made.holders(partition) for partition in range(64)] == [lost.holders(partition) for partition in range(64)]
    assert made.id not in ("", lost.id)
    assert made.hours_left(desk.clock.now()) == 7  # nothing is known of its last moves: it waits, to be sure
    assert desk("--json").json["ring"]["state"] == "up-to-date"
    desk.path.unlink()
    guessed = desk("write_builder")
    assert (guessed.status, guessed.err) == (0, "WARNING: min_part_hours is taken to be 24; set_min_part_hours changes it.\n")


def test_no_builder_is_made_of_a_ring_with_holes(tmp_path: Path) -> None:
    desk = Desk.with_zones(tmp_path)
    desk.placed()
    ring = desk.ring
    holes = [row[:] for row in ring.table]
    desk.path.unlink()
    rows = tuple(array("H", [NO_DEVICE if partition == 5 else row[partition] for partition in range(64)]) for row in holes)
    (tmp_path / "object.ring").write_bytes(encode(Ring(ring.version, 6, ring.devices, rows, NO_SECRETS)))
    said = desk("write_builder", 1)
    assert (said.status, said.err) == (2, "ringfort: this ring has partitions without devices; no builder is made of it\n")
    assert not desk.path.exists()


def test_the_second_copy_that_removed_devices_held_waits_for_no_time(tmp_path: Path) -> None:
    desk = Desk.with_zones(tmp_path, servers=3)
    desk.done("rebalance")
    gone = [str(device.id) for device in desk.builder.present if device.ip.endswith(".1")][:2]
    desk.done("remove", *(f"d{device_id}" for device_id in gone), "--yes")
    said = desk("rebalance")
    assert "of them are on removed devices: rebalance again when the nodes have followed this ring." in said.out
    assert "Nothing hinders" not in said.out
    again = desk("rebalance", "--json").json
    assert (again["written"], again["waits"]["again"]) == (True, 0)
    assert again["moves"] >= again["lower_bound"] > 0
