"""HTTP messages as the rest of Ringfort sees them: Request in, Response out; engines and sockets stay behind.

A handler is ``async (Request) -> Response``.  Bodies are pulled, so memory is bounded by whoever reads.  Header names are lower
case; values are text in latin-1 as on the wire (RFC 9110 section 5.5).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from ring.errors import BadInput
from ring.world.interface import File


class Headers:
    """Header fields in order; names are matched in lower case; a name may occur several times."""

    __slots__ = ("fields",)

    def __init__(self, fields: Iterable[tuple[str, str]] = ()) -> None:
        self.fields: list[tuple[str, str]] = [(name.lower(), value) for name, value in fields]

    def get(self, name: str, default: str = "") -> str:
        """The first value, or ``default``.  ``name`` in lower case."""
        for key, value in self.fields:
            if key == name:
                return value
        return default

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.fields if key == name]

    def add(self, name: str, value: str) -> None:
        self.fields.append((name.lower(), value))

    def replace(self, name: str, value: str) -> None:
        name = name.lower()
        self.fields = [item for item in self.fields if item[0] != name]
        self.fields.append((name, value))

    def __contains__(self, name: str) -> bool:
        return any(key == name for key, _ in self.fields)

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(self.fields)

    def __len__(self) -> int:
        return len(self.fields)

    def __repr__(self) -> str:
        return f"Headers({self.fields!r})"


class BodyTooLarge(BadInput):
    """The body is longer than the reader allows."""


class BodyBroken(BadInput):
    """The peer went away, or its framing was wrong, before the body ended."""


class Body(Protocol):
    """What is still to be read of a message."""

    length: int | None  # Content-Length; None when chunked

    async def read(self, max_bytes: int = 1 << 20) -> bytes:
        """The next 1 to ``max_bytes`` bytes, b"" at the end.  The first call sends "100 Continue" if it was asked for.

        Raises BodyBroken."""

    async def read_all(self, max_bytes: int) -> bytes:
        """The whole body; BodyTooLarge if it is longer."""


class BytesBody:
    """A Body that is at hand: for tests, in-process calls and clients."""

    def __init__(self, data: bytes = b"") -> None:
        self.length: int | None = len(data)
        self._data = data
        self._at = 0

    async def read(self, max_bytes: int = 1 << 20) -> bytes:
        piece = self._data[self._at : self._at + max_bytes]
        self._at += len(piece)
        return piece

    async def read_all(self, max_bytes: int) -> bytes:
        if len(self._data) - self._at > max_bytes:
            raise BodyTooLarge(f"the body is longer than {max_bytes} bytes")
        return await self.read(len(self._data))


@dataclass(slots=True)
class Request:
    method: str
    target: str  # as received: percent-encoded path and "?query"
    headers: Headers
    body: Body
    peer: str = ""  # the client's address, for logs
    trans_id: str = ""  # set by the server: X-Trans-Id, x-amz-request-id, X-Openstack-Request-Id
    params: dict[str, str] = field(default_factory=dict)  # filled by the router: path parameters, percent-decoded
    context: object | None = None  # a gate's finding (identity.client.Access for the control APIs)

    @property
    def raw_path(self) -> str:
        """The path, still percent-encoded."""
        return self.target.partition("?")[0]

    @property
    def query_string(self) -> str:
        return self.target.partition("?")[2]


@dataclass(frozen=True, slots=True)
class FileSlice:
    """Part of a file, to be sent by sendfile where possible.  The one who made it closes the file."""

    file: File
    offset: int
    length: int


Piece = bytes | FileSlice


@dataclass(slots=True)
class Response:
    """``body`` as bytes is sent with the head in one send.  An iterator is sent piece by piece; with ``length`` None it goes
    chunked; the server closes it (``aclose``) whatever happens.  An iterator that fails after the head breaks the connection,
    so that the client sees a short body and not a wrong one."""

    status: int
    headers: Headers = field(default_factory=Headers)
    body: bytes | AsyncIterator[Piece] = b""
    length: int | None = None  # of an iterator's body, or what a HEAD would have sent


Handler = Callable[[Request], Awaitable[Response]]
