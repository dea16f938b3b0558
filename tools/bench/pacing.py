"""What clients notice of background work: PUT and GET of 4 KiB while nothing else, a scrub, or the refill of a device goes on.

    python -m tools.bench.pacing [--objects N] [--seconds S] [--clients C] [--json]

Runs a cloud of its own (4 devices, 3 replicas, 2 workers) twice: as it comes, and with work that does not yield (``yield_floor``
1).  A refill is of device 3, replaced while the cloud was down: it is measured from the start until the device is trusted again,
with clients there for as long as it takes, and once without.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import trio

from ring.world.real import make_world
from tools.bench.load import Job, Result, run
from tools.bench.objects import Swift, body_of, name_of
from tools.deploy.layout import Layout
from tools.deploy.recon import Cloud, ask_to_run, gather
from tools.deploy.replace import replace
from tools.deploy.session import CloudClient, RunningCloud
from tools.deploy.settings import FILE

SIZE = 4096
DEVICE = 3
LOOK_S = 1.0  # a look costs the cloud, too
VARIANTS = {"yields": "", "does not": "[background]\nyield_floor = 1.0\nyield_floor_urgent = 1.0\n"}


@dataclass(frozen=True, slots=True)
class Row:
    variant: str
    work: str  # none, scrub, refill
    put_p50_ms: float | None = None
    put_p99_ms: float | None = None
    get_p50_ms: float | None = None
    get_p99_ms: float | None = None
    operations_per_s: float | None = None
    refill_s: float | None = None
    refill_per_s: float | None = None  # versions


class Bench:
    def __init__(self, data: Path, objects: int, seconds: float, clients: int) -> None:
        self._data = data
        self._layout = Layout(data)
        self._objects = objects
        self._seconds = seconds
        self._clients = clients
        self._cloud: RunningCloud | None = None
        self._held = 0  # versions on DEVICE
        self._numbers = itertools.count(objects)
        self.rows: list[Row] = []

    def run(self) -> None:
        for variant, settings in VARIANTS.items():
            self._data.mkdir(exist_ok=True)
            (self._data / FILE).write_text(settings)
            with self._running() as client:
                jobs = Swift(client, "bench")
                if not self._held:
                    self._fill(client, jobs)
                self._wait_until_quiet()
                self._add(variant, "none", *self._load(client, jobs))
                with self._scrubbing():
                    self._add(variant, "scrub", *self._load(client, jobs))
                self._held = self._on_device() or 0
            self._empty()
            with self._running() as client:
                began, refilled = time.perf_counter(), self._refilled()
                self._add(variant, "refill", *self._load(client, Swift(client, "bench"), refilled), since=began)
            self._empty()
            with self._running():
                began, refilled = time.perf_counter(), self._refilled()
                refilled.wait()
                self._add(variant, "refill", Result(), Result(), since=began)

    @contextmanager
    def _running(self) -> Iterator[CloudClient]:
        cloud = RunningCloud.start(self._data, "--workers", "2")
        try:
            with closing(CloudClient(self._data)) as client:
                yield client
        finally:
            cloud.stop()

    def _fill(self, client: CloudClient, jobs: Swift) -> None:
        self._send(client, [jobs.container()], 60, 1)
        puts = [jobs.put(name_of(number), body_of(number, SIZE)) for number in range(self._objects)]
        self._send(client, puts, 3600, 16)

    def _load(self, client: CloudClient, jobs: Swift, until: threading.Event | None = None) -> tuple[Result, Result]:
        """(PUTs, GETs) of so many seconds each, or in turns until then."""
        choose = random.Random(7)
        put, get = Result(), Result()

        def puts() -> Iterator[Job]:
            for number in self._numbers:
                yield jobs.put(name_of(number), body_of(number, SIZE))

        def gets() -> Iterator[Job]:
            while True:
                number = choose.randrange(self._objects)
                yield jobs.get(name_of(number), body_of(number, SIZE))

        slice_s = self._seconds if until is None else 1.0
        while True:
            for total, some in ((put, puts()), (get, gets())):
                done = self._send(client, some, slice_s, self._clients)
                total.seconds += done.seconds
                total.latencies_s += done.latencies_s
            if until is None or until.is_set():
                return put, get

    def _send(self, client: CloudClient, jobs: list[Job] | Iterator[Job], seconds: float, clients: int) -> Result:
        parts = urlsplit(client.objects)
        result = run((parts.hostname or "", parts.port or 80), iter(jobs), concurrency=clients, seconds=seconds)
        if result.errors:
            raise SystemExit(f"operations failed: {dict(result.errors)}")
        return result

    # ---- work

    def _recon(self) -> Cloud:
        return trio.run(gather, make_world(), self._layout)

    def _wait_until_quiet(self) -> None:
        while any(one.current is not None for one in self._recon().workers if "auditor" in one.name):
            time.sleep(LOOK_S)

    @contextmanager
    def _scrubbing(self) -> Iterator[None]:
        """Auditors that begin again when they have ended."""
        over = threading.Event()

        def keep_busy() -> None:
            while not over.wait(LOOK_S):
                for number, process in self._recon().processes.items():
                    for one in process.recon.workers if process.recon is not None else ():
                        if "auditor" in one.name and one.current is None:
                            trio.run(ask_to_run, make_world(), self._layout, number, one.name)

        thread = threading.Thread(target=keep_busy)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def _on_device(self) -> int | None:
        return next((device.objects for device in self._recon().devices if device.id == DEVICE), None)

    def _empty(self) -> None:
        """As an operator puts a new disk in the place of one that broke."""
        root = self._layout.device(DEVICE)
        record = self._layout.read_record()
        assert record is not None
        shutil.rmtree(root)
        root.mkdir(mode=0o700)
        trio.run(partial(replace, make_world(), self._layout, record, DEVICE, force=True))

    def _refilled(self) -> threading.Event:
        """Set when its peers have brought the device all."""
        done = threading.Event()

        def look() -> None:
            while any(device.id == DEVICE and device.refilling is not None for device in self._recon().devices):
                time.sleep(LOOK_S)
            done.set()

        threading.Thread(target=look, daemon=True).start()
        return done

    def _add(self, variant: str, work: str, put: Result, get: Result, *, since: float | None = None) -> None:
        took = None if since is None else time.perf_counter() - since
        seconds = put.seconds + get.seconds
        row = Row(
            variant,
            work,
            put.percentile_ms(50),
            put.percentile_ms(99),
            get.percentile_ms(50),
            get.percentile_ms(99),
            (put.operations + get.operations) / seconds if seconds else None,
            took,
            self._held / took if took else None,
        )
        self.rows.append(row)
        print(line(row), flush=True)


HEADING = (
    f"{'work':10}{'with':10}{'PUT p50 ms':>11}{'p99':>9}{'GET p50 ms':>12}{'p99':>9}{'ops/s':>8}"
    f"{'refilled in s':>15}{'versions/s':>12}"
)


def line(row: Row) -> str:
    figures = (row.put_p50_ms, row.put_p99_ms, row.get_p50_ms, row.get_p99_ms, row.operations_per_s, row.refill_s, row.refill_per_s)
    shown = ["-" if value is None else f"{value:.1f}" for value in figures]
    widths = (11, 9, 12, 9, 8, 15, 12)
    return f"{row.variant:10}{row.work:10}" + "".join(f"{text:>{width}}" for text, width in zip(shown, widths, strict=True))


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--objects", type=int, default=20_000)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="ringfort-pacing-"))
    try:
        bench = Bench(folder / "cloud", options.objects, options.seconds, options.clients)
        print(HEADING)
        bench.run()
        if options.json:
            print(json.dumps([asdict(row) for row in bench.rows], indent=2))
    finally:
        shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
