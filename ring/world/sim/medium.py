"""Medium: what a simulated device holds, what of it survives a power loss, and the faults that can be laid on it.

A file has content (what reads see) and durable bytes (what a power loss leaves); the writes between the two are pending until
a sync.  A crash keeps, from the seed and per file: nothing of them, all, a prefix with the last one torn at a 512-byte sector,
or any subset of 4 KiB blocks.  Names change durably in one step, as the interface promises; an operation that a crash
interrupts has happened or not.  One operation runs at a time, as on a device's I/O thread.

Faults are plain attributes and methods; the ones with a count wear off.  Nothing here is random but by ``rng``.
"""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeVar

import trio

from ring.world.interface import HUNG_S, Space
from ring.world.sim.life import Life
from ring.world.sim.tables import TablesStore

T = TypeVar("T")
CAPACITY_BYTES = 1 << 40  # beside which what is written in a simulation is nothing
BLOCK_BYTES = 4096
SECTOR_BYTES = 512
READ_S = 100e-6
WRITE_S = 50e-6
SYNC_S = 500e-6
BYTES_PER_SECOND = 500e6
LOOK_S = 0.25  # of who waits for a disk that hangs


@dataclass(frozen=True, slots=True)
class Resize:
    size: int


@dataclass(frozen=True, slots=True)
class Patch:
    offset: int
    data: bytes


@dataclass(eq=False, slots=True)
class FileNode:
    content: bytearray = field(default_factory=bytearray)
    durable: bytearray = field(default_factory=bytearray)
    pending: list[Patch | Resize] = field(default_factory=list)
    xattrs: dict[str, bytes] = field(default_factory=dict)
    durable_xattrs: dict[str, bytes] = field(default_factory=dict)
    modified: float = 0.0
    diverged: bool = False  # some of the content will never be durable, whatever later syncs say
    store: TablesStore | None = None  # the file stands for an ordered store


@dataclass(eq=False, slots=True)
class FolderNode:
    entries: dict[str, FileNode | FolderNode] = field(default_factory=dict)
    modified: float = 0.0


class Medium:
    def __init__(self, rng: random.Random, trace: Callable[[str], None]) -> None:
        self.rng = rng
        self.root: FolderNode | None = None  # None: nothing is mounted here
        self.capacity_bytes = CAPACITY_BYTES
        # faults
        self.dead = False  # every operation: EIO
        self.slow_s = 0.0  # added to every operation
        self.hung = False  # no operation comes back; after HUNG_S, and from then on, all fail until it is over
        self.room_bytes: int | None = None  # what can still be written before ENOSPC
        self.read_only = False  # whatever would change it: EROFS
        self.sync_errors = 0  # that many syncs fail with EIO and lose what they should have made durable
        self.forgets_bytes = 0  # ... and so many durable bytes before it, as a drive does that loses its own cache
        # called in front of each operation, with what an interrupted one may have done: may raise an OSError, or crash the node
        self.trip: Callable[[Callable[[], object]], None] | None = None
        self.writes_to_lose = 0  # that many writes are acknowledged and never reach the platter
        self.writes_to_misdirect = 0  # ... or reach it somewhere else, over what was there
        self.writes_to_cut = 0  # that many writes stop in the middle with EIO
        self.ignores_sync = False  # a lying drive: syncs and commits are acknowledged and nothing is made durable
        self._trace = trace
        self._dirty: dict[int, FileNode] = {}
        self._busy_until = 0.0
        self._in_flight: dict[int, Callable[[], object]] = {}
        self._serial = 0
        self._given_up = False  # while it is hung

    # ---- for the nemesis

    def files(self) -> list[str]:
        """Paths of all files, ordered stores left out."""
        return [path for path, node in self._walk() if node.store is None]

    def file(self, path: str) -> FileNode:
        folder: FileNode | FolderNode | None = self.root
        for part in path.split("/"):
            if not isinstance(folder, FolderNode) or part not in folder.entries:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
            folder = folder.entries[part]
        assert isinstance(folder, FileNode)
        return folder

    def rot(self, path: str, rng: random.Random) -> None:
        """Flip one bit of the file where it lies."""
        node = self.file(path)
        if node.durable:
            at, bit = rng.randrange(len(node.durable)), 1 << rng.randrange(8)
            node.durable[at] ^= bit
            if at < len(node.content):
                node.content[at] ^= bit
            self._trace(f"rot {path} at {at}")

    def empty(self) -> None:
        """The disk is replaced by a new one, with nothing on it."""
        self.root = FolderNode()
        self._dirty.clear()
        self._trace("disk emptied")

    def swap(self, other: Medium) -> None:
        """Exchange what lies on two devices, as by wrong cabling."""
        self.root, other.root = other.root, self.root
        self._dirty, other._dirty = other._dirty, self._dirty
        self._trace("disks swapped")

    def unmount(self) -> None:
        self.root = None
        self._trace("unmounted")

    def heal(self) -> None:
        """End all standing faults; what they destroyed stays destroyed."""
        self.dead = False
        self.read_only = False
        self.slow_s = 0.0
        self.hung = False
        self.room_bytes = None
        self.sync_errors = 0
        self.forgets_bytes = 0
        self.writes_to_lose = 0
        self.writes_to_misdirect = 0
        self.writes_to_cut = 0

    def crash(self, *, power: bool) -> None:
        """The node stops.  A power loss takes what was not synced; a kill takes only what was being done."""
        for torn in list(self._in_flight.values()):
            if self.rng.random() < 0.5:
                break
            with suppress(OSError):
                torn()
        self._in_flight.clear()
        self._busy_until = 0.0
        if not power:
            return
        lost = 0
        for node in self._dirty.values():
            lost += self._lose(node)
        self._dirty.clear()
        for _, node in self._walk():
            if node.store is not None:
                lost += node.store.crash(self.rng)
        self._trace(f"power loss: {lost} of the unsynced writes did not survive whole")

    # ---- for SimDisk and its files

    async def perform(self, life: Life, seconds: float, action: Callable[[], T], torn: Callable[[], object] | None = None) -> T:
        """Do ``action`` after its time in the device's queue.  ``torn`` is what a crash in that time may leave done."""
        await trio.lowlevel.checkpoint_if_cancelled()
        life.check()
        self._given_up = self._given_up and self.hung
        start = max(trio.current_time(), self._busy_until)
        self._busy_until = start + seconds * self.rng.uniform(0.5, 2.0) + self.slow_s
        self._serial += 1
        serial = self._serial
        self._in_flight[serial] = torn or action
        try:
            await life.sleep_until(self._busy_until)
            if life.frozen:
                with trio.CancelScope(shield=True):
                    await life.awake()
                life.check()
            if self.hung:
                await self._hang(life, torn or action)
            if self.trip is not None:
                self.trip(torn or action)
                life.check()
        finally:
            self._in_flight.pop(serial, None)
        self.check()
        return action()

    async def _hang(self, life: Life, action: Callable[[], object]) -> None:
        """Until it answers again.  OSError when nobody waits any longer; what was being done may have happened all the same."""
        until = trio.current_time() + HUNG_S
        while self.hung:
            now = trio.current_time()
            if self._given_up or now >= until:
                if not self._given_up:
                    self._given_up = True
                    self._trace("the disk does not answer")
                    if self.rng.random() < 0.5:
                        with suppress(OSError):
                            action()
                raise OSError(errno.ETIMEDOUT, "the disk does not answer")
            await life.sleep_until(min(until, now + LOOK_S))

    def check(self) -> None:
        if self.dead:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    def check_writable(self) -> None:
        if self.read_only:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    def write(self, node: FileNode, offset: int, data: bytes, now: float) -> None:
        self.take_room(len(data))
        if self.writes_to_lose:
            self.writes_to_lose -= 1
            self._trace(f"write of {len(data)} bytes lost")
            data = bytes(node.content[offset : offset + len(data)]).ljust(len(data), b"\0")
        elif self.writes_to_misdirect:
            self.writes_to_misdirect -= 1
            self._misdirect(node, data)
            data = bytes(node.content[offset : offset + len(data)]).ljust(len(data), b"\0")
        cut = self.writes_to_cut and len(data) > 1
        if cut:
            self.writes_to_cut -= 1
            self._trace(f"write of {len(data)} bytes cut short")
            data = data[: self.rng.randrange(1, len(data))]
        node.pending.append(Patch(offset, data))
        patch(node.content, offset, data)
        node.modified = now
        self._dirty[id(node)] = node
        if cut:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    def _misdirect(self, node: FileNode, data: bytes) -> None:
        others = [(path, other) for path, other in self._walk() if other is not node and other.store is None and other.durable]
        if not others:
            self._trace(f"write of {len(data)} bytes lost")
            return
        path, other = self.rng.choice(others)
        at = self.rng.randrange(len(other.durable))
        for bytes_there in (other.durable, other.content):
            end = min(len(bytes_there), at + len(data))
            if at < end:
                bytes_there[at:end] = data[: end - at]
        self._trace(f"write of {len(data)} bytes landed in {path} at {at}")

    def resize(self, node: FileNode, size: int) -> None:
        self.check_writable()
        if size > len(node.content):
            self.take_room(size - len(node.content))
        node.pending.append(Resize(size))
        resize(node.content, size)
        self._dirty[id(node)] = node

    def set_xattr(self, node: FileNode, name: str, value: bytes) -> None:
        self.check_writable()
        node.xattrs[name] = value
        self._dirty[id(node)] = node

    def sync(self, node: FileNode) -> None:
        if self.ignores_sync:
            return
        if self.sync_errors:
            # As Linux does: the pages count as clean afterwards, so that the next sync says all is well.
            self.sync_errors -= 1
            node.pending.clear()
            node.diverged = True
            if self.forgets_bytes:
                kept = max(0, len(node.durable) - self.forgets_bytes)
                node.durable[kept:] = bytes(len(node.durable) - kept)
            self._trace("sync failed once")
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        for change in node.pending:
            apply(node.durable, change)
        node.pending.clear()
        node.durable_xattrs = dict(node.xattrs)
        if not node.diverged:
            self._dirty.pop(id(node), None)

    def beneath(self, node: FileNode) -> bytes:
        """What a read past the page cache sees: dirty pages are written back first, those that a failed sync gave up are not."""
        data = bytearray(node.durable)
        for change in node.pending:
            apply(data, change)
        return bytes(data)

    def take_room(self, length: int) -> None:
        """ENOSPC when the device is full."""
        self.check_writable()
        if self.room_bytes is not None:
            if self.room_bytes < length:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self.room_bytes -= length

    def space(self) -> Space:
        used = 0 if self.capacity_bytes == CAPACITY_BYTES else self.used_bytes()
        free = self.capacity_bytes - used
        return Space(self.capacity_bytes, free if self.room_bytes is None else min(free, self.room_bytes), self.read_only)

    def used_bytes(self) -> int:
        """What its files hold."""
        used = 0
        folders = [self.root] if self.root is not None else []
        while folders:
            for entry in folders.pop().entries.values():
                if isinstance(entry, FileNode):
                    used += len(entry.content)
                elif entry.entries:  # a device has 4,096 folders, nearly all of them empty
                    folders.append(entry)
        return used

    def _walk(self) -> Iterator[tuple[str, FileNode]]:
        if self.root is None:
            return
        stack: list[tuple[str, FileNode | FolderNode]] = [("", self.root)]
        while stack:
            path, node = stack.pop()
            if isinstance(node, FileNode):
                yield path, node
            else:
                top = f"{path}/" if path else ""
                for name in reversed(node.entries):
                    inner = node.entries[name]
                    if isinstance(inner, FileNode) or inner.entries:  # a device has 4,096 folders, nearly all of them empty
                        stack.append((top + name, inner))

    def _lose(self, node: FileNode) -> int:
        kept = node.pending
        fate = self.rng.choice(("lost", "kept", "prefix", "subset"))
        if fate == "lost":
            kept = []
        elif fate == "prefix" and node.pending:
            count = self.rng.randrange(len(node.pending))
            kept = node.pending[:count]
            last = node.pending[count]
            if isinstance(last, Patch):
                kept.append(Patch(last.offset, last.data[: self.rng.randrange(len(last.data) // SECTOR_BYTES + 1) * SECTOR_BYTES]))
        elif fate == "subset":
            kept = [piece for change in node.pending for piece in blocks(change) if self.rng.random() < 0.5]
        for change in kept:
            apply(node.durable, change)
        survived = fate == "kept" or node.content == node.durable
        if fate == "kept":
            node.durable_xattrs = dict(node.xattrs)
        node.pending = []
        node.diverged = False
        node.content = bytearray(node.durable)
        node.xattrs = dict(node.durable_xattrs)
        return 0 if survived else 1


def patch(data: bytearray, offset: int, piece: bytes) -> None:
    if offset > len(data):
        resize(data, offset)
    data[offset : offset + len(piece)] = piece


def resize(data: bytearray, size: int) -> None:
    if size < len(data):
        del data[size:]
    else:
        data.extend(bytes(size - len(data)))


def apply(data: bytearray, change: Patch | Resize) -> None:
    if isinstance(change, Patch):
        patch(data, change.offset, change.data)
    else:
        resize(data, change.size)


def blocks(change: Patch | Resize) -> list[Patch | Resize]:
    """A write cut at block boundaries, as the page cache writes it back."""
    if isinstance(change, Resize):
        return [change]
    pieces: list[Patch | Resize] = []
    offset, end = change.offset, change.offset + len(change.data)
    while offset < end:
        upto = min(end, (offset // BLOCK_BYTES + 1) * BLOCK_BYTES)
        pieces.append(Patch(offset, change.data[offset - change.offset : upto - change.offset]))
        offset = upto
    return pieces
