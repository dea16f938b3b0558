"""Listings of disagreeing replicas, against the plain definition of a listing."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ring.errors import Unavailable
from ring.names import Path
from ring.timestamp import Timestamp
from storage.client.interface import Page, Prefix, Query, Row
from storage.client.node import BookHeader, BookState, RowPage
from storage.container.listing import Fetch, ListingMerge, book_meta
from storage.rows.merge import newest
from storage.rows.page import PackedRows

HEADER = BookHeader(Path("a", "c"), Timestamp(1), None)


class Replica:
    """Answers as Books.rows does; ``page_rows`` at most."""

    def __init__(self, rows: Sequence[Row], *, page_rows: int = 10_000, packed: bool = True) -> None:
        self.rows = {row.name: row for row in rows}
        self.page_rows = page_rows
        self.packed = packed
        self.fetches: list[Fetch] = []

    def page(self, fetch: Fetch) -> RowPage:
        self.fetches.append(fetch)
        names = [n for n in self.rows if (not fetch.start or n > fetch.start) and (not fetch.end or n < fetch.end)]
        names.sort(reverse=fetch.reverse)
        count = min(fetch.limit, self.page_rows)
        rows = [self.rows[name] for name in names[:count]]
        live = [row for row in self.rows.values() if not row.deleted]
        state = BookState(HEADER, len(live), sum(row.size for row in live))
        return RowPage(state, PackedRows.of(rows) if self.packed else rows, complete=len(names) <= count)


def listing(query: Query, *replicas: Replica, fetches_max: int = 1000) -> Page:
    merge = ListingMerge(query)
    for _ in range(fetches_max):
        fetch = merge.next_fetch()
        if fetch is None:
            return merge.page()
        merge.receive([replica.page(fetch) for replica in replicas])
    raise AssertionError("it never ends")


def naive(query: Query, rows: Sequence[Row]) -> tuple[list[Row | Prefix], bool]:
    items: list[Row | Prefix] = []
    low, high = (query.end_marker, query.marker) if query.reverse else (query.marker, query.end_marker)
    for row in sorted(rows, key=lambda row: row.name.encode(), reverse=query.reverse):
        name = row.name
        if row.deleted or not name.startswith(query.prefix) or (low and name <= low) or (high and name >= high):
            continue
        item: Row | Prefix = row
        if query.delimiter:
            head, found, _ = name[len(query.prefix) :].partition(query.delimiter)
            if found:
                item = Prefix(query.prefix + head + query.delimiter)
                if item in items or item.name == query.marker:
                    continue
        if len(items) == query.limit:
            return items, True
        items.append(item)
    return items, False


NAMES = st.text(st.sampled_from(["a", "b", "/", "\0", "\ud7ff", "\ue000", "\U0010ffff", "é"]), min_size=1, max_size=6)
BOUNDS = st.one_of(st.just(""), NAMES)
QUERIES = st.builds(
    Query,
    prefix=st.one_of(st.just(""), NAMES.map(lambda name: name[:2])),
    delimiter=st.sampled_from(["", "/", "a", "/a"]),
    marker=BOUNDS,
    end_marker=BOUNDS,
    limit=st.sampled_from([0, 1, 2, 3, 10_000]),
    reverse=st.booleans(),
)
ROWS = st.lists(
    st.builds(
        Row,
        name=NAMES,
        timestamp=st.integers(1, 4).map(Timestamp),
        size=st.integers(0, 3),
        etag=st.sampled_from(["", "x", "y"]),
        deleted=st.booleans(),
    ),
    max_size=30,
)


@settings(max_examples=400, deadline=None)
@given(QUERIES, ROWS, st.integers(1, 3), st.integers(1, 5), st.booleans(), st.randoms(use_true_random=False))
@example(Query(delimiter="/"), [Row("a/" + "\U0010ffff" * n, Timestamp(1)) for n in range(1, 9)], 1, 2, True, None)
def test_a_page_is_what_the_merged_rows_say(
    query: Query, rows: list[Row], count: int, page_rows: int, packed: bool, random: object
) -> None:
    """Each row reaches some of the replicas; they page by different sizes."""
    merged = [newest([row for row in rows if row.name == name]) for name in {row.name for row in rows}]
    held: list[list[Row]] = [[] for _ in range(count)]
    for number, row in enumerate(rows):
        places = [number % count] if random is None else random.sample(range(count), random.randint(1, count))  # type: ignore[attr-defined]
        for place in places:
            held[place].append(row)
    replicas = []
    for place, mine in enumerate(held):
        own = [newest([row for row in mine if row.name == name]) for name in {row.name for row in mine}]
        replicas.append(Replica(own, page_rows=page_rows + place, packed=packed))
    page = listing(query, *replicas)
    items, truncated = naive(query, merged)
    assert (list(page.items), page.truncated) == (items, truncated)


def rows(*names: str) -> list[Row]:
    return [Row(name, Timestamp(1), 1) for name in names]


def test_names_are_trusted_only_up_to_the_end_of_the_shortest_page() -> None:
    one = Replica(rows("a", "d", "e"), page_rows=2)
    other = Replica([*rows("a", "b", "c"), Row("d", Timestamp(2), deleted=True)], page_rows=2)
    assert [item.name for item in listing(Query(), one, other).items] == ["a", "b", "c", "e"]


def test_a_deletion_that_one_replica_missed_stays_deleted() -> None:
    one, other = Replica(rows("a", "b")), Replica([*rows("a"), Row("b", Timestamp(2), deleted=True)])
    assert [item.name for item in listing(Query(), one, other).items] == ["a"]


def test_rolled_up_names_are_skipped_not_read() -> None:
    replica = Replica(rows(*(f"{folder:02}/{number:06}" for folder in range(20) for number in range(5000))))
    page = listing(Query(delimiter="/"), replica)
    assert [item.name for item in page.items] == [f"{folder:02}/" for folder in range(20)]
    assert len(replica.fetches) <= 21
    assert sum(fetch.limit for fetch in replica.fetches) < 2000


def test_one_fetch_makes_a_plain_page() -> None:
    replica = Replica(rows(*(f"{number:06}" for number in range(5000))))
    page = listing(Query(limit=1000), replica)
    assert len(page.items) == 1000 and page.truncated
    assert replica.fetches == [Fetch("", "", 1001, False)]


def test_tombstones_are_read_over() -> None:
    many = [Row(f"{number:06}", Timestamp(2), deleted=True) for number in range(5000)]
    replica = Replica([*many, *rows("z")])
    page = listing(Query(limit=10), replica)
    assert [item.name for item in page.items] == ["z"] and not page.truncated
    assert len(replica.fetches) < 12


def test_replicas_that_agree_are_decoded_once() -> None:
    one, other = (Replica(rows("a", "b", "c"), page_rows=2).page(Fetch("", "", 2, False)) for _ in range(2))
    merge = ListingMerge(Query(limit=1))
    merge.receive([one, other])
    assert isinstance(other.rows, PackedRows) and other.rows._rows is None
    assert [item.name for item in merge.page().items] == ["a"]


def test_an_answer_that_cannot_be_one() -> None:
    merge = ListingMerge(Query())
    with pytest.raises(Unavailable):
        merge.receive([RowPage(BookState(HEADER, 0, 0), [], complete=False)])


def test_the_meta_of_a_page() -> None:
    header = BookHeader(Path("a", "c"), Timestamp(5), Timestamp(4), 1, {"x": ("1", Timestamp(5)), "gone": ("", Timestamp(6))})
    meta = book_meta(BookState(header, 3, 70, 0))
    assert (meta.created, meta.metadata, meta.object_count, meta.bytes_used, meta.policy) == (Timestamp(5), {"x": "1"}, 3, 70, 1)
    meta = book_meta(BookState(BookHeader(Path("a"), Timestamp(5), None), 3, 70, 12))
    assert (meta.container_count, meta.object_count, meta.bytes_used) == (3, 12, 70)
