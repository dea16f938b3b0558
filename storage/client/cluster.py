"""ClusterStorage: the facade over the cluster's devices.  Wires the parts; decides nothing itself.

    objects     put get head delete post          reading   newest at a majority, body from who has it
    books       containers and accounts           writing   one version to a verdict, handoffs
    register    conditional writes
    large       streams for big bodies            repair    what a read found stale
    quorum, handoff, debts: pure                  fanout    the calls in flight

One per process.  It runs as ``async with ClusterStorage.running(...)``: calls that are left behind, and repairs, live in its
nursery and end with it.  Neighbours: interface (what it promises), node (what it asks), tools.deploy (builds it).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial

import trio

from ring.device import Device
from ring.names import Path
from ring.policy import Policies
from ring.service.overlap import Claim
from ring.service.voters import Voters
from ring.timestamp import Timestamp, TimestampSource
from ring.world.interface import World
from storage.client.books import BookOperations
from storage.client.coded_objects import CodedObjects
from storage.client.errors import NoQuorum
from storage.client.expiring import expire
from storage.client.fanout import Fanout
from storage.client.interface import (
    BodySource,
    BookMeta,
    Condition,
    NewObject,
    ObjectMeta,
    Page,
    Query,
    Reading,
    Stored,
)
from storage.client.node import Node
from storage.client.objects import ObjectOperations
from storage.client.quorum import WriteQuorum
from storage.client.reach import Reach, Rings, Settings
from storage.client.reaping import Reaping
from storage.client.register import Register
from storage.client.repair import Repairer
from storage.client.sharding import Sharding


class ClusterStorage:
    """Implements storage.client.interface.Storage."""

    def __init__(
        self,
        world: World,
        nursery: trio.Nursery,
        rings: Rings,
        nodes: Callable[[Device], Node],
        timestamps: TimestampSource,
        *,
        settings: Settings | None = None,
        write_quorum: Callable[[Voters], WriteQuorum] = WriteQuorum,
        policies: Policies | None = None,
        renew: Callable[[Claim], Awaitable[bool]] | None = None,
    ) -> None:
        """``nodes`` is asked for a device's node at every use, so it may change its mind.  ``nursery`` runs the calls in flight and
        the repairs, and must outlive the last call.  ``renew``: see Reach."""
        settings = settings or Settings()
        reach = Reach(world, rings, nodes, timestamps, Fanout(nursery), settings, write_quorum)
        reach.policies = policies
        if renew is not None:
            reach.renew = renew
        self.reach = reach
        self.repairer = Repairer(reach)
        self._books = BookOperations(reach)
        self.register = Register(reach, self._books)
        self._objects = ObjectOperations(reach, self._books, self.register, self.repairer)
        self.coded = CodedObjects(reach, self._books, self.repairer)
        self.repairer.coded = self.coded.repair
        self._objects.coded = self.coded
        self.reaping = Reaping(reach, self._books, self._objects)  # for the account reaper
        self.sharding = Sharding(reach, self._books)  # for the sharder
        self._current = reach.current  # around what can be done again from its beginning
        nursery.start_soon(self.repairer.run)

    @classmethod
    @asynccontextmanager
    async def running(
        cls,
        world: World,
        rings: Rings,
        nodes: Callable[[Device], Node],
        timestamps: TimestampSource,
        *,
        settings: Settings | None = None,
        write_quorum: Callable[[Voters], WriteQuorum] = WriteQuorum,
    ) -> AsyncIterator[ClusterStorage]:
        """With a nursery of its own, cancelled at the end."""
        async with trio.open_nursery() as nursery:
            yield cls(world, nursery, rings, nodes, timestamps, settings=settings, write_quorum=write_quorum)
            nursery.cancel_scope.cancel()

    async def put_object(self, path: Path, new: NewObject, body: BodySource) -> Stored:
        return await self._objects.put(path, new, body)

    async def get_object(
        self,
        path: Path,
        *,
        offset: int = 0,
        length: int | None = None,
        version: Timestamp | None = None,
        newest: bool = False,
    ) -> Reading:
        return await self._current(lambda: self._objects.get(path, offset, length, version, newest=newest))

    async def head_object(self, path: Path, *, newest: bool = False) -> ObjectMeta:
        return await self._objects.head(path, newest=newest)

    async def delete_object(self, path: Path, *, condition: Condition | None = None) -> None:
        await self._objects.delete(path, condition)

    async def post_object(self, path: Path, metadata: Mapping[str, str], *, content_type: str = "") -> None:
        await self._current(lambda: self._objects.post(path, metadata, content_type))

    async def expire_object(self, policy: int, path: Path, due: int) -> bool:
        """For the expirer: see storage.client.expiring."""
        look = partial(self.coded.look, policy, path, shown=False) if self.reach.coding(policy) is not None else None
        return await expire(self.reach, self._books, self.repairer, policy, path, due, look)

    async def settle_object(self, policy: int, path: Path) -> None:
        """For the settler: bring to rest what a conditional write has left.  NoQuorum."""
        if self.reach.coding(policy) is not None:
            raise NoQuorum(f"{path}: what a conditional write has left of an erasure-coded object stands until it is written again")
        await self.register.settle(policy, path)

    async def put_container(self, path: Path, metadata: Mapping[str, str], *, policy: int | None = None, default: int = 0) -> bool:
        return await self._current(lambda: self._books.put_container(path, metadata, policy, default))

    async def head_container(self, path: Path) -> BookMeta:
        return await self._current(lambda: self._books.head_container(path))

    async def post_container(self, path: Path, metadata: Mapping[str, str]) -> None:
        await self._current(lambda: self._books.post_container(path, metadata))

    async def delete_container(self, path: Path) -> None:
        await self._current(lambda: self._books.delete_container(path))

    async def list_container(self, path: Path, query: Query) -> Page:
        return await self._current(lambda: self._books.list_container(path, query))

    async def put_account(self, path: Path, metadata: Mapping[str, str]) -> bool:
        return await self._current(lambda: self._books.put_account(path, metadata))

    async def head_account(self, path: Path) -> BookMeta:
        return await self._current(lambda: self._books.head_account(path))

    async def post_account(self, path: Path, metadata: Mapping[str, str]) -> None:
        await self._current(lambda: self._books.post_account(path, metadata))

    async def delete_account(self, path: Path) -> None:
        await self._current(lambda: self._books.delete_account(path))

    async def list_account(self, path: Path, query: Query) -> Page:
        return await self._current(lambda: self._books.list_account(path, query))
