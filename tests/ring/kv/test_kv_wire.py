"""The bytes between the processes of a machine: golden ones, and what is no message."""

from __future__ import annotations

from pathlib import Path

import pytest

from ring.errors import FormatError
from ring.kv import wire

GOLDEN = Path(__file__).parents[2] / "golden" / "kv-wire.bin"
ENTRY = wire.EntryRecord("a/b", b"\x00v", 3, 5, None)
REQUESTS: list[wire.Request] = [
    wire.Greeting(wire.PROTOCOL),
    wire.Get(1, "a/b"),
    wire.Range(2, "a/", None),
    wire.Transact(3, [("a/b", 5)], [wire.OperationRecord("a/b", b"new", 7), wire.OperationRecord("c", None)]),
    wire.Grant(4, 10.0),
    wire.KeepAlive(5, 7),
    wire.Revoke(6, 7),
    wire.StartWatch(7, "a/"),
    wire.StopWatch(7),
]
REPLIES: list[wire.Reply] = [
    wire.Greeting(wire.PROTOCOL),
    wire.Entries(1, [ENTRY], 0),
    wire.Done(3, True, 8),
    wire.Events(7, [wire.EventRecord("a/b", ENTRY, 5), wire.EventRecord("c", None, 6)]),
    wire.Failed(9, "conflict", "message", "hint"),
]


def test_golden_bytes() -> None:
    requests, replies = (b"".join(wire.encode(one) for one in side) for side in (REQUESTS, REPLIES))
    assert GOLDEN.read_bytes() == requests + replies
    assert wire.Frames(wire.requests).receive(requests) == REQUESTS
    assert wire.Frames(wire.replies).receive(replies) == REPLIES


def test_messages_come_in_pieces() -> None:
    frames, data = wire.Frames(wire.replies), b"".join(wire.encode(one) for one in REPLIES)
    assert [one for at in range(len(data)) for one in frames.receive(data[at : at + 1])] == REPLIES


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xff\xff\xff",
        b"\0\0\0\1\xc1",
        b"\0\0\0\1\x90",
        b"\0\0\0\5\x92\xa3gut",
        wire.encode(REQUESTS[3])[:-1] + b"\xc1",
        wire.encode(REPLIES[2]),
    ],
)
def test_what_is_no_request(data: bytes) -> None:
    with pytest.raises(FormatError):
        wire.Frames(wire.requests).receive(data)
