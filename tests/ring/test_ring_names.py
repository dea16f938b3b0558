"""Names, their hash and their partition; what is no name."""

from __future__ import annotations

import hashlib

import pytest

from ring.device import Device
from ring.errors import BadInput
from ring.names import NameHasher, Path, partition_of


def test_the_hash_is_swift_s() -> None:
    hasher = NameHasher(b"changeme", b"endcap")
    assert hasher.hash(Path("a", "c", "o/ö")) == hashlib.md5("changeme/a/c/o/öendcap".encode()).digest()
    assert hasher.hash(Path("a")) == hashlib.md5(b"changeme/aendcap").digest()


@pytest.mark.parametrize(("power", "partition"), [(0, 0), (1, 1), (8, 0xDE), (12, 0xDEA), (32, 0xDEADBEEF)])
def test_partition_is_the_top_bits(power: int, partition: int) -> None:
    assert partition_of(bytes.fromhex("deadbeef") + bytes(12), power) == partition


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
