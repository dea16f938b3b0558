"""What a worker says of its devices, on its own socket and in its metrics: state, why and since when, room, what is on its way.

Neighbours: worker (serves it), devices (knows), tools.cli.node (asks and prints).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec
import trio

from ring.daemon.metrics import Registry
from ring.errors import DiskFault
from ring.wire.message import Handler, Headers, Request, Response
from ring.world.interface import World
from storage.object.health import Health, State
from storage.object.refill import Want
from tools.deploy.devices import Devices, OwnDevice
from tools.deploy.storage import StorageRoom

DEVICES_PATH = "/devices"
PARTITIONS_SHOWN = 8


class Lacking(msgspec.Struct, frozen=True):
    """Partitions of which a device was asked for its word, and did not give it (yet)."""

    device: int
    ring: str
    part_power: int
    count: int
    partitions: tuple[int, ...]  # the first ones


class Refilling(msgspec.Struct, frozen=True):
    """A device that lost what it held, on its way to be trusted again."""

    done: float  # 0.0 to 1.0
    eta_s: float | None
    waits_for: tuple[int, ...] = ()  # devices that do not answer, and are needed
    lacks: tuple[Lacking, ...] = ()


class DeviceState(msgspec.Struct, frozen=True):
    id: int
    state: str  # storage.object.health.State
    reason: str
    since: float  # seconds since 1970; of the worker's start, when it was so then
    total_bytes: int | None  # None: it was not looked at yet
    free_bytes: int | None
    reserve_bytes: int | None  # of the free ones, those that clients cannot have
    objects: int | None  # versions that it holds, tombstones included; None: it is out
    quarantined: int | None  # since it was opened
    leaving: dict[str, float]  # by ring that gives it nothing any more: how much is where it belongs now, 0.0 to 1.0
    refilling: Refilling | None = None
    disk_id: str = ""  # of the disk that is open, when it took another's place


class WorkerDevices(msgspec.Struct, frozen=True):
    worker: int
    devices: list[DeviceState]


def state_of(world: World, worker: int, storage: StorageRoom) -> WorkerDevices:
    now = trio.current_time()
    found = []
    for number, health in storage.devices.health().items():
        own = storage.devices.own.get(number)
        space = health.space
        found.append(
            DeviceState(
                id=number,
                state=health.state.value,
                reason=health.reason,
                since=round(world.clock.now() - (now - health.since), 3),
                total_bytes=None if space is None else space.total_bytes,
                free_bytes=None if space is None else space.free_bytes,
                reserve_bytes=None if space is None else health.reserve.of(space.total_bytes),
                objects=_objects(own),
                quarantined=None if own is None else sum(store.quarantined for store in own.stores.values()),
                leaving=_leaving(storage, number, own),
                refilling=_refilling(own),
                disk_id="" if own is None else own.opened.label.disk_id,
            )
        )
    return WorkerDevices(worker, found)


def _objects(own: OwnDevice | None) -> int | None:
    if own is None:
        return None
    try:
        return sum(store.device.tables.count("index") for store in own.stores.values())
    except (OSError, DiskFault):
        return None


def _refilling(own: OwnDevice | None) -> Refilling | None:
    if own is None or not own.trust.waits:
        return None
    refiller = own.refiller
    if refiller is None or refiller.plan is None:
        return Refilling(0.0, None)
    lacks = [
        Lacking(peer, ring, power, len(numbers), tuple(sorted(numbers)[:PARTITIONS_SHOWN]))
        for peer, wants in sorted(refiller.plan.lacking().items())
        for (ring, power), numbers in sorted(_by_ring(wants).items())
    ]
    return Refilling(round(refiller.progress().fraction or 0.0, 4), refiller.eta_s, refiller.waits_for, tuple(lacks))


def _by_ring(wants: Iterable[Want]) -> dict[tuple[str, int], set[int]]:
    found: dict[tuple[str, int], set[int]] = {}
    for want in wants:
        found.setdefault((want.ring, want.span.part_power), set()).add(want.span.partition)
    return found


def standoffs(devices: Sequence[DeviceState]) -> list[str]:
    """Devices that are being refilled and wait for each other, a line for each pair: which partitions, and what can be done.
    Nobody but a person can: what both had acknowledged may have been on their lost disks only."""
    filling = {device.id: device.refilling for device in devices if device.refilling is not None}
    found = []
    for one, refilling in sorted(filling.items()):
        for other in sorted(number for number in filling if number > one):
            back = {lack.ring for lack in filling[other].lacks if lack.device == one}
            lacks = [lack for lack in refilling.lacks if lack.device == other and lack.ring in back]
            if lacks:
                count = sum(lack.count for lack in lacks)
                which = "; ".join(f"{lack.ring} {' '.join(map(str, lack.partitions))}{_more(lack)}" for lack in lacks)
                found.append(
                    f"d{one} and d{other} are both being refilled, and wait for each other with {count} partitions ({which}): "
                    "what only their old disks held is not to be had; "
                    f"to go on without it, ringfort node trust d{one} --without d{other}"
                )
    return found


def _more(lack: Lacking) -> str:
    return "" if lack.count == len(lack.partitions) else " ..."


def _leaving(storage: StorageRoom, number: int, own: OwnDevice | None) -> dict[str, float]:
    """Rings that the device held a part of, and that are not settled without it yet."""
    return {
        name: 0.0 if own is None else round(own.progress(name), 4)
        for name, overlap in sorted(storage.keeper.overlaps.items())
        if overlap.moving
        and any(number in row for row in overlap.settled.table)
        and all(number not in row for row in overlap.ring.table)
    }


def devices_handler(world: World, worker: int, storage: StorageRoom) -> Handler:
    async def handle(request: Request) -> Response:
        body = msgspec.json.encode(state_of(world, worker, storage))
        return Response(200, Headers([("Content-Type", "application/json")]), body)

    return handle


def unwell(health: Mapping[int, Health]) -> str:
    """What is wrong with devices; "" when nothing is."""
    return "; ".join(f"d{number} is {one.state.value}: {one.reason}" for number, one in health.items() if one.reason)


def follow_devices(registry: Registry, devices: Devices) -> None:
    """Numbers by state: the workers' are added up, so each counts its own devices."""
    states = registry.gauge("ringfort_devices", "Devices of this machine by what they are good for.", ["state"])

    def count(state: State) -> Callable[[], float]:
        return lambda: sum(health.state is state for health in devices.health().values())

    for state in State:
        states.follow(count(state), state.value)
