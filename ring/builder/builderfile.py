"""The builder file, what an operator edits: byte for byte in docs/formats/ring.md.

Codecs are pure; ``read_builder`` and ``write_builder`` go through a Disk and replace the whole file.  Neighbours: ``builder.py``,
``ring.envelope``, ``ring.ringfile`` (what every node reads).
"""

from __future__ import annotations

import msgspec
import numpy as np

from ring.builder.builder import Builder
from ring.envelope import DeviceRecord, devices_of, records_of, seal, unseal
from ring.errors import BadInput, Conflict, FormatError
from ring.placement import NO_DEVICE
from ring.world.interface import Disk

BUILDER_MAGIC = b"RFBUILD\n"


class _Header(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    version: int
    part_power: int
    replicas: float
    min_part_hours: int
    rows: list[int]
    devices: list[DeviceRecord | None]
    removed: list[int]
    id: str = ""
    overload: float | msgspec.UnsetType = msgspec.UNSET  # unset: 0 (an equal float is not yet a default to msgspec)
    next_part_power: int | None = None
    last_moves: int = 0
    last_lower_bound: int = 0


def encode_builder(builder: Builder) -> bytes:
    header = _Header(
        version=builder.version,
        part_power=builder.part_power,
        replicas=builder.replicas,
        min_part_hours=builder.min_part_hours,
        rows=[len(row) for row in builder.table],
        devices=records_of(builder.devices),
        removed=sorted(builder.removed),
        id=builder.id,
        overload=builder.overload or msgspec.UNSET,
        next_part_power=builder.next_part_power,
        last_moves=builder.last_moves,
        last_lower_bound=builder.last_lower_bound,
    )
    body = b"".join(row.astype("<u2").tobytes() for row in builder.table) + builder.moved_at.astype("<u4").tobytes()
    return seal(BUILDER_MAGIC, header, body)


def decode_builder(data: bytes) -> Builder:
    """FormatError unless it is a whole builder file of a format that we know."""
    header, body = unseal(BUILDER_MAGIC, "builder file", data, _Header, lambda h: 2 * sum(h.rows) + (4 << h.part_power))
    devices = devices_of(header.devices)
    table = []
    start = 0
    for length in header.rows:
        table.append(np.frombuffer(body, "<u2", length, start).astype(np.uint16))
        start += 2 * length
    known = np.zeros(NO_DEVICE + 1, bool)
    known[[i for i, device in enumerate(devices) if device is not None]] = True
    if any(not known[row].all() for row in table):
        raise FormatError("the table names a device that is not in the ring")
    if any(not 0 <= i < len(devices) or devices[i] is None for i in header.removed):
        raise FormatError("a builder file removes a device that it does not have")
    builder = Builder(
        part_power=header.part_power,
        replicas=header.replicas,
        min_part_hours=header.min_part_hours,
        version=header.version,
        id=header.id,
        overload=0.0 if isinstance(header.overload, msgspec.UnsetType) else header.overload,
        next_part_power=header.next_part_power,
        last_moves=header.last_moves,
        last_lower_bound=header.last_lower_bound,
        devices=devices,
        removed=set(header.removed),
        table=tuple(table),
        moved_at=np.frombuffer(body, "<u4", -1, start).astype(np.uint32),
    )
    try:
        builder.check_values()
    except (BadInput, Conflict) as error:
        raise FormatError(f"a builder file that no builder wrote: {error}") from error
    return builder


async def read_builder(disk: Disk, path: str) -> Builder:
    """OSError as the disk gave it (FileNotFoundError when there is none)."""
    return decode_builder(await disk.read_file(path))


async def write_builder(disk: Disk, path: str, builder: Builder) -> None:
    await disk.replace_file(path, encode_builder(builder))
