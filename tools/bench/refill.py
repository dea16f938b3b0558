"""A replaced disk: how fast its peers fill it, in a real cloud of several processes.

    python -m tools.bench.refill [--folder DIR] [--workers 2] [--small 20000] [--large 200] [--json]

Starts a cloud in DIR (a temporary folder unless given), writes objects of 4 KiB, measures, writes as many of 1 MiB, and measures
again: it takes the folder of device 2 away, replaces it as ``ringfort node replace`` does, and waits from the moment at which the
new one is open until all of it is trusted.  Objects are those that it holds then, bytes what its packs and files have.  Cpu is that
of all processes of the cloud.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit

import click
import trio

from ring.world.real import make_world
from tools.bench.load import Job, cpu_s, run
from tools.bench.objects import Swift, body_of, name_of
from tools.deploy.asking import ask_each
from tools.deploy.device_status import DEVICES_PATH, DeviceState, WorkerDevices
from tools.deploy.layout import Layout
from tools.deploy.publish import open_cloud
from tools.deploy.replace import replace
from tools.deploy.session import CloudClient, RunningCloud

DEVICE = 2
CONCURRENCY = 32
SIZES = {"4 KiB": 4 << 10, "1 MiB": 1 << 20}
WRITE_S = 1200.0
LOOK_S = 0.05


@dataclass(frozen=True, slots=True)
class Figures:
    objects: int
    megabytes: float
    seconds: float
    cpu_s: float

    def line(self, what: str) -> str:
        rates = f"{self.objects / self.seconds:>8,.0f}/s {self.megabytes / self.seconds:>7.1f} MB/s"
        cpu = f"{1e3 * self.cpu_s / max(1, self.objects):>6.2f} ms of cpu an object"
        return f"{what:<8} {self.objects:>8,} objects {self.megabytes:>8,.0f} MB {self.seconds:>7.1f} s {rates} {cpu}"


def write(cloud: RunningCloud, count: int, size: int, first: int) -> None:
    with closing(CloudClient(cloud.data)) as client:
        swift = Swift(client, "bench")
        parts = urlsplit(client.objects)

        address = parts.hostname or "", parts.port or 80

        def puts() -> Iterator[Job]:
            for number in range(first, first + count):
                yield swift.put(name_of(number), body_of(number, size))

        run(address, iter([swift.container()]), concurrency=1, seconds=WRITE_S)
        done = run(address, puts(), concurrency=CONCURRENCY, seconds=WRITE_S)
        if done.errors or done.operations != count:
            raise click.ClickException(f"objects were not written: {dict(done.errors)}")


async def measure(cloud: RunningCloud) -> Figures:
    """Replace the device's folder, and wait until it is filled."""
    world, layout = make_world(), Layout(cloud.data)
    record = open_cloud(layout)
    root = layout.device(DEVICE)
    aside = layout.root / "aside"
    root.rename(aside)
    root.mkdir(mode=0o700)
    disk_id = await replace(world, layout, record, DEVICE)
    began: float | None = None
    cpu = 0.0
    while True:
        workers = await ask_each(world, layout, DEVICES_PATH, WorkerDevices)
        states = [one for worker in workers.values() if worker is not None for one in worker.devices]
        device: DeviceState | None = next((one for one in states if one.id == DEVICE and one.disk_id == disk_id), None)
        if began is None and device is not None:
            began, cpu = time.perf_counter(), cpu_s(cloud.pids())
        if began is not None and device is not None and device.refilling is None:
            seconds, cpu = time.perf_counter() - began, cpu_s(cloud.pids()) - cpu
            shutil.rmtree(aside)
            return Figures(device.objects or 0, stored_bytes(root) / 1e6, seconds, cpu)
        await trio.sleep(LOOK_S)


def stored_bytes(root: Path) -> int:
    return sum(path.stat().st_size for folder in ("packs", "files") for path in (root / folder).rglob("*") if path.is_file())


def bench(folder: Path, workers: int, counts: dict[str, int]) -> dict[str, Figures]:
    """By the size of the objects that were written last; those before them are still there."""
    found: dict[str, Figures] = {}
    cloud = RunningCloud.start(folder / "cloud", "--workers", str(workers))
    try:
        first = 0
        for what, count in counts.items():
            if count:
                write(cloud, count, SIZES[what], first)
                first += count
                found[what] = trio.run(measure, cloud)
    finally:
        cloud.stop()
    return found


@click.command()
@click.option("--folder", type=click.Path(path_type=Path), help="Where the cloud is made; a temporary folder unless given.")
@click.option("--workers", default=2, show_default=True)
@click.option("--small", default=20_000, show_default=True, help="Objects of 4 KiB.")
@click.option("--large", default=200, show_default=True, help="Objects of 1 MiB, beside them.")
@click.option("--json", "as_json", is_flag=True)
def main(folder: Path | None, workers: int, small: int, large: int, as_json: bool) -> None:
    """Measure how fast a replaced disk is filled by its peers."""
    with tempfile.TemporaryDirectory(prefix="ringfort-refill-", dir=folder) as place:
        found = bench(Path(place), workers, {"4 KiB": small, "1 MiB": large})
    if as_json:
        click.echo(json.dumps({what: asdict(figures) for what, figures in found.items()}, indent=1))
    else:
        for what, figures in found.items():
            click.echo(figures.line(what))


if __name__ == "__main__":
    main()
