"""The portal on real sockets: who is served where, and what silence and noise cost."""

from __future__ import annotations

import socket
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from random import Random
from uuid import UUID

import trio
import trio.testing

from blockgw.iscsi.chap import Secret
from blockgw.iscsi.login import Access
from blockgw.scsi.block import MemoryBlockDevice
from blockgw.target.server import TargetServer
from blockgw.target.target import Target
from blockgw.volume.records import iqn, worker_of
from ring.world.real import make_world
from tests.blockgw.initiator import answers, login
from tools.deploy import iscsi
from tools.deploy.iscsi import Portal

WORKERS = 3
VOLUMES = [str(UUID(int=number << 100 | 0x40008000000000000000 | number)) for number in range(1, 13)]


class Machine:
    """The portals of three workers on one public socket; each serves its own volumes only."""

    def __init__(self, folder: Path, peeking_max: int) -> None:
        self.listening = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.address = self.listening.getsockname()
        self.found: list[tuple[int, str]] = []  # (worker, volume)
        self.logged: list[str] = []
        self.folder = folder
        self.portals = [self._portal(worker, peeking_max) for worker in range(WORKERS)]

    def _portal(self, worker: int, peeking_max: int) -> Portal:
        async def lookup(name: str) -> Target | None:
            volume = next((volume for volume in VOLUMES if iqn(volume) == name), None)
            if volume is None:
                return None
            self.found.append((worker, volume))
            return Target(name, "127.0.0.1:1", UUID(volume), MemoryBlockDevice(1 << 20), Access(Secret("user", "x" * 16)))

        return Portal(
            TargetServer(make_world(), lookup),
            worker=worker,
            workers=WORKERS,
            socket_of=lambda number: str(self.folder / f"iscsi-{number}.sock"),
            log=lambda event, detail: self.logged.append(f"{event} {detail}"),
            peeking_max=peeking_max,
        )


@asynccontextmanager
async def machine(peeking_max: int = 64, *, workers: tuple[int, ...] = (0, 1, 2)) -> AsyncIterator[Machine]:
    with tempfile.TemporaryDirectory(prefix="long-" + "x" * 120) as folder:
        made = Machine(Path(folder), peeking_max)
        async with trio.open_nursery() as nursery:
            with made.listening:
                for number in workers:
                    await nursery.start(made.portals[number].run, socket.dup(made.listening.fileno()))
                yield made
            nursery.cancel_scope.cancel()


def hello(volume: str) -> bytes:
    return login(
        [("InitiatorName", "iqn.2026-01.test:a"), ("TargetName", iqn(volume)), ("SessionType", "Normal"), ("AuthMethod", "CHAP")],
        stage=0,
        following=None,
    )


async def ask(made: Machine, data: bytes, *, piece_bytes: int = 0) -> bytes:
    """What comes back to a first request, perhaps sent in pieces; b"" when the connection ends."""
    with trio.fail_after(5):
        stream = await trio.open_tcp_stream(*made.address)
        async with stream:
            for at in range(0, len(data), piece_bytes or len(data)):
                await stream.send_all(data[at : at + (piece_bytes or len(data))])
                if piece_bytes:
                    await trio.testing.wait_all_tasks_blocked(0.001)
            try:
                return bytes(await stream.receive_some(4096))
            except trio.BrokenResourceError:
                return b""


async def test_each_volume_is_served_by_its_worker() -> None:
    async with machine() as made:
        for volume in VOLUMES:
            (answer,) = answers(await ask(made, hello(volume)))
            assert answer.keys["AuthMethod"] == "CHAP"
        assert made.found == [(worker_of(volume, WORKERS), volume) for volume in VOLUMES]
        assert {worker for worker, _ in made.found} == {0, 1, 2}
        assert made.logged == []


async def test_a_request_in_small_pieces() -> None:
    async with machine() as made:
        for piece_bytes in (1, 47, 60):
            (answer,) = answers(await ask(made, hello(VOLUMES[0]), piece_bytes=piece_bytes))
            assert answer.keys["AuthMethod"] == "CHAP"


async def test_the_silent_do_not_keep_others_out() -> None:
    """More silent and half-open connections than there are slots: the oldest of them make room."""
    async with machine(16) as made:
        idle = []
        for number in range(300):
            stream = await trio.open_tcp_stream(*made.address)
            await stream.send_all(hello(VOLUMES[0])[: number % 60])
            idle.append(stream)
        for volume in VOLUMES:
            (answer,) = answers(await ask(made, hello(volume)))
            assert answer.keys["AuthMethod"] == "CHAP"
        for stream in idle:
            await stream.aclose()


async def test_waiting_for_the_rest_does_not_spin() -> None:
    """A connection that has sent a part of its request wakes nobody."""
    listening = socket.create_server(("127.0.0.1", 0))
    with listening, socket.create_connection(listening.getsockname()) as initiator:
        accepted, _ = listening.accept()
        accepted.setblocking(False)
        with accepted:
            initiator.sendall(hello(VOLUMES[0])[:50])
            wakes = Wakes()
            trio.lowlevel.add_instrument(wakes)
            with trio.move_on_after(0.5) as scope:
                await iscsi._peek(accepted)
            trio.lowlevel.remove_instrument(wakes)
            assert scope.cancelled_caught
            assert wakes.count < 20
            initiator.sendall(hello(VOLUMES[0])[50:])
            with trio.fail_after(2):
                assert await iscsi._peek(accepted) == (iqn(VOLUMES[0]),)
            assert accepted.recv(1 << 16) == hello(VOLUMES[0]), "nothing was taken off"


class Wakes(trio.abc.Instrument):
    def __init__(self) -> None:
        self.count = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.count += 1


async def test_who_goes_away_early_is_forgotten_at_once() -> None:
    async with machine() as made:
        for part in (b"", hello(VOLUMES[0])[:20], hello(VOLUMES[0])[:70]):
            async with await trio.open_tcp_stream(*made.address) as stream:
                await stream.send_all(part)
                await stream.send_eof()
                with trio.fail_after(2), suppress(trio.BrokenResourceError):
                    assert await stream.receive_some(1) == b""


async def test_noise() -> None:
    """Whatever comes, the next initiator is served."""
    rng = Random(7)
    good = hello(VOLUMES[0])
    async with machine() as made:
        for number in range(150):
            noise = bytearray(good if number % 2 else rng.randbytes(rng.randrange(48, 4000)))
            for _ in range(number % 7):
                noise[rng.randrange(min(len(noise), 60))] = rng.randrange(256)
            with trio.move_on_after(0.05):
                await ask(made, bytes(noise))
        made.found.clear()
        (answer,) = answers(await ask(made, good))
        assert answer.keys["AuthMethod"] == "CHAP"


async def test_a_worker_that_is_down() -> None:
    """The initiator's connection ends, so that it tries again; others are served."""
    async with machine(workers=(0, 1)) as made:
        down = [volume for volume in VOLUMES if worker_of(volume, WORKERS) == 2]
        up = [volume for volume in VOLUMES if worker_of(volume, WORKERS) != 2]
        assert await ask(made, hello(down[0])) == b""
        assert made.logged[0].startswith("iscsi-handoff-failed worker 2: ")
        assert answers(await ask(made, hello(up[0])))
