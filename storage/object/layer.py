"""Layer: what has landed on a device and is not in its index's tables yet.

There are two at most: one that takes what lands, and below it one that is on its way to the tables.  Pure.  Neighbours: index.py
(fills it, commits it), entry.py, due.py, storage.sync.tree (what it changes of the tree).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from ring.world.interface import Write
from storage.object import due
from storage.object.entry import Held, encode_entry
from storage.object.record import Info, RecordKind
from storage.sync.tree import Toggles

TABLE = "index"
OWED = "owed"


class OwedInfo(msgspec.Struct, array_like=True, frozen=True):
    kind: RecordKind
    info: Info


@dataclass(slots=True)
class Change:
    """Of one name."""

    held: Held | None  # now
    base: Held | None  # in the table, when this layer is committed

    @property
    def moved(self) -> bool:
        """It is what it was, and lies somewhere else."""
        return self.base is not None and self.held is not None and self.base.says(self.held)


_encode_owed = msgspec.msgpack.Encoder().encode


@dataclass(slots=True)
class Layer:
    """An owed value of None means: paid, take it out of the table."""

    changes: dict[bytes, Change] = field(default_factory=dict)
    owed: dict[bytes, OwedInfo | None] = field(default_factory=dict)
    weighed: set[int] = field(default_factory=set)  # segments whose weight changed
    promised: set[tuple[bytes, bytes]] = field(default_factory=set)  # hash and ballot of promises that were opened, closed or moved
    staged: set[bytes] = field(default_factory=set)  # keys of storage.object.staged that changed

    def __len__(self) -> int:
        return len(self.changes) + len(self.owed) + len(self.weighed) + len(self.promised)

    def toggles(self, first: bytes = b"", last: bytes | None = None) -> Toggles:
        """What it does to the tree, of hashes from ``first`` on and below ``last`` (None: to the end)."""
        toggles = Toggles("object")
        for name_hash, change in self.changes.items():
            if name_hash < first or (last is not None and name_hash >= last) or change.moved:
                continue
            if change.base is not None:
                toggles.toggle(name_hash, change.base.digest)
            if change.held is not None:
                toggles.toggle(name_hash, change.held.digest)
        return toggles

    def writes(self) -> list[Write]:
        """Of entries, due times and debts, each table's in the order of its keys."""
        writes: list[Write] = []
        for name_hash in sorted(self.changes):
            change = self.changes[name_hash]
            base, held = change.base, change.held
            writes += due.writes(base, held)
            if base is not None and (held is None or held.timestamp != base.timestamp):
                writes.append(Write(TABLE, base.key, None))
            if held is not None:
                writes.append(Write(TABLE, held.key, encode_entry(held.entry)))
        for key in sorted(self.owed):
            owed = self.owed[key]
            writes.append(Write(OWED, key, None if owed is None else _encode_owed(owed)))
        return writes

    def put_on_top(self, newer: Layer) -> None:
        """This one could not be committed: what landed meanwhile is part of it."""
        for name_hash, change in newer.changes.items():
            if name_hash in self.changes:
                self.changes[name_hash].held = change.held
            else:
                self.changes[name_hash] = change
        self.owed.update(newer.owed)
        self.weighed |= newer.weighed
        self.promised |= newer.promised
