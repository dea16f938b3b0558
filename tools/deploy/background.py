"""The background workers of a worker process: for each of its devices an auditor, replicators and updaters; and the parts sweeper,
which
one process of the cloud runs."""

from __future__ import annotations

from collections.abc import Callable

import trio

from proxy.app import FrontDoor
from ring.daemon.log import Log
from ring.daemon.metrics import Registry
from ring.daemon.pacing import Pacing
from ring.daemon.worker import Worker, run_worker
from ring.device import Device
from ring.errors import Unavailable
from ring.service.overlap import Overlap
from ring.world.interface import World
from storage.client.node import Node
from storage.container.replicator import BookReplicator
from storage.container.updater import ContainerUpdater
from storage.object.auditor import Auditor
from storage.object.replicator import ObjectReplicator
from storage.object.updater import ObjectUpdater
from tools.deploy.settings import Background
from tools.deploy.storage import OwnDevice, StorageRoom


def start_background(
    nursery: trio.Nursery,
    world: World,
    storage: StorageRoom,
    front: FrontDoor,
    log: Log,
    registry: Registry,
    *,
    rates: Background,
    sweep: bool,
) -> None:
    """They run until the nursery is cancelled."""
    for own in storage.own.values():
        for worker, pacing in _of_device(world, storage, own, rates):
            nursery.start_soon(run_worker, worker, pacing, log, registry)
    if sweep:
        nursery.start_soon(run_worker, front.sweeper, Pacing(items_per_s=rates.sweep_items_per_s), log, registry)


def _of_device(world: World, storage: StorageRoom, own: OwnDevice, rates: Background) -> list[tuple[Worker, Pacing]]:
    rings = storage.rings
    device = own.device
    nodes = _resolver(storage)

    def book_ring(kind: str) -> Overlap:
        return rings.account if kind == "account" else rings.container

    def repair() -> Pacing:
        return Pacing(items_per_s=rates.repair_items_per_s)

    return [
        (Auditor(world, own.store), Pacing(bytes_per_s=rates.audit_bytes_per_s)),
        (ObjectReplicator(device, own.store, lambda: rings.objects[0], nodes), repair()),
        (BookReplicator(device, own.books, book_ring, nodes), repair()),
        (ObjectUpdater(world, own.store, lambda: rings.container, nodes), repair()),
        (ContainerUpdater(device, own.books, lambda: rings.account, nodes), repair()),
    ]


def _resolver(storage: StorageRoom) -> Callable[[Device], Node]:
    def node_of(device: Device) -> Node:
        try:
            return storage.nodes[device.id]
        except KeyError:
            raise Unavailable(f"device {device.id} is not in this cloud's folder") from None

    return node_of
