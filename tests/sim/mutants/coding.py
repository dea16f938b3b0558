"""Broken erasure-coded policies: commits that come too early, fragments that nobody looked at, leftovers judged by too few."""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any, cast

from ring.errors import Conflict, Unavailable
from ring.names import Path
from ring.service.overlap import Claim
from ring.timestamp import TICKS_PER_SECOND, Timestamp
from ring.wire.message import Piece
from ring.world.interface import Buffer, OpenMode, World
from storage.client.bodies import OnePiece
from storage.client.fragments import FragmentNode
from storage.client.node import Node, Version, WriteReply
from storage.erasure.fragment import Fragment
from storage.object.entry import Held
from storage.object.files import file_path
from storage.object.reader import Reader
from storage.object.reconstructor import LEFTOVERS_AT_ONCE, Reconstructor
from storage.object.record import RecordKind
from storage.object.staging import Staging
from storage.object.store import ObjectStore
from tests.sim.mutants.asking import PARTED, Wrapped
from tests.sim.options import Options

# ---- commits


class StagesAnywhere:
    """What could not be staged at a device counts as staged there."""

    def __init__(self, node: FragmentNode) -> None:
        self._node = node
        self.device = node.device

    def __getattr__(self, name: str) -> Any:
        return getattr(self._node, name)

    async def stage(self, version: Version, data: Buffer | None, *, seen: bool = False, promised: bool = False) -> WriteReply:
        try:
            return await self._node.stage(version, data, seen=seen, promised=promised)
        except Unavailable:
            return WriteReply(version.timestamp, paid=True)

    async def begin(self, path: Path, size: int, piece_bytes: int) -> Any:
        try:
            return await self._node.begin(path, size, piece_bytes)
        except Unavailable:
            return Nowhere()


class Nowhere:
    claim: Claim | None = None

    async def write(self, data: Buffer) -> None:
        return

    async def stage(self, version: Version, fragment: Fragment, *, seen: bool = False, promised: bool = False) -> WriteReply:
        return WriteReply(version.timestamp, paid=True)

    async def abort(self) -> None:
        return


class TakesSilenceForStaged(Wrapped):
    def of(self, policy: int) -> Node:
        return cast(Node, type(self)(self._node.of(policy)))

    def fragments(self) -> FragmentNode:
        return cast(FragmentNode, StagesAnywhere(self._node.fragments()))


def commit_before_enough_are_staged(options: Options) -> None:
    """A device that cannot be reached counts as one that has staged its fragment."""
    options.wrap_node = lambda node: cast(Node, TakesSilenceForStaged(node))
    options.traits = replace(options.traits, coded=True, destructive=0.0, kinds=PARTED)


# ---- fragments


class BelievingStaging(Staging):
    """Describes a fragment by what lies there now, and gives it unchecked."""

    async def read(self, version: Version, offset: int, length: int) -> AsyncIterator[Piece] | None:
        data = await self._bytes_of(version)
        if data is None:
            return await super().read(version, offset, length)
        return OnePiece(data[offset : offset + length])

    async def describe(self, version: Version) -> Fragment | None:
        found, data = await super().describe(version), await self._bytes_of(version)
        if found is None or data is None or found.origin.layout.stripe_count != 1:
            return found
        return replace(found, crcs=zlib.crc32(data).to_bytes(4, "big"))

    async def _bytes_of(self, version: Version) -> bytes | None:
        found = await self._find(version)
        if found is None or not found[0].data_describes or found[1].info.file is None:
            return None
        where, record = found
        assert record.info.file is not None
        try:
            file = await self._store.device.disk.open(
                file_path(record.hash, record.timestamp, record.info.file.serial), OpenMode.READ
            )
        except OSError:
            return None
        data = await file.pread(0, where.file_bytes)
        await file.close()
        return data


class Uncritical(Reader):
    async def problem(self, held: Held) -> str:
        return "" if held.entry.kind is RecordKind.FRAGMENT else await super().problem(held)


class BelievesFragments(ObjectStore):
    def __init__(self, world: World, *args: Any, **kwargs: Any) -> None:
        super().__init__(world, *args, **kwargs)
        self.reader = Uncritical(self.device, self.segments, world.offload, self._newest, self._suspect, self.refers)
        self.staging = BelievingStaging(self)


def believe_a_corrupt_fragment(options: Options) -> None:
    """Checksums of fragments are made of what lies there."""
    options.store = BelievesFragments
    kinds = {"rot": 6.0, "misdirected-write": 2.0, "lost-write": 2.0, "isolate": 1.0}
    options.traits = replace(options.traits, coded=True, destructive=1.0, kinds=kinds)


# ---- what is left staged


class Presumes(Reconstructor):
    async def _leftovers(self) -> None:
        before = Timestamp(max(0, int((self._world.clock.now() - self._leftover_s) * TICKS_PER_SECOND)))
        for staged in await self._store.staging.waiting(before, LEFTOVERS_AT_ONCE):
            try:
                await self._store.staging.commit(staged.version, None, seen=True)
            except Conflict:
                continue


def leftovers_by_a_minority(options: Options) -> None:
    """What is staged at one device for long is taken for committed, whoever else has it."""
    options.reconstructor = Presumes
    options.traits = replace(options.traits, coded=True, destructive=0.0, kinds=PARTED)
