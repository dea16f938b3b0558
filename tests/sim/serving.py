"""Serving: a member's device while it is good for something: its engines, what refills it, and its workers, as
tools.deploy.devices and tools.deploy.background have them.

Neighbours: cluster.py (the machine, and how it reaches others), coded.py (the erasure-coded policy's part), ledger.py (watches).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import trio

from ring.daemon.log import Level, Log
from ring.daemon.metrics import Registry
from ring.daemon.pacing import Pacing
from ring.daemon.runner import Runner
from ring.daemon.worker import Worker, once
from ring.device import Device
from ring.errors import RingfortError, Unavailable
from ring.names import Path
from ring.service.agent import Confirmations
from ring.service.keeper import Keeper
from ring.service.overlap import Overlap
from ring.timestamp import Timestamp
from ring.world.interface import World
from storage.client.local import LocalNode
from storage.client.node import Node
from storage.object.auditor import Auditor
from storage.object.device import OpenDevice, clear_refill
from storage.object.filling import DeviceFiller, Mover
from storage.object.health import Change, Reserve
from storage.object.noting import Noter
from storage.object.refill import Refiller, has_lost, memory_of
from storage.object.refill_mark import Memory
from storage.object.settler import Settler
from storage.object.store import ObjectStore
from storage.object.updater import ObjectUpdater
from storage.object.watch import DeviceWatch
from storage.rows.books import Books
from storage.sync.moving import Watcher
from storage.sync.proposal import Proposal
from tests.sim import coded
from tests.sim.rings import HASHER

if TYPE_CHECKING:
    from tests.sim.cluster import Member

CLUSTER_ID = "simulated"
ROOT = "/srv/disk"
LOOK_S = 2.0  # at a device
RESERVE = Reserve(size_bytes=10_000)
AUDIT_AGAIN_S = 5.0
REPLICATE_EVERY_S = 10.0
COMPACT_EVERY_S = 3.0
SETTLE_AFTER_S = 15.0
SEGMENT_BYTES = 8 << 10  # of a pack: small, so that packs are compacted while they are used
RECLAIM_EVERY_S = 4.0


class Serving:
    """In one life of a machine."""

    def __init__(self, member: Member, world: World, keeper: Keeper, confirmations: Confirmations) -> None:
        self._member = member
        self._options = member.cluster.options
        self._world = self._options.world(world)
        self._keeper = keeper
        self._confirmations = confirmations

    async def keep(self) -> None:
        member = self._member
        if member.lost:
            return
        watch = DeviceWatch(
            self._world,
            ROOT,
            CLUSTER_ID,
            member.device.id,
            disk_id=lambda: member.disk_id,
            reserve=RESERVE,
            look_s=LOOK_S,
            note=self._note,
        )
        if self._options.formats_anything:
            await member.take_for_new()
        await watch.keep(self._serve)

    def _note(self, change: Change) -> None:
        self._trace(f"device is {change.after.value}: {change.reason}")

    def _trace(self, line: str) -> None:
        self._member.cluster.simulation.trace(f"{self._member.name} {line}")

    async def _serve(self, opened: OpenDevice, running: Callable[[], None]) -> None:
        member, options, world, keeper = self._member, self._options, self._world, self._keeper
        watched = member.cluster.ledger.watched(options.store)
        store = watched(world, opened, HASHER, segment_bytes_max=SEGMENT_BYTES)
        store.standing.horizon = lambda name: keeper.overlaps[name].horizon
        books = options.books(world, opened, HASHER)
        books.standing.horizon = lambda name: keeper.overlaps[name].horizon
        stores = {0: store}
        try:
            if options.coded is not None:
                stores[coded.POLICY] = await coded.open_part(world, opened, watched, keeper, SEGMENT_BYTES)
            async with trio.open_nursery() as nursery:
                for one in stores.values():
                    await nursery.start(one.run)
                await nursery.start(books.run)
                member.store, member.books, member.coded = store, books, stores.get(coded.POLICY)
                ledger = member.cluster.ledger
                member.trust = ledger.trust(options.trust, member.device.id)(HASHER, refills=await has_lost(stores))
                payer = options.payer(
                    nursery, member.reach, primaries=self._listed_at, claim=lambda: keeper.overlaps["container"].claim
                )
                self._start_workers(nursery, stores, books, await memory_of(stores))
                gate = options.gate(keeper.gate)
                node = ledger.voter(LocalNode)(member.device, store, books, payer, gate, stores=stores, trust=member.trust)
                member.local = member.served[member.device.id] = node
                self._trace(f"serves{' and is to be refilled' * member.trust.waits}, {store.report}")
                running()
        finally:
            member.stop_serving()
            with trio.CancelScope(shield=True):
                for policy, one in stores.items():
                    await one.close()
                    if policy:
                        await one.device.close()
                await books.close()
                await opened.close()

    def _listed_at(self, container: Path) -> list[int]:
        return [device.id for device in self._keeper.overlaps["container"].places(container).devices]

    def _start_workers(self, nursery: trio.Nursery, stores: dict[int, ObjectStore], books: Books, memory: Memory | None) -> None:
        member, options, world, keeper = self._member, self._options, self._world, self._keeper
        device, store, trust = member.device, stores[0], member.trust
        assert trust is not None

        def overlap(name: str) -> Overlap:
            return keeper.overlaps[name]

        def nodes(device: Device) -> Node:
            return member.reach(device.id)

        def clear(edition: int) -> bool:  # what it lacks it cannot have brought anywhere
            return keeper.gate.clear(edition) and not trust.waits

        def watcher(name: str) -> Watcher:
            return Watcher(clear, lambda overlap: self._confirmations.confirm(name, device.id, overlap))

        losses = {policy: one.device.losses for policy, one in stores.items()}

        async def refilled() -> None:
            for policy, one in stores.items():
                await clear_refill(one.device, losses[policy])
            self._trace("is refilled")

        cut = options.settings.pack_cut_bytes
        replicator = options.replicator(
            device,
            store,
            lambda: overlap("object"),
            nodes,
            interval_s=REPLICATE_EVERY_S,
            pack_cut_bytes=cut,
            watcher=watcher("object"),
        )
        book_replicator = options.book_replicator(device, books, overlap, nodes, interval_s=REPLICATE_EVERY_S, watchers=watcher)
        workers: list[Worker] = [
            replicator,
            ObjectUpdater(world, store, lambda: overlap("container"), nodes),
            Settler(store, lambda: overlap("object"), self._settle, interval_s=3.0, age_s=SETTLE_AFTER_S, turn_s=4.0),
            book_replicator,
            options.container_updater(device, books, lambda: overlap("account"), nodes),
            options.compactor(world, store, interval_s=COMPACT_EVERY_S, grace_s=1.0, headroom_bytes=SEGMENT_BYTES),
        ]
        if options.reclaim_age_s:
            workers += self._reclaimers(stores, books, overlap, nodes, clear)
        if limits := options.shards:
            assert member.facade is not None
            sharding = member.facade.sharding
            workers.append(options.sharder(world, device, books, lambda: overlap("container"), sharding, member.kv, limits=limits))
        auditors = [Auditor(world, one) for one in stores.values()]
        movers: dict[str, Mover] = {"object": replicator}
        part = stores.get(coded.POLICY)
        if part is not None:
            assert member.facade is not None
            workers += coded.workers_of(
                options,
                world,
                device,
                part,
                member.facade,
                overlap,
                nodes,
                watcher(coded.RING),
                promise_s=SETTLE_AFTER_S,
                segment_bytes=SEGMENT_BYTES,
            )
            movers[coded.RING] = Noter(part, lambda one: nodes(one).of(coded.POLICY))
        member.fillers[device.id] = DeviceFiller(
            trust, movers, books, book_replicator, lambda number: self._device(number), known=keeper.gate.check_known
        )
        if trust.waits:
            workers.append(Refiller(device.id, trust, lambda: keeper.overlaps, member.filler_of, refilled, memory))
        self._run(nursery, [*workers, *member.further_workers(world, store, books)])
        nursery.start_soon(self._audit, auditors)

    def _reclaimers(
        self,
        stores: dict[int, ObjectStore],
        books: Books,
        overlap: Callable[[str], Overlap],
        nodes: Callable[[Device], Node],
        clear: Callable[[int], bool],
    ) -> list[Worker]:
        options, clock, device, facade = self._options, self._world.clock, self._member.device, self._member.facade
        assert facade is not None
        often = {"interval_s": RECLAIM_EVERY_S, "forget_again_s": 4 * RECLAIM_EVERY_S}
        found: list[Worker] = []

        def proposal(name: str) -> Proposal:
            tell = partial(self._confirmations.clean, name, device.id)
            return Proposal(clock, tell, age_s=options.reclaim_age_s, every_s=5.0)

        for policy, store in stores.items():
            name = coded.RING if policy else "object"
            ring = partial(overlap, name)
            reclaimer = options.reclaimer(
                clock,
                device,
                store,
                ring,
                lambda one, policy=policy: nodes(one).of(policy),  # type: ignore[misc]  # a default binds it
                proposal(name),
                coded=bool(policy),
                clear=clear,
                **often,
            )
            reclaimer.name = reclaimer.name.replace("object", name, 1)
            found.append(reclaimer)
        for kind in ("container", "account"):
            ring, sharding = partial(overlap, kind), facade.sharding
            found.append(
                options.book_reclaimer(
                    kind,
                    clock,
                    device,
                    books,
                    ring,
                    nodes,
                    proposal(kind),
                    sharding.map_of,
                    sharding.listed,
                    clear=clear,
                    **often,
                )
            )
        return found

    def _device(self, number: int) -> Device | None:
        named = {
            device.id: device
            for overlap in self._keeper.overlaps.values()
            for ring in (overlap.settled, overlap.ring)
            for device in ring.devices
            if device is not None
        }
        return named.get(number)

    async def _settle(self, path: Path, ballot: Timestamp) -> None:
        facade = self._member.facade
        if facade is None:
            raise Unavailable(f"{self._member.name} is down")
        await facade.settle_object(0, path)

    def _run(self, nursery: trio.Nursery, workers: Sequence[Worker]) -> None:
        clock = self._world.clock
        log = Log(self._trace, clock, level=Level.WARNING)
        for worker in workers:
            nursery.start_soon(Runner(worker, Pacing(), clock, log, Registry()).run)

    async def _audit(self, auditors: Sequence[Auditor]) -> None:
        """One pass when the faults have ended: it is what finds rot that nobody read; or, of a run with nothing worse, many."""
        await self._member.audit.wait()
        while True:
            try:
                for auditor in auditors:
                    await once(auditor)
            except RingfortError as error:
                self._trace(f"audit: {error}")
            else:
                self._member.audited.set()
                if not self._member.audits_always:
                    return
            await trio.sleep(AUDIT_AGAIN_S)
