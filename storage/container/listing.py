"""One page of a listing, out of rows that several replicas hold: what to fetch next, and what the page is.  Pure.

The caller asks each of a majority of replicas for the rows of a ``Fetch``, hands their pages to ``receive``, and again until
``next_fetch`` is None.  Rows of one name merge by storage.rows.merge; an incomplete page speaks only for names up to its last one,
so a step trusts no name beyond the least of these.  Replicas that send the same bytes are decoded once.

Of a container that is cut into shards, a fetch brings rows of the root and of one shard; they merge in the same way, and the
answer speaks for names up to the end of that shard.

With a delimiter the scan skips: after a name that is rolled up into a prefix, the next fetch begins behind all names with that
prefix, and fetches grow and shrink with what they yield.  Order is that of UTF-8 bytes, which is that of Python's str.

Serves containers and accounts, Swift's and S3's listings alike; neighbours: storage.client (I/O), storage.rows.page.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

from ring.errors import Unavailable
from ring.timestamp import ZERO
from storage.client.interface import BookMeta, Page, Prefix, Query, Row
from storage.client.node import BookState, RowPage
from storage.container.shards import LASTING, sums_of
from storage.rows.merge import merge_states, supersedes
from storage.rows.page import PackedRows

FETCH_ROWS_MAX = 10_000
FETCH_ROWS_MIN = 32
ROLLED_ROWS = 256  # of a first fetch that may roll names up
LAST_CHARACTER = "\U0010ffff"


@dataclass(frozen=True, slots=True)
class Fetch:
    """For Node.rows, of each replica that takes part."""

    start: str
    end: str
    limit: int
    reverse: bool


class ListingMerge:
    """A majority of replicas answers every fetch."""

    def __init__(self, query: Query) -> None:
        self._query = query
        self._states: list[BookState] = []
        self._items: list[Row | Prefix] = []
        self._truncated = False
        self._done = False
        self._rolled = ""  # all names with this beginning are settled
        low, high = (query.end_marker, query.marker) if query.reverse else (query.marker, query.end_marker)
        self._low = max(low, _before(query.prefix))  # names above this
        self._high = _least(high, _after(query.prefix))  # names below this; "": no bound
        self._limit = min(query.limit + 1, FETCH_ROWS_MAX)
        if query.delimiter:
            self._limit = min(self._limit, ROLLED_ROWS)
            if query.marker and self._roll_up(query.marker) == query.marker:
                self._skip(query.marker)

    def next_fetch(self) -> Fetch | None:
        """None: the page is ready.  The first is never None, since a page tells of its book."""
        if self._done:
            return None
        return Fetch(self._low, self._high, self._limit, self._query.reverse)

    def receive(self, pages: Sequence[RowPage], inner: Sequence[RowPage] = (), until: str | None = None) -> None:
        """The replicas' answers to the last fetch; ``inner``: those of a shard, and of what was there before it, which speak for
        names up to ``until`` (None: for all that was asked for).  Unavailable when a replica's answer cannot be one."""
        assert pages and not self._done
        self._states = [page.state for page in pages]
        count_before = len(self._items)
        rows, horizon = self._merge([*pages, *inner], until)
        skipped = self._take(rows)
        if self._truncated or horizon is None or (self._high and self._low >= self._high):
            self._done = True
            return
        if self._query.reverse:
            self._high = _least(self._high, horizon)
        else:
            self._low = max(self._low, horizon)
        self._done = bool(self._high) and self._low >= self._high
        if self._query.delimiter:
            fruitful = len(self._items) - count_before
            self._limit = (
                max(FETCH_ROWS_MIN, self._limit // 4) if skipped and fruitful < 8 else min(FETCH_ROWS_MAX, self._limit * 4)
            )
        else:
            self._limit = min(FETCH_ROWS_MAX, self._limit * 2)  # tombstones: go faster

    @property
    def state(self) -> BookState:
        """What the replicas that answered know of the book, together."""
        return merge_states(self._states)

    def page(self) -> Page:
        assert self._done
        return Page(book_meta(self.state), self._items, self._truncated)

    def _merge(self, pages: Sequence[RowPage], until: str | None) -> tuple[Iterable[Row], str | None]:
        """The rows that can be trusted, in order, and the last name they speak for; None: for everything up to the end."""
        if len(pages) > 1:
            pages = [page for page in pages if page.rows or not page.complete] or pages[:1]
        first = pages[0]
        if all(_alike(page, first) for page in pages[1:]):
            pages = [first]
            rows: Iterable[Row] = first.rows.decode() if isinstance(first.rows, PackedRows) else first.rows
        else:
            merged: dict[str, Row] = {}
            for page in pages:
                for row in page.rows:
                    held = merged.get(row.name)
                    if held is None or supersedes(row, held):
                        merged[row.name] = row
            rows = [merged[name] for name in sorted(merged, reverse=self._query.reverse)]
        ends = [] if until is None else [until]
        for page in pages:
            if not page.complete:
                if not page.rows:
                    raise Unavailable("a replica sent an empty page that is not the last one")
                ends.append(page.rows[-1].name)
        if not ends:
            return rows, None
        horizon = max(ends) if self._query.reverse else min(ends)
        if len({*ends}) > 1 or len(ends) < len(pages) or until is not None:
            if self._query.reverse:
                rows = [row for row in rows if row.name >= horizon]
            else:
                rows = [row for row in rows if row.name <= horizon]
        return rows, horizon

    def _take(self, rows: Iterable[Row]) -> bool:
        """Add to the page.  True when it ended inside a prefix that was rolled up, and the bounds are behind that now."""
        query, items = self._query, self._items
        prefix, limit = query.prefix, query.limit
        if not query.delimiter:
            live = (row for row in rows if not row.deleted and row.name.startswith(prefix))
            items += islice(live, limit - len(items))
            self._truncated = next(live, None) is not None
            return False
        name = ""
        for row in rows:
            name = row.name
            if row.deleted or not name.startswith(prefix) or (self._rolled and name.startswith(self._rolled)):
                continue
            rolled = self._roll_up(name)
            if rolled:
                self._rolled = rolled
                if rolled == query.marker:
                    continue
            if len(items) == limit:
                self._truncated = True
                return False
            items.append(Prefix(rolled) if rolled else row)
        if self._rolled and name.startswith(self._rolled):
            return self._skip(self._rolled)
        return False

    def _roll_up(self, name: str) -> str:
        """The prefix that stands for ``name``; "" when it stands for itself."""
        query = self._query
        if not name.startswith(query.prefix):
            return ""
        at = name.find(query.delimiter, len(query.prefix))
        return name[: at + len(query.delimiter)] if at >= 0 else ""

    def _skip(self, rolled: str) -> bool:
        """Go behind all names that begin with ``rolled``."""
        self._rolled = rolled
        if self._query.reverse:
            self._high = _least(self._high, rolled)
        else:
            # The last name that can begin so is longer than any; what still falls behind this bound is passed over by _take.
            self._low = max(self._low, rolled + LAST_CHARACTER)
        return True


def book_meta(state: BookState) -> BookMeta:
    """As a HEAD shows it: metadata without removals, and the sums under the names that fit the kind of book."""
    header = state.header
    is_container = bool(header.path.container)
    objects, size = sums_of(header.metadata)  # of shards
    return BookMeta(
        created=header.created or ZERO,
        metadata={name: value for name, (value, _) in header.metadata.items() if value and name not in LASTING},
        object_count=state.count + objects if is_container else state.objects,
        bytes_used=state.bytes_used + size,
        container_count=0 if is_container else state.count,
        policy=header.policy,
    )


def _alike(one: RowPage, other: RowPage) -> bool:
    return (
        isinstance(one.rows, PackedRows)
        and isinstance(other.rows, PackedRows)
        and one.complete == other.complete
        and one.rows.packed == other.rows.packed
    )


def _least(one: str, other: str) -> str:
    """Of two upper bounds, "" being none."""
    if not one or not other:
        return one or other
    return min(one, other)


def _before(prefix: str) -> str:
    """A bound below every name with this prefix, and above nearly all others that are below them."""
    if not prefix:
        return ""
    code = ord(prefix[-1])
    if code == 0:
        return prefix[:-1]
    return prefix[:-1] + chr(code - 1 if code != 0xE000 else 0xD7FF) + LAST_CHARACTER


def _after(prefix: str) -> str:
    """The least string above every name with this prefix; "" when there is none."""
    prefix = prefix.rstrip(LAST_CHARACTER)
    if not prefix:
        return ""
    code = ord(prefix[-1])
    return prefix[:-1] + chr(code + 1 if code != 0xD7FF else 0xE000)
