"""What every Net promises: TCP and unix sockets of the machine, and the simulated network."""

from __future__ import annotations

import errno
import hashlib
import os
import pathlib
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import pytest
import trio

from ring.world.interface import Address, Listener, OpenMode, Stream, TcpAddress, UnixAddress, World
from ring.world.real import listener_from_socket, make_world, stream_from_socket
from ring.world.sim import SimWorld


@dataclass
class Ground:
    world: World
    address: Address
    folder: str


@pytest.fixture(params=["real-tcp", "real-unix", "real-long-unix", "sim-tcp", "sim-unix"])
def ground(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Ground:
    kind: str = request.param
    world: World = make_world() if kind.startswith("real") else SimWorld(2)
    addresses: dict[str, Address] = {
        "tcp": TcpAddress("127.0.0.1", 0),
        "unix": UnixAddress(str(tmp_path / "s")),
        "long-unix": UnixAddress(str(tmp_path / ("d" * 120) / "socket")),
    }
    (tmp_path / ("d" * 120)).mkdir()
    return Ground(world, addresses[kind.partition("-")[2]], str(tmp_path))


async def pair(ground: Ground) -> tuple[Listener, Stream, Stream]:
    listener = await ground.world.net.listen(ground.address)
    client = await ground.world.net.connect(listener.address)
    return listener, client, await listener.accept()


async def close(*things: Listener | Stream) -> None:
    for thing in things:
        await thing.aclose()


async def receive_all(stream: Stream) -> bytes:
    data = bytearray()
    while piece := await stream.receive_some(10_000):
        assert len(piece) <= 10_000
        data += piece
    return bytes(data)


async def test_bytes_both_ways_and_half_close(ground: Ground) -> None:
    listener, client, server = await pair(ground)
    assert listener.address == ground.address or (isinstance(listener.address, TcpAddress) and listener.address.port > 0)
    data = os.urandom(3_000_000)
    received: dict[str, bytes] = {}

    async def receive(name: str, stream: Stream) -> None:
        received[name] = await receive_all(stream)

    async def send(stream: Stream, what: bytes | bytearray | memoryview) -> None:
        await stream.send_all(what)
        await stream.send_eof()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive, "server", server)
        nursery.start_soon(receive, "client", client)
        nursery.start_soon(send, client, data)
        nursery.start_soon(send, server, memoryview(bytearray(data))[:-1])
    assert received["server"] == data
    assert received["client"] == data[:-1]
    assert await server.receive_some() == b""
    assert await server.receive_some() == b""
    await close(client, server, listener)


async def test_send_file(ground: Ground) -> None:
    disk = ground.world.open_disk(ground.folder)
    await disk.make_dirs("")
    file = await disk.open("body", OpenMode.CREATE)
    data = os.urandom(2_500_000)
    await file.append([data], sync=True)
    listener, client, server = await pair(ground)
    async with trio.open_nursery() as nursery:

        async def send() -> None:
            await server.send_all(b"head")
            await server.send_file(file, 100, 2_000_000)
            await server.send_file(file, 0, 0)
            with pytest.raises(OSError, match="shorter"):
                await server.send_file(file, len(data) - 5, 10)
            await server.send_eof()

        nursery.start_soon(send)
        received = await receive_all(client)
    assert hashlib.md5(received).digest() == hashlib.md5(b"head" + data[100:2_000_100] + data[-5:]).digest()
    await file.close()
    await close(client, server, listener)


async def test_a_closed_stream(ground: Ground) -> None:
    listener, client, server = await pair(ground)
    await client.aclose()
    await client.aclose()
    calls: list[Callable[[], Awaitable[object]]] = [client.receive_some, lambda: client.send_all(b"x"), client.send_eof]
    for call in calls:
        with pytest.raises(trio.ClosedResourceError):
            await call()
    assert await server.receive_some() == b""
    with pytest.raises(trio.BrokenResourceError):
        for _ in range(100):
            await server.send_all(b"x" * 100_000)
    await close(server, listener)


async def test_closing_wakes_who_waits(ground: Ground) -> None:
    listener, client, server = await pair(ground)
    woken = []

    async def wait(name: str, call: Callable[[], Awaitable[object]]) -> None:
        with pytest.raises(trio.ClosedResourceError):
            await call()
        woken.append(name)

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait, "receive", client.receive_some)
            nursery.start_soon(wait, "send", lambda: client.send_all(bytes(50_000_000)))
            nursery.start_soon(wait, "accept", listener.accept)
            await trio.sleep(0.05)
            await close(client, listener)
    assert sorted(woken) == ["accept", "receive", "send"]
    await server.aclose()


async def test_waiting_can_be_cancelled(ground: Ground) -> None:
    listener, client, server = await pair(ground)
    for call in (client.receive_some, listener.accept, lambda: client.send_all(bytes(50_000_000))):
        with trio.move_on_after(0.02) as scope:
            await call()
        assert scope.cancelled_caught
    await close(client, server, listener)


async def test_nobody_listens(ground: Ground) -> None:
    listener, client, server = await pair(ground)
    await close(client, server, listener)
    with pytest.raises(OSError) as caught:
        await ground.world.net.connect(listener.address)
    assert caught.value.errno in (errno.ECONNREFUSED, errno.ENOENT)


async def test_an_address_is_taken_once_and_free_after_close(ground: Ground) -> None:
    listener = await ground.world.net.listen(ground.address)
    with pytest.raises(OSError) as caught:
        await ground.world.net.listen(listener.address)
    assert caught.value.errno == errno.EADDRINUSE
    await listener.aclose()
    again = await ground.world.net.listen(listener.address)
    await again.aclose()


async def test_a_busy_stream_lets_others_run(ground: Ground) -> None:
    listener, client, server = await pair(ground)
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(other)
        for _ in range(200):
            await client.send_all(b"x")
        nursery.cancel_scope.cancel()
    assert turns > 3
    await close(client, server, listener)


async def test_many_clients(ground: Ground) -> None:
    listener = await ground.world.net.listen(ground.address)
    answers = []

    async def serve() -> None:
        while True:
            nursery.start_soon(echo, await listener.accept())

    async def echo(stream: Stream) -> None:
        await stream.send_all(await receive_all(stream))
        await stream.aclose()

    async def ask(number: int) -> None:
        stream = await ground.world.net.connect(listener.address)
        await stream.send_all(b"%d" % number)
        await stream.send_eof()
        answers.append(int(await receive_all(stream)))
        await stream.aclose()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        async with trio.open_nursery() as clients:
            for number in range(50):
                clients.start_soon(ask, number)
        nursery.cancel_scope.cancel()
    assert sorted(answers) == list(range(50))
    await listener.aclose()


# ---- what only the real one can show


async def test_two_senders_are_a_bug(tmp_path: pathlib.Path) -> None:
    listener, client, server = await pair(Ground(make_world(), TcpAddress("127.0.0.1", 0), str(tmp_path)))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.send_all, bytes(50_000_000))
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await client.send_all(b"x")
        nursery.cancel_scope.cancel()
    await close(client, server, listener)


async def test_a_stale_socket_file_is_replaced_and_a_plain_file_is_not(tmp_path: pathlib.Path) -> None:
    world = make_world()
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    listener = await world.net.listen(UnixAddress(str(path)))
    stream = await world.net.connect(UnixAddress(str(path)))
    await close(stream, listener)
    assert not path.exists()
    path.write_text("mine")
    with pytest.raises(OSError, match="in use"):
        await world.net.listen(UnixAddress(str(path)))
    assert path.read_text() == "mine"


async def test_sockets_are_adopted_and_handed_on(tmp_path: pathlib.Path) -> None:
    world = make_world()
    listening = socket.create_server(("127.0.0.1", 0))
    listener = listener_from_socket(listening)
    assert isinstance(listener.address, TcpAddress)
    client = await world.net.connect(listener.address)
    server = await listener.accept()
    assert server.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)  # type: ignore[attr-defined]
    other = stream_from_socket(server.socket.dup())  # type: ignore[attr-defined]
    await other.send_all(b"handed on")
    assert await client.receive_some() == b"handed on"
    await close(client, server, other, listener)


async def test_a_name_is_resolved() -> None:
    world = make_world()
    listener = await world.net.listen(TcpAddress("127.0.0.1", 0))
    assert isinstance(listener.address, TcpAddress)
    stream = await world.net.connect(TcpAddress("localhost", listener.address.port))
    await close(stream, listener)
