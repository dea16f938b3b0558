"""Clients: seeded requests at any front door, each with its time and fate in the history.

Bodies say which PUT they are of, so that a read knows what it saw, and are checked byte by byte.  Sizes lie on both sides of the
pack cut.  A request that got no answer, or "unavailable", may have happened.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable

import trio

from ring.errors import Unavailable
from ring.names import Path
from ring.wire.message import BytesBody
from storage.client.bodies import aclose, loaded
from storage.client.cluster import ClusterStorage
from storage.client.errors import ContainerNotFound, ObjectNotFound
from storage.client.interface import NewObject, Query, Reading, Row, Stored
from tests.sim.bodies import body_of, value_of
from tests.sim.cluster import Cluster, Member
from tests.sim.direct import GONE
from tests.sim.history import History, Kind, Operation, Outcome

ACCOUNT = "a"
CONTAINERS = ("c0", "c1")
NAMES = ("x", "y", "z")
PATIENCE_S = 30.0
PAUSE_S = 0.8
SIZES = (10, 300, 3000, 4097, 9000, 20_000)


def path_of(name: str) -> Path:
    container, _, item = name.partition("/")
    return Path(ACCOUNT, container, item)


class Workload:
    def __init__(self, cluster: Cluster, rng: random.Random) -> None:
        self.cluster = cluster
        self.history = History()
        self.violations: list[str] = []  # what no history is needed for
        self._rng = rng
        self._values = 0

    async def prepare(self) -> None:
        for container in CONTAINERS:
            await self._try(Path(ACCOUNT, container))

    async def _try(self, path: Path) -> None:
        while True:
            answer = self._member().execute(lambda facade: facade.put_container(path, {}))
            await answer.done.wait()
            if answer.error is None:
                return
            await trio.sleep(1)

    async def client(self, number: int, until: float) -> None:
        rng = random.Random(f"{self.cluster.simulation.seed}/client/{number}")
        while trio.current_time() < until:
            await trio.sleep(rng.expovariate(1 / PAUSE_S))
            member = rng.choice(self.cluster.members)
            name = f"{rng.choice(CONTAINERS)}/{rng.choice(NAMES)}"
            choice = rng.random()
            if choice < 0.45:
                await self.put(member, name, rng.choice(SIZES))
                await self._look_elsewhere(rng, name)
            elif choice < 0.80:
                await self.get(member, name)
            elif choice < 0.93:
                await self.delete(member, name)
                await self._look_elsewhere(rng, name)
            elif choice < 0.97:
                await self.post(member, name, rng.randrange(1000))
            else:
                await self._ask(member, lambda facade: facade.list_container(Path(ACCOUNT, "c0"), Query()))

    async def _look_elsewhere(self, rng: random.Random, name: str) -> None:
        """At once, at other front doors: what was acknowledged by too few is not there yet."""
        if rng.random() < 0.5:
            async with trio.open_nursery() as nursery:
                for member in rng.sample(self.cluster.members, 2):
                    nursery.start_soon(self.get, member, name)

    async def put(self, member: Member, name: str, size: int) -> None:
        self._values += 1
        value = self._values
        data = body_of(value, size)
        operation = self._begin(Kind.PUT, name, member, value)
        new = NewObject(metadata={"x-object-meta-value": str(value)})
        found = await self._ask(member, lambda facade: facade.put_object(path_of(name), new, BytesBody(data)), operation)
        if isinstance(found, Stored):
            operation.detail = f"at {found.meta.timestamp}"
        self._end(operation, Outcome.ACKED if found is not None else None)

    async def get(self, member: Member, name: str) -> Operation:
        operation = self._begin(Kind.READ, name, member)

        async def get(facade: ClusterStorage) -> bytes | ObjectNotFound:
            try:
                reading: Reading = await facade.get_object(path_of(name))
            except ObjectNotFound as error:
                return error
            data = bytearray()
            try:
                async for piece in reading.pieces:
                    data += await loaded(piece)
            finally:
                await aclose(reading.pieces)
            if len(data) != reading.meta.size:
                self.violations.append(f"{name}: {len(data)} bytes of {reading.meta.size} without an error")
            return bytes(data)

        found = await self._ask(member, get, operation)
        if isinstance(found, bytes):
            try:
                operation.value = value_of(found)
            except ValueError as error:
                self.violations.append(f"{name}: {error}")
        self._end(operation, Outcome.ACKED if found is not None else None)
        return operation

    async def delete(self, member: Member, name: str) -> None:
        operation = self._begin(Kind.DELETE, name, member)

        async def delete(facade: ClusterStorage) -> bool:
            try:
                await facade.delete_object(path_of(name))
            except ObjectNotFound:
                return False
            return True

        found = await self._ask(member, delete, operation)
        if found is False:  # it saw that there is nothing
            operation.kind = Kind.READ
        self._end(operation, Outcome.ACKED if found is not None else None)

    async def post(self, member: Member, name: str, number: int) -> None:
        async def post(facade: ClusterStorage) -> None:
            try:
                await facade.post_object(path_of(name), {"x-object-meta-post": str(number)})
            except ObjectNotFound:
                return

        await self._ask(member, post)

    async def head(self, member: Member, name: str) -> tuple[int, str] | None:
        """(size, etag); None when it is not there."""

        async def head(facade: ClusterStorage) -> tuple[int, str] | None:
            try:
                meta = await facade.head_object(path_of(name))
            except ObjectNotFound:
                return None
            return meta.size, meta.etag

        found = await self._ask(member, head)
        return found if isinstance(found, tuple) else None

    async def listing(self, member: Member, container: str) -> dict[str, tuple[int, str]] | None:
        """name -> (size, etag); None when there is no answer."""

        async def collect(facade: ClusterStorage) -> dict[str, tuple[int, str]]:
            found: dict[str, tuple[int, str]] = {}
            marker = ""
            while True:
                page = await facade.list_container(Path(ACCOUNT, container), Query(marker=marker, limit=2))
                for item in page.items:
                    assert isinstance(item, Row)
                    found[f"{container}/{item.name}"] = (item.size, item.etag)
                    marker = item.name
                if not page.truncated:
                    return found

        found = await self._ask(member, collect)
        return found if isinstance(found, dict) else None

    # ----

    def _member(self) -> Member:
        return self._rng.choice(self.cluster.members)

    def _begin(self, kind: Kind, name: str, member: Member, value: int = 0) -> Operation:
        return self.history.begin(kind, name, trio.current_time(), member.name, value)

    def _end(self, operation: Operation, outcome: Outcome | None) -> None:
        operation.end = trio.current_time()
        if outcome is not None:
            operation.outcome = outcome
        self.cluster.simulation.trace(str(operation))

    async def _ask(
        self, member: Member, call: Callable[[ClusterStorage], Awaitable[object]], operation: Operation | None = None
    ) -> object:
        """The reply; None when there is none (the operation then says why, and whether it can still happen)."""
        answer = member.execute(call)
        with trio.move_on_after(PATIENCE_S):
            await answer.done.wait()
        if answer.error is None:
            return None if answer.value is GONE else answer.value
        if operation is not None:
            operation.detail = str(answer.error)
            if isinstance(answer.error, ContainerNotFound) or answer.refused:
                operation.outcome = Outcome.REFUSED
            elif not isinstance(answer.error, Unavailable):
                self.violations.append(f"{operation}: {type(answer.error).__name__}")
        return None
