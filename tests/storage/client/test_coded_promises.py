"""Promises to conditional writes of erasure-coded keys: what ends them, and what a front door may still do that comes late.

In most of these there is a write with an older timestamp that the conditional one has not seen: its front door's clock is behind.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import trio
import trio.testing

from ring.daemon.worker import once
from ring.errors import Unavailable
from ring.service.overlap import Claim, Overlap
from ring.timestamp import TimestampSource
from ring.wire.message import BytesBody
from storage.client.cluster import ClusterStorage
from storage.client.errors import NoQuorum, ObjectNotFound, PreconditionFailed
from storage.client.interface import Condition, NewObject
from storage.client.reach import Rings
from storage.object.settler import Settler, end_coded
from tests.storage.client.ground import Ground, distant, make_ring
from tests.storage.client.test_coded import (
    CONTAINER,
    CUT,
    OBJECT,
    SETTINGS,
    all_lines,
    get,
    lines_of,
    make,
    noise,
    put,
)

pytestmark = pytest.mark.usefixtures("autojump_clock")
ABSENT = Condition(if_none_match=("*",))
SIZES = [10, 3 * CUT]


class Behind:
    def __init__(self, ground: Ground) -> None:
        self._clock = ground.world.clock

    def now(self) -> float:
        return self._clock.now() - 1000


def door_behind(ground: Ground, rings: Rings | None = None) -> ClusterStorage:
    reach = ground.storage.reach
    return ClusterStorage(
        ground.world,
        ground.nursery,
        rings or ground.rings,
        reach.nodes,
        TimestampSource(Behind(ground)),
        settings=replace(SETTINGS, write_attempts=3),
        policies=reach.policies,
    )


def settlers(ground: Ground) -> list[Settler]:
    return [
        Settler(part, lambda: ground.rings.objects[1], partial(end_coded, ground.storage.coded, part, 1), turn_s=1.0)
        for part in ground.parts
    ]


async def settle(ground: Ground) -> None:
    """For as long as promises stand, and longer."""
    workers = settlers(ground)
    for _ in range(15):
        for worker in workers:
            worker.begin()
            await once(worker)
        await trio.sleep(10)


def promises(ground: Ground) -> int:
    return sum(len(part.index.promises) for part in ground.parts)


async def conditional(ground: Ground, size: int, told: list[str]) -> None:
    """A PUT of what is not there; of size 0 the deletion of what is."""
    try:
        if size:
            await put(ground, noise(size, 1), condition=ABSENT)
        else:
            await ground.storage.delete_object(OBJECT, condition=Condition(if_match=("*",)))
        told.append("done")
    except (PreconditionFailed, ObjectNotFound):
        told.append("failed")
    except NoQuorum:
        told.append("unknown")


@pytest.mark.parametrize("step", ["stage", "commit"])
@pytest.mark.parametrize("size", [*SIZES, 0])
async def test_a_front_door_that_was_frozen_overwrites_nothing(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock, step: str, size: int
) -> None:
    """Its messages come after its promises were ended, and after something else was written: which is older than its ballot."""
    ground, lines = await make(nursery)
    old, told, gate = door_behind(ground), list[str](), trio.Event()
    if not size:
        await old.put_object(OBJECT, NewObject(), BytesBody(b"to be deleted"))
    for line in lines:
        line.waits[step] = gate
    async with trio.open_nursery() as clients:
        clients.start_soon(conditional, ground, size, told)
        await trio.sleep(0.5)
        assert promises(ground) == 6
        for line in lines:
            line.waits.clear()
        await settle(ground)
        assert promises(ground) == 0
        stored = await old.put_object(OBJECT, NewObject(), BytesBody(b"another"))
        assert stored.meta.timestamp.seconds < ground.world.clock.now() - 900
        gate.set()
    await trio.sleep(5)
    assert await get(ground) == b"another"
    assert told == ["unknown"]


@pytest.mark.parametrize("size", SIZES)
async def test_nothing_is_staged_without_its_promise(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock, size: int
) -> None:
    """However soon that ended: a device's clock may be wrong about a minute, its disk may have been exchanged."""
    ground, lines = await make(nursery)
    old, told, gate = door_behind(ground), list[str](), trio.Event()
    for line in lines:
        line.waits["stage"] = gate
    async with trio.open_nursery() as clients:
        clients.start_soon(conditional, ground, size, told)
        await trio.sleep(0.5)
        for line in lines:
            line.waits.clear()
        for part in ground.parts:
            for path, ballot in part.index.promises.all():
                assert await part.staging.end_promise(path, ballot)
        await old.put_object(OBJECT, NewObject(), BytesBody(b"another"))
        gate.set()
    assert told == ["failed"]
    assert await get(ground) == b"another"


async def test_a_promise_that_is_given_late_counts_for_nothing(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    """Two devices promise after the condition was looked at, and after they took a deletion that it has not seen; two of those that
    had promised before do so no more."""
    ground, lines = await make(nursery)
    old, told, late, gate = door_behind(ground), list[str](), trio.Event(), trio.Event()
    await old.put_object(OBJECT, NewObject(), BytesBody(b"old"))
    for line in lines:
        line.waits["stage"] = gate
    for line in lines[4:]:
        line.waits["promise"] = late

    async def replace_it() -> None:
        try:
            await put(ground, b"new", condition=Condition(if_match=("*",)))
            told.append("done")
        except PreconditionFailed:
            told.append("failed")

    async with trio.open_nursery() as clients:
        clients.start_soon(replace_it)
        await trio.sleep(0.5)
        for line in lines:
            line.waits.pop("stage")
        for line in lines[2:4]:
            part = ground.parts[line.device.id]
            for path, ballot in part.index.promises.all():
                assert await part.staging.end_promise(path, ballot)
        await old.delete_object(OBJECT)
        late.set()
        await trio.sleep(0.1)
        assert promises(ground) == 4
        gate.set()
    assert told == ["failed"]
    with pytest.raises(ObjectNotFound):
        await get(ground)


@pytest.mark.parametrize("size", [*SIZES, 0])
async def test_what_cannot_be_decided_keeps_its_promises(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock, size: int
) -> None:
    """One primary does not answer: it may have shown what the others have only staged.  What is older is not let in meanwhile."""
    ground, lines = await make(nursery)
    old, told, gate = door_behind(ground), list[str](), trio.Event()
    if not size:
        await old.put_object(OBJECT, NewObject(), BytesBody(b"to be deleted"))
    for line in lines:
        line.waits["commit"] = gate
    async with trio.open_nursery() as clients:
        clients.start_soon(conditional, ground, size, told)
        await trio.sleep(0.5)
        lines[2].cut = True
        for line in lines:
            line.waits.clear()
        await settle(ground)
        assert promises(ground) == 6
        stored = await old.put_object(OBJECT, NewObject(), BytesBody(b"another"))
        assert stored.meta.timestamp.seconds > ground.world.clock.now() - 900  # above the ballot
        lines[2].cut = False
        gate.set()
    await trio.sleep(5)
    assert await get(ground) == b"another"
    await settle(ground)
    assert promises(ground) == 0


async def test_a_conditional_write_that_is_given_up_frees_the_key(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    """Too few devices could stage it: nothing of it will be shown, and nobody has to wait for that to be found out."""
    ground, lines = await make(nursery)
    await put(ground, b"old")

    def refuses(name: str) -> None:
        if name == "stage":
            raise Unavailable("it is full")

    for line in lines[:2]:
        line.rule = refuses
    with pytest.raises(NoQuorum, match=r"too few primaries stored it$"):
        await put(ground, b"new", condition=Condition(if_match=("*",)))
    await trio.sleep(1)
    assert promises(ground) == 0
    await ground.storage.post_object(OBJECT, {"x-object-meta-a": "b"})


@pytest.mark.parametrize("size", [*SIZES, 0])
async def test_a_ring_that_comes_into_force_alone_within_a_conditional_write(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock, size: int
) -> None:
    """Published and settled, with other primaries: they have promised nothing, and took something that the write has not seen."""
    ground = await Ground.coded(nursery, SETTINGS, device_count=12, wrap=distant)
    await ground.storage.put_container(CONTAINER, {}, policy=1)
    first, second = (make_ring(12, 6, shift=shift) for shift in (1, 7))
    before, after = Overlap(first, first, Claim(1)), Overlap(second, second, Claim(3))
    gates = [line.node.gate for line in all_lines(ground)]
    for one in gates:
        one.edition = 1
    ground.rings.objects = {**ground.rings.objects, 1: before}
    newer = Rings(ground.rings.account, ground.rings.container, {**ground.rings.objects, 1: after})

    async def renew(claim: Claim) -> bool:
        ground.rings.objects = newer.objects
        return True

    ground.storage.reach.renew = renew
    lines, told, gate = lines_of(ground, OBJECT), list[str](), trio.Event()
    old = door_behind(ground, newer)
    if not size:
        await put(ground, b"to be deleted")
    for line in lines:
        line.waits["stage"] = gate
    async with trio.open_nursery() as clients:
        clients.start_soon(conditional, ground, size, told)
        await trio.sleep(0.5)
        assert promises(ground) == 6
        for line in lines:
            line.waits.clear()
        for one in gates:
            one.edition = 3
        await old.put_object(OBJECT, NewObject(), BytesBody(b"another"))
        gate.set()
    if size:
        assert told == ["failed"]
        assert await get(ground) == b"another"
    else:  # it deletes what it sees now
        assert told == ["done"]
        with pytest.raises(ObjectNotFound):
            await get(ground)
