"""RealFile: an open file of a device.

``pread`` is answered inline when the page cache holds what is asked (preadv2 with RWF_NOWAIT), so that a warm read costs
neither a thread switch nor a task switch; a task that reads on and on is made to yield now and then.  Everything that may
wait for the disk runs on the device's I/O thread (thread.py).

Invariant: ``_end`` is where the next append goes and what ``size`` says; only the I/O thread changes it, and only after the
write (and the sync that was asked for) succeeded.
"""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Sequence
from typing import cast

import trio

from ring.world.interface import Buffer
from ring.world.real.thread import IoThread, Job

IOV_MAX = 1024
SCRATCH_BYTES = 1 << 20
READS_BETWEEN_YIELDS = 32
DIRECT_BYTES = 4096  # a multiple of every sector size
_NO_NOWAIT = (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS)


class PageCacheReader:
    """Reads without waiting, for all files of a device; remembers whether its file system can."""

    def __init__(self) -> None:
        self._supported = hasattr(os, "RWF_NOWAIT")
        self._scratch = memoryview(bytearray(SCRATCH_BYTES))
        self.reads = 0

    def read(self, fd: int, offset: int, length: int) -> bytes | None:
        if not self._supported:
            return None
        buffer = self._scratch[:length] if length <= SCRATCH_BYTES else memoryview(bytearray(length))
        try:
            count = os.preadv(fd, [buffer], offset, os.RWF_NOWAIT)
        except BlockingIOError:
            return None
        except OSError as error:
            if error.errno in _NO_NOWAIT:
                self._supported = False
                return None
            raise
        if count < length and offset + count < os.fstat(fd).st_size:
            return None  # only the first part is in the page cache
        return bytes(buffer[:count])


class AppendJob(Job):
    __slots__ = ("buffers", "start", "sync")

    def __init__(self, file: RealFile, buffers: Sequence[Buffer], sync: bool) -> None:
        super().__init__(file)
        self.buffers = buffers
        self.sync = sync
        self.start = 0


class RealFile:
    def __init__(self, thread: IoThread, cache: PageCacheReader, fd: int) -> None:
        self._thread = thread
        self._cache = cache
        self._fd = fd
        self._end = os.fstat(fd).st_size

    def __del__(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)

    def fileno(self) -> int:
        if self._fd < 0:
            raise trio.ClosedResourceError("the file is closed")
        return self._fd

    def size(self) -> int:
        return self._end

    def pread_now(self, offset: int, length: int) -> bytes | None:
        return self._cache.read(self.fileno(), offset, length)

    async def pread(self, offset: int, length: int) -> bytes:
        data = self._cache.read(self.fileno(), offset, length)
        if data is None:
            return await self._thread.read(self._pread, offset, length)
        self._cache.reads += 1
        if self._cache.reads % READS_BETWEEN_YIELDS == 0:
            await trio.lowlevel.checkpoint()
        else:
            await trio.lowlevel.checkpoint_if_cancelled()
        return data

    async def pread_medium(self, offset: int, length: int) -> bytes:
        return await self._thread.read(self._pread_medium, offset, length)

    async def pwrite(self, offset: int, data: Buffer) -> None:
        await self._thread.call(self._pwrite, offset, data)

    async def append(self, buffers: Sequence[Buffer], *, sync: bool) -> int:
        return cast(int, await self._thread.submit(AppendJob(self, buffers, sync)))

    async def sync(self) -> None:
        await self._thread.call(self._sync)

    async def allocate(self, size: int) -> None:
        await self._thread.call(self._allocate, size)

    async def truncate(self, size: int) -> None:
        await self._thread.call(self._truncate, size)

    async def set_xattr(self, name: str, value: bytes) -> None:
        await self._thread.call(self._set_xattr, name, value)

    async def get_xattr(self, name: str) -> bytes | None:
        return await self._thread.read(self._get_xattr, name)

    async def close(self) -> None:
        if self._fd >= 0:
            with trio.CancelScope(shield=True):
                await self._thread.finish(self._close)

    # ---- on the I/O thread

    def _pread(self, offset: int, length: int) -> bytes:
        data = os.pread(self.fileno(), length, offset)
        if len(data) == length or not data:
            return data
        pieces = [data]
        done = len(data)
        while done < length and data:
            data = os.pread(self.fileno(), length - done, offset + done)
            pieces.append(data)
            done += len(data)
        return b"".join(pieces)

    def _pread_medium(self, offset: int, length: int) -> bytes:
        """Whole blocks around what is asked for, into memory that lies as O_DIRECT wants it."""
        start = offset // DIRECT_BYTES * DIRECT_BYTES
        end = min((offset + length + DIRECT_BYTES - 1) // DIRECT_BYTES * DIRECT_BYTES, os.fstat(self.fileno()).st_size)
        if end <= start or length <= 0:
            return b""
        try:
            fd = os.open(f"/proc/self/fd/{self.fileno()}", os.O_RDONLY | os.O_DIRECT | os.O_CLOEXEC)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            return self._pread_dropped(offset, length)  # a file system without it, tmpfs for one
        try:
            with mmap.mmap(-1, (end - start + DIRECT_BYTES - 1) // DIRECT_BYTES * DIRECT_BYTES) as buffer:
                done = 0
                while start + done < end:
                    with memoryview(buffer)[done:] as view:
                        count = os.preadv(fd, [view], start + done)
                    done += count
                    if not count or count % DIRECT_BYTES:
                        break  # the end of the file
                return buffer[offset - start : min(done, offset - start + length)]
        finally:
            os.close(fd)

    def _pread_dropped(self, offset: int, length: int) -> bytes:
        """The next best: have the clean pages dropped before."""
        os.posix_fadvise(self.fileno(), offset, length, os.POSIX_FADV_DONTNEED)
        return self._pread(offset, length)

    def _pwrite(self, offset: int, data: Buffer) -> None:
        write_all(self.fileno(), [data], offset)
        self._end = max(self._end, offset + len(memoryview(data).cast("B")))

    def _sync(self) -> None:
        os.fdatasync(self.fileno())

    def _allocate(self, size: int) -> None:
        os.posix_fallocate(self.fileno(), 0, size)
        self._end = max(self._end, size)

    def _truncate(self, size: int) -> None:
        os.ftruncate(self.fileno(), size)
        self._end = size

    def _set_xattr(self, name: str, value: bytes) -> None:
        os.setxattr(self.fileno(), f"user.{name}", value)

    def _get_xattr(self, name: str) -> bytes | None:
        try:
            return os.getxattr(self.fileno(), f"user.{name}")
        except OSError as error:
            if error.errno == errno.ENODATA:
                return None
            raise

    def _close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def run_group(self, jobs: Sequence[AppendJob]) -> None:
        """Appends that came together: written one after another, synced once."""
        fd = self.fileno()
        before = self._end
        written: list[AppendJob] = []
        end = before
        for job in jobs:
            try:
                length = write_all(fd, job.buffers, end)
            except OSError as error:
                job.error = error
            else:
                job.result = end
                written.append(job)
                end += length
        if any(job.sync for job in written):
            try:
                os.fdatasync(fd)
            except OSError as error:
                # Nobody can say which of them reached the disk: all fail, the unsynced ones as well.
                for job in written:
                    job.error = error
                return
        self._end = end


def write_all(fd: int, buffers: Sequence[Buffer], offset: int) -> int:
    """Write everything at ``offset``, whatever the kernel takes at a time; the number of bytes."""
    views = [memoryview(buffer).cast("B") for buffer in buffers if len(buffer)]
    total = sum(len(view) for view in views)
    at, done = 0, 0
    while at < len(views):
        count = os.pwritev(fd, views[at : at + IOV_MAX], offset + done)
        if count == 0:
            raise OSError(errno.EIO, "the device takes no more bytes")
        done += count
        while at < len(views) and count >= len(views[at]):
            count -= len(views[at])
            at += 1
        if count:
            views[at] = views[at][count:]
    return total
