"""What both files of Swift hold, devices and a table: checked, and carried over between Swift's records and ours.

Pure.  Knows no bytes: ``swiftbuilder.py`` and ``ringgz.py`` do.  What is broken is a FormatError, what is whole but has no
place in a ring of ours a BadInput or Conflict; nothing is left out silently (``FromSwift.notes``).  The rules are in
docs/formats/swift-ring.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated

import msgspec
import numpy as np
from numpy.typing import NDArray

from ring.builder.builder import Builder
from ring.builder.measure import Table
from ring.device import Device
from ring.errors import BadInput, Conflict, FormatError
from ring.placement import NO_DEVICE, PART_POWER_MAX

Whole = Annotated[int, msgspec.Meta(ge=0, le=(1 << 53))]
Place = Annotated[int, msgspec.Meta(ge=0, le=(1 << 31) - 1)]


@dataclass(frozen=True, slots=True)
class FromSwift:
    builder: Builder
    kind: str  # "builder", "ring v1" or "ring v2"
    notes: tuple[str, ...]  # what the file says that is left behind, and what it does not say and had to be assumed


class Record(msgspec.Struct):
    """A device.  Old Swifts had no region, meta or replication address."""

    id: int
    zone: Place
    ip: str
    port: int
    device: str
    weight: float
    region: Place = 1
    meta: str = ""
    replication_ip: str | None = None
    replication_port: int | None = None


class KnownRecord(Record, forbid_unknown_fields=True):
    """A device without anything that would be left behind: what else it has, Swift's builder counts anew."""

    parts: float | None = None
    parts_wanted: float | None = None
    tiers: tuple[tuple[int], tuple[int, int], tuple[int, int, str], tuple[int, int, str, int]] | None = None


def device_record(device: Device) -> dict[str, str | int | float]:
    """As Swift 2 writes it."""
    return {
        "id": device.id,
        "region": device.region,
        "zone": device.zone,
        "ip": device.ip,
        "port": device.port,
        "replication_ip": device.replication_ip,
        "replication_port": device.replication_port,
        "device": device.name,
        "weight": device.weight,
        "meta": device.meta,
    }


def devices_of(records: Sequence[Record | None]) -> list[Device | None]:
    """Under the ids that they have in Swift."""
    if len(records) > NO_DEVICE:
        raise BadInput(f"device ids up to {len(records) - 1}; here they are below {NO_DEVICE}")
    devices: list[Device | None] = []
    seen: dict[tuple[str, int, str], int] = {}
    for index, record in enumerate(records):
        if record is None:
            devices.append(None)
            continue
        if record.id != index:
            raise FormatError(f"device {index} of the Swift file has the id {record.id}")
        device = _device(record)
        other = seen.setdefault((device.ip, device.port, device.name), index)
        if other != index:
            raise Conflict(f"devices {other} and {index} of the Swift file are both {device.address}/{device.name}")
        devices.append(device)
    return devices


def _device(record: Record) -> Device:
    """By the rules of a Builder, of one that has no other: thousands would be compared each with each."""
    try:
        device = Builder.create(0, 1, 0).add_device(
            region=record.region,
            zone=record.zone,
            ip=record.ip,
            port=record.port,
            name=record.device,
            weight=record.weight,
            meta=record.meta,
            replication_ip=record.replication_ip or "",
            replication_port=-1 if record.replication_port is None else record.replication_port,
        )
    except BadInput as error:
        raise BadInput(f"device {record.id} of the Swift file: {error.message}", hint=error.hint) from error
    return replace(device, id=record.id)


def table_of(rows: Sequence[NDArray[np.unsignedinteger]], part_power: int, devices: Sequence[Device | None]) -> Table:
    """Rows of uint16, none of them without a device anywhere.  An empty last row, of a small fraction of a replica, is none."""
    known = np.array([device is not None for device in devices] + [False])
    table = []
    short = False
    if len(rows) > 1 and not len(rows[-1]):
        rows = rows[:-1]
    for replica, row in enumerate(rows):
        if short or not 0 < len(row) <= 1 << part_power:
            raise FormatError(f"replica {replica} of the Swift file has {len(row)} partitions, not {1 << part_power}")
        short = len(row) < 1 << part_power
        held = known[np.minimum(row, np.uint32(len(devices)))]
        if not held.all():
            partition = int(np.flatnonzero(~held)[0])
            device_id = int(row[partition])
            if device_id == np.iinfo(row.dtype).max:
                raise BadInput(f"partition {partition} has no device for replica {replica}", hint="rebalance it in Swift first")
            raise FormatError(f"partition {partition} is on d{device_id}, which the Swift file does not have")
        table.append(row.astype(np.uint16))
    return tuple(table)


def check_part_power(part_power: int) -> None:
    if not 0 <= part_power <= 32:
        raise FormatError(f"a part power of {part_power} in a Swift file")
    if part_power > PART_POWER_MAX:
        raise BadInput(f"a part power of {part_power}; here it is at most {PART_POWER_MAX}")


def check_next_part_power(next_part_power: int | None, part_power: int) -> int | None:
    if next_part_power and next_part_power not in (part_power, part_power + 1):
        raise FormatError(f"a part power of {part_power} that becomes {next_part_power}")
    return next_part_power or None
