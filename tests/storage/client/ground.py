"""A small cluster in one process for the tests: devices in RAM behind LocalNodes, rings over them, and the facade."""

from __future__ import annotations

from array import array
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import cast

import trio

from ring.device import Device
from ring.errors import Unavailable
from ring.names import NameHasher
from ring.placement import Ring
from ring.policy import Policies, Policy
from ring.service.overlap import Claim, Overlap
from ring.service.voters import Voters
from ring.timestamp import TimestampSource
from ring.wire.message import Piece
from ring.world.interface import Buffer, World
from ring.world.sim import SimWorld
from storage.client.bodies import aclose, loaded
from storage.client.cluster import ClusterStorage
from storage.client.fake_node import FakeBooks, FakeObjects
from storage.client.fragments import FragmentNode, FragmentUpload
from storage.client.local import LocalNode
from storage.client.node import Debt, Node, NodeUpload, Version, WriteReply
from storage.client.payer import RowPayer
from storage.client.quorum import WriteQuorum
from storage.client.reach import Rings, Settings
from storage.erasure.fragment import Fragment
from storage.object.device import format_device, open_device
from storage.object.policy_device import open_policy
from storage.object.store import ObjectStore
from storage.rows.books import Books

HASHER = NameHasher(b"pre", b"suf")
PART_POWER = 4


def make_device(number: int, port: int = 0) -> Device:
    return Device(number, 1, number, f"node{number}", port, f"d{number}", 1.0)


def make_ring(device_count: int, replicas: int = 3, *, shift: int = 0, part_power: int = PART_POWER) -> Ring:
    """Partition p is on devices p, p + 1, ... (``shift`` further on), so that every test can name its primaries."""
    table = tuple(
        array("H", [(partition + replica + shift) % device_count for partition in range(1 << part_power)])
        for replica in range(replicas)
    )
    return Ring(1, part_power, tuple(make_device(number) for number in range(device_count)), table, HASHER)


async def open_engines(nursery: trio.Nursery, world: World, number: int, root: str = "") -> tuple[ObjectStore, Books]:
    """The real engines of a device, formatted when it is new."""
    disk = world.open_disk(f"{root}/d{number}")
    if await disk.info("") is None:
        await disk.make_dirs("")
    if await disk.info("device.json") is None:
        await format_device(disk, "cluster", number)
    device = await open_device(world, f"{root}/d{number}", "cluster", number)
    store = ObjectStore(world, device, HASHER)
    books = Books(world, device, HASHER)
    await nursery.start(store.run)
    await nursery.start(books.run)
    return store, books


async def open_part(nursery: trio.Nursery, world: World, store: ObjectStore, policy: int) -> ObjectStore:
    """The engine of a device's part for another policy."""
    part = ObjectStore(world, await open_policy(world, store.device, policy), HASHER)
    await nursery.start(part.run)
    return part


@dataclass
class Ground:
    world: World
    nursery: trio.Nursery
    rings: Rings
    objects: list[FakeObjects]
    books: list[FakeBooks]
    nodes: list[Node]  # replace one to change how it is reached
    storage: ClusterStorage
    payer: RowPayer
    engines: list[tuple[ObjectStore, Books]]
    parts: list[ObjectStore] = field(default_factory=list)  # of policy 1, when it is erasure-coded

    @classmethod
    async def with_engines(cls, nursery: trio.Nursery, settings: Settings | None = None) -> Ground:
        """Over real engines on simulated disks."""
        world = SimWorld(1)
        return cls.make(
            nursery, settings=settings, world=world, engines=[await open_engines(nursery, world, number) for number in range(4)]
        )

    @classmethod
    async def coded(
        cls,
        nursery: trio.Nursery,
        settings: Settings | None = None,
        *,
        k: int = 4,
        m: int = 2,
        device_count: int = 8,
        wrap: Callable[[LocalNode], Node] | None = None,
    ) -> Ground:
        """Policy 1 is k+m, over real engines; each device has a part for it."""
        world = SimWorld(1)
        engines = [await open_engines(nursery, world, number) for number in range(device_count)]
        policies = Policies([Policy(0, "whole", 3, default=True), Policy(1, "coded", k + m, k=k, m=m)])
        ground = cls.make(
            nursery, settings=settings, world=world, engines=engines, device_count=device_count, policies=policies, wrap=wrap
        )
        ground.parts = [await open_part(nursery, world, store, 1) for store, _ in engines]
        for node, part in zip(ground.nodes, ground.parts, strict=True):
            local = node.node if isinstance(node, Distant) else node
            assert isinstance(local, LocalNode)
            local.stores = {1: part}
            part.removal.notes = True
        return ground

    async def reformat(self, number: int) -> None:
        """The device is replaced by an empty one."""
        self.engines[number] = await open_engines(self.nursery, self.world, number, "/replaced")
        self.nodes[number] = LocalNode(make_device(number), *self.engines[number], self.payer)

    @classmethod
    def make(
        cls,
        nursery: trio.Nursery,
        *,
        device_count: int = 4,
        replicas: int = 3,
        settings: Settings | None = None,
        write_quorum: Callable[[Voters], WriteQuorum] = WriteQuorum,
        wrap: Callable[[LocalNode], Node] | None = None,
        world: World | None = None,
        engines: Sequence[tuple[ObjectStore, Books]] = (),
        policies: Policies | None = None,
    ) -> Ground:
        world = world or SimWorld(1)
        rings = Rings(
            Overlap.of(make_ring(device_count, replicas, shift=2)),
            Overlap.of(make_ring(device_count, replicas, shift=1)),
            {0: Overlap.of(make_ring(device_count, replicas))},
        )
        for policy in policies or ():
            if policy.index:
                rings.objects = {
                    **rings.objects,
                    policy.index: Overlap.of(make_ring(device_count, int(policy.replicas), shift=policy.index)),
                }
        objects = [FakeObjects(HASHER) for _ in range(device_count)]
        books = [FakeBooks(HASHER) for _ in range(device_count)]
        nodes: list[Node] = []
        payer = RowPayer(nursery, lambda device_id: nodes[device_id])
        for number in range(device_count):
            if engines:
                local = LocalNode(make_device(number), *engines[number], payer)
            else:
                local = LocalNode(make_device(number), objects[number], books[number], payer)
            nodes.append(wrap(local) if wrap is not None else local)
        storage = ClusterStorage(
            world,
            nursery,
            rings,
            lambda device: nodes[device.id],
            TimestampSource(world.clock),
            settings=settings,
            write_quorum=write_quorum,
            policies=policies,
        )
        return cls(world, nursery, rings, objects, books, nodes, storage, payer, list(engines))

    def break_device(self, number: int, broken: bool = True) -> None:
        self.objects[number].broken = self.books[number].broken = broken


class Distant:
    """A node behind a line that can be cut (calls fail at once) or hang (calls never return)."""

    def __init__(self, node: LocalNode, first: Distant | None = None) -> None:
        self._first = first or self  # whose line it is
        self.device = node.device
        self.node = node
        self.cut = False
        self.hangs = False
        self.before_commit: Callable[[], None] = lambda: None
        self.rule: Callable[[str], None] = lambda step: None
        self.waits: dict[str, trio.Event] = {}  # steps that come late
        self.calls: list[str] = []
        self.delay_s: Callable[[], float] = lambda: 0.001
        self.uploads = 0  # fragments that were begun, and neither staged nor given up

    def under(self, claim: Claim | None) -> Node:
        """On the same line: it is cut for all claims at once."""
        return cast(Node, Distant(self.node.under(claim), self._first))

    def of(self, policy: int) -> Node:
        return cast(Node, Distant(self.node.of(policy), self._first))

    def fragments(self) -> FragmentNode:
        return cast(FragmentNode, _DistantFragments(self))

    def __getattr__(self, name: str) -> Callable[..., Awaitable[object]]:
        async def call(*args: object, **kwargs: object) -> object:
            self._first.calls.append(name)
            await self._line(name)
            result = await getattr(self.node, name)(*args, **kwargs)
            return _DistantUpload(self, result) if name == "put_large" else result

        return call

    async def _line(self, step: str = "") -> None:
        if self._first.cut:
            raise Unavailable("the line is cut")
        if self._first.hangs:
            await trio.sleep_forever()
        if step in self._first.waits:
            await self._first.waits[step].wait()
        await trio.sleep(self._first.delay_s())


class _DistantFragments:
    """``rule`` of the line is asked about each step before it is done, and may raise."""

    def __init__(self, line: Distant) -> None:
        self.device = line.device
        self._line = line
        self._fragments = line.node.fragments()

    def __getattr__(self, name: str) -> Callable[..., Awaitable[object]]:
        async def call(*args: object, **kwargs: object) -> object:
            self._line._first.calls.append(name)
            await self._line._line(name)
            self._line._first.rule(name)
            result = await getattr(self._fragments, name)(*args, **kwargs)
            if name == "begin":
                return _DistantFragment(self._line, result)
            return _distant_pieces(self._line, result) if name == "read" and result is not None else result

        return call


async def _distant_pieces(line: Distant, pieces: AsyncIterator[Piece]) -> AsyncIterator[Piece]:
    try:
        async for piece in pieces:
            await line._line()
            line._first.rule("piece")
            yield await loaded(piece)
    finally:
        await aclose(pieces)


class _DistantFragment:
    def __init__(self, line: Distant, upload: FragmentUpload) -> None:
        self.claim = upload.claim
        self._line = line
        self._upload = upload
        self._open = True
        line._first.uploads += 1

    async def write(self, data: Buffer) -> None:
        await self._line._line()
        self._line._first.rule("write")
        await self._upload.write(data)

    async def stage(self, version: Version, fragment: Fragment, *, seen: bool = False, promised: bool = False) -> WriteReply:
        await self._line._line("stage")
        self._line._first.rule("stage")
        self._upload.claim = self.claim
        return await self._upload.stage(version, fragment, seen=seen, promised=promised)

    async def abort(self) -> None:
        self._line._first.uploads -= self._open
        self._open = False
        await self._upload.abort()


class _DistantUpload:
    def __init__(self, line: Distant, upload: NodeUpload) -> None:
        self.claim = upload.claim
        self._line = line
        self._upload = upload

    async def write(self, data: Buffer) -> None:
        await self._line._line()
        await self._upload.write(data)

    async def commit(self, version: Version, debt: Debt | None) -> WriteReply:
        await self._line._line()
        self._line._first.before_commit()
        self._upload.claim = self.claim
        return await self._upload.commit(version, debt)

    async def abort(self) -> None:
        await self._upload.abort()


def distant(node: LocalNode) -> Node:
    return cast(Node, Distant(node))


async def far_ground(nursery: trio.Nursery, settings: Settings, device_count: int) -> tuple[Ground, list[Distant]]:
    """Real engines, each device behind a line of its own."""
    world = SimWorld(1)
    lines: list[Distant] = []

    def wrap(node: LocalNode) -> Node:
        lines.append(Distant(node))
        return cast(Node, lines[-1])

    engines = [await open_engines(nursery, world, number) for number in range(device_count)]
    return Ground.make(nursery, settings=settings, world=world, engines=engines, wrap=wrap), lines
