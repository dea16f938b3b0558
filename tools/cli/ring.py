"""``ringfort ring FILE [create | add | set_weight | remove | rebalance]``: make and change rings, with swift-ring-builder's words.

Parses, calls ``ring.builder``, prints; every change replaces the builder file as a whole.  FILE is ``NAME.builder`` (or just NAME);
``rebalance`` also writes ``NAME.ring`` beside it, which is what the nodes read.  Exit status: 0 changed (or shown), 1 nothing
changed or a warning, 2 an error.
"""

from __future__ import annotations

import errno
import json
import os
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import TypeVar

import click
import trio

from ring.builder import Builder
from ring.device import Device
from ring.errors import BadInput, Conflict, NotFound, RingfortError
from ring.names import NameHasher
from ring.ringfile import decode_builder, encode, encode_builder
from ring.world.interface import Disk
from ring.world.real import make_world

T = TypeVar("T")
SUFFIX = ".builder"
NO_SECRETS = NameHasher(b"", b"")  # a ring file holds none
_DEVICE = re.compile(r"(?:r(?P<region>\d+))?z(?P<zone>\d+)-(?P<ip>[^/\s]+):(?P<port>\d+)/(?P<name>[^/_\s]+)(?:_(?P<meta>.*))?")
BALANCE_WARNING = 1.0  # percent


class _File:
    """A builder file and the folder it is in."""

    def __init__(self, path: str) -> None:
        path = path if path.endswith(SUFFIX) else path + SUFFIX
        self.path = path
        self.folder, self.name = os.path.split(os.path.abspath(path))

    @property
    def ring_name(self) -> str:
        return self.name.removesuffix(SUFFIX) + ".ring"

    def load(self) -> Builder:
        return self._on_disk(self._load)

    async def _load(self, disk: Disk) -> Builder:
        if await disk.info(self.name) is None:
            raise NotFound(f"there is no {self.path}", hint=f"ringfort ring {self.path} create PART_POWER REPLICAS MIN_PART_HOURS")
        return decode_builder(await disk.read_file(self.name))

    def create(self, builder: Builder) -> None:
        async def save(disk: Disk) -> None:
            if await disk.info(self.name) is not None:
                raise Conflict(f"{self.path} exists already")
            await disk.replace_file(self.name, encode_builder(builder))

        self._on_disk(save)

    def save(self, builder: Builder, *, with_ring: bool = False) -> None:
        """The ring first: a crash between the two leaves a builder that can rebalance again."""

        async def save(disk: Disk) -> None:
            if with_ring:
                await disk.replace_file(self.ring_name, encode(builder.ring(NO_SECRETS)))
            await disk.replace_file(self.name, encode_builder(builder))

        self._on_disk(save)

    def _on_disk(self, call: Callable[[Disk], Awaitable[T]]) -> T:
        async def go() -> T:
            return await call(make_world().open_disk(self.folder))

        try:
            return trio.run(go)
        except OSError as error:
            hint = "make the folder first" if error.errno == errno.ENOENT else ""
            raise RingfortError(f"{self.path}: {error.strerror}", hint=hint) from error


class _Ring(click.Group):
    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """``--json`` may stand behind FILE, where a group would look for a verb."""
        return super().parse_args(ctx, sorted(args, key=lambda argument: argument != "--json"))


@click.group(cls=_Ring, invoke_without_command=True)
@click.argument("file", type=click.Path())
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
@click.pass_context
def ring(ctx: click.Context, file: str, as_json: bool) -> None:
    """Show or change the ring in FILE; no verb shows it."""
    ctx.obj = _File(file)
    if ctx.invoked_subcommand is None:
        builder = ctx.obj.load()
        click.echo(json.dumps(as_dict(builder), indent=2) if as_json else as_table(builder, ctx.obj.name, time.time()))
    elif as_json:
        raise click.UsageError("--json is for showing the ring, without a verb", ctx)


@ring.command()
@click.argument("part_power", type=int)
@click.argument("replicas", type=float)
@click.argument("min_part_hours", type=int)
@click.pass_obj
def create(file: _File, part_power: int, replicas: float, min_part_hours: int) -> int:
    """A new builder file: 2^PART_POWER partitions."""
    file.create(Builder.create(part_power, replicas, min_part_hours))
    return 0


@ring.command()
@click.argument("device")
@click.argument("weight", type=float)
@click.pass_obj
def add(file: _File, device: str, weight: float) -> int:
    """Add DEVICE, [r1]z1-IP:PORT/NAME[_META]; an IPv6 address stands in brackets.  It takes part after a rebalance."""
    match = _DEVICE.fullmatch(device)
    if match is None:
        raise BadInput(f"not a device: {device}", hint="r1z1-10.0.0.1:6200/sdb1, with _META behind it if you like")
    builder = file.load()
    added = builder.add_device(
        region=int(match["region"] or 1),
        zone=int(match["zone"]),
        ip=match["ip"].removeprefix("[").removesuffix("]"),
        port=int(match["port"]),
        name=match["name"],
        weight=weight,
        meta=match["meta"] or "",
    )
    file.save(builder)
    click.echo(f"Device {added} with {added.weight:.2f} weight got id {added.id}")
    return 0


@ring.command("set_weight")
@click.argument("device")
@click.argument("weight", type=float)
@click.pass_obj
def set_weight(file: _File, device: str, weight: float) -> int:
    """Change the weight of DEVICE (d3, 3, IP:PORT/NAME or NAME); 0 drains it."""
    builder = file.load()
    found = find(builder, device)
    if found.weight == weight:
        click.echo(f"{found} has this weight already")
        return 1
    builder.set_weight(found.id, weight)
    file.save(builder)
    click.echo(f"{found} weight set to {weight:.2f}")
    return 0


@ring.command()
@click.argument("device")
@click.pass_obj
def remove(file: _File, device: str) -> int:
    """Take DEVICE (d3, 3, IP:PORT/NAME or NAME) out at the next rebalances."""
    builder = file.load()
    found = find(builder, device)
    if found.id in builder.removed:
        click.echo(f"{found} is being removed already")
        return 1
    builder.remove(found.id)
    file.save(builder)
    click.echo(f"{found} marked for removal and will be removed next rebalance")
    return 0


@ring.command()
@click.option("--seed", type=int, default=None, help="Where chance starts from; the builder's version unless given.")
@click.pass_obj
def rebalance(file: _File, seed: int | None) -> int:
    """Bring partitions to where they should be, one replica of each at most, and write the ring file."""
    builder = file.load()
    before = builder.version
    report = builder.rebalance(builder.version if seed is None else seed, time.time())
    builder.validate()
    if report.version == before:
        waiting = builder.hours_left(time.time())
        click.echo("No partitions could be reassigned.")
        if waiting and report.balance > BALANCE_WARNING:
            click.echo(f"There are {waiting:.2f} hours to wait until min_part_hours have passed.")
        return 1
    file.save(builder, with_ring=True)
    click.echo(
        f"Reassigned {report.moves} ({100 * report.moves / sum(builder.rows):.2f}%) partitions. "
        f"Balance is now {report.balance:.2f}. Dispersion is now {report.dispersion:.2f}"
    )
    return 0


# ---- reading


def find(builder: Builder, text: str) -> Device:
    """NotFound when none fits, BadInput when several do."""
    found = [
        device
        for device in builder.present
        if text in (str(device.id), f"d{device.id}", str(device), f"{device.ip}:{device.port}/{device.name}", device.name)
    ]
    if not found:
        raise NotFound(f"no device {text}")
    if len(found) > 1:
        raise BadInput(
            f"{len(found)} devices are called {text}", hint="name one by its id: d" + ", d".join(str(d.id) for d in found)
        )
    return found[0]


def as_dict(builder: Builder) -> dict[str, object]:
    counts, balance = builder.counts(), builder.device_balance()
    return {
        "version": builder.version,
        "partitions": builder.partition_count,
        "part_power": builder.part_power,
        "replicas": builder.replicas,
        "min_part_hours": builder.min_part_hours,
        "balance": round(builder.balance(), 2),
        "dispersion": round(builder.dispersion(), 2),
        "devices": [
            {
                **asdict(device),
                "partitions": counts[device.id],
                "balance": round(balance.get(device.id, 0.0), 2),
                "removed": device.id in builder.removed,
            }
            for device in builder.present
        ],
    }


def as_table(builder: Builder, name: str, now: float) -> str:
    """The columns of swift-ring-builder."""
    regions = {device.region for device in builder.present}
    zones = {(device.region, device.zone) for device in builder.present}
    left = int(builder.hours_left(now) * 3600)
    lines = [
        f"{name}, build version {builder.version}",
        f"{builder.partition_count} partitions, {builder.replicas:.6f} replicas, {len(regions)} regions, {len(zones)} zones, "
        f"{len(builder.present)} devices, {builder.balance():.2f} balance, {builder.dispersion():.2f} dispersion",
        f"The minimum number of hours before a partition can be reassigned is {builder.min_part_hours} "
        f"({left // 3600}:{left // 60 % 60:02d}:{left % 60:02d} remaining)",
    ]
    rows = [("Devices:", "id", "region", "zone", "ip address:port", "name", "weight", "partitions", "balance", "flags", "meta")]
    counts, balance = builder.counts(), builder.device_balance()
    for device in builder.present:
        ip = f"[{device.ip}]" if ":" in device.ip else device.ip
        rows.append(
            (
                "",
                str(device.id),
                str(device.region),
                str(device.zone),
                f"{ip}:{device.port}",
                device.name,
                f"{device.weight:.2f}",
                str(counts[device.id]),
                f"{balance.get(device.id, 0.0):.2f}",
                "DEL" if device.id in builder.removed else "",
                device.meta,
            )
        )
    if len(rows) > 1:
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        lines += [" ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join(lines)
