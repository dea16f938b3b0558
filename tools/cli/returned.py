"""``ringfort returned``: what devices brought back that were away, and that no primary knew: list it, take it out.

Versions, fragments of versions (of erasure-coded policies: enough of them make one), and rows of listings.

Reads the devices' folders, whether the cloud runs or not, and changes nothing in them.  What is to be had back is exported, looked
at, and uploaded by any client.

``--believe`` is for when all devices that hold something were away at once, or lost their marks: then each waits for one that was
not, and only a person can say which of them is right.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import click
import trio

from ring.errors import BadInput
from ring.names import Path as BookPath
from ring.service.edition import decode
from ring.service.keeper import EDITION
from ring.world.interface import Disk, World
from ring.world.real import make_world
from storage.client.interface import Row
from storage.container.returning import listing as rows_aside
from storage.object.device import find_label
from storage.object.returned import Returned, body_of, listing
from storage.sync.standing import BOOKS_PATH, OBJECTS, OBJECTS_PATH, Standing
from tools.cli.node import data_option, json_option, number_of
from tools.deploy.layout import CloudRecord, Layout
from tools.deploy.publish import open_cloud
from tools.deploy.supervisor import lock


@dataclass(frozen=True, slots=True)
class Found:
    device: int
    disk: Disk
    returned: Returned


@dataclass(frozen=True, slots=True)
class FoundRows:
    """Of one container or account, put aside together."""

    device: int
    name: str
    book: BookPath
    rows: Sequence[Row]
    put_aside_at: float


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
    """List versions and rows of listings that came back with a device that was away, and that nobody else knew.

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
    rows = trio.run(find_rows, world, layout, numbers)
    if target is not None:
        trio.run(export, world, found, rows, target.absolute())
    if as_json:
        click.echo(json.dumps([*(_as_json(one) for one in found), *(_rows_as_json(some) for some in rows)], indent=1))
    else:
        for one in found:
            version, what = one.returned.version, "  (a fragment)" * bool(one.returned.fragment)
            click.echo(f"d{one.device}  {version.timestamp}  {version.size:>12}  {version.path}  {one.returned.name}{what}")
        for some in rows:
            for row in some.rows:
                click.echo(f"d{some.device}  {row.timestamp}  {row.size:>12}  {some.book}/{row.name}  {some.name}  (a row)")
        counts = f"{len(found)} versions, {sum(len(some.rows) for some in rows)} rows"
        click.echo(counts + (f", exported to {target}" if target is not None else ""))
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
        of_objects = ring.partition("-")[0] == OBJECTS
        root = layout.device(number) / ring if of_objects and ring != OBJECTS else layout.device(number)
        standing, name = (
            Standing(world.open_disk(str(root)), OBJECTS_PATH if of_objects else BOOKS_PATH),
            OBJECTS if of_objects else ring,
        )
        await standing.load()
        moved |= standing.mark(name) < horizon.reclaimed
        await standing.move(name, horizon.reclaimed)
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


async def find_rows(world: World, layout: Layout, numbers: Sequence[int]) -> list[FoundRows]:
    """Of these devices, those whose disks are there."""
    found = []
    for number in numbers:
        with suppress(FileNotFoundError):
            disk = world.open_disk(str(layout.device(number)))
            found += [FoundRows(number, *some) for some in await rows_aside(disk)]
    return found


async def export(world: World, found: Sequence[Found], rows: Sequence[FoundRows], target: Path) -> None:
    """NAME.body and NAME.json each; of rows only the latter.  BadInput when the folder is there already, or cannot be made."""
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
    for some in rows:
        data = (json.dumps(_rows_as_json(some), indent=1) + "\n").encode()
        await disk.replace_file(f"d{some.device}-{some.name}.json", data)


def _rows_as_json(some: FoundRows) -> dict[str, object]:
    return {
        "device": some.device,
        "name": some.name,
        "book": str(some.book),
        "rows": [
            {
                "name": row.name,
                "timestamp": str(row.timestamp),
                "size": row.size,
                "etag": row.etag,
                "content_type": row.content_type,
            }
            for row in some.rows
        ],
        "put_aside_at": some.put_aside_at,
    }


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
        **({"fragment": one.returned.fragment} if one.returned.fragment else {}),
    }
