"""BookTables: a device's Tables whose errors are DiskFaults, so that a failing disk is one kind of error in this room.

Moves nothing and decides nothing else; has the shape of ring.world.interface.Tables.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from typing import Protocol

from ring.errors import DiskFault, DiskFull, FormatError
from ring.world.interface import Disk, Tables, Write

_WHAT = "the tables of this device failed"


class BooksDevice(Protocol):
    """What books need of storage.object.device.OpenDevice."""

    disk: Disk
    tables: Tables

    def fail(self, reason: str, error: BaseException | None = None) -> None: ...

    async def lacks(self, reason: str) -> None: ...

    def check(self) -> None: ...

    def admit(self, size: int) -> None: ...


class BookTables:
    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    def get(self, table: str, key: bytes) -> bytes | None:
        try:
            return self._tables.get(table, key)
        except (OSError, FormatError) as error:
            raise as_fault(error, _WHAT) from error

    def get_many(self, table: str, keys: Sequence[bytes]) -> list[bytes | None]:
        try:
            return self._tables.get_many(table, keys)
        except (OSError, FormatError) as error:
            raise as_fault(error, _WHAT) from error

    def scan(
        self, table: str, start: bytes = b"", end: bytes | None = None, *, limit: int, reverse: bool = False
    ) -> list[tuple[bytes, bytes]]:
        try:
            return self._tables.scan(table, start, end, limit=limit, reverse=reverse)
        except (OSError, FormatError) as error:
            raise as_fault(error, _WHAT) from error

    def count(self, table: str) -> int:
        try:
            return self._tables.count(table)
        except (OSError, FormatError) as error:
            raise as_fault(error, _WHAT) from error

    async def commit(self, writes: Sequence[Write]) -> None:
        try:
            await self._tables.commit(writes)
        except (OSError, FormatError) as error:
            raise as_fault(error, _WHAT) from error

    async def close(self) -> None:
        await self._tables.close()


def as_fault(error: OSError | FormatError, what: str) -> DiskFault:
    """``what`` says what could not be done."""
    if isinstance(error, FormatError):
        return DiskFault(f"{what}: {error.message}", hint=error.hint)
    kind = DiskFull if error.errno in (errno.ENOSPC, errno.EDQUOT) else DiskFault
    return kind(f"{what}: {error.strerror or error}")
