"""Control state never begins anew because its disks are not there."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from ring.errors import Unavailable
from ring.world.real import make_world
from ring.world.sim import SimWorld
from ring.world.sim.medium import FolderNode
from tools.deploy.beside import LOOK_S, keep_admitted, open_beside
from tools.deploy.layout import CloudRecord, Layout
from tools.deploy.storage import control_disks


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
        (tmp_path / "devices" / name).write_bytes(b"x")
    record = CloudRecord(cluster_id="c", devices=4, replicas=3, part_power=10)
    if missing is None:
        assert len(await control_disks(make_world(), layout, record)) == 3
    else:
        with pytest.raises(Unavailable, match=f"{missing} is not a device"):
            await control_disks(make_world(), layout, record)


async def test_nothing_is_written_where_no_device_is(tmp_path: Path) -> None:
    """An empty folder is what is left of a device that is not mounted: a log begun there would be a second truth."""
    layout = Layout(tmp_path)
    for number in range(3):
        layout.device(number).mkdir(parents=True)
    for number in (1, 2):
        (layout.device(number) / "device.json").write_bytes(b"x")
    (layout.device(1) / "kv").mkdir()
    (layout.device(1) / "kv" / "control.log").write_bytes(b"x")
    disks = await control_disks(make_world(), layout, CloudRecord(cluster_id="c", devices=3, replicas=3, part_power=10))
    with pytest.raises(OSError):  # unknown, not: nothing there
        await disks[0].info("kv/control.log")
    with pytest.raises(OSError):
        await disks[0].make_dirs("kv")
    assert list(layout.device(0).iterdir()) == []
    await disks[2].make_dirs("kv")


async def test_a_device_that_is_there_again_is_used_again(autojump_clock: MockClock) -> None:
    world = SimWorld(1)
    medium = world.node.disk("/d0")
    device = world.open_disk("/d0")
    await device.make_dirs("")
    await device.replace_file("device.json", b"x")
    disk = await open_beside(world, "/d0")
    await disk.make_dirs("kv")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keep_admitted, world, [disk])
        mounted, medium.root = medium.root, FolderNode()  # unmounted: an empty folder is left
        await trio.sleep(3 * LOOK_S)
        with pytest.raises(OSError):
            await disk.make_dirs("kv")
        assert not medium.root.entries
        medium.root = mounted
        await trio.sleep(3 * LOOK_S)
        assert await disk.info("kv") is not None
        nursery.cancel_scope.cancel()
