"""Placement: which devices hold a partition.  An immutable Ring, made by builder.py or read by ringfile.py.  Pure.

``primaries`` are the devices that must hold a partition; ``handoffs`` are all others, in the order in which they stand in: those in
regions, zones and servers unlike the primaries' first.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from ring.device import Device
from ring.names import NameHasher, Path, partition_of

NO_DEVICE = 0xFFFF


@dataclass(frozen=True, slots=True)
class Ring:
    """``table`` has one row per replica, each an array of device ids by partition; a fractional last row may be shorter."""

    version: int
    part_power: int
    devices: tuple[Device | None, ...]  # by id; None where a device was removed
    table: tuple[array[int], ...]
    hasher: NameHasher = field(repr=False)

    @property
    def partition_count(self) -> int:
        return 1 << self.part_power

    @property
    def replica_count(self) -> int:
        """Of the partitions that have the most."""
        return len(self.table)

    def partition(self, path: Path) -> int:
        return partition_of(self.hasher.hash(path), self.part_power)

    def device(self, device_id: int) -> Device:
        device = self.devices[device_id]
        if device is None:
            raise KeyError(device_id)
        return device

    def primaries(self, partition: int) -> list[Device]:
        return [self.device(row[partition]) for row in self.table if partition < len(row) and row[partition] != NO_DEVICE]

    def handoffs(self, partition: int) -> Iterator[Device]:
        """Every device that is not a primary, weightless ones left out, in an order of this partition's own."""
        primaries = self.primaries(partition)
        taken = {device.id for device in primaries}
        used: list[set[object]] = [
            {device.region for device in primaries},
            {(device.region, device.zone) for device in primaries},
            {(device.region, device.zone, device.ip) for device in primaries},
        ]

        def order(device: Device) -> tuple[bool, bool, bool, bytes]:
            salt = hashlib.md5(f"{partition}/{device.id}".encode(), usedforsecurity=False).digest()
            return (
                device.region in used[0],
                (device.region, device.zone) in used[1],
                (device.region, device.zone, device.ip) in used[2],
                salt,
            )

        rest: Sequence[Device] = [d for d in self.devices if d is not None and d.id not in taken and d.weight > 0]
        yield from sorted(rest, key=order)
