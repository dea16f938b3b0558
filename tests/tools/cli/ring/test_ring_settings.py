"""Verbs for the ring as a whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tools.cli.ring.desk import Desk


def test_create(tmp_path: Path) -> None:
    desk = Desk(tmp_path, "object")
    assert desk("create", "6", "2.5", "12").status == 0
    again = Desk(tmp_path)
    assert (again.builder.part_power, again.builder.replicas, again.builder.min_part_hours) == (6, 2.5, 12)
    other = Desk(tmp_path, "other.builder")
    other.done("create", 6, 3, 1)
    assert len({again.builder.id, other.builder.id, ""}) == 3


@pytest.mark.parametrize(
    ("arguments", "out"),
    [
        (["set_min_part_hours", "5"], "The minimum number of hours before a partition can be reassigned is now set to 5\n"),
        (["set_replicas", "2.5"], "The replica count is now 2.500000.\nThe change will take effect after the next rebalance.\n"),
        (
            ["set_overload", "0.1"],
            "The overload factor is now 10.00% (0.100000)\nThe change will take effect after the next rebalance.\n",
        ),
        (
            ["set_overload", "12.5%"],
            "The overload factor is now 12.50% (0.125000)\nThe change will take effect after the next rebalance.\n",
        ),
        (
            ["set_overload", "100%"],
            "The overload factor is now 100.00% (1.000000)\nThe change will take effect after the next rebalance.\n",
        ),
    ],
)
def test_what_is_set_is_said_and_kept(tmp_path: Path, arguments: list[str], out: str) -> None:
    desk = Desk.with_zones(tmp_path)
    assert desk.done(*arguments) == out
    before = desk.files()
    again = desk(*arguments)
    assert (again.status, again.out) == (1, "It is so already.\n")
    assert desk.files() == before


def test_an_overload_above_1_is_kept_with_a_warning(tmp_path: Path) -> None:
    desk = Desk.with_zones(tmp_path)
    said = desk("set_overload", "10")
    assert (said.status, desk.builder.overload) == (1, 10.0)
    assert said.err == "WARNING: 10 is 1000 %; 10% would be 0.100000.\n"
    assert desk("set_overload", "150%").status == 0  # somebody who writes % knows what it is


def test_pretend_min_part_hours_passed(tmp_path: Path) -> None:
    desk = Desk.with_zones(tmp_path)
    desk.placed()
    desk.done("add", "r1z4-10.0.4.1:6200/sdb", 100)
    assert desk("rebalance").status == 1
    desk.done("pretend_min_part_hours_passed")
    assert desk.placed().startswith("Reassigned 48 ")


def test_the_steps_of_a_partition_power_increase(tmp_path: Path) -> None:
    desk = Desk.with_zones(tmp_path, 4)
    desk.placed()
    before = [desk.builder.holders(partition) for partition in range(64)]
    for early in ("increase_partition_power", "cancel_increase_partition_power", "finish_increase_partition_power"):
        assert desk(early).status == 2
    assert desk.done("prepare_increase_partition_power").startswith("The next partition power is now 7.\n")
    for wrong in ("prepare_increase_partition_power", "finish_increase_partition_power", "rebalance"):
        assert desk(wrong).status == 2
    desk.done("write_ring")
    assert (desk.ring.part_power, desk.ring.next_part_power) == (6, 7)
    desk.done("cancel_increase_partition_power")
    assert desk.builder.next_part_power is None
    desk.done("prepare_increase_partition_power")
    assert desk.done("increase_partition_power").startswith("The partition power is now 7.\n")
    for wrong in ("increase_partition_power", "cancel_increase_partition_power"):
        assert desk(wrong).status == 2
    desk.done("finish_increase_partition_power")
    desk.done("write_ring")
    assert (desk.ring.part_power, desk.ring.next_part_power) == (7, None)
    assert [desk.builder.holders(partition) for partition in range(128)] == [before[partition // 2] for partition in range(128)]
    assert desk("rebalance").out.startswith("No partitions could be reassigned.")
