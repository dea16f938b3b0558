"""Plays one thing that happens to a real file system, in a mount namespace of its own (test_watch_real.py starts it).

python -m tests.storage.object.watch_child DEED FOLDER
"""

from __future__ import annotations

import fcntl
import os
import struct
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import trio

from ring.errors import DiskFull, RingfortError
from ring.world.real import make_world
from storage.object.device import format_device
from storage.object.errors import DeviceOutOfService
from storage.object.health import Reserve, State
from tests.live.disks import EXT4_SHUTDOWN, NO_LOG_FLUSH
from tests.storage.object.object_rig import CLUSTER, noise, put, put_file, read
from tests.storage.object.watch_host import Host

SOON_S = 60.0
LARGE = noise("large", 400_000)


def system(*argv: str) -> None:
    subprocess.run(argv, check=True, capture_output=True, timeout=60)


class Ground:
    """A file system of 64 MiB, mounted at ``place`` and bound to ``root``, with a device on it."""

    def __init__(self, folder: Path) -> None:
        self.root, self.place, self._image = folder / "d1", folder / "place", folder / "image"
        self.root.mkdir()
        self.place.mkdir()
        with self._image.open("wb") as image:
            image.truncate(64 << 20)
        system("mkfs.ext4", "-q", "-m", "0", "-i", "4096", str(self._image))
        self.mount()

    def mount(self) -> None:
        system("mount", "-o", "loop", str(self._image), str(self.place))
        self.bind()

    def bind(self) -> None:
        system("mount", "--bind", str(self.place), str(self.root))

    def unmount(self) -> None:
        system("umount", "-l", str(self.root))

    async def prepare(self) -> Host:
        world = make_world()
        await format_device(world.open_disk(str(self.root)), CLUSTER, 1)
        return Host(world, str(self.root), Reserve(4 << 20, 1.0), look_s=0.1)


async def until(host: Host, state: State) -> None:
    with trio.fail_after(SOON_S):
        while host.state is not state or (host.store is None) is not (state is State.OUT):
            await trio.sleep(0.02)


async def unmounted(ground: Ground, host: Host) -> None:
    ground.unmount()
    try:
        await put_file(host.open, "new", 2, LARGE)
    except RingfortError:
        pass
    else:
        raise AssertionError("a file was written, and where?")
    await until(host, State.OUT)
    assert os.listdir(ground.root) == []
    ground.bind()
    await until(host, State.IN_SERVICE)


async def read_only(ground: Ground, host: Host) -> None:
    system("mount", "-o", "remount,abort", str(ground.place))  # as ext4 does after an error
    try:
        await put(host.open, "b", 2, b"new")
    except RingfortError:
        pass
    else:
        raise AssertionError("it was acknowledged, and is not on the disk")
    await until(host, State.READ_ONLY)
    assert await read(host.open, "a") == b"kept"
    assert await read(host.open, "large") == LARGE
    try:
        await put(host.open, "a", 3, None)
    except DeviceOutOfService:
        pass
    else:
        raise AssertionError("a delete was taken")
    await trio.sleep(1.0)
    assert host.state is State.READ_ONLY  # its flags say that it is writable
    ground.unmount()
    await until(host, State.OUT)
    system("umount", "-l", str(ground.place))
    ground.mount()
    await until(host, State.IN_SERVICE)


async def full(ground: Ground, host: Host) -> None:
    number = 0
    with trio.fail_after(SOON_S):
        while True:  # what clients can have
            number += 1
            try:
                await put_file(host.open, f"{number}", 2, LARGE)
            except DiskFull:
                break
    assert free(ground) > 3 << 20, "what is kept back was used up"
    with (ground.place / "ballast").open("wb") as ballast:
        os.posix_fallocate(ballast.fileno(), 0, free(ground) - (2 << 20))
    await until(host, State.FULL)
    for one in range(1, number + 1):
        await put(host.open, f"{one}", 3, None)
    (ground.place / "ballast").unlink()
    await until(host, State.IN_SERVICE)


def free(ground: Ground) -> int:
    found = os.statvfs(ground.root)
    return found.f_bavail * found.f_frsize


async def pulled(ground: Ground, host: Host) -> None:

    descriptor = os.open(ground.place, os.O_RDONLY)
    fcntl.ioctl(descriptor, EXT4_SHUTDOWN, struct.pack("I", NO_LOG_FLUSH))
    os.close(descriptor)
    for number in range(3):
        try:
            await put(host.open, "b", 2 + number, b"new")
        except RingfortError:
            if host.store is None or host.state is not State.IN_SERVICE:
                break
        else:
            raise AssertionError("it was acknowledged, and is not on the disk")
    await until(host, State.OUT)
    system("umount", "-l", str(ground.root))
    system("umount", "-l", str(ground.place))
    ground.mount()
    with trio.fail_after(2 * SOON_S):
        await until(host, State.IN_SERVICE)


DEEDS: dict[str, Callable[[Ground, Host], Awaitable[None]]] = {
    "unmounted": unmounted,
    "read-only": read_only,
    "full": full,
    "pulled": pulled,
}


async def play(deed: str, folder: Path) -> None:
    ground = Ground(folder)
    host = await ground.prepare()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(host.watch.keep, host.serve)
        await host.watch.tried()
        await put(host.open, "a", 1, b"kept")
        await put_file(host.open, "large", 1, LARGE)
        await DEEDS[deed](ground, host)
        assert await read(host.open, "a") == b"kept"
        assert await read(host.open, "large") == LARGE
        assert host.open.quarantined == 0
        await put(host.open, "after", 9, b"after")
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(play, sys.argv[1], Path(sys.argv[2]))
