"""A manifest read as one body: its parts' stretches one after another, each checked to be the part that the manifest names.

Decides nothing about ranges; ``manifest`` cuts them.  Neighbours: operations.objects (caller), storage.client.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncIterator, Iterator

from proxy.large.manifest import Manifest, Stretch, decode
from ring.errors import Unavailable
from ring.names import HIDDEN, Path
from ring.timestamp import Timestamp
from ring.wire.message import Piece
from storage.client.bodies import aclose, drained
from storage.client.errors import ObjectNotFound
from storage.client.interface import ObjectMeta, Reading, Storage

_CACHED_MANIFESTS = 64
_CACHED_PARTS_MAX = 20_000


def hidden(path: Path) -> Path:
    """Where the parts and records of a container's uploads are."""
    return Path(HIDDEN + path.account, path.container)


class ManifestReader:
    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._cache: OrderedDict[tuple[Path, Timestamp], Manifest] = OrderedDict()
        self._cached_parts = 0

    async def manifest(self, path: Path, meta: ObjectMeta) -> Manifest:
        """The manifest stored at ``path`` in the version of ``meta``.  ObjectNotFound when that has been replaced."""
        found = self._cache.get((path, meta.timestamp))
        if found is None:
            reading = await self._storage.get_object(path, version=meta.timestamp)
            found = decode(await drained(reading.pieces))
            self._keep((path, meta.timestamp), found)
        return found

    async def read(self, path: Path, manifest: Manifest, offset: int, length: int) -> AsyncIterator[Piece]:
        """The first part is asked for before this returns, so that a failure can still be answered."""
        body = _Parts(self._storage, hidden(path), manifest.stretches(offset, length))
        await body.open_next()
        return body

    def _keep(self, key: tuple[Path, Timestamp], manifest: Manifest) -> None:
        self._cache[key] = manifest
        self._cached_parts += len(manifest.parts)
        while len(self._cache) > _CACHED_MANIFESTS or (self._cached_parts > _CACHED_PARTS_MAX and len(self._cache) > 1):
            _, old = self._cache.popitem(last=False)
            self._cached_parts -= len(old.parts)


class _Parts:
    """The stretches' pieces; one part is open at a time."""

    def __init__(self, storage: Storage, container: Path, stretches: Iterator[Stretch]) -> None:
        self._storage = storage
        self._container = container
        self._stretches = stretches
        self._open: Reading | None = None

    async def open_next(self) -> None:
        stretch = next(self._stretches, None)
        if stretch is None:
            self._open = None
            return
        path = Path(self._container.account, self._container.container, stretch.part.name)
        try:
            reading = await self._storage.get_object(path, offset=stretch.offset, length=stretch.length)
        except ObjectNotFound as error:
            raise Unavailable(f"part {stretch.part.number} of a large object cannot be found") from error
        if reading.meta.etag != stretch.part.etag or reading.meta.size != stretch.part.size:
            await aclose(reading.pieces)
            raise Unavailable(f"part {stretch.part.number} of a large object is not the one its manifest names")
        self._open = reading

    def __aiter__(self) -> _Parts:
        return self

    async def __anext__(self) -> Piece:
        while self._open is not None:
            piece = await anext(self._open.pieces, None)
            if piece is not None:
                return piece
            await self.aclose()
            await self.open_next()
        raise StopAsyncIteration

    async def aclose(self) -> None:
        reading, self._open = self._open, None
        if reading is not None:
            await aclose(reading.pieces)
