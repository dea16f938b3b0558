"""What clients did and saw: the input of the checkers.  Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from math import inf


class Kind(Enum):
    PUT = "put"
    DELETE = "delete"
    READ = "read"


class Outcome(Enum):
    ACKED = "acked"
    UNKNOWN = "unknown"  # it may have happened, it may still happen
    REFUSED = "refused"  # it did not happen


@dataclass(slots=True)
class Operation:
    kind: Kind
    name: str  # container/object
    start: float
    end: float = inf
    outcome: Outcome = Outcome.UNKNOWN
    value: int = 0  # PUT: its own number; READ: the number of the PUT that it saw, 0 for "not found"
    where: str = ""  # the front door
    detail: str = ""

    def __str__(self) -> str:
        end = "never" if self.end == inf else f"{self.end:.3f}"
        return (
            f"{self.kind.value} {self.name} #{self.value} {self.outcome.value} [{self.start:.3f}, {end}] {self.where} {self.detail}"
        )


@dataclass
class History:
    operations: list[Operation] = field(default_factory=list)

    def begin(self, kind: Kind, name: str, now: float, where: str, value: int = 0) -> Operation:
        operation = Operation(kind, name, now, value=value, where=where)
        self.operations.append(operation)
        return operation

    def by_name(self) -> dict[str, list[Operation]]:
        found: dict[str, list[Operation]] = {}
        for operation in self.operations:
            found.setdefault(operation.name, []).append(operation)
        return found
