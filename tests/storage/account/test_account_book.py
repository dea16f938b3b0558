"""How an account comes to be, and when it may go."""

from __future__ import annotations

import pytest

from ring.names import Path
from ring.timestamp import Timestamp
from storage.account.book import deletable, header_for
from storage.client.interface import Row
from storage.client.node import BookHeader, BookState
from storage.rows.merge import merge_headers

HEADER = BookHeader(Path("a"), Timestamp(1), None)


def test_every_retry_makes_the_same_account() -> None:
    row = Row("c", Timestamp(5))
    assert header_for(Path("a"), row) == header_for(Path("a"), row) == BookHeader(Path("a"), Timestamp(5), None)
    assert merge_headers(header_for(Path("a"), row), header_for(Path("a"), row)) == header_for(Path("a"), row)


@pytest.mark.parametrize(("counts", "expected"), [([0, 0], True), ([0, 1], False), ([1, 0, 0], False), ([0], True)])
def test_only_an_empty_book_may_go(counts: list[int], expected: bool) -> None:
    assert deletable(BookState(HEADER, count, 0) for count in counts) is expected
