"""Staging on one device: nothing is shown before its commit, every step survives a restart and a rebuilt index."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest
import trio

from ring.errors import BadInput, Conflict
from ring.timestamp import Timestamp
from ring.world.interface import Write
from ring.world.sim import SimWorld
from storage.client.bodies import drained
from storage.client.errors import PromisedAbove
from storage.client.fragments import Seen
from storage.client.node import Version
from storage.erasure.codecs import make_codec
from storage.erasure.fragment import Fragment
from storage.erasure.interface import Coding
from storage.erasure.quorum import Data
from storage.erasure.writer import StripeWriter
from storage.object.auditor import Auditor
from storage.object.compaction import Compactor
from storage.object.store import ObjectStore
from tests.storage.object.compaction_rig import assert_as_rebuilt
from tests.storage.object.object_rig import HASHER, noise, path, prepare, put, serving, version

CODING = Coding(2, 1, segment_bytes=1000)
ROOT = "/d1"
DATA = noise("fragment", 2500)


def fragments(of: Version, data: bytes = DATA) -> list[tuple[Fragment, bytes]]:
    writer = StripeWriter(make_codec(CODING), CODING)
    stripes = [*writer.feed(data), *writer.finish()]
    bodies = [b"".join(bytes(stripe.pieces[index]) for stripe in stripes) for index in range(3)]
    return list(zip(writer.fragments(HASHER.hash(of.path), of.timestamp, of.etag), bodies, strict=True))


async def stage(store: ObjectStore, of: Version, index: int = 0, data: bytes = DATA) -> None:
    fragment, body = fragments(of, data)[index]
    upload = await store.staging.begin(of.path, len(body), 500)
    await upload.write(body[:700])
    await upload.write(body[700:])
    assert (await upload.stage(of, fragment)).newest == of.timestamp


async def shown(store: ObjectStore, name: str = "a") -> list[tuple[bool, Data, int, bool]]:
    return [(one.committed, one.data, one.index, one.refused) for one in await store.staging.sightings(path(name))]


async def restarts(steps: list[Callable[[ObjectStore], Awaitable[None]]], check: Callable[[ObjectStore], Awaitable[None]]) -> None:
    """After the steps; after a restart; with the index made anew from the log; and after compaction and another rebuilding."""
    world = SimWorld(1)
    await prepare(world, ROOT)
    async with serving(world, ROOT, segment_bytes_max=20_000) as store:
        for step in steps:
            await step(store)
        await check(store)
    async with serving(world, ROOT, segment_bytes_max=20_000) as store:
        await check(store)
        await store.device.tables.commit([Write("state", b"version", b"?")])
    async with serving(world, ROOT, segment_bytes_max=20_000) as store:
        assert store.report.rebuilt
        await check(store)
        for number in range(60):  # other segments, most of it dead
            await put(store, "filler", 10**9 + number, noise(number, 1500))
        await store.index.commit()
        compactor = Compactor(world, store, grace_s=0.1)
        for _ in range(200):
            await compactor.work()
        assert compactor.compactions
        await check(store)
        await store.device.tables.commit([Write("state", b"version", b"?")])
    async with serving(world, ROOT, segment_bytes_max=20_000) as store:
        await check(store)


async def test_a_fragment_is_staged_and_committed(autojump_clock: trio.testing.MockClock) -> None:
    old, new = version("a", 5, b"old"), version("a", 9, DATA)

    async def write_old(store: ObjectStore) -> None:
        await put(store, "a", 5, b"old")

    async def staged(store: ObjectStore) -> None:
        assert await shown(store) == [(True, Data.COPY, -1, False), (False, Data.FRAGMENT, 1, False)]
        assert await store.head(path("a")) == old
        assert await store.staging.describe(new) == fragments(new)[1][0]

    async def commit(store: ObjectStore) -> None:
        assert (await store.staging.commit(new, None)).newest == new.timestamp
        assert (await store.staging.commit(new, None)).newest == new.timestamp  # again: it is

    async def committed(store: ObjectStore) -> None:
        assert await shown(store) == [(True, Data.FRAGMENT, 1, False)]
        assert await store.head(path("a")) == new
        assert await store.get(path("a"), None, 0, None) is None  # a fragment is no object
        pieces = await store.staging.read(new, 500, 600)
        assert pieces is not None
        assert await drained(pieces) == fragments(new)[1][1][500:1100]

    await restarts([write_old, lambda store: stage(store, new, 1)], staged)
    await restarts([write_old, lambda store: stage(store, new, 1), commit], committed)


async def test_a_copy_and_a_note(autojump_clock: trio.testing.MockClock) -> None:
    one, other = version("a", 9, b"copy" * 50), version("b", 9, b"elsewhere")

    async def write(store: ObjectStore) -> None:
        await store.staging.stage(one, b"copy" * 50)
        await store.staging.stage(other, None)
        await store.staging.commit(one, None)
        await store.staging.commit(other, None)

    async def check(store: ObjectStore) -> None:
        assert await shown(store) == [(True, Data.COPY, -1, False)]
        assert await shown(store, "b") == [(True, Data.NONE, -1, False)]
        pieces = await store.staging.read(one, 0, 1000)
        assert pieces is not None
        assert await drained(pieces) == b"copy" * 50
        assert await store.head(path("b")) == other
        assert await store.get(path("b"), None, 0, None) is None

    await restarts([write], check)


@pytest.mark.parametrize("data", [None, b"copy"])
async def test_what_is_shown_is_not_staged_again(autojump_clock: trio.testing.MockClock, data: bytes | None) -> None:
    """A message that came twice, the second time after the commit: nobody would commit it once more."""
    world = SimWorld(1)
    await prepare(world, ROOT)
    async with serving(world, ROOT) as store:
        of = version("a", 10, b"copy")
        await store.staging.stage(of, data)
        await store.staging.commit(of, None)
        before = await shown(store)
        assert (await store.staging.stage(of, data)).newest == of.timestamp
        assert (await store.staging.stage(of, None)).newest == of.timestamp
        assert await shown(store) == before
        assert await store.staging.waiting(Timestamp(11), 10) == []
        if data is None:  # it adds something
            await store.staging.stage(of, b"copy")
            assert len(await store.staging.waiting(Timestamp(11), 10)) == 1


async def test_what_was_refused_is_not_committed(autojump_clock: trio.testing.MockClock) -> None:
    new, never = version("a", 9, DATA), version("b", 9, b"x")

    async def write(store: ObjectStore) -> None:
        await stage(store, new)
        await store.staging.refuse(new)
        await store.staging.refuse(never)

    async def refused(store: ObjectStore) -> None:
        assert await shown(store) == [(False, Data.FRAGMENT, 0, True)]
        assert await shown(store, "b") == [(False, Data.NONE, -1, True)]
        with pytest.raises(Conflict):
            await store.staging.commit(new, None)
        with pytest.raises(Conflict):
            await store.staging.stage(never, b"x")

    async def lift(store: ObjectStore) -> None:
        await store.staging.commit(new, None, seen=True)
        await store.staging.forget(never)

    async def lifted(store: ObjectStore) -> None:
        assert await shown(store) == [(True, Data.FRAGMENT, 0, False)]
        assert await shown(store, "b") == []

    await restarts([write], refused)
    await restarts([write, lift], lifted)


async def test_what_is_forgotten_leaves_no_file(autojump_clock: trio.testing.MockClock) -> None:
    world = SimWorld(1)
    await prepare(world, ROOT)
    new = version("a", 9, DATA)
    async with serving(world, ROOT) as store:
        await stage(store, new)
        with pytest.raises(Conflict):
            await store.staging.forget(new)  # its writer may be about to commit it
        folder = f"files/{HASHER.hash(new.path).hex()[:3]}"
        assert len(await store.device.disk.list_dir(folder)) == 1
        await store.staging.refuse(new)
        await store.staging.forget(new)
        await trio.sleep(1)
        assert await store.device.disk.list_dir(folder) == []
        with pytest.raises(Conflict):
            await store.staging.commit(new, None)


@pytest.mark.parametrize("large", [False, True])
async def test_what_was_let_go_of_stays_so_when_compaction_meets_the_record_first(
    autojump_clock: trio.testing.MockClock, large: bool
) -> None:
    """Its writer was told that it is not done: it must not be there again when the index is made anew."""
    world = SimWorld(1)
    await prepare(world, ROOT)
    async with serving(world, ROOT, segment_bytes_max=20_000) as store:
        gone = version("a", 5, DATA)
        if large:
            await stage(store, gone)
        else:
            await store.staging.stage(gone, DATA)
        for number in range(10):  # the rest of its segment is alive
            await put(store, f"alive {number}", 10, noise(number, 1500))
        first = store.segments.order[-1].sequence
        while store.segments.order[-1].sequence == first:
            await put(store, "filler", store.packs.records + 100, noise(0, 1500))
        await store.staging.refuse(gone)
        await store.staging.forget(gone)
        assert await shown(store) == []
        for _ in range(40):
            await put(store, "filler", store.packs.records + 100, noise(0, 1500))
        await store.index.commit()
        compactor = Compactor(world, store, grace_s=0.1)
        for _ in range(100):
            await compactor.work()
        assert compactor.compactions
        assert first in store.packs.sequences  # too little of it is dead
        await assert_as_rebuilt(world, store)
        await store.device.tables.commit([Write("state", b"version", b"?")])
    async with serving(world, ROOT, segment_bytes_max=20_000) as store:
        assert store.report.rebuilt
        assert await shown(store) == []
        assert await store.staging.waiting(Timestamp(10**9), 10) == []


async def test_a_staged_file_is_no_orphan(autojump_clock: trio.testing.MockClock) -> None:
    world = SimWorld(1)
    await prepare(world, ROOT)
    new = version("a", 9, DATA)
    async with serving(world, ROOT) as store:
        await stage(store, new)
        auditor = Auditor(world, store, orphan_grace_s=-1.0)
        for _ in range(600):
            await auditor.work()
        assert auditor.orphans == auditor.damaged == 0
        await store.staging.commit(new, None)
        assert await shown(store) == [(True, Data.FRAGMENT, 0, False)]


async def test_another_fragment_of_the_same_version_takes_its_place_and_keeps_the_metadata(
    autojump_clock: trio.testing.MockClock,
) -> None:
    new = version("a", 9, DATA)

    async def write(store: ObjectStore) -> None:
        await store.staging.stage(new, None)
        await store.staging.commit(new, None)
        await store.post(new.path, {"x-object-meta-p": "q"}, "", Timestamp(20))
        for index in (0, 2):
            await stage(store, new, index)
            await store.staging.commit(new, None, seen=True)

    async def check(store: ObjectStore) -> None:
        assert await shown(store) == [(True, Data.FRAGMENT, 2, False)]
        head = await store.head(new.path)
        assert head is not None and head.metadata == {"x-object-meta-p": "q"} and head.metadata_timestamp == Timestamp(20)

    await restarts([write], check)


async def test_a_newer_version_wins_and_a_promise_holds(autojump_clock: trio.testing.MockClock) -> None:
    world = SimWorld(1)
    await prepare(world, ROOT)
    old, new = version("a", 5, DATA), version("a", 9, DATA)
    async with serving(world, ROOT) as store:
        await stage(store, old)
        await stage(store, new, 1)
        await store.staging.commit(new, None)
        reply = await store.staging.commit(old, None)
        assert reply.newest == new.timestamp
        assert await shown(store) == [(True, Data.FRAGMENT, 1, False), (False, Data.FRAGMENT, 0, False)]
        await store.staging.forget(old)
        assert await shown(store) == [(True, Data.FRAGMENT, 1, False)]
        later = replace(new, timestamp=Timestamp(12))
        await stage(store, later, 2)
        assert (await store.promise(new.path, Timestamp(14), ())).given
        with pytest.raises(PromisedAbove):
            await store.staging.commit(later, None)
        assert await store.staging.end_promise(new.path, Timestamp(14))
        assert (await store.staging.commit(later, None)).newest == later.timestamp


async def test_the_bytes_must_be_those_that_are_described(autojump_clock: trio.testing.MockClock) -> None:
    world = SimWorld(1)
    await prepare(world, ROOT)
    new = version("a", 9, DATA)
    (fragment, body), (other, _) = fragments(new)[:2]
    async with serving(world, ROOT) as store:
        for described, data, of in (
            (other, body, new),
            (fragment, body[:-1], new),
            (fragment, body[:-1] + b"?", new),
            (fragment, body, replace(new, etag=hashlib.md5(b"?").hexdigest())),
        ):
            upload = await store.staging.begin(new.path, 0, 500)
            await upload.write(data)
            with pytest.raises(BadInput):
                await upload.stage(of, described)
            await upload.abort()
        assert await shown(store) == []


async def test_what_rots_is_noted(autojump_clock: trio.testing.MockClock) -> None:
    world = SimWorld(1)
    await prepare(world, ROOT)
    new = version("a", 9, DATA)
    async with serving(world, ROOT) as store:
        await stage(store, new)
        await store.staging.commit(new, None)
        await store.quarantine(store.key(new.path, new.timestamp))
        (seen,) = await store.staging.sightings(new.path)
        assert seen == Seen(new, True, Data.NONE)
        assert len(await store.device.disk.list_dir("quarantine")) == 1
