"""What devices should hold, and how crowded a table is, counted by Swift's own code for the same devices."""

from __future__ import annotations

import json
import random
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from ring.builder.builder import Builder
from ring.builder.quota import Tier, targets, tiers_of
from tests.compat.swift_venv import swift_python
from tests.ring.builder.ground import NOW, SHAPES, add, random_table, weighty

pytestmark = pytest.mark.compat

CLUSTERS = 300
FULL = 1e30  # an overload beyond any need
ASK = """
import array, json, sys
from swift.common.ring import RingBuilder
answers = []
for asked in json.load(sys.stdin):
    builder = RingBuilder(asked["part_power"], asked["replicas"], 0)
    builder.set_overload(asked["overload"])
    for device in asked["devices"]:
        builder.add_dev(device)
    of_devices = lambda by_tier: {tier[3]: value for tier, value in by_tier.items() if len(tier) == 4}
    answer = {
        "shares": of_devices(builder._build_weighted_replicas_by_tier()),
        "spread": of_devices(builder._build_wanted_replicas_by_tier()),
        "wanted": of_devices(builder._build_target_replicas_by_tier()),
        "required": builder.get_required_overload(),
    }
    builder._replica2part2dev = [array.array("H", row) for row in asked["rows"]]
    for row in asked["rows"]:
        for device_id in row:
            builder.devs[device_id]["parts"] += 1
    builder._build_dispersion_graph()
    answer["dispersion"] = builder.dispersion
    answer["balance"] = builder.get_balance()
    answers.append(answer)
json.dump(answers, sys.stdout)
"""


@dataclass(frozen=True)
class Case:
    builder: Builder
    swift: dict[str, Any]

    def by_device(self, name: str) -> dict[int, float]:
        """In partitions, as ours."""
        return {int(i): value * self.builder.partition_count for i, value in self.swift[name].items() if value}


def clusters() -> Iterator[Builder]:
    chance = random.Random(4711)
    while True:
        replicas = chance.choice([1, 1.5, 2, 2.5, 3, 3, 3, 3.25, 4, 5])
        builder = Builder.create(4, replicas, 0)
        builder.set_overload(chance.choice([0.0, 0.1, 0.5, 2.0]))
        regions, zones, servers = chance.choice(SHAPES)
        weights = chance.choice([[1.0], [1.0, 2.0], [0.0, 1.0, 3.0], [1.0, 50.0], [1.0, 1.7, 4.0, 12.0]])
        for _ in range(chance.randint(3, 20)):
            add(builder, chance.randint(1, regions), chance.randint(1, zones), chance.randint(1, servers), chance.choice(weights))
        if weighty(builder) >= replicas:
            builder.table = random_table(builder, chance.randint(0, 99))
            if chance.random() < 0.3:
                builder.table = ()
                builder.rebalance(1, NOW)
            yield builder


def asked(builder: Builder) -> dict[str, object]:
    devices = [
        {"id": d.id, "region": d.region, "zone": d.zone, "ip": d.ip, "port": d.port, "device": d.name, "weight": d.weight}
        for d in builder.present
    ]
    rows = [row.tolist() for row in builder.table]
    told = {"part_power": builder.part_power, "replicas": builder.replicas, "overload": builder.overload}
    return told | {"devices": devices, "rows": rows}


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    chosen = [builder for builder, _ in zip(clusters(), range(CLUSTERS), strict=False)]
    done = subprocess.run(
        [str(swift_python()), "-W", "ignore", "-c", ASK],
        input=json.dumps([asked(builder) for builder in chosen]),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return [Case(builder, answer) for builder, answer in zip(chosen, json.loads(done.stdout), strict=True)]


def same(ours: dict[int, float], theirs: dict[int, float]) -> bool:
    return ours.keys() == theirs.keys() and all(abs(ours[i] - theirs[i]) < 1e-6 for i in ours)


def numbers(of: Any) -> dict[int, float]:
    return {device_id: float(value) for device_id, value in of.items()}


def test_shares(cases: list[Case]) -> None:
    assert [n for n, case in enumerate(cases) if not same(numbers(case.builder.targets().shares), case.by_device("shares"))] == []


def test_dispersion(cases: list[Case]) -> None:
    """Swift looks at as many partitions as its shortest row has, we look at all of them.  To Swift what is left on devices without
    weight is crowded there; we tell that as replicas that wait."""
    whole = [case for case in cases if case.builder.replicas % 1 == 0 and weighty(case.builder) == len(case.builder.present)]
    assert len(whole) > 120
    assert [case.builder.dispersion() for case in whole] == pytest.approx([case.swift["dispersion"] for case in whole])


def test_balance(cases: list[Case]) -> None:
    """Swift counts a share without an end; to us a device that has a replica of every partition is at its share, whatever its
    weight, and what it leaves is the others' share."""
    plain = [case for case in cases if max(case.builder.targets().shares.values()) < case.builder.partition_count]
    assert len(plain) > 200
    assert [case.builder.balance() for case in plain] == pytest.approx([case.swift["balance"] for case in plain])


def test_spread_and_the_overload_that_it_takes(cases: list[Case]) -> None:
    """Where a tier has more replicas than parts, and weights do not fit that, Swift gives them out replica by replica;
    we stay as near to the weights as the same bounds allow."""
    others = 0
    for case in cases:
        ours = numbers(targets(case.builder.present, case.builder.rows, FULL).wanted)
        theirs = case.by_device("spread")
        if same(ours, theirs):
            assert case.builder.required_overload() == pytest.approx(case.swift["required"], abs=1e-9)
            assert same(numbers(case.builder.targets().wanted), case.by_device("wanted"))
        else:
            others += 1
            assert case.builder.replicas > 3
            nearer_to_weights(case.builder, ours, theirs)
    assert others < 0.05 * CLUSTERS


def nearer_to_weights(builder: Builder, ours: dict[int, float], theirs: dict[int, float]) -> None:
    """Of every tier that both give the same to: the sum of value^2 / weight of its parts is the least when in proportion."""
    shares = numbers(builder.targets().shares)
    sums: list[dict[Tier, float]] = [{}, {}, {}]
    for device in builder.present:
        if device.id in shares:
            for tier in ((), *tiers_of(device)):
                for summed, values in zip(sums, (ours, theirs, shares), strict=True):
                    summed[tier] = summed.get(tier, 0.0) + values[device.id]
    mine, other, by_weight = sums
    for parent in [tier for tier in mine if len(tier) < 4 and abs(mine[tier] - other[tier]) < 1e-6]:
        parts = [tier for tier in mine if len(tier) == len(parent) + 1 and tier[:-1] == parent]
        least, more = (sum(values[part] ** 2 / by_weight[part] for part in parts) for values in (mine, other))
        assert least <= more + 1e-6
