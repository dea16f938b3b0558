"""The one merge rule: which of two rows, or what of two headers, holds.  Pure.

Rows: the later timestamp; at one timestamp a tombstone before a live row, then the greater ``etag``, then the greater packed bytes.
That is a total order, so merging is taking a maximum: idempotent, commutative, associative, whatever the order of arrival.

A row of an account's book is a container's report about itself.  Its timestamp is the container's last PUT or DELETE, so that a
report by a replica that missed the DELETE loses; its ``etag`` is the stamp of the report (a Timestamp's text, of fixed width), so
that among reports about one life of the container the newest wins.  The same rule does both.

Headers: the greatest ``created`` (its ``policy`` with it; at one timestamp the greater policy), the greatest ``deleted``, and each
metadata name by itself: later timestamp, then greater value.  A value "" is a removal and is kept.  What was set at or before
``deleted`` is gone, but for what says where rows lie (storage.container.shards).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ring.errors import BadInput
from ring.timestamp import ZERO
from storage.client.interface import Row
from storage.client.node import BookHeader, BookState
from storage.container.shards import LASTING
from storage.rows.row import pack_row


def supersedes(new: Row, old: Row) -> bool:
    """Whether ``new`` comes after ``old``.  False when they are equal."""
    one, other = new.timestamp, old.timestamp
    if one.ticks != other.ticks:
        return one.ticks > other.ticks
    if one.offset != other.offset:
        return one.offset > other.offset
    if new.deleted != old.deleted:
        return new.deleted
    if new.etag != old.etag:
        return new.etag > old.etag
    return pack_row(new) > pack_row(old)


def newest(rows: Iterable[Row]) -> Row:
    """Of rows of one name, at least one."""
    rows = iter(rows)
    best = next(rows)
    for row in rows:
        if supersedes(row, best):
            best = row
    return best


def merge_headers(one: BookHeader, other: BookHeader) -> BookHeader:
    """Of the same book (BadInput else)."""
    if one.path != other.path:
        raise BadInput(f"{one.path} and {other.path} are different books")
    by_creation = max(one, other, key=lambda header: (header.created or ZERO, header.created is not None, header.policy))
    deletions = [header.deleted for header in (one, other) if header.deleted is not None]
    deleted = max(deletions) if deletions else None
    metadata = dict(one.metadata)
    for name, (value, timestamp) in other.metadata.items():
        held = metadata.get(name)
        if held is None or (timestamp, value) > (held[1], held[0]):
            metadata[name] = (value, timestamp)
    return normal_header(BookHeader(one.path, by_creation.created, deleted, by_creation.policy, metadata))


def normal_header(header: BookHeader) -> BookHeader:
    """Metadata in order of names, without what a deletion took."""
    since = header.deleted
    metadata: Mapping[str, tuple[str, object]] = header.metadata
    kept = {
        name: header.metadata[name]
        for name in sorted(metadata)
        if since is None or header.metadata[name][1] > since or name in LASTING
    }
    return BookHeader(header.path, header.created, header.deleted, header.policy if header.created is not None else 0, kept)


def merge_states(states: Iterable[BookState]) -> BookState:
    """What several replicas know of one book, at least one of them.

    The sums are of the replica with most rows: which is newest is not known, and a container must not look empty while any of them
    holds a live row."""
    states = list(states)
    header = states[0].header
    for state in states[1:]:
        header = merge_headers(header, state.header)
    fullest = max(states, key=lambda state: (state.count, state.objects, state.bytes_used))
    return BookState(header, fullest.count, fullest.bytes_used, fullest.objects)
