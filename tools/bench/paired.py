"""Two versions of the program in turn: cpu of one device's puts and gets, and the ratio of each pair of slices.

python tools/bench/paired.py OLD NEW [--folder DIR] [--cell 64:noise ...] [--rounds 20] [--seconds 0.2]

OLD and NEW are checkouts.  A process for each, one device each; they work by turns, so what else the machine does meets both, and
the median of the pairs' ratios says something where rates say nothing.  A cell is ``writers:noise`` or ``writers:text`` (puts of
4 KiB that do not or do compress), ``1:get`` or ``1:head``.  Neighbours: packs.py (what is measured), of each checkout its own.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence

CELLS = ("64:noise", "64:text", "16:noise", "1:noise", "1:get", "1:head")


class Side:
    """The process of one checkout."""

    def __init__(self, checkout: str, folder: str) -> None:
        words = [sys.executable, os.path.abspath(__file__), "--child", folder]
        self._process = subprocess.Popen(words, cwd=checkout, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def slice(self, cell: str, seconds: float) -> tuple[float, float]:
        """Microseconds of cpu for each operation, and operations a second."""
        assert self._process.stdin is not None and self._process.stdout is not None
        print(cell, seconds, file=self._process.stdin, flush=True)
        count, took, cpu = map(float, self._process.stdout.readline().split())
        return 1e6 * cpu / count, count / took

    def end(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def serve(folder: str) -> None:
    """The child: one device of the checkout that is the current folder, worked as each line of the input says."""
    sys.path.insert(0, os.getcwd())
    import trio

    from tools.bench import packs

    async def main(place: str) -> None:
        async with packs.bench_device(place, "device") as (_, store):
            done = (await packs.puts(store, 64, 0, packs.NOISE, 0.3))[0]
            while line := await trio.to_thread.run_sync(sys.stdin.readline):
                cell, seconds = line.split()
                writers, what = cell.split(":")
                packs.SECONDS = float(seconds)
                if what == "get":
                    found = await packs._gets(store, 0, done)
                elif what == "head":
                    found = await packs._heads(store, done)
                else:
                    found = await packs.puts(store, int(writers), done, getattr(packs, what.upper()), float(seconds))
                    done += found[0]
                print(*found, flush=True)

    place = tempfile.mkdtemp(prefix="bench-paired-", dir=folder)
    try:
        trio.run(main, place)
    finally:
        shutil.rmtree(place)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="two versions of the program in turn")
    parser.add_argument("old", help="a checkout")
    parser.add_argument("new", help="another one")
    parser.add_argument("--folder", default=".", help="on the disk to measure; /dev/shm is memory")
    parser.add_argument("--cell", action="append", help=f"default: {' '.join(CELLS)}")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=0.2, help="of each slice")
    options = parser.parse_args(arguments)
    sides = [Side(checkout, os.path.abspath(options.folder)) for checkout in (options.old, options.new)]
    for cell in options.cell or CELLS:
        pairs: list[list[tuple[float, float]]] = []
        for number in range(options.rounds):
            order = (0, 1) if number % 2 else (1, 0)
            found = {side: sides[side].slice(cell, options.seconds) for side in order}
            pairs.append([found[0], found[1]])
        old, new = (statistics.median(pair[side][0] for pair in pairs) for side in (0, 1))
        cpu, rate = (statistics.median(pair[1][what] / pair[0][what] for pair in pairs) for what in (0, 1))
        print(f"{cell:10} {old:8.1f} -> {new:8.1f} us cpu   ratio of cpu {cpu:.2f}, of rate {rate:.2f}", flush=True)
    for side in sides:
        side.end()


if __name__ == "__main__":
    serve(sys.argv[2]) if sys.argv[1:2] == ["--child"] else main()
