"""HTTP dates: "Sun, 06 Nov 1994 08:49:37 GMT" and the two obsolete forms that must still be read; ISO dates for listings.  Pure.

Standard: RFC 9110 section 5.6.7; RFC 3339 (without its zone).
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from functools import lru_cache

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_FIXED = re.compile(r"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), (\d\d) ([A-Z][a-z]{2}) (\d{4}) (\d\d):(\d\d):(\d\d) (?:GMT|UTC)")
_RFC850 = re.compile(r"[A-Z][a-z]{5,8}, (\d\d)-([A-Z][a-z]{2})-(\d\d) (\d\d):(\d\d):(\d\d) GMT")
_ASCTIME = re.compile(r"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun) ([A-Z][a-z]{2}) ([ \d]\d) (\d\d):(\d\d):(\d\d) (\d{4})")


def format_date(seconds: float) -> str:
    """Seconds since 1970, cut to whole ones, as an HTTP date."""
    when = datetime.fromtimestamp(int(seconds // 1), UTC)
    return (
        f"{_DAYS[when.weekday()]}, {when.day:02d} {_MONTHS[when.month - 1]} {when.year:04d} "
        f"{when.hour:02d}:{when.minute:02d}:{when.second:02d} GMT"
    )


@lru_cache(maxsize=1024)  # a page of a listing has a thousand of them, and its objects often came in the same seconds
def format_iso(seconds: int) -> str:
    """Seconds since 1970 as "2014-01-15T16:41:49"."""
    return datetime.fromtimestamp(seconds, UTC).isoformat()[:19]


def parse_date(text: str) -> int | None:
    """Seconds since 1970; None when it is no HTTP date (a condition on it is then ignored)."""
    text = text.strip()
    if match := _FIXED.fullmatch(text):
        day, month, year, hour, minute, second = match.groups()
    elif match := _RFC850.fullmatch(text):
        day, month, year, hour, minute, second = match.groups()
        # Two digits mean the most recent such year that is not more than 50 years ahead; 70 is the first that a clock here knew.
        year = str(int(year) + (1900 if int(year) >= 70 else 2000))
    elif match := _ASCTIME.fullmatch(text):
        month, day, hour, minute, second, year = match.groups()
    else:
        return None
    if month not in _MONTHS:
        return None
    try:
        when = datetime(int(year), _MONTHS.index(month) + 1, int(day), int(hour), int(minute), min(int(second), 59), tzinfo=UTC)
    except ValueError:
        return None
    return int(when.timestamp())
