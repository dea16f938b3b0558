"""Conversations of the client with servers that follow a script, over the simulated network and clock."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
import trio

from ring.errors import RingfortError, Unavailable
from ring.wire.client import Client
from ring.wire.encode import UnsafeHead
from ring.wire.message import BodyBroken, Headers, Request, Response
from ring.wire.server import serve
from ring.world.interface import Address, Stream, TcpAddress
from ring.world.sim import SimWorld

Clock = trio.testing.MockClock


@dataclass
class Peer:
    """A server that plays one script per connection: text is sent, "?" waits for a request's bytes, a number waits."""

    world: SimWorld
    address: Address
    got: list[bytes] = field(default_factory=list)  # by connection


@asynccontextmanager
async def scripted(*scripts: Sequence[str | float]) -> AsyncIterator[Peer]:
    world = SimWorld(3)
    listener = await world.net.listen(TcpAddress("127.0.0.1", 0))
    peer = Peer(world, listener.address)

    async def play(stream: Stream, script: Sequence[str | float], number: int) -> None:
        for step in script:
            if step == "?":
                peer.got[number] += await stream.receive_some()
            elif isinstance(step, str):
                await stream.send_all(step.encode("latin-1"))
            else:
                await trio.sleep(step)
        await stream.aclose()

    async def accept(nursery: trio.Nursery) -> None:
        for number, script in enumerate(scripts):
            stream = await listener.accept()
            peer.got.append(b"")
            nursery.start_soon(play, stream, script, number)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(accept, nursery)
        yield peer
        nursery.cancel_scope.cancel()


OK = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


async def test_a_call(autojump_clock: Clock) -> None:
    async with scripted(
        ["?", OK, "?", "HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\nX-A: b\r\n\r\n2\r\nab\r\n0\r\n\r\n", 9.0]
    ) as peer:
        client = Client(peer.world.net)
        reply = await client.call(peer.address, "GET", "/a", [("x-q", "1")])
        assert (reply.status, reply.body) == (200, b"ok")
        reply = await client.call(peer.address, "POST", "/b", body=b"body", host="me")
        assert (reply.status, reply.body, reply.headers.get("x-a")) == (201, b"ab", "b")
        assert peer.got == [
            f"GET /a HTTP/1.1\r\nHost: {peer.address}\r\nX-Q: 1\r\n\r\n".encode()
            + b"POST /b HTTP/1.1\r\nHost: me\r\nContent-Length: 4\r\n\r\nbody"
        ]
        await client.aclose()


@pytest.mark.parametrize(
    ("method", "answer", "expected"),
    [
        ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n", (200, b"")),
        ("GET", "HTTP/1.1 204 No Content\r\n\r\n", (204, b"")),
        ("GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", (304, b"")),
        (
            "PUT",
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx",
            (200, b"x"),
        ),
        ("GET", "HTTP/1.1 200 OK\r\n\r\nto the end", (200, b"to the end")),
        ("GET", "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", (200, b"ok")),
        ("GET", "HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok", (200, b"ok")),
        ("GET", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nok", None),
        ("GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab", None),
        ("GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\nab", None),
        ("GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n0\r\n\r\n", None),
        ("GET", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok", None),
        ("GET", "HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", None),
        ("GET", "HTTP/1.1 200 OK\r\nContent-Le", None),
        ("GET", "HTTP/2.0 200 OK\r\n\r\n", None),
        ("GET", "SSH-2.0-OpenSSH\r\n\r\n", None),
        ("GET", "", None),
        ("GET", "HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n", None),
    ],
)
async def test_answers(autojump_clock: Clock, method: str, answer: str, expected: tuple[int, bytes] | None) -> None:
    async with scripted(["?", answer]) as peer:
        client = Client(peer.world.net)
        if expected is None:
            with pytest.raises(Unavailable):
                await client.call(peer.address, method, "/", body_bytes_max=1000)
        else:
            reply = await client.call(peer.address, method, "/")
            assert (reply.status, reply.body) == expected


@pytest.mark.parametrize(
    ("method", "repeatable", "again"),
    [
        ("GET", None, True),
        ("PUT", None, True),
        ("DELETE", None, True),
        ("POST", None, False),
        ("POST", True, True),
        ("GET", False, False),
    ],
)
async def test_a_stale_connection_is_replaced_once(
    autojump_clock: Clock, method: str, repeatable: bool | None, again: bool
) -> None:
    async with scripted(["?", OK], ["?", OK, 9.0]) as peer:
        client = Client(peer.world.net)
        await client.call(peer.address, "GET", "/first")
        await trio.sleep(1)
        if again:
            assert (await client.call(peer.address, method, "/", repeatable=repeatable)).body == b"ok"
        else:
            with pytest.raises(Unavailable):
                await client.call(peer.address, method, "/", repeatable=repeatable)


async def test_nothing_is_repeated_on_a_fresh_connection_or_after_part_of_an_answer(autojump_clock: Clock) -> None:
    async with scripted(["?"], ["?", OK, "?", "HTTP/1.1 2"], ["?", OK]) as peer:
        client = Client(peer.world.net)
        with pytest.raises(Unavailable):
            await client.call(peer.address, "GET", "/1")
        await client.call(peer.address, "GET", "/2")
        with pytest.raises(Unavailable):
            await client.call(peer.address, "GET", "/3")
        assert len(peer.got) == 2


async def test_unasked_bytes_end_a_connection(autojump_clock: Clock) -> None:
    async with scripted(["?", OK + OK, 60.0], ["?", OK, 60.0]) as peer:
        client = Client(peer.world.net)
        await client.call(peer.address, "GET", "/1")
        await client.call(peer.address, "GET", "/2")
        assert [got.split()[1] for got in peer.got] == [b"/1", b"/2"]


@pytest.mark.parametrize("script", [["?", 100.0], ["?", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no", 100.0]])
async def test_silence_is_unavailable(autojump_clock: Clock, script: list[str | float]) -> None:
    async with scripted(script) as peer:
        begun = trio.current_time()
        with pytest.raises(Unavailable, match="within 3 s"):
            await Client(peer.world.net).call(peer.address, "GET", "/", reply_s=3)
        assert trio.current_time() - begun == pytest.approx(3, abs=0.1)


async def test_no_connection_is_unavailable(autojump_clock: Clock) -> None:
    world = SimWorld(3)

    async def never(address: Address) -> Stream:
        await trio.sleep_forever()
        raise AssertionError

    with pytest.raises(Unavailable, match="cannot be reached"):
        await Client(world.net).call(TcpAddress("127.0.0.1", 1), "GET", "/")
    with pytest.raises(Unavailable, match="within 2 s"):
        await Client(world.net, dial=never).call(TcpAddress("127.0.0.1", 1), "GET", "/", connect_s=2)


async def test_unsafe_requests_are_not_sent(autojump_clock: Clock) -> None:
    client = Client(SimWorld(3).net)
    for method, target, name, value in [
        ("GET", "/a b", "x", "y"),
        ("GET", "/\r\nX: y", "x", "y"),
        ("GE T", "/", "x", "y"),
        ("GET", "/", "x\r\n", "y"),
        ("GET", "/", "x", "y\r\nz: 1"),
    ]:
        with pytest.raises(UnsafeHead):
            await client.call(TcpAddress("h", 1), method, target, [(name, value)])


# ---- streamed, against the real server


@asynccontextmanager
async def served(handler: Callable[[Request], Awaitable[Response]]) -> AsyncIterator[tuple[Client, Address]]:
    world = SimWorld(3)
    listener = await world.net.listen(TcpAddress("127.0.0.1", 0))
    client = Client(world.net)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve, world, [listener], handler)
        yield client, listener.address
        await client.aclose()
        nursery.cancel_scope.cancel()


async def pieces(count: int, size: int, closed: list[bool]) -> AsyncIterator[bytes]:
    try:
        for number in range(count):
            yield bytes([number % 256]) * size
    finally:
        closed.append(True)


@pytest.mark.parametrize("length", [None, 300_000])
async def test_streamed_both_ways(autojump_clock: Clock, length: int | None) -> None:
    async def mirror(request: Request) -> Response:
        assert request.body.length == length

        async def body() -> AsyncIterator[bytes]:
            while data := await request.body.read(1 << 16):
                yield data

        return Response(200, Headers([("x-a", "b")]), body(), length)

    closed: list[bool] = []
    async with served(mirror) as (client, address):
        for _ in range(3):
            async with client.request(address, "PUT", "/", body=pieces(3, 100_000, closed), length=length) as response:
                assert (response.status, response.length, response.headers.get("x-a")) == (200, length, "b")
                data = await response.read_all(1 << 20)
                assert data == b"".join([piece async for piece in pieces(3, 100_000, [])])
                assert await response.read() == b""
        assert closed == [True] * 3
        assert client._pool.count(address) == 1
        async with client.request(address, "PUT", "/", body=pieces(3, 100_000, closed), length=length) as response:
            with pytest.raises(Unavailable):
                await response.read_all(1000)
        assert client._pool.count(address) == 0  # an unread answer is not waited for


async def test_a_broken_answer_is_a_broken_body(autojump_clock: Clock) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b"abc"
        raise ValueError("no more")

    async def handler(request: Request) -> Response:
        return Response(200, body=body())

    async with served(handler) as (client, address), client.request(address, "GET", "/") as response:
        assert await response.read() == b"abc"
        with pytest.raises(Unavailable):
            await response.read()


async def test_a_body_that_fails_reaches_the_caller_and_breaks_off_for_the_server(autojump_clock: Clock) -> None:
    seen: list[str] = []

    async def handler(request: Request) -> Response:
        try:
            await request.body.read_all(1 << 20)
        except BodyBroken as error:
            seen.append(error.message)
            raise
        return Response(200)

    async def body() -> AsyncIterator[bytes]:
        yield b"abc"
        raise ValueError("source")

    async with served(handler) as (client, address):
        with pytest.raises(ValueError, match="source"):
            async with client.request(address, "PUT", "/", body=body()):
                pass
        with pytest.raises(RingfortError, match="1 bytes before"):
            async with client.request(address, "PUT", "/", body=pieces(1, 3, []), length=4):
                pass
        await trio.sleep(1)
        assert seen == ["the client went away before the body ended"] * 2


async def test_an_early_answer_is_seen(autojump_clock: Clock) -> None:
    async def handler(request: Request) -> Response:
        return Response(507, body=b"full")

    async with served(handler) as (client, address):
        closed: list[bool] = []
        async with client.request(address, "PUT", "/", body=pieces(2, 100_000, closed), length=200_000) as response:
            assert response.status == 507
        assert closed == [True]


async def test_silence_in_a_streamed_answer(autojump_clock: Clock) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b"abc"
        await trio.sleep(20)
        yield b"def"

    async def handler(request: Request) -> Response:
        if request.target == "/late":
            await trio.sleep(20)
        return Response(200, body=body())

    async with served(handler) as (client, address):
        with pytest.raises(Unavailable, match="within 9 s"):
            async with client.request(address, "GET", "/late", reply_s=9):
                pass
        async with client.request(address, "GET", "/", reply_s=9) as response:
            assert await response.read() == b"abc"
            with pytest.raises(Unavailable, match="for 9 s"):
                await response.read()
        async with client.request(address, "GET", "/", reply_s=21) as response:
            assert await response.read_all(100) == b"abcdef"
