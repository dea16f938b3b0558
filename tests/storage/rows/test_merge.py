"""The merge rule is a maximum: idempotent, commutative, associative.  And the codecs under it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ring.errors import BadInput, DiskFault, FormatError
from ring.names import Path
from ring.timestamp import Timestamp
from storage.client.interface import Row
from storage.client.node import BookHeader, BookState
from storage.rows.merge import merge_headers, merge_states, newest, normal_header, supersedes
from storage.rows.page import PackedRows
from storage.rows.row import (
    check_row,
    pack_header,
    pack_row,
    seal,
    unpack_header,
    unpack_row,
    unseal,
    unseal_all,
)

TIMES = st.builds(Timestamp, st.integers(0, 3), st.integers(0, 1))
ROWS = st.builds(
    Row,
    name=st.just("n"),
    timestamp=TIMES,
    size=st.integers(0, 2),
    etag=st.sampled_from(["", "a", "b"]),
    content_type=st.sampled_from(["", "t"]),
    count=st.integers(0, 1),
    deleted=st.booleans(),
)
METADATA = st.dictionaries(st.sampled_from(["x", "y"]), st.tuples(st.sampled_from(["", "1", "2"]), TIMES))
HEADERS = st.builds(BookHeader, st.just(Path("a", "c")), st.none() | TIMES, st.none() | TIMES, st.integers(0, 2), METADATA)


@given(ROWS, ROWS, ROWS)
def test_rows_are_totally_ordered(a: Row, b: Row, c: Row) -> None:
    assert not supersedes(a, a)
    assert (a == b) or supersedes(a, b) != supersedes(b, a)
    assert newest([a, newest([b, c])]) == newest([newest([a, b]), c]) == newest([c, b, a])


@given(HEADERS, HEADERS, HEADERS)
def test_headers_merge_in_any_order(a: BookHeader, b: BookHeader, c: BookHeader) -> None:
    assert merge_headers(a, a) == normal_header(a)
    assert merge_headers(a, b) == merge_headers(b, a)
    assert merge_headers(merge_headers(a, b), c) == merge_headers(a, merge_headers(b, c))
    assert pack_header(merge_headers(a, b)) == pack_header(merge_headers(b, a))


@pytest.mark.parametrize(
    ("loses", "wins"),
    [
        (Row("n", Timestamp(1), 9), Row("n", Timestamp(2))),
        (Row("n", Timestamp(1), 9), Row("n", Timestamp(1, 1))),
        (Row("n", Timestamp(2), 9), Row("n", Timestamp(2), deleted=True)),
        (Row("n", Timestamp(1), deleted=True), Row("n", Timestamp(2))),
        (Row("n", Timestamp(1), 9, etag="a"), Row("n", Timestamp(1), 1, etag="b")),
        # a container's reports to its account: the later stamp; but not about an earlier life
        (Row("c", Timestamp(1), 9, "0000000009.00000_00000000", count=9), Row("c", Timestamp(1), 1, "0000000010.00000_00000000")),
        (
            Row("c", Timestamp(1), 9, "0000000099.00000_00000000"),
            Row("c", Timestamp(2), etag="0000000002.00000_00000000", deleted=True),
        ),
    ],
)
def test_which_row_wins(loses: Row, wins: Row) -> None:
    assert supersedes(wins, loses) and not supersedes(loses, wins)


def test_a_new_life_of_a_container_has_none_of_the_old_metadata() -> None:
    old = BookHeader(Path("a", "c"), Timestamp(1), None, 1, {"x": ("1", Timestamp(1)), "y": ("2", Timestamp(5))})
    gone = merge_headers(old, BookHeader(Path("a", "c"), None, Timestamp(3)))
    assert not gone.exists
    assert gone.metadata == {"y": ("2", Timestamp(5))}  # set after the deletion, which was known late
    again = merge_headers(gone, BookHeader(Path("a", "c"), Timestamp(4), None, 2))
    assert again.exists and again.policy == 2


def test_headers_of_different_books_do_not_merge() -> None:
    with pytest.raises(BadInput):
        merge_headers(BookHeader(Path("a", "c"), None, None), BookHeader(Path("a", "d"), None, None))


def test_a_book_is_not_empty_while_a_replica_holds_a_row() -> None:
    header = BookHeader(Path("a", "c"), Timestamp(1), None)
    assert merge_states([BookState(header, 0, 0), BookState(header, 1, 5)]).count == 1


ANY_ROWS = st.builds(
    Row,
    name=st.text(st.characters(codec="utf-8"), max_size=5),
    timestamp=st.builds(Timestamp, st.integers(0, 10**15), st.integers(0, 2**32 - 1)),
    size=st.integers(0, 2**63 - 1),
    etag=st.text(st.characters(codec="utf-8"), max_size=40),
    content_type=st.text(max_size=5, alphabet="a/é"),
    count=st.integers(0, 2**63 - 1),
    deleted=st.booleans(),
)


@given(st.lists(ANY_ROWS, max_size=20))
def test_rows_pack(rows: list[Row]) -> None:
    packed = [pack_row(row) for row in rows]
    assert [unpack_row(one) for one in packed] == rows
    together = PackedRows.join(packed)
    assert list(together) == rows and len(together) == len(rows)
    assert PackedRows(together.packed) == together == PackedRows.of(rows) == rows
    assert unseal_all([seal(one) for one in packed]) == packed


@given(HEADERS)
def test_headers_pack(header: BookHeader) -> None:
    assert unpack_header(pack_header(header)) == header


@given(ROWS, st.data())
def test_a_damaged_value_is_not_read(row: Row, data: st.DataObject) -> None:
    value = bytearray(seal(pack_row(row)))
    value[data.draw(st.integers(0, len(value) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    for read in (unseal, lambda one: unseal_all([one])):
        with pytest.raises(DiskFault):
            read(bytes(value))
    with pytest.raises(DiskFault):
        unseal(bytes(value[: data.draw(st.integers(0, 3))]))


@pytest.mark.parametrize("junk", [b"", b"\x80", b"\x01", b"\xdc\x00", b"\x81\xa4name\xa1n"])
def test_junk_is_no_row(junk: bytes) -> None:
    with pytest.raises(FormatError):
        unpack_row(junk)
    with pytest.raises(FormatError):
        unpack_header(junk)
    with pytest.raises(FormatError):
        PackedRows(junk).decode()


@pytest.mark.parametrize(
    ("row", "book", "fits"),
    [
        (Row("n" * 1024, Timestamp(1)), Path("a", "c"), True),
        (Row("é" * 512, Timestamp(1)), Path("a", "c"), True),
        (Row("n" * 1025, Timestamp(1)), Path("a", "c"), False),
        (Row("é" * 513, Timestamp(1)), Path("a", "c"), False),
        (Row("", Timestamp(1)), Path("a", "c"), False),
        (Row("\ud800", Timestamp(1)), Path("a", "c"), False),
        (Row("n" * 256, Timestamp(1)), Path("a"), True),
        (Row("n" * 257, Timestamp(1)), Path("a"), False),
        (Row("n", Timestamp(1), size=-1), Path("a", "c"), False),
        (Row("n", Timestamp(1), count=2**63), Path("a", "c"), False),
        (Row("n", Timestamp(1), content_type="t" * 1025), Path("a", "c"), False),
    ],
)
def test_what_a_book_may_hold(row: Row, book: Path, fits: bool) -> None:
    if fits:
        check_row(row, book)
    else:
        with pytest.raises(BadInput):
            check_row(row, book)
