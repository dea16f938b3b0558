"""Devices in RAM, the facade over them, and the workers that cut, join, count and bring together: on a virtual clock."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import trio

from ring.daemon.worker import Idle, Worker
from ring.device import Device
from ring.errors import RingfortError
from ring.kv.memory import MemoryKV
from ring.names import Path
from ring.service.overlap import Overlap
from ring.timestamp import Timestamp
from storage.client.interface import Page, Query, Row
from storage.client.node import Node
from storage.client.reach import Settings
from storage.container.replicator import BookReplicator
from storage.container.sharder import Limits, Sharder
from storage.container.shards import ShardMap, map_of, shard_path
from storage.container.updater import ContainerUpdater
from tests.storage.client.ground import Ground, make_device

CONTAINER = Path("AUTH_a", "c")
LIMITS = Limits(rows=8, join_after_s=5.0, patience_s=0.5, sums_s=0.5, step_s=0.1, interval_s=2.0)
DEVICES = 4


@dataclass
class ShardGround:
    ground: Ground
    limits: Limits
    kv: MemoryKV = field(default_factory=MemoryKV)
    workers: list[Worker] = field(default_factory=list)
    sharders: list[Sharder] = field(default_factory=list)
    ticks: int = 1000
    seen: ShardMap | None = None  # by front doors
    idle_until: dict[str, float] = field(default_factory=dict)

    @classmethod
    async def make(cls, nursery: trio.Nursery, limits: Limits = LIMITS, settings: Settings | None = None) -> ShardGround:
        ground = await Ground.with_engines(nursery, settings)
        ground.payer._primaries = lambda path: [d.id for d in ground.rings.container.places(path).devices]
        self = cls(ground, limits)
        self.restart()
        await ground.storage.put_container(CONTAINER, {})
        return self

    def restart(self) -> None:
        """All workers begin anew, as after a crash of their processes."""
        ground = self.ground
        self.workers, self.sharders = [], []
        self.idle_until.clear()

        def overlap(kind: str) -> Overlap:
            return ground.rings.account if kind == "account" else ground.rings.container

        def nodes(device: Device) -> Node:
            return ground.nodes[device.id]

        for number, (_, books) in enumerate(ground.engines):
            device = make_device(number)
            sharding = ground.storage.sharding
            sharder = Sharder(ground.world, device, books, lambda: overlap("container"), sharding, self.kv, limits=self.limits)
            self.sharders.append(sharder)
            self.workers += [
                sharder,
                BookReplicator(device, books, overlap, nodes, interval_s=5.0),
                ContainerUpdater(device, books, lambda: overlap("account"), nodes, interval_s=0.5),
            ]

    async def step(self, worker: Worker) -> bool:
        """One unit; False when there was nothing to do now, or it failed as it may."""
        now = trio.current_time()
        if self.idle_until.get(worker.name, now) > now:
            return False
        try:
            done = await worker.work()
        except RingfortError:
            done = Idle.after(0.25)
        if isinstance(done, Idle):
            self.idle_until[worker.name] = min(done.until_s, now + 0.25) if "sharder" in worker.name else done.until_s
        return not isinstance(done, Idle)

    async def run_for(self, seconds: float) -> None:
        """All workers, in turn."""
        until = trio.current_time() + seconds
        while trio.current_time() < until:
            busy = [await self.step(worker) for worker in self.workers]
            if not any(busy):
                await trio.sleep(0.25)
            await trio.lowlevel.checkpoint()

    async def put(self, names: Sequence[str], *, deleted: bool = False, size: int = 1) -> None:
        """Rows straight into the root, each with a timestamp of its own."""
        rows = []
        for name in names:
            self.ticks += 1
            rows.append(Row(name, Timestamp(self.ticks), 0 if deleted else size, "" if deleted else "e", deleted=deleted))
        await self.ground.storage._books.merge_rows(CONTAINER, rows)

    async def give(self, rows: Sequence[Row]) -> None:
        """As front doors do: to the shard of the map that they saw, which may be an old one; where it is refused, to the root."""
        sharding = self.ground.storage.sharding
        for row in rows:
            shard = self.seen.place(row.name) if self.seen is not None else None
            if shard is None or not shard.active or not await sharding.give(shard_path(CONTAINER, shard.name), [row]):
                assert await sharding.give(CONTAINER, [row])
        if self.ticks % 3 == 0:
            self.seen = await self.map()

    async def listed(self, query: Query | None = None) -> Page:
        return await self.ground.storage.list_container(CONTAINER, query or Query())

    async def names(self, **query: object) -> list[str]:
        return [item.name for item in (await self.listed(Query(**query))).items]  # type: ignore[arg-type]

    async def map(self) -> ShardMap | None:
        state = await self.ground.storage.sharding.state(CONTAINER)
        assert state is not None
        return map_of(state.header.metadata)

    async def totals(self) -> tuple[int, int, int, int]:
        """Objects and bytes, as the container says and as its account says."""
        container = await self.ground.storage.head_container(CONTAINER)
        account = await self.ground.storage.head_account(CONTAINER.parent)
        return container.object_count, container.bytes_used, account.object_count, account.bytes_used
