"""Imports that were asked for: a server-side copy of one of the owner's objects into an image's parts.

Level-triggered, one at a time per worker.  An import that a crash interrupted begins again; one whose data was complete when the
crash came only gets its record.
"""

from __future__ import annotations

from collections.abc import Callable
from zlib import crc32

import msgspec
import trio

from blockgw.client.interface import ImageData, Images, Progress
from blockgw.client.owner import Owner
from compute.images.records import ImageRecord, with_data
from compute.images.store import ImageRecords
from proxy.client.interface import Objects
from ring.errors import BadInput, Conflict, NotFound, RingfortError, Unavailable
from ring.names import Path

RETRY_S = 5.0
PROGRESS_BYTES = 64 << 20


def source_path(source: str, owner: str, objects: Objects) -> Path:
    """The object behind "s3://BUCKET/KEY" or "swift://CONTAINER/OBJECT" of the image's owner.  BadInput."""
    scheme, found, rest = source.partition("://")
    container, slash, name = rest.partition("/")
    if not found or not slash or not container or not name:
        raise BadInput("An import's uri is s3://BUCKET/KEY or swift://CONTAINER/OBJECT.")
    match scheme:
        case "s3":
            bucket = objects.bucket(container, owner)
            if bucket is None:
                raise BadInput(f"There is no bucket {container:.64} of this project.")
            path = Path(bucket.account, bucket.container, name)
        case "swift":
            path = Path(f"AUTH_{owner}", container, name)
        case _:
            raise BadInput("Only objects of this cloud can be imported: s3://BUCKET/KEY or swift://CONTAINER/OBJECT.")
    return path.check()


class ImageAgent:
    def __init__(
        self,
        records: ImageRecords,
        images: Images,
        objects: Objects,
        *,
        me: Owner,
        workers: int,
        log: Callable[[str, str], None],
    ) -> None:
        self._records = records
        self._images = images
        self._objects = objects
        self._me = me
        self._workers = workers
        self._log = log

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            seen = self._records.view.changes
            again = False
            for record in self._records.all():
                if record.status == "importing" and self._owns(record):
                    again |= await self._import(record)
                elif record.status == "saving" and self._left_over(record):
                    again |= await self._give_back(record)
            with trio.move_on_after(RETRY_S if again else float("inf")):
                await self._records.view.wait_change(seen)

    def _owns(self, record: ImageRecord) -> bool:
        return crc32(record.id.encode()) % self._workers == self._me.worker

    def _left_over(self, record: ImageRecord) -> bool:
        """Whether its uploader is dead and nobody else will look after it: of this start of the cloud the same worker does, of an
        earlier start the image's own."""
        held = Owner.parse(record.uploader)
        if held is None or held.cloud != self._me.cloud:
            return self._owns(record)
        return held.worker == self._me.worker and held.incarnation < self._me.incarnation

    async def _give_back(self, record: ImageRecord) -> bool:
        """An upload that its worker's death cut off: the image waits for its data again, unless all of it had come.

        True when it has to be tried again."""
        try:
            try:
                data = await self._images.data(record.id)
            except NotFound:
                await self._images.delete(record.id)
                await self._records.change(record.id, lambda old: msgspec.structs.replace(old, status="queued", uploader=""))
                self._log("image-upload-cut-off", record.id)
            else:
                await self._records.change(record.id, lambda old: with_data(old, data))
        except NotFound:  # the image was deleted meanwhile
            return await self._forget(record.id)
        except (Unavailable, Conflict) as error:
            self._log("image-upload-retry", f"{record.id}: {error.message}")
            return True
        return False

    async def _import(self, record: ImageRecord) -> bool:
        """True when it has to be tried again."""
        done = 0
        async with trio.open_nursery() as nursery:

            def progress(copied: int, total: int | None) -> None:
                nonlocal done
                if copied - done >= PROGRESS_BYTES:
                    done = copied
                    nursery.start_soon(self._note, record.id, copied)

            try:
                try:
                    data = await self._copied(record, progress)
                except Unavailable as error:
                    self._log("image-import-retry", f"{record.id}: {error.message}")
                    return True
                except RingfortError as error:
                    message = error.message
                    self._log("image-import-failed", f"{record.id}: {message}")
                    await self._records.change(
                        record.id, lambda old: msgspec.structs.replace(old, status="queued", message=message)
                    )
                    return False
                await self._records.change(record.id, lambda old: msgspec.structs.replace(with_data(old, data), imported=data.size))
                self._log("image-imported", f"{record.id} {data.size} bytes")
                return False
            except (Unavailable, Conflict) as error:  # of the record
                self._log("image-import-retry", f"{record.id}: {error.message}")
                return True
            except NotFound:  # the image was deleted meanwhile: then so is what came
                return await self._forget(record.id)

    async def _copied(self, record: ImageRecord, progress: Progress) -> ImageData:
        path = source_path(record.source, record.owner, self._objects)
        try:
            return await self._images.data(record.id)
        except NotFound:
            return await self._images.copy(record.id, path, progress=progress)

    async def _forget(self, image_id: str) -> bool:
        try:
            await self._images.delete(image_id)
        except RingfortError as error:
            self._log("image-rest-stays", f"{image_id}: {error.message}")
        return False

    async def _note(self, image_id: str, copied: int) -> None:
        try:
            await self._records.change(image_id, lambda old: msgspec.structs.replace(old, imported=max(copied, old.imported)))
        except RingfortError as error:
            self._log("image-progress-late", f"{image_id}: {error.message}")
