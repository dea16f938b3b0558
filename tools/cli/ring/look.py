"""Verbs that look: search, list_parts, dispersion, version, id.  They change nothing."""

from __future__ import annotations

import json
import re
from typing import Any

import click
import numpy as np

from ring.builder.builder import Builder
from ring.builder.measure import TierCrowding, crowding
from ring.builder.quota import Tier
from ring.device import Device
from ring.envelope import FORMAT_VERSION
from ring.errors import BadInput, Conflict, NotFound
from ring.placement import NO_DEVICE
from tools.cli.ring.group import CHANGED, WARNING, RingFile, json_option, verb
from tools.cli.ring.search import SEARCH_HELP, find, search_options, searches
from tools.cli.ring.show import ID_BYTES, balances, device_dict, worst

_NO_MATCH = "No matching devices found"
_SEARCH_HEAD = (
    "Devices:    id  region  zone      ip address  port  replication ip  replication port      name weight partitions balance meta"
)


@verb()
@click.argument("value", metavar="SEARCH_VALUE", required=False)
@search_options
@json_option
@click.pass_obj
def search(file: RingFile, /, value: str | None, as_json: bool, **options: Any) -> int:
    """Show the devices that match.

    \b
      search z1
      search 10.0.0.4
      search --region 1 --device sdb1 --json
    """
    (wanted,) = searches([] if value is None else [value], options)
    builder = file.load()
    found = find(builder, wanted)
    if not found:
        raise NotFound(_NO_MATCH)
    balance = balances(builder)
    counts = builder.counts()
    if as_json:
        click.echo(json.dumps([device_dict(builder, device, counts, balance) for device in found], indent=2))
        return CHANGED
    click.echo(_SEARCH_HEAD)
    for d in found:
        click.echo(
            f"         {d.id:5} {d.region:7} {d.zone:5} {d.ip:>15} {d.port:5} {d.replication_ip:>15} {d.replication_port:17} "
            f"{d.name:>9} {d.weight:6.2f} {counts[d.id]:10} {balance[d.id]:7.2f} {d.meta}".rstrip()
        )
    return CHANGED


@verb("list_parts")
@click.argument("values", metavar="SEARCH_VALUE...", nargs=-1)
@search_options
@json_option
@click.pass_obj
def list_parts(file: RingFile, /, values: tuple[str, ...], as_json: bool, **options: Any) -> int:
    """The partitions that devices hold.

    Those with most of their replicas on the matching devices stand first.

    \b
      list_parts d3
      list_parts 10.0.0.4 10.0.0.5     which partitions would have lost two replicas?
    """
    wanted = searches(values, options)
    builder = file.load()
    _placed(file, builder)
    found: dict[int, Device] = {device.id: device for one in wanted for device in find(builder, one)}
    matches = np.zeros(builder.partition_count, np.int64)
    chosen = np.zeros(NO_DEVICE + 1, bool)
    chosen[list(found)] = True
    for row in builder.table:
        matches[: len(row)] += chosen[row]
    partitions = np.flatnonzero(matches)
    if not len(partitions):
        raise NotFound(_NO_MATCH if not found else "the matching devices hold nothing")
    partitions = partitions[np.argsort(-matches[partitions], kind="stable")]
    rows = [(int(partition), int(matches[partition])) for partition in partitions]
    if as_json:
        click.echo(json.dumps([{"partition": partition, "matches": count} for partition, count in rows], indent=2))
        return CHANGED
    click.echo("\n".join(["Partition   Matches", *(f"{partition:9}   {count:7}" for partition, count in rows)]))
    return CHANGED


@verb()
@click.argument("pattern", metavar="[REGEX]", required=False)
@click.option("-v", "--verbose", is_flag=True, help="A line per tier.")
@click.option("--recalculate", is_flag=True, help="Taken for compatibility; nothing is remembered that could be stale.")
@json_option
@click.pass_obj
def dispersion(file: RingFile, pattern: str | None, verbose: bool, recalculate: bool, as_json: bool) -> int:
    """How well replicas keep apart.

    Of every tier (region, zone, server, device): the replicas there (Parts), how many percent of them are more than the tier should
    hold of their partition (%), how many of one partition it should hold (Max), and the partitions with 0, 1, 2 ... replicas there.
    REGEX picks tiers by their names, which begin like r1, r1z1, r1z1-10.0.0.4, r1z1-10.0.0.4/sdb1.

    \b
      dispersion
      dispersion 'r\\d+z\\d+$' -v      zones only

    Exit status 1 when a tier is crowded.
    """
    builder = file.load()
    _placed(file, builder)
    measured = crowding(builder.table, builder.present)
    chosen = _filter(pattern)
    tiers = [(name, tier) for tier in measured.tiers if tier.tier and chosen.match(name := _tier_name(builder, tier.tier))]
    tiers.sort(key=lambda named: [(0, part, "") if isinstance(part, int) else (1, 0, part) for part in named[1].tier])
    bad = max(tiers, key=lambda named: _percent(named[1]), default=None)
    if bad is not None and not bad[1].crowded:
        bad = None
    needed, why = _required_overload(builder)
    balance = worst(balances(builder))
    if as_json:
        said = {
            "dispersion": round(measured.percent, 6),
            "balance": round(balance, 6),
            "overload": builder.overload,
            "required_overload": needed,
            "worst_tier": None if bad is None else {"tier": bad[0], "percent": round(_percent(bad[1]), 6)},
            "tiers": [
                {
                    "tier": name,
                    "replicas": _placed_in(tier),
                    "percent": round(_percent(tier), 6),
                    "max": tier.limit,
                    "partitions": list(tier.counts),
                }
                for name, tier in tiers
            ],
        }
        click.echo(json.dumps(said, indent=2))
    else:
        click.echo(f"Dispersion is {measured.percent:.6f}, Balance is {balance:.6f}, Overload is {100 * builder.overload:.2f}%")
        click.echo(f"Required overload is {why}" if needed is None else f"Required overload is {100 * needed:.6f}%")
        if bad is not None:
            click.echo(f"Worst tier is {_percent(bad[1]):.6f} ({bad[0]})")
        if verbose and tiers:
            click.echo("\n".join(_tier_table(builder, tiers)))
    return CHANGED if bad is None else WARNING


def _filter(pattern: str | None) -> re.Pattern[str]:
    try:
        return re.compile(pattern or "")
    except re.error as error:
        raise BadInput(f"not a regular expression: {pattern}: {error}") from error


def _required_overload(builder: Builder) -> tuple[float | None, str]:
    try:
        return builder.required_overload(), ""
    except BadInput as error:
        return None, f"not to be said: {error.message}"


def _placed_in(tier: TierCrowding) -> int:
    return sum(n * partitions for n, partitions in enumerate(tier.counts))


def _percent(tier: TierCrowding) -> float:
    placed = _placed_in(tier)
    return 100 * tier.crowded / placed if placed else 0.0


def _tier_name(builder: Builder, tier: Tier) -> str:
    match tier:
        case (region,):
            return f"r{region}"
        case (region, zone):
            return f"r{region}z{zone}"
        case (region, zone, ip):
            return f"r{region}z{zone}-{ip}"
        case (region, zone, ip, int(device_id)):
            return f"r{region}z{zone}-{ip}/{builder.device(device_id).name}"
        case _:
            return ""


def _tier_table(builder: Builder, tiers: list[tuple[str, TierCrowding]]) -> list[str]:
    width = max(30, *(len(name) for name, _ in tiers))
    column = max(5, len(str(builder.partition_count)))
    most = len(tiers[0][1].counts)
    head = f"{'Tier':<{width}} {'Parts':>{column}} {'%':>6} {'Max':>6} " + " ".join(f"{n:>{column}}" for n in range(most))
    lines = ["-" * len(head), head, "-" * len(head)]
    for name, tier in tiers:
        counts = " ".join(f"{count:>{column}}" for count in tier.counts)
        lines.append(f"{name:<{width}} {_placed_in(tier):>{column}} {_percent(tier):6.2f} {tier.limit:6} {counts}")
    return lines


@verb()
@json_option
@click.pass_obj
def version(file: RingFile, as_json: bool) -> int:
    """The format and the build version of the ring file."""
    ring = file.load_ring()
    if ring is None:
        raise NotFound(f"there is no {file.ring_path}", hint="rebalance writes it")
    if as_json:
        said = {"path": file.ring_path, "format_version": FORMAT_VERSION, "device_id_bytes": ID_BYTES, "version": ring.version}
        click.echo(json.dumps(said, indent=2))
    else:
        click.echo(
            f"{file.ring_path}: Serialization version: {FORMAT_VERSION} ({ID_BYTES}-byte IDs), build version: {ring.version}"
        )
    return CHANGED


@verb("id")
@json_option
@click.pass_obj
def id_(file: RingFile, as_json: bool) -> int:
    """The builder's id, which stays as long as the builder does."""
    builder = file.load()
    click.echo(json.dumps({"id": builder.id}) if as_json else builder.id or "(not assigned)")
    return CHANGED


def _placed(file: RingFile, builder: Builder) -> None:
    if not builder.table:
        raise Conflict(f"nothing is placed in {file.path} yet", hint="rebalance first")


for _verb in (search, list_parts):
    _verb.epilog = SEARCH_HELP
