"""Ringfort's ring beside OpenStack Swift's, on the same clusters in the same run (``make bench-ring``).

    python -m tools.bench.ring [--quick | --full] [--json]

Builds and changes rings of 2^16 and 2^20 partitions x 3 replicas on 1,000 devices, and looks names up.  Every run is a process of
its own (ring_child), one after the other; Swift runs in a venv of its own, installed when it is not there.  ring_layouts has the
clusters, and judges the tables of both by the same code.  Where other work shares the machine, compare cpu seconds: neither side
has a second thread or waits for anything.  Exit status 1 when a goal is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tests.compat.swift_venv import SWIFT_VERSION, swift_python
from tools.bench.ring_layouts import ADD, FIVE, SCENES, Cells, Scene, Worth, judge

ROOT = Path(__file__).resolve().parents[2]
POWERS = (16, 20)
TIMES_FASTER = 10  # the goal for the first build of the largest ring
SEED = 1
HEADING = (
    "| what | | seconds | cpu s | peak MiB | passes | moves | lower bound | balance % | dispersion % |\n"
    "|---|---|---:|---:|---:|---:|---|---:|---:|---:|"
)
LOOKUPS = (
    ("nodes_us", "partition and primaries of a name, us"),
    ("first_handoffs_us", "the first 3 handoffs of a partition, us"),
    ("all_handoffs_us", "all its handoffs, us"),
    ("load_s", "load the ring, ms"),
    ("resident_bytes", "memory that it stays in, MiB"),
    ("peak_bytes", "memory at the peak of loading, MiB"),
    ("file_bytes", "its file, MiB"),
)


@dataclass(frozen=True, slots=True)
class Side:
    name: str
    python: str
    module: str
    runs: int  # of each scene; the median counts


@dataclass(frozen=True, slots=True)
class Result:
    scene: Scene
    part_power: int
    side: str
    seconds: float  # all passes
    cpu: float
    peak_bytes: int
    worth: Worth

    def line(self) -> str:
        worth = self.worth
        moves = " + ".join(f"{count:,}" for count in worth.moves[:3])
        if len(worth.moves) > 1:
            moves += f"{' + ...' if len(worth.moves) > 3 else ''} = **{sum(worth.moves):,}**"
        figures = (
            f"{self.seconds:.2f}",
            f"{self.cpu:.2f}",
            f"{self.peak_bytes / 2**20:.0f}",
            str(len(worth.moves)),
            moves,
            f"{worth.lower_bound:,}",
        )
        cells = (self.scene.name, self.side, *figures, f"{worth.balance:.3f}", f"{worth.dispersion:.3f}")
        return "| " + " | ".join(cells) + " |"

    def as_json(self) -> dict[str, Any]:
        figures = {"seconds": self.seconds, "cpu_seconds": self.cpu, "peak_bytes": self.peak_bytes}
        return {"scene": self.scene.name, "part_power": self.part_power, "side": self.side, **figures, **asdict(self.worth)}


class Bench:
    def __init__(self, folder: Path, sides: Sequence[Side], *, quiet: bool) -> None:
        self.folder = folder
        self.sides = sides
        self.quiet = quiet

    def say(self, text: str) -> None:
        if not self.quiet:
            print(text, flush=True)

    def child(self, side: Side, **job: Any) -> dict[str, Any]:
        print(f"ring: {side.name}: {job['do']} 2^{job['part_power']} ...", file=sys.stderr, flush=True)
        done = subprocess.run(
            [side.python, "-m", side.module], cwd=ROOT, input=json.dumps(job), stdout=subprocess.PIPE, text=True, check=True
        )
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    def saved(self, scene: Scene, part_power: int, side: Side) -> Path:
        return self.folder / f"{side.name}-{part_power}-{scene.zones}.builder"

    def play(self, scene: Scene, part_power: int, side: Side) -> Result:
        """A first build is kept, and the changes of its cluster start from it."""
        saved = self.saved(scene, part_power, side)
        start = [] if scene.changes else [["add", device] for device in scene.devices()]
        answers = [
            self.child(
                side,
                do="rebalance",
                part_power=part_power,
                load=str(saved) if scene.changes else "",
                changes=[*start, *scene.changes],
                save="" if scene.changes else str(saved),
                table=str(self.folder / f"{side.name}-table"),
                passes=scene.passes_max,
                seed=SEED,
            )
            for _ in range(side.runs)
        ]
        tables = [_cells(paths) for paths in answers[-1]["tables"]]
        return Result(
            scene,
            part_power,
            side.name,
            statistics.median(sum(answer["seconds"]) for answer in answers),
            statistics.median(sum(answer["cpu"]) for answer in answers),
            max(answer["peak_bytes"] for answer in answers),
            judge(scene, tables),
        )

    def rebalances(self, part_power: int, skipped: Sequence[Scene]) -> list[Result]:
        """Swift does not play what is skipped."""
        self.say(f"\n2^{part_power} partitions x 3 replicas, 1,000 devices\n\n{HEADING}")
        results = []
        for scene in SCENES:
            for side in self.sides[: 1 if scene in skipped else None]:
                results.append(self.play(scene, part_power, side))
                self.say(results[-1].line())
        return results

    def lookups(self, part_power: int, rounds: int = 3) -> dict[str, dict[str, float]]:
        """By side.  The two take turns; the medians count.  Both read the same table, the last that ours left."""
        rows = [str(self.folder / f"{self.sides[0].name}-table-1-{number}") for number in range(3)]
        self.play(FIVE, part_power, Side(self.sides[0].name, self.sides[0].python, self.sides[0].module, 1))
        answers: dict[str, list[dict[str, Any]]] = {side.name: [] for side in self.sides}
        files = {}
        for side in self.sides:
            path = str(self.folder / f"{side.name}-{part_power}.ring")
            written = self.child(side, do="write", part_power=part_power, path=path, devices=FIVE.devices(), rows=rows)
            files[side.name] = written["file_bytes"]
        for _ in range(rounds):
            for side in self.sides:
                path = str(self.folder / f"{side.name}-{part_power}.ring")
                answers[side.name].append(self.child(side, do="lookup", part_power=part_power, path=path))
        keys = [key for key, _ in LOOKUPS if key != "file_bytes"]
        result = {name: {key: statistics.median(a[key] for a in of) for key in keys} for name, of in answers.items()}
        for name, figures in result.items():
            figures["file_bytes"] = files[name]
            figures["handoffs_least"], figures["handoffs_most"] = answers[name][0]["handoffs_given"]
        return result


def _cells(paths: Sequence[str]) -> Cells | None:
    return np.stack([np.fromfile(path, np.uint16) for path in paths]) if paths else None


def lookup_lines(part_power: int, figures: dict[str, dict[str, float]]) -> list[str]:
    ours, theirs = figures.values()
    lines = [
        "",
        f"Lookups, and the ring at 2^{part_power} x 3",
        "",
        "| what | " + " | ".join(figures) + " | ratio |",
        "|---|---:|---:|---:|",
    ]
    for key, title in LOOKUPS:
        scale = 1000 if key == "load_s" else 1 / 2**20 if key.endswith("bytes") else 1
        lines.append(f"| {title} | {ours[key] * scale:.1f} | {theirs[key] * scale:.1f} | {theirs[key] / ours[key]:.1f}x |")
    counts = [f"{f['handoffs_least']:.0f} to {f['handoffs_most']:.0f}" for f in figures.values()]
    return [*lines, f"| handoffs given | {counts[0]} | {counts[1]} | |"]


def goals(results: Sequence[Result], ours: str) -> list[tuple[bool, str]]:
    """What is to be reached, and whether it is."""
    mine = [result for result in results if result.side == ours]
    pairs = [(a, b) for a in mine for b in results if b.side != ours and (a.scene, a.part_power) == (b.scene, b.part_power)]
    found = []
    for a, b in pairs:
        if a.scene == FIVE:
            faster = b.cpu / a.cpu
            needed = TIMES_FASTER if a.part_power == max(POWERS) else 1
            found.append(
                (faster >= needed, f"the first build at 2^{a.part_power} takes {faster:.1f} times less cpu, to be {needed}")
            )
    over = [f"{r.scene.name} at 2^{r.part_power}" for r in mine if sum(r.worth.moves) != r.worth.lower_bound]
    found.append(
        (not over, f"moves equal the lower bound in {len(mine) - len(over)} of {len(mine)}" + "".join(f"; not: {o}" for o in over))
    )
    worse = [f"{a.scene.name} at 2^{a.part_power}" for a, b in pairs if a.worth.balance > b.worth.balance + 1e-9]
    found.append(
        (not worse, f"balance is no worse in {len(pairs) - len(worse)} of {len(pairs)}" + "".join(f"; not: {w}" for w in worse))
    )
    crowded = [f"{a.scene.name} at 2^{a.part_power}" for a, b in pairs if a.worth.dispersion > b.worth.dispersion + 1e-9]
    found.append(
        (
            not crowded,
            f"dispersion is no worse in {len(pairs) - len(crowded)} of {len(pairs)}" + "".join(f"; not: {c}" for c in crowded),
        )
    )
    broken = sum(r.worth.twice + r.worth.hasty for r in mine)
    found.append((not broken, f"partitions with two replicas on a device, or that lost two at once: {broken}"))
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Ringfort's ring beside OpenStack Swift's")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="2^16 only: two minutes")
    size.add_argument("--full", action="store_true", help="Swift plays every change at 2^20 too: an hour")
    parser.add_argument("--json", action="store_true", help="the figures as one JSON document, at the end")
    options = parser.parse_args(arguments)
    print(f"ring: Swift {SWIFT_VERSION} in a venv of its own ...", file=sys.stderr, flush=True)
    sides = (
        Side("Ringfort", sys.executable, "tools.bench.ring_ours", 3),
        Side("Swift", str(swift_python()), "tools.bench.ring_swift", 1),
    )
    load_before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="ringfort-bench-ring-") as folder:
        bench = Bench(Path(folder), sides, quiet=options.json)
        bench.say(f"Swift {SWIFT_VERSION}; {os.cpu_count()} cores, load {load_before:.1f} at the start")
        powers = POWERS[:1] if options.quick else POWERS
        results = []
        for power in powers:
            skipped = [] if power == POWERS[0] or options.full else [scene for scene in SCENES if scene not in (FIVE, ADD)]
            results += bench.rebalances(power, skipped)
        figures = bench.lookups(powers[-1])
    bench.say("\n".join(lookup_lines(powers[-1], figures)))
    reached = goals(results, sides[0].name)
    bench.say(
        f"\nload {os.getloadavg()[0]:.1f} at the end\n"
        + "\n".join(f"{'reached' if ok else 'MISSED'}: {text}" for ok, text in reached)
    )
    if options.json:
        answer = {
            "swift": SWIFT_VERSION,
            "cores": os.cpu_count(),
            "load": [load_before, os.getloadavg()[0]],
            "rebalances": [result.as_json() for result in results],
            "lookups": {"part_power": powers[-1], **figures},
            "goals": [{"reached": ok, "what": text} for ok, text in reached],
        }
        print(json.dumps(answer, indent=1))
    return 0 if all(ok for ok, _ in reached) else 1


if __name__ == "__main__":
    sys.exit(main())
