"""Control state for the played cluster: in RAM and always there, or the production store with its three logs, on one machine.

    HostedKV   the store that one machine runs (ring.kv.local), as everybody else reaches it: gone while that machine is down
    SharedKV   one machine's way to the control state, which faults may cut

A change whose answer got lost may have happened, as with any control state over a network.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, TypeVar, cast

import trio

from ring.errors import Unavailable
from ring.kv.interface import KV, Entry, LeaseId, Operation, Outcome, Unchanged, Watch
from ring.kv.local import LocalStore
from ring.world.interface import World

if TYPE_CHECKING:
    from tests.sim.cluster import Member

T = TypeVar("T")
LOGS = tuple(f"/srv/control{number}" for number in range(3))
PATIENCE_S = 2.0


class HostedKV:
    """Implements ring.kv.interface.KV."""

    def __init__(self) -> None:
        self.host: Member | None = None
        self._store: LocalStore | None = None

    async def start(self, nursery: trio.Nursery, world: World, host: Member) -> None:
        """In a life of its machine."""
        self.host, self._store = host, None
        disks = [world.open_disk(path) for path in LOGS]
        for disk in disks:
            await disk.make_dirs("")
        store = LocalStore(world, disks)
        await nursery.start(store.run)
        self._store = store

    def stop(self) -> None:
        """Its machine is down."""
        self._store = None

    async def get(self, key: str) -> Entry | None:
        return await self._call(lambda store: store.get(key))

    async def range(self, prefix: str, *, limit: int | None = None) -> list[Entry]:
        return await self._call(lambda store: store.range(prefix, limit=limit))

    async def transact(self, compares: Sequence[Unchanged], operations: Sequence[Operation]) -> Outcome:
        return await self._call(lambda store: store.transact(compares, operations))

    def watch(self, prefix: str) -> AbstractAsyncContextManager[Watch]:
        if self._store is None:
            raise Unavailable("control state is down")
        return self._store.watch(prefix)

    async def grant(self, ttl_s: float) -> LeaseId:
        return await self._call(lambda store: store.grant(ttl_s))

    async def keep_alive(self, lease: LeaseId) -> None:
        await self._call(lambda store: store.keep_alive(lease))

    async def revoke(self, lease: LeaseId) -> None:
        await self._call(lambda store: store.revoke(lease))

    async def _call(self, call: Callable[[LocalStore], Awaitable[T]]) -> T:
        store, host = self._store, self.host
        if store is None or host is None:
            raise Unavailable("control state is down")
        answer = host.answer(lambda: call(store))
        with trio.move_on_after(PATIENCE_S):
            await answer.done.wait()
        if not answer.done.is_set():
            raise Unavailable("control state does not answer")
        if answer.error is not None:
            raise answer.error
        return cast(T, answer.value)


class SharedKV:
    """``reachable``: whether the network lets this machine through."""

    def __init__(self, kv: KV, reachable: Callable[[], bool] = lambda: True) -> None:
        self._kv = kv
        self._reachable = reachable
        self.away = False

    def _enter(self) -> None:
        if self.away or not self._reachable():
            raise Unavailable("control state cannot be reached")

    async def get(self, key: str) -> Entry | None:
        self._enter()
        return await self._kv.get(key)

    async def range(self, prefix: str, *, limit: int | None = None) -> list[Entry]:
        self._enter()
        return await self._kv.range(prefix, limit=limit)

    async def transact(self, compares: Sequence[Unchanged], operations: Sequence[Operation]) -> Outcome:
        self._enter()
        outcome = await self._kv.transact(compares, operations)
        self._enter()  # it happened, and nobody heard of it
        return outcome

    def watch(self, prefix: str) -> AbstractAsyncContextManager[Watch]:
        return self._kv.watch(prefix)

    async def grant(self, ttl_s: float) -> LeaseId:
        self._enter()
        return await self._kv.grant(ttl_s)

    async def keep_alive(self, lease: LeaseId) -> None:
        self._enter()
        await self._kv.keep_alive(lease)

    async def revoke(self, lease: LeaseId) -> None:
        self._enter()
        await self._kv.revoke(lease)
