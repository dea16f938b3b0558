"""Swift's rings and builders, in and out, judged by Swift's own code."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ring.builder.builder import HOUR_S, Builder
from ring.device import Device
from ring.names import NameHasher
from ring.names import Path as Name
from ring.swift.ringgz import decode_ring_gz, encode_ring_gz
from ring.swift.swiftbuilder import decode_swift_builder, encode_swift_builder
from tests.compat.swift_process import PREFIX, SUFFIX, Swift
from tests.compat.swift_venv import RING_BUILDER, swift_python
from tests.ring.swift.ground import EPOCH, Array, builders, content, device, python2

pytestmark = pytest.mark.compat

NOW = EPOCH + 1000 * HOUR_S
# Swift counts these itself whenever it needs them; the documentation says what we write
COUNTED_ANEW = ("devs_changed", "_last_part_gather_start", "dispersion")
thorough = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("swift")


@pytest.fixture(scope="module")
def swift(folder: Path) -> Iterator[Swift]:
    process = Swift(swift_python(), folder)
    yield process
    process.close()


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[float], list[list[Any]]]:
    """What an operator did to a builder of Swift: how it was created, and calls of RingBuilder."""
    count = draw(st.integers(3, 9))
    steps: list[list[Any]] = [["add_dev", drawn_device(draw, device_id)] for device_id in range(count)]
    steps += draw(st.lists(st.just(["rebalance", 1]), max_size=1))
    ids = st.integers(0, count)
    more = st.one_of(
        st.tuples(st.just("set_dev_weight"), ids, st.sampled_from([0, 1, 50.5, 1000.0])),
        st.tuples(st.just("set_dev_zone"), ids, st.integers(0, 9)),
        st.tuples(st.just("remove_dev"), ids),
        st.tuples(st.just("rebalance"), st.integers(0, 9)),
        st.tuples(st.just("hours_pass"), st.integers(1, 300)),
        st.tuples(st.just("set_replicas"), st.sampled_from([1, 1.25, 2, 3.0])),
        st.tuples(st.just("set_overload"), st.sampled_from([0, 0.1, 3.5])),
        st.tuples(st.just("change_min_part_hours"), st.integers(0, 99)),
        st.tuples(st.sampled_from(["pretend_min_part_hours_passed", "prepare_increase_partition_power"])),
        st.tuples(st.sampled_from(["increase_partition_power", "finish_increase_partition_power"])),
    )
    gone: set[int] = set()
    for step in draw(st.lists(more, max_size=8)):
        if isinstance(step[1] if len(step) > 1 else None, int) and step[0] in ("remove_dev", "set_dev_weight", "set_dev_zone"):
            if step[1] >= count or step[1] in gone:
                continue
            gone |= {step[1]} if step[0] == "remove_dev" else set()
        if step[0] == "increase_partition_power" and ["rebalance", 1] not in steps:
            continue
        steps.append(list(step))
    return [draw(st.integers(0, 7)), draw(st.sampled_from([1, 1.5, 2.0, 3])), draw(st.integers(0, 48))], steps


def drawn_device(draw: st.DrawFn, device_id: int) -> dict[str, object]:
    return device(
        device_id,
        region=draw(st.integers(1, 2)),
        zone=draw(st.integers(0, 3)),
        ip=draw(st.sampled_from(["10.0.0.1", "10.0.0.2", "fd00::3"])),
        weight=draw(st.sampled_from([1, 0.5, 100.0, 3000])),
        meta=draw(st.sampled_from(["", "Größe 4 TB", "x" * 300])),
    )


def described(builder: Builder) -> dict[str, Any]:
    """As Swift's ``describe``, without what Swift counts anew, and when partitions moved as moments."""
    held = builder.counts()
    return {
        "part_power": builder.part_power,
        "next_part_power": builder.next_part_power,
        "replicas": builder.replicas,
        "min_part_hours": builder.min_part_hours,
        "parts": builder.partition_count,
        "dev_id_bytes": 2,
        "version": builder.version,
        "overload": builder.overload,
        "id": builder.id,
        "devs": [None if one is None else record(one) | {"parts": held[one.id]} for one in builder.devices],
        "_replica2part2dev": [row.tolist() for row in builder.table] or None,
        "_remove_devs": sorted(builder.removed),
        "_same_devices": True,
        "moved": builder.moved_at.tolist(),
    }


def record(one: Device) -> dict[str, object]:
    return device(
        one.id,
        region=one.region,
        zone=one.zone,
        ip=one.ip,
        port=one.port,
        replication_ip=one.replication_ip,
        replication_port=one.replication_port,
        device=one.name,
        weight=one.weight,
        meta=one.meta,
    )


def by_moments(told: dict[str, Any]) -> dict[str, Any]:
    told = {name: value for name, value in told.items() if name not in COUNTED_ANEW}
    epoch, hours = told.pop("_last_part_moves_epoch"), told.pop("_last_part_moves")
    told["moved"] = [epoch - 3600 * hour if hour < 255 and epoch > 3600 * hour else 0 for hour in hours]
    told["_remove_devs"] = sorted(one["id"] for one in told["_remove_devs"])
    for one in told["devs"]:
        if one is not None:
            one.pop("parts_wanted", None)
    return told


@thorough
@given(histories())
def test_a_builder_of_swift_comes_in_and_goes_back(
    swift: Swift, folder: Path, history: tuple[list[float], list[list[Any]]]
) -> None:
    swift.ask("make", path=f"{folder}/swift.builder", create=history[0], steps=history[1])
    told = by_moments(swift.ask("describe", path=f"{folder}/swift.builder"))
    found = decode_swift_builder((folder / "swift.builder").read_bytes())
    assert found.notes == ()
    assert described(found.builder) == told
    (folder / "ours.builder").write_bytes(encode_swift_builder(found.builder))
    assert by_moments(swift.ask("describe", path=f"{folder}/ours.builder")) == told


@thorough
@given(builders())
def test_a_builder_of_ours_goes_out_and_comes_back(swift: Swift, folder: Path, builder: Builder) -> None:
    (folder / "ours.builder").write_bytes(encode_swift_builder(builder))
    builder.id = builder.id or None  # type: ignore[assignment]  # as Swift has none
    assert by_moments(swift.ask("describe", path=f"{folder}/ours.builder")) == described(builder)
    swift.ask("save_again", path=f"{folder}/ours.builder", target=f"{folder}/swift.builder")
    back = decode_swift_builder((folder / "swift.builder").read_bytes()).builder
    builder.id = builder.id or back.id  # Swift gives one when it saves
    assert back == builder


@thorough
@given(histories(), st.sampled_from([(1, 2), (2, 2), (2, 4)]))
def test_a_ring_of_swift_comes_in_and_goes_back(
    swift: Swift, folder: Path, history: tuple[list[float], list[list[Any]]], form: tuple[int, int]
) -> None:
    history[1].append(["rebalance", 5])
    refused = swift.ask("make", path=f"{folder}/swift.builder", create=history[0], steps=history[1])
    builder = decode_swift_builder((folder / "swift.builder").read_bytes()).builder
    if not builder.table:
        assert refused
        return
    source, target = f"{folder}/swift.ring.gz", f"{folder}/ours.ring.gz"
    swift.ask("write_ring", path=f"{folder}/swift.builder", target=source, version=form[0], id_bytes=form[1])
    found = decode_ring_gz(Path(source).read_bytes(), min_part_hours=builder.min_part_hours)
    assert found.kind == f"ring v{form[0]}"
    assert len(found.notes) == 1
    for one in (found.builder, builder):
        Path(target).write_bytes(encode_ring_gz(one))
        assert swift.ask("same_ring", path=target, other=source)
    assert found.builder.devices == builder.devices
    assert all(np.array_equal(a, b) for a, b in zip(found.builder.table, builder.table, strict=True))


def names(count: int) -> list[list[str]]:
    """Accounts, containers and objects, in any script."""
    chance = Random(4711)
    letters = "abcXYZ0189-_.~ äß漢字🙂/%"
    made = []
    for _ in range(count):
        parts = ["".join(chance.choices(letters.replace("/", "") if i < 2 else letters, k=chance.randint(1, 40))) for i in range(3)]
        made.append(["AUTH_" + parts[0], *[*parts[1:], "", ""][: chance.randint(0, 2)]])
    return [[*name, *[""] * (3 - len(name))] for name in made]


def placed(builder: Builder, wanted: list[list[str]]) -> list[list[Any]]:
    ring = builder.ring(NameHasher(PREFIX, SUFFIX))
    partitions = [ring.partition(Name(*name)) for name in wanted]
    return [[partition, [one.id for one in ring.primaries(partition)]] for partition in partitions]


@pytest.mark.parametrize(("part_power", "replicas"), [(10, 3), (8, 2.5), (0, 1)])
def test_the_same_primaries_for_a_ring_of_swift(swift: Swift, folder: Path, part_power: int, replicas: float) -> None:
    steps = [*[["add_dev", device(i, region=1 + i % 2, zone=i % 5)] for i in range(12)], ["rebalance", 3]]
    source = f"{folder}/placed.ring.gz"
    assert swift.ask("make", path=f"{folder}/placed.builder", create=[part_power, replicas, 1], steps=steps) == []
    wanted = names(1000)
    for version in (1, 2):
        swift.ask("write_ring", path=f"{folder}/placed.builder", target=source, version=version, id_bytes=2)
        told = swift.ask("nodes", path=source, names=wanted)
        assert placed(decode_ring_gz(Path(source).read_bytes()).builder, wanted) == told
    assert len({partition for partition, _ in told}) > min(600, (1 << part_power) - 40)
    assert placed(decode_swift_builder((folder / "placed.builder").read_bytes()).builder, wanted) == told


def ours(part_power: int, replicas: float) -> Builder:
    builder = Builder.create(part_power, replicas, 1, builder_id="ab" * 16)
    for i in range(12):
        builder.add_device(region=1 + i % 2, zone=i % 5, ip=f"10.0.0.{i}", port=6200, name="sdb", weight=100 + i, meta="Größe")
    builder.rebalance(1, NOW - 10 * HOUR_S)
    return builder


@pytest.mark.parametrize(("part_power", "replicas"), [(10, 3), (8, 2.5), (0, 1)])
def test_the_same_primaries_for_a_ring_of_ours(swift: Swift, folder: Path, part_power: int, replicas: float) -> None:
    builder, wanted = ours(part_power, replicas), names(1000)
    (folder / "placed.ring.gz").write_bytes(encode_ring_gz(builder))
    assert swift.ask("nodes", path=f"{folder}/placed.ring.gz", names=wanted) == placed(builder, wanted)


@pytest.mark.parametrize(("part_power", "replicas"), [(9, 3), (8, 2.5)])
def test_swift_goes_on_from_a_builder_of_ours(swift: Swift, folder: Path, part_power: int, replicas: float) -> None:
    """And we from what it made of it."""
    builder, path = ours(part_power, replicas), folder / "ours.builder"
    builder.set_weight(4, 300)
    path.write_bytes(encode_swift_builder(builder))
    said, counted = swift.ask("dispersion", path=str(path))
    if replicas == 3:  # of partial replicas Swift counts the first partitions only
        assert said == pytest.approx(counted)
    builder.remove(3)
    path.write_bytes(encode_swift_builder(builder))
    result = swift.ask("rebalance", path=str(path))
    assert result["removed"] == 1
    assert result["moved"] > 0
    assert result["dispersion"] == 0
    assert result["balance"] < 5
    back = decode_swift_builder(path.read_bytes()).builder
    assert back.devices[3] is None
    assert back.removed == set()
    assert int(back.moved_at.max()) > 0
    back.rebalance(2, float(back.moved_at.max()) + 2 * HOUR_S)
    back.validate()


def test_min_part_hours_hold_on_both_sides(swift: Swift, folder: Path) -> None:
    """What moved just now on one side does not move on the other."""
    path = folder / "ours.builder"
    steps = [*[["add_dev", device(i)] for i in range(6)], ["rebalance", 1], ["set_dev_weight", 2, 900.0]]
    swift.ask("make", path=str(path), create=[8, 3, 5], steps=steps)
    builder = decode_swift_builder(path.read_bytes()).builder
    now = float(builder.moved_at.max())
    assert builder.rebalance(1, now + 4 * HOUR_S).moves == 0
    assert builder.rebalance(1, now + 6 * HOUR_S).moves > 0
    moved = builder.moved_at > now
    # As if that pass had been made just now, and the one before it ten hours ago.
    real_now = swift_now(swift, folder)
    builder.moved_at = np.where(moved, real_now, real_now - 10 * HOUR_S).astype(np.uint32)
    for one in list(builder.present):
        builder.set_weight(one.id, 100.0 + one.id * 50)
    before = [row.copy() for row in builder.table]
    path.write_bytes(encode_swift_builder(builder))
    swift.ask("rebalance", path=str(path))
    after = decode_swift_builder(path.read_bytes()).builder.table
    changed = np.any([old != new for old, new in zip(before, after, strict=True)], axis=0)
    assert changed.any()
    assert not (changed & moved).any()


def swift_now(swift: Swift, folder: Path) -> float:
    steps = [["add_dev", device(0)], ["rebalance", 1]]
    swift.ask("make", path=f"{folder}/now.builder", create=[0, 1, 1], steps=steps)
    return float(swift.ask("describe", path=f"{folder}/now.builder")["_last_part_moves_epoch"])


def test_python_2_builders_are_read_as_swift_reads_them(swift: Swift, folder: Path) -> None:
    """Swift of Python 3 reads those of Python 2.7, as long as their text is ASCII."""
    old = content(
        _replica2part2dev=[Array("H", [0, 1, 2, 0]), Array("H", [1, 2])],
        _last_part_moves=Array("B", [0, 1, 254, 255]),
        _dispersion_graph={},
        id=...,
        overload=...,
    )
    data = python2(old, raw_arrays=False)
    (folder / "old.builder").write_bytes(data)
    told = by_moments(swift.ask("describe", path=f"{folder}/old.builder"))
    told["devs"] = [one | {"parts": count} for one, count in zip(told["devs"], (2, 2, 2), strict=True)]
    builder = decode_swift_builder(data).builder
    assert (told.pop("id"), builder.id) == (None, "")
    mine = described(builder)
    del mine["id"]
    assert mine | {"dev_id_bytes": 0} == told | {"dev_id_bytes": 0}


def test_swift_ring_builder_takes_it(folder: Path) -> None:
    """Its command line: the table, validate, a rebalance, and that the ring is the builder's."""
    builder = ours(8, 3)
    (folder / "cli.builder").write_bytes(encode_swift_builder(builder))
    (folder / "cli.ring.gz").write_bytes(encode_ring_gz(builder))

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        line = [str(swift_python()), "-W", "ignore", *RING_BUILDER, f"{folder}/cli.builder", *arguments]
        return subprocess.run(line, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False)

    shown = run()
    assert shown.returncode == 0, shown.stdout
    assert f"build version {builder.version}, id {builder.id}" in shown.stdout
    assert "256 partitions, 3.000000 replicas, 2 regions, 10 zones, 12 devices, 2-byte IDs" in shown.stdout
    assert "cli.ring.gz is up-to-date" in shown.stdout
    assert run("validate").returncode == 0
    assert run("dispersion").returncode == 0
    assert run("set_weight", "d3", "200").returncode == 0
    again = run("rebalance", "--force", "--seed", "1")
    assert "Reassigned" in again.stdout
    assert decode_ring_gz((folder / "cli.ring.gz").read_bytes()).builder.version > builder.version
