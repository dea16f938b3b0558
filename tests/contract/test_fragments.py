"""What every FragmentNode promises: over a device of this worker, and across the node protocol."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator

import pytest
import trio
import trio.testing

from ring.errors import BadInput, Conflict, Unavailable
from ring.names import Path
from ring.service.errors import StaleRing
from ring.service.gate import Gate
from ring.service.overlap import Claim
from ring.timestamp import Timestamp
from ring.world.interface import TcpAddress
from ring.world.sim import SimWorld
from storage.client import fragment_messages, protocol
from storage.client.bodies import drained
from storage.client.interface import Row
from storage.client.local import LocalNode
from storage.client.node import BookHeader, Debt, Kind, Node, Version
from storage.client.payer import RowPayer
from storage.client.peer import Peer
from storage.client.remote import RemoteNode
from storage.client.server import NodeServer
from storage.erasure.codecs import make_codec
from storage.erasure.fragment import Fragment
from storage.erasure.interface import Coding
from storage.erasure.quorum import Data
from storage.erasure.writer import StripeWriter
from tests.storage.client.ground import HASHER, make_device, open_engines, open_part

OBJECT = Path("AUTH_a", "c", "o")
CODING = Coding(2, 1, segment_bytes=300_000)
DATA = bytes(range(251)) * 4000
PIECE = 150_000


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture(params=["local", "remote"])
async def node(request: pytest.FixtureRequest, nursery: trio.Nursery, gate: Gate) -> AsyncIterator[Node]:
    """Device 1, of policy 1."""
    world = SimWorld(1)
    nodes: dict[int, Node] = {}
    store, books = await open_engines(nursery, world, 1)
    payer = RowPayer(nursery, nodes.get)
    nodes[1] = LocalNode(make_device(1), store, books, payer, gate, stores={1: await open_part(nursery, world, store, 1)})
    if request.param == "local":
        yield nodes[1].of(1)
        return
    address = TcpAddress("localhost", 6200)
    server = NodeServer(world, nodes, b"s" * 32)
    await nursery.start(server.serve, await world.net.listen(address))
    yield RemoteNode(make_device(1), Peer(world, nursery, address, b"s" * 32)).of(1)


def version(ticks: int, data: bytes = DATA) -> Version:
    return Version(
        OBJECT, Timestamp(ticks), Kind.OBJECT, len(data), hashlib.md5(data).hexdigest(), "text/plain", {"x-object-meta-a": "b"}
    )


def fragment_of(of: Version, index: int) -> tuple[Fragment, bytes]:
    writer = StripeWriter(make_codec(CODING), CODING)
    stripes = [*writer.feed(DATA), *writer.finish()]
    body = b"".join(bytes(stripe.pieces[index]) for stripe in stripes)
    return writer.fragments(HASHER.hash(of.path), of.timestamp, of.etag)[index], body


async def stage(node: Node, of: Version, index: int = 1) -> None:
    fragment, body = fragment_of(of, index)
    upload = await node.fragments().begin(of.path, len(body), PIECE)
    for at in range(0, len(body), PIECE):
        await upload.write(body[at : at + PIECE])
    assert (await upload.stage(of, fragment)).newest == of.timestamp
    await upload.abort()


async def test_a_fragment_comes_in_two_steps(node: Node, autojump_clock: trio.testing.MockClock) -> None:
    fragments, new = node.fragments(), version(9)
    assert await fragments.sightings(OBJECT) == []
    await stage(node, new)
    (seen,) = await fragments.sightings(OBJECT)
    assert (seen.version, seen.committed, seen.data, seen.index, seen.refused) == (new, False, Data.FRAGMENT, 1, False)
    assert await node.head(OBJECT) is None
    assert (await fragments.commit(new, None)).newest == new.timestamp
    (seen,) = await fragments.sightings(OBJECT)
    assert (seen.committed, seen.data, seen.index) == (True, Data.FRAGMENT, 1)
    assert await node.head(OBJECT) == new
    fragment, body = fragment_of(new, 1)
    assert await fragments.describe(new) == fragment
    for offset, length in ((0, len(body)), (PIECE, PIECE), (PIECE + 7, 2 * PIECE), (len(body) - 5, 100)):
        pieces = await fragments.read(new, offset, length)
        assert pieces is not None
        assert await drained(pieces) == body[offset : offset + length]
    assert await fragments.read(version(8), 0, 10) is None and await fragments.describe(version(8)) is None


async def test_policies_lie_apart(node: Node, autojump_clock: trio.testing.MockClock) -> None:
    await node.of(0).put_small(version(5, b"zero"), b"zero", None)
    assert await node.head(OBJECT) is None
    assert await node.fragments().sightings(OBJECT) == []
    await node.put_small(version(6, b"one"), b"one", None)
    found = [await one.get(OBJECT, None, 0, None) for one in (node.of(0), node)]
    assert [await drained(one.pieces) for one in found if one is not None] == [b"zero", b"one"]
    with pytest.raises(Unavailable):
        await node.of(7).head(OBJECT)


async def test_copies_notes_refusals(node: Node, autojump_clock: trio.testing.MockClock) -> None:
    fragments, small = node.fragments(), version(9, b"small")
    await fragments.stage(small, b"small")
    await fragments.refuse(small)
    with pytest.raises(Conflict):
        await fragments.commit(small, None)
    assert [one.refused for one in await fragments.sightings(OBJECT)] == [True]
    await fragments.forget(small)
    assert await fragments.sightings(OBJECT) == []
    with pytest.raises(Conflict):
        await fragments.commit(small, None)  # nothing is staged
    await fragments.stage(small, None)
    assert (await fragments.commit(small, None)).newest == small.timestamp
    assert [(one.committed, one.data) for one in await fragments.sightings(OBJECT)] == [(True, Data.NONE)]
    with pytest.raises(BadInput):
        await fragments.stage(small, b"other size")


async def test_a_commit_pays_the_row(node: Node, autojump_clock: trio.testing.MockClock) -> None:
    await node.merge_header(BookHeader(OBJECT.parent, Timestamp(1), None))
    new = version(9)
    await stage(node, new)
    debt = Debt(Row("o", new.timestamp, new.size, new.etag, "text/plain"), OBJECT.parent, (1,))
    assert (await node.fragments().commit(new, debt)).paid
    state = await node.book(OBJECT.parent)
    assert state is not None and (state.count, state.bytes_used) == (1, new.size)


async def test_what_is_newer_is_said(node: Node, autojump_clock: trio.testing.MockClock) -> None:
    await node.put_small(version(9, b"newer"), b"newer", None)
    old = version(5)
    fragment, body = fragment_of(old, 0)
    upload = await node.fragments().begin(OBJECT, len(body), PIECE)
    await upload.write(body)
    assert (await upload.stage(old, fragment)).newest == Timestamp(9)
    assert (await node.fragments().commit(old, None)).newest == Timestamp(9)


async def test_an_older_edition_is_refused(node: Node, gate: Gate, autojump_clock: trio.testing.MockClock) -> None:
    new = version(9)
    fragment, body = fragment_of(new, 1)
    upload = await node.fragments().begin(OBJECT, len(body), PIECE)
    await upload.write(body)
    gate.edition = 4
    upload.claim = Claim(3)
    with pytest.raises(StaleRing):
        await upload.stage(new, fragment)
    upload.claim = Claim(4)  # it is as it was
    assert (await upload.stage(new, fragment)).newest == new.timestamp
    with pytest.raises(StaleRing):
        await node.under(Claim(3)).fragments().commit(new, None)
    with pytest.raises(StaleRing):
        await node.under(Claim(3)).fragments().sightings(OBJECT)


def test_older_peers_are_not_asked() -> None:
    assert protocol.minor_of(fragment_messages.Sightings(OBJECT)) == 3
