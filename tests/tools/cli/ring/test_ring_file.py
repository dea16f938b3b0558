"""The builder file, the ring beside it, backups; two operators at once; disks that are full."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ring.errors import Conflict
from tests.tools.cli.ring.desk import Desk
from tools.cli.main import run
from tools.cli.ring.file import RingFile


@pytest.mark.parametrize("name", ["object", "object.builder", "object.ring"])
def test_file_may_be_named_in_three_ways(tmp_path: Path, name: str) -> None:
    desk = Desk(tmp_path, name)
    desk.done("create", 4, 1, 1)
    desk.done("add", "r1z1-10.0.1.1:6200/sdb", 100)
    desk.placed()
    assert {"object.builder", "object.ring"} < desk.files().keys()
    assert desk("version").status == 0


def test_create_does_not_overwrite(tmp_path: Path) -> None:
    desk = Desk.with_zones(tmp_path)
    before = desk.files()
    said = desk("create", 5, 3, 1)
    assert (said.status, said.err.partition("\n")[0]) == (2, f"ringfort: {desk.path} exists already")
    assert desk.files() == before


def test_a_builder_that_changed_since_it_was_read_is_not_overwritten(tmp_path: Path) -> None:
    desk = Desk.with_zones(tmp_path)
    mine = RingFile(str(desk.path), desk.world())
    builder = mine.load()
    desk.done("set_weight", "d0", 50)
    before = desk.files()
    builder.set_weight(1, 60)
    with pytest.raises(Conflict, match="somebody changed") as refused:
        mine.save(builder)
    assert refused.value.hint
    assert desk.files() == before
    again = mine.load()
    again.set_weight(1, 60)
    mine.save(again)
    mine.save(again)  # what one wrote oneself is no surprise
    assert [d.weight for d in desk.builder.present] == [50, 60, 100]


def test_a_builder_that_vanished_is_not_written_anew(tmp_path: Path) -> None:
    desk = Desk.with_zones(tmp_path)
    mine = RingFile(str(desk.path), desk.world())
    builder = mine.load()
    desk.path.unlink()
    with pytest.raises(Conflict, match="somebody changed"):
        mine.save(builder)
    assert not desk.path.exists()


def test_one_writes_at_a_time(tmp_path: Path) -> None:
    desk = Desk.with_zones(tmp_path)
    mine = RingFile(str(desk.path), desk.world(), lock_tries=2)
    builder = mine.load()
    builder.set_weight(0, 5)
    before = desk.files()
    folder = os.open(tmp_path, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        with pytest.raises(Conflict, match="another command has been writing"):
            mine.save(builder)
        assert desk.files() == before
        assert desk("--json").status == 0  # looking is free
    finally:
        os.close(folder)
    mine.save(builder)


def test_of_many_operators_at_once_each_is_obeyed_or_told(tmp_path: Path) -> None:
    """As many devices as commands that exited 0: no update is lost, and somebody always gets on."""
    desk = Desk(tmp_path)
    desk.done("create", 8, 1, 1)

    def operator(number: int) -> list[int]:
        return [run(["ring", str(desk.path), "add", f"r1z{number}-10.0.{number}.{turn}:6200/sdb", "1"]) for turn in range(8)]

    with ThreadPoolExecutor(4) as pool:
        statuses = [status for each in pool.map(operator, range(4)) for status in each]
    assert set(statuses) <= {0, 2}
    assert len(desk.builder.present) == statuses.count(0) > 0
    assert sorted(desk.files())[1:] == ["object.builder"]


@pytest.mark.parametrize("room", range(4))
def test_a_full_disk_leaves_everything_as_it_was(tmp_path: Path, room: int) -> None:
    """A rebalance writes four files; whichever finds no room, none is left behind or changed."""
    desk = Desk.with_zones(tmp_path)
    desk.placed()
    desk.hours_pass(2)
    desk.done("add", "r1z4-10.0.4.1:6200/sdb", 100)
    before = desk.files()
    said = desk("rebalance", room=room)
    assert (said.status, said.out) == (2, "")
    assert said.err == f"ringfort: no space left in {tmp_path}; nothing was changed\nhint: old backups are in {tmp_path}/backups\n"
    assert desk.files() == before
    assert desk("rebalance", room=4).status == 0


def test_a_builder_in_a_folder_that_is_not_there(tmp_path: Path) -> None:
    desk = Desk(tmp_path / "no")
    said = desk("create", 4, 3, 1)
    assert (said.status, said.err) == (2, f"ringfort: there is no folder {tmp_path}/no\nhint: make the folder first\n")
    for arguments in ([], ["add", "r1z1-10.0.0.1:6200/sdb", "1"]):
        said = desk(*arguments)
        assert (said.status, said.err) == (
            2,
            f"ringfort: there is no {desk.path}\nhint: ringfort ring {desk.path} create PART_POWER REPLICAS MIN_PART_HOURS\n",
        )


AS_NOBODY = """
import os, sys
import tools.cli.ring.devices, ring.world.real  # all of it, before the rights to read it are gone
from tools.cli.main import run
if os.getuid() == 0:
    os.setgroups([]), os.setgid(65534), os.setuid(65534)
sys.exit(run(sys.argv[1:]))
"""


def test_a_read_only_folder() -> None:
    """Root may write anywhere, so a user without rights gives the commands; pytest's own folders are not for others."""
    with tempfile.TemporaryDirectory() as name:
        desk = Desk.with_zones(Path(name))
        before = desk.files()
        os.chmod(name, 0o555)
        command = [sys.executable, "-c", AS_NOBODY, "ring", str(desk.path)]
        root = Path(__file__).parents[4]
        changed = subprocess.run([*command, "set_weight", "d0", "1"], capture_output=True, text=True, cwd=root)
        shown = subprocess.run(command, capture_output=True, text=True, cwd=root)
        os.chmod(name, 0o755)
        assert (changed.returncode, changed.stderr) == (
            2,
            f"ringfort: {name}: {os.strerror(errno.EACCES)}; nothing was changed\n"
            "hint: check who owns the folder and how it is mounted\n",
        )
        assert shown.returncode == 0, shown.stderr
        assert desk.files() == before


def test_a_backup_per_ring_and_none_overwritten(tmp_path: Path) -> None:
    desk = Desk.with_zones(tmp_path)
    for _ in range(3):  # in one second
        desk.placed("--force")
    desk.clock.seconds += 10
    desk.done("write_ring")
    now = int(desk.clock.seconds)
    assert [name for name in desk.files() if name.endswith(".ring")] == [
        *(f"backups/{now - 10 + number}.object.ring" for number in (1, 2, 3)),
        f"backups/{now}.object.ring",
        "object.ring",
    ]
