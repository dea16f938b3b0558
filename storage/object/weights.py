"""How much of each segment is alive: counters that follow the index and are committed with it.

``live`` bytes are those of records that an entry of the index names (the version's own and its newest POST's), ``drops`` those of
drop records, which stay until nothing older of their name is left.  What is neither is dead; compaction.py takes segments by that.
Like all of the index they are made anew when the log is replayed.  Pure but for reading Tables.  Format: docs/formats/index.md.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from ring.world.interface import Tables, Write
from storage.object.segments import Place
from storage.object.state import STATE, under

PREFIX = b"weight"  # and the segment's sequence


class Weight(msgspec.Struct, array_like=True):
    """Bytes."""

    live: int = 0
    drops: int = 0


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Weight).decode


class Weights:
    """Now, with all that has landed."""

    def __init__(self) -> None:
        self._by_segment: dict[int, Weight] = {}

    def get(self, sequence: int) -> Weight:
        return self._by_segment.get(sequence) or Weight()

    def all(self) -> list[tuple[int, Weight]]:
        return sorted(self._by_segment.items())

    def add(self, place: Place, sign: int) -> None:
        """An entry names a record (1), or does so no longer (-1)."""
        self._of(place.segment).live += sign * place.length

    def dropped(self, place: Place) -> None:
        """A drop record landed."""
        self._of(place.segment).drops += place.length

    def set_drops(self, sequence: int, count_bytes: int) -> None:
        """Compaction put drop records there."""
        self._of(sequence).drops = count_bytes

    def forget(self, sequence: int) -> None:
        """The segment is gone."""
        self._by_segment.pop(sequence, None)

    def clear(self) -> None:
        self._by_segment.clear()

    def load(self, tables: Tables) -> None:
        """FormatError when they are damaged."""
        self._by_segment.clear()
        for sequence, weight in under(tables, PREFIX, _decode, "the weight of a segment is damaged"):
            self._by_segment[int.from_bytes(sequence, "big")] = weight

    def writes(self, sequences: Iterable[int]) -> list[Write]:
        """What makes the tables say the same of these segments."""
        found = []
        for sequence in sorted(sequences):
            weight = self._by_segment.get(sequence)
            found.append(Write(STATE, PREFIX + sequence.to_bytes(4, "big"), None if weight is None else _encode(weight)))
        return found

    def _of(self, sequence: int) -> Weight:
        weight = self._by_segment.get(sequence)
        if weight is None:
            weight = self._by_segment[sequence] = Weight()
        return weight
