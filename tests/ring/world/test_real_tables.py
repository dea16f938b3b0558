"""What of a device's tables must not be on its disk: the locks, which every reader writes to, through a mapping."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ring.world.interface import Write
from ring.world.real import make_world
from ring.world.real.tables import forget_others

MEMORY = Path("/dev/shm")


def locks() -> set[str]:
    folder = MEMORY / f"ringfort-{os.geteuid()}"
    return {name.name for name in folder.iterdir()} if folder.exists() else set()


@pytest.mark.skipif(not MEMORY.is_dir(), reason="there is no place in memory")
async def test_locks_lie_in_memory_while_the_tables_are_open(tmp_path: Path) -> None:
    disk = make_world().open_disk(str(tmp_path))
    before = locks()
    for value in (b"1", b"2"):
        tables = await disk.open_tables("t", ["a"])
        await tables.commit([Write("a", b"key", value)])
        assert tables.get("a", b"key") == value
        assert os.listdir(tmp_path / "t") == ["data.mdb"]
        assert len(locks() - before) == 2  # a name for the store, and the locks beside it
        await tables.close()
        assert not locks() - before


@pytest.mark.skipif(not MEMORY.is_dir(), reason="there is no place in memory")
async def test_names_of_stores_that_are_gone_are_forgotten(tmp_path: Path) -> None:
    """Those of processes that were killed; not those of stores that are there."""
    tables = await make_world().open_disk(str(tmp_path)).open_tables("t", ["a"])
    there = locks()
    left = MEMORY / f"ringfort-{os.geteuid()}" / f"gone-{os.getpid()}"
    left.symlink_to(tmp_path / "nowhere" / "data.mdb")
    Path(f"{left}-lock").write_bytes(bytes(8192))
    forget_others()
    assert not {left.name, f"{left.name}-lock"} & locks()
    mine = {name for name in there if (MEMORY / f"ringfort-{os.geteuid()}" / name).is_symlink()}
    assert any(os.readlink(MEMORY / f"ringfort-{os.geteuid()}" / name).startswith(str(tmp_path)) for name in mine & locks())
    await tables.close()


OPENED = """
import sys, trio
from ring.world.interface import Write
from ring.world.real import make_world

async def main(path):
    disk = make_world().open_disk(path)
    for round in range(2):
        tables = await disk.open_tables("t", ["a"])
        assert tables.get("a", b"k") == (b"v" if round else None)
        await tables.commit([Write("a", b"k", b"v")])
        await tables.close()

trio.run(main, sys.argv[1])
"""


NO_PLACE = {
    "full": (f"mount -t tmpfs -o size=4k tmpfs {MEMORY} && head -c 4096 /dev/zero > {MEMORY}/other", None),
    "full of names": (f"mount -t tmpfs -o nr_inodes=1 tmpfs {MEMORY}", None),
    "read-only": (f"mount -t tmpfs -o ro tmpfs {MEMORY}", None),
    "somebody else's, and the store is in it": (
        f"mount -t tmpfs tmpfs {MEMORY} && mkdir {MEMORY}/store && mkdir -m 0755 {MEMORY}/ringfort-$(id -u)",
        MEMORY / "store",
    ),
}


@pytest.mark.parametrize("why", NO_PLACE)
def test_where_memory_takes_no_locks_they_lie_beside_the_store(tmp_path: Path, why: str) -> None:
    """The process is not killed for it, and nothing else is removed at the end."""
    prepare, place = NO_PLACE[why]
    isolated = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"])]
    if subprocess.run([*isolated, "true"], check=False, capture_output=True).returncode:
        pytest.skip("no mounts of one's own here")
    program = f'{prepare} && exec "{sys.executable}" -c "$0" {place or tmp_path}'
    subprocess.run([*isolated, "sh", "-c", program, OPENED], check=True, timeout=60)
