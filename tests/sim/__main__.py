"""Replay one seed: ``.venv/bin/python -m tests.sim --seed N [--mutant NAME] [--quiet]``."""

from __future__ import annotations

import argparse
import sys
import time

from tests.sim.mutants import MUTANTS
from tests.sim.run import play


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description="Replay a simulated cluster from its seed.")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--mutant", choices=sorted(MUTANTS), default="")
    parser.add_argument("--until", type=int, help="play all seeds from --seed to this one, and print no trace")
    parser.add_argument("--quiet", action="store_true", help="no trace")
    options = parser.parse_args()
    failed = 0
    for seed in range(options.seed, (options.until or options.seed) + 1):
        start = time.perf_counter()
        report = play(seed, options.mutant)
        if not options.quiet and options.until is None:
            print("\n".join(report.trace))
        counts = ", ".join(f"{key}: {count}" for key, count in sorted(report.counts.items()))
        print(f"seed {seed}: {len(report.violations)} violations, {counts} in {report.virtual_s:.0f} virtual s")
        print(f"took {time.perf_counter() - start:.1f} s", file=sys.stderr)
        for violation in report.violations:
            print(f"  {violation}")
        failed += bool(report.violations)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
