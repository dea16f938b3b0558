"""Order of names in the tables, longer than a key or not, against sorted()."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from ring.world.interface import Write
from storage.rows.names import INLINE_MAX, branch_writes, row_key, scan_names
from storage.rows.row import seal, unseal
from tests.storage.rows.memory import MemoryTables

BOOK = b"\x12" * 16
# Lengths around every boundary (494 and 988 in names; 511, 512 in keys; 1,024 in all), few distinct bytes.
LENGTHS = st.one_of(
    st.sampled_from([1, 2, 493, 494, 495, 496, 510, 511, 512, 987, 988, 989, 990, 1023, 1024]), st.integers(1, 1024)
)
TAILS = st.text(st.sampled_from(["\x01", "a", "é", "\U0010ffff", "\u0800"]), max_size=4).map(str.encode)


@st.composite
def names(draw: st.DrawFn) -> bytes:
    """UTF-8 of at most 1,024 bytes, many of one beginning."""
    length, tail = draw(LENGTHS), draw(TAILS)
    letter = draw(st.sampled_from(["a", "a", "a", "é", "\u0800", "\U0001f600"])).encode()
    head = letter * (max(0, length - len(tail)) // len(letter))
    name = head + b"a" * max(0, length - len(tail) - len(head)) + tail
    return name[:1024].decode(errors="ignore").encode() or b"a"


def fill(names: set[bytes]) -> MemoryTables:
    tables = MemoryTables()
    for number, name in enumerate(sorted(names)):
        tables.apply([*branch_writes(BOOK, name), Write("rows", row_key(BOOK, name), seal(name + b"=%d" % number))])
    for other in (b"\x11" * 15 + b"\x12", b"\x12" * 15 + b"\x13", b"\x12" * 15 + b"\x11"):
        tables.apply([Write("rows", row_key(other, b"a"), seal(b"other"))])
    return tables


@settings(max_examples=300, deadline=None)
@given(st.sets(names(), max_size=25), names(), names(), st.booleans(), st.booleans(), st.booleans(), st.integers(1, 30))
def test_scans_yield_byte_order(
    present: set[bytes], start: bytes, end: bytes, from_start: bool, to_end: bool, reverse: bool, limit: int
) -> None:
    tables = fill(present)
    low, high = b"" if from_start else start, None if to_end else end
    expected = sorted((n for n in present if n > low and (high is None or n < high)), reverse=reverse)[:limit]
    found, values = scan_names(tables, BOOK, low, high, limit=limit, reverse=reverse)
    assert found == expected
    order = sorted(present)
    assert [unseal(value) for value in values] == [name + b"=%d" % order.index(name) for name in expected]


@settings(max_examples=100, deadline=None)
@given(st.sets(names(), max_size=25), st.booleans(), st.integers(1, 4))
def test_pages_join_without_gap_or_overlap(present: set[bytes], reverse: bool, limit: int) -> None:
    tables, found = fill(present), list[bytes]()
    while True:
        start, end = (b"", found[-1] if found else None) if reverse else (found[-1] if found else b"", None)
        page, _ = scan_names(tables, BOOK, start, end, limit=limit, reverse=reverse)
        if not page:
            break
        found += page
    assert found == sorted(present, reverse=reverse)


def test_long_names_are_found_without_a_scan_and_cost_one_key_each() -> None:
    tables = MemoryTables()
    heads = [b"h" * INLINE_MAX + b"%04d" % number for number in range(1000)]
    for name in heads:
        tables.apply([*branch_writes(BOOK, name), Write("rows", row_key(BOOK, name), seal(name))])
    assert len(tables.data["rows"]) == 1001
    assert all(tables.get("rows", row_key(BOOK, name)) == seal(name) for name in heads)
    assert all(key[:4] == BOOK[:4] for key in tables.data["rows"])
