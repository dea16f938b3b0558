"""A policy's part of a device goes with the disk: with one that is new, and with one that was away."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from ring.world.interface import World
from ring.world.real import make_world
from storage.object.device import OpenDevice, format_device, open_device
from storage.object.errors import DeviceOutOfService
from storage.object.policy_device import open_policy


async def open_part(world: World, root: Path) -> OpenDevice:
    """Of policy 1; all is closed again."""
    device = await open_device(world, str(root), "cluster", 3)
    try:
        part = await open_policy(world, device, 1)
        await part.close()
        return part
    finally:
        await device.close()


async def test_it_is_made_once(tmp_path: Path) -> None:
    world, root = make_world(), tmp_path / "d3"
    root.mkdir()
    await format_device(world.open_disk(str(root)), "cluster", 3)
    assert (await open_part(world, root)).disk.root == f"{root}/object-1"
    shutil.rmtree(root / "object-1")
    for _ in range(2):
        with pytest.raises(DeviceOutOfService, match="is gone, or has no label"):
            await open_part(world, root)


async def test_a_disk_that_is_replaced_while_the_cloud_runs_gets_one(tmp_path: Path) -> None:
    world, root = make_world(), tmp_path / "d3"
    root.mkdir()
    await format_device(world.open_disk(str(root)), "cluster", 3)
    await open_part(world, root)
    root.rename(tmp_path / "old")
    root.mkdir()
    await format_device(world.open_disk(str(root)), "cluster", 3, disk_id="new")
    await open_part(world, root)
    assert (root / "object-1.made").exists() and (root / "object-1" / "device.json").exists()


async def test_a_disk_that_comes_back_as_another_device_is_known(tmp_path: Path) -> None:
    """A file system that is mounted again may have another device number: the folder's identity is another one."""
    world, root = make_world(), tmp_path / "d3"
    root.mkdir()
    await format_device(world.open_disk(str(root)), "cluster", 3)
    await open_part(world, root)
    (root / "object-1" / "packs" / "kept").write_bytes(b"x")
    root.rename(tmp_path / "old")
    shutil.copytree(tmp_path / "old", root)
    part = await open_part(world, root)
    assert await part.disk.list_dir("packs") == ["kept"]
