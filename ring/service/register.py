"""Register: the one order of editions of a cluster, in control state, and what devices say of it.

Compare and set: of two steps that follow the same edition one comes first, and the other is made again above it.  Only steps need
it; reading and writing never do.  Neighbours: edition, agent, ring.kv.

    rings/edition               the newest edition (as in its file)
    rings/confirmed/NAME/ID     the RingId that device ID has confirmed: all that it holds is at that ring's primaries
    rings/clean/NAME/ID         a Report of device ID: up to which time it is clean (horizon.py)
"""

from __future__ import annotations

import msgspec

from ring.kv.interface import KV, Put, Unchanged
from ring.service.edition import Edition, RingId, decode, encode

EDITION = "rings/edition"
CONFIRMED = "rings/confirmed/"
CLEAN = "rings/clean/"


class Report(msgspec.Struct, frozen=True, array_like=True):
    """What one device says of one ring: it is clean up to ``clean`` (ticks) by these rings, and would close at ``proposal``."""

    clean: int
    proposal: int
    newest: RingId
    settled: RingId


class Register:
    """Errors of every call: Unavailable."""

    def __init__(self, kv: KV) -> None:
        self._kv = kv

    async def newest(self) -> Edition | None:
        entry = await self._kv.get(EDITION)
        return None if entry is None else decode(entry.value)

    async def advance(self, old: Edition | None, new: Edition) -> bool:
        """``new`` follows ``old``; False when something else does, and nothing was changed."""
        assert old is None or new.number > old.number, (old, new)
        entry = await self._kv.get(EDITION)
        if (None if entry is None else decode(entry.value)) != old:
            return False
        modified = 0 if entry is None else entry.modified
        outcome = await self._kv.transact([Unchanged(EDITION, modified)], [Put(EDITION, encode(new))])
        return outcome.succeeded

    async def confirm(self, name: str, device_id: int, ring: RingId) -> None:
        await self._kv.transact([], [Put(f"{CONFIRMED}{name}/{device_id}", msgspec.json.encode(ring))])

    async def confirmed(self, name: str, ring: RingId) -> set[int]:
        """The devices that confirmed this ring."""
        prefix = f"{CONFIRMED}{name}/"
        entries = await self._kv.range(prefix)
        return {int(e.key.removeprefix(prefix)) for e in entries if msgspec.json.decode(e.value, type=RingId) == ring}

    async def report(self, name: str, device_id: int, report: Report) -> None:
        await self._kv.transact([], [Put(f"{CLEAN}{name}/{device_id}", msgspec.json.encode(report))])

    async def reports(self, name: str) -> dict[int, Report]:
        """By device."""
        prefix = f"{CLEAN}{name}/"
        entries = await self._kv.range(prefix)
        return {int(e.key.removeprefix(prefix)): msgspec.json.decode(e.value, type=Report) for e in entries}
