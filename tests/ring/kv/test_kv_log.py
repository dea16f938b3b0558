"""The log's bytes, what damage it shows, and which of several logs is believed."""

from __future__ import annotations

from pathlib import Path

import pytest

from ring.errors import DiskFault, FormatError, Unavailable
from ring.kv.interface import Delete, LeaseId, Put
from ring.kv.log import Condition, Found, Head, Log, choose, decode, encode_head, encode_record, quorum
from ring.kv.state import Draft, State

GOLDEN = Path(__file__).parents[2] / "golden" / "kv-log-1.log"
STORE = bytes(range(16))


def written() -> tuple[State, list[bytes]]:
    """A state, and the log that tells of it in pieces: head, then records."""
    state = State()
    draft = Draft(state)
    draft.transact([], [Put("a/b", b"1"), Put("ö", bytes(3))])
    draft.grant(30.0)
    for change in draft.changes:
        state.apply(change)
    pieces = [encode_head(Head(STORE, 7, 3, 5, 5), state)]
    for step in range(3):
        draft = Draft(state)
        draft.transact([], [Put(f"c/{step}", b"x" * step, LeaseId(1)), Delete("a/b")])
        if step == 1:
            draft.grant(10.0)
            draft.transact([], [Put("d", b"", LeaseId(2))])
        if step == 2:
            draft.revoke(LeaseId(2))
        pieces.append(encode_record(6 + step, draft.revision, draft.changes))
        for change in draft.changes:
            state.apply(change)
    return state, pieces


def same(one: State, other: State) -> bool:
    return (one.range(""), one.revision, one.next_lease, one.leases) == (
        other.range(""),
        other.revision,
        other.next_lease,
        other.leases,
    )


def test_round_trip() -> None:
    state, pieces = written()
    found = decode(b"".join(pieces))
    assert found.condition is Condition.WHOLE
    assert found.log is not None
    assert found.log.head == Head(STORE, 7, 3, 5, 5)
    assert found.log.sequence == 8
    assert same(found.log.state, state)
    again = decode(encode_head(found.log.head, state))
    assert again.log is not None
    assert same(again.log.state, state)


def test_golden_bytes() -> None:
    assert GOLDEN.read_bytes() == b"".join(written()[1])


def test_a_cut_tail_is_torn_and_what_precedes_it_stands() -> None:
    _, pieces = written()
    whole = b"".join(pieces)
    boundaries = [sum(map(len, pieces[:count])) for count in range(1, 5)]
    for length in range(boundaries[0], len(whole)):
        found = decode(whole[:length])
        assert found.log is not None
        assert found.log.sequence == 5 + max(index for index, boundary in enumerate(boundaries) if boundary <= length)
        assert found.condition is (Condition.WHOLE if length in boundaries else Condition.TORN)
        zeros = decode(whole[:length].ljust(len(whole) + 512, b"\0"))
        assert zeros.log is not None
        assert zeros.log.sequence == found.log.sequence


def test_every_flipped_bit_is_noticed() -> None:
    _, pieces = written()
    whole = b"".join(pieces)
    last = len(whole) - len(pieces[-1])
    for bit in range(8 * len(whole)):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        found = decode(bytes(flipped))
        if bit // 8 < last:
            assert found.condition is Condition.ROTTEN, bit
        else:
            assert found.condition is Condition.TORN
            assert found.log is not None
            assert found.log.sequence == 7


def test_foreign_and_newer_files() -> None:
    assert decode(b"").condition is Condition.ROTTEN
    assert decode(b"hello" * 100).condition is Condition.ROTTEN
    newer = bytearray(encode_head(Head(STORE, 1, 1, 0, 0), State()))
    newer[9] = 2
    assert decode(bytes(newer)).condition is Condition.ROTTEN  # the checksum says it is damage, not a newer version


def test_a_newer_version_is_left_to_people() -> None:
    import zlib

    newer = bytearray(encode_head(Head(STORE, 1, 1, 0, 0), State()))
    newer[9] = 2
    newer[20:24] = zlib.crc32(newer[24:], zlib.crc32(newer[:20])).to_bytes(4, "big")
    with pytest.raises(FormatError, match="format 2"):
        decode(bytes(newer))


def log(generation: int, sequence: int, *, opened: int = 0, logs: int = 3, store: bytes = STORE) -> Found:
    return Found(Condition.WHOLE, Log(Head(store, generation, logs, opened, opened), State(), sequence))


EMPTY = Found(Condition.EMPTY)
ABSENT = Found(Condition.ABSENT)
ROTTEN = Found(Condition.ROTTEN)


@pytest.mark.parametrize(
    ("found", "winner"),
    [
        ([EMPTY], None),
        ([EMPTY, EMPTY, EMPTY], None),
        ([log(1, 5, logs=1)], 0),
        ([log(1, 5), log(1, 6), log(1, 5)], 1),
        ([log(1, 9), log(2, 7, opened=6), log(2, 7, opened=6)], 1),  # the longest is not the newest
        ([log(2, 9, opened=9), log(2, 8, opened=7), ABSENT], 1),  # two starts with one number: one wrote
        ([EMPTY, log(3, 9), log(3, 8)], 1),
        ([ROTTEN, log(3, 8), log(3, 9)], 2),
        ([ABSENT, log(3, 8), log(3, 9)], 2),
        ([log(1, 0), EMPTY, EMPTY], 0),  # a crash in the very first start
        ([log(4, 9, logs=1), EMPTY, EMPTY], 0),  # disks were added
        ([log(4, 9, logs=1), log(5, 9, opened=9), EMPTY], 1),  # and a crash while they were taken in
        ([log(3, 9, logs=2), EMPTY], 0),  # of two logs, each has everything
        ([log(3, 9), log(3, 9), log(8, 50, store=bytes(16))], 0),  # another cloud's disk
    ],
)
def test_choose(found: list[Found], winner: int | None) -> None:
    best, _ = choose(found)
    assert best is (None if winner is None else found[winner].log)


@pytest.mark.parametrize(
    ("found", "error"),
    [
        ([ABSENT], Unavailable),
        ([ROTTEN], DiskFault),
        ([ABSENT, EMPTY, EMPTY], Unavailable),  # the absent one may be all there is
        ([ROTTEN, EMPTY, EMPTY], DiskFault),
        ([log(3, 9), EMPTY, EMPTY], Unavailable),  # the other two may have had more
        ([log(3, 9), ABSENT, ROTTEN], Unavailable),
        ([log(1, 0), ROTTEN, EMPTY], Unavailable),
        ([log(1, 0), ABSENT, EMPTY], Unavailable),
        ([log(3, 9)], Unavailable),  # two of three were taken away
        ([log(3, 9), log(3, 9, store=bytes(16)), EMPTY], Unavailable),
    ],
)
def test_choose_refuses_to_guess(found: list[Found], error: type[Exception]) -> None:
    with pytest.raises(error):
        choose(found)


def test_a_foreign_log_is_marked() -> None:
    _, marked = choose([log(3, 9), log(3, 9), log(8, 50, store=bytes(16))])
    assert [each.condition for each in marked] == [Condition.WHOLE, Condition.WHOLE, Condition.FOREIGN]


def test_quorum() -> None:
    assert [quorum(logs) for logs in (1, 2, 3)] == [1, 2, 2]
