"""Races for one key: several front doors with clocks of their own, over the same devices, whose messages come late, twice or never.

A race follows from its seed.  What clients were told is a history for tests.sim.linearizable; who was not told anything, because
the answer was "unavailable" or the front door died, has an operation of unknown fate.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any, cast

import trio

from ring.errors import RingfortError, Unavailable
from ring.names import NameHasher, Path
from ring.service.overlap import Claim
from ring.timestamp import TimestampSource
from ring.wire.message import BytesBody
from ring.world.sim import SimWorld, run
from storage.client.bodies import drained
from storage.client.cluster import ClusterStorage
from storage.client.errors import ObjectNotFound, PreconditionFailed
from storage.client.fake_node import FakeObjects
from storage.client.interface import Condition, NewObject
from storage.client.local import LocalNode
from storage.client.node import Node
from storage.client.reach import Settings
from tests.sim.linearizable import ALWAYS, Fate, Operation, When, violation
from tests.sim.linearizable import Condition as Asked
from tests.storage.client.ground import HASHER, Ground, make_device

OBJECT = Path("AUTH_a", "c", "o")
SETTINGS = Settings(
    read_timeout_s=1.0, write_timeout_s=1.0, row_wait_s=0.05, register_s=3.0, promise_wait_s=0.3, pack_cut_bytes=64, chunk_bytes=64
)
QUESTIONS = ("put_small", "promise", "release", "head", "get", "post")


@dataclass(frozen=True)
class Plan:
    """How bad it is.  Chances are per message; ``values`` are numbers of PUTs."""

    doors: int = 3
    operations: int = 9
    lost: float = 0.05  # it never arrives
    unheard: float = 0.05  # it arrives, and the answer does not
    late: float = 0.05  # the answer says "unavailable", and it arrives up to a second afterwards
    dies: float = 0.1  # per operation: its front door stops in the middle of it
    skew_s: float = 0.05
    conditional: float = 0.5
    large: float = 0.2
    spread_s: float = 0.1  # in which they begin


class Line:
    """The way of one front door to one device."""

    def __init__(self, race: Race, node: Node) -> None:
        self.device = node.device
        self._race = race
        self._node = node

    def under(self, claim: Claim | None) -> Node:
        return cast(Node, Line(self._race, self._node.under(claim)))

    def of(self, policy: int) -> Node:
        return cast(Node, Line(self._race, self._node.of(policy)))

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._node, name)
        if name == "put_large":
            return self._put_large
        return self._call(found) if name in QUESTIONS else found

    def _call(self, method: Callable[..., Awaitable[object]]) -> Callable[..., Awaitable[object]]:
        async def call(*arguments: object) -> object:
            return await self._race.message(lambda: method(*arguments))

        return call

    async def _put_large(self, path: Path, size: int | None) -> object:
        return _Sending(self._race, await self._node.put_large(path, size))


class _Sending:
    def __init__(self, race: Race, upload: Any) -> None:
        self.claim = None
        self._race = race
        self._upload = upload

    async def write(self, data: bytes) -> None:
        await self._upload.write(data)

    async def commit(self, *arguments: object) -> object:
        return await self._race.message(lambda: self._upload.commit(*arguments))

    async def abort(self) -> None:
        await self._upload.abort()


class _Skewed:
    def __init__(self, world: SimWorld, ahead_s: float) -> None:
        self._world = world
        self._ahead_s = ahead_s

    def now(self) -> float:
        return self._world.clock.now() + self._ahead_s


def play(seed: int, plan: Plan, replicas: int = 3, *, devices: Callable[[NameHasher], FakeObjects] = FakeObjects) -> Race:
    """A race to its end; ``wrong`` says what cannot be explained.  ``devices``: others than those that keep their promises."""

    async def main() -> Race:
        async with trio.open_nursery() as nursery:
            ground = Ground.make(nursery, device_count=replicas + 1, replicas=replicas)
            for number in range(replicas + 1):
                ground.nodes[number] = LocalNode(make_device(number), devices(HASHER), ground.books[number], ground.payer)
            race = Race(seed, plan, nursery)
            await race.run(ground)
            nursery.cancel_scope.cancel()
        return race

    return run(seed, main)


@dataclass
class Race:
    seed: int
    plan: Plan
    nursery: trio.Nursery
    rng: random.Random = field(init=False)
    history: list[Operation] = field(default_factory=list)
    calm: bool = False
    told: dict[str, int] = field(default_factory=dict)
    wrong: str | None = None

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)

    async def run(self, ground: Ground) -> None:
        await ground.storage.put_container(OBJECT.parent, {})
        doors = [self._door(ground, number) for number in range(self.plan.doors)]
        async with trio.open_nursery() as clients:
            for number in range(1, self.plan.operations + 1):
                clients.start_soon(self._client, self.rng.choice(doors), number, self.rng.random() * self.plan.spread_s)
        self.calm = True
        await trio.sleep(3)  # what is late arrives
        for door in doors:
            await self._read(door)
        await trio.sleep(3)
        for door in doors:
            await self._read(door)
        last = self.history[-2 * len(doors) :]
        if any(operation.fate is Fate.UNKNOWN for operation in last):
            self.wrong = "it cannot be read in the end"
        else:
            self.wrong = violation(self.history)

    def _door(self, ground: Ground, number: int) -> ClusterStorage:
        lines: dict[int, Node] = {}

        def nodes(device: Any) -> Node:
            if device.id not in lines:
                lines[device.id] = cast(Node, Line(self, ground.nodes[device.id]))
            return lines[device.id]

        world = SimWorld(self.seed * 100 + number)
        clock = _Skewed(world, self.rng.uniform(-self.plan.skew_s, self.plan.skew_s))
        return ClusterStorage(world, self.nursery, ground.rings, nodes, TimestampSource(clock), settings=SETTINGS)

    async def message(self, deliver: Callable[[], Awaitable[object]]) -> object:
        rng, plan = self.rng, self.plan
        if self.calm:
            return await deliver()
        await trio.sleep(rng.expovariate(200))
        fate = rng.random()
        if fate < plan.lost:
            raise Unavailable("the message was lost")
        if fate < plan.lost + plan.late:
            self.nursery.start_soon(self._late, deliver, rng.random())
            raise Unavailable("the message is late")
        answer = await deliver()
        await trio.sleep(rng.expovariate(200))
        if fate > 1 - plan.unheard:
            raise Unavailable("the answer was lost")
        return answer

    async def _late(self, deliver: Callable[[], Awaitable[object]], after_s: float) -> None:
        await trio.sleep(after_s)
        try:
            await deliver()
        except RingfortError:
            return

    # ---- clients

    async def _client(self, door: ClusterStorage, number: int, start_s: float) -> None:
        await trio.sleep(start_s)
        rng = self.rng
        choice = rng.random()
        dies = rng.random() < self.plan.dies
        with trio.move_on_after(rng.random() * 0.05 if dies else 60):
            if choice < 0.25:
                await self._read(door)
            elif choice < 0.4:
                await self._delete(door, self._condition(number))
            else:
                await self._put(door, number, self._condition(number))

    def _condition(self, number: int) -> Asked:
        if self.rng.random() > self.plan.conditional:
            return ALWAYS
        other = self.rng.randint(1, self.plan.operations)
        return self.rng.choice(
            [Asked(When.ABSENT), Asked(When.ABSENT), Asked(When.PRESENT), Asked(When.EQUAL, other), Asked(When.OTHER, other)]
        )

    def body(self, value: int) -> bytes:
        large = random.Random(self.seed * 1000 + value).random() < self.plan.large
        return b"%d" % value * (200 if large else 1)

    def _headers(self, asked: Asked) -> Condition | None:
        match asked.when:
            case When.ALWAYS:
                return None
            case When.ABSENT:
                return Condition(if_none_match=("*",))
            case When.PRESENT:
                return Condition(if_match=("*",))
            case When.EQUAL:
                return Condition(if_match=(self._etag(asked.value),))
            case When.OTHER:
                return Condition(if_none_match=(self._etag(asked.value),))

    def _etag(self, value: int) -> str:
        return hashlib.md5(self.body(value)).hexdigest()

    async def _put(self, door: ClusterStorage, value: int, asked: Asked) -> None:
        new = NewObject(condition=self._headers(asked))
        await self._write(value, asked, lambda: door.put_object(OBJECT, new, BytesBody(self.body(value))))

    async def _delete(self, door: ClusterStorage, asked: Asked) -> None:
        await self._write(0, asked, lambda: door.delete_object(OBJECT, condition=self._headers(asked)))

    async def _write(self, value: int, asked: Asked, call: Callable[[], Awaitable[object]]) -> None:
        operation = Operation(trio.current_time(), writes=value, condition=asked, fate=Fate.UNKNOWN)
        place = len(self.history)
        self.history.append(operation)
        try:
            await call()
            operation = replace(operation, fate=Fate.DONE)
        except PreconditionFailed:
            operation = replace(operation, fate=Fate.FAILED)
        except ObjectNotFound:  # a deletion of nothing is a look at it
            operation = Operation(operation.start, saw=0)
        except Unavailable as error:
            operation = replace(operation, label=error.message)
        self.history[place] = replace(operation, end=trio.current_time())
        self._count(operation)

    async def _read(self, door: ClusterStorage) -> None:
        operation = Operation(trio.current_time(), fate=Fate.UNKNOWN)
        place = len(self.history)
        self.history.append(operation)
        try:
            reading = await door.get_object(OBJECT)
            body = await drained(reading.pieces)
            saw = next(value for value in range(1, self.plan.operations + 1) if self.body(value) == body)
            operation = Operation(operation.start, saw=saw)
        except ObjectNotFound:
            operation = Operation(operation.start, saw=0)
        except Unavailable as error:
            operation = replace(operation, label=error.message)
        self.history[place] = replace(operation, end=trio.current_time())
        self._count(operation)

    def __str__(self) -> str:
        return f"seed {self.seed}: {self.wrong}\nall of it:\n" + "\n".join(f"    {operation}" for operation in self.history)

    def _count(self, operation: Operation) -> None:
        kind = "read" if operation.writes is None else "write" if operation.condition is ALWAYS else "conditional"
        name = f"{kind} {operation.fate.value}"
        self.told[name] = self.told.get(name, 0) + 1
