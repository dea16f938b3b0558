"""Reads of immutable objects (segments, image parts) in blocks, with a cache keyed by (object, block): no write can make it stale.

One cache serves all volumes of a worker, so clones of one image share its blocks.
"""

from __future__ import annotations

from collections import OrderedDict

import trio

from ring.names import Path
from ring.wire.message import FileSlice
from storage.client.interface import Storage

BLOCK_BYTES = 128 << 10
CACHE_BYTES_MAX = 128 << 20


class BlockReader:
    def __init__(self, storage: Storage, *, cache_bytes_max: int = CACHE_BYTES_MAX) -> None:
        self._storage = storage
        self._blocks: OrderedDict[tuple[Path, int], bytes] = OrderedDict()
        self._blocks_max = max(1, cache_bytes_max // BLOCK_BYTES)
        self._coming: dict[tuple[Path, int], trio.Event] = {}

    def read_now(self, path: Path, offset: int, length: int) -> bytes | None:
        """From the cache, or None."""
        pieces = []
        for block in range(offset // BLOCK_BYTES, (offset + length - 1) // BLOCK_BYTES + 1):
            data = self._blocks.get((path, block))
            if data is None:
                return None
            start = max(offset - block * BLOCK_BYTES, 0)
            pieces.append(data[start : offset + length - block * BLOCK_BYTES])
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def read(self, path: Path, offset: int, length: int) -> bytes:
        """Exactly ``length`` bytes unless the object ends before."""
        if length <= 0:
            return b""
        pieces = []
        for block in range(offset // BLOCK_BYTES, (offset + length - 1) // BLOCK_BYTES + 1):
            data = await self._block(path, block)
            start = max(offset - block * BLOCK_BYTES, 0)
            pieces.append(data[start : offset + length - block * BLOCK_BYTES])
        return b"".join(pieces)

    async def _block(self, path: Path, block: int) -> bytes:
        key = (path, block)
        while True:
            data = self._blocks.get(key)
            if data is not None:
                self._blocks.move_to_end(key)
                return data
            coming = self._coming.get(key)
            if coming is None:
                break
            await coming.wait()
        event = self._coming[key] = trio.Event()
        try:
            data = await read_object(self._storage, path, block * BLOCK_BYTES, BLOCK_BYTES)
            self._blocks[key] = data
            while len(self._blocks) > self._blocks_max:
                self._blocks.popitem(last=False)
            return data
        finally:
            del self._coming[key]
            event.set()


async def read_object(storage: Storage, path: Path, offset: int = 0, length: int | None = None) -> bytes:
    """A range of an object, whole in RAM."""
    reading = await storage.get_object(path, offset=offset, length=length)
    pieces: list[bytes] = []
    try:
        async for piece in reading.pieces:
            pieces.append(await piece.file.pread(piece.offset, piece.length) if isinstance(piece, FileSlice) else piece)
    finally:
        close = getattr(reading.pieces, "aclose", None)
        if close is not None:
            await close()
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)
