"""Swift's ``.builder`` <-> Builder.

Decides what each of its fields is here and the other way round; docs/formats/swift-ring.md has the rules.  Pure: bytes in, bytes
out.
Neighbours: ``builderpickle.py`` reads and writes the bytes, ``carry.py`` the devices and the table.

Swift keeps for each partition how many hours before a common moment (the epoch) it last moved, at most 255; we keep the moment.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import numpy as np
from numpy.typing import NDArray

from ring.builder.builder import HOUR_S, Builder
from ring.errors import FormatError
from ring.swift.builderpickle import NUMBER_MAX, Value, decode, encode
from ring.swift.carry import (
    FromSwift,
    KnownRecord,
    Place,
    Record,
    Whole,
    check_next_part_power,
    check_part_power,
    device_record,
    devices_of,
    table_of,
)

HOURS_MAX = 0xFF  # as long ago, or never
_COUNTED_ANEW = {"parts", "devs_changed", "dev_id_bytes", "dispersion", "_dispersion_graph", "_last_part_gather_start"}


class _Plain(msgspec.Struct):
    """What is neither devices nor numbers by partition.  Old Swifts had no overload, no id and no next_part_power."""

    part_power: int
    replicas: float
    min_part_hours: Place
    version: Whole
    epoch: float | None = msgspec.field(name="_last_part_moves_epoch")
    overload: float | None = None
    next_part_power: int | None = None
    id: str | None = None


_KNOWN = {*_Plain.__struct_encode_fields__, *_COUNTED_ANEW, "devs", "_remove_devs", "_replica2part2dev", "_last_part_moves"}


def decode_swift_builder(data: bytes) -> FromSwift:
    """FormatError unless it is a whole builder file; BadInput or Conflict when a builder of ours cannot hold what it says."""
    raw = decode(data)
    if not isinstance(raw, dict) or "part_power" not in raw:
        raise FormatError("not a Swift builder file: no part power in it")
    try:
        plain = msgspec.convert({name: raw[name] for name in _Plain.__struct_encode_fields__ if name in raw}, _Plain)
    except msgspec.ValidationError as error:
        raise FormatError(f"not a Swift builder file: {error}") from error
    check_part_power(plain.part_power)
    builder = Builder.create(plain.part_power, plain.replicas, plain.min_part_hours, builder_id=plain.id or "")
    unknown = sorted(str(name) for name in raw.keys() - _KNOWN)
    notes = [f"left behind: {', '.join(unknown)}"] if unknown else []
    builder.devices = devices_of(_records(_list(raw, "devs"), notes))
    builder.set_overload(plain.overload or 0.0)
    builder.next_part_power = check_next_part_power(plain.next_part_power, plain.part_power)
    builder.version = plain.version
    for record in _records(_list(raw, "_remove_devs"), []):
        if record is None or record.id >= len(builder.devices) or builder.devices[record.id] is None:
            raise FormatError("not a Swift builder file: it removes a device that it does not have")
        builder.removed.add(record.id)
    rows = [] if raw.get("_replica2part2dev") is None else _list(raw, "_replica2part2dev")
    builder.table = table_of([_numbers(row) for row in rows], builder.part_power, builder.devices)
    moves = raw.get("_last_part_moves")
    if moves is not None:
        builder.moved_at = _moved_at(_numbers(moves), plain.epoch or 0.0, builder.partition_count)
    builder.validate()
    return FromSwift(builder, "builder", tuple(notes))


def _list(raw: Mapping[object, object], name: str) -> list[object]:
    value = raw.get(name)
    if not isinstance(value, list):
        raise FormatError(f"not a Swift builder file: {name} is not a list")
    return value


def _records(raw: list[object], notes: list[str]) -> list[Record | None]:
    """Adds to ``notes`` what is left behind."""
    records: list[Record | None] = []
    for index, one in enumerate(raw):
        try:
            try:
                records.append(None if one is None else msgspec.convert(one, KnownRecord))
            except msgspec.ValidationError as error:
                records.append(msgspec.convert(one, Record))
                notes.append(f"left behind, of device {index}: {error}")
        except msgspec.ValidationError as error:
            raise FormatError(f"device {index} of the Swift file: {error}") from error
    return records


def _numbers(value: object) -> NDArray[np.unsignedinteger]:
    """Swift has arrays here; lists after an increase of the partition power."""
    if isinstance(value, np.ndarray):
        return value
    if isinstance(value, list) and all(type(one) is int and 0 <= one <= NUMBER_MAX for one in value):
        return np.array(value, np.uint32)
    raise FormatError("not a Swift builder file: something that is not numbers where its tables are")


def _moved_at(hours: NDArray[np.unsignedinteger], epoch: float, partition_count: int) -> NDArray[np.uint32]:
    if len(hours) != partition_count:
        raise FormatError(f"a Swift builder of {partition_count} partitions that says when {len(hours)} moved")
    if not 0 <= epoch <= NUMBER_MAX:
        raise FormatError(f"a Swift builder whose partitions moved at {epoch}")
    moved = int(epoch) - hours.astype(np.int64) * HOUR_S
    return np.where((hours < HOURS_MAX) & (moved > 0), moved, 0).astype(np.uint32)


def encode_swift_builder(builder: Builder) -> bytes:
    """What ``RingBuilder.load`` of every Swift 2 takes."""
    held = builder.counts()
    records: dict[int, Mapping[str, Value]] = {
        device.id: {**device_record(device), "parts": held[device.id], "parts_wanted": 0} for device in builder.present
    }
    hours, epoch = _last_moves(builder.moved_at)
    return encode(
        {
            "part_power": builder.part_power,
            "next_part_power": builder.next_part_power,
            "replicas": builder.replicas,
            "min_part_hours": builder.min_part_hours,
            "parts": builder.partition_count,
            "devs": [None if device is None else records[device.id] for device in builder.devices],
            "devs_changed": True,  # Swift saves its next rebalance then, however little it moves
            "dev_id_bytes": 2,
            "version": builder.version,
            "overload": builder.overload,
            "_replica2part2dev": list(builder.table) or None,
            "_last_part_moves_epoch": epoch,
            "_last_part_moves": hours,
            "_last_part_gather_start": 0,
            "_dispersion_graph": {},  # Swift counts it when it is asked for
            "dispersion": builder.dispersion(),
            "_remove_devs": [records[device_id] for device_id in sorted(builder.removed)],
            "id": builder.id or None,
        }
    )


def _last_moves(moved_at: NDArray[np.uint32]) -> tuple[NDArray[np.uint8], int]:
    """Hours before the epoch, and the epoch: the last move of all.  Parts of an hour are left out, so Swift waits rather longer."""
    epoch = int(moved_at.max())
    hours = np.where(moved_at > 0, (epoch - moved_at.astype(np.int64)) // HOUR_S, HOURS_MAX)
    return np.minimum(hours, HOURS_MAX).astype(np.uint8), epoch
