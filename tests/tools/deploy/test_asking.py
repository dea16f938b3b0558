"""Workers are asked at once; one that does not answer, or with something else, costs its own answer only."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import trio

from ring.wire.message import Headers, Request, Response
from ring.wire.router import Router
from ring.wire.server import serve
from ring.world.interface import UnixAddress, World
from ring.world.real import make_world
from tools.deploy.asking import ask_each, worker_numbers
from tools.deploy.layout import Layout


class Said(msgspec.Struct, frozen=True):
    worker: int


async def answering(nursery: trio.Nursery, world: World, layout: Layout, worker: int, body: bytes) -> None:
    async def handle(request: Request) -> Response:
        return Response(200, Headers(), body)

    router = Router()
    router.add("GET", "/page", handle)
    listener = await world.net.listen(UnixAddress(layout.worker_socket(worker)))
    await nursery.start(lambda task_status: serve(world, [listener], router, task_status=task_status))


async def test_each_worker_is_asked() -> None:
    world = make_world()
    with TemporaryDirectory(prefix="rf-") as folder:  # the path of a socket has 107 bytes
        layout = Layout(Path(folder))
        layout.run.mkdir()
        assert await ask_each(world, layout, "/page", Said) == {}
        for worker in (2, 10):
            (layout.run / f"worker-{worker}.sock").touch()
        assert worker_numbers(layout) == [2, 10]
        assert await ask_each(world, layout, "/page", Said) == {}  # what a cloud left behind
        async with trio.open_nursery() as nursery:
            await answering(nursery, world, layout, 0, b'{"worker": 0}')
            await answering(nursery, world, layout, 1, b"what?")
            assert await ask_each(world, layout, "/page", Said) == {0: Said(0), 1: None, 2: None, 10: None}
            nursery.cancel_scope.cancel()
