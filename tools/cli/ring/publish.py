"""``publish`` and ``status``: bring the ring of FILE into service in a running cloud, and see how far that is.

Parses, calls ``tools.deploy.publish``, prints.  Progress goes to stderr, and only where that is a terminal.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import click
import trio

from ring.errors import Unavailable
from tools.cli.ring.group import CHANGED, UNCHANGED, RingFile, json_option, verb
from tools.deploy.asking import ask_each, no_cloud
from tools.deploy.layout import Layout
from tools.deploy.publish import (
    LOOK_S,
    TAKE_UP_S,
    Published,
    name_of,
    open_cloud,
    publish,
    settled_share,
    taken_up,
)
from tools.deploy.ring_status import RINGS_PATH, WorkerRings

data_option = click.option(
    "--data", required=True, type=click.Path(path_type=Path), envvar="RINGFORT_DATA", help="The cloud's folder ($RINGFORT_DATA)."
)
as_option = click.option("--as", "name", default="", help="Which of the cloud's rings FILE is for; by its name unless given.")


@verb("publish")
@data_option
@as_option
@click.option("--format", "format_new", is_flag=True, help="Make devices of the empty folders that new devices of the ring have.")
@click.option("--force", is_flag=True, help="Also when another builder made the ring in force.")
@click.option("--no-wait", is_flag=True, help="Do not wait until all workers go by it.")
@click.option("--settle", is_flag=True, help="Wait also until everything is where the new ring says.")
@json_option
@click.pass_obj
def publish_verb(
    file: RingFile, data: Path, name: str, format_new: bool, force: bool, no_wait: bool, settle: bool, as_json: bool
) -> int:
    """Bring the ring of FILE into service, without a restart.

    Running workers go by it within seconds; requests notice nothing.  While partitions move, reads and writes ask the devices of
    both rings; "status" shows how far it is.  Example: ringfort ring object.builder publish --data /srv/cloud
    """
    layout = Layout(data.absolute())
    name = name_of(Path(file.name).stem, name, open_cloud(layout).rings)
    builder = file.load()

    async def go() -> tuple[Published | None, dict[int, WorkerRings | None]]:
        done = await publish(file.world, layout, name, builder, force=force, format_new=format_new)
        states = await ask_each(file.world, layout, RINGS_PATH, WorkerRings)
        if states and not no_wait:
            states = await _wait(file, layout, name, builder.version, settle=settle)
        return done, states

    done, states = trio.run(go)
    if as_json:
        click.echo(json.dumps(_as_dict(name, builder.version, done, states), indent=2))
    else:
        _say(name, builder.version, done, states)
    return UNCHANGED if done is None else CHANGED


@verb("status")
@data_option
@as_option
@json_option
@click.pass_obj
def status(file: RingFile, data: Path, name: str, as_json: bool) -> int:
    """Show which version of the ring each worker of a cloud goes by, and how far its devices are with it.

    Example: ringfort ring object status --data /srv/cloud
    """
    layout = Layout(data.absolute())
    name = name_of(Path(file.name).stem, name, open_cloud(layout).rings)
    states = trio.run(ask_each, file.world, layout, RINGS_PATH, WorkerRings)
    if not states:
        raise no_cloud(layout)
    if as_json:
        click.echo(json.dumps(_states(name, states), indent=2))
        return CHANGED
    click.echo(f"{'worker':>6} {'version':>8} {'settled':>8}  devices")
    for worker, state in states.items():
        if state is None:
            click.echo(f"{worker:>6}  does not answer")
            continue
        ring = state.rings[name]
        devices = "  ".join(f"d{number} {part:.0%}" for number, part in ring.devices.items())
        click.echo(f"{worker:>6} {ring.version:>8} {ring.settled:>8}  {devices}".rstrip())
    return CHANGED


async def _wait(file: RingFile, layout: Layout, name: str, version: int, *, settle: bool) -> dict[int, WorkerRings | None]:
    """Until all workers go by it; with ``settle``, until the first of them says that it is settled.  Unavailable."""
    began = trio.current_time()
    line = _line()
    try:
        while True:
            states = await ask_each(file.world, layout, RINGS_PATH, WorkerRings)
            known = list(states.values())
            count = taken_up(known, name, version)
            now = trio.current_time() - began
            if states and count == len(states):
                if not settle or all(state is not None and state.rings[name].settled >= version for state in known):
                    return states
                share = settled_share(known, name, version)
                eta = f", about {now / share - now:.0f} s to go" if share > 0.01 else ""
                line(f"{share:.0%} of what the devices hold is where version {version} says{eta}")
            elif now > TAKE_UP_S:
                raise Unavailable(
                    f"{len(states) - count} of {len(states)} workers do not go by version {version} after {now:.0f} s",
                    hint=f"see {layout.logs}; it is published, and they take it up when they can",
                )
            else:
                line(f"{count} of {len(states)} workers go by version {version}")
            await trio.sleep(LOOK_S)
    finally:
        line("")


def _line() -> Callable[[str], None]:
    """Shows progress in one line that is written over."""
    if not sys.stderr.isatty():
        return lambda text: None
    return lambda text: click.echo(f"\r\033[K{text}", nl=False, err=True)


def _say(name: str, version: int, done: Published | None, states: dict[int, WorkerRings | None]) -> None:
    if done is None:
        click.echo(f"Version {version} of ring {name} is published already.")
    else:
        move = done.movement
        for device_id in done.formatted:
            click.echo(f"Device d{device_id} was formatted.")
        click.echo(
            f"Published version {version} of ring {name}, after {done.before}: {move.moved} of {move.partitions} partitions move "
            f"({100 * move.moved / move.partitions:.2f} %), {move.replicas} replicas."
        )
        if done.control:
            names = ", ".join(f"d{device_id}" for device_id in done.control)
            click.echo(f"A log of control state stays on {names}: leave the disk where it is.")
        if move.far:
            click.echo(
                f"{move.far} partitions keep fewer than a majority of their devices: safe, but it asks more devices for a while."
            )
    if states:
        known = list(states.values())
        share = settled_share(known, name, version)
        click.echo(f"{taken_up(known, name, version)} of {len(states)} workers go by it; settled: {share:.0%}.")
    else:
        click.echo("No cloud runs there: it will be in force at its next start.")


def _as_dict(name: str, version: int, done: Published | None, states: dict[int, WorkerRings | None]) -> dict[str, object]:
    found: dict[str, object] = {"ring": name, "version": version, "published": done is not None}
    if done is not None:
        move = done.movement
        found |= {
            "before": done.before,
            "partitions": move.partitions,
            "partitions_moved": move.moved,
            "replicas_moved": move.replicas,
            "partitions_without_majority": move.far,
            "formatted": list(done.formatted),
            "control_state_on": list(done.control),
        }
    return found | {"workers": _states(name, states)}


def _states(name: str, states: dict[int, WorkerRings | None]) -> list[dict[str, object]]:
    return [
        {"worker": worker, "answers": False}
        if state is None
        else {
            "worker": worker,
            "answers": True,
            "edition": state.edition,
            "version": state.rings[name].version,
            "settled": state.rings[name].settled,
            "devices": {str(number): part for number, part in state.rings[name].devices.items()},
        }
        for worker, state in states.items()
    ]
