"""One measured run of one ring implementation, in a process of its own: what ring_ours and ring_swift have in common.

Reads a job from standard input and writes what it measured to standard output, both JSON.  The clock runs during rebalances, the
loading of a ring and lookups only; peak memory is the process's own.  Runs in our interpreter and in Swift's, so it imports
neither.  Neighbours: ring.py writes the jobs and judges the tables.
"""

from __future__ import annotations

import json
import sys
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

PASSES_MAX = 12
REPLICAS = 3
NAMES = 20_000  # more than any cache of names holds
ROUNDS = 5


class Side(ABC):
    """A builder and a ring of one implementation.  Devices are dicts with region, zone, ip, port, name and weight."""

    @abstractmethod
    def create(self, part_power: int) -> None: ...
    @abstractmethod
    def load(self, path: str) -> None: ...
    @abstractmethod
    def save(self, path: str) -> None: ...
    @abstractmethod
    def add(self, device: dict[str, Any]) -> None: ...
    @abstractmethod
    def remove(self, device_id: int) -> None: ...
    @abstractmethod
    def set_weight(self, device_id: int, weight: float) -> None: ...

    @abstractmethod
    def hours_pass(self) -> None:
        """Every partition may move again."""

    @abstractmethod
    def rebalance(self, seed: int) -> bool:
        """One pass.  False when nothing moved."""

    @abstractmethod
    def settled(self) -> bool:
        """Whether nobody would ask for another pass."""

    @abstractmethod
    def rows(self) -> Sequence[bytes]:
        """Of device ids, 2 bytes each in this machine's order."""

    @abstractmethod
    def write_ring(self, path: str, part_power: int, devices: Sequence[dict[str, Any]], rows: Sequence[bytes]) -> None: ...
    @abstractmethod
    def open_ring(self, path: str) -> None: ...

    @abstractmethod
    def nodes(self, name: str) -> object:
        """Partition and primaries of an object."""

    @abstractmethod
    def handoffs(self, partition: int) -> Iterator[object]: ...


def run(side: Side) -> None:
    json.dump(answer(side, json.load(sys.stdin)), sys.stdout)


def answer(side: Side, job: Mapping[str, Any]) -> dict[str, Any]:
    arguments = {name: value for name, value in job.items() if name != "do"}
    work: dict[str, Callable[..., dict[str, Any]]] = {"rebalance": _rebalance, "write": _write, "lookup": _lookup}
    return work[job["do"]](side, **arguments)


def _rebalance(
    side: Side, part_power: int, load: str, changes: list[list[Any]], save: str, table: str, passes: int, seed: int
) -> dict[str, Any]:
    """``table`` is the start of the paths where tables are left: before the first pass, and after each that moved something."""
    tables: list[list[str]] = []

    def leave() -> None:
        tables.append([f"{table}-{len(tables)}-{number}" for number in range(REPLICAS)])
        for path, row in zip(tables[-1], side.rows(), strict=True):
            Path(path).write_bytes(row)

    if load:
        side.load(load)
        leave()
    else:
        side.create(part_power)
        tables.append([])
    verbs: dict[str, Callable[..., None]] = {"add": side.add, "remove": side.remove, "weight": side.set_weight}
    for verb, *arguments in changes:
        verbs[verb](*arguments)
    seconds: list[float] = []
    cpu: list[float] = []
    while len(seconds) < passes:
        side.hours_pass()
        begin, cpu_begin = time.perf_counter(), time.process_time()
        moved = side.rebalance(seed + len(seconds))
        took, cpu_took = time.perf_counter() - begin, time.process_time() - cpu_begin
        if not moved:
            break
        seconds.append(took)
        cpu.append(cpu_took)
        leave()
        if side.settled():
            break
    if save:
        side.save(save)
    return {"seconds": seconds, "cpu": cpu, "tables": tables, "peak_bytes": _memory("VmHWM")}


def _write(side: Side, path: str, part_power: int, devices: list[dict[str, Any]], rows: list[str]) -> dict[str, Any]:
    side.write_ring(path, part_power, devices, [Path(row).read_bytes() for row in rows])
    return {"file_bytes": Path(path).stat().st_size}


def _lookup(side: Side, path: str, part_power: int, names: int = NAMES) -> dict[str, Any]:
    before = _memory("VmRSS")
    begin = time.process_time()
    side.open_ring(path)
    load = time.process_time() - begin
    resident = _memory("VmRSS") - before
    step = max(1, (1 << part_power) // 5000)
    partitions = range(0, 1 << part_power, step)
    given = {len(list(side.handoffs(partition))) for partition in partitions[:20]}
    return {
        "load_s": load,
        "resident_bytes": resident,
        "peak_bytes": _memory("VmHWM") - before,
        "nodes_us": _each_us(side.nodes, [f"photos/{number:08d}.bin" for number in range(names)]),
        "first_handoffs_us": _each_us(lambda partition: list(islice(side.handoffs(partition), REPLICAS)), partitions),
        "all_handoffs_us": _each_us(lambda partition: deque(side.handoffs(partition), 0), partitions[:200]),
        "handoffs_given": [min(given), max(given)],
    }


def _each_us(call: Callable[[Any], object], items: Iterable[Any]) -> float:
    """Of cpu time, in the best of several rounds: what other processes take away only adds."""
    best = float("inf")
    items = list(items)
    for _ in range(ROUNDS):
        begin = time.process_time()
        for item in items:
            call(item)
        best = min(best, time.process_time() - begin)
    return 1e6 * best / len(items)


def _memory(field: str) -> int:
    """Bytes.  Not from getrusage: its peak includes the parent's."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) << 10
    raise LookupError(field)
