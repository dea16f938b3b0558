"""Timestamps that order every write: Swift's form on the wire, a hybrid logical clock behind it.

``<seconds, 10 digits>.<5 digits>[_<offset, 16 hex digits>]`` (Swift's internalized form; the offset is left out when 0).  One tick
is 10 microseconds.  Pure apart from ``TimestampSource``, which reads the wall clock it is given.
"""

from __future__ import annotations

import re

import msgspec

from ring.errors import BadInput
from ring.world.interface import Clock

TICKS_PER_SECOND = 100_000
TICKS_MAX = 10**15 - 1
OFFSET_MAX = 2**32 - 1
AHEAD_MAX_S = 60.0
_FORM = re.compile(r"(\d{1,10})(?:\.(\d{1,9}))?(?:_([0-9a-f]{1,16}))?", re.ASCII)


class Timestamp(msgspec.Struct, frozen=True, order=True, gc=False):
    ticks: int  # 10 microseconds since 1970
    offset: int = 0

    @classmethod
    def parse(cls, text: str) -> Timestamp:
        """From the wire.  BadInput for anything that is not the form above; digits below a tick are cut off."""
        match = _FORM.fullmatch(text)
        if match is None:
            raise BadInput(f"not a timestamp: {text[:40]!r}")
        seconds, fraction, offset = match.groups()
        ticks = int(seconds) * TICKS_PER_SECOND + int(((fraction or "") + "00000")[:5])
        if offset is not None and int(offset, 16) > OFFSET_MAX:
            raise BadInput(f"timestamp offset too large: {text[:40]!r}")
        return cls(ticks, int(offset, 16) if offset else 0)

    @classmethod
    def at(cls, seconds: float) -> Timestamp:
        return cls(round(seconds * TICKS_PER_SECOND))

    @classmethod
    def unpack(cls, data: bytes) -> Timestamp:
        """From ``pack``'s 12 bytes."""
        if len(data) != 12:
            raise BadInput("a packed timestamp has 12 bytes")
        return cls(int.from_bytes(data[:8], "big"), int.from_bytes(data[8:], "big"))

    def pack(self) -> bytes:
        """12 bytes that sort as the timestamp does."""
        return self.ticks.to_bytes(8, "big") + self.offset.to_bytes(4, "big")

    def pack_inverted(self) -> bytes:
        """12 bytes that sort newest first: the version part of an index key."""
        return (2**64 - 1 - self.ticks).to_bytes(8, "big") + (2**32 - 1 - self.offset).to_bytes(4, "big")

    @classmethod
    def unpack_inverted(cls, data: bytes) -> Timestamp:
        if len(data) != 12:
            raise BadInput("a packed timestamp has 12 bytes")
        return cls(2**64 - 1 - int.from_bytes(data[:8], "big"), 2**32 - 1 - int.from_bytes(data[8:], "big"))

    @property
    def seconds(self) -> float:
        return self.ticks / TICKS_PER_SECOND

    @property
    def normal(self) -> str:
        """Without the offset, as clients see it (X-Timestamp)."""
        return f"{self.ticks // TICKS_PER_SECOND:010d}.{self.ticks % TICKS_PER_SECOND:05d}"

    def __str__(self) -> str:
        return f"{self.normal}_{self.offset:016x}" if self.offset else self.normal


ZERO = Timestamp(0)


class TimestampSource:
    """A hybrid logical clock: never behind the wall clock, never at or below what it gave or saw."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._last = 0

    def next(self, above: Timestamp | None = None) -> Timestamp:
        """A new timestamp, above all earlier ones of this source and above ``above``."""
        floor = max(self._last, above.ticks if above is not None else 0)
        self._last = max(round(self._clock.now() * TICKS_PER_SECOND), floor + 1)
        return Timestamp(self._last)

    def stay_above(self, ticks: int) -> None:
        """Give none at or below this from now on, whatever the wall clock says."""
        self._last = max(self._last, ticks)

    def admit(self, timestamp: Timestamp) -> None:
        """Check one that came from outside: BadInput when it is more than a minute ahead of the wall clock."""
        if timestamp.seconds > self._clock.now() + AHEAD_MAX_S:
            raise BadInput(
                f"timestamp {timestamp} is more than {AHEAD_MAX_S:.0f} s in the future",
                hint="set the sender's clock (NTP)",
            )
