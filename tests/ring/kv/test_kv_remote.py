"""RemoteKV and its server: what a lost connection does, and real sockets."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

import pytest
import trio
from hypothesis import example, given
from hypothesis import strategies as st
from trio.testing import MockClock

from ring.errors import FormatError, Unavailable
from ring.kv.interface import Operation, Outcome, Put, Unchanged
from ring.kv.local import LocalStore
from ring.kv.memory import MemoryKV
from ring.kv.remote import RemoteKV
from ring.kv.server import serve
from ring.kv.view import View
from ring.kv.wire import PROTOCOL, Frames, Get, Greeting, OperationRecord, Request, Transact, encode, replies, requests
from ring.world.interface import UnixAddress, World
from ring.world.real import make_world
from ring.world.sim import SimWorld

ADDRESS = UnixAddress("/run/kv")


async def serve_until(
    world: World, kv: MemoryKV, stop: trio.Event, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    async with trio.open_nursery() as nursery:
        await nursery.start(serve, kv, await world.net.listen(ADDRESS))
        task_status.started()
        await stop.wait()
        nursery.cancel_scope.cancel()


async def test_it_connects_when_the_server_comes_and_again_when_it_comes_back(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    world = SimWorld(1)
    store = MemoryKV()
    async with RemoteKV.open(world, ADDRESS) as kv:
        results: list[Outcome] = []

        async def early() -> None:
            results.append(await kv.transact([], [Put("a", b"1")]))

        async with trio.open_nursery() as calls:
            calls.start_soon(early)
            await trio.sleep(3)
            stop = trio.Event()
            await nursery.start(serve_until, world, store, stop)
        assert results == [Outcome(True, 1)]

        view = View(kv, "")
        await nursery.start(view.run)
        async with kv.watch("") as watch:
            stop.set()
            with pytest.raises(Unavailable):
                await watch.next()
        stop = trio.Event()
        await nursery.start(serve_until, world, store, stop)
        entry = await kv.get("a")
        assert entry is not None
        revision = (await kv.transact([], [Put("a", b"2")])).revision
        await view.wait(revision)
        found = view.get("a")
        assert found is not None
        assert found.value == b"2"
    nursery.cancel_scope.cancel()


class HoldingKV(MemoryKV):
    """Does what it is asked, and never says so."""

    async def transact(self, compares: Sequence[Unchanged], operations: Sequence[Operation]) -> Outcome:
        await super().transact(compares, operations)
        return await trio.sleep_forever()


async def test_a_transact_whose_answer_is_lost_is_unavailable(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    world = SimWorld(1)
    store = HoldingKV()
    stop = trio.Event()
    await nursery.start(serve_until, world, store, stop)
    async with RemoteKV.open(world, ADDRESS) as kv:
        async with trio.open_nursery() as calls:

            async def ask() -> None:
                with pytest.raises(Unavailable, match="not known whether"):
                    await kv.transact([], [Put("a", b"1")])

            calls.start_soon(ask)
            await trio.sleep(1)
            stop.set()
        await nursery.start(serve_until, world, store, trio.Event())
        assert await kv.get("a") is not None
    nursery.cancel_scope.cancel()


async def test_nobody_there(autojump_clock: MockClock) -> None:
    async with RemoteKV.open(SimWorld(1), ADDRESS) as kv:
        with pytest.raises(Unavailable, match="did not answer in 30 s: unix:/run/kv"):
            await kv.get("a")


@pytest.mark.parametrize("first", [encode(Greeting(PROTOCOL + 1)), encode(Get(1, "a")), b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 100])
async def test_the_server_closes_on_strangers(autojump_clock: MockClock, nursery: trio.Nursery, first: bytes) -> None:
    world = SimWorld(1)
    await nursery.start(serve_until, world, MemoryKV(), trio.Event())
    stream = await world.net.connect(ADDRESS)
    await stream.send_all(first)
    received = b""
    while data := await stream.receive_some():
        received += data
    assert Frames(replies).receive(received) == [Greeting(PROTOCOL)]
    await stream.aclose()
    nursery.cancel_scope.cancel()


def test_frames_come_whole_however_they_are_cut() -> None:
    messages: list[Request] = [
        Greeting(1),
        Get(1, "ö"),
        Transact(2, [("a", 3)], [OperationRecord("k", b"\0"), OperationRecord("l", None)]),
    ]
    data = b"".join(encode(message) for message in messages)
    for size in (1, 2, 7, len(data)):
        frames = Frames(requests)
        assert [m for start in range(0, len(data), size) for m in frames.receive(data[start : start + size])] == messages
    with pytest.raises(FormatError):
        Frames(requests).receive(b"\xff\xff\xff\xff")


def test_bytes_on_the_wire() -> None:
    assert encode(Greeting(1)).hex() == "0000000e" + "92" + "ab" + b"ringfort-kv".hex() + "01"
    assert encode(Get(7, "ö")).hex() == "00000009" + "93" + "a3" + b"get".hex() + "07" + "a2" + "c3b6"


@given(st.binary(max_size=64))
@example(bytes.fromhex("91af") + bytes(14) + b"\x80")
def test_any_bytes_are_messages_or_a_format_error(data: bytes) -> None:
    frames = Frames(requests)
    with contextlib.suppress(FormatError):
        frames.receive(len(data).to_bytes(4, "big") + data)


async def test_on_this_machine(tmp_path: Path) -> None:
    world = make_world()
    disks = []
    for name in ("d1", "d2", "d3"):
        (tmp_path / name).mkdir()
        disks.append(world.open_disk(str(tmp_path / name)))
    address = UnixAddress(str(tmp_path / "kv.sock"))
    for attempt in range(2):
        async with LocalStore.open(world, disks) as store, trio.open_nursery() as nursery:
            await nursery.start(serve, store, await world.net.listen(address))
            async with RemoteKV.open(world, address) as kv:
                view = View(kv, "a/")
                await nursery.start(view.run)
                outcome = await kv.transact([Unchanged(f"a/{attempt}", 0)], [Put(f"a/{attempt}", b"x" * 100_000)])
                assert outcome == Outcome(True, attempt + 1)
                await view.wait(outcome.revision)
                assert [key for key, _ in view.items()] == [f"a/{i}" for i in range(attempt + 1)]
                async with trio.open_nursery() as many:
                    for _ in range(200):
                        many.start_soon(kv.get, "a/0")
            nursery.cancel_scope.cancel()
    assert (tmp_path / "d2" / "kv" / "control.log").stat().st_mode & 0o777 == 0o600
