"""Volumes from the call to the disk behind it: desired state in kv, an agent that makes it true, and what goes wrong between."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from random import Random
from uuid import UUID

import pytest
import trio

from blockgw.client.interface import VolumeStatus
from blockgw.client.local import LocalVolumes
from blockgw.client.owner import Owner
from blockgw.images.store import USES
from blockgw.volume.agent import Served, VolumeAgent
from blockgw.volume.records import EXPORTS, VOLUMES, iqn
from blockgw.volume.register import OWNERS, REGISTERS
from blockgw.volume.volume import ACCOUNT
from identity.client.sealing import Sealer
from ring.errors import BadInput, Conflict, NotFound, Unavailable
from ring.kv.interface import Put
from ring.kv.view import View
from ring.names import Path
from ring.wire.message import BytesBody
from ring.world.interface import Disk, World
from tests.blockgw.ground import Ground

GIB = 1 << 30
IMAGE = "11111111-2222-4333-8444-555555555555"
SERVER = "server-1"
ROOTS = ("/d0", "/d1", "/d2")


@dataclass(slots=True)
class Gateway:
    """One machine's volumes: the client, and one worker's agent."""

    ground: Ground
    volumes: LocalVolumes
    agent: VolumeAgent
    disks: list[Disk]
    dropped: list[str] = field(default_factory=list)
    lines: list[tuple[str, str]] = field(default_factory=list)

    async def create(self, **given: object) -> str:
        access = self.ground.identity.tokens["token-ann"]
        volume = await self.volumes.create(access, **{"size_gib": 1, **given})  # type: ignore[arg-type]  # of a test's choice
        assert volume.status is VolumeStatus.CREATING
        return (await self.volumes.wait_available(volume.id, timeout_s=5)).id

    async def served(self, volume_id: str) -> Served:
        found = await self.agent.lookup(iqn(volume_id))
        assert found is not None
        return found

    async def gone(self, volume_id: str) -> None:
        with trio.fail_after(20):
            while True:
                try:
                    await self.volumes.show(volume_id, project_id=None)
                except NotFound:
                    return
                await trio.sleep(1)


@pytest.fixture
async def gateway(autojump_clock: trio.testing.MockClock) -> AsyncIterator[Gateway]:
    ground = Ground()
    for root in ROOTS:
        ground.world.node.disk(root).empty()
    async with trio.open_nursery() as nursery:
        gateway = await start(nursery, ground, Owner("cloud", 0, 1))
        yield gateway
        nursery.cancel_scope.cancel()


async def start(nursery: trio.Nursery, ground: Ground, me: Owner) -> Gateway:
    world = ground.world.node.world  # of the machine's present life
    view = View(ground.kv, "blockgw/")
    await nursery.start(view.run)
    sealer = Sealer(bytes(32), world.entropy)
    disks = [world.open_disk(root) for root in ROOTS]
    lines: list[tuple[str, str]] = []
    agent = VolumeAgent(
        ground.kv,
        view,
        ground.storage,
        ground.images,
        sealer,
        disks,
        me,
        workers=1,
        log=lambda event, detail: lines.append((event, detail)),
    )
    volumes = LocalVolumes(world, ground.kv, view, ground.images, sealer, portal="127.0.0.1:3260")
    gateway = Gateway(ground, volumes, agent, disks, lines=lines)

    async def drop(name: str) -> None:
        gateway.dropped.append(name)

    agent.drop_sessions = drop
    await nursery.start(agent.run)
    return gateway


async def test_created_shown_listed_renamed(gateway: Gateway, autojump_clock: trio.testing.MockClock) -> None:
    volume_id = await gateway.create(name="data", description="d", metadata={"a": "b"}, size_gib=3)
    volume = await gateway.volumes.show(volume_id, project_id="p1")
    assert (volume.name, volume.size_gib, volume.status, dict(volume.metadata)) == ("data", 3, VolumeStatus.AVAILABLE, {"a": "b"})
    with pytest.raises(NotFound):
        await gateway.volumes.show(volume_id, project_id="p2")
    await trio.sleep(1)
    second = await gateway.create()
    assert [one.id for one in await gateway.volumes.list(project_id="p1")] == [second, volume_id]
    assert await gateway.volumes.list(project_id="p2") == []
    renamed = await gateway.volumes.update(volume_id, project_id="p1", name="new", description=None)
    assert (renamed.name, renamed.description) == ("new", "d")
    with pytest.raises(NotFound):
        await gateway.volumes.update(volume_id, project_id="p2", name="mine", description=None)


async def test_attached_read_written_detached_and_attached_again(gateway: Gateway, autojump_clock: trio.testing.MockClock) -> None:
    volume_id = await gateway.create()
    assert await gateway.agent.lookup(iqn(volume_id)) is None  # nobody may log in yet
    connection = await gateway.volumes.attach(volume_id, server_id=SERVER, device="/dev/vda")
    assert (connection.portal, connection.iqn, connection.lun) == ("127.0.0.1:3260", iqn(volume_id), 1)
    assert await gateway.volumes.attach(volume_id, server_id=SERVER, device="/dev/vda") == connection
    assert connection.chap_secret not in repr(connection)
    with pytest.raises(Conflict):
        await gateway.volumes.attach(volume_id, server_id="another", device="/dev/vda")
    served = await gateway.served(volume_id)
    assert (served.chap_user, served.chap_secret) == (connection.chap_user, connection.chap_secret)
    await served.device.write(4096, b"x" * 4096)
    await served.device.flush()

    await gateway.volumes.detach(volume_id, server_id="another")  # not its: nothing happens
    assert (await gateway.volumes.show(volume_id, project_id=None)).status is VolumeStatus.IN_USE
    await gateway.volumes.detach(volume_id, server_id=SERVER)
    await gateway.volumes.detach(volume_id, server_id=SERVER)
    await trio.sleep(1)
    assert gateway.dropped == [iqn(volume_id)]
    assert await gateway.agent.lookup(iqn(volume_id)) is None

    again = await gateway.volumes.attach(volume_id, server_id="another", device="/dev/vda")
    assert again.chap_secret != connection.chap_secret
    assert await (await gateway.served(volume_id)).device.read(0, 8192) == bytes(4096) + b"x" * 4096


async def test_deleted_with_all_that_was_its(gateway: Gateway, autojump_clock: trio.testing.MockClock) -> None:
    volume_id = await gateway.create()
    await gateway.volumes.attach(volume_id, server_id=SERVER, device="/dev/vda")
    device = (await gateway.served(volume_id)).device
    await device.write(0, b"x" * 4096)
    await device.flush()
    with pytest.raises(BadInput, match="in-use"):
        await gateway.volumes.delete(volume_id, project_id="p1")
    await gateway.volumes.detach(volume_id, server_id=SERVER)
    with pytest.raises(NotFound):
        await gateway.volumes.delete(volume_id, project_id="p2")
    await gateway.volumes.delete(volume_id, project_id="p1")
    await gateway.gone(volume_id)
    assert await gateway.ground.names(Path(ACCOUNT, volume_id)) == []
    assert [entry.key for entry in await gateway.ground.kv.range("blockgw/")] == []
    for disk in gateway.disks:
        folder = f"volumes/{UUID(volume_id)}"
        assert await disk.info(folder) is None or not await disk.list_dir(folder)


@pytest.mark.parametrize("size_gib", [0, -1, 65_537, 10**17])
async def test_sizes_that_no_volume_has(gateway: Gateway, size_gib: int, autojump_clock: trio.testing.MockClock) -> None:
    with pytest.raises(BadInput):
        await gateway.create(size_gib=size_gib)
    assert await gateway.ground.kv.range("blockgw/") == []


async def test_from_an_image(gateway: Gateway, autojump_clock: trio.testing.MockClock) -> None:
    data = Random(2).randbytes(300_000)
    await gateway.ground.images.store(IMAGE, BytesBody(data))
    volume_id = await gateway.create(image_id=IMAGE)
    assert (await gateway.volumes.show(volume_id, project_id=None)).bootable
    assert await gateway.ground.names(Path(ACCOUNT, volume_id)) == []  # no byte was copied
    with pytest.raises(Conflict, match="in use"):
        await gateway.ground.images.delete(IMAGE)
    await gateway.volumes.attach(volume_id, server_id=SERVER, device="/dev/vda")
    device = (await gateway.served(volume_id)).device
    assert await device.read(0, 512 * 600) == (data + bytes(512 * 600))[: 512 * 600]
    await device.write(512, b"n" * 512)
    assert await device.read(0, 1536) == data[:512] + b"n" * 512 + data[1024:1536]
    await gateway.volumes.detach(volume_id, server_id=SERVER)
    await gateway.volumes.delete(volume_id, project_id=None)
    await gateway.gone(volume_id)
    assert await gateway.ground.kv.range(USES) == []
    await gateway.ground.images.delete(IMAGE)


async def test_an_image_that_is_too_large_or_not_there(gateway: Gateway, autojump_clock: trio.testing.MockClock) -> None:
    sparse = b"QFI\xfb" + (3).to_bytes(4, "big") + bytes(16) + (2 * GIB).to_bytes(8, "big") + bytes(64)
    await gateway.ground.images.store(IMAGE, BytesBody(sparse))
    with pytest.raises(BadInput, match="raw"):
        await gateway.create(image_id=IMAGE)
    with pytest.raises(NotFound):
        await gateway.create(image_id="none")
    assert await gateway.ground.kv.range(VOLUMES) == []


async def test_a_raw_image_larger_than_the_volume(gateway: Gateway, autojump_clock: trio.testing.MockClock) -> None:
    await gateway.ground.images.store(IMAGE, BytesBody(b"MBR"))
    # What a larger upload would have left in kv: a manifest that says so.
    [entry] = await gateway.ground.kv.range("blockgw/images/")
    wide = entry.value.replace(b'"virtual_size":3', b'"virtual_size":%d' % (GIB + 1))
    await gateway.ground.kv.transact([], [Put(entry.key, wide)])
    with pytest.raises(BadInput, match="at least 2 GiB"):
        await gateway.create(image_id=IMAGE, size_gib=1)
    assert await gateway.ground.kv.range(USES) == [] and await gateway.ground.kv.range(VOLUMES) == []
    await gateway.create(image_id=IMAGE, size_gib=2)


async def test_waiting_for_a_volume_that_storage_cannot_make_yet(gateway: Gateway, autojump_clock: trio.testing.MockClock) -> None:
    gateway.ground.storage.fail_next = [Unavailable("no quorum")] * 2
    access = gateway.ground.identity.tokens["token-ann"]
    volume = await gateway.volumes.create(access, size_gib=1)
    with pytest.raises(Unavailable):
        await gateway.volumes.wait_available(volume.id, timeout_s=1)
    assert (await gateway.volumes.wait_available(volume.id, timeout_s=10)).status is VolumeStatus.AVAILABLE
    assert [event for event, _ in gateway.lines] == ["volume-retry", "volume-retry"]


async def test_deleting_goes_on_when_storage_comes_back(gateway: Gateway, autojump_clock: trio.testing.MockClock) -> None:
    volume_id = await gateway.create()
    gateway.ground.storage.fail_next = [Unavailable("no quorum")]
    await gateway.volumes.delete(volume_id, project_id=None)
    await trio.sleep(1)
    assert (await gateway.volumes.show(volume_id, project_id=None)).status is VolumeStatus.DELETING
    with pytest.raises(Conflict):
        await gateway.volumes.attach(volume_id, server_id=SERVER, device="/dev/vda")
    await gateway.gone(volume_id)


@pytest.mark.parametrize("power", [False, True])
async def test_a_new_worker_serves_what_was_flushed(autojump_clock: trio.testing.MockClock, power: bool) -> None:
    ground = Ground()
    node = ground.world.node
    for root in ROOTS:
        node.disk(root).empty()
    volume_id = ""
    connections = []

    async def first_life(world: World) -> None:
        nonlocal volume_id
        async with trio.open_nursery() as nursery:
            first = await start(nursery, ground, Owner("cloud", 0, 1))
            volume_id = await first.create()
            connections.append(await first.volumes.attach(volume_id, server_id=SERVER, device="/dev/vda"))
            device = (await first.served(volume_id)).device
            await device.write(0, b"k" * 4096)
            await device.flush()
            ground.storage.fail_next = [Unavailable("the machine is dead")] * 100  # what a dead process would still ask for
            node.crash(power=power)

    await node.run(first_life)
    ground.storage.fail_next.clear()
    node.restart()
    async with trio.open_nursery() as nursery:
        second = await start(nursery, ground, Owner("cloud", 0, 2))
        connections.append(await second.volumes.attach(volume_id, server_id=SERVER, device="/dev/vda"))
        assert connections[0] == connections[1]
        assert await (await second.served(volume_id)).device.read(0, 4096) == b"k" * 4096
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("name", ["", "iqn.2026-01.org.ringfort:volume-", "iqn.x:volume-1", "iqn.2026-01.org.ringfort:volume-../x"])
async def test_names_behind_which_there_is_nothing(gateway: Gateway, name: str, autojump_clock: trio.testing.MockClock) -> None:
    assert await gateway.agent.lookup(name) is None


async def test_one_claim_and_one_register_for_each_open_volume(gateway: Gateway, autojump_clock: trio.testing.MockClock) -> None:
    volume_id = await gateway.create()
    await gateway.volumes.attach(volume_id, server_id=SERVER, device="/dev/vda")
    first, second = await gateway.served(volume_id), await gateway.served(volume_id)
    assert first.device is second.device
    keys = [entry.key.partition(volume_id)[0] for entry in await gateway.ground.kv.range("blockgw/")]
    assert sorted(keys) == sorted([EXPORTS, OWNERS, REGISTERS, VOLUMES])
