"""Quorum: when do replies from the storage nodes settle a write or a read?

Pure: no I/O, no clock.  ``fanout`` feeds it replies, ``objects`` and ``books`` act on its verdict, the dialects of the front
door word it.

The rule (policy ``quorum``): a write stands when a majority of the primaries has it durably.  A copy on a handoff makes it
safer and counts for nothing.  A read asks a majority of the primaries, so it meets at least one that took part in any write
that stood.  A reply that did not come is unknown: never "no", never "not there".

While a partition moves, "a majority" is one of the new ring's primaries and one of the settled ring's (``Voters``): whoever goes by
another ring in between shares the settled ring's majority, so both see each other's writes.  And a read answers with what a
majority holds only: otherwise the next read could meet a majority that does not have it, and would take back what was shown.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from ring.service.voters import Voters, majority_of, plain
from ring.timestamp import ZERO, Timestamp
from storage.client.node import BookState, Kind, Version

__all__ = ["BookQuorum", "Outcome", "ReadQuorum", "Reply", "Verdict", "Voters", "WriteQuorum", "majority_of", "plain", "rank"]


# ---- writes


class Outcome(Enum):
    """What one device said of a write."""

    STORED = "stored"  # durable, and the newest there
    SUPERSEDED = "superseded"  # the device holds something newer and took nothing
    PROMISED = "promised"  # it has promised a conditional write to take nothing so old, and took nothing
    FAILED = "failed"  # an error, or no answer: it may or may not have it


@dataclass(frozen=True, slots=True)
class Reply:
    outcome: Outcome
    newest: Timestamp = ZERO  # superseded: what the device holds; promised: below what it takes nothing
    never: bool = False  # superseded: and it surely never held what was sent


class Verdict(Enum):
    STORED = "stored"  # enough copies are durable
    SUPERSEDED = "superseded"  # devices took nothing so old, and nobody was or will be shown this: write again above ``newest``
    CONTESTED = "contested"  # likewise, but it may lie somewhere, or may have lain: nobody may write it again just so
    UNAVAILABLE = "unavailable"  # enough copies can no longer be reached


@dataclass(slots=True)
class WriteQuorum:
    """Of one write.  Replies of replicas that have no vote (handoffs) change nothing.

    A majority that stored it is enough, whatever others hold: had something newer been acknowledged before this write began, it
    would be at a majority, and one of those would not have stored this.  Without a majority, it may be written again under a newer
    timestamp only when it is certain that nobody saw it, or it would happen twice: either it lies nowhere, or so many devices hold
    something newer and never held this that too few are left to show it."""

    voters: Voters
    stored: int = 0  # bits of replicas, as in Voters
    failed: int = 0
    superseded: int = 0
    promised: int = 0
    never: int = 0  # of those that it superseded
    newest: Timestamp = ZERO

    def receive(self, replica: int, reply: Reply) -> Verdict | None:
        """Take one reply; a Verdict as soon as later replies cannot change what to do."""
        if replica < self.voters.count:
            match reply.outcome:
                case Outcome.STORED:
                    self.stored |= 1 << replica
                case Outcome.SUPERSEDED:
                    self.superseded |= 1 << replica
                    self.never |= reply.never << replica
                    self.newest = max(self.newest, reply.newest)
                case Outcome.PROMISED:
                    self.promised |= 1 << replica
                    self.newest = max(self.newest, reply.newest)
                case Outcome.FAILED:
                    self.failed |= 1 << replica
        return self.verdict()

    def verdict(self) -> Verdict | None:
        if self.voters.majority(self.stored):
            return Verdict.STORED
        refused = self.superseded | self.promised
        if refused:
            if self.voters.blocks(self.never) or self.never | self.promised == self.voters.everybody:
                return Verdict.SUPERSEDED
            return Verdict.CONTESTED if self.stored | refused | self.failed == self.voters.everybody else None
        if not self.voters.majority(~self.failed):
            return Verdict.UNAVAILABLE
        return None

    @property
    def deciding(self) -> bool:
        """A majority replied, and what is still missing is worth a short wait only."""
        refused = self.superseded | self.promised
        return bool(refused) and self.voters.majority(self.stored | refused)

    def at_the_end(self) -> Verdict:
        """When no more replies are waited for."""
        verdict = self.verdict()
        if verdict is None:
            return Verdict.CONTESTED if self.superseded | self.promised else Verdict.UNAVAILABLE
        return verdict


# ---- reads


@dataclass(slots=True)
class ReadQuorum:
    """Which version of a name is the newest?  Replies are (replica, version or None when it knows of nothing).

    Settled early only when a majority says the same; while they differ, or know of nothing, the others are worth a short wait:
    they tell what to repair, and a device that was just emptied should not speak for the object's absence."""

    voters: Voters
    answers: dict[int, Version | None] = field(default_factory=dict)
    answered: int = 0  # bits of replicas
    failed: int = 0

    def receive(self, replica: int, version: Version | None) -> bool:
        """True when settled for good."""
        self.answers[replica] = version
        self.answered |= 1 << replica
        return self.settled

    def fail(self, replica: int) -> bool:
        self.failed |= 1 << replica
        return self.settled

    @property
    def decided(self) -> bool:
        """A majority answered: ``newest`` may be believed."""
        return self.voters.majority(self.answered)

    @property
    def settled(self) -> bool:
        if self.answered | self.failed == self.voters.everybody:
            return True
        if not self.decided:
            return not self.voters.majority(~self.failed)
        return self.agreed is not None

    @property
    def agreed(self) -> Version | None:
        """What everybody who answered holds; None when they differ, or know of nothing.  The usual case, so it is cheap."""
        first: Version | None = None
        for version in self.answers.values():
            if version is None:
                return None
            if first is None:
                first = version
            elif (
                version.timestamp != first.timestamp
                or version.etag != first.etag
                or version.kind is not first.kind
                or version.metadata_timestamp != first.metadata_timestamp
            ):
                return None
        return first

    @property
    def held(self) -> int:
        """Bits of the replicas that are known to hold the newest, metadata and all."""
        newest = self.newest
        if newest is None:
            return 0
        best = rank(newest)
        return sum(1 << i for i, version in self.answers.items() if version is not None and rank(version) == best)

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

    voters: Voters
    answers: dict[int, BookState | None] = field(default_factory=dict)
    answered: int = 0  # bits of replicas
    failed: int = 0

    def receive(self, replica: int, state: BookState | None) -> bool:
        """True when settled."""
        self.answers[replica] = state
        self.answered |= 1 << replica
        return self.settled

    def fail(self, replica: int) -> bool:
        self.failed |= 1 << replica
        return self.settled

    @property
    def decided(self) -> bool:
        return self.voters.majority(self.answered)

    @property
    def settled(self) -> bool:
        if self.answered | self.failed == self.voters.everybody:
            return True
        if not self.decided:
            return not self.voters.majority(~self.failed)
        first, *others = self.answers.values()
        return first is not None and all(state == first for state in others)
