"""Tombstones of objects and of rows go, and what they hid does not come back: with an old disk that is put back, with a device that
was out of the rings for long.  Reclaimers that forget too early are noticed.

Reclaim age is ten seconds.  Some objects are written, most are deleted, one device sees neither the deletions nor that they were
forgotten by all others.  Then it is back, with all of them on it, and with the rows that listed them.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache

import pytest
import trio

from ring.daemon.worker import Busy, Idle
from ring.errors import Conflict
from ring.names import Span
from ring.ringfile import encode
from ring.service.register import Register
from ring.timestamp import TICKS_MAX, Timestamp
from ring.world.sim import Simulation, run
from ring.world.sim.medium import Medium
from storage.container.reclaimer import BookReclaimer
from storage.container.returning import listing as rows_aside
from storage.erasure.interface import Coding
from storage.object.device import QUARANTINE
from storage.object.reclaimer import ObjectReclaimer
from storage.object.returned import FRAGMENT_SUFFIX, decode, listing
from tests.sim import checkers, coded, rest
from tests.sim.cluster import Cluster, Member
from tests.sim.history import Outcome
from tests.sim.mutants.keeping import ForgetsRows
from tests.sim.nemesis import Nemesis
from tests.sim.options import Options
from tests.sim.rings import NAMES, Plan
from tests.sim.script import Coded, Traits, draw
from tests.sim.serving import ROOT
from tests.sim.workload import Workload

AGE_S = 10.0
OBJECTS = tuple(f"c0/o{number}" for number in range(12))
DELETED = OBJECTS[:9]
PATIENCE_S = 120.0
FAULTS_S = 40.0
SIZES = (100, 9000)  # in a record, in a file


class Scene:
    def __init__(self, simulation: Simulation, options: Options) -> None:
        self.simulation = simulation
        self.script = draw(simulation.seed, options.members, Traits(destructive=0.0, racing=0.0), faults_s=FAULTS_S)
        if options.coded is not None:
            self.script = replace(self.script, coded=Coded("c0", options.coded.k, options.coded.m))
        options.wire, options.door = self.script.wire, self.script.door
        self.cluster = Cluster(simulation, options)
        self.workload = Workload(self.cluster, self.script)
        self.rng = simulation.derive("scene")
        self.away = self.rng.choice(self.cluster.members[: options.in_first_ring])
        self.returned: list[str] = []  # objects of which something was put aside
        self.returned_rows: list[str] = []
        self.violations: list[str] = []
        self.reclaims_rows = options.reclaimer is ObjectReclaimer  # they wait for objects
        self.tombstones = 0

    async def write_all(self) -> None:
        for number, name in enumerate(OBJECTS):
            while (await self.workload.put(self.front_door(), name, SIZES[number % 2])).outcome is not Outcome.ACKED:
                await trio.sleep(1)

    async def delete_most(self) -> None:
        for name in DELETED:
            while (await self.workload.delete(self.front_door(), name)).outcome is not Outcome.ACKED:
                await trio.sleep(1)

    def front_door(self) -> Member:
        return self.rng.choice([member for member in self.cluster.members if member is not self.away])

    async def forgotten_by_all(self) -> None:
        """Until no device that is up holds a tombstone."""
        with trio.fail_after(PATIENCE_S * 3):
            while any([await self.tombstones_of(member) for member in self.cluster.members if member.node.up]):
                await trio.sleep(2)

    async def tombstones_of(self, member: Member) -> int:
        return await rest.tombstones(member, rows=self.reclaims_rows)

    async def watch(self, seconds: float) -> None:
        """Clients look, while the device is back."""
        until = trio.current_time() + seconds
        while trio.current_time() < until:
            await self.workload.get(self.rng.choice(self.cluster.members), self.rng.choice(OBJECTS))
            await trio.sleep(0.2)

    async def end(self) -> None:
        self.violations += await rest.converge(self.cluster)
        for name in OBJECTS:
            for member in self.cluster.members:
                operation = await self.workload.get(member, name)
                if operation.outcome is not Outcome.ACKED:
                    self.violations.append(f"{name} cannot be read at rest: {operation}")
        heads = {name: await self.workload.head(self.cluster.members[0], name) for name in OBJECTS}
        objects = {name: head for name, head in heads.items() if head is not None}
        for member in self.cluster.members:
            listed = await self.workload.listing(member, "c0")
            self.violations += checkers.listings_equal_objects(listed or {}, objects)
        history = self.workload.history
        self.violations += [*self.workload.violations, *checkers.acked_puts_are_readable(history)]
        self.violations += checkers.no_delete_resurrects(history)
        self.violations += checkers.reads_see_what_was_written(history)
        disk = self.away.node.world.open_disk(ROOT)
        self.returned = [one.version.path.object for one in await listing(disk)]
        self.returned_rows = [row.name for _, _, rows, _ in await rows_aside(disk) for row in rows]
        if self.cluster.options.coded is not None:
            part = self.away.node.world.open_disk(f"{ROOT}/{coded.RING}")
            self.returned += [one.version.path.object for one in await listing(part)]
            for name in await part.list_dir(QUARANTINE):
                if name.endswith(FRAGMENT_SUFFIX):
                    data = await part.read_file(f"{QUARANTINE}/{name}")
                    self.returned.append(decode(data, name).version.path.object)
        for member in self.cluster.members:
            self.tombstones += await self.tombstones_of(member)


async def _old_disk(scene: Scene) -> None:
    """A disk is replaced; long after that somebody puts the old one back."""
    await scene.write_all()
    spare = Medium(random.Random(1), scene.simulation.trace)
    spare.empty()
    await _exchange(scene.away, spare, format_it=True)
    await scene.delete_most()
    await scene.forgotten_by_all()
    await _exchange(scene.away, spare, format_it=False)
    await scene.watch(60)


async def _exchange(member: Member, spare: Medium, *, format_it: bool) -> None:
    if member.node.up:
        member.crash(power=True, silent=False)
    member.medium.swap(spare)
    member.start()
    while not member.node.up:
        await trio.sleep(0.1)
    if format_it:
        await member.format()


async def _out_of_the_rings(scene: Scene) -> None:
    """A device is down, the rings go without it; long after that they have it again, with all that was on it."""
    await scene.write_all()
    await trio.sleep(20)  # the replicators have been by: what is on it is elsewhere too
    plans = {name: Plan.of(scene.cluster.first) for name in NAMES}
    if scene.away.node.up:
        scene.away.crash(power=True, silent=False)
    for plan in plans.values():
        plan.inside.remove(scene.away.device.id)
        plan.place(scene.rng, 0.0)
        plan.version += 1
    await _publish(scene, plans)
    await scene.delete_most()
    await scene.forgotten_by_all()
    for plan, before in zip(plans.values(), map(Plan.of, [scene.cluster.first] * len(NAMES)), strict=True):
        plan.inside, plan.table = before.inside, before.table
        plan.version += 1
    if scene.rng.random() < 0.5:
        scene.away.start()  # with the rings that it knew
        await trio.sleep(scene.rng.uniform(0, 10))
    await _publish(scene, plans, wait=False)
    scene.away.start()
    await scene.watch(60)
    await _in_force(scene, plans)


async def _publish(scene: Scene, plans: dict[str, Plan], *, wait: bool = True) -> None:
    for name, plan in plans.items():
        while not await scene.front_door().publish(name, encode(plan.ring())):
            await trio.sleep(1)
    if wait:
        await _in_force(scene, plans)


async def _in_force(scene: Scene, plans: dict[str, Plan]) -> None:
    with trio.fail_after(PATIENCE_S * 3):
        while True:
            edition = await Register(scene.cluster.kv).newest()
            if edition is not None and all(
                edition.rings[name].newest.version == plan.version and edition.rings[name].settled == edition.rings[name].newest
                for name, plan in plans.items()
            ):
                return
            await trio.sleep(1)


async def _play(simulation: Simulation, scene: Scene, what: Callable[[Scene], Awaitable[None]], faults: bool) -> None:
    cluster = scene.cluster
    await cluster.format()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(cluster.run)
        await scene.workload.prepare()
        nemesis = Nemesis(cluster, scene.script.faults)
        async with trio.open_nursery() as busy:
            if faults:
                busy.start_soon(nemesis.run, trio.current_time())
            await what(scene)
        nemesis.rest()
        await scene.end()
        nursery.cancel_scope.cancel()


def play(
    seed: int,
    what: Callable[[Scene], Awaitable[None]],
    *,
    faults: bool = False,
    reclaimer: type[ObjectReclaimer] = ObjectReclaimer,
    book_reclaimer: type[BookReclaimer] = BookReclaimer,
    coding: Coding | None = None,
) -> Scene:
    simulation = Simulation(seed)
    options = Options(members=5, reclaim_age_s=AGE_S, reclaimer=reclaimer, book_reclaimer=book_reclaimer, coded=coding)
    scene = Scene(simulation, options)
    run(seed, _play, simulation, scene, what, faults)
    return scene


@lru_cache
def old_disk(seed: int) -> Scene:
    return play(seed, _old_disk)


@pytest.mark.parametrize("seed", range(1, 4))
def test_an_old_disk_brings_nothing_back(seed: int) -> None:
    scene = old_disk(seed)
    assert not scene.violations, scene.violations
    assert not scene.tombstones
    assert {*scene.returned, *scene.returned_rows} <= {name.partition("/")[2] for name in DELETED}
    assert scene.returned  # what nobody knew is kept apart


@pytest.mark.parametrize("seed", range(1, 4))
def test_an_old_disk_brings_no_fragment_back(seed: int) -> None:
    scene = play(seed, _old_disk, coding=Coding(2, 1))
    assert not scene.violations, scene.violations
    assert not scene.tombstones
    assert {*scene.returned, *scene.returned_rows} <= {name.partition("/")[2] for name in DELETED}


@pytest.mark.parametrize("seed", range(1, 4))
def test_a_device_that_was_out_of_the_rings_brings_nothing_back(seed: int) -> None:
    scene = play(seed, _out_of_the_rings)
    assert not scene.violations, scene.violations
    assert not scene.tombstones and scene.returned


@pytest.mark.parametrize("seed", range(1, 4))
def test_with_faults_meanwhile(seed: int) -> None:
    scene = play(seed, _old_disk, faults=True)
    assert not scene.violations, scene.violations


class AsksNobody(ObjectReclaimer):
    """Tombstones go as soon as they are there, whatever the others hold."""

    async def work(self) -> Busy | Idle:
        for dead in (await self._tombstones(Span(0, 0), Timestamp(TICKS_MAX))).values():
            for held in dead:
                with suppress(Conflict):
                    self.reclaimed += await self._store.drop(held.key, "reclaimed")
        return Idle.after(1.0)


def test_to_forget_early_is_noticed() -> None:
    assert any(play(seed, _old_disk, reclaimer=AsksNobody).violations for seed in range(1, 4))


def test_what_is_put_aside_is_of_rows_too() -> None:
    assert any(old_disk(seed).returned_rows for seed in range(1, 4))


def test_to_forget_rows_early_is_noticed() -> None:
    assert any(
        "is listed and not there" in str(play(seed, _old_disk, book_reclaimer=ForgetsRows).violations) for seed in range(1, 4)
    )
