"""Clients: the requests of a script at any front door, each with its time and fate in the history.

Bodies say which PUT they are of, so that a read knows what it saw, and are checked byte by byte.  Sizes lie on both sides of the
pack cut.  A request that got no answer, or "unavailable", may have happened.  Racing clients remember what they saw last of a name
and write on that condition.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import trio

from ring.errors import Unavailable
from ring.names import Path
from ring.wire.client import Client
from ring.world.sim.medium import FolderNode
from storage.client.errors import ContainerNotFound, ObjectNotFound, PreconditionFailed
from storage.client.interface import Condition
from tests.sim.bodies import body_of, value_of
from tests.sim.cluster import Cluster, Member
from tests.sim.coded import POLICY
from tests.sim.direct import Answer
from tests.sim.door import ACCOUNT, NO_CONDITION, Damaged, DirectDoor, Door, HttpDoor, Item, ServerError
from tests.sim.history import History, Kind, Operation, Outcome
from tests.sim.linearizable import ALWAYS, When
from tests.sim.linearizable import Condition as Asked
from tests.sim.script import Request, Script

T = TypeVar("T")
CONTAINERS = ("c0", "c1", "r")
PATIENCE_S = 30.0
NOTHING = object()  # no reply


def path_of(name: str) -> Path:
    container, _, item = name.partition("/")
    return Path(ACCOUNT, container, item)


class Workload:
    def __init__(self, cluster: Cluster, script: Script) -> None:
        self.cluster = cluster
        self.history = History()
        self.violations: list[str] = []  # what no history is needed for
        self.names = sorted({request.name for request in script.requests})
        self._script = script
        self._values = 0
        self._sizes: dict[int, int] = {}  # of values, asked for
        self._client: Client | None = None
        if script.door:
            machine = cluster.simulation.node("client")
            machine.disk("/").root = FolderNode()
            self._client = Client(machine.world.net)

    async def prepare(self) -> None:
        for number, container in enumerate(CONTAINERS):
            path = Path(ACCOUNT, container)
            while await self._make(self.cluster.members[number], path) is NOTHING:
                await trio.sleep(1)

    async def _make(self, member: Member, path: Path) -> object:
        coded = self._script.coded if self.cluster.options.coded is not None else None
        policy = POLICY if coded is not None and coded.container == path.container else 0
        return await self._ask(member, lambda door: door.make_container(path, policy))

    async def hang_up(self) -> None:
        """Connections that the faults left behind."""
        if self._client is not None:
            await self._client.aclose()

    async def client(self, requests: Sequence[Request], until: float) -> None:
        seen: dict[str, int] = {}  # by name: the value that this client saw last, 0 for nothing
        for request in requests:
            await trio.sleep(request.pause_s)
            if trio.current_time() >= until:
                return
            member = self.cluster.members[request.member]
            await self._do(request, member, seen)
            if request.look and request.verb not in ("get", "list", "post"):
                # At once, at other front doors: what was acknowledged by too few is not there yet.
                rng = random.Random(request.number)
                async with trio.open_nursery() as nursery:
                    for other in rng.sample(self.cluster.members, request.look):
                        nursery.start_soon(self.get, other, request.name)

    async def _do(self, request: Request, member: Member, seen: dict[str, int]) -> None:
        name, size = request.name, request.size
        match request.verb:
            case "put":
                await self.put(member, name, size)
            case "create":
                await self.put(member, name, size, Asked(When.ABSENT))
            case "replace" if seen.get(name):
                await self.put(member, name, size, Asked(When.EQUAL, seen[name]))
            case "remove" if seen.get(name):
                await self.delete(member, name, Asked(When.EQUAL, seen[name]))
            case "delete":
                await self.delete(member, name)
            case "post":
                await self._ask(member, lambda door: _post(door, path_of(name), request.number))
            case "list":
                await self._ask(member, lambda door: door.page(path_of(name).parent, "", 100))
            case _:
                operation = await self.get(member, name)
                if operation.outcome is Outcome.ACKED:
                    seen[name] = operation.value

    async def put(self, member: Member, name: str, size: int, condition: Asked = ALWAYS) -> Operation:
        self._values += 1
        value = self._values
        data = body_of(value, size)
        self._sizes[value] = size
        operation = self._begin(Kind.PUT, name, member, value, condition)
        metadata = {"x-object-meta-value": str(value)}
        found = await self._ask(member, lambda door: door.put(path_of(name), data, metadata, self._condition(condition)), operation)
        return self._end(operation, found)

    async def get(self, member: Member, name: str) -> Operation:
        operation = self._begin(Kind.READ, name, member)
        found = await self._ask(member, lambda door: _or_none(door.get(path_of(name))), operation)
        if isinstance(found, bytes):
            try:
                operation.value = value_of(found)
            except ValueError as error:
                self.violations.append(f"{name}: {error}")
        return self._end(operation, found)

    async def delete(self, member: Member, name: str, condition: Asked = ALWAYS) -> Operation:
        operation = self._begin(Kind.DELETE, name, member, condition=condition)

        async def delete(door: Door) -> bool:
            try:
                await door.delete(path_of(name), self._condition(condition))
            except ObjectNotFound:
                return False
            return True

        found = await self._ask(member, delete, operation)
        if found is False:  # it saw that there is nothing
            operation.kind, operation.condition = Kind.READ, ALWAYS
        return self._end(operation, found)

    async def head(self, member: Member, name: str) -> tuple[int, str] | None:
        """(size, etag); None when it is not there."""
        found = await self._ask(member, lambda door: _or_none(door.head(path_of(name))))
        return (found.size, found.etag) if isinstance(found, Item) else None

    async def listing(self, member: Member, container: str) -> dict[str, tuple[int, str]] | None:
        """name -> (size, etag); None when there is no answer."""

        async def collect(door: Door) -> dict[str, tuple[int, str]]:
            found: dict[str, tuple[int, str]] = {}
            marker, more = "", True
            while more:
                page, more = await door.page(Path(ACCOUNT, container), marker, 2)
                for item in page:
                    found[f"{container}/{item.name}"] = (item.size, item.etag)
                    marker = item.name
            return found

        found = await self._ask(member, collect)
        return found if isinstance(found, dict) else None

    async def totals(self, member: Member) -> tuple[dict[str, tuple[int, int]], tuple[int, int, int]] | None:
        """Of each container (objects, bytes), and of the account (containers, objects, bytes)."""

        async def ask(door: Door) -> tuple[dict[str, tuple[int, int]], tuple[int, int, int]]:
            of = {container: await door.container_totals(Path(ACCOUNT, container)) for container in CONTAINERS}
            return of, await door.account_totals()

        found = await self._ask(member, ask)
        return None if found is NOTHING else found  # type: ignore[return-value]

    # ----

    def _condition(self, asked: Asked) -> Condition:
        match asked.when:
            case When.ABSENT:
                return Condition(if_none_match=("*",))
            case When.EQUAL:
                body = body_of(asked.value, self._sizes[asked.value])
                return Condition(if_match=(hashlib.md5(body, usedforsecurity=False).hexdigest(),))
            case _:
                return NO_CONDITION

    def _begin(self, kind: Kind, name: str, member: Member, value: int = 0, condition: Asked = ALWAYS) -> Operation:
        return self.history.begin(kind, name, trio.current_time(), member.name, value, condition)

    def _end(self, operation: Operation, found: object) -> Operation:
        operation.end = trio.current_time()
        if found is not NOTHING:
            operation.outcome = Outcome.ACKED
        self.cluster.simulation.trace(str(operation))
        return operation

    async def _ask(self, member: Member, call: Callable[[Door], Awaitable[object]], operation: Operation | None = None) -> object:
        """The reply; NOTHING when there is none (the operation then says why, and whether it can still happen)."""
        answer = Answer()
        if self._client is not None:
            door = HttpDoor(self._client, member.name)
            with trio.move_on_after(PATIENCE_S):
                await answer.run(lambda: self._judged(call(door), operation))
        else:
            member.execute(lambda facade: self._judged(call(DirectDoor(facade)), operation), answer)
            with trio.move_on_after(PATIENCE_S):
                await answer.done.wait()
        if not answer.done.is_set():
            return NOTHING
        error = answer.error
        if error is None:
            return answer.value
        if operation is not None:
            operation.detail = str(error)
            if isinstance(error, PreconditionFailed):
                operation.outcome = Outcome.FAILED
            elif isinstance(error, ContainerNotFound) or answer.refused:
                operation.outcome = Outcome.REFUSED
            elif not isinstance(error, Unavailable):
                self.violations.append(f"{operation}: {type(error).__name__}")
        return NOTHING

    async def _judged(self, call: Awaitable[T], operation: Operation | None) -> T:
        try:
            return await call
        except (ServerError, Damaged) as error:
            self.violations.append(f"{operation or 'a request'}: {type(error).__name__}: {error}")
            raise Unavailable(str(error)) from error


async def _or_none(call: Awaitable[T]) -> T | None:
    try:
        return await call
    except ObjectNotFound:
        return None


async def _post(door: Door, path: Path, number: int) -> None:
    try:
        await door.post(path, {"x-object-meta-post": str(number)})
    except ObjectNotFound:
        return
