"""An account's book: how it comes to be, and how it goes.  Pure.

An account is made by the first thing that needs it: a PUT or POST of the account, or the first report of a container in it.  Rows
never make a book by themselves (Books.merge_rows answers None), so whoever reports sends ``header_for`` first when a primary has no
such account, and the rows again.  It uses the report's timestamp: every primary and every retry then makes the same account.

An account never goes by itself, empty or not: only a DELETE of it ends it.  Its containers are still there then: it is *gone*,
takes nothing new and cannot be made again, until the reaper (reaper.py) has deleted all that is in it and says so in its header.
After that it is as if it had never been.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from ring.names import Path
from ring.timestamp import Timestamp
from storage.client.interface import Row
from storage.client.node import BookHeader, BookState
from storage.rows.merge import merge_states


def header_for(account: Path, row: Row) -> BookHeader:
    """The header that makes the account which ``row``, a container's report, needs."""
    assert account.account and not account.container
    return BookHeader(account, created=row.timestamp, deleted=None)


REAPED = "x-sysmeta-reaped"


def gone(header: BookHeader) -> bool:
    """Whether it was deleted, and not all that was in it is."""
    return not header.exists and header.deleted is not None and not header.metadata.get(REAPED, ("",))[0]


def ended(header: BookHeader, at: Timestamp) -> BookHeader:
    """Of a DELETE at that time, which is above all that the header says."""
    return replace(header, deleted=at, metadata={})


def reaped(header: BookHeader, at: Timestamp) -> BookHeader:
    """Of a gone account in which nothing is left.  A later DELETE takes the mark away with all other metadata."""
    return replace(header, metadata={REAPED: ("true", at)})


def deletable(states: Iterable[BookState]) -> bool:
    """Given what a majority of primaries know: none of them holds a live row.  Of containers as of accounts."""
    return merge_states(states).count == 0
