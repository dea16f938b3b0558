"""The devices of this machine, as one worker sees them: its own are opened and served while any ring in force names them; those of
the other workers are asked over the node protocol.

A device that a new ring adds is opened without a restart, one that no ring in force names any more is closed (a ring stays in force
until the one after it has settled, so nothing is on it then).  A device that cannot be used (no label, another's label, I/O errors)
is out of service: its node says Unavailable, and the cloud goes on with the others.  It is opened anew when it is back.

Neighbours: storage (which wires it), background (its workers), ring.service.keeper (which rings), storage.object.watch (when).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import cast

import trio

from ring.daemon.log import Log
from ring.device import Device
from ring.errors import RingfortError, Unavailable
from ring.names import NameHasher, Path
from ring.service.horizon import NO_HORIZON, Horizon
from ring.service.keeper import Keeper
from ring.service.overlap import Claim, Overlap
from ring.world.interface import UnixAddress, World
from storage.client.filling import Filler
from storage.client.local import LocalNode
from storage.client.node import Node
from storage.client.payer import RowPayer
from storage.client.peer import Peer
from storage.client.remote import RemoteNode
from storage.client.remote_filler import RemoteFiller
from storage.client.trust import Trust
from storage.object.device import OpenDevice, clear_refill
from storage.object.health import Change, Health, Reserve, State
from storage.object.policy_device import open_policy
from storage.object.refill import Refiller, has_lost, memory_of
from storage.object.refill_mark import Memory
from storage.object.store import ObjectStore
from storage.object.watch import DeviceWatch
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
    trust: Trust
    losses: Mapping[int, int]  # of each part, as of when it was opened
    memory: Memory | None = None  # of what was brought back, while it is being refilled
    refiller: Refiller | None = None  # likewise
    background: trio.CancelScope = field(default_factory=trio.CancelScope)
    background_ended: trio.Event | None = None  # None: it was not begun
    progress: Progress = lambda name: 0.0  # of the pass by the ring in force, 0 to 1 (confirmed)

    async def refilled(self) -> None:
        """From now on what it lacks counts, also after a restart."""
        for policy, store in self.stores.items():
            await clear_refill(store.device, self.losses[policy])

    async def stop_background(self) -> None:
        self.background.cancel()
        if self.background_ended is not None:
            await self.background_ended.wait()


@dataclass(slots=True)
class _Kept:
    """One of this worker's devices, in service or not."""

    watch: DeviceWatch
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    ended: trio.Event = field(default_factory=trio.Event)


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
        reserve: Reserve | None = None,
    ) -> None:
        self.nodes: dict[int, Node] = {}  # by device id
        self.served: dict[int, Node] = {}  # our own, for the others
        self.fillers: dict[int, Filler] = {}  # our own, likewise
        self.own: dict[int, OwnDevice] = {}  # those that are open
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
        self._reserve = reserve
        self._kept: dict[int, _Kept] = {}  # this worker's, by device id
        self._peers: dict[int, Peer] = {}  # by worker
        self._payer = RowPayer(
            nursery, self.nodes.get, primaries=self._listed_at, claim=lambda: self._keeper.overlaps["container"].claim
        )

    def _listed_at(self, container: Path) -> list[int]:
        """Its primaries."""
        return [device.id for device in self._keeper.overlaps["container"].places(container).devices]

    def node_of(self, device: Device) -> Node:
        node = self.nodes.get(device.id)
        return node if node is not None else cast(Node, OutOfService(device, "it is not in this cloud's folder"))

    def filler_of(self, device_id: int) -> Filler:
        """Unavailable when it is out of service, or nobody's."""
        filler = self.fillers.get(device_id)
        if filler is None:
            peer = self._peers.get(worker_of_device(device_id, self._workers))
            if peer is None:
                raise Unavailable(f"device {device_id} is out of service")
            filler = RemoteFiller(device_id, peer)
        return filler

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
                await self._nursery.start(self._keep, device)
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

    async def _keep(self, device: Device, *, task_status: trio.TaskStatus[None]) -> None:
        """Serve it whenever that is safe; started when it was tried once."""
        kept = _Kept(
            DeviceWatch(
                self._world,
                str(self._layout.device(device.id)),
                self._record.cluster_id,
                device.id,
                disk_id=lambda: self._layout.disk_id(device.id),
                reserve=self._reserve,
                note=lambda change: self._note(device, change),
            )
        )
        self._kept[device.id] = kept
        self._stand_in(device, "it is being opened")
        with kept.scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(kept.watch.keep, partial(self._serve, device))
                await kept.watch.tried()
                task_status.started()
        kept.ended.set()

    async def _serve(self, device: Device, opened: OpenDevice, serves: Callable[[], None]) -> None:
        """Until cancelled; closed then, whatever its disk says to it."""
        books = Books(self._world, opened, self._hasher)
        books.standing.horizon = lambda kind: self._horizon(kind, kind)
        stores: dict[int, ObjectStore] = {}
        own: OwnDevice | None = None
        try:
            for policy in range(len(self._record.policies) + 1):
                stores[policy] = ObjectStore(self._world, await open_policy(self._world, opened, policy), self._hasher)
                stores[policy].removal.notes = bool(policy and self._record.policies[policy - 1].k)
                stores[policy].standing.horizon = partial(self._horizon, f"object-{policy}" if policy else "object")
            async with trio.open_nursery() as nursery:
                for store in stores.values():
                    await nursery.start(store.run)
                await nursery.start(books.run)
                trust = Trust(self._hasher, refills=await has_lost(stores))
                node = LocalNode(device, stores[0], books, self._payer, self._keeper.gate, stores=stores, trust=trust)
                losses = {policy: store.device.losses for policy, store in stores.items()}
                own = OwnDevice(device, opened, stores[0], books, node, stores, trust, losses, await memory_of(stores))
                serves()
                self.own[device.id] = own
                self.nodes[device.id] = self.served[device.id] = node
                self.opened(own)
                await trio.sleep_forever()
        finally:
            self.own.pop(device.id, None)
            self.served.pop(device.id, None)
            self.fillers.pop(device.id, None)
            self._stand_in(device, opened.fault or "it is closed")
            with trio.CancelScope(shield=True):
                if own is not None:
                    await own.stop_background()
                await self._close(device, opened, books, stores)

    def _horizon(self, ring: str, name: str) -> Horizon:
        """``name``: as a store calls its ring."""
        overlap = self._keeper.overlaps.get(ring)
        return NO_HORIZON if overlap is None else overlap.horizon

    async def _close(self, device: Device, opened: OpenDevice, books: Books, stores: Mapping[int, ObjectStore]) -> None:
        parts = [store.device.close for policy, store in stores.items() if policy]
        for close in [*(store.close for store in stores.values()), books.close, *parts, opened.close]:
            try:
                await close()
            except (OSError, RingfortError) as error:  # its file descriptors are gone all the same
                self._log.warning("a device was not closed in order", device=device.id, error=str(error))

    def _stand_in(self, device: Device, reason: str) -> None:
        if device.id in self._kept:
            self.nodes[device.id] = cast(Node, OutOfService(device, reason))  # it answers whatever is asked

    def _note(self, device: Device, change: Change) -> None:
        if change.after is State.OUT:
            self._stand_in(device, change.reason)
            self._log.error("device out of service", device=device.id, reason=change.reason)
        elif change.after is State.IN_SERVICE:
            self._log.info("device in service", device=device.id, before=change.before.value)
        else:
            self._log.warning(f"device {change.after.value}", device=device.id, reason=change.reason)

    def health(self) -> dict[int, Health]:
        """Of this worker's devices, by id."""
        return {device_id: kept.watch.health for device_id, kept in sorted(self._kept.items())}

    async def _let_go(self, device_id: int) -> None:
        kept = self._kept.pop(device_id, None)
        if kept is not None:
            kept.scope.cancel()
            await kept.ended.wait()
            self._log.info("no ring names the device any more: it is closed", device=device_id)
        del self.nodes[device_id]


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

    def fragments(self) -> OutOfService:
        return self

    def __getattr__(self, name: str) -> object:
        async def refuse(*arguments: object, **named: object) -> None:
            raise Unavailable(f"device {self.device.id} is out of service: {self._reason}")

        return refuse
