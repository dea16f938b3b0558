"""How clients reach a front door: by calls to its facade, or over HTTP with every byte of it.

    DirectDoor  the facade of a machine
    HttpDoor    Swift's dialect over simulated connections: ring.wire's client, server, proxy's gates and verbs, then the facade
    serve_door  the server's side of it, at a machine

Both raise the errors of storage.client.errors; Unavailable says that nobody knows whether it happened.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import trio

from identity.client.fake import FakeIdentity
from proxy.app import FrontDoorConfig, make_app
from proxy.gates.limits import Limits
from ring.errors import Unavailable
from ring.kv.interface import KV
from ring.names import Path
from ring.wire.client import Client, Reply
from ring.wire.message import BytesBody
from ring.wire.query import quote
from ring.wire.server import serve
from ring.world.interface import TcpAddress, World
from storage.client.bodies import aclose, loaded
from storage.client.cluster import ClusterStorage
from storage.client.errors import ContainerNotFound, ObjectNotFound, PreconditionFailed
from storage.client.interface import Condition, NewObject, Query, Row
from tests.sim.coded import NAMES as POLICIES

ACCOUNT = "AUTH_sim"
PORT = 8080
NO_CONDITION = Condition()
REPLY_S = 20.0


class ServerError(Exception):
    """A status that no request of ours should bring: a bug."""


class Damaged(Exception):
    """A body that is not as long as was said, without an error."""


@dataclass(frozen=True, slots=True)
class Item:
    name: str
    size: int
    etag: str


class Door(Protocol):
    async def put(self, path: Path, data: bytes, metadata: Mapping[str, str], condition: Condition) -> None: ...

    async def get(self, path: Path) -> bytes: ...

    async def head(self, path: Path) -> Item: ...

    async def delete(self, path: Path, condition: Condition) -> None: ...

    async def post(self, path: Path, metadata: Mapping[str, str]) -> None: ...

    async def make_container(self, path: Path, policy: int) -> None: ...

    async def page(self, container: Path, marker: str, limit: int) -> tuple[list[Item], bool]:
        """Items behind ``marker``, and whether there are more."""

    async def container_totals(self, path: Path) -> tuple[int, int]:
        """Objects, bytes."""

    async def account_totals(self) -> tuple[int, int, int]:
        """Containers, objects, bytes."""


class DirectDoor:
    def __init__(self, facade: ClusterStorage) -> None:
        self._facade = facade

    async def put(self, path: Path, data: bytes, metadata: Mapping[str, str], condition: Condition) -> None:
        new = NewObject(metadata=dict(metadata), condition=condition if condition != NO_CONDITION else None)
        await self._facade.put_object(path, new, BytesBody(data))

    async def get(self, path: Path) -> bytes:
        reading = await self._facade.get_object(path)
        data = bytearray()
        try:
            async for piece in reading.pieces:
                data += await loaded(piece)
        finally:
            await aclose(reading.pieces)
        if len(data) != reading.meta.size:
            raise Damaged(f"{len(data)} bytes of {reading.meta.size} without an error")
        return bytes(data)

    async def head(self, path: Path) -> Item:
        meta = await self._facade.head_object(path)
        return Item(path.object, meta.size, meta.etag)

    async def delete(self, path: Path, condition: Condition) -> None:
        await self._facade.delete_object(path, condition=condition if condition != NO_CONDITION else None)

    async def post(self, path: Path, metadata: Mapping[str, str]) -> None:
        await self._facade.post_object(path, metadata)

    async def make_container(self, path: Path, policy: int) -> None:
        await self._facade.put_container(path, {}, policy=policy)

    async def page(self, container: Path, marker: str, limit: int) -> tuple[list[Item], bool]:
        page = await self._facade.list_container(container, Query(marker=marker, limit=limit))
        return [Item(row.name, row.size, row.etag) for row in page.items if isinstance(row, Row)], page.truncated

    async def container_totals(self, path: Path) -> tuple[int, int]:
        meta = await self._facade.head_container(path)
        return meta.object_count, meta.bytes_used

    async def account_totals(self) -> tuple[int, int, int]:
        meta = await self._facade.head_account(Path(ACCOUNT))
        return meta.container_count, meta.object_count, meta.bytes_used


class HttpDoor:
    """``client`` is of the machine that asks, ``host`` the one that is asked."""

    def __init__(self, client: Client, host: str) -> None:
        self._client = client
        self._address = TcpAddress(host, PORT)

    async def put(self, path: Path, data: bytes, metadata: Mapping[str, str], condition: Condition) -> None:
        reply = await self._ask("PUT", path, {**metadata, **_conditions(condition)}, data)
        if reply.status == 404:
            raise ContainerNotFound(f"{path}: 404")
        _expect(reply, 201)

    async def get(self, path: Path) -> bytes:
        reply = await self._ask("GET", path)
        _expect(reply, 200)
        if len(reply.body) != int(reply.headers.get("content-length")):
            raise Damaged(f"{len(reply.body)} bytes of {reply.headers.get('content-length')} without an error")
        return reply.body

    async def head(self, path: Path) -> Item:
        reply = await self._ask("HEAD", path)
        _expect(reply, 200)
        return Item(path.object, int(reply.headers.get("content-length")), reply.headers.get("etag").strip('"'))

    async def delete(self, path: Path, condition: Condition) -> None:
        _expect(await self._ask("DELETE", path, _conditions(condition)), 204)

    async def post(self, path: Path, metadata: Mapping[str, str]) -> None:
        _expect(await self._ask("POST", path, metadata), 202)

    async def make_container(self, path: Path, policy: int) -> None:
        headers = {"x-storage-policy": POLICIES[policy]} if policy else {}
        _expect(await self._ask("PUT", path, headers), 201, 202)

    async def page(self, container: Path, marker: str, limit: int) -> tuple[list[Item], bool]:
        query = f"?format=json&limit={limit}&marker={quote(marker)}"
        reply = await self._ask("GET", container, query=query)
        _expect(reply, 200)
        items = [Item(row["name"], row["bytes"], row["hash"]) for row in json.loads(reply.body)]
        return items, len(items) == limit

    async def container_totals(self, path: Path) -> tuple[int, int]:
        reply = await self._ask("HEAD", path)
        _expect(reply, 204)
        return int(reply.headers.get("x-container-object-count")), int(reply.headers.get("x-container-bytes-used"))

    async def account_totals(self) -> tuple[int, int, int]:
        reply = await self._ask("HEAD", Path(ACCOUNT))
        _expect(reply, 204)
        names = ("container-count", "object-count", "bytes-used")
        containers, objects, size = (int(reply.headers.get(f"x-account-{name}")) for name in names)
        return containers, objects, size

    async def _ask(
        self, method: str, path: Path, headers: Mapping[str, str] | None = None, body: bytes = b"", *, query: str = ""
    ) -> Reply:
        target = "/v1/" + "/".join(quote(part) for part in (path.account, path.container, path.object) if part) + query
        fields = [("x-auth-token", "token-ann"), *(headers or {}).items()]
        repeatable = method in ("GET", "HEAD")  # a write that is sent twice could happen again after it was answered
        return await self._client.call(self._address, method, target, fields, body, reply_s=REPLY_S, repeatable=repeatable)


def _conditions(condition: Condition) -> dict[str, str]:
    found = {}
    for name, etags in (("if-match", condition.if_match), ("if-none-match", condition.if_none_match)):
        if etags:
            found[name] = ", ".join(etag if etag == "*" else f'"{etag}"' for etag in etags)
    return found


def _expect(reply: Reply, *statuses: int) -> None:
    match reply.status:
        case status if status in statuses:
            return
        case 404:
            raise ObjectNotFound("404")
        case 412:
            raise PreconditionFailed("412")
        case 503 | 507:  # too few answer, or too few have room
            raise Unavailable(str(reply.status))
    raise ServerError(f"{reply.status}: {reply.body[:200]!r}")


async def serve_door(world: World, nursery: trio.Nursery, host: str, facade: ClusterStorage, kv: KV) -> None:
    """The front door of a machine.  Started when it returns."""
    identity = FakeIdentity()
    identity.add("ann", project=ACCOUNT.removeprefix("AUTH_"))
    config = FrontDoorConfig(Limits(object_bytes_max=1 << 20), policies=POLICIES)
    app = make_app(facade, identity, kv, world, config)
    listener = await world.net.listen(TcpAddress(host, PORT))
    nursery.start_soon(serve, world, [listener], app)
