"""Verbs for the ring as a whole: create, set_replicas, set_overload, the hours, and the partition power.

Each parses, calls the Builder, saves, and says what is so now.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import click

from ring.builder.builder import Builder
from ring.errors import BadInput
from tools.cli.ring.group import CHANGED, UNCHANGED, WARNING, RingFile, verb

HOURS = click.IntRange(max=1_000_000)  # the Builder refuses what is negative
NEXT_REBALANCE = "The change will take effect after the next rebalance."
NEXT_WRITE_RING = "The change will take effect after the next write_ring."


@verb()
@click.argument("part_power", type=int)
@click.argument("replicas", type=float)
@click.argument("min_part_hours", type=HOURS)
@click.pass_obj
def create(file: RingFile, part_power: int, replicas: float, min_part_hours: int) -> int:
    """A new builder file: 2^PART_POWER partitions, REPLICAS of each.

    REPLICAS may be a fraction: 2.5 gives half of the partitions three.  MIN_PART_HOURS have to pass before a partition may move
    again; longer than the nodes need to follow a new ring.  A good PART_POWER gives the largest device a few hundred partitions in
    the end; it can be increased.

    \b
      ringfort ring object.builder create 16 3 1
    """
    file.create(Builder.create(part_power, replicas, min_part_hours, builder_id=file.world.entropy.uuid().hex))
    return CHANGED


@verb("set_min_part_hours")
@click.argument("hours", type=HOURS)
@click.pass_obj
def set_min_part_hours(file: RingFile, hours: int) -> int:
    """HOURS that have to pass before a partition may move again."""
    return _set(
        file,
        lambda builder: builder.set_min_part_hours(hours),
        lambda builder: [
            f"The minimum number of hours before a partition can be reassigned is now set to {builder.min_part_hours}"
        ],
    )


@verb("pretend_min_part_hours_passed")
@click.pass_obj
def pretend_min_part_hours_passed(file: RingFile) -> int:
    """Let every partition move at the next rebalance.

    Only when the nodes are known to have followed the last ring: a partition that moves again before its replicas arrived may be
    out of reach for a while.
    """
    builder = file.load()
    builder.pretend_min_part_hours_passed()
    file.save(builder)
    click.echo("Every partition may move at the next rebalance.")
    return CHANGED


@verb("set_replicas")
@click.argument("replicas", type=float)
@click.pass_obj
def set_replicas(file: RingFile, replicas: float) -> int:
    """Keep REPLICAS of every partition; 2.5: three of half of them.

    Change it in small steps: every step makes new replicas, or takes some away.
    """
    return _set(
        file,
        lambda builder: builder.set_replicas(replicas),
        lambda builder: [f"The replica count is now {builder.replicas:.6f}.", NEXT_REBALANCE],
    )


@verb("set_overload")
@click.argument("overload")
@click.pass_obj
def set_overload(file: RingFile, overload: str) -> int:
    """Let devices hold more than their share where that keeps replicas apart.

    \b
      set_overload 0.1
      set_overload 10%

    The verb dispersion tells how much would be needed.
    """
    value = _overload(overload)
    status = _set(
        file,
        lambda builder: builder.set_overload(value),
        lambda builder: [f"The overload factor is now {100 * builder.overload:.2f}% ({builder.overload:.6f})", NEXT_REBALANCE],
    )
    if value > 1 and not overload.endswith("%"):
        click.echo(f"WARNING: {overload} is {100 * value:.0f} %; {overload}% would be {value / 100:.6f}.", err=True)
        return WARNING
    return status


def _overload(text: str) -> float:
    try:
        value = float(text.removesuffix("%"))
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= 0):
        raise BadInput(f"not an overload: {text}", hint="0.1, or 10%")
    return value * 0.01 if text.endswith("%") else value


def _set(file: RingFile, change: Callable[[Builder], bool], lines: Callable[[Builder], list[str]]) -> int:
    builder = file.load()
    if not change(builder):
        click.echo("It is so already.")
        return UNCHANGED
    file.save(builder)
    click.echo("\n".join(lines(builder)))
    return CHANGED


# ---- partition power


@verb("prepare_increase_partition_power")
@click.pass_obj
def prepare_increase_partition_power(file: RingFile) -> int:
    """Step 1 of doubling the partitions: announce it.

    The steps are Swift's: prepare, increase, finish, each with a write_ring and a publish behind it.  Here no byte moves on any
    device: data is kept in the order of its hash, so that partitions of twice the number are the same data cut finer.
    """
    builder = _step(file, Builder.prepare_increase_partition_power)
    click.echo(f"The next partition power is now {builder.next_part_power}.\n{NEXT_WRITE_RING}\nNext: increase_partition_power")
    return CHANGED


@verb("increase_partition_power")
@click.pass_obj
def increase_partition_power(file: RingFile) -> int:
    """Step 2: every partition becomes two, on the same devices."""
    builder = _step(file, Builder.increase_partition_power)
    click.echo(f"The partition power is now {builder.part_power}.\n{NEXT_WRITE_RING}\nNext: finish_increase_partition_power")
    return CHANGED


@verb("cancel_increase_partition_power")
@click.pass_obj
def cancel_increase_partition_power(file: RingFile) -> int:
    """Take step 1 back, while step 2 is not done."""
    builder = _step(file, Builder.cancel_increase_partition_power)
    click.echo(f"The partition power stays {builder.part_power}.\n{NEXT_WRITE_RING}")
    return CHANGED


@verb("finish_increase_partition_power")
@click.pass_obj
def finish_increase_partition_power(file: RingFile) -> int:
    """Step 3: it is done; devices may be added and rebalances are possible again."""
    _step(file, Builder.finish_increase_partition_power)
    click.echo(NEXT_WRITE_RING)
    return CHANGED


def _step(file: RingFile, step: Callable[[Builder], None]) -> Builder:
    builder = file.load()
    step(builder)
    file.save(builder)
    return builder
