"""World: every effect that product code can have, as interfaces.

``ring.world.real`` is the machine; ``ring.world.sim`` is a seeded imitation with faults.  Product code takes a World
(or one member of it) in its constructor and calls neither ``time`` nor ``os`` nor ``socket`` itself.  Durations come from
trio's clock (``trio.current_time``, ``trio.move_on_after``), which the simulator replaces by a virtual one.

Neighbours: everything above ring.  Contract suites in ``tests/contract`` run on both worlds.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol, TypeVar
from uuid import UUID

import msgspec

T = TypeVar("T")
Buffer = bytes | bytearray | memoryview


class Clock(Protocol):
    def now(self) -> float:
        """Wall time, seconds since 1970.  May step; only timestamps and dates are made of it."""


# ---- network


@dataclass(frozen=True, slots=True)
class TcpAddress:
    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class UnixAddress:
    """A stream socket on this machine.  The real world also serves paths longer than the kernel's 108 bytes."""

    path: str

    def __str__(self) -> str:
        return f"unix:{self.path}"


Address = TcpAddress | UnixAddress


class Stream(Protocol):
    """A connected byte stream.  One task may receive while another sends; two senders at once are a bug."""

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """Some bytes; b"" at the peer's end of stream.  trio.BrokenResourceError when the connection is lost."""

    async def send_all(self, data: Buffer) -> None: ...

    async def send_eof(self) -> None: ...

    async def send_file(self, file: File, offset: int, length: int) -> None:
        """Send ``length`` bytes of ``file``; by sendfile(2) where the real world can."""

    async def aclose(self) -> None: ...


class Listener(Protocol):
    @property
    def address(self) -> Address:
        """Where it listens; a port asked for as 0 is the one the system chose."""

    async def accept(self) -> Stream: ...

    async def aclose(self) -> None: ...


class Net(Protocol):
    async def listen(self, address: Address, *, backlog: int = 1024) -> Listener:
        """Raises OSError (EADDRINUSE, EACCES, ...).  A stale unix socket file is replaced; a live one is EADDRINUSE."""

    async def connect(self, address: Address) -> Stream:
        """Raises OSError.  No timeout of its own: wrap it in a cancel scope."""


# ---- disk

HUNG_S = 20.0  # an operation that the system does not come back from has failed after this time


class OpenMode(Enum):
    READ = "read"  # must exist
    WRITE = "write"  # must exist; read and write
    CREATE = "create"  # must not exist (FileExistsError); read and write; its name is durable when open returns


@dataclass(frozen=True, slots=True)
class FileInfo:
    size: int
    is_dir: bool
    modified: float


class File(Protocol):
    """An open file.  Offsets and lengths are bytes.  Errors are OSError (EIO, ENOSPC, ...), as the system gave them.

    ETIMEDOUT: the disk does not answer, for HUNG_S or more; what was asked may happen yet, but never after anything that succeeds
    later on this disk."""

    def size(self) -> int:
        """The size as known to this handle: at open, plus what was written through it."""

    def pread_now(self, offset: int, length: int) -> bytes | None:
        """Read without waiting: None when the page cache does not hold it (RWF_NOWAIT)."""

    async def pread(self, offset: int, length: int) -> bytes:
        """Read; fewer bytes than asked only at the end of the file."""

    async def pread_medium(self, offset: int, length: int) -> bytes:
        """Read what the device itself holds, past the page cache (O_DIRECT): after a failed sync the cache says what was meant."""

    async def pwrite(self, offset: int, data: Buffer) -> None: ...

    async def append(self, buffers: Sequence[Buffer], *, sync: bool) -> int:
        """Write the buffers one after another at the end, then fdatasync if ``sync``: one trip to the device's thread.

        Returns the offset of the first byte.  After an error the handle's size is unchanged and what the file holds
        beyond it is unknown."""

    async def sync(self) -> None:
        """fdatasync.  After an error the file's unsynced content is lost or unknown: do not retry and believe."""

    async def allocate(self, size: int) -> None:
        """posix_fallocate; size grows to it."""

    async def truncate(self, size: int) -> None: ...

    async def set_xattr(self, name: str, value: bytes) -> None:
        """In the user namespace: "user." is put before ``name``."""

    async def get_xattr(self, name: str) -> bytes | None: ...

    async def close(self) -> None: ...


class Write(msgspec.Struct, frozen=True):
    """One change of a batch: ``value`` None deletes."""

    table: str
    key: bytes
    value: bytes | None


class Tables(Protocol):
    """Ordered byte-string maps in one store (LMDB), several named tables in it.

    Keys are 1 to 511 bytes.  Reads see every commit that returned.  A commit is atomic and durable when it returns.
    Table names must be among those given at open."""

    def get(self, table: str, key: bytes) -> bytes | None: ...

    def get_many(self, table: str, keys: Sequence[bytes]) -> list[bytes | None]:
        """``get`` of each, in one look."""

    def scan(
        self, table: str, start: bytes = b"", end: bytes | None = None, *, limit: int, reverse: bool = False
    ) -> list[tuple[bytes, bytes]]:
        """At most ``limit`` pairs with start <= key < end (end None: no bound), in key order, or descending from the
        greatest key below ``end`` if ``reverse``."""

    def count(self, table: str) -> int:
        """How many keys it has; costs nothing."""

    async def commit(self, writes: Sequence[Write]) -> None: ...

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Space:
    total_bytes: int
    free_bytes: int
    read_only: bool = False  # it is mounted so


class Disk(Protocol):
    """One device's file system below one root.  Paths are relative and '/'-separated, "" is the root; '..' is refused
    (BadInput).

    A root can be anchored: then whatever is asked by a path fails with ENODEV once another folder, or none, is at the root than was
    there (its file system was unmounted, or another one was mounted over it).  So nothing is looked for, and nothing written, in a
    folder that only has its place.  Open files go on as the system lets them: they are still those of the folder that was."""

    root: str

    async def anchor(self) -> None:
        """Keep to the folder that is at the root now.  OSError when none is."""

    def bar(self) -> None:
        """Fail with ENODEV, whatever is asked by a path, until it is anchored.  Only the root itself can still be made."""

    async def open(self, path: str, mode: OpenMode) -> File: ...

    async def open_unnamed(self, folder: str) -> File:
        """O_TMPFILE in ``folder``: gone at a crash unless linked."""

    async def link(self, file: File, path: str) -> None:
        """Give an unnamed file a name (FileExistsError if taken) and fsync the folder.  The file's data must be synced
        before."""

    async def rename(self, source: str, target: str) -> None:
        """Atomic, replaces ``target``; durable when it returns (both folders fsynced)."""

    async def unlink(self, path: str) -> None:
        """Durable when it returns.  FileNotFoundError if absent."""

    async def make_dirs(self, path: str) -> None:
        """mkdir -p, durable when it returns."""

    async def make_dirs_many(self, paths: Sequence[str]) -> None:
        """mkdir -p of each in one trip, durable when it returns; each parent folder is fsynced once."""

    async def list_dir(self, path: str) -> list[str]:
        """Sorted names."""

    async def info(self, path: str) -> FileInfo | None:
        """None when nothing has this name (ENOENT); other errors are raised."""

    async def read_file(self, path: str) -> bytes: ...

    async def replace_file(self, path: str, data: bytes, *, mode: int = 0o644) -> None:
        """Write a temporary file, fsync, rename, fsync the folder: the one way small files are written."""

    async def open_tables(self, path: str, tables: Sequence[str], *, map_bytes: int = 1 << 36) -> Tables:
        """Open or create a Tables store in the folder ``path``.  One handle per store per process."""

    async def space(self) -> Space: ...


# ---- the rest


class Entropy(Protocol):
    def token(self, length: int) -> bytes:
        """Unpredictable bytes, for keys and nonces."""

    def uuid(self) -> UUID: ...


class Offload(Protocol):
    async def run(self, call: Callable[..., T], *args: object) -> T:
        """Run a blocking or cpu-heavy call on a thread; inline in the simulator.  Not cancelled half way."""


class Child(Protocol):
    pid: int

    async def wait(self) -> int:
        """The exit status; negative for a signal."""

    def signal(self, number: int) -> None:
        """Send it a signal; nothing happens when it is gone."""


class Process(Protocol):
    async def start(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        log_path: str | None = None,
        pass_fds: Sequence[int] = (),
    ) -> Child:
        """Start a program (never a shell); stdin is empty, stdout and stderr go to ``log_path`` or are inherited."""

    async def run(self, argv: Sequence[str], *, input: bytes = b"", timeout_s: float = 60.0) -> tuple[int, bytes, bytes]:
        """Run to the end: exit status, stdout, stderr.  Killed at the timeout (status -9)."""


@dataclass(frozen=True, slots=True)
class World:
    clock: Clock
    net: Net
    rng: random.Random
    entropy: Entropy
    offload: Offload
    process: Process
    open_disk: Callable[[str], Disk]  # root folder -> its Disk; the same root gives the same Disk
