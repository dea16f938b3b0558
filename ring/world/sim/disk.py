"""SimDisk and SimFile: a node's handles on a Medium, with the real world's interface and errors.

``pread_now`` misses from time to time, as a page cache does, so that both ways of reading are driven.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from typing import TypeVar

import trio

from ring.errors import BadInput
from ring.world.interface import Buffer, File, FileInfo, OpenMode, Space, Tables
from ring.world.paths import split, split_file
from ring.world.sim.life import Life
from ring.world.sim.medium import BYTES_PER_SECOND, READ_S, SYNC_S, WRITE_S, FileNode, FolderNode, Medium
from ring.world.sim.tables import SimTables, TablesStore

T = TypeVar("T")
COLD_ONE_IN = 8


class SimFile:
    def __init__(self, life: Life, medium: Medium, node: FileNode, now: Callable[[], float], *, writable: bool) -> None:
        self._life = life
        self._medium = medium
        self.node = node
        self._now = now
        self._writable = writable
        self._end = len(node.content)
        self._open = True

    def size(self) -> int:
        return self._end

    def pread_now(self, offset: int, length: int) -> bytes | None:
        self._check()
        self._medium.check()
        if self._medium.rng.randrange(COLD_ONE_IN) == 0:
            return None
        return bytes(self.node.content[offset : offset + length])

    async def pread(self, offset: int, length: int) -> bytes:
        data = self.pread_now(offset, length)
        if data is not None:
            await trio.lowlevel.checkpoint()
            return data
        return await self._medium.perform(
            self._life, READ_S + length / BYTES_PER_SECOND, lambda: bytes(self.node.content[offset : offset + length])
        )

    async def pread_medium(self, offset: int, length: int) -> bytes:
        self._check()
        seconds = READ_S + length / BYTES_PER_SECOND
        return await self._medium.perform(self._life, seconds, lambda: self._medium.beneath(self.node)[offset : offset + length])

    async def pwrite(self, offset: int, data: Buffer) -> None:
        self._check(write=True)
        copy = bytes(data)

        def write() -> None:
            self._medium.write(self.node, offset, copy, self._now())
            self._end = max(self._end, offset + len(copy))

        await self._medium.perform(self._life, WRITE_S + len(copy) / BYTES_PER_SECOND, write)

    async def append(self, buffers: Sequence[Buffer], *, sync: bool) -> int:
        self._check(write=True)
        data = b"".join(buffers)

        def write() -> None:
            self._medium.write(self.node, self._end, data, self._now())

        def write_and_sync() -> int:
            write()
            if sync:
                self._medium.sync(self.node)
            start = self._end
            self._end += len(data)
            return start

        seconds = WRITE_S + len(data) / BYTES_PER_SECOND + (SYNC_S if sync else 0.0)
        return await self._medium.perform(self._life, seconds, write_and_sync, torn=write)

    async def sync(self) -> None:
        self._check(write=True)
        await self._medium.perform(self._life, SYNC_S, lambda: self._medium.sync(self.node))

    async def allocate(self, size: int) -> None:
        self._check(write=True)

        def allocate() -> None:
            if size > len(self.node.content):
                self._medium.resize(self.node, size)
            self._end = max(self._end, size)

        await self._medium.perform(self._life, WRITE_S, allocate)

    async def truncate(self, size: int) -> None:
        self._check(write=True)

        def truncate() -> None:
            self._medium.resize(self.node, size)
            self._end = size

        await self._medium.perform(self._life, WRITE_S, truncate)

    async def set_xattr(self, name: str, value: bytes) -> None:
        self._check(write=True)
        await self._medium.perform(self._life, WRITE_S, lambda: self._medium.set_xattr(self.node, name, value))

    async def get_xattr(self, name: str) -> bytes | None:
        self._check()
        return await self._medium.perform(self._life, READ_S, lambda: self.node.xattrs.get(name))

    async def close(self) -> None:
        self._open = False

    def _check(self, *, write: bool = False) -> None:
        self._life.check()
        if not self._open:
            raise trio.ClosedResourceError("the file is closed")
        if write and not self._writable:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))


class SimDisk:
    def __init__(self, root: str, life: Life, medium: Medium, now: Callable[[], float], below: Sequence[str] = ()) -> None:
        """``below``: of which folder of the medium it is, as a file system has many."""
        self.root = root
        self._below = tuple(below)
        self._life = life
        self._medium = medium
        self._now = now
        self._tables: dict[int, list[SimTables]] = {}  # open handles by store
        self._anchored = False
        self._anchor: FolderNode | None = None  # None: barred, when it is anchored

    async def anchor(self) -> None:
        def look() -> None:
            top = self._top()
            if top is None:
                raise _error(errno.ENOENT, self.root)
            self._anchored, self._anchor = True, top

        await self._do(READ_S, look)

    def bar(self) -> None:
        self._anchored, self._anchor = True, None

    async def open(self, path: str, mode: OpenMode) -> File:
        parts, name = split_file(path)

        def find() -> FileNode:
            folder = self._folder(parts)
            found = folder.entries.get(name)
            if mode is OpenMode.CREATE:
                if found is not None:
                    raise _error(errno.EEXIST, path)
                self._medium.take_room(1)
                found = folder.entries[name] = FileNode(modified=self._now())
            if found is None:
                raise _error(errno.ENOENT, path)
            if isinstance(found, FolderNode):
                raise _error(errno.EISDIR, path)
            return found

        node = await self._do(SYNC_S if mode is OpenMode.CREATE else READ_S, find)
        return SimFile(self._life, self._medium, node, self._now, writable=mode is not OpenMode.READ)

    async def open_unnamed(self, folder: str) -> File:
        parts = split(folder)

        def look() -> None:
            self._folder(parts)
            self._medium.check_writable()

        await self._do(WRITE_S, look)
        return SimFile(self._life, self._medium, FileNode(modified=self._now()), self._now, writable=True)

    async def link(self, file: File, path: str) -> None:
        assert isinstance(file, SimFile)
        node = file.node
        parts, name = split_file(path)

        def link() -> None:
            folder = self._folder(parts)
            if name in folder.entries:
                raise _error(errno.EEXIST, path)
            self._medium.check_writable()
            folder.entries[name] = node

        await self._do(SYNC_S, link)

    async def rename(self, source: str, target: str) -> None:
        source_parts, source_name = split_file(source)
        target_parts, target_name = split_file(target)

        def rename() -> None:
            old, new = self._folder(source_parts), self._folder(target_parts)
            if source_name not in old.entries:
                raise _error(errno.ENOENT, source)
            there = new.entries.get(target_name)
            if isinstance(there, FolderNode):
                if not isinstance(old.entries[source_name], FolderNode):
                    raise _error(errno.EISDIR, target)
                if there.entries:
                    raise _error(errno.ENOTEMPTY, target)
            elif there is not None and isinstance(old.entries[source_name], FolderNode):
                raise _error(errno.ENOTDIR, target)
            self._medium.check_writable()
            new.entries[target_name] = old.entries.pop(source_name)

        await self._do(SYNC_S, rename)

    async def unlink(self, path: str) -> None:
        parts, name = split_file(path)

        def unlink() -> None:
            folder = self._folder(parts)
            if name not in folder.entries:
                raise _error(errno.ENOENT, path)
            if isinstance(folder.entries[name], FolderNode):
                raise _error(errno.EISDIR, path)
            self._medium.check_writable()
            del folder.entries[name]

        await self._do(SYNC_S, unlink)

    async def make_dirs(self, path: str) -> None:
        await self.make_dirs_many([path])

    async def make_dirs_many(self, paths: Sequence[str]) -> None:
        all_parts = [split(path) for path in paths]

        def make() -> None:
            for parts in all_parts:
                if parts:
                    self._folder([])
                elif self._medium.root is None:
                    self._medium.root = FolderNode(modified=self._now())
                folder = self._medium.root
                assert folder is not None
                for part in (*self._below, *parts):
                    inner = folder.entries.get(part)
                    if inner is None:
                        self._medium.take_room(1)
                        inner = folder.entries[part] = FolderNode(modified=self._now())
                    if isinstance(inner, FileNode):
                        raise _error(errno.ENOTDIR, part)
                    folder = inner

        await self._do(SYNC_S, make)

    async def list_dir(self, path: str) -> list[str]:
        parts = split(path)
        return await self._do(READ_S, lambda: sorted(self._folder(parts).entries))

    async def info(self, path: str) -> FileInfo | None:
        parts = split(path)

        def info() -> FileInfo | None:
            try:
                if not parts:
                    return FileInfo(4096, True, self._folder([]).modified)
                found = self._folder(parts[:-1]).entries.get(parts[-1])
            except FileNotFoundError:
                return None
            if found is None:
                return None
            if isinstance(found, FolderNode):
                return FileInfo(4096, True, found.modified)
            return FileInfo(len(found.content), False, found.modified)

        return await self._do(READ_S, info)

    async def read_file(self, path: str) -> bytes:
        parts, name = split_file(path)

        def read() -> bytes:
            found = self._folder(parts).entries.get(name)
            if found is None:
                raise _error(errno.ENOENT, path)
            if isinstance(found, FolderNode):
                raise _error(errno.EISDIR, path)
            return bytes(found.content)

        return await self._do(READ_S, read)

    async def replace_file(self, path: str, data: bytes, *, mode: int = 0o644) -> None:
        parts, name = split_file(path)
        copy = bytes(data)

        def replace() -> None:
            folder = self._folder(parts)
            if isinstance(folder.entries.get(name), FolderNode):
                raise _error(errno.EISDIR, path)
            node = FileNode()
            self._medium.write(node, 0, copy, self._now())
            self._medium.sync(node)  # may fail: then the old file stays
            folder.entries[name] = node

        await self._do(2 * SYNC_S, replace)

    async def open_tables(self, path: str, tables: Sequence[str], *, map_bytes: int = 1 << 36) -> Tables:
        await self.make_dirs(path)
        parts = split(path)

        def find() -> TablesStore:
            folder = self._folder(parts)
            node = folder.entries.get("data.mdb")
            if node is None:
                node = folder.entries["data.mdb"] = FileNode(modified=self._now(), store=TablesStore())
                folder.entries["lock.mdb"] = FileNode(modified=self._now())
            if isinstance(node, FolderNode) or node.store is None:
                raise _error(errno.EINVAL, path)
            return node.store

        store = await self._do(SYNC_S, find)
        handles = self._tables.setdefault(id(store), [])
        if handles and set(handles[0].names) != set(tables):
            raise BadInput(f"{path} is open with other tables: {', '.join(handles[0].names)}")
        handles.append(SimTables(self._life, self._medium, store, tables, handles))
        return handles[-1]

    async def space(self) -> Space:
        def look() -> Space:
            self._folder([])
            return self._medium.space()

        return await self._do(READ_S, look)

    async def _do(self, seconds: float, action: Callable[[], T]) -> T:
        return await self._medium.perform(self._life, seconds, action)

    def _top(self) -> FolderNode | None:
        found = self._medium.root
        for part in self._below:
            inner = found.entries.get(part) if found is not None else None
            found = inner if isinstance(inner, FolderNode) else None
        return found

    def _folder(self, parts: Sequence[str]) -> FolderNode:
        found: FileNode | FolderNode | None = self._top()
        if self._anchored and (found is None or found is not self._anchor):
            raise _error(errno.ENODEV, self.root)
        if found is None:
            raise _error(errno.ENOENT, self.root)
        for part in parts:
            assert isinstance(found, FolderNode)
            inner = found.entries.get(part)
            if inner is None:
                raise _error(errno.ENOENT, "/".join(parts))
            if isinstance(inner, FileNode):
                raise _error(errno.ENOTDIR, "/".join(parts))
            found = inner
        assert isinstance(found, FolderNode)
        return found


def _error(number: int, path: str) -> OSError:
    return OSError(number, os.strerror(number), path)
