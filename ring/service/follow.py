"""Follow: fetch a newer edition, and the rings that it names, from a node that has it.

The other end is a RingSource: a node of another process (storage.client.remote), or a Keeper.  A ring file comes in parts of at
most 1 MiB.  What comes is checked as if it came from a stranger: checksum and version of every ring.  Neighbours: keeper, agent.
"""

from __future__ import annotations

import trio

from ring.errors import FormatError, RingfortError, Unavailable
from ring.service.edition import Edition, RingId, decode
from ring.service.keeper import Keeper
from ring.service.overlap import Claim, RingSource

RING_BYTES_MAX = 1 << 30


async def fetch(keeper: Keeper, source: RingSource) -> bool:
    """Adopt the edition of ``source`` when it is newer.  Raises what the source raises, and FormatError."""
    edition = decode(await source.edition_file())
    if edition.number <= keeper.edition.number:
        return False
    return await keeper.adopt(edition, await _files(keeper, source, edition))


async def _files(keeper: Keeper, source: RingSource, edition: Edition) -> dict[tuple[str, int], bytes]:
    return {
        (name, version): await _download(source, name, ring)
        for (name, version), ring in edition.needed.items()
        if not keeper.has(name, ring)
    }


async def _download(source: RingSource, name: str, ring: RingId) -> bytes:
    data = bytearray()
    while part := await source.ring_part(name, ring.version, len(data)):
        data += part
        if len(data) > RING_BYTES_MAX:
            raise FormatError(f"ring {name} has no end")
    if not data:
        raise Unavailable(f"version {ring.version} of ring {name} came without content")
    return bytes(data)


class Renewal:
    """Brings an operation that was refused up to date, from the node that refused it.  Many at once cost one fetch.

    ``reads``: this process does not write the folder; what it is to read there, the machine's agent fetches."""

    def __init__(self, keeper: Keeper, *, reads: bool = False, timeout_s: float = 5.0) -> None:
        self._keeper = keeper
        self._reads = reads
        self._timeout_s = timeout_s
        self._turn = trio.Lock()

    async def __call__(self, claim: Claim) -> bool:
        """True when a newer edition than the claim's is in force here."""
        keeper = self._keeper
        if keeper.edition.number > claim.edition:
            return True
        with trio.move_on_after(self._timeout_s):
            async with self._turn:
                if keeper.edition.number <= claim.edition:
                    await self._bring(claim)
        return keeper.edition.number > claim.edition

    async def _bring(self, claim: Claim) -> None:
        try:
            if self._reads:
                await self._keeper.reload()
            elif claim.source is not None:
                await fetch(self._keeper, claim.source)
        except (RingfortError, OSError):
            pass  # the agent may come to it another way, in the time that is left
        await self._keeper.wait_beyond(claim.edition, self._timeout_s)
