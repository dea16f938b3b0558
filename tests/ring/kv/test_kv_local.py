"""LocalStore against crashes and bad disks, on simulated ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from ring.errors import BadInput, DiskFault, NotFound, Unavailable
from ring.kv.interface import Put, Unchanged
from ring.kv.local import FILE, LOG_BYTES_MAX, LocalStore
from ring.world.interface import Disk, World
from ring.world.sim import SimNode, Simulation, SimWorld, run

PATH = f"kv/{FILE}"


async def disks_of(world: World, count: int = 3) -> list[Disk]:
    disks = [world.open_disk(f"/d{index}") for index in range(count)]
    for disk in disks:
        await disk.make_dirs("")
    return disks


async def put(store: LocalStore, **values: str) -> None:
    for key, value in values.items():
        assert (await store.transact([], [Put(key, value.encode())])).succeeded


async def values_of(store: LocalStore) -> dict[str, str]:
    return {entry.key: entry.value.decode() for entry in await store.range("")}


@pytest.mark.parametrize("count", [1, 2, 3])
async def test_it_is_all_there_after_a_restart(autojump_clock: MockClock, count: int) -> None:
    world = SimWorld(count)
    disks = await disks_of(world, count)
    async with LocalStore.open(world, disks) as store:
        await put(store, a="1", b="2")
        lease = await store.grant(100.0)
        await store.transact([], [Put("l", b"", lease)])
    async with LocalStore.open(world, disks) as store:
        assert await values_of(store) == {"a": "1", "b": "2", "l": ""}
        assert (await store.transact([], [Put("c", b"")])).revision == 4
        assert await store.grant(1.0) == lease + 1
        await store.keep_alive(lease)
        await trio.sleep(99)
        assert await store.get("l") is not None  # a restart gives a lease its whole time again
        await trio.sleep(2)
        assert await store.get("l") is None


@pytest.mark.parametrize("index", [0, 1, 2])
@pytest.mark.parametrize("damage", ["empty", "rot", "remove", "cut", "dead"])
async def test_one_bad_disk_loses_nothing_and_is_refilled(autojump_clock: MockClock, index: int, damage: str) -> None:
    world = SimWorld(index)
    disks = await disks_of(world)
    async with LocalStore.open(world, disks) as store:
        await put(store, **{f"k{i}": str(i) for i in range(20)})
    medium = world.node.disk(f"/d{index}")
    match damage:
        case "empty":
            medium.empty()
        case "rot":
            medium.file(PATH).content[300] ^= 1
        case "remove":
            await disks[index].unlink(PATH)
        case "cut":
            del medium.file(PATH).content[-10:]
        case _:
            medium.dead = True
    async with LocalStore.open(world, disks) as store:
        assert await values_of(store) == {f"k{i}": str(i) for i in range(20)}
        await put(store, more="1")
        medium.heal()
        await trio.sleep(61)
        await put(store, more="2")
        assert store.troubles == ["", "", ""]
    if damage == "rot":
        assert f"{PATH}.rotten" in medium.files()
    for other in {0, 1, 2} - {index}:
        world.node.disk(f"/d{other}").empty()
        break
    async with LocalStore.open(world, disks) as store:
        assert (await values_of(store))["more"] == "2"


async def test_with_two_of_three_gone_it_refuses_and_changes_nothing(autojump_clock: MockClock) -> None:
    world = SimWorld(1)
    disks = await disks_of(world)
    async with LocalStore.open(world, disks) as store:
        await put(store, a="1")
    for index in (0, 1):
        world.node.disk(f"/d{index}").empty()
    before = bytes(world.node.disk("/d2").file(PATH).content)
    with pytest.raises(Unavailable, match="1 of 3"):
        async with LocalStore.open(world, disks):
            pass
    assert bytes(world.node.disk("/d2").file(PATH).content) == before
    assert world.node.disk("/d0").files() == []


async def test_unmounted_disks_are_no_fresh_start(autojump_clock: MockClock) -> None:
    world = SimWorld(1)
    disks = [world.open_disk(f"/d{index}") for index in range(3)]
    for disk in disks[:2]:
        await disk.make_dirs("")
    with pytest.raises(Unavailable, match="folder is not there"):
        async with LocalStore.open(world, disks):
            pass


async def test_rot_in_the_only_log_is_a_disk_fault(autojump_clock: MockClock) -> None:
    world = SimWorld(1)
    disks = await disks_of(world, 1)
    async with LocalStore.open(world, disks) as store:
        await put(store, a="1", b="2", c="3")
    world.node.disk("/d0").file(PATH).content[120] ^= 1
    with pytest.raises(DiskFault):
        async with LocalStore.open(world, disks):
            pass


async def test_disks_may_be_added_but_the_first_alone_is_then_not_believed(autojump_clock: MockClock) -> None:
    world = SimWorld(1)
    disks = await disks_of(world)
    async with LocalStore.open(world, disks[:1]) as store:
        await put(store, a="1")
    async with LocalStore.open(world, disks) as store:
        assert await values_of(store) == {"a": "1"}
        await put(store, a="2")
    with pytest.raises(Unavailable):
        async with LocalStore.open(world, disks[:1]):
            pass
    async with LocalStore.open(world, disks[1:]) as store:
        assert await values_of(store) == {"a": "2"}


async def test_another_cloud_s_disk_is_left_alone(autojump_clock: MockClock) -> None:
    world = SimWorld(1)
    disks = await disks_of(world)
    async with LocalStore.open(world, disks) as store:
        await put(store, a="1")
    foreign = SimWorld(2)
    async with LocalStore.open(foreign, await disks_of(foreign)) as store:
        await put(store, a="theirs", b="theirs")
    world.node.disk("/d1").swap(foreign.node.disk("/d1"))
    before = bytes(world.node.disk("/d1").file(PATH).content)
    async with LocalStore.open(world, disks) as store:
        await put(store, c="1")
        await trio.sleep(200)
        assert await values_of(store) == {"a": "1", "c": "1"}
        assert store.troubles == ["", "it belongs to another cloud", ""]
    assert bytes(world.node.disk("/d1").file(PATH).content) == before


async def test_it_goes_on_with_two_logs_and_starts_over_with_one(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    world = SimWorld(3)
    disks = await disks_of(world)
    async with LocalStore.open(world, disks) as store, store.watch("") as watch:
        await put(store, a="1")
        assert [event.key for event in await watch.next()] == ["a"]
        world.node.disk("/d0").sync_errors = 1
        await put(store, a="2")
        assert [event.key for event in await watch.next()] == ["a"]
        world.node.disk("/d1").dead = world.node.disk("/d2").dead = True
        for key in ("b", "c"):
            with pytest.raises(Unavailable):
                await store.transact([], [Put(key, b"")])
        with pytest.raises(Unavailable):
            await watch.next()
        assert (await values_of(store))["a"] == "2"
        for medium in world.node.media:
            medium.heal()
        await trio.sleep(3)
        await put(store, a="3")
        assert (await values_of(store))["a"] == "3"
        assert store.troubles == ["", "", ""]


async def test_a_slow_disk_holds_up_nothing(autojump_clock: MockClock) -> None:
    world = SimWorld(3)
    disks = await disks_of(world)
    async with LocalStore.open(world, disks) as store:
        world.node.disk("/d1").slow_s = 5.0
        start = trio.current_time()
        await put(store, **{f"k{i}": "" for i in range(50)})
        assert trio.current_time() - start < 1.0
        world.node.disk("/d1").heal()


async def test_what_waits_together_goes_in_one_record(autojump_clock: MockClock) -> None:
    world = SimWorld(3)
    async with LocalStore.open(world, await disks_of(world)) as store:
        async with trio.open_nursery() as nursery:
            for i in range(100):
                nursery.start_soon(partial(put, store, **{f"k{i}": ""}))
        assert len(await store.range("")) == 100
        assert world.node.disk("/d0").file(PATH).content.count(b"kvR\n") <= 3


async def test_errors_of_one_request_are_its_own(autojump_clock: MockClock) -> None:
    world = SimWorld(3)
    async with LocalStore.open(world, await disks_of(world)) as store:
        lease = await store.grant(1.0)
        await store.revoke(lease)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(put, store, a="1"))
            with pytest.raises(NotFound):
                await store.transact([], [Put("b", b"", lease)])
            with pytest.raises(BadInput):
                await store.grant(-1)
        assert await values_of(store) == {"a": "1"}


async def test_the_log_is_shortened(autojump_clock: MockClock) -> None:
    world = SimWorld(3)
    disks = await disks_of(world)
    value = b"x" * (1 << 20)
    async with LocalStore.open(world, disks) as store:
        world.node.disk("/d2").dead = True
        for i in range(40):
            await store.transact([], [Put(f"k{i % 2}", b"%02d" % i + value[2:])])
        size = len(world.node.disk("/d0").file(PATH).content)
        assert size < 2 * LOG_BYTES_MAX
        world.node.disk("/d2").heal()
        before = await store.range("")
    async with LocalStore.open(world, disks) as store:
        assert await store.range("") == before
        assert (await store.transact([Unchanged("k1", 40)], [Put("k1", b"")])).succeeded


# ---- any history of writes, crashes and one bad disk at a time


@dataclass(frozen=True)
class Life:
    writers: int
    ends_after_s: float
    power: bool | None  # None: a clean end
    damage: str
    disk: int


lives = st.lists(
    st.builds(
        Life,
        writers=st.integers(1, 4),
        ends_after_s=st.sampled_from([0.0005, 0.002, 0.004, 0.008, 0.02, 0.05]),
        power=st.sampled_from([True, True, False, None]),
        damage=st.sampled_from(["", "", "", "empty", "rot", "dead", "sync", "full"]),
        disk=st.integers(0, 2),
    ),
    min_size=2,
    max_size=8,
)


@dataclass
class Model:
    """What each key may hold: the last acknowledged value, or one whose answer never came."""

    possible: dict[str, set[str | None]] = field(default_factory=dict)
    revision: int = 0
    serial: int = 0


async def check(store: LocalStore, model: Model) -> None:
    values = await values_of(store)
    assert set(values) <= set(model.possible)
    for key, possible in model.possible.items():
        assert values.get(key) in possible, f"{key} is {values.get(key)}, not one of {possible}"
        model.possible[key] = {values.get(key)}
    revision = (await store.transact([], [])).revision
    assert revision >= model.revision
    model.revision = revision


async def write(store: LocalStore, model: Model, key: str) -> None:
    while True:
        model.serial += 1
        value = str(model.serial)
        model.possible.setdefault(key, {None}).add(value)
        entry = await store.get(key)
        try:
            outcome = await store.transact([Unchanged(key, entry.modified if entry else 0)], [Put(key, value.encode())])
        except Unavailable:
            return
        assert outcome.succeeded
        model.possible[key] = {value}
        model.revision = max(model.revision, outcome.revision)


async def live(life: Life, model: Model, opened: list[bool], world: World) -> None:
    try:
        async with LocalStore.open(world, [world.open_disk(f"/d{index}") for index in range(3)]) as store:
            opened.append(store.troubles == ["", "", ""] and life.damage in ("", "empty", "rot"))
            await check(store, model)
            async with trio.open_nursery() as nursery:
                for number in range(life.writers):
                    nursery.start_soon(write, store, model, f"k{number}")
                if life.power is None:
                    await trio.sleep(life.ends_after_s)
                    nursery.cancel_scope.cancel()
    except Unavailable:
        assert life.damage in ("dead", "sync", "full")


async def history(seed: int, steps: Sequence[Life]) -> None:
    node = Simulation(seed).node("n")
    for index in range(3):
        await node.world.open_disk(f"/d{index}").make_dirs("")
    model = Model()
    bad: int | None = None  # the disk that may lack something
    ever_opened = False  # in its very first start a store takes a damaged log for all that there is, and refuses
    for life in steps:
        damaged = ever_opened and life.damage and bad in (None, life.disk)
        if damaged:
            bad = life.disk
            hurt(node, life)
        opened: list[bool] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(
                node.run,
                partial(live, life if damaged else Life(life.writers, life.ends_after_s, life.power, "", 0), model, opened),
            )
            if life.power is not None:
                await trio.sleep(life.ends_after_s)
                node.crash(power=life.power)
        if not node.up:
            node.restart()
        for medium in node.media:
            medium.heal()
        ever_opened = ever_opened or bool(opened)
        if opened == [True]:
            bad = None
    final: list[bool] = []
    await node.run(partial(live, Life(1, 0.001, None, "", 0), model, final))
    assert final == [True]


def hurt(node: SimNode, life: Life) -> None:
    medium = node.disk(f"/d{life.disk}")
    match life.damage:
        case "empty":
            medium.empty()
        case "rot" if PATH in medium.files():
            medium.rot(PATH, medium.rng)
        case "dead":
            medium.dead = True
        case "sync":
            medium.sync_errors = 1
        case "full":
            medium.room_bytes = 2000
        case _:
            pass


@settings(deadline=None, max_examples=150)
@given(st.integers(0, 2**32), lives)
def test_nothing_acknowledged_is_lost(seed: int, steps: list[Life]) -> None:
    run(seed, history, seed, steps)
