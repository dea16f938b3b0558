"""A replaced disk of an erasure-coded policy is no voter before it knows of all that it ever acknowledged; then it has notes."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import cast

import pytest
import trio

from ring.daemon.worker import Idle, once
from ring.device import Device
from ring.errors import Unavailable
from ring.names import Path, Span
from ring.service.overlap import Claim, Overlap
from ring.timestamp import Timestamp
from ring.wire.message import BytesBody
from storage.client.bodies import drained
from storage.client.errors import Doubted, ObjectNotFound
from storage.client.filling import Filler
from storage.client.interface import NewObject
from storage.client.local import LocalNode
from storage.client.node import Kind, Node, Version
from storage.client.reach import Settings
from storage.client.trust import Trust
from storage.container.replicator import BookReplicator
from storage.erasure.interface import Coding
from storage.erasure.quorum import Data
from storage.object.filling import DeviceFiller
from storage.object.noting import Noter
from storage.object.reconstructor import Reconstructor
from storage.object.record import RecordKind
from storage.object.refill import AGAIN_S, Refiller
from tests.storage.client.ground import HASHER, PART_POWER, Distant, Ground, distant, make_device, open_engines, open_part

pytestmark = pytest.mark.usefixtures("autojump_clock")
CONTAINER = Path("AUTH_a", "c")
OBJECT = Path("AUTH_a", "c", "o")
GONE = Path("AUTH_a", "c", "gone")
SETTINGS = Settings(pack_cut_bytes=4096, read_timeout_s=1.0, write_timeout_s=3.0, repair_delay_s=1e6)
CLAIM = Claim(1)
RING = "object-1"


def noise(size: int) -> bytes:
    return random.Random(size).randbytes(size)


@dataclass
class Rig:
    ground: Ground
    lines: list[Distant]  # of the object's primaries, in the order of their fragments; the first one was replaced
    trust: Trust

    async def get(self) -> bytes:
        return await drained((await self.ground.storage.get_object(OBJECT)).pieces)

    def waits(self) -> bool:
        return self.trust.waits

    def node_of(self, device: Device) -> Node:
        return self.ground.nodes[device.id].of(1)

    def filler(self, number: int) -> Filler:
        line = cast(Distant, self.ground.nodes[number])
        if line.cut:
            raise Unavailable("it is away")
        noter = Noter(self.ground.parts[number], self.node_of)
        books = self.ground.engines[number][1]
        whole = BookReplicator(make_device(number), books, self.ground.rings.objects.__getitem__, self.node_of)  # type: ignore[arg-type]  # of no use here
        return DeviceFiller(Trust(HASHER), {RING: noter}, books, whole, make_device)

    async def refill(self) -> None:
        async def done() -> None: ...

        number = self.lines[0].device.id
        refiller = Refiller(number, self.trust, lambda: {RING: self.ground.rings.objects[1]}, self.filler, done)
        while not isinstance(await refiller.work(), Idle):
            pass

    async def reconstruct(self) -> None:
        for number, part in enumerate(self.ground.parts):
            reach, rings = self.ground.storage.reach, self.ground.rings
            await once(
                Reconstructor(
                    self.ground.world,
                    make_device(number),
                    part,
                    reach,
                    1,
                    Coding(2, 1),
                    lambda rings=rings: rings.objects[1],  # type: ignore[misc]  # a default binds it
                    self.node_of,
                )
            )


async def replaced(nursery: trio.Nursery, size: int, *, refills: bool) -> Rig:
    """2+1.  Fragments 0 and 1 were committed, so it was acknowledged; 2 is staged.  Then the disk of 0 is another one, and 1 is not
    reached."""
    ground = await Ground.coded(nursery, SETTINGS, k=2, m=1, device_count=3, wrap=distant)
    ring = ground.rings.objects[1].ring
    ground.rings.objects = {**ground.rings.objects, 1: Overlap(ring, ring, CLAIM)}
    every = cast(list[Distant], ground.nodes)
    for line in every:
        line.node.gate.edition = CLAIM.edition
    await ground.storage.put_container(CONTAINER, {}, policy=1)
    order = [device.id for device in ground.rings.objects[1].places(OBJECT).devices]

    def uncommitted(step: str) -> None:
        if step == "commit":
            raise Unavailable("it is lost on its way")

    await ground.storage.put_object(GONE, NewObject(), BytesBody(noise(size)))
    await ground.storage.delete_object(GONE)
    every[order[2]].rule = uncommitted
    await ground.storage.put_object(OBJECT, NewObject(), BytesBody(noise(size)))
    every[order[2]].rule = lambda step: None
    number = order[0]
    ground.engines[number] = await open_engines(nursery, ground.world, number, "/replaced")
    part = ground.parts[number] = await open_part(nursery, ground.world, ground.engines[number][0], 1)
    trust = Trust(HASHER, refills=refills)
    node = LocalNode(make_device(number), *ground.engines[number], ground.payer, stores={1: part}, trust=trust)
    node.gate.edition = CLAIM.edition
    ground.nodes[number] = distant(node)
    every[order[1]].cut = True
    return Rig(ground, [cast(Distant, ground.nodes[one]) for one in order], trust)


SIZES = pytest.mark.parametrize("size", [1000, 100_000])


@SIZES
async def test_a_disk_that_votes_at_once_makes_it_vanish(nursery: trio.Nursery, size: int) -> None:
    """What this is all for."""
    rig = await replaced(nursery, size, refills=False)
    with pytest.raises(ObjectNotFound):
        await rig.get()


@SIZES
async def test_one_that_is_told_first_does_not(nursery: trio.Nursery, size: int) -> None:
    rig = await replaced(nursery, size, refills=True)
    with pytest.raises(Unavailable):
        await rig.get()
    await rig.refill()  # the one that is there cannot vouch for what the other one has
    assert rig.waits()
    with pytest.raises(Unavailable):
        await rig.get()
    rig.lines[1].cut = False
    await trio.sleep(AGAIN_S)
    await rig.refill()
    assert not rig.waits()
    fragments = rig.lines[0].node.of(1).fragments()
    (one,) = await fragments.sightings(OBJECT)
    assert (one.committed, one.data) == (True, Data.NONE)  # it knows of it, and has not got it
    (one,) = await fragments.sightings(GONE)
    assert one.version.kind is Kind.TOMBSTONE
    rig.lines[1].cut = True
    with pytest.raises(Unavailable):  # too little to read it by, and not "not there"
        await rig.get()
    rig.lines[1].cut = False
    assert await rig.get() == noise(size)
    await rig.reconstruct()
    rig.lines[1].cut = True
    assert await rig.get() == noise(size)
    (one,) = await fragments.sightings(OBJECT)
    assert one.data is (Data.FRAGMENT if size > 4096 else Data.COPY)


async def test_metadata_that_is_newer_comes_without_its_data(nursery: trio.Nursery) -> None:
    rig = await replaced(nursery, 100_000, refills=True)
    rig.lines[1].cut = False
    await rig.refill()
    await rig.reconstruct()
    await trio.sleep(1)
    rig.lines[0].cut = True
    await rig.ground.storage.post_object(OBJECT, {"x-object-meta-p": "1"})
    rig.lines[0].cut = False
    noter = Noter(rig.ground.parts[rig.lines[1].device.id], rig.node_of)
    span = Span.of(HASHER.hash(OBJECT), PART_POWER)
    assert await noter.fill(rig.lines[0].device, span, trio.current_time() + 10) == (1, 0, True)
    assert await noter.fill(rig.lines[0].device, span, trio.current_time() + 10) == (0, 0, True)
    (one,) = await rig.lines[0].node.of(1).fragments().sightings(OBJECT)
    assert one.data is Data.FRAGMENT
    assert one.version.metadata["x-object-meta-p"] == "1"


async def test_what_it_is_asked_by_an_edition_is_refused(nursery: trio.Nursery) -> None:
    rig = await replaced(nursery, 1000, refills=True)
    fragments = rig.lines[0].node.of(1).under(CLAIM).fragments()
    version = Version(OBJECT, Timestamp.at(rig.ground.world.clock.now()), Kind.OBJECT, 3, "b" * 32)
    with pytest.raises(Unavailable, match="refilled"):
        await fragments.sightings(OBJECT)
    with pytest.raises(Unavailable, match="refilled"):
        await fragments.stage(version, b"new")
    await fragments.stage(version, b"new", seen=True)  # a copy
    with pytest.raises(Unavailable, match="refilled"):
        await fragments.commit(version, None)
    await fragments.commit(version, None, seen=True)


@pytest.mark.parametrize("noted", [True, False])
async def test_a_copy_that_rots_is_known_and_brought_back(nursery: trio.Nursery, noted: bool) -> None:
    """By a note; where even its description is damaged, the device gives no answer of the name."""
    rig = await replaced(nursery, 1000, refills=True)
    rig.lines[1].cut = False
    await rig.refill()
    await rig.reconstruct()
    part = rig.ground.parts[rig.lines[1].device.id]
    part.removal.notes = noted
    held = part.newest(HASHER.hash(OBJECT))
    assert held is not None
    assert held.entry.kind is RecordKind.OBJECT_INLINE
    assert await part.quarantine(held.key)
    if noted:
        (one,) = await part.staging.sightings(OBJECT)
        assert (one.committed, one.data) == (True, Data.NONE)
    else:
        with pytest.raises(Doubted):
            await part.staging.sightings(OBJECT)
    await rig.reconstruct()
    (one,) = await part.staging.sightings(OBJECT)
    assert (one.committed, one.data) == (True, Data.COPY)
