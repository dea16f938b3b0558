"""The verb simulate: what is lost when devices fail together, and how much per year is to be expected.  It changes nothing.

Parses, calls ``ring.builder.loss`` and ``ring.builder.durability``, prints.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import click

from ring.builder.builder import Builder
from ring.builder.certificate import LEVELS
from ring.builder.durability import Hazard, LossPerYear, loss_per_year, repair_hours
from ring.builder.loss import Left, LevelLoss, RandomLoss, by_level, copies_left, random_failures
from ring.errors import BadInput, Conflict, NotFound
from tools.cli.ring.amounts import bytes_text, fill_of, fill_options, parse_number, parse_rate, table, tier_text, time_text
from tools.cli.ring.group import CHANGED, RingFile, json_option, verb
from tools.cli.ring.search import Search, find, host, parse_search

# Failures of one unit in a year that destroy what it holds: of devices as fleets report them, the others are guesses.
PER_YEAR = {"device": 0.02, "server": 0.002, "zone": 0.0005, "region": 0.0001}
REBUILD_H = 24.0
TRIALS, TRIALS_MAX = 1000, 1_000_000


def _rate_options(call: Any) -> Any:
    for level in LEVELS:  # decorated last is listed first: from devices up
        hours, rate = (f"--{level}-rebuild-hours", f"--{level}-afr") if level != "device" else ("--rebuild-hours", "--afr")
        whom = "a device" if level == "device" else f"a {level}"
        hours_help = "Until a failed device's copies are back; of all levels that have no hours of their own."
        call = click.option(
            hours, f"{level}_hours", type=parse_number, metavar="H", help=hours_help if level == "device" else f"Of {whom}."
        )(call)
        told = f"Failures of {whom} in a year.  [{PER_YEAR[level]:g}]"
        call = click.option(rate, f"{level}_afr", type=parse_number, metavar="X", help=told)(call)
    return call


@verb()
@click.option(
    "--device", "devices", multiple=True, metavar="ID", help="This device fails; a search value will do.  May be repeated."
)
@click.option("--server", "servers", multiple=True, metavar="IP", help="All devices of this server fail.")
@click.option("--zone", "zones", multiple=True, metavar="rNzM", help="All devices of this zone fail.")
@click.option("--region", "regions", multiple=True, metavar="N", help="All devices of this region fail.")
@click.option("--random", "count", type=int, metavar="K", help="So many more devices fail, by lot.")
@click.option("--trials", type=click.IntRange(1, TRIALS_MAX), default=TRIALS, show_default=True, metavar="T", help="Of --random.")
@click.option("-s", "--seed", type=int, default=1, show_default=True, metavar="S", help="Of --random.")
@click.option("--all", "all_tiers", is_flag=True, help="The worst device, server, zone and region, each failing alone.")
@_rate_options
@fill_options
@click.option("--rate", type=parse_rate, metavar="BYTES/S", help="What a device sends for a rebuild: 50MB/s.")
@click.option(
    "--detect-hours", type=parse_number, default=1.0, show_default=True, metavar="H", help="Until a rebuild begins; with --rate."
)
@json_option
@click.pass_obj
def simulate(
    file: RingFile,
    /,
    devices: tuple[str, ...],
    servers: tuple[str, ...],
    zones: tuple[str, ...],
    regions: tuple[str, ...],
    count: int | None,
    trials: int,
    seed: int,
    all_tiers: bool,
    as_json: bool,
    **options: Any,
) -> int:
    """What would be lost, now and per year.

    Counts partitions with 0, 1, 2 ... copies left.  What is named fails at the same time; --random comes on top of it.  Without
    any of these: the worst of each level, and the losses per year.  Those follow from rates of failure (--afr ...) and from how
    long a rebuild takes: --rebuild-hours, or --rate and how full the ring is (--fill ...), which make it out of the devices that
    can take part.

    \b
      simulate
      simulate --zone r1z2 --device d17
      simulate --random 3 --trials 10000 --seed 7
      simulate --fill 8TB --rate 40MB/s --afr 0.015 --server-afr 0.01
    """
    builder = file.load()
    if not builder.table:
        raise Conflict("nothing is placed yet", hint="rebalance first")
    names, failed = _failed(builder, devices, servers, zones, regions)
    alone = not failed and count is None
    rated = (
        any(options[f"{level}_{what}"] is not None for level in LEVELS for what in ("afr", "hours")) or options["rate"] is not None
    )
    fill = fill_of(builder, options["fill"], options["total"], options["used"], options["device_size"])
    said: dict[str, Any] = {
        "partitions": builder.partition_count,
        "replicas": builder.replicas,
        "replica_bytes": fill,
        "named": None,
        "levels": None,
        "random": None,
        "per_year": None,
    }
    texts = [
        f"{file.name}, build version {builder.version}: {builder.partition_count:,} partitions, {builder.replicas:g} replicas, "
        f"{len(builder.present):,} devices"
    ]
    if failed:
        left = copies_left(builder.table, failed)
        said["named"] = {"fail": names, "devices": sorted(failed), "left": list(left)}
        texts.append(f"Without {', '.join(names)} ({_devices(len(failed))}):\n" + _left_text(left, fill))
    if count is not None:
        loss = random_failures(builder.table, count, trials=trials, seed=seed, failed=failed)
        said["random"] = _random_dict(loss, seed)
        texts.append(_random_text(loss, seed, with_named=bool(failed)))
    if all_tiers or (alone and not rated):
        levels = by_level(builder.table, builder.present)
        said["levels"] = [_level_dict(builder, level) for level in levels]
        texts.append(_levels_text(builder, levels))
    if rated or (alone and not all_tiers):
        hazards, how = _hazards(builder, options, fill)
        years = loss_per_year(builder.table, builder.present, hazards)
        said["per_year"] = [_year_dict(row, builder, fill) for row in years]
        texts.append(_years_text(builder, years, how, fill))
    click.echo(json.dumps(said, indent=2) if as_json else "\n\n".join(texts))
    return CHANGED


# ---- what fails


def _failed(
    builder: Builder, devices: Sequence[str], servers: Sequence[str], zones: Sequence[str], regions: Sequence[str]
) -> tuple[list[str], set[int]]:
    wanted = [(text, parse_search(f"d{text}" if text.isdecimal() else text)) for text in devices]
    wanted += [(text, Search(ip=host(text))) for text in servers]
    for text in zones:
        match = re.fullmatch(r"(?:r(\d{1,9}))?z(\d{1,9})", text, re.ASCII)
        if match is None:
            raise BadInput(f"not a zone: {text}", hint="r1z2")
        wanted.append((text, Search(region=int(match[1]) if match[1] else None, zone=int(match[2]))))
    for text in regions:
        match = re.fullmatch(r"r?(\d{1,9})", text, re.ASCII)
        if match is None:
            raise BadInput(f"not a region: {text}", hint="1, or r1")
        wanted.append((f"r{match[1]}", Search(region=int(match[1]))))
    failed: set[int] = set()
    names = []
    for text, search in wanted:
        found = find(builder, search)
        if not found:
            raise NotFound(f"no device matches {text}", hint="ringfort ring FILE shows them all")
        names.append(str(found[0]) if len(found) == 1 else text)
        failed |= {device.id for device in found}
    return names, failed


def _devices(count: int) -> str:
    return f"{count:,} device{'' if count == 1 else 's'}"


# ---- copies left


def _left_text(left: Left, fill: float | None) -> str:
    partitions = sum(left)
    rows = [["copies left", "partitions", "percent"]]
    rows += [[str(copies), f"{number:,}", f"{100 * number / partitions:.4f}"] for copies, number in enumerate(left)]
    lost = f"\nLost for good, if they do not come back: {bytes_text(left[0] * fill)} of objects." if fill and left[0] else ""
    return table(rows, left=()) + lost


def _levels_text(builder: Builder, levels: Sequence[LevelLoss]) -> str:
    copies = range(len(levels[0].worst.left))
    rows = [["level", "worst", "of", "devices", *(f"{n} left" for n in copies), "that lose a partition"]]
    for level in levels:
        worst = level.worst
        name = tier_text(worst.tier, builder.present)
        losing = f"{level.losing:,} of {level.tiers:,}"
        rows.append([level.level, name, f"{level.tiers:,}", f"{worst.devices:,}", *(f"{n:,}" for n in worst.left), losing])
    return "Partitions by copies left, when the worst of a level fails alone:\n" + table(rows, left=(0, 1))


def _level_dict(builder: Builder, level: LevelLoss) -> dict[str, Any]:
    return {
        "level": level.level,
        "tiers": level.tiers,
        "worst": tier_text(level.worst.tier, builder.present),
        "devices": level.worst.devices,
        "left": list(level.worst.left),
        "losing": level.losing,
    }


def _random_text(loss: RandomLoss, seed: int, *, with_named: bool) -> str:
    rows = [["copies left", "mean", "worst trial"]]
    rows += [
        [str(n), f"{mean:,.1f}" if mean >= 1000 else f"{mean:.4g}", f"{worst:,}"]
        for n, (mean, worst) in enumerate(zip(loss.mean, loss.worst, strict=True))
    ]
    if loss.exact:
        chance = f"{loss.any_lost:.6g}, exactly"
    else:
        chance = f"{loss.any_lost:.4g} (95 %: {loss.any_lost_low:.4g} to {loss.any_lost_high:.4g})"
    head = f"Without {loss.failed:,}{' more' if with_named else ''} of {_devices(loss.among)}, by lot"
    return (
        f"{head} ({loss.trials:,} trials, seed {seed}; the mean is exact):\n{table(rows, left=())}\n"
        f"Some partition has no copy left with the probability {chance}."
    )


def _random_dict(loss: RandomLoss, seed: int) -> dict[str, Any]:
    return {
        "failed": loss.failed,
        "among": loss.among,
        "trials": loss.trials,
        "seed": seed,
        "mean": list(loss.mean),
        "worst": list(loss.worst),
        "any_lost": loss.any_lost,
        "any_lost_95": [loss.any_lost_low, loss.any_lost_high],
        "exact": loss.exact,
    }


# ---- losses per year


def _hazards(builder: Builder, options: Mapping[str, Any], fill: float | None) -> tuple[dict[str, Hazard], str]:
    """By level, and in words where the times of rebuild come from."""
    given = {level: options[f"{level}_hours"] for level in LEVELS}
    rate, every = options["rate"], given["device"]
    if rate is not None and fill is None:
        raise BadInput("--rate tells nothing before it is known how full the ring is", hint="--fill 4TB")
    if rate is not None and every is not None:
        raise BadInput("--rebuild-hours and --rate both say how long a rebuild takes", hint="leave one out")
    times: dict[str, Any]
    if rate is not None and fill is not None:
        times = dict(repair_hours(builder.table, builder.present, replica_bytes=fill, rate=rate, detect_h=options["detect_hours"]))
        how = f"what it held, from all devices that share a partition with it, at {bytes_text(rate)}/s each"
        how += f", after {options['detect_hours']:g} h"
    else:
        times = dict.fromkeys(LEVELS, REBUILD_H if every is None else every)
        how = f"{times['device']:g} h" + (" (not said: --rebuild-hours, or --fill and --rate)" if every is None else "")
    own = [level for level in LEVELS if level != "device" and given[level] is not None]
    for level in own:
        times[level] = given[level]
    rates = {level: PER_YEAR[level] if options[f"{level}_afr"] is None else options[f"{level}_afr"] for level in LEVELS}
    return {level: Hazard(rates[level], times[level]) for level in LEVELS}, how


def _years_text(builder: Builder, years: Sequence[LossPerYear], how: str, fill: float | None) -> str:
    sizes = ["bytes/year"] if fill is not None else []
    rows = [["what fails", "each a year", "rebuilt in", "partitions/year", *sizes, "an object's chance", "durability"]]
    for index, row in enumerate(years):
        low, high = row.repair_h
        times = (
            time_text(3600 * low)
            if time_text(3600 * low) == time_text(3600 * high)
            else (f"{time_text(3600 * low)} to {time_text(3600 * high)}")
        )
        size = [bytes_text(row.partitions * fill)] if fill is not None else []
        words = f"{'and ' if index else ''}{row.level}s"
        rows.append(
            [
                words,
                f"{row.per_year:g}",
                times,
                f"{row.partitions:.3g}",
                *size,
                f"{row.object_chance:.2g}",
                _nines(row.object_chance),
            ]
        )
    return (
        "Expected to be lost in a year (each line with what is above it):\n"
        + table(rows)
        + f"\nA rebuild takes {how}.\nFailures are taken to be independent and to destroy what they hold: docs/ring-analysis.md."
    )


def _nines(chance: float) -> str:
    """Of a year's durability: 99.999 % is 5 nines."""
    if chance <= 0:
        return "no loss"
    return "none" if chance >= 1 else f"{-math.log10(chance):.1f} nines"


def _year_dict(row: LossPerYear, builder: Builder, fill: float | None) -> dict[str, Any]:
    return {
        "up_to": row.level,
        "failures_per_year": row.per_year,
        "repair_hours": list(row.repair_h),
        "partitions": row.partitions,
        "object_chance": row.object_chance,
        "bytes": None if fill is None else row.partitions * fill,
    }
