"""What has the fewest good copies is repaired first: over all partitions of a device, and in a cluster that lost two disks."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import trio
from trio.testing import MockClock

from ring.daemon.worker import Busy, once
from ring.device import Device
from ring.names import Path, Span
from ring.service.overlap import Overlap
from ring.timestamp import Timestamp
from ring.world.sim import SimWorld
from storage.client.local import LocalNode
from storage.client.node import Kind, Node, NodeReading, Version
from storage.object.replicator import ObjectReplicator
from storage.sync.order import Order
from tests.storage.client.ground import Distant, Ground, make_device, make_ring, open_engines

DEVICES = 6
PART_POWER = 8  # 128 partitions of each device: many more than are looked at together
HOP_S = 0.005  # to another device
PATHS = [Path("AUTH_a", "c", f"o{number}") for number in range(900)]


class HashOrder(Order):
    """As the hashes are, whatever there is of each: what repair would be without an order."""

    @property
    def urgency(self) -> int | None:
        return None

    def copies(self, span: Span) -> int:
        return 1

    def empty(self, device: int, span: Span) -> None:
        pass


class Line:
    """A node some milliseconds away; tells the scene what is written to it."""

    def __init__(self, scene: Scene, node: Node) -> None:
        self._scene = scene
        self._node = node

    def __getattr__(self, name: str):  # type: ignore[no-untyped-def]  # any method of the node
        async def call(*arguments, **named):  # type: ignore[no-untyped-def]
            await trio.sleep(HOP_S)
            result = await getattr(self._node, name)(*arguments, **named)
            if name == "put_small":
                self._scene.note(self._node.device.id, arguments[0].path)
            return result

        return call


class Scene:
    """Six devices; a partition is on three that follow each other."""

    def __init__(self, ground: Ground) -> None:
        self.ground = ground
        self.overlap = Overlap.of(make_ring(DEVICES, part_power=PART_POWER))
        self.holders: dict[Path, set[int]] = {}
        self.brought: list[int] = []  # how many copies there were of each version that was brought, in this order
        self.two_at = 0.0  # when the last version came to have two copies
        self.three_at = 0.0

    @classmethod
    async def start(cls, nursery: trio.Nursery, paths: Sequence[Path] = PATHS) -> Scene:
        world = SimWorld(1)
        engines = [await open_engines(nursery, world, number) for number in range(DEVICES)]
        scene = cls(Ground.make(nursery, device_count=DEVICES, world=world, engines=engines))
        for path in paths:
            await scene.put(path, scene.primaries(path))
        return scene

    def primaries(self, path: Path) -> list[int]:
        ring = self.overlap.ring
        return [device.id for device in ring.primaries(ring.partition(path))]

    async def put(self, path: Path, devices: Sequence[int]) -> None:
        data = path.object.encode()
        for number in devices:
            version = Version(path, Timestamp(1), Kind.OBJECT, len(data), path.object, "a/b")
            await self.ground.nodes[number].put_small(version, data, None)
            self.holders.setdefault(path, set()).add(number)

    async def replace(self, *numbers: int) -> None:
        for number in numbers:
            await self.ground.reformat(number)
            for held in self.holders.values():
                held.discard(number)

    def worker(self, number: int, order: Order | None = None) -> ObjectReplicator:
        nodes = [Line(self, node) for node in self.ground.nodes]

        def reach(device: Device) -> Node:
            return nodes[device.id]

        worker = ObjectReplicator(make_device(number), self.ground.engines[number][0], lambda: self.overlap, reach)
        if order is not None:
            worker.order = order
        return worker

    def note(self, number: int, path: Path) -> None:
        held = self.holders[path]
        if number in held:
            return  # another one brought it
        self.brought.append(len(held))
        held.add(number)
        if len(held) == 2:
            self.two_at = trio.current_time()
        elif len(held) == 3:
            self.three_at = trio.current_time()


async def test_one_device_sends_what_it_alone_has_before_anything_else(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    """Devices 1 and 2 are empty; besides, device 5 missed some writes, also to partitions that come late in the pass."""
    scene = await Scene.start(nursery, PATHS[:300])
    for path in PATHS[300:360]:
        await scene.put(path, [number for number in scene.primaries(path) if number != 5])
    await scene.replace(1, 2)
    worker = scene.worker(0)
    await once(worker)
    mine = [path for path in scene.holders if 0 in scene.primaries(path)]
    assert all(scene.holders[path] == set(scene.primaries(path)) for path in mine)
    assert set(scene.brought) == {1, 2} and scene.brought == sorted(scene.brought)
    assert worker.order.short() == 0


async def test_what_nobody_lacks_is_looked_at_once(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    scene = await Scene.start(nursery, PATHS[:100])
    worker = scene.worker(0)
    await once(worker)
    held = {Span(PART_POWER, scene.overlap.ring.partition(path)) for path in scene.holders if 0 in scene.holders[path]}
    assert worker.order.fraction == 0.0 and worker.pushed == 0  # the next pass has not begun
    worker.order.begin()
    looks = 0
    while worker.order.start is not None or worker.order.urgency is not None:
        await worker.work()
        looks = max(looks, worker.order.looks)
    assert looks == len(held)


async def test_partitions_known_to_be_short_come_first_in_the_next_pass(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    scene = await Scene.start(nursery, PATHS[:200])
    node = scene.ground.nodes[2]
    assert isinstance(node, LocalNode)
    away = Distant(node)
    away.cut = True
    scene.ground.nodes[2] = away  # type: ignore[call-overload]  # a Node by its shape
    worker = scene.worker(0)
    await once(worker)
    ring = scene.overlap.ring
    held = {ring.partition(path) for path in scene.holders}
    shared = {p for p in range(1 << PART_POWER) if p in held and {0, 2} <= {device.id for device in ring.primaries(p)}}
    facts = worker.progress().facts
    assert facts["short_partitions"] == len(shared) > 0 and facts["single_partitions"] == 0
    away.cut = False
    looked: list[int] = []
    following = worker.order.next

    def noted() -> Span | None:
        span = following()
        looked.extend([span.partition] if span is not None else [])
        return span

    worker.order.next = noted  # type: ignore[method-assign]  # a spy: the order is as it is
    await once(worker)
    assert set(looked[: len(shared)]) == shared and len(looked) > len(shared)
    assert worker.progress().facts["short_partitions"] == 0


async def test_what_is_replaced_again_and_again_holds_nothing_up(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    """A client writes one object all the time, to this device alone: each time it is to be sent it has another version."""
    scene = await Scene.start(nursery, PATHS[:60])
    hot = next(path for path in PATHS[60:] if 0 in scene.primaries(path))
    await scene.put(hot, [0])
    await scene.replace(2)
    worker = scene.worker(0)
    store = scene.ground.engines[0][0]
    reading = store.object_by_key
    writes = itertools.count(2)

    async def read(key: bytes) -> NodeReading | None:
        version = Version(hot, Timestamp(next(writes)), Kind.OBJECT, 0, "e", "a/b")
        await scene.ground.nodes[0].put_small(version, b"", None)
        return await reading(key)

    store.object_by_key = read  # type: ignore[method-assign]  # the client
    await once(worker)
    assert all(len(held) == 3 for path, held in scene.holders.items() if 0 in scene.primaries(path) and path != hot)
    assert worker.order.short() == 1
    store.object_by_key = reading  # type: ignore[method-assign]
    await once(worker)
    assert worker.order.short() == 0


async def _repaired(nursery: trio.Nursery, hash_order: bool) -> Scene:
    """Two of six devices are replaced by empty ones at one time; all others repair them together."""
    scene = await Scene.start(nursery)
    await scene.replace(1, 2)
    workers = [scene.worker(number, HashOrder() if hash_order else None) for number in (0, 3, 4, 5)]
    began = trio.current_time()
    async with trio.open_nursery() as repair:
        for worker in workers:
            repair.start_soon(once, worker)
    assert all(len(held) == 3 for held in scene.holders.values())
    scene.two_at -= began
    scene.three_at -= began
    return scene


async def test_two_lost_disks_everything_has_two_copies_long_before_it_has_three(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    ordered = await _repaired(nursery, hash_order=False)
    unordered = await _repaired(nursery, hash_order=True)
    print(f"two copies of all after {ordered.two_at:.2f} s, three after {ordered.three_at:.2f} s")
    print(f"by hashes: two after {unordered.two_at:.2f} s, three after {unordered.three_at:.2f} s")
    assert ordered.two_at < unordered.two_at / 1.5
    assert ordered.three_at < unordered.three_at * 1.5  # each partition is looked at twice


async def test_while_something_is_short_the_next_pass_comes_soon_at_first(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    scene = await Scene.start(nursery, PATHS[:50])
    node = scene.ground.nodes[2]
    assert isinstance(node, LocalNode)
    away = Distant(node)
    away.cut = True
    scene.ground.nodes[2] = away  # type: ignore[call-overload]  # a Node by its shape
    worker = scene.worker(0)

    async def rest_s() -> float:
        while isinstance(done := await worker.work(), Busy):
            pass
        return round(done.until_s - trio.current_time(), 3)

    assert [await rest_s() for _ in range(6)] == [2, 4, 8, 16, 30, 30]
    away.cut = False
    assert [await rest_s() for _ in range(2)] == [30, 30] and worker.order.short() == 0
