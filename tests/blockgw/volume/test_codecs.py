"""The write log's and the volume objects' codecs: round trips, golden bytes, harmed input."""

from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockgw.volume import logfile, segment
from blockgw.volume.logfile import Header, Kind
from blockgw.volume.segment import Checkpoint, CheckpointExtent, SegmentExtent, SegmentHeader, SegmentId
from ring.errors import FormatError

GOLDEN = Path(__file__).parents[2] / "golden"
VOLUME = UUID("11111111-2222-4333-8444-555555555555")


def log_bytes() -> bytes:
    return b"".join(
        [
            logfile.encode_header(Header(3, VOLUME)),
            logfile.encode_record(7, Kind.WRITE, 512, 4, b"data"),
            b"data",
            logfile.encode_record(8, Kind.DISCARD, 0, 4096),
        ]
    )


def test_the_log_is_read_back() -> None:
    data = log_bytes()
    assert logfile.decode_header(data) == Header(3, VOLUME)
    found = [(r.sequence, r.kind, r.offset, r.length, r.data) for r in logfile.decode_records(data)]
    assert found == [(7, Kind.WRITE, 512, 4, b"data"), (8, Kind.DISCARD, 0, 4096, b"")]


def test_formats_stay_as_they_are() -> None:
    segment_bytes = segment.encode_segment_header(SegmentHeader(9, (SegmentExtent(0, 8, False), SegmentExtent(8, 4096, True))))
    assert log_bytes() == (GOLDEN / "volume-log.bin").read_bytes()
    assert segment_bytes == (GOLDEN / "volume-segment.bin").read_bytes()


@given(st.integers(0, len(log_bytes())))
def test_a_torn_log_gives_its_whole_records(length: int) -> None:
    whole = list(logfile.decode_records(log_bytes()))
    found = list(logfile.decode_records(log_bytes()[:length]))
    assert found == whole[: len(found)]


@given(st.integers(logfile.HEADER_BYTES, len(log_bytes()) - 1), st.integers(1, 255))
def test_a_damaged_record_is_never_given(at: int, change: int) -> None:
    data = bytearray(log_bytes())
    data[at] ^= change
    whole = list(logfile.decode_records(log_bytes()))
    assert all(record in whole for record in logfile.decode_records(bytes(data)))


def test_checkpoints_are_read_back_and_damage_is_seen() -> None:
    checkpoint = Checkpoint(4, 99, (CheckpointExtent(0, 512, SegmentId(1, 2), 40), CheckpointExtent(512, 512, None, 0)))
    data = segment.encode_checkpoint(checkpoint)
    assert segment.decode_checkpoint(data) == checkpoint
    for at in (0, 9, len(data) - 1):
        harmed = bytearray(data)
        harmed[at] ^= 1
        with pytest.raises(FormatError):
            segment.decode_checkpoint(bytes(harmed))
    with pytest.raises(FormatError):
        segment.decode_checkpoint(data[:-1])


def test_a_segment_header_says_where_its_data_begins() -> None:
    header = SegmentHeader(5, (SegmentExtent(0, 8, False),))
    data = segment.encode_segment_header(header) + b"12345678"
    found, start = segment.decode_segment_header(data)
    assert (found, data[start:]) == (header, b"12345678")
    assert segment.segment_header_length(data[: segment.FRAME_BYTES]) == start
