"""Values are compressed when that pays, come back as they were, and never unpack to more than they are."""

from __future__ import annotations

import random

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from ring.errors import DiskFault
from ring.timestamp import Timestamp
from ring.world.sim import SimWorld
from storage.object.compression import OFFLOAD_BYTES, TRY_BYTES_MIN, compress, compress_apart, decompress, decompress_apart
from storage.object.errors import BadRecord
from storage.object.record import DATA_BYTES_MAX, Record, RecordKind, info_of
from storage.object.store import ObjectStore
from tests.storage.object.object_rig import HASHER, noise, path, prepare, put, put_file, read, serving, version

TEXT = b"The quick brown fox jumps over the lazy dog, and so on. " * 3000


@given(st.integers(0, 40_000), st.integers(0, 10), st.integers(0, 2**32))
def test_round_trip(size: int, noisy: int, seed: int) -> None:
    rng = random.Random(seed)
    data = b"".join(rng.randbytes(50) if rng.randrange(10) < noisy else b"x" * 50 for _ in range(size // 50 + 1))[:size]
    frame = compress(data)
    assert frame == compress_apart(data)
    if frame is not None:
        assert len(frame) <= size - size // 8
        assert decompress(frame, size) == decompress_apart(frame, size) == data


def test_it_is_tried_only_where_it_pays() -> None:
    assert compress(TEXT[: TRY_BYTES_MIN - 1]) is None
    assert compress(TEXT[:TRY_BYTES_MIN]) is not None
    for size in (4096, 100_000):
        assert compress(noise(1, size)) is None
        assert compress(TEXT[:size]) is not None
    assert compress(noise(2, 90_000) + TEXT[:10_000]) is None


def test_a_bomb_is_an_error_and_not_memory() -> None:
    bomb = zstandard.ZstdCompressor().compress(bytes(1 << 30))
    for size in (100, 1 << 30):
        with pytest.raises(BadRecord):
            decompress(bomb, size)
    unsaid = zstandard.ZstdCompressor(write_content_size=False).compress(bytes(1 << 20))
    for size in (0, 100, 1 << 20, DATA_BYTES_MAX + 1):
        with pytest.raises(BadRecord):
            decompress(unsaid, size)
    for rubbish in (b"", b"rubbish", compress(TEXT)[:-3]):  # type: ignore[index]  # it is compressed
        with pytest.raises(BadRecord):
            decompress(rubbish, len(TEXT))


@pytest.mark.parametrize("size", [5000, OFFLOAD_BYTES + 100])
async def test_the_device_stores_less_and_says_the_same(autojump_clock: MockClock, size: int) -> None:
    world = SimWorld(1)
    await prepare(world, "d")
    async with serving(world, "d") as store:
        await put(store, "text", 10, TEXT[:size], owe=True)
        await put(store, "noise", 10, noise(1, size))
        lengths = [_length(store, name) for name in ("text", "noise")]
        assert lengths[0] < size // 2 and lengths[1] > size
        for _ in range(2):
            assert await store.head(path("text")) == version("text", 10, TEXT[:size])
            assert await read(store, "text") == TEXT[:size]
            assert await read(store, "text", 100, 50) == TEXT[100:150]
            assert await read(store, "noise") == noise(1, size)
            await world.open_disk("d").info("packs")
        await put_file(store, "large", 10, TEXT[:size])  # files are sent as they lie: not compressed
        assert await read(store, "large") == TEXT[:size]
    async with serving(world, "d") as store:
        assert await read(store, "text") == TEXT[:size]


async def test_a_frame_that_says_more_than_its_object_is_damage(autojump_clock: MockClock) -> None:
    """Whole checksums and all: as only a bug or an enemy writes it."""
    world = SimWorld(2)
    await prepare(world, "d")
    async with serving(world, "d") as store:
        bomb = zstandard.ZstdCompressor().compress(bytes(50 << 20))
        new = version("a", 10, b"x" * 100)
        record = Record(RecordKind.OBJECT_INLINE, HASHER.hash(path("a")), Timestamp(10), info_of(new, None), bomb, zstd=True)
        await store.packs.submit(record).wait()
        with pytest.raises(DiskFault, match="another size"):
            await read(store, "a")


def _length(store: ObjectStore, name: str) -> int:
    held = store.index.newest(HASHER.hash(path(name)))
    assert held is not None
    return held.entry.place.length
