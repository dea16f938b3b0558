"""swift-ring-builder and ours, side by side: the same commands give the same exit codes, the same words where it prints facts, and
the same figures wherever they do not depend on which replica lies where."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.compat.swift_venv import swift_python
from tests.tools.cli.ring.desk import Desk, Said

pytestmark = pytest.mark.compat


# A process of Swift's that runs one command line after another, each as a process of its own would end: an exception is exit 2.
TELLER = """
import contextlib, importlib, io, json, os, sys, traceback
from swift.cli.ringbuilder import main
requests, answers = sys.stdin, sys.stdout
for line in requests:
    request = json.loads(line)
    os.chdir(request["folder"])
    sys.stdin = io.StringIO(request["typed"])
    out, err, status = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            sys.argv = ["swift-ring-builder", *request["arguments"]]
            main(sys.argv)
        except SystemExit as end:
            status = end.code or 0
        except Exception:
            traceback.print_exc()
            status = 2
    print(json.dumps([status, out.getvalue(), err.getvalue()]), file=answers, flush=True)
"""


class Teller:
    def __init__(self, python: Path) -> None:
        command = [str(python), "-c", TELLER]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __call__(self, folder: Path, arguments: Sequence[str], typed: str) -> Said:
        assert self._process.stdin is not None and self._process.stdout is not None
        request = {"folder": str(folder), "arguments": arguments, "typed": typed}
        print(json.dumps(request), file=self._process.stdin, flush=True)
        return Said(*json.loads(self._process.stdout.readline()))

    def close(self) -> None:
        with self._process:  # closes its input, and waits
            pass


@dataclass
class Beside:
    """Two operators who do the same, one with each tool."""

    teller: Teller
    folder: Path  # Swift's
    ours: Desk

    def swift(self, *arguments: str, typed: str = "") -> Said:
        return self.teller(self.folder, ["object.builder", *arguments], typed)

    def __call__(self, *arguments: str, typed: str = "") -> tuple[Said, Said]:
        """What Swift says, what we say; the exit codes are the same."""
        theirs, ours = self.swift(*arguments, typed=typed), self.ours(*arguments, typed=typed)
        assert ours.status == theirs.status, (arguments, theirs, ours)
        return theirs, ours

    def same_words(self, *arguments: str, typed: str = "") -> None:
        theirs, ours = self(*arguments, typed=typed)
        assert ours.out == theirs.out, arguments

    def settle(self) -> None:
        """Rebalance each until nothing moves, be it worth it or not."""
        for tool in (self.swift, self.ours):
            for _ in range(6):
                tool("pretend_min_part_hours_passed")
                if "Reassigned 0 " in tool("rebalance", "--seed", "7", "--force").out:
                    break

    def same_table(self) -> None:
        theirs, ours = (table(said.out) for said in self())
        assert ours.facts == theirs.facts
        assert ours.columns == theirs.columns
        assert [row.device for row in ours.rows] == [row.device for row in theirs.rows]
        for our, their in zip(ours.rows, theirs.rows, strict=True):
            assert abs(our.partitions - their.partitions) <= 1, (our, their)
            if their.partitions:  # by how many percent one partition changes it
                assert abs(our.balance - their.balance) <= 100 / their.partitions + 0.5, (our, their)


@dataclass(frozen=True)
class Row:
    device: str  # all but the figures that hang on the placement
    partitions: int
    balance: float


@dataclass(frozen=True)
class Table:
    facts: list[str]
    columns: list[str]
    rows: list[Row]


def table(text: str) -> Table:
    lines = text.splitlines()
    head = next(index for index, line in enumerate(lines) if line.startswith("Devices:"))
    names = re.split(r" +(?=[a-z])", lines[head])
    assert lines[0].startswith(("object.builder, build version ", "/"))
    facts = [lines[1].partition(" balance")[0].rpartition(",")[0], lines[2].partition("(")[0], lines[3]]
    state = re.match(
        r"Ring file .*object\.ring(?:\.gz)? (is up-to-date|is obsolete|not found, probably it hasn't been written yet)", lines[4]
    )
    assert state is not None, lines[4]
    rows = []
    for line in lines[head + 1 :]:
        cells = line.split(maxsplit=8)
        if len(cells) < 9 or not cells[0].isdigit():
            continue
        balance, _, rest = cells[8].partition(" ")
        rows.append(Row(" ".join(cells[:7] + rest.split()), int(cells[7]), float(balance)))
    return Table([*facts, state[1]], names, rows)


@pytest.fixture(scope="module")
def teller() -> Iterator[Teller]:
    teller = Teller(swift_python())
    yield teller
    teller.close()


@pytest.fixture
def beside(tmp_path: Path, teller: Teller) -> Beside:
    theirs, ours = tmp_path / "swift", tmp_path / "ours"
    theirs.mkdir()
    ours.mkdir()
    return Beside(teller, theirs, Desk(ours))


def fill(beside: Beside) -> None:
    """Three zones of two servers with unlike disks."""
    beside("create", "8", "3", "1")
    beside.same_words("add", "r1z1-10.0.1.1:6200/sdb", "100")
    beside.same_words("add", "r1z1-10.0.1.2:6200R10.1.1.2:6201/sdb_old shelf", "100", "r1z2-10.0.2.1:6200/sdb", "100.5")
    beside.same_words("add", "r1z2-[fd00:0::22]:6200/sdb_", "100")
    options = "--region 1 --zone 3 --ip 10.0.3.1 --port 6200 --device sdb --weight 100"
    beside.same_words("add", *options.split(), "--meta", "by option")
    options = "-r 1 -z 3 -i 10.0.3.2 -p 6200 -j 10.1.3.2 -q 6209 -d nvme0n1p1 -w 100 -y"
    beside.same_words("add", *options.split())


@pytest.fixture
def searched(beside: Beside) -> Beside:
    fill(beside)
    beside("rebalance", "--seed", "7")
    return beside


def test_building_growing_and_draining(beside: Beside) -> None:
    fill(beside)
    beside.same_table()
    theirs, ours = beside("rebalance", "--seed", "7")
    assert re.findall("^Reassigned [^%]*%", ours.out) == re.findall("Reassigned [^%]*%", theirs.out)
    beside.same_table()
    beside("rebalance")  # nothing to do: 1
    beside("add", "r1z1-10.0.1.3:6200/sdb", "100", "r1z2-10.0.2.3:6200/sdb", "100", "r1z3-10.0.3.3:6200/sdb", "100")
    beside.same_table()
    beside("rebalance")  # too early: 1
    beside.settle()
    beside.same_table()
    beside.same_words("set_weight", "d0", "0")
    beside.same_table()
    beside.settle()
    beside.same_table()
    beside.same_words("remove", "d0")
    beside("rebalance")
    beside.same_table()
    beside.same_words("remove", "10.0.2.3")
    beside.same_table()
    beside.settle()
    beside.same_table()
    beside("validate")
    beside("version")


def test_what_changes_devices(beside: Beside) -> None:
    fill(beside)
    beside("rebalance", "--seed", "7")
    beside.same_words("set_weight", "d1", "120", "/nvme0n1p1", "50.25")
    beside.same_words("set_weight", "z2", "77", typed="y\n")
    beside.same_words("set_weight", "--zone", "2", "78", "--yes")
    beside.same_words("set_region", "d2", "2")
    beside.same_words("set_zone", "-i", "10.0.3.1", "9", "-y")
    beside.same_words("set_info", "d1", "10.0.9.9:7000R10.1.9.9:7001/sdx_new meta")
    beside.same_words("set_info", "d1", "_", "d2", "/sdq")
    beside.same_words("set_info", "-u", "4", "--change-meta", "changed", "--change-device", "sdz")
    beside.same_words("set_replicas", "2.5")
    beside.same_words("set_overload", "0.1")
    beside.same_words("set_overload", "12.5%")
    beside.same_words("set_min_part_hours", "3")
    beside.same_words("remove", "d4", "d5", "--yes")
    beside.same_table()
    assert beside.swift("set_overload", "2").status == beside.ours("set_overload", "2").status == 1
    beside("write_ring")
    beside.same_table()


@pytest.mark.parametrize(
    "arguments",
    [
        ["d0"],
        ["z2"],
        ["r1z3"],
        ["r1"],
        ["10.0.1.1"],
        ["z1-10.0.1.2"],
        ["z1-10.0.1.2:6200R10.1.1.2:6201/sdb_shelf"],
        [":6200"],
        ["R:6201"],
        ["R10.1.1.2"],
        ["/nvme0n1p1"],
        ["_old"],
        ["[fd00::0:22]"],
        ["z2-[FD00::22]:6200"],
        ["d7"],
        ["sdb"],
        ["z"],
        ["--region", "1"],
        ["--zone", "3", "--device", "sdb"],
        ["-i", "fd00:0::22"],
        ["--replication-ip", "10.1.3.2", "--replication-port", "6209"],
        ["--weight", "100.5"],
        ["--id", "0"],
        ["--meta", "option"],
        ["--id", "0", "d0"],
    ],
)
def test_searches_find_the_same_devices(searched: Beside, arguments: list[str]) -> None:
    theirs, ours = searched("search", *arguments)
    if ours.status:
        return
    found = [[line.split()[:9] for line in said.out.splitlines()] for said in (theirs, ours)]
    assert found[0] == found[1]
    listed = [said.out.splitlines() for said in searched("list_parts", *arguments)]
    assert listed[0][0] == listed[1][0]
    sums = [sum(int(line.split()[1]) for line in lines[1:]) for lines in listed]
    assert abs(sums[0] - sums[1]) <= len(found[0]) - 1  # each device is within one partition


NUMBERED = ["d0", "d1", "d9", "r1", "r2", "z1", "z3"]
ADDRESSED = ["-", "10.0.1.1", "10.0.3.1", "[fd00::22]", "[FD00:0::22]", ":6200", ":6201", "R", "R10.1.1.2", "R:6209"]
PIECES = [*NUMBERED, *ADDRESSED, "/sdb", "/", "_", "_old", "x", "0", "[::1", "]"]


@given(st.lists(st.sampled_from(PIECES), min_size=1, max_size=5).map("".join))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_is_searched_for_is_found_by_both_or_by_none(searched: Beside, text: str) -> None:
    if text.startswith("-") or not text.strip("R"):  # Swift's options; and what means every device, which we refuse
        return
    theirs, ours = searched("search", text)
    found = [[line.split()[0] for line in said.out.splitlines()[1:]] if said.status == 0 else [] for said in (theirs, ours)]
    assert found[0] == found[1]


def test_dispersion_reports(beside: Beside) -> None:
    """Zone 1 has more than a third of the weight."""
    beside("create", "8", "3", "1")
    for zone, server, weight in ((1, 1, 100), (1, 2, 110), (1, 3, 100), (2, 1, 120), (2, 2, 130), (3, 1, 140), (3, 2, 90)):
        beside.same_words("add", f"r1z{zone}-10.0.{zone}.{server}:6200/sdb", str(weight))
    for verb in ("dispersion", "list_parts"):
        beside(verb, "d0")
    beside("rebalance", "--seed", "7")  # a warning: 1
    for arguments in ([], ["-v"], [r"r\d+z\d+$", "-v"], ["r1z2"], [r".*\-[^/]*$", "-v"], ["r1z1", "--verbose"]):
        theirs, ours = (said.out.splitlines() for said in beside("dispersion", *arguments))
        assert ours[1] == theirs[1]  # required overload
        assert len(ours) == len(theirs)
        head = next((index for index, line in enumerate(theirs) if line.startswith("Tier ")), len(theirs))
        assert ours[head - 1 : head + 2] == theirs[head - 1 : head + 2]
        for our, their in zip(ours[head + 2 :], theirs[head + 2 :], strict=True):
            (tier, parts, percent, most, *_), wanted = our.split(), their.split()
            assert (tier, most) == (wanted[0], wanted[3])
            assert abs(int(parts) - int(wanted[1])) <= 3
            assert abs(float(percent) - float(wanted[2])) < 1.5
    beside("set_overload", "50%")
    beside("pretend_min_part_hours_passed")
    beside.settle()
    assert [said.out.splitlines()[0].split(",")[0] for said in beside("dispersion")] == ["Dispersion is 0.000000"] * 2


def test_a_partition_power_increase(beside: Beside) -> None:
    fill(beside)
    beside("rebalance", "--seed", "7")
    for wrong in ("increase_partition_power", "finish_increase_partition_power"):
        beside(wrong)
    beside("prepare_increase_partition_power")
    for wrong in ("prepare_increase_partition_power", "finish_increase_partition_power", "rebalance"):
        beside(wrong)
    beside("add", "r1z1-10.0.1.9:6200/sdb", "100")
    beside("remove", "d0")
    beside("write_ring")
    beside("increase_partition_power")
    beside("increase_partition_power")
    beside("write_ring")
    beside("finish_increase_partition_power")
    beside("write_ring")
    beside.same_table()
    beside("prepare_increase_partition_power")
    beside("cancel_increase_partition_power")  # Swift's has to be finished yet, to clean up links; ours is over


@pytest.mark.parametrize(
    "arguments",
    [
        "frobnicate",
        "create",
        "create 8 3",
        "create 8 0.5 1",
        "create 40 3 1",
        "add",
        "add nonsense 1",
        "add r1z1-10.0.1.9:6200/sdb",
        "add r1z1-10.0.1.9/sdb 1",
        "add r1z1-10.0.1.9:6200/sdb heavy",
        "add r1z1-10.0.1.1:6200/sdb 1",
        "add r1z1-node:6200/sdb 1",
        "add --region 1 --zone 1",
        "add --region 1 r1z1-10.0.1.9:6200/sdb 1",
        "set_weight",
        "set_weight d0",
        "set_weight d0 heavy",
        "set_weight d0 -1",
        "set_weight d99 1",
        "set_weight d99z 1",
        "set_weight --id 0",
        "set_info d0",
        "set_info d0 sdb",
        "set_info d1 10.0.1.1:6200/sdb",
        "set_info d99 _x",
        "set_region d99 1",
        "set_region d0 one",
        "set_zone d99 1",
        "set_zone d0 one",
        "remove",
        "remove d99",
        "remove z1",
        "remove d0 z9z",
        "rebalance --nonsense",
        "search",
        "search d99",
        "list_parts",
        "list_parts d0",
        "list_parts d99",
        "dispersion",
        "validate",
        "version",
        "set_replicas",
        "set_replicas 0.5",
        "set_replicas many",
        "set_overload",
        "set_overload much",
        "set_min_part_hours",
        "set_min_part_hours soon",
        "write_builder",
    ],
)
def test_errors_of_a_ring_that_was_never_rebalanced(beside: Beside, arguments: str) -> None:
    fill(beside)
    before = beside.ours.files(), (beside.folder / "object.builder").read_bytes()
    theirs, ours = beside(*arguments.split())
    assert theirs.status == 2
    assert ours.err.startswith("ringfort: ")
    assert (beside.ours.files(), (beside.folder / "object.builder").read_bytes()) == before


def test_rebalances_that_cannot_be(beside: Beside) -> None:
    beside("create", "8", "3", "1")
    beside("write_ring")
    beside("rebalance")
    beside("add", "r1z1-10.0.1.1:6200/sdb", "100", "r1z2-10.0.2.1:6200/sdb", "100")
    beside("rebalance")  # three replicas, two devices
    beside("add", "r1z3-10.0.3.1:6200/sdb", "100", "r1z4-10.0.4.1:6200/sdb", "100")
    beside("rebalance")
    beside("rebalance")
    beside("rebalance", "--force")
    beside("set_weight", "r1", "0", "--yes")
    beside("rebalance")


def test_a_change_of_less_than_a_percent_is_refused_and_may_be_forced(beside: Beside) -> None:
    beside("create", "12", "3", "0")
    for zone, weight in ((1, 200), (2, 150), (3, 100)):
        for server in (1, 2):
            beside("add", f"r1z{zone}-10.0.{zone}.{server}:6200/sdb", str(weight))
    beside("rebalance", "--seed", "7")
    beside("set_overload", "0.002")
    theirs, ours = beside("rebalance", "--seed", "7")
    assert "Cowardly refusing" in theirs.out
    assert ours.out.startswith("Nothing was written: ")
    theirs, ours = beside("rebalance", "--force")
    assert theirs.out.count("Reassigned") == ours.out.count("Reassigned") == 1
