"""RealDisk: the file system below one root, with one I/O thread for its files and one for its tables: a log's sync does not wait
until a commit to the tables has reached the disk.

Paths are walked one component at a time from the root with O_NOFOLLOW, so that neither '..' nor a symbolic link leads out of
it.  Folders are not kept open: a device that was unmounted is found missing, not served from a stale handle.

``replace_file`` goes through ``.<name>.tmp`` in the same folder; ``list_dir`` leaves such leftovers of a crash out.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from ring.world.interface import HUNG_S, File, FileInfo, OpenMode, Space, Tables
from ring.world.paths import split, split_file
from ring.world.real.file import PageCacheReader, RealFile, write_all
from ring.world.real.tables import LmdbTables
from ring.world.real.thread import IoThread

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_FILE_MODE = 0o644
_NOWHERE = (-1, -1)
_FLAGS = {
    OpenMode.READ: os.O_RDONLY,
    OpenMode.WRITE: os.O_RDWR,
    OpenMode.CREATE: os.O_RDWR | os.O_CREAT | os.O_EXCL,
}


class RealDisk:
    def __init__(self, root: str, *, hung_s: float = HUNG_S) -> None:
        self.root = root
        self._anchor: tuple[int, int] | None = None  # device and inode of the root
        self._thread = IoThread(f"disk {root}", hung_s=hung_s)
        self._tables_thread = IoThread(f"tables {root}", hung_s=hung_s)
        self._cache = PageCacheReader()

    async def anchor(self) -> None:
        await self._thread.call(self._set_anchor)

    def bar(self) -> None:
        self._anchor = _NOWHERE

    async def open(self, path: str, mode: OpenMode) -> File:
        return await self._thread.call(self._open, *split_file(path), mode)

    async def open_unnamed(self, folder: str) -> File:
        return await self._thread.call(self._open_unnamed, split(folder))

    async def link(self, file: File, path: str) -> None:
        assert isinstance(file, RealFile)
        await self._thread.call(self._link, file, *split_file(path))

    async def rename(self, source: str, target: str) -> None:
        await self._thread.call(self._rename, *split_file(source), *split_file(target))

    async def unlink(self, path: str) -> None:
        await self._thread.call(self._unlink, *split_file(path))

    async def make_dirs(self, path: str) -> None:
        await self.make_dirs_many([path])

    async def make_dirs_many(self, paths: Sequence[str]) -> None:
        await self._thread.call(self._make_dirs_many, [split(path) for path in paths])

    async def list_dir(self, path: str) -> list[str]:
        return await self._thread.read(self._list_dir, split(path))

    async def info(self, path: str) -> FileInfo | None:
        return await self._thread.read(self._info, split(path))

    async def read_file(self, path: str) -> bytes:
        return await self._thread.read(self._read_file, *split_file(path))

    async def replace_file(self, path: str, data: bytes, *, mode: int = _FILE_MODE) -> None:
        await self._thread.call(self._replace_file, *split_file(path), data, mode)

    async def open_tables(self, path: str, tables: Sequence[str], *, map_bytes: int = 1 << 36) -> Tables:
        await self.make_dirs(path)
        return await self._tables_thread.take(self._open_tables, path, tuple(tables), map_bytes, undo=LmdbTables.let_go)

    async def space(self) -> Space:
        return await self._thread.read(self._space)

    # ---- on the I/O thread

    def _set_anchor(self) -> None:
        fd = os.open(self.root, _FOLDER)
        try:
            self._anchor = _identity(fd)
        finally:
            os.close(fd)

    def _open_root(self) -> int:
        anchor = self._anchor
        try:
            fd = os.open(self.root, _FOLDER)
        except (FileNotFoundError, NotADirectoryError) as error:
            if anchor is None:
                raise
            raise OSError(errno.ENODEV, "the device's folder is gone", self.root) from error
        if anchor is not None and _identity(fd) != anchor:
            os.close(fd)
            raise OSError(errno.ENODEV, "another folder is in the place of the device's", self.root)
        return fd

    @contextmanager
    def _folder(self, parts: Sequence[str]) -> Iterator[int]:
        """A descriptor of the folder; OSError where the path does not lead to one."""
        fd = self._open_root()
        try:
            for part in parts:
                inner = os.open(part, _FOLDER | os.O_NOFOLLOW, dir_fd=fd)
                os.close(fd)
                fd = inner
            yield fd
        finally:
            os.close(fd)

    def _open(self, parts: list[str], name: str, mode: OpenMode) -> RealFile:
        with self._folder(parts) as folder:
            fd = os.open(name, _FLAGS[mode] | os.O_NOFOLLOW | os.O_CLOEXEC, _FILE_MODE, dir_fd=folder)
            if stat.S_ISDIR(os.fstat(fd).st_mode):
                os.close(fd)
                raise IsADirectoryError(errno.EISDIR, "is a folder", name)
            if mode is OpenMode.CREATE:
                os.fsync(folder)  # else the file's first synced bytes could vanish with its name
        return RealFile(self._thread, self._cache, fd)

    def _open_unnamed(self, parts: list[str]) -> RealFile:
        with self._folder(parts) as folder:
            fd = os.open(".", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, _FILE_MODE, dir_fd=folder)
        return RealFile(self._thread, self._cache, fd)

    def _link(self, file: RealFile, parts: list[str], name: str) -> None:
        with self._folder(parts) as folder:
            os.link(f"/proc/self/fd/{file.fileno()}", name, dst_dir_fd=folder, follow_symlinks=True)
            os.fsync(folder)

    def _rename(self, source_parts: list[str], source: str, target_parts: list[str], target: str) -> None:
        with self._folder(source_parts) as old, self._folder(target_parts) as new:
            os.rename(source, target, src_dir_fd=old, dst_dir_fd=new)
            os.fsync(new)
            if source_parts != target_parts:
                os.fsync(old)

    def _unlink(self, parts: list[str], name: str) -> None:
        with self._folder(parts) as folder:
            os.unlink(name, dir_fd=folder)
            os.fsync(folder)

    def _make_dirs_many(self, paths: list[list[str]]) -> None:
        changed: set[tuple[str, ...]] = set()  # folders that got a new one
        for parts in paths:
            if not parts:
                _make_root(self.root)
                continue
            fd = self._open_root()
            try:
                for depth, part in enumerate(parts):
                    try:
                        os.mkdir(part, 0o755, dir_fd=fd)
                    except FileExistsError:
                        pass  # the open below says if it is something else
                    else:
                        changed.add(tuple(parts[:depth]))
                    inner = os.open(part, _FOLDER | os.O_NOFOLLOW, dir_fd=fd)
                    os.close(fd)
                    fd = inner
            finally:
                os.close(fd)
        for folder in sorted(changed, key=len, reverse=True):
            with self._folder(folder) as fd:
                os.fsync(fd)

    def _list_dir(self, parts: list[str]) -> list[str]:
        with self._folder(parts) as folder:
            return sorted(name for name in os.listdir(folder) if not (name.startswith(".") and name.endswith(".tmp")))

    def _info(self, parts: list[str]) -> FileInfo | None:
        try:
            if not parts:
                found = os.stat(self.root)
            else:
                with self._folder(parts[:-1]) as folder:
                    found = os.stat(parts[-1], dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            return None
        return FileInfo(found.st_size, stat.S_ISDIR(found.st_mode), found.st_mtime)

    def _read_file(self, parts: list[str], name: str) -> bytes:
        with self._folder(parts) as folder:
            fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
        with os.fdopen(fd, "rb") as file:
            return file.read()

    def _replace_file(self, parts: list[str], name: str, data: bytes, mode: int) -> None:
        temporary = f".{name}.tmp"
        with self._folder(parts) as folder:
            with suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=folder)  # a leftover; its mode may be another
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode, dir_fd=folder)
            try:
                try:
                    write_all(fd, [data], 0)
                    os.fsync(fd)
                finally:
                    os.close(fd)
                os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
            except OSError:
                os.unlink(temporary, dir_fd=folder)
                raise
            os.fsync(folder)

    def _open_tables(self, path: str, tables: tuple[str, ...], map_bytes: int) -> LmdbTables:
        with self._folder(split(path)):  # LMDB goes by the name, so it is looked at just before
            return LmdbTables.open(self._tables_thread, os.path.join(self.root, path), tables, map_bytes)

    def _space(self) -> Space:
        with self._folder([]) as root:
            found = os.fstatvfs(root)
        read_only = bool(found.f_flag & os.ST_RDONLY)
        return Space(found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize, read_only)


def _identity(descriptor: int) -> tuple[int, int]:
    found = os.fstat(descriptor)
    return found.st_dev, found.st_ino


def _make_root(root: str) -> None:
    """mkdir -p, each new folder's name made durable."""
    missing = []
    at = root
    while not os.path.isdir(at):
        missing.append(at)
        at = os.path.dirname(at)
    for folder in reversed(missing):
        os.mkdir(folder, 0o755)
        fd = os.open(os.path.dirname(folder), _FOLDER)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
