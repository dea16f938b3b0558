"""How far a scrub is: told by bytes, begun when it is asked for, and gone on with by another process."""

from __future__ import annotations

import trio
from trio.testing import MockClock

from ring.daemon.log import Log
from ring.daemon.metrics import Registry
from ring.daemon.pacing import Pacing
from ring.daemon.runner import Runner, State
from ring.daemon.worker import Busy, Idle, once
from ring.world.interface import Write
from ring.world.sim import SimWorld
from storage.object.auditor import SAVE_BYTES, STATE_KEY, Auditor
from storage.object.state import STATE
from tests.storage.object.object_rig import noise, path, prepare, put, put_file, serving
from tools.deploy.background import DeviceMemory

BIG = b"block" * 700_000  # 3.5 MB


async def walk(auditor: Auditor) -> list[float]:
    """The fractions at each unit of a pass."""
    fractions = []
    while isinstance(await auditor.work(), Busy):
        fraction = auditor.progress().fraction
        assert fraction is not None
        fractions.append(fraction)
    return fractions


async def test_the_fraction_grows_from_nothing_to_all(autojump_clock: MockClock) -> None:
    world = SimWorld(1)
    await prepare(world, "d1")
    async with serving(world, "d1", segment_bytes_max=200_000) as store:
        for number in range(300):
            await put(store, f"n{number}", number, noise(number, 4000))
        await put_file(store, "big", 1, BIG)
        auditor = Auditor(world, store)
        first = await walk(auditor)  # nobody knows yet how bytes lie
        assert first == sorted(first) and first[0] == 0 and first[-1] > 0.99 and auditor.progress().fraction == 1
        auditor.begin()
        second = await walk(auditor)
        assert second == sorted(second)
        packs = 1_200_000 / (1_200_000 + len(BIG))
        assert any(packs - 0.05 < fraction < packs + 0.05 for fraction in second)  # where packs end and files begin
        assert isinstance(await auditor.work(), Idle)


async def test_a_pass_on_demand_is_begun_once(autojump_clock: MockClock) -> None:
    world = SimWorld(1)
    await prepare(world, "d1")
    async with serving(world, "d1") as store:
        await put(store, "a", 1, b"a")
        auditor = Auditor(world, store)
        await once(auditor)
        rest = await auditor.work()
        assert isinstance(rest, Idle) and not rest.over  # no pass was made
        auditor.begin()
        assert isinstance(await auditor.work(), Busy)
        await once(auditor)
        assert isinstance(await auditor.work(), Idle)


async def test_another_process_goes_on_with_the_pass_and_its_figures(autojump_clock: MockClock) -> None:
    """Killed in the middle: what was read since the place was saved last is read again."""
    world = SimWorld(1)
    await prepare(world, "d1")
    log, lines = Log(lambda line: lines.append(line), world.clock), list[str]()
    async with serving(world, "d1", segment_bytes_max=16 << 20) as store:
        for number in range(40):
            await put(store, f"n{number}", number, noise(number, 250_000))
        for number in range(30):
            await put_file(store, f"big{number}", 1, BIG)
        total = 40 * 250_000 + 30 * len(BIG)
        memory = DeviceMemory(store.device, "object-auditor d1")

        def runner(auditor: Auditor, rate: float) -> Runner:
            return Runner(auditor, Pacing(bytes_per_s=rate), world.clock, log, Registry(), memory=memory)

        with trio.move_on_after(90):
            await runner(Auditor(world, store), 1e6).run()
        again = Auditor(world, store)
        fraction = again.progress().fraction
        assert fraction is not None and fraction > 0.2
        goes_on = runner(again, 1e6)
        with trio.move_on_after(200):
            await goes_on.run()
        state = goes_on.state()
        assert state.state is State.RESTING and state.last is not None
        assert abs(state.last.done_bytes - total) < SAVE_BYTES  # place and figures are saved now and then
        assert state.last.seconds > 100 and state.last.errors == 0 and lines == []
        assert await store.head(path("n7")) is not None


async def test_a_place_that_cannot_be_read_begins_a_new_pass(autojump_clock: MockClock) -> None:
    world = SimWorld(1)
    await prepare(world, "d1")
    async with serving(world, "d1") as store:
        await put(store, "a", 1, b"a")
        await once(Auditor(world, store))
        await store.device.tables.commit([Write(STATE, STATE_KEY, b"\xc1")])
        auditor = Auditor(world, store)
        assert auditor.progress().fraction == 1.0
        assert (await once(auditor)).done_bytes > 0
