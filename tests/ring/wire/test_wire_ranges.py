"""Ranges, conditions, dates and queries as tables."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ring.errors import BadInput
from ring.wire.conditions import Current, evaluate, if_range_holds, parse_tags
from ring.wire.dates import format_date, parse_date
from ring.wire.message import Headers
from ring.wire.query import Query, encode_query, quote, unquote
from ring.wire.ranges import ByteRange, Multipart, Unsatisfiable, parse_ranges


@pytest.mark.parametrize(
    ("header", "size", "expected"),
    [
        ("bytes=0-499", 1000, [(0, 500)]),
        ("bytes=500-", 1000, [(500, 1000)]),
        ("bytes=-500", 1000, [(500, 1000)]),
        ("bytes=-5000", 1000, [(0, 1000)]),
        ("bytes=0-0", 1000, [(0, 1)]),
        ("bytes=-1", 1000, [(999, 1000)]),
        ("bytes=0-5000", 1000, [(0, 1000)]),
        ("bytes=999-", 1000, [(999, 1000)]),
        ("bytes=0-0,-1", 1000, [(0, 1), (999, 1000)]),
        ("bytes= 0-1 , 4-5", 1000, [(0, 2), (4, 6)]),
        ("BYTES=0-1", 1000, [(0, 2)]),
        ("bytes=1-2,,3-4,", 1000, [(1, 3), (3, 5)]),
        ("bytes=0-1,2000-3000", 1000, [(0, 2)]),
        ("bytes=5-9,0-4", 1000, [(5, 10), (0, 5)]),
        ("bytes=1000-", 1000, 416),
        ("bytes=1000-1001,2000-", 1000, 416),
        ("bytes=-0", 1000, 416),
        ("bytes=0-", 0, 416),
        ("bytes=-5", 0, 416),
        ("", 1000, None),
        ("bytes", 1000, None),
        ("bytes=", 1000, None),
        ("bytes=-", 1000, None),
        ("bytes=a-b", 1000, None),
        ("bytes=5-4", 1000, None),
        ("bytes=0-1,5-4", 1000, None),
        ("bytes=1-2-3", 1000, None),
        ("bytes=+1-2", 1000, None),
        ("items=0-1", 1000, None),
        ("bytes=0-1;2-3", 1000, None),
        ("bytes=" + ",".join(f"{n}-{n}" for n in range(50)), 1000, [(n, n + 1) for n in range(50)]),
        ("bytes=" + ",".join(f"{n}-{n}" for n in range(51)), 1000, None),
        ("bytes=0-,0-,0-", 1000, [(0, 1000)] * 3),
        ("bytes=0-,0-,0-,0-", 1000, None),
    ],
)
def test_ranges(header: str, size: int, expected: object) -> None:
    found = parse_ranges(header, size)
    if expected == 416:
        assert found == Unsatisfiable(size)
        assert found.content_range == f"bytes */{size}"
    else:
        assert (
            None if found is None or isinstance(found, Unsatisfiable) else [(item.start, item.stop) for item in found]
        ) == expected


@given(st.text(alphabet="bytes=0123456789-, ", max_size=30), st.integers(0, 50))
def test_ranges_lie_in_the_body(header: str, size: int) -> None:
    found = parse_ranges("bytes=" + header, size)
    if isinstance(found, list):
        assert all(0 <= item.start < item.stop <= size for item in found)


def test_multipart() -> None:
    frame = Multipart("B", "text/plain", 10)
    parts = [ByteRange(0, 2), ByteRange(8, 10)]
    data = b"0123456789"
    body = (
        b"".join(frame.part_head(part, first=at == 0) + data[part.start : part.stop] for at, part in enumerate(parts)) + frame.tail
    )
    assert body == (
        b"--B\r\nContent-Type: text/plain\r\nContent-Range: bytes 0-1/10\r\n\r\n01"
        b"\r\n--B\r\nContent-Type: text/plain\r\nContent-Range: bytes 8-9/10\r\n\r\n89\r\n--B--\r\n"
    )
    assert frame.length(parts) == len(body)


THEN = 784111777  # Sun, 06 Nov 1994 08:49:37 GMT


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Sun, 06 Nov 1994 08:49:37 GMT", THEN),
        ("Sunday, 06-Nov-94 08:49:37 GMT", THEN),
        ("Sun Nov  6 08:49:37 1994", THEN),
        (" Sun, 06 Nov 1994 08:49:37 GMT ", THEN),
        ("Sun, 06 Nov 1994 08:49:60 GMT", THEN + 22),
        ("Sun, 06 Nov 1994 08:49:37 +0100", None),
        ("Sun, 32 Nov 1994 08:49:37 GMT", None),
        ("Sun, 06 Nox 1994 08:49:37 GMT", None),
        ("yesterday", None),
        ("", None),
    ],
)
def test_dates(text: str, expected: int | None) -> None:
    assert parse_date(text) == expected


@given(st.integers(0, 4_000_000_000))
def test_dates_round_trip(seconds: int) -> None:
    assert parse_date(format_date(seconds + 0.9)) == seconds


DATE = "Sun, 06 Nov 1994 08:49:37 GMT"
BEFORE = "Sun, 06 Nov 1994 08:49:36 GMT"
NOW = Current("abc", THEN + 0.5)


@pytest.mark.parametrize(
    ("method", "fields", "current", "expected"),
    [
        ("GET", {}, NOW, None),
        ("GET", {"if-match": '"abc"'}, NOW, None),
        ("GET", {"if-match": '"x", "abc"'}, NOW, None),
        ("GET", {"if-match": "abc"}, NOW, None),
        ("GET", {"if-match": '"x"'}, NOW, 412),
        ("GET", {"if-match": 'W/"abc"'}, NOW, 412),
        ("PUT", {"if-match": "*"}, NOW, None),
        ("PUT", {"if-match": "*"}, None, 412),
        ("PUT", {"if-match": '"abc"'}, None, 412),
        ("GET", {"if-none-match": '"abc"'}, NOW, 304),
        ("HEAD", {"if-none-match": 'W/"abc"'}, NOW, 304),
        ("PUT", {"if-none-match": '"abc"'}, NOW, 412),
        ("PUT", {"if-none-match": "*"}, NOW, 412),
        ("PUT", {"if-none-match": "*"}, None, None),
        ("GET", {"if-none-match": "*"}, None, None),
        ("GET", {"if-none-match": '"x"'}, NOW, None),
        ("GET", {"if-modified-since": DATE}, NOW, 304),
        ("GET", {"if-modified-since": BEFORE}, NOW, None),
        ("GET", {"if-modified-since": "junk"}, NOW, None),
        ("PUT", {"if-modified-since": DATE}, NOW, None),
        ("GET", {"if-unmodified-since": DATE}, NOW, None),
        ("GET", {"if-unmodified-since": BEFORE}, NOW, 412),
        ("PUT", {"if-unmodified-since": BEFORE}, NOW, 412),
        ("GET", {"if-unmodified-since": "junk"}, NOW, None),
        # precedence: ETags win over dates, If-Match over If-None-Match
        ("GET", {"if-match": '"abc"', "if-unmodified-since": BEFORE}, NOW, None),
        ("GET", {"if-none-match": '"x"', "if-modified-since": DATE}, NOW, None),
        ("GET", {"if-none-match": '"abc"', "if-modified-since": BEFORE}, NOW, 304),
        ("GET", {"if-match": '"x"', "if-none-match": '"abc"'}, NOW, 412),
        ("GET", {"if-match": '"abc"', "if-none-match": '"abc"'}, NOW, 304),
    ],
)
def test_conditions(method: str, fields: dict[str, str], current: Current | None, expected: int | None) -> None:
    assert evaluate(method, Headers(fields.items()), current) == expected


def test_tags() -> None:
    tags = parse_tags('"a", W/"b" ,c, "d,e", "", ;;')
    assert (tags.any, tags.strong, tags.weak) == (False, ("a", "c", "d,e", "", ";;"), ("b",))
    assert parse_tags('"a", *').any


@pytest.mark.parametrize(
    ("header", "expected"),
    [("", True), ('"abc"', True), ("abc", True), ('"x"', False), ('W/"abc"', False), (DATE, True), (BEFORE, False)],
)
def test_if_range(header: str, expected: bool) -> None:
    assert if_range_holds(header, NOW) is expected


@pytest.mark.parametrize(
    ("text", "plus", "expected"),
    [
        ("a%20b", False, "a b"),
        ("a+b", False, "a+b"),
        ("a+b%2Bc", True, "a b+c"),
        ("%e2%82%ac", False, "€"),
        ("%00", False, "\0"),
        ("", False, ""),
        ("%", False, None),
        ("%4", False, None),
        ("%zz", False, None),
        ("%+1", False, None),
        ("%ff", False, None),
        ("\xe9", False, None),
        ("€", False, None),
        ("%ed%a0%80", False, None),
    ],
)
def test_unquote(text: str, plus: bool, expected: str | None) -> None:
    if expected is None:
        with pytest.raises(BadInput):
            unquote(text, plus=plus)
    else:
        assert unquote(text, plus=plus) == expected


@given(st.text(max_size=30))
def test_quote_round_trips(text: str) -> None:
    text = text.encode("utf-8", "replace").decode()
    assert unquote(quote(text)) == text
    assert Query.parse(encode_query([(text, text)])).pairs == ([(text, text)])


def test_query() -> None:
    query = Query.parse("prefix=a%2Fb&uploads&max=5&x=1&x=2&&e=")
    assert (query.get("prefix"), query.get("uploads", "-"), query.get("none", "-")) == ("a/b", "", "-")
    assert "uploads" in query and "none" not in query
    assert query.all("x") == ["1", "2"]
    assert query.number("max", 10) == 5
    assert query.number("limit", 10) == 10
    for text, name, least, most in [
        ("max=x", "max", 0, None),
        ("max=-1", "max", 0, None),
        ("max=5", "max", 0, 4),
        ("max=5", "max", 6, None),
    ]:
        with pytest.raises(BadInput):
            Query.parse(text).number(name, 1, least=least, most=most)
    with pytest.raises(BadInput):
        Query.parse("a=%ff")
    with pytest.raises(BadInput):
        Query.parse("&".join("a" for _ in range(1001)))
