"""What an anchored Disk promises, on the real file system and on the simulated one: it never takes another folder for its own."""

from __future__ import annotations

import errno
import os
import pathlib
from collections.abc import Awaitable, Callable
from functools import partial

import pytest
from trio.testing import MockClock

from ring.world.interface import Disk, OpenMode, World, Write
from ring.world.real import make_world
from ring.world.sim import SimWorld
from ring.world.sim.medium import FolderNode

Deed = Callable[[], None]
Ground = tuple[Disk, Deed, Deed, Deed]


@pytest.fixture(params=["real", "sim"])
def ground(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Ground:
    """A disk, and how its folder is replaced by an empty one, is gone, and comes back."""
    root = tmp_path / "sda"
    aside = tmp_path / "aside"
    if request.param == "real":
        real: World = make_world()

        def remove() -> None:
            os.rename(root, aside)

        def replace() -> None:
            remove()
            os.mkdir(root)

        def restore() -> None:
            if root.exists():
                os.rmdir(root)
            os.rename(aside, root)

        return real.open_disk(str(root)), replace, remove, restore
    sim = SimWorld(1)
    medium = sim.node.disk(str(root))
    kept: list[FolderNode | None] = []

    def remove_sim() -> None:
        kept.append(medium.root)
        medium.root = None

    def replace_sim() -> None:
        remove_sim()
        medium.root = FolderNode()

    def restore_sim() -> None:
        medium.root = kept.pop()

    return sim.open_disk(str(root)), replace_sim, remove_sim, restore_sim


def ways(disk: Disk) -> list[Callable[[], Awaitable[object]]]:
    """Of asking something by a path."""
    return [
        lambda: disk.open("log", OpenMode.WRITE),
        lambda: disk.open("new", OpenMode.CREATE),
        lambda: disk.open_unnamed(""),
        lambda: disk.rename("log", "log2"),
        lambda: disk.unlink("log"),
        lambda: disk.make_dirs("folder"),
        lambda: disk.list_dir(""),
        lambda: disk.info("log"),
        lambda: disk.read_file("log"),
        lambda: disk.replace_file("new", b"x"),
        lambda: disk.open_tables("tables", ["a"]),
        disk.space,
    ]


async def test_another_folder_is_never_taken_for_its_own(ground: Ground, autojump_clock: MockClock) -> None:
    disk, replace, _, restore = ground
    await disk.make_dirs("")
    await disk.anchor()
    log = await disk.open("log", OpenMode.CREATE)
    unnamed = await disk.open_unnamed("")
    tables = await disk.open_tables("tables", ["a"])
    await log.append([b"before"], sync=True)
    replace()
    deeds = ways(disk)
    deeds.append(partial(disk.link, unnamed, "name"))
    for ask in deeds:
        with pytest.raises(OSError) as caught:
            await ask()
        assert caught.value.errno == errno.ENODEV
    await log.append([b", after"], sync=True)  # an open file is still that of the folder that was
    await tables.commit([Write("a", b"k", b"v")])
    await log.close()
    await unnamed.close()
    await tables.close()
    await disk.anchor()
    assert await disk.list_dir("") == []  # nothing was written to the folder in its place
    restore()
    with pytest.raises(OSError, match=r".") as caught:
        await disk.read_file("log")
    assert caught.value.errno == errno.ENODEV
    await disk.anchor()
    assert await disk.read_file("log") == b"before, after"


async def test_a_barred_disk_is_asked_nothing_until_it_is_anchored(ground: Ground, autojump_clock: MockClock) -> None:
    disk, *_ = ground
    await disk.make_dirs("")
    await disk.replace_file("log", b"kept")
    disk.bar()
    for ask in ways(disk):
        with pytest.raises(OSError) as caught:
            await ask()
        assert caught.value.errno == errno.ENODEV
    await disk.anchor()
    assert await disk.list_dir("") == ["log"]
    assert not (await disk.space()).read_only


async def test_no_folder_is_no_anchor(ground: Ground, autojump_clock: MockClock) -> None:
    disk, *_ = ground
    with pytest.raises(FileNotFoundError):
        await disk.anchor()


async def test_a_folder_that_is_gone_is_not_a_folder_without_files(ground: Ground, autojump_clock: MockClock) -> None:
    disk, _, remove, restore = ground
    await disk.make_dirs("")
    await disk.replace_file("log", b"kept")
    await disk.anchor()
    remove()
    for ask in ways(disk):
        with pytest.raises(OSError) as caught:
            await ask()
        assert caught.value.errno == errno.ENODEV
    restore()
    assert await disk.read_file("log") == b"kept"
