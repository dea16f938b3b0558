"""Builders that Swift could have written, hypothesis's own, and pickles as Python 2 wrote them."""

from __future__ import annotations

import struct
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st

from ring.builder.builder import HOUR_S, Builder
from ring.device import Device

GOLDEN = Path(__file__).parents[2] / "golden"
EPOCH = 1_700_000_000


# ---- builders


@st.composite
def builders(draw: st.DrawFn) -> Builder:
    """Any that has been rebalanced: fractional replicas, holes, devices on their way out, moves at hours before EPOCH."""
    part_power = draw(st.integers(0, 9))
    ids = sorted(draw(st.sets(st.integers(0, 600), min_size=3, max_size=9)))
    replicas = draw(st.sampled_from([1.0, 1.5, 2.0, 2.75, 3.0]))
    builder = Builder.create(part_power, replicas, draw(st.integers(0, 200)), builder_id=draw(st.sampled_from(["", "ab" * 16])))
    for device_id in ids:
        builder.add_device(
            device_id=device_id,
            region=draw(st.integers(0, 2)),
            zone=draw(st.integers(0, 3)),
            ip=draw(st.sampled_from(["10.0.0.1", "10.0.0.2", "fd00::3", "node-4.example"])),
            port=draw(st.integers(0, 65535)),
            name=f"sd{device_id}",
            weight=draw(st.floats(0, 1e6)),
            meta=draw(st.text(st.characters(codec="utf-8"), max_size=300)),
            replication_ip=draw(st.sampled_from(["", "10.1.0.1"])),
            replication_port=draw(st.integers(-1, 65535)),
        )
    chance = np.random.default_rng(draw(st.integers(0, 1 << 32)))
    order = np.argsort(chance.random((builder.partition_count, len(ids))), axis=1)
    builder.table = tuple(np.array(ids, np.uint16)[order[:length, row]] for row, length in enumerate(builder.rows))
    hours = chance.integers(0, 300, builder.partition_count)
    builder.moved_at = np.where(hours < 255, EPOCH - hours * HOUR_S, 0).astype(np.uint32)
    builder.moved_at[0] = EPOCH
    for device_id in draw(st.sets(st.sampled_from(ids), max_size=2)):
        builder.removed.add(device_id)
    builder.devices.extend([None] * draw(st.integers(0, 2)))
    builder.overload = draw(st.sampled_from([0.0, 0.1, 2.5]))
    builder.version = draw(st.integers(0, 1 << 40))
    builder.next_part_power = draw(st.sampled_from([None, part_power or None, part_power + 1]))
    return builder


def device(device_id: int, **changed: object) -> dict[str, object]:
    """As Swift has it."""
    return {
        "id": device_id,
        "region": 1,
        "zone": device_id + 1,
        "ip": f"10.0.0.{device_id + 1}",
        "port": 6200,
        "replication_ip": f"10.1.0.{device_id + 1}",
        "replication_port": 6300,
        "device": f"sd{device_id}",
        "weight": 100.0,
        "meta": "",
    } | changed


def expected(device_id: int) -> Device:
    return Device(
        device_id,
        1,
        device_id + 1,
        f"10.0.0.{device_id + 1}",
        6200,
        f"sd{device_id}",
        100.0,
        "",
        f"10.1.0.{device_id + 1}",
        6300,
    )


def content(**changed: object) -> dict[str, Any]:
    """What Swift 2.38 saves, of four partitions on three devices."""
    whole = {
        "part_power": 2,
        "next_part_power": None,
        "replicas": 1.5,
        "min_part_hours": 3,
        "parts": 4,
        "devs": [device(0), device(1), device(2)],
        "devs_changed": False,
        "dev_id_bytes": 2,
        "version": 7,
        "overload": 0.1,
        "_replica2part2dev": [array("H", [0, 1, 2, 0]), array("H", [1, 2])],
        "_last_part_moves_epoch": EPOCH,
        "_last_part_moves": array("B", [0, 1, 254, 255]),
        "_last_part_gather_start": 3,
        "_dispersion_graph": {(1,): [0, 4, 0], (1, 1, "10.0.0.1", 0): [2, 2, 0]},
        "dispersion": 0.0,
        "_remove_devs": [],
        "id": "0123456789abcdef" * 2,
    } | changed
    return {name: value for name, value in whole.items() if value is not ...}


# ---- pickles


@dataclass(frozen=True, slots=True)
class Array:
    code: str
    numbers: Sequence[int]


def python2(value: object, *, raw_arrays: bool) -> bytes:
    """Protocol 2 as cPickle wrote it: str as bytes, arrays made of lists (Python 2.7) or of their memory (2.6 and before)."""
    return b"\x80\x02" + _python2(value, raw_arrays) + b"."


def _python2(value: object, raw: bool) -> bytes:
    match value:
        case None:
            return b"N"
        case bool():
            return b"\x88" if value else b"\x89"
        case int():  # a long, as a shift makes one
            data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
            return bytes([0x8A, len(data)]) + data if value > 0xFFFF else b"M" + value.to_bytes(2, "little")
        case float():
            return b"G" + struct.pack(">d", value)
        case str() if value.isascii():
            return bytes([ord("U"), len(value)]) + value.encode() + b"q\x07"
        case str():
            return b"X" + len(value.encode()).to_bytes(4, "little") + value.encode()
        case Array(code, numbers) if raw:
            memory = struct.pack(f"<{len(numbers)}{code}", *numbers)
            made = b"T" + len(memory).to_bytes(4, "little") + memory
            return b"carray\narray\nU\x01" + code.encode() + (made + b"\x86R" if numbers else b"\x85R")
        case Array(code, numbers):
            return b"carray\narray\nU\x01" + code.encode() + _python2(list(numbers), raw) + b"\x86Rq\x08"
        case Mapping():
            return b"}(" + b"".join(_python2(k, raw) + _python2(v, raw) for k, v in value.items()) + b"u"
        case list():
            return b"](" + b"".join(_python2(one, raw) for one in value) + b"e"
        case _:
            raise TypeError(type(value))
