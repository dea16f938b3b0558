"""When an object is to go (X-Delete-At), and which tombstone makes it go.  Pure.

An object whose X-Delete-At is D is dead from D on, whether or not it was removed yet: nobody is shown it, and a POST at or after D
does not find it.  So all that can still save it carries a timestamp below D, and is either known to a majority of its primaries
some time after D or will never be acknowledged.  Its tombstone is therefore written *at D*: below every write that came after, and
the same whoever writes it, so that several who do write it once.

With the consistency ``available`` a majority of the primaries need not know what was acknowledged.  There the tombstone is just
above the version that it is for, and whatever was written after that is above it, wherever it lies.

Neighbours: expiring (deletes), storage.object.due (what is due on a device), objects (refuses the POST).
Source: Swift, "Expiring Object Support" (overview_expiring_objects): there too the deletion's timestamp is X-Delete-At, and it
holds only for an object that still has it.
"""

from __future__ import annotations

from collections.abc import Mapping

from ring.timestamp import OFFSET_MAX, TICKS_MAX, TICKS_PER_SECOND, Timestamp

DELETE_AT = "x-delete-at"
_DIGITS_MAX = 10  # what a timestamp has; later than that is never


def due_of(metadata: Mapping[str, str]) -> int:
    """Seconds since 1970 when an object with this metadata is to go; 0: never.  What is no such number is no date."""
    text = metadata.get(DELETE_AT, "")
    return int(text) if text and text.isascii() and text.isdigit() and len(text) <= _DIGITS_MAX else 0


def expired(metadata: Mapping[str, str], now: float) -> bool:
    due = due_of(metadata)
    return 0 < due <= now


def tombstone_at(due: int, data: Timestamp) -> Timestamp:
    """Of the tombstone that removes the version written at ``data``: D; or, when the clock that wrote it was ahead of
    its own date, the last timestamp that is still below any other write's."""
    at_due = Timestamp(min(due * TICKS_PER_SECOND, TICKS_MAX))
    return at_due if at_due.ticks > data.ticks else just_above(data)


def just_above(data: Timestamp) -> Timestamp:
    """Of the tombstone of that version and of nothing else."""
    return Timestamp(data.ticks, OFFSET_MAX)
