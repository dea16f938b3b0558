"""Builder: the state that outlives a rebalance, and the operations of swift-ring-builder(1).

Keeps devices, weights, the table, and when each partition last moved, and the rules around them; ``quota.py`` decides how much each
device should hold, ``layout.py`` and ``moves.py`` which replica goes where.  Never touches a file (``builderfile.py``).  Pure and
deterministic: the same operations with the same seeds give the same table.

Invariants: no partition has two replicas on one device; a rebalance moves at most one replica of a partition; a replica
is not moved within ``min_part_hours`` of the last move in its partition, unless its device was removed.
"""

from __future__ import annotations

import math
from array import array
from dataclasses import dataclass, field, fields, replace

import numpy as np
from numpy.typing import NDArray

from ring.builder.certificate import Certificate, certify
from ring.builder.layout import lay_out
from ring.builder.measure import Table, counts_of, crowding
from ring.builder.moves import Waits
from ring.builder.quota import Targets, required_overload, shares, targets
from ring.builder.rebalance import rebalanced, resized
from ring.device import Device
from ring.errors import BadInput, Conflict, NotFound
from ring.names import NameHasher
from ring.placement import NO_DEVICE, PART_POWER_MAX, Ring

HOUR_S = 3600
REPLICAS_MAX = 100
BALANCE_MAX = 999.99  # percent: of a device that should hold nothing and does


@dataclass(frozen=True, slots=True)
class Report:
    """What one rebalance did, and what it could not do."""

    moves: int  # replicas that changed device; the first placement counts all
    lower_bound: int  # of the moves that the whole change takes, this pass and those to come: sum of max(0, held - quota)
    waits: Waits
    balance: float  # percent by which the worst device is off its share
    dispersion: float  # percent of replicas that stand where their partition is crowded
    version: int


@dataclass(slots=True, eq=False)
class Builder:
    """``devices`` by id, None where one is gone; ``removed`` are on their way out, and gone when they hold nothing."""

    part_power: int
    replicas: float
    min_part_hours: int
    version: int = 0
    id: str = ""  # 32 hex digits, given by whoever creates the builder file; stays as long as the ring does
    overload: float = 0.0  # fraction by which a device may hold more than its share, where that spreads replicas better
    next_part_power: int | None = None
    devices: list[Device | None] = field(default_factory=list)
    removed: set[int] = field(default_factory=set)
    table: Table = ()
    last_moves: int = 0  # of the last rebalance that moved anything, and the least that could have done
    last_lower_bound: int = 0
    moved_at: NDArray[np.uint32] = field(default_factory=lambda: np.zeros(0, np.uint32))  # by partition: wall seconds, 0 never

    def __post_init__(self) -> None:
        if not len(self.moved_at):
            self.moved_at = np.zeros(1 << self.part_power, np.uint32)

    @classmethod
    def create(cls, part_power: int, replicas: float, min_part_hours: int, *, builder_id: str = "") -> Builder:
        if not 0 <= part_power <= PART_POWER_MAX:
            raise BadInput(f"the part power is 0 to {PART_POWER_MAX}, not {part_power}")
        return cls(part_power, _replicas(replicas), _hours(min_part_hours), 1, builder_id)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Builder):
            return NotImplemented
        plain = [f.name for f in fields(self) if f.name not in ("table", "moved_at")]
        return (
            all(getattr(self, name) == getattr(other, name) for name in plain)
            and len(self.table) == len(other.table)
            and all(np.array_equal(mine, theirs) for mine, theirs in zip(self.table, other.table, strict=True))
            and np.array_equal(self.moved_at, other.moved_at)
        )

    def copy(self) -> Builder:
        """What is done to it leaves this one as it is: for a dry run."""
        return replace(
            self,
            devices=list(self.devices),
            removed=set(self.removed),
            table=tuple(row.copy() for row in self.table),
            moved_at=self.moved_at.copy(),
        )

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

    # ---- devices

    def add_device(
        self,
        *,
        region: int,
        zone: int,
        ip: str,
        port: int,
        name: str,
        weight: float,
        meta: str = "",
        replication_ip: str = "",
        replication_port: int = -1,
        device_id: int | None = None,
    ) -> Device:
        """Conflict when a device of this name is there already.  It holds nothing before the next rebalance."""
        new_id = len(self.devices) if device_id is None else device_id
        if not 0 <= new_id < NO_DEVICE:
            raise BadInput(f"device ids are 0 to {NO_DEVICE - 1}")
        if new_id < len(self.devices) and self.devices[new_id] is not None:
            raise Conflict(f"device id {new_id} is taken")
        device = Device(new_id, region, zone, ip, port, name, _weight(weight), meta, replication_ip, replication_port)
        self._check(device)
        self.devices.extend([None] * (new_id + 1 - len(self.devices)))
        self.devices[new_id] = device
        self.version += 1
        return device

    def _check(self, device: Device) -> None:
        """BadInput for what cannot be a device, Conflict when another has its address and name."""
        _check_alone(device)
        for other in self.devices:  # no tuples, no list: adding n devices comes here n times for up to n others
            if other is None or other.name != device.name or other.ip != device.ip or other.port != device.port:
                continue
            if other.id != device.id:
                raise Conflict(f"{other} is in the ring already")

    def device(self, device_id: int) -> Device:
        device = self.devices[device_id] if 0 <= device_id < len(self.devices) else None
        if device is None:
            raise NotFound(f"no device d{device_id}")
        return device

    def set_weight(self, device_id: int, weight: float) -> bool:
        """Weight 0 drains: its replicas leave as min_part_hours allow.  False when it has this weight already."""
        if device_id in self.removed:
            raise Conflict(f"{self.device(device_id)} is being removed")
        return self._change(device_id, replace(self.device(device_id), weight=_weight(weight)))

    def set_region(self, device_id: int, region: int) -> bool:
        """Its replicas go where they belong then at the next rebalances."""
        return self._change(device_id, replace(self.device(device_id), region=region))

    def set_zone(self, device_id: int, zone: int) -> bool:
        return self._change(device_id, replace(self.device(device_id), zone=zone))

    def set_info(
        self,
        device_id: int,
        *,
        ip: str | None = None,
        port: int | None = None,
        replication_ip: str | None = None,
        replication_port: int | None = None,
        name: str | None = None,
        meta: str | None = None,
    ) -> bool:
        """Changes what is given.  A replication address that was not told apart from the address follows it."""
        old = self.device(device_id)
        ip, port = ip or old.ip, old.port if port is None else port
        if not replication_ip:
            replication_ip = ip if old.replication_ip == old.ip else old.replication_ip
        if replication_port is None:
            replication_port = port if old.replication_port == old.port else old.replication_port
        changed = replace(
            old,
            ip=ip,
            port=port,
            replication_ip=replication_ip,
            replication_port=replication_port,
            name=old.name if name is None else name,
            meta=old.meta if meta is None else meta,
        )
        return self._change(device_id, changed)

    def _change(self, device_id: int, device: Device) -> bool:
        if device == self.devices[device_id]:
            return False
        self._check(device)
        self.devices[device_id] = device
        self.version += 1
        return True

    def remove(self, device_id: int) -> None:
        """Its replicas leave at the next rebalances, whatever min_part_hours say; then it is gone and its id is not used again.
        One that holds nothing is gone with the next rebalance, which makes a ring without it."""
        device = self.device(device_id)
        self.devices[device_id] = replace(device, weight=0.0)
        self.removed.add(device_id)
        self.version += 1

    # ---- the ring as a whole

    def set_min_part_hours(self, hours: int) -> bool:
        if _hours(hours) == self.min_part_hours:
            return False
        self.min_part_hours = hours
        self.version += 1
        return True

    def pretend_min_part_hours_passed(self) -> None:
        """Every partition may move at the next rebalance.  For when the nodes are known to have followed the last one."""
        self.moved_at[:] = 0
        self.version += 1

    def set_replicas(self, replicas: float) -> bool:
        """Takes effect at the next rebalance."""
        if _replicas(replicas) == self.replicas:
            return False
        self.replicas = float(replicas)
        self.version += 1
        return True

    def set_overload(self, overload: float) -> bool:
        """0.1: a device may hold up to 10 % more than its share.  Takes effect at the next rebalance."""
        if _overload(overload) == self.overload:
            return False
        self.overload = float(overload)
        self.version += 1
        return True

    # ---- partition power

    def prepare_increase_partition_power(self) -> None:
        """Announces the next power.  The steps are Swift's; here nothing on the disks waits for them."""
        if self.next_part_power is not None:
            raise Conflict(f"an increase to partition power {self.next_part_power} is under way", hint="finish or cancel it first")
        if self.part_power >= PART_POWER_MAX:
            raise BadInput(f"the part power is at most {PART_POWER_MAX}")
        self.next_part_power = self.part_power + 1
        self.version += 1

    def increase_partition_power(self) -> None:
        """Every partition p becomes 2p and 2p + 1, on the same devices: no replica moves."""
        if self.next_part_power is None:
            raise Conflict("no increase is prepared", hint="prepare_increase_partition_power first")
        if self.next_part_power == self.part_power:
            raise Conflict("the partition power is increased already", hint="finish_increase_partition_power is next")
        self.part_power = self.next_part_power
        self.table = tuple(np.repeat(row, 2) for row in self.table)
        self.moved_at = np.repeat(self.moved_at, 2)
        self.version += 1

    def cancel_increase_partition_power(self) -> None:
        if self.next_part_power is None:
            raise Conflict("no increase is prepared")
        if self.next_part_power == self.part_power:
            raise Conflict("the partition power is increased already, which cannot be taken back", hint="finish it")
        self.next_part_power = None
        self.version += 1

    def finish_increase_partition_power(self) -> None:
        if self.next_part_power is None:
            raise Conflict("no increase is prepared")
        if self.next_part_power != self.part_power:
            raise Conflict("the partition power is not increased yet", hint="increase_partition_power first")
        self.next_part_power = None
        self.version += 1

    # ---- rebalance

    def rebalance(self, seed: int, now: float) -> Report:
        """One pass at wall time ``now`` (seconds).  BadInput, and no change, when devices with weight are fewer than replicas;
        Conflict while the partition power is being increased."""
        if self.next_part_power is not None:
            raise Conflict("the partition power is being increased", hint="finish or cancel that first")
        resized_rows = [len(row) for row in self.table] != self.rows
        if not self.table:
            goal = self.targets()
            self.table = lay_out(self.present, goal.quotas, self.rows, seed)
            self.moved_at[:] = max(1, int(now))
            moves, lower_bound, waits = sum(self.rows), sum(self.rows), Waits()
        else:
            table = resized(self.table, self.rows, self.targets().quotas, seed) if resized_rows else self.table
            goal = targets(self.present, self.rows, self.overload, self._held(table))
            unlocks_at = np.where(self.moved_at > 0, self.moved_at + self.min_part_hours * float(HOUR_S), 0.0)
            outcome = rebalanced(table, self.present, goal, self.removed, unlocks_at, now, seed)
            moves, lower_bound, waits = outcome.moves, outcome.lower_bound, outcome.waits
            self.table = outcome.table
            self.moved_at[outcome.moved] = max(1, int(now))
        if moves:
            self.last_moves, self.last_lower_bound = moves, lower_bound
        if self._drop_empty() or moves or resized_rows:  # replicas that are only taken away are no moves, but another ring
            self.version += 1
        return Report(moves, lower_bound, waits, self.balance(), self.dispersion(), self.version)

    def _held(self, table: Table) -> dict[int, int]:
        held = counts_of(table, len(self.devices))
        return {device.id: int(held[device.id]) for device in self.present}

    def _drop_empty(self) -> bool:
        held = counts_of(self.table, len(self.devices))
        gone = {device_id for device_id in self.removed if not held[device_id]}
        for device_id in gone:
            self.devices[device_id] = None
        self.removed -= gone
        return bool(gone)

    # ---- reading

    def check_values(self) -> None:
        """BadInput or Conflict for values that no operation would have let in: of a file that somebody made."""
        _replicas(self.replicas)
        _hours(self.min_part_hours)
        _overload(self.overload)
        if self.version < 0 or self.next_part_power not in (None, self.part_power, self.part_power + 1):
            raise BadInput(f"version {self.version} with next partition power {self.next_part_power} cannot be")
        seen = set()
        for device in self.present:
            _check_alone(device)
            _weight(device.weight)
            seen.add((device.ip, device.port, device.name))
        if len(seen) != len(self.present):
            raise Conflict("two devices have one address and name")

    def targets(self) -> Targets:
        """What every tier should hold.  BadInput when the devices with weight are fewer than the replicas of a partition."""
        return targets(self.present, self.rows, self.overload)

    def required_overload(self) -> float:
        """The least overload with which every partition is spread as evenly as its tiers allow."""
        return required_overload(self.present, self.rows)

    def counts(self) -> dict[int, int]:
        """Replicas held, by device id."""
        return self._held(self.table)

    def device_balance(self) -> dict[int, float]:
        """Percent that each device holds more (+) or less (-) than its share; 999.99 for one that should hold nothing but does."""
        by_device = shares(self.present, sum(self.rows), self.partition_count) if self.present and self.table else {}
        result = {}
        for device_id, count in self.counts().items():
            share = float(by_device.get(device_id, 0))
            result[device_id] = 100.0 * (count - share) / share if share else (BALANCE_MAX if count else 0.0)
        return result

    def balance(self) -> float:
        return max((abs(value) for value in self.device_balance().values()), default=0.0)

    def dispersion(self) -> float:
        """Percent, as Swift counts it: see measure.Crowding."""
        return crowding(self.table, self.present).percent if self.table else 0.0

    def holders(self, partition: int) -> list[int]:
        """The device ids of a partition's replicas."""
        return [int(row[partition]) for row in self.table if partition < len(row)]

    def certificate(self) -> Certificate:
        """Conflict before the first rebalance; BadInput when the devices with weight are fewer than the replicas."""
        if not self.table:
            raise Conflict("nothing is placed yet", hint="rebalance first")
        goal = targets(self.present, self.rows, self.overload, self.counts())
        last = (self.last_moves, self.last_lower_bound)
        return certify(self.table, self.present, goal, last, self.balance(), self.partition_count)

    def hours_left(self, now: float) -> float:
        """Until every partition may move again."""
        last = int(self.moved_at.max())
        return max(0.0, self.min_part_hours - (now - last) / HOUR_S) if last else 0.0

    def validate(self) -> None:
        """Conflict when an invariant of the table does not hold."""
        if not self.table:
            return
        if any(len(row) != self.partition_count for row in self.table[:-1]) or len(self.table[-1]) > self.partition_count:
            raise Conflict("the table's rows do not have one entry for each partition")
        for index, row in enumerate(self.table):
            for device_id in np.unique(row):
                self.device(int(device_id))
            for other in self.table[:index]:
                twice = np.flatnonzero(row == other[: len(row)])
                if len(twice):
                    raise Conflict(f"partition {twice[0]} has two replicas on one device")

    def ring(self, hasher: NameHasher) -> Ring:
        """What the nodes get.  Conflict before the first rebalance."""
        if not self.table:
            raise Conflict("nothing is placed yet", hint="rebalance first")
        rows = tuple(array("H", row.tobytes()) for row in self.table)
        return Ring(self.version, self.part_power, tuple(self.devices), rows, hasher, self.next_part_power)


def _check_alone(device: Device) -> None:
    ports = (device.port, device.replication_port)
    if (
        not (device.ip and device.name)
        or "/" in device.name
        or min(device.region, device.zone, *ports) < 0
        or max(ports) > 65535
        or any(c.isspace() for c in device.ip + device.name + device.replication_ip)
    ):
        raise BadInput(f"not a device: r{device.region}z{device.zone}-{device.address}/{device.name}")


def _overload(overload: float) -> float:
    if not (math.isfinite(overload) and overload >= 0):
        raise BadInput(f"an overload is a number from 0 on, not {overload}")
    return float(overload)


def _weight(weight: float) -> float:
    if not (math.isfinite(weight) and weight >= 0):
        raise BadInput(f"a weight is a number from 0 on, not {weight}")
    return float(weight)


def _replicas(replicas: float) -> float:
    if not (math.isfinite(replicas) and 1 <= replicas <= REPLICAS_MAX):
        raise BadInput(f"replicas are 1 to {REPLICAS_MAX}, not {replicas}")
    return float(replicas)


def _hours(hours: int) -> int:
    if hours < 0:
        raise BadInput("min part hours are not negative")
    return hours
