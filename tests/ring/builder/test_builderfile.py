"""Builder files: round trips, golden bytes, and no damage that goes unnoticed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from ring.builder.builder import Builder
from ring.builder.builderfile import BUILDER_MAGIC, decode_builder, encode_builder, read_builder, write_builder
from ring.device import Device
from ring.errors import FormatError
from ring.world.real import make_world
from tests.ring.ground import DEVICES, GOLDEN, TABLE, header_end, sealed


def builder() -> Builder:
    moved_at = [1_700_000_000] * 9 + [0, 1_700_000_000] * 3 + [0]
    return Builder(
        part_power=4,
        replicas=2.5,
        min_part_hours=1,
        version=9,
        devices=list(DEVICES),
        table=tuple(np.array(row, np.uint16) for row in TABLE),
        moved_at=np.array(moved_at, np.uint32),
    )


def full_builder() -> Builder:
    """No field has its default."""
    device = Device(3, 1, 4, "10.0.0.1", 6200, "d4", 0.0, "Größe", "fd00::9", 6300)
    changed = builder()
    changed.id, changed.overload, changed.next_part_power = "0123456789abcdef" * 2, 0.125, 5
    changed.devices[3] = device
    changed.removed = {3}
    return changed


@pytest.mark.parametrize("ours", [builder(), full_builder(), Builder.create(3, 3, 1)], ids=["plain", "full", "empty"])
def test_round_trip(ours: Builder) -> None:
    again = decode_builder(encode_builder(ours))
    assert again == ours
    again.moved_at[0] = 7  # what is read can be worked on
    assert again != ours


def test_the_golden_file_is_read_and_written_as_ever() -> None:
    golden = (GOLDEN / "ring-1.builder").read_bytes()
    assert decode_builder(golden) == builder()
    ours = encode_builder(builder())
    assert ours[:16] == golden[:16]
    assert ours[24 : header_end(ours)] == golden[24 : header_end(golden)]
    # The body's compression may differ between versions of zstd.
    read = zstandard.ZstdDecompressor().decompress
    assert read(ours[header_end(ours) :]) == read(golden[header_end(golden) :])


def test_what_is_not_at_its_default_is_in_the_header() -> None:
    data = encode_builder(full_builder())
    end = b'"removed":[3],"id":"0123456789abcdef0123456789abcdef","overload":0.125,"next_part_power":5}'
    assert data[24 : header_end(data)].endswith(end)


def test_every_cut_and_every_flipped_bit_is_noticed() -> None:
    whole = encode_builder(builder())
    for length in range(len(whole)):
        with pytest.raises(FormatError):
            decode_builder(whole[:length])
    with pytest.raises(FormatError):
        decode_builder(whole + b"\0")
    for bit in range(8 * len(whole)):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(FormatError):
            decode_builder(bytes(flipped))


@settings(max_examples=200)
@given(st.binary(max_size=200), st.booleans())
def test_foreign_bytes_are_a_format_error(data: bytes, with_magic: bool) -> None:
    with pytest.raises(FormatError):
        decode_builder(BUILDER_MAGIC + data if with_magic else data)


def test_a_ring_file_is_no_builder_file() -> None:
    with pytest.raises(FormatError, match="not a builder file"):
        decode_builder((GOLDEN / "ring-1.ring").read_bytes())


@pytest.mark.parametrize(
    ("removed", "device_id", "words"),
    [
        (b"[0]", 1, "removes a device"),
        (b"[7]", 1, "removes a device"),
        (b"[]", 0, "the table names"),
        (b"[]", 9, "the table names"),
        (b"[]", 0xFFFF, "the table names"),
    ],
)
def test_a_sealed_file_is_still_not_believed(removed: bytes, device_id: int, words: str) -> None:
    devices = b'[null,{"region":1,"zone":1,"ip":"10.0.0.1","port":0,"name":"a","weight":1.0}]'
    head = (
        b'{"version":1,"part_power":0,"replicas":1.0,"min_part_hours":1,"rows":[1],"removed":'
        + removed
        + b',"devices":'
        + devices
        + b"}"
    )
    body = zstandard.ZstdCompressor().compress(device_id.to_bytes(2, "little") + bytes(4))
    with pytest.raises(FormatError, match=words):
        decode_builder(sealed(BUILDER_MAGIC, head, body))


@pytest.mark.parametrize(
    ("rows", "devices", "words"),
    [
        (b"[1,2]", b"[null]", "a row before the last is short"),
        (b"[2,1,2]", b"[null]", "a row before the last is short"),
        (b"[2,2,3]", b"[null]", "rows that its part power does not have"),
        (b"[]", b"[" + b"null," * 65535 + b"null]", "65536 device ids"),
    ],
)
def test_a_table_of_another_shape_is_refused(rows: bytes, devices: bytes, words: str) -> None:
    start = b'{"version":1,"part_power":1,"replicas":3.0,"min_part_hours":1,"removed":[],"rows":'
    data = sealed(BUILDER_MAGIC, start + rows + b',"devices":' + devices + b"}", zstandard.ZstdCompressor().compress(b""))
    with pytest.raises(FormatError, match=words):
        decode_builder(data)


async def test_through_a_disk(tmp_path: Path) -> None:
    disk = make_world().open_disk(str(tmp_path))
    await write_builder(disk, "object.builder", builder())
    assert await read_builder(disk, "object.builder") == builder()
    with pytest.raises(FileNotFoundError):
        await read_builder(disk, "account.builder")


@pytest.mark.parametrize(
    "change",
    [
        {"replicas": 0.0},
        {"replicas": 1e9},
        {"min_part_hours": -1},
        {"version": -1},
        {"overload": -0.5},
        {"next_part_power": 77},
        {"devices": [Device(0, 1, 1, "10.0.0.1", 6200, "a", -1.0)]},
        {"devices": [Device(0, 1, 1, "10.0.0.1", 70000, "a", 1.0)]},
        {"devices": [Device(0, -1, 1, "10.0.0.1", 6200, "a", 1.0)]},
        {"devices": [Device(0, 1, 1, "10.0.0.1", 6200, "a b", 1.0)]},
        {"devices": [Device(i, 1, 1, "10.0.0.1", 6200, "a", 1.0) for i in range(2)]},
    ],
)
def test_values_that_no_builder_wrote(change: dict[str, object]) -> None:
    forged = Builder.create(3, 3, 1)
    for name, value in change.items():
        setattr(forged, name, value)
    with pytest.raises(FormatError, match="no builder wrote"):
        decode_builder(encode_builder(forged))
