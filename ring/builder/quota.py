"""How many replicas each device should hold, and how many of one partition each tier may hold.

Decides targets only; ``layout.py`` and ``moves.py`` bring a table to them, ``builder.py`` keeps both.  Never touches a
table.  Pure, exact (fractions), so that every machine computes the same numbers.

By weight alone, a device's *share* is what it would hold if replicas could be cut: in proportion to its weight, but never more than
one replica of every partition.  By dispersion alone, every tier (region, zone, server, device) spreads the replicas of a
partition over its parts as evenly as the number of their devices allows, and weight decides within that.  ``overload`` goes from
the first to the second as far as no device holds more than (1 + overload) times its share: the sense of the word in
OpenStack Swift (overview_ring: overload).

A *quota* is what comes of that, rounded to a whole number tier by tier: each tier, down to the device, gets its value rounded
down or up.  Which ones are rounded up is decided so that a table that exists needs the fewest moves, then by the largest
remainder.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from ring.device import Device
from ring.errors import BadInput

Tier = tuple[int | str, ...]  # (), (region,), (region, zone), (region, zone, ip), (region, zone, ip, device id)


def tiers_of(device: Device) -> tuple[Tier, Tier, Tier, Tier]:
    """The region, zone, server and device that a device stands in."""
    r, z, ip = device.region, device.zone, device.ip
    return (r,), (r, z), (r, z, ip), (r, z, ip, device.id)


@dataclass(frozen=True, slots=True)
class Targets:
    shares: Mapping[int, Fraction]  # by device id, what weight alone says; devices without weight have none
    wanted: Mapping[int, Fraction]  # by device id, with overload
    quotas: Mapping[int, int]  # by device id, whole replicas
    limits: Mapping[Tier, int]  # the most replicas of one partition in a tier: ceil(its quota / partitions)


@dataclass(slots=True)
class Node:
    """A tier with weight, and what is below it."""

    tier: Tier
    children: list[Node] = field(default_factory=list)
    device_count: int = 0
    share: Fraction = Fraction(0)
    wanted: Fraction = Fraction(0)
    held: int = 0
    quota: int = 0
    gain: int = 0  # moves saved by one more than the least quota that ``wanted`` allows


def targets(
    devices: Sequence[Device], rows: Sequence[int], overload: float = 0.0, held: Mapping[int, int] | None = None
) -> Targets:
    """``rows`` are the lengths of the table's rows, ``held`` what devices hold now.  BadInput when the devices with weight are
    fewer than the replicas of a partition."""
    partitions, slots = rows[0], sum(rows)
    by_device = shares(devices, slots, partitions)
    root = _tree([d for d in devices if d.id in by_device], by_device, held or {})
    needed = _disperse(root, Fraction(slots), partitions)
    part = min(Fraction(1), Fraction(overload) / needed) if needed > 0 else Fraction(1)
    _interpolate(root, part)
    _gains(root)
    root.quota = slots
    _round(root)
    nodes = list(_walk(root))
    leaves = [node for node in nodes if not node.children]
    return Targets(
        shares=by_device,
        wanted={_device_id(node): node.wanted for node in leaves},
        quotas={_device_id(node): node.quota for node in leaves},
        limits={node.tier: -(-node.quota // partitions) for node in nodes},
    )


def required_overload(devices: Sequence[Device], rows: Sequence[int]) -> float:
    """The least overload with which every partition is spread as evenly as can be.  BadInput as ``targets``."""
    by_device = shares(devices, sum(rows), rows[0])
    root = _tree([d for d in devices if d.id in by_device], by_device, {})
    return float(_disperse(root, Fraction(sum(rows)), rows[0]))


def shares(devices: Sequence[Device], slots: int, partitions: int) -> dict[int, Fraction]:
    """``slots`` replicas divided by weight, at most ``partitions`` a device: what a full device leaves goes to the others."""
    weighty = [d for d in devices if d.weight > 0]
    if len(weighty) * partitions < slots:
        needed = -(-slots // partitions)
        raise BadInput(
            f"{needed} replicas need at least {needed} devices with weight, there are {len(weighty)}",
            hint="add devices, or ask for fewer replicas",
        )
    values = pour(Fraction(slots), [(Fraction(d.weight), 0, partitions) for d in weighty])
    return {device.id: value for device, value in zip(weighty, values, strict=True)}


def pour(total: Fraction, vessels: Sequence[tuple[Fraction, int, int]]) -> list[Fraction]:
    """``total`` divided over vessels (weight > 0, least, most) in proportion to weight, as far as their bounds allow.

    The sum of the bounds must admit it.  As the sizes of flexible lengths are found in CSS (css-flexbox-1, 9.7): whoever breaks a
    bound on the side where more is broken is set to that bound, and the others share what is left.
    """
    result: dict[int, Fraction] = {}
    left = total
    while len(result) < len(vessels):
        free = [i for i in range(len(vessels)) if i not in result]
        level = left / sum((vessels[i][0] for i in free), Fraction(0))
        over, under = Fraction(0), Fraction(0)
        for i in free:
            weight, least, most = vessels[i]
            over += max(Fraction(0), weight * level - most)
            under += max(Fraction(0), least - weight * level)
        for i in free:
            weight, least, most = vessels[i]
            value = weight * level
            if over == under == 0:
                result[i] = value
            elif value >= most and over >= under:
                result[i] = Fraction(most)
            elif value <= least and under >= over:
                result[i] = Fraction(least)
        left = total - sum(result.values(), Fraction(0))
    return [result[i] for i in range(len(vessels))]


def spread(replicas: int, device_counts: Sequence[int], *, up: bool) -> list[int]:
    """The most (``up``) or the least replicas of one partition in each of several tiers when ``replicas`` are spread over them as
    evenly as the number of their devices allows."""
    level = 0
    while sum(min(count, level + 1) for count in device_counts) <= replicas and level < max(device_counts, default=0):
        level += 1
    if up and sum(min(count, level) for count in device_counts) < replicas:
        level += 1
    return [min(count, level) for count in device_counts]


# ---- the tree


def _tree(devices: Sequence[Device], by_device: Mapping[int, Fraction], held: Mapping[int, int]) -> Node:
    root = Node(())
    nodes: dict[Tier, Node] = {(): root}
    for device in sorted(devices, key=lambda d: (d.region, d.zone, d.ip, d.id)):
        parent = root
        for tier in ((), *tiers_of(device)):
            node = nodes.get(tier)
            if node is None:
                node = nodes[tier] = Node(tier)
                parent.children.append(node)
            node.device_count += 1
            node.share += by_device[device.id]
            node.held += held.get(device.id, 0)
            parent = node
    return root


def _walk(node: Node) -> Iterable[Node]:
    yield node
    for child in node.children:
        yield from _walk(child)


def _device_id(node: Node) -> int:
    device_id = node.tier[3]
    assert isinstance(device_id, int)
    return device_id


def _disperse(root: Node, slots: Fraction, partitions: int) -> Fraction:
    """Sets every ``wanted`` to what dispersion alone asks for; the overload that this takes."""
    root.wanted = slots
    needed = Fraction(0)
    for node in _walk(root):
        if not node.children:
            needed = max(needed, (node.wanted - node.share) / node.share)
            continue
        counts = [child.device_count for child in node.children]
        least = spread(int(node.wanted // partitions), counts, up=False)
        most = spread(int(-(-node.wanted // partitions)), counts, up=True)
        vessels = [(c.share, low * partitions, high * partitions) for c, low, high in zip(node.children, least, most, strict=True)]
        for child, value in zip(node.children, pour(node.wanted, vessels), strict=True):
            child.wanted = value
    return needed


def _interpolate(root: Node, part: Fraction) -> None:
    for node in _walk(root):
        node.wanted = node.share + (node.wanted - node.share) * part


# ---- whole numbers


def _up(node: Node) -> int:
    """1 when the node's quota may be one more than the least."""
    return int(node.wanted.denominator != 1)


def _gains(node: Node) -> None:
    """Bottom up: what each next replica of quota above the sum of the children's least saves in moves.

    A child's quota is its value rounded down or up.  Rounding a device up saves a move when it holds more than its least; a
    tier that is rounded up passes the one more on to the child that saves most."""
    if not node.children:
        node.gain = int(node.held > node.wanted // 1)
        return
    for child in node.children:
        _gains(child)
    spare = int(node.wanted // 1) - sum(int(child.wanted // 1) for child in node.children)
    gains = [child.gain for child in _in_order(node)]
    node.gain = gains[spare] if spare < len(gains) else 0


def _in_order(node: Node) -> list[Node]:
    """The children that may be rounded up, first those that should be."""
    open_children = [child for child in node.children if _up(child)]
    return sorted(open_children, key=lambda c: (-c.gain, -(c.wanted - c.wanted // 1), str(c.tier)))


def _round(node: Node) -> None:
    if not node.children:
        return
    for child in node.children:
        child.quota = int(child.wanted // 1)
    for child in _in_order(node)[: node.quota - sum(child.quota for child in node.children)]:
        child.quota += 1
    for child in node.children:
        _round(child)
