"""The ledger: which device holds what, as somebody knows who sees all of them.  It watches every removal that a daemon makes.

    no daemon lets go of the last good copy     whatever is dropped is held by another device that can be trusted, as new or newer
        of an erasure-coded policy                  ... fragments enough to read it, or a whole copy of a small one
    no sound copy is put into quarantine        only the device whose disk destroys things has anything to put there

It subclasses the store that a run uses, sees what lands in its log (so: what is durable), and never changes what happens.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ring.timestamp import Timestamp
from storage.client.node import Kind
from storage.object.packs import Landed
from storage.object.record import Record, RecordKind
from storage.object.returned import REASON
from storage.object.segments import Place
from storage.object.staged import fragment_of
from storage.object.store import ObjectStore

if TYPE_CHECKING:
    from ring.world.sim import Simulation

Rank = tuple[Timestamp, bool, str]
_HELD = (RecordKind.OBJECT_INLINE, RecordKind.OBJECT_FILE, RecordKind.TOMBSTONE, RecordKind.FRAGMENT, RecordKind.NOTE)
_WHOLE = -1
_NOTHING = -2


@dataclass
class Ledger:
    simulation: Simulation
    fragments: int = 1  # so many different ones give an object back
    liar: int | None = None  # the device whose disk may destroy what it holds
    violations: list[str] = field(default_factory=list)
    _held: dict[int, dict[bytes, tuple[Rank, int]]] = field(default_factory=dict)  # and which fragment

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

    def landed(self, device: int, record: Record) -> None:
        held = self._held.setdefault(device, {})
        old = held.get(record.hash)
        if record.kind in _HELD:
            rank = record.timestamp, record.kind is RecordKind.TOMBSTONE, record.info.etag
            if old is None or rank >= old[0]:
                held[record.hash] = rank, _piece(record)
        elif record.kind is RecordKind.DROP and old is not None and old[0][0] == record.timestamp:
            del held[record.hash]

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
