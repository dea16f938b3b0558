"""The devices of a worker, served to the machine's other workers, and this worker's view of all of them as one Storage.

All devices of a worker share one socket, so that the questions of one wakeup to one worker travel in one message.  A device that
cannot be opened (no label, another's label, an I/O error) is out of service: its node says Unavailable, and the cloud goes on with
the others.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import msgspec
import trio

from ring.daemon.log import Log
from ring.device import Device
from ring.errors import RingfortError, Unavailable
from ring.kv.local import FILE as LOG_FILE
from ring.kv.local import LOGS_MAX
from ring.names import NameHasher
from ring.ringfile import read_ring
from ring.service.overlap import Overlap
from ring.timestamp import TimestampSource
from ring.world.interface import Disk, UnixAddress, World
from storage.client.cluster import ClusterStorage
from storage.client.local import LocalNode
from storage.client.node import Node
from storage.client.payer import RowPayer
from storage.client.peer import Peer
from storage.client.reach import Rings
from storage.client.remote import RemoteNode
from storage.client.server import NodeServer
from storage.object.device import LABEL_PATH, OpenDevice, open_device
from storage.object.store import ObjectStore
from storage.rows.books import Books
from tools.deploy.layout import CloudRecord, HashSecrets, Layout, read_secret

LOG_FOLDER = "kv"  # of control state, in a device's root


@dataclass(slots=True)
class OwnDevice:
    device: Device
    opened: OpenDevice
    store: ObjectStore
    books: Books
    node: LocalNode


@dataclass(slots=True)
class StorageRoom:
    client: ClusterStorage
    rings: Rings
    timestamps: TimestampSource
    own: dict[int, OwnDevice] = field(default_factory=dict)
    out_of_service: dict[int, str] = field(default_factory=dict)  # device id: why
    peers: dict[int, Peer] = field(default_factory=dict)  # by worker
    nodes: dict[int, Node] = field(default_factory=dict)  # by device id

    async def close(self) -> None:
        """After the nursery they ran in has ended."""
        for own in self.own.values():
            await own.store.close()
            await own.books.close()
            await own.opened.close()


def worker_of_device(device_id: int, workers: int) -> int:
    return device_id % workers


async def control_disks(world: World, layout: Layout, record: CloudRecord) -> list[Disk]:
    """Where the logs of control state are: on the first devices.

    Unavailable when no log is there and devices are missing: then the disks that hold them are not mounted, and a control state
    that begins anew would have forgotten every user and bucket."""
    disks = [world.open_disk(str(layout.device(number))) for number in range(min(LOGS_MAX, record.devices))]
    if any([await _is_there(disk, f"{LOG_FOLDER}/{LOG_FILE}") for disk in disks]):
        return disks
    missing = [disk.root for disk in disks if not await _is_there(disk, LABEL_PATH)]
    if missing:
        raise Unavailable(f"no control-state log is there, and {missing[0]} is not a device", hint="are its disks mounted?")
    return disks


async def _is_there(disk: Disk, path: str) -> bool:
    try:
        return await disk.info(path) is not None
    except OSError:
        return False


def load_hasher(layout: Layout) -> NameHasher:
    secrets = msgspec.json.decode(read_secret(layout.secrets / "hash.json"), type=HashSecrets)
    return NameHasher(bytes.fromhex(secrets.prefix), bytes.fromhex(secrets.suffix))


async def start_storage(
    nursery: trio.Nursery, world: World, layout: Layout, record: CloudRecord, log: Log, *, worker: int, workers: int
) -> StorageRoom:
    """Open this worker's devices and serve them.  The other workers are asked when they are needed; they may start later."""
    hasher = load_hasher(layout)
    secret = read_secret(layout.secrets / "cluster.key")
    disk = world.open_disk(str(layout.rings))
    rings = Rings.of(
        {name: Overlap.of(await read_ring(disk, f"{name}.ring", hasher)) for name in ("account", "container", "object")}
    )
    devices = {device.id: device for device in rings.objects[0].ring.devices if device is not None}
    timestamps = TimestampSource(world.clock)
    nodes: dict[int, Node] = {}

    def node_of(device: Device) -> Node:
        try:
            return nodes[device.id]
        except KeyError:
            raise Unavailable(f"device {device.id} is not in this cloud's folder") from None

    client = ClusterStorage(world, nursery, rings, node_of, timestamps)
    room = StorageRoom(client, rings, timestamps, nodes=nodes)
    payer = RowPayer(nursery, nodes.get)
    own_nodes: dict[int, Node] = {}
    for device in devices.values():
        owner = worker_of_device(device.id, workers)
        if owner != worker:
            if owner not in room.peers:
                room.peers[owner] = Peer(world, nursery, UnixAddress(layout.node_socket(owner)), secret)
            nodes[device.id] = RemoteNode(device, room.peers[owner])
            continue
        try:
            own = await _open(nursery, world, layout.device(device.id), record, device, hasher, payer)
        except RingfortError as error:
            log.failure("device out of service", error, device=device.id)
            room.out_of_service[device.id] = error.message
            nodes[device.id] = cast(Node, OutOfService(device, error.message))  # it answers whatever is asked
            continue
        room.own[device.id] = own
        nodes[device.id] = own_nodes[device.id] = own.node
    listener = await world.net.listen(UnixAddress(layout.node_socket(worker)))
    await nursery.start(NodeServer(world, own_nodes, secret).serve, listener)
    return room


async def _open(
    nursery: trio.Nursery, world: World, root: Path, record: CloudRecord, device: Device, hasher: NameHasher, payer: RowPayer
) -> OwnDevice:
    opened = await open_device(world, str(root), record.cluster_id, device.id)
    store = ObjectStore(world, opened, hasher)
    books = Books(world, opened, hasher)
    await nursery.start(store.run)
    await nursery.start(books.run)
    return OwnDevice(device, opened, store, books, LocalNode(device, store, books, payer))


class OutOfService:
    """Stands for a device that cannot be used: every question is answered with Unavailable."""

    def __init__(self, device: Device, reason: str) -> None:
        self.device = device
        self._reason = reason

    def __getattr__(self, name: str) -> object:
        async def refuse(*arguments: object, **named: object) -> None:
            raise Unavailable(f"device {self.device.id} is out of service: {self._reason}")

        return refuse
