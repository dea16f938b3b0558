"""The ledger: which device holds what, as somebody knows who sees all of them.  It watches every removal that a daemon makes.

    no daemon lets go of the last good copy     whatever is dropped is held by another device that can be trusted, as new or newer
        of an erasure-coded policy                  ... fragments enough to read it, or a whole copy of a small one
    a handoff lets go when all have it          ... every primary of the ring that it goes by
    no voter forgets                            a device that is asked by an edition answers with no less than it acknowledged
    no sound copy is put into quarantine        only the device whose disk destroys things has anything to put there

It subclasses the store that a run uses, sees what lands in its log (so: what is durable), and never changes what happens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ring.names import Path, Span
from ring.timestamp import Timestamp
from storage.client.local import LocalNode
from storage.client.node import Kind, Version
from storage.client.trust import Trust
from storage.object.doubts import QUARANTINED
from storage.object.packs import Landed
from storage.object.record import Record, RecordKind
from storage.object.returned import REASON
from storage.object.segments import Place
from storage.object.staged import fragment_of
from storage.object.store import ObjectStore
from tests.sim.coded import RING
from tests.sim.rings import HASHER

if TYPE_CHECKING:
    from ring.world.sim import Simulation

Rank = tuple[Timestamp, bool, str]
_HELD = (RecordKind.OBJECT_INLINE, RecordKind.OBJECT_FILE, RecordKind.TOMBSTONE, RecordKind.FRAGMENT, RecordKind.NOTE)
OBJECTS = "object"  # the ring
HANDED_OFF = "handed off"
_WHOLE = -1
_NOTHING = -2


@dataclass
class Ledger:
    simulation: Simulation
    fragments: int = 1  # so many different ones give an object back
    liar: int | None = None  # the device whose disk may destroy what it holds
    honest: bool = False  # ... but notices
    must_have: Callable[[int, bytes], Iterable[int]] = lambda device, name_hash: ()  # the primaries, as the device knows them
    violations: list[str] = field(default_factory=list)
    _held: dict[int, dict[bytes, tuple[Rank, int]]] = field(default_factory=dict)  # and which fragment
    _acked: dict[int, dict[bytes, Rank]] = field(default_factory=dict)  # and may not forget

    def watched(self, base: type[ObjectStore]) -> type[ObjectStore]:
        """The same store, watched."""
        ledger = self

        class Watched(base):  # type: ignore[misc, valid-type]  # a class that is known when the run begins
            def _land(self, record: Record, place: Place) -> Landed:
                landed: Landed = super()._land(record, place)
                ledger.landed(self.device.device_id, record)
                return landed

            async def drop(self, key: bytes, reason: str) -> bool:
                ledger.leaves(self, key, reason)
                dropped: bool = await super().drop(key, reason)
                return dropped

            async def quarantine(self, key: bytes) -> bool:
                ledger.put_aside(self, key)
                aside: bool = await super().quarantine(key)
                return aside

        return Watched

    def voter(self, base: type[LocalNode]) -> type[LocalNode]:
        """The same node, watched."""
        ledger = self

        class Voter(base):  # type: ignore[misc, valid-type]  # likewise
            async def head(self, path: Path) -> Version | None:
                name_hash = HASHER.hash(path)
                before = ledger.acked(self.device.id, name_hash)
                found: Version | None = await super().head(path)
                if self._edition and not self.policy:
                    ledger.answered(self.device.id, name_hash, before, found)
                return found

        return Voter

    def trust(self, base: type[Trust], device: int) -> type[Trust]:
        """The same trust, watched: what a device had before it was refilled it may have forgotten."""
        ledger = self

        class Watched(base):  # type: ignore[misc, valid-type]  # likewise
            def begin(self, waiting: dict[str, tuple[int, set[int]]]) -> None:
                super().begin(waiting)
                ledger.refilled(device, lambda name_hash: not self._has(OBJECTS, name_hash))

            def filled(self, ring: str, span: Span) -> None:
                super().filled(ring, span)
                ledger.refilled(device, lambda name_hash: not self._has(OBJECTS, name_hash))

        return Watched

    def landed(self, device: int, record: Record) -> None:
        acked = self._acked.setdefault(device, {})
        held = self._held.setdefault(device, {})
        old = held.get(record.hash)
        if record.kind in _HELD:
            rank = record.timestamp, record.kind is RecordKind.TOMBSTONE, record.info.etag
            if old is None or rank >= old[0]:
                held[record.hash] = rank, _piece(record)
            acked[record.hash] = max(rank, acked.get(record.hash, rank))
        elif record.kind is RecordKind.DROP:
            if record.info.reason != QUARANTINED and record.hash in acked and acked[record.hash][0] == record.timestamp:
                del acked[record.hash]
            if old is not None and old[0][0] == record.timestamp:
                del held[record.hash]

    def acked(self, device: int, name_hash: bytes) -> Rank | None:
        return self._acked.get(device, {}).get(name_hash)

    def answered(self, device: int, name_hash: bytes, before: Rank | None, found: Version | None) -> None:
        """``before``: what it had acknowledged when it was asked."""
        now = self.acked(device, name_hash)
        if before is None or now is None or (device == self.liar and not self.honest):
            return
        if found is None or (found.timestamp, found.kind is Kind.TOMBSTONE) < min(before, now)[:2]:
            self._say(f"device {device} votes, and has forgotten {name_hash.hex()} {before[0]}")

    def refilled(self, device: int, trusted: Callable[[bytes], bool]) -> None:
        held, acked = self._held.get(device, {}), self._acked.get(device, {})
        for name_hash in [one for one in acked if trusted(one)]:
            if name_hash in held:
                acked[name_hash] = held[name_hash][0]
            else:
                del acked[name_hash]

    def lost(self, device: int) -> None:
        """It is gone for good."""
        self._held.pop(device, None)

    def leaves(self, store: ObjectStore, key: bytes, reason: str) -> None:
        held = store.index.newest(key[:16])
        if held is None or held.key != key or held.kind is Kind.TOMBSTONE or reason == REASON:
            return  # what is put aside is kept
        if held.entry.kind is RecordKind.NOTE:
            return
        mine = store.device.device_id
        if reason == HANDED_OFF and not store.device.disk.root.endswith(f"/{RING}"):
            for device in self.must_have(mine, held.hash):
                there = self._held.get(device, {}).get(held.hash)
                if device not in (mine, self.liar) and (there is None or there[0] < held.rank):
                    self._say(f"device {mine} lets go of {key.hex()}, which device {device} has not got")
        pieces = set()
        for device, known in self._held.items():
            if device in (mine, self.liar) or held.hash not in known:
                continue
            rank, piece = known[held.hash]
            if rank > held.rank or (rank == held.rank and piece == _WHOLE):
                return
            if rank == held.rank and piece != _NOTHING:
                pieces.add(piece)
        if len(pieces) >= self.fragments:
            return
        self._say(f"device {mine} lets go of the last good copy of {key.hex()}: {reason}")

    def put_aside(self, store: ObjectStore, key: bytes) -> None:
        if store.device.device_id != self.liar and store.index.newest(key[:16]) is not None:
            self._say(f"device {store.device.device_id} puts a sound copy into quarantine: {key.hex()}")

    def _say(self, words: str) -> None:
        self.simulation.trace(words)
        self.violations.append(words)


def _piece(record: Record) -> int:
    if record.kind is RecordKind.NOTE:
        return _NOTHING
    return fragment_of(record)[0] if record.kind is RecordKind.FRAGMENT else _WHOLE
