"""Where the time of a batch of the log goes: each step of it, mean and median, with some writers at once.

python -m tools.bench.batches [FOLDER] [--writers 64] [--seconds 4]

Watches the log's task, the append that it waits for and the device's thread.  The means say what the machine's other work adds.
Neighbours: packs.py (who writes), storage.object.packs (what is watched).
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import AbstractContextManager, contextmanager
from itertools import pairwise
from typing import Any

import trio

from ring.world.interface import Buffer
from ring.world.real.file import AppendJob, RealFile
from storage.object.packs import Packs
from tools.bench import packs

Events = list[tuple[float, str]]
STEPS = {
    ("batch", "append"): "compressed and encoded",
    ("append", "thread"): "handed over, and the thread has not begun",
    ("thread", "thread ends"): "write and sync",
    ("thread ends", "append ends"): "synced, and trio has not noticed",
    ("append ends", "batch ends"): "landed in the index",
    ("batch ends", "batch"): "writers make their next records",
}


class Rounds(trio.abc.Instrument):
    def __init__(self) -> None:
        self.count = 0

    def before_io_wait(self, timeout: float) -> None:
        self.count += 1


def watch(store_packs: Packs, events: Events) -> None:
    """From now on, for the rest of the process."""

    @contextmanager
    def noting(what: str) -> Any:
        events.append((time.perf_counter(), what))
        try:
            yield
        finally:
            events.append((time.perf_counter(), f"{what} ends"))

    note: Any = noting
    write_batch, append, run_group = store_packs._write_batch, RealFile.append, RealFile.run_group

    async def batch() -> None:
        with note("batch"):
            await write_batch()

    async def appended(file: RealFile, buffers: Sequence[Buffer], *, sync: bool) -> int:
        with note("append"):
            return await append(file, buffers, sync=sync)

    def group(file: RealFile, jobs: Sequence[AppendJob]) -> None:
        held: AbstractContextManager[None] = note("thread")
        with held:
            run_group(file, jobs)

    for owner, name, method in (
        (store_packs, "_write_batch", batch),
        (RealFile, "append", appended),
        (RealFile, "run_group", group),
    ):
        setattr(owner, name, method)


async def bench(folder: str, writers: int, seconds: float) -> None:
    rounds, events = Rounds(), Events()
    trio.lowlevel.add_instrument(rounds)
    async with packs.bench_device(folder, "batches") as (_, store):
        warm = await packs.puts(store, writers, 0, packs.NOISE, 0.3)
        watch(store.packs, events)
        batches, before = store.packs.batches, rounds.count
        count, took, cpu = await packs.puts(store, writers, warm[0], packs.NOISE, seconds)
        batches, passed = store.packs.batches - batches, rounds.count - before
    print(
        f"{count / took:.0f}/s, {1e6 * cpu / count:.1f} us cpu each; {batches} batches, {passed / batches:.1f} rounds of trio each"
    )
    spent: defaultdict[str, list[float]] = defaultdict(list)
    for (begin, one), (end, other) in pairwise(events):
        spent[STEPS.get((one, other), "other")].append(end - begin)
    for step, times in spent.items():
        print(f"{step:44} {1e3 * statistics.mean(times):8.3f} ms mean {1e3 * statistics.median(times):8.3f} median")


def main() -> None:
    parser = argparse.ArgumentParser(description="where the time of a batch of the log goes")
    parser.add_argument("folder", nargs="?", default=".")
    parser.add_argument("--writers", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=4.0)
    options = parser.parse_args()
    folder = tempfile.mkdtemp(prefix="bench-batches-", dir=options.folder)
    try:
        trio.run(bench, folder, options.writers, options.seconds)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
