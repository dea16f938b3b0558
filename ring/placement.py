"""Placement: which devices hold a partition, and which stand in.  Pure: an immutable Ring, made by builder/ or read by ringfile.py.

``primaries`` are the devices that must hold a partition; ``handoffs`` are all others that have weight, in the order in which they
stand in.  That order is the first of these rules that tells two devices apart:

- a region that has neither a primary nor an earlier handoff of the partition comes first, then such a zone, then such a server;
- the partition's own order of all devices, which is as if they were drawn one after another, each by its weight.

So at every step a handoff shares as little as can be with what came before it, and what a lost device leaves undone goes to
the others by their weight.  The own order follows from partition, device ids and weights alone, on any machine: a device that
is added or removed leaves the order of the others as it is (unless the number of ids or the largest weight passes a power of 2).

Most callers ask for the first one or two, so these come from a short sequence of draws; the other devices are sorted only
when somebody goes that far.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import shake_128
from itertools import chain
from operator import truediv
from struct import iter_unpack, unpack
from typing import TypeAlias

from ring.device import Device
from ring.names import NameHasher, Path, partition_of

NO_DEVICE = 0xFFFF
PART_POWER_MAX = 24
_DRAWS_BYTES = 168  # one block of SHAKE-128: 42 draws of 4 bytes
_CHANCE_BITS = 16

Row: TypeAlias = "array[int] | memoryview"  # device ids by partition, unsigned 16 bit


@dataclass(frozen=True, slots=True)
class Ring:
    """``table`` has one row per replica, each with device ids by partition; a fractional last row may be shorter."""

    version: int
    part_power: int
    devices: tuple[Device | None, ...]  # by id; None where a device was removed
    table: tuple[Row, ...]
    hasher: NameHasher = field(repr=False)
    next_part_power: int | None = (
        None  # while the partition power is being increased (a name of Swift's: nothing here waits for it)
    )
    _present: dict[int, Device] = field(init=False, repr=False, compare=False)
    _stand_ins: _StandIns = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_present", {device.id: device for device in self.devices if device is not None})
        object.__setattr__(self, "_stand_ins", _StandIns(self._present))

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
        """KeyError when there is none (any more)."""
        return self._present[device_id]

    def primaries(self, partition: int) -> list[Device]:
        present = self._present
        try:
            return [present[row[partition]] for row in self.table if partition < len(row)]
        except KeyError:  # a replica without a device
            return [present[row[partition]] for row in self.table if partition < len(row) and row[partition] != NO_DEVICE]

    def handoffs(self, partition: int) -> Iterator[Device]:
        """Every device with weight that is no primary, those first that are most unlike what came before; lazy."""
        return self._stand_ins.after(partition, self.primaries(partition))


class _StandIns:
    """What handoffs need to know of a ring's devices, made once."""

    __slots__ = ("_chances", "_devices", "_divisors", "_levels", "_mask", "_weighted")

    def __init__(self, devices: dict[int, Device]) -> None:
        self._devices = devices
        self._weighted = [device_id for device_id, device in devices.items() if device.weight > 0]
        count = max(devices, default=-1) + 1
        slots = 1 << max(0, count - 1).bit_length()
        self._mask = slots - 1
        mantissa, exponent = math.frexp(max((device.weight for device in devices.values()), default=0.0))
        exponent -= mantissa == 0.5  # 2 ** exponent is the largest weight, rounded up to a power of two: the chance of that is 1
        self._chances = [0] * slots  # by device id, of 2 ** _CHANCE_BITS
        self._divisors = [1.0] * count  # by device id
        for device_id in self._weighted:
            weight = devices[device_id].weight
            self._chances[device_id] = math.ceil(math.ldexp(weight, _CHANCE_BITS - exponent))
            self._divisors[device_id] = weight
        present = list(devices.values())
        levels = (
            _Tiers(count, present, [d.region for d in present]),
            _Tiers(count, present, [(d.region, d.zone) for d in present]),
            _Tiers(count, present, [(d.region, d.zone, d.ip) for d in present]),
        )
        self._levels = [tiers for tiers in levels if tiers.count > 1]  # a single region tells no devices apart

    def after(self, partition: int, primaries: Sequence[Device]) -> Iterator[Device]:
        devices = self._devices
        chosen = [device.id for device in primaries]
        order = self._own_order(partition, chosen)
        for tiers in self._levels:
            of = tiers.of
            used = {of[device_id] for device_id in chosen}
            missing = tiers.count - len(used) + (tiers.count in used)
            if not missing:
                continue
            passed = []
            for device_id in order:
                if of[device_id] in used:
                    passed.append(device_id)
                    continue
                used.add(of[device_id])
                chosen.append(device_id)
                yield devices[device_id]
                missing -= 1
                if not missing:
                    break
            order = chain(passed, order)
        for device_id in order:
            yield devices[device_id]

    def _own_order(self, partition: int, without: Iterable[int]) -> Iterator[int]:
        """The ids of all devices that have weight: first those drawn, then the others by a number over their weight."""
        seen = set(without)
        label = partition.to_bytes(4, "little")
        mask, chances = self._mask, self._chances
        for number, luck in iter_unpack("<2H", shake_128(b"handoff draws" + label).digest(_DRAWS_BYTES)):
            device_id = number & mask
            if luck < chances[device_id] and device_id not in seen:
                seen.add(device_id)
                yield device_id
        rest = [device_id for device_id in self._weighted if device_id not in seen]
        if rest:
            count = len(self._divisors)
            numbers = unpack(f"<{count}I", shake_128(b"handoff order" + label).digest(4 * count))
            # Division alone: unlike a logarithm, it has the same last bit everywhere.
            yield from sorted(rest, key=list(map(truediv, numbers, self._divisors)).__getitem__)


class _Tiers:
    """The regions, the zones or the servers that have weight, numbered from 0; ``count`` is the number of all others."""

    __slots__ = ("count", "of")

    def __init__(self, device_count: int, devices: Sequence[Device], places: Sequence[object]) -> None:
        numbers: dict[object, int] = {}
        for device, place in zip(devices, places, strict=True):
            if device.weight > 0:
                numbers.setdefault(place, len(numbers))
        self.count = len(numbers)
        self.of = [self.count] * device_count  # by device id
        for device, place in zip(devices, places, strict=True):
            self.of[device.id] = numbers.get(place, self.count)
