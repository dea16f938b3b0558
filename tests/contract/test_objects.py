"""What every proxy.client.Objects promises: the fake, and the one over storage with plain objects and with manifests."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import pytest
import trio

from proxy.client.fake import FakeObjects
from proxy.client.interface import Objects
from proxy.client.objects import ObjectsClient
from proxy.large.manifest import Manifest, Part
from proxy.large.reader import hidden
from proxy.operations.buckets import BucketClaims
from ring.kv.memory import MemoryKV
from ring.names import Path
from ring.wire.message import BytesBody
from ring.world.sim import SimWorld
from storage.client.bodies import drained
from storage.client.errors import ObjectNotFound
from storage.client.fake import FakeStorage
from storage.client.interface import NewObject

OBJECT = Path("AUTH_p1", "c", "o")
DATA = bytes(range(256)) * 3


@dataclass
class Case:
    objects: Objects
    add: Callable[[Path, bytes], Awaitable[None]]
    claim: Callable[[str, str], Awaitable[None]]


@pytest.fixture(params=["fake", "plain", "manifest"])
async def case(request: pytest.FixtureRequest, nursery: trio.Nursery) -> Case:
    if request.param == "fake":
        fake = FakeObjects()

        async def add_fake(path: Path, data: bytes) -> None:
            fake.add(path, data)

        async def claim_fake(name: str, project_id: str) -> None:
            fake.buckets[name] = Path(f"AUTH_{project_id}", name)

        return Case(fake, add_fake, claim_fake)
    world, kv = SimWorld(1), MemoryKV()
    storage, claims = FakeStorage(world.clock), BucketClaims(kv)
    client = ObjectsClient(storage, kv, world.clock, claims=claims)
    await nursery.start(client.run)

    async def add_plain(path: Path, data: bytes) -> None:
        await storage.put_container(path.parent, {})
        await storage.put_object(path, NewObject(), BytesBody(data))

    async def add_manifest(path: Path, data: bytes) -> None:
        shelf = hidden(path.parent)
        await storage.put_container(shelf, {})
        parts = []
        for number, at in enumerate(range(0, len(data), 100), 1):
            piece = data[at : at + 100]
            await storage.put_object(Path(shelf.account, shelf.container, f"p{number}"), NewObject(), BytesBody(piece))
            parts.append(Part(number, f"p{number}", len(piece), hashlib.md5(piece).hexdigest()))
        manifest = Manifest("0" * 32, tuple(parts))
        await storage.put_container(path.parent, {})
        await storage.put_object(path, NewObject(metadata=manifest.headers()), BytesBody(manifest.encode()))

    async def claim(name: str, project_id: str) -> None:
        await claims.claim(name, project_id)

    return Case(client, add_plain if request.param == "plain" else add_manifest, claim)


@pytest.mark.parametrize(
    ("offset", "length"), [(0, None), (0, 0), (0, 1), (99, 2), (100, 100), (250, None), (700, 500), (768, None), (900, 5)]
)
async def test_read(case: Case, offset: int, length: int | None) -> None:
    await case.add(OBJECT, DATA)
    reading = await case.objects.read(OBJECT, offset=offset, length=length)
    assert reading.meta.size == len(DATA)
    assert await drained(reading.pieces) == (DATA[offset:] if length is None else DATA[offset : offset + length])


async def test_head(case: Case) -> None:
    await case.add(OBJECT, DATA)
    assert (await case.objects.head(OBJECT)).size == len(DATA)


async def test_what_is_not_there(case: Case) -> None:
    with pytest.raises(ObjectNotFound):
        await case.objects.head(OBJECT)
    with pytest.raises(ObjectNotFound):
        await case.objects.read(OBJECT)


async def test_buckets(case: Case) -> None:
    assert case.objects.bucket("photos", "p1") == Path("AUTH_p1", "photos")
    assert case.objects.bucket("photos", "") is None
    await case.claim("photos", "p2")
    assert case.objects.bucket("photos", "p1") == case.objects.bucket("photos", "") == Path("AUTH_p2", "photos")
