"""Tables: replies in, verdict out."""

from __future__ import annotations

import pytest

from ring.names import Path
from ring.service.voters import majority_of, plain
from ring.timestamp import ZERO, Timestamp
from storage.client.node import BookHeader, BookState, Kind, Version
from storage.client.quorum import BookQuorum, Outcome, ReadQuorum, Reply, Verdict, Voters, WriteQuorum

PATH = Path("a", "c", "o")
STORED = Reply(Outcome.STORED)
FAILED = Reply(Outcome.FAILED)
NEVER = Reply(Outcome.SUPERSEDED, newest=Timestamp(9), never=True)
MAYBE = Reply(Outcome.SUPERSEDED, newest=Timestamp(9))
PROMISED = Reply(Outcome.PROMISED, newest=Timestamp(9))
BY_HANDOFF = Reply(Outcome.STORED)
HANDOFF = 5  # a replica number that no voter has


@pytest.mark.parametrize(
    ("replicas", "replies", "verdicts"),
    [
        (3, [STORED, STORED, STORED], [None, Verdict.STORED, Verdict.STORED]),
        (3, [STORED, FAILED, STORED], [None, None, Verdict.STORED]),
        (3, [FAILED, STORED, FAILED], [None, None, Verdict.UNAVAILABLE]),
        (3, [FAILED, FAILED], [None, Verdict.UNAVAILABLE]),
        (3, [STORED, FAILED, BY_HANDOFF, FAILED], [None, None, None, Verdict.UNAVAILABLE]),
        # Something newer: a majority that stored it is enough; else it must be certain that nobody saw it.
        (3, [NEVER, STORED, STORED], [None, None, Verdict.STORED]),
        (3, [STORED, NEVER, NEVER], [None, None, Verdict.SUPERSEDED]),
        (3, [NEVER, NEVER], [None, Verdict.SUPERSEDED]),
        (3, [FAILED, NEVER, NEVER], [None, None, Verdict.SUPERSEDED]),
        (3, [STORED, MAYBE, NEVER], [None, None, Verdict.CONTESTED]),
        (3, [MAYBE, MAYBE, MAYBE], [None, None, Verdict.CONTESTED]),
        (3, [STORED, FAILED, NEVER], [None, None, Verdict.CONTESTED]),
        # A promise can be taken back: what it refused may come again from where it lies, unless it lies nowhere.
        (3, [STORED, PROMISED, PROMISED], [None, None, Verdict.CONTESTED]),
        (3, [PROMISED, PROMISED, PROMISED], [None, None, Verdict.SUPERSEDED]),
        (3, [PROMISED, PROMISED, NEVER], [None, None, Verdict.SUPERSEDED]),
        (3, [PROMISED, PROMISED, FAILED], [None, None, Verdict.CONTESTED]),
        (3, [PROMISED, STORED, STORED], [None, None, Verdict.STORED]),
        (2, [NEVER], [Verdict.SUPERSEDED]),
        (5, [STORED, STORED, NEVER, NEVER, NEVER], [None, None, None, None, Verdict.SUPERSEDED]),
        (1, [STORED], [Verdict.STORED]),
        (1, [FAILED], [Verdict.UNAVAILABLE]),
        (2, [STORED, FAILED], [None, Verdict.UNAVAILABLE]),
        (4, [STORED, STORED, STORED], [None, None, Verdict.STORED]),
        (4, [STORED, FAILED, FAILED], [None, None, Verdict.UNAVAILABLE]),
        (5, [FAILED, FAILED, STORED, STORED, STORED], [None, None, None, None, Verdict.STORED]),
    ],
)
def test_a_write_stands_at_a_majority_of_primaries(replicas: int, replies: list[Reply], verdicts: list[Verdict | None]) -> None:
    quorum = WriteQuorum(plain(replicas))
    voting = iter(range(replicas))
    assert [quorum.receive(HANDOFF if reply is BY_HANDOFF else next(voting), reply) for reply in replies] == verdicts


def test_while_a_partition_moves_no_ring_may_show_what_is_written_again() -> None:
    quorum = WriteQuorum(Voters.of([0, 1, 2], [2, 3, 4]))
    assert quorum.receive(0, NEVER) is None
    assert quorum.receive(1, NEVER) is None  # whoever goes by the settled ring alone may still be shown it
    assert quorum.receive(3, NEVER) is None
    assert quorum.receive(2, NEVER) is Verdict.SUPERSEDED


def test_at_the_end_of_the_wait_silence_is_unknown() -> None:
    for replies, verdict in (
        ([NEVER], Verdict.CONTESTED),
        ([PROMISED, STORED], Verdict.CONTESTED),
        ([STORED], Verdict.UNAVAILABLE),
    ):
        quorum = WriteQuorum(plain(3))
        for replica, reply in enumerate(replies):
            quorum.receive(replica, reply)
        assert quorum.at_the_end() is verdict
        assert quorum.deciding == (len(replies) == 2)


def test_a_superseded_write_names_the_newest() -> None:
    quorum = WriteQuorum(plain(3))
    quorum.receive(0, Reply(Outcome.SUPERSEDED, newest=Timestamp(5)))
    quorum.receive(1, Reply(Outcome.SUPERSEDED, newest=Timestamp(4)))
    assert quorum.newest == Timestamp(5)


def test_majorities_meet() -> None:
    for count in range(1, 10):
        assert 2 * majority_of(count) > count


def version(ticks: int, etag: str = "e", posted: int = 0, kind: Kind = Kind.OBJECT) -> Version:
    return Version(PATH, Timestamp(ticks), kind, 1, etag, metadata_timestamp=Timestamp(posted) if posted else None)


OLD, NEW, POSTED, GONE = version(1), version(2), version(2, posted=3), version(4, "", kind=Kind.TOMBSTONE)


@pytest.mark.parametrize(
    ("answers", "settled", "newest", "holders", "stale"),
    [
        ([NEW, NEW], True, NEW, [0, 1], []),
        ([NEW], False, NEW, [0], []),
        ([OLD, NEW], False, NEW, [1], [0]),
        ([OLD, NEW, NEW], True, NEW, [1, 2], [0]),
        ([OLD, OLD, NEW], True, NEW, [2], [0, 1]),
        ([None, None], False, None, [], []),
        ([None, None, NEW], True, NEW, [2], [0, 1]),
        ([None, None, None], True, None, [], []),
        ([NEW, POSTED], False, POSTED, [1, 0], [0]),
        ([NEW, GONE], False, GONE, [1], [0]),
        ([GONE, GONE], True, GONE, [0, 1], []),
        (["failed", NEW, NEW], True, NEW, [1, 2], []),
        (["failed", NEW, OLD], True, NEW, [1], [2]),
        (["failed", "failed"], True, None, [], []),
    ],
)
def test_reading(
    answers: list[Version | str | None], settled: bool, newest: Version | None, holders: list[int], stale: list[int]
) -> None:
    quorum = ReadQuorum(plain(3))
    for replica, answer in enumerate(answers):
        if isinstance(answer, str):
            quorum.fail(replica)
        else:
            quorum.receive(replica, answer)
    assert (quorum.settled, quorum.newest, quorum.holders, quorum.stale) == (settled, newest, holders, stale)
    assert quorum.decided == (sum(not isinstance(answer, str) for answer in answers) >= 2)


def test_at_one_time_a_tombstone_is_above_data_and_the_greater_digest_wins() -> None:
    quorum = ReadQuorum(plain(4))
    for replica, answer in enumerate([version(4, "a"), version(4, "b")]):
        quorum.receive(replica, answer)
    assert quorum.newest == version(4, "b")
    quorum.receive(2, version(4, "", kind=Kind.TOMBSTONE))
    assert quorum.newest == version(4, "", kind=Kind.TOMBSTONE)


def state(count: int) -> BookState:
    return BookState(BookHeader(Path("a", "c"), Timestamp(1), None), count, 0)


@pytest.mark.parametrize(
    ("answers", "decided", "settled"),
    [
        ([state(1)], False, False),
        ([state(1), state(1)], True, True),
        ([state(1), state(2)], True, False),
        ([state(1), state(2), state(2)], True, True),
        ([None, None], True, False),
        ([None, None, None], True, True),
        (["failed", state(1)], False, False),
        (["failed", "failed"], False, True),
    ],
)
def test_books(answers: list[BookState | str | None], decided: bool, settled: bool) -> None:
    quorum = BookQuorum(plain(3))
    for replica, answer in enumerate(answers):
        if isinstance(answer, str):
            quorum.fail(replica)
        else:
            quorum.receive(replica, answer)
    assert (quorum.decided, quorum.settled) == (decided, settled)


def test_zero_is_below_all() -> None:
    assert WriteQuorum(plain(3)).newest == ZERO
