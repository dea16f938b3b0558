"""The expirer and the account reaper in the simulated cluster, under the nemesis: what is to stay stays, what is to go goes.

Each name has one client, which writes it with and without dates, changes the dates and takes them away.  What may be true of a name
at the end is what its last acknowledged write said, or any that nobody answered for.  One account is deleted while all of this goes
on.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import pytest
import trio

from ring.daemon.worker import Worker
from ring.errors import Unavailable
from ring.names import Path
from ring.wire.message import BytesBody
from ring.world.interface import World
from ring.world.sim import Simulation, run
from ring.world.sim.clock import EPOCH
from storage.account.reaper import Reaper
from storage.client.cluster import ClusterStorage
from storage.client.errors import AccountGone, AccountNotFound, ObjectNotFound
from storage.client.interface import NewObject, Query
from storage.client.node import Kind
from storage.object.expirer import Expirer
from storage.object.store import ObjectStore
from storage.rows.books import Books
from tests.sim import rest
from tests.sim.cluster import Cluster, Member
from tests.sim.faults import CLOCK_STEP_MAX_S
from tests.sim.nemesis import Nemesis
from tests.sim.options import Options
from tests.sim.script import Traits, draw

MEMBERS = 5
NAMES = tuple(f"o{number}" for number in range(14))
CONTAINER = Path("AUTH_kept", "c")
DOOMED = Path("AUTH_doomed")
FAULTS_S = 120.0
DUE_MAX_S = 40.0
DELAY_S = 2 * CLOCK_STEP_MAX_S + 8.0  # as far as two clocks may be apart, and a write's time
TURN_S = 5.0
TRAITS = Traits(destructive=0.0)
Due = int | None  # None: it stays
Call = Callable[[ClusterStorage], Awaitable[object]]


class KeepingMember(Member):
    """With an expirer and a reaper that are in a hurry."""

    def further_workers(self, world: World, store: ObjectStore, books: Books) -> list[Worker]:
        facade, keeper = self.facade, self.keeper
        assert facade is not None and keeper is not None

        async def expire(path: Path, due: int) -> bool:
            return await facade.expire_object(0, path, due)

        return [
            Expirer(world, store, lambda: keeper.overlaps["object"], expire, interval_s=3.0, delay_s=DELAY_S, turn_s=TURN_S),
            Reaper(
                world,
                self.device,
                books,
                lambda: keeper.overlaps["account"],
                facade.reaping,
                interval_s=3.0,
                delay_s=5.0,
                help_s=30.0,
                settle_s=60.0,
                page_rows=3,
            ),
        ]


def making(container: Path) -> Call:
    return lambda facade: facade.put_container(container, {})


def putting(path: Path, metadata: dict[str, str], data: bytes) -> Call:
    return lambda facade: facade.put_object(path, NewObject(metadata=metadata), BytesBody(data))


def posting(path: Path, metadata: dict[str, str]) -> Call:
    return lambda facade: facade.post_object(path, metadata)


@dataclass
class Name:
    """What may be true of it: ``said`` by the last acknowledged write; ``unsure``: by writes that nobody answered for."""

    path: Path
    said: Due = None
    there: bool = False  # some write was acknowledged
    unsure: set[Due] = field(default_factory=set)
    trace: list[str] = field(default_factory=list)

    @property
    def stays(self) -> bool:
        return self.stays_until(float("inf"))

    def stays_until(self, time: float) -> bool:
        """Whether nothing that may be true of it lets it go before then."""
        return self.there and all(due is None or due > time for due in {self.said, *self.unsure})

    @property
    def goes(self) -> bool:
        return self.said is not None and None not in self.unsure


class Play:
    def __init__(self, seed: int) -> None:
        self.simulation = Simulation(seed)
        self.cluster = Cluster(self.simulation, Options(members=MEMBERS, in_first_ring=MEMBERS, wire=seed % 4 == 0))
        self.cluster.members = [KeepingMember(self.cluster, member.device) for member in self.cluster.members]
        self.names = [Name(Path(CONTAINER.account, CONTAINER.container, name)) for name in NAMES]
        self.violations: list[str] = []
        self.expired = 0  # names that went
        self.refused_posts = 0

    async def run(self) -> None:
        await self.cluster.format()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.cluster.run)
            rng = self.simulation.derive("plan")
            await self._until(making(CONTAINER))
            for number in range(3):
                container = Path(DOOMED.account, f"c{number}")
                await self._until(making(container))
                for item in range(5):
                    path, data = Path(container.account, container.container, f"o{item}"), b"x" * 2000 * item
                    await self._until(putting(path, {}, data))
            nemesis = Nemesis(self.cluster, draw(self.simulation.seed, MEMBERS, TRAITS, faults_s=FAULTS_S).faults)
            begin = trio.current_time()
            until = begin + FAULTS_S
            async with trio.open_nursery() as busy:
                for name in self.names:
                    busy.start_soon(self._client, name, random.Random(f"{self.simulation.seed}/{name.path}"), until)
                busy.start_soon(self._delete_account, rng.uniform(5, 40))
                busy.start_soon(nemesis.run, begin)
            nemesis.rest()
            await trio.sleep(DUE_MAX_S + DELAY_S + MEMBERS * TURN_S + 200)
            self.violations += await rest.converge(self.cluster)
            await self._judge()
            nursery.cancel_scope.cancel()

    # ---- clients

    async def _client(self, name: Name, rng: random.Random, until: float) -> None:
        while trio.current_time() < until:
            await trio.sleep(rng.expovariate(1 / 8))
            due = int(EPOCH + trio.current_time() + rng.uniform(2, DUE_MAX_S)) if rng.random() < 0.6 else None
            metadata = {} if due is None else {"x-delete-at": str(due)}
            if rng.random() < 0.5:
                data = b"x" * rng.choice((10, 9000))
                await self._write(name, rng, due, putting(name.path, metadata, data))
            else:
                await self._write(name, rng, due, posting(name.path, metadata))
            if rng.random() < 0.5:
                await self._look(name, rng)

    async def _write(self, name: Name, rng: random.Random, due: Due, call: Call) -> None:
        answer = rng.choice(self.cluster.members).execute(call)
        await answer.done.wait()
        name.trace.append(f"{trio.current_time():.1f} {due and due - EPOCH} {answer.error}")
        if answer.error is None:
            name.said, name.there = due, True
        elif isinstance(answer.error, ObjectNotFound):
            self.refused_posts += 1
            if name.stays_until(EPOCH + trio.current_time() + CLOCK_STEP_MAX_S + 1):
                self.violations.append(f"{name.path} was to stay, and a POST did not find it: {name.trace}")
        elif not answer.refused:
            name.unsure.add(due)
            if not isinstance(answer.error, Unavailable):
                self.violations.append(f"{name.path}: {answer.error!r}")

    async def _look(self, name: Name, rng: random.Random) -> None:
        answer = rng.choice(self.cluster.members).execute(lambda facade: facade.head_object(name.path))
        await answer.done.wait()
        if isinstance(answer.error, ObjectNotFound) and name.stays_until(EPOCH + trio.current_time()):
            self.violations.append(f"{name.path} was to stay, and is not there at {trio.current_time():.1f}: {name.trace}")

    async def _delete_account(self, after_s: float) -> None:
        await trio.sleep(after_s)
        while True:
            answer = random.Random(after_s).choice(self.cluster.members).execute(lambda facade: facade.delete_account(DOOMED))
            await answer.done.wait()
            if answer.error is None or isinstance(answer.error, AccountGone | AccountNotFound):
                return
            await trio.sleep(1)

    async def _until(self, call: Call) -> None:
        while True:
            answer = self.cluster.members[0].execute(call)
            await answer.done.wait()
            if answer.error is None:
                return
            await trio.sleep(1)

    # ---- at rest

    async def _judge(self) -> None:
        facade = self.cluster.members[0].facade
        assert facade is not None
        listed = {item.name for item in (await facade.list_container(CONTAINER, Query())).items}
        for name in self.names:
            try:
                await facade.head_object(name.path)
                there = True
            except ObjectNotFound:
                there = False
            if there and name.goes:
                self.violations.append(f"{name.path} was to go, and is there: {name.trace}")
            if not there and name.stays:
                self.violations.append(f"{name.path} was to stay, and is gone: {name.trace}")
            if there != (name.path.object in listed):
                self.violations.append(f"{name.path}: {there=}, and its listing says something else")
            self.expired += name.there and not there
        try:
            await facade.head_account(DOOMED)
            self.violations.append("the deleted account is there")
        except AccountGone:
            self.violations.append("the deleted account is not reaped")
        except AccountNotFound:
            pass
        for member in self.cluster.members:
            assert member.store is not None
            page, _ = member.store.index.page(b"", None, limit=1000)
            for held in page:
                path = await member.store.path_of(held.key)
                if held.kind is Kind.OBJECT and path is not None and path.account == DOOMED.account:
                    self.violations.append(f"{member.name} still holds {path}")


def play(seed: int) -> Play:
    played = Play(seed)
    run(seed, played.run)
    return played


@pytest.mark.parametrize("first", (1, 4))
def test_what_is_to_stay_stays_and_what_is_to_go_goes(first: int) -> None:
    expired = 0
    for seed in range(first, first + 3):
        played = play(seed)
        assert not played.violations, (seed, played.violations)
        expired += played.expired
    assert expired > 4  # so there was something to see
