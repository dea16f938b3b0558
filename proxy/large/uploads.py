"""Uploads in parts: create, upload a part, list, complete, abort.

Complete and abort are settled by conditional writes on the upload's record (see the package's map), so that only one of them wins;
an attempt that finds another at work with the same parts takes over, with other parts it is refused.  Each attempt stores the same
manifest, so it does no harm when two do.  Only an attempt that nobody took over may open the upload again.

Neighbours: verbs, manifest, records, shelf; sweeper ends what is left half way.
Source: "Uploading and copying objects using multipart upload", S3 user guide.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from proxy.errors import BadPart, BadRequest, PartOrder, PartTooSmall, UploadBusy, UploadNotFound
from proxy.gates.limits import Limits
from proxy.large.manifest import UPLOAD, Manifest, Part, visible
from proxy.large.records import (
    RECORDS,
    VERSION,
    Record,
    State,
    is_id,
    kv_key,
    part_name,
    part_number,
    parts_prefix,
    state_of,
)
from proxy.large.shelf import ENDED, GONE, Held, Shelf
from proxy.operations.objects import ObjectVerbs
from proxy.operations.verbs import AbortUpload, CompleteUpload, CreateUpload, ListParts, ListUploads, UploadPart
from ring.kv.interface import KV, Put
from ring.names import Path
from ring.wire.message import BytesBody
from ring.world.interface import Clock, Entropy
from storage.client.errors import ContainerNotFound, PreconditionFailed
from storage.client.interface import NewObject, ObjectMeta, Row, Storage

_ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class UploadEntry:
    key: str
    upload_id: str
    begun: float


@dataclass(frozen=True, slots=True)
class PartsPage:
    parts: Sequence[Row]
    numbers: Sequence[int]
    truncated: bool


@dataclass(frozen=True, slots=True)
class UploadsPage:
    uploads: Sequence[UploadEntry]
    truncated: bool


class UploadVerbs:
    def __init__(self, storage: Storage, objects: ObjectVerbs, kv: KV, clock: Clock, entropy: Entropy, limits: Limits) -> None:
        self._storage = storage
        self._objects = objects
        self._kv = kv
        self._clock = clock
        self._entropy = entropy
        self._limits = limits

    async def create(self, operation: CreateUpload) -> str:
        """The upload's id.  ContainerNotFound."""
        path = operation.path
        container = path.parent
        book = await self._storage.head_container(container)
        upload_id = self._entropy.uuid().hex
        record = Record(
            VERSION,
            State.OPEN,
            self._entropy.uuid().hex,
            path.object,
            operation.content_type,
            operation.metadata,
            self._clock.now(),
        )
        shelf = self._shelf(container)
        try:
            await shelf.create(upload_id, record)
        except ContainerNotFound:
            # The sweeper learns of the container before the first record can be in it.
            await self._kv.transact([], [Put(kv_key(container.account, container.container), b"")])
            await self._storage.put_container(shelf.path, {}, default=book.policy)
            await shelf.create(upload_id, record)
        return upload_id

    async def upload_part(self, operation: UploadPart) -> ObjectMeta:
        """UploadNotFound, BadDigest, EntityTooLarge, and what the body raises."""
        if not 1 <= operation.number <= self._limits.part_number_max:
            raise BadRequest(
                f"Part number must be an integer between 1 and {self._limits.part_number_max}, inclusive", code="InvalidArgument"
            )
        shelf = self._shelf(operation.path.parent)
        held = await self._held(shelf, operation.path, operation.upload_id)
        if held.record.state is not State.OPEN:
            raise UploadNotFound("The upload does not take parts any more.")
        new = NewObject(etag=operation.etag, metadata=dict(operation.metadata), size_max=self._limits.object_bytes_max)
        name = part_name(operation.upload_id, operation.number, self._entropy.uuid().hex)
        return (await self._storage.put_object(shelf.at(name), new, operation.body)).meta

    async def list_parts(self, operation: ListParts) -> PartsPage:
        """UploadNotFound."""
        shelf = self._shelf(operation.path.parent)
        held = await self._held(shelf, operation.path, operation.upload_id)
        if held.record.state in ENDED:
            raise UploadNotFound("The upload is over.")
        newest = await _newest(shelf, operation.upload_id)
        numbers = [number for number in sorted(newest) if number > operation.after]
        shown = numbers[: operation.limit]
        return PartsPage([newest[number] for number in shown], shown, len(numbers) > len(shown))

    async def list_uploads(self, operation: ListUploads) -> UploadsPage:
        """By key, then id.  ContainerNotFound."""
        await self._storage.head_container(operation.path)
        shelf = self._shelf(operation.path)
        found: list[UploadEntry] = []
        for row in await shelf.rows(RECORDS):
            if state_of(row.content_type) not in (State.OPEN, State.COMPLETING):
                continue
            upload_id = row.name.removeprefix(RECORDS)
            try:
                record = (await shelf.read(upload_id)).record
            except GONE:
                continue  # over since the listing was made
            if record.key.startswith(operation.prefix):
                found.append(UploadEntry(record.key, upload_id, record.begun))
        found.sort(key=lambda entry: (entry.key.encode(), entry.upload_id))
        key, upload_id = operation.after
        if key:
            after = (key.encode(), upload_id or "~")
            found = [entry for entry in found if (entry.key.encode(), entry.upload_id) > after]
        return UploadsPage(found[: operation.limit], len(found) > operation.limit)

    async def complete(self, operation: CompleteUpload) -> ObjectMeta:
        """The object as clients see it.  UploadNotFound, UploadBusy, BadPart, PartOrder, PartTooSmall, PreconditionFailed,
        ContainerNotFound."""
        shelf = self._shelf(operation.path.parent)
        for _ in range(_ATTEMPTS):
            held = await self._held(shelf, operation.path, operation.upload_id)
            record = held.record
            if record.state in ENDED:
                return await self._completed_before(operation)
            fresh = record.state is State.OPEN
            if fresh:
                parts = self._chosen(operation.parts, await _newest(shelf, operation.upload_id))
            else:
                parts = record.parts
                if [(part.number, part.etag) for part in parts] != list(operation.parts):
                    raise UploadBusy("The upload is being completed with other parts.")
            try:
                held = await shelf.advance(operation.upload_id, held, state=State.COMPLETING, parts=parts)
            except PreconditionFailed:
                continue
            return await self._store(operation, shelf, held, fresh)
        raise UploadBusy("The upload is being completed or aborted by others.")

    async def abort(self, operation: AbortUpload) -> None:
        """UploadNotFound, UploadBusy."""
        shelf = self._shelf(operation.path.parent)
        for _ in range(_ATTEMPTS):
            held = await self._held(shelf, operation.path, operation.upload_id)
            if held.record.state in (State.COMPLETE, State.SETTLED):
                raise UploadNotFound("The upload has been completed.")
            if held.record.state is State.COMPLETING:
                raise UploadBusy("The upload is being completed.")
            if held.record.state is State.OPEN:
                try:
                    await shelf.advance(operation.upload_id, held, state=State.DOOMED)
                except PreconditionFailed:
                    continue
            # Nobody can have read these parts as an object, so they need no grace.
            await shelf.remove_parts(operation.upload_id)
            await shelf.remove_record(operation.upload_id)
            return
        raise UploadBusy("The upload is being completed or aborted by others.")

    # ---- within

    def _shelf(self, container: Path) -> Shelf:
        return Shelf(self._storage, self._entropy, container)

    async def _held(self, shelf: Shelf, path: Path, upload_id: str) -> Held:
        if is_id(upload_id):
            try:
                held = await shelf.read(upload_id)
            except GONE:
                pass
            else:
                if held.record.key == path.object:
                    return held
        raise UploadNotFound("The upload does not exist: it may have been aborted or completed.")

    def _chosen(self, asked: Sequence[tuple[int, str]], newest: dict[int, Row]) -> tuple[Part, ...]:
        if not asked:
            raise BadRequest("You must specify at least one part", code="MalformedXML")
        parts: list[Part] = []
        last = 0
        for number, etag in asked:
            if number <= last:
                raise PartOrder("The list of parts was not in ascending order.")
            last = number
            row = newest.get(number)
            if row is None or row.etag != etag:
                raise BadPart(f"Part {number} could not be found, or its ETag is another.")
            parts.append(Part(number, row.name, row.size, row.etag))
        for part in parts[:-1]:
            if part.size < self._limits.part_bytes_min:
                raise PartTooSmall(f"Part {part.number} is smaller than {self._limits.part_bytes_min} bytes.")
        return tuple(parts)

    async def _store(self, operation: CompleteUpload, shelf: Shelf, held: Held, fresh: bool) -> ObjectMeta:
        record = held.record
        manifest = Manifest(operation.upload_id, record.parts)
        new = NewObject(
            content_type=record.content_type,
            metadata={**record.metadata, **manifest.headers()},
            condition=await self._objects.stored_condition(operation.path, operation.condition),
            listing_etag=manifest.etag,
            listing_size=manifest.size,
        )
        try:
            stored = await self._storage.put_object(operation.path, new, BytesBody(manifest.encode()))
        except PreconditionFailed:
            if fresh:
                await self._try_advance(operation.upload_id, shelf, held, State.OPEN, ())
            raise
        await self._try_advance(operation.upload_id, shelf, held, State.COMPLETE, record.parts)
        return visible(stored.meta)

    async def _try_advance(self, upload_id: str, shelf: Shelf, held: Held, state: State, parts: tuple[Part, ...]) -> None:
        with suppress(PreconditionFailed, *GONE):  # then another attempt took over, and ends it
            await shelf.advance(upload_id, held, state=state, parts=parts)

    async def _completed_before(self, operation: CompleteUpload) -> ObjectMeta:
        """A repeated complete is answered as the first was, while its object is there."""
        try:
            stored = await self._storage.head_object(operation.path)
        except GONE:
            stored = None
        if stored is None or stored.metadata.get(UPLOAD) != operation.upload_id:
            raise UploadNotFound("The upload does not exist: it may have been aborted or completed.")
        return visible(stored)


async def _newest(shelf: Shelf, upload_id: str) -> dict[int, Row]:
    """The last upload of each part."""
    newest: dict[int, Row] = {}
    for row in await shelf.rows(parts_prefix(upload_id)):
        number = part_number(row.name)
        old = newest.get(number)
        if old is None or row.timestamp > old.timestamp:
            newest[number] = row
    return newest
