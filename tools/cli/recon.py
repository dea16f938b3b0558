"""``ringfort recon``: what a running cloud is doing, and what is wrong with it.  Asks ``tools.deploy.recon``, prints.

To add a section, add a line to SECTIONS, and one to those of recon_json.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import click
import trio

from ring.daemon.runner import State, WorkerState
from ring.errors import BadInput
from ring.world.interface import World
from ring.world.real import make_world
from tools.cli.bars import bar, duration, percent, size
from tools.cli.recon_json import as_dict
from tools.deploy.latency import Latency
from tools.deploy.layout import Layout
from tools.deploy.publish import open_cloud
from tools.deploy.recon import Cloud, ended_at, gather

data_option = click.option(
    "--data", required=True, type=click.Path(path_type=Path), envvar="RINGFORT_DATA", help="The cloud's folder ($RINGFORT_DATA)."
)
Requests = Mapping[tuple[str, str], Latency]


def _processes(cloud: Cloud) -> Iterator[str]:
    answering = {number: process.recon for number, process in cloud.processes.items() if process.recon is not None}
    off = max((abs(process.clock_off_s) for process in cloud.processes.values()), default=0.0)
    yield f"{len(answering)} of {len(cloud.processes)} worker processes answer; their clocks are within {duration(off)}"
    for number, recon in answering.items():
        yield (
            f"process {number}: {recon.in_flight} requests in flight, {recon.slowdown:.0%} slower than at best; "
            f"background work at {recon.speed:.0%} of its pace"
        )


def _rings(cloud: Cloud) -> Iterator[str]:
    known = [process.rings for process in cloud.processes.values() if process.rings is not None]
    editions = sorted({rings.edition for rings in known})
    agree = "all processes agree" if len(editions) == 1 else "PROCESSES DIFFER"
    yield f"edition {', '.join(map(str, editions))}: {agree}"
    for name in sorted({name for rings in known for name in rings.rings}):
        states = [rings.rings[name] for rings in known if name in rings.rings]
        newest, settled = max(state.version for state in states), min(state.settled for state in states)
        shares = [share for state in states for share in state.devices.values()]
        share = sum(shares) / len(shares) if shares else 1.0
        moving = "" if newest == settled else f", settled {settled} {bar(share)} {percent(share)}"
        yield f"{name:<16} version {newest}{moving}"


def _requests(cloud: Cloud) -> Iterator[str]:
    yield from _request_table(cloud.requests)


def _request_table(requests: Requests, seconds: float | None = None) -> Iterator[str]:
    head = "requests" if seconds is None else "per s"
    yield f"{'api':<10} {'method':<8} {head:>10} {'5xx':>6} {'p50':>9} {'p99':>9}"
    for (api, method), latency in sorted(requests.items()):
        if latency.total:
            count = f"{latency.total}" if seconds is None else f"{latency.total / seconds:.1f}"
            row = f"{api:<10} {method:<8} {count:>10} {latency.errors:>6}"
            yield f"{row} {_below(latency.percentile_s(50)):>9} {_below(latency.percentile_s(99)):>9}"


def _below(seconds: float | None) -> str:
    return "> 60 s" if seconds is None else f"< {seconds * 1000:g} ms"


def _devices(cloud: Cloud) -> Iterator[str]:
    yield f"{'device':<7} {'state':<12} {'used':<{22 + 5}} {'free':>10} {'objects':>10} {'damaged':>7}"
    for device in cloud.devices:
        used = None
        if device.total_bytes and device.free_bytes is not None:
            used = 1 - device.free_bytes / device.total_bytes
        free = "-" if device.free_bytes is None else size(device.free_bytes)
        counts = f"{_or_dash(device.objects):>10} {_or_dash(device.quarantined):>7}"
        why = f"  {device.reason}" if device.reason else ""
        yield f"{f'd{device.id}':<7} {device.state:<12} {bar(used)} {percent(used)} {free:>10} {counts}{why}".rstrip()
        if device.refilling is not None:
            done = device.refilling.done
            yield f"{'':<7} {'refilling':<12} {bar(done)} {percent(done)} {duration(device.refilling.eta_s):>10} to go"


def _or_dash(count: int | None) -> str:
    return "-" if count is None else str(count)


def _workers(cloud: Cloud) -> Iterator[str]:
    """By kind; the slowest pass, the oldest end.  ``ringfort worker list`` has them one by one."""
    yield f"{'workers':<20} {'':>4} {'passes under way':<27} {'eta':>7} {'per s':>10} {'left':>8} {'failing':>7}  last pass of all"
    kinds: dict[str, list[WorkerState]] = {}
    for one in cloud.workers:
        kinds.setdefault(one.name.partition(" ")[0], []).append(one)
    for kind, ones in kinds.items():
        running = [one for one in ones if one.current is not None]
        known = [one.progress.fraction for one in running if one.progress.fraction is not None]
        shown = f"{bar(min(known))} {percent(min(known))}" if known else f"{len(running)} of {len(ones)}" if running else ""
        eta = duration(max((one.eta_s for one in running if one.eta_s is not None), default=None)) if running else ""
        moved, units = sum(one.bytes_per_s for one in ones), sum(one.units_per_s for one in ones)
        left = [one.progress.left for one in ones if one.progress.left is not None]
        failing = sum(one.state is State.FAILING for one in ones)
        ended = [ended_at(one) for one in ones if one.last is not None]
        last = f"{duration(cloud.now - min(ended))} ago" if len(ended) == len(ones) else f"{len(ended)} of {len(ones)} had one"
        figures = f"{eta:>7} {size(moved) if moved >= 1 else f'{units:.1f}':>10} {sum(left) if left else '':>8} {failing:>7}"
        yield f"{kind:<20} {len(ones):>4} {shown:<27} {figures}  {last}"


def one_by_one(cloud: Cloud) -> Iterator[str]:
    yield f"{'worker':<26} {'state':<8} {'pass':<27} {'left':>8} {'per s':>10} {'eta':>7} {'last pass':>18}"
    for one in cloud.workers:
        fraction = one.progress.fraction if one.current is not None else None
        shown = f"{bar(fraction)} {percent(fraction)}" if fraction is not None else ""
        left = "" if one.progress.left is None else str(one.progress.left)
        last = "none yet" if one.last is None else f"{duration(one.last.seconds)}, {duration(cloud.now - ended_at(one))} ago"
        failed = f", {one.last.errors} failed" if one.last is not None and one.last.errors else ""
        eta = duration(one.eta_s) if one.current is not None else ""
        yield f"{one.name:<26} {one.state.value:<8} {shown:<27} {left:>8} {_rate(one):>10} {eta:>7} {last + failed:>18}".rstrip()
        if one.error:
            yield f"{'':<26} {one.error}"


def _rate(one: WorkerState) -> str:
    return f"{size(one.bytes_per_s)}" if one.bytes_per_s >= 1 else f"{one.units_per_s:.1f}"


def _redundancy(cloud: Cloud) -> Iterator[str]:
    single, short = (cloud.fact("replicator", what) for what in ("single_partitions", "short_partitions"))
    yield f"{single:.0f} partitions with one copy of something, {short:.0f} with too few, counted at each device that holds them"
    passes = [one for one in cloud.workers if "replicator" in one.name]
    ended = [one for one in passes if one.last is not None]
    if ended:
        oldest = min(ended, key=ended_at)
        yield f"replication lag: {duration(cloud.now - ended_at(oldest))} since the last pass of {oldest.name}"
    if len(ended) < len(passes):
        yield f"{len(passes) - len(ended)} of {len(passes)} replicators have not ended a pass yet"
    pushed, dropped, unanswered = (cloud.fact("replicator", what) for what in ("pushed", "dropped", "unanswered"))
    yield f"since their start: {pushed:.0f} versions sent, {dropped:.0f} handed off, {unanswered:.0f} questions without an answer"


def _quarantined(cloud: Cloud) -> Iterator[str]:
    damaged, orphans = cloud.fact("auditor", "damaged"), cloud.fact("auditor", "orphans")
    aside = sum(device.quarantined or 0 for device in cloud.devices)
    yield f"{aside} versions put aside since the devices were opened; auditors found {damaged:.0f}, and {orphans:.0f} orphans"


def _backlog(cloud: Cloud) -> Iterator[str]:
    owed = sum(one.progress.left or 0 for one in cloud.workers if "updater" in one.name and "container" not in one.name)
    reports = sum(one.progress.left or 0 for one in cloud.workers if "container-updater" in one.name)
    yield f"rows owed to containers: {owed}; reports owed to accounts: {reports}"
    left, behind = cloud.fact("expirer", "left"), max((one.progress.facts.get("behind_s", 0) for one in cloud.workers), default=0)
    yield f"expired objects to delete: {left:.0f}" + (f", the oldest due {duration(behind)} ago" if left else "")
    accounts, objects = cloud.fact("reaper", "accounts_left"), cloud.fact("reaper", "objects_left")
    yield f"deleted accounts to reap: {accounts:.0f}, with {objects:.0f} objects"


def _listings(cloud: Cloud) -> Iterator[str]:
    sharders = [one for one in cloud.workers if "sharder" in one.name]
    if not sharders:
        yield "no worker looks after shards"
        return
    names = sorted({name for one in sharders for name in one.progress.facts})
    yield "; ".join(f"{name.replace('_', ' ')}: {cloud.fact('sharder', name):.0f}" for name in names)


def _problems(cloud: Cloud) -> Iterator[str]:
    yield from cloud.problems() or ["none"]


SECTIONS: Mapping[str, Callable[[Cloud], Iterator[str]]] = {
    "processes": _processes,
    "rings": _rings,
    "requests": _requests,
    "devices": _devices,
    "workers": _workers,
    "redundancy": _redundancy,
    "quarantined": _quarantined,
    "backlog": _backlog,
    "listings": _listings,
    "problems": _problems,
}


@click.command()
@click.argument("sections", nargs=-1, type=click.Choice(list(SECTIONS)))
@data_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--watch", is_flag=True, help="Again and again, until interrupted; requests are those since the last time.")
@click.option("--every", type=click.FloatRange(min=0.2), default=2.0, show_default=True, help="Seconds, with --watch.")
@click.option("--check", is_flag=True, help="Exit status 1 when something is wrong.")
@click.pass_obj
def recon(world: World | None, sections: tuple[str, ...], data: Path, as_json: bool, watch: bool, every: float, check: bool) -> int:
    """Show what a running cloud is doing, and what is wrong with it.

    Example: ringfort recon workers problems --data /srv/cloud
    """
    if watch and (as_json or check):
        raise BadInput("--watch is for people: it goes neither with --json nor with --check", hint="ask again and again without it")
    layout = Layout(data.absolute())
    open_cloud(layout)
    world = world or make_world()
    if watch:
        trio.run(_watch, world, layout, sections or tuple(SECTIONS), every)
    cloud = trio.run(gather, world, layout)
    if as_json:
        click.echo(json.dumps(as_dict(cloud, sections or tuple(SECTIONS)), indent=2))
    else:
        click.echo("\n".join(text(cloud, sections or tuple(SECTIONS))))
    return 1 if check and cloud.problems() else 0


def text(cloud: Cloud, sections: tuple[str, ...], requests: Callable[[], Iterator[str]] | None = None) -> list[str]:
    """Its lines; ``requests`` in place of those since the processes' start."""
    lines: list[str] = []
    for name in sections:
        if len(sections) > 1:
            lines.append(name)
        found = requests() if name == "requests" and requests is not None else SECTIONS[name](cloud)
        lines += [f"  {line}" if len(sections) > 1 else line for line in found]
    return lines


async def _watch(world: World, layout: Layout, sections: tuple[str, ...], every_s: float) -> None:
    before: Requests = {}
    at = trio.current_time()
    while True:
        cloud = await gather(world, layout)
        now, requests = trio.current_time(), cloud.requests
        passed_s, since = now - at, {kind: latency.since(before.get(kind, Latency())) for kind, latency in requests.items()}
        lines = text(cloud, sections, (lambda: _request_table(since, passed_s)) if before else None)  # noqa: B023 - used at once
        clear = "\033[H\033[2J" if sys.stdout.isatty() else ""
        click.echo(clear + time.strftime("%Y-%m-%d %H:%M:%S") + "\n" + "\n".join(lines))
        before, at = requests, now
        await trio.sleep(every_s)
