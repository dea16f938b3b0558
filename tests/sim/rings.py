"""Ring changes: an operator who publishes new rings while clients work.

Every change is one a builder could make: a device is added, removed, weighed anew, or the partition power grows.  Some move more
than one replica of a partition, or come before the last one has settled; the operator does not look.
"""

from __future__ import annotations

import random
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import trio

from ring.device import Device
from ring.errors import Unavailable
from ring.names import NameHasher
from ring.placement import Ring
from ring.ringfile import encode
from ring.service.register import Register

if TYPE_CHECKING:
    from tests.sim.cluster import Cluster, Member
    from tests.sim.script import Change

NAMES = ("account", "container", "object")
HASHER = NameHasher(b"prefix", b"suffix")
PART_POWER = 2
PART_POWER_MAX = 4
REPLICAS = 3
REPLICAS_LEAST = 2
REPLICAS_MAX = 5


def device_of(number: int) -> Device:
    return Device(number, 1, number, f"n{number}", 6200, "disk", 100.0)


def first_ring(count: int) -> Ring:
    table = tuple(array("H", [(p + replica) % count for p in range(1 << PART_POWER)]) for replica in range(REPLICAS))
    return Ring(1, PART_POWER, tuple(device_of(number) for number in range(count)), table, HASHER)


@dataclass
class Plan:
    """A ring as the operator has it: who is in it, and the table."""

    version: int
    power: int
    inside: list[int]
    table: list[list[int]] = field(default_factory=list)  # by partition: the devices

    @classmethod
    def of(cls, ring: Ring) -> Plan:
        inside = [device.id for device in ring.devices if device is not None]
        return cls(ring.version, ring.part_power, inside, [[d.id for d in ring.primaries(p)] for p in range(ring.partition_count)])

    def ring(self) -> Ring:
        devices = tuple(device_of(n) if n in self.inside else None for n in range(max(self.inside) + 1))
        rows = tuple(array("H", [holders[replica] for holders in self.table]) for replica in range(self.replicas))
        return Ring(self.version, self.power, devices, rows, HASHER)

    @property
    def replicas(self) -> int:
        return len(self.table[0])

    def place(self, rng: random.Random, chance: float) -> None:
        """Bring replicas off devices that left, and some others anywhere."""
        for holders in self.table:
            for index, device in enumerate(holders):
                others = [n for n in self.inside if n not in holders]
                if others and (device not in self.inside or rng.random() < chance):
                    holders[index] = rng.choice(others)


class Operator:
    """``changes``: when to change something.  What it is follows from the number of the change."""

    def __init__(self, cluster: Cluster, changes: Sequence[Change], *, losing: bool) -> None:
        self._cluster = cluster
        self._losing = losing  # a device will be gone for good
        self._changes = changes
        self._rng = cluster.simulation.derive("operator")
        self.plans = {name: Plan.of(ring) for name, ring in cluster.firsts.items()}
        self._coded = [name for name in self.plans if name not in NAMES]
        self.lost: Member | None = None  # a device that is gone for good
        self.removed: list[int] = []  # the last ones that left
        self.published = 0

    async def run(self, begin: float) -> None:
        deeds = (
            self._add,
            self._add_again,
            self._remove,
            self._weigh,
            self._weigh,
            self._grow,
            self._more_replicas,
            self._fewer_replicas,
        )
        coded_deeds = deeds[: deeds.index(self._more_replicas)]  # as many replicas as there are fragments
        for change in self._changes:
            await trio.sleep_until(begin + change.at_s)
            self._rng = rng = self._cluster.simulation.derive(f"change/{change.number}")
            names = rng.choice((NAMES, ("object",), ("container",), ("object", "container")))
            for name in (*names, *self._coded):
                self._change(name, rng.choice(deeds if name in NAMES else coded_deeds))
                if rng.random() < 0.8:
                    await self._publish(name)

    async def finish(self) -> None:
        """At rest: what was wanted last is in force and settled everywhere."""
        register = Register(self._cluster.kv)
        for name, plan in self.plans.items():
            while plan.version > self._cluster.first.version:
                try:
                    edition = await register.newest()
                except Unavailable:  # its machine comes up
                    await trio.sleep(2)
                    continue
                if edition is not None and edition.rings[name].newest.version >= plan.version:
                    break
                await self._publish(name)
                await trio.sleep(2)

    def lose(self, member: Member) -> None:
        """Its device will not come back; the rings go without it."""
        self.lost = member
        member.lost = True
        for name in self.plans:
            self._change(name, self._go_without)

    def _go_without(self, plan: Plan) -> None:
        """The device that is lost; another one comes where too few would be left for the replicas."""
        assert self.lost is not None
        if self.lost.device.id in plan.inside:
            plan.inside.remove(self.lost.device.id)
            if len(plan.inside) < plan.replicas:
                self._add(plan)

    def _change(self, name: str, change: Callable[[Plan], None]) -> None:
        plan = self.plans[name]
        before = plan.power
        change(plan)
        if plan.power == before:
            plan.place(self._rng, self._rng.choice((0.0, 0.1, 0.5, 1.0, 1.0)))
        plan.version += 1

    def _add(self, plan: Plan) -> None:
        outside = self._outside(plan)
        if outside:
            plan.inside.append(self._rng.choice(outside))

    def _add_again(self, plan: Plan) -> None:
        """One that left not long ago, and may not have handed off what it holds."""
        outside = set(self._outside(plan))
        again = [device for device in self.removed if device in outside]
        if again:
            plan.inside.append(again[-1])

    def _outside(self, plan: Plan) -> list[int]:
        lost = self.lost.device.id if self.lost is not None else -1
        return [m.device.id for m in self._cluster.members if m.device.id not in (*plan.inside, lost)]

    def _remove(self, plan: Plan) -> None:
        if len(plan.inside) > plan.replicas + 1:
            device = self._rng.choice(plan.inside)
            plan.inside.remove(device)
            self.removed.append(device)

    def _weigh(self, plan: Plan) -> None:
        """``place`` moves what it moves."""

    def _grow(self, plan: Plan) -> None:
        if plan.power < PART_POWER_MAX:
            plan.power += 1
            plan.table = [list(holders) for holders in plan.table for _ in range(2)]

    def _more_replicas(self, plan: Plan) -> None:
        if plan.replicas < min(REPLICAS_MAX, len(plan.inside)):
            for holders in plan.table:
                holders.append(self._rng.choice([n for n in plan.inside if n not in holders]))

    def _fewer_replicas(self, plan: Plan) -> None:
        # Of two replicas none may be lost for good: nobody could know what they had.
        if plan.replicas > (REPLICAS_LEAST if not self._losing else REPLICAS):
            for holders in plan.table:
                holders.pop(self._rng.randrange(len(holders)))

    async def _publish(self, name: str) -> None:
        member = self._rng.choice(self._cluster.members)
        plan = self.plans[name]
        if await member.publish(name, encode(plan.ring())):
            self.published += 1
            self._cluster.simulation.trace(f"operator: version {plan.version} of ring {name} is published at {member.name}")
