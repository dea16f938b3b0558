"""The table of disk formats: what the first bytes show, and what is refused."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockgw.images.inspect import HEAD_BYTES, Inspection, inspect
from ring.errors import BadInput

GIB = 1 << 30


def qcow2(version: int = 3, *, backing: int = 0, size: int = GIB, features: int = 0) -> bytes:
    head = struct.pack(">4sIQIIQ", b"QFI\xfb", version, backing, 0, 16, size)
    return head.ljust(72, b"\0") + struct.pack(">Q", features) + bytes(64)


def at(offset: int, data: bytes, *, length: int = HEAD_BYTES) -> bytes:
    return (bytes(offset) + data).ljust(length, b"\0")


@pytest.mark.parametrize(
    "head, disk_format, virtual_size",
    [
        (b"", "raw", None),
        (bytes(512), "raw", None),
        (bytes(510) + b"\x55\xaa", "raw", None),
        (b"QFI", "raw", None),
        (b"QFI\xfb" + bytes(20), "raw", None),  # too short to be one
        (qcow2(), "qcow2", GIB),
        (qcow2(2, features=0b100), "qcow2", GIB),  # version 2 has no such field
        (b"KDMV" + struct.pack("<IIQ", 1, 3, 2048), "vmdk", 2048 * 512),
        (at(64, b"\x7f\x10\xda\xbe")[:368] + struct.pack("<Q", GIB), "vdi", GIB),
        (b"vhdxfile" + bytes(100), "vhdx", None),
        (b"conectix" + bytes(40) + struct.pack(">Q", GIB), "vhd", GIB),
        (at(32769, b"CD001"), "iso", None),
    ],
)
def test_formats(head: bytes, disk_format: str, virtual_size: int | None) -> None:
    assert inspect(head) == Inspection(disk_format, virtual_size)


@pytest.mark.parametrize("head", [qcow2(backing=0x200), qcow2(2, backing=1), qcow2(features=0b100)])
def test_what_points_outside_of_itself_is_refused(head: bytes) -> None:
    with pytest.raises(BadInput, match="qcow2") as caught:
        inspect(head)
    assert "qemu-img convert" in caught.value.hint


@given(st.sampled_from([b"QFI\xfb", b"KDMV", b"vhdxfile", b"conectix", b""]), st.binary(max_size=512))
def test_any_bytes_are_inspected_or_refused(magic: bytes, rest: bytes) -> None:
    try:
        found = inspect(magic + rest)
    except BadInput:
        return
    assert found.virtual_size is None or 0 <= found.virtual_size < 1 << 73
