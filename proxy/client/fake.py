"""Objects in RAM, for the tests of the rooms above."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator

from ring.names import Path
from ring.timestamp import Timestamp
from ring.wire.message import Piece
from storage.client.errors import ObjectNotFound
from storage.client.interface import ObjectMeta, Reading


class FakeObjects:
    """Implements proxy.client.interface.Objects.  ``buckets``: names that a project has claimed."""

    def __init__(self) -> None:
        self.buckets: dict[str, Path] = {}
        self._objects: dict[Path, tuple[ObjectMeta, bytes]] = {}

    def add(self, path: Path, data: bytes, *, content_type: str = "application/octet-stream") -> None:
        etag = hashlib.md5(data, usedforsecurity=False).hexdigest()
        timestamp = Timestamp(len(self._objects) + 1)
        self._objects[path] = (ObjectMeta(timestamp, len(data), etag, content_type), data)

    async def head(self, path: Path) -> ObjectMeta:
        return self._find(path)[0]

    async def read(self, path: Path, *, offset: int = 0, length: int | None = None) -> Reading:
        meta, data = self._find(path)
        end = len(data) if length is None else min(len(data), offset + length)

        async def pieces() -> AsyncIterator[Piece]:
            for at in range(offset, end, 1 << 20):
                yield data[at : min(end, at + (1 << 20))]

        return Reading(meta, pieces())

    def bucket(self, name: str, project_id: str) -> Path | None:
        claimed = self.buckets.get(name)
        if claimed is not None or not project_id:
            return claimed
        return Path(f"AUTH_{project_id}", name)

    def _find(self, path: Path) -> tuple[ObjectMeta, bytes]:
        try:
            return self._objects[path]
        except KeyError:
            raise ObjectNotFound(f"{path} does not exist") from None
