"""LmdbTables: a device's ordered store on LMDB.

Reads are short read transactions on the caller's thread; commits run on a thread that the device has for them, those that wait
together in one transaction with one sync.  Always synchronous (no NOSYNC, no WRITEMAP): what ``commit`` returned from survives
power loss.

One environment per path and process (LMDB's rule: its file locks do not survive a second open).
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import stat
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import lmdb

from ring.errors import BadInput, FormatError
from ring.world.interface import Write
from ring.world.real.thread import IoThread, Job

KEY_BYTES_MAX = 511
MAP_GROWTH = 2
_MEMORY = "/dev/shm"  # noqa: S108 - a folder of one's own in it
_LOCK = "-lock"  # what LMDB appends to the name
_LOCK_BYTES = 8192  # of its file of locks, for 126 readers
_open: dict[str, LmdbTables] = {}
_open_lock = threading.Lock()
_swept = False  # by this process


class CommitJob(Job):
    __slots__ = ("writes",)

    def __init__(self, tables: LmdbTables, writes: Sequence[Write]) -> None:
        super().__init__(tables)
        self.writes = writes


class LmdbTables:
    def __init__(self, thread: IoThread, path: str, names: tuple[str, ...], map_bytes: int) -> None:
        self._thread = thread
        self._path = path
        self._names = names
        self._handles = 1
        self._resizing = threading.Lock()  # LMDB forbids transactions while its map grows
        with _beside_its_lock(path) as name:
            self._name = name
            self._env = lmdb.open(
                name,
                subdir=False,
                map_size=map_bytes,
                max_dbs=max(1, len(names)),
                readahead=False,
                meminit=False,
                mode=0o644,
            )
        self._map_bytes = max(map_bytes, self._env.info()["map_size"])
        self._dbs = {name: self._env.open_db(name.encode()) for name in names}

    @classmethod
    def open(cls, thread: IoThread, path: str, names: tuple[str, ...], map_bytes: int) -> LmdbTables:
        """The handle that is open already, if there is one.  On ``thread``, behind all that was asked of the store before."""
        global _swept
        path = os.path.realpath(path)
        with _open_lock:
            if not _swept:
                _swept = True
                threading.Thread(target=forget_others, name="names in memory", daemon=True).start()
            tables = _open.get(path)
            if tables is not None:
                if set(tables._names) != set(names):
                    raise BadInput(f"{path} is open with other tables: {', '.join(tables._names)}")
                tables._handles += 1
                return tables
        try:  # without the lock: a disk that hangs must not hold up others
            tables = cls(thread, path, names, map_bytes)
        except lmdb.Error as error:
            raise _as_ours(error, path) from error
        folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)  # LMDB does not sync the names of its new files
        finally:
            os.close(folder)
        with _open_lock:
            _open[path] = tables
        return tables

    def get(self, table: str, key: bytes) -> bytes | None:
        db = self._db(table)
        _check_key(key)
        try:
            with self._resizing, self._env.begin(db=db, buffers=False) as transaction:
                value: bytes | None = transaction.get(key)
        except lmdb.Error as error:
            raise _as_ours(error, self._path) from error
        return value

    def get_many(self, table: str, keys: Sequence[bytes]) -> list[bytes | None]:
        db = self._db(table)
        for key in keys:
            _check_key(key)
        try:
            with self._resizing, self._env.begin(db=db, buffers=False) as transaction:
                get = transaction.get
                return [get(key) for key in keys]
        except lmdb.Error as error:
            raise _as_ours(error, self._path) from error

    def scan(
        self, table: str, start: bytes = b"", end: bytes | None = None, *, limit: int, reverse: bool = False
    ) -> list[tuple[bytes, bytes]]:
        db = self._db(table)
        found: list[tuple[bytes, bytes]] = []
        if limit <= 0 or (end is not None and end <= start):
            return found
        try:
            with self._resizing, self._env.begin(db=db, buffers=False) as transaction:
                cursor = transaction.cursor()  # ends with its transaction
                if limit == 1 and not reverse:  # every look-up in an index: a third of the time that an iterator takes
                    if cursor.set_range(start):
                        pair = cursor.item()
                        if end is None or pair[0] < end:
                            found.append(pair)
                elif reverse:
                    if end is not None and cursor.set_range(end):
                        positioned = cursor.prev()
                    else:
                        positioned = cursor.last()
                    if positioned:
                        for item in cursor.iterprev():
                            if item[0] < start:
                                break
                            found.append(item)
                            if len(found) == limit:
                                break
                elif cursor.set_range(start):
                    for item in cursor.iternext():
                        if end is not None and item[0] >= end:
                            break
                        found.append(item)
                        if len(found) == limit:
                            break
        except lmdb.Error as error:
            raise _as_ours(error, self._path) from error
        return found

    def count(self, table: str) -> int:
        db = self._db(table)
        try:
            with self._resizing, self._env.begin(db=db) as transaction:
                entries: int = transaction.stat(db)["entries"]
        except lmdb.Error as error:
            raise _as_ours(error, self._path) from error
        return entries

    async def commit(self, writes: Sequence[Write]) -> None:
        for table in {write.table for write in writes}:
            self._db(table)
        lengths = [len(write.key) for write in writes]
        for length in (min(lengths, default=1), max(lengths, default=1)):
            _check_length(length)
        await self._thread.submit(CommitJob(self, writes))

    async def close(self) -> None:
        await self._thread.finish(self.let_go)

    def _db(self, table: str) -> Any:
        try:
            return self._dbs[table]
        except KeyError:
            raise BadInput(f"{self._path} has no table {table!r}") from None

    # ---- on their thread

    def run_group(self, jobs: Sequence[CommitJob]) -> None:
        changes: dict[tuple[str, bytes], bytes | None] = {}
        for job in jobs:
            for write in job.writes:
                changes[write.table, write.key] = write.value
        ordered = sorted(changes.items(), key=_change_key)  # neighbours share pages
        while True:
            try:
                with self._env.begin(write=True) as transaction:
                    for (table, key), value in ordered:
                        if value is None:
                            transaction.delete(key, db=self._dbs[table])
                        else:
                            transaction.put(key, value, db=self._dbs[table])
                return
            except lmdb.MapFullError:
                with self._resizing:
                    self._map_bytes *= MAP_GROWTH
                    self._env.set_mapsize(self._map_bytes)
            except lmdb.Error as error:
                raise _as_ours(error, self._path) from error

    def let_go(self) -> None:
        with _open_lock:
            self._handles -= 1
            if self._handles:
                return
            del _open[self._path]
        with self._resizing:
            self._env.close()
        if self._name != _data(self._path):
            for name in (self._name, f"{self._name}{_LOCK}"):
                with suppress(OSError):  # what stays is the next start's
                    os.unlink(name)


def _data(path: str) -> str:
    return os.path.join(path, "data.mdb")


@contextmanager
def _beside_its_lock(path: str) -> Iterator[str]:
    """A name to open the store in the folder ``path`` by, in memory where there is a place for that.  It stays while this lasts.

    LMDB keeps the file of its locks beside the name that it is opened by, and every reader writes to it, through a mapping.  On a
    disk that hangs such a write does not come back, and with it the thread of all who read."""
    data = _data(path)
    folder = _own_folder()
    if folder is None:
        yield data
        return
    held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(held, fcntl.LOCK_SH)  # without its name LMDB would make an empty store in memory
        yield _named(folder, path, data)
    finally:
        os.close(held)


def _own_folder() -> str | None:
    """None: there is no place, or it is somebody else's."""
    if not os.path.isdir(_MEMORY):
        return None
    folder = os.path.join(_MEMORY, f"ringfort-{os.geteuid()}")
    try:
        with suppress(FileExistsError):
            os.mkdir(folder, 0o700)
        found = os.lstat(folder)
    except OSError:
        return None  # it is full, or can only be read
    ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o077
    return folder if ours else None


def _named(folder: str, path: str, data: str) -> str:
    name = os.path.join(folder, hashlib.sha256(path.encode()).hexdigest()[:32])
    try:
        locks = os.open(f"{name}{_LOCK}", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        try:  # its room in memory, now: a process that writes to a page for which there is none is killed
            os.posix_fallocate(locks, 0, _LOCK_BYTES)
        finally:
            os.close(locks)
        with suppress(FileExistsError):  # of an earlier start
            os.symlink(data, name)
        return name if os.readlink(name) == data else data
    except OSError:
        with suppress(OSError):
            os.unlink(f"{name}{_LOCK}")
        return data


def forget_others() -> None:
    """Names of stores that are gone, whose processes were killed.  On a thread of its own: a disk may hang."""
    folder = _own_folder()
    if folder is None:
        return
    for name in os.listdir(folder):
        with suppress(OSError):
            at = os.path.join(folder, name)
            if os.path.isdir(os.path.dirname(os.readlink(at))):
                continue
            held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)  # else somebody is opening one: another time
                for gone in (at, f"{at}{_LOCK}"):
                    os.unlink(gone)
            finally:
                os.close(held)


def _change_key(change: tuple[tuple[str, bytes], bytes | None]) -> tuple[str, bytes]:
    return change[0]


def _check_key(key: bytes) -> None:
    _check_length(len(key))


def _check_length(length: int) -> None:
    if not 1 <= length <= KEY_BYTES_MAX:
        raise BadInput(f"a key has 1 to {KEY_BYTES_MAX} bytes, not {length}")


def _as_ours(error: lmdb.Error, path: str) -> Exception:
    if isinstance(error, lmdb.DiskError):
        return OSError(errno.ENOSPC, f"tables: {error}", path)
    if isinstance(error, (lmdb.CorruptedError, lmdb.InvalidError, lmdb.PageNotFoundError, lmdb.VersionMismatchError)):
        return FormatError(f"the tables in {path} are damaged: {error}")
    number = getattr(error, "code", 0)  # the system's, or one of LMDB's own, which are negative
    return OSError(number if number > 0 else errno.EIO, f"tables: {error}", path)
