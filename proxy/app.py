"""The front door: which dialect a request speaks, and everything behind it put together.

A request is S3's when it carries an S3 signature, names a virtual host, or its path is none of Swift's (/v1/ /auth/ /info
/healthcheck /endpoints).

    door = make_app(storage, identity, kv, world, config)
    await nursery.start(door.run)          keeps the view of bucket names; one Handler per worker process
    await serve(world, listeners, door)

Neighbours: tools.deploy composes; swift.app and s3.app answer.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import trio

from identity.client.interface import Identity
from proxy.gates.access import AccessGate
from proxy.gates.limits import Limits
from proxy.gates.memory import MemoryBudget
from proxy.large.reader import ManifestReader
from proxy.large.sweeper import PartsSweeper
from proxy.large.uploads import UploadVerbs
from proxy.operations.books import BookVerbs
from proxy.operations.buckets import BucketClaims
from proxy.operations.objects import ObjectVerbs
from proxy.pipeline import Pipeline
from proxy.s3.app import S3App
from proxy.s3.auth import S3Auth
from proxy.s3.call import Door
from proxy.swift import errors as swift_errors
from proxy.swift.app import SwiftApp
from proxy.swift.info import health, info
from ring.kv.interface import KV
from ring.wire.message import Request, Response
from ring.world.interface import World
from storage.client.interface import Storage

_SWIFT_PATHS = frozenset(("v1", "auth", "info", "healthcheck", "endpoints"))
_S3_QUERY = ("X-Amz-Algorithm=", "X-Amz-Signature=", "AWSAccessKeyId=")


@dataclass(frozen=True, slots=True)
class FrontDoorConfig:
    limits: Limits = field(default_factory=Limits)
    memory_bytes: int = 256 << 20  # of body buffers, for the process
    s3_hosts: tuple[str, ...] = ()  # domains below which Host may name a bucket
    s3_region: str = "us-east-1"
    policies: tuple[str, ...] = ("Policy-0",)  # names of storage policies, by number
    default_policy: int = 0  # of containers and buckets that name none


class FrontDoor:
    """A Handler.  ``sweeper`` is a Worker that one process of the cloud runs."""

    def __init__(self, storage: Storage, identity: Identity, kv: KV, world: World, config: FrontDoorConfig) -> None:
        clock, limits = world.clock, config.limits
        self.claims = BucketClaims(kv)
        self.sweeper = PartsSweeper(storage, kv, clock, world.entropy)
        pipeline = Pipeline(identity, limits, AccessGate(storage), MemoryBudget(config.memory_bytes))
        objects = ObjectVerbs(storage, clock, ManifestReader(storage), object_bytes_max=limits.object_bytes_max)
        books = BookVerbs(storage, default_policy=config.default_policy)
        uploads = UploadVerbs(storage, objects, kv, clock, world.entropy, limits)
        door = Door(pipeline, objects, books, uploads, self.claims, clock, config.s3_region)
        self._s3 = S3App(door, S3Auth(identity, clock), hosts=config.s3_hosts)
        self._swift = SwiftApp(pipeline, objects, books, clock, policies=config.policies)
        self._config = config

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep the view of bucket names; started when it is complete."""
        await self.claims.view.run(task_status=task_status)

    async def __call__(self, request: Request) -> Response:
        if self._is_s3(request):
            return await self._s3(request)
        head = request.raw_path.split("/", 2)[1]
        if head == "v1":
            return await self._swift(request)
        if request.method in ("GET", "HEAD"):
            if request.raw_path == "/info":
                return info(self._config.limits, self._config.policies, self._config.default_policy)
            if request.raw_path == "/healthcheck":
                return health()
        return swift_errors.page(404)

    def _is_s3(self, request: Request) -> bool:
        target = request.target
        if not target.startswith("/"):
            return False
        if request.headers.get("authorization").startswith("AWS") or self._s3.host_bucket(request.headers):
            return True
        path, _, query = target.partition("?")
        if path.split("/", 2)[1] not in _SWIFT_PATHS:
            return True
        return bool(query) and any(part.startswith(_S3_QUERY) for part in query.split("&"))


def make_app(storage: Storage, identity: Identity, kv: KV, world: World, config: FrontDoorConfig | None = None) -> FrontDoor:
    return FrontDoor(storage, identity, kv, world, config or FrontDoorConfig())
