"""ImageStore: bytes of images as immutable objects (implements blockgw.client.interface.Images).

Parts are PART_BYTES long, named ``<attempt, 16 hex>-<number, 8 hex>`` in the hidden account's container ``<image id>``; an attempt
that failed shares no name with the next.  The manifest is the kv record ``blockgw/images/<image id>``: writing it publishes the
image.  Beside it
``blockgw/image-uses/<image id>/<volume id>`` marks every volume that reads from it; making one touches the manifest, so that a
delete which did not see it fails its compare.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator

import msgspec
import trio

from blockgw.client.interface import ImageData, Progress
from blockgw.images.inspect import HEAD_BYTES, inspect
from blockgw.volume.layers import Base
from proxy.client.interface import Objects
from ring.errors import BadInput, Conflict, NotFound, RingfortError, Unavailable
from ring.kv.interface import KV, Delete, Entry, Operation, Put, Unchanged
from ring.names import HIDDEN, Path
from ring.wire.message import BytesBody, Piece
from ring.world.interface import World
from storage.client.bodies import aclose, loaded
from storage.client.errors import ContainerNotFound, ObjectNotFound
from storage.client.interface import BodySource, NewObject, Query, Reading, Row, Storage

ACCOUNT = HIDDEN + "images"
PART_BYTES = 4 << 20
IN_FLIGHT = 3
MANIFESTS = "blockgw/images/"
USES = "blockgw/image-uses/"
CLEANUP_S = 30.0


class Manifest(msgspec.Struct, frozen=True):
    attempt: str
    size: int
    part_bytes: int
    md5: str
    sha512: str
    disk_format: str
    virtual_size: int

    @property
    def parts(self) -> int:
        return -(-self.size // self.part_bytes)

    def path(self, image_id: str, number: int) -> Path:
        return Path(ACCOUNT, image_id, f"{self.attempt}-{number:08x}")


class ImageStore:
    def __init__(self, world: World, storage: Storage, objects: Objects, kv: KV) -> None:
        self._world = world
        self._storage = storage
        self._objects = objects
        self._kv = kv

    async def store(self, image_id: str, body: BodySource, *, progress: Progress | None = None) -> ImageData:
        if await self._kv.get(MANIFESTS + image_id) is not None:
            raise Conflict(f"image {image_id} has its data already")
        container = Path(ACCOUNT, image_id)
        await self._storage.put_container(container, {})
        attempt = self._world.entropy.token(8).hex()
        try:
            manifest = await self._parts(image_id, attempt, body, progress)
        except BaseException:
            await self._take_back(container, attempt)
            raise
        # A failure here says nothing of whether the manifest is written, so the parts stay; the image's delete removes them.
        outcome = await self._kv.transact(
            [Unchanged(MANIFESTS + image_id, 0)], [Put(MANIFESTS + image_id, msgspec.json.encode(manifest))]
        )
        if not outcome.succeeded:
            await self._take_back(container, attempt)
            raise Conflict(f"image {image_id} has its data already")
        return _data(manifest)

    async def copy(self, image_id: str, source: Path, *, progress: Progress | None = None) -> ImageData:
        reading = await self._objects.read(source)
        try:
            return await self.store(image_id, _ReadingBody(reading), progress=progress)
        finally:
            await aclose(reading.pieces)

    async def read(self, image_id: str, *, offset: int = 0, length: int | None = None) -> AsyncIterator[Piece]:
        manifest, _ = await self._manifest(image_id)
        end = manifest.size if length is None else min(manifest.size, offset + length)
        return self._read(image_id, manifest, offset, end)

    async def delete(self, image_id: str) -> None:
        while True:
            try:
                _, entry = await self._manifest(image_id)
            except NotFound:
                break
            if await self._kv.range(f"{USES}{image_id}/", limit=1):
                raise Conflict(f"image {image_id} is in use: a volume reads from it", hint="delete its volumes first")
            if (await self._kv.transact([Unchanged(entry.key, entry.modified)], [Delete(entry.key)])).succeeded:
                break
        await self._remove(Path(ACCOUNT, image_id), "")
        try:
            await self._storage.delete_container(Path(ACCOUNT, image_id))
        except ContainerNotFound:
            return

    async def data(self, image_id: str) -> ImageData:
        """NotFound."""
        return _data((await self._manifest(image_id))[0])

    async def base(self, image_id: str) -> Base:
        """For a volume that reads from the image.  NotFound; BadInput when the image is not a raw disk."""
        manifest, _ = await self._manifest(image_id)
        _check_raw(image_id, manifest)
        return Base([manifest.path(image_id, n) for n in range(manifest.parts)], manifest.part_bytes, manifest.size)

    async def use(self, image_id: str, volume_id: str) -> tuple[list[Unchanged], list[Operation], int]:
        """What a transaction that makes a volume from the image has to add; and how many bytes the volume needs at least."""
        manifest, entry = await self._manifest(image_id)
        _check_raw(image_id, manifest)
        operations: list[Operation] = [Put(entry.key, entry.value), Put(f"{USES}{image_id}/{volume_id}", b"")]
        return [Unchanged(entry.key, entry.modified)], operations, manifest.virtual_size

    async def _manifest(self, image_id: str) -> tuple[Manifest, Entry]:
        entry = await self._kv.get(MANIFESTS + image_id)
        if entry is None:
            raise NotFound(f"image {image_id} has no data")
        return msgspec.json.decode(entry.value, type=Manifest), entry

    async def _parts(self, image_id: str, attempt: str, body: BodySource, progress: Progress | None) -> Manifest:
        """Cut the body into parts, a few on their way to storage at a time."""
        md5, sha512 = hashlib.md5(usedforsecurity=False), hashlib.sha512()
        slots = trio.Semaphore(IN_FLIGHT)
        failures: list[RingfortError] = []
        size, number, head = 0, 0, b""

        async def put(name: Path, data: bytes) -> None:
            try:
                await self._storage.put_object(name, NewObject(), BytesBody(data))
            except RingfortError as error:
                failures.append(error)
            finally:
                slots.release()

        async with trio.open_nursery() as nursery:
            try:
                while not failures and (data := await _filled(body, PART_BYTES)):
                    await self._world.offload.run(_update, md5, sha512, data)
                    head = head or data[:HEAD_BYTES]
                    await slots.acquire()
                    nursery.start_soon(put, Path(ACCOUNT, image_id, f"{attempt}-{number:08x}"), data)
                    size, number = size + len(data), number + 1
                    if progress is not None:
                        progress(size, body.length)
            except RingfortError as error:
                failures.append(error)
        if failures:
            raise failures[0]
        if body.length is not None and size != body.length:
            raise BadInput(f"the image ended after {size} of {body.length} bytes")
        found = inspect(head)
        virtual = found.virtual_size if found.virtual_size is not None else size
        return Manifest(attempt, size, PART_BYTES, md5.hexdigest(), sha512.hexdigest(), found.disk_format, virtual)

    async def _read(self, image_id: str, manifest: Manifest, start: int, end: int) -> AsyncIterator[Piece]:
        at = start
        while at < end:
            number, offset = divmod(at, manifest.part_bytes)
            length = min(end - at, manifest.part_bytes - offset)
            reading = await self._storage.get_object(manifest.path(image_id, number), offset=offset, length=length)
            try:
                async for piece in reading.pieces:
                    yield piece
            finally:
                await aclose(reading.pieces)
            at += length

    async def _take_back(self, container: Path, attempt: str) -> None:
        with trio.CancelScope(deadline=trio.current_time() + CLEANUP_S, shield=True):
            await self._remove(container, attempt)

    async def _remove(self, container: Path, prefix: str) -> None:
        """Delete the objects of a container that begin with ``prefix``.  What storage cannot delete now stays, unreferred to,
        until the image's own delete."""
        marker = ""
        while True:
            try:
                page = await self._storage.list_container(container, Query(prefix=prefix, marker=marker, limit=1000))
            except (ContainerNotFound, Unavailable):
                return
            for row in page.items:
                marker = row.name
                if isinstance(row, Row):
                    try:
                        await self._storage.delete_object(Path(container.account, container.container, row.name))
                    except (ObjectNotFound, Unavailable):
                        continue
            if not page.truncated:
                return


class _ReadingBody:
    """An object being read, as the body of an import."""

    def __init__(self, reading: Reading) -> None:
        self.length: int | None = reading.meta.size
        self._pieces = reading.pieces.__aiter__()
        self._rest = memoryview(b"")

    async def read(self, max_bytes: int = 1 << 20) -> bytes:
        while not len(self._rest):
            try:
                piece = await self._pieces.__anext__()
            except StopAsyncIteration:
                return b""
            self._rest = memoryview(await loaded(piece))
        data = bytes(self._rest[:max_bytes])
        self._rest = self._rest[max_bytes:]
        return data


def _check_raw(image_id: str, manifest: Manifest) -> None:
    if manifest.disk_format != "raw":
        raise BadInput(
            f"image {image_id} is {manifest.disk_format}: a volume is made from a raw image",
            hint="convert it before the upload: qemu-img convert -O raw",
        )


def _data(manifest: Manifest) -> ImageData:
    return ImageData(manifest.size, manifest.md5, manifest.sha512, manifest.disk_format, manifest.virtual_size)


def _update(md5: hashlib._Hash, sha512: hashlib._Hash, data: bytes) -> None:
    md5.update(data)
    sha512.update(data)


async def _filled(body: BodySource, size: int) -> bytes:
    """The next ``size`` bytes of a body; fewer only at its end."""
    pieces: list[bytes] = []
    missing = size
    while missing and (piece := await body.read(missing)):
        pieces.append(piece)
        missing -= len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)
