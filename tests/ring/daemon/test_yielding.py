"""The controller of background work on a played machine: clients in a closed loop, and work that is in their way as it goes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio
import trio.testing

from ring.daemon.pacing import Pacing
from ring.daemon.yielding import ABSENT_S, BLIND, LOOK_EVERY_S, LOOK_S, TICK_S, Yielding, watched
from ring.wire.message import BytesBody, Headers, Request, Response

Clock = trio.testing.MockClock


def play(
    yielding: Yielding, seconds: float, request_s: Callable[[float], float] | None, *, begin: float = 0.0, clients: int = 4
) -> list[float]:
    """The speed at each tick.  ``request_s`` gives a request's time at a speed; None: no clients."""
    speeds = []
    for step in range(int(seconds / TICK_S)):
        now = begin + step * TICK_S
        if request_s is not None:
            each_s = request_s(yielding.speed)
            for _ in range(int(clients * TICK_S / each_s)):
                yielding.began(now)
                yielding.ended(now + each_s, "GET", each_s)
        yielding.tick(now + TICK_S)
        speeds.append(yielding.speed)
    return speeds


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def test_without_clients_work_goes_at_full_speed() -> None:
    assert set(play(Yielding(), 100, None)) == {1.0}


def test_clients_that_are_not_slowed_leave_it_nearly_full_speed() -> None:
    speeds = play(Yielding(floor=0.1), 600, lambda speed: 0.005)
    assert speeds[0] == 0.1  # when they come
    assert max(speeds[:20]) > 0.9
    assert mean(speeds) > 0.85


def test_clients_that_are_slowed_are_so_by_about_the_target() -> None:
    """At full speed a request takes three times as long as with none."""

    def request_s(speed: float) -> float:
        return 0.005 * (1 + 2 * speed)

    speeds = play(Yielding(floor=0.05, target=0.5), 600, request_s)
    settled = speeds[100:]
    times = [request_s(speed) for speed in settled]
    assert mean(times) < 0.005 * 1.7
    assert 0.1 < mean(settled) < 0.4  # not starved either
    assert min(settled) >= 0.05


def test_clients_that_fill_the_machine_by_themselves_push_it_to_its_floor_and_no_further() -> None:
    yielding = Yielding(floor=0.1)
    play(yielding, 60, lambda speed: 0.005)  # what they take at best
    speeds = play(yielding, 120, lambda speed: 0.05, begin=60)
    assert mean(speeds[20:]) < 0.12 and min(speeds) == 0.1


def test_when_they_go_it_comes_back() -> None:
    yielding = Yielding()
    play(yielding, 60, lambda speed: 0.005 * (1 + 20 * speed))
    assert yielding.speed < 0.3
    speeds = play(yielding, ABSENT_S + 8, None, begin=60)
    assert speeds[-1] == 1.0


def test_work_that_was_always_there_is_seen_all_the_same() -> None:
    """Clients come while it runs at full speed: it looks at the floor first, then and once a minute."""
    yielding = Yielding(floor=0.1)
    play(yielding, 60, None)
    speeds = play(yielding, 3 * LOOK_EVERY_S, lambda speed: 0.005, begin=60)
    looks = sum(one == 0.1 and before > 0.1 for before, one in zip([1.0, *speeds], speeds, strict=False))
    assert looks in (2, 3, 4) and speeds.count(0.1) <= (looks + 1) * LOOK_S / TICK_S


def test_while_only_large_bodies_are_there_it_goes_at_a_middling_pace() -> None:
    yielding = Yielding()
    yielding.began(0.0)
    for tick in range(60):
        yielding.tick(tick * TICK_S)
    assert yielding.speed == pytest.approx(BLIND)
    yielding.ended(30.0)
    assert yielding.in_flight == 0


def test_what_requests_take_at_best_is_forgotten_after_a_while() -> None:
    """The machine, or what clients ask, has changed: what they take now is what they take."""
    yielding = Yielding()
    play(yielding, 60, lambda speed: 0.005)
    speeds = play(yielding, 1500, lambda speed: 0.02, begin=60)
    assert max(speeds[:600]) < 0.5 and mean(speeds[-600:]) > 0.8


def test_paces_at_a_speed() -> None:
    """Limits are that part of themselves; what has none works in that part of its time."""
    limited = Pacing(items_per_s=10)
    now, done = 0.0, 0
    while now < 100:
        limited.spend(1, 0, 0.0, now, 0.5)
        done += 1
        now += limited.wait_s(now, 0.5)
    assert done == pytest.approx(10 + 500, abs=2)
    free, now, worked = Pacing(), 0.0, 0.0
    while now < 100:
        now, worked = now + 0.2, worked + 0.2
        free.spend(1, 1, 0.2, now, 0.25)
        now += free.wait_s(now, 0.25)
    assert worked == pytest.approx(25, abs=0.5)
    full = Pacing()
    full.spend(1, 1, 7.0, 7.0)
    assert full.wait_s(7.0) == 0
    full.spend(1, 1, 1.0, 8.0, 0.1)
    assert full.wait_s(8.0, 0.1) == pytest.approx(9.0)
    assert full.wait_s(8.0, 1.0) == pytest.approx(0.9)  # clients went


async def test_a_handler_that_is_watched(autojump_clock: Clock) -> None:
    yielding = Yielding()

    async def handler(request: Request) -> Response:
        assert yielding.in_flight == 1
        await trio.sleep(2)
        if request.target == "/bug":
            raise ZeroDivisionError
        return Response(200)

    handle = watched(handler, yielding)
    for method, headers, target, timed in [
        ("GET", {}, "/", True),
        ("PUT", {"content-length": "4096"}, "/", True),
        ("POST", {"content-length": str(1 << 20)}, "/", False),
        ("PUT", {"transfer-encoding": "chunked"}, "/", False),
        ("PUT", {"content-length": "x"}, "/", False),
        ("DELETE", {}, "/bug", False),
    ]:
        before = {kind: known.count for kind, known in yielding._kinds.items()}
        try:
            await handle(Request(method, target, Headers(list(headers.items())), BytesBody()))
        except ZeroDivisionError:
            assert target == "/bug"
        assert yielding.in_flight == 0
        after = {kind: known.count for kind, known in yielding._kinds.items()}
        assert (sum(after.values()) - sum(before.values()) == 1) is timed
    assert yielding._kinds["PUT"].total_s == 2
