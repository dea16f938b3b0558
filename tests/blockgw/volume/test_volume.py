"""Volumes on a simulated machine: what flush acknowledged survives power loss, and one writer at a time."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from uuid import UUID

import pytest
import trio

from blockgw.client.owner import Owner
from blockgw.volume.blocks import BlockReader
from blockgw.volume.layers import Base
from blockgw.volume.register import RegisterKeeper, claim
from blockgw.volume.volume import ACCOUNT, Volume
from ring.errors import Conflict, DiskFault, RingfortError, Unavailable
from ring.kv.memory import MemoryKV
from ring.names import Path
from ring.wire.message import BytesBody
from ring.world.interface import Disk, OpenMode
from ring.world.sim import Simulation
from storage.client.fake import FakeStorage
from storage.client.interface import NewObject

VOLUME = UUID("11111111-2222-4333-8444-555555555555")
SIZE = 1 << 20
BLOCK = 512


class Machine:
    """Two log devices, storage that outlives the machine, kv."""

    def __init__(self, seed: int) -> None:
        self.simulation = Simulation(seed)
        self.node = self.simulation.node("gateway")
        self.storage = FakeStorage(self.node.world.clock)
        self.kv = MemoryKV()
        self.base: Base | None = None
        for root in ("/d0", "/d1", "/d2"):
            self.node.disk(root).empty()

    def disks(self) -> Sequence[Disk]:
        return [self.node.world.open_disk(root) for root in ("/d0", "/d1", "/d2")]

    async def create(self) -> None:
        await self.storage.put_container(Path(ACCOUNT, str(VOLUME)), {})
        await self.kv.transact([], [RegisterKeeper.create(str(VOLUME))])

    async def open(self) -> Volume:
        return await Volume.open(
            VOLUME,
            SIZE,
            storage=self.storage,
            reader=BlockReader(self.storage),
            keeper=RegisterKeeper(self.kv, str(VOLUME)),
            disks=self.disks(),
            base=self.base,
        )


async def test_reads_see_writes_discards_and_the_base(autojump_clock: trio.testing.MockClock) -> None:
    machine = Machine(1)
    await machine.create()
    await machine.storage.put_container(Path("img", "c"), {})
    image = Random(1).randbytes(3 * 4096)
    for number in range(3):
        part = image[number * 4096 : (number + 1) * 4096]
        await machine.storage.put_object(Path("img", "c", f"p{number}"), NewObject(), BytesBody(part))
    machine.base = Base([Path("img", "c", f"p{n}") for n in range(3)], 4096, len(image) - 1024)
    volume = await machine.open()
    assert await volume.read(0, 16384) == image[:-1024] + bytes(16384 - len(image) + 1024)
    assert volume.read_now(4096, 512) == image[4096:4608]
    await volume.write(4096, b"x" * 512)
    await volume.discard(0, 1024)
    wanted = bytearray(image[:-1024])
    wanted[4096:4608] = b"x" * 512
    wanted[:1024] = bytes(1024)
    assert await volume.read(0, len(wanted)) == wanted
    await volume.close()
    again = await machine.open()
    assert await again.read(0, len(wanted)) == wanted


@pytest.mark.parametrize("seed", range(25))
async def test_flushed_writes_survive_power_loss(seed: int, autojump_clock: trio.testing.MockClock) -> None:
    """After every crash the volume is some prefix of the writes that is at least the last acknowledged flush."""
    machine = Machine(seed)
    rng = Random(seed)
    await machine.create()
    history = [bytes(SIZE)]  # the volume after each write
    flushed = 0
    for _ in range(4):
        volume = await machine.open()
        now = await volume.read(0, SIZE)
        assert now in history[flushed:], f"seed {seed}: not a prefix, or older than the last flush"
        flushed = history.index(now, flushed)
        history, flushed = [now], 0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(volume.run)
            for _ in range(rng.randrange(1, 25)):
                match rng.randrange(8):
                    case 0 | 1:
                        await volume.flush()
                        flushed = len(history) - 1
                    case 2:
                        await trio.sleep(rng.random() * 4)
                    case 3:
                        offset, length = _range(rng)
                        await volume.discard(offset, length)
                        history.append(history[-1][:offset] + bytes(length) + history[-1][offset + length :])
                    case _:
                        offset, length = _range(rng)
                        data = rng.randbytes(length)
                        if not volume.write_now(offset, data):
                            await volume.write(offset, data)
                        history.append(history[-1][:offset] + data + history[-1][offset + length :])
            nursery.cancel_scope.cancel()
        if rng.random() < 0.3:
            await volume.close()
            flushed = len(history) - 1
        machine.node.crash(power=True)
        machine.node.restart()


async def test_an_answered_write_survives_its_worker(autojump_clock: trio.testing.MockClock) -> None:
    """Before any flush: the initiator outlives the worker, and its next flush, at the next worker, covers the write."""
    machine = Machine(6)
    await machine.create()
    volume = await machine.open()
    assert not volume.write_now(0, b"w" * 512)
    await volume.write(0, b"w" * 512)
    await volume.write(512, b"x" * 512)
    await volume.discard(512, 512)
    machine.node.crash(power=False)
    machine.node.restart()
    again = await machine.open()
    await again.flush()
    assert await again.read(0, 1024) == b"w" * 512 + bytes(512)


async def test_a_write_log_moves_when_a_device_fails(autojump_clock: trio.testing.MockClock) -> None:
    machine = Machine(3)
    await machine.create()
    volume = await machine.open()
    await volume.write(0, b"a" * 4096, durable=True)
    first = [root for root in ("/d0", "/d1", "/d2") if await _logs(machine, root)]
    machine.node.disk(first[0]).sync_errors = 1
    await volume.write(4096, b"b" * 4096, durable=True)
    machine.node.crash(power=True)
    machine.node.restart()
    machine.node.disk(first[0]).empty()
    again = await machine.open()
    assert await again.read(0, 8192) == b"a" * 4096 + b"b" * 4096


@pytest.mark.parametrize("bad", [1, 2])
@pytest.mark.parametrize("harm", ["gone", "EIO", "rotten"])
async def test_one_bad_device_costs_nothing_two_are_refused(harm: str, bad: int, autojump_clock: trio.testing.MockClock) -> None:
    machine = Machine(6)
    await machine.create()
    volume = await machine.open()
    await volume.write(0, b"a" * 4096, durable=True)
    await volume.abandon()
    holders = [root for root in ("/d0", "/d1", "/d2") if await _logs(machine, root)]
    assert len(holders) == 2
    for root in holders[:bad]:
        await _harm(machine, root, harm)
    if bad == 2:
        with pytest.raises(Unavailable):
            await machine.open()
        return
    again = await machine.open()
    assert await again.read(0, 4096) == b"a" * 4096
    await again.write(4096, b"b" * 4096, durable=True)
    await again.abandon()
    assert await (await machine.open()).read(0, 8192) == b"a" * 4096 + b"b" * 4096


async def _harm(machine: Machine, root: str, harm: str) -> None:
    medium = machine.node.disk(root)
    match harm:
        case "gone":
            medium.unmount()
        case "EIO":
            medium.dead = True
        case _:
            disk = machine.node.world.open_disk(root)
            folder = f"volumes/{VOLUME}"
            for name in await disk.list_dir(folder):
                file = await disk.open(f"{folder}/{name}", OpenMode.WRITE)
                await file.pwrite(9, b"rot")
                await file.close()


async def test_an_older_opener_cannot_write_any_more(autojump_clock: trio.testing.MockClock) -> None:
    machine = Machine(4)
    await machine.create()
    zombie = await machine.open()
    await zombie.write(0, b"z" * 512)
    current = await machine.open()
    await current.write(0, b"c" * 512, durable=True)
    with pytest.raises(Conflict):
        await zombie.close()
    assert await current.read(0, 512) == b"c" * 512


async def test_while_storage_cannot_answer_the_log_keeps_writes(autojump_clock: trio.testing.MockClock) -> None:
    machine = Machine(5)
    await machine.create()
    volume = await machine.open()
    await volume.write(0, b"k" * 512, durable=True)
    machine.storage.fail_next = [Unavailable("no quorum")]
    with pytest.raises(RingfortError):
        await volume.close()
    again = await machine.open()
    assert await again.read(0, 512) == b"k" * 512


async def test_claims(autojump_clock: trio.testing.MockClock) -> None:
    kv = MemoryKV()
    lease = await kv.grant(10)
    await claim(kv, "v", Owner("cloud-1", 0, 1), lease)
    with pytest.raises(Conflict):
        await claim(kv, "v", Owner("cloud-1", 1, 1), lease)
    await claim(kv, "v", Owner("cloud-1", 0, 2), lease)  # the same worker, started again
    await claim(kv, "v", Owner("cloud-2", 1, 1), lease)  # the cloud, started again
    await trio.sleep(11)
    await claim(kv, "v", Owner("cloud-2", 0, 1), await kv.grant(10))


def _range(rng: Random) -> tuple[int, int]:
    blocks = SIZE // BLOCK
    first = rng.randrange(blocks)
    return first * BLOCK, rng.randrange(1, min(64, blocks - first) + 1) * BLOCK


async def _logs(machine: Machine, root: str) -> bool:
    disk = machine.node.world.open_disk(root)
    folder = f"volumes/{VOLUME}"
    return await disk.info(folder) is not None and bool(await disk.list_dir(folder))


async def test_closing_after_a_failed_destage_keeps_what_came_later(autojump_clock: trio.testing.MockClock) -> None:
    machine = Machine(7)
    await machine.create()
    volume = await machine.open()
    await volume.write(0, b"a" * 512)
    machine.storage.fail_next = [Unavailable("no quorum")]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(volume.run)
        await trio.sleep(2.5)  # one attempt, which fails
        nursery.cancel_scope.cancel()
    assert not machine.storage.fail_next
    await volume.write(512, b"b" * 512)
    await volume.close()
    assert await (await machine.open()).read(0, 1024) == b"a" * 512 + b"b" * 512


async def test_without_log_devices_segments_stand_in_until_they_come_back(autojump_clock: trio.testing.MockClock) -> None:
    machine = Machine(8)
    await machine.create()
    volume = await machine.open()
    for root in ("/d0", "/d1"):
        machine.node.disk(root).dead = True
    await volume.write(0, b"a" * 512)
    machine.storage.fail_next = [Unavailable("no quorum")]
    with pytest.raises(DiskFault):
        await volume.write(512, b"b" * 512)
    for root in ("/d0", "/d1"):
        machine.node.disk(root).dead = False
    await volume.flush()
    machine.node.crash(power=True)
    machine.node.restart()
    assert await (await machine.open()).read(0, 1024) == b"a" * 512 + b"b" * 512


async def test_runs_of_mapped_and_unmapped(autojump_clock: trio.testing.MockClock) -> None:
    machine = Machine(9)
    await machine.create()
    volume = await machine.open()
    assert volume.run_at(0) == (SIZE, False)
    await volume.write(4096, b"x" * 1024)
    assert (volume.run_at(0), volume.run_at(4096), volume.run_at(5120)) == ((4096, False), (1024, True), (SIZE - 5120, False))
    await volume.discard(0, SIZE)
    assert volume.run_at(0) == (SIZE, False)
    assert await volume.read(0, SIZE) == bytes(SIZE)
