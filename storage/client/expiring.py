"""Expiring: delete an object whose X-Delete-At has come, at a majority of its primaries, if it still has that X-Delete-At.

The look is at a majority, so it sees every change of the date that was acknowledged; after the delay that the expirer gives, no
more of them can come (expiry.py has the argument).  The tombstone is an ordinary one, at the time that expiry.py says, and owes its
container a row as any other.  A primary that holds something newer says so, and keeps it; nothing is written again above it.

Neighbours: reading and writing (majorities), expiry (which tombstone), storage.object.expirer (the caller).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress

from ring.names import Path
from ring.service.horizon import Horizon
from ring.timestamp import ZERO, Timestamp
from storage.client.books import BookOperations
from storage.client.errors import ContainerNotFound
from storage.client.expiry import due_of, just_above, tombstone_at
from storage.client.interface import Row
from storage.client.node import Debt, Kind, Node, Version, WriteReply
from storage.client.quorum import Verdict
from storage.client.reach import Outdated, Reach
from storage.client.reading import Finding, find
from storage.client.repair import Repairer
from storage.client.writing import Write, at_once, debts_of


def _open_again(horizon: Horizon) -> Timestamp:
    """The first time at which something may be written; below all that is written by a clock, which is a whole tick later."""
    return Timestamp(horizon.closed, 1) if horizon.closed else ZERO


async def expire(
    reach: Reach,
    books: BookOperations,
    repairer: Repairer,
    policy: int,
    path: Path,
    due: int,
    look: Callable[[], Awaitable[Finding]] | None = None,
) -> bool:
    """True when the object's tombstone is at a majority; False when there is nothing to delete: it is gone, or is to go at another
    time, or not at all.  NoQuorum when a majority cannot be asked or written to."""
    if look is not None:  # of an erasure-coded policy
        found = await look()
    else:
        found = await reach.current(lambda: find(reach, reach.objects(policy, path), path, shown=False))
    if found.stale:
        repairer.request(found.replicas, path)  # one of them is the device that thought it due
    newest = found.data
    if newest is None or due_of(newest.metadata) != due:
        return False
    stamp = newest.timestamp
    at = just_above(stamp) if reach.available(policy) else tombstone_at(due, stamp)
    at = max(at, _open_again(found.replicas.overlap.horizon))
    tombstone = Version(path, at, Kind.TOMBSTONE)
    listed = False
    with suppress(ContainerNotFound):  # then nobody lists it, and nobody would take its row
        await books.container(path.parent)
        listed = True
    row = Row(path.object, tombstone.timestamp, deleted=True)

    async def send(node: Node, debt: Debt | None) -> WriteReply:
        return await node.put_small(tombstone, b"", debt)

    for _ in range(reach.settings.edition_attempts):
        replicas, listed_at = reach.objects(policy, path), books.listed_at(path)
        debts = debts_of(row, path.parent, replicas, listed_at) if listed else [None] * len(replicas.nodes)
        write = Write(reach, replicas, tombstone.timestamp, debts, listed_at)
        match await write.run(at_once(replicas, send), send):
            case Verdict.STORED:
                return True
            case Verdict.SUPERSEDED:
                return False
        short = write.refusal or replicas.short(f"{path}: too few primaries took its deletion")
        if not (isinstance(short, Outdated) and await reach.renew(short.claim)):
            break
    raise short
