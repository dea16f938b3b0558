"""A front door over fakes, spoken to in process: no sockets, no wall clock."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from proxy.s3 import sigv4
from ring.errors import Unavailable
from ring.names import Path
from ring.wire.message import BytesBody, Handler, Headers, Request, Response
from ring.wire.query import Query
from ring.world.interface import Clock
from storage.client.bodies import drained
from storage.client.fake import FakeStorage
from storage.client.interface import BodySource, NewObject, ObjectMeta, Stored

NOW = 1_700_000_000.0


class StillClock:
    def __init__(self) -> None:
        self.seconds = NOW

    def now(self) -> float:
        return self.seconds


class FaultyStorage(FakeStorage):
    """Of which some calls on some paths never get an answer."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.lost: Callable[[str, Path], bool] = lambda call, path: False

    async def put_object(self, path: Path, new: NewObject, body: BodySource) -> Stored:
        self._maybe_lose("put", path)
        return await super().put_object(path, new, body)

    async def head_object(self, path: Path, *, newest: bool = False) -> ObjectMeta:
        self._maybe_lose("head", path)
        return await super().head_object(path, newest=newest)

    def _maybe_lose(self, call: str, path: Path) -> None:
        if self.lost(call, path):
            raise Unavailable("too few answers")


class ChunkedBody(BytesBody):
    """A body without a Content-Length."""

    def __init__(self, data: bytes = b"") -> None:
        super().__init__(data)
        self.length = None


def make_request(
    method: str, target: str, headers: Mapping[str, str] | None = None, body: bytes = b"", *, chunked: bool = False
) -> Request:
    fields = list((headers or {}).items())
    if not any(name.lower() == "host" for name, _ in fields):
        fields.append(("host", "cloud.example:8080"))
    if chunked:
        fields.append(("transfer-encoding", "chunked"))
    elif (body or method in ("PUT", "POST")) and not any(name.lower() == "content-length" for name, _ in fields):
        fields.append(("content-length", str(len(body))))
    return Request(method, target, Headers(fields), ChunkedBody(body) if chunked else BytesBody(body), trans_id="tx-test")


async def body_of(response: Response) -> bytes:
    return response.body if isinstance(response.body, bytes) else await drained(response.body)


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    def __getitem__(self, name: str) -> str:
        return self.headers[name]


@dataclass
class Client:
    """Speaks to a handler with headers of its own on every request."""

    handler: Handler
    headers: dict[str, str] = field(default_factory=dict)

    async def __call__(
        self, method: str, target: str, headers: Mapping[str, str] | None = None, body: bytes = b"", *, chunked: bool = False
    ) -> Answer:
        request = make_request(method, target, {**self.headers, **(headers or {})}, body, chunked=chunked)
        response = await self.handler(request)
        return Answer(response.status, dict(response.headers.fields), await body_of(response))


@dataclass
class S3Client:
    """Signs with version 4 what it sends to a handler; the payload is not signed unless ``headers`` say how."""

    handler: Handler
    name: str = "ann"
    host: str = "cloud.example:8080"
    seconds: float = NOW

    async def __call__(
        self, method: str, target: str, headers: Mapping[str, str] | None = None, body: bytes = b"", *, chunked: bool = False
    ) -> Answer:
        when = datetime.fromtimestamp(self.seconds, UTC).strftime("%Y%m%dT%H%M%SZ")
        signed = {
            "host": self.host,
            "x-amz-date": when,
            "x-amz-content-sha256": "UNSIGNED-PAYLOAD",
            **{name.lower(): value for name, value in (headers or {}).items()},
        }
        scope = sigv4.Scope(f"key-{self.name}", when[:8], "us-east-1", "s3")
        claim = sigv4.Claim(scope, when, tuple(sorted(signed)), "", signed["x-amz-content-sha256"], presigned=False)
        path, _, query = target.partition("?")
        values = "".join(f"{name}:{signed[name].strip()}\n" for name in claim.signed_headers)
        text = sigv4._string_to_sign(
            claim, method, sigv4.canonical_path(path), sigv4.canonical_query(Query.parse(query).pairs), values
        )
        signature = hmac.digest(sigv4.derive_key(f"secret-{self.name}", scope), text.encode(), "sha256").hex()
        signed["authorization"] = (
            f"AWS4-HMAC-SHA256 Credential=key-{self.name}/{scope.text},SignedHeaders={';'.join(claim.signed_headers)},"
            f"Signature={signature}"
        )
        request = make_request(method, target, signed, body, chunked=chunked)
        response = await self.handler(request)
        return Answer(response.status, dict(response.headers.fields), await body_of(response))
