"""Control state never begins anew because its disks are not there, nor goes on from disks that are out of date."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
import trio
from trio.testing import MockClock

from ring.errors import Unavailable
from ring.kv.interface import Put
from ring.kv.local import REFILL_S, LocalStore
from ring.world.interface import Disk
from ring.world.real import make_world
from ring.world.sim import SimWorld
from ring.world.sim.medium import FolderNode
from storage.object.device import LABEL_PATH, Label
from tools.deploy.beside import LOOK_S, Beside
from tools.deploy.layout import CloudRecord, Layout
from tools.deploy.storage import control_disks

RECORD = CloudRecord(cluster_id="c", devices=4, replicas=3, part_power=10)


def label(number: int, *, cluster: str = "c", disk_id: str = "") -> bytes:
    return Label(cluster, number, disk_id=disk_id).encode()


@pytest.mark.parametrize(
    ("files", "missing"),
    [
        (["d0/device.json", "d1/device.json", "d2/device.json"], None),  # a new cloud
        (["d0/device.json", "d1/device.json"], "d2"),
        ([], "d0"),
        (["d1/device.json", "d1/kv/control.log"], None),  # the store itself decides
        (["d0/device.json", "d2/device.json", "d2/kv/control.log"], None),
        (["d0/device.json", "d1/kv/control.log", "d2/device.json"], "d1"),  # without a label it is no device
        (["d3/kv/control.log", "d0/device.json", "d2/device.json"], "d1"),  # d3 never holds one
    ],
)
async def test_disks(tmp_path: Path, files: list[str], missing: str | None) -> None:
    layout = Layout(tmp_path)
    for number in range(4):
        layout.device(number).mkdir(parents=True)
    for name in files:
        (tmp_path / "devices" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "devices" / name).write_bytes(label(int(name[1])))
    beside = Beside(make_world(), layout, "c")
    if missing is None:
        assert len(await control_disks(beside, RECORD)) == 3
    else:
        with pytest.raises(Unavailable, match=f"{missing} is not a device"):
            await control_disks(beside, RECORD)


async def test_nothing_is_written_where_no_device_is(tmp_path: Path) -> None:
    """An empty folder is what is left of a device that is not mounted: a log begun there would be a second truth."""
    layout = Layout(tmp_path)
    for number in range(3):
        layout.device(number).mkdir(parents=True)
    for number in (1, 2):
        (layout.device(number) / "device.json").write_bytes(label(number))
    (layout.device(1) / "kv").mkdir()
    (layout.device(1) / "kv" / "control.log").write_bytes(b"x")
    disks = await control_disks(Beside(make_world(), layout, "c"), RECORD)
    with pytest.raises(OSError):  # unknown, not: nothing there
        await disks[0].info("kv/control.log")
    with pytest.raises(OSError):
        await disks[0].make_dirs("kv")
    assert list(layout.device(0).iterdir()) == []
    await disks[2].make_dirs("kv")


@pytest.mark.parametrize(
    ("there", "meant", "used"),
    [
        (label(1), "", True),
        (label(2), "", False),  # another device's disk
        (label(1, cluster="other"), "", False),
        (label(1), "new", False),  # the disk that was replaced
        (label(1, disk_id="new"), "new", True),
        (b"x", "", False),
    ],
)
async def test_whose_disk_it_is(tmp_path: Path, there: bytes, meant: str, used: bool) -> None:
    layout = Layout(tmp_path)
    layout.device(1).mkdir(parents=True)
    (layout.device(1) / LABEL_PATH).write_bytes(there)
    if meant:
        layout.disks.write_bytes(msgspec.json.encode({1: meant}))
    disk = await Beside(make_world(), layout, "c").open(1)
    if used:
        await disk.make_dirs("kv")
    else:
        with pytest.raises(OSError):
            await disk.info("kv/control.log")


async def test_a_device_that_is_there_again_is_used_again(autojump_clock: MockClock, tmp_path: Path) -> None:
    world, layout = SimWorld(1), Layout(tmp_path)
    root = str(layout.device(0))
    medium = world.node.disk(root)
    device = world.open_disk(root)
    await device.make_dirs("")
    await device.replace_file(LABEL_PATH, label(0))
    beside = Beside(world, layout, "c")
    disk = await beside.open(0)
    await disk.make_dirs("kv")
    left: list[Disk] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(beside.keep, left.append)
        mounted, medium.root = medium.root, FolderNode()  # unmounted: an empty folder is left
        await trio.sleep(3 * LOOK_S)
        with pytest.raises(OSError):
            await disk.make_dirs("kv")
        assert not medium.root.entries
        assert left == [disk]
        medium.root = mounted
        await trio.sleep(3 * LOOK_S)
        assert await disk.info("kv") is not None
        assert left == [disk]
        nursery.cancel_scope.cancel()


async def test_the_log_goes_on_on_the_disk_that_took_the_place_of_its_own(autojump_clock: MockClock, tmp_path: Path) -> None:
    """The file that was open still takes what is written to it, where no start will look for it."""
    world, layout = SimWorld(1), Layout(tmp_path)
    for number in range(3):
        device = world.open_disk(str(layout.device(number)))
        await device.make_dirs("")
        await device.replace_file(LABEL_PATH, label(number))
    beside = Beside(world, layout, "c")
    async with trio.open_nursery() as nursery:
        store = LocalStore(world, await control_disks(beside, RECORD))
        await nursery.start(store.run)
        nursery.start_soon(beside.keep, store.leave)
        await store.transact([], [Put("a", b"1")])
        medium = world.node.disk(str(layout.device(1)))
        medium.empty()
        layout.disks.write_bytes(msgspec.json.encode({1: "new"}))
        new = world.node.open_disk(str(layout.device(1)))  # as another process has it
        await new.replace_file(LABEL_PATH, label(1, disk_id="new"))
        await trio.sleep(2 * LOOK_S)
        assert store.troubles[1]
        await trio.sleep(2 * REFILL_S)
        assert store.troubles == ["", "", ""]
        await store.transact([], [Put("b", b"2")])
        assert b"b" in bytes(medium.file("kv/control.log").content)
        nursery.cancel_scope.cancel()
