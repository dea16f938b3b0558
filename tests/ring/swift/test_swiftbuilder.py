"""Swift's builder and ours: every field there and back, old and odd files, what cannot be carried over."""

from __future__ import annotations

import pickle
from array import array
from typing import Any

import numpy as np
import pytest
from hypothesis import given

from ring.builder.builder import HOUR_S, Builder
from ring.device import Device
from ring.errors import BadInput, Conflict, FormatError, RingfortError
from ring.swift.builderpickle import encode
from ring.swift.swiftbuilder import decode_swift_builder, encode_swift_builder
from tests.ring.swift.ground import EPOCH, GOLDEN, Array, builders, content, device, expected, python2


def read(**changed: object) -> Builder:
    found = decode_swift_builder(pickle.dumps(content(**changed), protocol=2))
    assert found.notes == ()
    assert found.kind == "builder"
    return found.builder


def test_every_field() -> None:
    builder = read()
    assert builder.part_power == 2
    assert builder.replicas == 1.5
    assert builder.min_part_hours == 3
    assert builder.version == 7
    assert builder.overload == 0.1
    assert builder.next_part_power is None
    assert builder.id == "0123456789abcdef" * 2
    assert builder.devices == [expected(0), expected(1), expected(2)]
    assert builder.removed == set()
    assert [row.tolist() for row in builder.table] == [[0, 1, 2, 0], [1, 2]]
    assert all(row.dtype == np.uint16 for row in builder.table)
    assert builder.moved_at.tolist() == [EPOCH, EPOCH - HOUR_S, EPOCH - 254 * HOUR_S, 0]


def test_golden_bytes_of_swift() -> None:
    """Written by swift 2.38.3: d1 is gone, d4 on its way out."""
    found = decode_swift_builder(GOLDEN.joinpath("swift-2.38.builder").read_bytes())
    builder = found.builder
    assert found.notes == ()
    assert [None if one is None else str(one) for one in builder.devices] == [
        "d0r1z1-10.0.0.1:6200/sd0",
        None,
        "d2r1z3-10.0.0.3:6200/sd2",
        "d3r2z1-[fd00::3]:6200/sd3",
        "d4r1z2-10.0.0.5:6200/sd4",
        "d5r2z3-10.0.0.6:6200/sd5",
        "d6r1z1-10.0.0.7:6200/sd6",
    ]
    assert builder.device(2) == Device(2, 1, 3, "10.0.0.3", 6200, "sd2", 102.0, "Größe 4 TB", "10.1.0.3", 6300)
    assert builder.removed == {4}
    assert (builder.part_power, builder.replicas, builder.min_part_hours, builder.version) == (4, 2.5, 3, 11)
    assert (builder.overload, builder.id) == (0.1, "0123456789abcdef" * 2)
    assert [row.tolist() for row in builder.table] == [
        [6, 5, 6, 3, 2, 4, 0, 0, 4, 0, 3, 6, 2, 0, 6, 3],
        [4, 4, 2, 6, 5, 5, 5, 2, 6, 5, 2, 3, 0, 2, 3, 2],
        [3, 0, 5, 2, 4, 0, 4, 5],
    ]
    hours = [0, 1, 2, 254]
    assert builder.moved_at.tolist() == [*(EPOCH - hour * HOUR_S for hour in hours), 0, *[EPOCH] * 11]


def test_golden_bytes_of_ours() -> None:
    golden = GOLDEN.joinpath("swift-1.builder").read_bytes()
    builder = decode_swift_builder(GOLDEN.joinpath("swift-2.38.builder").read_bytes()).builder
    assert encode_swift_builder(builder) == golden
    assert decode_swift_builder(golden).builder == builder


@given(builders())
def test_there_and_back(builder: Builder) -> None:
    data = encode_swift_builder(builder)
    found = decode_swift_builder(data)
    assert found.builder == builder
    assert found.notes == ()
    assert encode_swift_builder(found.builder) == data


@given(builders())
def test_what_swift_will_find(builder: Builder) -> None:
    whole = pickle.loads(encode_swift_builder(builder))
    assert whole["parts"] == 1 << whole["part_power"]
    assert [row.typecode for row in whole["_replica2part2dev"]] == ["H"] * len(builder.table)
    assert [row.tolist() for row in whole["_replica2part2dev"]] == [row.tolist() for row in builder.table]
    assert whole["_last_part_moves"].typecode == "B"
    assert {dev["id"]: dev["parts"] for dev in whole["devs"] if dev} == builder.counts()
    assert all(any(one is dev for dev in whole["devs"]) for one in whole["_remove_devs"])
    assert {one["id"] for one in whole["_remove_devs"]} == builder.removed


def test_moves_of_any_second_never_wait_less() -> None:
    """Swift knows hours only: a part of an hour since a move is left out, so Swift waits for it again."""
    builder = read()
    builder.moved_at = np.array([EPOCH, EPOCH - 1, EPOCH - HOUR_S, EPOCH - 300 * HOUR_S], np.uint32)
    whole = pickle.loads(encode_swift_builder(builder))
    assert whole["_last_part_moves_epoch"] == EPOCH
    assert whole["_last_part_moves"].tolist() == [0, 0, 1, 255]


def test_a_builder_that_was_never_rebalanced() -> None:
    builder = Builder.create(3, 3, 24, builder_id="")
    builder.add_device(region=1, zone=1, ip="10.0.0.1", port=6200, name="sda", weight=1)
    whole = pickle.loads(encode_swift_builder(builder))
    assert (whole["_replica2part2dev"], whole["id"], whole["_last_part_moves_epoch"]) == (None, None, 0)
    assert decode_swift_builder(encode_swift_builder(builder)).builder == builder


def test_after_an_increase_of_the_partition_power() -> None:
    """Swift leaves a list where an array was."""
    builder = read(_last_part_moves=[0, 0, 5, 255], part_power=2, next_part_power=2)
    assert builder.moved_at.tolist() == [EPOCH, EPOCH, EPOCH - 5 * HOUR_S, 0]
    assert builder.next_part_power == 2
    long = read(part_power=10, parts=1024, _last_part_moves=[1] * 1024, replicas=1.0, _replica2part2dev=[array("H", [0, 1] * 512)])
    assert long.moved_at.tolist() == [EPOCH - HOUR_S] * 1024


@pytest.mark.parametrize(
    ("changed", "moved"),
    [
        ({"_last_part_moves": None}, [0, 0, 0, 0]),  # a builder that Swift made of a ring
        ({"_last_part_moves_epoch": None}, [0, 0, 0, 0]),
        ({"_last_part_moves_epoch": 0}, [0, 0, 0, 0]),  # pretend_min_part_hours_passed
        ({"_last_part_moves_epoch": HOUR_S + 1}, [HOUR_S + 1, 1, 0, 0]),
        ({"_last_part_moves_epoch": float(EPOCH)}, [EPOCH, EPOCH - HOUR_S, EPOCH - 254 * HOUR_S, 0]),
    ],
)
def test_when_partitions_moved(changed: dict[str, object], moved: list[int]) -> None:
    assert read(**changed).moved_at.tolist() == moved


@pytest.mark.parametrize("raw_arrays", [False, True])
def test_a_builder_of_an_old_swift(raw_arrays: bool) -> None:
    """Of Python 2, before regions, replication addresses, overload, ids and partition power increases."""
    new = {"region", "meta", "replication_ip", "replication_port"}
    devices = [{name: value for name, value in device(i).items() if name not in new} | {"parts": 2} for i in (0, 1)]
    old = content(
        **dict.fromkeys(("next_part_power", "overload", "dev_id_bytes", "_dispersion_graph", "dispersion", "id"), ...),
        devs=[*devices, None],
        replicas=2,
        _replica2part2dev=[Array("H", [0, 1, 0, 1]), Array("H", [1, 0, 1, 0])],
        _last_part_moves=Array("B", [0, 1, 2, 255]),
    )
    builder = decode_swift_builder(python2(old, raw_arrays=raw_arrays)).builder
    assert builder.devices == [
        Device(0, 1, 1, "10.0.0.1", 6200, "sd0", 100.0),
        Device(1, 1, 2, "10.0.0.2", 6200, "sd1", 100.0),
        None,
    ]
    assert [row.tolist() for row in builder.table] == [[0, 1, 0, 1], [1, 0, 1, 0]]
    assert builder.moved_at.tolist() == [EPOCH, EPOCH - HOUR_S, EPOCH - 2 * HOUR_S, 0]
    assert (builder.overload, builder.id, builder.next_part_power) == (0.0, "", None)


def test_ids_of_four_bytes() -> None:
    """Swift 2.38 keeps them wide for a while after many devices are gone."""
    wide = [array("I", [0, 1, 2, 0]), array("I", [1, 2])]
    assert [row.tolist() for row in read(_replica2part2dev=wide, dev_id_bytes=4).table] == [[0, 1, 2, 0], [1, 2]]


def test_a_fraction_of_a_replica_that_is_less_than_one_partition() -> None:
    """Swift keeps an empty row for it, and lengthens it when the partition power grows."""
    builder = read(replicas=1.1, _replica2part2dev=[array("H", [0, 1, 2, 0]), array("H", [])])
    assert [row.tolist() for row in builder.table] == [[0, 1, 2, 0]]
    assert builder.rows == [4]


def test_what_swift_leaves_in_a_device_counts_for_nothing() -> None:
    tiers = ((1,), (1, 1), (1, 1, "10.0.0.1"), (1, 1, "10.0.0.1", 0))
    assert read(devs=[device(0, tiers=tiers, parts=3, parts_wanted=-1), device(1), device(2)]).devices[0] == expected(0)


def test_what_is_left_behind_is_said() -> None:
    data = pickle.dumps(content(devs=[device(0), device(1, colour="red"), device(2)], mood="good"), protocol=2)
    notes = decode_swift_builder(data).notes
    assert notes == ("left behind: mood", "left behind, of device 1: Object contains unknown field `colour`")


def table(first: list[int]) -> dict[str, object]:
    return {"replicas": 1.0, "_replica2part2dev": [array("H", first)]}


REFUSED: dict[str, tuple[dict[str, object], type[RingfortError], str]] = {
    "part power above ours": ({"part_power": 25}, BadInput, "at most 24"),
    "no part power": ({"part_power": ...}, FormatError, "no part power"),
    "part power of Swift's none": ({"part_power": 33}, FormatError, "part power of 33"),
    "part power that is text": ({"part_power": "2"}, FormatError, r"part_power"),
    "part power that is an array": ({"part_power": array("H", [2])}, FormatError, r"part_power"),
    "other arrays": ({"overload": array("B", [2])}, FormatError, "overload"),
    "no replicas": ({"replicas": ...}, FormatError, "replicas"),
    "replicas above ours": ({"replicas": 101}, BadInput, "replicas are 1 to 100"),
    "replicas that are no number": ({"replicas": float("nan")}, BadInput, "replicas"),
    "negative hours": ({"min_part_hours": -1}, FormatError, "min_part_hours"),
    "negative version": ({"version": -1}, FormatError, "version"),
    "version beyond numbers": ({"version": 1 << 60}, FormatError, "version"),
    "negative overload": ({"overload": -0.1}, BadInput, "overload"),
    "next part power two up": ({"next_part_power": 4}, FormatError, "becomes 4"),
    "no devices": ({"devs": ...}, FormatError, "devs is not a list"),
    "devices by name": ({"devs": {"a": device(0)}}, FormatError, "devs is not a list"),
    "a device that is text": ({"devs": ["d0"]}, FormatError, "device 0"),
    "a device without an ip": ({"devs": [{"id": 0, "zone": 1}]}, FormatError, "device 0.*`ip`"),
    "a device with another id": ({"devs": [device(0), device(2)]}, FormatError, "device 1 of the Swift file has the id 2"),
    "a port that is text": ({"devs": [device(0, port="6200")]}, FormatError, "device 0.*port"),
    "a port above 65535": ({"devs": [device(0, port=65536)]}, BadInput, "device 0"),
    "a name with a space": ({"devs": [device(0, device="sd a")]}, BadInput, "device 0.*/sd a"),
    "a name with a slash": ({"devs": [device(0, device="sd/a")]}, BadInput, "device 0"),
    "no name": ({"devs": [device(0, device="")]}, BadInput, "device 0"),
    "a weight that is no number": ({"devs": [device(0, weight=float("nan"))]}, BadInput, "device 0.*weight"),
    "a negative weight": ({"devs": [device(0, weight=-1.0)]}, BadInput, "device 0.*weight"),
    "a negative region": ({"devs": [device(0, region=-1)]}, FormatError, "device 0.*region"),
    "a zone beyond numbers": ({"devs": [device(0, zone=1 << 40)]}, FormatError, "device 0.*zone"),
    "one device twice": ({"devs": [device(0), device(0, id=1), device(2)]}, Conflict, "devices 0 and 1 .* both 10.0.0.1:6200/sd0"),
    "more devices than ids": ({"devs": [None] * 65536}, BadInput, "below 65535"),
    "removes what is not there": ({"_remove_devs": [device(7)]}, FormatError, "removes a device"),
    "removes nothing": ({"_remove_devs": [None]}, FormatError, "removes a device"),
    "removes what is gone": ({"devs": [device(0), None], "_remove_devs": [device(1)]}, FormatError, "removes a device"),
    "removes by text": ({"_remove_devs": ["d0"]}, FormatError, "device 0"),
    "no list of removed": ({"_remove_devs": ...}, FormatError, "_remove_devs is not a list"),
    "a table that is none": ({"_replica2part2dev": 7}, FormatError, "_replica2part2dev is not a list"),
    "a row of text": ({"_replica2part2dev": ["abcd"]}, FormatError, "not numbers"),
    "a row of texts": ({"_replica2part2dev": [["a", "b"]]}, FormatError, "not numbers"),
    "a row too long": (table([0, 1, 2, 0, 1]), FormatError, "replica 0 of the Swift file has 5 partitions, not 4"),
    "a row that is empty": (table([]), FormatError, "0 partitions"),
    "a short row in the middle": (
        {"_replica2part2dev": [array("H", [0, 1]), array("H", [1, 2, 0, 1])]},
        FormatError,
        "replica 1 of the Swift file has 4",
    ),
    "no device for a partition": (table([0, 1, 65535, 1]), BadInput, "partition 2 has no device for replica 0"),
    "a device that is not there": (table([0, 1, 3, 1]), FormatError, "partition 2 is on d3"),
    "two replicas on one device": (
        {"_replica2part2dev": [array("H", [0, 1, 2, 0]), array("H", [1, 1])]},
        Conflict,
        "partition 1 has two replicas",
    ),
    "moves of other partitions": ({"_last_part_moves": array("B", [0] * 5)}, FormatError, "4 partitions.*5 moved"),
    "moves that are text": ({"_last_part_moves": "abcd"}, FormatError, "not numbers"),
    "moves below zero": ({"_last_part_moves": [-1, 0, 0, 0]}, FormatError, "not numbers"),
    "moves after the end of time": ({"_last_part_moves_epoch": 1 << 33}, FormatError, "moved at"),
    "moves before it": ({"_last_part_moves_epoch": -5}, FormatError, "moved at"),
    "moves at no time": ({"_last_part_moves_epoch": float("nan")}, FormatError, "moved at"),
    "an id that is a number": ({"id": 7}, FormatError, "id"),
}


@pytest.mark.parametrize("name", list(REFUSED))
def test_what_is_refused(name: str) -> None:
    changed, error, words = REFUSED[name]
    with pytest.raises(error, match=words) as caught:
        decode_swift_builder(pickle.dumps(content(**changed), protocol=2))
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("value", [None, 7, [], {}, {"devs": []}, [content()["devs"]]])
def test_something_else_in_a_pickle(value: Any) -> None:
    with pytest.raises(FormatError):
        decode_swift_builder(encode(value))


def test_a_dict_that_holds_itself() -> None:
    with pytest.raises(FormatError):
        decode_swift_builder(b"\x80\x02}q\x00(U\x0apart_powerh\x00U\x04devsh\x00u.")
    around = device(0)
    around["self"] = around
    notes = decode_swift_builder(pickle.dumps(content(devs=[around, device(1), device(2)]), protocol=2)).notes
    assert notes == ("left behind, of device 0: Object contains unknown field `self`",)
