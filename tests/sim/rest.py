"""After the faults: what must become true again, in bounded virtual time, and what must be readable then.

replace_disks   the operator formats what has no label any more
converge        every device serves, rings are settled, replicas have equal roots, no row is owed, totals are exact
alive           every request succeeds again, at every front door
final_reads     every name at every front door, and the listings against them
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

import trio

from ring.errors import FormatError, RingfortError
from ring.names import Path, Span
from ring.service.keeper import Keeper
from ring.service.register import Register
from storage.client.node import Kind
from storage.container.shards import is_shards_account
from storage.object.device import LABEL_PATH, Label
from storage.rows.books import Books
from tests.sim import checkers
from tests.sim.cluster import Cluster, Member
from tests.sim.coded import RING, left_staged, misplaced
from tests.sim.door import ACCOUNT
from tests.sim.history import Operation, Outcome
from tests.sim.workload import CONTAINERS, Workload

CONVERGE_S = 600.0
LOOK_EVERY_S = 10.0
ALIVE = "c0/alive"
TRIES = 3
FORGET_S = 150.0
FORGET_LOOK_S = 5.0
EVERYTHING = Span(0, 0)


async def replace_disks(cluster: Cluster) -> None:
    for member in cluster.members:
        await _up(member)
        if not await _has_label(member):
            cluster.simulation.trace(f"{member.name} gets a new disk")
            if member.local is not None:  # it serves what it has, until it starts again
                member.crash(power=True, silent=False)
            member.exchange_disk()
            member.start()
            await _up(member)
            await member.install()


async def _up(member: Member) -> None:
    while not member.node.up:
        await trio.sleep(1)


async def _has_label(member: Member) -> bool:
    """Also when it is another device's: that one is to be looked for, and not to be formatted."""
    if member.medium.root is None:
        return True
    made = f"{RING}.made" in member.medium.root.entries
    try:
        for path in (LABEL_PATH, f"{RING}/{LABEL_PATH}") if made else (LABEL_PATH,):
            Label.decode(bytes(member.medium.file(path).durable))
    except (FileNotFoundError, FormatError):
        return False
    return True


async def converge(cluster: Cluster, workload: Workload | None = None) -> list[str]:
    """Wait until all replicas agree (and ``workload`` sees exact totals), at most CONVERGE_S."""
    deadline = trio.current_time() + CONVERGE_S
    while True:
        found = await _differences(cluster)
        if not found and workload is not None:
            found = await _totals(cluster, workload)
        if not found:
            cluster.simulation.trace("---- converged")
            return []
        if trio.current_time() > deadline:
            return [f"not converged {CONVERGE_S:.0f} s after the last fault:", *found]
        await trio.sleep(LOOK_EVERY_S)


async def _differences(cluster: Cluster) -> list[str]:
    try:
        newest = await Register(cluster.kv).newest()
    except RingfortError as error:
        return [f"control state: {error}"]
    found = [f"{m.name} does not serve" for m in cluster.members if m.keeper is None or (m.local is None and not m.lost)]
    found += [f"{m.name} is not refilled" for m in cluster.members if m.trust is not None and m.trust.waits]
    found += [f"{m.name} is not audited" for m in cluster.members if m.audit.is_set() and not m.audited.is_set()]
    found += [f"{m.name} has another edition" for m in cluster.members if m.keeper is not None and m.keeper.edition != newest]
    if newest is not None:
        found += [f"ring {name} is not settled" for name, ring in newest.rings.items() if ring.newest != ring.settled]
    keeper = cluster.members[0].keeper
    if found or keeper is None:
        return found
    roots: dict[tuple[str, int], dict[str, bytes]] = {}
    for member in cluster.members:
        store, books = member.store, member.books
        if member.lost:
            continue
        if store is None or books is None:
            return [f"{member.name} does not serve"]
        try:
            stores = {"object": store, RING: member.coded}
            for one in stores.values():
                if one is not None and (owed := one.unpaid(10)):
                    found.append(f"{member.name} owes {owed}")
            if member.coded is not None:
                found += [f"{member.name} has staged: {one}" for one in await left_staged(member.coded)]
            for kind, overlap in keeper.overlaps.items():
                for partition in range(overlap.ring.partition_count):
                    span = Span(overlap.ring.part_power, partition)
                    engine = stores.get(kind)
                    held = await (engine.digests(span) if engine is not None else books.digests(kind, span))
                    roots.setdefault((kind, partition), {})[member.name] = held.root
        except RingfortError as error:
            return [f"{member.name}: {error}"]
    for (kind, partition), answers in roots.items():
        primaries = {device.ip for device in keeper.overlaps[kind].ring.primaries(partition)}
        for name, root in answers.items():
            if name not in primaries and any(root):
                found.append(f"{kind} partition {partition}: {name} is no primary and still holds something")
        roots[kind, partition] = {name: root for name, root in answers.items() if name in primaries}
    return found + checkers.replicas_agree(roots) + _misplaced(cluster, keeper)


def _misplaced(cluster: Cluster, keeper: Keeper) -> list[str]:
    """Fragments that are not where they belong."""
    coding = cluster.options.coded
    if coding is None:
        return []
    found, ring = [], keeper.overlaps[RING].ring
    for partition in range(ring.partition_count):
        for place, device in enumerate(ring.primaries(partition)):
            member = cluster.members[device.id]
            if member.coded is not None:
                cut = cluster.options.settings.pack_cut_bytes
                wrong = misplaced(member.coded, Span(ring.part_power, partition), place, coding, cut)
                found += [f"{member.name} has not fragment {place} of {key}" for key in wrong]
    return found


async def _totals(cluster: Cluster, workload: Workload) -> list[str]:
    member = cluster.members[-1]
    totals = await workload.totals(member)
    if totals is None:
        return [f"{member.name} cannot tell the totals at rest"]
    listed: dict[str, dict[str, tuple[int, str]]] = {}
    for container in CONTAINERS:
        found = await workload.listing(member, container)
        if found is None:
            return [f"{ACCOUNT}/{container} cannot be listed at rest by {member.name}"]
        listed[container] = found
    return checkers.totals_are_exact(listed, *totals)


async def forget(cluster: Cluster) -> None:
    """Where tombstones are forgotten: until none is left, or a while has passed.  What is looked at then stands without them."""
    with trio.move_on_after(FORGET_S):
        while True:
            left = [await tombstones(member) for member in cluster.members if member.node.up]
            cluster.simulation.trace(f"---- tombstones: {left}")
            if not any(left):
                return
            await trio.sleep(FORGET_LOOK_S)


async def tombstones(member: Member, *, rows: bool = True) -> int:
    """Of objects and of rows; of a device that does not serve there is one, for all that is known."""
    if member.store is None or member.books is None:
        return 0 if member.lost else 1
    count = await _dead_rows(member.books) if rows else 0
    for store in (member.store, member.coded):
        if store is not None:
            page, _ = store.index.page(b"", None, limit=1000)
            count += sum(held.kind is Kind.TOMBSTONE for held in page)
    return count


async def _dead_rows(books: Books) -> int:
    """But for those of shards that were replaced, which stay."""
    count = 0
    for kind in ("container", "account"):
        for leaf in (await books.digests(kind, EVERYTHING)).leaves:
            for book, _ in await books.leaf(kind, EVERYTHING, leaf):
                header = books.header(book)
                if header is not None and not is_shards_account(header.path):
                    page = await books.rows(header.path, start="", end="", limit=1000, reverse=False)
                    count += 0 if page is None else sum(row.deleted for row in page.rows)
    return count


async def alive(cluster: Cluster, workload: Workload) -> list[str]:
    """Everything works again, for everybody."""
    found = []
    for member in cluster.members:
        for request in (
            partial(workload.put, member, ALIVE, 5000),
            partial(workload.get, member, ALIVE),
            partial(workload.delete, member, ALIVE),
        ):
            operation = await _patiently(request)
            if operation.outcome is not Outcome.ACKED:
                found.append(f"refused at rest: {operation}")
    return found


async def _patiently(request: Callable[[], Awaitable[Operation]]) -> Operation:
    """A machine learns by its next message that a connection is dead which it kept since before the rest."""
    for _ in range(TRIES - 1):
        operation = await request()
        if operation.outcome is Outcome.ACKED:
            return operation
        await trio.sleep(1)
    return await request()


async def final_reads(cluster: Cluster, workload: Workload, *, disks_were_replaced: bool = False) -> list[str]:
    found: list[str] = []
    objects: dict[str, tuple[int, str]] = {}
    unsure: set[str] = set()  # nobody was told that it was written, or deleted, and its row may have been on a disk that is gone
    for name in workload.names:
        for member in cluster.members:
            operation = await _patiently(partial(workload.get, member, name))
            if operation.outcome is not Outcome.ACKED:
                found.append(f"{name} cannot be read at rest: {operation}")
        meta = await workload.head(cluster.members[0], name)
        if meta is not None:
            objects[name] = meta
        if disks_were_replaced and not workload.history.acknowledged(name, operation.value):
            unsure.add(name)
    for member in cluster.members:
        listed: dict[str, tuple[int, str]] = {}
        for container in CONTAINERS:
            page = await workload.listing(member, container)
            if page is None:
                found.append(f"{Path(ACCOUNT, container)} cannot be listed at rest by {member.name}")
            else:
                listed |= page
        found += [wrong for wrong in checkers.listings_equal_objects(listed, objects) if wrong.partition(" ")[0] not in unsure]
    return found
