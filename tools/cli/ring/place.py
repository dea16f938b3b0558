"""Verbs that place: rebalance, validate, write_ring, write_builder.

When a rebalance is worth a new ring is decided here, as swift-ring-builder(1) decides it; how it places is ``ring.builder``'s.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from dataclasses import asdict
from datetime import UTC, datetime, timedelta

import click
import numpy as np

from ring.builder.builder import BALANCE_MAX, HOUR_S, Builder, Report
from ring.errors import BadInput, Conflict, NotFound
from ring.placement import NO_DEVICE, Ring
from tools.cli.ring.file import RingFile
from tools.cli.ring.group import CHANGED, UNCHANGED, WARNING, json_option, verb
from tools.cli.ring.settings import HOURS
from tools.cli.ring.show import UP_TO_DATE, balances, ring_state, worst

WORTH_PERCENT = 1.0  # of balance or dispersion: what a ring for its own sake has to gain
BALANCE_WARNING_PERCENT = 5.0
LOST_MIN_PART_HOURS = 24  # of a builder whose own number is lost
_LONG_WORK = 1 << 18  # partitions: then a terminal is told that it may take a while


@verb()
@click.argument("seed_", metavar="[SEED]", required=False)
@click.option(
    "-s", "--seed", metavar="SEED", help="Where chance starts from, a number or a word; the builder's version unless given."
)
@click.option("-f", "--force", is_flag=True, help="Write the ring also when less than 1 % changed, or nothing.")
@click.option("-d", "--debug", is_flag=True, help="Also tell the fewest moves that the change takes, and what waits why.")
@json_option
@click.pass_obj
def rebalance(file: RingFile, seed_: str | None, seed: str | None, force: bool, debug: bool, as_json: bool) -> int:
    """Bring partitions to where they should be, and write the ring.

    One pass moves one replica of a partition at most, and none within min_part_hours of the last move in its partition, but for
    those on removed devices.  It says what is left to do, and from when on the next pass can do it.

    \b
      rebalance
      rebalance --seed 7
      rebalance --force

    Exit status 1: nothing to move, or less than 1 % to gain (nothing is written then); or written, but replicas stand crowded or
    devices are more than 5 % off.
    """
    builder = file.load()
    state, _ = ring_state(file, builder)
    was = (worst(balances(builder)), builder.dispersion())
    version, shape = builder.version, _shape(builder)
    if builder.partition_count >= _LONG_WORK and sys.stderr.isatty():
        click.echo(f"Placing {sum(builder.rows)} replicas ...", err=True)
    report = builder.rebalance(seed_number(seed or seed_, version), file.now())
    if report.version == version and not force:
        return _nothing(file, builder, report, state, as_json)
    if not (force or _shape(builder) != shape or state != UP_TO_DATE or _worth(was, report)):
        return _refused(report, as_json)
    builder.validate()
    file.save(builder, with_ring=True)
    notes = _notes(builder, report)
    if as_json:
        click.echo(json.dumps(_as_dict(report, written=True), indent=2))
    else:
        click.echo(
            f"Reassigned {report.moves} ({100 * report.moves / builder.partition_count:.2f}%) partitions. "
            f"Balance is now {report.balance:.2f}.  Dispersion is now {report.dispersion:.2f}"
        )
        if debug:
            click.echo(_debug(report))
        click.echo("".join(f"{line}\n" for line in notes + _waits(builder, report, file.now())), nl=False)
    return WARNING if notes else CHANGED


def seed_number(text: str | None, version: int) -> int:
    """A word becomes a number that is always the same."""
    if text is None:
        return version
    if re.fullmatch(r"-?\d{1,18}", text, re.ASCII):
        return abs(int(text))
    return int.from_bytes(hashlib.sha256(text.encode(errors="surrogateescape")).digest()[:8], "big")


def _shape(builder: Builder) -> tuple[list[int], int]:
    """Replicas and devices, of which a change has to be written whatever it gains."""
    return [len(row) for row in builder.table], len(builder.present)


def _worth(was: tuple[float, float], report: Report) -> bool:
    """Devices that must be drained are always worth it: their balance is at its end before and after."""
    balance, dispersion = was
    draining = balance >= BALANCE_MAX and report.balance >= BALANCE_MAX
    return draining or abs(balance - report.balance) >= WORTH_PERCENT or abs(dispersion - report.dispersion) >= WORTH_PERCENT


def _nothing(file: RingFile, builder: Builder, report: Report, state: str, as_json: bool) -> int:
    if as_json:
        click.echo(json.dumps(_as_dict(report, written=False), indent=2))
        return UNCHANGED
    click.echo("No partitions could be reassigned.")
    waits = _waits(builder, report, file.now())
    click.echo("\n".join(waits or ["There is no need to do so at this time."]))
    if state != UP_TO_DATE and not waits:
        click.echo(f"Ring file {file.ring_path} is {state}: write_ring brings it up to date.")
    return UNCHANGED


def _refused(report: Report, as_json: bool) -> int:
    if as_json:
        click.echo(json.dumps(_as_dict(report, written=False), indent=2))
        return UNCHANGED
    moves = "1 move" if report.moves == 1 else f"{report.moves} moves"
    click.echo(
        f"Nothing was written: {moves} would change balance and dispersion by less than {WORTH_PERCENT:.0f} %. "
        "rebalance --force writes them all the same."
    )
    return UNCHANGED


def _notes(builder: Builder, report: Report) -> list[str]:
    """What makes a rebalance that went well a warning."""
    if report.dispersion > 0:
        why = "Some of them wait, as said below." if report.waits.total else "Other weights or more overload would spread them."
        return [
            f"NOTE: {report.dispersion:.2f} % of the replicas stand where their partition is crowded.",
            f"      {why}  The verb dispersion tells where they are.",
        ]
    if report.balance > BALANCE_WARNING_PERCENT and report.balance / 100 > builder.overload:
        hours = builder.min_part_hours
        return [f"NOTE: a device is {report.balance:.2f} % off its share.  Publish this ring, wait {hours} h, and rebalance again."]
    return []


def _waits(builder: Builder, report: Report, now: float) -> list[str]:
    """What this pass left undone, why, and until when."""
    waits = report.waits
    parts = []
    if waits.locked:
        parts.append(f"{waits.locked} when min_part_hours have passed since the last move in their partition")
    if waits.again:
        parts.append(f"{waits.again} after another replica of their partition, which moved in this pass")
    if waits.stuck:
        parts.append(f"{waits.stuck} when there is a place that does not crowd their partition")
    who = "1 replica is" if waits.total == 1 else f"{waits.total} replicas are"
    lines = [f"{who} still to move: {', '.join(parts)}."] if parts else []
    if waits.crowded and not lines:  # else it is these replicas that crowd them
        lines.append(f"{waits.crowded} of the partitions stay crowded somewhere.")
    until = _until(builder, report, now)
    if waits.again_now:
        lines.append(f"{waits.again_now} of them are on removed devices: rebalance again when the nodes have followed this ring.")
    if until is not None:
        date = datetime.fromtimestamp(until, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        left = timedelta(seconds=max(0, round(until - now)))
        lines.append(f"Nothing hinders the last from {date} on, in {left}: rebalance again then.")
    return lines


def _until(builder: Builder, report: Report, now: float) -> float | None:
    times = [report.waits.until] if report.waits.until is not None else []
    if report.waits.again > report.waits.again_now:
        times.append(now + builder.min_part_hours * HOUR_S)
    return max(times, default=None)


def _debug(report: Report) -> str:
    waits = report.waits
    return (
        f"Lower bound of the whole change: {report.lower_bound} moves.  Waiting: {waits.locked} locked, {waits.again} again, "
        f"{waits.stuck} stuck; {waits.crowded} partitions crowded.  Build version {report.version}."
    )


def _as_dict(report: Report, *, written: bool) -> dict[str, object]:
    """``waits.until`` is wall seconds since 1970, or null."""
    return {
        "written": written,
        "version": report.version,
        "moves": report.moves,
        "lower_bound": report.lower_bound,
        "balance": round(report.balance, 2),
        "dispersion": round(report.dispersion, 2),
        "waits": asdict(report.waits),
    }


@verb()
@json_option
@click.pass_obj
def validate(file: RingFile, as_json: bool) -> int:
    """Check that the builder keeps its promises.

    Every partition is placed, and no two replicas of one are on a device.

    Exit status 2 when it does not, or when nothing is placed yet.
    """
    builder = file.load()
    if not builder.table:
        raise Conflict("nothing is placed yet", hint="rebalance first")
    builder.validate()
    said = {"valid": True, "version": builder.version, "partitions": builder.partition_count, "replicas": builder.replicas}
    click.echo(json.dumps(said, indent=2) if as_json else f"{file.path} is sound, build version {builder.version}")
    return CHANGED


@verb("write_ring")
@click.pass_obj
def write_ring(file: RingFile) -> int:
    """Write the ring file anew, as the builder is.

    A rebalance does it by itself; this is for after set_info, and for after each step of a partition power increase.
    """
    builder = file.load()
    if not builder.present:
        raise Conflict("an empty ring cannot be written", hint="add devices, then rebalance")
    file.write_ring(builder)
    click.echo(f"Ring file {file.ring_path} is up-to-date, build version {builder.version}")
    return CHANGED


@verb("write_builder")
@click.argument("min_part_hours", type=HOURS, required=False)
@click.pass_obj
def write_builder(file: RingFile, min_part_hours: int | None) -> int:
    """Make a lost builder anew from the ring file.

    What a ring does not hold is lost: MIN_PART_HOURS (24 unless given), the overload, which devices were being removed (their
    weight is 0), the id, and when partitions last moved: all are taken to have moved just now.

    \b
      write_builder 24
    """
    file.refuse_existing()
    ring = file.load_ring()
    if ring is None:
        raise NotFound(f"there is no {file.ring_path}", hint="the ring file stands beside the builder; copy one from a node")
    if min_part_hours is None:
        min_part_hours = LOST_MIN_PART_HOURS
        click.echo(f"WARNING: min_part_hours is taken to be {min_part_hours}; set_min_part_hours changes it.", err=True)
    builder = _from_ring(ring, min_part_hours, file.world.entropy.uuid().hex, file.now())
    file.create(builder)
    click.echo(f"{file.path} has build version {builder.version} and {len(builder.present)} devices")
    return CHANGED


def _from_ring(ring: Ring, min_part_hours: int, builder_id: str, now: float) -> Builder:
    """BadInput for a ring that no rebalance of ours can go on from."""
    table = tuple(np.array(row, np.uint16) for row in ring.table)
    if not table or any((row == NO_DEVICE).any() for row in table):
        raise BadInput("this ring has partitions without devices; no builder is made of it")
    builder = Builder.create(ring.part_power, sum(map(len, table)) / ring.partition_count, min_part_hours, builder_id=builder_id)
    builder.version = ring.version
    builder.next_part_power = ring.next_part_power
    builder.devices = list(ring.devices)
    builder.table = table
    builder.moved_at[:] = max(1, int(now))
    builder.validate()
    return builder
