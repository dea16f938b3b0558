"""What of a device's tables must not be on its disk: the locks, which every reader writes to, through a mapping."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ring.world.interface import Write
from ring.world.real import make_world

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
