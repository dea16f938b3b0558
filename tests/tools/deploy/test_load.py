"""One speed for all processes of a machine."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio.testing

from ring.daemon.metrics import Registry
from ring.daemon.yielding import Yielding
from tools.deploy.load import STALE_S, SharedSpeed


def test_all_go_at_the_speed_of_the_one_whose_clients_need_most(tmp_path: Path) -> None:
    one, two, three = (SharedSpeed(tmp_path / "speed", number, Yielding()) for number in range(3))
    for shared in (one, two, three):
        shared.exchange(100.0)
    assert one.speed() == 1.0
    two.yielding.speed = 0.2
    assert two.speed() == 0.2  # its own at once
    two.exchange(100.5)
    for shared in (one, three):
        shared.exchange(100.6)
        assert shared.speed() == 0.2
    one.exchange(100.5 + STALE_S)
    assert one.speed() == 0.2
    one.exchange(100.6 + STALE_S)  # that process hangs, or is gone
    assert one.speed() == 1.0
    again = SharedSpeed(tmp_path / "speed", 1, Yielding())  # it was started again
    again.exchange(200.0)
    assert again.speed() == 1.0
    for shared in (one, two, three, again):
        shared.close()


def test_what_an_earlier_boot_left_does_not_count(tmp_path: Path) -> None:
    old = SharedSpeed(tmp_path / "speed", 1, Yielding())
    old.yielding.speed = 0.1
    old.exchange(1e6)
    old.close()
    new = SharedSpeed(tmp_path / "speed", 0, Yielding())
    new.exchange(10.0)
    assert new.speed() == 1.0
    new.close()


async def test_it_ticks_and_shows_itself(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    registry = Registry()
    shared = SharedSpeed(tmp_path / "speed", 0, Yielding(floor=0.25))
    shared.show(registry)
    shared.yielding.began(trio.current_time())
    text = registry.render()
    assert 'ringfort_background_speed{worker="0"} 0.25\n' in text and "ringfort_client_requests_in_flight 1\n" in text
    shared.yielding.ended(trio.current_time())
    with trio.move_on_after(60):
        await shared.run()
    assert shared.speed() == pytest.approx(1.0)
    shared.close()
