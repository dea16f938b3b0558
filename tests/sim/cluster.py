"""A simulated cluster: members (machines) with devices, each with the production storage engines, a facade and the workers.

Every member is a front door too: clients (workload.py) ask any of them.  A member's ``run`` is its init system: it starts what a
machine runs, and starts it again after a crash once the nemesis lets it.

    Member   one machine: its SimNode, its open devices, its facade, its rings
    Cluster  all of them, and how one reaches another (DirectNode, or the node protocol)
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial

import trio

from ring.daemon.log import Level, Log
from ring.daemon.metrics import Registry
from ring.daemon.pacing import Pacing
from ring.daemon.runner import Runner
from ring.daemon.worker import Worker, once
from ring.device import Device
from ring.errors import Conflict, RingfortError, Unavailable
from ring.kv.interface import KV
from ring.kv.memory import MemoryKV
from ring.names import Path
from ring.ringfile import encode
from ring.service.agent import AgentSettings, Confirmations, RingAgent
from ring.service.follow import Renewal
from ring.service.horizon import closed_at
from ring.service.keeper import Keeper
from ring.service.overlap import Overlap, RingSource
from ring.service.register import Register
from ring.timestamp import TimestampSource
from ring.world.interface import TcpAddress, World
from ring.world.sim import SimNode, Simulation
from storage.client.cluster import ClusterStorage
from storage.client.local import LocalNode
from storage.client.node import Node
from storage.client.peer import Peer, PeerLimits
from storage.client.reach import Rings
from storage.client.remote import RemoteNode
from storage.client.server import NodeServer
from storage.object.auditor import Auditor
from storage.object.device import OpenDevice, format_device
from storage.object.health import Change, Reserve
from storage.object.settler import Settler
from storage.object.store import ObjectStore
from storage.object.updater import ObjectUpdater
from storage.object.watch import DeviceWatch
from storage.rows.books import Books
from storage.sync.moving import Watcher
from storage.sync.proposal import Proposal
from tests.sim import coded
from tests.sim.control import HostedKV, SharedKV
from tests.sim.direct import Answer, DirectNode
from tests.sim.door import serve_door
from tests.sim.ledger import Ledger
from tests.sim.options import Options
from tests.sim.rings import HASHER, NAMES, device_of, first_ring

CLUSTER_ID = "simulated"
SECRET = b"cluster key"
LOOK_S = 2.0  # at a device
RESERVE = Reserve(size_bytes=10_000)
AUDIT_AGAIN_S = 5.0
REPLICATE_EVERY_S = 10.0
COMPACT_EVERY_S = 3.0
SETTLE_AFTER_S = 15.0
SEGMENT_BYTES = 8 << 10  # of a pack: small, so that packs are compacted while they are used
ROOT = "/srv/disk"
RINGS = "/srv/rings"  # on the machine's own disk
PUBLISHED = "/srv/published"
AGENT = AgentSettings(look_s=2.0, patience_s=30.0, horizon_look_s=4.0, horizon_step_s=5.0)
RECLAIM_EVERY_S = 4.0


LIMITS = PeerLimits(connect_s=1.0, answer_s=5.0, stall_s=2.0)


def keeper_primaries(keeper: Keeper) -> Callable[[Path], list[int]]:
    return lambda container: [device.id for device in keeper.overlaps["container"].places(container).devices]


class Member:
    def __init__(self, cluster: Cluster, device: Device) -> None:
        self.cluster = cluster
        self.device = device
        self.name = device.ip
        self.node: SimNode = cluster.simulation.node(self.name)
        self.medium = self.node.disk(ROOT)
        self.local: LocalNode | None = None  # the device, while it serves
        self.store: ObjectStore | None = None  # its engines
        self.coded: ObjectStore | None = None  # ... of the erasure-coded policy
        self.books: Books | None = None
        self.facade: ClusterStorage | None = None
        self.audit = trio.Event()  # set: a pass is wanted
        self.audited = trio.Event()
        self.may_start = trio.Event()
        self.silent = False  # it lost its power: callers hear nothing
        self.lost = False  # its device is gone for good
        self.kv = SharedKV(cluster.kv, lambda: cluster.control_reachable(self))
        self.keeper: Keeper | None = None  # the rings, while it is up
        self._nursery: trio.Nursery | None = None
        self._peers: dict[int, Node] = {}  # the other devices, as this life reaches them
        self._served: dict[int, Node] = {}  # our own, for the others

    # ---- the machine

    async def format(self) -> None:
        """A new disk, made a device of the cluster."""
        disk = self.node.world.open_disk(ROOT)
        await disk.make_dirs("")
        await format_device(disk, CLUSTER_ID, self.device.id)

    async def _take_for_new(self) -> None:
        try:
            await self.format()
        except (Conflict, OSError):
            return

    async def run(self) -> None:
        while True:
            await self.node.run(self._main)
            self._stop_control()
            self.local = self.store = self.coded = self.books = self.facade = self._nursery = self.keeper = None
            await self.may_start.wait()
            self.node.restart()
            self.silent = False

    def crash(self, *, power: bool, silent: bool) -> None:
        self.may_start = trio.Event()
        self.silent = silent
        self.node.crash(power=power, silent=silent)
        self._stop_control()
        self.local = self.store = self.coded = self.books = self.facade = self._nursery = self.keeper = None

    def start(self) -> None:
        self.may_start.set()

    def _stop_control(self) -> None:
        if self.cluster.hosted is not None and self.cluster.hosted.host is self:
            self.cluster.hosted.stop()

    async def _main(self, world: World) -> None:
        cluster = self.cluster
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            self._peers.clear()
            keeper = await self._load_rings(world)
            if cluster.hosted is not None and self is cluster.members[0]:
                await cluster.hosted.start(nursery, world, self)
            if cluster.options.wire:
                listener = await world.net.listen(TcpAddress(self.name, self.device.port))
                server = NodeServer(world, self._served, SECRET, rings=keeper, ring_version=lambda: keeper.edition.number)
                nursery.start_soon(server.serve, listener)
            register = Register(self.kv)
            confirmations = Confirmations(keeper, register)
            nursery.start_soon(confirmations.run)
            agent = RingAgent(
                world,
                keeper,
                register,
                HASHER,
                sources=self._sources,
                published=world.open_disk(PUBLISHED),
                settings=AGENT,
                note=lambda event, detail: cluster.simulation.trace(f"{self.name} {event}: {detail}"),
                waits_for=cluster.options.waits_for,
                horizons=cluster.options.horizons,
            )
            nursery.start_soon(agent.run)
            nursery.start_soon(self._keep_device, world, keeper, confirmations)
            see = cluster.options.see_ring
            rings = Rings.of(keeper.overlaps)
            keeper.tell(lambda overlaps: rings.take({name: see(overlap) for name, overlap in overlaps.items()}))
            timestamps = TimestampSource(world.clock)
            keeper.tell(lambda overlaps: timestamps.stay_above(closed_at(overlaps)))
            self.facade = ClusterStorage(
                world,
                nursery,
                rings,
                lambda device: self.reach(device.id),
                timestamps,
                settings=cluster.options.settings,
                write_quorum=cluster.options.write_quorum,
                policies=coded.policies(cluster.options.coded) if cluster.options.coded is not None else None,
                renew=Renewal(keeper, timeout_s=3.0),
            )
            if cluster.options.door:
                await serve_door(world, nursery, self.name, self.facade, self.kv)
            await trio.sleep_forever()

    async def _load_rings(self, world: World) -> Keeper:
        disk = world.open_disk(RINGS)
        await disk.make_dirs("")
        await world.open_disk(PUBLISHED).make_dirs("")
        keeper = Keeper(world, disk, HASHER)

        async def first() -> dict[str, bytes]:
            return {name: encode(ring) for name, ring in self.cluster.firsts.items()}

        await keeper.load(first)
        self.keeper = keeper
        return keeper

    @property
    def rings(self) -> RingSource:
        if self.keeper is None:
            raise Unavailable(f"{self.name} is down")
        return self.keeper

    def _sources(self) -> list[RingSource]:
        others = [member for member in self.cluster.members if member is not self]
        self.cluster.simulation.network.rng.shuffle(others)
        return [self.reach(member.device.id) for member in others]

    async def publish(self, name: str, data: bytes) -> bool:
        """What an operator does at this machine; False when it is down."""
        if self._nursery is None or self.keeper is None:
            return False
        disk = self.node.world.open_disk(PUBLISHED)
        self._nursery.start_soon(disk.replace_file, f"{name}.ring", data)
        return True

    async def _keep_device(self, world: World, keeper: Keeper, confirmations: Confirmations) -> None:
        """Serve the device while it is good for something."""
        if self.lost:
            return
        options, trace = self.cluster.options, self.cluster.simulation.trace
        world = options.world(world)

        async def serve(opened: OpenDevice, running: Callable[[], None]) -> None:
            store = self.cluster.ledger.watched(options.store)(world, opened, HASHER, segment_bytes_max=SEGMENT_BYTES)
            store.standing.horizon = lambda name: keeper.overlaps[name].horizon
            books = options.books(world, opened, HASHER)
            part: ObjectStore | None = None
            try:
                if options.coded is not None:
                    watched = self.cluster.ledger.watched(options.store)
                    part = await coded.open_part(world, opened, watched, keeper, SEGMENT_BYTES)
                async with trio.open_nursery() as nursery:
                    await nursery.start(store.run)
                    if part is not None:
                        await nursery.start(part.run)
                    await nursery.start(books.run)
                    payer = options.payer(nursery, self.reach, primaries=keeper_primaries(keeper))
                    self.store, self.books, self.coded = store, books, part
                    self._start_workers(nursery, world, store, books, keeper, confirmations)
                    self.local = self._served[self.device.id] = LocalNode(
                        self.device, store, books, payer, options.gate(keeper.gate), stores={} if part is None else {1: part}
                    )
                    trace(f"{self.name} serves, {store.report}")
                    running()
            finally:
                self.local = self.store = self.coded = self.books = None
                self._served.clear()
                with trio.CancelScope(shield=True):
                    await store.close()
                    if part is not None:
                        await part.close()
                        await part.device.close()
                    await books.close()
                    await opened.close()

        def note(change: Change) -> None:
            trace(f"{self.name} device is {change.after.value}: {change.reason}")

        watch = DeviceWatch(world, ROOT, CLUSTER_ID, self.device.id, reserve=RESERVE, look_s=LOOK_S, note=note)
        if options.formats_anything:
            await self._take_for_new()
        await watch.keep(serve)

    def _start_workers(
        self,
        nursery: trio.Nursery,
        world: World,
        store: ObjectStore,
        books: Books,
        keeper: Keeper,
        confirmations: Confirmations,
    ) -> None:
        cluster, device = self.cluster, self.device

        def overlap(name: str) -> Overlap:
            return keeper.overlaps[name]

        def nodes(device: Device) -> Node:
            return self.reach(device.id)

        def watcher(name: str) -> Watcher:
            return Watcher(keeper.gate.clear, lambda overlap: confirmations.confirm(name, device.id, overlap))

        cut = cluster.options.settings.pack_cut_bytes
        workers: list[Worker] = [
            cluster.options.replicator(
                device,
                store,
                lambda: overlap("object"),
                nodes,
                interval_s=REPLICATE_EVERY_S,
                pack_cut_bytes=cut,
                watcher=watcher("object"),
            ),
            ObjectUpdater(world, store, lambda: overlap("container"), nodes),
            Settler(world, store, lambda: overlap("object"), self._settle, interval_s=3.0, age_s=SETTLE_AFTER_S, turn_s=4.0),
            cluster.options.book_replicator(device, books, overlap, nodes, interval_s=REPLICATE_EVERY_S, watchers=watcher),
            cluster.options.container_updater(device, books, lambda: overlap("account"), nodes),
            cluster.options.compactor(world, store, interval_s=COMPACT_EVERY_S, grace_s=1.0, headroom_bytes=SEGMENT_BYTES),
        ]
        if age_s := cluster.options.reclaim_age_s:
            proposal = Proposal(world.clock, partial(confirmations.clean, "object", device.id), age_s=age_s, every_s=5.0)
            workers.append(
                cluster.options.reclaimer(
                    world.clock,
                    device,
                    store,
                    lambda: overlap("object"),
                    nodes,
                    proposal,
                    clear=keeper.gate.clear,
                    interval_s=RECLAIM_EVERY_S,
                    forget_again_s=4 * RECLAIM_EVERY_S,
                )
            )
        if limits := cluster.options.shards:
            assert self.facade is not None
            sharding = self.facade.sharding
            workers.append(
                cluster.options.sharder(world, device, books, lambda: overlap("container"), sharding, self.kv, limits=limits)
            )
        auditors = [Auditor(world, store)]
        if self.coded is not None:
            assert self.facade is not None
            workers += coded.workers_of(
                cluster.options,
                world,
                device,
                self.coded,
                self.facade,
                overlap,
                nodes,
                watcher(coded.RING),
                promise_s=SETTLE_AFTER_S,
                segment_bytes=SEGMENT_BYTES,
            )
            auditors.append(Auditor(world, self.coded))
        self._run(nursery, world, workers)
        nursery.start_soon(self._audit, auditors)

    async def _settle(self, path: Path) -> None:
        if self.facade is None:
            raise Unavailable(f"{self.name} is down")
        await self.facade.settle_object(0, path)

    def _run(self, nursery: trio.Nursery, world: World, workers: Sequence[Worker]) -> None:
        log = Log(lambda line: self.cluster.simulation.trace(f"{self.name} {line}"), world.clock, level=Level.WARNING)
        for worker in workers:
            nursery.start_soon(Runner(worker, Pacing(), world.clock, log, Registry()).run)

    async def _audit(self, auditors: Sequence[Auditor]) -> None:
        """One pass when the faults have ended: it is what finds rot that nobody read."""
        await self.audit.wait()
        while True:
            try:
                for auditor in auditors:
                    await once(auditor)
            except RingfortError as error:
                self.cluster.simulation.trace(f"{self.name} audit: {error}")
                await trio.sleep(AUDIT_AGAIN_S)
            else:
                self.audited.set()
                return

    # ---- calls

    def reach(self, device_id: int) -> Node:
        """The node of a device, as this member reaches it."""
        if device_id == self.device.id and self.local is not None:
            return self.cluster.options.wrap_node(self.local)
        found = self._peers.get(device_id)
        if found is None:
            found = self._peers[device_id] = self.cluster.options.wrap_node(self._connect(self.cluster.members[device_id]))
        return found

    def _connect(self, target: Member) -> Node:
        if not self.cluster.options.wire or target is self or self._nursery is None:
            return DirectNode(self, target, target.device)
        address = TcpAddress(target.name, target.device.port)
        return RemoteNode(target.device, Peer(self.node.world, self._nursery, address, SECRET, limits=LIMITS))

    def serve(self, device_id: int, call: Callable[[Node], Awaitable[object]]) -> Answer:
        """Start a call on the device, as a request that came in."""
        answer = Answer()
        if self.local is None or self._nursery is None:
            answer.error = Unavailable(f"{self.name} does not serve device {device_id}")
            answer.silent = self.silent
            answer.done.set()
        else:
            local = self.local
            self._nursery.start_soon(answer.run, self._awake(lambda: call(local)))
        return answer

    def answer(self, call: Callable[[], Awaitable[object]]) -> Answer:
        """Start a call on the machine, whether its device serves or not."""
        answer = Answer()
        if self._nursery is None or self.keeper is None:
            answer.error = Unavailable(f"{self.name} is down")
            answer.silent = self.silent
            answer.done.set()
        else:
            self._nursery.start_soon(answer.run, self._awake(call))
        return answer

    def _awake(self, call: Callable[[], Awaitable[object]]) -> Callable[[], Awaitable[object]]:
        """A machine that is frozen takes nothing in and lets nothing out."""
        life = self.node.life

        async def run() -> object:
            await life.awake()
            result = await call()
            await life.awake()
            return result

        return run

    def execute(self, call: Callable[[ClusterStorage], Awaitable[object]], answer: Answer | None = None) -> Answer:
        """Start a client's request at this front door."""
        answer = answer or Answer()
        facade = self.facade
        if facade is None or self._nursery is None:
            answer.error = Unavailable(f"{self.name} is down")
            answer.refused = True
            answer.done.set()
        else:
            self._nursery.start_soon(answer.run, self._awake(lambda: call(facade)))
        return answer


class Cluster:
    def __init__(self, simulation: Simulation, options: Options) -> None:
        self.simulation = simulation
        self.options = options
        self.hosted = HostedKV() if options.control else None
        self.kv: KV = self.hosted if self.hosted is not None else MemoryKV()
        self.ledger = Ledger(simulation)
        self.first = first_ring(options.in_first_ring)
        self.firsts = dict.fromkeys(NAMES, self.first)
        if options.coded is not None:
            self.ledger.fragments = options.coded.k
            self.firsts[coded.RING] = coded.first_coded_ring(options.coded, options.members)
        self.members = [Member(self, device_of(number)) for number in range(options.members)]

    def control_reachable(self, member: Member) -> bool:
        """Whether the network lets it through to the machine that has control state."""
        if self.hosted is None or self.hosted.host is None or self.hosted.host is member:
            return True
        network, host = self.simulation.network, self.hosted.host.name
        return not (network.link(member.name, host).cut or network.link(host, member.name).cut)

    async def format(self) -> None:
        async with trio.open_nursery() as nursery:
            for member in self.members:
                nursery.start_soon(member.format)
        for member in self.members:
            member.medium.ignores_sync = self.options.ignores_sync

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            for member in self.members:
                nursery.start_soon(member.run)
