"""A Worker at work: its passes counted, kept over restarts and shown, and how it is woken.  The clock is virtual."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from ring.daemon.log import Log
from ring.daemon.metrics import Registry
from ring.daemon.pacing import Pacing
from ring.daemon.runner import SAVE_S, Roster, Runner, State
from ring.daemon.tally import Pass, Rate, Tally
from ring.daemon.worker import Busy, Idle, Progress, walked
from ring.errors import DiskFault, FormatError, NotFound, Unavailable

Clock = trio.testing.MockClock


class Wall:
    """A wall clock that began at 1,000 s."""

    def now(self) -> float:
        return 1000.0 + trio.current_time()


class Walk:
    """A pass of ``units``, each of one second and 10 bytes; then a rest.  Keeps its place in ``kept``, as an auditor does."""

    def __init__(self, units: int, *, kept: list[int] | None = None, rest_s: float = 1000.0, name: str = "walk d1") -> None:
        self.name = name
        self.units = units
        self.rest_s = rest_s
        self.kept = kept if kept is not None else [0]
        self.errors: list[Exception] = []
        self.began = 0

    def progress(self) -> Progress:
        return Progress(self.kept[0] / self.units, facts={"began": self.began})

    def begin(self) -> None:
        self.began += 1

    async def work(self) -> Busy | Idle:
        await trio.sleep(1)
        if self.errors:
            raise self.errors.pop()
        if self.kept[0] == self.units:
            self.kept[0] = 0
            return Idle.after(self.rest_s)
        self.kept[0] += 1
        return Busy(2, 10)


class Kept:
    """A Memory."""

    def __init__(self) -> None:
        self.data: bytes | None = None
        self.saves = 0

    def load(self) -> bytes | None:
        return self.data

    async def save(self, data: bytes) -> None:
        self.data = data
        self.saves += 1


def runner(worker: Walk, registry: Registry | None = None, **more: object) -> Runner:
    lines: list[str] = []
    return Runner(worker, Pacing(), Wall(), Log(lines.append, Wall()), registry or Registry(), **more)  # type: ignore[arg-type]


async def test_a_pass_is_counted_while_it_goes_and_when_it_has_ended(autojump_clock: Clock) -> None:
    walk = Walk(10)
    one = runner(walk)
    assert one.state().state is State.RESTING and one.state().last is None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.run)
        await trio.sleep(4.5)
        state = one.state()
        assert state.state is State.WORKING and state.progress.fraction == 0.4
        assert state.current == Pass(1000.0, 4.5, 8, 40) and state.passes == 0
        assert state.units_per_s == pytest.approx(2, rel=0.2) and state.bytes_per_s == pytest.approx(10, rel=0.2)
        assert state.eta_s == pytest.approx(6, rel=0.4)
        await trio.sleep(7)
        state = one.state()
        assert state.state is State.RESTING and state.current is None and state.eta_s is None
        assert state.last == Pass(1000.0, 11, 20, 100) and state.passes == 1
        assert state.next_in_s == pytest.approx(999.5)
        nursery.cancel_scope.cancel()


async def test_errors_belong_to_the_pass_and_the_last_one_is_told(autojump_clock: Clock) -> None:
    walk = Walk(3)
    walk.errors = [Unavailable("away"), DiskFault("EIO")]
    one = runner(walk)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.run)
        await trio.sleep(1.5)
        assert one.state().state is State.FAILING and one.state().error == "DiskFault: EIO"
        one.wake()  # also from the wait after an error
        await trio.sleep(1.2)
        assert one.state().error == "Unavailable: away"
        await trio.sleep(10)
        state = one.state()
        assert state.last is not None and (state.last.errors, state.last.units) == (2, 6)
        assert state.error == "Unavailable: away"  # of that pass
        one.begin()
        await trio.sleep(10)
        assert one.state().error == "" and one.state().passes == 2
        nursery.cancel_scope.cancel()


async def test_a_rest_ends_when_it_is_woken_and_what_comes_during_a_unit_is_not_lost(autojump_clock: Clock) -> None:
    walk = Walk(1, rest_s=1000)
    one = runner(walk)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.run)
        await trio.sleep(1.5)
        one.wake()  # in the unit that ends the pass
        await trio.sleep(2)
        assert one.state().passes == 1 and walk.kept == [1]  # a second pass is under way
        await trio.sleep(10)
        assert one.state().passes == 2
        assert one.state().state is State.RESTING
        one.begin()
        await trio.sleep(10)
        assert (one.state().passes, walk.began) == (3, 1)
        nursery.cancel_scope.cancel()


async def test_waiting_for_a_pass_to_begin_is_none(autojump_clock: Clock) -> None:
    class NotYet(Walk):
        async def work(self) -> Busy | Idle:
            return Idle.after(5, over=False)

    one = runner(NotYet(1))
    with trio.move_on_after(60):
        await one.run()
    assert one.state().passes == 0 and one.state().current is None and one.state().last is None


async def test_what_a_long_pass_has_come_to_survives_a_restart(autojump_clock: Clock) -> None:
    kept, memory = [0], Kept()
    units = int(SAVE_S * 3)
    with trio.move_on_after(SAVE_S + 20.5):
        await runner(Walk(units, kept=kept), memory=memory).run()
    assert memory.saves == 1
    await trio.sleep(500)  # nobody runs it
    again = runner(Walk(units, kept=kept), memory=memory)
    with trio.move_on_after(10.5):
        await again.run()
    current = again.state().current
    assert current is not None and current.began_at == 1000.0
    assert current.units == 2 * (SAVE_S + 10) and current.seconds == pytest.approx(SAVE_S + 10.5)
    with trio.move_on_after(units):
        await again.run()
    last = again.state().last
    assert last is not None and last.began_at == 1000.0 and memory.saves >= 3
    assert runner(Walk(units, kept=[0]), memory=memory).state().last is None  # before it runs
    third = runner(Walk(5), memory=memory)
    with trio.move_on_after(0.5):
        await third.run()
    assert third.state().last == last
    assert third.state().current == Pass(third.state().current.began_at, 0.5)  # type: ignore[union-attr]


async def test_short_passes_are_not_saved(autojump_clock: Clock) -> None:
    memory = Kept()
    with trio.move_on_after(2000):
        await runner(Walk(5, rest_s=1), memory=memory).run()
    assert memory.saves == 0


async def test_figures_that_cannot_be_read_are_forgotten(autojump_clock: Clock) -> None:
    memory = Kept()
    memory.data = b"\xc1"
    one = runner(Walk(5), memory=memory)
    with trio.move_on_after(20):
        await one.run()
    assert one.state().passes == 1
    with pytest.raises(FormatError):
        Tally(0.0).restore(b"\xc1", 0.0, resumed=True)


async def test_metrics_show_a_worker_while_it_runs(autojump_clock: Clock) -> None:
    registry = Registry()
    one = runner(Walk(4), registry)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.run)
        await trio.sleep(2.5)
        text = registry.render()
        assert 'ringfort_worker_pass_ratio{worker="walk d1"} 0.5\n' in text
        assert 'ringfort_worker_facts{worker="walk d1",what="began"} 0\n' in text
        assert "ringfort_worker_last_pass_seconds{" not in text  # not known yet
        await trio.sleep(10)
        text = registry.render()
        assert 'ringfort_worker_last_pass_seconds{worker="walk d1"} 5\n' in text
        assert 'ringfort_worker_last_pass_end_timestamp_seconds{worker="walk d1"} 1005\n' in text
        nursery.cancel_scope.cancel()
    assert "walk d1" not in "".join(line for line in registry.render().splitlines() if "_total" not in line)


async def test_a_roster_knows_those_that_run(autojump_clock: Clock) -> None:
    roster = Roster()
    walks = [Walk(1, name="walk d1"), Walk(1, name="walk d2"), Walk(1, name="other d1")]
    async with trio.open_nursery() as nursery:
        for walk in walks:
            nursery.start_soon(roster.run, runner(walk))
        await trio.sleep(10)
        assert [state.name for state in roster.states()] == ["other d1", "walk d1", "walk d2"]
        assert [state.passes for state in roster.states()] == [1, 1, 1]
        roster.wake("walk")
        await trio.sleep(10)
        assert [state.passes for state in roster.states()] == [1, 2, 2]
        roster.find("other d1").begin()
        await trio.sleep(10)
        assert [state.passes for state in roster.states()] == [2, 2, 2]
        with pytest.raises(NotFound) as caught:
            roster.find("nobody d1")
        assert caught.value.hint == "there are other, walk"
        nursery.cancel_scope.cancel()
    assert roster.states() == []


def test_rates_are_of_the_last_minute() -> None:
    rate = Rate()
    for second in range(1000):
        rate.add(5, float(second))
    assert rate.per_s(1000) == pytest.approx(5, rel=0.02)
    assert rate.per_s(1300) < 0.05
    assert Rate().per_s(0) == 0


def test_a_tally_without_a_fraction_goes_by_what_is_left() -> None:
    tally = Tally(0)
    tally.begin(0, 0)
    assert tally.eta_s(Progress(left=10), 0) is None  # nothing is known of its speed
    for second in range(1, 31):
        tally.done(2, 0, None, float(second))
    assert tally.eta_s(Progress(left=20), 30) == pytest.approx(10, rel=0.1)
    assert tally.eta_s(Progress(), 30) is None
    assert tally.eta_s(Progress(fraction=1.0), 30) == 0


def test_how_far_a_walk_through_hashes_is() -> None:
    assert [walked(start) for start in (b"", b"\x40", b"\x80\0\0\0", None)] == [0, 0.25, 0.5, 1]
