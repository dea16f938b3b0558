"""Control state: ordered keys with transactions, leases and watch.  All the coordination there is (etcd's model, v3 API).

Backends: ``memory`` (one process, tests and the simulator), ``local`` (one machine: a log on up to three devices, served to the
other workers on a unix socket).  One contract suite runs on all.  ``view`` keeps a prefix in RAM so that look-ups never wait.

Keys are text, '/'-separated (``identity/users/<id>``), at most 1 KiB.  Values are bytes, at most 1 MiB; at most 100 operations a
transaction.  Revisions are integers that grow by one with every transaction that changed something.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import NewType, Protocol

LeaseId = NewType("LeaseId", int)
VALUE_BYTES_MAX = 1 << 20
KEY_BYTES_MAX = 1 << 10
OPERATIONS_MAX = 100


@dataclass(frozen=True, slots=True)
class Entry:
    key: str
    value: bytes
    created: int  # revision that created the key
    modified: int  # revision that last changed it
    lease: LeaseId | None = None


@dataclass(frozen=True, slots=True)
class Unchanged:
    """Compare: the key was last modified at ``modified``; 0 means it must not exist."""

    key: str
    modified: int


@dataclass(frozen=True, slots=True)
class Put:
    key: str
    value: bytes
    lease: LeaseId | None = None  # the key goes when the lease does


@dataclass(frozen=True, slots=True)
class Delete:
    key: str


Operation = Put | Delete


@dataclass(frozen=True, slots=True)
class Outcome:
    succeeded: bool  # False: a compare failed and nothing was changed
    revision: int  # the store's revision afterwards


@dataclass(frozen=True, slots=True)
class Event:
    """A key changed at ``revision``; ``entry`` None: it was deleted."""

    key: str
    entry: Entry | None
    revision: int


class Watch(Protocol):
    """A consistent start and all that follows, in order, none left out."""

    entries: list[Entry]  # the prefix as it was at ``revision``
    revision: int

    async def next(self) -> list[Event]:
        """The next events (at least one).  Raises ring.errors.Unavailable when the feed broke: watch again."""


class KV(Protocol):
    async def get(self, key: str) -> Entry | None: ...

    async def range(self, prefix: str, *, limit: int | None = None) -> list[Entry]:
        """In key order."""

    async def transact(self, compares: Sequence[Unchanged], operations: Sequence[Operation]) -> Outcome:
        """All or nothing, durable when it returns.  BadInput above the limits, Unavailable when it is not known whether it
        happened."""

    def watch(self, prefix: str) -> AbstractAsyncContextManager[Watch]: ...

    async def grant(self, ttl_s: float) -> LeaseId: ...

    async def keep_alive(self, lease: LeaseId) -> None:
        """Renew for its time to live.  NotFound when it has expired."""

    async def revoke(self, lease: LeaseId) -> None:
        """Ends it and deletes its keys; no error when it is gone already."""
