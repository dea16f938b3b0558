"""Bytes of images: whole or not there, immutable, and kept while a volume reads from them."""

from __future__ import annotations

import hashlib
from random import Random

import pytest
import trio

from blockgw.images.store import ACCOUNT, MANIFESTS, PART_BYTES, USES
from ring.errors import BadInput, Conflict, NotFound, Unavailable
from ring.kv.interface import Delete, Operation, Outcome, Unchanged
from ring.kv.memory import MemoryKV
from ring.names import Path
from ring.wire.message import BodyBroken, BytesBody
from storage.client.bodies import drained
from storage.client.errors import ContainerNotFound, ObjectNotFound
from tests.blockgw.ground import BrokenBody, Ground

IMAGE = "11111111-2222-4333-8444-555555555555"
CONTAINER = Path(ACCOUNT, IMAGE)
DATA = Random(1).randbytes(2 * PART_BYTES + 12_345)


@pytest.fixture
def ground(autojump_clock: trio.testing.MockClock) -> Ground:
    return Ground()


async def test_store_and_what_it_says(ground: Ground, autojump_clock: trio.testing.MockClock) -> None:
    steps: list[tuple[int, int | None]] = []
    data = await ground.images.store(IMAGE, BytesBody(DATA), progress=lambda done, total: steps.append((done, total)))
    assert (data.size, data.virtual_size, data.disk_format) == (len(DATA), len(DATA), "raw")
    assert data.md5 == hashlib.md5(DATA).hexdigest() and data.sha512 == hashlib.sha512(DATA).hexdigest()
    assert steps == [(done, len(DATA)) for done in (PART_BYTES, 2 * PART_BYTES, len(DATA))]
    assert await ground.images.data(IMAGE) == data
    assert len(await ground.names(CONTAINER)) == 3


@pytest.mark.parametrize(
    "offset, length",
    [
        (0, None),
        (0, 1),
        (PART_BYTES - 1, 2),
        (PART_BYTES, PART_BYTES),
        (5, 2 * PART_BYTES),
        (len(DATA) - 1, 100),
        (len(DATA), None),
        (len(DATA) + 1, 5),
    ],
)
async def test_reads_by_range(ground: Ground, offset: int, length: int | None, autojump_clock: trio.testing.MockClock) -> None:
    await ground.images.store(IMAGE, BytesBody(DATA))
    found = await drained(await ground.images.read(IMAGE, offset=offset, length=length))
    assert found == DATA[offset : None if length is None else offset + length]


async def test_an_empty_image(ground: Ground, autojump_clock: trio.testing.MockClock) -> None:
    assert (await ground.images.store(IMAGE, BytesBody(b""))).size == 0
    assert await drained(await ground.images.read(IMAGE)) == b""


async def test_a_second_store_is_refused_and_changes_nothing(ground: Ground, autojump_clock: trio.testing.MockClock) -> None:
    await ground.images.store(IMAGE, BytesBody(b"first"))
    with pytest.raises(Conflict):
        await ground.images.store(IMAGE, BytesBody(b"second"))
    assert await drained(await ground.images.read(IMAGE)) == b"first"
    assert len(await ground.names(CONTAINER)) == 1


async def test_of_two_stores_at_once_one_wins(ground: Ground, autojump_clock: trio.testing.MockClock) -> None:
    outcomes: list[str] = []

    async def store(data: bytes) -> None:
        try:
            await ground.images.store(IMAGE, BytesBody(data))
            outcomes.append(data.decode())
        except Conflict:
            outcomes.append("conflict")

    async with trio.open_nursery() as nursery:
        for data in (b"a", b"b"):
            nursery.start_soon(store, data)
    assert "conflict" in outcomes
    [winner] = [one for one in outcomes if one != "conflict"]
    assert await drained(await ground.images.read(IMAGE)) == winner.encode()
    assert len(await ground.names(CONTAINER)) == 1


@pytest.mark.parametrize(
    "body, error",
    [
        (BrokenBody(DATA[: PART_BYTES + 7], BodyBroken("the client went away")), BodyBroken),
        (BrokenBody(b"", BodyBroken("at once")), BodyBroken),
    ],
)
async def test_a_body_that_breaks_leaves_nothing(
    ground: Ground, body: BrokenBody, error: type[Exception], autojump_clock: trio.testing.MockClock
) -> None:
    with pytest.raises(error):
        await ground.images.store(IMAGE, body)
    assert await ground.names(CONTAINER) == []
    with pytest.raises(NotFound):
        await ground.images.data(IMAGE)
    await ground.images.store(IMAGE, BytesBody(DATA))  # and the next try does
    assert await drained(await ground.images.read(IMAGE)) == DATA


async def test_a_body_shorter_than_it_said_leaves_nothing(ground: Ground, autojump_clock: trio.testing.MockClock) -> None:
    body = BytesBody(DATA)
    body.length = len(DATA) + 1
    with pytest.raises(BadInput):
        await ground.images.store(IMAGE, body)
    assert await ground.names(CONTAINER) == []


async def test_a_refused_format_leaves_nothing(ground: Ground, autojump_clock: trio.testing.MockClock) -> None:
    with pytest.raises(BadInput):
        await ground.images.store(IMAGE, BytesBody(b"QFI\xfb" + b"\1" * 100))
    assert await ground.names(CONTAINER) == []


@pytest.mark.parametrize("calls", [1, 2, 3, 4])
async def test_storage_that_fails_in_the_middle_leaves_nothing_that_counts(
    ground: Ground, calls: int, autojump_clock: trio.testing.MockClock
) -> None:
    class FailsOnce(BytesBody):
        reads = 0

        async def read(self, max_bytes: int = 1 << 20) -> bytes:
            self.reads += 1
            if self.reads == calls:
                ground.storage.fail_next = [Unavailable("no quorum")]
            return await super().read(max_bytes)

    with pytest.raises(Unavailable):
        await ground.images.store(IMAGE, FailsOnce(DATA + DATA))
    with pytest.raises(NotFound):
        await ground.images.read(IMAGE)
    await ground.images.store(IMAGE, BytesBody(b"again"))
    assert await drained(await ground.images.read(IMAGE)) == b"again"
    await ground.images.delete(IMAGE)
    assert await ground.names(CONTAINER) == []


async def test_cancelled_in_the_middle_leaves_nothing(ground: Ground, autojump_clock: trio.testing.MockClock) -> None:
    class Slow(BytesBody):
        async def read(self, max_bytes: int = 1 << 20) -> bytes:
            await trio.sleep(1)
            return await super().read(1 << 20)

    with trio.move_on_after(6.5) as scope:
        await ground.images.store(IMAGE, Slow(DATA))
    assert scope.cancelled_caught
    assert await ground.names(CONTAINER) == []


class UncertainKV(MemoryKV):
    """Does what it is told, and loses the answer of the next transaction."""

    lose_next = False

    async def transact(self, compares: list[Unchanged], operations: list[Operation]) -> Outcome:  # type: ignore[override]  # narrower
        outcome = await super().transact(compares, operations)
        if self.lose_next:
            self.lose_next = False
            raise Unavailable("the answer was lost")
        return outcome


async def test_a_lost_answer_never_costs_the_parts_of_a_published_image(autojump_clock: trio.testing.MockClock) -> None:
    kv = UncertainKV()
    ground = Ground(kv=kv)
    kv.lose_next = True
    with pytest.raises(Unavailable):
        await ground.images.store(IMAGE, BytesBody(DATA))
    assert await drained(await ground.images.read(IMAGE)) == DATA


async def test_copy_of_an_object(ground: Ground, autojump_clock: trio.testing.MockClock) -> None:
    await ground.put(Path("AUTH_p1", "disks", "one.img"), DATA)
    data = await ground.images.copy(IMAGE, Path("AUTH_p1", "disks", "one.img"))
    assert data.md5 == hashlib.md5(DATA).hexdigest()
    await ground.storage.delete_object(Path("AUTH_p1", "disks", "one.img"))
    assert await drained(await ground.images.read(IMAGE)) == DATA
    with pytest.raises(ObjectNotFound):
        await ground.images.copy("other", Path("AUTH_p1", "disks", "one.img"))


async def test_delete_removes_all_and_may_be_repeated(ground: Ground, autojump_clock: trio.testing.MockClock) -> None:
    await ground.images.store(IMAGE, BytesBody(DATA))
    await ground.images.delete(IMAGE)
    await ground.images.delete(IMAGE)
    with pytest.raises(ContainerNotFound):
        await ground.storage.head_container(CONTAINER)
    for call in (ground.images.data, ground.images.read, ground.images.base):
        with pytest.raises(NotFound):
            await call(IMAGE)


async def test_delete_is_refused_while_a_volume_reads_from_it(ground: Ground, autojump_clock: trio.testing.MockClock) -> None:
    await ground.images.store(IMAGE, BytesBody(DATA))
    compares, operations, needed = await ground.images.use(IMAGE, "v1")
    assert needed == len(DATA)
    assert (await ground.kv.transact(compares, operations)).succeeded
    with pytest.raises(Conflict, match="in use"):
        await ground.images.delete(IMAGE)
    assert await drained(await ground.images.read(IMAGE)) == DATA
    await ground.kv.transact([], [Delete(f"{USES}{IMAGE}/v1")])
    await ground.images.delete(IMAGE)


@pytest.mark.parametrize("first", ["use", "delete"])
async def test_a_volume_from_an_image_that_is_being_deleted(
    ground: Ground, first: str, autojump_clock: trio.testing.MockClock
) -> None:
    """Whichever transaction comes first, the other one sees it."""
    await ground.images.store(IMAGE, BytesBody(b"disk"))
    compares, operations, _ = await ground.images.use(IMAGE, "v1")
    if first == "use":
        assert (await ground.kv.transact(compares, operations)).succeeded
        with pytest.raises(Conflict):
            await ground.images.delete(IMAGE)
    else:
        await ground.images.delete(IMAGE)
        assert not (await ground.kv.transact(compares, operations)).succeeded
        assert await ground.kv.range(USES) == [] and await ground.kv.get(MANIFESTS + IMAGE) is None


@pytest.mark.parametrize("seed", range(20))
async def test_race_of_use_and_delete(ground: Ground, seed: int, autojump_clock: trio.testing.MockClock) -> None:
    rng = Random(seed)
    await ground.images.store(IMAGE, BytesBody(b"disk"))
    used: list[str] = []

    async def use(volume_id: str) -> None:
        for _ in range(rng.randrange(6)):
            await trio.lowlevel.checkpoint()
        for _ in range(5):
            try:
                compares, operations, _ = await ground.images.use(IMAGE, volume_id)
            except NotFound:
                return
            if (await ground.kv.transact(compares, operations)).succeeded:
                used.append(volume_id)
                return

    async def delete() -> None:
        for _ in range(rng.randrange(12)):
            await trio.lowlevel.checkpoint()
        try:
            await ground.images.delete(IMAGE)
        except Conflict:
            return

    async with trio.open_nursery() as nursery:
        for number in range(3):
            nursery.start_soon(use, f"v{number}")
        nursery.start_soon(delete)
    if used:
        assert await drained(await ground.images.read(IMAGE)) == b"disk", f"seed {seed}"
    else:
        assert await ground.kv.get(MANIFESTS + IMAGE) is None and not await ground.names(CONTAINER), f"seed {seed}"


async def test_a_base_is_the_parts_in_order(ground: Ground, autojump_clock: trio.testing.MockClock) -> None:
    await ground.images.store(IMAGE, BytesBody(DATA))
    base = await ground.images.base(IMAGE)
    assert (base.size, base.part_bytes) == (len(DATA), PART_BYTES)
    parts = [(await ground.storage.get_object(path)).pieces for path in base.parts]
    assert b"".join([await drained(part) for part in parts]) == DATA


async def test_only_a_raw_disk_becomes_a_volume(ground: Ground, autojump_clock: trio.testing.MockClock) -> None:
    await ground.images.store(IMAGE, BytesBody(b"vhdxfile" + bytes(100)))
    for call in (ground.images.base(IMAGE), ground.images.use(IMAGE, "v")):
        with pytest.raises(BadInput, match="raw"):
            await call
