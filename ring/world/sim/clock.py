"""Wall clock, entropy, offload and processes of a simulated node."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar
from uuid import UUID

import trio

from ring.world.interface import Child

T = TypeVar("T")
EPOCH = 1_700_000_000.0


class SimClock:
    """Virtual time since EPOCH, as this node's quartz counts it: ``step`` and ``drift`` are its faults."""

    def __init__(self) -> None:
        self._offset_s = 0.0
        self._drift = 0.0  # seconds gained per second
        self._drift_since = 0.0

    def now(self) -> float:
        time = trio.current_time()
        return EPOCH + time + self._offset_s + (time - self._drift_since) * self._drift

    def step(self, seconds: float) -> None:
        self._offset_s += seconds

    def drift(self, rate: float) -> None:
        """Gain ``rate`` seconds per second from now on."""
        time = trio.current_time()
        self._offset_s += (time - self._drift_since) * self._drift
        self._drift_since = time
        self._drift = rate

    def correct(self) -> None:
        """Set it right again, as NTP does."""
        self._offset_s = self._drift = 0.0


class SimEntropy:
    """Unpredictable for the product, the same for a seed."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng

    def token(self, length: int) -> bytes:
        return self._rng.randbytes(length)

    def uuid(self) -> UUID:
        return UUID(bytes=self._rng.randbytes(16), version=4)


class SimOffload:
    """Inline: the call takes no virtual time."""

    async def run(self, call: Callable[..., T], *args: object) -> T:
        await trio.lowlevel.checkpoint()
        return call(*args)


@dataclass
class SimChild:
    pid: int
    argv: tuple[str, ...]
    signals: list[int] = field(default_factory=list)
    _ended: trio.Event = field(default_factory=trio.Event)
    _status: int = 0

    async def wait(self) -> int:
        await self._ended.wait()
        return self._status

    def signal(self, number: int) -> None:
        """Any signal but 0 ends it."""
        self.signals.append(number)
        if number and not self._ended.is_set():
            self.end(-number)

    def end(self, status: int) -> None:
        """For the test: the program ends."""
        self._status = status
        self._ended.set()


Program = Callable[[tuple[str, ...], bytes], tuple[int, bytes, bytes]]


class SimProcess:
    """Records what is started.  ``programs`` are the ones that exist, by name: what ``run`` answers; others are ENOENT."""

    def __init__(self, programs: Mapping[str, Program] | None = None) -> None:
        self.programs: dict[str, Program] = dict(programs or {})
        self.children: list[SimChild] = []

    async def start(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        log_path: str | None = None,
        pass_fds: Sequence[int] = (),
    ) -> Child:
        await trio.lowlevel.checkpoint()
        self._find(argv)
        child = SimChild(1000 + len(self.children), tuple(argv))
        self.children.append(child)
        return child

    async def run(self, argv: Sequence[str], *, input: bytes = b"", timeout_s: float = 60.0) -> tuple[int, bytes, bytes]:
        await trio.lowlevel.checkpoint()
        return self._find(argv)(tuple(argv), input)

    def _find(self, argv: Sequence[str]) -> Program:
        program = self.programs.get(os.path.basename(argv[0]))
        if program is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), argv[0])
        return program
