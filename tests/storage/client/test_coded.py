"""Erasure-coded policies over real engines, each device behind a line: patterns of loss, writers that die, races, rot."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from itertools import combinations
from typing import cast

import pytest
import trio

from ring.daemon.worker import once
from ring.device import Device
from ring.errors import Conflict, Unavailable
from ring.names import Path
from ring.service.overlap import Overlap
from ring.wire.message import BytesBody
from ring.world.interface import OpenMode
from storage.client.bodies import aclose, loaded
from storage.client.errors import ContainerNotFound, NoQuorum, ObjectNotFound, PolicyConflict, PreconditionFailed
from storage.client.fragments import Seen
from storage.client.interface import Condition, NewObject
from storage.client.node import Node
from storage.client.reach import Settings
from storage.erasure.interface import Coding
from storage.erasure.quorum import Data
from storage.object.entry import Held
from storage.object.files import file_path
from storage.object.reconstructor import Reconstructor
from storage.sync.moving import Watcher
from tests.storage.client.ground import Distant, Ground, distant, make_ring

pytestmark = pytest.mark.usefixtures("autojump_clock")
CONTAINER = Path("AUTH_a", "c")
OBJECT = Path("AUTH_a", "c", "o")
CUT = 4096
MIB = 1 << 20
SETTINGS = Settings(pack_cut_bytes=CUT, repair_delay_s=1e6, write_timeout_s=3.0, stall_s=1.0)
CODING = Coding(4, 2)


def noise(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


async def make(nursery: trio.Nursery, settings: Settings = SETTINGS) -> tuple[Ground, list[Distant]]:
    """4+2 on 8 devices, with a container; the lines of the object's primaries, fragment 0's first."""
    ground = await Ground.coded(nursery, settings, wrap=distant)
    await ground.storage.put_container(CONTAINER, {}, policy=1)
    return ground, lines_of(ground, OBJECT)


def lines_of(ground: Ground, path: Path) -> list[Distant]:
    found = all_lines(ground)
    return [found[device.id] for device in ground.rings.objects[1].places(path).devices]


def all_lines(ground: Ground) -> list[Distant]:
    return cast(list[Distant], ground.nodes)


async def put(ground: Ground, data: bytes, path: Path = OBJECT, condition: Condition | None = None) -> None:
    await ground.storage.put_object(path, NewObject(condition=condition), BytesBody(data))


async def get(ground: Ground, path: Path = OBJECT, offset: int = 0, length: int | None = None) -> bytes:
    reading = await ground.storage.get_object(path, offset=offset, length=length)
    parts = []
    try:
        async for piece in reading.pieces:
            parts.append(await loaded(piece))
    finally:
        await aclose(reading.pieces)
    return b"".join(parts)


async def seen(line: Distant, path: Path = OBJECT) -> list[Seen]:
    return list(await line.node.of(1).fragments().sightings(path))


def reconstructors(
    ground: Ground, *, leftover_s: float = 1e9, confirm: Callable[[Overlap], None] | None = None
) -> list[Reconstructor]:
    def node_of(device: Device) -> Node:
        return ground.nodes[device.id].of(1)

    return [
        Reconstructor(
            ground.world,
            ground.nodes[number].device,
            part,
            ground.storage.reach,
            1,
            CODING,
            lambda: ground.rings.objects[1],
            node_of,
            leftover_s=leftover_s,
            watcher=Watcher(confirm=confirm) if confirm is not None else Watcher(),
        )
        for number, part in enumerate(ground.parts)
    ]


async def reconstruct(ground: Ground, rounds: int = 1, *, leftover_s: float = 1e9) -> list[Reconstructor]:
    workers = reconstructors(ground, leftover_s=leftover_s)
    for _ in range(rounds):
        for worker in workers:
            await once(worker)
        await trio.sleep(60)
    return workers


@pytest.mark.parametrize("size", [0, 100, CUT, CUT + 1, 2 * MIB + 77])
async def test_every_pattern_of_loss_is_read(nursery: trio.Nursery, autojump_clock: trio.testing.MockClock, size: int) -> None:
    ground, lines = await make(nursery)
    data = noise(size)
    await put(ground, data)
    for lost in (lost for count in range(3) for lost in combinations(range(6), count)):
        for number in lost:
            lines[number].cut = True
        assert await get(ground) == data, lost
        if size > MIB:
            assert await get(ground, offset=MIB - 10, length=20) == data[MIB - 10 : MIB + 10], lost
        for number in lost:
            lines[number].cut = False
    for number in range(3):
        lines[number].cut = True
    with pytest.raises(Unavailable):
        await get(ground)


async def test_what_lies_where(nursery: trio.Nursery, autojump_clock: trio.testing.MockClock) -> None:
    ground, lines = await make(nursery)
    await put(ground, noise(CUT))
    assert [[(one.committed, one.data) for one in await seen(line)] for line in lines] == [
        [(True, Data.COPY)], [(True, Data.COPY)], [(True, Data.COPY)], [(True, Data.NONE)], [(True, Data.NONE)], [(True, Data.NONE)]
    ]  # fmt: skip
    await put(ground, noise(CUT + 1))
    assert [[(one.committed, one.data, one.index) for one in await seen(line)] for line in lines] == [
        [(True, Data.FRAGMENT, index)] for index in range(6)
    ]
    await ground.storage.delete_object(OBJECT)
    assert [len(await seen(line)) for line in lines] == [1] * 6


async def test_ranges_cross_stripes(nursery: trio.Nursery, autojump_clock: trio.testing.MockClock) -> None:
    ground, lines = await make(nursery)
    data = noise(2 * MIB + 300_001)
    await put(ground, data)
    rng = random.Random(5)
    borders = [0, 1, MIB // 4, MIB // 2, MIB - 1, MIB, MIB + 1, 2 * MIB, 2 * MIB + 75_001, len(data) - 1, len(data)]
    for number in range(60):
        start, end = sorted((rng.choice(borders), rng.choice(borders)))
        if number % 3 == 0:
            lines[rng.randrange(6)].cut = True
        assert await get(ground, offset=start, length=end - start) == data[start:end]
        for line in lines:
            line.cut = False


async def test_a_small_range_reads_one_fragment(nursery: trio.Nursery, autojump_clock: trio.testing.MockClock) -> None:
    ground, lines = await make(nursery)
    data = noise(3 * MIB)
    await put(ground, data)
    for line in lines:
        line.calls.clear()
    assert await get(ground, offset=MIB + 5, length=100) == data[MIB + 5 : MIB + 105]
    assert [line.calls.count("read") for line in lines] == [1, 0, 0, 0, 0, 0]


@pytest.mark.parametrize(("size", "step"), [(100, "stage"), (100, "commit"), (9000, "write"), (9000, "stage"), (9000, "commit")])
@pytest.mark.parametrize("count", [0, 1, 3, 4, 5, 6])
async def test_a_writer_that_dies_leaves_one_of_the_two(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock, step: str, count: int, size: int
) -> None:
    """After ``count`` devices did this step, nothing gets through to any other."""
    ground, lines = await make(nursery)
    old, new = noise(size, 1), noise(size, 2)
    await put(ground, old)
    done: Counter[str] = Counter()

    def rule(name: str) -> None:
        if done[step] >= count:
            raise Unavailable("the writer is dead")
        done[name] += 1

    for line in all_lines(ground):
        line.rule = rule
    acknowledged = False
    try:
        await put(ground, new)
        acknowledged = True
    except Unavailable:
        pass
    await trio.sleep(30)
    for line in all_lines(ground):
        line.rule = lambda name: None
    first = await get(ground)
    assert first == new if acknowledged else first in (old, new)
    for _ in range(3):
        assert await get(ground) == first  # what was shown stays
    await reconstruct(ground, 4, leftover_s=0)
    after = await get(ground)
    assert after == first or after == new  # what was staged may be finished
    for line in lines:
        assert [(one.committed, one.refused) for one in await seen(line)] == [(True, False)]
    for lost in ((0, 1), (4, 5), (2, 3)):
        for number in lost:
            lines[number].cut = True
        assert await get(ground) == after
        for number in lost:
            lines[number].cut = False


async def test_one_device_may_be_lost_during_a_write_and_two_may_not(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    ground, lines = await make(nursery)
    old, new = noise(MIB, 1), noise(2 * MIB, 2)
    await put(ground, old)

    def dies(after: int) -> Callable[[str], None]:
        writes = Counter[str]()

        def rule(name: str) -> None:
            writes[name] += 1
            if writes["write"] > after:
                raise Unavailable("its disk is gone")

        return rule

    lines[1].rule, lines[4].rule = dies(1), dies(0)
    with pytest.raises(NoQuorum):
        await put(ground, new)
    assert await get(ground) == old
    lines[4].rule = lambda name: None
    await put(ground, new)
    lines[1].rule = lambda name: None
    lines[1].cut = lines[0].cut = True  # and one more afterwards
    assert await get(ground) == new


@pytest.mark.parametrize("size", [100, 9000])
async def test_a_write_that_too_few_take_replaces_nothing(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock, size: int
) -> None:
    ground, lines = await make(nursery)
    await put(ground, noise(size, 1))

    def refuses(name: str) -> None:
        if name == "stage":
            raise Unavailable("it cannot")

    for line in lines[:2] if size <= CUT else lines[3:]:
        line.rule = refuses
    with pytest.raises(NoQuorum):
        await put(ground, noise(size, 2))
    for line in lines:
        line.rule = lambda name: None
        assert [one.committed for one in await seen(line)][:1] == [True]
    assert await get(ground) == noise(size, 1)


@pytest.mark.parametrize("size", [50, MIB])
async def test_racing_writers_agree(nursery: trio.Nursery, autojump_clock: trio.testing.MockClock, size: int) -> None:
    ground, _ = await make(nursery)
    bodies = [noise(size, number) for number in range(6)]
    outcomes: list[bool] = []

    async def write(data: bytes) -> None:
        try:
            await put(ground, data)
            outcomes.append(True)
        except Unavailable:
            outcomes.append(False)

    async with trio.open_nursery() as writers:
        for data in bodies:
            writers.start_soon(write, data)
    assert any(outcomes)
    first = await get(ground)
    assert first in bodies
    await reconstruct(ground, 4, leftover_s=0)
    assert await get(ground) == first


async def test_of_racing_conditional_writers_one_wins(nursery: trio.Nursery, autojump_clock: trio.testing.MockClock) -> None:
    ground, _ = await make(nursery)
    won: list[int] = []

    async def create(number: int) -> None:
        try:
            await put(ground, noise(10 if number % 2 else CUT + 1, number), condition=Condition(if_none_match=("*",)))
            won.append(number)
        except (PreconditionFailed, NoQuorum):
            pass

    async with trio.open_nursery() as writers:
        for number in range(4):
            writers.start_soon(create, number)
    assert len(won) == 1
    assert await get(ground) == noise(10 if won[0] % 2 else CUT + 1, won[0])
    with pytest.raises(PreconditionFailed):
        await put(ground, b"x", condition=Condition(if_match=("other",)))
    await put(ground, b"plain")  # no promise is left in its way
    assert await get(ground) == b"plain"


async def test_two_lost_devices_are_filled_again(nursery: trio.Nursery, autojump_clock: trio.testing.MockClock) -> None:
    ground, _ = await make(nursery)
    data = {Path("AUTH_a", "c", f"o{number}"): noise(CUT + 1 if number % 3 else 70, number) for number in range(12)}
    for path, body in data.items():
        await put(ground, body, path)
    for number in (2, 5):
        part = ground.parts[number]
        start: bytes | None = b""
        while start is not None:
            page, start = part.index.page(start, None, limit=100)
            for held in page:
                await part.drop(held.key, "lost")
    await reconstruct(ground, 2)
    for path, body in data.items():
        primaries = lines_of(ground, path)
        for index, line in enumerate(primaries):
            (one,) = await seen(line, path)
            assert one.committed and (one.index == index if len(body) > CUT else (one.data is Data.COPY) == (index <= 2))
    for line in all_lines(ground)[:2]:
        line.cut = True
    for path, body in data.items():
        assert await get(ground, path) == body


async def test_rot_is_read_around_and_mended(nursery: trio.Nursery, autojump_clock: trio.testing.MockClock) -> None:
    ground, lines = await make(nursery)
    data = noise(2 * MIB)
    await put(ground, data)
    for number in (0, 3):
        part = ground.parts[lines[number].device.id]
        held = next(iter(part.index.page(b"", None, limit=10)[0]))
        assert isinstance(held, Held)
        file = await part.device.disk.open(file_path(held.hash, held.timestamp, held.entry.serial), OpenMode.WRITE)
        await file.pwrite(MIB // 4 + 5, b"rot")
        await file.close()
    assert await get(ground) == data
    await trio.sleep(5)  # the device looks at what a reader found damaged
    assert [one.data for number in (0, 3) for one in await seen(lines[number])] == [Data.NONE] * 2
    await reconstruct(ground)
    assert [[one.index for one in await seen(line)] for line in lines] == [[index] for index in range(6)]
    assert await get(ground) == data


async def test_a_handoff_brings_its_fragment_home(nursery: trio.Nursery, autojump_clock: trio.testing.MockClock) -> None:
    ground, lines = await make(nursery)
    data = noise(MIB)
    lines[2].cut = True
    await put(ground, data)
    others = [line for line in all_lines(ground) if line not in lines]
    held = [one for line in others for one in await seen(line)]
    assert [(one.committed, one.index) for one in held] == [(True, 2)]
    lines[2].cut = False
    for part in ground.parts:
        part.mark_paid([key for key, _, _ in part.unpaid(10)])  # as the updater does; before, nothing is let go of
    await reconstruct(ground, 2)
    assert [one.index for one in await seen(lines[2])] == [2]
    assert [one for line in others for one in await seen(line)] == []


async def test_a_ring_moves(nursery: trio.Nursery, autojump_clock: trio.testing.MockClock) -> None:
    """Two devices on: what the settled ring's had is with the new one's, and only there, when all have confirmed."""
    ground, _ = await make(nursery)
    data = {Path("AUTH_a", "c", f"o{number}"): noise(CUT + 1 if number % 2 else 70, number) for number in range(6)}
    for path, body in data.items():
        await put(ground, body, path)
    old = ground.rings.objects[1].ring
    new = make_ring(8, 6, shift=3)
    ground.rings.objects = {**ground.rings.objects, 1: Overlap(new, old)}
    late = Path("AUTH_a", "c", "late")
    await put(ground, noise(9000, 99), late)
    for path, body in {**data, late: noise(9000, 99)}.items():
        assert await get(ground, path) == body
    confirmed: list[Overlap] = []
    workers = reconstructors(ground, confirm=confirmed.append)
    for _ in range(6):
        for worker in workers:
            await once(worker)
        await trio.sleep(60)
    assert len(confirmed) == 8
    ground.rings.objects = {**ground.rings.objects, 1: Overlap.of(new)}
    for _ in range(3):
        for worker in workers:
            await once(worker)
        await trio.sleep(60)
    for path, body in {**data, late: noise(9000, 99)}.items():
        primaries = lines_of(ground, path)
        for number, line in enumerate(all_lines(ground)):
            assert len(await seen(line, path)) == (line in primaries), (path, number)
        primaries[0].cut = primaries[3].cut = True
        assert await get(ground, path) == body
        primaries[0].cut = primaries[3].cut = False


async def test_an_object_that_cannot_be_read_can_be_deleted_and_replaced(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    ground, lines = await make(nursery)
    await put(ground, noise(MIB))
    for line in lines[:3]:
        part = ground.parts[line.device.id]
        await part.quarantine(part.index.page(b"", None, limit=1)[0][0].key)
    with pytest.raises(Unavailable):
        await get(ground)
    await put(ground, noise(MIB, 2))
    assert await get(ground) == noise(MIB, 2)
    for line in lines[:3]:
        part = ground.parts[line.device.id]
        await part.quarantine(part.index.page(b"", None, limit=1)[0][0].key)
    await ground.storage.delete_object(OBJECT)
    with pytest.raises(ObjectNotFound):
        await get(ground)


async def test_a_container_keeps_its_policy(nursery: trio.Nursery, autojump_clock: trio.testing.MockClock) -> None:
    ground, _ = await make(nursery)
    with pytest.raises(PolicyConflict):
        await ground.storage.put_container(CONTAINER, {}, policy=0)
    assert await ground.storage.put_container(CONTAINER, {}) is False
    assert (await ground.storage.head_container(CONTAINER)).policy == 1
    await ground.storage.delete_container(CONTAINER)
    with pytest.raises(PolicyConflict):
        await ground.storage.put_container(CONTAINER, {}, policy=0)
    with pytest.raises((ContainerNotFound, Conflict)):
        await put(ground, b"x")
