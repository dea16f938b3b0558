"""plan, certificate, plot, and how amounts are typed and read."""

from __future__ import annotations

from pathlib import Path

import defusedxml.ElementTree as ElementTree
import pytest

from ring.errors import BadInput
from tests.tools.cli.ring.desk import Desk
from tools.cli.ring.amounts import bytes_text, parse_bytes, parse_number, parse_rate, table, time_text


def grown(folder: Path) -> Desk:
    """Three zones hold 64 partitions each; a fourth, empty, is to take 48 of their 192 replicas: 16 of each."""
    desk = Desk.with_zones(folder)
    desk.placed()
    desk.hours_pass(2)
    desk.done("add", "r1z4-10.0.4.1:6200/sdb", 100)
    return desk


# ---- plan


def test_a_plan_by_hand(tmp_path: Path) -> None:
    desk = grown(tmp_path)
    before = desk.files()
    lines = desk.done("plan", "--fill", "640GB", "--rate", "100MB/s").splitlines()
    assert lines == [
        "object.builder, build version 6: what rebalancing would do",
        "",
        "pass  starts  moves  lower bound  percent   bytes       takes  waiting  balance  dispersion",
        "1        now     48           48    25.00  480 GB  1 h 20 min        0     0.00        0.00",
        "",
        "48 moves (the lower bound), 480 GB, done in 1 h 20 min at the earliest.",
        "Busiest device: d3r1z4-10.0.4.1:6200/sdb, 48 replicas in and out in one pass.",
        "",
        "zone  in  out  inside  bytes in  bytes out",
        "r1z1   0   16       0       0 B     160 GB",
        "r1z2   0   16       0       0 B     160 GB",
        "r1z3   0   16       0       0 B     160 GB",
        "r1z4  48    0       0    480 GB        0 B",
        "",
        "server         in  out  inside  bytes in  bytes out",
        "r1z4-10.0.4.1  48    0       0    480 GB        0 B",
        "r1z1-10.0.1.1   0   16       0       0 B     160 GB",
        "r1z2-10.0.2.1   0   16       0       0 B     160 GB",
        "r1z3-10.0.3.1   0   16       0       0 B     160 GB",
        "",
        "device                    in  out  bytes in  bytes out",
        "d3r1z4-10.0.4.1:6200/sdb  48    0    480 GB        0 B",
        "d0r1z1-10.0.1.1:6200/sdb   0   16       0 B     160 GB",
        "d1r1z2-10.0.2.1:6200/sdb   0   16       0 B     160 GB",
        "d2r1z3-10.0.3.1:6200/sdb   0   16       0 B     160 GB",
    ]
    assert desk.files() == before


def test_the_ways_to_say_how_full_it_is(tmp_path: Path) -> None:
    desk = grown(tmp_path)
    ways = [
        ["--fill", "640GB"],  # of the three that hold something
        ["--total", "640GB"],  # three replicas of it on three devices
        ["--used", "64", "--device-size", "1TB"],
    ]
    assert {desk("plan", "--json", *way).json["bytes"] for way in ways} == {480e9}
    text = desk.done("plan")
    assert "How full the ring is was not said, so bytes and times are not known: --fill 4TB" in text
    assert "    -" in text
    assert "How fast devices move it was not said" in desk.done("plan", "--fill", "1GB")


def test_a_plan_as_json(tmp_path: Path) -> None:
    said = grown(tmp_path)("plan", "--fill", "640GB", "--rate", "100MB/s", "--concurrency", "1", "--json").json
    assert (said["moves"], said["lower_bound"], said["complete"], said["replica_bytes"]) == (48, 48, True, 1e10)
    assert said["seconds"] == said["passes"][0]["seconds"] == 4800.0
    assert said["passes"][0]["busiest"] == {"device": 3, "replicas": 48}
    assert said["waits"]["locked"] == 0
    zones = [(f["tier"], f["in"], f["out"], f["bytes_in"]) for f in said["flows"] if f["level"] == "zone"]
    assert zones == [("r1z1", 0, 16, 0.0), ("r1z2", 0, 16, 0.0), ("r1z3", 0, 16, 0.0), ("r1z4", 48, 0, 48e10)]
    assert [f["tier"] for f in said["flows"] if f["level"] == "device"][3] == "d3r1z4-10.0.4.1:6200/sdb"


def test_a_plan_is_what_rebalance_does(tmp_path: Path) -> None:
    desk = grown(tmp_path)
    planned = desk("plan", "--seed", "word", "--json").json
    assert desk.placed("--seed", "word").startswith(f"Reassigned {planned['passes'][0]['moves']} ")
    assert desk.builder.counts() == dict.fromkeys(range(4), 48)


def test_nothing_to_move_exits_1(tmp_path: Path) -> None:
    desk = Desk.with_zones(tmp_path)
    desk.placed()
    said = desk("plan")
    assert (said.status, said.out) == (1, "Nothing would move.\n")
    assert desk("plan", "--json").json["passes"] == []


def test_a_pass_that_waits_and_a_first_placement(tmp_path: Path) -> None:
    desk = Desk.with_zones(tmp_path)
    assert "The first placement: there is nothing to copy yet." in desk.done("plan", "--fill", "1TB", "--rate", "1MB/s")
    desk.placed()
    desk.done("add", "r1z4-10.0.4.1:6200/sdb", 100)
    lines = desk.done("plan").splitlines()
    assert lines[3].split()[:3] == ["1", "now", "0"]
    assert lines[4].split()[:4] == ["2", "+1", "h", "48"]
    assert "More passes follow these." in desk("plan", "--passes", "1").out


# ---- certificate


def test_a_certificate(tmp_path: Path) -> None:
    desk = Desk.with_zones(tmp_path)
    desk.placed()
    lines = desk.done("certificate").splitlines()
    assert lines[0] == "object.builder, build version 5: 64 partitions, 3 replicas, 3 devices"
    assert lines[2] == "moves of the last rebalance    192  the lower bound is 192: none could be fewer"
    assert "zone        3                    1      1                  0                    0" in lines
    said = desk("certificate", "--json").json
    assert (said["balanced"], said["dispersed"], said["minimal"], said["owed"]) == (True, True, True, 0)
    assert said["scatter"] == {"least": 2, "median": 2, "most": 2, "possible": 2}


def test_a_certificate_of_a_ring_that_is_owed_moves(tmp_path: Path) -> None:
    said = grown(tmp_path)("certificate")
    assert said.status == 1
    assert "48  48 replicas are still to move" in said.out
    (tmp_path / "new").mkdir()
    assert Desk.with_zones(tmp_path / "new")("certificate").err == ("ringfort: nothing is placed yet\nhint: rebalance first\n")


# ---- plot


def test_a_picture_beside_the_builder(tmp_path: Path) -> None:
    desk = grown(tmp_path)
    assert desk.done("plot").startswith(f"{tmp_path}/object.svg: 4 devices, ")
    picture = (tmp_path / "object.svg").read_text()
    assert ElementTree.fromstring(picture).tag.endswith("svg")
    assert "object.builder, build version 6" in picture and "Moves per zone" not in picture
    desk.done("plot", "--plan")  # over the old one
    assert "48 moves in 1 pass" in (tmp_path / "object.svg").read_text()
    assert desk.done("plot", "-o", "-", "--plan") == (tmp_path / "object.svg").read_text()
    desk.done("plot", "-o", str(tmp_path / "other.svg"))
    assert (tmp_path / "other.svg").read_text() == picture


def test_a_picture_over_something_else_is_refused(tmp_path: Path) -> None:
    desk = grown(tmp_path)
    (tmp_path / "notes").write_text("notes")
    said = desk("plot", "-o", str(tmp_path / "notes"))
    assert (said.status, said.err) == (
        2,
        f"ringfort: {tmp_path}/notes exists and is not a picture\nhint: name another file, or --force\n",
    )
    assert (tmp_path / "notes").read_text() == "notes"
    assert desk("plot", "-o", str(tmp_path / "notes"), "--force").status == 0
    assert (tmp_path / "notes").read_text().startswith("<svg ")
    before = desk.files()
    for name in ("object.builder", "object.ring"):
        said = desk("plot", "--force", "-o", str(tmp_path / name))
        assert (said.status, said.err) == (2, f"ringfort: {tmp_path}/{name} is the ring itself\n")
    assert desk("plot", "-o", str(tmp_path)).err.startswith(f"ringfort: {tmp_path} is a folder\n")
    assert desk("plot", "-o", str(tmp_path / "no" / "such.svg")).status == 2
    assert desk.files() == before


# ---- errors


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["plan", "--fill", "4XB"], "ringfort: not a number of bytes: 4XB\nhint: 10TB, "),
        (["plan", "--fill", "4TB/s"], "ringfort: not a number of bytes: 4TB/s\n"),
        (["plan", "--fill", "-4TB"], "ringfort: not a number of bytes: -4TB\n"),
        (["plan", "--fill", "4TB", "--total", "1TB"], "ringfort: how full the ring is can be said in one way only\n"),
        (["plan", "--used", "50"], "ringfort: --used and --device-size say how full the ring is together\n"),
        (["plan", "--used", "101", "--device-size", "1TB"], "ringfort: a device is used by 0 to 100 percent, not 101\n"),
        (["plan", "--used", "nan", "--device-size", "1TB"], "ringfort: not a number from 0 on: nan\n"),
        (["plan", "--rate", "1MB/s"], "ringfort: --rate tells nothing before it is known how full the ring is\n"),
        (["plan", "--fill", "1TB", "--rate", "0"], "ringfort: a rate is more than 0 bytes/s, not 0.0\n"),
        (["plan", "--fill", "1TB", "--concurrency", "4"], "ringfort: --concurrency needs --rate\n"),
        (["plan", "--concurrency", "0"], "ringfort: Invalid value for '--concurrency'"),
        (["plan", "--passes", "0"], "ringfort: neither a number of passes nor all: 0\n"),
        (["plan", "--passes", "few"], "ringfort: neither a number of passes nor all: few\n"),
        (["plan", "--sede", "1"], "ringfort: No such option"),
    ],
)
def test_errors_are_one_clear_line_and_exit_2(tmp_path: Path, arguments: list[str], line: str) -> None:
    desk = grown(tmp_path)
    said = desk(*arguments)
    assert (said.status, said.out) == (2, "")
    assert said.err.startswith(line)


def test_too_few_devices(tmp_path: Path) -> None:
    desk = Desk.with_zones(tmp_path, 2)
    assert desk("plan").err.startswith("ringfort: 3 replicas need at least 3 devices with weight, there are 2\n")
    assert desk("plot").err.startswith("ringfort: nothing is placed yet\n")


# ---- amounts


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("10TB", 10e12),
        ("4TiB", 4 * 1024**4),
        ("500G", 500e9),
        ("1.5 kB", 1500),
        (".5MiB", 512 * 1024),
        ("7", 7),
        ("7b", 7),
        ("1e12", 1e12),
        ("2.5E+3", 2500),
        ("3eib", 3 * 1024**6),
    ],
)
def test_amounts_are_typed_as_people_do(text: str, number: float) -> None:
    assert parse_bytes(text) == parse_rate(text) == number
    assert parse_rate(f"{text}/s" if "e" not in text.lower() or "b" in text else text) == number


@pytest.mark.parametrize("text", ["", "TB", "-1", "1 2", "nan", "inf", "1e999", "1e-3", "10ZB", "1,000", "٣GB", "0x10"])
def test_what_is_no_amount(text: str) -> None:
    for parse in (parse_bytes, parse_rate):
        with pytest.raises(BadInput):
            parse(text)


@pytest.mark.parametrize("text", ["", "-1", "nan", "inf", "x"])
def test_what_is_no_number(text: str) -> None:
    with pytest.raises(BadInput):
        parse_number(text)


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0 B"),
        (7, "7 B"),
        (999, "999 B"),
        (999.6, "1.00 kB"),
        (1234, "1.23 kB"),
        (99_949, "99.9 kB"),
        (99_960, "100 kB"),
        (123_456, "123 kB"),
        (999_600, "1.00 MB"),
        (4e12, "4.00 TB"),
        (5e21, "5000 EB"),
    ],
)
def test_bytes_are_read_at_a_glance(number: float, text: str) -> None:
    assert bytes_text(number) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.2, "< 1 s"),
        (59, "59 s"),
        (60, "1 min"),
        (61, "1 min 1 s"),
        (3600, "1 h"),
        (3601, "1 h"),
        (4800, "1 h 20 min"),
        (86400 * 3 + 4 * 3600 + 5, "3 d 4 h"),
    ],
)
def test_times_have_two_units(seconds: float, text: str) -> None:
    assert time_text(seconds) == text


def test_numbers_stand_right_and_words_left() -> None:
    assert table([["name", "n", "m"], ["a", "10", ""]]) == "name   n  m\na     10"
