"""An account's book: how it comes to be, and when it may be deleted.  Pure.

An account is made by the first thing that needs it: a PUT or POST of the account, or the first report of a container in it.  Rows
never make a book by themselves (Books.merge_rows answers None), so whoever reports sends ``header_for`` first when a primary has no
such account, and the rows again.  It uses the report's timestamp: every primary and every retry then makes the same account.

An account never goes by itself, empty or not: only a DELETE of it ends it, and only when ``deletable``.
"""

from __future__ import annotations

from collections.abc import Iterable

from ring.names import Path
from storage.client.interface import Row
from storage.client.node import BookHeader, BookState
from storage.rows.merge import merge_states


def header_for(account: Path, row: Row) -> BookHeader:
    """The header that makes the account which ``row``, a container's report, needs."""
    assert account.account and not account.container
    return BookHeader(account, created=row.timestamp, deleted=None)


def deletable(states: Iterable[BookState]) -> bool:
    """Given what a majority of primaries know: none of them holds a live row.  Of containers as of accounts."""
    return merge_states(states).count == 0
