"""The edition of a process: it comes into force whole, durably, and never goes back; and how a newer one is fetched."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import pytest
import trio
from trio.testing import MockClock

from ring.errors import FormatError, NotFound, Unavailable
from ring.kv.memory import MemoryKV
from ring.ringfile import encode
from ring.service import keeper as keeper_module
from ring.service.agent import AgentSettings, Confirmations, RingAgent, follow_folder
from ring.service.edition import Edition, RingId, Standing
from ring.service.errors import StaleRing
from ring.service.follow import Renewal, fetch
from ring.service.gate import Gate
from ring.service.keeper import Keeper
from ring.service.overlap import Claim, RingSource
from ring.service.register import Register
from ring.world.interface import Disk, World
from ring.world.sim import Simulation, SimWorld
from tests.ring.service.test_overlap import HASHER, everywhere

T = TypeVar("T")
OLD, NEW, NEWEST = everywhere(1, 2, 3), everywhere(1, 2, 4, version=2), everywhere(4, 5, 6, version=3)
FIRST = {"object": encode(OLD), "container": encode(OLD)}
LOOK = AgentSettings(look_s=1.0, patience_s=60.0)


async def first() -> dict[str, bytes]:
    return FIRST


async def loaded(world: World, folder: str = "/rings", *, writes: bool = True) -> Keeper:
    disk = world.open_disk(folder)
    await disk.make_dirs("")
    keeper = Keeper(world, disk, HASHER, writes=writes)
    await keeper.load(first)
    return keeper


def after(keeper: Keeper, data: bytes, version: int) -> Edition:
    return keeper.edition.published("object", RingId.of(version, data), moves=True)


async def test_the_first_edition_is_what_the_cloud_was_made_with(autojump_clock: MockClock) -> None:
    keeper = await loaded(SimWorld(1))
    assert keeper.edition.number == 1
    assert {name: (o.ring.version, o.moving) for name, o in keeper.overlaps.items()} == {
        "object": (1, False),
        "container": (1, False),
    }


async def test_a_newer_edition_changes_everything_in_one_breath_and_lasts(autojump_clock: MockClock) -> None:
    world = SimWorld(1)
    keeper = await loaded(world)
    seen: list[int] = []
    keeper.tell(lambda overlaps: seen.append(overlaps["object"].ring.version))
    container = keeper.overlaps["container"].ring
    data = encode(NEW)
    edition = after(keeper, data, 2)
    assert await keeper.adopt(edition, {("object", 2): data})
    overlap = keeper.overlaps["object"]
    assert (seen, overlap.ring.version, overlap.settled.version, overlap.claim.edition) == ([1, 2], 2, 1, 2)
    assert keeper.overlaps["container"].ring is container
    assert not await keeper.adopt(edition, {})
    with pytest.raises(StaleRing) as refused:
        keeper.gate.check(1)
    assert refused.value.edition == 2
    again = await loaded(world)
    assert again.edition == edition and again.gate.edition == 2
    settled = edition.settle("object")
    await again.adopt(settled, {})
    assert "object.1.ring" not in await world.open_disk("/rings").list_dir("")


@pytest.mark.parametrize("data", [encode(NEWEST), b"not a ring", encode(NEW)[:-1]])
async def test_what_is_not_the_ring_it_should_be_changes_nothing(data: bytes, autojump_clock: MockClock) -> None:
    keeper = await loaded(SimWorld(1))
    edition = after(keeper, encode(NEW), 2)
    with pytest.raises(FormatError):
        await keeper.adopt(edition, {("object", 2): data})
    with pytest.raises(NotFound):
        await keeper.adopt(edition, {})
    assert keeper.edition.number == 1 and keeper.gate.edition == 1


async def test_a_version_that_does_not_fit_its_ring_is_refused(autojump_clock: MockClock) -> None:
    keeper = await loaded(SimWorld(1))
    data = encode(NEWEST)
    with pytest.raises(FormatError, match="says version 3, not 2"):
        await keeper.adopt(after(keeper, data, 2), {("object", 2): data})


async def test_power_may_fail_at_any_moment(autojump_clock: MockClock) -> None:
    """What comes up is one of the two editions, whole; and once it was in force, no older one."""
    reached = set()
    for seed in range(60):
        simulation = Simulation(seed)
        node = simulation.node("n")
        keepers: list[Keeper] = []

        async def main(world: World, keepers: list[Keeper] = keepers) -> None:
            keeper = await loaded(world)
            keepers.append(keeper)
            await keeper.adopt(after(keeper, encode(NEW), 2), {("object", 2): encode(NEW)})
            await trio.sleep_forever()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(node.run, main)
            await trio.sleep(0.0002 * (seed + 1))
            in_force = keepers[0].edition.number if keepers else 0
            reached.add(in_force)
            node.crash(power=True)
            await trio.sleep(0.001)
            nursery.cancel_scope.cancel()
        node.restart()
        keeper = await loaded(node.world)
        assert keeper.edition.number >= max(1, in_force)
    assert reached == {0, 1, 2}


# ---- fetching


class Wire:
    """A source that can be away."""

    def __init__(self, keeper: Keeper) -> None:
        self.keeper = keeper
        self.away = False
        self.parts = 0

    async def edition_file(self) -> bytes:
        await self._come()
        return await self.keeper.edition_file()

    async def ring_part(self, name: str, version: int, offset: int) -> bytes:
        await self._come()
        self.parts += 1
        return await self.keeper.ring_part(name, version, offset)

    async def _come(self) -> None:
        await trio.sleep(0.01)
        if self.away:
            raise Unavailable("away")


async def test_a_newer_edition_is_fetched_in_parts(autojump_clock: MockClock) -> None:
    world = SimWorld(1)
    ahead, behind = await loaded(world, "/a"), await loaded(world, "/b")
    data = encode(NEW)
    await ahead.adopt(after(ahead, data, 2), {("object", 2): data})
    wire = Wire(ahead)
    whole = keeper_module.PART_BYTES
    assert len(data) < whole
    assert await fetch(behind, wire)
    assert behind.edition == ahead.edition and wire.parts == 2  # the file, and its end
    assert await behind.ring_part("object", 2, 3) == data[3:]
    assert not await fetch(behind, wire)
    with pytest.raises(NotFound):
        await ahead.ring_part("object", 9, 0)


async def test_many_who_were_refused_cost_one_fetch(autojump_clock: MockClock) -> None:
    world = SimWorld(1)
    ahead, behind = await loaded(world, "/a"), await loaded(world, "/b")
    data = encode(NEW)
    await ahead.adopt(after(ahead, data, 2), {("object", 2): data})
    wire = Wire(ahead)
    claim = behind.overlaps["object"].claim
    claim.refused(StaleRing("newer", edition=2), wire)
    renew = Renewal(behind)
    found: list[bool] = []

    async def one() -> None:
        found.append(await renew(claim))

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(one)
    assert found == [True] * 5 and wire.parts == 2
    wire.away = True
    assert await renew(claim)  # it is behind already
    stale = Claim(2)
    stale.refused(StaleRing("newer", edition=3), wire)
    assert not await renew(stale)


async def test_other_workers_read_what_the_first_one_writes(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    world = SimWorld(1)
    first, second = await loaded(world), await loaded(world, writes=False)
    nursery.start_soon(follow_folder, second, lambda event, detail: None)
    data = encode(NEW)
    await first.adopt(after(first, data, 2), {("object", 2): data})
    claim = second.overlaps["object"].claim
    claim.refused(StaleRing("newer", edition=2), None)
    assert await Renewal(second, reads=True)(claim)
    await first.adopt(first.edition.settle("object"), {})
    await trio.sleep(2)
    assert second.edition == first.edition


# ---- the gate


def test_the_gate() -> None:
    heard: list[int] = []
    gate = Gate(heard.append)
    gate.edition = 3
    before = gate.enter(3)
    gate.check(0)
    gate.check(5)
    assert heard == [5]
    with pytest.raises(Unavailable, match="not known here yet"):
        gate.check_known(5)
    gate.edition = 4
    with pytest.raises(StaleRing):
        gate.enter(3)
    assert not gate.clear(4)  # the write that was let in goes on
    later = gate.enter(4)
    gate.leave(before)
    assert gate.clear(4) and not gate.clear(5)
    gate.leave(later)


# ---- the agent


class Machine:
    def __init__(self, keeper: Keeper, published: Disk, agent: RingAgent, confirmations: Confirmations, notes: list[str]) -> None:
        self.keeper, self.published, self.agent, self.confirmations, self.notes = keeper, published, agent, confirmations, notes


async def machine(nursery: trio.Nursery, world: SimWorld, kv: MemoryKV, name: str, sources: list[RingSource]) -> Machine:
    keeper = await loaded(world, f"/{name}/rings")
    published = world.open_disk(f"/{name}/published")
    await published.make_dirs("")
    register = Register(kv)
    notes: list[str] = []
    agent = RingAgent(
        world,
        keeper,
        register,
        HASHER,
        sources=lambda: [source for source in sources if source is not keeper],
        published=published,
        settings=LOOK,
        note=lambda event, detail: notes.append(f"{event}: {detail}"),
    )
    confirmations = Confirmations(keeper, register)
    nursery.start_soon(agent.run)
    nursery.start_soon(confirmations.run)
    sources.append(keeper)
    return Machine(keeper, published, agent, confirmations, notes)


async def test_from_publishing_to_settled(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    world, kv = SimWorld(1), MemoryKV()
    sources: list[RingSource] = []
    one, two = [await machine(nursery, world, kv, name, sources) for name in ("one", "two")]
    await one.published.replace_file("object.ring", encode(NEW))
    await trio.sleep(3)
    for at in (one, two):
        overlap = at.keeper.overlaps["object"]
        assert (overlap.ring.version, overlap.settled.version) == (2, 1)
    overlap = one.keeper.overlaps["object"]
    for device in (1, 2, 3):
        one.confirmations.confirm("object", device, overlap)
    await trio.sleep(100)
    assert one.keeper.overlaps["object"].moving  # device 4 has not
    two.confirmations.confirm("object", 4, two.keeper.overlaps["object"])
    await trio.sleep(3)
    assert one.keeper.edition == two.keeper.edition
    assert not two.keeper.overlaps["object"].moving


async def test_what_was_confirmed_of_an_older_ring_does_not_settle_a_newer(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    world, kv = SimWorld(1), MemoryKV()
    one = await machine(nursery, world, kv, "one", [])
    await one.published.replace_file("object.ring", encode(NEW))
    await trio.sleep(3)
    before = one.keeper.overlaps["object"]
    for device in (1, 2, 3, 4, 5, 6):
        if device != 3:
            one.confirmations.confirm("object", device, before)
    await trio.sleep(3)
    await one.published.replace_file("object.ring", encode(NEWEST))
    await trio.sleep(3)
    one.confirmations.confirm("object", 3, before)  # it comes too late: that ring is not in force any more
    await trio.sleep(3)
    overlap = one.keeper.overlaps["object"]
    assert (overlap.ring.version, overlap.settled.version) == (3, 1)
    for device in (1, 2, 3, 4, 5, 6):
        one.confirmations.confirm("object", device, overlap)
    await trio.sleep(3)
    assert one.keeper.overlaps["object"].settled.version == 3


async def test_a_removed_device_is_waited_for_with_patience(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    world, kv = SimWorld(1), MemoryKV()
    one = await machine(nursery, world, kv, "one", [])
    await one.published.replace_file("object.ring", encode(everywhere(1, 2, 4, version=2, gone=[3])))
    await trio.sleep(3)
    for device in (1, 2, 4):
        one.confirmations.confirm("object", device, one.keeper.overlaps["object"])
    await trio.sleep(50)
    assert one.keeper.overlaps["object"].moving
    await trio.sleep(20)
    assert not one.keeper.overlaps["object"].moving


async def test_a_minority_of_the_settled_ring_is_never_enough(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    world, kv = SimWorld(1), MemoryKV()
    one = await machine(nursery, world, kv, "one", [])
    await one.published.replace_file("object.ring", encode(everywhere(1, 4, 5, version=2, gone=[2, 3])))
    await trio.sleep(3)
    for device in (1, 4, 5):
        one.confirmations.confirm("object", device, one.keeper.overlaps["object"])
    await trio.sleep(1000)
    assert one.keeper.overlaps["object"].moving


async def test_two_steps_at_once_come_one_after_the_other(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    world, kv = SimWorld(1), MemoryKV()
    sources: list[RingSource] = []
    one, two = [await machine(nursery, world, kv, name, sources) for name in ("one", "two")]
    await one.published.replace_file("object.ring", encode(NEW))
    await two.published.replace_file("container.ring", encode(NEWEST))
    await trio.sleep(5)
    assert one.keeper.edition == two.keeper.edition
    assert one.keeper.edition.rings["object"].newest.version == 2
    assert one.keeper.edition.rings["container"].newest.version == 3


async def test_what_cannot_be_in_force_is_refused_once_and_said(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    one = await machine(nursery, SimWorld(1), MemoryKV(), "one", [])
    await one.published.replace_file("object.ring", b"something else")
    await trio.sleep(10)
    assert len([note for note in one.notes if "refused" in note]) == 1
    await one.published.replace_file("object.ring", encode(NEW))
    await trio.sleep(3)
    assert one.keeper.overlaps["object"].ring.version == 2


async def test_an_agent_that_ended_between_two_steps(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    """It proposed the edition and was gone: the ring still lies where it was published."""
    world, kv = SimWorld(1), MemoryKV()
    data = encode(NEW)
    disk = world.open_disk("/one/published")
    await disk.make_dirs("")
    await disk.replace_file("object.ring", data)
    ring = RingId.of(1, encode(OLD))
    first = Edition(1, {"object": Standing(ring, ring), "container": Standing(ring, ring)})
    register = Register(kv)
    assert await register.advance(None, first)
    assert await register.advance(first, first.published("object", RingId.of(2, data), moves=True))
    assert not await register.advance(first, first.settle("object"))
    one = await machine(nursery, world, kv, "one", [])
    await trio.sleep(3)
    assert one.keeper.edition.number == 2


async def test_an_edition_that_comes_while_a_ring_is_proposed_is_not_undone(
    autojump_clock: MockClock,
) -> None:
    """A front door fetches another machine's edition in the middle of the agent's step."""
    world, kv = SimWorld(1), MemoryKV()
    for name in ("one", "two"):
        await world.open_disk(f"/{name}/published").make_dirs("")
    one, two = await loaded(world, "/one/rings"), await loaded(world, "/two/rings")
    register = Register(kv)
    assert await register.advance(None, one.edition)
    container = one.edition.published("container", RingId.of(3, encode(NEWEST)), moves=True)

    class Between:
        """The other machine's step falls between the agent's look at the ring and its own step."""

        async def run(self, call: Callable[..., T], *arguments: object) -> T:
            if two.edition != container:
                assert await register.advance(two.edition, container)
                await two.adopt(container, {("container", 3): encode(NEWEST)})
                assert await fetch(one, two)
            return call(*arguments)

    published = world.open_disk("/one/published")
    await published.replace_file("object.ring", encode(NEW))
    slow = World(world.clock, world.net, world.rng, world.entropy, Between(), world.process, world.open_disk)
    agent = RingAgent(slow, one, register, HASHER, sources=lambda: [two], published=published, settings=LOOK)
    await agent.step()
    assert await register.newest() == one.edition == two.edition == container
    await agent.step()
    assert one.edition.number == 3
    assert one.edition.rings["object"].newest.version == 2
    assert one.edition.rings["container"].newest.version == 3


async def test_the_ring_of_a_step_that_was_not_heard_of_outlasts_a_restart(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """The step was taken, the process ended before it heard of it, and in the folder ``published`` lies another ring by now."""
    world, kv = SimWorld(1), MemoryKV()
    data = encode(NEW)
    keeper = await loaded(world, "/one/rings")
    before = keeper.edition
    register = Register(kv)
    assert await register.advance(None, before)
    assert await keeper.store("object", 2, data, before=before)
    assert await register.advance(before, before.published("object", RingId.of(2, data), moves=True))
    published = world.open_disk("/one/published")
    await published.make_dirs("")
    await published.replace_file("object.ring", encode(NEWEST))
    one = await machine(nursery, world, kv, "one", [])
    await trio.sleep(5)
    assert one.keeper.edition.number == 3
    assert one.keeper.overlaps["object"].ring.version == 3


async def test_what_waits_to_be_proposed_is_not_tidied_away(autojump_clock: MockClock) -> None:
    keeper = await loaded(SimWorld(1))
    before = keeper.edition
    assert await keeper.store("object", 2, encode(NEW), before=before)
    await keeper.adopt(before.published("container", RingId.of(3, encode(NEWEST)), moves=True), {("container", 3): encode(NEWEST)})
    assert await keeper.adopt(keeper.edition.published("object", RingId.of(2, encode(NEW)), moves=True), {})
    assert not await keeper.store("object", 3, encode(NEWEST), before=before)
