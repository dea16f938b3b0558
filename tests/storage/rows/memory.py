"""Tables as a dict, for tests that need nothing of a world."""

from __future__ import annotations

from collections.abc import Sequence

from ring.world.interface import Write


class MemoryTables:
    def __init__(self) -> None:
        self.data: dict[str, dict[bytes, bytes]] = {}
        self.commits = 0

    def get(self, table: str, key: bytes) -> bytes | None:
        assert 1 <= len(key) <= 511
        return self.data.get(table, {}).get(key)

    def get_many(self, table: str, keys: Sequence[bytes]) -> list[bytes | None]:
        return [self.get(table, key) for key in keys]

    def scan(
        self, table: str, start: bytes = b"", end: bytes | None = None, *, limit: int, reverse: bool = False
    ) -> list[tuple[bytes, bytes]]:
        keys = sorted((k for k in self.data.get(table, {}) if start <= k and (end is None or k < end)), reverse=reverse)
        return [(key, self.data[table][key]) for key in keys[:limit]]

    def count(self, table: str) -> int:
        return len(self.data.get(table, {}))

    def apply(self, writes: Sequence[Write]) -> None:
        for write in writes:
            assert 1 <= len(write.key) <= 511
            rows = self.data.setdefault(write.table, {})
            if write.value is None:
                rows.pop(write.key, None)
            else:
                rows[write.key] = write.value

    async def commit(self, writes: Sequence[Write]) -> None:
        self.apply(writes)
        self.commits += 1

    async def close(self) -> None:
        pass
