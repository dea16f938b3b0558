"""A device's mark: when it moves, when it is behind, and the bytes."""

from __future__ import annotations

import json
import zlib
from pathlib import Path as FilePath

import pytest
import trio

from ring.errors import DiskFault, FormatError, Unavailable
from ring.service.horizon import Horizon
from ring.timestamp import Timestamp
from ring.world.interface import Disk
from ring.world.sim import Simulation
from storage.sync.standing import Standing, decode, encode

GOLDEN = FilePath(__file__).parents[2] / "golden" / "clean-1.json"
MARKS = {"object": 170000000000000}
PATH = "clean.json"
HORIZON = Horizon(100, 50)


async def standing(disk: Disk, horizon: Horizon = HORIZON) -> Standing:
    found = Standing(disk, PATH)
    found.horizon = lambda name: horizon
    await found.load()
    return found


def a_disk() -> Disk:
    simulation = Simulation(1)
    node = simulation.node("n")
    node.disk("/d").empty()
    return node.world.open_disk("/d")


def test_the_bytes_are_those_of_format_1() -> None:
    assert encode(MARKS) == GOLDEN.read_bytes()
    assert decode(GOLDEN.read_bytes(), PATH) == MARKS


def test_a_newer_format_is_refused_and_a_damaged_mark_is_none() -> None:
    data = GOLDEN.read_bytes()
    for place in range(len(data)):
        assert decode(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :], PATH) in ({}, MARKS)
    newer = encode_as(2)
    with pytest.raises(FormatError, match=f"{PATH}: the device.s mark has format 2; this program knows up to 1"):
        decode(newer, PATH)


def encode_as(version: int) -> bytes:
    body = {"magic": "ringfort clean", "format": version, "clean": MARKS}
    checksum = zlib.crc32(json.dumps(body, sort_keys=True, separators=(",", ":")).encode())
    return json.dumps({**body, "checksum": f"{checksum:08x}"}).encode()


async def test_it_is_behind_until_its_mark_is_at_the_horizon(autojump_clock: trio.testing.MockClock) -> None:
    disk = a_disk()
    one = await standing(disk)
    assert one.behind("object") and one.doubts("object", Timestamp(50)) and not one.doubts("object", Timestamp(51))
    with pytest.raises(Unavailable, match="was away"):
        one.check("object")
    await one.move("object", 49)
    assert one.behind("object")
    await one.move("object", 50)
    one.check("object")
    assert not one.doubts("object", Timestamp(50))
    await one.move("object", 20)
    assert one.mark("object") == 50  # it does not go back by itself
    assert (await standing(disk)).mark("object") == 50
    assert (await standing(disk, Horizon(200, 100))).behind("object")


async def test_what_it_is_opened_with(autojump_clock: trio.testing.MockClock) -> None:
    disk = a_disk()
    one = await standing(disk)
    await one.opened(["object"], empty=False)
    assert one.behind("object")
    await one.opened(["object"], empty=True)
    assert not one.behind("object")  # nothing can come back from where nothing is
    await one.move("object", 90)
    await one.take_back()
    await one.opened(["object"], empty=False)
    assert one.mark("object") == 0 and (await standing(disk)).mark("object") == 0
    await one.opened(["object"], empty=True)
    assert one.mark("object") == 50


async def test_marks_of_two_rings_that_move_at_once_both_stay(autojump_clock: trio.testing.MockClock) -> None:
    disk = a_disk()
    one = await standing(disk)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.move, "container", 60)
        nursery.start_soon(one.move, "account", 70)
    assert [one.mark(name) for name in ("container", "account")] == [60, 70]
    again = await standing(disk)
    assert [again.mark(name) for name in ("container", "account")] == [60, 70]


async def test_a_mark_that_cannot_be_written_does_not_count(autojump_clock: trio.testing.MockClock) -> None:
    simulation = Simulation(1)
    medium = simulation.node("n").disk("/d")
    medium.empty()
    one = await standing(simulation.node("n").world.open_disk("/d"))
    medium.dead = True
    with pytest.raises(DiskFault, match="cannot be written"):
        await one.move("object", 70)
    assert one.mark("object") == 0


def test_what_is_closed() -> None:
    one = Standing(a_disk(), PATH)
    assert one.closed_above("object", Timestamp(1)) is None  # no horizon yet
    one.horizon = lambda name: Horizon(100, 50)
    assert one.closed_above("object", Timestamp(100)) == Timestamp(101)
    assert one.closed_above("object", Timestamp(100, 1)) is None
