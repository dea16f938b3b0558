"""A simulated cluster: members (machines) with devices, each with the production storage engines, a facade and the workers.

Every member is a front door too: clients (workload.py) ask any of them.  A member's ``run`` is its init system: it starts what a
machine runs, and starts it again after a crash once the nemesis lets it.

    Member   one machine: its SimNode, its open devices, its facade, its rings
    Cluster  all of them, and how one reaches another (DirectNode, or the node protocol)
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

from ring.daemon.worker import Worker
from ring.device import Device
from ring.errors import Conflict, Unavailable
from ring.kv.interface import KV
from ring.kv.memory import MemoryKV
from ring.names import partition_of
from ring.ringfile import encode
from ring.service.agent import AgentSettings, Confirmations, RingAgent
from ring.service.follow import Renewal
from ring.service.horizon import closed_at
from ring.service.keeper import Keeper
from ring.service.overlap import RingSource
from ring.service.register import Register
from ring.timestamp import TimestampSource
from ring.world.interface import TcpAddress, World
from ring.world.sim import NodeCrashed, SimNode, Simulation
from storage.client.cluster import ClusterStorage
from storage.client.filling import Filler
from storage.client.local import LocalNode
from storage.client.node import Node
from storage.client.peer import Peer, PeerLimits
from storage.client.reach import Rings
from storage.client.remote import RemoteNode
from storage.client.remote_filler import RemoteFiller
from storage.client.server import NodeServer
from storage.client.trust import Trust
from storage.object.device import format_device
from storage.object.store import ObjectStore
from storage.rows.books import Books
from tests.sim import coded
from tests.sim.control import HostedKV, SharedKV
from tests.sim.direct import Answer, DirectFiller, DirectNode
from tests.sim.door import serve_door
from tests.sim.ledger import Ledger
from tests.sim.options import Options
from tests.sim.rings import HASHER, NAMES, device_of, first_ring
from tests.sim.serving import CLUSTER_ID, ROOT, Serving

SECRET = b"cluster key"
INSTALL_AGAIN_S = 1.0
RINGS = "/srv/rings"  # on the machine's own disk
PUBLISHED = "/srv/published"
AGENT = AgentSettings(look_s=2.0, patience_s=30.0, horizon_look_s=4.0, horizon_step_s=5.0)
LIMITS = PeerLimits(connect_s=1.0, answer_s=5.0, stall_s=2.0)


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
        self.trust: Trust | None = None  # whether what it lacks counts
        self.disk_id = ""  # of the disk that took the place of another
        self.facade: ClusterStorage | None = None
        self.audit = trio.Event()  # set: a pass is wanted
        self.audited = trio.Event()
        self.audits_always = False
        self.may_start = trio.Event()
        self.silent = False  # it lost its power: callers hear nothing
        self.lost = False  # its device is gone for good
        self.replaced = 0  # disks
        self.kv = SharedKV(cluster.kv, lambda: cluster.control_reachable(self))
        self.keeper: Keeper | None = None  # the rings, while it is up
        self._nursery: trio.Nursery | None = None
        self._peers: dict[int, Node] = {}  # the other devices, as this life reaches them
        self._connections: dict[int, Peer] = {}  # ... where that is the node protocol
        self.served: dict[int, Node] = {}  # our own, for the others
        self.fillers: dict[int, Filler] = {}  # likewise

    # ---- the machine

    async def format(self) -> None:
        """A new disk, made a device of the cluster: by a process of its own."""
        disk = self.node.open_disk(ROOT)
        await disk.make_dirs("")
        await format_device(disk, CLUSTER_ID, self.device.id, disk_id=self.disk_id)

    def exchange_disk(self) -> None:
        """An empty one in place of the one that is there, which will not be taken again.  Then ``install`` it."""
        self.replaced += 1
        self.disk_id = f"{self.name}-{self.replaced}"
        self.medium.empty()
        self.cluster.ledger.lost(self.device.id)

    async def install(self) -> None:
        """As an operator does (``ringfort node replace``): try until the new disk is a device."""
        while True:
            await trio.sleep(INSTALL_AGAIN_S)
            try:
                await self.format()
            except Conflict:  # what was interrupted had happened
                return
            except (NodeCrashed, OSError):
                continue
            self.cluster.ledger.lost(self.device.id)
            return

    async def take_for_new(self) -> None:
        try:
            await self.format()
        except (Conflict, OSError):
            return

    async def run(self) -> None:
        while True:
            await self.node.run(self._main)
            self._down()
            await self.may_start.wait()
            self.node.restart()
            self.silent = False

    def crash(self, *, power: bool, silent: bool) -> None:
        self.may_start = trio.Event()
        self.silent = silent
        self.node.crash(power=power, silent=silent)
        self._down()

    def start(self) -> None:
        self.may_start.set()

    def stop_serving(self) -> None:
        """The device; the machine stays a front door."""
        self.local = self.store = self.coded = self.books = self.trust = None
        self.served.clear()
        self.fillers.clear()

    def _down(self) -> None:
        self.stop_serving()
        self.facade = self._nursery = self.keeper = None
        if self.cluster.hosted is not None and self.cluster.hosted.host is self:
            self.cluster.hosted.stop()

    async def _main(self, world: World) -> None:
        cluster = self.cluster
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            self._peers.clear()
            self._connections.clear()
            keeper = await self._load_rings(world)
            if cluster.hosted is not None and self is cluster.members[0]:
                await cluster.hosted.start(nursery, world, self)
            if cluster.options.wire:
                listener = await world.net.listen(TcpAddress(self.name, self.device.port))
                server = NodeServer(
                    world, self.served, SECRET, rings=keeper, ring_version=lambda: keeper.edition.number, fillers=self.fillers
                )
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
            nursery.start_soon(Serving(self, world, keeper, confirmations).keep)
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

    def further_workers(self, world: World, store: ObjectStore, books: Books) -> list[Worker]:
        """Of its device, besides those of every run."""
        return []

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
        if self._direct(target):
            return DirectNode(self, target, target.device)
        return RemoteNode(target.device, self._peer(target))

    def filler_of(self, device_id: int) -> Filler:
        """How the device's machine is asked to bring another what it holds."""
        target = self.cluster.members[device_id]
        if self._direct(target):
            return DirectFiller(DirectNode(self, target, target.device))
        return RemoteFiller(device_id, self._peer(target))

    def _direct(self, target: Member) -> bool:
        return not self.cluster.options.wire or target is self or self._nursery is None

    def _peer(self, target: Member) -> Peer:
        assert self._nursery is not None
        found = self._connections.get(target.device.id)
        if found is None:
            address = TcpAddress(target.name, target.device.port)
            found = Peer(self.node.world, self._nursery, address, SECRET, limits=LIMITS)
            self._connections[target.device.id] = found
        return found

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
        self.ledger = Ledger(simulation, must_have=self._must_have)
        self.first = first_ring(options.in_first_ring)
        self.firsts = dict.fromkeys(NAMES, self.first)
        if options.coded is not None:
            self.ledger.fragments = options.coded.k
            self.firsts[coded.RING] = coded.first_coded_ring(options.coded, options.members)
        self.members = [Member(self, device_of(number)) for number in range(options.members)]

    def _must_have(self, device: int, name_hash: bytes) -> list[int]:
        """The primaries of an object, as a device knows them; without those that go by other rings."""
        keeper = self.members[device].keeper
        if keeper is None:
            return []
        ring = keeper.overlaps["object"].ring
        ids = [one.id for one in ring.primaries(partition_of(name_hash, ring.part_power))]
        return [one for one in ids if (its := self.members[one].keeper) is not None and its.edition == keeper.edition]

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
