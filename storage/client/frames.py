"""Frames over a stream: the edge of the node protocol that both ends share.  Reads exact frames, sends whole ones.

Neighbours: protocol (their meaning), server and peer.
"""

from __future__ import annotations

import trio

from ring.errors import FormatError, Unavailable
from ring.world.interface import Buffer, Stream
from storage.client.protocol import HEAD, FrameType, check_payload, decode_head

_RECEIVE_BYTES = 1 << 18


class Frames:
    """``payload_bytes_max`` guards memory against what a peer announces."""

    def __init__(self, stream: Stream, *, payload_bytes_max: int) -> None:
        self.stream = stream
        self.payload_bytes_max = payload_bytes_max
        self.peer_minor = 0  # version of the protocol, as it stated
        self._buffer = bytearray()

    async def send(self, data: Buffer) -> None:
        """Raises Unavailable when the connection is lost."""
        try:
            await self.stream.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise Unavailable("the connection to the node is lost") from error

    async def head(self) -> tuple[FrameType, int, int] | None:
        """The next frame's type, length and checksum; None at the end of the stream.  FormatError, Unavailable."""
        while len(self._buffer) < HEAD.size:
            if not await self._receive():
                if self._buffer:
                    raise Unavailable("the connection to the node ended in the middle of a frame")
                return None
        kind, length, checksum = decode_head(self._buffer[: HEAD.size])
        del self._buffer[: HEAD.size]
        return kind, length, checksum

    async def some(self, max_bytes: int) -> bytes:
        """Some of the payload, 1 to ``max_bytes`` bytes."""
        if not self._buffer and not await self._receive():
            raise Unavailable("the connection to the node ended in the middle of a frame")
        if len(self._buffer) <= max_bytes:
            data, self._buffer = bytes(self._buffer), bytearray()
            return data
        data = bytes(memoryview(self._buffer)[:max_bytes])
        del self._buffer[:max_bytes]
        return data

    async def payload(self, length: int, checksum: int) -> bytes:
        if length > self.payload_bytes_max:
            raise FormatError(f"a frame of {length} bytes, more than {self.payload_bytes_max}")
        while len(self._buffer) < length:
            if not await self._receive():
                raise Unavailable("the connection to the node ended in the middle of a frame")
        if len(self._buffer) == length:
            data, self._buffer = bytes(self._buffer), bytearray()
        else:
            data = bytes(memoryview(self._buffer)[:length])
            del self._buffer[:length]
        check_payload(data, checksum)
        return data

    async def next(self) -> tuple[FrameType, bytes] | None:
        """The next whole frame; None at the end of the stream."""
        head = await self.head()
        if head is None:
            return None
        kind, length, checksum = head
        return kind, await self.payload(length, checksum)

    async def expect(self, *kinds: FrameType) -> tuple[FrameType, bytes]:
        """The next frame, of one of these types.  Unavailable when the peer closed instead; FormatError."""
        frame = await self.next()
        if frame is None:
            raise Unavailable("the node closed the connection")
        if frame[0] not in kinds:
            raise FormatError(f"a frame of type {frame[0].name} where it does not belong")
        return frame

    async def aclose(self) -> None:
        await self.stream.aclose()

    async def _receive(self) -> bool:
        try:
            data = await self.stream.receive_some(_RECEIVE_BYTES)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise Unavailable("the connection to the node is lost") from error
        self._buffer += data
        return bool(data)
