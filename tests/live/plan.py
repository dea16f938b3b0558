"""The plan of a storm: which faults come when, to whom, for how long.  Pure; all of it follows from the seed.

Two threads of misfortune run beside each other: processes are killed and frozen every few seconds, and one disk after the other is
filled, unmounted, made read-only or pulled out.  Nothing here destroys what was durable, so nothing acknowledged may be lost,
whatever comes together.  Neighbours: storm.py (does it).
"""

from __future__ import annotations

import random
from collections.abc import Collection
from dataclasses import dataclass
from enum import Enum


class Deed(Enum):
    KILL_WORKER = "kill -9 of worker"
    KILL_MAIN = "kill -9 of the main process"
    KILL_ALL = "kill -9 of every process"
    FREEZE = "SIGSTOP of worker"
    FILL = "no room on disk"
    UNMOUNT = "umount of disk"
    READ_ONLY = "read-only: disk"
    PULL = "I/O errors on disk"


PROCESSES = (Deed.KILL_WORKER, Deed.FREEZE, Deed.KILL_MAIN, Deed.KILL_ALL)
DISKS = (Deed.FILL, Deed.UNMOUNT, Deed.READ_ONLY, Deed.PULL)
OF_DISKS = frozenset(DISKS)
_WEIGHTS = (6, 5, 1, 1)
CALM_S = 2.0  # at the beginning: everything has written something before anything happens
GAP_S = (1.5, 4.5)
FROZEN_S = (0.5, 5.0)
DISK_EVERY_S = 9.0
DISK_LASTS_S = (2.5, 6.0)


@dataclass(frozen=True, slots=True)
class Fault:
    at_s: float
    deed: Deed
    target: int = -1  # a worker or a device; -1: all
    lasts_s: float = 0.0  # 0: it is over at once

    @property
    def until_s(self) -> float:
        return self.at_s + self.lasts_s

    def __str__(self) -> str:
        whom = f" {self.target}" if self.target >= 0 else ""
        return f"{self.at_s:5.1f} s  {self.deed.value}{whom}" + (f" for {self.lasts_s:.1f} s" if self.lasts_s else "")


def make_plan(seed: int, seconds: float, *, workers: int, devices: int, disk_deeds: Collection[Deed]) -> list[Fault]:
    """In order of time.  Of every kind at least one, where ``seconds`` leave room for them; one disk is struck at a time."""
    rng = random.Random(f"storm/{seed}")
    return sorted(
        [*_of_processes(rng, seconds, workers), *_of_disks(rng, seconds, devices, disk_deeds)],
        key=lambda fault: fault.at_s,
    )


def _of_processes(rng: random.Random, seconds: float, workers: int) -> list[Fault]:
    found = []
    first = rng.sample(PROCESSES, len(PROCESSES))
    at_s = CALM_S + rng.uniform(0, 1)
    while at_s < seconds:
        deed = first.pop() if first else rng.choices(PROCESSES, _WEIGHTS)[0]
        target = rng.randrange(workers) if deed in (Deed.KILL_WORKER, Deed.FREEZE) else -1
        found.append(Fault(at_s, deed, target, rng.uniform(*FROZEN_S) if deed is Deed.FREEZE else 0.0))
        at_s += rng.uniform(*GAP_S)
    return found


def _of_disks(rng: random.Random, seconds: float, devices: int, deeds: Collection[Deed]) -> list[Fault]:
    known = [deed for deed in DISKS if deed in deeds]
    if not known:
        return []
    count = max(1, int((seconds - CALM_S) / DISK_EVERY_S))
    coming = rng.sample(known, len(known))
    coming += rng.choices(known, k=max(0, count - len(known)))
    every_s = (seconds - CALM_S) / len(coming)
    targets: list[int] = []  # each in turn: a device that fails again and again is let back later and later
    while len(targets) < len(coming):
        targets += rng.sample(range(devices), devices)
    return [
        Fault(
            CALM_S + every_s * number + rng.uniform(0, every_s / 4),
            deed,
            targets[number],
            min(rng.uniform(*DISK_LASTS_S), every_s / 2),
        )
        for number, deed in enumerate(coming)
    ]
