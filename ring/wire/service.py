"""Service: what the connections of one server share: the handler, limits, dates, transaction ids, and the line each request leaves.

It never touches a connection.  Neighbours: ``connection``, ``server``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from ring.wire.dates import format_date
from ring.wire.engine import HeadLimits, RequestEngine
from ring.wire.message import Handler
from ring.world.interface import Stream, World


@dataclass(frozen=True, slots=True)
class Limits:
    head: HeadLimits = field(default_factory=HeadLimits)
    body_bytes: int | None = None  # longer ones are answered with 413
    drain_bytes: int = 1 << 20  # of an unread body; beyond it the connection is closed
    connections: int = 10_000
    idle_s: float = 75.0  # between requests
    head_s: float = 20.0  # from a head's first byte to its last
    receive_s: float = 60.0  # for the next piece of a body
    send_s: float = 60.0  # for a piece of an answer, and send_bytes_per_s beyond it
    send_bytes_per_s: int = 64 * 1024
    grace_s: float = 10.0  # of requests in progress at a stop


DEFAULT_LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class LogLine:
    """One request as it went.  ``error`` is "" or a line, or a traceback when the handler failed."""

    trans_id: str
    peer: str
    method: str
    target: str
    status: int
    bytes_in: int
    bytes_out: int  # of the body
    duration_s: float
    started: float  # wall time
    user_agent: str = ""
    error: str = ""


class Service:
    """What the connections of one server share."""

    def __init__(
        self,
        world: World,
        handler: Handler,
        limits: Limits,
        on_request: Callable[[LogLine], None] | None,
        greet: Callable[[Stream], Awaitable[Stream]] | None,
        engine: Callable[[HeadLimits], RequestEngine],
    ) -> None:
        self.handler = handler
        self.limits = limits
        self.on_request = on_request
        self.greet = greet
        self.engine = engine
        self.clock = world.clock
        self.stopping = False
        self._rng = world.rng
        self._date_at = -1
        self._date = ""

    def date(self) -> str:
        now = int(self.clock.now())
        if now != self._date_at:
            self._date_at = now
            self._date = f"Date: {format_date(now)}\r\n"
        return self._date

    def trans_id(self) -> str:
        """In Swift's form: tx, 21 random hex digits, the time in hex."""
        return f"tx{self._rng.getrandbits(84):021x}-{int(self.clock.now()):010x}"

    def log_refusal(self, peer: str, status: int, error: str) -> None:
        """A line for what never became a request."""
        if self.on_request is not None:
            self.on_request(LogLine(self.trans_id(), peer, "-", "-", status, 0, 0, 0.0, self.clock.now(), "", error))
