"""A device that lost what it held: it is no voter until others have brought it back, and then it is one."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from ring.daemon.worker import Busy, Idle
from ring.errors import Unavailable
from ring.names import Path, Span, partition_of
from ring.service.overlap import Claim, Overlap
from ring.timestamp import Timestamp
from ring.world.sim import SimWorld
from storage.client.filling import Filled, Filler
from storage.client.interface import Row
from storage.client.local import LocalNode
from storage.client.node import BookHeader, Node
from storage.client.payer import RowPayer
from storage.client.trust import Trust, ring_of
from storage.container.replicator import BookReplicator
from storage.object.device import Label, clear_refill, format_device, is_to_be_refilled, open_device
from storage.object.errors import DeviceOutOfService
from storage.object.filling import DeviceFiller
from storage.object.refill import AGAIN_S, Plan, Refiller, wants_of
from storage.object.replicator import ObjectReplicator
from storage.object.store import ObjectStore
from storage.rows.books import Books
from tests.storage.client.ground import HASHER, PART_POWER, make_device, make_ring, open_engines
from tests.storage.object.object_rig import noise, path, put, put_file, read, version

CLAIM = Claim(1)  # a client's


# ---- trust


@pytest.mark.parametrize(
    ("path", "policy", "ring"),
    [
        (Path("a"), 0, "account"),
        (Path("a", "c"), 3, "container"),
        (Path("a", "c", "o"), 0, "object"),
        (Path("a", "c", "o"), 2, "object-2"),
    ],
)
def test_which_ring_a_path_is_kept_by(path: Path, policy: int, ring: str) -> None:
    assert ring_of(path, policy) == ring


def test_trust_comes_back_partition_by_partition() -> None:
    trust = Trust(HASHER, refills=True)
    name = Path("a", "c", "o")
    number = partition_of(HASHER.hash(name), 4)
    with pytest.raises(Unavailable, match="refilled"):
        trust.check(name)
    assert not trust.vouches("object", Span(4, number))
    trust.begin({"object": (4, {number, (number + 1) % 16}), "account": (4, set())})
    with pytest.raises(Unavailable):
        trust.check(name)
    trust.check(name, 1)  # another policy's ring
    trust.check(name.parent)
    assert not trust.vouches("object", Span(4, number))
    assert not trust.vouches("object", Span(3, number >> 1))  # of which it is half
    assert not trust.vouches("object", Span(5, number << 1))
    assert trust.vouches("object", Span(4, (number + 2) % 16))
    trust.filled("object", Span(4, number))
    trust.check(name)
    assert trust.waits
    trust.filled("object", Span(4, (number + 1) % 16))
    assert not trust.waits


# ---- whom to ask


def test_enough_others_must_vouch() -> None:
    """Of 3 devices all others, of 5 three of four, of 2 the other; where there is none, nothing can be had."""
    for replicas, needed in ((1, 0), (2, 1), (3, 2), (5, 3)):
        wants = wants_of(0, "object", Overlap.of(make_ring(6, replicas)))
        assert wants
        for want in wants:
            ((others, count),) = want.groups
            assert (len(others), count) == (replicas - 1, needed)
            assert want.filled == (needed == 0)


def test_while_a_partition_moves_both_rings_majorities_are_needed() -> None:
    wants = wants_of(0, "object", Overlap(make_ring(6), make_ring(6, shift=1)))
    both = [want for want in wants if len(want.groups) == 2]
    assert both
    for want in both:
        (new, count), (old, old_count) = want.groups
        assert new != old
        assert count == old_count == 2
        want.vouched |= new
        assert not want.filled
        want.vouched |= old
        assert want.filled


@given(
    st.integers(1, 5),
    st.lists(st.tuples(st.sampled_from(["whole", "more", "cannot", "gone", "later"]), st.integers(0, 10)), max_size=200),
)
def test_every_partition_is_filled_once_by_enough(replicas: int, deeds: list[tuple[str, int]]) -> None:
    wants = wants_of(0, "object", Overlap.of(make_ring(6, replicas)))
    plan = Plan(wants)
    now = 0.0
    asked = 0
    for what, pick in [*deeds, *[("whole", 0)] * 2000]:
        if what == "later" or not plan.peers:
            now += AGAIN_S
            plan.look(now)
        if not plan.peers:
            continue
        peer = plan.peers[pick % len(plan.peers)]
        taken = plan.take(peer)
        assert taken
        assert all(peer not in want.vouched for want in taken)
        assert peer != 0
        asked += len(taken)
        numbers = [want.span.partition for want in taken]
        if what == "gone":
            plan.gone(taken, peer, now)
        elif what == "more":
            assert plan.answered(taken, peer, Filled(1, 1, [], numbers), now) == []
        elif what == "cannot":
            assert plan.answered(taken, peer, Filled(0, 0, [], []), now) == []
        else:
            filled = plan.answered(taken, peer, Filled(0, 0, numbers[pick:], numbers[:pick]), now)
            assert filled == [want for want in taken if want.filled]
    assert plan.left == 0
    assert plan.peers == []
    assert all(want.filled for want in wants)
    assert asked >= sum(len(want.vouched) for want in wants)


def test_peers_take_turns_in_being_first() -> None:
    plan = Plan(wants_of(0, "object", Overlap.of(make_ring(3))))
    assert plan.peers == [1, 2]
    first: dict[int, int] = {}
    for peer in (1, 2):
        while taken := plan.take(peer):
            first[peer] = first.get(peer, 0) + len(taken)
    assert first == {1: 8, 2: 8}


# ---- with engines


class Rig:
    """Three devices with real engines; every one fills others."""

    def __init__(self, nursery: trio.Nursery, world: SimWorld) -> None:
        self.nursery = nursery
        self.world = world
        self.overlaps: dict[str, Overlap] = {}
        for shift, name in enumerate(("object", "container", "account")):
            ring = make_ring(3, shift=shift)
            self.overlaps[name] = Overlap(ring, ring, CLAIM)
        self.engines: dict[int, tuple[ObjectStore, Books]] = {}
        self.trusts: dict[int, Trust] = {}
        self.fillers: dict[int, Filler] = {}
        self.nodes: dict[int, LocalNode] = {}
        self.payer = RowPayer(nursery, lambda number: self.nodes[number])
        self.away: set[int] = set()
        self.asked: list[tuple[int, str]] = []
        self.cleared = 0

    async def add(self, number: int, root: str = "", *, refills: bool = False) -> None:
        store, books = self.engines[number] = await open_engines(self.nursery, self.world, number, root)
        device = make_device(number)
        trust = self.trusts[number] = Trust(HASHER, refills=refills)
        self.nodes[number] = LocalNode(device, store, books, self.payer, trust=trust)
        self.nodes[number].gate.edition = CLAIM.edition
        mover = ObjectReplicator(device, store, lambda: self.overlaps["object"], lambda one: self.nodes[one.id])
        book_mover = BookReplicator(device, books, self.overlaps.__getitem__, lambda one: self.nodes[one.id])
        known = self.nodes[number].gate.check_known
        self.fillers[number] = DeviceFiller(trust, {"object": mover}, books, book_mover, make_device, known=known)

    def filler(self, number: int) -> Filler:
        if number in self.away:
            raise Unavailable("it is away")
        return Counting(self, number)

    def refiller(self, number: int) -> Refiller:
        async def done() -> None:
            self.cleared += 1

        return Refiller(number, self.trusts[number], lambda: self.overlaps, self.filler, done)

    def client(self, number: int) -> Node:
        return self.nodes[number].under(CLAIM)


class Counting:
    def __init__(self, rig: Rig, number: int) -> None:
        self._rig = rig
        self._number = number

    async def fill(self, ring: str, part_power: int, partitions: Sequence[int], target: int, edition: int = 0) -> Filled:
        self._rig.asked.append((self._number, ring))
        return await self._rig.fillers[self._number].fill(ring, part_power, partitions, target, edition)


def waits(rig: Rig, number: int) -> bool:
    return rig.trusts[number].waits


async def make(nursery: trio.Nursery) -> Rig:
    rig = Rig(nursery, SimWorld(1))
    for number in range(3):
        await rig.add(number)
    return rig


NAMES = [f"name {number}" for number in range(60)]


async def fill(rig: Rig) -> None:
    """Each object and row on two of three devices, the pairs in turn; the last one on device 0 and 1."""
    account, container = Path("AUTH_test"), Path("AUTH_test", "photos")
    for index, name in enumerate(NAMES):
        for number in range(3):
            if (index + number) % 3:
                store = rig.engines[number][0]
                data = noise(name, 300_000 if index % 10 == 0 else 500)
                if index % 10 == 0:
                    await put_file(store, name, 5, data)
                else:
                    await put(store, name, 5, data if index % 7 else None)
    for number in range(3):
        for book in (account, container):
            await rig.nodes[number].merge_header(BookHeader(book, Timestamp(1), None))
    for index, name in enumerate(NAMES):
        for number in range(3):
            if (index + number) % 3:
                await rig.nodes[number].merge_rows(container, [Row(name, Timestamp(5), 1, "e", "t")])


async def run(refiller: Refiller, *, units: int = 100) -> int:
    for _ in range(units):
        done = await refiller.work()
        if isinstance(done, Idle):
            return 0
        assert isinstance(done, Busy)
    return units


async def test_who_goes_by_another_edition_neither_fills_nor_is_filled(autojump_clock: MockClock) -> None:
    """One of the two does not know yet that it was away, and holds a row whose tombstone all others have forgotten."""
    container = Path("AUTH_test", "photos")
    number = partition_of(HASHER.hash(container), PART_POWER)

    async def rows(rig: Rig, device: int) -> int:
        page = await rig.nodes[device].rows(container, start="", end="", limit=9, reverse=False)
        return len(page.rows) if page is not None else 0

    async with trio.open_nursery() as nursery:
        for returned in (0, 1):
            rig = Rig(nursery, SimWorld(returned))
            for device in (0, 1):
                await rig.add(device, f"/{returned}{device}", refills=device == 0)
                await rig.nodes[device].merge_header(BookHeader(container, Timestamp(1), None))
            await rig.nodes[returned].merge_rows(container, [Row("deleted", Timestamp(5), 1, "e", "t")])
            for device in (0, 1):
                rig.nodes[device].gate.edition = 1 if device == returned else 2
                await rig.engines[device][1].flush()
            asks = rig.nodes[0].gate.edition
            with pytest.raises(Unavailable, match="edition"):
                await rig.fillers[1].fill("container", PART_POWER, [number], 0, asks)
            assert await rows(rig, 1 - returned) == 0
            await rig.fillers[1].fill("container", PART_POWER, [number], 0)  # as an older program asks
            assert await rows(rig, 1 - returned) == 1
        nursery.cancel_scope.cancel()


async def test_an_empty_disk_votes_when_it_holds_what_the_others_hold(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        rig = await make(nursery)
        await fill(rig)
        await rig.add(0, "/replaced", refills=True)
        client = rig.client(0)
        container = Path("AUTH_test", "photos")
        for ask in (
            lambda: client.head(path(NAMES[1])),
            lambda: client.book(container),
            lambda: client.rows(container, start="", end="", limit=10, reverse=False),
            lambda: client.post(path(NAMES[1]), {}, "", Timestamp(9)),
            lambda: client.promise(path(NAMES[1]), Timestamp(9), []),
        ):
            with pytest.raises(Unavailable, match="refilled"):
                await ask()
        new = version("new", 9, b"new")
        for ask in (
            lambda: client.put_small(new, b"new", None),
            lambda: client.merge_rows(container, [Row("new", Timestamp(9), 1, "e", "t")]),
            lambda: client.merge_header(BookHeader(container, Timestamp(9), None)),
        ):
            with pytest.raises(Unavailable, match="refilled"):
                await ask()
        upload = await client.put_large(path("new"), 3)
        await upload.write(b"new")
        with pytest.raises(Unavailable, match="refilled"):
            await upload.commit(new, None)
        await upload.abort()
        await rig.nodes[0].put_small(new, b"new", None)  # a copy, by no edition
        refiller = rig.refiller(0)
        await run(refiller)
        assert not waits(rig, 0)
        assert rig.cleared == 1
        assert refiller.progress().fraction == 1.0
        for index, name in enumerate(NAMES):
            held = await client.head(path(name))
            assert held is not None, name
            data = noise(name, 300_000 if index % 10 == 0 else 500)
            if index % 10 == 0 or index % 7:
                assert await read(rig.engines[0][0], name) == data
        page = await client.rows(container, start="", end="", limit=100, reverse=False)
        assert page is not None
        assert sorted(row.name for row in page.rows) == sorted(NAMES)
        assert isinstance(await refiller.work(), Idle)
        both = {peer for peer, ring in rig.asked if ring == "object"}
        assert both == {1, 2}
        nursery.cancel_scope.cancel()


async def test_a_peer_that_is_needed_is_waited_for(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        rig = await make(nursery)
        await fill(rig)
        await rig.add(0, "/replaced", refills=True)
        rig.away.add(2)
        refiller = rig.refiller(0)
        await run(refiller)
        assert waits(rig, 0)
        assert refiller.waits_for == (2,)
        assert refiller.progress().fraction == 0.0
        held = await rig.nodes[0].head(path(NAMES[0]))  # what the other one had is here already
        assert held is not None
        with pytest.raises(Unavailable):
            await rig.client(0).head(path(NAMES[0]))
        rig.away.clear()
        await trio.sleep(AGAIN_S)
        await run(refiller)
        assert not waits(rig, 0)
        nursery.cancel_scope.cancel()


async def test_two_that_are_refilled_do_not_vouch_for_each_other(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        rig = await make(nursery)
        await fill(rig)
        for number in (0, 1):
            await rig.add(number, "/replaced", refills=True)
        refillers = [rig.refiller(number) for number in (0, 1)]
        for _ in range(5):
            for refiller in refillers:
                await run(refiller, units=20)
            await trio.sleep(AGAIN_S)
        assert waits(rig, 0)
        assert waits(rig, 1)
        assert rig.cleared == 0
        nursery.cancel_scope.cancel()


def test_what_a_peer_does_not_vouch_for_holds_up_nothing_else() -> None:
    """A peer that is being refilled itself vouches for some partitions only."""
    plan = Plan(wants_of(0, "object", Overlap.of(make_ring(3, part_power=9))))
    now, never = 0.0, {0, 1}
    for _ in range(20):
        plan.look(now)
        for peer in plan.peers:
            taken = plan.take(peer)
            numbers = [want.span.partition for want in taken]
            plan.answered(taken, peer, Filled(0, 0, [number for number in numbers if peer == 1 or number not in never], []), now)
        now += 0.01
    assert {want.span.partition for want in plan.lacking()[2]} == never
    assert plan.left == len(never)


async def test_another_ring_begins_it_anew(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        rig = await make(nursery)
        await fill(rig)
        await rig.add(0, "/replaced", refills=True)
        refiller = rig.refiller(0)
        rig.away.add(1)
        await refiller.work()
        ring = make_ring(3, part_power=PART_POWER + 1)
        rig.overlaps["object"] = Overlap(ring, ring, CLAIM)
        await refiller.work()
        assert waits(rig, 0)
        rig.away.clear()
        await trio.sleep(AGAIN_S)
        await run(refiller)
        assert not waits(rig, 0)
        nursery.cancel_scope.cancel()


async def test_nobody_who_does_not_know_the_ring_or_the_device(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        rig = await make(nursery)
        with pytest.raises(Unavailable):
            await rig.fillers[0].fill("object-7", 4, [0], 1)
        nursery.cancel_scope.cancel()


# ---- on the disk


async def test_the_mark_stays_until_it_is_filled(autojump_clock: MockClock) -> None:
    world = SimWorld(1)
    disk = world.open_disk("d")
    await disk.make_dirs("")
    await format_device(disk, "cluster", 1, disk_id="new")
    device = await open_device(world, "d", "cluster", 1, disk_id="new")
    assert device.label == Label("cluster", 1, disk_id="new")
    assert Label.decode(device.label.encode()) == device.label
    assert await is_to_be_refilled(disk)
    await clear_refill(device, device.losses)
    await clear_refill(device, device.losses)
    assert not await is_to_be_refilled(disk)
    await device.close()


async def test_the_old_disk_is_not_taken_for_the_new_one(autojump_clock: MockClock) -> None:
    world = SimWorld(1)
    disk = world.open_disk("d")
    await disk.make_dirs("")
    await format_device(disk, "cluster", 1)
    with pytest.raises(DeviceOutOfService, match="was replaced"):
        await open_device(world, "d", "cluster", 1, disk_id="new")
    device = await open_device(world, "d", "cluster", 1)
    assert not await is_to_be_refilled(disk)
    await device.close()
