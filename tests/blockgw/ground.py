"""What the tests of images, volumes and servers stand on: objects without a front door, and a way to ask an API."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from blockgw.images.store import ImageStore
from identity.client.fake import FakeIdentity
from ring.kv.memory import MemoryKV
from ring.names import Path
from ring.wire.message import Body, BytesBody, Handler, Headers, Request, Response
from ring.world.sim import SimWorld
from storage.client.bodies import drained
from storage.client.errors import ContainerNotFound
from storage.client.fake import FakeStorage
from storage.client.interface import NewObject, ObjectMeta, Query, Reading, Row


class PlainObjects:
    """Implements proxy.client.interface.Objects: objects as they lie in storage, no manifests."""

    def __init__(self, storage: FakeStorage) -> None:
        self.storage = storage
        self.buckets: dict[tuple[str, str], Path] = {}  # by name and project

    async def head(self, path: Path) -> ObjectMeta:
        return await self.storage.head_object(path)

    async def read(self, path: Path, *, offset: int = 0, length: int | None = None) -> Reading:
        return await self.storage.get_object(path, offset=offset, length=length)

    def bucket(self, name: str, project_id: str) -> Path | None:
        return self.buckets.get((name, project_id))


class BrokenBody:
    """A body that raises after some of it was read."""

    def __init__(self, data: bytes, error: BaseException, *, length: int | None = None) -> None:
        self.length = length
        self._rest = data
        self._error = error

    async def read(self, max_bytes: int = 1 << 20) -> bytes:
        if not self._rest:
            raise self._error
        piece, self._rest = self._rest[:max_bytes], self._rest[max_bytes:]
        return piece

    async def read_all(self, max_bytes: int) -> bytes:
        raise self._error


@dataclass(slots=True)
class Ground:
    """A world, storage, control state and images of one test."""

    world: SimWorld = field(default_factory=lambda: SimWorld(1))
    kv: MemoryKV = field(default_factory=MemoryKV)
    storage: FakeStorage = field(init=False)
    objects: PlainObjects = field(init=False)
    images: ImageStore = field(init=False)
    identity: FakeIdentity = field(default_factory=FakeIdentity)

    def __post_init__(self) -> None:
        self.storage = FakeStorage(self.world.clock)
        self.objects = PlainObjects(self.storage)
        self.images = ImageStore(self.world, self.storage, self.objects, self.kv)
        self.identity.add("ann", project="p1")
        self.identity.add("bob", project="p2")
        self.identity.add("root", project="adm", roles=frozenset({"admin"}))

    async def put(self, path: Path, data: bytes) -> None:
        await self.storage.put_container(path.parent, {})
        await self.storage.put_object(path, NewObject(), BytesBody(data))

    async def names(self, container: Path) -> list[str]:
        """Of the objects in a container; none when there is no such container."""
        try:
            page = await self.storage.list_container(container, Query())
        except ContainerNotFound:
            return []
        return [row.name for row in page.items if isinstance(row, Row)]


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: Headers
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True, slots=True)
class Caller:
    """One user of an API: ``await ann("GET", "/v2/images")``."""

    api: Handler
    token: str

    async def __call__(self, method: str, target: str, body: object = b"", *, expect: int | None = None) -> Answer:
        """``body``: bytes and Bodies go as they are, all else as JSON."""
        source: Body
        if isinstance(body, BrokenBody | BytesBody):
            source = body
        else:
            source = BytesBody(body if isinstance(body, bytes) else json.dumps(body).encode())
        response: Response = await self.api(Request(method, target, Headers([("x-auth-token", self.token)]), source))
        data = response.body if isinstance(response.body, bytes) else await drained(response.body)
        assert expect is None or response.status == expect, (response.status, data)
        return Answer(response.status, response.headers, data)
