"""The ring builder: devices and weights in, a table of which device holds which partition out.

Keeps the state that outlives one rebalance (weights, the table, when each partition last moved) and the rules around it;
``quota.py`` decides how much each device should hold and ``moves.py`` which replicas move.  Never touches a file
(``ringfile.py``).  Pure and deterministic: the same operations with the same seeds give the same table.  Operations and words
are those of swift-ring-builder(1).

Invariants: no partition has two replicas on one device; a rebalance moves at most one replica of a partition; a replica
is not moved within ``min_part_hours`` of the last move in its partition, unless its device was removed.
"""

from __future__ import annotations

import math
from array import array
from dataclasses import dataclass, field, replace

from ring.device import Device
from ring.errors import BadInput, Conflict, NotFound
from ring.moves import Pass, place_all
from ring.names import NameHasher
from ring.placement import NO_DEVICE, Ring
from ring.quota import Targets, targets

PART_POWER_MAX = 24
HOUR_S = 3600


@dataclass(frozen=True, slots=True)
class Report:
    """What one rebalance did."""

    moves: int  # replicas that changed device; the first placement counts all
    balance: float  # percent by which the worst device is off its share
    dispersion: float  # percent of partitions with more replicas in one region, zone or server than need be
    version: int


@dataclass(slots=True)
class Builder:
    """``devices`` by id, None where one is gone; ``removed`` are on their way out, and gone when they hold nothing."""

    part_power: int
    replicas: float
    min_part_hours: int
    version: int = 0
    devices: list[Device | None] = field(default_factory=list)
    removed: set[int] = field(default_factory=set)
    table: tuple[array[int], ...] = ()
    moved_at: array[int] = field(default_factory=lambda: array("I"))  # by partition: wall seconds of its last move, 0 never

    @classmethod
    def create(cls, part_power: int, replicas: float, min_part_hours: int) -> Builder:
        if not 0 <= part_power <= PART_POWER_MAX:
            raise BadInput(f"the part power is 0 to {PART_POWER_MAX}, not {part_power}")
        if not (math.isfinite(replicas) and 1 <= replicas <= 100):
            raise BadInput(f"replicas are 1 to 100, not {replicas}")
        if min_part_hours < 0:
            raise BadInput("min part hours are not negative")
        return cls(part_power, float(replicas), min_part_hours, 1, moved_at=array("I", bytes(4 << part_power)))

    @property
    def partition_count(self) -> int:
        return 1 << self.part_power

    @property
    def rows(self) -> list[int]:
        """The lengths of the table's rows; a fractional replica makes the last one shorter."""
        whole = int(self.replicas)
        rest = int((self.replicas - whole) * self.partition_count)
        return [self.partition_count] * whole + ([rest] if rest else [])

    @property
    def present(self) -> list[Device]:
        return [device for device in self.devices if device is not None]

    # ---- operations

    def add_device(
        self, *, region: int, zone: int, ip: str, port: int, name: str, weight: float, meta: str = "", device_id: int | None = None
    ) -> Device:
        """Conflict when a device of this name is there already.  It holds nothing before the next rebalance."""
        if not ip or not name or "/" in name or region < 0 or zone < 0 or not 0 <= port < 65536:
            raise BadInput(f"not a device: r{region}z{zone}-{ip}:{port}/{name}")
        for other in self.present:
            if (other.ip, other.port, other.name) == (ip, port, name):
                raise Conflict(f"{other} is in the ring already")
        new_id = len(self.devices) if device_id is None else device_id
        if new_id >= NO_DEVICE or new_id < 0:
            raise BadInput(f"device ids are 0 to {NO_DEVICE - 1}")
        self.devices.extend([None] * (new_id + 1 - len(self.devices)))
        if self.devices[new_id] is not None:
            raise Conflict(f"device id {new_id} is taken")
        device = Device(new_id, region, zone, ip, port, name, _weight(weight), meta)
        self.devices[new_id] = device
        self.version += 1
        return device

    def device(self, device_id: int) -> Device:
        device = self.devices[device_id] if 0 <= device_id < len(self.devices) else None
        if device is None:
            raise NotFound(f"no device d{device_id}")
        return device

    def set_weight(self, device_id: int, weight: float) -> None:
        """Weight 0 drains: its replicas leave as min_part_hours allow."""
        device = self.device(device_id)
        if device_id in self.removed:
            raise Conflict(f"{device} is being removed")
        if device.weight != _weight(weight):
            self.devices[device_id] = replace(device, weight=_weight(weight))
            self.version += 1

    def remove(self, device_id: int) -> None:
        """Its replicas leave at the next rebalances, whatever min_part_hours say; then it is gone and its id is not used again."""
        device = self.device(device_id)
        self.devices[device_id] = replace(device, weight=0.0)
        self.removed.add(device_id)
        self._drop_empty()
        self.version += 1

    def rebalance(self, seed: int, now: float) -> Report:
        """One pass at wall time ``now`` (seconds).  BadInput, and no change, when devices with weight are fewer than replicas."""
        goal = self._targets()
        if not self.table:
            self.table = place_all(self.present, goal, self.rows, seed)
            moves = sum(self.rows)
        else:
            wait_s = self.min_part_hours * HOUR_S

            def movable(partition: int, device_id: int) -> bool:
                return device_id in self.removed or not self.moved_at[partition] or now - self.moved_at[partition] >= wait_s

            one_pass = Pass(self.table, self.present, goal, movable, seed)
            one_pass.run()
            assert all(count == 1 for count in one_pass.moved.values()), "a partition moved twice in a pass"
            for partition in one_pass.moved:
                self.moved_at[partition] = max(1, int(now))
            moves = len(one_pass.moved)
        gone = self._drop_empty()
        if moves or gone:
            self.version += 1
        return Report(moves, self.balance(), self.dispersion(), self.version)

    def _drop_empty(self) -> bool:
        holding = {device_id for row in self.table for device_id in row}
        gone = self.removed - holding
        for device_id in gone:
            self.devices[device_id] = None
        self.removed -= gone
        return bool(gone)

    # ---- reading

    def _targets(self) -> Targets:
        return targets(self.present, sum(self.rows), self.partition_count)

    def counts(self) -> dict[int, int]:
        """Replicas held, by device id."""
        result = {device.id: 0 for device in self.present}
        for row in self.table:
            for device_id in row:
                result[device_id] += 1
        return result

    def device_balance(self) -> dict[int, float]:
        """Percent that each device holds more (+) or less (-) than its share; 999.99 for one that should hold nothing but does."""
        shares = self._targets().shares if self.present and self.table else {}
        result = {}
        for device_id, count in self.counts().items():
            share = float(shares.get(device_id, 0))
            result[device_id] = 100.0 * (count - share) / share if share else (999.99 if count else 0.0)
        return result

    def balance(self) -> float:
        return max((abs(value) for value in self.device_balance().values()), default=0.0)

    def dispersion(self) -> float:
        if not self.table:
            return 0.0
        goal = self._targets()
        crowded = sum(goal.excess(self.device(i) for i in self._holders(p)) > 0 for p in range(self.partition_count))
        return 100.0 * crowded / self.partition_count

    def _holders(self, partition: int) -> list[int]:
        return [row[partition] for row in self.table if partition < len(row)]

    def hours_left(self, now: float) -> float:
        """Until every partition may move again."""
        last = max(self.moved_at, default=0)
        return max(0.0, self.min_part_hours - (now - last) / HOUR_S) if last else 0.0

    def validate(self) -> None:
        """Conflict when an invariant of the table does not hold."""
        if [len(row) for row in self.table] != (self.rows if self.table else []):
            raise Conflict("the table's rows are not those of its replica count")
        for partition in range(self.partition_count if self.table else 0):
            holders = self._holders(partition)
            if len(set(holders)) != len(holders):
                raise Conflict(f"partition {partition} has two replicas on one device")
            for device_id in holders:
                self.device(device_id)

    def ring(self, hasher: NameHasher) -> Ring:
        """What the nodes get.  Conflict before the first rebalance."""
        if not self.table:
            raise Conflict("nothing is placed yet", hint="rebalance first")
        return Ring(self.version, self.part_power, tuple(self.devices), tuple(array("H", row) for row in self.table), hasher)


def _weight(weight: float) -> float:
    if not (math.isfinite(weight) and weight >= 0):
        raise BadInput(f"a weight is a number from 0 on, not {weight}")
    return float(weight)
