"""A front door over fakes, spoken to in process: no sockets, no wall clock."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ring.wire.message import BytesBody, Handler, Headers, Request, Response
from storage.client.bodies import drained

NOW = 1_700_000_000.0


class StillClock:
    def __init__(self) -> None:
        self.seconds = NOW

    def now(self) -> float:
        return self.seconds


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
