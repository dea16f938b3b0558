"""The bench of one device: all of it in small, its figures, and the page that it writes."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from tests.live.conftest import quick_folder
from tools.bench.figures import BEGIN, END, Table, disk_of, machine, shown, write_between
from tools.bench.plainfiles import PlainFiles
from tools.bench.storage import Bench, Scale

TINY = Scale(rounds=1, seconds=0.02, large=1, objects=200, churn_rounds=1, listings=(2000,), large_bytes=2 << 20, churn_objects=200)


@pytest.fixture
def folder() -> Iterator[Path]:
    """In memory, if that can be had: a disk that others wait for is slow, and what is measured is not looked at."""
    made = Path(tempfile.mkdtemp(prefix="ringfort-bench-", dir=quick_folder()))
    yield made
    shutil.rmtree(made)


def test_all_of_it_in_small(folder: Path) -> None:
    said: list[str] = []
    bench = Bench(str(folder), TINY, said.append)
    trio.run(bench.run)
    assert [table.title for table in bench.tables if not table.cells] == []
    for table in bench.tables:
        for line, columns in table.cells.items():
            for column, values in columns.items():
                none = table is bench.churn or column.startswith("bytes to disk")  # too little to compact; and no disk
                assert all(value > 0 or none for value in values), (table.title, line, column)
    assert set(bench.small.cells) == {"1 at once", "16 at once", "64 at once"}
    assert all(set(columns) == set(bench.small.columns) for columns in bench.small.cells.values())
    assert said[-1] == "listings"


def test_a_plain_file_for_each_object(folder: Path) -> None:
    plain = PlainFiles(str(folder))
    count, seconds, cpu = plain.puts(4, b"x" * 4096, 0.05)
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert len(files) == count > 0 and seconds > 0 and cpu > 0
    assert {path.read_bytes() for path in files} == {b"x" * 4096}
    assert {os.getxattr(path, "user.bench") for path in files} == {b"%d" % number for number in range(1, count + 1)}


def test_a_writer_that_fails_is_told(folder: Path) -> None:
    plain = PlainFiles(str(folder))
    for below in folder.iterdir():
        below.rmdir()
    with pytest.raises(FileNotFoundError):
        plain.puts(2, b"x", 0.05)


def test_medians_of_rounds() -> None:
    table = Table("Rates", ("a", "b"), note="(a second)")
    for value in (1.0, 50.0, 3.0):
        table.put("one", {"a": value})
    table.put("two", {"a": 12345.6, "b": 99.94})
    assert table.markdown().splitlines() == [
        "**Rates** (a second)",
        "",
        "| | a | b |",
        "|---|---:|---:|",
        "| one | 3.00 |  |",
        "| two | 12,346 | 99.9 |",
    ]
    assert table.as_json()["lines"] == {
        "one": {"a": {"median": 3.0, "rounds": [1.0, 50.0, 3.0]}},
        "two": {"a": {"median": 12345.6, "rounds": [12345.6]}, "b": {"median": 99.94, "rounds": [99.94]}},
    }


@pytest.mark.parametrize(("value", "text"), [(None, ""), (0.123, "0.12"), (9.999, "10.00"), (10.04, "10.0"), (1234.5, "1,234")])
def test_digits(value: float | None, text: str) -> None:
    assert shown(value) == text


def test_a_page_keeps_what_is_around_the_tables(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"# Title\n\n{BEGIN}\nold\n{END}\n\nThe end.\n")
    write_between(page, "new")
    assert page.read_text() == f"# Title\n\n{BEGIN}\nnew\n{END}\n\nThe end.\n"
    page.write_text("# No markers\n")
    with pytest.raises(ValueError, match="has no lines"):
        write_between(page, "new")
    assert page.read_text() == "# No markers\n"


def test_the_machine_is_told(tmp_path: Path) -> None:
    line = machine(str(tmp_path))
    assert f"{os.cpu_count()} cores" in line and "load" in line and disk_of(str(tmp_path)) in line
