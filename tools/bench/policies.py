"""Large and small objects by policy: whole copies against fragments, through the facade, on real disks in one process.

    .venv/bin/python -m tools.bench.policies [--size MIB] [--rounds N] [--folder DIR]

Six devices in one folder, all of this process, so that nothing but storage is measured: no HTTP, no other worker.  Cpu is that of
the process with its threads; "durable" is on disk as the policy wants it.  Policies take turns, and the best round of each counts.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path as Folder

import click
import trio

from ring.builder.builder import Builder
from ring.names import NameHasher, Path
from ring.placement import Ring
from ring.policy import Policies, Policy
from ring.service.overlap import Overlap
from ring.timestamp import TimestampSource
from ring.wire.message import BytesBody
from ring.world.real import make_world
from storage.client.bodies import aclose, loaded
from storage.client.cluster import ClusterStorage
from storage.client.interface import NewObject
from storage.client.local import LocalNode
from storage.client.node import Node
from storage.client.payer import RowPayer
from storage.client.reach import Rings
from storage.object.device import format_device, open_device
from storage.object.policy_device import open_policy
from storage.object.store import ObjectStore
from storage.rows.books import Books

DEVICES = 6
HASHER = NameHasher(b"bench", b"bench")
POLICIES = Policies([Policy(0, "3 copies", 3, default=True), Policy(1, "4+2", 6, k=4, m=2)])
SMALL = 4096
MIB = 1 << 20


@dataclass(slots=True)
class Figure:
    """The best of its rounds."""

    seconds: float = 1e9
    cpu_s: float = 1e9
    written: int = 0  # bytes of files and logs
    rounds: int = field(default=0)

    def take(self, seconds: float, cpu_s: float) -> None:
        self.seconds, self.cpu_s = min(self.seconds, seconds), min(self.cpu_s, cpu_s)


def _ring(replicas: int) -> Ring:
    builder = Builder.create(6, replicas, 1)
    for number in range(DEVICES):
        builder.add_device(region=1, zone=number, ip="127.0.0.1", port=6200 + number, name=f"d{number}", weight=100.0)
    builder.rebalance(1, 0)
    return builder.ring(HASHER)


@asynccontextmanager
async def _cluster(folder: Folder) -> AsyncIterator[ClusterStorage]:
    world = make_world()
    overlaps = {name: Overlap.of(_ring(3)) for name in ("account", "container")}
    objects = {policy.index: Overlap.of(_ring(int(policy.replicas))) for policy in POLICIES}
    devices = [device for device in objects[1].ring.devices if device is not None]
    async with trio.open_nursery() as nursery:
        nodes: dict[int, Node] = {}
        payer = RowPayer(nursery, nodes.get)
        for device in devices:
            root = folder / f"d{device.id}"
            root.mkdir()
            await format_device(world.open_disk(str(root)), "bench", device.id)
            opened = await open_device(world, str(root), "bench", device.id)
            stores = {p.index: ObjectStore(world, await open_policy(world, opened, p.index), HASHER) for p in POLICIES}
            books = Books(world, opened, HASHER)
            for store in stores.values():
                await nursery.start(store.run)
            await nursery.start(books.run)
            nodes[device.id] = LocalNode(device, stores[0], books, payer, stores=stores)
        rings = Rings(overlaps["account"], overlaps["container"], objects)
        yield ClusterStorage(
            world, nursery, rings, lambda device: nodes[device.id], TimestampSource(world.clock), policies=POLICIES
        )
        nursery.cancel_scope.cancel()


async def _read(storage: ClusterStorage, path: Path, offset: int = 0, length: int | None = None) -> int:
    reading = await storage.get_object(path, offset=offset, length=length)
    size = 0
    try:
        async for piece in reading.pieces:
            size += len(await loaded(piece))
    finally:
        await aclose(reading.pieces)
    return size


async def _timed(figure: Figure, work: Callable[[], object]) -> None:
    began, cpu = time.perf_counter(), time.process_time()
    await work()  # type: ignore[misc]  # every work is a coroutine function
    figure.take(time.perf_counter() - began, time.process_time() - cpu)


async def _run(folder: Folder, size: int, rounds: int, small: int) -> dict[tuple[str, str], Figure]:
    figures: dict[tuple[str, str], Figure] = {}
    body = os.urandom(size)
    tiny = os.urandom(SMALL)
    async with _cluster(folder) as storage:
        for policy in POLICIES:
            await storage.put_container(Path("AUTH_b", f"c{policy.index}"), {}, policy=policy.index)
        for number in range(rounds):
            for policy in POLICIES:
                container = f"c{policy.index}"
                large = Path("AUTH_b", container, f"large{number}")

                def figure(what: str, name: str = policy.name) -> Figure:
                    return figures.setdefault((name, what), Figure())

                async def put(path: Path = large) -> None:
                    await storage.put_object(path, NewObject(), BytesBody(body))

                async def get(path: Path = large) -> None:
                    assert await _read(storage, path) == size

                async def part(path: Path = large) -> None:
                    for at in range(0, size - MIB, max(MIB, size // 16)):
                        assert await _read(storage, path, at + 5, 65536) == 65536

                async def puts(container: str = container, number: int = number) -> None:
                    async with trio.open_nursery() as writers:
                        for one in range(small):
                            path = Path("AUTH_b", container, f"small{number}-{one}")
                            writers.start_soon(storage.put_object, path, NewObject(), BytesBody(tiny))

                async def gets(container: str = container, number: int = number) -> None:
                    for one in range(small):
                        await _read(storage, Path("AUTH_b", container, f"small{number}-{one}"))

                for what, work in (("put", put), ("get", get), ("ranges", part), ("small puts", puts), ("small gets", gets)):
                    await _timed(figure(what), work)
                await storage.delete_object(large)
    return figures


@click.command()
@click.option("--size", default=64, show_default=True, help="MiB of a large object.")
@click.option("--rounds", default=5, show_default=True)
@click.option("--small", default=64, show_default=True, help="4 KiB objects in a round, all at once when written.")
@click.option(
    "--folder", type=click.Path(path_type=Folder, file_okay=False), help="Where devices are made; default: a temporary one."
)
def main(size: int, rounds: int, small: int, folder: Folder | None) -> None:
    """Whole copies against fragments."""
    made = Folder(tempfile.mkdtemp(prefix="policies-", dir=folder))
    try:
        figures = trio.run(_run, made, size * MIB, rounds, small)
    finally:
        shutil.rmtree(made)
    click.echo(f"{'policy':<10} {'':<12} {'MB/s':>8} {'cpu ms/MB':>10}   of {size} MiB; small ones: per second, cpu ms each")
    for (policy, what), figure in figures.items():
        if what.startswith("small"):
            click.echo(f"{policy:<10} {what:<12} {small / figure.seconds:>8.0f} {1000 * figure.cpu_s / small:>10.2f}")
        else:
            megabytes = (16 * 65536 if what == "ranges" else size * MIB) / 1e6
            click.echo(f"{policy:<10} {what:<12} {megabytes / figure.seconds:>8.0f} {1000 * figure.cpu_s / megabytes:>10.2f}")


if __name__ == "__main__":
    sys.exit(main())
