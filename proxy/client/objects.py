"""ObjectsClient: objects as a client would GET them, without HTTP and without gates: whoever calls has judged who may.

Neighbours: storage.client, large (manifests), operations.buckets (names).
"""

from __future__ import annotations

import trio

from proxy.large.manifest import is_manifest, visible
from proxy.large.reader import ManifestReader
from proxy.operations.buckets import BucketClaims
from ring.kv.interface import KV
from ring.names import Path
from ring.world.interface import Clock
from storage.client.bodies import aclose
from storage.client.errors import ObjectNotFound
from storage.client.interface import ObjectMeta, Reading, Storage

_ATTEMPTS = 3


class ObjectsClient:
    """Implements proxy.client.interface.Objects.  ``claims``: the front door's of this process, where there is one; else ``run``
    keeps the names of buckets."""

    def __init__(self, storage: Storage, kv: KV, clock: Clock, *, claims: BucketClaims | None = None) -> None:
        self._storage = storage
        self._clock = clock
        self._reader = ManifestReader(storage)
        self._claims = claims if claims is not None else BucketClaims(kv)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        await self._claims.view.run(task_status=task_status)

    async def head(self, path: Path) -> ObjectMeta:
        return visible(self._live(path, await self._storage.head_object(path)))

    async def read(self, path: Path, *, offset: int = 0, length: int | None = None) -> Reading:
        for attempt in range(_ATTEMPTS):
            reading = await self._storage.get_object(path, offset=offset, length=length)
            try:
                self._live(path, reading.meta)
            except ObjectNotFound:
                await aclose(reading.pieces)
                raise
            if not is_manifest(reading.meta):
                return reading
            await aclose(reading.pieces)
            try:
                manifest = await self._reader.manifest(path, reading.meta)
            except ObjectNotFound:
                if attempt == _ATTEMPTS - 1:
                    raise
                continue  # replaced in between
            meta = visible(reading.meta)
            left = max(meta.size - offset, 0)
            pieces = await self._reader.read(path, manifest, offset, left if length is None else min(length, left))
            return Reading(meta, pieces)
        raise AssertionError("the last attempt returns or raises")

    def bucket(self, name: str, project_id: str) -> Path | None:
        return self._claims.path(name, project_id)

    def _live(self, path: Path, meta: ObjectMeta) -> ObjectMeta:
        at = meta.metadata.get("x-delete-at")
        if at is not None and int(at) <= self._clock.now():
            raise ObjectNotFound(f"{path} has expired")
        return meta
