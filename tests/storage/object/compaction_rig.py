"""What the tests of compaction share: a compactor that waits for nothing, and an index made anew beside the one that is in use."""

from __future__ import annotations

from ring.names import Span
from ring.world.interface import World
from storage.object.compaction import Compactor
from storage.object.device import TABLE_NAMES
from storage.object.entry import Held
from storage.object.index import Index
from storage.object.scan import Found
from storage.object.segment import LOG_START
from storage.object.segments import Place
from storage.object.store import ObjectStore

SCRATCH = "scratch"
ALL = Span(0, 0)


def compactor(world: World, store: ObjectStore, *, threshold: float = 0.1, headroom_bytes: int = 0) -> Compactor:
    return Compactor(world, store, threshold=threshold, grace_s=0.0, headroom_bytes=headroom_bytes)


async def rebuilt(world: World, store: ObjectStore) -> Index:
    """As a start without tables would make it: from the segments alone."""
    disk = world.open_disk(SCRATCH)
    await disk.make_dirs("")
    tables = await disk.open_tables("tables", TABLE_NAMES)
    index = Index(tables)
    await index.clear()
    async for segment, finding in store.segments.scan(LOG_START):
        if isinstance(finding, Found):  # else what a failed write left behind
            index.land(finding.record, Place(segment.head.sequence, finding.offset, finding.length, finding.meta_length))
    return index


def everything(index: Index) -> dict[bytes, Held]:
    found: dict[bytes, Held] = {}
    start: bytes | None = b""
    while start is not None:
        page, start = index.page(start, None, limit=1000)
        found.update((held.key, held) for held in page)
    return found


def owed(index: Index) -> set[bytes]:
    return {key for key, _ in index.owed(1 << 30)}


async def assert_as_rebuilt(world: World, store: ObjectStore) -> None:
    """An index that is made anew says the same: to the byte when no replaced segment is left, else at least what is held."""
    fresh = await rebuilt(world, store)
    mine, its = everything(store.index), everything(fresh)
    assert mine.keys() == its.keys()
    assert all(mine[key].says(its[key]) and mine[key].digest == its[key].digest for key in mine)
    assert dict(store.index.doubts.within(ALL)) == dict(fresh.doubts.within(ALL))
    for key in owed(store.index):  # it is owed still, or the row of something newer stands for it
        assert any(other[:16] == key[:16] and other <= key for other in owed(fresh))
    if store.segments.replaced:
        return
    assert mine == its
    for name in store.segments.order:
        assert store.index.weights.get(name.sequence) == fresh.weights.get(name.sequence), name


async def amplification(store: ObjectStore) -> float:
    """Bytes on disk for each byte that is alive."""
    sizes = [await store.segments.size(name) for name in store.segments.order]
    return sum(sizes) / max(1, sum(weight.live for _, weight in store.index.weights.all()))
