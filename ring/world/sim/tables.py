"""Simulated ordered store: TablesStore lies on a Medium, SimTables is a node's handle of it.

A commit is atomic and durable when it returns; one that a crash interrupts has happened or not.  On a lying drive
(Medium.ignores_sync) commits are remembered so that a crash can take the newest of them back.  Reads of a dead device are
answered, as from mapped pages that are in memory; where LMDB would die of SIGBUS instead, let the node crash.
"""

from __future__ import annotations

import errno
import random
from bisect import bisect_left, insort
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ring.errors import BadInput
from ring.world.interface import Write

if TYPE_CHECKING:
    from ring.world.sim.life import Life
    from ring.world.sim.medium import Medium

KEY_BYTES_MAX = 511
COMMIT_S = 600e-6
WRITE_S = 1e-6


class OrderedMap:
    __slots__ = ("keys", "values")

    def __init__(self) -> None:
        self.keys: list[bytes] = []
        self.values: dict[bytes, bytes] = {}

    def change(self, key: bytes, value: bytes | None) -> None:
        if value is not None:
            if key not in self.values:
                insort(self.keys, key)
            self.values[key] = value
        elif key in self.values:
            del self.values[key]
            del self.keys[bisect_left(self.keys, key)]

    def scan(self, start: bytes, end: bytes | None, limit: int, reverse: bool) -> list[tuple[bytes, bytes]]:
        low = bisect_left(self.keys, start)
        high = len(self.keys) if end is None else bisect_left(self.keys, end)
        if low >= high or limit <= 0:
            return []
        if reverse:
            found = self.keys[max(low, high - limit) : high][::-1]
        else:
            found = self.keys[low : min(high, low + limit)]
        return [(key, self.values[key]) for key in found]


class TablesStore:
    def __init__(self) -> None:
        self.tables: dict[str, OrderedMap] = {}
        self._unsynced: list[list[Write]] = []  # how to take back the commits that a lying drive acknowledged

    def apply(self, writes: Sequence[Write], *, lying: bool) -> None:
        undo = []
        for write in writes:
            table = self.tables[write.table]
            if lying:
                undo.append(Write(write.table, write.key, table.values.get(write.key)))
            table.change(write.key, write.value)
        if lying:
            self._unsynced.append(undo)

    def crash(self, rng: random.Random) -> int:
        """Take back some of the newest unsynced commits; how many."""
        count = rng.randrange(len(self._unsynced) + 1) if self._unsynced else 0
        for _ in range(count):
            for write in reversed(self._unsynced.pop()):
                self.tables[write.table].change(write.key, write.value)
        self._unsynced.clear()
        return count


class SimTables:
    def __init__(self, life: Life, medium: Medium, store: TablesStore, names: Sequence[str], handles: list[SimTables]) -> None:
        self._life = life
        self._medium = medium
        self._store = store
        self.names = tuple(names)
        self._handles = handles  # all open ones of the store
        self._closed = False
        for name in names:
            store.tables.setdefault(name, OrderedMap())

    def get(self, table: str, key: bytes) -> bytes | None:
        self._life.check()
        found = self._table(table)
        _check_key(key)
        return found.values.get(key)

    def get_many(self, table: str, keys: Sequence[bytes]) -> list[bytes | None]:
        return [self.get(table, key) for key in keys]

    def scan(
        self, table: str, start: bytes = b"", end: bytes | None = None, *, limit: int, reverse: bool = False
    ) -> list[tuple[bytes, bytes]]:
        self._life.check()
        found = self._table(table)
        return found.scan(start, end, limit, reverse)

    def count(self, table: str) -> int:
        self._life.check()
        return len(self._table(table).keys)

    async def commit(self, writes: Sequence[Write]) -> None:
        for write in writes:
            self._table(write.table)
            _check_key(write.key)
        writes = list(writes)

        def apply() -> None:
            self._medium.take_room(sum(len(write.key) + len(write.value or b"") for write in writes))
            self._store.apply(writes, lying=self._medium.ignores_sync)

        await self._medium.perform(self._life, COMMIT_S + WRITE_S * len(writes), apply)

    async def close(self) -> None:
        self._closed = True
        if self in self._handles:
            self._handles.remove(self)

    def _table(self, name: str) -> OrderedMap:
        if name not in self.names:
            raise BadInput(f"there is no table {name!r}")
        if self._closed and not self._handles:
            raise OSError(errno.EIO, "the tables are closed")
        return self._store.tables[name]


def _check_key(key: bytes) -> None:
    if not 1 <= len(key) <= KEY_BYTES_MAX:
        raise BadInput(f"a key has 1 to {KEY_BYTES_MAX} bytes, not {len(key)}")
