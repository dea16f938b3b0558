"""Conversations with the server, byte for byte, over the simulated network and clock."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
import trio

from ring.errors import Unavailable
from ring.wire.engine import HeadLimits
from ring.wire.message import BytesBody, FileSlice, Handler, Headers, Piece, Request, Response
from ring.wire.server import Limits, LogLine, serve
from ring.world.interface import Address, OpenMode, TcpAddress
from ring.world.sim import SimWorld

LIMITS = Limits(
    head=HeadLimits(head_bytes=4096, target_bytes=500, header_count=10),
    body_bytes=100_000,
    drain_bytes=1000,
    idle_s=60,
    head_s=8,
    receive_s=12,
    grace_s=5,
)


@dataclass
class Site:
    world: SimWorld
    address: Address
    stop: trio.Event
    log: list[LogLine] = field(default_factory=list)
    served: trio.Event = field(default_factory=trio.Event)

    async def talk(self, *pieces: str | float) -> str:
        """Send the pieces (a number waits that many seconds), then everything that comes until the server closes."""
        stream = await self.world.net.connect(self.address)
        got = b""
        try:
            for piece in pieces:
                if isinstance(piece, str):
                    await stream.send_all(piece.encode("latin-1"))
                else:
                    await trio.sleep(piece)
            while data := await stream.receive_some():
                got += data
        except trio.BrokenResourceError:
            got += b"<lost>"
        await stream.aclose()
        # What differs from run to run is the two lines of the server's own.
        return re.sub(r"Date: [^\r]*GMT\r\n", "", re.sub(r"X-Trans-Id: tx[0-9a-f]{21}-[0-9a-f]{10}\r\n", "", got.decode("latin-1")))


@asynccontextmanager
async def serving(handler: Handler, limits: Limits = LIMITS) -> AsyncIterator[Site]:
    world = SimWorld(7)
    listener = await world.net.listen(TcpAddress("127.0.0.1", 0))
    site = Site(world, listener.address, trio.Event())

    async def run(*, task_status: trio.TaskStatus[None]) -> None:
        await serve(world, [listener], handler, limits=limits, on_request=site.log.append, stop=site.stop, task_status=task_status)
        site.served.set()

    async with trio.open_nursery() as nursery:
        await nursery.start(run)
        yield site
        nursery.cancel_scope.cancel()


async def echo(request: Request) -> Response:
    """The body back, or what the target says."""
    body = await request.body.read_all(1 << 20)
    return Response(200, Headers([("content-type", "x/y")]), body or request.target.encode())


GET = "GET /a HTTP/1.1\r\nHost: h\r\n\r\n"
LAST = "GET /z HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"


def answer(body: str, *lines: str, status: str = "200 OK", length: int | None = None) -> str:
    size = len(body) if length is None else length
    return "".join(f"{line}\r\n" for line in [f"HTTP/1.1 {status}", *lines, f"Content-Length: {size}", ""]) + body


def closing(body: str, *lines: str, status: str = "200 OK", connection: str = "Connection: close\r\n") -> str:
    return answer("", *lines, status=status, length=len(body)).removesuffix("\r\n") + connection + "\r\n" + body


KIND = "Content-Type: x/y"


async def test_a_get(autojump_clock: trio.testing.MockClock) -> None:
    async with serving(echo) as site:
        assert await site.talk(LAST) == closing("/z", KIND)
        (line,) = site.log
        assert (line.method, line.target, line.status, line.bytes_in, line.bytes_out, line.error) == ("GET", "/z", 200, 0, 2, "")
        assert re.fullmatch(r"tx[0-9a-f]{21}-[0-9a-f]{10}", line.trans_id)


async def test_keep_alive_and_pipelining_in_order(autojump_clock: trio.testing.MockClock) -> None:
    put = "PUT /b HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nbody"
    expected = answer("/a", KIND) + answer("body", KIND) + closing("/z", KIND)
    async with serving(echo) as site:
        assert await site.talk(GET + put + LAST) == expected
        assert await site.talk(GET, 3.0, put[:30], 1.0, put[30:], 2.0, LAST) == expected


async def test_chunked_body(autojump_clock: trio.testing.MockClock) -> None:
    put = "PUT /b HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with serving(echo) as site:
        assert await site.talk(put, "4\r\nfour\r\n", 1.0, "2\r\nxx\r\n0\r\n\r\n", LAST) == answer("fourxx", KIND) + closing(
            "/z", KIND
        )


async def test_100_continue_is_sent_when_the_body_is_read(autojump_clock: trio.testing.MockClock) -> None:
    put = "PUT /b HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n"
    async with serving(echo) as site:
        got = await site.talk(put, 1.0, "four", LAST)
        assert got == "HTTP/1.1 100 Continue\r\n\r\n" + answer("four", KIND) + closing("/z", KIND)


async def test_100_continue_is_not_sent_to_who_is_refused(autojump_clock: trio.testing.MockClock) -> None:
    async def refuse(request: Request) -> Response:
        return Response(403)

    put = "PUT /b HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n"
    async with serving(refuse) as site:
        assert await site.talk(put) == closing("", status="403 Forbidden")


@pytest.mark.parametrize(
    ("method", "response", "expected"),
    [
        ("HEAD", Response(200, body=b"hello"), answer("", length=5)),
        ("HEAD", Response(200, length=99), answer("", length=99)),
        ("HEAD", Response(200, Headers([("content-length", "98")])), answer("", length=98)),
        ("GET", Response(204, body=b"no"), "HTTP/1.1 204 No Content\r\n\r\n"),
        (
            "GET",
            Response(304, Headers([("etag", '"x"')]), length=7),
            'HTTP/1.1 304 Not Modified\r\nETag: "x"\r\nContent-Length: 7\r\n\r\n',
        ),
        ("GET", Response(304, Headers([("etag", '"x"')])), 'HTTP/1.1 304 Not Modified\r\nETag: "x"\r\n\r\n'),
        ("GET", Response(200, Headers([("content-length", "98")]), b"five"), answer("five")),
        ("DELETE", Response(404), answer("", status="404 Not Found")),
        (
            "GET",
            Response(200, Headers([("x-amz-request-id", "q"), ("x-object-meta-a", "b")])),
            answer("", "x-amz-request-id: q", "X-Object-Meta-A: b"),
        ),
        ("GET", Response(200, Headers([("connection", "close")]), b"a"), closing("a")),
    ],
)
async def test_framing(autojump_clock: trio.testing.MockClock, method: str, response: Response, expected: str) -> None:
    async def handler(request: Request) -> Response:
        return response if request.target == "/a" else Response(200, body=b"z")

    async with serving(handler) as site:
        got = await site.talk(f"{method} /a HTTP/1.1\r\nHost: h\r\n\r\n" + LAST)
        assert got == expected + ("" if "close" in expected else closing("z"))


@dataclass
class Source:
    """A body of pieces, with a failure at its end perhaps, that knows whether it was closed."""

    pieces: list[Piece]
    failure: Exception | None = None
    closed: int = 0

    def __aiter__(self) -> AsyncIterator[Piece]:
        return self

    async def __anext__(self) -> Piece:
        await trio.lowlevel.checkpoint()
        if self.pieces:
            return self.pieces.pop(0)
        if self.failure is not None:
            raise self.failure
        raise StopAsyncIteration

    async def aclose(self) -> None:
        self.closed += 1


CHUNKED = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
FAILED = "Internal Server Error: internal error, transaction "


@pytest.mark.parametrize(
    ("source", "length", "minor", "expected"),
    [
        (Source([b"abc", b"", b"de"]), None, 1, CHUNKED + "3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n" + answer("z")),
        (Source([b"", b"abc"]), None, 1, CHUNKED + "3\r\nabc\r\n0\r\n\r\n" + answer("z")),
        (Source([]), None, 1, CHUNKED + "0\r\n\r\n" + answer("z")),
        (Source([b"abc", b"de"]), 5, 1, answer("abcde") + answer("z")),
        (Source([]), 0, 1, answer("") + answer("z")),
        (Source([b"abc"]), None, 0, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nabc"),
        # broken bodies break the connection
        (Source([b"abc"]), 5, 1, answer("abc", length=5)),
        (Source([b"abc", b"def"]), 5, 1, answer("abc", length=5)),
        (Source([b"abc"], ValueError("no")), None, 1, CHUNKED + "3\r\nabc\r\n"),
        (Source([b"abc"], trio.BrokenResourceError("backend")), None, 1, CHUNKED + "3\r\nabc\r\n"),
    ],
)
async def test_iterators(
    autojump_clock: trio.testing.MockClock, source: Source, length: int | None, minor: int, expected: str
) -> None:
    async def handler(request: Request) -> Response:
        return Response(200, body=source, length=length) if request.target == "/a" else Response(200, body=b"z")

    broken = source.failure is not None or (length == 5 and not expected.endswith("z"))
    async with serving(handler) as site:
        get = f"GET /a HTTP/1.{minor}\r\nHost: h\r\n\r\n"
        if broken or not minor:
            got = await site.talk(get)
        else:
            got = await site.talk(get + GET.replace("/a", "/z"), 1.0, LAST)
        assert got.removesuffix(closing("z")) == expected
        assert source.closed == 1
        assert bool(site.log[0].error) == broken


async def test_an_iterator_that_fails_at_once_is_a_500(autojump_clock: trio.testing.MockClock) -> None:
    source = Source([], Unavailable("no replica"))

    async def handler(request: Request) -> Response:
        return Response(200, body=source, length=7)

    async with serving(handler) as site:
        got = await site.talk(GET)
        assert got.startswith("HTTP/1.1 500 ") and FAILED in got
        assert source.closed == 1
        assert (site.log[0].status, "no replica" in site.log[0].error) == (500, True)


async def test_the_iterator_of_a_head_is_closed_unread(autojump_clock: trio.testing.MockClock) -> None:
    source = Source([b"abc"])

    async def handler(request: Request) -> Response:
        return Response(200, body=source, length=3)

    async with serving(handler) as site:
        assert await site.talk(LAST.replace("GET", "HEAD")) == closing("abc").removesuffix("abc")
        assert (source.closed, len(source.pieces)) == (1, 1)


async def test_file_slices(autojump_clock: trio.testing.MockClock) -> None:
    async def handler(request: Request) -> Response:
        disk = site.world.open_disk("/sda")
        await disk.make_dirs("")
        file = await disk.open("f", OpenMode.CREATE if await disk.info("f") is None else OpenMode.READ)
        if file.size() == 0:
            await file.append([b"0123456789"], sync=True)
        pieces: list[Piece] = [FileSlice(file, 2, 3), b"-", FileSlice(file, 8, 2)]
        return Response(200, body=Source(pieces), length=6 if request.target == "/a" else None)

    async with serving(handler) as site:
        got = await site.talk(GET + LAST)
        assert [line.error for line in site.log] == ["", ""]
        assert (
            got
            == answer("234-89")
            + CHUNKED.removesuffix("\r\n")
            + "Connection: close\r\n\r\n3\r\n234\r\n1\r\n-\r\n2\r\n89\r\n0\r\n\r\n"
        )


@pytest.mark.parametrize(
    "response",
    [
        Response(200, Headers([("x-a", "b\r\nSet-Cookie: c")])),
        Response(200, Headers([("x-a", "b\nc")])),
        Response(200, Headers([("x-a", "b\0")])),
        Response(200, Headers([("x-a: b\r\nx-c", "d")])),
        Response(200, Headers([("x a", "b")])),
        Response(200, Headers([("x-a", "\u20ac")])),
        Response(200, Headers([("transfer-encoding", "gzip")])),
        Response(42),
    ],
)
async def test_unsafe_heads_are_never_sent(autojump_clock: trio.testing.MockClock, response: Response) -> None:
    async def handler(request: Request) -> Response:
        return response

    async with serving(handler) as site:
        got = await site.talk(GET)
        assert got.startswith("HTTP/1.1 500 ") and FAILED in got and "Cookie" not in got
        assert site.log[0].status == 500 and "UnsafeHead" in site.log[0].error


async def test_whatever_a_handler_raises_is_logged_and_the_server_lives_on(autojump_clock: trio.testing.MockClock) -> None:
    failures = [
        ValueError("oops"),
        Unavailable("quorum"),
        ExceptionGroup("several", [KeyError("k")]),
        trio.BrokenResourceError("far"),
    ]

    async def handler(request: Request) -> Response:
        if failures:
            raise failures.pop()
        return Response(200, body=b"fine")

    async with serving(handler) as site:
        got = await site.talk(GET * 4 + LAST)
        assert got.count("HTTP/1.1 500 Internal Server Error\r\n") == 4 and got.endswith(closing("fine"))
        assert [line.status for line in site.log] == [500] * 4 + [200]
        for line, cause in zip(site.log, ["far", "several", "quorum", "oops", ""], strict=True):
            assert cause in line.error and (not cause or "Traceback" in line.error)


@pytest.mark.parametrize(
    ("data", "status"),
    [
        ("nonsense\r\n\r\n", 400),
        ("\x16\x03\x01\x02\x00", 400),
        ("GET / HTTP/1.1\r\n\r\n", 400),
        (f"GET /{'a' * 600} HTTP/1.1\r\nHost: h\r\n\r\n", 414),
        ("GET / HTTP/1.1\r\nHost: h\r\n" + "X: y\r\n" * 10 + "\r\n", 431),
        (f"GET / HTTP/1.1\r\nHost: h\r\nX: {'y' * 5000}", 431),
        ("PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 100001\r\n\r\n", 413),
        ("PUT / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n20000\r\n" + "x" * 0x20000 + "\r\n0\r\n\r\n", 413),
        ("PUT / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n", 400),
        ("BREW / HTTP/1.1\r\nHost: h\r\n\r\n", 501),
        ("GET / HTTP/3.0\r\nHost: h\r\n\r\n", 505),
    ],
)
async def test_refusals(autojump_clock: trio.testing.MockClock, data: str, status: int) -> None:
    async with serving(echo) as site:
        got = await site.talk(data)
        assert got.startswith(f"HTTP/1.1 {status} ")
        assert "Connection: close\r\n" in got and got.count("HTTP/1.1 4") + got.count("HTTP/1.1 5") == 1
        assert [line.status for line in site.log] == [status]


async def test_an_unread_body_is_drained_or_ends_the_connection(autojump_clock: trio.testing.MockClock) -> None:
    async def handler(request: Request) -> Response:
        return Response(200, body=request.target.encode())

    async with serving(handler) as site:
        for framing in ("Content-Length: 5\r\n\r\nhello", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"):
            assert await site.talk(f"PUT /a HTTP/1.1\r\nHost: h\r\n{framing}{LAST}") == answer("/a") + closing("/z")
        got = await site.talk("PUT /a HTTP/1.1\r\nHost: h\r\nContent-Length: 5000\r\n\r\n" + "x" * 5000 + LAST)
        assert got == closing("/a")


async def test_a_body_is_gone_after_its_answer(autojump_clock: trio.testing.MockClock) -> None:
    kept: list[Request] = []

    async def handler(request: Request) -> Response:
        kept.append(request)
        return Response(200)

    async with serving(handler) as site:
        await site.talk("PUT /a HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello" + LAST)
        with pytest.raises(Exception, match="the request is over"):
            await kept[0].body.read()
        assert isinstance(kept[1].body, BytesBody)


@pytest.mark.parametrize(
    ("pieces", "expected", "least", "most"),
    [
        ([], "", 60, 63),
        ([GET, 50.0, GET], answer("/a", KIND) * 2, 110, 113),
        (["GET / HT", 5.0, "TP/1.1\r\n"], "408", 8, 12),
        (["PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nabc"], "408", 12, 16),
        (["PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nab", 11.0, "c", 11.0, "de"], answer("abcde", KIND), 82, 85),
    ],
)
async def test_time_limits(
    autojump_clock: trio.testing.MockClock, pieces: list[str | float], expected: str, least: float, most: float
) -> None:
    async with serving(echo) as site:
        begun = trio.current_time()
        got = await site.talk(*pieces)
        assert got == expected if expected != "408" else got.startswith("HTTP/1.1 408 ")
        assert least <= trio.current_time() - begun <= most


async def test_a_handler_may_take_its_time(autojump_clock: trio.testing.MockClock) -> None:
    async def handler(request: Request) -> Response:
        await trio.sleep(10_000)
        return Response(200, body=b"at last")

    async with serving(handler) as site:
        assert await site.talk(LAST) == closing("at last")


async def test_a_client_that_does_not_read_is_cut_off(autojump_clock: trio.testing.MockClock) -> None:
    source = Source([bytes(100_000)] * 500)

    async def handler(request: Request) -> Response:
        return Response(200, body=source)

    async with serving(handler) as site:
        stream = await site.world.net.connect(site.address)
        await stream.send_all(GET.encode())
        await trio.sleep(200)
        assert source.closed == 1
        assert site.log[0].error


async def test_stop_drains(autojump_clock: trio.testing.MockClock) -> None:
    async def handler(request: Request) -> Response:
        await trio.sleep(float(request.target[1:]))
        return Response(200, body=b"done")

    got: dict[str, str] = {}

    async with serving(handler) as site, trio.open_nursery() as nursery:

        async def client(name: str, *pieces: str | float) -> None:
            got[name] = await site.talk(*pieces)

        nursery.start_soon(client, "idle")
        nursery.start_soon(client, "between", GET.replace("/a", "/0"))
        nursery.start_soon(client, "short", GET.replace("/a", "/4") * 2)
        nursery.start_soon(client, "long", GET.replace("/a", "/40"))
        await trio.sleep(1)
        begun = trio.current_time()
        site.stop.set()
        await site.served.wait()
        assert trio.current_time() - begun == pytest.approx(5, abs=0.1)
        with pytest.raises(OSError):
            await site.world.net.connect(site.address)
    assert got["idle"] == ""
    assert got["between"] == answer("done")
    assert got["short"] == closing("done")
    assert got["long"].replace("<lost>", "") == ""


async def test_cancelling_closes_iterators(autojump_clock: trio.testing.MockClock) -> None:
    closed = trio.Event()

    async def body() -> AsyncIterator[Piece]:
        try:
            yield b"first"
            await trio.sleep_forever()
        finally:
            closed.set()

    async def handler(request: Request) -> Response:
        return Response(200, body=body())

    async with serving(handler) as site:
        stream = await site.world.net.connect(site.address)
        await stream.send_all(GET.encode())
        assert await stream.receive_some()
    assert closed.is_set()
    assert site.log[0].error


async def test_absent_trans_ids_are_added(autojump_clock: trio.testing.MockClock) -> None:
    async def handler(request: Request) -> Response:
        return Response(200, Headers([("x-seen", request.trans_id)]))

    async with serving(handler) as site:
        stream = await site.world.net.connect(site.address)
        await stream.send_all(LAST.encode())
        text = b""
        while data := await stream.receive_some():
            text += data
        found = dict(line.split(": ") for line in text.decode().split("\r\n")[1:] if line)
        assert found["X-Seen"] == found["X-Trans-Id"] == site.log[0].trans_id
        assert found["Date"].endswith(" GMT")
