"""The first run: secrets, rings and formatted devices.  The record is written last; a run that was cut off is begun anew."""

from __future__ import annotations

import base64
import shutil
from collections.abc import Sequence
from pathlib import Path

import msgspec
import trio

from ring.builder.builder import Builder
from ring.builder.builderfile import read_builder, write_builder
from ring.names import NameHasher
from ring.ringfile import write_ring
from ring.world.interface import World
from storage.object.device import format_device
from tools.deploy.layout import Admin, CloudRecord, HashSecrets, Layout, PolicyRecord, sync_folder, write_file

PART_POWER = 10
FOLDERS = ("devices", "rings", "run", "logs", "consoles")


async def create(
    world: World, layout: Layout, *, devices: int, replicas: int, policies: Sequence[PolicyRecord] = ()
) -> CloudRecord:
    """Make DIR a cloud.  OSError as the system gave it."""
    root = layout.root
    if not root.exists():
        root.mkdir(mode=0o755)
        sync_folder(root.parent)
    for leftover in (*(root / name for name in FOLDERS), layout.secrets):
        if leftover.exists():
            shutil.rmtree(leftover)
    write_file(layout.creating, b"")
    for name in FOLDERS:
        (root / name).mkdir(mode=0o755 if name == "consoles" else 0o700)
    record = CloudRecord(
        cluster_id=str(world.entropy.uuid()),
        devices=devices,
        replicas=replicas,
        part_power=PART_POWER,
        policies=tuple(policies),
    )
    hasher = _secrets(world, layout)
    await _rings(world, layout, record, hasher)
    async with trio.open_nursery() as nursery:
        for number in range(devices):
            nursery.start_soon(_format, world, layout.device(number), record.cluster_id, number)
    write_file(layout.record, msgspec.json.encode(record), mode=0o644)
    layout.creating.unlink()
    sync_folder(root)
    return record


def _secrets(world: World, layout: Layout) -> NameHasher:
    layout.secrets.mkdir(mode=0o700)
    for name in ("root.key", "cluster.key"):
        write_file(layout.secrets / name, world.entropy.token(32))
    hashes = HashSecrets(prefix=world.entropy.token(16).hex(), suffix=world.entropy.token(16).hex())
    write_file(layout.secrets / "hash.json", msgspec.json.encode(hashes))
    admin = Admin(
        user="admin",
        password=_word(world, 15),
        project="admin",
        access_key=base64.b32encode(world.entropy.token(13)).decode()[:20],
        secret_key=_word(world, 25),
    )
    write_file(layout.secrets / "admin.json", msgspec.json.encode(admin))
    return NameHasher(bytes.fromhex(hashes.prefix), bytes.fromhex(hashes.suffix))


async def _rings(world: World, layout: Layout, record: CloudRecord, hasher: NameHasher) -> None:
    disk = world.open_disk(str(layout.rings))
    for name in record.rings:
        policy = record.policies[int(name.partition("-")[2]) - 1] if "-" in name else None
        builder = Builder.create(record.part_power, record.replicas if policy is None else policy.replicas, 1)
        for number in range(record.devices):
            builder.add_device(region=1, zone=1, ip="127.0.0.1", port=0, name=f"d{number}", weight=100.0)
        builder.rebalance(int.from_bytes(world.entropy.token(4)), world.clock.now())
        await write_builder(disk, f"{name}.builder", builder)
        await write_ring(disk, f"{name}.ring", builder.ring(hasher))


async def add_policies(world: World, layout: Layout, record: CloudRecord, new: Sequence[PolicyRecord]) -> CloudRecord:
    """A ring each, over the devices of the newest ring ``object``, left where the first worker finds what is to be in force; the
    record is written last."""
    disk = world.open_disk(str(layout.rings))
    await disk.make_dirs(layout.published.name)
    published = f"{layout.published.name}/object.builder"
    model = await read_builder(disk, published if await disk.info(published) is not None else "object.builder")
    after = msgspec.structs.replace(record, policies=(*record.policies, *new))
    for index, policy in enumerate(new, len(record.policies) + 1):
        builder = Builder.create(model.part_power, policy.replicas, 1)
        for device in model.present:
            builder.add_device(
                region=device.region,
                zone=device.zone,
                ip=device.ip,
                port=device.port,
                name=device.name,
                weight=device.weight,
                device_id=device.id,
            )
        builder.rebalance(int.from_bytes(world.entropy.token(4)), world.clock.now())
        name = f"object-{index}"
        ring = builder.ring(NameHasher(b"", b""))  # a ring file holds no secrets
        await write_builder(disk, f"{name}.builder", builder)
        await write_ring(disk, f"{name}.ring", ring)
        await write_ring(disk, f"{layout.published.name}/{name}.ring", ring)
    write_file(layout.record, msgspec.json.encode(after), mode=0o644)
    return after


async def _format(world: World, root: Path, cluster_id: str, number: int) -> None:
    root.mkdir(mode=0o700, exist_ok=True)
    await format_device(world.open_disk(str(root)), cluster_id, number)


def _word(world: World, entropy_bytes: int) -> str:
    """Letters and digits that no shell or URL needs quoted."""
    return base64.b32encode(world.entropy.token(entropy_bytes)).decode().rstrip("=").lower()
