"""Replace: make the new, empty disk in a device's folder that device, to be filled by its peers.

Decides whether that is safe: the folder is empty, and it is a mount where the other devices' folders are.  First it is written down
which disk is meant from now on, so that the one that was there before is refused when it comes back; then the disk is formatted,
with the mark that it is to be refilled.  A crash between leaves a device that is out of service, and a command to give again.

``trust`` takes that mark away: nobody but a person can know that nothing more is to be had.

Neighbours: storage.object.device (formats), tools.deploy.devices (opens it when it finds it), tools.cli.node (words).
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from ring.errors import Conflict, NotFound
from ring.world.interface import World
from storage.object.device import LABEL_PATH, REFILL_PATH, find_label, format_device
from tools.deploy.layout import CloudRecord, Layout, write_file
from tools.deploy.publish import current


async def replace(world: World, layout: Layout, record: CloudRecord, number: int, *, force: bool = False) -> str:
    """The new disk's id.  Conflict, NotFound: nothing was changed."""
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
    if not force:
        _check_mounted(layout, record, root)
    disk_id = str(world.entropy.uuid())
    write_file(layout.disks, msgspec.json.encode({**layout.disk_ids(), number: disk_id}))
    root.chmod(0o700)
    await format_device(disk, record.cluster_id, number, disk_id=disk_id)
    return disk_id


async def trust(world: World, layout: Layout, record: CloudRecord, number: int) -> bool:
    """Its disk is taken for whole at the next start; False when it was that.  The cloud must not run.

    DeviceAway, FormatError as of ``find_label``; OSError: give the command again."""
    disk = world.open_disk(str(layout.device(number)))
    await find_label(disk, record.cluster_id, number, layout.disk_id(number))
    trusted = False
    for folder in ("", *(f"{ring}/" for ring in record.rings)):  # of each storage policy
        if await disk.info(f"{folder}{REFILL_PATH}") is not None:
            await disk.unlink(f"{folder}{REFILL_PATH}")
            trusted = True
    return trusted


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
