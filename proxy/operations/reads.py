"""Reads with conditions and a range, judged: what of the object is sent, or why nothing is.

``ring.wire.conditions`` and ``ring.wire.ranges`` have the rules; here they meet an ObjectMeta.  Where a dialect does not have them,
several ranges in one request are answered with the whole body, as RFC 9110 section 14.2 lets a server do.  Pure.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from proxy.errors import RangeNotSatisfiable
from ring.wire.conditions import Current, Tags, evaluate, if_range_holds, parse_tags
from ring.wire.message import Headers
from ring.wire.ranges import ByteRange, Unsatisfiable, parse_ranges
from storage.client.interface import Condition, ObjectMeta

_SIMPLE = re.compile(r"bytes=(\d{1,18})-(\d{0,18})")
_CONDITIONAL = frozenset(("if-match", "if-none-match", "if-modified-since", "if-unmodified-since", "if-range"))


@dataclass(frozen=True, slots=True)
class Extent:
    """``length`` bytes from ``offset`` on."""

    offset: int
    length: int
    partial: bool


def conditions_of(headers: Headers) -> Headers | None:
    """The conditional fields of a request; None when there are none."""
    found = [item for item in headers.fields if item[0] in _CONDITIONAL]
    if not found:
        return None
    conditions = Headers()
    conditions.fields = found
    return conditions


def first_guess(range_header: str) -> tuple[int, int | None] | None:
    """Offset and length (None: to the end) of a plain "bytes=A-[B]", before the size is known; None for all else."""
    match = _SIMPLE.fullmatch(range_header)
    if match is None:
        return None
    first, last = int(match[1]), match[2]
    if not last:
        return first, None
    return (first, int(last) - first + 1) if int(last) >= first else None


def failed(method: str, conditions: Headers | None, meta: ObjectMeta) -> int | None:
    """304 or 412, or None to go on."""
    return evaluate(method, conditions, _current(meta)) if conditions is not None else None


def extent(range_header: str, conditions: Headers | None, meta: ObjectMeta) -> Extent:
    """What of the body is asked for.  Raises RangeNotSatisfiable."""
    if range_header and (conditions is None or if_range_holds(conditions.get("if-range"), _current(meta))):
        ranges = parse_ranges(range_header, meta.size)
        if isinstance(ranges, Unsatisfiable):
            raise RangeNotSatisfiable(meta)
        if ranges is not None and len(ranges) == 1:
            return Extent(ranges[0].start, ranges[0].length, partial=True)
    return Extent(0, meta.size, partial=False)


def several(range_header: str, conditions: Headers | None, meta: ObjectMeta) -> list[ByteRange]:
    """The ranges when it is more than one; else ``extent`` has the answer."""
    if "," not in range_header or (conditions is not None and not if_range_holds(conditions.get("if-range"), _current(meta))):
        return []
    ranges = parse_ranges(range_header, meta.size)
    return ranges if isinstance(ranges, list) and len(ranges) > 1 else []


def write_condition(headers: Headers) -> Condition | None:
    """If-Match and If-None-Match of a write; None when there is neither."""
    match, none_match = headers.all("if-match"), headers.all("if-none-match")
    if not match and not none_match:
        return None
    return Condition(_tags(parse_tags(", ".join(match))), _tags(parse_tags(", ".join(none_match))))


def _tags(tags: Tags) -> tuple[str, ...]:
    return ("*",) if tags.any else (*tags.strong, *tags.weak)


def _current(meta: ObjectMeta) -> Current:
    return Current(meta.etag, meta.modified.seconds)
