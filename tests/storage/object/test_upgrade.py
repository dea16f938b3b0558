"""A device of an older version is upgraded where it lies, whatever happens on the way; one of a newer version is left as it is."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping

import pytest
import trio

from ring.errors import DiskFault, FormatError, NewerFormat, Unavailable
from ring.timestamp import Timestamp
from ring.world.interface import Disk, World, Write
from ring.world.sim import SimWorld, run
from storage.client.node import Kind
from storage.object import index
from storage.object.device import FORMATS, LABEL_PATH, TABLES, Label, open_device
from storage.object.errors import DeviceOutOfService
from storage.object.record import Record, RecordKind, encode_record, info_of
from storage.object.segment import SegmentHead
from storage.rows.log import encode_head
from tests.storage.faults import FAULTS, Trip
from tests.storage.object.compaction_rig import compactor
from tests.storage.object.object_rig import CLUSTER, GOLDEN, HASHER, path, put, read, serving, version

ROOT = "d1"
SALT = 77
OLD_FORMATS = {"label": 1, "pack": 1, "file": 1, "index": 1, "rows": 1}
NAMES = ("a", "b", "gone")


def head_1(sequence: int) -> bytes:
    """Of a segment of format 1."""
    body = struct.pack(">8sHxxIII4x", b"RFPACK\r\n", 1, sequence, 1, SALT)
    return body + zlib.crc32(body).to_bytes(4, "big")


def segment_1() -> bytes:
    """Two objects and a tombstone."""
    records = []
    for ticks, name in enumerate(NAMES, start=100):
        data = None if name == "gone" else name.encode() * 50
        one = version(name, ticks, data)
        kind = RecordKind.TOMBSTONE if data is None else RecordKind.OBJECT_INLINE
        parts, _, _ = encode_record(Record(kind, HASHER.hash(one.path), one.timestamp, info_of(one, None), data or b""), SALT)
        records += [bytes(part) for part in parts]
    return b"".join([head_1(1), *records])


async def make_old(disk: Disk, *, label: Label | None = None) -> None:
    """As a program left it that knew packs of format 1 and an index of format 2."""
    await disk.make_dirs("")
    await disk.make_dirs_many(["packs", "quarantine", "rows"])
    await disk.replace_file("packs/00000001.pack", segment_1())
    tables = await disk.open_tables(TABLES, ("index", "due", "owed", "tree", "state"))
    stale = Write("index", b"k" * 28, b"what format 2 had here")
    await tables.commit([stale, Write("state", b"version", b"\x02"), Write("state", b"position", b"\x92\x01\x20")])
    await tables.close()
    await disk.replace_file(LABEL_PATH, (label or Label(CLUSTER, 1, OLD_FORMATS)).encode())


async def assert_all_there(world: World) -> None:
    async with serving(world, ROOT) as store:
        for name in NAMES[:2]:
            assert await read(store, name) == name.encode() * 50
        gone = await store.head(path("gone"))
        assert gone is not None and gone.kind is Kind.TOMBSTONE and gone.timestamp == Timestamp(102)
        assert store.device.label.formats == FORMATS
    assert Label.decode(await world.open_disk(ROOT).read_file(LABEL_PATH)).formats == FORMATS


async def test_an_old_device_is_upgraded_where_it_lies(autojump_clock: trio.testing.MockClock) -> None:
    world = SimWorld(1)
    await make_old(world.open_disk(ROOT))
    await assert_all_there(world)
    async with serving(world, ROOT) as store:
        assert not store.report.rebuilt  # once is enough
        assert (await store.segments.segment(1)).head.version == 1  # read, not rewritten
        await put(store, "new", 200, b"x")
        assert store.segments.order[-1].sequence == 2  # what is written now is not behind the old head
        await put(store, "a", 201, b"y")
        await store.index.commit()
        worker = compactor(world, store)
        while not worker.compactions:
            await worker.work()
        assert await read(store, "b") == b"b" * 50


def test_a_crash_at_every_step_of_it() -> None:
    for fault in FAULTS:
        at = 1
        while run(at, _play, fault, at):
            at += 1
        assert at > 8  # so many operations there are, the label's among them


async def _play(fault: str, at: int) -> bool:
    world = SimWorld(1)
    node, medium = world.node, world.node.disk(ROOT)
    await make_old(world.open_disk(ROOT))
    trip = Trip(node, fault, at)

    async def open_it(world: World) -> None:
        medium.trip = trip
        try:
            async with serving(world, ROOT):
                pass
        except* (DiskFault, Unavailable, FormatError):
            pass  # the next start goes on

    await node.run(open_it)
    medium.trip = None
    if node.up:
        node.crash(power=True)
    node.restart()
    await assert_all_there(node.world)
    return trip.tripped


# ---- newer ones


def content(world: SimWorld) -> Mapping[str, bytes]:
    medium = world.node.disk(ROOT)
    return {path: bytes(medium.file(path).content) for path in medium.files()}


def newer_segment(data: bytes, length: int) -> bytes:
    """One format higher."""
    body = data[:8] + (int.from_bytes(data[8:10], "big") + 1).to_bytes(2, "big") + data[10 : length - 4]
    return body + zlib.crc32(body).to_bytes(4, "big")


LOGS = {
    "packs/00000001.pack": (
        newer_segment(SegmentHead(1, 1, SALT).encode(), 64),
        "the segment has format 3; this program knows up to 2",
    ),
    "rows/00000001.log": (newer_segment(encode_head(1), 20), "the log of rows has format 2; this program knows up to 1"),
}


@pytest.mark.parametrize("name", sorted(FORMATS))
async def test_a_newer_device_is_refused_and_left_alone(name: str, autojump_clock: trio.testing.MockClock) -> None:
    world = SimWorld(1)
    label = Label(CLUSTER, 1, {**FORMATS, name: FORMATS[name] + 1})
    await make_old(world.open_disk(ROOT), label=label)
    before = content(world)
    words = f"device.json: what the device calls {name} has format {FORMATS[name] + 1}; this program knows up to {FORMATS[name]}"
    with pytest.raises(NewerFormat, match=words) as refused:
        await open_device(world, ROOT, CLUSTER, 1)
    assert "newer version of ringfort" in refused.value.hint
    assert content(world) == before


@pytest.mark.parametrize("name", sorted(LOGS))
async def test_a_newer_log_below_an_older_label_is_left_alone(name: str, autojump_clock: trio.testing.MockClock) -> None:
    world = SimWorld(1)
    disk = world.open_disk(ROOT)
    await make_old(disk)
    data, words = LOGS[name]
    await disk.replace_file(name, data)
    before = content(world)
    with pytest.raises(NewerFormat, match=f"{name}: {words}"):
        await open_device(world, ROOT, CLUSTER, 1)
    assert content(world) == before


async def test_a_newer_segment_below_our_own_label_costs_no_index(autojump_clock: trio.testing.MockClock) -> None:
    world = SimWorld(1)
    disk = world.open_disk(ROOT)
    await make_old(disk)
    await assert_all_there(world)
    await disk.replace_file("packs/00000002.pack", newer_segment(SegmentHead(2, 1, SALT).encode(), 64))
    before = content(world)
    words = r"packs/00000002.*the segment has format 3; this program knows up to 2"
    with pytest.RaisesGroup(pytest.RaisesExc(DeviceOutOfService, match=words)):
        async with serving(world, ROOT):
            pass
    after = content(world)
    assert {path: after[path] for path in after if "tables" not in path} == {p: before[p] for p in before if "tables" not in p}
    await disk.unlink("packs/00000002.pack")
    async with serving(world, ROOT) as store:
        assert not store.report.rebuilt


def test_the_label_says_what_this_program_writes() -> None:
    """Who changes a format says so in both places."""
    assert FORMATS["index"] == index.VERSION[0]
    assert FORMATS["pack"] == 3 and max(RecordKind) == 14  # a kind of record that an older program would pass over: a new format


def test_golden_segment_of_format_1_is_read() -> None:
    assert SegmentHead.decode((GOLDEN / "pack-1.bin").read_bytes()).version == 1
