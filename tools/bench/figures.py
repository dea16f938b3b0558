"""Figures of several rounds: their medians, as a table for people, for a page of the docs, and as JSON; and the machine's line.

Neighbours: storage (measures).
"""

from __future__ import annotations

import os
import platform
import re
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

BEGIN, END = "<!-- bench-storage: begin -->", "<!-- bench-storage: end -->"


@dataclass(slots=True)
class Table:
    """Lines by columns; every cell collects one value a round."""

    title: str
    columns: tuple[str, ...]
    cells: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    note: str = ""

    def put(self, line: str, values: dict[str, float]) -> None:
        for column, value in values.items():
            assert column in self.columns, column
            self.cells.setdefault(line, {}).setdefault(column, []).append(value)

    def median(self, line: str, column: str) -> float | None:
        values = self.cells[line].get(column)
        return statistics.median(values) if values else None

    def markdown(self) -> str:
        rows = [f"| | {' | '.join(self.columns)} |", "|---|" + "---:|" * len(self.columns)]
        for line in self.cells:
            rows.append(f"| {line} | {' | '.join(shown(self.median(line, column)) for column in self.columns)} |")
        return "\n".join([f"**{self.title}**{' ' + self.note if self.note else ''}", "", *rows])

    def as_json(self) -> dict[str, object]:
        lines = {
            line: {column: {"median": statistics.median(values), "rounds": values} for column, values in cells.items()}
            for line, cells in self.cells.items()
        }
        return {"title": self.title, "lines": lines}


def shown(value: float | None) -> str:
    """With three digits that say something."""
    if value is None:
        return ""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def machine(folder: str) -> str:
    """Cores, their kind, the disk of ``folder`` with the time of one sync, the load."""
    model = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    system = f"Linux {platform.release().split('-')[0]}, Python {platform.python_version()}"
    loads = " ".join(f"{load:.1f}" for load in os.getloadavg())
    cpu = f"{os.cpu_count()} cores ({model[1] if model else platform.machine()})"
    return f"{cpu}; {disk_of(folder)}, a 4 KiB append with fdatasync {1e3 * sync_s(folder):.2f} ms; {system}; load {loads}"


def disk_of(folder: str) -> str:
    """The file system and what is known of the disk below it, from /proc/self/mountinfo (proc(5)) and /sys."""
    device = os.stat(folder).st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    kind = next(
        (
            line.split(" - ")[1].split()[0]
            for line in Path("/proc/self/mountinfo").read_text().splitlines()
            if line.split()[2] == number
        ),
        "unknown file system",
    )
    block = Path(f"/sys/dev/block/{number}").resolve()
    if not block.exists():
        return kind
    if block.name.startswith("vd"):
        return f"{kind} on {block.name} (a virtual disk)"
    rotational = next((path for path in (block / "queue/rotational", block.parent / "queue/rotational") if path.exists()), None)
    turns = rotational is not None and rotational.read_text().strip() == "1"
    return f"{kind} on {block.name} ({'a rotating disk' if turns else 'no rotating disk'})"


def sync_s(folder: str, times: int = 50) -> float:
    """Median seconds of an append of 4 KiB with its sync."""
    path = os.path.join(folder, "sync-probe")
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    taken = []
    try:
        for _ in range(times):
            begin = time.perf_counter()
            os.write(descriptor, bytes(4096))
            os.fdatasync(descriptor)
            taken.append(time.perf_counter() - begin)
    finally:
        os.close(descriptor)
        os.unlink(path)
    return statistics.median(taken)


def write_between(page: Path, text: str) -> None:
    """Replace what stands between the page's markers.  ValueError when it has none."""
    old = page.read_text()
    if old.count(BEGIN) != 1 or old.count(END) != 1 or old.index(BEGIN) > old.index(END):
        raise ValueError(f"{page} has no lines {BEGIN} and {END}")
    head, _, rest = old.partition(BEGIN)
    page.write_text(f"{head}{BEGIN}\n{text}\n{END}{rest.partition(END)[2]}")


def together(tables: Sequence[Table]) -> str:
    return "\n\n".join(table.markdown() for table in tables if table.cells)
