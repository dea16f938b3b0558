"""What the object store does per second, and what each operation costs it in cpu, over S3 and Swift (``make bench``).

    python -m tools.bench.objects [--quick] [--json] [--data DIR [--endpoint URL]]

Starts a cloud of its own in a temporary folder (4 devices, 3 replicas), or loads the one that runs in DIR.  The load runs on the
same machine and takes cpu from it, so the cpu per operation of all the cloud's processes is the figure to compare, not the rate.
Beside it stands what OpenStack Swift costs.  Exit status 1 when an answer was wrong or an operation failed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote, urlsplit
from uuid import uuid4

from ring.errors import RingfortError
from tools.bench.load import Job, Result, run
from tools.deploy.session import CloudClient, RunningCloud

REFERENCE = "OpenStack Swift 2.38.3, 3 replicas, measured on a machine of this kind"
REFERENCE_CPU_MS = {
    ("swift", "PUT 4 KiB"): 16.5,
    ("swift", "GET 4 KiB"): 3.65,
    ("swift", "PUT 1 MiB"): 23.6,
    ("swift", "GET 1 MiB"): 7.1,
    ("swift", "list 1,000"): 26.0,
    ("s3", "PUT 4 KiB"): 16.2,
    ("s3", "GET 4 KiB"): 3.8,
    ("s3", "PUT 1 MiB"): 26.3,
    ("s3", "GET 1 MiB"): 7.7,
    ("s3", "list 1,000"): 45.5,
}
SIZES = {"4 KiB": 4 << 10, "1 MiB": 1 << 20}
OBJECTS_MAX = {"4 KiB": 100_000, "1 MiB": 150}  # of one run: what it may take on the disk
LISTED = 2000
PAGE = 1000
BLOCK = 1 << 20
_PATTERN = memoryview(random.Random(20260101).randbytes(2 * BLOCK))


def body_of(number: int, size: int) -> memoryview:
    """Of the object of this number; objects near each other differ."""
    start = number * 7919 % BLOCK
    return _PATTERN[start : start + size]


def name_of(number: int) -> str:
    return f"photos/{number:08d}.bin"


class Swift:
    """Jobs in Swift's words."""

    name = "swift"

    def __init__(self, client: CloudClient, container: str) -> None:
        self._path = f"{urlsplit(client.urls['object-store']).path}/{container}"
        host = urlsplit(client.objects).netloc
        self._fields = f"Host: {host}\r\nX-Auth-Token: {client.token}\r\n"

    def container(self) -> Job:
        return Job(self._head("PUT", self._path, "Content-Length: 0\r\n"), statuses=(201, 202))

    def put(self, name: str, body: memoryview) -> Job:
        return Job(self._head("PUT", f"{self._path}/{quote(name)}", f"Content-Length: {len(body)}\r\n"), body, statuses=(201,))

    def get(self, name: str, body: memoryview) -> Job:
        return Job(self._head("GET", f"{self._path}/{quote(name)}"), statuses=(200,), expected=body)

    def delete(self, name: str) -> Job:
        return Job(self._head("DELETE", f"{self._path}/{quote(name)}" if name else self._path), statuses=(204,))

    def page(self, names: Sequence[str], marker: str) -> Job:
        target = f"{self._path}?format=json&limit={len(names)}&marker={quote(marker, safe='')}"
        return Job(self._head("GET", target), statuses=(200,), check=page_check(names, rb'"name": ?"([^"]*)"'))

    def _head(self, method: str, target: str, more: str = "") -> bytes:
        return f"{method} {target} HTTP/1.1\r\n{self._fields}{more}\r\n".encode()


class S3:
    """Jobs in S3's words, each signed."""

    name = "s3"

    def __init__(self, client: CloudClient, bucket: str) -> None:
        self._signer = client.signer
        self._bucket = bucket

    def container(self) -> Job:
        return Job(self._head("PUT", "", more="Content-Length: 0\r\n"), statuses=(200,))

    def put(self, name: str, body: memoryview) -> Job:
        return Job(self._head("PUT", name, more=f"Content-Length: {len(body)}\r\n"), body, statuses=(200,))

    def get(self, name: str, body: memoryview) -> Job:
        return Job(self._head("GET", name), statuses=(200,), expected=body)

    def delete(self, name: str) -> Job:
        return Job(self._head("DELETE", name), statuses=(204,))

    def page(self, names: Sequence[str], marker: str) -> Job:
        query = {"list-type": "2", "max-keys": str(len(names)), "start-after": marker}
        return Job(self._head("GET", "", query), statuses=(200,), check=page_check(names, b"<Key>([^<]*)<"))

    def _head(self, method: str, key: str, query: dict[str, str] | None = None, *, more: str = "") -> bytes:
        path = f"/{self._bucket}/{key}" if key else f"/{self._bucket}"
        signed = self._signer.headers(method, path, query, now=time.time())
        target = quote(path, safe="/~")
        if query:
            target += "?" + "&".join(f"{name}={quote(value, safe='~')}" for name, value in query.items())
        fields = "".join(f"{name}: {value}\r\n" for name, value in signed.items())
        return f"{method} {target} HTTP/1.1\r\nHost: {self._signer.host}\r\n{fields}{more}\r\n".encode()


Dialect = Swift | S3


def page_check(names: Sequence[str], pattern: bytes) -> Callable[[bytes], str]:
    """A check that a page has exactly ``names``; the group of ``pattern`` is one."""
    wanted = [name.encode() for name in names]

    def check(page: bytes) -> str:
        found = re.findall(pattern, page)
        if found == wanted:
            return ""
        return f"a page of {len(found)} names, not {len(wanted)}" if len(found) != len(wanted) else "a page of other names"

    return check


@dataclass(frozen=True, slots=True)
class Cell:
    """One line of the table."""

    api: str
    operation: str
    concurrency: int
    result: Result

    @property
    def reference_cpu_ms(self) -> float:
        return REFERENCE_CPU_MS[self.api, self.operation]

    @property
    def ratio(self) -> float | None:
        """How many times less cpu than the reference."""
        cpu_ms = self.result.cpu_ms
        return self.reference_cpu_ms / cpu_ms if cpu_ms else None

    def as_json(self) -> dict[str, object]:
        result = self.result
        return {
            "api": self.api,
            "operation": self.operation,
            "concurrency": self.concurrency,
            "operations": result.operations,
            "seconds": round(result.seconds, 3),
            "ops_per_s": round(result.per_second, 1),
            "mb_per_s": round(result.mb_per_second, 2),
            "p50_ms": _rounded(result.percentile_ms(50)),
            "p99_ms": _rounded(result.percentile_ms(99)),
            "cpu_ms_per_op": _rounded(result.cpu_ms),
            "reference_cpu_ms_per_op": self.reference_cpu_ms,
            "ratio": _rounded(self.ratio),
            "errors": dict(result.errors),
        }


HEADING = (
    f"{'':6}{'operation':11}{'at once':>8}{'ops/s':>9}{'MB/s':>9}{'p50 ms':>9}{'p99 ms':>9}{'cpu ms/op':>11}"
    f"{'Swift':>8}{'ratio':>8}{'errors':>8}"
)


def line(cell: Cell) -> str:
    result = cell.result
    ratio = f"{cell.ratio:.1f}x" if cell.ratio is not None else "-"
    return (
        f"{cell.api:6}{cell.operation:11}{cell.concurrency:8}{result.per_second:9.0f}{result.mb_per_second:9.1f}"
        f"{_shown(result.percentile_ms(50)):>9}{_shown(result.percentile_ms(99)):>9}{_shown(result.cpu_ms, 3):>11}"
        f"{cell.reference_cpu_ms:8.2f}{ratio:>8}{result.errors.total():8}"
    )


def _rounded(value: float | None) -> float | None:
    return round(value, 4) if value is not None else None


def _shown(value: float | None, digits: int = 2) -> str:
    return f"{value:.{digits}f}" if value is not None else "-"


class Bench:
    """Runs the cells one after another and tells ``show`` of each."""

    def __init__(self, client: CloudClient, pids: Sequence[int], seconds: float, show: Callable[[Cell], None]) -> None:
        self._client = client
        self._pids = pids
        self._seconds = seconds
        self._show = show
        self._random = random.Random(7)
        parts = urlsplit(client.objects)
        self._address = (parts.hostname or "127.0.0.1", parts.port or 80)
        self.cells: list[Cell] = []

    def run(self) -> None:
        tag = uuid4().hex[:12]
        for dialect in (Swift, S3):
            for size in SIZES:
                self._objects(dialect(self._client, f"bench-{tag}-{dialect.name}-{SIZES[size]}"), size)
            self._listing(dialect(self._client, f"bench-{tag}-{dialect.name}-list"))

    def _objects(self, jobs: Dialect, size: str) -> None:
        self._once(jobs.container())
        warm = [f"warm-{number}" for number in range(16)]
        self._load((jobs.put(name, body_of(0, SIZES[size])) for name in warm), 4)
        stored = 0

        def puts() -> Iterator[Job]:
            nonlocal stored
            for _ in range(OBJECTS_MAX[size]):
                yield jobs.put(name_of(stored), body_of(stored, SIZES[size]))
                stored += 1

        def gets() -> Iterator[Job]:
            while stored:
                number = self._random.randrange(stored)
                yield jobs.get(name_of(number), body_of(number, SIZES[size]))

        for concurrency in (1, 16):
            self._measure(jobs, f"PUT {size}", concurrency, puts())
        for concurrency in (1, 16):
            self._measure(jobs, f"GET {size}", concurrency, gets())
        self._remove(jobs, [*warm, *map(name_of, range(stored))] if SIZES[size] > 64 << 10 else [])

    def _listing(self, jobs: Dialect) -> None:
        self._once(jobs.container())
        names = [name_of(number) for number in range(LISTED)]
        self._load((jobs.put(name, body_of(0, 16)) for name in names), 16)

        def pages() -> Iterator[Job]:
            while True:
                at = self._random.randrange(LISTED - PAGE)
                yield jobs.page(names[at + 1 : at + 1 + PAGE], names[at])

        for concurrency in (1, 16):
            self._measure(jobs, "list 1,000", concurrency, pages())

    def _remove(self, jobs: Dialect, names: Sequence[str]) -> None:
        """What takes room: the next cells must not wait for its write-back."""
        self._load((jobs.delete(name) for name in names), 16)

    def _measure(self, jobs: Dialect, operation: str, concurrency: int, load: Iterator[Job]) -> None:
        result = run(self._address, load, concurrency=concurrency, seconds=self._seconds, pids=self._pids)
        if not result.operations and not result.errors:
            result.errors["nothing was done"] += 1
        cell = Cell(jobs.name, operation, concurrency, result)
        self.cells.append(cell)
        self._show(cell)

    def _load(self, load: Iterator[Job], concurrency: int) -> None:
        result = run(self._address, load, concurrency=concurrency, seconds=60.0)
        if result.errors:
            raise LoadFailed(f"preparing a run failed: {dict(result.errors)}")

    def _once(self, job: Job) -> None:
        self._load(iter([job]), 1)


class LoadFailed(RingfortError):
    """The cloud did not take what a run needs."""


def pids_of(data: Path) -> list[int]:
    """The processes of the cloud that runs in this folder: who took its lock, and its workers.  Empty when none runs."""
    main = locker(Path("/proc/locks").read_text(), (data / "lock").stat().st_ino)
    if main is None:
        return []
    threads = Path(f"/proc/{main}/task").glob("*/children")  # a child belongs to the thread that started it
    return [main, *sorted(int(pid) for children in threads for pid in children.read_text().split() if _is_worker(pid))]


def locker(locks: str, inode: int) -> int | None:
    """Who holds a flock on this inode, from /proc/locks (proc(5)): "1: FLOCK ADVISORY WRITE PID MAJOR:MINOR:INODE START END"."""
    for entry in locks.splitlines():
        fields = entry.split()
        if fields[1] == "FLOCK" and fields[5].rpartition(":")[2] == str(inode):
            return int(fields[4])
    return None


def _is_worker(pid: str) -> bool:
    return b"tools.deploy.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="operations per second and cpu per operation of the object store")
    parser.add_argument("--json", action="store_true", help="the figures as one JSON document, at the end")
    parser.add_argument("--quick", action="store_true", help="half a second for each line; rough")
    parser.add_argument("--seconds", type=float, default=3.5, help="for each line (default 3.5)")
    parser.add_argument("--data", type=Path, help="load the cloud that runs in this folder, instead of one of its own")
    parser.add_argument("--endpoint", default="", help="its object API, when it is not where DIR/s3.env says")
    options = parser.parse_args(arguments)
    if options.endpoint and options.data is None:
        parser.error("--endpoint needs --data: the keys are in its folder")
    cells: list[Cell] = []

    def show(cell: Cell) -> None:
        cells.append(cell)
        if not options.json:
            print(line(cell), flush=True)

    try:
        with contextlib.ExitStack() as stack:
            if options.data is None:
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ringfort-bench-")))
                cloud = RunningCloud.start(folder / "cloud")
                stack.callback(cloud.stop)
                data, pids = folder / "cloud", cloud.pids()
            else:
                data, pids = options.data, pids_of(options.data)
            client = CloudClient(data)
            stack.callback(client.close)
            if options.endpoint:
                client.objects = options.endpoint
                client.signer = replace(client.signer, host=urlsplit(options.endpoint).netloc)
            if not options.json:
                print(f"{len(pids) - 1} workers, {os.cpu_count()} cores; Swift: {REFERENCE}\n{HEADING}", flush=True)
            Bench(client, pids, 0.5 if options.quick else options.seconds, show).run()
    except RingfortError as error:
        print(f"objects: {error.message}", file=sys.stderr)
        return 2
    kinds = sorted({f"{cell.api} {cell.operation}: {kind}" for cell in cells for kind in cell.result.errors})
    for kind in kinds:
        print(f"objects: {kind}", file=sys.stderr)
    if options.json:
        print(json.dumps({"reference": REFERENCE, "cores": os.cpu_count(), "cells": [cell.as_json() for cell in cells]}, indent=1))
    return 1 if kinds else 0


if __name__ == "__main__":
    sys.exit(main())
