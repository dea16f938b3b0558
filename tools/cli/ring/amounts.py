"""Bytes, hours and tables of numbers, as operators type and read them; and how full a ring is, from the options that say so.

Parses and formats; decides nothing.  Serves the verbs of ``analysis.py`` and ``simulation.py``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from ring.builder.builder import Builder
from ring.builder.plan import replica_bytes
from ring.builder.quota import Tier
from ring.device import Device
from ring.errors import BadInput

F = TypeVar("F", bound=Callable[..., Any])
_PREFIXES = "kMGTPE"
_BYTES = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*(?:([kmgtpe])(i?))?b?(/s)?", re.ASCII | re.IGNORECASE)
_EXPONENT = re.compile(r"\d+(?:\.\d*)?e\+?\d{1,3}", re.ASCII | re.IGNORECASE)


def parse_bytes(text: str) -> float:
    """10TB, 4TiB, 500G, 1e12 or a plain number: an option's type."""
    return _amount(text, per_second=False)


def parse_rate(text: str) -> float:
    """50MB/s, 1GiB/s, 50M."""
    return _amount(text, per_second=True)


def _amount(text: str, *, per_second: bool) -> float:
    match = _BYTES.fullmatch(text.strip())
    number: float | None = None
    if match is not None and (per_second or not match[4]):
        step = 1024 if match[3] else 1000
        power = _PREFIXES.lower().index(match[2].lower()) + 1 if match[2] else 0
        number = float(match[1]) * step**power
    elif _EXPONENT.fullmatch(text.strip()):
        number = float(text)
    if number is None or not math.isfinite(number):
        hint = "50MB/s, 1GiB/s" if per_second else "10TB, 4TiB, 500G"
        raise BadInput(f"not a number of bytes{' per second' if per_second else ''}: {text or 'nothing'}", hint=hint)
    return number


def parse_number(text: str) -> float:
    """From 0 on; ``nan`` and ``inf`` are none."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not (math.isfinite(number) and number >= 0):
        raise BadInput(f"not a number from 0 on: {text or 'nothing'}")
    return number


def bytes_text(number: float) -> str:
    """Three digits and a prefix: 1.23 TB."""
    power = 0
    while number >= 999.5 and power < len(_PREFIXES):
        number, power = number / 1000, power + 1
    digits = 0 if number >= 99.95 or not power else 1 if number >= 9.995 else 2
    return f"{number:.{digits}f} {_PREFIXES[power - 1] if power else ''}B"


def time_text(seconds: float) -> str:
    """The two largest units: 3 d 4 h; 5 h 12 min; 40 s."""
    whole = round(seconds)
    for size, name, small, small_name in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            many, rest = divmod(whole, size)
            return f"{many} {name}" + (f" {rest // small} {small_name}" if rest // small else "")
    return f"{whole} s" if whole or not seconds else "< 1 s"


def table(rows: Sequence[Sequence[str]], *, left: Sequence[int] = (0,)) -> str:
    """Columns under the words of the first row; ``left`` are those of words, numbers stand right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = (
            cell.ljust(width) if column in left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def tier_text(tier: Tier, devices: Sequence[Device]) -> str:
    """r1, r1z2, r1z2-10.0.0.4, and of a device d3r1z2-10.0.0.4:6200/sdb1."""
    match tier:
        case (region,):
            return f"r{region}"
        case (region, zone):
            return f"r{region}z{zone}"
        case (region, zone, ip):
            return f"r{region}z{zone}-{ip}"
        case (*_, device_id):
            return str(next(device for device in devices if device.id == device_id))
        case _:
            return "all"


# ---- how full the ring is

FILL_HINT = "--fill 4TB, --total 900TB, or --used 70 --device-size 10TB"


def fill_options(call: F) -> F:
    """``fill``, ``total``, ``used`` and ``device_size`` of a verb, for ``fill_of``."""
    for option in (
        click.option("--device-size", type=parse_bytes, metavar="BYTES", help="Size of the average device; with --used."),
        click.option("--used", type=parse_number, metavar="PERCENT", help="How full the average device is; with --device-size."),
        click.option("--total", type=parse_bytes, metavar="BYTES", help="All objects, each counted once."),
        click.option("--fill", type=parse_bytes, metavar="BYTES", help="What the average device holds: 4TB, 3.6TiB."),
    ):
        call = option(call)
    return call


def fill_of(
    builder: Builder, fill: float | None, total: float | None, used: float | None, device_size: float | None
) -> float | None:
    """Bytes of one replica of one partition, None when nothing says it.  BadInput when it is said twice or by halves."""
    if (used is None) != (device_size is None):
        raise BadInput("--used and --device-size say how full the ring is together", hint=FILL_HINT)
    if sum(one is not None for one in (fill, total, used)) > 1:
        raise BadInput("how full the ring is can be said in one way only", hint=FILL_HINT)
    if used is not None and device_size is not None:
        if used > 100:
            raise BadInput(f"a device is used by 0 to 100 percent, not {used:g}")
        fill = device_size * used / 100
    if fill is not None:
        return replica_bytes(builder, device_bytes=fill)
    return None if total is None else replica_bytes(builder, total_bytes=total)
