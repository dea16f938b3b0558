"""The devices of this machine, as one worker sees them: its own are opened and served while any ring in force names them; those of
the other workers are asked over the node protocol.

A device that a new ring adds is opened without a restart, one that no ring in force names any more is closed (a ring stays in force
until the one after it has settled, so nothing is on it then).  A device that cannot be opened (no label, another's label, an I/O
error) is out of service: its node says Unavailable, and the cloud goes on with the others.

Neighbours: storage (which wires it), background (its workers), ring.service.keeper (which rings).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

import trio

from ring.daemon.log import Log
from ring.device import Device
from ring.errors import RingfortError, Unavailable
from ring.names import NameHasher
from ring.service.keeper import Keeper
from ring.service.overlap import Claim, Overlap
from ring.world.interface import UnixAddress, World
from storage.client.local import LocalNode
from storage.client.node import Node
from storage.client.payer import RowPayer
from storage.client.peer import Peer
from storage.client.remote import RemoteNode
from storage.object.device import OpenDevice, open_device
from storage.object.policy_device import open_policy
from storage.object.store import ObjectStore
from storage.rows.books import Books
from tools.deploy.layout import CloudRecord, Layout

Progress = Callable[[str], float]


@dataclass(slots=True)
class OwnDevice:
    device: Device
    opened: OpenDevice
    store: ObjectStore  # of policy 0
    books: Books
    node: LocalNode
    stores: dict[int, ObjectStore]  # by policy, the first one included
    serving: trio.CancelScope = field(default_factory=trio.CancelScope)
    background: trio.CancelScope = field(default_factory=trio.CancelScope)
    background_ended: trio.Event | None = None  # None: it was not begun
    progress: Progress = lambda name: 0.0  # of the pass by the ring in force, 0 to 1 (confirmed)

    async def close(self) -> None:
        for store in self.stores.values():
            await store.close()
        await self.books.close()
        for policy, store in self.stores.items():
            if policy:
                await store.device.close()
        await self.opened.close()


def worker_of_device(device_id: int, workers: int) -> int:
    return device_id % workers


class Devices:
    """``nursery`` runs the devices and the connections to other workers, and must outlive their users."""

    def __init__(
        self,
        nursery: trio.Nursery,
        world: World,
        layout: Layout,
        record: CloudRecord,
        hasher: NameHasher,
        secret: bytes,
        keeper: Keeper,
        log: Log,
        *,
        worker: int,
        workers: int,
    ) -> None:
        self.nodes: dict[int, Node] = {}  # by device id
        self.served: dict[int, Node] = {}  # our own, for the others
        self.own: dict[int, OwnDevice] = {}
        self.out_of_service: dict[int, str] = {}  # device id: why
        self.opened: Callable[[OwnDevice], None] = lambda own: None  # told of each device that is opened from now on
        self._nursery = nursery
        self._world = world
        self._layout = layout
        self._record = record
        self._hasher = hasher
        self._secret = secret
        self._keeper = keeper
        self._log = log
        self._worker = worker
        self._workers = workers
        self._peers: dict[int, Peer] = {}  # by worker
        self._payer = RowPayer(nursery, self.nodes.get)

    def node_of(self, device: Device) -> Node:
        node = self.nodes.get(device.id)
        return node if node is not None else cast(Node, OutOfService(device, "it is not in this cloud's folder"))

    async def bring_up(self) -> None:
        """Make it as the rings in force say."""
        named = devices_named(list(self._keeper.overlaps.values()))
        for device_id in sorted(self.nodes.keys() - named.keys()):
            await self._let_go(device_id)
        for device_id, device in sorted(named.items()):
            if device_id in self.nodes:
                continue
            owner = worker_of_device(device_id, self._workers)
            if owner == self._worker:
                await self._nursery.start(self._serve, device)
            else:
                if owner not in self._peers:
                    address = UnixAddress(self._layout.node_socket(owner))
                    self._peers[owner] = Peer(self._world, self._nursery, address, self._secret, ring_version=self.edition)
                self.nodes[device_id] = RemoteNode(device, self._peers[owner])

    async def follow(self) -> None:
        """Until cancelled: as each new edition says."""
        done = 0
        while True:
            changed = self._keeper.changed
            if self.edition() != done:
                done = self.edition()
                await self.bring_up()
            await changed.wait()

    def edition(self) -> int:
        return self._keeper.edition.number

    async def _serve(self, device: Device, *, task_status: trio.TaskStatus[None]) -> None:
        try:
            root = str(self._layout.device(device.id))
            opened = await open_device(self._world, root, self._record.cluster_id, device.id)
            books = Books(self._world, opened, self._hasher)
            stores: dict[int, ObjectStore] = {}
            for policy in range(len(self._record.policies) + 1):
                part = await open_policy(self._world, opened, policy)
                stores[policy] = ObjectStore(self._world, part, self._hasher)
            node = LocalNode(device, stores[0], books, self._payer, self._keeper.gate, stores=stores)
            own = OwnDevice(device, opened, stores[0], books, node, stores)
            with own.serving:
                async with trio.open_nursery() as nursery:
                    for store in stores.values():
                        await nursery.start(store.run)
                    await nursery.start(books.run)
                    self.own[device.id] = own
                    self.nodes[device.id] = self.served[device.id] = node
                    self.opened(own)
                    task_status.started()
                    await trio.sleep_forever()
            await own.close()
        except RingfortError as error:
            if device.id in self.own:
                raise
            self._log.failure("device out of service", error, device=device.id)
            self.out_of_service[device.id] = error.message
            self.nodes[device.id] = cast(Node, OutOfService(device, error.message))  # it answers whatever is asked
            task_status.started()

    async def _let_go(self, device_id: int) -> None:
        del self.nodes[device_id]
        self.served.pop(device_id, None)
        self.out_of_service.pop(device_id, None)
        own = self.own.pop(device_id, None)
        if own is None:
            return
        own.background.cancel()
        if own.background_ended is not None:
            await own.background_ended.wait()
        own.serving.cancel()
        self._log.info("no ring names the device any more: it is closed", device=device_id)

    async def close(self) -> None:
        """After the nursery they ran in has ended."""
        for own in self.own.values():
            await own.close()


def devices_named(overlaps: list[Overlap]) -> dict[int, Device]:
    """Every device of a ring in force, or of the settled one before it."""
    rings = [ring for overlap in overlaps for ring in (overlap.settled, overlap.ring)]
    return {device.id: device for ring in rings for device in ring.devices if device is not None}


class OutOfService:
    """Stands for a device that cannot be used: every question is answered with Unavailable."""

    def __init__(self, device: Device, reason: str) -> None:
        self.device = device
        self._reason = reason

    def under(self, claim: Claim | None) -> OutOfService:
        return self

    def of(self, policy: int) -> OutOfService:
        return self

    def __getattr__(self, name: str) -> object:
        async def refuse(*arguments: object, **named: object) -> None:
            raise Unavailable(f"device {self.device.id} is out of service: {self._reason}")

        return refuse
