"""The ring benchmark's parts: its clusters, its judge, the run of one process, and what it says of the figures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ring.builder.builder import Builder
from tools.bench.ring import Result, goals, lookup_lines
from tools.bench.ring_child import PASSES_MAX, REPLICAS, Side, answer
from tools.bench.ring_layouts import ADD, FIVE, FOUR, SCENES, Cells, Scene, Worth, judge
from tools.bench.ring_ours import Ours

SMALL = Scene("small", "4 zones x 1 server x 10", 4, 1)  # devices 0-9 are in zone 1, 10-19 in zone 2, and so on


def cells(*rows: Sequence[int]) -> Cells:
    return np.array(rows, np.uint16)


@pytest.mark.parametrize("scene", SCENES, ids=[f"{scene.zones} zones: {scene.name}" for scene in SCENES])
def test_every_scene_is_a_cluster_of_a_thousand_devices_that_can_be_built(scene: Scene) -> None:
    builder = Builder.create(4, REPLICAS, 1)
    for device in scene.devices():
        builder.add_device(**device)
    assert len(builder.devices) == 1000
    ours = Ours()
    ours.builder = builder
    verbs: dict[str, Callable[..., None]] = {"add": ours.add, "remove": ours.remove, "weight": ours.set_weight}
    for verb, *arguments in scene.changes:
        verbs[verb](*arguments)
    after = scene.devices_after()
    assert [d.weight for d in after if d.weight] == [d.weight for d in builder.present if d.weight]
    assert (scene.passes_max == 1) == (scene in (FIVE, FOUR))


def test_a_first_build_moves_all() -> None:
    worth = judge(SMALL, [None, cells([0, 10], [10, 20], [20, 30])])
    assert (worth.moves, worth.lower_bound) == ([6], 6)
    assert worth.dispersion == 0
    assert worth.balance == pytest.approx(100 * (2 / (6 / 40) - 1))


def test_moves_are_devices_lost_wherever_they_stand() -> None:
    before = cells([0, 1], [10, 11], [20, 21])
    swapped = cells([10, 1], [0, 11], [20, 21])  # nothing moved between devices
    after = cells([10, 2], [0, 12], [29, 21])
    worth = judge(replace(SMALL, changes=[["remove", 1], ["weight", 11, 0.0]]), [before, swapped, after])
    assert worth.moves == [0, 3]
    assert worth.hasty == 1  # partition 1 lost two at once
    assert worth.lower_bound == 2  # the quotas of the others are 0 or 1, so they keep what they hold
    assert worth.balance < 999


def test_what_is_wrong_with_a_table_is_seen() -> None:
    crowded = judge(SMALL, [None, cells([0, 1], [0, 11], [20, 12])])
    assert crowded.twice == 1  # partition 0, on device 0
    assert crowded.dispersion == pytest.approx(100 * 2 / 6)  # partition 0 once too often on a device; partition 1 in zone 2
    stranded = judge(replace(SMALL, changes=[["remove", 0]]), [cells([0], [10], [20])] * 2)
    assert stranded.balance == 999.99
    assert stranded.lower_bound == 1


class Counting(Side):
    """Moves one replica from device to device in each of so many passes."""

    def __init__(self, passes: int, settled_after: int = 99) -> None:
        self.left, self.settled_after, self.done = passes, settled_after, 0
        self.log: list[object] = []
        self.cells = cells([0], [10], [20])

    def create(self, part_power: int) -> None:
        self.log.append(("create", part_power))

    def load(self, path: str) -> None:
        self.log.append(("load", path))

    def save(self, path: str) -> None:
        self.log.append(("save", path))

    def add(self, device: dict[str, Any]) -> None:
        self.log.append(("add", device["name"]))

    def remove(self, device_id: int) -> None:
        self.log.append(("remove", device_id))

    def set_weight(self, device_id: int, weight: float) -> None:
        self.log.append(("weight", device_id, weight))

    def hours_pass(self) -> None:
        self.log.append("hours")

    def rebalance(self, seed: int) -> bool:
        self.log.append(seed)
        if self.done == self.left:
            return False
        self.done += 1
        self.cells[0] += 1
        return True

    def settled(self) -> bool:
        return self.done >= self.settled_after

    def rows(self) -> Sequence[bytes]:
        return [row.tobytes() for row in self.cells]

    def write_ring(self, path: str, part_power: int, devices: Sequence[dict[str, Any]], rows: Sequence[bytes]) -> None:
        raise NotImplementedError

    def open_ring(self, path: str) -> None:
        raise NotImplementedError

    def nodes(self, name: str) -> object:
        raise NotImplementedError

    def handoffs(self, partition: int) -> Iterator[object]:
        raise NotImplementedError


def job(folder: Path, **more: Any) -> dict[str, Any]:
    plain = {"do": "rebalance", "part_power": 0, "load": "", "changes": [], "save": "", "passes": PASSES_MAX, "seed": 5}
    return {**plain, "table": str(folder / "t"), **more}


def test_passes_go_on_until_nothing_moves_or_all_is_settled(tmp_path: Path) -> None:
    side = Counting(2)
    changes: list[list[Any]] = [["add", {"name": "sda"}], ["weight", 3, 1.5], ["remove", 4]]
    result = answer(side, job(tmp_path, load="x", changes=changes, save="y"))
    assert side.log == [
        ("load", "x"), ("add", "sda"), ("weight", 3, 1.5), ("remove", 4), "hours", 5, "hours", 6, "hours", 7, ("save", "y"),
    ]  # fmt: skip
    assert [int(np.fromfile(paths[0], np.uint16)[0]) for paths in result["tables"]] == [0, 1, 2]
    assert len(result["seconds"]) == len(result["cpu"]) == 2
    assert result["peak_bytes"] > 1 << 20
    assert len(answer(Counting(9, settled_after=4), job(tmp_path))["seconds"]) == 4
    assert len(answer(Counting(99), job(tmp_path))["seconds"]) == PASSES_MAX
    assert answer(Counting(1), job(tmp_path, passes=1))["tables"][0] == []  # a first build starts from nothing


def test_ours_from_the_first_build_to_a_lookup(tmp_path: Path) -> None:
    saved = str(tmp_path / "builder")
    start = [["add", device] for device in FIVE.devices()]
    first = answer(Ours(), job(tmp_path, part_power=12, changes=start, save=saved, passes=1))
    grown = answer(Ours(), job(tmp_path, part_power=12, load=saved, changes=[*ADD.changes], table=str(tmp_path / "u")))
    worth = judge(ADD, [np.stack([np.fromfile(path, np.uint16) for path in paths]) for paths in grown["tables"]])
    assert sum(worth.moves) == worth.lower_bound > 0
    assert (worth.twice, worth.hasty, worth.dispersion) == (0, 0, 0)
    ring = str(tmp_path / "ring")
    answer(Ours(), {"do": "write", "part_power": 12, "path": ring, "devices": FIVE.devices(), "rows": first["tables"][1]})
    found = answer(Ours(), {"do": "lookup", "part_power": 12, "path": ring, "names": 100})
    assert found["handoffs_given"] == [997, 997]
    assert min(found["nodes_us"], found["first_handoffs_us"], found["all_handoffs_us"], found["load_s"]) > 0


def result(side: str, seconds: float = 1.0, scene: Scene = FIVE, **worth: Any) -> Result:
    plain = Worth(moves=[5], lower_bound=5, balance=0.5, dispersion=0.0, twice=0, hasty=0)
    return Result(scene, 20, side, seconds, seconds, 50 << 20, replace(plain, **worth))


def test_goals() -> None:
    reached = goals([result("us"), result("them", 10.0), result("us", scene=ADD), result("them", scene=ADD)], "us")
    assert all(ok for ok, _ in reached)
    assert len(reached) == 5
    assert "10.0 times less cpu" in reached[0][1]
    for ours in (
        result("us", 1.1),
        result("us", moves=[4, 2]),
        result("us", balance=0.6),
        result("us", dispersion=0.1),
        result("us", twice=1),
        result("us", hasty=1),
    ):
        assert [ok for ok, _ in goals([ours, result("them", 10.0)], "us")].count(False) == 1


def test_lines() -> None:
    line = result("us", 1.234, ADD, moves=[3375, 483]).line()
    assert line == "| add a server | us | 1.23 | 1.23 | 50 | 2 | 3,375 + 483 = **3,858** | 5 | 0.500 | 0.000 |"
    assert "| 5 | 9 + 8 + 7 + ... = **35** |" in result("us", moves=[9, 8, 7, 6, 5]).line()
    figures = dict.fromkeys(("nodes_us", "first_handoffs_us", "all_handoffs_us", "load_s"), 2.0)
    figures |= dict.fromkeys(("resident_bytes", "peak_bytes", "file_bytes"), 2.0**21) | {
        "handoffs_least": 997,
        "handoffs_most": 997,
    }
    lines = lookup_lines(20, {"us": figures, "them": {**figures, "nodes_us": 5.0}})
    assert "| partition and primaries of a name, us | 2.0 | 5.0 | 2.5x |" in lines
    assert "| load the ring, ms | 2000.0 | 2000.0 | 1.0x |" in lines
    assert "| its file, MiB | 2.0 | 2.0 | 1.0x |" in lines
