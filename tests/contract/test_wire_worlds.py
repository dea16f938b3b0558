"""Server and client together, on real sockets and on simulated ones: what they promise does not depend on the world."""

from __future__ import annotations

import pathlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import trio

from ring.errors import Unavailable
from ring.wire.client import Client
from ring.wire.message import FileSlice, Headers, Piece, Request, Response
from ring.wire.server import LogLine, serve
from ring.world.interface import Address, File, OpenMode, TcpAddress, UnixAddress, World
from ring.world.real import make_world
from ring.world.sim import SimWorld

SIZE = 3 << 20
DATA = bytes(range(256)) * (SIZE // 256)


class Site:
    def __init__(self, world: World, file: File) -> None:
        self.world = world
        self.file = file
        self.log: list[LogLine] = []
        self.stop = trio.Event()
        self.release = trio.Event()
        self.entered = trio.Event()

    async def handler(self, request: Request) -> Response:
        match request.method, request.raw_path:
            case "GET", "/file":
                return Response(200, Headers([("etag", "e")]), self._body(), SIZE)
            case "GET", "/chunked":
                return Response(200, body=self._body())
            case "PUT", "/count":
                count = 0
                while piece := await request.body.read():
                    count += len(piece)
                return Response(201, body=str(count).encode())
            case "GET", "/wait":
                self.entered.set()
                await self.release.wait()
                return Response(200, body=b"waited")
            case "GET", "/breaks":
                return Response(200, body=self._breaking(), length=10)
            case _:
                return Response(200, body=await request.body.read_all(1 << 20))

    async def _body(self) -> AsyncIterator[Piece]:
        half = SIZE // 2
        yield FileSlice(self.file, 0, half)
        yield DATA[half : half + 10]
        yield FileSlice(self.file, half + 10, SIZE - half - 10)

    async def _breaking(self) -> AsyncIterator[Piece]:
        yield b"abc"
        raise Unavailable("the other replica is gone")


@pytest.fixture(params=["real tcp", "real unix", "sim"])
def world_and_address(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> tuple[World, Address]:
    if request.param == "sim":
        return SimWorld(5), TcpAddress("127.0.0.1", 0)
    return make_world(), UnixAddress(str(tmp_path / "s")) if request.param == "real unix" else TcpAddress("127.0.0.1", 0)


@asynccontextmanager
async def serving(world: World, address: Address, root: pathlib.Path) -> AsyncIterator[tuple[Site, Client, Address]]:
    disk = world.open_disk(str(root))
    await disk.make_dirs("")
    file = await disk.open("data", OpenMode.CREATE)
    await file.append([DATA], sync=True)
    site, client = Site(world, file), Client(world.net)
    listener = await world.net.listen(address)
    async with trio.open_nursery() as nursery:

        async def run(*, task_status: trio.TaskStatus[None]) -> None:
            await serve(world, [listener], site.handler, on_request=site.log.append, stop=site.stop, task_status=task_status)

        await nursery.start(run)
        yield site, client, listener.address
        await client.aclose()
        site.stop.set()
    await file.close()


async def test_bodies_arrive_whole(world_and_address: tuple[World, Address], tmp_path: pathlib.Path) -> None:
    async def upload() -> AsyncIterator[Piece]:
        yield DATA[:1000]
        yield FileSlice(site.file, 1000, SIZE - 1000)

    async with serving(*world_and_address, tmp_path / "d") as (site, client, address):
        for target in ("/file", "/chunked"):
            async with client.request(address, "GET", target) as response:
                assert await response.read_all(SIZE) == DATA
            assert (await client.call(address, "GET", target)).body == DATA
        for length in (None, SIZE):
            async with client.request(address, "PUT", "/count", body=upload(), length=length) as response:
                assert (response.status, await response.read_all(100)) == (201, str(SIZE).encode())
        async with client.request(address, "PUT", "/count", body=DATA) as response:
            assert await response.read_all(100) == str(SIZE).encode()
        assert (await client.call(address, "POST", "/", body=b"echo")).body == b"echo"
        assert [line.error for line in site.log] == [""] * 8


async def test_many_at_once(world_and_address: tuple[World, Address], tmp_path: pathlib.Path) -> None:
    async with serving(*world_and_address, tmp_path / "d") as (site, client, address):

        async def ask(number: int) -> None:
            for turn in range(10):
                text = f"{number}-{turn}".encode()
                assert (await client.call(address, "PUT", "/", body=text)).body == text

        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(ask, number)
        assert len(site.log) == 200


async def test_a_broken_body_is_never_taken_for_a_whole_one(
    world_and_address: tuple[World, Address], tmp_path: pathlib.Path
) -> None:
    async with serving(*world_and_address, tmp_path / "d") as (site, client, address):
        with pytest.raises(Unavailable):
            await client.call(address, "GET", "/breaks")
        assert "the other replica is gone" in site.log[0].error
        assert (await client.call(address, "POST", "/", body=b"echo")).body == b"echo"


async def test_a_stop_lets_requests_finish(world_and_address: tuple[World, Address], tmp_path: pathlib.Path) -> None:
    async with serving(*world_and_address, tmp_path / "d") as (site, client, address):
        replies: list[bytes] = []

        async def wait() -> None:
            replies.append((await client.call(address, "GET", "/wait")).body)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await site.entered.wait()
            site.stop.set()
            await trio.testing.wait_all_tasks_blocked()
            site.release.set()
        assert replies == [b"waited"]
        with pytest.raises(Unavailable):
            await client.call(address, "GET", "/")


@pytest.mark.parametrize("make", [make_world, lambda: SimWorld(1)])
async def test_nobody_listens(make: Callable[[], World]) -> None:
    world = make()
    listener = await world.net.listen(TcpAddress("127.0.0.1", 0))
    await listener.aclose()
    with pytest.raises(Unavailable, match="cannot be reached"):
        await Client(world.net).call(listener.address, "GET", "/")
