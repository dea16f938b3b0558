"""What clients did and saw: the input of the checkers.  Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from math import inf

from tests.sim.linearizable import ALWAYS, Condition


class Kind(Enum):
    PUT = "put"
    DELETE = "delete"
    READ = "read"


class Outcome(Enum):
    ACKED = "acked"
    UNKNOWN = "unknown"  # it may have happened, it may still happen
    REFUSED = "refused"  # it did not happen
    FAILED = "failed"  # it did not happen, because its condition did not hold


NOT_DONE = (Outcome.REFUSED, Outcome.FAILED)


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
    condition: Condition = ALWAYS  # of a write

    def __str__(self) -> str:
        end = "never" if self.end == inf else f"{self.end:.3f}"
        condition = "" if self.condition is ALWAYS else f" if {self.condition.when.value} {self.condition.value or ''}"
        return (
            f"{self.kind.value} {self.name} #{self.value}{condition} {self.outcome.value} [{self.start:.3f}, {end}] "
            f"{self.where} {self.detail}"
        )


@dataclass
class History:
    operations: list[Operation] = field(default_factory=list)

    def begin(self, kind: Kind, name: str, now: float, where: str, value: int = 0, condition: Condition = ALWAYS) -> Operation:
        operation = Operation(kind, name, now, value=value, where=where, condition=condition)
        self.operations.append(operation)
        return operation

    def by_name(self) -> dict[str, list[Operation]]:
        found: dict[str, list[Operation]] = {}
        for operation in self.operations:
            found.setdefault(operation.name, []).append(operation)
        return found

    def acknowledged(self, name: str, value: int) -> bool:
        """Whether a client was told that this is what the name has now; 0: nothing."""
        writes = [one for one in self.operations if one.name == name and one.kind is not Kind.READ]
        if value:
            return any(one.value == value and one.outcome is Outcome.ACKED for one in writes)
        return all(one.outcome is not Outcome.UNKNOWN for one in writes if one.kind is Kind.DELETE)
