"""RingFile: a builder file as an operator names it, the ring beside it, their backups.

Decides names, and that nothing is lost: files are written whole or not at all, and a builder that somebody else changed since it
was read is not overwritten.  Never looks inside a builder beyond its codec.  Neighbours: the verbs of this folder,
``ring.builder.builderfile``, ``ring.ringfile``.

What is written, in order: backups (``backups/<seconds since 1970>.NAME.builder`` and ``.ring``, of what is new, as Swift keeps
them), then the new files under names of their own, then renames: the builder's first.  A crash between the two renames leaves a
ring that the table calls obsolete, and ``write_ring`` makes it anew; the other order could give two rings of one version.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TypeVar

import trio

from ring.builder.builder import Builder
from ring.builder.builderfile import BUILDER_MAGIC, decode_builder, encode_builder
from ring.errors import BadInput, Conflict, DiskFull, FormatError, NotFound, RingfortError
from ring.names import NameHasher
from ring.placement import Ring
from ring.ringfile import RING_MAGIC, decode, encode
from ring.world.interface import Disk, World

T = TypeVar("T")
SUFFIX, RING_SUFFIX = ".builder", ".ring"
BACKUPS = "backups"
NO_SECRETS = NameHasher(b"", b"")  # a ring file holds none
LOCK_TRIES, LOCK_PAUSE_S = 150, 0.1
_OF_SWIFT = {b"\x80": "builder", b"\x1f": "ring"}  # how its files begin: as a pickle, as gzip
_NO_LOCKS = (errno.EBADF, errno.ENOLCK, errno.EOPNOTSUPP)  # network file systems that cannot lock a folder


class RingFile:
    """FILE of the command line: ``NAME.builder``, ``NAME.ring`` or ``NAME``."""

    def __init__(self, path: str, world: World, *, lock_tries: int = LOCK_TRIES) -> None:
        if os.path.basename(path) in ("", ".", ".."):
            raise BadInput(
                f"{path or 'nothing'} is not the name of a file", hint="object.builder, or " + os.path.join(path, "object.builder")
            )
        if path.endswith(".ring.gz"):
            raise BadInput(f"{path} has the name of a ring of Swift", hint=f"ringfort ring NEW_FILE import-swift {path}")
        self.world = world
        self._lock_tries = lock_tries
        self._given = os.path.abspath(path)
        base = path.removesuffix(RING_SUFFIX) if path.endswith(RING_SUFFIX) else path.removesuffix(SUFFIX)
        self.path, self.ring_path = base + SUFFIX, base + RING_SUFFIX
        self.folder, self.name = os.path.split(os.path.abspath(self.path))
        self.ring_name = os.path.basename(self.ring_path)
        self._read: bytes | None = None  # what the builder file held when it was read; None: there was none

    def now(self) -> float:
        """Wall time, seconds since 1970."""
        return self.world.clock.now()

    # ---- reading

    def load(self) -> Builder:
        """NotFound when there is none, FormatError when it is something else."""
        self._read = self._on_disk(self._load)
        with _naming(self.path):
            return decode_builder(self._read)

    async def _load(self, disk: Disk) -> bytes:
        await self._refuse_folders(disk)
        if await disk.info(self.name) is None:
            raise NotFound(f"there is no {self.path}", hint=f"ringfort ring {self.path} create PART_POWER REPLICAS MIN_PART_HOURS")
        data = await disk.read_file(self.name)
        if (kind := _OF_SWIFT.get(data[:1])) is not None:
            raise FormatError(f"{self.path} is a {kind} file of Swift", hint="ringfort ring NEW_FILE import-swift " + self.path)
        if data.startswith(RING_MAGIC):
            raise FormatError(f"{self.path} holds a ring, not a builder", hint="write_builder makes a builder from NAME.ring")
        if not data.startswith(BUILDER_MAGIC):
            raise FormatError(f"{self.path} is not a builder file")
        return data

    async def _refuse_folders(self, disk: Disk) -> None:
        names = {self.name, self.ring_name}
        if self.folder == os.path.dirname(self._given):
            names.add(os.path.basename(self._given))
        for name in sorted(names):
            info = await disk.info(name)
            if info is not None and info.is_dir:
                raise BadInput(
                    f"{os.path.join(self.folder, name)} is a folder",
                    hint=f"name a file in it: {os.path.join(name, 'object.builder')}",
                )

    def load_ring(self) -> Ring | None:
        """What the nodes read; None when there is none, FormatError when it is something else."""

        async def read(disk: Disk) -> bytes | None:
            await self._refuse_folders(disk)
            return None if await disk.info(self.ring_name) is None else await disk.read_file(self.ring_name)

        data = self._on_disk(read)
        with _naming(self.ring_path):
            return None if data is None else decode(data, NO_SECRETS)

    # ---- writing

    def refuse_existing(self) -> None:
        """Conflict when there is a builder file: before much is done for ``create``, which looks again."""
        self._on_disk(self._refuse_changed)

    def create(self, builder: Builder) -> None:
        """Conflict when there is one already."""
        self._read = None
        self._write({self.name: encode_builder(builder)}, backup=True)

    def save(self, builder: Builder, *, with_ring: bool = False) -> None:
        """Replace the builder file that was loaded; with its ring, and backups of both.  Conflict when it was changed since."""
        files = {self.name: encode_builder(builder)}
        if with_ring:
            files[self.ring_name] = encode(builder.ring(NO_SECRETS))
        self._write(files, backup=with_ring)

    def write_ring(self, builder: Builder) -> None:
        """The ring of ``builder`` as it is, and a backup of it."""
        self._write({self.ring_name: encode(builder.ring(NO_SECRETS))}, backup=True)

    def _write(self, files: dict[str, bytes], *, backup: bool) -> None:
        async def write(disk: Disk) -> None:
            await self._refuse_folders(disk)
            async with _locked(self.folder, self._lock_tries):
                await self._refuse_changed(disk)
                await self._replace(disk, files, backup=backup)

        self._on_disk(write)
        self._read = files.get(self.name, self._read)

    async def _refuse_changed(self, disk: Disk) -> None:
        now = None if await disk.info(self.name) is None else await disk.read_file(self.name)
        if now == self._read:
            return
        if self._read is None:
            raise Conflict(f"{self.path} exists already", hint="name another file, or remove this one first")
        raise Conflict(f"somebody changed {self.path} meanwhile; nothing was written", hint="look at it and give the command again")

    async def _replace(self, disk: Disk, files: dict[str, bytes], *, backup: bool) -> None:
        """All or, when the disk refuses one, none of them."""
        made: list[str] = []
        try:
            if backup:
                await disk.make_dirs(BACKUPS)
                stamp = await self._stamp(disk)
                for name, data in files.items():
                    made.append(f"{BACKUPS}/{stamp}.{name}")
                    await disk.replace_file(made[-1], data)
            for name, data in files.items():
                made.append(f".{name}.new")
                await disk.replace_file(made[-1], data)
        except OSError:
            for name in made:
                if await disk.info(name) is not None:
                    await disk.unlink(name)
            raise
        for name in files:
            await disk.rename(f".{name}.new", name)

    async def _stamp(self, disk: Disk) -> int:
        """The second of the backup; a later one when there is a backup of this second already, so that none is lost."""
        taken = set(await disk.list_dir(BACKUPS))
        stamp = int(self.now())
        while taken & {f"{stamp}.{self.name}", f"{stamp}.{self.ring_name}"}:
            stamp += 1
        return stamp

    def _on_disk(self, call: Callable[[Disk], Awaitable[T]]) -> T:
        async def go() -> T:
            return await call(self.world.open_disk(self.folder))

        try:
            return trio.run(go)
        except OSError as error:
            raise _worded(self.folder, error) from error


@contextmanager
def _naming(path: str) -> Iterator[None]:
    """Says of which file a FormatError speaks."""
    try:
        yield
    except FormatError as error:
        raise FormatError(f"{path}: {error.message}", hint=error.hint) from error


def _worded(folder: str, error: OSError) -> RingfortError:
    match error.errno:
        case errno.ENOENT:
            return NotFound(f"there is no folder {folder}", hint="make the folder first")
        case errno.ENOSPC | errno.EDQUOT:
            return DiskFull(
                f"no space left in {folder}; nothing was changed", hint="old backups are in " + os.path.join(folder, BACKUPS)
            )
        case errno.EACCES | errno.EROFS | errno.EPERM:
            return RingfortError(
                f"{folder}: {error.strerror}; nothing was changed", hint="check who owns the folder and how it is mounted"
            )
        case errno.ELOOP:
            return BadInput(f"{error.filename or folder} is a symbolic link", hint="name the file that it leads to")
        case _:
            return RingfortError(f"{folder}: {error.strerror or error}")


@asynccontextmanager
async def _locked(folder: str, tries: int) -> AsyncIterator[None]:
    """One writer at a time in ``folder``: the kernel lets go of the lock when its holder dies, so none is ever left behind."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for _ in range(tries):
            if _try_lock(fd):
                break
            await trio.sleep(LOCK_PAUSE_S)
        else:
            raise Conflict(f"another command has been writing in {folder} for {tries * LOCK_PAUSE_S:.1f} seconds", hint="try again")
        yield
    finally:
        os.close(fd)


def _try_lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        # what is left there: the comparison of what was read with what is there now
    return True
