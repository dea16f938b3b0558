"""Search values and long options: which devices are meant."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ring.device import Device
from ring.errors import BadInput
from tests.tools.cli.ring.desk import Desk
from tools.cli.ring.search import Search, host, named, parse_search


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("d74", Search(id=74)),
        ("r4", Search(region=4)),
        ("z1", Search(zone=1)),
        ("d74r4z1", Search(id=74, region=4, zone=1)),
        ("z1-1.2.3.4", Search(zone=1, ip="1.2.3.4")),
        ("1.2.3.4", Search(ip="1.2.3.4")),
        ("-1.2.3.4", Search(ip="1.2.3.4")),
        ("z1:5678", Search(zone=1, port=5678)),
        (":5678", Search(port=5678)),
        ("R5.6.7.8", Search(replication_ip="5.6.7.8")),
        ("R:5678", Search(replication_port=5678)),
        ("1.2.3.4R5.6.7.8", Search(ip="1.2.3.4", replication_ip="5.6.7.8")),
        ("/sdb1", Search(name="sdb1")),
        ("_shiny", Search(meta="shiny")),
        ("_snet: 5.6.7.8", Search(meta="snet: 5.6.7.8")),
        ("[::1]", Search(ip="::1")),
        ("[0:0::1]:6200", Search(ip="::1", port=6200)),
        ("z1-[FD00::1]:5678", Search(zone=1, ip="fd00::1", port=5678)),
        (
            "d74r4z1-1.2.3.4:5678R[::2]:5679/sdb1_a/b_c",
            Search(74, 4, 1, "1.2.3.4", 5678, "::2", 5679, "sdb1", None, "a/b_c"),
        ),
    ],
)
def test_search_values(text: str, wanted: Search) -> None:
    assert parse_search(text) == wanted


@pytest.mark.parametrize(
    "text",
    ["", "-", "sdb1", "d", "r", "z1r1", "z1d1", "3", "1.2.3", "1.2.3.400", "[::1", "[]", ":", "R", "z1 ", "d1d2", "x", "dà"],
)
def test_what_is_no_search_value(text: str) -> None:
    with pytest.raises(BadInput):
        parse_search(text)


numbers = st.integers(0, 99_999)
addresses = st.ip_addresses().map(lambda address: address.compressed)
words = st.text("abcdefghijklmnopqrstuvwxyz0123456789-.", min_size=1)
devices = st.builds(
    Device,
    id=numbers,
    region=numbers,
    zone=numbers,
    ip=addresses,
    port=st.integers(0, 65535),
    name=words,
    weight=st.floats(0, 1e9),
    meta=st.text("abc _/:-Rdz[]", max_size=9),
    replication_ip=addresses,
    replication_port=st.integers(0, 65535),
)


@given(devices, devices)
def test_a_device_s_name_finds_it_and_no_other_place(device: Device, other: Device) -> None:
    """What is printed of a device, with the quotes that a shell takes away, is a search value for it."""
    search = parse_search(named(device).replace('"', ""))
    assert search.matches(device)
    if search.matches(other):
        assert (device.id, device.ip, device.port, device.name) == (other.id, other.ip, other.port, other.name)


@given(st.text(max_size=30))
def test_whatever_is_typed_is_a_search_or_bad_input(text: str) -> None:
    try:
        assert parse_search(text).given()
    except BadInput as error:
        assert error.message


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("Node-4.Example", "node-4.example"), ("10.0.0.4", "10.0.0.4"), ("[FD00::1]", "fd00::1"), ("fd00::01", "fd00::1")],
)
def test_hosts(text: str, wanted: str) -> None:
    assert host(text) == wanted


@pytest.mark.parametrize("text", ["", "-a", "a-", "a..b", "a b", "10.0.0", "10.0.0.256", "[::1", "a" * 64, "a_b"])
def test_no_hosts(text: str) -> None:
    with pytest.raises(BadInput):
        host(text)


def ids(desk: Desk, *arguments: str) -> list[int]:
    return [device["id"] for device in desk("search", *arguments, "--json").json]


def test_search(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.done("create", 4, 2, 1)
    desk.done(
        "add", "r1z1-10.0.0.1:6200R10.1.0.1:6201/sdb_old shelf", 100, "r1z2-10.0.0.2:6200/sdb", 0, "r2z1-[fd00::3]:6300/sdc", 50
    )
    desk.done("add", "--region", 3, "--zone", 1, "--ip", "Node4.example", "--port", 6200, "--device", "sdd", "--weight", 10)
    for arguments, wanted in [
        (["z1"], [0, 2, 3]),
        (["r1z1"], [0]),
        (["/sdb"], [0, 1]),
        (["_shelf"], [0]),
        (["-10.0.0.2"], [1]),
        (["[fd00:0::3]"], [2]),
        (["R10.1.0.1"], [0]),
        (["--weight", "0"], [1]),
        (["--id", "0"], [0]),
        (["-r", "1", "-z", "2"], [1]),
        (["--ip", "NODE4.example"], [3]),
        (["--ip", "fd00::3", "--port", "6300"], [2]),
        (["--replication-ip", "10.1.0.1", "--replication-port", "6201"], [0]),
        (["--meta", "old"], [0]),
        (["-d", "sdc", "-w", "50"], [2]),
    ]:
        assert ids(desk, *arguments) == wanted, arguments
    head, line = desk.done("search", "d0").splitlines()
    assert head.startswith("Devices:    id  region  zone      ip address  port  replication ip  replication port      name weight ")
    assert line.split() == ["0", "1", "1", "10.0.0.1", "6200", "10.1.0.1", "6201", "sdb", "100.00", "0", "-100.00", "old", "shelf"]
    nothing = desk("search", "d9")
    assert (nothing.status, nothing.out, nothing.err) == (2, "", "ringfort: No matching devices found\n")


@pytest.mark.parametrize(
    "arguments", [["search"], ["search", "d0", "--zone", "1"], ["list_parts"], ["remove"], ["remove", "-u", "0", "d0"]]
)
def test_one_way_of_asking_at_a_time(tmp_path: Path, arguments: list[str]) -> None:
    desk = Desk.with_zones(tmp_path, 1)
    said = desk(*arguments)
    assert said.status == 2
    assert said.err.startswith("ringfort: give a search value, or options, and not both\nhint: ")
