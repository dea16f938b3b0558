"""Repair: what a read found on some replicas only is brought to the others, a little later, off the request's path.

The queue is bounded and forgets what does not fit: the replicator finds the same work by comparing trees.  Nothing is ever deleted
here; a target that holds something newer keeps it.

Neighbours: reading (finds), large (leaves replicas behind), storage.object.replicator (the thorough one, which also uses ``copy``).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

import trio

from ring.errors import DiskFault, RingfortError, Unavailable
from ring.names import Path
from storage.client.bodies import aclose, drained, loaded
from storage.client.errors import Doubted, Superseded
from storage.client.local import ObjectEngine
from storage.client.node import Debt, Kind, Node, NodeReading, Version, WriteReply
from storage.client.quorum import rank
from storage.client.reach import Reach, Replicas


async def copy(reading: NodeReading, target: Node | ObjectEngine, pack_cut_bytes: int, debt: Debt | None = None) -> WriteReply:
    """Bring a version, tombstone or data, to ``target``; closes the reading.  Raises Unavailable, DiskFault."""
    version = reading.version
    if version.kind is Kind.TOMBSTONE or version.size <= pack_cut_bytes:
        return await target.put_small(version, await drained(reading.pieces), debt)
    try:
        upload = await target.put_large(version.path, version.size)
        try:
            async for piece in reading.pieces:
                await upload.write(await loaded(piece))
            return await upload.commit(version, debt)
        finally:
            with trio.CancelScope(shield=True):
                await upload.abort()
    finally:
        await aclose(reading.pieces)


async def bring(version: Version, sources: Sequence[Node], target: Node, pack_cut_bytes: int, *, has_data: bool) -> bool:
    """``version`` to ``target``, from the first source that can; False when none can.  True also when the target holds something
    newer by now.  ``has_data``: only the metadata of it is older there.  Raises what the target raises."""
    if version.kind is Kind.TOMBSTONE:
        await target.put_small(version, b"", None)
        return True
    if has_data and version.size > pack_cut_bytes and version.metadata_timestamp is not None:
        metadata = {name: value for name, value in version.metadata.items() if not name.startswith("x-sysmeta-")}
        with suppress(Superseded):
            await target.post(version.path, metadata, version.content_type, version.metadata_timestamp, version.named)
        return True
    for source in sources:
        try:
            reading = await source.get(version.path, version.timestamp, 0, None)
        except (Unavailable, DiskFault):
            continue
        if reading is None:
            continue
        if rank(reading.version) < rank(version):  # its metadata is older there
            await aclose(reading.pieces)
            continue
        await copy(reading, target, pack_cut_bytes)
        return True
    return False


class Repairer:
    """``request`` takes note, ``run`` does the work."""

    def __init__(self, reach: Reach) -> None:
        self.coded: Callable[[Replicas, Path], Awaitable[int]] | None = None  # the same for erasure-coded policies
        self._reach = reach
        self._send, self._receive = trio.open_memory_channel[tuple[float, Replicas, Path]](reach.settings.repair_queue)
        self._queued: set[Path] = set()

    def request(self, replicas: Replicas, path: Path) -> None:
        """Look at all replicas of ``path`` soon, and bring the newest version to those that lack it."""
        if path in self._queued:
            return
        try:
            self._send.send_nowait((trio.current_time() + self._reach.settings.repair_delay_s, replicas, path))
        except trio.WouldBlock:
            return  # the replicator will come by
        self._queued.add(path)

    async def run(self) -> None:
        async for due, replicas, path in self._receive:
            await trio.sleep_until(due)
            self._queued.discard(path)
            await self.repair(replicas, path)

    async def repair(self, replicas: Replicas, path: Path) -> int:
        """Returns how many replicas were brought up to date."""
        if self._reach.coding(replicas.policy) is not None:
            return await self.coded(replicas, path) if self.coded is not None else 0
        versions: list[tuple[int, Node, Version | None]] = []
        for index, node in enumerate(replicas.nodes):
            try:
                with trio.fail_after(self._reach.settings.read_timeout_s):
                    versions.append((index, node, await node.head(path)))
            except Doubted:
                versions.append((index, node, None))  # it takes what it lost, or newer, and nothing else
            except (RingfortError, trio.TooSlowError):
                continue  # unknown: neither a source nor a target
        known = [version for _, _, version in versions if version is not None]
        if not known:
            return 0
        newest = max(known, key=rank)
        sources = [node for _, node, version in versions if version is not None and rank(version) == rank(newest)]
        held = sum(1 << index for index, _, version in versions if version is not None and rank(version) == rank(newest))
        repaired = 0
        for index, target, has in versions:  # those of the ring in force first
            if replicas.voters.leaving >> index & 1 and not replicas.voters.newest(held):
                break  # reach.NewFirst says why
            if has is None or rank(has) < rank(newest):
                same = has is not None and rank(has)[:3] == rank(newest)[:3]
                with suppress(RingfortError):  # another time; or the replicator
                    if await bring(newest, sources, target, self._reach.settings.pack_cut_bytes, has_data=same):
                        repaired += 1
                        held |= 1 << index
        return repaired
