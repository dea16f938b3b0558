"""Quorum of fragments: when is a write durable, and which version may a read show?

Pure: no I/O, no clock.  The rules of storage/client/quorum.py hold here too (majorities of the primaries, both rings while a
partition moves, handoffs do not count, no answer is not an answer); what is added is that one copy of the newest version is of no
use: it takes k.

**A write has two steps.**  *Stage*: each primary makes its fragment durable beside what it has; nothing is replaced and nothing is
shown.  When ``durable_fragments`` are staged the writer says *commit*; a primary that commits makes that durable, shows the
version, and may let go of older ones.  The write is acknowledged when a majority has committed.

- Why k + max(1, ceil(m / 2)) fragments: k + 1 at the least, so that what was acknowledged can be read after the loss of any one
  device; beyond that the m spare ones are shared between those that may be lost afterwards, ceil(m / 2), and those that may be down
  during a write, floor(m / 2).  4+2 writes 5 of 6, 8+4 10 of 12.  That is never less than a majority: k + ceil(m / 2) > (k + m) /
  2.
- Why two steps: a writer that dies half way has staged up to n fragments and replaced none.  With one step three new fragments of
  4+2 would leave three old ones, and neither version could be read.
- A commit anywhere proves that enough fragments are durable; so any reader that sees one may complete it.
- A majority of commits meets every majority of readers: what is acknowledged is seen.  A version of which no commit is seen at a
  majority was not acknowledged, and is not shown, however many have staged it.
- A read commits what it shows at a majority first (``REPAIR``), so that no later read takes it back.
- A primary that let go of a fragment answers with the newer version that it has instead: the reader begins again with that one.

Small objects of the policy are m + 1 whole copies.  A copy is a fragment of 1+m, so ``durable_fragments(1, m)`` of them make a
write durable; the other primaries stage a note that there is this version, without data, so that majorities meet here too, and so
that nobody commits what was refused.  These writes have two steps as well: a record that replaced fragments while the copies were
still on their way could leave neither.  A tombstone has one step: what it replaces is not wanted any more, whether the delete is
acknowledged or not.

Neighbours: storage/client/quorum.py; plan.py repairs what a write left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import Enum

from ring.service.voters import Voters, plain
from ring.timestamp import ZERO, Timestamp
from storage.client.quorum import Outcome, Reply, Verdict
from storage.erasure.interface import Coding


def durable_fragments(k: int, m: int) -> int:
    """So many of k + m must be durable before a write may be committed."""
    return k + max(1, (m + 1) // 2)


@dataclass(frozen=True, slots=True)
class Holders:
    """The primaries of an object, as replicas 0 to ``voters.count`` - 1, and the fragment that each is to have."""

    coding: Coding
    voters: Voters
    indexes: tuple[int, ...]

    @classmethod
    def settled(cls, coding: Coding) -> Holders:
        """Of a partition that does not move: replica i has fragment i."""
        return cls(coding, plain(coding.count), tuple(range(coding.count)))

    def distinct(self, replicas: int) -> int:
        """How many different fragments these (bits) have."""
        return len({index for replica, index in enumerate(self.indexes) if replicas >> replica & 1})

    def durable(self, replicas: int, *, whole: bool = False, bare: bool = False) -> bool:
        """Whether what these have staged is enough to commit, and a majority could.  ``bare``: a deletion, which has no data."""
        if bare:
            return self.voters.majority(replicas)
        if whole:
            enough = self.distinct(replicas & self.copies) >= durable_fragments(1, self.coding.m)
            return enough and self.voters.majority(replicas)
        return self.distinct(replicas) >= durable_fragments(self.coding.k, self.coding.m) and self.voters.majority(replicas)

    @property
    def copies(self) -> int:
        """Bits of the replicas that have the whole copies of a small object."""
        return sum(1 << replica for replica, index in enumerate(self.indexes) if index <= self.coding.m)


# ---- writes


@dataclass(slots=True)
class FragmentWrite:
    """Of one write, of fragments or of whole copies.  ``stage`` takes replies to the data: Verdict.STORED means that ``to_commit``
    shall be told to commit, also later ones.  ``commit`` takes replies to that: STORED means that the write is acknowledged.
    UNAVAILABLE after a commit was sent says that the write may or may not stand; before, that it does not."""

    holders: Holders
    whole: bool = False
    bare: bool = False
    staged: int = 0  # bits of replicas, as in Voters
    committed: int = 0
    failed: int = 0  # to stage or to commit
    newest: Timestamp = ZERO
    superseded: bool = False

    def stage(self, replica: int, reply: Reply) -> Verdict | None:
        """Take one reply; a Verdict as soon as later replies cannot change what to do."""
        if self._take(replica, reply):
            self.staged |= 1 << replica
        if self.superseded:
            return Verdict.SUPERSEDED
        if self.holders.durable(self.staged, whole=self.whole, bare=self.bare):
            return Verdict.STORED
        if not self.holders.durable(self.holders.voters.everybody & ~self.failed, whole=self.whole, bare=self.bare):
            return Verdict.UNAVAILABLE
        return None

    def commit(self, replica: int, reply: Reply) -> Verdict | None:
        if self._take(replica, reply):
            self.committed |= 1 << replica
        if self.superseded:
            return Verdict.SUPERSEDED
        if self.holders.voters.majority(self.committed):
            return Verdict.STORED
        if not self.holders.voters.majority(self.holders.voters.everybody & ~self.failed):
            return Verdict.UNAVAILABLE
        return None

    @property
    def to_commit(self) -> list[int]:
        """Replicas to be told to commit that have not answered to it.  Empty while what is staged is too little."""
        if not self.holders.durable(self.staged, whole=self.whole, bare=self.bare):
            return []
        waiting = self.staged & ~self.committed & ~self.failed
        return [replica for replica in range(self.holders.voters.count) if waiting >> replica & 1]

    def _take(self, replica: int, reply: Reply) -> bool:
        """Whether it did as it was told."""
        if replica >= self.holders.voters.count:
            return False
        match reply.outcome:
            case Outcome.STORED:
                return True
            case Outcome.SUPERSEDED:
                self.superseded = True
                self.newest = max(self.newest, reply.newest)
            case Outcome.FAILED:
                self.failed |= 1 << replica
        return False


# ---- reads


@dataclass(frozen=True, slots=True, order=True)
class Stamp:
    """A version of a name.  They are ordered as storage/client/quorum.py's ``rank`` does."""

    timestamp: Timestamp
    tombstone: bool = False
    etag: str = ""


class Data(Enum):
    """What a replica has of a version's data."""

    FRAGMENT = "fragment"
    COPY = "copy"  # a whole one
    NONE = "none"  # the record alone


@dataclass(frozen=True, slots=True)
class Sighting:
    """What one replica has of one version."""

    stamp: Stamp
    committed: bool
    data: Data = Data.FRAGMENT
    refused: bool = False  # not committed, and no writer can commit it here any more (see ``leftover``)
    index: int = -1  # of its fragment; -1: the one that it is to have


class ReadVerdict(Enum):
    SHOW = "show"  # a majority has committed ``newest``, and there are pieces enough
    REPAIR = "repair"  # commit ``newest`` on ``stale`` until a majority has it (rebuilding what is missing), then show it
    ABSENT = "absent"  # a majority answered and none has committed anything
    UNAVAILABLE = "unavailable"  # too few answers, or too few fragments among them


@dataclass(slots=True)
class FragmentRead:
    """Which version is the newest that may be shown, and who has its fragments?"""

    holders: Holders
    answers: dict[int, tuple[Sighting, ...]] = field(default_factory=dict)
    answered: int = 0  # bits of replicas
    failed: int = 0

    def receive(self, replica: int, sightings: Iterable[Sighting]) -> ReadVerdict | None:
        """Take what one replica has; a verdict when it is settled."""
        assert replica < self.holders.voters.count
        self.answers[replica] = tuple(sightings)
        self.answered |= 1 << replica
        return self.settled()

    def fail(self, replica: int) -> ReadVerdict | None:
        self.failed |= 1 << replica
        return self.settled()

    def settled(self) -> ReadVerdict | None:
        """None while others are worth a wait."""
        verdict = self.verdict()
        if verdict is ReadVerdict.SHOW or self.answered | self.failed == self.holders.voters.everybody:
            return verdict
        if not self.holders.voters.majority(~self.failed):
            return ReadVerdict.UNAVAILABLE
        return None

    def verdict(self) -> ReadVerdict:
        """By the answers so far."""
        if not self.holders.voters.majority(self.answered):
            return ReadVerdict.UNAVAILABLE
        newest = self.newest
        if newest is None:
            return ReadVerdict.ABSENT
        if not self.readable(newest):
            return ReadVerdict.UNAVAILABLE
        return ReadVerdict.SHOW if self.holders.voters.majority(self.committed(newest)) else ReadVerdict.REPAIR

    @property
    def newest(self) -> Stamp | None:
        """Of the versions that any replica has committed."""
        return max((one.stamp for sightings in self.answers.values() for one in sightings if one.committed), default=None)

    def committed(self, stamp: Stamp) -> int:
        """Bits of the replicas that have committed it."""
        return self._bits(stamp, lambda one: one.committed)

    def having(self, stamp: Stamp) -> int:
        """Bits of the replicas that have data of it, committed or staged."""
        return self._bits(stamp, lambda one: one.data is not Data.NONE)

    def refused(self, stamp: Stamp) -> int:
        """Bits of the replicas that have refused it."""
        return self._bits(stamp, lambda one: one.refused)

    def readable(self, stamp: Stamp) -> bool:
        """Whether there is data enough among the answers."""
        if stamp.tombstone or self._bits(stamp, lambda one: one.data is Data.COPY):
            return True
        return len(self.indexes(stamp)) >= self.holders.coding.k

    def indexes(self, stamp: Stamp) -> set[int]:
        """The different fragments of it that the answers name."""
        return {
            self.holders.indexes[replica] if one.index < 0 else one.index
            for replica, sightings in self.answers.items()
            for one in sightings
            if one.stamp == stamp and one.data is Data.FRAGMENT
        }

    @property
    def stale(self) -> list[int]:
        """Replicas that answered and have not committed the newest."""
        newest = self.newest
        if newest is None:
            return []
        missing = self.answered & ~self.committed(newest)
        return [replica for replica in range(self.holders.voters.count) if missing >> replica & 1]

    def _bits(self, stamp: Stamp, wanted: Callable[[Sighting], bool]) -> int:
        return sum(
            1 << replica
            for replica, sightings in self.answers.items()
            if any(one.stamp == stamp and wanted(one) for one in sightings)
        )


# ---- what a writer left staged


class Leftover(Enum):
    """What to do with a version that is staged somewhere and that its writer has not committed for long."""

    COMMIT = "commit"  # it is committed somewhere: commit it where it is staged, lifting refusals
    FINISH = "finish"  # it can be read: stage what is missing until it is durable, then commit
    REFUSE = "refuse"  # it cannot: have it refused by every primary
    DROP = "drop"  # it can never be shown: what is staged of it may go
    KEEP = "keep"  # not known


def leftover(read: FragmentRead, stamp: Stamp) -> Leftover:
    """By the answers so far; no answer is worth a wait here, the next pass may have it.

    To finish a write that was never acknowledged is right: its writer was told nothing, or that it may stand.  To let go of one
    takes two passes, since the writer may still be there.  First every primary refuses it: durably, unless it has committed it
    already; it then neither stages nor commits it for a writer, and keeps what is staged.  Only a commit that someone has seen
    elsewhere lifts that.  When all say that they have refused it, none has committed it and none will, so nobody can have seen a
    commit: it goes.  Had the first pass dropped what it found staged, a writer that was just then told "stored" by the last primary
    would have committed a version that cannot be read."""
    if read.committed(stamp):
        return Leftover.COMMIT
    newest = read.newest
    if newest is not None and newest > stamp:
        # A newer one that only a minority has committed may yet be all but lost, and this one be what is left: repair that first.
        return Leftover.DROP if read.holders.voters.majority(read.committed(newest)) else Leftover.KEEP
    if read.answered != read.holders.voters.everybody:
        return Leftover.KEEP
    refused = read.refused(stamp)
    if refused == read.holders.voters.everybody:
        return Leftover.DROP
    return Leftover.FINISH if read.readable(stamp) and not refused else Leftover.REFUSE
