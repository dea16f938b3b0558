"""Publish: put a new ring into a cloud's folder, from where its first worker brings it into force; and see how far that is.

Decides whether a builder's ring may follow the one in force: the same ring's (its builder's id), a newer version, devices that
this machine can open.  Never touches the edition: that is the worker's (ring.service.agent).  Neighbours: tools.cli.ring.publish
(words; asks), ring_status (what workers say), layout.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from ring.builder.builder import Builder
from ring.builder.builderfile import decode_builder, encode_builder
from ring.errors import BadInput, Conflict, NotFound
from ring.kv.local import LOGS_MAX
from ring.names import NameHasher
from ring.placement import Ring
from ring.ringfile import decode, encode
from ring.service.edition import decode as decode_edition
from ring.service.edition import file_name
from ring.service.keeper import EDITION
from ring.service.overlap import Overlap
from ring.service.voters import majority_of
from ring.world.interface import World
from storage.object.device import LABEL_PATH, format_device
from tools.deploy.layout import RINGS, CloudRecord, Layout
from tools.deploy.ring_status import WorkerRings

NO_SECRETS = NameHasher(b"", b"")  # a ring file holds none
TAKE_UP_S = 60.0
LOOK_S = 0.25


@dataclass(frozen=True, slots=True)
class Movement:
    """From the ring in force to the one that is published."""

    partitions: int
    moved: int  # partitions with other devices than before
    replicas: int  # that go to another device
    far: int  # partitions that keep fewer than a majority of their devices

    @classmethod
    def between(cls, old: Ring, new: Ring) -> Movement:
        overlap = Overlap(new, old)
        moved = replicas = far = 0
        for number in overlap.moved():
            before = {d.id for d in old.primaries(number >> (overlap.finest - old.part_power))}
            after = {d.id for d in new.primaries(number >> (overlap.finest - new.part_power))}
            moved += 1
            replicas += len(after - before)
            far += len(after & before) < majority_of(len(before))
        return cls(1 << overlap.finest, moved, replicas, far)


@dataclass(frozen=True, slots=True)
class Published:
    name: str
    version: int
    before: int  # the version that was in force
    movement: Movement
    formatted: tuple[int, ...]  # devices
    control: tuple[int, ...]  # devices that leave the ring, and still have a log of control state


def open_cloud(layout: Layout) -> CloudRecord:
    record = layout.read_record()
    if record is None:
        raise NotFound(f"{layout.root} is not a cloud", hint="name its folder: --data DIR")
    return record


def name_of(stem: str, given: str, rings: Sequence[str] = RINGS) -> str:
    """Which of the cloud's rings is meant."""
    name = given or stem
    if name not in rings:
        known = ", ".join(rings)
        raise BadInput(f"this cloud has no ring {name}", hint=f"--as NAME says which of {known} FILE is for")
    return name


async def current(world: World, layout: Layout, name: str) -> Ring:
    """The ring in force; before the first start, the one that the cloud was made with."""
    disk = world.open_disk(str(layout.rings))
    edition_path = f"{layout.in_force.name}/{EDITION}"
    if await disk.info(edition_path) is None:
        return decode(await disk.read_file(f"{name}.ring"), NO_SECRETS)
    newest = decode_edition(await disk.read_file(edition_path)).rings[name].newest
    return decode(await disk.read_file(f"{layout.in_force.name}/{file_name(name, newest.version)}"), NO_SECRETS)


async def publish(
    world: World, layout: Layout, name: str, builder: Builder, *, force: bool = False, format_new: bool = False
) -> Published | None:
    """None when this very ring is in force, or waits to be.  Conflict, BadInput, NotFound: nothing was changed then."""
    record = open_cloud(layout)
    layout.published.mkdir(exist_ok=True)
    with _alone(layout):
        return await _publish(world, layout, record, name, builder, force=force, format_new=format_new)


@contextmanager
def _alone(layout: Layout) -> Iterator[None]:
    """One publishes at a time: an older ring must not be put over a newer one that was just put there."""
    folder = os.open(layout.published, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


async def _publish(
    world: World, layout: Layout, record: CloudRecord, name: str, builder: Builder, *, force: bool, format_new: bool
) -> Published | None:
    ring = builder.ring(NO_SECRETS)
    data = encode(ring)
    old = await current(world, layout, name)
    disk = world.open_disk(str(layout.rings))
    folder = layout.published.name
    waiting = await disk.read_file(f"{folder}/{name}.ring") if await disk.info(f"{folder}/{name}.ring") is not None else None
    last = old if waiting is None else max(old, decode(waiting, NO_SECRETS), key=lambda r: r.version)
    if data in (waiting, encode(old)) and ring.version == last.version:
        return None
    if ring.version <= last.version:
        what = "an older one" if ring.version < last.version else "another ring of that version"
        raise Conflict(
            f"version {last.version} of ring {name} is in force or published, and this is {what} (version {ring.version})",
            hint="nodes never go back: make the change in the newest builder, so that its version grows",
        )
    await _check_lineage(world, layout, name, builder, force=force)
    formatted = await _check_devices(world, layout, record, ring, format_new=format_new)
    movement = await world.offload.run(Movement.between, old, ring)
    await disk.replace_file(f"{folder}/{name}.builder", encode_builder(builder))
    await disk.replace_file(f"{folder}/{name}.ring", data)
    leaving = Overlap.of(old).holders - {device.id for device in ring.devices if device is not None}
    control = tuple(sorted(leaving & set(range(min(LOGS_MAX, record.devices)))))
    return Published(name, ring.version, old.version, movement, formatted, control)


async def _check_lineage(world: World, layout: Layout, name: str, builder: Builder, *, force: bool) -> None:
    disk = world.open_disk(str(layout.rings))
    for path in (f"{layout.published.name}/{name}.builder", f"{name}.builder"):
        if await disk.info(path) is None:
            continue
        known = decode_builder(await disk.read_file(path))
        if known.id != builder.id and not force:
            raise Conflict(
                f"the ring {name} in force was made by another builder ({known.id or 'without an id'}, not {builder.id or 'none'})",
                hint=f"go on with {layout.rings / path}; --force puts this one in its place, and moves what it places elsewhere",
            )
        return


async def _check_devices(world: World, layout: Layout, record: CloudRecord, ring: Ring, *, format_new: bool) -> tuple[int, ...]:
    """Every device with a replica is a formatted folder of this cloud.  Those that were formatted now."""
    missing = []
    for device_id in sorted(Overlap.of(ring).holders):
        disk = world.open_disk(str(layout.device(device_id)))
        if await disk.info(LABEL_PATH) is None:
            missing.append(device_id)
    if missing and not format_new:
        names = ", ".join(str(layout.device(device_id)) for device_id in missing)
        raise Conflict(
            f"the ring names devices that have no formatted folder here: {names}",
            hint="mount their disks there, and give --format to make them devices of this cloud",
        )
    for device_id in missing:
        _check_name(layout, ring, device_id)
    for device_id in missing:
        root = layout.device(device_id)
        await world.open_disk(str(root.parent)).make_dirs(root.name)
        root.chmod(0o700)
        await format_device(world.open_disk(str(root)), record.cluster_id, device_id)
    return tuple(missing)


def _check_name(layout: Layout, ring: Ring, device_id: int) -> None:
    """A ring may name its devices as it likes, but a name that looks like another folder here is one: its disk is mounted there."""
    device = next(device for device in ring.devices if device is not None and device.id == device_id)
    root = layout.device(device_id)
    if device.name != root.name and (root.parent / device.name).is_dir():
        raise Conflict(
            f"the ring names its device {device_id} {device.name}, but its folder here would be {root}",
            hint=f"folders go by ids: mount its disk at {root}, and call it {root.name}",
        )


# ---- how far it is


def taken_up(states: Sequence[WorkerRings | None], name: str, version: int) -> int:
    """How many workers have this version in force."""
    return sum(state is not None and name in state.rings and state.rings[name].version >= version for state in states)


def settled_share(states: Sequence[WorkerRings | None], name: str, version: int) -> float:
    """0 to 1: how far the devices are with bringing everything where this version says."""
    parts: list[float] = []
    for state in states:
        ring = state.rings.get(name) if state is not None else None
        if ring is not None:
            parts += ring.devices.values() if ring.version >= version else [0.0] * len(ring.devices)
    return sum(parts) / len(parts) if parts else 1.0
