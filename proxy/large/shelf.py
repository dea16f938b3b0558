"""The hidden container where one container's records and parts are, and the few things done to it.

Neighbours: uploads and sweeper decide; storage.client stores.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import msgspec

from proxy.large.reader import hidden
from proxy.large.records import Record, State, content_type, decode, encode, parts_prefix, record_name
from ring.names import Path
from ring.wire.message import BytesBody
from ring.world.interface import Entropy
from storage.client.bodies import drained
from storage.client.errors import ContainerNotFound, ObjectNotFound
from storage.client.interface import Condition, NewObject, Prefix, Query, Row, Storage

PAGE = 1000
GONE = (ObjectNotFound, ContainerNotFound)


@dataclass(frozen=True, slots=True)
class Held:
    """A record as it was read or written, with the ETag that proves nobody has changed it since."""

    record: Record
    etag: str


class Shelf:
    def __init__(self, storage: Storage, entropy: Entropy, container: Path) -> None:
        self._storage = storage
        self._entropy = entropy
        self.path = hidden(container)

    def at(self, name: str) -> Path:
        return Path(self.path.account, self.path.container, name)

    async def read(self, upload_id: str) -> Held:
        """ObjectNotFound, or ContainerNotFound when nothing was ever uploaded in parts here."""
        reading = await self._storage.get_object(self.at(record_name(upload_id)))
        return Held(decode(await drained(reading.pieces)), reading.meta.etag)

    async def create(self, upload_id: str, record: Record) -> None:
        """ContainerNotFound when the shelf is not there yet."""
        await self._write(upload_id, record, Condition(if_none_match=("*",)))

    async def advance(self, upload_id: str, held: Held, **changes: object) -> Held:
        """Write the record anew, if it is still the one that was ``held``.  PreconditionFailed."""
        record = msgspec.structs.replace(held.record, attempt=self._entropy.uuid().hex, **changes)
        return Held(record, await self._write(upload_id, record, Condition(if_match=(held.etag,))))

    async def _write(self, upload_id: str, record: Record, condition: Condition) -> str:
        new = NewObject(content_type=content_type(record.state), condition=condition)
        stored = await self._storage.put_object(self.at(record_name(upload_id)), new, BytesBody(encode(record)))
        return stored.meta.etag

    async def rows(self, prefix: str) -> list[Row]:
        """Every row below ``prefix``; none when the shelf is not there."""
        rows: list[Row] = []
        marker = ""
        while True:
            page = await self.page(prefix, "", marker)
            rows += [item for item in page if isinstance(item, Row)]
            if len(page) < PAGE:
                return rows
            marker = page[-1].name

    async def page(self, prefix: str, delimiter: str, marker: str) -> Sequence[Row | Prefix]:
        """The next items after ``marker``; fewer than PAGE are the last ones."""
        query = Query(prefix=prefix, delimiter=delimiter, marker=marker, limit=PAGE)
        try:
            return (await self._storage.list_container(self.path, query)).items
        except ContainerNotFound:
            return ()

    async def remove_parts(self, upload_id: str, *, keep: frozenset[str] = frozenset(), before: float | None = None) -> int:
        """Remove parts that are not in ``keep`` and older than ``before`` (wall seconds); how many others are left."""
        left = 0
        for row in await self.rows(parts_prefix(upload_id)):
            if row.name in keep or (before is not None and row.timestamp.seconds >= before):
                left += 1
            else:
                await self._remove(row.name)
        return left

    async def remove_record(self, upload_id: str) -> None:
        await self._remove(record_name(upload_id))

    async def _remove(self, name: str) -> None:
        with suppress(*GONE):  # somebody was faster
            await self._storage.delete_object(self.at(name))


ENDED = frozenset((State.COMPLETE, State.SETTLED, State.DOOMED))
