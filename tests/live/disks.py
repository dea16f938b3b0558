"""Small disks for the devices of a cloud, and what can happen to a disk: full, unmounted, read-only, dead.

Each disk is a file system of its own, mounted at a place that stays, and bound to the device's folder.  ext4 images on loop
devices can do it all; tmpfs cannot die or turn read-only while it is in use.  Only for use in a cell (cell.py), whose end unmounts
them.  ``beneath`` shows the folders under the mounts: nobody may ever write there.
"""

from __future__ import annotations

import fcntl
import os
import struct
import subprocess
import time
from contextlib import suppress
from pathlib import Path

from tests.live.cell import Mounts
from tests.live.plan import Deed

DISK_BYTES = 320 << 20
EXT4_SHUTDOWN = 0x8004587D  # _IOR('X', 125, __u32), linux/fs/ext4/ext4.h
NO_LOG_FLUSH = 2
BALLAST = "ballast"
PATIENCE_S = 20.0
_LEAST_BYTES = 4096

POSSIBLE: dict[Mounts, frozenset[Deed]] = {
    Mounts.EXT4: frozenset({Deed.FILL, Deed.UNMOUNT, Deed.READ_ONLY, Deed.PULL}),
    Mounts.TMPFS: frozenset({Deed.FILL, Deed.UNMOUNT}),
    Mounts.NONE: frozenset(),
}


def run(*argv: str) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode:
        raise OSError(f"{' '.join(argv)}: {done.stderr.strip()}")


class Disk:
    """One device's: ``root`` is what the cloud sees."""

    def __init__(self, root: Path, place: Path, kind: Mounts) -> None:
        self.root = root
        self._place = place  # where the file system is mounted as long as the disk lives
        self._image = place.with_suffix(".img")
        self._kind = kind

    def make(self) -> None:
        """Make it, with what the folder holds now on it."""
        self._place.mkdir()
        if self._kind is Mounts.EXT4:
            with self._image.open("wb") as image:
                image.truncate(DISK_BYTES)
            run("mkfs.ext4", "-q", "-m", "0", "-i", "8192", "-E", "lazy_itable_init=0,nodiscard", str(self._image))
        self._mount()
        run("cp", "-a", f"{self.root}/.", str(self._place))
        run("sync", "--file-system", str(self._place))
        for leftover in list(self.root.iterdir()):
            run("rm", "-r", str(leftover))
        self._bind()

    def _mount(self) -> None:
        if self._kind is Mounts.EXT4:
            run("mount", "-o", "loop,errors=continue", str(self._image), str(self._place))
        else:
            run("mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES},mode=700", "none", str(self._place))

    def _bind(self) -> None:
        run("mount", "--bind", str(self._place), str(self.root))

    # ---- what happens to it

    def fill(self) -> None:
        """Take all the room that is left; to be called again as some is given back."""
        descriptor = os.open(self._place / BALLAST, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            at, step = os.fstat(descriptor).st_size, DISK_BYTES
            while step >= _LEAST_BYTES:
                try:
                    os.posix_fallocate(descriptor, at, step)
                except OSError:
                    step //= 2
                else:
                    at += step
        finally:
            os.close(descriptor)

    def free(self) -> None:
        (self._place / BALLAST).unlink(missing_ok=True)

    def unmount(self) -> None:
        """As far as paths go; files that are open stay so."""
        run("umount", "-l", str(self.root))

    def mount_again(self) -> None:
        self._bind()

    def read_only(self) -> None:
        """As ext4 does after an error that it cannot go on from."""
        run("mount", "-o", "remount,abort", str(self._place))

    def pull(self) -> None:
        """From now on every access fails with EIO; what was synced is on the medium."""
        descriptor = os.open(self._place, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, EXT4_SHUTDOWN, struct.pack("I", NO_LOG_FLUSH))
        finally:
            os.close(descriptor)

    def holders(self) -> list[int]:
        """The processes that have something of it open."""
        device = self._place.stat().st_dev
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if any(_device_of(link) == device for link in (process / "fd").iterdir()):
                    found.append(int(process.name))
            except OSError:  # it has ended
                continue
        return found

    def hide(self) -> None:
        """No path leads to it any more."""
        if os.path.ismount(self.root):
            run("umount", "-l", str(self.root))

    def detach(self) -> None:
        """Take it out altogether, once nobody has anything of it open.  OSError while somebody has.

        The loop device tells: it lets go of the image when the last open file of the file system, also of one that no path
        leads to, is closed.  Mounted before that, it would be the same broken file system again."""
        self.hide()
        run("umount", "-l", str(self._place))
        deadline = time.monotonic() + PATIENCE_S
        while self._is_in_use():
            if time.monotonic() > deadline:
                raise OSError(f"{self._image} is still in use")
            time.sleep(0.05)

    def _is_in_use(self) -> bool:
        for backing in Path("/sys/block").glob("loop*/loop/backing_file"):
            with suppress(OSError):  # it was freed between two looks
                if backing.read_text().strip() == str(self._image):
                    return True
        return False

    def attach(self) -> None:
        """Put it back, sound."""
        self._mount()
        self._bind()


def _device_of(link: Path) -> int:
    try:
        return link.stat().st_dev
    except OSError:
        return -1


def make_disks(folders: list[Path], room: Path, kind: Mounts) -> list[Disk]:
    """A disk for each folder; ``room`` is an empty folder for images and mounts."""
    disks = [Disk(folder, room / folder.name, kind) for folder in folders]
    for disk in disks:
        disk.make()
    return disks


def look_beneath(devices: Path, room: Path) -> Path:
    """Where the folders of ``devices`` can be seen as they are under what is mounted on them."""
    beneath = room / "beneath"
    beneath.mkdir()
    run("mount", "--bind", str(devices), str(beneath))
    return beneath
