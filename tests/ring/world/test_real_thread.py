"""A device's I/O thread: order, groups, errors, and tasks that are cancelled while they wait for it."""

from __future__ import annotations

import pathlib
import threading
from collections.abc import Sequence

import pytest
import trio

from ring.world.interface import OpenMode, Write
from ring.world.real import make_world
from ring.world.real.thread import IoThread, Job


class Group:
    def __init__(self) -> None:
        self.sizes: list[int] = []

    def run_group(self, jobs: Sequence[Job]) -> None:
        self.sizes.append(len(jobs))
        for number, job in enumerate(jobs):
            job.result = number
        if len(jobs) == 3:
            raise OSError("the whole group")


async def test_calls_run_in_order_and_errors_are_the_callers() -> None:
    thread = IoThread("test")
    seen: list[int] = []

    async def call(number: int) -> None:
        await thread.call(seen.append, number)

    async with trio.open_nursery() as nursery:
        for number in range(50):
            nursery.start_soon(call, number)
    assert sorted(seen) == list(range(50))
    with pytest.raises(ZeroDivisionError):
        await thread.call(divmod, 1, 0)
    assert await thread.call(divmod, 7, 2) == (3, 1)


async def test_what_waits_together_is_one_group() -> None:
    thread, group, gate = IoThread("test"), Group(), threading.Event()
    outcomes: list[object] = []

    async def submit() -> None:
        try:
            outcomes.append(await thread.submit(Job(group)))
        except OSError as error:
            outcomes.append(str(error))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(thread.call, gate.wait)
        await trio.testing.wait_all_tasks_blocked(0.01)
        for _ in range(3):
            nursery.start_soon(submit)
        await trio.testing.wait_all_tasks_blocked(0.01)
        gate.set()
    assert group.sizes == [3]
    assert outcomes == ["the whole group"] * 3


async def test_a_cancelled_task_waits_for_its_job() -> None:
    thread, gate, done = IoThread("test"), threading.Event(), []
    async with trio.open_nursery() as nursery:

        async def wait() -> None:
            with trio.CancelScope() as scope:
                scope.cancel()
                with trio.CancelScope(shield=True):
                    await thread.call(gate.wait)
                done.append(True)

        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert not done
        gate.set()
    assert done
    with trio.CancelScope() as scope:
        scope.cancel()
        await thread.call(done.append, False)  # not even begun
    assert scope.cancelled_caught
    assert done == [True]


def test_a_world_outlives_a_run(tmp_path: pathlib.Path) -> None:
    world = make_world()

    async def write() -> None:
        disk = world.open_disk(str(tmp_path))
        file = await disk.open("a", OpenMode.CREATE)
        await file.append([b"x"], sync=True)
        await file.close()
        tables = await disk.open_tables("t", ["t"])
        await tables.commit([Write("t", b"k", b"v")])
        await tables.close()

    async def read() -> bytes:
        return await world.open_disk(str(tmp_path)).read_file("a")

    trio.run(write)
    assert trio.run(read) == b"x"


async def test_appends_of_one_batch_share_their_sync_and_their_fate(tmp_path: pathlib.Path) -> None:
    """Sixteen writers: far fewer trips than appends would show in time; here: all offsets are right, all bytes are there."""
    disk = make_world().open_disk(str(tmp_path))
    file = await disk.open("log", OpenMode.CREATE)
    offsets: list[tuple[int, bytes]] = []

    async def append(number: int) -> None:
        for turn in range(20):
            data = b"%d/%d;" % (number, turn)
            offsets.append((await file.append([data], sync=True), data))

    async with trio.open_nursery() as nursery:
        for number in range(16):
            nursery.start_soon(append, number)
    content = (tmp_path / "log").read_bytes()
    assert len(content) == file.size() == sum(len(data) for _, data in offsets)
    assert all(content[offset : offset + len(data)] == data for offset, data in offsets)
    await file.close()
