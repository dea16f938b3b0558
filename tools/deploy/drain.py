"""Drain: take devices out of use while they still work: weight 0 in every ring, and rings published until nothing is on them.

Each step looks at what is there (the builders that were published last, the rings in force) and does what is missing, so a drain
that was cut off anywhere goes on when it is asked for again.  A pass moves a partition only after min_part_hours, unless it shall
be now; and the next one begins only when the rings of the one before have settled.

Neighbours: publish (brings rings into force, and says how far they are), device_status, tools.cli.node (words).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ring.builder.builder import Builder
from ring.builder.builderfile import decode_builder
from ring.errors import Conflict, NotFound
from ring.world.interface import World
from tools.deploy.layout import CloudRecord, Layout
from tools.deploy.publish import current, publish


@dataclass(frozen=True, slots=True)
class Step:
    """What stands after a step.  ``left``: replicas on the devices by the newest rings; ``hours``: until more of them may move."""

    published: tuple[str, ...]  # rings
    left: int
    hours: float


async def newest_builder(world: World, layout: Layout, name: str) -> Builder:
    """The one that was published last; before any was, the one that the cloud was made with.  NotFound."""
    disk = world.open_disk(str(layout.rings))
    for path in (f"{layout.published.name}/{name}.builder", f"{name}.builder"):
        if await disk.info(path) is not None:
            return decode_builder(await disk.read_file(path))
    raise NotFound(
        f"there is no builder of ring {name} in {layout.rings}", hint="ringfort ring FILE set_weight, rebalance, publish"
    )


async def check_devices(world: World, layout: Layout, record: CloudRecord, numbers: Sequence[int]) -> None:
    """Conflict when too few devices would be left; NotFound when a device is in no ring."""
    known: set[int] = set()
    for name in record.rings:
        builder = await newest_builder(world, layout, name)
        present = {device.id for device in builder.present if device.id not in builder.removed}
        known |= present
        left = [device for device in builder.present if device.weight > 0 and device.id in present and device.id not in numbers]
        if set(numbers) & present and len(left) < math.ceil(builder.replicas):
            raise Conflict(
                f"that would leave {len(left)} devices for the {builder.replicas:g} copies of ring {name}",
                hint="add devices first: ringfort ring FILE add, rebalance, publish",
            )
    for number in numbers:
        if number not in known:
            raise NotFound(f"no ring has a device d{number}", hint="ringfort node status lists them")


async def step(world: World, layout: Layout, record: CloudRecord, numbers: Sequence[int], *, now: bool) -> Step:
    """Take every ring as far as it may go at this time.  Conflict, BadInput, NotFound as of ``publish``."""
    published: list[str] = []
    left, hours = 0, 0.0
    for name in record.rings:
        builder = await newest_builder(world, layout, name)
        here = {device.id for device in builder.present} & set(numbers)
        changed = False
        for number in sorted(here):
            changed |= builder.set_weight(number, 0.0)
        on_them = _replicas(builder, here)
        if on_them or changed:
            if now:
                builder.pretend_min_part_hours_passed()
            builder.rebalance(builder.version, world.clock.now())
        in_force = await current(world, layout, name)
        if builder.version > in_force.version and await publish(world, layout, name, builder) is not None:
            published.append(name)
        left += _replicas(builder, here)
        if _replicas(builder, here):
            hours = max(hours, builder.hours_left(world.clock.now()))
    return Step(tuple(published), left, hours)


def _replicas(builder: Builder, numbers: set[int]) -> int:
    counts = builder.counts()
    return sum(counts.get(number, 0) for number in numbers)
