"""``ringfort node``: the devices of this machine: how they are, taking them out of use, putting a new disk in one's place.

Parses, calls ``tools.deploy`` (drain, replace, device_status), prints.  Progress goes to stderr, and only where that is a terminal;
what waits can be interrupted at any time: the cloud goes on by itself, and the same command shows how far it is.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import click
import msgspec
import trio

from ring.errors import BadInput, Unavailable
from ring.world.interface import World
from ring.world.real import make_world
from tools.cli.bars import bar, duration, percent, size
from tools.deploy.asking import ask_each, no_cloud
from tools.deploy.device_status import DEVICES_PATH, DeviceState, WorkerDevices, standoffs
from tools.deploy.drain import check_devices, step
from tools.deploy.layout import CloudRecord, Layout
from tools.deploy.publish import open_cloud, settled_share
from tools.deploy.replace import replace as replace_disk
from tools.deploy.replace import trust as trust_device
from tools.deploy.ring_status import RINGS_PATH, WorkerRings
from tools.deploy.supervisor import lock

LOOK_S = 0.5
STEP_S = 30.0  # between two looks at whether more may be moved
TAKE_UP_S = 30.0  # until a worker has found a new disk
UNCHANGED, CHANGED = 1, 0

data_option = click.option(
    "--data", required=True, type=click.Path(path_type=Path), envvar="RINGFORT_DATA", help="The cloud's folder ($RINGFORT_DATA)."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
no_wait_option = click.option("--no-wait", is_flag=True, help="Begin it, and do not wait for its end.")


@click.group()
def node() -> None:
    """The devices of this machine: status, drain, replace, trust."""


# ---- status


@node.command()
@data_option
@json_option
@click.pass_obj
def status(world: World | None, data: Path, as_json: bool) -> int:
    """Show every device: what it is good for, why and since when, its room, and what is on its way.

    Exit status 1 when a device is not in service, or is not whole.  Example: ringfort node status --data /srv/cloud
    """
    world = world or make_world()
    layout = Layout(data.absolute())
    open_cloud(layout)
    workers = trio.run(ask_each, world, layout, DEVICES_PATH, WorkerDevices)
    if not workers:
        raise no_cloud(layout)
    devices = sorted((one for state in workers.values() if state is not None for one in state.devices), key=lambda one: one.id)
    silent = [number for number, state in workers.items() if state is None]
    if as_json:
        print_json({"devices": [msgspec.to_builtins(one) for one in devices], "silent_workers": silent})
    else:
        for line in table(devices, silent, world.clock.now()):
            click.echo(line)
    well = not silent and all(one.state == "in service" and one.refilling is None for one in devices)
    return CHANGED if well else UNCHANGED


def table(devices: Sequence[DeviceState], silent: Sequence[int], now: float) -> list[str]:
    lines = [f"{'device':<7} {'state':<11} {'since':>8} {'used':>10} {'free':>10} {'objects':>10} {'quarantined':>11}"]
    for one in devices:
        used = None if one.total_bytes is None or one.free_bytes is None else one.total_bytes - one.free_bytes
        since = duration(max(now - one.since, 0.0))
        lines.append(
            f"{f'd{one.id}':<7} {one.state:<11} {since:>8} {_size(used):>10} {_size(one.free_bytes):>10} "
            f"{_count(one.objects):>10} {_count(one.quarantined):>11}"
        )
        if one.reason:
            lines.append(f"{'':<7} {one.reason}")
        if one.refilling is not None:
            waits = ", ".join(f"d{number}" for number in one.refilling.waits_for)
            eta = f"waits for {waits}" if waits else f"{duration(one.refilling.eta_s)} to go"
            lines.append(f"{'':<7} refilling {bar(one.refilling.done)} {percent(one.refilling.done)} {eta}")
        for ring, done in one.leaving.items():
            lines.append(f"{'':<7} leaves ring {ring} {bar(done)} {percent(done)}")
    lines += standoffs(devices)
    lines += [f"worker {number} does not answer: its devices are not shown" for number in silent]
    return lines


def _size(count: int | None) -> str:
    return "-" if count is None else size(count)


def _count(count: int | None) -> str:
    return "-" if count is None else str(count)


# ---- drain


@node.command()
@click.argument("devices", metavar="DEVICE...", nargs=-1, required=True)
@data_option
@click.option("--now", is_flag=True, help="Do not wait for min_part_hours: more partitions move at once.")
@no_wait_option
@json_option
@click.pass_obj
def drain(world: World | None, devices: tuple[str, ...], data: Path, now: bool, no_wait: bool, as_json: bool) -> int:
    """Move everything off devices that still work, for instance before their disks are taken out.

    Sets their weight to 0 in every ring, publishes, and shows how far the cloud is until nothing is left on them.  It may be
    interrupted and given again at any time.  Exit status 1: not drained yet.  Example: ringfort node drain d3 --data /srv/cloud
    """
    world = world or make_world()
    layout = Layout(data.absolute())
    record = open_cloud(layout)
    numbers = sorted({number_of(name) for name in devices})
    drained, left = trio.run(_drain, world, layout, record, numbers, now, no_wait)
    if as_json:
        print_json({"devices": numbers, "drained": drained, "replicas_left": left})
    elif drained:
        click.echo(f"Nothing is left on {names(numbers)}.")
    else:
        click.echo(f"{names(numbers)}: {left} replicas of partitions are to be moved yet; give the command again to see them go.")
    return CHANGED if drained else UNCHANGED


async def _drain(
    world: World, layout: Layout, record: CloudRecord, numbers: Sequence[int], now: bool, no_wait: bool
) -> tuple[bool, int]:
    """Whether nothing is on them, and how many replicas are by the newest rings."""
    await check_devices(world, layout, record, numbers)
    began, line = trio.current_time(), progress_line()
    done = await step(world, layout, record, numbers, now=now)
    stepped = trio.current_time()
    try:
        while True:
            rings = await ask_each(world, layout, RINGS_PATH, WorkerRings)
            workers = await ask_each(world, layout, DEVICES_PATH, WorkerDevices)
            if not rings or no_wait:
                return False, done.left
            settled, share = _settled(list(rings.values()), record)
            held = _held(workers, numbers)
            if settled and not done.left and held == 0:
                return True, 0
            elapsed = trio.current_time() - began
            if settled and done.left:
                if trio.current_time() - stepped > STEP_S or now:
                    done, stepped = await step(world, layout, record, numbers, now=now), trio.current_time()
                line(f"{done.left} replicas wait for min_part_hours, {duration(done.hours * 3600)} (--now does not)")
            elif settled:
                line(f"{bar(1.0)} {'?' if held is None else held} versions are being let go of")
            else:
                eta = f"{duration(elapsed / share - elapsed)} to go" if share > 0.02 else ""
                line(f"{bar(share)} {percent(share)} is where the new rings say  {eta}")
            await trio.sleep(LOOK_S)
    finally:
        line("")


def _settled(states: Sequence[WorkerRings | None], record: CloudRecord) -> tuple[bool, float]:
    """Whether all rings are, and how far they are."""
    known = [state for state in states if state is not None]
    versions = {
        name: max((state.rings[name].version for state in known if name in state.rings), default=0) for name in record.rings
    }
    settled = len(known) == len(states) and all(
        name in state.rings and state.rings[name].settled >= version for state in known for name, version in versions.items()
    )
    shares = [settled_share(states, name, version) for name, version in versions.items()]
    return settled, min(shares, default=1.0)


def _held(workers: dict[int, WorkerDevices | None], numbers: Sequence[int]) -> int | None:
    """Versions on these devices; None when that is not known."""
    found = {one.id: one.objects for state in workers.values() if state is not None for one in state.devices}
    counts = [found.get(number) for number in numbers]
    return None if any(count is None for count in counts) else sum(count or 0 for count in counts)


# ---- replace


@node.command()
@click.argument("device", metavar="DEVICE")
@data_option
@click.option("--force", is_flag=True, help="Also when nothing is mounted there, though other devices are disks of their own.")
@click.option("--anyway", is_flag=True, help="Also while a device that shares partitions with it is being refilled.")
@no_wait_option
@json_option
@click.pass_obj
def replace(world: World | None, device: str, data: Path, force: bool, anyway: bool, no_wait: bool, as_json: bool) -> int:
    """Make the new, empty disk in a device's folder that device; the others bring back what was on it.

    Mount the new disk first.  The disk that was there before is refused if it comes back.  Shows how far the refilling is; that may
    be interrupted.  Exit status 1: not full again yet.  Example: ringfort node replace d3 --data /srv/cloud
    """
    world = world or make_world()
    layout = Layout(data.absolute())
    record = open_cloud(layout)
    number = number_of(device)
    disk_id = trio.run(partial(replace_disk, world, layout, record, number, force=force, anyway=anyway))
    if not as_json:
        click.echo(f"d{number} is a new disk now ({disk_id}).")
    filled = not no_wait and trio.run(_wait_refill, world, layout, number, disk_id)
    if as_json:
        print_json({"device": number, "disk_id": disk_id, "refilled": filled})
    elif filled:
        click.echo(f"d{number} holds again what it should.")
    else:
        click.echo(f"d{number} is being refilled: ringfort node status shows how far it is.")
    return CHANGED if filled else UNCHANGED


# ---- trust


@node.command()
@click.argument("device", metavar="DEVICE")
@click.option(
    "--without", "others", multiple=True, metavar="DEVICE", help="Do not wait for what this one held; may be given again."
)
@data_option
@click.pass_obj
def trust(world: World | None, device: str, others: tuple[str, ...], data: Path) -> int:
    """Say that nothing more can be had for a device that is being refilled; not while the cloud runs.

    For when devices wait for each other, since their disks were lost at once: what only those held is then not there.  With
    --without the other devices are waited for as ever; without it nobody is, and what they would have brought is missing at first.
    Exit status 1: it was not being refilled.  Example: ringfort node trust d3 --without d5 --data /srv/cloud
    """
    world = world or make_world()
    layout = Layout(data.absolute())
    record = open_cloud(layout)
    number = number_of(device)
    without = sorted({number_of(other) for other in others})
    held = lock(layout)  # Conflict while the cloud runs
    try:
        trusted = trio.run(trust_device, world, layout, record, number, without)
    finally:
        os.close(held)
    done = f"does not wait for {names(without)} from its next start on" if without else "is trusted from its next start on"
    click.echo(f"d{number} {done if trusted else 'was not being refilled'}.")
    return CHANGED if trusted else UNCHANGED


async def _wait_refill(world: World, layout: Layout, number: int, disk_id: str) -> bool:
    """False when no cloud runs.  Unavailable when its worker does not take it up."""
    began, line = trio.current_time(), progress_line()
    try:
        while True:
            workers = await ask_each(world, layout, DEVICES_PATH, WorkerDevices)
            if not workers:
                return False
            one = next((one for state in workers.values() if state is not None for one in state.devices if one.id == number), None)
            if one is not None and one.disk_id == disk_id:
                if one.refilling is None:
                    return True
                waits = ", ".join(f"d{peer}" for peer in one.refilling.waits_for)
                eta = f"waits for {waits}" if waits else f"{duration(one.refilling.eta_s)} to go"
                line(f"{bar(one.refilling.done)} {percent(one.refilling.done)} {eta}")
            elif trio.current_time() - began > TAKE_UP_S:
                why = "its worker does not answer" if one is None else one.reason
                raise Unavailable(f"d{number} is not in service: {why}", hint=f"see {layout.logs}; the disk stays formatted")
            else:
                line("waits for the worker to find the disk")
            await trio.sleep(LOOK_S)
    finally:
        line("")


# ---- shared


def number_of(name: str) -> int:
    """``d3`` or ``3``.  BadInput."""
    found = re.fullmatch(r"d?(\d{1,9})", name, re.ASCII)
    if found is None:
        raise BadInput(f"{name!r} is not a device", hint="a device is called d3, or 3; ringfort node status lists them")
    return int(found[1])


def names(numbers: Sequence[int]) -> str:
    return ", ".join(f"d{number}" for number in numbers)


def print_json(value: object) -> None:
    click.echo(json.dumps(value, indent=2))


def progress_line() -> Callable[[str], None]:
    """Shows progress in one line that is written over."""
    if not sys.stderr.isatty():
        return lambda text: None
    return lambda text: click.echo(f"\r\033[K{text}", nl=False, err=True)
