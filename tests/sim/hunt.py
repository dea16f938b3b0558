"""Many seeds, as many at a time as there are cores, with a progress line.

A simulated run leaves cycles, and the garbage collector is off while one is played: each process collects after each seed.  A seed
that comes to no end (a loop without an await, which no virtual time limit ends) shows where it is, and ends the hunt.
"""

from __future__ import annotations

import faulthandler
import gc
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from itertools import islice

from tests.sim.run import Report, play

HANGS_S = 600.0  # of this machine: a seed takes seconds
MUTANT_SEEDS = 200  # within so many each mutant must be caught
Job = tuple[int, str]  # seed, mutant


def reports(jobs: Sequence[Job], *, cores: int = 0) -> Generator[Report, None, None]:
    """As they are ready, without their traces.  Closing the iterator ends it: what runs is waited for, the rest is not begun."""
    cores = cores or os.cpu_count() or 1
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(cores, mp_context=context) as pool:
        left = iter(jobs)
        running: dict[Future[Report], Job] = {}

        def begin(count: int) -> None:
            running.update((pool.submit(_play, *job), job) for job in islice(left, count))

        begin(2 * cores)
        while running:
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            try:
                found = [future.result() for future in done]
            except BrokenProcessPool as error:
                raise RuntimeError(f"a process ended while these (seed, mutant) ran: {[*running.values()]}") from error
            for future in done:
                del running[future]
            begin(len(done))
            yield from found


def _play(seed: int, mutant: str) -> Report:
    faulthandler.dump_traceback_later(HANGS_S, exit=True)
    try:
        return play(seed, mutant, keep_trace=False)
    finally:
        faulthandler.cancel_dump_traceback_later()
        gc.collect()


@dataclass
class Progress:
    """One line that is written over: how many, how fast, how long still.  Nothing of it where nobody looks."""

    total: int
    title: str = "seeds"
    done: int = 0
    failed: int = 0
    cpu_s: float = 0.0
    begun: float = field(default_factory=time.monotonic)
    write: Callable[[str], object] = sys.stderr.write
    shown: bool = field(default_factory=sys.stderr.isatty)
    _last: float = 0.0

    def count(self, report: Report) -> None:
        self.done += 1
        self.failed += bool(report.violations)
        self.cpu_s += report.cpu_s
        now = time.monotonic()
        if self.shown and (now - self._last > 0.2 or self.done == self.total):
            self._last = now
            self.write(f"\r{self.line(now - self.begun)}\x1b[K")
            if self.done == self.total:
                self.end()

    def say(self, line: str) -> None:
        """Above the progress."""
        self.write(f"\r{line}\x1b[K\n" if self.shown else f"{line}\n")

    def end(self) -> None:
        if self.shown:
            self.write("\n")

    def line(self, elapsed_s: float) -> str:
        rate = self.done / max(elapsed_s, 1e-9)
        left_s = (self.total - self.done) / rate if rate else 0.0
        return (
            f"{self.title}: {self.done}/{self.total}, {self.failed} failed, {60 * rate:.0f} a minute, "
            f"{self.cpu_s / max(1, self.done):.2f} s cpu each, {left_s // 60:.0f} min {left_s % 60:.0f} s left"
        )

    def summary(self) -> str:
        elapsed_s = time.monotonic() - self.begun
        return f"{self.done} seeds in {elapsed_s:.0f} s, {self.cpu_s / max(1, self.done):.2f} s cpu each, {self.failed} failed"
