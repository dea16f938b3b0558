"""What was brought back to a device stays so: over restarts, and when another one is refilled after it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from ring.errors import DiskFault, NewerFormat
from ring.names import Span
from ring.world.sim import SimWorld
from storage.client.filling import Filled, Filler
from storage.client.trust import Trust
from storage.object.device import clear_refill, mark_refill, read_refill
from storage.object.refill import AGAIN_S, Refiller, memory_of
from storage.object.refill_mark import REFILL_PATH, SAVE_S, Memory, RefillMark
from tests.storage.client.ground import HASHER, PART_POWER
from tests.storage.object.object_rig import GOLDEN, path
from tests.storage.object.test_refill import NAMES, Rig, fill, make, run, waits

MARK = RefillMark(
    "its disk was replaced", {"account": (3, frozenset({0, 7})), "object-1": (10, frozenset({9, 1023}))}, frozenset({4})
)


# ---- the file


def test_golden_bytes() -> None:
    assert (GOLDEN / "refill.json").read_bytes() == MARK.encode()
    assert RefillMark.decode(MARK.encode()) == MARK


numbers = st.frozensets(st.integers(0, 300))


@given(st.text(), st.dictionaries(st.text(), st.tuples(st.integers(0, 32), numbers)), st.frozensets(st.integers(0, 99)))
def test_every_mark_is_read_as_it_was_written(
    reason: str, filled: dict[str, tuple[int, frozenset[int]]], others: frozenset[int]
) -> None:
    mark = RefillMark(reason, filled, others)
    assert RefillMark.decode(mark.encode()) == mark


@given(st.integers(0, len(MARK.encode()) - 1), st.integers(1, 255))
def test_a_damaged_mark_knows_of_nothing(at: int, flip: int) -> None:
    data = bytearray(MARK.encode())
    data[at] ^= flip
    try:
        mark = RefillMark.decode(bytes(data))
    except NewerFormat:
        return
    assert mark == MARK or (not mark.filled and not mark.without)


def test_older_and_newer_ones() -> None:
    assert RefillMark.decode(b'{"magic": "ringfort refill", "reason": "its disk was replaced"}\n') == RefillMark(
        "its disk was replaced"
    )
    with pytest.raises(NewerFormat):
        RefillMark.decode(json.dumps({**json.loads(MARK.encode()), "format": 3}).encode())


# ---- what is remembered


async def test_partitions_of_a_ring_that_grows(autojump_clock: MockClock) -> None:
    memory = Memory(SimWorld(1).open_disk("d"), RefillMark("x", {"object": (3, frozenset({5}))}), forget=("object-1",))
    assert memory.has("object", Span(3, 5)) and memory.has("object", Span(4, 10)) and memory.has("object", Span(5, 23))
    assert not memory.has("object", Span(3, 4)) and not memory.has("object", Span(2, 2)) and not memory.has("account", Span(3, 5))
    memory.note("object", Span(4, 3))
    memory.note("object", Span(3, 0))  # of an older ring
    assert memory.has("object", Span(4, 3)) and memory.has("object", Span(4, 11)) and not memory.has("object", Span(4, 0))


async def test_a_new_loss_is_not_written_over(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        rig = Rig(nursery, SimWorld(1))
        await rig.add(0)
        store = rig.engines[0][0]
        await mark_refill(store.device.disk, "the first")
        memory = await memory_of({0: store})
        assert memory is not None
        memory.note("object", Span(4, 3))
        await memory.save()  # too soon
        assert await read_refill(store.device.disk) == RefillMark("the first")
        await trio.sleep(SAVE_S)
        await memory.save()
        assert await read_refill(store.device.disk) == RefillMark("the first", {"object": (4, frozenset({3}))})
        await store.device.lacks("the second")
        memory.note("object", Span(4, 4))
        await trio.sleep(SAVE_S)
        await memory.save()
        assert await read_refill(store.device.disk) == RefillMark("the second")
        nursery.cancel_scope.cancel()


async def test_the_mark_of_a_loss_that_came_meanwhile_stays(autojump_clock: MockClock) -> None:
    """The last partition was brought back while a failed sync took more: cleared then, the next start would have said that it lacks
    nothing."""
    async with trio.open_nursery() as nursery:
        rig = Rig(nursery, SimWorld(1))
        await rig.add(0)
        device = rig.engines[0][0].device
        await mark_refill(device.disk, "the first")
        losses = device.losses
        await device.lost("the second")
        with pytest.raises(DiskFault, match="lost more"):
            await clear_refill(device, losses)
        assert await read_refill(device.disk) == RefillMark("the second")
        nursery.cancel_scope.cancel()


async def test_a_part_that_lost_more_is_refilled_from_the_start(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        rig = Rig(nursery, SimWorld(1))
        await rig.add(0)
        await rig.add(1)
        whole, part = rig.engines[0][0], rig.engines[1][0]
        await mark_refill(part.device.disk, "its tables were damaged")
        assert await memory_of({0: whole, 1: part}) is None
        filled = {"object": (4, frozenset({3})), "object-1": (4, frozenset({3}))}
        await whole.device.disk.replace_file(REFILL_PATH, RefillMark("new", filled).encode())
        memory = await memory_of({0: whole, 1: part})
        assert memory is not None
        assert memory.has("object", Span(4, 3)) and not memory.has("object-1", Span(4, 3))
        nursery.cancel_scope.cancel()


# ---- one after the other


class NoAccounts:
    """Vouches for nothing of one ring."""

    def __init__(self, filler: Filler) -> None:
        self._filler = filler

    async def fill(self, ring: str, part_power: int, partitions: Sequence[int], target: int, edition: int = 0) -> Filled:
        if ring == "account":
            return Filled(0, 0, [], [])
        return await self._filler.fill(ring, part_power, partitions, target, edition)


async def refiller(rig: Rig, number: int, *, accounts: bool = True) -> Refiller:
    """As after a start of the device: what it holds is there, what it was told is not."""

    async def done() -> None:
        rig.cleared += 1

    trust = rig.trusts[number] = Trust(HASHER, refills=True)
    rig.nodes[number].trust = trust
    rig.fillers[number]._trust = trust  # type: ignore[attr-defined]  # a DeviceFiller's
    fillers = rig.filler if accounts else lambda peer: NoAccounts(rig.filler(peer))
    memory = await memory_of({0: rig.engines[number][0]})
    return Refiller(number, trust, lambda: rig.overlaps, fillers, done, memory)


async def replaced(rig: Rig, number: int) -> None:
    await rig.add(number, f"/replaced {number}", refills=True)
    await mark_refill(rig.engines[number][0].device.disk, "its disk was replaced")


async def turns(*refillers: Refiller) -> None:
    for _ in range(4):
        for one in refillers:
            await run(one, units=30)
        await trio.sleep(max(AGAIN_S, SAVE_S))


async def test_one_that_was_refilled_for_the_greater_part_vouches_for_the_next_one(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        rig = await make(nursery)
        await fill(rig)
        await replaced(rig, 0)
        await turns(await refiller(rig, 0, accounts=False))
        assert waits(rig, 0)
        await rig.client(0).head(path(NAMES[1]))
        await replaced(rig, 1)
        first, second = await refiller(rig, 0), await refiller(rig, 1)
        await turns(first, second)
        for number in (0, 1):
            for name in NAMES:
                assert await rig.client(number).head(path(name)) is not None
            assert not rig.trusts[number].vouches("account", Span(PART_POWER, 0))  # what only these two held is gone
        assert first.plan is not None and second.plan is not None
        lacking = first.plan.lacking()
        assert set(lacking) == {1} and {want.ring for want in lacking[1]} == {"account"}
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("third_is_there", [True, False])
async def test_when_a_person_has_decided_the_third_one_is_still_asked(autojump_clock: MockClock, third_is_there: bool) -> None:
    async with trio.open_nursery() as nursery:
        rig = await make(nursery)
        await fill(rig)
        for number in (0, 1):
            await replaced(rig, number)
        await turns(await refiller(rig, 0), await refiller(rig, 1))
        assert waits(rig, 0) and waits(rig, 1)
        disk = rig.engines[0][0].device.disk
        mark = await read_refill(disk)
        assert mark is not None
        await disk.replace_file(REFILL_PATH, replace(mark, without=frozenset({1})).encode())
        if not third_is_there:
            rig.away.add(2)
        await turns(await refiller(rig, 0), await refiller(rig, 1))
        assert waits(rig, 0) is waits(rig, 1) is not third_is_there
        nursery.cancel_scope.cancel()
