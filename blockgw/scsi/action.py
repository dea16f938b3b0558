"""Actions: what a command asks of a BlockDevice, or ``Done``, its answer.  Pure.

``data_out`` is how many bytes the command takes from the initiator before it can be performed.  Offsets and lengths are bytes.
A transport that got fewer bytes than that calls ``shorten`` (the initiator's word on the length was smaller than its CDB's).
Not frozen: two of these are made for every request, and a frozen one costs three times as much.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from ring.world.interface import Buffer

from .sense import CHECK_CONDITION, GOOD, INVALID_FIELD_IN_CDB, Sense

BLOCK_BYTES = 512


@dataclass(slots=True)
class Done:
    """The answer: a status, data for the initiator, or sense."""

    data: Buffer = b""
    sense: Sense | None = None

    @property
    def status(self) -> int:
        return GOOD if self.sense is None else CHECK_CONDITION

    data_out: ClassVar[int] = 0


@dataclass(slots=True)
class Read:
    offset: int
    length: int
    durable: bool = False  # FUA: what is read is made durable first
    data_out: ClassVar[int] = 0


@dataclass(slots=True)
class Write:
    offset: int
    data_out: int
    durable: bool = False

    def shorten(self, length: int) -> Write | Done:
        """Whole blocks of what came."""
        length -= length % BLOCK_BYTES
        return Write(self.offset, length, self.durable) if length else Done()


@dataclass(slots=True)
class Compare:
    """Is the data what the medium holds?"""

    offset: int
    data_out: int

    def shorten(self, length: int) -> Done:
        return Done(sense=INVALID_FIELD_IN_CDB)


@dataclass(slots=True)
class Check:
    """Can the range be read?"""

    offset: int
    length: int
    data_out: ClassVar[int] = 0


@dataclass(slots=True)
class Fill:
    """Write one block over and over."""

    offset: int
    length: int
    block: bytes
    data_out: ClassVar[int] = 0


@dataclass(slots=True)
class Discard:
    ranges: list[tuple[int, int]]  # offset, length
    data_out: ClassVar[int] = 0


@dataclass(slots=True)
class Flush:
    data_out: ClassVar[int] = 0


@dataclass(slots=True)
class Parameters:
    """The data says what to do: ``then(data)`` is the action."""

    data_out: int
    then: Callable[[bytes], Action]
    exact: bool = False  # neither less nor more than data_out may come

    def shorten(self, length: int) -> Parameters:
        return Parameters(length, self.then)


Action = Done | Read | Write | Compare | Check | Fill | Discard | Flush | Parameters
Taking = Write | Compare | Parameters  # actions that take data from the initiator


def refuse(sense: Sense) -> Done:
    return Done(sense=sense)
