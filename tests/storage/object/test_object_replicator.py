"""The object replicator repairs what nobody else does: an emptied device, a missed write, a handoff's copy; and deletes nothing on
silence."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator

import pytest
import trio

from ring.daemon.worker import once
from ring.errors import Unavailable
from ring.names import Path, Span
from ring.timestamp import Timestamp
from ring.wire.message import BytesBody, Piece
from storage.client.bodies import drained
from storage.client.interface import NewObject
from storage.client.local import LocalNode
from storage.client.node import Kind, LeafDigests, Node, NodeReading, Version
from storage.client.reach import Settings
from storage.client.repair import copy
from storage.object.replicator import ObjectReplicator
from tests.storage.client.ground import HASHER, Distant, Ground
from tests.storage.object.object_rig import partitions

CONTAINER = Path("AUTH_a", "c")
CUT = 4096
PATHS = [Path("AUTH_a", "c", f"o{number}") for number in range(30)]


@pytest.fixture
async def ground(nursery: trio.Nursery) -> Ground:
    ground = await Ground.with_engines(nursery, Settings(pack_cut_bytes=CUT, repair_delay_s=1e6))
    await ground.storage.put_container(CONTAINER, {})
    return ground


def replicator(ground: Ground, number: int, nodes: list[Node] | None = None) -> ObjectReplicator:
    device = ground.rings.objects[0].ring.device(number)
    others = nodes or ground.nodes
    return ObjectReplicator(
        device, ground.engines[number][0], lambda: ground.rings.objects[0], lambda device: others[device.id], pack_cut_bytes=CUT
    )


async def put(ground: Ground, path: Path, data: bytes) -> None:
    await ground.storage.put_object(path, NewObject(metadata={"x-object-meta-a": "1"}), BytesBody(data))


def body_of(path: Path) -> bytes:
    return path.object.encode() * (3000 if path.object.endswith("7") else 3)


async def get_from(ground: Ground, number: int, path: Path) -> bytes | None:
    reading = await ground.nodes[number].get(path, None, 0, None)
    return None if reading is None else await drained(reading.pieces)


def primaries(ground: Ground, path: Path) -> list[int]:
    ring = ground.rings.objects[0].ring
    return [device.id for device in ring.primaries(ring.partition(path))]


async def roots(ground: Ground, partition: int) -> set[bytes]:
    ring = ground.rings.objects[0].ring
    span = Span(ring.part_power, partition)
    return {(await ground.nodes[device.id].digests("object", span)).root for device in ring.primaries(partition)}


async def test_an_emptied_device_is_filled_again(ground: Ground, autojump_clock: trio.testing.MockClock) -> None:
    for path in PATHS:
        await put(ground, path, body_of(path))
    await ground.storage.delete_object(PATHS[0])
    await ground.storage.post_object(PATHS[1], {"x-object-meta-b": "2"})
    await ground.reformat(2)
    workers = [replicator(ground, number) for number in (0, 1, 3)]
    for worker in workers:
        await once(worker)
    assert sum(worker.pushed for worker in workers) == sum(2 in primaries(ground, path) for path in PATHS)
    for path in PATHS[1:]:
        if 2 in primaries(ground, path):
            assert await get_from(ground, 2, path) == body_of(path)
    for partition in range(16):
        assert len(await roots(ground, partition)) == 1
    if 2 in primaries(ground, PATHS[0]):
        head = await ground.nodes[2].head(PATHS[0])
        assert head is not None and head.kind is Kind.TOMBSTONE
    for worker in workers:
        before = worker.pushed
        await once(worker)
        assert worker.pushed == before


@pytest.mark.parametrize("size", [10, 3 * CUT])
async def test_a_newer_version_replaces_an_older_and_never_the_other_way(
    ground: Ground, autojump_clock: trio.testing.MockClock, size: int
) -> None:
    path = PATHS[0]
    await put(ground, path, b"old" * size)
    late = primaries(ground, path)[0]
    node, away = ground.nodes[late], Distant(_local(ground, late))
    away.cut = True
    ground.nodes[late] = away  # type: ignore[call-overload]  # a Node by its shape
    await put(ground, path, b"new" * size)
    ground.nodes[late] = node
    assert await get_from(ground, late, path) == b"old" * size
    await once(replicator(ground, late))
    for number in primaries(ground, path)[1:]:
        assert await get_from(ground, number, path) == b"new" * size
    await once(replicator(ground, primaries(ground, path)[1]))
    assert await get_from(ground, late, path) == b"new" * size


@pytest.mark.parametrize("size", [10, 3 * CUT])
async def test_newer_metadata_travels(ground: Ground, autojump_clock: trio.testing.MockClock, size: int) -> None:
    path = PATHS[0]
    await put(ground, path, b"d" * size)
    one, *others = primaries(ground, path)
    head = await ground.nodes[one].head(path)
    assert head is not None
    later = type(head.timestamp)(head.timestamp.ticks + 5)
    await ground.nodes[one].post(path, {"x-object-meta-b": "2"}, "a/b", later)
    await once(replicator(ground, one))
    for number in others:
        version = await ground.nodes[number].head(path)
        assert version is not None
        assert (dict(version.metadata), version.content_type) == ({"x-object-meta-b": "2"}, "a/b")
    assert len(await roots(ground, ground.rings.objects[0].ring.partition(path))) == 1


@pytest.mark.parametrize("size", [10, 3 * CUT])
async def test_of_two_writes_at_one_time_the_same_is_held_everywhere(
    ground: Ground, autojump_clock: trio.testing.MockClock, size: int
) -> None:
    """Also on a handoff, which can let go then."""
    path = PATHS[0]
    (handoff,) = {0, 1, 2, 3} - set(primaries(ground, path))
    for number, byte in zip([*primaries(ground, path), handoff], (b"a", b"b", b"c", b"d"), strict=True):
        data = byte * size
        version = Version(path, Timestamp(5), Kind.OBJECT, size, hashlib.md5(data).hexdigest(), "a/b")
        await copy(NodeReading(version, _one(data)), ground.nodes[number], CUT)
    best = max((hashlib.md5(byte * size).hexdigest(), byte) for byte in (b"a", b"b", b"c", b"d"))[1]
    workers = [replicator(ground, number) for number in range(4)]
    for worker in [*workers, *workers]:
        await once(worker)
    for number in primaries(ground, path):
        assert await get_from(ground, number, path) == best * size
    assert await ground.nodes[handoff].head(path) is None


async def _one(data: bytes) -> AsyncIterator[Piece]:
    yield data


def _local(ground: Ground, number: int) -> LocalNode:
    node = ground.nodes[number]
    assert isinstance(node, LocalNode)
    return node


async def on_a_handoff(ground: Ground, path: Path, size: int) -> tuple[int, int]:
    """Write while a primary is away.  (that primary, the handoff that has its copy)"""
    away = primaries(ground, path)[0]
    (handoff,) = {0, 1, 2, 3} - set(primaries(ground, path))
    node, cut = ground.nodes[away], Distant(_local(ground, away))
    cut.cut = True
    ground.nodes[away] = cut  # type: ignore[call-overload]  # a Node by its shape
    await put(ground, path, b"d" * size)
    await trio.sleep(1)
    ground.nodes[away] = node
    assert await get_from(ground, handoff, path) == (b"d" * size if size <= CUT else None)
    return away, handoff


async def test_a_handoff_gives_its_copy_back_and_lets_go(ground: Ground, autojump_clock: trio.testing.MockClock) -> None:
    path = PATHS[0]
    away, handoff = await on_a_handoff(ground, path, 10)
    worker = replicator(ground, handoff)
    await once(worker)
    assert await get_from(ground, away, path) == b"d" * 10
    assert (worker.pushed, worker.dropped) == (1, 1)
    assert await ground.nodes[handoff].head(path) is None
    await trio.sleep(2)
    assert await partitions(ground.engines[handoff][0]) == []


class Liar(Distant):
    """A primary that seems to take everything and answers no question about it: nothing may be dropped for its sake."""

    def __getattr__(self, name: str):  # type: ignore[no-untyped-def]  # any method of the node
        if name == "leaf" and self.calls.count("put_small"):
            self.cut = True
        return super().__getattr__(name)


async def test_what_a_primary_has_not_confirmed_stays(ground: Ground, autojump_clock: trio.testing.MockClock) -> None:
    path = PATHS[0]
    away, handoff = await on_a_handoff(ground, path, 10)
    for kind in (Distant, Liar):
        nodes = list(ground.nodes)
        line = kind(_local(ground, away))
        line.cut = kind is Distant
        nodes[away] = line  # type: ignore[call-overload]  # a Node by its shape
        worker = replicator(ground, handoff, nodes)
        await once(worker)
        assert (worker.dropped, worker.unanswered) == (0, 1)
        assert await get_from(ground, handoff, path) == b"d" * 10


async def test_a_primary_that_lost_it_again_keeps_the_handoff_from_letting_go(
    ground: Ground, autojump_clock: trio.testing.MockClock
) -> None:
    path = PATHS[0]
    away, handoff = await on_a_handoff(ground, path, 10)

    class Forgetful(Distant):
        async def digests(self, kind: str, span: Span) -> LeafDigests:
            return await ground.nodes[handoff].digests(kind, span)  # as if it had it

    nodes = list(ground.nodes)
    nodes[away] = Forgetful(_local(ground, away))  # type: ignore[call-overload]  # a Node by its shape
    worker = replicator(ground, handoff, nodes)
    await once(worker)
    assert (worker.pushed, worker.dropped) == (0, 0)
    assert Span.of(HASHER.hash(path), 4) in await partitions(ground.engines[handoff][0])


class Full(Distant):
    """Lets itself be compared, and takes nothing."""

    def __getattr__(self, name: str):  # type: ignore[no-untyped-def]  # any method of the node
        if name in ("put_small", "put_large"):
            self.calls.append(name)
            raise Unavailable("it is full")
        assert self.calls.count("digests") < 100, "it is asked again and again"
        return super().__getattr__(name)


async def test_who_takes_nothing_is_asked_once_in_a_pass(ground: Ground, autojump_clock: trio.testing.MockClock) -> None:
    for path in PATHS:
        await put(ground, path, body_of(path))
    await ground.reformat(2)
    full = Full(_local(ground, 2))
    nodes = list(ground.nodes)
    nodes[2] = full
    worker = replicator(ground, 0, nodes)
    await once(worker)
    assert full.calls.count("digests") <= 16  # partitions
    assert worker.pushed == 0
