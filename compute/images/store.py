"""Image records in kv: read from this process's view, changed by compare and set."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from compute.images.records import IMAGES, ImageRecord, decode, encode, visible_to
from identity.client.interface import Access
from ring.errors import Conflict, NotFound
from ring.kv.interface import KV, Delete, Entry, Put, Unchanged
from ring.kv.view import View
from ring.world.interface import World

TRIES = 8


class ImageRecords:
    def __init__(self, world: World, kv: KV, view: View[Entry]) -> None:
        """``view``: of ``images/``, run by the caller."""
        self._world = world
        self._kv = kv
        self.view = view

    def find(self, image_id: str) -> ImageRecord:
        entry = self.view.get(IMAGES + image_id)
        if entry is None:
            raise NotFound(f"No image found with ID {image_id}")
        return decode(entry.value)

    def usable(self, access: Access, image_id: str) -> bool:
        """Whether a caller may make a volume from an image: it is active, and visible to them."""
        entry = self.view.get(IMAGES + image_id)
        record = decode(entry.value) if entry is not None else None
        return record is not None and record.status == "active" and visible_to(record, access)

    def all(self) -> list[ImageRecord]:
        """Newest first."""
        found = [decode(entry.value) for _, entry in self.view.items(IMAGES)]
        return sorted(found, key=lambda record: (record.created, record.id), reverse=True)

    async def create(self, record: ImageRecord) -> None:
        """Conflict when the id is taken."""
        outcome = await self._kv.transact([Unchanged(IMAGES + record.id, 0)], [Put(IMAGES + record.id, encode(record))])
        await self.view.wait(outcome.revision)
        if not outcome.succeeded:
            raise Conflict(f"Image ID {record.id} already exists!")

    async def change(self, image_id: str, change: Callable[[ImageRecord], ImageRecord]) -> ImageRecord:
        """Read, change, compare and set; again when someone was faster.  ``change`` may raise."""
        for _ in range(TRIES):
            entry = self.view.get(IMAGES + image_id)
            if entry is None:
                raise NotFound(f"No image found with ID {image_id}")
            new = msgspec.structs.replace(change(decode(entry.value)), updated=self._world.clock.now())
            outcome = await self._kv.transact([Unchanged(entry.key, entry.modified)], [Put(entry.key, encode(new))])
            await self.view.wait(outcome.revision)
            if outcome.succeeded:
                return new
        raise Conflict(f"Image {image_id} is being changed by others; try again.")

    async def delete(self, image_id: str) -> None:
        outcome = await self._kv.transact([], [Delete(IMAGES + image_id)])
        await self.view.wait(outcome.revision)
