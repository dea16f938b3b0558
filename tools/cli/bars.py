"""Bars, durations and sizes as the commands print them."""

from __future__ import annotations

BAR = 20


def bar(fraction: float | None, width: int = BAR) -> str:
    """[#####               ]"""
    done = 0 if fraction is None else round(min(max(fraction, 0.0), 1.0) * width)
    return f"[{'#' * done}{' ' * (width - done)}]"


def percent(fraction: float | None) -> str:
    """Four characters; 100 % only of all."""
    return "   ?" if fraction is None else f"{int(fraction * 100):>3}%"


def duration(seconds: float | None) -> str:
    """Two units at most: 3d4h, 5m10s, 12s, 0.4s."""
    if seconds is None:
        return "-"
    if seconds < 10:
        return f"{seconds:.1f}s"
    whole = round(seconds)
    for unit_s, unit, part_s, part in ((86400, "d", 3600, "h"), (3600, "h", 60, "m"), (60, "m", 1, "s")):
        if whole >= unit_s:
            return f"{whole // unit_s}{unit}{whole % unit_s // part_s}{part}"
    return f"{whole}s"


def size(count: float) -> str:
    """3.2 MiB"""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if count < 1024 or unit == "TiB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    raise AssertionError
