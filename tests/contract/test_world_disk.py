"""What every Disk promises, on the real file system and on the simulated one."""

from __future__ import annotations

import os
import pathlib
import stat
import sys
from dataclasses import dataclass

import pytest
import trio

from ring.errors import BadInput
from ring.world.interface import Disk, OpenMode, World
from ring.world.real import make_world
from ring.world.sim import SimWorld


@dataclass
class Ground:
    world: World
    disk: Disk
    root: str


@pytest.fixture(params=["real", "sim"])
def ground(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Ground:
    world: World = make_world() if request.param == "real" else SimWorld(1)
    root = str(tmp_path / "sda")
    return Ground(world, world.open_disk(root), root)


@pytest.fixture
async def disk(ground: Ground) -> Disk:
    await ground.disk.make_dirs("")
    return ground.disk


def test_one_root_has_one_disk(ground: Ground) -> None:
    assert ground.world.open_disk(ground.root) is ground.disk
    assert ground.disk.root == ground.root


async def test_a_missing_root_is_an_error_and_not_an_empty_disk(ground: Ground) -> None:
    assert await ground.disk.info("") is None
    for call in (ground.disk.list_dir, ground.disk.read_file, ground.disk.make_dirs):
        with pytest.raises(FileNotFoundError):
            await call("x")
    await ground.disk.make_dirs("")
    assert await ground.disk.list_dir("") == []
    info = await ground.disk.info("")
    assert info is not None and info.is_dir


@pytest.mark.parametrize("path", ["..", "a/../../b", "/etc/passwd", "a//b", "./a", "a/", "a\0b"])
async def test_paths_that_could_lead_out_are_refused(disk: Disk, path: str) -> None:
    with pytest.raises(BadInput):
        await disk.open(path, OpenMode.CREATE)
    with pytest.raises(BadInput):
        await disk.replace_file(path, b"x")
    with pytest.raises(BadInput):
        await disk.make_dirs(path)
    with pytest.raises(BadInput):
        await disk.info(path)


async def test_open_modes(disk: Disk) -> None:
    for mode in (OpenMode.READ, OpenMode.WRITE):
        with pytest.raises(FileNotFoundError):
            await disk.open("a", mode)
    file = await disk.open("a", OpenMode.CREATE)
    assert await file.append([b"hello"], sync=True) == 0
    await file.close()
    with pytest.raises(FileExistsError):
        await disk.open("a", OpenMode.CREATE)
    reader = await disk.open("a", OpenMode.READ)
    assert reader.size() == 5
    with pytest.raises(OSError, match="Bad file descriptor"):
        await reader.append([b"x"], sync=False)
    await reader.close()
    with pytest.raises(trio.ClosedResourceError):
        await reader.pread(0, 1)
    await disk.make_dirs("folder")
    with pytest.raises(IsADirectoryError):
        await disk.open("folder", OpenMode.READ)
    with pytest.raises(FileNotFoundError):
        await disk.open("nowhere/a", OpenMode.CREATE)


async def test_append_gives_offsets_and_takes_any_buffers(disk: Disk) -> None:
    file = await disk.open("a", OpenMode.CREATE)
    assert await file.append([b"ab", memoryview(b"cdef")[1:], bytearray(b"g"), b""], sync=False) == 0
    assert file.size() == 6
    assert await file.append([b"h"], sync=True) == 6
    assert await file.append([], sync=True) == 7
    many = [bytes([number % 251]) * 3 for number in range(3000)]
    assert await file.append(many, sync=True) == 7
    assert await file.pread(0, 100_000) == b"abdefgh" + b"".join(many)
    await file.close()


async def test_appends_of_many_tasks_do_not_overlap(disk: Disk) -> None:
    file = await disk.open("a", OpenMode.CREATE)
    places: dict[int, int] = {}

    async def append(number: int) -> None:
        places[number] = await file.append([bytes([number]) * (number + 1)], sync=number % 2 == 0)

    async with trio.open_nursery() as nursery:
        for number in range(40):
            nursery.start_soon(append, number)
    for number, offset in places.items():
        assert await file.pread(offset, number + 1) == bytes([number]) * (number + 1)
    assert file.size() == sum(range(41))
    await file.close()


async def test_reads_end_with_the_file(disk: Disk) -> None:
    file = await disk.open("a", OpenMode.CREATE)
    await file.append([b"0123456789"], sync=True)
    assert await file.pread(4, 3) == b"456"
    assert await file.pread(8, 100) == b"89"
    assert await file.pread(10, 1) == b""
    assert await file.pread(99, 1) == b""
    for _ in range(100):  # now and then the page cache may say no; when it answers it is right
        assert file.pread_now(8, 100) in (None, b"89")
    await file.close()


async def test_the_medium_can_be_read_past_the_page_cache(disk: Disk) -> None:
    file = await disk.open("a", OpenMode.CREATE)
    data = bytes(range(251)) * 100
    await file.append([data], sync=True)
    for offset, length in ((0, 10), (0, len(data)), (4000, 200), (4096, 4096), (len(data) - 5, 100), (24_000, 10_000)):
        assert await file.pread_medium(offset, length) == data[offset : offset + length]
    assert await file.pread_medium(len(data), 10) == b""
    assert await file.pread_medium(1 << 20, 10) == b""
    assert await file.pread_medium(5, 0) == b""
    await file.append([b"not synced yet"], sync=False)  # dirty pages are written first, so they are read as well
    assert await file.pread_medium(len(data), 100) == b"not synced yet"
    await file.close()
    reader = await disk.open("a", OpenMode.READ)
    assert await reader.pread_medium(0, 9) == data[:9]
    await reader.close()


async def test_pwrite_allocate_truncate_and_size(disk: Disk) -> None:
    file = await disk.open("a", OpenMode.CREATE)
    await file.allocate(10)
    assert file.size() == 10
    await file.pwrite(8, b"abcd")
    assert file.size() == 12
    assert await file.pread(0, 100) == bytes(8) + b"abcd"
    await file.truncate(9)
    assert file.size() == 9
    assert await file.append([b"z"], sync=False) == 9
    await file.sync()
    assert await file.pread(0, 100) == bytes(8) + b"az"
    info = await disk.info("a")
    assert info is not None and info.size == 10 and not info.is_dir
    await file.close()


async def test_an_unnamed_file_appears_when_it_is_linked(disk: Disk) -> None:
    await disk.make_dirs("files/abc")
    file = await disk.open_unnamed("files/abc")
    await file.append([b"data" * 5000], sync=True)
    assert await disk.list_dir("files/abc") == []
    await disk.link(file, "files/abc/name")
    assert await disk.read_file("files/abc/name") == b"data" * 5000
    other = await disk.open_unnamed("files/abc")
    with pytest.raises(FileExistsError):
        await disk.link(other, "files/abc/name")
    await other.close()
    await file.close()


async def test_xattrs(disk: Disk) -> None:
    file = await disk.open("a", OpenMode.CREATE)
    assert await file.get_xattr("ringfort.id") is None
    await file.set_xattr("ringfort.id", b"\x00\xff")
    assert await file.get_xattr("ringfort.id") == b"\x00\xff"
    await file.close()


async def test_rename_replaces_and_unlink_removes(disk: Disk) -> None:
    await disk.make_dirs("q")
    await disk.replace_file("a", b"1")
    await disk.replace_file("q/b", b"2")
    await disk.rename("a", "q/b")
    assert await disk.read_file("q/b") == b"1"
    assert await disk.info("a") is None
    await disk.rename("q", "r")
    assert await disk.list_dir("r") == ["b"]
    with pytest.raises(FileNotFoundError):
        await disk.rename("a", "b")
    await disk.unlink("r/b")
    with pytest.raises(FileNotFoundError):
        await disk.unlink("r/b")
    assert await disk.list_dir("r") == []


async def test_an_open_file_survives_its_name(disk: Disk) -> None:
    await disk.replace_file("a", b"1234")
    file = await disk.open("a", OpenMode.READ)
    await disk.unlink("a")
    assert await file.pread(0, 9) == b"1234"
    await file.close()


async def test_make_dirs_many_and_list_dir(disk: Disk) -> None:
    await disk.make_dirs_many(["f/b", "f/a", "f/a/x", "g"])
    await disk.make_dirs_many(["f/a", "f"])
    assert await disk.list_dir("") == ["f", "g"]
    assert await disk.list_dir("f") == ["a", "b"]
    await disk.replace_file("plain", b"")
    with pytest.raises(NotADirectoryError):
        await disk.make_dirs("plain/x")
    with pytest.raises(NotADirectoryError):
        await disk.list_dir("plain")


async def test_replace_file(disk: Disk) -> None:
    await disk.replace_file("a", b"one")
    await disk.replace_file("a", b"two" * 100_000)
    assert await disk.read_file("a") == b"two" * 100_000
    assert await disk.list_dir("") == ["a"]
    with pytest.raises(FileNotFoundError):
        await disk.read_file("b")


async def test_space(disk: Disk) -> None:
    space = await disk.space()
    assert 0 < space.free_bytes <= space.total_bytes


async def test_cancelled_work_is_whole(disk: Disk) -> None:
    """A cancel scope ends the waiting, not the write."""
    file = await disk.open("a", OpenMode.CREATE)
    with trio.move_on_after(0):
        await file.append([b"x" * 10_000], sync=True)
    assert file.size() in (0, 10_000)
    assert len(await file.pread(0, 20_000)) == file.size()
    await file.close()


# ---- what only the simulated one can show


async def test_after_a_failed_sync_the_page_cache_says_yes_and_the_medium_no() -> None:
    world = SimWorld(1)
    disk, medium = world.open_disk("sda"), world.node.disk("sda")
    await disk.make_dirs("")
    file = await disk.open("a", OpenMode.CREATE)
    await file.append([b"acknowledged"], sync=True)
    medium.sync_errors = 1
    with pytest.raises(OSError, match="Input/output"):
        await file.append([b", and then not"], sync=True)
    await file.sync()  # and this one says that all is well
    assert await file.pread(0, 100) == b"acknowledged, and then not"
    assert await file.pread_medium(0, 100) == b"acknowledged"
    medium.sync_errors, medium.forgets_bytes = 1, 4
    with pytest.raises(OSError, match="Input/output"):
        await file.sync()
    assert await file.pread(0, 12) == b"acknowledged"
    assert await file.pread_medium(0, 12) == b"acknowle\0\0\0\0"


# ---- what only the real one can show


async def test_direct_reads_are_of_the_device(tmp_path: pathlib.Path) -> None:
    """Else the read past the page cache would be a read of the page cache: the pages must not be there afterwards."""
    disk = make_world().open_disk(str(tmp_path))
    file = await disk.open("a", OpenMode.CREATE)
    data = os.urandom(1 << 20)
    await file.append([data], sync=True)
    descriptor = os.open(tmp_path / "a", os.O_RDONLY)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    assert await file.pread_medium(1000, 500_000) == data[1000:501_000]
    found = file.pread_now(1000, 4096)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    if file.pread_now(300_000, 4096) is None:  # not every file system forgets, or tells
        assert found is None
    os.close(descriptor)
    await file.close()


async def test_secrets_are_never_readable_by_others(tmp_path: pathlib.Path) -> None:
    disk = make_world().open_disk(str(tmp_path))
    (tmp_path / ".key.tmp").write_bytes(b"leftover")
    await disk.replace_file("key", b"secret", mode=0o600)
    assert stat.S_IMODE(os.stat(tmp_path / "key").st_mode) == 0o600
    assert await disk.list_dir("") == ["key"]


async def test_symbolic_links_do_not_lead_out(tmp_path: pathlib.Path) -> None:
    inside, outside = tmp_path / "in", tmp_path / "out"
    inside.mkdir()
    outside.mkdir()
    (outside / "secret").write_bytes(b"x")
    (inside / "folder").symlink_to(outside)
    (inside / "file").symlink_to(outside / "secret")
    disk = make_world().open_disk(str(inside))
    for path in ("folder/secret", "file"):
        with pytest.raises(OSError, match=r"Not a directory|Too many levels"):
            await disk.read_file(path)
    with pytest.raises(NotADirectoryError):
        await disk.replace_file("folder/new", b"x")


async def test_an_io_error_leaves_the_size(tmp_path: pathlib.Path) -> None:
    """RLIMIT_FSIZE stands in for a full disk: the file may not grow beyond it."""
    world = make_world()
    disk = world.open_disk(str(tmp_path))
    file = await disk.open("a", OpenMode.CREATE)
    await file.append([b"x" * 100], sync=True)
    code = (
        "import resource, signal, sys, trio\n"
        "from ring.world.interface import OpenMode\n"
        "from ring.world.real import make_world\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (150, 150))\n"
        "async def main():\n"
        "    disk = make_world().open_disk(sys.argv[1])\n"
        "    file = await disk.open('a', OpenMode.WRITE)\n"
        "    try:\n"
        "        await file.append([b'y' * 100], sync=True)\n"
        "    except OSError as error:\n"
        "        print(error.errno, file.size())\n"
        "    print(await file.append([b'z' * 10], sync=True), file.size())\n"
        "trio.run(main)\n"
    )
    status, output, errors = await world.process.run([sys.executable, "-c", code, str(tmp_path)])
    assert (status, output.split(), errors) == (0, [b"27", b"100", b"100", b"110"], b"")
    await file.close()
