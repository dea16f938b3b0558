"""Asking the worker processes of this machine's cloud, each over its own control socket.

Decides which ones there are (by their sockets) and how long one may take; knows nothing of what is asked.  Neighbours: worker
(serves the sockets), device_status, ring_status and recon (whose pages these are), tools.cli (asks).
"""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Callable
from typing import TypeVar

import msgspec
import trio

from ring.errors import Unavailable
from ring.wire.client import Client
from ring.world.interface import UnixAddress, World
from tools.deploy.layout import Layout

ASK_S = 2.0  # for one that hangs

T = TypeVar("T")


def worker_numbers(layout: Layout) -> list[int]:
    """Of the worker processes that have a socket; whether they answer is another question."""
    return sorted(int(path.stem.partition("-")[2]) for path in layout.run.glob("worker-*.sock"))


def in_use(layout: Layout) -> bool:
    """Whether a main process holds the folder's lock (supervisor.lock); asks, and takes nothing."""
    asked = struct.pack("hhqqi", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)  # struct flock of 64-bit Linux
    try:
        with layout.lock.open("rb") as file:
            (found,) = struct.unpack_from("h", fcntl.fcntl(file, fcntl.F_GETLK, asked))
    except FileNotFoundError:
        return False
    return bool(found != fcntl.F_UNLCK)


def no_cloud(layout: Layout) -> Unavailable:
    return Unavailable(f"no cloud runs in {layout.root}", hint=f"ringfort up --data {layout.root}")


async def ask(client: Client, layout: Layout, worker: int, target: str, decode: Callable[[bytes], T]) -> T | None:
    """What one worker says; None when it does not answer, or with something else."""
    try:
        reply = await client.call(UnixAddress(layout.worker_socket(worker)), "GET", target, connect_s=ASK_S, reply_s=ASK_S)
        return decode(reply.body)
    except (Unavailable, msgspec.MsgspecError):
        return None


async def ask_each(world: World, layout: Layout, target: str, kind: type[T]) -> dict[int, T | None]:
    """All workers at once: what each says at ``target``, as JSON of ``kind``; None of one that does not answer (yet).  Empty when
    no cloud runs."""
    found: dict[int, T | None] = dict.fromkeys(worker_numbers(layout))
    decode = msgspec.json.Decoder(kind).decode
    client = Client(world.net)

    async def one(worker: int) -> None:
        found[worker] = await ask(client, layout, worker, target, decode)

    async with trio.open_nursery() as nursery:
        for worker in found:
            nursery.start_soon(one, worker)
    await client.aclose()
    return found if any(found.values()) or in_use(layout) else {}
