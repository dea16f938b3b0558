"""One sender for a stream that many tasks have something to say on: what has gathered goes out in one send.

Bounded: a peer that does not read is cut off.
"""

from __future__ import annotations

import trio

from ring.world.interface import Stream

BYTES_MAX = 256 << 20


class Outbox:
    def __init__(self) -> None:
        self._frames: list[bytes] = []
        self._bytes = 0
        self._wake = trio.Event()

    def put(self, frame: bytes) -> None:
        """Never waits.  trio.BrokenResourceError when the peer has let too much gather."""
        self._frames.append(frame)
        self._bytes += len(frame)
        if self._bytes > BYTES_MAX:
            raise trio.BrokenResourceError("the peer does not read")
        self._wake.set()

    async def run(self, stream: Stream) -> None:
        """Send until cancelled.  Raises what the stream raises (trio.BrokenResourceError)."""
        while True:
            await self._wake.wait()
            self._wake = trio.Event()
            frames, self._frames, self._bytes = self._frames, [], 0
            await stream.send_all(frames[0] if len(frames) == 1 else b"".join(frames))
