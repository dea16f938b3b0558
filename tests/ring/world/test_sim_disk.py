"""What a crash may take, what it must leave, and what the faults do."""

from __future__ import annotations

import errno
import random
from collections import Counter
from collections.abc import Callable

import pytest
import trio
from trio.testing import MockClock

from ring.world.interface import OpenMode, Write
from ring.world.sim import NodeCrashed, SimNode, Simulation, run


@pytest.fixture
async def node() -> SimNode:
    node = Simulation(1).node("n")
    await node.world.open_disk("/d").make_dirs("")
    return node


async def after_power_loss(seed: int, prepare: Callable[[SimNode], object]) -> bytes:
    node = Simulation(seed).node("n")
    disk = node.world.open_disk("/d")
    await disk.make_dirs("")
    file = await disk.open("f", OpenMode.CREATE)
    await file.append([b"s" * 6000], sync=True)
    await file.append([b"u" * 20_000], sync=False)
    await file.append([b"v" * 3000], sync=False)
    node.crash(power=True)
    node.restart()
    return await node.world.open_disk("/d").read_file("f")


async def test_synced_bytes_survive_and_unsynced_ones_may_not(autojump_clock: MockClock) -> None:
    kinds: Counter[str] = Counter()
    for seed in range(60):
        data = await after_power_loss(seed, lambda node: None)
        assert data[:6000] == b"s" * 6000
        rest = data[6000:]
        if not rest:
            kinds["lost"] += 1
        elif rest == b"u" * 20_000 + b"v" * 3000:
            kinds["kept"] += 1
        elif 0 in rest:
            kinds["holes"] += 1
        else:
            assert rest == (b"u" * 20_000 + b"v" * 3000)[: len(rest)]
            kinds["prefix"] += 1
    assert set(kinds) == {"lost", "kept", "holes", "prefix"}


async def test_a_kill_keeps_the_page_cache(node: SimNode, autojump_clock: MockClock) -> None:
    file = await node.world.open_disk("/d").open("f", OpenMode.CREATE)
    await file.append([b"x" * 9999], sync=False)
    node.crash(power=False)
    node.restart()
    assert await node.world.open_disk("/d").read_file("f") == b"x" * 9999


async def test_names_are_durable_when_the_call_returned(node: SimNode, autojump_clock: MockClock) -> None:
    disk = node.world.open_disk("/d")
    await disk.make_dirs("a/b")
    await disk.replace_file("a/r", b"1")
    await disk.replace_file("a/r", b"2")
    file = await disk.open_unnamed("a")
    await file.append([b"body"], sync=True)
    await disk.link(file, "a/linked")
    await disk.rename("a/linked", "a/b/moved")
    await disk.replace_file("a/gone", b"")
    await disk.unlink("a/gone")
    lost = await disk.open_unnamed("a")
    await lost.append([b"nobody sees this"], sync=True)
    node.crash(power=True)
    node.restart()
    disk = node.world.open_disk("/d")
    assert await disk.list_dir("a") == ["b", "r"]
    assert (await disk.read_file("a/r"), await disk.read_file("a/b/moved")) == (b"2", b"body")


async def test_what_a_crash_interrupts_has_happened_or_not(autojump_clock: MockClock) -> None:
    seen = set()
    for seed in range(30):
        node = Simulation(seed).node("n")
        disk = node.world.open_disk("/d")
        await disk.make_dirs("")
        await disk.replace_file("f", b"old")

        async def replace(node: SimNode = node) -> None:
            with pytest.raises(NodeCrashed):
                await node.world.open_disk("/d").replace_file("f", b"new")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(replace)
            await trio.sleep(1e-5)
            node.crash(power=True)
        node.restart()
        seen.add(await node.world.open_disk("/d").read_file("f"))
    assert seen == {b"old", b"new"}


async def test_commits_survive_and_an_interrupted_one_is_whole_or_absent(autojump_clock: MockClock) -> None:
    seen = set()
    for seed in range(30):
        node = Simulation(seed).node("n")
        disk = node.world.open_disk("/d")
        await disk.make_dirs("")
        tables = await disk.open_tables("t", ["a"])
        await tables.commit([Write("a", b"safe", b"1")])

        async def commit(tables: object = tables) -> None:
            with pytest.raises(NodeCrashed):
                await tables.commit([Write("a", b"x", b"1"), Write("a", b"y", b"1")])  # type: ignore[attr-defined]

        async with trio.open_nursery() as nursery:
            nursery.start_soon(commit)
            await trio.sleep(1e-5)
            node.crash(power=True)
        node.restart()
        again = await node.world.open_disk("/d").open_tables("t", ["a"])
        seen.add(tuple(key for key, _ in again.scan("a", limit=9)))
    assert seen == {(b"safe",), (b"safe", b"x", b"y")}


async def test_a_dead_life_can_do_nothing(node: SimNode, autojump_clock: MockClock) -> None:
    world = node.world
    file = await world.open_disk("/d").open("f", OpenMode.CREATE)
    node.crash()
    with pytest.raises(NodeCrashed):
        await file.append([b"x"], sync=True)
    with pytest.raises(NodeCrashed):
        await world.open_disk("/d").list_dir("")
    node.restart()
    with pytest.raises(NodeCrashed):
        await file.pread(0, 1)


async def test_crash_ends_the_tasks(node: SimNode, autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(node.run, lambda world: trio.sleep_forever())
        await trio.sleep(1)
        node.crash()


async def test_a_failed_sync_loses_what_it_should_have_kept(node: SimNode, autojump_clock: MockClock) -> None:
    medium = node.disk("/d")
    file = await node.world.open_disk("/d").open("f", OpenMode.CREATE)
    await file.append([b"good"], sync=True)
    medium.sync_errors = 1
    with pytest.raises(OSError) as caught:
        await file.append([b"evil"], sync=True)
    assert caught.value.errno == errno.EIO
    assert file.size() == 4
    await file.sync()  # says all is well, as Linux would
    assert await file.pread(0, 10) == b"goodevil"
    node.crash(power=True)
    node.restart()
    assert await node.world.open_disk("/d").read_file("f") == b"good"


async def test_standing_faults_and_their_end(node: SimNode, autojump_clock: MockClock) -> None:
    medium, disk = node.disk("/d"), node.world.open_disk("/d")
    file = await disk.open("f", OpenMode.CREATE)
    medium.room_bytes = 5
    await file.append([b"12345"], sync=True)
    with pytest.raises(OSError, match="No space left"):
        await file.append([b"6"], sync=True)
    assert (await disk.space()).free_bytes == 0
    medium.dead = True
    for call in (disk.list_dir, disk.read_file):
        with pytest.raises(OSError, match="Input/output"):
            await call("f")
    with pytest.raises(OSError, match="Input/output"):
        file.pread_now(0, 1)
    medium.heal()
    medium.slow_s = 3.0
    before = trio.current_time()
    await file.append([b"6"], sync=True)
    assert trio.current_time() - before >= 3.0
    assert await disk.read_file("f") == b"123456"


async def test_rot_lost_writes_and_a_lying_drive(node: SimNode, autojump_clock: MockClock) -> None:
    medium, disk = node.disk("/d"), node.world.open_disk("/d")
    file = await disk.open("f", OpenMode.CREATE)
    await file.append([bytes(1000)], sync=True)
    medium.rot("f", random.Random(1))
    data = await disk.read_file("f")
    assert sum(byte.bit_count() for byte in data) == 1
    medium.writes_to_lose = 1
    await file.append([b"never"], sync=True)
    assert (await disk.read_file("f"))[1000:] == bytes(5)
    tables = await disk.open_tables("t", ["a"])
    medium.ignores_sync = True
    await tables.commit([Write("a", b"k", b"v")])
    lost_file = lost_commit = False
    for _ in range(20):
        await file.append([b"lie"], sync=True)
        size = file.size()
        node.crash(power=True)
        node.restart()
        disk = node.world.open_disk("/d")
        file = await disk.open("f", OpenMode.WRITE)
        tables = await disk.open_tables("t", ["a"])
        lost_file |= file.size() < size
        lost_commit |= tables.get("a", b"k") is None
        await tables.commit([Write("a", b"k", b"v")])
    assert lost_file and lost_commit


async def test_an_emptied_a_swapped_and_a_missing_disk(node: SimNode, autojump_clock: MockClock) -> None:
    disk, other = node.world.open_disk("/d"), node.world.open_disk("/e")
    await other.make_dirs("")
    await disk.replace_file("f", b"d")
    await other.replace_file("f", b"e")
    node.disk("/d").swap(node.disk("/e"))
    assert (await disk.read_file("f"), await other.read_file("f")) == (b"e", b"d")
    node.disk("/d").empty()
    assert await disk.list_dir("") == []
    node.disk("/e").unmount()
    assert await other.info("") is None
    with pytest.raises(FileNotFoundError):
        await other.list_dir("")


def test_clocks_step_and_drift() -> None:
    async def main() -> None:
        node = Simulation(1).node("n")
        start = node.world.clock.now()
        node.clock.step(-100)
        assert node.world.clock.now() == start - 100
        node.clock.drift(0.5)
        await trio.sleep(10)
        assert node.world.clock.now() == pytest.approx(start - 100 + 15)
        node.crash()
        node.restart()
        assert node.world.clock.now() == pytest.approx(start - 85)  # the fault is the machine's
        node.clock.correct()
        assert node.world.clock.now() == pytest.approx(start + 10)

    run(1, main)
