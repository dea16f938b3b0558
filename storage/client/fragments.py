"""FragmentNode: one device of the cluster, asked for what an erasure-coded policy needs beside a Node's calls.

A version of such a policy comes in two steps: ``stage`` makes its data durable beside what is there and shows nothing, ``commit``
shows it (storage.erasure.quorum says when, and why).  Data is a fragment (a file), a whole copy, or a note that there is this
version.  Tombstones and POSTs take a Node's calls.

``LocalFragments`` asks the engine of this worker, ``RemoteFragments`` (remote_fragments.py) the worker that serves the device; both
pass tests/contract/test_fragments.py.  Errors of every call: those of a Node; Conflict when a version was refused, or nothing of it
is staged.  Neighbours: storage.object.staging (the engine), coded_writing, coded_reading and mending (the users).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

from ring.device import Device
from ring.errors import Unavailable
from ring.names import Path
from ring.service.overlap import Claim
from ring.wire.message import Piece
from ring.world.interface import Buffer
from storage.client.node import Debt, Kind, Version, WriteReply
from storage.erasure.fragment import Fragment
from storage.erasure.quorum import Data, Sighting, Stamp

if TYPE_CHECKING:
    from storage.client.local import LocalNode

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Seen:
    """What a device has of one version."""

    version: Version
    committed: bool
    data: Data
    index: int = -1  # of the fragment
    refused: bool = False

    @property
    def stamp(self) -> Stamp:
        return stamp_of(self.version)

    @property
    def sighting(self) -> Sighting:
        return Sighting(self.stamp, self.committed, self.data, self.refused, self.index)


class FragmentUpload(Protocol):
    """The bytes of a fragment on their way to a device."""

    claim: Claim | None

    async def write(self, data: Buffer) -> None: ...

    async def stage(self, version: Version, fragment: Fragment, *, seen: bool = False, promised: bool = False) -> WriteReply:
        """Durable, and not shown, when it returns.  ``newest`` is above the version's when something newer is shown: it can not be
        committed then, but it can be read.  ``promised``: as of ``FragmentNode.stage``.  BadInput when the bytes are not those that
        the fragment describes."""

    async def abort(self) -> None:
        """Forget it.  Also right after an error or a stage (then it does nothing)."""


class FragmentNode(Protocol):
    device: Device

    async def sightings(self, path: Path) -> Sequence[Seen]:
        """The version that is shown, if there is one, and those that are staged or refused."""

    async def begin(self, path: Path, size: int, piece_bytes: int) -> FragmentUpload:
        """A fragment of ``size`` bytes, with a checksum for each piece of that many.  ``size`` 0: not known yet."""

    async def stage(self, version: Version, data: Buffer | None, *, seen: bool = False, promised: bool = False) -> WriteReply:
        """A whole copy, or (None) the note that there is this version, or a tombstone; as ``FragmentUpload.stage``, but nothing is
        staged below what is shown.  ``promised``: it is a conditional write's, whose ballot is its timestamp.  It is staged only
        while that promise stands (else PromisedAbove with this timestamp), and while it is, the promise is ended by nobody but its
        writer.  A peer before 1.4 knows nothing of this, and takes no tombstone."""

    async def commit(self, version: Version, debt: Debt | None, *, seen: bool = False) -> WriteReply:
        """Show what is staged of a version (its path, timestamp and ETag tell which).  ``seen``: it was seen committed elsewhere,
        so that a refusal does not count any more."""

    async def refuse(self, version: Version) -> None:
        """Unless it is committed here, no writer can commit it any more."""

    async def forget(self, version: Version) -> None:
        """Let go of what is staged of it.  Conflict unless it is refused, or something newer is shown."""

    async def describe(self, version: Version) -> Fragment | None:
        """Of the fragment that is here, shown or staged."""

    async def read(self, version: Version, offset: int, length: int) -> AsyncIterator[Piece] | None:
        """Bytes of that fragment, or of a whole copy, each block checked before it leaves (DiskFault)."""


def stamp_of(version: Version) -> Stamp:
    return Stamp(version.timestamp, version.kind is Kind.TOMBSTONE, version.etag)


class FragmentEngine(Protocol):
    """The fragment half of a device's store (storage.object.staging.Staging)."""

    async def sightings(self, path: Path) -> Sequence[Seen]: ...

    async def begin(self, path: Path, size: int, piece_bytes: int) -> StagedUpload: ...

    async def stage(self, version: Version, data: Buffer | None, *, seen: bool = False, promised: bool = False) -> WriteReply: ...

    async def commit(self, version: Version, debt: Debt | None, *, seen: bool = False) -> WriteReply: ...

    async def refuse(self, version: Version) -> None: ...

    async def forget(self, version: Version) -> None: ...

    async def describe(self, version: Version) -> Fragment | None: ...

    async def read(self, version: Version, offset: int, length: int) -> AsyncIterator[Piece] | None: ...


class StagedUpload(Protocol):
    async def write(self, data: Buffer) -> None: ...

    async def stage(self, version: Version, fragment: Fragment, *, seen: bool = False, promised: bool = False) -> WriteReply: ...

    async def abort(self) -> None: ...


class LocalFragments:
    """Implements FragmentNode over a device of this worker."""

    def __init__(self, node: LocalNode) -> None:
        self.device = node.device
        self._node = node

    @property
    def _engine(self) -> FragmentEngine:
        """Unavailable when the policy is not served."""
        engine: FragmentEngine | None = getattr(self._node.store, "staging", None)
        if engine is None:
            raise Unavailable(f"{self.device} holds no fragments")
        return engine

    async def sightings(self, path: Path) -> Sequence[Seen]:
        self._node.vote(path)
        return await self._node.told(self._engine.sightings(path))

    async def begin(self, path: Path, size: int, piece_bytes: int) -> FragmentUpload:
        return _LocalUpload(self._node, await self._node.told(self._engine.begin(path, size, piece_bytes)))

    async def stage(self, version: Version, data: Buffer | None, *, seen: bool = False, promised: bool = False) -> WriteReply:
        _may(self._node, version.path, seen=seen)
        return await _writing(self._node, lambda: self._engine.stage(version, data, seen=seen, promised=promised))

    async def commit(self, version: Version, debt: Debt | None, *, seen: bool = False) -> WriteReply:
        _may(self._node, version.path, seen=seen)
        reply = await _writing(self._node, lambda: self._engine.commit(version, debt, seen=seen))
        return await self._node.pay(version, debt, reply)

    async def refuse(self, version: Version) -> None:
        await _writing(self._node, lambda: self._engine.refuse(version))

    async def forget(self, version: Version) -> None:
        await _writing(self._node, lambda: self._engine.forget(version))

    async def describe(self, version: Version) -> Fragment | None:
        return await self._node.told(self._engine.describe(version))

    async def read(self, version: Version, offset: int, length: int) -> AsyncIterator[Piece] | None:
        return await self._node.told(self._engine.read(version, offset, length))


class _LocalUpload:
    def __init__(self, node: LocalNode, upload: StagedUpload) -> None:
        self.claim: Claim | None = node.claim
        self._node = node
        self._upload = upload

    async def write(self, data: Buffer) -> None:
        await self._node.told(self._upload.write(data))

    async def stage(self, version: Version, fragment: Fragment, *, seen: bool = False, promised: bool = False) -> WriteReply:
        node = self._node.under(self.claim)
        _may(node, version.path, seen=seen)
        return await _writing(node, lambda: self._upload.stage(version, fragment, seen=seen, promised=promised))

    async def abort(self) -> None:
        await self._upload.abort()


def _may(node: LocalNode, path: Path, *, seen: bool) -> None:
    """What was seen committed elsewhere is brought to whoever lacks it; else who takes it counts as one of the replicas.
    StaleRing; Unavailable while the device is being refilled."""
    if not seen:
        node.vote(path)


async def _writing(node: LocalNode, call: Callable[[], Awaitable[T]]) -> T:
    with node.writing():
        return await node.told(call())
