"""What every Node promises: over engines in RAM, over a real device, and across the node protocol."""

from __future__ import annotations

import hashlib
import pathlib
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import trio
import trio.testing

from ring.errors import BadInput, NotFound, Unavailable
from ring.names import Path, Span
from ring.ringfile import encode
from ring.service.errors import StaleRing
from ring.service.gate import Gate
from ring.service.keeper import Keeper
from ring.service.overlap import Claim
from ring.timestamp import Timestamp
from ring.wire.message import Piece
from ring.world.interface import Address, TcpAddress, UnixAddress, World
from ring.world.real import make_world
from ring.world.sim import SimWorld
from storage.client.bodies import drained
from storage.client.errors import ObjectNotFound, Superseded
from storage.client.fake_node import FakeBooks, FakeObjects
from storage.client.interface import Row
from storage.client.local import LocalNode
from storage.client.node import BookHeader, Debt, Kind, Node, NodeReading, Version
from storage.client.payer import RowPayer
from storage.client.peer import Peer
from storage.client.remote import RemoteNode
from storage.client.server import NodeServer
from tests.storage.client.ground import HASHER, make_device, make_ring, open_engines

SECRET = b"s" * 32
OBJECT = Path("AUTH_a", "c", "o")
CONTAINER = OBJECT.parent


@pytest.fixture
def gate() -> Gate:
    """What the device keeps to."""
    return Gate()


@pytest.fixture(params=["fake", "local", "remote", "remote over a socket"])
async def node(request: pytest.FixtureRequest, nursery: trio.Nursery, tmp_path: pathlib.Path, gate: Gate) -> AsyncIterator[Node]:
    """Device 1; its payer reaches the node itself, as device 1."""
    world: World = SimWorld(1)
    address: Address = TcpAddress("localhost", 6200)
    on_socket = request.param == "remote over a socket"
    if on_socket:
        world, address = make_world(), UnixAddress(str(tmp_path / "node"))
    nodes: dict[int, Node] = {}
    payer = RowPayer(nursery, nodes.get)
    gate.edition = 0
    if request.param == "fake" or on_socket:
        nodes[1] = LocalNode(make_device(1), FakeObjects(HASHER), FakeBooks(HASHER), payer, gate)
    else:
        nodes[1] = LocalNode(make_device(1), *await open_engines(nursery, world, 1), payer, gate)
    if not request.param.startswith("remote"):
        yield nodes[1]
        return
    server = NodeServer(world, nodes, SECRET)
    await nursery.start(server.serve, await world.net.listen(address))
    yield RemoteNode(make_device(1), Peer(world, nursery, address, SECRET))


def version(ticks: int, data: bytes = b"", path: Path = OBJECT, **metadata: str) -> Version:
    etag = hashlib.md5(data).hexdigest()
    return Version(
        path, Timestamp(ticks), Kind.OBJECT, len(data), etag, "text/plain", {f"x-object-meta-{k}": v for k, v in metadata.items()}
    )


def tombstone(ticks: int, path: Path = OBJECT) -> Version:
    return Version(path, Timestamp(ticks), Kind.TOMBSTONE)


async def body(reading: NodeReading | None) -> bytes:
    assert reading is not None
    return await drained(reading.pieces)


async def put_large(node: Node, of: Version, data: bytes, debt: Debt | None = None) -> Timestamp:
    upload = await node.put_large(of.path, of.size)
    for at in range(0, len(data), 70_000):
        await upload.write(memoryview(data)[at : at + 70_000])
    reply = await upload.commit(of, debt)
    await upload.abort()
    return reply.newest


async def test_a_small_object(node: Node) -> None:
    assert await node.head(OBJECT) is None
    assert await node.get(OBJECT, None, 0, None) is None
    new = version(5, b"data", a="1", ü="ö")
    reply = await node.put_small(new, b"data", None)
    assert (reply.newest, reply.paid) == (Timestamp(5), True)
    assert await node.head(OBJECT) == new
    reading = await node.get(OBJECT, None, 0, None)
    assert reading is not None and reading.version == new
    assert await body(reading) == b"data"
    assert await body(await node.get(OBJECT, Timestamp(5), 1, 2)) == b"at"
    assert await body(await node.get(OBJECT, None, 4, 5)) == b""
    assert await node.get(OBJECT, Timestamp(4), 0, None) is None


@pytest.mark.parametrize("size", [0, 1, 70_000, 3_000_000])
async def test_a_large_object(node: Node, size: int) -> None:
    data = bytes(i * i % 251 for i in range(1000)) * (size // 1000) + b"x" * (size % 1000)
    new = version(5, data, a="1")
    assert await put_large(node, new, data) == Timestamp(5)
    assert await node.head(OBJECT) == new
    assert await body(await node.get(OBJECT, None, 0, None)) == data
    at, length = size // 3, size // 2
    assert await body(await node.get(OBJECT, None, at, length)) == data[at : at + length]


async def test_a_large_object_goes_by_sendfile(nursery: trio.Nursery, tmp_path: pathlib.Path) -> None:
    """The one test over both a real disk and a real socket."""
    world, address = make_world(), UnixAddress(str(tmp_path / "node"))
    nodes: dict[int, Node] = {}
    nodes[1] = LocalNode(make_device(1), *await open_engines(nursery, world, 1, str(tmp_path)), RowPayer(nursery, nodes.get))
    await nursery.start(NodeServer(world, nodes, SECRET).serve, await world.net.listen(address))
    node = RemoteNode(make_device(1), Peer(world, nursery, address, SECRET))
    for ticks, size in enumerate((1, 70_000, 3_000_000), 5):
        data = bytes(i * i % 251 for i in range(1000)) * (size // 1000) + b"x" * (size % 1000)
        assert await put_large(node, version(ticks, data), data) == Timestamp(ticks)
        assert await body(await node.get(OBJECT, None, 0, None)) == data
        assert await body(await node.get(OBJECT, None, size // 3, size // 2)) == data[size // 3 : size // 3 + size // 2]


async def test_an_upload_that_is_given_up_leaves_nothing(node: Node) -> None:
    data = b"d" * 300_000
    for end in (0, 300_000):
        upload = await node.put_large(OBJECT, len(data))
        await upload.write(data[:end])
        await upload.abort()
        await upload.abort()
    upload = await node.put_large(OBJECT, len(data))
    await upload.write(data[:-1])
    with pytest.raises((BadInput, Unavailable)):
        await upload.commit(version(5, data), None)
    await upload.abort()
    assert await node.head(OBJECT) is None


async def test_a_body_that_is_not_read_to_its_end(node: Node) -> None:
    data = b"d" * 3_000_000
    await put_large(node, version(5, data), data)
    for _ in range(3):
        reading = await node.get(OBJECT, None, 0, None)
        assert reading is not None
        pieces: AsyncIterator[Piece] = reading.pieces
        await anext(pieces)
        await pieces.aclose()  # type: ignore[attr-defined]  # bodies can be closed
    assert await body(await node.get(OBJECT, None, 0, None)) == data


async def test_the_newest_is_held(node: Node) -> None:
    await node.put_small(version(5, b"five"), b"five", None)
    assert (await node.put_small(version(4, b"four"), b"four", None)).newest == Timestamp(5)
    assert (await put_large(node, version(3, b"3" * 70_000), b"3" * 70_000)) == Timestamp(5)
    assert (await node.put_small(tombstone(4), b"", None)).newest == Timestamp(5)
    assert await body(await node.get(OBJECT, None, 0, None)) == b"five"
    again = await node.put_small(version(5, b"five"), b"five", None)
    assert (again.newest, again.paid) == (Timestamp(5), True)
    assert (await node.put_small(tombstone(6), b"", None)).newest == Timestamp(6)
    head = await node.head(OBJECT)
    assert head is not None and (head.kind, head.timestamp) == (Kind.TOMBSTONE, Timestamp(6))
    assert await node.get(OBJECT, None, 0, None) is None
    assert (await node.put_small(version(5, b"five"), b"five", None)).newest == Timestamp(6)


async def test_post(node: Node) -> None:
    with pytest.raises(ObjectNotFound):
        await node.post(OBJECT, {}, "", Timestamp(1))
    old = Version(OBJECT, Timestamp(5), Kind.OBJECT, 1, "e", "text/plain", {"x-object-meta-a": "1", "x-sysmeta-s": "2"})
    await node.put_small(old, b"x", None)
    assert (await node.post(OBJECT, {"x-object-meta-b": "3"}, "", Timestamp(7))).newest == Timestamp(7)
    assert (await node.post(OBJECT, {"x-object-meta-c": "4"}, "", Timestamp(6))).newest == Timestamp(7)
    head = await node.head(OBJECT)
    assert head is not None
    assert (head.timestamp, head.metadata_timestamp, head.content_type) == (Timestamp(5), Timestamp(7), "text/plain")
    assert dict(head.metadata) == {"x-object-meta-b": "3", "x-sysmeta-s": "2"}
    for wrong in ((Timestamp(6), "e"), (Timestamp(5), "f")):
        with pytest.raises(ObjectNotFound):
            await node.post(OBJECT, {}, "", Timestamp(9), wrong)
    for older in ((Timestamp(4), "e"), (Timestamp(5), "d")):
        with pytest.raises(Superseded):
            await node.post(OBJECT, {}, "", Timestamp(9), older)
    assert await node.head(OBJECT) == head
    assert (await node.post(OBJECT, {}, "", Timestamp(8), head.named)).newest == Timestamp(8)
    await node.put_small(tombstone(8), b"", None)
    with pytest.raises(ObjectNotFound):
        await node.post(OBJECT, {}, "", Timestamp(9))
    with pytest.raises(Superseded):
        await node.post(OBJECT, {}, "", Timestamp(9), head.named)


# ---- books


def header(created: int | None, deleted: int | None = None, path: Path = CONTAINER, **metadata: tuple[str, int]) -> BookHeader:
    return BookHeader(
        path,
        Timestamp(created) if created is not None else None,
        Timestamp(deleted) if deleted is not None else None,
        metadata={name: (value, Timestamp(at)) for name, (value, at) in metadata.items()},
    )


async def test_headers_merge(node: Node) -> None:
    assert await node.book(CONTAINER) is None
    state = await node.merge_header(header(5, a=("1", 5)))
    assert state.header.exists and state == await node.book(CONTAINER)
    state = await node.merge_header(header(5, a=("0", 4), b=("2", 6)))
    assert dict(state.header.metadata) == {"a": ("1", Timestamp(5)), "b": ("2", Timestamp(6))}
    state = await node.merge_header(header(5, 7))
    assert not state.header.exists
    state = await node.merge_header(header(8))
    assert state.header.exists and state.header.deleted == Timestamp(7)


async def test_rows_merge(node: Node) -> None:
    assert await node.merge_rows(CONTAINER, [Row("a", Timestamp(1))]) is None
    assert await node.rows(CONTAINER, start="", end="", limit=10, reverse=False) is None
    await node.merge_header(header(1))
    rows = [Row(name, Timestamp(2), size, "e", "t/p") for name, size in (("a", 1), ("b/c", 2), ("ü", 3))]
    state = await node.merge_rows(CONTAINER, rows)
    assert state is not None and (state.count, state.bytes_used) == (3, 6)
    state = await node.merge_rows(CONTAINER, [Row("a", Timestamp(1), 9), Row("b/c", Timestamp(3), deleted=True)])
    assert state is not None and (state.count, state.bytes_used) == (2, 4)
    page = await node.rows(CONTAINER, start="", end="", limit=10, reverse=False)
    assert page is not None and page.complete and page.state == state
    assert list(page.rows) == [rows[0], Row("b/c", Timestamp(3), deleted=True), rows[2]]
    page = await node.rows(CONTAINER, start="a", end="", limit=1, reverse=False)
    assert page is not None and [row.name for row in page.rows] == ["b/c"] and not page.complete
    page = await node.rows(CONTAINER, start="a", end="ü", limit=10, reverse=True)
    assert page is not None and [row.name for row in page.rows] == ["b/c"] and page.complete


async def test_a_debt_is_paid(node: Node) -> None:
    debt = Debt(Row("o", Timestamp(5), 4), CONTAINER, (1,))
    assert not (await node.put_small(version(5, b"data"), b"data", debt)).paid  # no such book
    await node.merge_header(header(1))
    assert (await node.put_small(version(5, b"data"), b"data", debt)).paid  # the same again: still owed
    state = await node.book(CONTAINER)
    assert state is not None and (state.count, state.bytes_used) == (1, 4)
    data = b"d" * 100_000
    upload = await node.put_large(OBJECT, len(data))
    await upload.write(data)
    reply = await upload.commit(version(6, data), Debt(Row("o", Timestamp(6), len(data)), CONTAINER, (1,)))
    await upload.abort()
    assert reply.paid
    state = await node.book(CONTAINER)
    assert state is not None and (state.count, state.bytes_used) == (1, len(data))
    unknown = Debt(Row("o", Timestamp(7), 1), CONTAINER, (1, 2))
    assert not (await node.put_small(version(7, b"x"), b"x", unknown)).paid


# ---- anti-entropy


async def test_digests_tell_what_is_held(node: Node) -> None:
    span = Span.of(HASHER.hash(OBJECT), 4)
    empty = await node.digests("object", span)
    assert not empty.leaves
    for of, data in ((version(5, b"data"), b"data"), (version(6, b"6" * 70_000), b"6" * 70_000), (tombstone(7), b"")):
        if of.size > 10:
            await put_large(node, of, data)
        else:
            await node.put_small(of, data, None)
        digests = await node.digests("object", span)
        ((leaf, value),) = digests.leaves.items()
        assert value == digests.root != empty.root
        ((key, _),) = await node.leaf("object", span, leaf)
        assert key == HASHER.hash(OBJECT) + of.timestamp.pack_inverted()
        reading = await node.object_by_key(key)
        assert reading is not None and reading.version == of
        assert await body(reading) == data
        assert await node.object_by_key(key[:-1] + b"\0") is None
    assert not (await node.digests("object", Span(4, span.partition ^ 1))).leaves


POWERS = (0, 1, 4, 5, 11, 12, 13, 20, 24)


async def test_whoever_asks_says_the_part_power(node: Node) -> None:
    """Of one device, at once: as two neighbours do while a ring grows."""
    paths = [Path("AUTH_a", "c", f"o{number}") for number in range(40)]
    for path in paths:
        await node.put_small(version(5, b"data", path), b"data", None)
    whole = await node.digests("object", Span(0, 0))
    for part_power in POWERS:
        root, found = 0, set[bytes]()
        for span in {Span.of(HASHER.hash(path), part_power) for path in paths}:
            digests = await node.digests("object", span)
            root ^= int.from_bytes(digests.root, "big")
            assert digests.leaves and max(digests.leaves) < min(4096, 1 << (24 - part_power))
            for leaf, value in digests.leaves.items():
                total = 0
                for key, digest in await node.leaf("object", span, leaf):
                    assert key in span
                    found.add(key[:16])
                    total ^= int.from_bytes(digest, "big")
                assert total.to_bytes(16, "big") == value
        assert root.to_bytes(16, "big") == whole.root
        assert found == {HASHER.hash(path) for path in paths}


@pytest.mark.parametrize("kind", ["object", "book"])
async def test_a_span_or_leaf_that_cannot_be(node: Node, kind: str) -> None:
    with pytest.raises(BadInput):
        await node.digests(kind, Span(25, 0))
    for part_power, leaf in ((0, 4096), (12, 4096), (13, 2048), (24, 1), (4, -1)):
        with pytest.raises(BadInput):
            await node.leaf(kind, Span(part_power, 0), leaf)
        assert await node.leaf(kind, Span(part_power, 0), 0) == []


@pytest.mark.parametrize("node", ["fake", "local", "remote"], indirect=True)
async def test_digests_of_books(node: Node, autojump_clock: trio.testing.MockClock) -> None:
    span = Span.of(HASHER.hash(CONTAINER), 4)
    assert not (await node.digests("book", span)).leaves
    await node.merge_header(header(1))
    await trio.sleep(2)
    one = await node.digests("book", span)
    await node.merge_rows(CONTAINER, [Row("a", Timestamp(1))])
    await trio.sleep(2)
    two = await node.digests("book", span)
    assert len(two.leaves) == 1 and one.root != two.root
    ((key, _),) = await node.leaf("book", span, next(iter(two.leaves)))
    assert key == HASHER.hash(CONTAINER)
    for part_power in POWERS:
        inside = Span.of(key, part_power)
        digests = await node.digests("container", inside)
        assert digests.root == two.root and len(digests.leaves) == 1
        assert [found for found, _ in await node.leaf("container", inside, next(iter(digests.leaves)))] == [key]
        assert not (await node.digests("account", inside)).leaves


# ---- by the rules of an edition


async def test_an_older_edition_is_refused_and_nothing_is_done(node: Node, gate: Gate) -> None:
    gate.edition = 8
    claim = Claim(7)
    late, span = node.under(claim), Span(4, HASHER.hash(OBJECT)[0] >> 4)
    upload = await late.put_large(OBJECT, 1)
    await upload.write(b"x")
    header = BookHeader(CONTAINER, Timestamp(1), None)
    calls: list[Callable[[], Awaitable[object]]] = [
        lambda: late.put_small(version(5, b"data"), b"data", None),
        lambda: late.post(OBJECT, {}, "", Timestamp(6)),
        lambda: late.head(OBJECT),
        lambda: late.merge_header(header),
        lambda: late.merge_rows(CONTAINER, [Row("o", Timestamp(1))]),
        lambda: late.book(CONTAINER),
        lambda: late.rows(CONTAINER, start="", end="", limit=1, reverse=False),
        lambda: late.digests("object", span),
        lambda: late.leaf("object", span, 0),
        lambda: upload.commit(version(5, b"x"), None),
    ]
    for call in calls:
        claim.outdated = None
        with pytest.raises(StaleRing) as refused:
            await call()
        assert refused.value.edition == 8
        assert claim.outdated is not None
    assert await node.head(OBJECT) is None and await node.book(CONTAINER) is None
    upload.claim = Claim(8)
    assert (await upload.commit(version(5, b"x"), None)).newest == Timestamp(5)  # it is as it was
    assert await body(await late.get(OBJECT, Timestamp(5), 0, None)) == b"x"  # a version known by name is anybody's
    assert gate.clear(8)


async def test_the_same_edition_or_none_is_served_and_a_newer_one_is_heard_of(node: Node, gate: Gate) -> None:
    heard: list[int] = []
    gate.heard = heard.append
    gate.edition = 8
    for claim in (None, Claim(8), Claim(9)):
        await node.under(claim).put_small(version(5, b"data"), b"data", None)
        assert await node.under(claim).head(OBJECT) is not None
    assert set(heard) == {9}
    span = Span(4, HASHER.hash(OBJECT)[0] >> 4)
    assert any((await node.under(Claim(8)).digests("object", span)).root)
    with pytest.raises(Unavailable, match="not known here yet"):
        await node.under(Claim(9)).digests("object", span)


async def test_a_write_counts_until_it_is_durable(
    nursery: trio.Nursery, gate: Gate, autojump_clock: trio.testing.MockClock
) -> None:
    gate.edition = 1
    store, books = await open_engines(nursery, SimWorld(1), 1)
    local = LocalNode(make_device(1), store, books, RowPayer(nursery, dict[int, Node]().get), gate)
    async with trio.open_nursery() as writing:
        writing.start_soon(local.under(Claim(1)).put_small, version(5, b"data"), b"data", None)
        await trio.testing.wait_all_tasks_blocked()
        gate.edition = 2
        assert not gate.clear(2)
    assert gate.clear(2)


async def test_rings_are_told_over_the_wire(nursery: trio.Nursery, autojump_clock: trio.testing.MockClock) -> None:
    world = SimWorld(1)
    disk = world.open_disk("/rings")
    await disk.make_dirs("")
    keeper = Keeper(world, disk, HASHER)
    file = encode(make_ring(4))

    async def first() -> dict[str, bytes]:
        return {"object": file}

    await keeper.load(first)
    address = TcpAddress("localhost", 6200)
    await nursery.start(NodeServer(world, {}, SECRET, rings=keeper).serve, await world.net.listen(address))
    source = RemoteNode(make_device(1), Peer(world, nursery, address, SECRET))
    assert await source.edition_file() == await keeper.edition_file()
    assert await source.ring_part("object", 1, 0) == file
    assert await source.ring_part("object", 1, len(file)) == b""
    with pytest.raises(NotFound):
        await source.ring_part("object", 2, 0)


async def test_tables_that_were_closed_meanwhile(nursery: trio.Nursery, autojump_clock: trio.testing.MockClock) -> None:
    """The device went out of service after it was asked: it does not answer, and its worker goes on."""
    world = SimWorld(1)
    nodes: dict[int, Node] = {}
    store, books = await open_engines(nursery, world, 1)
    nodes[1] = LocalNode(make_device(1), store, books, RowPayer(nursery, nodes.get))
    server = NodeServer(world, nodes, SECRET)
    address = TcpAddress("localhost", 6200)
    await nursery.start(server.serve, await world.net.listen(address))
    node = RemoteNode(make_device(1), Peer(world, nursery, address, SECRET))
    await node.put_small(version(5, b"data"), b"data", None)
    await store.device.tables.close()
    for kind in ("object", "container"):
        with pytest.raises(Unavailable, match="closed"):
            await node.digests(kind, Span(0, 0))
        with pytest.raises(Unavailable, match="closed"):
            await node.leaf(kind, Span(0, 0), 0)
