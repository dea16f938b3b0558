"""``ringfort node``: what it prints, what it refuses, and what drain and replace do to a cloud's folder."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import msgspec
import pytest
import trio

from ring.builder.builder import Builder
from ring.builder.builderfile import encode_builder
from ring.errors import Conflict, NotFound
from ring.names import NameHasher
from ring.ringfile import decode, encode
from ring.world.interface import World
from ring.world.real import make_world
from storage.object.device import LABEL_PATH, Label, format_device
from storage.object.refill_mark import REFILL_PATH, RefillMark
from tools.cli.main import run
from tools.cli.node import number_of, table
from tools.deploy.device_status import DeviceState, Lacking, Refilling, standoffs
from tools.deploy.drain import Step, check_devices, newest_builder, step
from tools.deploy.layout import RINGS, CloudRecord, Layout
from tools.deploy.replace import replace
from tools.deploy.supervisor import lock

NO_SECRETS = NameHasher(b"", b"")
HOUR_S = 3600.0


def builder_of(devices: int, now: float) -> Builder:
    builder = Builder.create(4, 3, 1)
    for number in range(devices):
        builder.add_device(region=1, zone=1, ip="127.0.0.1", port=0, name=f"d{number}", weight=100.0)
    builder.rebalance(1, now)
    return builder


@pytest.fixture
def world() -> World:
    return make_world()


@pytest.fixture
def cloud(tmp_path: Path, world: World) -> tuple[Layout, CloudRecord]:
    """A cloud's folder as far as rings go: four devices that are not formatted."""
    layout = Layout(tmp_path / "cloud")
    record = CloudRecord(cluster_id="c", devices=4, replicas=3, part_power=4)
    for folder in (layout.root, layout.rings, layout.published, layout.root / "devices", layout.run, layout.logs):
        folder.mkdir()
    for number in range(4):
        layout.device(number).mkdir()
    layout.record.write_bytes(msgspec.json.encode(record))
    for name in RINGS:
        builder = builder_of(4, world.clock.now() - 2 * HOUR_S)
        (layout.rings / f"{name}.builder").write_bytes(encode_builder(builder))
        (layout.rings / f"{name}.ring").write_bytes(encode(builder.ring(NO_SECRETS)))
    return layout, record


@pytest.mark.parametrize(("name", "number"), [("d3", 3), ("3", 3), ("d12", 12)])
def test_names_of_devices(name: str, number: int) -> None:
    assert number_of(name) == number


def test_the_table_says_what_is_wrong_and_what_is_on_its_way() -> None:
    well = DeviceState(0, "in service", "", 1000.0, 100 << 30, 60 << 30, 1 << 30, 12, 0, {})
    out = DeviceState(1, "out", "it has no label", 1090.0, None, None, None, None, None, {})
    filling = DeviceState(2, "in service", "", 1000.0, 1, 1, 1, 5, 1, {}, Refilling(0.25, 60.0))
    waiting = DeviceState(3, "in service", "", 1000.0, 1, 1, 1, 5, 1, {"object": 0.5}, Refilling(0.5, None, (1, 4)))
    lines = table([well, out, filling, waiting], [1], 1100.0)
    assert lines[1].split() == ["d0", "in", "service", "1m40s", "40.0", "GiB", "60.0", "GiB", "12", "0"]
    assert lines[2].split() == ["d1", "out", "10s", "-", "-", "-", "-"]
    assert lines[3].strip() == "it has no label"
    assert lines[5].strip() == "refilling [#####               ]  25% 1m0s to go"
    assert lines[7].strip().endswith("50% waits for d1, d4")
    assert lines[8].strip() == "leaves ring object [##########          ]  50%"
    assert "worker 1 does not answer" in lines[9]


# ---- drain


def test_a_drained_device_has_no_replica_in_any_ring(cloud: tuple[Layout, CloudRecord], world: World) -> None:
    layout, record = cloud
    for number in range(4):
        trio.run(_format, world, layout, number)
    first = trio.run(_step, world, layout, record, [3], False)
    assert (sorted(first.published), first.left) == (sorted(RINGS), 0)
    for name in RINGS:
        ring = decode((layout.published / f"{name}.ring").read_bytes(), NO_SECRETS)
        assert all(3 not in row for row in ring.table)
    again = trio.run(_step, world, layout, record, [3], False)
    assert again.published == ()


def test_a_drain_that_was_cut_off_goes_on(cloud: tuple[Layout, CloudRecord], world: World) -> None:
    layout, record = cloud
    for number in range(4):
        trio.run(_format, world, layout, number)
    trio.run(_step, world, layout, record, [3], False)
    for name in RINGS:
        (layout.published / f"{name}.ring").unlink()  # ended between builder and ring
    assert sorted(trio.run(_step, world, layout, record, [3], False).published) == sorted(RINGS)


def test_what_was_moved_lately_waits_unless_it_shall_be_now(cloud: tuple[Layout, CloudRecord], world: World) -> None:
    layout, record = cloud
    for number in range(4):
        trio.run(_format, world, layout, number)
    for name in RINGS:
        builder = builder_of(4, world.clock.now() - 2 * HOUR_S)
        builder.set_weight(0, 50.0)
        builder.rebalance(1, world.clock.now())  # some of it moves now
        (layout.rings / f"{name}.builder").write_bytes(encode_builder(builder))
        (layout.rings / f"{name}.ring").write_bytes(encode(builder.ring(NO_SECRETS)))
    waits = trio.run(_step, world, layout, record, [3], False)
    assert waits.left > 0
    assert 0 < waits.hours <= 1
    assert trio.run(_step, world, layout, record, [3], True).left == 0


def test_too_few_devices_or_none(cloud: tuple[Layout, CloudRecord], world: World) -> None:
    layout, record = cloud
    with pytest.raises(Conflict, match="leave 2 devices for the 3 copies"):
        trio.run(check_devices, world, layout, record, [2, 3])
    with pytest.raises(NotFound, match="d7"):
        trio.run(check_devices, world, layout, record, [7])
    assert trio.run(newest_builder, world, layout, "object").device(2).weight == 100.0


async def _step(world: World, layout: Layout, record: CloudRecord, numbers: list[int], now: bool) -> Step:
    return await step(world, layout, record, numbers, now=now)


async def _format(world: World, layout: Layout, number: int) -> None:
    await format_device(world.open_disk(str(layout.device(number))), "c", number)


# ---- replace


def test_an_empty_folder_becomes_the_device_and_the_old_disk_is_another(cloud: tuple[Layout, CloudRecord], world: World) -> None:
    layout, record = cloud
    (layout.device(2) / "lost+found").mkdir()
    disk_id = trio.run(replace, world, layout, record, 2)
    label = Label.decode((layout.device(2) / LABEL_PATH).read_bytes())
    assert (label.device_id, label.cluster_id, label.disk_id) == (2, "c", disk_id)
    assert (layout.device(2) / REFILL_PATH).exists()
    assert (layout.disk_id(2), layout.disk_id(1)) == (disk_id, "")
    with pytest.raises(Conflict, match="nothing to replace"):
        trio.run(replace, world, layout, record, 2)
    assert layout.disk_id(2) == disk_id
    with pytest.raises(Conflict, match=r"d1 shares partitions with devices that are being refilled: d2 \(24 ") as caught:
        trio.run(replace, world, layout, record, 1)
    assert "--anyway" in caught.value.hint and layout.disk_id(1) == ""
    assert trio.run(partial(replace, world, layout, record, 1, anyway=True)) != disk_id
    assert layout.disk_id(2) == disk_id


def test_what_is_not_replaced(cloud: tuple[Layout, CloudRecord], world: World) -> None:
    layout, record = cloud
    (layout.device(1) / "precious").write_text("x")
    with pytest.raises(Conflict, match="not empty"):
        trio.run(replace, world, layout, record, 1)
    with pytest.raises(NotFound, match="d9"):
        trio.run(replace, world, layout, record, 9)
    layout.device(3).rmdir()
    with pytest.raises(NotFound, match="is not there"):
        trio.run(replace, world, layout, record, 3)
    assert not layout.disks.exists()


def test_a_replacement_that_was_cut_off_is_begun_again(cloud: tuple[Layout, CloudRecord], world: World) -> None:
    layout, record = cloud
    first = trio.run(replace, world, layout, record, 2)
    os.rename(layout.device(2) / LABEL_PATH, layout.device(2) / "device.formatting")
    second = trio.run(replace, world, layout, record, 2)
    assert first != second
    assert Label.decode((layout.device(2) / LABEL_PATH).read_bytes()).disk_id == layout.disk_id(2) == second


def test_devices_that_wait_for_each_other_are_named_with_what_can_be_done() -> None:
    def filling(number: int, *lacks: Lacking) -> DeviceState:
        return DeviceState(number, "in service", "", 0.0, 1, 1, 1, 5, 0, {}, Refilling(0.5, None, (), lacks))

    third = Lacking(7, "object", 4, 16, (0,))
    one, other = filling(5, Lacking(6, "object", 4, 12, (0, 3)), third), filling(6, Lacking(5, "object", 4, 12, (0, 3)))
    (line,) = standoffs([one, other, filling(7)])
    assert line.startswith("d5 and d6 are both being refilled, and wait for each other with 12 partitions (object 0 3 ...): ")
    assert line.endswith("ringfort node trust d5 --without d6")
    assert table([one, other], [], 0.0)[-1] == line
    assert standoffs([one, filling(6, third)]) == []  # one that waits for the other, which does not wait for it


# ---- the command


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("status",), "no cloud runs"),
        (("drain", "x"), "not a device"),
        (("drain",), "Missing argument"),
        (("replace", "d9"), "no ring has a device d9"),
        (("drain", "d9"), "no ring has a device d9"),
    ],
)
def test_what_the_command_refuses(
    cloud: tuple[Layout, CloudRecord], capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], said: str
) -> None:
    layout, _ = cloud
    assert run(["node", *arguments, "--data", str(layout.root)]) == 2
    assert said in capsys.readouterr().err


def test_without_a_running_cloud_the_disk_is_formatted_all_the_same(
    cloud: tuple[Layout, CloudRecord], capsys: pytest.CaptureFixture[str]
) -> None:
    layout, _ = cloud
    assert run(["node", "replace", "d0", "--data", str(layout.root)]) == 1
    assert "is being refilled" in capsys.readouterr().out
    assert (layout.device(0) / REFILL_PATH).exists()
    assert run(["node", "drain", "d0", "--data", str(layout.root)]) == 2
    assert "no formatted folder" in capsys.readouterr().err  # the other devices of this cloud are missing


def test_a_person_may_say_which_devices_are_not_waited_for(
    cloud: tuple[Layout, CloudRecord], world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    layout, record = cloud
    trio.run(replace, world, layout, record, 2)
    trusting = ["node", "trust", "d2", "--data", str(layout.root)]
    assert run([*trusting, "--without", "d1"]) == 0
    assert run([*trusting, "--without", "3", "--without", "d1"]) == 0
    assert capsys.readouterr().out.endswith("d2 does not wait for d1, d3 from its next start on.\n")
    mark = RefillMark.decode((layout.device(2) / REFILL_PATH).read_bytes())
    assert (mark.reason, mark.without) == ("its disk was replaced", frozenset({1, 3}))
    assert run([*trusting, "--without", "x"]) == 2


def test_a_person_may_say_that_there_is_no_more(
    cloud: tuple[Layout, CloudRecord], world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    layout, record = cloud
    trio.run(partial(replace, world, layout, record, 2, force=True))
    root, trusting = layout.device(2), ["node", "trust", "d2", "--data", str(layout.root)]
    running = lock(layout)
    assert run(trusting) == 2 and (root / REFILL_PATH).exists()
    os.close(running)
    assert run(trusting) == 0 and not (root / REFILL_PATH).exists()
    assert run(trusting) == 1
    assert capsys.readouterr().out == "d2 is trusted from its next start on.\nd2 was not being refilled.\n"
    assert run(["node", "trust", "d1", "--data", str(layout.root)]) == 2
    assert "is not a device: it has no label" in capsys.readouterr().err
