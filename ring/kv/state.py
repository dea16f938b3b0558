"""The state machine of a key-value store: entries, revisions, compares, leases.

Decides; never waits, never writes, knows no clock.  A backend drafts a batch of requests on the state (``Draft``), makes the
draft's changes durable, then applies them (``State.apply``) and publishes the events.  Applying the same changes in the same
order gives the same state everywhere: that is the log (``log.py``).

    Draft       requests in, outcomes and changes out; sees its own changes, the state does not
    State       what is committed
    Deadlines   when leases lapse, on a clock that the backend reads
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, field

from ring.errors import BadInput, NotFound
from ring.kv.interface import (
    KEY_BYTES_MAX,
    OPERATIONS_MAX,
    VALUE_BYTES_MAX,
    Delete,
    Entry,
    Event,
    LeaseId,
    Operation,
    Outcome,
    Put,
    Unchanged,
)

TTL_S_MAX = 86_400.0


@dataclass(frozen=True, slots=True)
class Transacted:
    revision: int
    operations: tuple[Operation, ...]  # those that changed something


@dataclass(frozen=True, slots=True)
class Granted:
    lease: LeaseId
    ttl_s: float


@dataclass(frozen=True, slots=True)
class Revoked:
    lease: LeaseId
    revision: int  # of the deletion of its keys; the one before when it had none


Change = Transacted | Granted | Revoked


@dataclass(slots=True)
class Lease:
    ttl_s: float
    keys: set[str] = field(default_factory=set)


class State:
    def __init__(
        self,
        revision: int = 0,
        next_lease: int = 1,
        entries: Iterable[Entry] = (),
        leases: Iterable[tuple[LeaseId, float]] = (),
    ) -> None:
        self.revision = revision
        self.next_lease = next_lease
        self.leases = {lease: Lease(ttl_s) for lease, ttl_s in leases}
        self._entries = {entry.key: entry for entry in entries}
        self._keys = sorted(self._entries)
        for entry in self._entries.values():
            if entry.lease is not None:
                self.leases[entry.lease].keys.add(entry.key)

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: str) -> Entry | None:
        return self._entries.get(key)

    def range(self, prefix: str, limit: int | None = None) -> list[Entry]:
        """In key order."""
        found: list[Entry] = []
        for index in range(bisect_left(self._keys, prefix), len(self._keys)):
            key = self._keys[index]
            if not key.startswith(prefix) or (limit is not None and len(found) >= limit):
                break
            found.append(self._entries[key])
        return found

    def apply(self, change: Change) -> list[Event]:
        """Make a change that a draft of this very state gave, or the log that followed it."""
        match change:
            case Transacted(revision, operations):
                self.revision = revision
                return [self._apply(operation, revision) for operation in operations]
            case Granted(lease, ttl_s):
                self.next_lease = max(self.next_lease, lease + 1)
                self.leases[lease] = Lease(ttl_s)
                return []
            case Revoked(lease, revision):
                self.revision = revision
                events = [self._apply(Delete(key), revision) for key in sorted(self.leases[lease].keys)]
                del self.leases[lease]
                return events

    def _apply(self, operation: Operation, revision: int) -> Event:
        old = self._entries.get(operation.key)
        if old is not None and old.lease is not None:
            self.leases[old.lease].keys.discard(old.key)
        if isinstance(operation, Delete):
            assert old is not None, "a change deletes what is there"
            del self._entries[operation.key]
            del self._keys[bisect_left(self._keys, operation.key)]
            return Event(operation.key, None, revision)
        if old is None:
            insort(self._keys, operation.key)
        if operation.lease is not None:
            self.leases[operation.lease].keys.add(operation.key)
        entry = Entry(operation.key, operation.value, old.created if old is not None else revision, revision, operation.lease)
        self._entries[operation.key] = entry
        return Event(operation.key, entry, revision)


class Draft:
    """Requests on top of a state, one after another.  ``lapsed`` leases are over though not yet revoked."""

    def __init__(self, state: State, lapsed: Container[LeaseId] = ()) -> None:
        self.changes: list[Change] = []
        self.revision = state.revision
        self._state = state
        self._lapsed = lapsed
        self._next_lease = state.next_lease
        self._modified: dict[str, tuple[int, LeaseId | None]] = {}  # by key: (revision, or 0 when deleted; lease)
        self._leases: dict[LeaseId, bool] = {}  # granted (True) or revoked in this draft

    def transact(self, compares: Sequence[Unchanged], operations: Sequence[Operation]) -> Outcome:
        """BadInput above the limits; NotFound when a lease is over."""
        check(compares, operations)
        for operation in operations:
            if isinstance(operation, Put) and operation.lease is not None and not self._alive(operation.lease):
                raise NotFound(f"lease {operation.lease} is over")
        if any(self._look(compare.key)[0] != compare.modified for compare in compares):
            return Outcome(False, self.revision)
        effective = tuple(o for o in operations if isinstance(o, Put) or self._look(o.key)[0])
        if effective:
            self.revision += 1
            for operation in effective:
                lease = operation.lease if isinstance(operation, Put) else None
                self._modified[operation.key] = (self.revision if isinstance(operation, Put) else 0, lease)
            self.changes.append(Transacted(self.revision, effective))
        return Outcome(True, self.revision)

    def grant(self, ttl_s: float) -> LeaseId:
        if not (math.isfinite(ttl_s) and 0 < ttl_s <= TTL_S_MAX):
            raise BadInput(f"a lease lives for more than 0 and at most {TTL_S_MAX:.0f} s")
        lease = LeaseId(self._next_lease)
        self._next_lease += 1
        self._leases[lease] = True
        self.changes.append(Granted(lease, ttl_s))
        return lease

    def revoke(self, lease: LeaseId) -> None:
        """Nothing happens when it is gone."""
        if not self._leases.get(lease, lease in self._state.leases):
            return
        keys = [key for key, (_, holder) in self._modified.items() if holder == lease]
        if lease in self._state.leases:
            keys += [key for key in self._state.leases[lease].keys if key not in self._modified]
        if keys:
            self.revision += 1
            self._modified.update((key, (0, None)) for key in keys)
        self._leases[lease] = False
        self.changes.append(Revoked(lease, self.revision))

    def _alive(self, lease: LeaseId) -> bool:
        return lease not in self._lapsed and self._leases.get(lease, lease in self._state.leases)

    def _look(self, key: str) -> tuple[int, LeaseId | None]:
        drafted = self._modified.get(key)
        if drafted is not None:
            return drafted
        entry = self._state.get(key)
        return (entry.modified, entry.lease) if entry is not None else (0, None)


class Deadlines:
    """When each lease lapses, in seconds of the clock that the caller reads (trio's)."""

    def __init__(self) -> None:
        self._by_lease: dict[LeaseId, float] = {}

    def restart(self, state: State, now: float) -> None:
        """Every lease of a state that was just read lives for its whole time again."""
        self._by_lease = {lease: now + each.ttl_s for lease, each in state.leases.items()}

    def follow(self, change: Change, now: float) -> None:
        match change:
            case Granted(lease, ttl_s):
                self._by_lease[lease] = now + ttl_s
            case Revoked(lease):
                self._by_lease.pop(lease, None)
            case Transacted():
                pass

    def renew(self, lease: LeaseId, state: State, now: float) -> None:
        """NotFound when it is over, revoked or not."""
        if self._by_lease.get(lease, -math.inf) <= now:
            raise NotFound(f"lease {lease} is over")
        self._by_lease[lease] = now + state.leases[lease].ttl_s

    def lapsed(self, now: float) -> list[LeaseId]:
        return [lease for lease, deadline in self._by_lease.items() if deadline <= now]

    def next(self) -> float:
        """Infinity when there are no leases."""
        return min(self._by_lease.values(), default=math.inf)


def check(compares: Sequence[Unchanged], operations: Sequence[Operation]) -> None:
    """BadInput above the limits that every backend keeps."""
    if len(operations) > OPERATIONS_MAX or len(compares) > OPERATIONS_MAX:
        raise BadInput(f"a transaction has at most {OPERATIONS_MAX} compares and operations")
    for key in [c.key for c in compares] + [o.key for o in operations]:
        check_key(key)
    if len({operation.key for operation in operations}) != len(operations):
        raise BadInput("a transaction changes a key once")
    for operation in operations:
        if isinstance(operation, Put) and len(operation.value) > VALUE_BYTES_MAX:
            raise BadInput(f"the value of {operation.key} is longer than {VALUE_BYTES_MAX} bytes")


def check_key(key: str) -> None:
    try:
        length = len(key.encode())
    except UnicodeEncodeError as error:
        raise BadInput("a key is text in UTF-8") from error
    if not 0 < length <= KEY_BYTES_MAX:
        raise BadInput(f"a key has 1 to {KEY_BYTES_MAX} bytes")
