"""Ring and builder files: round trips, golden bytes, and no damage that goes unnoticed."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ring.builder import Builder
from ring.errors import FormatError
from ring.names import NameHasher
from ring.ringfile import BUILDER_MAGIC, RING_MAGIC, decode, decode_builder, encode, encode_builder, read_ring, write_ring
from ring.world.real import make_world

HASHER = NameHasher(b"p", b"s")
GOLDEN = Path(__file__).parent.parent / "golden"


def builder() -> Builder:
    result = Builder.create(4, 2.5, 1)
    for zone in range(1, 5):
        result.add_device(region=1, zone=zone, ip="10.0.0.1", port=6200, name=f"d{zone}", weight=float(zone), meta="Größe")
    result.rebalance(1, 1_700_000_000)
    result.remove(0)
    result.add_device(region=2, zone=1, ip="10.0.0.2", port=0, name="e", weight=4.0)
    result.rebalance(2, 1_700_000_000)
    return result


def test_round_trips() -> None:
    ours = builder()
    assert decode_builder(encode_builder(ours)) == ours
    ring = ours.ring(HASHER)
    assert decode(encode(ring), HASHER) == ring
    empty = Builder.create(3, 3, 1)
    assert decode_builder(encode_builder(empty)) == empty


def test_golden_files_are_read_as_ever() -> None:
    ours = builder()
    assert decode((GOLDEN / "ring-1.ring").read_bytes(), HASHER) == ours.ring(HASHER)
    assert decode_builder((GOLDEN / "ring-1.builder").read_bytes()) == ours
    for name, data in (("ring-1.ring", encode(ours.ring(HASHER))), ("ring-1.builder", encode_builder(ours))):
        golden = (GOLDEN / name).read_bytes()
        end = 24 + int.from_bytes(data[12:16], "big")
        assert data[:16] == golden[:16]
        assert data[24:end] == golden[24:end]  # the body's compression may differ between versions of zstd


@pytest.mark.parametrize("magic", [RING_MAGIC, BUILDER_MAGIC])
def test_every_cut_and_every_flipped_bit_is_noticed(magic: bytes) -> None:
    ours = builder()
    whole = encode(ours.ring(HASHER)) if magic == RING_MAGIC else encode_builder(ours)

    def read(data: bytes) -> object:
        return decode(data, HASHER) if magic == RING_MAGIC else decode_builder(data)

    assert read(whole)
    for length in range(len(whole)):
        with pytest.raises(FormatError):
            read(whole[:length])
    with pytest.raises(FormatError):
        read(whole + b"\0")
    for bit in range(8 * len(whole)):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(FormatError):
            read(bytes(flipped))


@settings(max_examples=200)
@given(st.binary(max_size=200), st.booleans())
def test_foreign_bytes_are_a_format_error(data: bytes, with_magic: bool) -> None:
    for magic in (RING_MAGIC, BUILDER_MAGIC):
        with pytest.raises(FormatError):
            decode(magic + data if with_magic else data, HASHER)
        with pytest.raises(FormatError):
            decode_builder(magic + data if with_magic else data)


def test_a_newer_format_is_named() -> None:
    data = bytearray(encode(builder().ring(HASHER)))
    data[9] = 2
    with pytest.raises(FormatError, match="format 2") as caught:
        decode(bytes(data), HASHER)
    assert caught.value.hint


async def test_through_a_disk(tmp_path: Path) -> None:
    disk = make_world().open_disk(str(tmp_path))
    ring = builder().ring(HASHER)
    await write_ring(disk, "object.ring", ring)
    assert await read_ring(disk, "object.ring", HASHER) == ring
    with pytest.raises(FileNotFoundError):
        await read_ring(disk, "account.ring", HASHER)
