"""A cloud without room says so in both dialects, with a status that no client takes for something that passes by itself."""

from __future__ import annotations

from proxy.s3 import errors as s3
from proxy.swift import errors as swift
from ring.errors import Unavailable
from ring.wire.message import Response
from storage.client.errors import NoQuorum, NoRoom


def test_swift() -> None:
    full = swift.answer(NoRoom("its devices are full"))
    assert full.status == 507 and b"Insufficient Storage" in body_of(full) and b"not enough space" in body_of(full)
    assert [swift.answer(error).status for error in (NoQuorum("too few"), Unavailable("not now"))] == [503, 503]


def test_s3() -> None:
    full = s3.answer(NoRoom("its devices are full"), "/b/o", "tx")
    assert full.status == 507
    assert b"<Code>InsufficientStorage</Code><Message>There is no room for what was sent" in body_of(full)
    assert s3.answer(NoQuorum("too few"), "/b/o", "tx").status == 503


def body_of(response: Response) -> bytes:
    assert isinstance(response.body, bytes)
    return response.body
