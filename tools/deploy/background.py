"""The background workers of a worker process: for each of its devices an auditor, replicators, updaters, an expirer and a
reaper; and the parts sweeper, which one process of the cloud runs."""

from __future__ import annotations

from functools import partial

import trio

from proxy.app import FrontDoor
from ring.daemon.log import Log
from ring.daemon.metrics import Registry
from ring.daemon.pacing import Pacing
from ring.daemon.runner import Roster, Runner
from ring.daemon.worker import Worker
from ring.errors import Unavailable
from ring.policy import Policy
from ring.service.overlap import Overlap
from ring.world.interface import World
from storage.account.reaper import Reaper
from storage.container.replicator import BookReplicator
from storage.container.updater import ContainerUpdater
from storage.object.auditor import Auditor
from storage.object.compaction import Compactor
from storage.object.expirer import Expirer
from storage.object.replicator import ObjectReplicator
from storage.object.store import ObjectStore
from storage.object.updater import ObjectUpdater
from storage.sync.moving import Watcher
from tools.deploy.devices import OwnDevice
from tools.deploy.settings import Background
from tools.deploy.storage import StorageRoom


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
) -> Roster:
    """They run until the nursery is cancelled, or their device is closed; those of a device that comes later too."""
    roster = Roster()

    async def run(own: OwnDevice, ended: trio.Event) -> None:
        try:
            with own.background:
                async with trio.open_nursery() as workers:
                    for worker, pacing in _of_device(world, storage, own, rates):
                        workers.start_soon(roster.run, Runner(worker, pacing, world.clock, log, registry))
        finally:
            ended.set()

    def start(own: OwnDevice) -> None:
        own.background_ended = trio.Event()
        nursery.start_soon(run, own, own.background_ended)

    for own in storage.devices.own.values():
        start(own)
    storage.devices.opened = start
    if sweep:
        pacing = Pacing(items_per_s=rates.sweep_items_per_s)
        nursery.start_soon(roster.run, Runner(front.sweeper, pacing, world.clock, log, registry))
    return roster


def _of_device(world: World, storage: StorageRoom, own: OwnDevice, rates: Background) -> list[tuple[Worker, Pacing]]:
    keeper, device = storage.keeper, own.device
    nodes = storage.devices.node_of

    def overlap(name: str) -> Overlap:
        found = keeper.overlaps.get(name)
        if found is None:  # of a policy that is being added
            raise Unavailable(f"there is no ring {name} yet")
        return found

    def watcher(name: str) -> Watcher:
        return Watcher(keeper.gate.clear, lambda overlap: storage.confirmations.confirm(name, device.id, overlap))

    def repair() -> Pacing:
        return Pacing(items_per_s=rates.repair_items_per_s)

    def of_policy(policy: Policy, store: ObjectStore) -> list[tuple[Worker, Pacing]]:
        ring = partial(overlap, policy.ring_name)
        mover = ObjectReplicator(device, store, ring, lambda one: nodes(one).of(policy.index), watcher=watcher(policy.ring_name))
        movers[policy.ring_name] = mover
        auditor, compactor = Auditor(world, store), Compactor(world, store)
        expirer = Expirer(world, store, ring, partial(storage.client.expire_object, policy.index))
        updater = ObjectUpdater(world, store, partial(overlap, "container"), nodes)
        for worker in (mover, auditor, compactor, expirer, updater):
            worker.name = worker.name.replace("object", policy.ring_name, 1)
        return [
            (auditor, Pacing(bytes_per_s=rates.audit_bytes_per_s)),
            (compactor, Pacing(bytes_per_s=rates.audit_bytes_per_s)),
            (mover, repair()),
            (expirer, repair()),
            (updater, repair()),
        ]

    movers: dict[str, ObjectReplicator] = {}
    objects = [pair for policy in storage.policies for pair in of_policy(policy, own.stores[policy.index])]
    books = BookReplicator(device, own.books, overlap, nodes, watchers=watcher)
    own.progress = lambda name: movers[name].settling if name in movers else books.settling(name)
    return [
        *objects,
        (books, repair()),
        (
            Reaper(world, device, own.books, lambda: overlap("account"), storage.client.reaping, delay_s=rates.reap_delay_s),
            repair(),
        ),
        (ContainerUpdater(device, own.books, lambda: overlap("account"), nodes), repair()),
    ]
