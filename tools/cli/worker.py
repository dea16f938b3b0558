"""``ringfort worker``: the background workers of a running cloud; and a pass of one of them now.

Asks ``tools.deploy.recon``, prints.  Progress goes to stderr, and only where that is a terminal.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path

import click
import msgspec
import trio

from ring.daemon.runner import WorkerState
from ring.errors import BadInput, NotFound, Unavailable
from ring.world.interface import World
from ring.world.real import make_world
from tools.cli.bars import bar, duration, percent, size
from tools.cli.node import number_of
from tools.cli.recon import data_option, one_by_one
from tools.deploy.layout import Layout
from tools.deploy.publish import open_cloud
from tools.deploy.recon import Cloud, ask_to_run, gather

LOOK_S = 0.25
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group()
def worker() -> None:
    """Background workers: auditors, replicators, updaters, and what else keeps a cloud in order."""


@worker.command("list")
@data_option
@json_option
@click.pass_obj
def list_workers(world: World | None, data: Path, as_json: bool) -> int:
    """Show all of them, and how far their passes are.

    Example: ringfort worker list --data /srv/cloud
    """
    layout = _layout(data)
    cloud = trio.run(gather, world or make_world(), layout)
    click.echo(json.dumps(msgspec.to_builtins(cloud.workers), indent=2) if as_json else "\n".join(one_by_one(cloud)))
    return 0


@worker.command()
@click.argument("name")
@click.option("--device", "devices", multiple=True, help="Of this device only: d3 (may be given more than once).")
@click.option("--no-wait", is_flag=True, help="Do not wait until the passes have ended.")
@data_option
@json_option
@click.pass_obj
def run(world: World | None, name: str, devices: tuple[str, ...], no_wait: bool, data: Path, as_json: bool) -> int:
    """Let the workers called NAME make a pass now, and wait until it has ended.

    A pass that is under way is not begun anew: its end is waited for.  The pass keeps to the worker's pace.  Exit status 1:
    something of it failed.  Example: ringfort worker run object-auditor --device d0 --data /srv/cloud
    """
    layout = _layout(data)
    done = trio.run(_run, world or make_world(), layout, name, devices, not no_wait)
    if as_json:
        click.echo(json.dumps([msgspec.to_builtins(one) for one in done.values()], indent=2))
    else:
        for one in done.values():
            click.echo(_result(one, waited=not no_wait))
    return 1 if any(one.last is not None and one.last.errors for one in done.values()) and not no_wait else 0


def _layout(data: Path) -> Layout:
    layout = Layout(data.absolute())
    open_cloud(layout)
    return layout


def _result(one: WorkerState, *, waited: bool) -> str:
    if not waited:
        return f"{one.name}: {'its pass goes on' if one.current is not None else 'a pass begins'}"
    assert one.last is not None
    done = f"{one.last.units} units" + (f", {size(one.last.done_bytes)}" if one.last.done_bytes else "")
    failed = f", {one.last.errors} failed: {one.error}" if one.last.errors else ""
    facts = ", ".join(f"{what.replace('_', ' ')} {value:g}" for what, value in one.progress.facts.items() if value)
    return f"{one.name}: {done} in {duration(one.last.seconds)}{failed}" + (f" ({facts} since its start)" if facts else "")


def chosen(cloud: Cloud, name: str, devices: tuple[str, ...]) -> dict[str, int]:
    """Worker: its process.  ``devices``: ``d3`` or ``3``.  NotFound, BadInput."""
    devices = tuple(f"d{number_of(device)}" for device in devices)
    found: dict[str, int] = {}
    kinds = set()
    for number, process in cloud.processes.items():
        for one in process.recon.workers if process.recon is not None else ():
            kind, _, device = one.name.partition(" ")
            kinds.add(kind)
            if kind == name and (not devices or device in devices):
                found[one.name] = number
    if name not in kinds:
        raise NotFound(f"there is no worker {name}", hint=f"there are {', '.join(sorted(kinds))}")
    if missing := [device for device in devices if f"{name} {device}" not in found]:
        raise BadInput(
            f"there is no {name} of device {', '.join(missing)} (now)", hint="devices are named d0, d1, ...; ringfort worker list"
        )
    return found


async def _run(world: World, layout: Layout, name: str, devices: tuple[str, ...], wait: bool) -> dict[str, WorkerState]:
    """The states before, or after the passes."""
    wanted = chosen(await gather(world, layout), name, devices)
    before = {one: await ask_to_run(world, layout, process, one) for one, process in wanted.items()}
    if not wait:
        return before
    try:
        while True:
            states = {one.name: one for one in (await gather(world, layout)).workers if one.name in wanted}
            if _ended(before, states):
                return states
            _show(before, states)
            await trio.sleep(LOOK_S)
    finally:
        _line("")


def _ended(before: Mapping[str, WorkerState], now: Mapping[str, WorkerState]) -> bool:
    """Unavailable: one is not there any more, or was started again; its pass may have been cut off."""
    for name, one in before.items():
        if name not in now:
            raise Unavailable(
                f"{name} does not run any more", hint="its device is out of service, or its process ended: ringfort recon"
            )
        if now[name].passes < one.passes:
            raise Unavailable(f"{name} was started again meanwhile", hint="ask once more")
    return all(now[name].passes > one.passes for name, one in before.items())


def _show(before: Mapping[str, WorkerState], now: Mapping[str, WorkerState]) -> None:
    over = [name for name, one in before.items() if now[name].passes > one.passes]
    running = [one for name, one in now.items() if name not in over]
    known = [one.progress.fraction for one in running if one.progress.fraction is not None and one.current is not None]
    share = (len(over) + sum(known)) / len(before)
    eta = max((one.eta_s for one in running if one.eta_s is not None), default=None)
    units = sum(one.current.units for one in running if one.current is not None)
    _line(f"{bar(share)} {percent(share)}  {len(over)} of {len(before)} ended, {units} units under way, {duration(eta)} to go")


def _line(shown: str) -> None:
    if sys.stderr.isatty():
        click.echo(f"\r\033[K{shown}", nl=False, err=True)
