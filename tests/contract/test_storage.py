"""What every Storage promises: the fake in RAM, and the facade over a cluster of devices (in RAM, and the real engines)."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, cast

import pytest
import trio

from ring.errors import BadInput
from ring.names import Path
from ring.policy import Consistency, Policies, Policy
from ring.timestamp import Timestamp
from ring.wire.message import BodyBroken, BytesBody
from ring.world.sim import SimWorld
from storage.client.bodies import aclose, loaded
from storage.client.errors import (
    AccountGone,
    AccountNotFound,
    BadDigest,
    ContainerNotEmpty,
    ContainerNotFound,
    EntityTooLarge,
    ObjectNotFound,
    PreconditionFailed,
    Superseded,
)
from storage.client.fake import FakeStorage
from storage.client.interface import Condition, NewObject, Prefix, Query, Reading, Storage
from storage.client.reach import Settings
from tests.storage.client.ground import Ground

CONTAINER = Path("AUTH_a", "c")
OBJECT = Path("AUTH_a", "c", "o")
CUT = 4096


@pytest.fixture(params=["fake", "cluster", "available", "devices", "coded"])
async def storage(request: pytest.FixtureRequest, nursery: trio.Nursery) -> Storage:
    if request.param == "fake":
        return FakeStorage(SimWorld(1).clock)
    settings = Settings(pack_cut_bytes=CUT, chunk_bytes=1000, offload_bytes=500)
    if request.param == "cluster":
        return Ground.make(nursery, settings=settings).storage
    if request.param == "available":
        policies = Policies([Policy(0, "any", 3, consistency=Consistency.AVAILABLE)])
        return Ground.make(nursery, settings=settings, policies=policies).storage
    if request.param == "coded":
        return cast(Storage, InPolicy((await Ground.coded(nursery, settings, k=2, m=1, device_count=4)).storage))
    return (await Ground.with_engines(nursery, settings)).storage


class InPolicy:
    """Containers are made in the erasure-coded policy."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    async def put_container(self, path: Path, metadata: Mapping[str, str], *, policy: int | None = None, default: int = 1) -> bool:
        return await self._storage.put_container(path, metadata, policy=policy, default=default)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)


class Chunked:
    """A body of unknown length."""

    length: int | None = None

    def __init__(self, data: bytes, *, breaks: bool = False) -> None:
        self._data = data
        self._breaks = breaks

    async def read(self, max_bytes: int = 1 << 20) -> bytes:
        if not self._data and self._breaks:
            raise BodyBroken("the peer went away")
        piece, self._data = self._data[: min(max_bytes, 700)], self._data[min(max_bytes, 700) :]
        return piece


async def read(reading: Reading) -> bytes:
    data = b""
    try:
        async for piece in reading.pieces:
            data += await loaded(piece)
    finally:
        await aclose(reading.pieces)
    return data


async def put(storage: Storage, path: Path, data: bytes = b"x", **fields: object) -> None:
    await storage.put_object(path, NewObject(**fields), BytesBody(data))  # type: ignore[arg-type]  # the fields of NewObject


SIZES = [0, 1, 499, CUT, CUT + 1, 10_000]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("known", [True, False])
async def test_what_is_put_is_got(storage: Storage, size: int, known: bool) -> None:
    data = bytes(i * 7 % 251 for i in range(size))
    await storage.put_container(CONTAINER, {})
    new = NewObject(content_type="text/plain", metadata={"x-object-meta-a": "b"})
    stored = await storage.put_object(OBJECT, new, BytesBody(data) if known else Chunked(data))
    assert stored.listed
    assert stored.meta.size == size
    assert stored.meta.etag == hashlib.md5(data).hexdigest()
    meta = await storage.head_object(OBJECT)
    assert meta == stored.meta
    assert (meta.content_type, dict(meta.metadata)) == ("text/plain", {"x-object-meta-a": "b"})
    reading = await storage.get_object(OBJECT)
    assert reading.meta == meta
    assert await read(reading) == data
    page = await storage.list_container(CONTAINER, Query())
    assert [(row.name, row.size, row.etag) for row in page.items if not isinstance(row, Prefix)] == [("o", size, meta.etag)]


@pytest.mark.parametrize("size", [3000, 9000])
@pytest.mark.parametrize(
    ("offset", "length"), [(0, 1), (0, None), (100, 200), (2999, 1), (2999, 10**9), (3000, None), (9999, 5), (0, 0)]
)
async def test_ranges(storage: Storage, size: int, offset: int, length: int | None) -> None:
    data = bytes(i % 251 for i in range(size))
    await storage.put_container(CONTAINER, {})
    await put(storage, OBJECT, data)
    end = None if length is None else offset + length
    assert await read(await storage.get_object(OBJECT, offset=offset, length=length)) == data[offset:end]


async def test_the_newest_write_is_read(storage: Storage) -> None:
    await storage.put_container(CONTAINER, {})
    for number in range(3):
        await put(storage, OBJECT, b"%d" % number)
        assert await read(await storage.get_object(OBJECT)) == b"%d" % number
    await put(storage, OBJECT, b"L" * 5000)
    await put(storage, OBJECT, b"small again")
    assert await read(await storage.get_object(OBJECT)) == b"small again"


async def test_a_version_by_its_timestamp(storage: Storage) -> None:
    await storage.put_container(CONTAINER, {})
    await put(storage, OBJECT, b"data")
    meta = await storage.head_object(OBJECT)
    assert await read(await storage.get_object(OBJECT, version=meta.timestamp)) == b"data"
    with pytest.raises(ObjectNotFound):
        await storage.get_object(OBJECT, version=Timestamp(1))


async def test_nothing_is_there_before_or_after(storage: Storage) -> None:
    await storage.put_container(CONTAINER, {})
    for _ in range(2):
        for call in (storage.head_object, storage.get_object, storage.delete_object):
            with pytest.raises(ObjectNotFound):
                await call(OBJECT)
        with pytest.raises(ObjectNotFound):
            await storage.post_object(OBJECT, {})
        await put(storage, OBJECT)
        await storage.delete_object(OBJECT)
    assert (await storage.list_container(CONTAINER, Query())).items == []


async def test_an_object_needs_its_container(storage: Storage) -> None:
    with pytest.raises(ContainerNotFound):
        await put(storage, OBJECT)
    for call in (storage.head_object, storage.get_object, storage.delete_object):
        with pytest.raises(ObjectNotFound):
            await call(OBJECT)
    with pytest.raises(ObjectNotFound):
        await storage.post_object(OBJECT, {})
    await storage.put_container(CONTAINER, {})
    await put(storage, OBJECT)
    await storage.delete_object(OBJECT)
    await storage.delete_container(CONTAINER)
    with pytest.raises(ContainerNotFound):
        await put(storage, OBJECT)


@pytest.mark.parametrize("size", [5, 5000])
async def test_a_body_that_is_not_as_announced_is_not_stored(storage: Storage, size: int) -> None:
    await storage.put_container(CONTAINER, {})
    await put(storage, OBJECT, b"old")
    data = b"n" * size
    with pytest.raises(BadDigest):
        await put(storage, OBJECT, data, etag="0" * 32)
    with pytest.raises(EntityTooLarge):
        await put(storage, OBJECT, data, size_max=size - 1)
    with pytest.raises(EntityTooLarge):
        await storage.put_object(OBJECT, NewObject(size_max=size - 1), Chunked(data))
    with pytest.raises(BodyBroken):
        await storage.put_object(OBJECT, NewObject(), Chunked(data, breaks=True))
    assert await read(await storage.get_object(OBJECT)) == b"old"
    await put(storage, OBJECT, data, etag=hashlib.md5(data).hexdigest(), size_max=size)
    assert await read(await storage.get_object(OBJECT)) == data


async def test_conditions(storage: Storage) -> None:
    await storage.put_container(CONTAINER, {})
    with pytest.raises(PreconditionFailed):
        await put(storage, OBJECT, b"1", condition=Condition(if_match=("*",)))
    await put(storage, OBJECT, b"1", condition=Condition(if_none_match=("*",)))
    etag = hashlib.md5(b"1").hexdigest()
    refused = [
        Condition(if_none_match=("*",)),
        Condition(if_none_match=("0", etag)),
        Condition(if_match=("0" * 32,)),
        Condition(if_match=(etag,), if_none_match=(etag,)),
    ]
    for condition in refused:
        with pytest.raises(PreconditionFailed):
            await put(storage, OBJECT, b"2", condition=condition)
        with pytest.raises(PreconditionFailed):
            await put(storage, OBJECT, b"2" * 5000, condition=condition)
        with pytest.raises(PreconditionFailed):
            await storage.delete_object(OBJECT, condition=condition)
    assert await read(await storage.get_object(OBJECT)) == b"1"
    await put(storage, OBJECT, b"2", condition=Condition(if_match=("0", etag)))
    await storage.delete_object(OBJECT, condition=Condition(if_match=("*",)))


async def test_of_racing_creations_one_wins(storage: Storage) -> None:
    await storage.put_container(CONTAINER, {})
    won: list[int] = []

    async def create(number: int) -> None:
        try:
            await put(storage, OBJECT, b"%d" % number * (1 if number % 2 else 5000), condition=Condition(if_none_match=("*",)))
        except PreconditionFailed:
            return
        won.append(number)

    async with trio.open_nursery() as nursery:
        for number in range(6):
            nursery.start_soon(create, number)
    assert len(won) == 1
    body = await read(await storage.get_object(OBJECT))
    assert body.startswith(b"%d" % won[0])


async def test_a_given_timestamp_below_the_newest_is_refused(storage: Storage) -> None:
    await storage.put_container(CONTAINER, {})
    await put(storage, OBJECT, b"now")
    newest = (await storage.head_object(OBJECT)).timestamp
    for data in (b"old", b"o" * 5000):
        with pytest.raises(Superseded) as caught:
            await put(storage, OBJECT, data, timestamp=Timestamp(newest.ticks - 1))
        assert caught.value.newest == newest
    later = Timestamp(newest.ticks + 1)
    await put(storage, OBJECT, b"later", timestamp=later)
    assert (await storage.head_object(OBJECT)).timestamp == later


async def test_post_replaces_the_clients_metadata(storage: Storage) -> None:
    await storage.put_container(CONTAINER, {})
    await put(storage, OBJECT, b"data", metadata={"x-object-meta-a": "1", "x-sysmeta-b": "2"}, content_type="text/plain")
    before = await storage.head_object(OBJECT)
    await storage.post_object(OBJECT, {"x-object-meta-c": "3"})
    meta = await storage.head_object(OBJECT)
    assert dict(meta.metadata) == {"x-object-meta-c": "3", "x-sysmeta-b": "2"}
    assert (meta.timestamp, meta.content_type, meta.etag) == (before.timestamp, "text/plain", before.etag)
    assert meta.modified > before.timestamp
    await storage.post_object(OBJECT, {}, content_type="image/png")
    assert (await storage.head_object(OBJECT)).content_type == "image/png"
    page = await storage.list_container(CONTAINER, Query())
    assert [row.content_type for row in page.items if not isinstance(row, Prefix)] == ["image/png"]
    assert await read(await storage.get_object(OBJECT)) == b"data"
    await put(storage, OBJECT, b"new", metadata={})
    assert dict((await storage.head_object(OBJECT)).metadata) == {}
    assert await read(await storage.get_object(OBJECT)) == b"new"


async def test_listings_show_what_a_manifest_says(storage: Storage) -> None:
    await storage.put_container(CONTAINER, {})
    await put(storage, OBJECT, b"[]", listing_etag="e-2", listing_size=123, content_type="a/b")
    for _ in range(2):
        page = await storage.list_container(CONTAINER, Query())
        assert [(row.etag, row.size) for row in page.items if not isinstance(row, Prefix)] == [("e-2", 123)]
        assert (await storage.head_object(OBJECT)).size == 2
        await storage.post_object(OBJECT, {}, content_type="c/d")


# ---- containers and accounts


async def test_containers_come_and_go(storage: Storage) -> None:
    calls: list[Callable[[Path], Awaitable[object]]] = [storage.head_container, storage.delete_container]
    for call in calls:
        with pytest.raises(ContainerNotFound):
            await call(CONTAINER)
    with pytest.raises(ContainerNotFound):
        await storage.post_container(CONTAINER, {})
    with pytest.raises(ContainerNotFound):
        await storage.list_container(CONTAINER, Query())
    for _ in range(2):
        assert await storage.put_container(CONTAINER, {"x-container-meta-a": "1"})
        assert not await storage.put_container(CONTAINER, {"x-container-meta-b": "2"})
        meta = await storage.head_container(CONTAINER)
        assert dict(meta.metadata) == {"x-container-meta-a": "1", "x-container-meta-b": "2"}
        await storage.post_container(CONTAINER, {"x-container-meta-a": "", "x-container-read": ".r:*"})
        meta = await storage.head_container(CONTAINER)
        assert dict(meta.metadata) == {"x-container-meta-b": "2", "x-container-read": ".r:*"}
        assert (meta.object_count, meta.bytes_used, meta.policy) == (0, 0, 1 if isinstance(storage, InPolicy) else 0)
        await put(storage, OBJECT, b"12345")
        meta = await storage.head_container(CONTAINER)
        assert (meta.object_count, meta.bytes_used) == (1, 5)
        with pytest.raises(ContainerNotEmpty):
            await storage.delete_container(CONTAINER)
        await storage.delete_object(OBJECT)
        await storage.delete_container(CONTAINER)
        with pytest.raises(ContainerNotFound):
            await storage.head_container(CONTAINER)


async def test_an_account_lists_its_containers(storage: Storage) -> None:
    account = CONTAINER.parent
    with pytest.raises(AccountNotFound):
        await storage.head_account(account)
    with pytest.raises(AccountNotFound):
        await storage.list_account(account, Query())
    for name in ("b", "a", "ü"):
        await storage.put_container(Path("AUTH_a", name), {})
    assert [item.name for item in (await storage.list_account(account, Query())).items] == ["a", "b", "ü"]
    assert (await storage.head_account(account)).container_count == 3
    await storage.delete_container(Path("AUTH_a", "b"))
    page = await storage.list_account(account, Query())
    assert [item.name for item in page.items] == ["a", "ü"]
    assert page.meta.container_count == 2


async def test_a_deleted_account_is_gone_with_all_that_is_in_it(storage: Storage) -> None:
    account = CONTAINER.parent
    with pytest.raises(AccountNotFound):
        await storage.delete_account(account)
    await storage.put_container(CONTAINER, {})
    await storage.put_object(OBJECT, NewObject(), BytesBody(b"data"))
    await storage.delete_account(account)
    for refused in (
        storage.head_account(account),
        storage.list_account(account, Query()),
        storage.post_account(account, {"x-account-meta-a": "1"}),
        storage.put_account(account, {}),
        storage.put_container(Path("AUTH_a", "another"), {}),
        storage.delete_account(account),
    ):
        with pytest.raises(AccountGone):
            await refused


async def test_account_metadata(storage: Storage) -> None:
    account = Path("AUTH_b")
    with pytest.raises(AccountNotFound):
        await storage.post_account(account, {"x-account-meta-a": "1"})
    assert await storage.put_account(account, {"x-account-meta-a": "1"})
    assert not await storage.put_account(account, {})
    await storage.post_account(account, {"x-account-meta-a": "", "x-account-meta-b": "2"})
    assert dict((await storage.head_account(account)).metadata) == {"x-account-meta-b": "2"}


NAMES = ["a", "a/1", "a/2", "b", "b/x/1", "b/x/2", "b/y", "c", "ä", "\U0001f600"]
PAGES: list[tuple[Query, list[str], bool]] = [
    (Query(), NAMES, False),
    (Query(limit=3), ["a", "a/1", "a/2"], True),
    (Query(limit=10), NAMES, False),
    (Query(marker="b"), NAMES[4:], False),
    (Query(end_marker="b"), NAMES[:3], False),
    (Query(marker="a/1", end_marker="b/y"), ["a/2", "b", "b/x/1", "b/x/2"], False),
    (Query(prefix="b/"), ["b/x/1", "b/x/2", "b/y"], False),
    (Query(prefix="b/", delimiter="/"), ["b/x/", "b/y"], False),
    (Query(delimiter="/"), ["a", "a/", "b", "b/", "c", "ä", "\U0001f600"], False),
    (Query(delimiter="/", limit=2), ["a", "a/"], True),
    (Query(delimiter="/", marker="a/"), ["b", "b/", "c", "ä", "\U0001f600"], False),
    (Query(delimiter="/", marker="a/1"), ["a/", "b", "b/", "c", "ä", "\U0001f600"], False),
    (Query(reverse=True, limit=2), ["\U0001f600", "ä"], True),
    (Query(reverse=True, marker="b", end_marker="a"), ["a/2", "a/1"], False),
    (Query(prefix="none"), [], False),
]


@pytest.mark.parametrize(("query", "names", "truncated"), PAGES)
async def test_listing_pages(storage: Storage, query: Query, names: list[str], truncated: bool) -> None:
    await storage.put_container(CONTAINER, {})
    for name in [*NAMES, "gone"]:
        await put(storage, Path("AUTH_a", "c", name))
    await storage.delete_object(Path("AUTH_a", "c", "gone"))
    page = await storage.list_container(CONTAINER, query)
    assert [item.name for item in page.items] == names
    assert page.truncated == truncated
    assert page.meta.object_count == len(NAMES)


async def test_what_no_device_can_hold_is_bad_input(nursery: trio.Nursery) -> None:
    """And nothing else suffers from it."""
    storage = (await Ground.with_engines(nursery)).storage
    await storage.put_container(CONTAINER, {})
    with pytest.raises(BadInput):
        await put(storage, OBJECT, content_type="x" * 2000)
    with pytest.raises(BadInput):
        await put(storage, OBJECT, metadata={"x-object-meta-a": "x" * (4 << 20)})
    with pytest.raises(BadInput):
        await storage.put_container(CONTAINER, {"x-container-meta-a": "x" * (2 << 20)})
    with pytest.raises(BadInput):
        await put(storage, Path("AUTH_a", "c", "\udc80"))
    await put(storage, OBJECT)
    with pytest.raises(BadInput):
        await storage.post_object(OBJECT, {}, content_type="x" * 2000)
    assert (await storage.list_container(CONTAINER, Query())).items


async def test_names_that_cannot_be(storage: Storage) -> None:
    with pytest.raises(BadInput):
        await storage.put_container(Path("AUTH_a", "x" * 257), {})
    await storage.put_container(CONTAINER, {})
    with pytest.raises(BadInput):
        await put(storage, Path("AUTH_a", "c", "x" * 1025))
