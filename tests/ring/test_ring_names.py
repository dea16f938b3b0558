"""Names, their hash, their partition and its span; what is no name."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ring.device import Device
from ring.errors import BadInput
from ring.names import NameHasher, Path, Span, partition_of


def test_the_hash_is_swift_s() -> None:
    hasher = NameHasher(b"changeme", b"endcap")
    assert hasher.hash(Path("a", "c", "o/ö")) == hashlib.md5("changeme/a/c/o/öendcap".encode()).digest()
    assert hasher.hash(Path("a")) == hashlib.md5(b"changeme/aendcap").digest()


@pytest.mark.parametrize(("power", "partition"), [(0, 0), (1, 1), (8, 0xDE), (12, 0xDEA), (32, 0xDEADBEEF)])
def test_partition_is_the_top_bits(power: int, partition: int) -> None:
    assert partition_of(bytes.fromhex("deadbeef") + bytes(12), power) == partition


@given(st.binary(min_size=16, max_size=16), st.integers(0, 32))
def test_a_span_holds_the_hashes_between_its_bounds(name_hash: bytes, part_power: int) -> None:
    span = Span.of(name_hash, part_power)
    start, end = span.bounds
    assert name_hash in span and start <= name_hash and (end is None or name_hash < end)
    if part_power:
        other = Span(part_power, span.partition ^ 1)
        start, end = other.bounds
        assert name_hash not in other and not (start <= name_hash and (end is None or name_hash < end))


def test_bounds_of_spans() -> None:
    assert Span(0, 0).bounds == (bytes(4), None)
    assert Span(2, 3).bounds == (b"\xc0\0\0\0", None)
    assert Span(8, 1).bounds == (b"\1\0\0\0", b"\2\0\0\0")
    assert Span(32, (1 << 32) - 2).bounds == (b"\xff\xff\xff\xfe", b"\xff\xff\xff\xff")


@pytest.mark.parametrize(("part_power", "partition"), [(2, 4), (2, -1), (-1, 0), (33, 0), (0, 1)])
def test_spans_that_cannot_be(part_power: int, partition: int) -> None:
    with pytest.raises(BadInput, match="partition"):
        Span(part_power, partition)


def test_parents() -> None:
    assert Path("a", "c", "o").parent == Path("a", "c")
    assert Path("a", "c").parent == Path("a")


@pytest.mark.parametrize(
    "path",
    [Path("a"), Path("a", "c"), Path("a", "c", "o/p//q"), Path("a" * 256, "c" * 256, "o" * 1024), Path("a", "\0hidden", "o")],
)
def test_good_names(path: Path) -> None:
    assert path.check() is path


@pytest.mark.parametrize(
    "path",
    [
        Path(""),
        Path("", "c"),
        Path("a", "", "o"),
        Path("a/b"),
        Path("a", "c/d"),
        Path("a" * 257),
        Path("a", "ö" * 129),
        Path("a", "c", "o" * 1025),
        Path("a", "c", "\udcff"),
    ],
)
def test_bad_names(path: Path) -> None:
    with pytest.raises(BadInput):
        path.check()


def test_a_device_says_where_it_is() -> None:
    assert str(Device(3, 1, 2, "10.0.0.1", 6200, "sda", 1.0)) == "d3r1z2-10.0.0.1:6200/sda"
