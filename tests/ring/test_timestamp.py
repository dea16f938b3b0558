"""Timestamps: forms, order, and a source that never goes back."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ring.errors import BadInput
from ring.timestamp import OFFSET_MAX, TICKS_MAX, ZERO, Timestamp, TimestampSource

timestamps = st.builds(Timestamp, st.integers(0, TICKS_MAX), st.integers(0, OFFSET_MAX))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0000000001.00002", Timestamp(100_002)),
        ("1", Timestamp(100_000)),
        ("1.5", Timestamp(150_000)),
        ("1700000000.123456789", Timestamp(170_000_000_012_345)),
        ("1700000000.12345_000000000000000a", Timestamp(170_000_000_012_345, 10)),
        ("1700000000.12345_0", Timestamp(170_000_000_012_345)),
    ],
)
def test_parse(text: str, expected: Timestamp) -> None:
    assert Timestamp.parse(text) == expected


@pytest.mark.parametrize("text", ["", "-1", "1.", ".5", "1e3", "nan", "12345678901", "1 ", "1_", "1_g", "1_100000000", "١", "1.١"])
def test_parse_refuses(text: str) -> None:
    with pytest.raises(BadInput):
        Timestamp.parse(text)


@given(timestamps, timestamps)
def test_every_form_sorts_as_the_timestamp_does(a: Timestamp, b: Timestamp) -> None:
    assert (a < b) == (a.pack() < b.pack()) == (a.pack_inverted() > b.pack_inverted()) == (str(a) < str(b))
    assert Timestamp.parse(str(a)) == Timestamp.unpack(a.pack()) == Timestamp.unpack_inverted(a.pack_inverted()) == a


def test_forms() -> None:
    timestamp = Timestamp(170_000_000_012_345, 31)
    assert str(timestamp) == "1700000000.12345_000000000000001f"
    assert timestamp.normal == "1700000000.12345"
    assert Timestamp.at(1.00001) == Timestamp(100_001)
    for data in (b"", bytes(11), bytes(13)):
        with pytest.raises(BadInput):
            Timestamp.unpack(data)
        with pytest.raises(BadInput):
            Timestamp.unpack_inverted(data)


@dataclass
class SetClock:
    seconds: float

    def now(self) -> float:
        return self.seconds


def test_the_source_never_goes_back() -> None:
    clock = SetClock(1000.0)
    source = TimestampSource(clock)
    first = source.next()
    assert first == Timestamp.at(1000)
    assert source.next() == Timestamp(first.ticks + 1)
    clock.seconds = 500.0  # a step back
    assert source.next() == Timestamp(first.ticks + 2)
    seen = Timestamp(first.ticks + 1000, 7)
    assert source.next(seen) == Timestamp(first.ticks + 1001)
    clock.seconds = 2000.0
    assert source.next(ZERO) == Timestamp.at(2000)


def test_a_timestamp_from_the_future_is_refused() -> None:
    source = TimestampSource(SetClock(1000.0))
    source.admit(Timestamp.at(1060))
    with pytest.raises(BadInput, match="in the future"):
        source.admit(Timestamp.at(1060.01))
