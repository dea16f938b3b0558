"""A ring's part power is increased while its nodes run: nothing on a device changes, nothing is sent that was there, nothing is
dropped that was not elsewhere; also while one node still has the old ring, and whatever the powers of the other rings are.

Real engines on simulated disks; each device asks the others over the node protocol.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest
import trio
from trio.testing import MockClock

from ring.daemon.worker import Busy, once
from ring.device import Device
from ring.names import Path, Span
from ring.placement import Ring
from ring.service.overlap import Overlap
from ring.timestamp import Timestamp
from ring.world.interface import TcpAddress
from ring.world.sim import SimWorld
from ring.world.sim.medium import FolderNode
from storage.client.interface import Row
from storage.client.local import LocalNode
from storage.client.node import BookHeader, Kind, Node, Version
from storage.client.payer import RowPayer
from storage.client.peer import Peer
from storage.client.remote import RemoteNode
from storage.client.server import NodeServer
from storage.container.replicator import BookReplicator
from storage.object.replicator import ObjectReplicator
from storage.object.store import ObjectStore
from storage.rows.books import Books
from tests.storage.client.ground import HASHER, make_device, open_engines

SECRET = b"s" * 32
DEVICES, REPLICAS = 3, 2
KINDS = ("object", "container", "account")
ACCOUNTS = [Path(f"AUTH_{number}") for number in range(8)]
CONTAINERS = [Path("AUTH_0", f"c{number}") for number in range(12)]
OBJECTS = [Path("AUTH_0", "c0", f"o{number}") for number in range(60)]
POWER = 6


def ring_of(part_power: int, shift: int) -> Ring:
    """Partition p is on devices p + shift and p + shift + 1."""
    count = 1 << part_power
    rows = []
    for replica in range(REPLICAS):
        turn = array("H", [(number + shift + replica) % DEVICES for number in range(DEVICES)])
        rows.append((turn * (count // DEVICES + 1))[:count])
    return Ring(1, part_power, tuple(make_device(number) for number in range(DEVICES)), tuple(rows), HASHER)


def increased(ring: Ring) -> Ring:
    """Every partition p becomes 2p and 2p + 1, on the devices that p is on."""
    rows = tuple(array("H", [device for device in row for _ in range(2)]) for row in ring.table)
    return replace(ring, version=ring.version + 1, part_power=ring.part_power + 1, table=rows)


@dataclass
class Machine:
    """One device, and what its workers know of the cluster: the rings as they last saw them."""

    number: int
    store: ObjectStore
    books: Books
    nodes: dict[int, Node]
    rings: dict[str, Ring]

    def replicators(self) -> tuple[ObjectReplicator, BookReplicator]:
        device = make_device(self.number)
        return (
            ObjectReplicator(device, self.store, lambda: self.overlap("object"), self.node),
            BookReplicator(device, self.books, self.overlap, self.node),
        )

    def overlap(self, kind: str) -> Overlap:
        return Overlap.of(self.rings[kind])

    def node(self, device: Device) -> Node:
        return self.nodes[device.id]

    def increase(self, *kinds: str) -> None:
        for kind in kinds or KINDS:
            self.rings[kind] = increased(self.rings[kind])

    async def root(self, kind: str, span: Span) -> bytes:
        return (await (self.store.digests(span) if kind == "object" else self.books.digests(kind, span))).root


class Cluster:
    def __init__(self, world: SimWorld, machines: Sequence[Machine]) -> None:
        self.world = world
        self.machines = machines

    @classmethod
    async def start(cls, nursery: trio.Nursery, **powers: int) -> Cluster:
        world = SimWorld(1)
        rings = {kind: ring_of(powers.get(kind, POWER), shift) for shift, kind in enumerate(KINDS)}
        machines = []
        for number in range(DEVICES):
            store, books = await open_engines(nursery, world, number)
            nodes: dict[int, Node] = {}
            nodes[number] = LocalNode(make_device(number), store, books, RowPayer(nursery, nodes.get))
            server = NodeServer(world, {number: nodes[number]}, SECRET)
            await nursery.start(server.serve, await world.net.listen(TcpAddress("localhost", 6200 + number)))
            for other in range(DEVICES):
                if other != number:
                    peer = Peer(world, nursery, TcpAddress("localhost", 6200 + other), SECRET)
                    nodes[other] = RemoteNode(make_device(other), peer)
            machines.append(Machine(number, store, books, nodes, dict(rings)))
        return cls(world, machines)

    def primaries(self, path: Path, kind: str) -> list[Machine]:
        ring = self.machines[0].rings[kind]
        return [self.machines[device.id] for device in ring.primaries(ring.partition(path))]

    async def fill(self) -> None:
        """Everything on all of its primaries."""
        for path in OBJECTS:
            await put(path, 1, self.primaries(path, "object"))
        for book in (*CONTAINERS, *ACCOUNTS):
            for machine in self.primaries(book, "container" if book.container else "account"):
                await make_book(book, 3, machine)
        await self.settle()

    async def settle(self) -> None:
        """All of it in the tables."""
        for machine in self.machines:
            await machine.books.flush()
        await trio.sleep(5)

    async def replicate(self, rounds: int = 1) -> tuple[int, int, int]:
        """Passes of every worker of every machine: (versions sent, books merged, versions and books dropped)."""
        sent = merged = dropped = 0
        for _ in range(rounds):
            for machine in self.machines:
                objects, books = machine.replicators()
                assert (await once(objects)).items > 1 and (await once(books)).items > 1
                await self.settle()
                assert objects.unanswered == books.unanswered == 0
                sent, merged, dropped = sent + objects.pushed, merged + books.merged, dropped + objects.dropped + books.dropped
        return sent, merged, dropped

    async def check_replicas_agree(self) -> None:
        """Primaries hold the same, others nothing; asked with the power of each machine's ring."""
        for kind in KINDS:
            for ring in {machine.rings[kind].part_power: machine.rings[kind] for machine in self.machines}.values():
                if ring.part_power > 10:
                    continue
                for partition in range(ring.partition_count):
                    roots = [await machine.root(kind, Span(ring.part_power, partition)) for machine in self.machines]
                    primaries = [device.id for device in ring.primaries(partition)]
                    assert len({roots[number] for number in primaries}) == 1
                    assert not any(any(root) for number, root in enumerate(roots) if number not in primaries)

    def disks(self) -> list[dict[str, object]]:
        return [_contents(self.world, f"/d{machine.number}") for machine in self.machines]


def _contents(world: SimWorld, root: str) -> dict[str, object]:
    """Every name, byte, extended attribute and table row on a simulated disk."""
    found: dict[str, object] = {}

    def walk(folder: FolderNode, path: str) -> None:
        for name, node in folder.entries.items():
            at = f"{path}/{name}"
            if isinstance(node, FolderNode):
                found[at] = "folder"
                walk(node, at)
            elif node.store is not None:
                found[at] = {table: dict(rows.values) for table, rows in node.store.tables.items()}
            else:
                found[at] = (bytes(node.content), bytes(node.durable), dict(node.xattrs))

    folder = world.node.disk(root).root
    assert folder is not None
    walk(folder, "")
    return found


async def put(path: Path, ticks: int, machines: Sequence[Machine]) -> None:
    """Small, large, or a tombstone, by its name."""
    if path.object.endswith("3"):
        for machine in machines:
            await machine.store.put_small(Version(path, Timestamp(ticks), Kind.TOMBSTONE), b"", None)
        return
    data = path.object.encode() * (200_000 if path.object.endswith("7") else 5)
    version = Version(path, Timestamp(ticks), Kind.OBJECT, len(data), f"etag{ticks}", "a/b", {"x-object-meta-a": "1"})
    for machine in machines:
        if len(data) < 10_000:
            await machine.store.put_small(version, data, None)
        else:
            upload = await machine.store.put_large(path, len(data))
            await upload.write(data)
            await upload.commit(version, None)


async def make_book(path: Path, rows: int, machine: Machine) -> None:
    await machine.books.merge_header(BookHeader(path, Timestamp(1), None, metadata={"x-meta-a": ("1", Timestamp(1))}))
    await machine.books.merge_rows(path, [Row(f"r{number}", Timestamp(1), 1, "e") for number in range(rows)])


@pytest.mark.parametrize("late", [None, 0, 1, 2])
async def test_an_increase_changes_no_byte_on_any_device(
    nursery: trio.Nursery, autojump_clock: MockClock, late: int | None
) -> None:
    cluster = await Cluster.start(nursery)
    await cluster.fill()
    assert await cluster.replicate() == (0, 0, 0)
    before = cluster.disks()
    assert any(name.startswith("/files/") and isinstance(content, tuple) for name, content in before[0].items())
    for machine in cluster.machines:
        if machine.number != late:
            machine.increase()
    assert await cluster.replicate() == (0, 0, 0)
    if late is not None:
        cluster.machines[late].increase()
        assert await cluster.replicate() == (0, 0, 0)
    await cluster.check_replicas_agree()
    assert cluster.disks() == before


@pytest.mark.parametrize("late", [None, 0, 1, 2])
async def test_only_what_is_missing_is_sent_and_only_what_is_elsewhere_is_dropped(
    nursery: trio.Nursery, autojump_clock: MockClock, late: int | None
) -> None:
    """Writes that a primary missed, before the increase and after it, and copies that stood in for it on the third device."""
    cluster = await Cluster.start(nursery)
    await cluster.fill()

    async def miss(number: int) -> None:
        """Nine objects, three containers and an account have a primary without it; an object and the account are on the third."""
        for at, path in enumerate(Path("AUTH_0", "c0", f"late{number}-{n}") for n in range(10)):
            primaries = cluster.primaries(path, "object")
            others = [machine for machine in cluster.machines if machine not in primaries]
            await put(path, 2, primaries if at == 9 else [*primaries[at % 2 :][:1], *(others if at == 0 else ())])
        for book in CONTAINERS[3 * number : 3 * number + 3]:
            machine = cluster.primaries(book, "container")[0]
            await machine.books.merge_rows(book, [Row(f"late{number}", Timestamp(2), 1, "e")])
        account = Path(f"AUTH_late{number}")
        _, lacking = cluster.primaries(account, "account")
        for machine in cluster.machines:
            if machine is not lacking:
                await make_book(account, 5, machine)
        await cluster.settle()

    await miss(0)
    for machine in cluster.machines:
        if machine.number != late:
            machine.increase()
    await miss(1)
    assert await cluster.replicate(2) == (2 * 9, 2 * (3 + 1), 2 * (1 + 1))
    assert await cluster.replicate() == (0, 0, 0)
    await cluster.check_replicas_agree()
    for machine in cluster.machines:
        if machine.number == late:
            machine.increase()
    assert await cluster.replicate() == (0, 0, 0)
    await cluster.check_replicas_agree()


@pytest.mark.parametrize("units", [1, 2, 3, 4, 5])
async def test_an_increase_in_the_middle_of_a_pass_leaves_nothing_out(
    nursery: trio.Nursery, autojump_clock: MockClock, units: int
) -> None:
    """What was begun with the old ring goes on with the new one."""
    cluster = await Cluster.start(nursery)
    machine = cluster.machines[0]
    for path in OBJECTS:
        await put(path, 1, [machine])
    for book in (*CONTAINERS, *ACCOUNTS):
        await make_book(book, 3, machine)
    await cluster.settle()
    objects, books = machine.replicators()
    done: list[object] = []
    for worker in (objects, books):
        for _ in range(units):
            done.append(await worker.work())
    for each in cluster.machines:
        each.increase()
    await once(objects)
    await once(books)
    assert all(isinstance(busy, Busy) for busy in done)
    lacking = [len([one for one in cluster.primaries(path, "object") if one is not machine]) for path in OBJECTS]
    assert objects.pushed == sum(lacking)
    for path in OBJECTS:
        assert all([await one.store.head(path) is not None for one in cluster.primaries(path, "object")])
        assert (await machine.store.head(path) is None) == (machine not in cluster.primaries(path, "object"))
    for book in (*CONTAINERS, *ACCOUNTS):
        for one in cluster.primaries(book, "container" if book.container else "account"):
            state = await one.books.book(book)
            assert state is not None and state.count == 3


@pytest.mark.parametrize(
    "powers",
    [{"object": 0, "container": 24, "account": 13}, {"object": 24, "container": 0, "account": 12}, {"object": 13, "account": 0}],
    ids=str,
)
async def test_rings_of_any_powers_beside_each_other(
    nursery: trio.Nursery, autojump_clock: MockClock, powers: dict[str, int]
) -> None:
    """What is on one device only comes to its primaries, and away from where it does not belong; then every ring grows that can."""
    cluster = await Cluster.start(nursery, **powers)
    for path in OBJECTS:
        await put(path, 1, [cluster.machines[2]])
    for book in (*CONTAINERS, *ACCOUNTS):
        await make_book(book, 3, cluster.machines[1])
    await cluster.settle()
    for machine in cluster.machines:
        for worker in machine.replicators():
            await once(worker)
        await cluster.settle()
    await once(cluster.machines[1].replicators()[1])  # what it sent in its first pass is in the others' tables by now
    held = [[await machine.store.head(path) is not None for machine in cluster.machines] for path in OBJECTS]
    assert held == [[machine in cluster.primaries(path, "object") for machine in cluster.machines] for path in OBJECTS]
    for kind, books in (("container", CONTAINERS), ("account", ACCOUNTS)):
        for book in books:
            there = [await machine.books.book(book) is not None for machine in cluster.machines]
            assert there == [machine in cluster.primaries(book, kind) for machine in cluster.machines]
    before = cluster.disks()
    for machine in cluster.machines[1:]:
        machine.increase(*[kind for kind in KINDS if machine.rings[kind].part_power < 24])
    for machine in cluster.machines:
        for worker in machine.replicators():
            await once(worker)
            assert (worker.dropped, worker.unanswered) == (0, 0)
    await cluster.check_replicas_agree()
    assert cluster.disks() == before
