"""The aws-chunked coding: a body in chunks, each with its signature or with none, and a trailer of checksums.

    SIZE;chunk-signature=HEX CRLF data CRLF ... 0;chunk-signature=HEX CRLF [name:value CRLF ...] CRLF

The body may be trusted only as far as it was checked, so its end is read, and every signature and checksum judged, before its last
bytes are handed on.  An input that ends early is an error wherever it ends.
Source: "Signature Calculations for the Authorization Header: Transferring Payload in Multiple Chunks", and "... Including Trailing
Headers", S3 API reference.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence

from proxy.errors import BadRequest
from proxy.s3.checksums import PREFIX, Check, parse_value, update
from proxy.s3.sigv4 import ChunkChain
from ring.wire.message import BodyBroken
from storage.client.interface import BodySource

_LINE_BYTES_MAX = 4096
_TRAILER_LINES_MAX = 16
_HEAD = re.compile(rb"([0-9a-fA-F]{1,16})(?:;chunk-signature=([0-9a-f]{64}))?")
_SIGNATURE = "x-amz-trailer-signature"


class AwsChunkedBody:
    """The decoded body.  ``chain`` None: chunks are not signed.  ``trailer``: the names that x-amz-trailer announces, of which the
    checksums must be there and hold."""

    def __init__(
        self,
        body: BodySource,
        decoded_length: int,
        chain: ChunkChain | None,
        *,
        trailer: Sequence[str] = (),
        checks: Sequence[Check] = (),
    ) -> None:
        self.length: int | None = decoded_length
        self.trailer: dict[str, str] = {}  # as received, once the body is over
        self.tell: Callable[[str, str], None] = lambda algorithm, value: None  # of a trailer's checksum that holds
        self._body = body
        self._chain = chain
        self._announced = tuple(trailer)
        self._late = [Check(name.removeprefix(PREFIX), None) for name in trailer if name.startswith(PREFIX)]
        self._checks = [*checks, *self._late]
        self._buffer = b""
        self._left = decoded_length  # of the body
        self._chunk_left = 0
        self._chunk_hash = hashlib.sha256()
        self._chunk_signature = ""
        self._ended = False

    async def read(self, max_bytes: int = 1 << 20) -> bytes:
        if self._ended:
            return b""
        if self._chunk_left == 0 and not await self._next_chunk():
            return b""
        data = await self._take(min(max_bytes, self._chunk_left))
        self._chunk_left -= len(data)
        self._left -= len(data)
        if self._chain is not None:
            self._chunk_hash.update(data)
        await update(self._checks, data)
        if self._chunk_left == 0:
            await self._end_chunk()
            if self._left == 0:
                await self._next_chunk()
        return data

    async def _next_chunk(self) -> bool:
        """Read a chunk's head.  False: it is the last one's, and the trailer has been read and the whole judged."""
        match = _HEAD.fullmatch(await self._line())
        if match is None or (self._chain is not None and match[2] is None):
            raise _incomplete("a chunk's head is malformed")
        self._chunk_left = int(match[1], 16)
        self._chunk_signature = (match[2] or b"").decode()
        self._chunk_hash = hashlib.sha256()
        if self._chunk_left > self._left:
            raise _incomplete("the chunks hold more than x-amz-decoded-content-length")
        if self._chunk_left == 0:
            if self._left:
                raise _incomplete("the chunks hold less than x-amz-decoded-content-length")
            if self._chain is not None:
                self._chain.check_chunk(self._chunk_signature, self._chunk_hash.hexdigest())
            await self._read_trailer()
            for check in self._checks:
                check.verify()
            for check in self._late:
                self.tell(check.algorithm, self.trailer[PREFIX + check.algorithm])
            self._ended = True
        return not self._ended

    async def _end_chunk(self) -> None:
        if await self._line():
            raise _incomplete("a chunk is longer than its head says")
        if self._chain is not None:
            self._chain.check_chunk(self._chunk_signature, self._chunk_hash.hexdigest())

    async def _read_trailer(self) -> None:
        signed = bytearray()
        for _ in range(_TRAILER_LINES_MAX):
            line = (await self._line()).decode("latin-1")
            if not line:
                break
            name, colon, value = line.partition(":")
            name = name.strip().lower()
            if not colon:
                raise _malformed_trailer()
            self.trailer[name] = value.strip()
            if name != _SIGNATURE:
                signed += f"{name}:{value.strip()}\n".encode("latin-1")
        else:
            raise _malformed_trailer()
        if self._chain is not None and self._announced:
            self._chain.check_trailer(self.trailer.get(_SIGNATURE, ""), bytes(signed))
        for check in self._late:
            late = self.trailer.get(PREFIX + check.algorithm)
            if late is None:
                raise _malformed_trailer()
            check.expected = parse_value(check.algorithm, late)

    async def _line(self) -> bytes:
        """Up to CRLF, which is left off."""
        while (end := self._buffer.find(b"\r\n")) < 0:
            if len(self._buffer) > _LINE_BYTES_MAX:
                raise _incomplete("a line of the chunked body is too long")
            data = await self._body.read(_LINE_BYTES_MAX)
            if not data:
                raise _incomplete("the body ended within its chunks")
            self._buffer += data
        line, self._buffer = self._buffer[:end], self._buffer[end + 2 :]
        return line

    async def _take(self, max_bytes: int) -> bytes:
        if self._buffer:
            data = self._buffer[:max_bytes]
            self._buffer = self._buffer[len(data) :]
            return data
        data = await self._body.read(max_bytes)
        if not data:
            raise _incomplete("the body ended within a chunk")
        return data


def _incomplete(message: str) -> BodyBroken:
    return BodyBroken(f"You did not provide the number of bytes specified by the Content-Length HTTP header: {message}")


def _malformed_trailer() -> BadRequest:
    return BadRequest(
        "The request contained trailing data that was not well-formed or did not conform to our published schema.",
        code="MalformedTrailerError",
    )
