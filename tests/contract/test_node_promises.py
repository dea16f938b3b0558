"""What every Node promises a conditional write, over the same four nodes as ``test_node``."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from ring.errors import BadInput
from ring.names import Path
from ring.service.errors import StaleRing
from ring.service.gate import Gate
from ring.service.overlap import Claim
from ring.timestamp import Timestamp
from storage.client.errors import PromisedAbove
from storage.client.node import Kind, Node, Promised, Version
from tests.contract.test_node import OBJECT, body, gate, node, tombstone, version

__all__ = ["gate", "node"]  # fixtures


def at(ticks: int) -> Timestamp:
    return Timestamp(ticks)


def ballot(ticks: int) -> Timestamp:
    return Timestamp(ticks, 1)


async def upload(node: Node, new: Version, data: bytes) -> None:
    sending = await node.put_large(new.path, len(data))
    try:
        await sending.write(data)
        await sending.commit(new, None)
    finally:
        await sending.abort()


async def test_a_promise_says_what_is_held(node: Node) -> None:
    assert await node.promise(OBJECT, ballot(3), []) == Promised(True, ballot(3), None, True)
    five = version(5, b"five", a="1")
    await node.put_small(five, b"five", None)
    assert await node.promise(OBJECT, ballot(7), []) == Promised(True, ballot(7), five, True)
    await node.put_small(tombstone(8), b"", None)
    given = await node.promise(OBJECT, ballot(9), [])
    assert given.newest is not None and (given.newest.kind, given.newest.timestamp) == (Kind.TOMBSTONE, at(8))


async def test_metadata_is_part_of_what_is_held(node: Node) -> None:
    await node.put_small(version(5, b"five"), b"five", None)
    await node.post(OBJECT, {"x-object-meta-b": "2"}, "", at(8))
    assert await node.promise(OBJECT, ballot(7), []) == Promised(False, at(8))
    given = await node.promise(OBJECT, ballot(8), [])
    assert given.newest is not None and given.newest.metadata_timestamp == at(8)
    assert dict(given.newest.metadata) == {"x-object-meta-b": "2"}


async def test_a_ballot_that_is_not_above_everything_is_refused(node: Node) -> None:
    await node.put_small(version(5, b"five"), b"five", None)
    assert await node.promise(OBJECT, at(5), []) == Promised(False, at(5))
    assert await node.promise(OBJECT, ballot(4), []) == Promised(False, at(5))
    assert (await node.promise(OBJECT, ballot(9), [])).given
    assert await node.promise(OBJECT, ballot(9), []) == Promised(False, ballot(9))
    assert await node.promise(OBJECT, ballot(8), []) == Promised(False, ballot(9))
    assert (await node.promise(OBJECT, ballot(10), [])).given


async def test_nothing_older_is_taken_and_nothing_is_changed(node: Node) -> None:
    old = version(5, b"five")
    await node.put_small(old, b"five", None)
    await node.promise(OBJECT, ballot(9), [])
    data = b"l" * 70_000
    calls: list[Callable[[], Awaitable[object]]] = [
        lambda: node.put_small(version(9, b"nine"), b"nine", None),
        lambda: node.put_small(tombstone(7), b"", None),
        lambda: upload(node, version(8, data), data),
        lambda: node.post(OBJECT, {"x-object-meta-a": "2"}, "", at(8)),
        lambda: node.post(OBJECT, {"x-object-meta-a": "2"}, "", at(12)),
    ]
    for call in calls:
        with pytest.raises(PromisedAbove) as refused:
            await call()
        assert refused.value.ballot == ballot(9)
    assert await node.head(OBJECT) == old
    assert (await node.put_small(old, b"five", None)).newest == at(5)  # what is held is held
    assert (await node.put_small(version(4, b"four"), b"four", None)).newest == at(5)
    await node.put_small(version(7, b"other", Path("AUTH_a", "c", "other")), b"other", None)  # another name


@pytest.mark.parametrize("ticks", [9, 12])
async def test_a_version_at_or_above_it_takes_its_place(node: Node, ticks: int) -> None:
    await node.promise(OBJECT, ballot(9), [])
    new = Version(OBJECT, ballot(ticks), Kind.OBJECT, 3, "e")
    assert (await node.put_small(new, b"new", None)).newest == ballot(ticks)
    assert await body(await node.get(OBJECT, None, 0, None)) == b"new"
    assert (await node.post(OBJECT, {"x-object-meta-a": "2"}, "", at(13))).newest == at(13)
    assert (await node.put_small(version(9, b"nine"), b"nine", None)).newest == ballot(ticks)


async def test_a_large_upload_that_was_refused_is_as_it_was(node: Node) -> None:
    data = b"l" * 300_000
    sending = await node.put_large(OBJECT, len(data))
    await sending.write(data)
    await node.promise(OBJECT, ballot(9), [])
    with pytest.raises(PromisedAbove):
        await sending.commit(version(8, data), None)
    new = Version(OBJECT, ballot(9), Kind.OBJECT, len(data), "e", "text/plain")
    assert (await sending.commit(new, None)).newest == ballot(9)
    assert await body(await node.get(OBJECT, None, 0, None)) == data
    assert await node.head(OBJECT) == new


async def test_a_release_leaves_lesser_promises_as_they_are(node: Node) -> None:
    await node.promise(OBJECT, ballot(5), [])
    await node.promise(OBJECT, ballot(9), [])
    await node.release(OBJECT, ballot(8))
    with pytest.raises(PromisedAbove):
        await node.put_small(version(8, b"eight"), b"eight", None)
    await node.release(OBJECT, ballot(9))
    with pytest.raises(PromisedAbove) as refused:
        await node.put_small(version(5, b"five"), b"five", None)
    assert refused.value.ballot == ballot(5)
    await node.release(OBJECT, ballot(5))
    assert (await node.put_small(version(4, b"four"), b"four", None)).newest == at(4)
    await node.release(OBJECT, ballot(5))
    await node.release(Path("AUTH_a", "c", "unknown"), ballot(5))


async def test_who_was_superseded_learns_whether_it_ever_was_here(node: Node) -> None:
    await node.put_small(version(3, b"3"), b"3", None)
    await node.put_small(version(7, b"7"), b"7", None)
    await node.put_small(version(9, b"9"), b"9", None)
    assert (await node.put_small(version(5, b"5"), b"5", None)).never
    assert not (await node.put_small(version(7, b"7"), b"7", None)).never
    assert (await node.promise(OBJECT, ballot(10), [at(5), at(8)])).never
    assert not (await node.promise(OBJECT, ballot(11), [at(5), at(7)])).never
    assert not (await node.promise(OBJECT, ballot(12), [at(9)])).never
    assert (await node.promise(OBJECT, ballot(13), [at(10)])).never
    with pytest.raises(BadInput):
        await node.promise(OBJECT, ballot(14), [at(n) for n in range(65)])


async def test_who_lost_a_tie_is_told_so(node: Node) -> None:
    """Two front doors can give out one timestamp."""
    one, other = sorted((version(5, b"one"), version(5, b"other")), key=lambda version: version.etag)
    await node.put_small(other, b"other" if other.size == 5 else b"one", None)
    lost = await node.put_small(one, b"one" if one.size == 3 else b"other", None)
    assert lost.newest > at(5)
    assert await node.head(OBJECT) == other
    await node.put_small(tombstone(5), b"", None)
    assert (await node.put_small(other, b"other" if other.size == 5 else b"one", None)).newest > at(5)


async def test_a_copy_under_a_newer_timestamp_is_what_it_is_a_copy_of(node: Node) -> None:
    five = version(5, b"five")
    copied = Version(OBJECT, ballot(9), Kind.OBJECT, 4, five.etag, "text/plain", {}, origin=at(5))
    await node.put_small(copied, b"five", None)
    assert await node.head(OBJECT) == copied
    reading = await node.get(OBJECT, None, 0, None)
    assert reading is not None and reading.version.origin == at(5)
    assert (await node.put_small(five, b"five", None)).newest == at(5)  # it is there
    other = await node.put_small(version(5, b"other"), b"other", None)
    assert other.newest == ballot(9)
    await node.put_small(version(10, b"ten"), b"ten", None)
    reply = await node.put_small(five, b"five", None)
    assert (reply.newest, reply.never) == (at(10), False)
    assert not (await node.promise(OBJECT, ballot(11), [at(5)])).never


async def test_a_tombstone_can_be_a_copy_too(node: Node) -> None:
    copied = Version(OBJECT, ballot(9), Kind.TOMBSTONE, origin=at(5))
    await node.put_small(copied, b"", None)
    assert await node.head(OBJECT) == copied
    assert (await node.put_small(tombstone(5), b"", None)).newest == at(5)


async def test_an_older_edition_gets_no_promise(node: Node, gate: Gate) -> None:
    gate.edition = 8
    with pytest.raises(StaleRing):
        await node.under(Claim(7)).promise(OBJECT, ballot(9), [])
    assert (await node.under(Claim(8)).promise(OBJECT, ballot(9), [])).given
    await node.under(Claim(7)).release(OBJECT, ballot(9))  # less is promised: that is anybody's to say
    await node.put_small(version(8, b"eight"), b"eight", None)
