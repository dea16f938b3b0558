"""Server records in kv: read from this process's view, changed by compare and set."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from compute.servers.records import SERVERS, ServerRecord, decode, encode
from ring.errors import Conflict, NotFound
from ring.kv.interface import KV, Delete, Entry, Put, Unchanged
from ring.kv.view import View
from ring.world.interface import World

TRIES = 8


class ServerRecords:
    def __init__(self, world: World, kv: KV, view: View[Entry]) -> None:
        """``view``: of ``servers/``, run by the caller."""
        self._world = world
        self._kv = kv
        self.view = view

    def find(self, server_id: str) -> ServerRecord:
        entry = self.view.get(SERVERS + server_id)
        if entry is None:
            raise NotFound(f"Instance {server_id} could not be found.")
        return decode(entry.value)

    def all(self) -> list[ServerRecord]:
        """Newest first."""
        found = [decode(entry.value) for _, entry in self.view.items(SERVERS)]
        return sorted(found, key=lambda record: (record.created, record.id), reverse=True)

    async def create(self, record: ServerRecord) -> None:
        outcome = await self._kv.transact([Unchanged(SERVERS + record.id, 0)], [Put(SERVERS + record.id, encode(record))])
        await self.view.wait(outcome.revision)
        if not outcome.succeeded:
            raise Conflict(f"Server {record.id} already exists.")

    async def change(self, server_id: str, change: Callable[[ServerRecord], ServerRecord]) -> ServerRecord:
        """Read, change, compare and set; again when someone was faster.  ``change`` may raise; the same record
        back writes nothing."""
        for _ in range(TRIES):
            entry = self.view.get(SERVERS + server_id)
            if entry is None:
                raise NotFound(f"Instance {server_id} could not be found.")
            old = decode(entry.value)
            new = change(old)
            if new == old:
                return old
            new = msgspec.structs.replace(new, updated=self._world.clock.now())
            outcome = await self._kv.transact([Unchanged(entry.key, entry.modified)], [Put(entry.key, encode(new))])
            await self.view.wait(outcome.revision)
            if outcome.succeeded:
                return new
        raise Conflict(f"Instance {server_id} is being changed by others; try again.")

    async def delete(self, server_id: str) -> None:
        outcome = await self._kv.transact([], [Delete(SERVERS + server_id)])
        await self.view.wait(outcome.revision)
