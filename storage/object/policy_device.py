"""The part of a device that holds the objects of one more storage policy: a folder ``object-N`` in its root, laid out as a device
is, with packs, files and tables of its own.

Policy 0's objects lie in the device's root.  Those of another policy lie apart, because each policy has a ring of its own: the
same range of hashes is another partition with other primaries there, so nothing that counts, compares or drops what a partition
holds may mix them.  All that works on a device works on this as it is.  The price is a log, and so a sync, for each policy that
is written to.

It shares the device's health: what takes one out of service takes out all.  It is made when it is first wanted, and a mark in the
root then says that it was: if it is missing after that it is out of service; it is not taken for empty.

Neighbours: device.py (labels, formatting), store.py (runs on it).  Format: docs/formats/device-label.md.
"""

from __future__ import annotations

import errno

from ring.world.interface import Disk, World
from storage.object.device import LABEL_PATH, OpenDevice, format_device, open_device
from storage.object.errors import DeviceOutOfService


async def open_policy(world: World, device: OpenDevice, policy: int) -> OpenDevice:
    """The device's part for a policy; for policy 0 the device itself.

    DeviceOutOfService when it was there and is not, or cannot be made; FormatError as of a device."""
    assert policy >= 0
    if policy == 0:
        return device
    name = f"object-{policy}"
    mark = f"{name}.made"
    root = f"{device.disk.root}/{name}"
    disk = world.open_disk(root)
    try:
        made = await device.disk.info(mark) is not None
        if not await _has_label(disk):
            if made:
                raise DeviceOutOfService(
                    f"{root} is gone, or has no label", hint="restore it; or replace the device, so that it is filled anew"
                )
            await disk.make_dirs("")
            await format_device(disk, device.label.cluster_id, device.device_id)
        if not made:
            await device.disk.replace_file(mark, b"")
    except OSError as error:
        raise DeviceOutOfService(f"{root} cannot be made: {error.strerror or error}") from error
    return await open_device(world, root, device.label.cluster_id, device.device_id, health=device.health)


async def _has_label(disk: Disk) -> bool:
    """Where it keeps to a folder that is there no more (the disk was replaced, or is mounted anew), it goes on with the one that is
    there now: the device's root was found to be the right one.  OSError."""
    try:
        return await disk.info(LABEL_PATH) is not None
    except OSError as error:
        if error.errno != errno.ENODEV:
            raise
    try:
        await disk.anchor()
    except FileNotFoundError:
        return False
    return await disk.info(LABEL_PATH) is not None
