"""Ring files: round trips, golden bytes, and no damage that goes unnoticed."""

from __future__ import annotations

from array import array
from dataclasses import replace
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from ring.device import Device
from ring.errors import FormatError
from ring.placement import NO_DEVICE, Ring
from ring.ringfile import RING_MAGIC, decode, encode, read_ring, write_ring
from ring.world.real import make_world
from tests.ring.ground import DEVICES, GOLDEN, HASHER, RING, TABLE, header_end, sealed


def test_round_trip() -> None:
    assert decode(encode(RING), HASHER) == RING


def test_the_golden_file_is_read_and_written_as_ever() -> None:
    golden = (GOLDEN / "ring-1.ring").read_bytes()
    assert decode(golden, HASHER) == RING
    ours = encode(RING)
    assert ours[:16] == golden[:16]
    assert ours[24 : header_end(ours)] == golden[24 : header_end(golden)]
    # The body's compression may differ between versions of zstd.
    read = zstandard.ZstdDecompressor().decompress
    assert read(ours[header_end(ours) :]) == read(golden[header_end(golden) :]) == b"".join(row.tobytes() for row in TABLE)


def test_what_is_not_at_its_default_is_in_the_header() -> None:
    away = replace(DEVICES[4], replication_ip="fd00::9", replication_port=6300) if DEVICES[4] else None
    ring = replace(RING, devices=(*DEVICES[:4], away), next_part_power=5)
    data = encode(ring)
    assert b'"name":"e","weight":4.0,"meta":"","replication_ip":"fd00::9","replication_port":6300}],"next_part_power":5}' in data
    assert decode(data, HASHER) == ring
    assert decode(data, HASHER) != RING


def test_every_cut_and_every_flipped_bit_is_noticed() -> None:
    whole = encode(RING)
    assert decode(whole, HASHER)
    for length in range(len(whole)):
        with pytest.raises(FormatError):
            decode(whole[:length], HASHER)
    with pytest.raises(FormatError):
        decode(whole + b"\0", HASHER)
    for bit in range(8 * len(whole)):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(FormatError):
            decode(bytes(flipped), HASHER)


@settings(max_examples=200)
@given(st.binary(max_size=200), st.booleans())
def test_foreign_bytes_are_a_format_error(data: bytes, with_magic: bool) -> None:
    with pytest.raises(FormatError):
        decode(RING_MAGIC + data if with_magic else data, HASHER)


def test_a_newer_format_is_named() -> None:
    data = bytearray(encode(RING))
    data[9] = 2
    with pytest.raises(FormatError, match="format 2") as caught:
        decode(bytes(data), HASHER)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("head", "body", "words"),
    [
        (b'{"version":1,"part_power":1,"rows":[2],"devices":[null]}', b"\xff\xff\xff\xff", None),
        (b'{"version":1,"part_power":1,"rows":[2],"devices":[null]}', b"\xff\xff\xff", "has 3 bytes, not 4"),
        (b'{"version":1,"part_power":1,"rows":[2],"devices":[null]}', bytes(1 << 20), "has 1048576 bytes, not 4"),
        (b'{"version":1,"part_power":1,"rows":[3],"devices":[null]}', bytes(6), "rows that its part power does not have"),
        (b'{"version":1,"part_power":1,"rows":[0],"devices":[null]}', b"", "rows that its part power does not have"),
        (b'{"version":1,"part_power":25,"rows":[],"devices":[null]}', b"", "rows that its part power does not have"),
        (b'{"version":1,"part_power":1,"rows":[2],"devices":[null],"colour":1}', bytes(4), "colour"),
        (b'{"version":1,"part_power":1,"rows":[2]}', bytes(4), "devices"),
        (b'{"version":1,"part_power":1,"rows":[2],"devices":[null]}', b"\xff\xff\0\0", "d0, which is not in the ring"),
        (b'{"version":1,"part_power":1,"rows":[2],"devices":[]}', b"\xff\xff\0\x01", "d256, which is not in the ring"),
    ],
)
def test_a_sealed_file_is_still_not_believed(head: bytes, body: bytes, words: str | None) -> None:
    data = sealed(RING_MAGIC, head, zstandard.ZstdCompressor().compress(body))
    if words is None:
        assert decode(data, HASHER).primaries(0) == []
        return
    with pytest.raises(FormatError, match=words):
        decode(data, HASHER)


def test_a_frame_may_leave_its_size_unsaid_but_not_lie() -> None:
    head = b'{"version":1,"part_power":1,"rows":[2],"devices":[null]}'
    silent = zstandard.ZstdCompressor(write_content_size=False)
    assert decode(sealed(RING_MAGIC, head, silent.compress(b"\xff" * 4)), HASHER).partition_count == 2
    for body in (silent.compress(b"\xff" * 5), silent.compress(b"\xff" * 3), b"no frame", b""):
        with pytest.raises(FormatError):
            decode(sealed(RING_MAGIC, head, body), HASHER)


@settings(deadline=None)
@given(
    st.sets(st.one_of(st.integers(0, 600), st.integers(0, NO_DEVICE - 1)), max_size=40),
    st.lists(st.one_of(st.integers(0, 600), st.integers(0, NO_DEVICE)), min_size=1, max_size=30),
    st.sampled_from([0, 2**16 - 15, 2**17 - 30]),  # a piece of the check has 2^16 ids
    st.booleans(),
)
def test_an_id_that_is_no_device_is_noticed_wherever_it_stands(present: set[int], ids: list[int], place: int, known: bool) -> None:
    """Against the plain rule: every id of the table is a device's, or none."""
    if known:  # otherwise nearly every table has a stranger
        present |= set(ids[1:]) - {NO_DEVICE}
    count = max(present, default=-1) + 1
    devices = tuple(Device(i, 1, 1, "10.0.0.1", 6200, f"d{i}", 1.0) if i in present else None for i in range(count))
    row = array("H", [NO_DEVICE]) * 2**17
    row[place : place + len(ids)] = array("H", ids)
    data = encode(Ring(1, 17, devices, (row,), HASHER))
    strangers = set(ids) - present - {NO_DEVICE}
    if strangers:
        with pytest.raises(FormatError, match=f"names d{min(strangers)}, which"):
            decode(data, HASHER)
    else:
        assert decode(data, HASHER).table == (row,)


def test_a_table_is_in_memory_once() -> None:
    ring = decode(encode(RING), HASHER)
    views = [row for row in ring.table if isinstance(row, memoryview)]
    assert len(views) == 3
    assert all(view.readonly and view.obj is views[0].obj for view in views)


async def test_through_a_disk(tmp_path: Path) -> None:
    disk = make_world().open_disk(str(tmp_path))
    await write_ring(disk, "object.ring", RING)
    assert await read_ring(disk, "object.ring", HASHER) == RING
    with pytest.raises(FileNotFoundError):
        await read_ring(disk, "account.ring", HASHER)
