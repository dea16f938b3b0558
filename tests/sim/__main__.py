"""The simulator by hand.

    python -m tests.sim --seed 4711 [--mutant NAME]     play one seed and print its trace
    python -m tests.sim --seed 4711 --shrink 120        ... and look for a shorter run that fails likewise, for so many seconds
    python -m tests.sim --seed 1 --until 10000          hunt; failing seeds are shrunk, and printed as one command each
    python -m tests.sim --mutants [--mutant NAME]       hunt for the first seed that catches each mutant

``--faults``, ``--changes``, ``--requests`` (numbers and ranges, or "none") and ``--salt`` play a part of a seed's script.
"""

from __future__ import annotations

import argparse
import sys

from tests.sim import hunt
from tests.sim.mutants import MUTANTS
from tests.sim.run import Report, command, play
from tests.sim.script import Keep, unspell
from tests.sim.shrink import Shrinker

SHRINK_S = 60.0
FAILURES_MAX = 10  # then there is enough to look at


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description="A cloud on a virtual clock, under faults.")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--until", type=int, help="hunt: play all seeds from --seed to this one")
    parser.add_argument("--mutant", choices=sorted(MUTANTS), default="", help="with a broken promise that some checker must notice")
    parser.add_argument("--mutants", action="store_true", help="hunt for seeds that catch mutants (all, or --mutant)")
    parser.add_argument(
        "--shrink", type=float, metavar="SECONDS", help=f"of a hunt: for each failing seed (default {SHRINK_S:.0f})"
    )
    parser.add_argument("--quiet", action="store_true", help="no trace")
    parser.add_argument("--faults", type=unspell, help="which of the seed's faults to play")
    parser.add_argument("--changes", type=unspell, help="which of its ring changes")
    parser.add_argument("--requests", type=unspell, help="which of its clients' requests")
    parser.add_argument("--salt", type=int, default=0, help="another order of tasks")
    options = parser.parse_args()
    if options.mutants:
        return _mutants([options.mutant] if options.mutant else sorted(MUTANTS), options.until or hunt.MUTANT_SEEDS)
    if options.until is not None:
        return _hunt(range(options.seed, options.until + 1), options.mutant, SHRINK_S if options.shrink is None else options.shrink)
    keep = Keep(options.faults, options.changes, options.requests, options.salt)
    report = play(options.seed, options.mutant, keep)
    if not options.quiet:
        print("\n".join(report.trace))
    print(words(report))
    if report.violations and options.shrink:
        print(words(shrunk(report, options.shrink)))
    return 1 if report.violations else 0


def _hunt(seeds: range, mutant: str, shrink_s: float) -> int:
    progress, failed = hunt.Progress(len(seeds)), []
    reports = hunt.reports([(seed, mutant) for seed in seeds])
    for report in reports:
        progress.count(report)
        if report.violations:
            failed.append(report)
            progress.say(f"seed {report.seed}: {report.violations[0]}")
        if len(failed) == FAILURES_MAX:
            progress.say("enough of them; the hunt ends")
            reports.close()
            break
    print(progress.summary())
    for report in failed:
        print(words(shrunk(report, shrink_s) if shrink_s else report))
    return 1 if failed else 0


def _mutants(names: list[str], seeds: int) -> int:
    found: dict[str, int] = {}
    for name in names:
        progress = hunt.Progress(seeds, title=name)
        reports = hunt.reports([(seed, name) for seed in range(1, seeds + 1)])
        for report in reports:
            progress.count(report)
            if report.noticed:
                found[name] = report.seed
                progress.end()
                print(
                    f"{name}: caught by seed {report.seed} ({report.cpu_s:.1f} s): {report.violations[0].splitlines()[0]}",
                    flush=True,
                )
                reports.close()
                break
        else:
            print(f"{name}: nobody noticed it in {seeds} seeds", flush=True)
    return 0 if len(found) == len(names) else 1


def shrunk(report: Report, limit_s: float) -> Report:
    def tell(line: str) -> None:
        if sys.stderr.isatty():
            sys.stderr.write(f"\r{line}\x1b[K")

    shorter = Shrinker(report.seed, report.mutant, limit_s, told=tell).run(report)
    tell("")
    return shorter


def words(report: Report) -> str:
    counts = ", ".join(f"{key}: {count}" for key, count in sorted(report.counts.items()))
    lines = [f"seed {report.seed}: {len(report.violations)} violations, {counts} in {report.virtual_s:.0f} virtual s"]
    if report.violations:
        lines += [f"replay it with\n    {command(report.seed, report.mutant, report.keep)}"]
    return "\n".join([*lines, *(f"  {violation}" for violation in report.violations)])


if __name__ == "__main__":
    sys.exit(main())
