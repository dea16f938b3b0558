"""Other threads wake the loop, whenever they ring, and do no harm when it is gone."""

from __future__ import annotations

import threading
from functools import partial

import trio

from ring.world.real.doorbell import Doorbell


def test_who_rings_from_other_threads_is_answered() -> None:
    async def main() -> None:
        bell, rung, done = Doorbell.here(), list[int](), trio.Event()

        def called(number: int) -> None:
            rung.append(number)
            if len(rung) == 400:
                done.set()

        def ringing(first: int) -> None:
            for number in range(first, first + 100):
                bell.ring(partial(called, number))

        threads = [threading.Thread(target=ringing, args=(first,)) for first in range(0, 400, 100)]
        for thread in threads:
            thread.start()
        with trio.fail_after(30):
            await done.wait()
        for thread in threads:
            thread.join()
        assert sorted(rung) == list(range(400))
        assert [number for number in rung if number < 100] == list(range(100))  # each one's in order

    trio.run(main)


def test_one_that_rings_while_the_bell_is_answered_is_heard() -> None:
    async def main() -> None:
        bell, done = Doorbell.here(), trio.Event()
        bell.ring(lambda: bell.ring(done.set))
        with trio.fail_after(30):
            await done.wait()

    trio.run(main)


def test_each_run_has_its_own_and_none_is_heard_after_its_end() -> None:
    async def main() -> Doorbell:
        assert Doorbell.here() is Doorbell.here()
        await trio.lowlevel.checkpoint()
        return Doorbell.here()

    first, called = trio.run(main), list[str]()
    second = trio.run(main)
    assert first is not second
    first.ring(lambda: called.append("too late"))
    trio.run(main)
    assert not called
