"""Numbers about a worker, in Prometheus's text format, and the texts of a machine's workers as one.

Pure: no I/O, no clock, no threads.  A Registry belongs to one worker; ``merge`` adds up what several rendered, so that /metrics is
the same whichever worker answers it.

Standard: Prometheus text exposition format 0.0.4.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_SAMPLE = re.compile(r'([a-zA-Z_:][a-zA-Z0-9_:]*)(\{(?:[^"}]|"(?:[^"\\]|\\.)*")*\})?[ \t]+(\S+)(?:[ \t]+-?\d+)?')


class Counter:
    """Only grows.  Label values are given in the order of the labels' names."""

    kind = "counter"

    def __init__(self, labels: Sequence[str]) -> None:
        self._labels = tuple(labels)
        self._values: dict[tuple[str, ...], float] = {}

    def add(self, amount: float = 1, *labels: str) -> None:
        assert amount >= 0 and len(labels) == len(self._labels)
        self._values[labels] = self._values.get(labels, 0) + amount

    def value(self, *labels: str) -> float:
        return self._values.get(labels, 0)

    def render(self, name: str) -> Iterable[str]:
        for labels, value in self._values.items():
            yield f"{name}{_braces(zip(self._labels, labels, strict=True))} {_number(value)}\n"


class Gauge:
    """Goes up and down.  The workers' gauges are added up: a share of something belongs in one worker, not in each."""

    kind = "gauge"

    def __init__(self, labels: Sequence[str]) -> None:
        self._labels = tuple(labels)
        self._values: dict[tuple[str, ...], float | Callable[[], float | None]] = {}

    def set(self, value: float, *labels: str) -> None:
        assert len(labels) == len(self._labels)
        self._values[labels] = value

    def follow(self, read: Callable[[], float | None], *labels: str) -> None:
        """Ask ``read`` whenever the numbers are rendered; None: it is not known, and left out."""
        assert len(labels) == len(self._labels)
        self._values[labels] = read

    def forget(self, *labels: str) -> None:
        self._values.pop(labels, None)

    def render(self, name: str) -> Iterable[str]:
        for labels, value in self._values.items():
            number = value() if callable(value) else value
            if number is not None:
                yield f"{name}{_braces(zip(self._labels, labels, strict=True))} {_number(number)}\n"


@dataclass(slots=True)
class _Buckets:
    counts: list[int]
    total: float = 0.0


class Histogram:
    kind = "histogram"

    def __init__(self, labels: Sequence[str], bounds: Sequence[float]) -> None:
        assert list(bounds) == sorted(set(bounds))
        self._labels = tuple(labels)
        self._bounds = tuple(bounds)
        self._values: dict[tuple[str, ...], _Buckets] = {}

    def observe(self, value: float, *labels: str) -> None:
        buckets = self._values.get(labels)
        if buckets is None:
            assert len(labels) == len(self._labels)
            buckets = self._values[labels] = _Buckets([0] * (len(self._bounds) + 1))
        buckets.counts[bisect_left(self._bounds, value)] += 1
        buckets.total += value

    def render(self, name: str) -> Iterable[str]:
        for labels, buckets in self._values.items():
            pairs = list(zip(self._labels, labels, strict=True))
            count = 0
            for bound, number in zip((*self._bounds, math.inf), buckets.counts, strict=True):
                count += number
                yield f"{name}_bucket{_braces([*pairs, ('le', _number(bound))])} {count}\n"
            yield f"{name}_sum{_braces(pairs)} {_number(buckets.total)}\n"
            yield f"{name}_count{_braces(pairs)} {count}\n"


class Registry:
    """The metrics of a worker by name.  Asking for a name again gives the same metric."""

    def __init__(self) -> None:
        self._metrics: dict[str, tuple[str, Counter | Gauge | Histogram]] = {}

    def counter(self, name: str, help_text: str, labels: Sequence[str] = ()) -> Counter:
        """``name`` ends in _total."""
        assert name.endswith("_total")
        found = self._enter(name, help_text, labels, Counter(labels))
        assert isinstance(found, Counter)
        return found

    def gauge(self, name: str, help_text: str, labels: Sequence[str] = ()) -> Gauge:
        found = self._enter(name, help_text, labels, Gauge(labels))
        assert isinstance(found, Gauge)
        return found

    def histogram(self, name: str, help_text: str, labels: Sequence[str] = (), bounds: Sequence[float] = SECONDS) -> Histogram:
        """``bounds`` are the buckets' upper ends, inclusive, ascending, without infinity."""
        found = self._enter(name, help_text, labels, Histogram(labels, bounds))
        assert isinstance(found, Histogram)
        return found

    def _enter(
        self, name: str, help_text: str, labels: Sequence[str], metric: Counter | Gauge | Histogram
    ) -> Counter | Gauge | Histogram:
        assert _NAME.fullmatch(name) and all(_NAME.fullmatch(label) for label in labels)
        return self._metrics.setdefault(name, (help_text, metric))[1]

    def render(self) -> str:
        parts: list[str] = []
        for name, (help_text, metric) in self._metrics.items():
            parts.append(f"# HELP {name} {_escape_help(help_text)}\n# TYPE {name} {metric.kind}\n")
            parts.extend(metric.render(name))
        return "".join(parts)


@dataclass(slots=True)
class _Family:
    help_line: str = ""
    type_line: str = ""
    samples: dict[str, float] = field(default_factory=dict)  # name{labels} -> sum


def merge(texts: Iterable[str]) -> str:
    """Several workers' texts as one: samples of the same name and labels are added, what is no sample is left out."""
    families: dict[str, _Family] = {}
    for text in texts:
        current = ""
        for line in text.splitlines():
            if line.startswith(("# HELP ", "# TYPE ")):
                _, word, name, *_ = line.split(" ", 3)
                family = families.setdefault(name, _Family())
                current = name
                if word == "HELP":
                    family.help_line = family.help_line or line
                else:
                    family.type_line = family.type_line or line
                continue
            match = _SAMPLE.fullmatch(line.strip())
            if match is None:
                continue
            name, labels, value = match.groups()
            if name.removesuffix("_bucket").removesuffix("_sum").removesuffix("_count") != current:
                current = name  # it has no TYPE line before it, or is named like a part of a histogram
            key = name + (labels or "")
            samples = families.setdefault(current, _Family()).samples
            samples[key] = samples.get(key, 0.0) + float(value)
    parts: list[str] = []
    for family in families.values():
        parts.extend(f"{line}\n" for line in (family.help_line, family.type_line) if line)
        parts.extend(f"{key} {_number(value)}\n" for key, value in family.samples.items())
    return "".join(parts)


def _braces(pairs: Iterable[tuple[str, str]]) -> str:
    inner = ",".join(f'{name}="{_escape_label(value)}"' for name, value in pairs)
    return f"{{{inner}}}" if inner else ""


def _escape_label(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\r", "\\n")


def _escape_help(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n")


def _number(value: float) -> str:
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    if math.isnan(value):
        return "NaN"
    if value == int(value) and abs(value) < 1e15:
        return str(int(value))
    return repr(float(value))
