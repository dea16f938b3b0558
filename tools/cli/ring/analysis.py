"""Verbs that tell beforehand and prove afterwards: plan, certificate, plot.  They change no ring.

Parses, calls ``ring.builder``, prints.  Its neighbour ``simulation.py`` has the verb simulate.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict

import click
import trio

from ring.builder.builder import Builder
from ring.builder.certificate import Certificate
from ring.builder.moves import Waits
from ring.builder.plan import PASSES_MAX, Flow, Load, Pass, Plan
from ring.builder.plan import plan as make_plan
from ring.builder.plot import plot as draw
from ring.errors import BadInput, Conflict, RingfortError
from ring.world.interface import Disk
from tools.cli.ring.amounts import FILL_HINT, bytes_text, fill_of, fill_options, parse_rate, table, tier_text, time_text
from tools.cli.ring.group import CHANGED, UNCHANGED, WARNING, RingFile, json_option, verb
from tools.cli.ring.place import seed_number

TOP = 10  # servers and devices that are listed without --verbose
SVG_HEAD = b"<svg "


# ---- plan


def parse_passes(text: str) -> int:
    """How many; 0 for all."""
    if text != "all" and not (text.isascii() and text.isdecimal() and 0 < int(text) <= PASSES_MAX):
        raise BadInput(f"neither a number of passes nor all: {text}", hint=f"1 to {PASSES_MAX}")
    return 0 if text == "all" else int(text)


@verb("plan")
@click.option("-s", "--seed", metavar="SEED", help="As of rebalance, for every pass; the builder's version unless given.")
@fill_options
@click.option("--rate", type=parse_rate, metavar="BYTES/S", help="What a device reads and writes for it: 50MB/s.")
@click.option("--concurrency", type=click.IntRange(1), metavar="N", help="Transfers at a time in the whole ring.")
@click.option("--passes", type=parse_passes, default="all", metavar="N|all", help="How many passes to look at.  [all]")
@click.option("-v", "--verbose", is_flag=True, help="Every server and device, not only the busiest.")
@json_option
@click.pass_obj
def plan(
    file: RingFile,
    seed: str | None,
    fill: float | None,
    total: float | None,
    used: float | None,
    device_size: float | None,
    rate: float | None,
    concurrency: int | None,
    passes: int,
    verbose: bool,
    as_json: bool,
) -> int:
    """What rebalancing would move, and how long it would take.

    Runs the passes of rebalance on a copy, each as soon as min_part_hours and the bytes of the one before allow; nothing is
    written.  Times are the least possible: the busiest device at --rate, and all bytes at --concurrency transfers.

    \b
      plan
      plan --fill 4TB --rate 50MB/s
      plan --used 70 --device-size 10TB --rate 50MB/s --concurrency 100 --passes 1

    Exit status 1: nothing would move, or replicas would stay above a device's quota.
    """
    builder = file.load()
    size = fill_of(builder, fill, total, used, device_size)
    if rate is not None and size is None:
        raise BadInput("--rate tells nothing before it is known how full the ring is", hint=FILL_HINT)
    if concurrency is not None and rate is None:
        raise BadInput("--concurrency needs --rate", hint="--rate 50MB/s")
    load = Load(size, rate, concurrency)
    start = None if seed is None else seed_number(seed, 0)
    planned = make_plan(builder, now=file.now(), seed=start, load=load, passes=passes or None)
    if as_json:
        click.echo(json.dumps(_plan_dict(builder, planned, load), indent=2))
    else:
        click.echo(_plan_text(file, builder, planned, load, verbose=verbose))
    return CHANGED if planned.moves and not (planned.complete and planned.waits.total) else UNCHANGED


def _plan_text(file: RingFile, builder: Builder, planned: Plan, load: Load, *, verbose: bool) -> str:
    if not planned.passes:
        return "\n".join(["Nothing would move.", *_left_over(planned)])
    lines = [f"{file.name}, build version {builder.version}: what rebalancing would do", ""]
    rows = [["pass", "starts", "moves", "lower bound", "percent", "bytes", "takes", "waiting", "balance", "dispersion"]]
    replicas = sum(builder.rows)
    for number, one in enumerate(planned.passes, 1):
        rows.append(
            [
                str(number),
                "now" if not one.at_s else f"+{time_text(one.at_s)}",
                f"{one.moves:,}",
                f"{one.lower_bound:,}",
                f"{100 * one.moves / replicas:.2f}",
                "-" if one.bytes is None else bytes_text(one.bytes),
                "-" if one.duration_s is None else time_text(one.duration_s),
                f"{one.waits.total:,}",
                f"{one.balance:.2f}",
                f"{one.dispersion:.2f}",
            ]
        )
    lines.append(table(rows))
    lines += ["", *_totals(builder, planned, load), *_left_over(planned), ""]
    lines.append(_flow_tables(builder, planned, load, verbose=verbose))
    return "\n".join(lines)


def _totals(builder: Builder, planned: Plan, load: Load) -> list[str]:
    first, size, seconds = planned.passes[0], planned.bytes, planned.duration_s
    bound = "the lower bound" if planned.moves == first.lower_bound else f"the lower bound is {first.lower_bound:,}"
    text = f"{planned.moves:,} moves ({bound})"
    text += f", {bytes_text(size)}" if size else ""
    text += f", done in {time_text(seconds)} at the earliest" if seconds else ""
    lines = [text + "."]
    if first.created == first.moves and first.created == sum(builder.rows):
        lines.append("The first placement: there is nothing to copy yet.")
    elif load.replica_bytes is None:
        lines.append(f"How full the ring is was not said, so bytes and times are not known: {FILL_HINT}.")
    elif load.rate is None:
        lines.append("How fast devices move it was not said, so times are not known: --rate 50MB/s.")
    if len(planned.passes) > 1 or not planned.complete:
        lines.append(
            f"A pass starts {builder.min_part_hours} h after the one before (min_part_hours), and when its bytes have moved."
        )
    busy = max((one for one in planned.passes if one.busiest), key=lambda one: one.busiest[1] if one.busiest else 0, default=None)
    if busy is not None and busy.busiest is not None:
        lines.append(f"Busiest device: {builder.device(busy.busiest[0])}, {busy.busiest[1]:,} replicas in and out in one pass.")
    dropped = sum(one.dropped for one in planned.passes)
    if dropped:
        lines.append(f"{dropped:,} replicas are let go, as there are to be fewer.")
    return lines


def _left_over(planned: Plan) -> list[str]:
    waits = planned.waits
    if not planned.complete:
        return ["More passes follow these." if _any(waits) else "Whether more passes follow was not looked at."]
    lines = []
    if waits.total:
        lines.append(f"{waits.total:,} replicas stay above their device's quota: there is no place that does not crowd them.")
    if waits.crowded:
        lines.append(f"{waits.crowded:,} partitions stay crowded somewhere.")
    return lines


def _any(waits: Waits) -> bool:
    return bool(waits.total or waits.crowded)


def _flow_tables(builder: Builder, planned: Plan, load: Load, *, verbose: bool) -> str:
    parts = []
    for level, name in ((2, "zone"), (3, "server"), (4, "device")):
        flows = [flow for flow in planned.flows if len(flow.tier) == level]
        shown = flows if verbose or level == 2 else sorted(flows, key=lambda f: -(f.arrives + f.leaves))[:TOP]
        inside = [] if level == 4 else ["inside"]
        size = [] if load.replica_bytes is None else ["bytes in", "bytes out"]
        rows = [[name, "in", "out", *inside, *size]]
        for flow in shown:
            row = [tier_text(flow.tier, builder.present), f"{flow.arrives:,}", f"{flow.leaves:,}"]
            row += [f"{flow.within:,}"] if inside else []
            if load.replica_bytes is not None:
                row += [bytes_text(flow.arrives * load.replica_bytes), bytes_text(flow.leaves * load.replica_bytes)]
            rows.append(row)
        parts.append(table(rows))
        if len(shown) < len(flows):
            parts[-1] += f"\n... the busiest {len(shown)} of {len(flows):,}; -v shows all"
    return "\n\n".join(parts)


def _plan_dict(builder: Builder, planned: Plan, load: Load) -> dict[str, object]:
    """Times are seconds after now; what is not known is null."""
    return {
        "version": builder.version,
        "complete": planned.complete,
        "moves": planned.moves,
        "lower_bound": planned.passes[0].lower_bound if planned.passes else 0,
        "bytes": planned.bytes,
        "seconds": planned.duration_s,
        "replica_bytes": load.replica_bytes,
        "waits": asdict(planned.waits),
        "passes": [_pass_dict(builder, one) for one in planned.passes],
        "flows": _flow_dicts(builder, planned.flows, load),
    }


def _pass_dict(builder: Builder, one: Pass) -> dict[str, object]:
    return {
        "starts": one.at_s,
        "moves": one.moves,
        "created": one.created,
        "dropped": one.dropped,
        "lower_bound": one.lower_bound,
        "waits": asdict(one.waits),
        "bytes": one.bytes,
        "seconds": one.duration_s,
        "balance": round(one.balance, 6),
        "dispersion": round(one.dispersion, 6),
        "busiest": None if one.busiest is None else {"device": one.busiest[0], "replicas": one.busiest[1]},
    }


def _flow_dicts(builder: Builder, flows: Sequence[Flow], load: Load) -> list[dict[str, object]]:
    size = load.replica_bytes
    return [
        {
            "level": ("region", "zone", "server", "device")[len(flow.tier) - 1],
            "tier": tier_text(flow.tier, builder.present),
            "in": flow.arrives,
            "out": flow.leaves,
            "inside": flow.within,
            "bytes_in": None if size is None else flow.arrives * size,
            "bytes_out": None if size is None else flow.leaves * size,
        }
        for flow in flows
    ]


# ---- certificate


@verb()
@json_option
@click.pass_obj
def certificate(file: RingFile, as_json: bool) -> int:
    """Prove how good the ring is.

    Moves stand against the fewest possible, devices against their quotas, tiers against their limits.  Everything is counted anew
    from the table and the weights; only the moves of the last rebalance are as the builder noted them.

    Exit status 1: a device is off its quota, a tier is crowded, or the last rebalance moved more than the lower bound.
    """
    builder = file.load()
    if not builder.table:
        raise Conflict("nothing is placed yet", hint="rebalance first")
    proof = builder.certificate()
    click.echo(json.dumps(proof.as_dict(), indent=2) if as_json else _certificate_text(file, builder, proof))
    return CHANGED if proof.balanced and proof.dispersed and proof.minimal else WARNING


def _certificate_text(file: RingFile, builder: Builder, proof: Certificate) -> str:
    lines = [
        f"{file.name}, build version {builder.version}: {proof.partitions:,} partitions, {proof.replicas:g} replicas, "
        f"{proof.devices:,} devices",
        "",
    ]
    above = proof.last_moves - proof.last_lower_bound
    moved = f"{above:,} more than that" if above > 0 else "none could be fewer" if above == 0 else "the others wait"
    now = "every device holds its quota" if proof.balanced else f"{proof.owed:,} replicas are still to move"
    apart = "as well as the weights allow" if proof.dispersed else "worse than the weights allow"
    scatter = proof.scatter
    rows = [
        ["moves of the last rebalance", f"{proof.last_moves:,}", f"the lower bound is {proof.last_lower_bound:,}: {moved}"],
        ["moves still owed", f"{proof.owed:,}", now],
        ["most above quota", f"{proof.over:,}", "partitions"],
        ["most below quota", f"{proof.under:,}", "partitions"],
        ["most above share", f"{proof.share_over:.3f}", "partitions; below 1 is as near as whole numbers come"],
        ["most below share", f"{proof.share_under:.3f}", "partitions"],
        ["balance", f"{proof.balance:.2f}", "percent that the worst device is off its share"],
        ["dispersion", f"{proof.dispersion:.2f}", "percent of the replicas that an even split would place elsewhere"],
        ["above tier limits", f"{sum(one.crowded for one in proof.levels):,}", f"replicas: spread {apart}"],
        ["scatter width", f"{scatter.median:,}", f"devices, the median; from {scatter.least:,} to {scatter.most:,}"],
        ["scatter possible", f"{scatter.possible:,}", "devices, for the median"],
    ]
    width = [max(len(row[column]) for row in rows) for column in (0, 1)]
    lines += [f"{name.ljust(width[0])}  {value.rjust(width[1])}  {words}" for name, value, words in rows]
    levels = [["level", "tiers", "most of a partition", "limit", "above their limit", "above an even split"]]
    levels += [
        [one.level, f"{one.tiers:,}", str(one.most), str(one.limit), f"{one.crowded:,}", f"{one.even_crowded:,}"]
        for one in proof.levels
    ]
    return "\n".join([*lines, "", table(levels)])


# ---- plot


@verb("plot")
@click.option("-o", "--output", metavar="FILE", help="Where to; - is standard output.  [NAME.svg beside the builder]")
@click.option("--plan", "with_plan", is_flag=True, help="Also what the planned rebalances move in and out of each zone.")
@click.option("-s", "--seed", metavar="SEED", help="Of the plan, as of rebalance.")
@click.option("-f", "--force", is_flag=True, help="Also over a file that is not a picture.")
@click.pass_obj
def plot(file: RingFile, output: str | None, with_plan: bool, seed: str | None, force: bool) -> int:
    """Draw the ring as an SVG.

    It shows what each device holds against its quota.  A browser opens it; point at a bar for its numbers.  An older picture of
    the same name is replaced, any other file only with --force.

    \b
      plot
      plot --plan -o /tmp/object.svg
      plot -o - | rsvg-convert > object.png
    """
    builder = file.load()
    start = None if seed is None else seed_number(seed, 0)
    planned = make_plan(builder, now=file.now(), seed=start) if with_plan else None
    text = draw(builder, title=f"{file.name}, build version {builder.version}", plan=planned)
    if output == "-":
        click.echo(text.encode(), nl=False)  # as the file: whatever the terminal's encoding
        return CHANGED
    path = output if output is not None else file.path.removesuffix(".builder") + ".svg"
    _save_picture(file, path, text.encode(), force=force)
    click.echo(f"{path}: {len(builder.present):,} devices, {len(text.encode()):,} bytes")
    return CHANGED


def _save_picture(file: RingFile, path: str, data: bytes, *, force: bool) -> None:
    whole = os.path.abspath(path)
    if whole in (os.path.abspath(file.path), os.path.abspath(file.ring_path)):
        raise BadInput(f"{path} is the ring itself")
    folder, name = os.path.split(whole)

    async def save() -> None:
        disk = file.world.open_disk(folder)
        await _refuse(disk, name, path, force=force)
        await disk.replace_file(name, data)

    try:
        trio.run(save)
    except OSError as error:
        raise RingfortError(f"{path}: {error.strerror or error}", hint="-o names another file") from error


async def _refuse(disk: Disk, name: str, path: str, *, force: bool) -> None:
    info = await disk.info(name)
    if info is None:
        return
    if info.is_dir:
        raise BadInput(f"{path} is a folder", hint=f"-o {os.path.join(path, 'ring.svg')}")
    if not force and not (await disk.read_file(name)).startswith(SVG_HEAD):
        raise Conflict(f"{path} exists and is not a picture", hint="name another file, or --force")
