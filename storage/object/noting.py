"""Noting: what the replicator's ``fill`` is for an erasure-coded policy: another device is told all that is known here.

A device that lost what it held is no voter before it knows of every version that it ever acknowledged.  To know of it takes no
data: a version may be shown by a note, as one is left where a fragment rotted.  So notes go first, and it votes soon; its data is
made afterwards, by the reconstructors, as for every device that has a note where a fragment belongs.  Tombstones and newer metadata
are brought as they are.  What is only staged here nobody has acknowledged, and is not told.

Neighbours: filling (asks), reconstructor (makes the data), store (this device), storage.sync.tree (what is compared).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import trio

from ring.device import Device
from ring.names import Span
from storage.client.errors import Superseded
from storage.client.node import Kind, Node
from storage.client.quorum import rank
from storage.object.store import SYSTEM_METADATA, ObjectStore
from storage.sync.comparing import HASH_BYTES, by_hash
from storage.sync.tree import differing


class Noter:
    """``nodes``: a device's node, of this policy."""

    def __init__(self, store: ObjectStore, nodes: Callable[[Device], Node]) -> None:
        self._store = store
        self._nodes = nodes

    async def fill(self, device: Device, span: Span, until: float) -> tuple[int, int, bool | None]:
        """Tell it of each version that is shown here: versions, bytes, and whether it knows of all now; None: there is more than
        could be told until then (trio's clock).  Asked by no edition, for it speaks of one device only.  Unavailable, DiskFault."""
        node = self._nodes(device)
        mine = await self._store.digests(span)
        told, whole = 0, True
        for leaf in sorted(differing(mine, await node.digests("object", span))) if mine.leaves else ():
            theirs = by_hash(await node.leaf("object", span, leaf))
            for key, digest in await self._store.leaf(span, leaf):
                held = theirs.get(key[:HASH_BYTES])
                if held is not None and (held[0] < key or held == (key, digest)):
                    continue
                if trio.current_time() >= until:
                    return told, 0, None
                if await self._tell(node, key, same=held is not None and held[0] == key):
                    told += 1
                else:
                    whole = False
        return told, 0, whole and not self._store.index.doubts.within(span)

    async def _tell(self, node: Node, key: bytes, *, same: bool) -> bool:
        """False: it was replaced meanwhile, by what is to be told of.  ``same``: it has something else at that time."""
        held = self._store.index.get(key)
        if held is None:
            return False
        version = await self._store.reader.describe(held, await self._store.reader.path(held))
        if version.kind is Kind.TOMBSTONE:
            await node.put_small(version, b"", None)
            return True
        fragments = node.fragments()
        if same:
            its = max((one.version for one in await fragments.sightings(version.path) if one.committed), key=rank, default=None)
            if its is not None and rank(its) >= rank(version):
                return True
            if its is not None and its.etag == version.etag and its.kind is Kind.OBJECT:
                assert version.metadata_timestamp is not None
                metadata = {name: value for name, value in version.metadata.items() if not name.startswith(SYSTEM_METADATA)}
                with suppress(Superseded):
                    await node.post(version.path, metadata, version.content_type, version.metadata_timestamp, version.named)
                return True
        reply = await fragments.stage(version, None, seen=True)
        if reply.newest <= version.timestamp:
            await fragments.commit(version, None, seen=True)
        return True
