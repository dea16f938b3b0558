"""Health: what a device may be used for, by what was seen of it.  Pure: events in, state out; the caller brings the time.

    IN SERVICE  everything
    FULL        less room than the reserve: no new data.  Deletes, drops, compaction and handing off go on, for they make room
    READ ONLY   its file system takes no writes: what it holds is read, and counts, for it holds all that it ever acknowledged
    OUT         nothing.  What it holds is unknown, never "nothing"

    event                                   from            to
    looked: less free than the reserve      in service      full
    looked: a quarter more than that again  full            in service
    looked: mounted read-only; or EROFS     in service, full    read only
    looked: not read-only any more          read only       out (to be opened anew: its engines had stopped writing)
    ENOSPC, EDQUOT                          in service      full, for FULL_LEAST_S at least
    another folder, no label, ENODEV        any             out
    ERRORS_MAX errors within ERRORS_WINDOW_S    any         out
    ETIMEDOUT: the disk does not answer     any             out
    an engine gives up                      any             out (but for EROFS)
    opened anew                             out             in service

Invariant: from OUT there is one way, through ``opened``, which is said only of a device whose label was read after it went out and
whose engines were begun anew.  A device that goes out often waits longer each time.

Neighbours: watch (looks, opens), device (tells of errors, asks), tools.deploy.devices (reports).
"""

from __future__ import annotations

import errno
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from ring.world.interface import Space

ERRORS_MAX = 2  # that many are too many
ERRORS_WINDOW_S = 3600.0
FULL_LEAST_S = 10.0  # after the system said that there is no room, whatever it says of free bytes (inodes, quotas)
RESERVE_BYTES = 1 << 30
RESERVE_SHARE = 0.01
BACK_PART = 4  # a quarter of the reserve more, before clients may write again
WAITS_S = (0.0, 5.0, 30.0, 60.0)  # before it is tried again, by how often it failed within the last hour

_GONE = frozenset({errno.ENODEV, errno.ENXIO, errno.ESTALE, errno.ENOTCONN, errno.ENOMEDIUM})
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_FAILING = frozenset({errno.EIO, errno.EUCLEAN, errno.EBADMSG, errno.EREMOTEIO})


class State(Enum):
    IN_SERVICE = "in service"
    FULL = "full"
    READ_ONLY = "read-only"
    OUT = "out"


@dataclass(frozen=True, slots=True)
class Change:
    before: State
    after: State
    reason: str


@dataclass(frozen=True, slots=True)
class Reserve:
    """What of a device's room clients cannot have: so much, but at most a share of the device."""

    size_bytes: int = RESERVE_BYTES
    share: float = RESERVE_SHARE

    def of(self, total_bytes: int) -> int:
        return min(self.size_bytes, int(total_bytes * self.share))


class Health:
    """``now`` is trio's clock, in seconds.  ``changed`` is told of each change, in the same breath."""

    __slots__ = (
        "_errors",
        "_failed_at",
        "_free",
        "_full_until",
        "changed",
        "out",
        "reason",
        "reserve",
        "since",
        "space",
        "state",
        "stays_out",
    )

    def __init__(self, reserve: Reserve | None = None, now: float = 0.0) -> None:
        self.reserve = reserve or Reserve()
        self.state = State.IN_SERVICE
        self.reason = ""
        self.since = now
        self.out = False  # asked at every request; True from when it goes out until it is tried again
        self.stays_out = False  # it must not be tried again: what it lacks could not be written down
        self.space: Space | None = None  # as it was last looked at
        self.changed: Callable[[Change], None] = lambda change: None
        self._free: int | None = None  # what is left of it for clients, by what they were given since
        self._full_until = 0.0
        self._errors: dict[str, float] = {}  # place -> when
        self._failed_at: deque[float] = deque(maxlen=len(WAITS_S))

    # ---- questions

    @property
    def takes_writes(self) -> bool:
        """Deletes, drops, compaction."""
        return self.state in (State.IN_SERVICE, State.FULL)

    def admits(self, size: int) -> bool:
        """Whether new data of ``size`` bytes may come; they are counted as taken until the next look."""
        if self.state is not State.IN_SERVICE:
            return False
        if self._free is not None:
            if size > self._free:
                return False
            self._free -= size
        return True

    def wait_s(self, now: float) -> float:
        """How long a device that is out waits before it is tried again."""
        if self.stays_out:
            return math.inf
        lately = [at for at in self._failed_at if now - at < ERRORS_WINDOW_S]
        if not lately:
            return 0.0
        return max(lately[-1] + WAITS_S[min(len(lately), len(WAITS_S)) - 1] - now, 0.0)

    def admits_promised(self, size: int) -> bool:
        """Likewise of what a conditional write was promised: it may have half of the reserve as well, so that what was promised is
        taken, and the rest stays for what makes room.  Not where the system says that there is no room, whatever is free."""
        if self.state is State.FULL and self.space is not None and self._free is not None and self._free < 0:
            if size > self._free + self.reserve.of(self.space.total_bytes) // 2:
                return False
            self._free -= size
            return True
        return self.admits(size)

    # ---- events

    def looked(self, space: Space, now: float) -> None:
        """Its own folder was there, with its own label, and had this room."""
        self.space = space
        reserve = self.reserve.of(space.total_bytes)
        self._free = space.free_bytes - reserve
        if self.state is State.READ_ONLY and not space.read_only:
            self._fail("it can be written again, and is opened anew", now)
        elif self.state is State.OUT:
            return
        elif space.read_only:
            self._to(State.READ_ONLY, "its file system is mounted read-only", now)
        elif self.state is State.IN_SERVICE and space.free_bytes < reserve:
            self._to(State.FULL, f"less than {reserve} bytes are free", now)
        elif self.state is State.FULL and self._free >= reserve // BACK_PART and now >= self._full_until:
            self._to(State.IN_SERVICE, "", now)

    def missing(self, reason: str, now: float) -> None:
        """Its folder is not there, or another one is, or one without its label.  It may be back at any time."""
        self._to(State.OUT, reason, now)

    def erred(self, error: OSError, place: str, now: float) -> None:
        """An operation failed; ``place``: what it was done to, so that one bad sector counts once."""
        number = error.errno
        what = error.strerror or str(error)
        if number in _GONE:
            self.missing(f"its disk is gone ({what})", now)
        elif number == errno.ETIMEDOUT:  # it was given long enough
            if self.state is not State.OUT:
                self._fail("its disk does not answer", now)
        elif number == errno.EROFS:
            if self.state in (State.IN_SERVICE, State.FULL):
                self._to(State.READ_ONLY, "its file system takes no writes any more", now)
        elif number in _FULL:
            self._full_until = now + FULL_LEAST_S
            if (
                self.state is State.IN_SERVICE and self.space is not None
            ):  # else nobody looks, who would see that there is room again
                self._to(State.FULL, f"there is no room ({what})", now)
        elif number in _FAILING:
            self._errors = {at: when for at, when in self._errors.items() if now - when < ERRORS_WINDOW_S}
            self._errors[place] = now
            if len(self._errors) >= ERRORS_MAX:
                self._fail(f"its disk failed {len(self._errors)} times ({what}; {place})", now)

    def failed(self, reason: str, now: float) -> None:
        """An engine cannot go on, or the device was tried again and could not be opened."""
        if self.state is not State.READ_ONLY:  # there they stop for want of writing, and what they hold is read
            self._fail(reason, now)

    def trying(self) -> None:
        """It is being opened anew.  Until it is, it is OUT, but its engines may begin."""
        self.out = False

    def opened(self, now: float) -> None:
        """Its label was read and its engines run.  What was counted against it is forgotten, but not that it failed."""
        self._errors.clear()
        self._to(State.IN_SERVICE, "", now)

    def _fail(self, reason: str, now: float) -> None:
        self._failed_at.append(now)
        self._to(State.OUT, reason, now)

    def _to(self, state: State, reason: str, now: float) -> None:
        self.out = state is State.OUT
        if state is self.state and (state is not State.OUT or reason == self.reason):
            return
        change = Change(self.state, state, reason)
        if state is not self.state:
            self.since = now
        self.state, self.reason = state, reason
        self.changed(change)
