"""``ringfort returned``: what devices brought back that were away, and that no primary knew: list it, take it out.

Reads the devices' folders, whether the cloud runs or not, and changes nothing in them.  What is to be had back is exported, looked
at, and uploaded by any client.

``--believe`` is for when all devices that hold something were away at once, or lost their marks: then each waits for one that was
not, and only a person can say which of them is right.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import trio

from ring.errors import BadInput
from ring.service.edition import decode
from ring.service.keeper import EDITION
from ring.world.interface import Disk, World
from ring.world.real import make_world
from storage.object.device import find_label
from storage.object.returned import Returned, body_of, listing
from storage.sync.standing import OBJECTS, OBJECTS_PATH, Standing
from tools.cli.node import data_option, json_option, number_of
from tools.deploy.layout import CloudRecord, Layout
from tools.deploy.publish import open_cloud
from tools.deploy.supervisor import lock


@dataclass(frozen=True, slots=True)
class Found:
    device: int
    disk: Disk
    returned: Returned


@click.command()
@data_option
@click.option("--device", metavar="DEVICE", help="Only of this device.")
@click.option(
    "--export", "target", type=click.Path(path_type=Path), help="Write bodies and what is known of them to this new folder."
)
@click.option("--believe", metavar="DEVICE", help="Say that nothing on it was deleted meanwhile; not while the cloud runs.")
@json_option
@click.pass_obj
def returned(world: World | None, data: Path, device: str | None, target: Path | None, believe: str | None, as_json: bool) -> int:
    """List versions that came back with a device that was away, and that nobody else knew.

    They may have been deleted meanwhile, or everything else that held them is gone.  Example: ringfort returned --data /srv/cloud
    --export /tmp/returned
    """
    world = world or make_world()
    layout = Layout(data.absolute())
    record = open_cloud(layout)
    only, believed = (None if name is None else _device(record, name) for name in (device, believe))
    if believed is not None:
        held = lock(layout)  # Conflict while the cloud runs
        try:
            moved = trio.run(believe_in, world, layout, record, believed)
        finally:
            os.close(held)
        click.echo(f"d{believed} is {'believed' if moved else 'not behind'}")
        return 0 if moved else 1
    numbers = range(record.devices) if only is None else (only,)
    found = trio.run(find, world, layout, record, numbers)
    if target is not None:
        trio.run(export, world, found, target.absolute())
    if as_json:
        click.echo(json.dumps([_as_json(one) for one in found], indent=1))
    else:
        for one in found:
            version = one.returned.version
            click.echo(f"d{one.device}  {version.timestamp}  {version.size:>12}  {version.path}  {one.returned.name}")
        click.echo(f"{len(found)} versions" + (f", exported to {target}" if target is not None else ""))
    return 0


def _device(record: CloudRecord, name: str) -> int:
    """BadInput."""
    number = number_of(name)
    if number >= record.devices:
        raise BadInput(f"there is no device {name}", hint=f"d0 to d{record.devices - 1}")
    return number


async def believe_in(world: World, layout: Layout, record: CloudRecord, number: int) -> bool:
    """Move its marks to the horizons in force; False when they are there.  DeviceAway, FormatError as of ``find_label``."""
    await find_label(world.open_disk(str(layout.device(number))), record.cluster_id, number, layout.disk_id(number))
    edition = decode(await world.open_disk(str(layout.in_force)).read_file(EDITION))
    moved = False
    for ring, horizon in edition.horizons.items():
        if ring.partition("-")[0] == OBJECTS:
            root = layout.device(number) / ring if ring != OBJECTS else layout.device(number)
            standing = Standing(world.open_disk(str(root)), OBJECTS_PATH)
            await standing.load()
            moved |= standing.mark(OBJECTS) < horizon.reclaimed
            await standing.move(OBJECTS, horizon.reclaimed)
    return moved


async def find(world: World, layout: Layout, record: CloudRecord, numbers: Sequence[int]) -> list[Found]:
    """Of these devices, those whose disks are there; of every storage policy."""
    found = []
    for number in numbers:
        for part in ("", *(ring for ring in record.rings if ring.startswith(f"{OBJECTS}-"))):
            disk = world.open_disk(str(layout.device(number) / part))
            try:
                found += [Found(number, disk, one) for one in await listing(disk)]
            except FileNotFoundError:
                continue  # not mounted, or the policy is new
    return found


async def export(world: World, found: Sequence[Found], target: Path) -> None:
    """NAME.body and NAME.json each.  BadInput when the folder is there already, or cannot be made."""
    if not target.parent.is_dir():
        raise BadInput(f"{target.parent} is not a folder", hint="name a new folder in one that is there")
    parent = world.open_disk(str(target.parent))
    if await parent.info(target.name) is not None:
        raise BadInput(f"{target} is there already", hint="name a new folder")
    await parent.make_dirs(target.name)
    disk = world.open_disk(str(target))
    for one in found:
        name = f"d{one.device}-{one.returned.name}"
        file = await disk.open_unnamed("")
        try:
            async for piece in body_of(one.disk, one.returned):
                await file.append([piece], sync=False)
            await file.sync()
            await disk.link(file, f"{name}.body")
        finally:
            await file.close()
        await disk.replace_file(f"{name}.json", (json.dumps(_as_json(one), indent=1) + "\n").encode())


def _as_json(one: Found) -> dict[str, object]:
    version = one.returned.version
    return {
        "device": one.device,
        "name": one.returned.name,
        "path": str(version.path),
        "timestamp": str(version.timestamp),
        "size": version.size,
        "etag": version.etag,
        "content_type": version.content_type,
        "metadata": dict(version.metadata),
        "put_aside_at": one.returned.put_aside_at,
    }
