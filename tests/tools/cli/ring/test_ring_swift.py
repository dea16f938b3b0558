"""import-swift and export-swift."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ring.swift.ringgz import decode_ring_gz
from ring.swift.swiftbuilder import decode_swift_builder
from tests.tools.cli.ring.desk import Desk

GOLDEN = Path(__file__).parents[3] / "golden"
BUILDER, RING = GOLDEN / "swift-2.38.builder", GOLDEN / "swift-2.38-v1.ring.gz"
ASSUMED = "not in a ring, so assumed: 24 min part hours, no overload, nothing being removed, all free to move"


def test_a_builder_of_swift(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    assert desk.done("import-swift", str(BUILDER)) == (
        f"{desk.path} is made of {BUILDER}: version 11, 16 partitions, 2.500000 replicas, 6 devices\n"
        f"The nodes get it after: ringfort ring {desk.path} write_ring\n"
    )
    assert desk.builder == decode_swift_builder(BUILDER.read_bytes()).builder
    desk.done("write_ring")
    assert desk.ring.version == 11
    assert "DEL" in desk.done()
    desk.placed("--force")
    assert desk.builder.removed == set()


def test_a_ring_of_swift(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    assert desk.done("import-swift", str(RING), "--min-part-hours", 3) == (
        f"{desk.path} is made of {RING}: version 11, 16 partitions, 2.500000 replicas, 6 devices\n"
        f"NOTE: {ASSUMED.replace('24', '3')}\n"
        f"{desk.path.with_suffix('.ring')} is written.\n"
    )
    assert desk.builder.min_part_hours == 3
    assert len(desk.builder.id) == 32
    assert [list(row) for row in desk.ring.table] == [row.tolist() for row in desk.builder.table]
    assert "is up-to-date" in desk.done()


def test_what_was_read_as_json(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    facts = {
        "version": 11,
        "part_power": 4,
        "next_part_power": None,
        "partitions": 16,
        "replicas": 2.5,
        "devices": 6,
        "placed": 40,
    }
    assert desk("import-swift", str(BUILDER), "--json").json == facts | {
        "kind": "builder",
        "id": "0123456789abcdef" * 2,
        "min_part_hours": 3,
        "overload": 0.1,
        "removed": [4],
        "notes": [],
        "source": str(BUILDER),
        "builder": str(desk.path),
        "ring": None,
    }
    read = desk("import-swift", str(RING), "--json", "--force").json
    assert read == facts | {
        "kind": "ring v1",
        "id": desk.builder.id,
        "min_part_hours": 24,
        "overload": 0.0,
        "removed": [],
        "notes": [ASSUMED],
        "source": str(RING),
        "builder": str(desk.path),
        "ring": str(desk.path.with_suffix(".ring")),
    }
    target = str(tmp_path / "for-swift.builder")
    said = desk("export-swift", target, "--json").json
    assert said["target"] == target
    assert said["bytes"] == os.path.getsize(target)
    assert said["version"] == 11


def test_to_swift(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.done("import-swift", str(BUILDER))
    builder, ring = tmp_path / "for-swift.builder", tmp_path / "for-swift.ring.gz"
    assert desk.done("export-swift", str(builder)) == (
        f"{builder} is written: version 11, 16 partitions, 2.500000 replicas, 6 devices\n"
    )
    desk.done("export-swift", str(ring))
    assert builder.read_bytes() == (GOLDEN / "swift-1.builder").read_bytes()
    assert decode_ring_gz(ring.read_bytes()).builder.devices == desk.builder.devices
    assert ring.stat().st_mode & 0o777 == 0o644  # Swift's daemons are another user


@pytest.mark.parametrize("source", [BUILDER, RING])
def test_nothing_is_written_over_unasked(tmp_path: Path, source: Path) -> None:
    desk = Desk(tmp_path)
    desk.done("create", 3, 3, 1)
    before = desk.files()
    said = desk("import-swift", str(source))
    assert (said.status, said.out) == (2, "")
    assert said.err == f"ringfort: {desk.path} exists already\nhint: name another file, or --force to write over it\n"
    assert desk.files() == before
    desk.done("import-swift", str(source), "--force")
    assert desk.builder.part_power == 4


def test_a_ring_is_not_written_over_unasked(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.path.with_suffix(".ring").write_bytes(b"somebody's")
    before = desk.files()
    assert desk("import-swift", str(RING)).status == 2
    assert desk.files() == before
    desk.done("import-swift", str(BUILDER))  # writes none


def test_what_is_not_ours_is_not_written_over_even_when_asked(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.path.write_bytes(BUILDER.read_bytes())
    said = desk("import-swift", str(desk.path), "--force")
    assert said.status == 2
    assert "is a builder file of Swift" in said.err
    assert desk.path.read_bytes() == BUILDER.read_bytes()


def test_an_export_is_not_written_over_unasked(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.done("import-swift", str(BUILDER))
    target = tmp_path / "for-swift.ring.gz"
    target.write_bytes(b"somebody's")
    said = desk("export-swift", str(target))
    assert said.status == 2
    assert said.err == f"ringfort: {target} exists already\nhint: name another file, or --force to write over it\n"
    assert target.read_bytes() == b"somebody's"
    desk.done("export-swift", str(target), "-f")
    assert decode_ring_gz(target.read_bytes()).builder.version == 11


def test_an_export_never_writes_over_the_builder_itself(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.done("import-swift", str(BUILDER))
    before = desk.files()
    (tmp_path / "link.builder").symlink_to(desk.path)
    for name in ("object.builder", "./object.builder", "link.builder"):
        said = desk("export-swift", str(tmp_path / name), "--force")
        assert said.status == 2
        assert "is the builder itself" in said.err
    (tmp_path / "link.builder").unlink()
    assert desk.files() == before


def test_bad_input(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    foreign, cut, folder = tmp_path / "foreign.builder", tmp_path / "cut.builder", tmp_path / "folder.builder"
    foreign.write_text("hello")
    cut.write_bytes(BUILDER.read_bytes()[:-5])
    folder.mkdir()
    before = desk.files()
    for arguments, words in (
        (("import-swift",), "Missing argument 'SOURCE'"),
        (("import-swift", tmp_path / "none.builder"), f"there is no {tmp_path / 'none.builder'}"),
        (("import-swift", foreign), f"{foreign} is neither a .builder nor a .ring.gz of Swift"),
        (("import-swift", cut), f"{cut}: not a Swift builder file: it is cut short"),
        (("import-swift", folder), "Is a directory"),
        (("import-swift", BUILDER, "--min-part-hours", 3), "--min-part-hours is for a .ring.gz"),
        (("import-swift", RING, "--min-part-hours", -3), "min part hours are not negative"),
        (("import-swift", RING, "--min-part-hours", "x"), "not a valid integer"),
        (("import-swift", BUILDER, "--forced"), "--forced"),
    ):
        said = desk(*map(str, arguments))
        assert (said.status, said.out) == (2, ""), arguments
        assert words in said.err
        assert said.err.startswith("ringfort: ")
        assert desk.files() == before
    assert desk("export-swift", str(tmp_path / "x.builder")).status == 2  # there is no builder yet
    desk.done("import-swift", str(BUILDER))
    before = desk.files()
    for target, words in (
        (tmp_path / "object.gz", "is neither a .builder nor a .ring.gz"),
        (tmp_path / "none" / "object.ring.gz", "No such file or directory; nothing was written"),
        (folder, "is a folder"),
    ):
        said = desk("export-swift", str(target), "--force")
        assert (said.status, said.out) == (2, ""), target
        assert words in said.err
        assert desk.files() == before


def test_an_export_of_nothing_placed(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.done("create", 3, 1, 1)
    said = desk("export-swift", str(tmp_path / "x.ring.gz"))
    assert said.status == 2
    assert said.err == "ringfort: nothing is placed yet\nhint: rebalance first\n"
    desk.done("export-swift", str(tmp_path / "x.builder"))
    assert decode_swift_builder((tmp_path / "x.builder").read_bytes()).builder == desk.builder


@pytest.mark.parametrize("source", [BUILDER, RING])
@pytest.mark.parametrize("room", [0, 1, 2, 3])
def test_a_full_disk_leaves_nothing_half(tmp_path: Path, source: Path, room: int) -> None:
    desk = Desk(tmp_path)
    said = desk("import-swift", str(source), room=room)
    if said.status == 2:
        assert "no space left" in said.err
        assert desk.files() == {}
    else:
        assert desk.builder.version == 11
        assert (source == RING) == desk.path.with_suffix(".ring").exists()
