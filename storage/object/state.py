"""The table of a device's index for what is no entry: weights, promises, staged versions, doubts, each under its own prefix.

Decides only how it is read at a start.  Neighbours: weights, promises, staged, doubts (whose it is), index (which commits it).
Format: docs/formats/index.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

import msgspec

from ring.errors import FormatError
from ring.world.interface import Tables

STATE = "state"
_PAGE = 1000
T = TypeVar("T")


def under(tables: Tables, prefix: bytes, decode: Callable[[bytes], T], damaged: str) -> Iterator[tuple[bytes, T]]:
    """What the table has under ``prefix``, in the order of keys: the rest of each key, and its value.  FormatError, which says
    ``damaged``, when a value cannot be decoded."""
    start, end = prefix, prefix[:-1] + bytes([prefix[-1] + 1])
    while pairs := tables.scan(STATE, start, end, limit=_PAGE):
        for key, value in pairs:
            try:
                yield key[len(prefix) :], decode(value)
            except msgspec.DecodeError as error:
                raise FormatError(damaged) from error
        start = pairs[-1][0] + b"\0"
