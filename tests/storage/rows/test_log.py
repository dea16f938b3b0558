"""The commit log's bytes: golden ones, torn tails, damage."""

from __future__ import annotations

from pathlib import Path as FilePath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ring.errors import FormatError
from ring.names import Path
from ring.timestamp import Timestamp
from storage.client.interface import Row
from storage.client.node import BookHeader
from storage.rows.entry import Entry
from storage.rows.log import HeaderRecord, Record, RowsRecord, decode_segment, encode_frame, encode_head, log_path, sequence_of
from storage.rows.row import pack_header, pack_row, seal

GOLDEN = FilePath(__file__).parents[2] / "golden" / "rows.bin"
BOOK = bytes(range(16))
HEADER = BookHeader(
    Path("AUTH_a", "photos"), Timestamp(170000000000001, 1), Timestamp(5), 1, {"x-container-meta-a": ("ü", Timestamp(7))}
)
ROWS = [
    Row("2024/é.jpg", Timestamp(170000000012345), 4096, "d41d8cd98f00b204e9800998ecf8427e", "image/jpeg"),
    Row("gone", Timestamp(170000000012346, 2), deleted=True),
]
RECORDS: list[Record] = [HeaderRecord(BOOK, pack_header(HEADER)), RowsRecord(BOOK, [pack_row(row) for row in ROWS])]


def segment(*frames: list[Record], sequence: int = 7) -> bytes:
    return encode_head(sequence) + b"".join(encode_frame(sequence, number, frame) for number, frame in enumerate(frames))


def test_golden_bytes() -> None:
    """A log segment, a sealed row, a sealed header and a book's sums, one after another, each with its length."""
    entry = Entry(BOOK)
    entry.merge_header(pack_header(HEADER))
    for row in ROWS:
        entry.merge_row(pack_row(row), None)
    parts = [
        segment([RECORDS[0]], [RECORDS[1]]),
        seal(pack_row(ROWS[0])),
        seal(pack_header(HEADER)),
        seal(entry.pack_state()),
    ]
    data = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    assert data == GOLDEN.read_bytes()
    loaded = Entry.load(BOOK, entry.header_packed, entry.pack_state())
    assert loaded.state == entry.state and loaded.digest() == entry.digest()


def test_records_come_back() -> None:
    data = segment(RECORDS, RECORDS[:1])
    found = decode_segment(data, 7, last=False)
    assert (found.records, found.damage) == ([*RECORDS, RECORDS[0]], "")


FIRST, SECOND = len(segment()), len(segment(RECORDS[:1]))
WHOLE = segment(RECORDS[:1], RECORDS[1:])


@given(st.integers(0, len(WHOLE)), st.binary(max_size=50))
def test_a_torn_tail_is_no_damage(length: int, junk: bytes) -> None:
    """Cut anywhere, with rubbish behind: every whole frame is there and nothing else."""
    data = WHOLE[:length] + junk
    whole = [end for end in (SECOND, len(WHOLE)) if data[:end] == WHOLE[:end]]
    found = decode_segment(data, 7, last=True)
    assert (found.records, found.damage) == (RECORDS[: len(whole)], "")


@given(st.integers(0, SECOND - 1), st.integers(0, 7))
def test_damage_before_a_whole_frame_is_told_and_loses_only_what_was_harmed(at: int, bit: int) -> None:
    data = bytearray(WHOLE)
    data[at] ^= 1 << bit
    try:
        found = decode_segment(bytes(data), 7, last=True)
    except FormatError:
        assert at < FIRST
        return
    assert found.damage
    assert found.records == (RECORDS if at < FIRST else RECORDS[1:])


def test_what_is_missing_from_an_earlier_segment_is_damage() -> None:
    assert decode_segment(WHOLE[:-1], 7, last=False).damage
    assert decode_segment(segment()[:-1], 7, last=False).damage
    lost = segment(RECORDS, RECORDS, RECORDS)
    frame = len(encode_frame(7, 0, RECORDS))
    assert "frame 1 is missing" in decode_segment(lost[: FIRST + frame] + lost[FIRST + 2 * frame :], 7, last=True).damage


def test_an_empty_segment_was_never_written() -> None:
    assert decode_segment(b"", 7, last=False).damage == ""


def test_frames_of_another_segment_are_none() -> None:
    other = segment(RECORDS, sequence=8)[FIRST:]
    assert decode_segment(segment(RECORDS[:1]) + other, 7, last=True).records == RECORDS[:1]


@pytest.mark.parametrize(
    ("name", "sequence"),
    [("0000000a.log", 10), ("0000000A.log", None), ("a.log", None), ("0000000a.log.damaged", None), ("0000000a.pack", None)],
)
def test_names_of_segments(name: str, sequence: int | None) -> None:
    assert sequence_of(name) == sequence
    assert sequence is None or log_path(sequence) == f"rows/{name}"
