"""A device's I/O thread: order, groups, errors, and tasks that are cancelled while they wait for it."""

from __future__ import annotations

import errno
import os
import pathlib
import threading
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

import pytest
import trio

from ring.world.interface import OpenMode, Write
from ring.world.real import make_world
from ring.world.real.file import PageCacheReader, RealFile
from ring.world.real.thread import IoThread, Job
from ring.world.real.watchdog import Watchdog


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


def test_what_comes_when_its_run_is_over_holds_up_no_later_one() -> None:
    thread, gate = IoThread("test"), threading.Event()

    async def first() -> None:
        with trio.move_on_after(0.01):
            await thread.read(gate.wait)

    async def second() -> None:
        with trio.fail_after(5):
            assert await thread.call(lambda: 1) == 1

    trio.run(first)
    gate.set()
    while not thread._signalled:  # its result is told to the first run
        pass
    trio.run(second)


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


# ---- a disk that does not answer


class Hanging:
    """An I/O thread whose call does not come back before the gate is open, and all that is asked of it meanwhile."""

    def __init__(self) -> None:
        self.thread = IoThread("test", hung_s=0.02, watchdog=Watchdog(0.01))
        self.gate = threading.Event()
        self.done: list[str] = []

    def hang(self, name: str = "hung") -> str:
        self.gate.wait()
        self.done.append(name)
        return name


async def unanswered(call: Awaitable[object]) -> None:
    with pytest.raises(OSError) as caught:
        await call
    assert caught.value.errno == errno.ETIMEDOUT


async def answering(thread: IoThread) -> None:
    """Until it is again."""
    while True:
        with suppress(OSError):
            return await thread.call(lambda: None)
        await trio.lowlevel.checkpoint()


async def test_a_disk_that_does_not_answer_fails_all_that_wait_and_all_that_come() -> None:
    hanging = Hanging()
    thread, done = hanging.thread, hanging.done
    async with trio.open_nursery() as nursery:
        nursery.start_soon(unanswered, thread.call(hanging.hang))
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(unanswered, thread.call(done.append, "waited"))
        nursery.start_soon(unanswered, thread.submit(Job(Group())))
        nursery.start_soon(thread.finish, done.append, "put in order")  # not waited for
    await unanswered(thread.call(done.append, "came"))
    await thread.finish(done.append, "put in order, too")
    assert done == []
    hanging.gate.set()
    await answering(thread)
    assert done == ["hung", "put in order", "put in order, too"]


async def test_what_comes_too_late_is_taken_back() -> None:
    hanging, undone = Hanging(), trio.Event()
    token = trio.lowlevel.current_trio_token()

    def undo(name: object) -> None:
        hanging.done.append(f"{name} undone")
        token.run_sync_soon(undone.set)

    await unanswered(hanging.thread.take(hanging.hang, undo=undo))
    hanging.gate.set()
    await undone.wait()
    await answering(hanging.thread)
    assert hanging.done == ["hung", "hung undone"]
    assert await hanging.thread.take(str, 1, undo=undo) == "1"
    assert hanging.done == ["hung", "hung undone"]


async def test_who_reads_does_not_wait_and_who_writes_does() -> None:
    hanging = Hanging()
    thread = IoThread("test", hung_s=1e6)
    ended = []

    async def ask(ask: Callable[..., Awaitable[object]], name: str) -> None:
        try:
            await ask(hanging.hang, name)
        finally:
            ended.append(name)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask, thread.call, "write")
        await trio.testing.wait_all_tasks_blocked(0.01)
        nursery.start_soon(ask, thread.read, "read")
        await trio.testing.wait_all_tasks_blocked(0.01)
        nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            await trio.testing.wait_all_tasks_blocked(0.01)
        assert ended == ["read"]
        hanging.gate.set()
    assert hanging.done == ["write"]  # nobody wanted to read any more


async def test_a_file_that_cannot_be_closed_now_is_closed_later(tmp_path: pathlib.Path) -> None:
    hanging = Hanging()
    descriptor = os.open(tmp_path / "f", os.O_CREAT | os.O_RDWR)
    file = RealFile(hanging.thread, PageCacheReader(), descriptor)
    await unanswered(hanging.thread.call(hanging.hang))
    await file.close()
    assert file.fileno() == descriptor  # whatever hangs there must not come to another file
    hanging.gate.set()
    await answering(hanging.thread)
    with pytest.raises(trio.ClosedResourceError):
        file.fileno()
