"""Large objects: one file each, written unnamed, made durable, then named; read in checked blocks.

A file is not an object until its record is in the log (store.py): one that is named and has no record is an orphan, which the
auditor sweeps.  The checksum of every block of 1 MiB is kept in the record.  A reader checks a block, which brings it into the page
cache, and passes it on as a FileSlice, so that its bytes are not copied again; a bad block ends the reading before its bytes leave.
Format: docs/formats/file.md.
"""

from __future__ import annotations

import errno
import struct
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import trio

from ring.errors import BadInput, DiskFault, DiskFull, FormatError, NewerFormat
from ring.timestamp import Timestamp
from ring.wire.message import FileSlice, Piece
from ring.world.interface import Buffer, Disk, File, OpenMode
from storage.object.device import FILES
from storage.object.record import FileInfo

BLOCK_BYTES = 1 << 20
XATTR = "ringfort"
_IDENTITY = struct.Struct(">4s16s12sQI")  # magic, hash, version, size, crc32 of the block checksums
_IDENTITY_MAGIC = b"RFf\x01"
_SERIAL_MAX = 99


@dataclass(frozen=True, slots=True)
class Identity:
    """What an extended attribute says of a file, so that an orphan can be told from rubbish."""

    hash: bytes
    timestamp: Timestamp
    size: int
    checksum: int

    def encode(self) -> bytes:
        body = _IDENTITY.pack(_IDENTITY_MAGIC, self.hash, self.timestamp.pack(), self.size, self.checksum)
        return body + zlib.crc32(body).to_bytes(4, "big")

    @classmethod
    def decode(cls, data: Buffer) -> Identity:
        if len(data) != _IDENTITY.size + 4 or zlib.crc32(memoryview(data)[:-4]) != int.from_bytes(data[-4:], "big"):
            raise FormatError("the file's identity is damaged")
        magic, digest, version, size, checksum = _IDENTITY.unpack_from(data)
        if magic[:3] == _IDENTITY_MAGIC[:3] and magic[3] > _IDENTITY_MAGIC[3]:
            raise NewerFormat("a file's identity", magic[3], _IDENTITY_MAGIC[3])
        if magic != _IDENTITY_MAGIC:
            raise FormatError("the file's identity has another format")
        return cls(digest, Timestamp.unpack(version), size, checksum)


def file_name(name_hash: bytes, timestamp: Timestamp, serial: int) -> str:
    name = f"{name_hash.hex()}-{timestamp.pack().hex()}"
    return f"{name}-{serial}" if serial else name


def file_folder(name_hash: bytes) -> str:
    return f"{FILES}/{name_hash.hex()[:3]}"


def file_path(name_hash: bytes, timestamp: Timestamp, serial: int) -> str:
    return f"{file_folder(name_hash)}/{file_name(name_hash, timestamp, serial)}"


def hash_of(name: str) -> bytes | None:
    """The hash that a file's name begins with; None when it is not a name of ours."""
    try:
        digest = bytes.fromhex(name.partition("-")[0])
    except ValueError:
        return None
    return digest if len(digest) == 16 else None


def version_in(name: str) -> Timestamp | None:
    """From a file's name; None when it is not a name of ours."""
    parts = name.split("-")
    try:
        return Timestamp.unpack(bytes.fromhex(parts[1]))
    except (IndexError, ValueError, BadInput):
        return None


def disk_fault(device_id: int, doing: str, error: OSError) -> DiskFault:
    kind = DiskFull if error.errno in (errno.ENOSPC, errno.EDQUOT) else DiskFault
    return kind(f"device {device_id} could not {doing}: {error.strerror or error}")


class FileWriter:
    """A file being written.  Errors are OSError; after one, ``discard`` it."""

    def __init__(self, disk: Disk, name_hash: bytes, file: File, block_bytes: int = BLOCK_BYTES) -> None:
        self._disk = disk
        self._block_bytes_max = block_bytes
        self._hash = name_hash
        self._file = file
        self._pieces: list[Buffer] = []  # of the block that is not full yet
        self._block_bytes = 0  # in them
        self._checksum = 0  # of them
        self._crcs = bytearray()
        self.size = 0

    @classmethod
    async def begin(cls, disk: Disk, name_hash: bytes, size: int | None, *, block_bytes: int = BLOCK_BYTES) -> FileWriter:
        """``block_bytes``: what has a checksum of its own."""
        file = await disk.open_unnamed(file_folder(name_hash))
        if size:
            try:
                await file.allocate(size)
            except BaseException:
                await file.close()
                raise
        return cls(disk, name_hash, file, block_bytes)

    async def write(self, data: Buffer) -> None:
        view = memoryview(data).cast("B")
        at = 0
        while at < len(view):
            take = min(self._block_bytes_max - self._block_bytes, len(view) - at)
            piece = view[at : at + take]
            self._checksum = zlib.crc32(piece, self._checksum)
            self._block_bytes += take
            self.size += take
            at += take
            if self._block_bytes == self._block_bytes_max:
                self._pieces.append(piece)
                await self._write_block()
            elif take == len(data) and isinstance(data, bytes):
                self._pieces.append(data)
            else:
                self._pieces.append(bytes(piece))  # the caller may use its buffer again

    async def finish(self, timestamp: Timestamp) -> None:
        """Make the data durable."""
        if self._block_bytes:
            await self._write_block()
        if self._file.size() != self.size:
            await self._file.truncate(self.size)
        await self._file.set_xattr(XATTR, Identity(self._hash, timestamp, self.size, zlib.crc32(self._crcs)).encode())
        await self._file.sync()

    async def link(self, timestamp: Timestamp) -> FileInfo:
        """Give it its name.  An orphan that has that name already (a crash before its record) is left to the auditor."""
        for serial in range(_SERIAL_MAX + 1):
            try:
                await self._disk.link(self._file, file_path(self._hash, timestamp, serial))
                return FileInfo(serial, self._block_bytes_max, bytes(self._crcs))
            except FileExistsError:
                if serial == _SERIAL_MAX:
                    raise
        raise AssertionError("unreachable")

    def info(self, serial: int) -> FileInfo:
        """What its record will say, but for the checksum of a last block that is not full."""
        return FileInfo(serial, self._block_bytes_max, bytes(self._crcs) + bytes(4 if self._block_bytes else 0))

    @property
    def checksums(self) -> bytes:
        """Of the blocks so far, a last one that is not full included."""
        return bytes(self._crcs) + (self._checksum.to_bytes(4, "big") if self._block_bytes else b"")

    async def discard(self) -> None:
        """Close it; without a name it is gone."""
        self._pieces.clear()
        with trio.CancelScope(shield=True):
            await self._file.close()

    async def _write_block(self) -> None:
        pieces = self._pieces
        block = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        await self._file.pwrite(self.size - self._block_bytes, block)
        self._crcs += self._checksum.to_bytes(4, "big")
        self._pieces = []
        self._block_bytes = self._checksum = 0


class FilePieces:
    """The checked blocks of a file between two offsets; an async iterator that must be closed."""

    def __init__(self, file: File, info: FileInfo, size: int, start: int, end: int, bad: Callable[[str], DiskFault]) -> None:
        self._file = file
        self._info = info
        self._size = size
        self._at = start
        self._end = end
        self._bad = bad

    def __aiter__(self) -> FilePieces:
        return self

    async def __anext__(self) -> Piece:
        if self._at >= self._end:
            raise StopAsyncIteration
        block, inside = divmod(self._at, self._info.block_bytes)
        problem = await block_problem(self._file, self._info, self._size, block)
        if problem:
            raise self._bad(problem)
        length = min(self._info.block_bytes - inside, self._end - self._at)
        piece = FileSlice(self._file, self._at, length)
        self._at += length
        return piece

    async def aclose(self) -> None:
        self._at = self._end
        await self._file.close()


async def block_problem(file: File, info: FileInfo, size: int, block: int) -> str:
    """What is wrong with one block; "" when it is good."""
    start = block * info.block_bytes
    length = min(info.block_bytes, size - start)
    try:
        data = file.pread_now(start, length)
        if data is None:
            data = await file.pread(start, length)
    except OSError as error:
        return f"block {block} cannot be read ({error.strerror or error})"
    if len(data) != length:
        return f"block {block} is cut off"
    if zlib.crc32(data).to_bytes(4, "big") != info.crcs[4 * block : 4 * block + 4]:
        return f"block {block} has another checksum than when it was written"
    return ""


async def file_problem(disk: Disk, path: str, info: FileInfo, size: int) -> str:
    """What is wrong with a whole file; "" when it is good."""
    try:
        file = await disk.open(path, OpenMode.READ)
    except FileNotFoundError:
        return "its file is gone"
    except OSError as error:
        return f"its file cannot be opened ({error.strerror or error})"
    try:
        for block in range((size + info.block_bytes - 1) // info.block_bytes):
            problem = await block_problem(file, info, size, block)
            if problem:
                return problem
        return ""
    finally:
        await file.close()


async def open_pieces(
    disk: Disk, path: str, info: FileInfo, size: int, start: int, end: int, bad: Callable[[str], DiskFault]
) -> FilePieces:
    """FileNotFoundError when there is no such file (any more)."""
    return FilePieces(await disk.open(path, OpenMode.READ), info, size, start, end, bad)


async def remove(disk: Disk, path: str) -> None:
    """Gone when it returns; also when it was gone before."""
    with suppress(FileNotFoundError):
        await disk.unlink(path)
