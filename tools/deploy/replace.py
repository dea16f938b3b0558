"""Replace: make the new, empty disk in a device's folder that device, to be filled by its peers.

Decides whether that is safe: the folder is empty, and it is a mount where the other devices' folders are.  First it is written down
which disk is meant from now on, so that the one that was there before is refused when it comes back; then the disk is formatted,
with the mark that it is to be refilled.  A crash between leaves a device that is out of service, and a command to give again.

A device that shares partitions with it and is being refilled itself stands in the way: what both had acknowledged may be on their
old disks only.  ``trust`` is for when that has happened all the same: nobody but a person can know that nothing more is to be had.

Neighbours: storage.object.device (formats), tools.deploy.devices (opens it when it finds it), tools.cli.node (words).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace as changed
from pathlib import Path

import msgspec

from ring.errors import Conflict, NotFound
from ring.world.interface import World
from storage.object.device import LABEL_PATH, find_label, format_device, is_to_be_refilled
from storage.object.refill_mark import REFILL_PATH, RefillMark
from tools.deploy.layout import CloudRecord, Layout, write_file
from tools.deploy.publish import current


async def replace(
    world: World, layout: Layout, record: CloudRecord, number: int, *, force: bool = False, anyway: bool = False
) -> str:
    """The new disk's id.  ``force``: also when nothing is mounted there; ``anyway``: also beside a device that is being refilled.
    Conflict, NotFound: nothing was changed."""
    if not await _is_known(world, layout, record, number):
        raise NotFound(f"no ring has a device d{number}", hint="ringfort node status lists them")
    root = layout.device(number)
    if not root.is_dir():
        raise NotFound(f"{root} is not there", hint=f"make the folder, and mount the new disk at {root}")
    disk = world.open_disk(str(root))
    names = [name for name in await disk.list_dir("") if name not in ("lost+found", "device.formatting")]
    if LABEL_PATH in names:
        raise Conflict(
            f"{root} is a device with data on it: there is nothing to replace",
            hint=f"unmount it, and mount the new disk at {root}; ringfort node drain takes a device out of use that still works",
        )
    if names and "device.formatting" not in await disk.list_dir(""):
        raise Conflict(
            f"{root} is not empty (it has {names[0]!r})",
            hint="a disk takes another's place when it is empty; remove what is there if it is not needed",
        )
    if not anyway:
        await _check_partners(world, layout, record, number)
    if not force:
        _check_mounted(layout, record, root)
    disk_id = str(world.entropy.uuid())
    write_file(layout.disks, msgspec.json.encode({**layout.disk_ids(), number: disk_id}))
    root.chmod(0o700)
    await format_device(disk, record.cluster_id, number, disk_id=disk_id)
    return disk_id


async def trust(world: World, layout: Layout, record: CloudRecord, number: int, without: Iterable[int] = ()) -> bool:
    """From the next start on it does not wait for what devices ``without`` may have held; for none given, its disk is taken for
    whole.  False when it was that.  The cloud must not run.

    DeviceAway, FormatError as of ``find_label``; OSError: give the command again."""
    others = frozenset(without)
    disk = world.open_disk(str(layout.device(number)))
    await find_label(disk, record.cluster_id, number, layout.disk_id(number))
    trusted = False
    for folder in ("", *(f"{ring}/" for ring in record.rings)):  # of each storage policy
        path = f"{folder}{REFILL_PATH}"
        if await disk.info(path) is None:
            continue
        if others:
            mark = RefillMark.decode(await disk.read_file(path))
            await disk.replace_file(path, changed(mark, without=mark.without | others).encode())
        else:
            await disk.unlink(path)
        trusted = True
    return trusted


async def _check_partners(world: World, layout: Layout, record: CloudRecord, number: int) -> None:
    """Conflict when a device that shares partitions with it is being refilled: it looks at disks, so the cloud need not run."""
    shared: dict[int, int] = {}
    for name in record.rings:
        ring = await current(world, layout, name)
        for partition in range(1 << ring.part_power):
            holders = [device.id for device in ring.primaries(partition)]
            for other in holders if number in holders else ():
                shared[other] = shared.get(other, 0) + 1
    filling = []
    for other in sorted(shared.keys() - {number}):
        try:
            if await is_to_be_refilled(world.open_disk(str(layout.device(other)))):
                filling.append(other)
        except OSError:
            continue  # its disk is away: it has nothing to lose that this one brings back
    if filling:
        names = ", ".join(f"d{other} ({shared[other]} partitions in common)" for other in filling)
        raise Conflict(
            f"d{number} shares partitions with devices that are being refilled: {names}",
            hint="put its old disk back until they are whole; if that is lost, --anyway: what only these held does not come back",
        )


async def _is_known(world: World, layout: Layout, record: CloudRecord, number: int) -> bool:
    for name in record.rings:
        ring = await current(world, layout, name)
        if any(device is not None and device.id == number for device in ring.devices):
            return True
    return False


def _check_mounted(layout: Layout, record: CloudRecord, root: Path) -> None:
    """A folder on the disk below is taken for the new one only if no other device is a disk of its own."""
    own = [other for other in sorted(root.parent.iterdir()) if other != root and other.is_mount()]
    if own and not root.is_mount():
        raise Conflict(
            f"nothing is mounted at {root}, as it is at {own[0]}",
            hint=f"mount the new disk at {root}; --force makes the folder itself the device",
        )
