"""Quorum: when do replies from the storage nodes settle a write or a read?

Pure: no I/O, no clock.  ``fanout`` feeds it replies, ``objects`` and ``books`` act on its verdict, the dialects of the front
door word it.

The rule (policy ``quorum``): a write stands when a majority of the primaries has it durably.  A copy on a handoff makes it
safer and counts for nothing.  A read asks a majority of the primaries, so it meets at least one that took part in any write
that stood.  A reply that did not come is unknown: never "no", never "not there".
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from ring.timestamp import ZERO, Timestamp
from storage.client.node import BookState, Kind, Version


def majority_of(replica_count: int) -> int:
    return replica_count // 2 + 1


# ---- writes


class Outcome(Enum):
    """What one device said of a write."""

    STORED = "stored"  # durable, and the newest there
    SUPERSEDED = "superseded"  # the device holds something newer and took nothing
    FAILED = "failed"  # an error, or no answer: it may or may not have it


@dataclass(frozen=True, slots=True)
class Reply:
    outcome: Outcome
    primary: bool = True
    newest: Timestamp = ZERO  # of a superseded write: what the device holds


class Verdict(Enum):
    STORED = "stored"  # enough copies are durable
    SUPERSEDED = "superseded"  # a primary holds something newer: write again above ``newest``
    UNAVAILABLE = "unavailable"  # enough copies can no longer be reached


@dataclass(slots=True)
class WriteQuorum:
    """Of one write to ``replica_count`` primaries.

    One superseded primary is enough to write again: the newer version may have been acknowledged, and an answer of "stored" would
    then hide behind it."""

    replica_count: int
    stored: int = 0
    failed: int = 0
    newest: Timestamp = ZERO
    superseded: bool = False

    def receive(self, reply: Reply) -> Verdict | None:
        """Take one reply; a Verdict as soon as later replies cannot change what to do."""
        if reply.primary:
            match reply.outcome:
                case Outcome.STORED:
                    self.stored += 1
                case Outcome.SUPERSEDED:
                    self.superseded = True
                    self.newest = max(self.newest, reply.newest)
                case Outcome.FAILED:
                    self.failed += 1
        return self.verdict()

    def verdict(self) -> Verdict | None:
        if self.superseded:
            return Verdict.SUPERSEDED
        if self.stored >= majority_of(self.replica_count):
            return Verdict.STORED
        if self.replica_count - self.failed < majority_of(self.replica_count):
            return Verdict.UNAVAILABLE
        return None


# ---- reads


@dataclass(slots=True)
class ReadQuorum:
    """Which version of a name is the newest?  Replies are (replica, version or None when it knows of nothing).

    Settled early only when a majority says the same; while they differ, or know of nothing, the others are worth a short wait:
    they tell what to repair, and a device that was just emptied should not speak for the object's absence."""

    replica_count: int
    answers: dict[int, Version | None] = field(default_factory=dict)
    failed: set[int] = field(default_factory=set)

    def receive(self, replica: int, version: Version | None) -> bool:
        """True when settled for good."""
        self.answers[replica] = version
        return self.settled

    def fail(self, replica: int) -> bool:
        self.failed.add(replica)
        return self.settled

    @property
    def decided(self) -> bool:
        """A majority answered: ``newest`` may be believed."""
        return len(self.answers) >= majority_of(self.replica_count)

    @property
    def settled(self) -> bool:
        if len(self.answers) + len(self.failed) >= self.replica_count:
            return True
        if not self.decided:
            return self.replica_count - len(self.failed) < majority_of(self.replica_count)
        newest = self.newest
        return newest is not None and not self.stale

    @property
    def newest(self) -> Version | None:
        """The newest version that any replica named; of equal versions the one with the newest metadata."""
        best: Version | None = None
        for version in self.answers.values():
            if version is not None and (best is None or rank(version) > rank(best)):
                best = version
        return best

    @property
    def holders(self) -> list[int]:
        """Replicas that hold the newest data (its metadata may be older)."""
        newest = self.newest
        if newest is None:
            return []
        same = (newest.timestamp, newest.etag)
        holders = [i for i, version in self.answers.items() if version is not None and (version.timestamp, version.etag) == same]
        return sorted(holders, key=lambda replica: self.answers[replica] != newest)

    @property
    def stale(self) -> list[int]:
        """Replicas that answered and do not hold the newest."""
        newest = self.newest
        if newest is None:
            return []
        return [i for i, version in self.answers.items() if version is None or rank(version) != rank(newest)]


def rank(version: Version) -> tuple[Timestamp, bool, str, Timestamp]:
    """Orders versions of one name as the devices and the listings do: by time; at one time a tombstone is above data, then the
    greater
    digest; then the newer metadata."""
    return version.timestamp, version.kind is Kind.TOMBSTONE, version.etag, version.metadata_timestamp or ZERO


# ---- books


@dataclass(slots=True)
class BookQuorum:
    """What do the replicas of a container or account know of it?  Their states are merged, so any majority will do; but while they
    differ, or know of nothing, the others are worth a short wait."""

    replica_count: int
    answers: dict[int, BookState | None] = field(default_factory=dict)
    failed: int = 0

    def receive(self, replica: int, state: BookState | None) -> bool:
        """True when settled."""
        self.answers[replica] = state
        return self.settled

    def fail(self) -> bool:
        self.failed += 1
        return self.settled

    @property
    def decided(self) -> bool:
        return len(self.answers) >= majority_of(self.replica_count)

    @property
    def settled(self) -> bool:
        if len(self.answers) + self.failed >= self.replica_count:
            return True
        if not self.decided:
            return self.replica_count - self.failed < majority_of(self.replica_count)
        first, *others = self.answers.values()
        return first is not None and all(state == first for state in others)
