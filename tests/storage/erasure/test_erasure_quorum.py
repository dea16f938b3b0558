"""When fragments are durable and what a read may show: tables, and plays of writers that die, readers, and lost devices."""

from __future__ import annotations

import random
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import TypeVar

import pytest

from ring.service.voters import Voters, majority_of
from ring.timestamp import Timestamp
from storage.client.quorum import Outcome, Reply, Verdict
from storage.erasure.interface import FRAGMENTS_MAX, Coding
from storage.erasure.quorum import (
    Data,
    FragmentRead,
    FragmentWrite,
    Holders,
    Leftover,
    ReadVerdict,
    Sighting,
    Stamp,
    durable_fragments,
    leftover,
)

STORED, FAILED = Reply(Outcome.STORED), Reply(Outcome.FAILED)
FOUR = Holders.settled(Coding(4, 2))
OLD, NEW = Stamp(Timestamp(1)), Stamp(Timestamp(2))


# ---- how many


@pytest.mark.parametrize(("k", "m", "count"), [(4, 2, 5), (8, 4, 10), (2, 1, 3), (10, 4, 12), (6, 3, 8), (1, 2, 2), (1, 4, 3)])
def test_how_many_fragments_make_a_write_durable(k: int, m: int, count: int) -> None:
    assert durable_fragments(k, m) == count


def test_for_every_coding_a_loss_is_survived_and_readers_are_met() -> None:
    for k in range(1, FRAGMENTS_MAX):
        for m in range(1, FRAGMENTS_MAX - k + 1):
            count = durable_fragments(k, m)
            assert k + 1 <= count <= k + m
            assert count >= majority_of(k + m)
            assert m == 1 or k + m - count >= 1, "one device may be down during a write"


# ---- writes


def test_a_write_in_two_steps() -> None:
    write = FragmentWrite(FOUR)
    assert [write.stage(replica, STORED) for replica in range(4)] == [None] * 4
    assert write.to_commit == []
    assert write.stage(4, STORED) is Verdict.STORED
    assert write.to_commit == [0, 1, 2, 3, 4]
    assert [write.commit(replica, STORED) for replica in (4, 0, 2)] == [None] * 3
    assert write.stage(5, STORED) is Verdict.STORED  # late, and committed too
    assert write.to_commit == [1, 3, 5]
    assert write.commit(5, STORED) is Verdict.STORED


def test_two_that_cannot_stage_are_too_many_for_four_and_two() -> None:
    write = FragmentWrite(FOUR)
    assert write.stage(3, FAILED) is None
    assert write.stage(5, FAILED) is Verdict.UNAVAILABLE


def test_commits_that_are_not_heard_of() -> None:
    write = FragmentWrite(FOUR)
    for replica in range(6):
        write.stage(replica, STORED)
    assert [write.commit(replica, FAILED) for replica in range(3)] == [None, None, Verdict.UNAVAILABLE]


def test_something_newer_is_written_above() -> None:
    newer = Reply(Outcome.SUPERSEDED, Timestamp(9))
    for call in (FragmentWrite.stage, FragmentWrite.commit):
        write = FragmentWrite(FOUR)
        write.stage(0, STORED)
        assert call(write, 1, newer) is Verdict.SUPERSEDED
        assert write.newest == Timestamp(9)


def test_handoffs_have_no_vote() -> None:
    write = FragmentWrite(FOUR)
    assert [write.stage(replica, STORED) for replica in (6, 7, 8, 9, 10, 11)] == [None] * 6
    assert write.staged == 0


def test_whole_copies_are_staged_on_m_plus_one_and_noted_by_a_majority() -> None:
    write = FragmentWrite(Holders.settled(Coding(8, 4)), whole=True)
    assert [write.stage(replica, STORED) for replica in (11, 0, 4, 2)] == [None] * 4  # copies enough, and too few know of them
    assert [write.stage(replica, STORED) for replica in (10, 9)] == [None] * 2
    assert write.stage(8, STORED) is Verdict.STORED
    assert write.to_commit == [0, 2, 4, 8, 9, 10, 11]  # nobody is told who has not staged it: it may have been refused there
    assert [write.commit(replica, STORED) for replica in (0, 2, 4, 8, 9, 10)] == [None] * 6
    assert write.commit(11, STORED) is Verdict.STORED
    short = FragmentWrite(Holders.settled(Coding(8, 4)), whole=True)
    assert [short.stage(replica, FAILED) for replica in (9, 0, 1, 2)] == [None, None, None, Verdict.UNAVAILABLE]


def test_while_a_partition_moves_one_index_counts_once_and_both_rings_have_a_say() -> None:
    """Fragments 4 and 5 move, to replicas 4 and 5 from 6 and 7."""
    write = FragmentWrite(MOVING)
    assert [write.stage(replica, STORED) for replica in (0, 1, 2, 4, 6)] == [None] * 5  # four of them different
    assert write.stage(3, STORED) is Verdict.STORED
    assert [write.commit(replica, STORED) for replica in (0, 1, 2)] == [None] * 3
    assert write.commit(4, STORED) is None  # not one of the settled ring's
    assert write.commit(6, STORED) is Verdict.STORED
    split = Holders(Coding(1, 2), Voters.of([0, 1, 2], [3, 4, 5]), (0, 1, 2, 0, 1, 2))
    assert split.distinct(0b000111) == 3 and not split.durable(0b000111)
    assert split.durable(0b011011)


# ---- reads


def read_of(*states: tuple[Sighting, ...] | None, holders: Holders = FOUR) -> tuple[FragmentRead, ReadVerdict | None]:
    """By replica; None: no answer."""
    read, verdict = FragmentRead(holders), None
    for replica, state in enumerate(states):
        verdict = read.fail(replica) if state is None else read.receive(replica, state)
    return read, verdict


def has(stamp: Stamp, data: Data = Data.FRAGMENT) -> tuple[Sighting, ...]:
    return (Sighting(stamp, True, data),)


def staged(stamp: Stamp, *others: Sighting) -> tuple[Sighting, ...]:
    return (*others, Sighting(stamp, False))


O = Sighting(OLD, True)  # noqa: E741 - a column of a table
DELETED = Stamp(Timestamp(2), True)


@pytest.mark.parametrize(
    ("states", "verdict", "newest"),
    [
        ([has(OLD)] * 4, ReadVerdict.SHOW, OLD),
        ([has(OLD)] * 3, None, OLD),
        ([()] * 5, None, None),
        ([()] * 6, ReadVerdict.ABSENT, None),
        ([(), (), (), (), None, None], ReadVerdict.ABSENT, None),
        ([None] * 3, ReadVerdict.UNAVAILABLE, None),
        ([has(OLD), has(OLD), has(OLD), None, None, None], ReadVerdict.UNAVAILABLE, OLD),
        # one commit is seen: it is completed, then shown
        ([*[has(OLD)] * 3, has(NEW), staged(NEW, O), staged(NEW, O)], ReadVerdict.UNAVAILABLE, NEW),
        ([has(NEW), *[staged(NEW, O)] * 4, has(OLD)], ReadVerdict.REPAIR, NEW),
        ([has(NEW), *[staged(NEW, O)] * 3, None, None], ReadVerdict.REPAIR, NEW),
        ([has(NEW), *[staged(NEW, O)] * 3, has(OLD)], None, NEW),
        # none is seen: it was not acknowledged
        ([staged(NEW, O)] * 6, ReadVerdict.SHOW, OLD),
        ([staged(NEW)] * 6, ReadVerdict.ABSENT, None),
        ([staged(NEW, O), staged(NEW, O), has(OLD), has(OLD), None, None], ReadVerdict.SHOW, OLD),
        # a record alone says that it stands and gives nothing
        ([has(OLD, Data.NONE)] * 6, ReadVerdict.UNAVAILABLE, OLD),
        ([has(OLD, Data.COPY), *[has(OLD, Data.NONE)] * 3], ReadVerdict.SHOW, OLD),
        # a deletion needs no data
        ([has(DELETED, Data.NONE)] * 4, ReadVerdict.SHOW, DELETED),
        ([has(DELETED, Data.NONE), *[has(OLD)] * 5], ReadVerdict.REPAIR, DELETED),
    ],
)
def test_reads(states: list[tuple[Sighting, ...] | None], verdict: ReadVerdict | None, newest: Stamp | None) -> None:
    read, found = read_of(*states)
    assert (found, read.newest) == (verdict, newest)


def test_who_is_to_be_repaired() -> None:
    read, _ = read_of(has(NEW), staged(NEW, O), has(OLD), None, (), has(NEW))
    assert read.stale == [1, 2, 4]
    assert (read.having(NEW), read.committed(NEW)) == (0b100011, 0b100001)
    assert FragmentRead(FOUR).stale == []


def test_equal_times_are_ordered_as_everywhere() -> None:
    now = Timestamp(5)
    assert Stamp(now, False, "b") > Stamp(now, False, "a") and Stamp(now, True) > Stamp(now, False, "z")


# ---- what is left over


REFUSED = (O, Sighting(NEW, False, Data.NONE, True))
HELD_REFUSED = (O, Sighting(NEW, False, Data.FRAGMENT, True))
NEWER = Stamp(Timestamp(3))


@pytest.mark.parametrize(
    ("states", "what"),
    [
        ([has(NEW), *[staged(NEW, O)] * 4, None], Leftover.COMMIT),
        ([has(NEW), HELD_REFUSED, None, None, None, None], Leftover.COMMIT),
        ([*[staged(NEW, O)] * 5, None], Leftover.KEEP),  # the last may have committed, and be all that knows
        ([*[staged(NEW, O)] * 4, has(OLD), has(OLD)], Leftover.FINISH),
        ([*[staged(NEW, O)] * 3, has(OLD), has(OLD), has(OLD)], Leftover.REFUSE),
        ([*[staged(NEW, O)] * 3, has(OLD), has(OLD), None], Leftover.KEEP),
        ([*[staged(NEW, O)] * 5, REFUSED], Leftover.REFUSE),  # somebody began to: go on
        ([*[HELD_REFUSED] * 3, *[REFUSED] * 2, has(OLD)], Leftover.REFUSE),
        ([*[HELD_REFUSED] * 3, *[REFUSED] * 2, None], Leftover.KEEP),
        ([*[HELD_REFUSED] * 3, *[REFUSED] * 3], Leftover.DROP),
        ([staged(NEW), *[has(NEWER)] * 4, None], Leftover.DROP),
        ([staged(NEW), *[has(NEWER)] * 3, has(OLD), has(OLD)], Leftover.KEEP),
    ],
)
def test_leftovers(states: list[tuple[Sighting, ...] | None], what: Leftover) -> None:
    read, _ = read_of(*states)
    assert leftover(read, NEW) is what


# ---- a play

Steps = Generator[None, None, None]
Result = TypeVar("Result")


@dataclass
class Device:
    """A primary: what it has staged, its committed version and that one's data."""

    staged: set[Stamp] = field(default_factory=set)
    newest: Stamp | None = None
    data: bool = False  # of the newest
    refused: set[Stamp] = field(default_factory=set)
    lost: bool = False

    def stage(self, stamp: Stamp) -> Reply:
        if self.newest is not None and self.newest > stamp:
            return Reply(Outcome.SUPERSEDED, self.newest.timestamp)
        if stamp in self.refused:
            return FAILED
        if stamp != self.newest:
            self.staged.add(stamp)
        self.data |= stamp == self.newest
        return STORED

    def commit(self, stamp: Stamp, *, seen: bool = False) -> Reply:
        """``seen``: whoever says so has seen a commit elsewhere."""
        if self.newest is not None and self.newest > stamp:
            return Reply(Outcome.SUPERSEDED, self.newest.timestamp)
        if stamp in self.refused and not seen:
            return FAILED
        self.refused.discard(stamp)
        if stamp != self.newest:
            self.newest, self.data = stamp, stamp in self.staged
            self.staged = {one for one in self.staged if one > stamp}
        return STORED

    def refuse(self, stamp: Stamp) -> None:
        if self.newest is None or self.newest < stamp:
            self.refused.add(stamp)

    def sightings(self) -> list[Sighting]:
        mine = [] if self.newest is None else [Sighting(self.newest, True, Data.FRAGMENT if self.data else Data.NONE)]
        others = sorted(one for one in self.staged | self.refused if self.newest is None or one > self.newest)
        return mine + [
            Sighting(one, False, Data.FRAGMENT if one in self.staged else Data.NONE, one in self.refused) for one in others
        ]

    def has(self, stamp: Stamp) -> bool:
        return stamp in self.staged or (stamp == self.newest and self.data)


class Cluster:
    """Writers and readers of one name, one step at a time by chance.  At most as many devices are lost as a write allows for."""

    def __init__(self, holders: Holders, seed: int, mutant: str = "") -> None:
        coding = holders.coding
        self.holders = holders
        self.rng = random.Random(seed)
        self.devices = [Device() for _ in range(holders.voters.count)]
        self.mutant = mutant
        self.losses = durable_fragments(coding.k, coding.m) - coding.k
        self.clock = 0
        self.floor: Stamp | None = None  # the newest that was acknowledged or shown
        self.outage = 0.1  # of a call

    def order(self) -> list[int]:
        return self.rng.sample(range(len(self.devices)), len(self.devices))

    def up(self, replica: int) -> bool:
        return not self.devices[replica].lost and self.rng.random() >= self.outage

    def reached(self, stamp: Stamp) -> None:
        self.floor = stamp if self.floor is None else max(self.floor, stamp)

    def write(self) -> Steps:
        self.clock += 1
        stamp = Stamp(Timestamp(self.clock))
        write = FragmentWrite(self.holders)
        verdict: Verdict | None = None
        for replica in self.order():
            yield
            device = self.devices[replica]
            reply = device.stage(stamp) if self.up(replica) else FAILED
            if self.mutant == "one step" and reply.outcome is Outcome.STORED:
                reply = device.commit(stamp)
            verdict = write.stage(replica, reply)
            if verdict in (Verdict.SUPERSEDED, Verdict.UNAVAILABLE):
                return
        if verdict is not Verdict.STORED:
            return
        for replica in self.rng.sample(write.to_commit, len(write.to_commit)):
            yield
            verdict = write.commit(replica, self.devices[replica].commit(stamp) if self.up(replica) else FAILED)
            if verdict is Verdict.SUPERSEDED:
                return
            if verdict is Verdict.STORED:
                self.reached(stamp)

    def ask(self) -> Generator[None, None, tuple[FragmentRead, ReadVerdict | None]]:
        read, verdict = FragmentRead(self.holders), None
        for replica in self.order():
            yield
            verdict = read.receive(replica, self.devices[replica].sightings()) if self.up(replica) else read.fail(replica)
            if verdict is not None:
                break
        return read, verdict

    def read(self) -> Generator[None, None, ReadVerdict | None]:
        floor = self.floor
        read, verdict = yield from self.ask()
        newest = read.newest
        if verdict is ReadVerdict.REPAIR and self.mutant != "no repair":
            assert newest is not None
            verdict = yield from self.repair(read, newest)
        if verdict in (ReadVerdict.SHOW, ReadVerdict.ABSENT, ReadVerdict.REPAIR):
            assert floor is None or (newest is not None and newest >= floor), f"{newest} is shown after {floor}"
            if newest is not None:
                self.reached(newest)
        return verdict

    def repair(self, read: FragmentRead, stamp: Stamp) -> Generator[None, None, ReadVerdict]:
        committed = read.committed(stamp)
        for replica in self.order():
            yield
            if not self.up(replica):
                continue
            device = self.devices[replica]
            if not device.has(stamp) and self.readable(stamp):
                device.stage(stamp)  # rebuilt
            if device.commit(stamp, seen=True).outcome is Outcome.STORED:
                committed |= 1 << replica
        return ReadVerdict.SHOW if self.holders.voters.majority(committed) else ReadVerdict.UNAVAILABLE

    def readable(self, stamp: Stamp) -> bool:
        having = sum(1 << replica for replica, one in enumerate(self.devices) if one.has(stamp) and not one.lost)
        return self.holders.distinct(having) >= self.holders.coding.k

    def lose(self) -> None:
        alive = [device for device in self.devices if not device.lost]
        if len(self.devices) - len(alive) < self.losses:
            self.rng.choice(alive).lost = True

    def run(self) -> None:
        tasks: list[Steps | Generator[None, None, ReadVerdict | None]] = []
        for _ in range(self.rng.randint(20, 120)):
            event = self.rng.random()
            if event < 0.06:
                tasks.append(self.write())
            elif event < 0.12:
                tasks.append(self.read())
            elif event < 0.14 and tasks:
                tasks.pop(self.rng.randrange(len(tasks))).close()  # it dies
            elif event < 0.15:
                self.lose()
            elif event < 0.19:
                tasks.append(self.resolve())
            for _ in range(self.rng.randrange(4)):
                if tasks:
                    task = self.rng.choice(tasks)
                    if next(task, StopIteration) is StopIteration:
                        tasks.remove(task)
        while self.rng.random() < 0.5:
            self.lose()
        self.settle()

    def settle(self) -> None:
        """Faults and writers are over: what was acknowledged or shown can be read, and what is left over is resolved."""
        self.outage = 0.0
        for _ in range(3 + 4 * self.clock):
            verdict = done(self.read())
            assert verdict not in (None, ReadVerdict.UNAVAILABLE), "it cannot be read any more"
            done(self.resolve())
        if not any(device.lost for device in self.devices):
            assert not any(device.staged for device in self.devices), "something is staged for ever"

    def resolve(self) -> Steps:
        """A pass of the worker that looks after what is left over: one version."""
        read = FragmentRead(self.holders)
        for replica in self.order():
            yield
            if self.up(replica):
                read.receive(replica, self.devices[replica].sightings())
            else:
                read.fail(replica)
        found = sorted(
            {one.stamp for seen in read.answers.values() for one in seen if not one.committed and one.data is not Data.NONE}
        )
        if not found:
            return
        stamp = self.rng.choice(found)
        todo = leftover(read, stamp)
        if self.mutant == "drop at once" and todo is Leftover.REFUSE:
            todo = Leftover.DROP
        if self.mutant == "drop the unknown" and todo is Leftover.KEEP:
            todo = Leftover.DROP
        if todo is Leftover.COMMIT:
            yield from self.repair(read, stamp)
        elif todo is Leftover.FINISH:
            yield from self.finish(stamp)
        for replica in self.order():
            yield
            device = self.devices[replica]
            if todo is Leftover.REFUSE and self.up(replica):
                device.refuse(stamp)
            elif todo is Leftover.DROP and self.up(replica):
                device.staged.discard(stamp)

    def finish(self, stamp: Stamp) -> Steps:
        staged = 0
        for replica in self.order():
            yield
            device = self.devices[replica]
            if self.up(replica) and (device.has(stamp) or self.readable(stamp)) and device.stage(stamp).outcome is Outcome.STORED:
                staged |= 1 << replica
        for replica in self.order():
            yield
            if self.up(replica) and staged >> replica & 1 and self.holders.durable(staged):
                self.devices[replica].commit(stamp)


def done(steps: Generator[None, None, Result]) -> Result:
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: Result = end.value
            return result


MOVING = Holders(Coding(4, 2), Voters.of(range(6), [0, 1, 2, 3, 6, 7]), (0, 1, 2, 3, 4, 5, 4, 5))
PLAYED = {
    "4+2": FOUR,
    "2+1": Holders.settled(Coding(2, 1)),
    "3+3": Holders.settled(Coding(3, 3)),
    "1+4": Holders.settled(Coding(1, 4)),
    "4+2, two of them moving": MOVING,
}
SEEDS = 150


@pytest.mark.parametrize("name", PLAYED)
def test_what_was_acknowledged_or_shown_stays(name: str) -> None:
    shown = 0
    for seed in range(SEEDS):
        cluster = Cluster(PLAYED[name], seed)
        try:
            cluster.run()
        except AssertionError as error:
            raise AssertionError(f"{name}, seed {seed}: {error}") from error
        shown += cluster.floor is not None
    assert shown > SEEDS / 3, "the plays are too short to say anything"


@pytest.mark.parametrize(
    "mutant",
    [
        "one step",  # what is staged is committed at once: a writer that dies leaves neither version
        "no repair",  # what is read is shown before a majority has committed it: a later read takes it back
        "drop at once",  # what cannot be read is dropped while its writer may still be there
        "drop the unknown",  # ... or though not everybody answered
    ],
)
def test_the_play_notices(mutant: str) -> None:
    with pytest.raises(AssertionError):
        for seed in range(20 * SEEDS):
            Cluster(FOUR, seed, mutant).run()
