"""How many replicas each device should hold, and how many of one partition each tier may hold.

Decides targets only; ``moves.py`` brings a table to them, ``builder.py`` keeps both.  Never touches a table.  Pure, exact
(fractions), so that every machine computes the same numbers.

A share is what a device would hold if replicas could be cut: in proportion to its weight, but never more than one replica of every
partition.  A quota is the share rounded to a whole number, by largest remainder down the tiers (region, zone, server, device), so
that every tier is within one replica of its share.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from ring.device import Device
from ring.errors import BadInput

Tier = tuple[int | str, ...]  # (), (region,), (region, zone), (region, zone, ip), (region, zone, ip, device id)


def tiers_of(device: Device) -> tuple[Tier, Tier, Tier]:
    """The region, zone and server that a device stands in."""
    return ((device.region,), (device.region, device.zone), (device.region, device.zone, device.ip))


@dataclass(frozen=True, slots=True)
class Targets:
    shares: Mapping[int, Fraction]  # by device id; devices without weight have none
    quotas: Mapping[int, int]  # by device id, whole replicas
    limits: Mapping[Tier, int]  # the most replicas of one partition in a region, zone or server when spread as evenly as may be

    def excess(self, devices: Iterable[Device]) -> int:
        """By how many replicas a partition held by these devices is crowded, summed over the tiers."""
        counts: dict[Tier, int] = {}
        for device in devices:
            for tier in tiers_of(device):
                counts[tier] = counts.get(tier, 0) + 1
        return sum(count - self.limits.get(tier, 0) for tier, count in counts.items() if count > self.limits.get(tier, 0))


def shares(devices: Sequence[Device], slots: int, partitions: int) -> dict[int, Fraction]:
    """``slots`` replicas divided by weight, at most ``partitions`` a device: what a full device leaves goes to the others."""
    open_devices = [d for d in devices if d.weight > 0]
    if len(open_devices) * partitions < slots:
        needed = -(-slots // partitions)
        raise BadInput(
            f"{needed} replicas need at least {needed} devices with weight, there are {len(open_devices)}",
            hint="add devices, or ask for fewer replicas",
        )
    result: dict[int, Fraction] = {}
    left = Fraction(slots)
    while open_devices:
        per_weight = left / sum((Fraction(d.weight) for d in open_devices), Fraction(0))
        full = [d for d in open_devices if Fraction(d.weight) * per_weight >= partitions]
        if not full:
            result.update({d.id: Fraction(d.weight) * per_weight for d in open_devices})
            break
        for device in full:
            result[device.id] = Fraction(partitions)
            left -= partitions
        open_devices = [d for d in open_devices if d.id not in result]
    return result


def targets(devices: Sequence[Device], slots: int, partitions: int) -> Targets:
    """BadInput when the devices with weight are fewer than the replicas of a partition."""
    by_device = shares(devices, slots, partitions)
    children: dict[Tier, dict[Tier, Fraction]] = {}
    for device in sorted(devices, key=lambda d: d.id):
        if device.id not in by_device:
            continue
        path: list[Tier] = [(), *tiers_of(device), (*tiers_of(device)[-1], device.id)]
        for parent, child in itertools.pairwise(path):
            siblings = children.setdefault(parent, {})
            siblings[child] = siblings.get(child, Fraction(0)) + by_device[device.id]
    quotas: dict[Tier, int] = {(): slots}
    for parent in sorted(children, key=len):
        quotas.update(_largest_remainder(children[parent], quotas[parent]))
    return Targets(
        shares=by_device,
        quotas={d.id: quotas[(*tiers_of(d)[-1], d.id)] for d in devices if d.id in by_device},
        limits={tier: -(-quota // partitions) for tier, quota in quotas.items() if 0 < len(tier) < 4},
    )


def _largest_remainder(ideals: Mapping[Tier, Fraction], total: int) -> dict[Tier, int]:
    """Whole numbers that sum to ``total``, each its ideal rounded down or up; the largest remainders are rounded up."""
    result = {tier: int(ideal) for tier, ideal in ideals.items()}
    order = sorted(ideals, key=lambda tier: (-(ideals[tier] - int(ideals[tier])), tier))
    for tier in order[: total - sum(result.values())]:
        result[tier] += 1
    return result
