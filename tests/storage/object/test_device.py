"""Labels: what is a device, what is not, and that formatting changes nothing that was there."""

from __future__ import annotations

import json
from pathlib import Path as FilePath

import pytest
import trio
from trio.testing import MockClock

from ring.errors import Conflict, FormatError
from ring.world.interface import World
from ring.world.real import make_world
from ring.world.sim import SimWorld
from storage.object.device import (
    FILE_FOLDERS,
    LABEL_PATH,
    TABLE_NAMES,
    Label,
    clear_refill,
    format_device,
    is_to_be_refilled,
    open_device,
)
from storage.object.errors import DeviceOutOfService

GOLDEN = FilePath(__file__).parents[2] / "golden" / "device.json"


def test_golden_label() -> None:
    assert Label("8d7f4c2e", 3, {"label": 1, "pack": 1}).encode() == GOLDEN.read_bytes()
    assert Label.decode(GOLDEN.read_bytes()) == Label("8d7f4c2e", 3, {"label": 1, "pack": 1})


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "not a device label"),
        (b"[1]", "not a device label"),
        (b'{"magic": "ringfort device"}', "not a device label"),
        (GOLDEN.read_bytes().replace(b"8d7f", b"8d7e"), "damaged"),
        (GOLDEN.read_bytes().replace(b'"ringfort device"', b'"another device"'), "damaged"),
        (Label("c", 1, {"label": 1, "pack": 9}).encode(), "pack has format 9; this program knows up to 3"),
        (Label("c", 1, {"label": 1, "holograms": 1}).encode(), "holograms"),
    ],
)
def test_what_is_no_label(data: bytes, words: str) -> None:
    with pytest.raises(FormatError, match=words) as caught:
        Label.decode(data)
    assert caught.value.hint or words == "not a device label"


async def test_format_and_open_on_the_real_disk(tmp_path: FilePath) -> None:
    world = make_world()
    disk = world.open_disk(str(tmp_path))
    begin = trio.current_time()
    await format_device(disk, "cluster", 7)
    assert trio.current_time() - begin < 10  # 0.3 s on an idle machine
    assert len(list((tmp_path / "files").iterdir())) == len(FILE_FOLDERS) == 4096
    assert json.loads((tmp_path / LABEL_PATH).read_bytes())["device_id"] == 7
    device = await open_device(world, str(tmp_path), "cluster", 7)
    for table in TABLE_NAMES:
        assert device.tables.get(table, b"x") is None
    assert (device.device_id, device.label.cluster_id, device.fault) == (7, "cluster", "")
    device.fail("first")
    device.fail("second")
    with pytest.raises(DeviceOutOfService, match="first"):
        device.check()
    await device.close()
    with pytest.raises(Conflict, match="not empty"):
        await format_device(disk, "cluster", 7)


async def test_damaged_tables_are_put_aside(tmp_path: FilePath) -> None:
    world = make_world()
    root = str(tmp_path)
    await format_device(world.open_disk(root), "cluster", 7)
    await (await open_device(world, root, "cluster", 7)).close()
    for number in range(2):
        (tmp_path / "tables" / "data.mdb").write_bytes(b"\xee" * 8192)
        device = await open_device(world, root, "cluster", 7)
        assert device.tables.get("index", b"x") is None
        assert await is_to_be_refilled(device.disk)  # what the books held, only others have
        await clear_refill(device, device.losses)
        await device.close()
        assert sorted(file.name for file in (tmp_path / "quarantine").iterdir())[-1] == f"tables-{number}"


async def test_out_of_service_and_never_empty(autojump_clock: MockClock) -> None:
    world = SimWorld(1)
    disk = world.open_disk("d")
    with pytest.raises(DeviceOutOfService):
        await open_device(world, "d", "cluster", 1)  # nothing mounted
    await disk.make_dirs("")
    with pytest.raises(DeviceOutOfService, match="no label"):
        await open_device(world, "d", "cluster", 1)  # an empty folder
    await format_device(disk, "cluster", 1)
    for cluster_id, device_id in (("other", 1), ("cluster", 2)):
        with pytest.raises(DeviceOutOfService, match="not device"):
            await open_device(world, "d", cluster_id, device_id)
    world.node.disk("d").dead = True
    with pytest.raises(DeviceOutOfService, match="cannot be read"):
        await open_device(world, "d", "cluster", 1)


async def test_only_an_empty_root_is_formatted(autojump_clock: MockClock) -> None:
    world = SimWorld(1)
    disk = world.open_disk("d")
    await disk.make_dirs("")
    await disk.make_dirs("lost+found")
    await disk.replace_file("somebody's", b"data")
    with pytest.raises(Conflict, match="somebody's"):
        await format_device(disk, "cluster", 1)
    assert await disk.list_dir("") == ["lost+found", "somebody's"]
    await disk.unlink("somebody's")
    await format_device(disk, "cluster", 1)
    with pytest.raises(Conflict):
        await format_device(disk, "cluster", 1)


async def _format(world: World) -> None:
    await format_device(world.open_disk("d"), "cluster", 1)


async def test_a_crash_while_formatting_can_be_repeated(autojump_clock: MockClock) -> None:
    for step in range(12):
        world = SimWorld(step)
        node = world.node
        disk = node.world.open_disk("d")
        await disk.make_dirs("")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(node.run, _format)
            await trio.sleep(0.0001 + step * 0.0004)
            node.crash(power=True)
        node.restart()
        try:
            device = await open_device(node.world, "d", "cluster", 1)
        except DeviceOutOfService:
            await format_device(node.world.open_disk("d"), "cluster", 1)
            device = await open_device(node.world, "d", "cluster", 1)
        assert await device.disk.list_dir("files/fff") == []
