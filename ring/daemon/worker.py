"""Background work: a Worker does one small, resumable unit at a time, and says how far its pass is.

A *pass* is one walk over all that there is to look at.  ``ring.daemon.runner`` runs a Worker: it decides when, never what, and
counts what passes come to, so that a Worker tells only what nobody else can know.  ``once`` runs one to the end of its
pass, for tests.

Neighbours: ``runner``, ``pacing``.  The Workers themselves live in storage, proxy, blockgw and compute.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import trio


@dataclass(frozen=True, slots=True)
class Busy:
    """A unit was done and there may be more."""

    items: int = 1
    done_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Idle:
    """Nothing to do before ``until_s`` (trio's clock), unless something wakes the Worker."""

    until_s: float
    over: bool = True  # the pass has ended; False: it waits in the middle of one, or until one may begin

    @classmethod
    def after(cls, seconds: float, *, over: bool = True) -> Idle:
        return cls(trio.current_time() + seconds, over)


@dataclass(frozen=True, slots=True)
class Progress:
    """What a Worker says of its pass."""

    fraction: float | None = (
        None  # of the pass under way, 0.0 to 1.0 (also when there is none); None: nobody knows how much there is
    )
    left: int | None = None  # units that are known to wait; None: not known
    facts: Mapping[str, float] = field(default_factory=dict)  # "damaged": 3; always the same names, since the process's start


class Worker(Protocol):
    @property
    def name(self) -> str:
        """For logs and metrics: "object-auditor d3"; behind the space the device, if it is one's."""

    async def work(self) -> Busy | Idle:
        """Do one small unit; may be cancelled at any checkpoint and called again, also by another process."""

    def progress(self) -> Progress:
        """As of now; cheap, and asked at any time."""

    def begin(self) -> None:
        """A pass is wanted: the next unit begins one though it is not time yet.  One that is under way goes on."""


def walked(start: bytes | None) -> float:
    """The fraction of a walk through all hashes that has come to ``start``; None: it has ended."""
    return 1.0 if start is None else int.from_bytes(start[:4].ljust(4, b"\0"), "big") / (1 << 32)


async def once(worker: Worker) -> Busy:
    """Work until there is nothing to do now; what was done in all.  Errors are the caller's."""
    items = done_bytes = 0
    while isinstance(done := await worker.work(), Busy):
        items += done.items
        done_bytes += done.done_bytes
        await trio.lowlevel.checkpoint()
    return Busy(items, done_bytes)
