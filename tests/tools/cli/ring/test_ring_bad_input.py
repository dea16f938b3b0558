"""What cannot be used is told in one clear line with exit status 2, and no file is touched."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.tools.cli.ring.desk import Desk, Said
from tools.cli.ring.group import VERBS


def refused(desk: Desk, *arguments: str | float) -> str:
    """The line; the rest of the promise is held here."""
    before = desk.files()
    said = desk(*arguments)
    assert desk.files() == before
    return clear(said)


def clear(said: Said) -> str:
    assert said.status == 2, said
    assert said.out == ""
    lines = said.err.splitlines()
    assert lines[0].startswith("ringfort: ")
    assert all(line.startswith("hint: ") for line in lines[1:])
    assert len(lines) <= 2
    return lines[0].removeprefix("ringfort: ")


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    desk = Desk.with_zones(tmp_path)
    desk.placed()
    return desk


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        # devices that are not there, or twice
        (["set_weight", "d9", "1"], "no device matches; nothing was changed"),
        (["remove", "d9"], "no device matches; nothing was changed"),
        (["remove", "10.0.9.9"], "no device matches; nothing was changed"),
        (["set_info", "d9", "_x"], "no device matches; nothing was changed"),
        (["search", "d9"], "No matching devices found"),
        (["list_parts", "d9"], "No matching devices found"),
        (["add", "r1z1-10.0.1.1:6200/sdb", "1"], "d0r1z1-10.0.1.1:6200/sdb is in the ring already"),
        (["set_info", "d1", "10.0.1.1"], "d0r1z1-10.0.1.1:6200/sdb is in the ring already"),
        # search values
        (["search", "sdb"], "not a search value: sdb"),
        (["search", ""], "not a search value: nothing"),
        (["remove", ""], "not a search value: nothing"),
        (["remove", "d0", "z1d1"], "not a search value: z1d1"),
        (["search", "10.0.0.999"], "not an IP address: 10.0.0.999"),
        (["search", "[10.0.0.1"], "not a search value: [10.0.0.1"),
        (["search", "d99999999999999999999"], "not a search value: d99999999999999999999"),
        (["search", "--ip", "a b"], "neither an IP address nor the name of a host: a b"),
        (["search", "--region", "one"], "Invalid value for '-r' / '--region': one is not a whole number from 0 on."),
        (["set_weight", "d0"], "arguments come in pairs: SEARCH_VALUE WEIGHT"),
        (["set_weight", "d0", "1", "d1"], "arguments come in pairs: SEARCH_VALUE WEIGHT"),
        (["set_weight", "--region", "1"], "behind options stands one WEIGHT, not 0 arguments"),
        # weights
        (["set_weight", "d0", "-1"], "a weight is a number from 0 on, not -1.0"),
        (["set_weight", "d0", "nan"], "a weight is a number from 0 on, not nan"),
        (["set_weight", "d0", "inf"], "a weight is a number from 0 on, not inf"),
        (["set_weight", "d0", "-inf"], "not a number that can be used: -inf"),
        (["set_weight", "d0", "1e400"], "a weight is a number from 0 on, not inf"),
        (["set_weight", "d0", "heavy"], "not a weight: heavy"),
        (["set_weight", "d0", "5", "d1", "heavy"], "not a weight: heavy"),
        (["add", "r1z9-10.0.9.9:6200/sdb", "-1"], "a weight is a number from 0 on, not -1.0"),
        (["add", "r1z9-10.0.9.9:6200/sdb", "nan"], "a weight is a number from 0 on, not nan"),
        (["add", "r1z9-10.0.9.9:6200/sdb", "1e400"], "a weight is a number from 0 on, not inf"),
        # devices that cannot be
        (["add", "nonsense", "1"], "not a device: nonsense"),
        (["add", "r1z1-10.0.0.1/sdb", "1"], "not a device: r1z1-10.0.0.1/sdb"),
        (["add", "r1z1-10.0.0.1:6200", "1"], "not a device: r1z1-10.0.0.1:6200"),
        (["add", "r1z1-10.0.0.1:62000000/sdb", "1"], "not a device: r1z1-10.0.0.1:62000000/sdb"),
        (["add", "r1z1-10.0.0.1:65536/sdb", "1"], "not a device: r1z1-10.0.0.1:65536/sdb"),
        (["add", "r1z1-10.0.0.1:6200/", "1"], "not a device: r1z1-10.0.0.1:6200/"),
        (["add", "r1z1-10.0.0.1:6200/sd b", "1"], "not a device: r1z1-10.0.0.1:6200/sd b"),
        (["add", "r1z1-10.0.0.1:6200/sd/b", "1"], "not a device: r1z1-10.0.0.1:6200/sd/b"),
        (["add", "r1z1-10.0.0.1:6200/sdb_two\nlines", "1"], "neither a name nor meta may have control characters: 'two\\nlines'"),
        (["add", "r1z1-10.0.0.1:6200/s\tb", "1"], "neither a name nor meta may have control characters: 's\\tb'"),
        (["add", "r1z1-10.0.0.300:6200/sdb", "1"], "not an IP address: 10.0.0.300"),
        (["add", "r1z1-[::g]:6200/sdb", "1"], "not an IP address: [::g]"),
        (["add", "r1z1-::1:6200/sdb", "1"], "not a device: r1z1-::1:6200/sdb"),
        (["add", "r99999999999999999999z1-10.0.0.1:6200/sdb", "1"], "not a device: r99999999999999999999z1-10.0.0.1:6200/sdb"),
        (["add", "r1z1-10.0.0.1:6200/sdb"], "arguments come in pairs: DEVICE WEIGHT"),
        (["add"], "give DEVICE WEIGHT, or options, and not both"),
        (["add", "--zone", "1", "r1z1-10.0.0.1:6200/sdb", "1"], "give DEVICE WEIGHT, or options, and not both"),
        (["add", "--zone", "1", "--weight", "5"], "missing: --region, --ip, --port, --device"),
        (
            ["add", "--region", "-1", "--zone", "1"],
            "Invalid value for '-r' / '--region': -1 is not a whole number from 0 on.",
        ),
        (["set_info", "d0", ""], "not a change: nothing"),
        (["set_info", "d0", "sdb"], "not a change: sdb"),
        (["set_info", "d0", "/a b"], "not a device: r1z1-10.0.1.1:6200/a b"),
        (["set_info", "d0", ":70000"], "not a device: r1z1-10.0.1.1:70000/sdb"),
        (["set_info", "--id", "0"], "behind options stands one CHANGE, not 0 arguments"),
        (["set_info", "--change-ip", "10.0.9.9"], "give a search value, or options, and not both"),
        (["set_region", "d0", "-1"], "not a region: -1"),
        (["set_zone", "d0", "1.5"], "not a zone: 1.5"),
        # numbers of the ring
        (["set_replicas", "0.5"], "replicas are 1 to 100, not 0.5"),
        (["set_replicas", "-3"], "replicas are 1 to 100, not -3.0"),
        (["set_replicas", "nan"], "replicas are 1 to 100, not nan"),
        (["set_replicas", "1e400"], "replicas are 1 to 100, not inf"),
        (["set_overload", "-0.1"], "not an overload: -0.1"),
        (["set_overload", "-inf"], "not a number that can be used: -inf"),
        (["set_overload", "10%%"], "not an overload: 10%%"),
        (["set_overload", "%"], "not an overload: %"),
        (["set_min_part_hours", "-1"], "min part hours are not negative"),
        (["set_min_part_hours", "1.5"], "Invalid value for 'HOURS': '1.5' is not a valid integer range."),
        (["set_min_part_hours", "1" + 30 * "0"], f"Invalid value for 'HOURS': 1{30 * '0'} is not in the range x<=1000000."),
        # words
        (["dispersion", "("], "not a regular expression: (: missing ), unterminated subpattern at position 0"),
        (["frobnicate"], "No such command 'frobnicate'."),
        (["rebalance", "--sede", "1"], "No such option '--sede'. Did you mean '--seed'?"),
        (["set_weight", "d0", "1", "--regoin", "1"], "No such option '--regoin'. Did you mean '--region'?"),
        (["rebalance", "1", "2"], "Got unexpected extra argument (2)"),
        (["set_replicas"], "Missing argument 'REPLICAS'."),
        (["--json", "search", "d0"], "--json stands behind the verb"),
    ],
)
def test_bad_input(desk: Desk, arguments: list[str], line: str) -> None:
    assert refused(desk, *arguments) == line


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["40", "3", "1"], "the part power is 0 to 24, not 40"),
        (["-1", "3", "1"], "the part power is 0 to 24, not -1"),
        (["6", "0.5", "1"], "replicas are 1 to 100, not 0.5"),
        (["6", "nan", "1"], "replicas are 1 to 100, not nan"),
        (["6", "1000", "1"], "replicas are 1 to 100, not 1000.0"),
        (["6", "3", "-1"], "min part hours are not negative"),
        (["6", "3"], "Missing argument 'MIN_PART_HOURS'."),
        (["six", "3", "1"], "Invalid value for 'PART_POWER': 'six' is not a valid integer."),
        (["1" + 30 * "0", "3", "1"], f"the part power is 0 to 24, not 1{30 * '0'}"),
    ],
)
def test_what_cannot_be_created(tmp_path: Path, arguments: list[str], line: str) -> None:
    assert refused(Desk(tmp_path), "create", *arguments) == line


def test_more_replicas_than_devices(tmp_path: Path) -> None:
    desk = Desk.with_zones(tmp_path, 2)
    assert refused(desk, "rebalance") == "3 replicas need at least 3 devices with weight, there are 2"
    desk.done("set_replicas", 2)
    desk.placed()
    desk.done("set_replicas", 5)
    assert refused(desk, "rebalance") == "5 replicas need at least 5 devices with weight, there are 2"
    desk.done("set_replicas", 2)
    desk.done("remove", "d0")
    assert refused(desk, "rebalance") == "2 replicas need at least 2 devices with weight, there are 1"


READS = [[], ["--json"], ["add", "r1z1-10.0.0.1:6200/sdb", "1"], ["rebalance"], ["search", "d0"], ["id"], ["write_ring"]]


@pytest.mark.parametrize("arguments", READS)
def test_files_that_are_no_builders(tmp_path: Path, arguments: list[str]) -> None:
    desk = Desk.with_zones(tmp_path)
    desk.placed()
    whole = desk.path.read_bytes()
    for data, line in [
        (b"", f"{desk.path} is not a builder file"),
        (b"hello", f"{desk.path} is not a builder file"),
        (whole[:-1], f"{desk.path}: a builder file is cut short or has something behind its end"),
        (whole[:20], f"{desk.path}: a builder file is cut short"),
        (whole + b"x", f"{desk.path}: a builder file is cut short or has something behind its end"),
        (whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:], f"{desk.path}: a builder file fails its checksum"),
        ((tmp_path / "object.ring").read_bytes(), f"{desk.path} holds a ring, not a builder"),
        (pickle.dumps({"part_power": 6}, protocol=2), f"{desk.path} is a builder file of Swift"),
        (b"\x1f\x8b" + b"R1NG", f"{desk.path} is a ring file of Swift"),
    ]:
        desk.path.write_bytes(data)
        assert refused(desk, *arguments) == line


def test_a_swift_builder_comes_with_a_hint(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.path.write_bytes(pickle.dumps({"part_power": 6}, protocol=2))
    assert desk().err.splitlines()[1] == f"hint: ringfort ring NEW_FILE import-swift {desk.path}"


def test_ring_files_that_are_no_rings(tmp_path: Path) -> None:
    desk = Desk.with_zones(tmp_path)
    desk.placed()
    ring = tmp_path / "object.ring"
    whole, builder = ring.read_bytes(), desk.path.read_bytes()
    desk.path.unlink()
    for data, line in [
        (whole[:-1], "a ring file is cut short or has something behind its end"),
        (b"R1NG", "not a ring file"),
        (builder, "not a ring file"),
        (whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:], "a ring file fails its checksum"),
    ]:
        ring.write_bytes(data)
        for arguments in (["version"], ["write_builder", "1"]):
            assert refused(desk, *arguments) == f"{ring}: {line}"


@pytest.mark.parametrize("arguments", [*READS, ["create", "6", "3", "1"]])
def test_a_folder_is_no_builder(tmp_path: Path, arguments: list[str]) -> None:
    (tmp_path / "rings.builder").mkdir()
    assert refused(Desk(tmp_path, "rings.builder"), *arguments) == f"{tmp_path}/rings.builder is a folder"
    (tmp_path / "plain").mkdir()
    assert refused(Desk(tmp_path, "plain"), *arguments) == f"{tmp_path}/plain is a folder"


def test_a_folder_where_the_ring_should_be(tmp_path: Path) -> None:
    """Found before the builder is written, not after."""
    desk = Desk.with_zones(tmp_path)
    (tmp_path / "object.ring").mkdir()
    for arguments in ([], ["rebalance"], ["write_ring"], ["version"]):
        assert refused(desk, *arguments) == f"{tmp_path}/object.ring is a folder"


def test_a_damaged_ring_hinders_no_work_on_its_builder(tmp_path: Path) -> None:
    desk = Desk.with_zones(tmp_path)
    desk.placed()
    ring = tmp_path / "object.ring"
    whole = ring.read_bytes()
    for data in (b"", whole[:-3], b"\x1f\x8bR1NG"):
        ring.write_bytes(data)
        assert f"Ring file {ring} is invalid: " in desk.done()
        assert desk("rebalance").out.endswith(f"Ring file {ring} is invalid: write_ring brings it up to date.\n")
        desk.done("write_ring")
        assert ring.read_bytes() == whole


def test_a_ring_of_swift_is_named(tmp_path: Path) -> None:
    said = Desk(tmp_path).run(["ring", "object.ring.gz", "version"])
    assert clear(said) == "object.ring.gz has the name of a ring of Swift"


@pytest.mark.parametrize("name", ["", ".", "..", "rings/", "/"])
def test_names_that_no_file_has(tmp_path: Path, name: str) -> None:
    said = Desk(tmp_path).run(["ring", name, "create", "4", "3", "1"])
    assert clear(said) == f"{name or 'nothing'} is not the name of a file"


def test_a_symbolic_link_is_named(tmp_path: Path) -> None:
    Desk.with_zones(tmp_path)
    (tmp_path / "link.builder").symlink_to("object.builder")
    assert refused(Desk(tmp_path, "link.builder"), "set_weight", "d0", "1").endswith("is a symbolic link")


words = st.one_of(
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12),
    st.sampled_from(
        ["d0", "z1", "r1", "/sdb", "-1", "--", "--yes", "-y", "nan", "1e400", "--json", "--region", "-10.0.0.1", "_", "[::1]"]
    ),
)
# these wait for nobody and may well succeed on what is drawn
TRIED = sorted(
    {name for verbs in VERBS.values() for name in verbs} & {"add", "set_weight", "set_info", "set_zone", "remove", "search"}
)


@given(st.sampled_from(TRIED), st.lists(words, max_size=5))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_is_typed_ends_with_a_status_and_a_whole_builder(desk: Desk, name: str, arguments: list[str]) -> None:
    before = desk.path.read_bytes()
    said = desk(name, *arguments)
    assert said.status in (0, 1, 2)
    if said.status == 2:
        assert said.err.startswith(("ringfort: ", "WARNING: ")) and desk.path.read_bytes() == before
    if said.status == 1:
        assert desk.path.read_bytes() == before
    desk.path.write_bytes(before)
    assert desk("--json").status == 0
