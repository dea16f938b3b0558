"""What every Tables store promises, on LMDB and on the simulated one."""

from __future__ import annotations

import pathlib

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ring.errors import BadInput
from ring.world.interface import Disk, Tables, World, Write
from ring.world.real import make_world
from ring.world.sim import SimWorld


@pytest.fixture(params=["real", "sim"])
async def disk(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Disk:
    world: World = make_world() if request.param == "real" else SimWorld(1)
    disk = world.open_disk(str(tmp_path / "sda"))
    await disk.make_dirs("")
    return disk


async def fill(tables: Tables) -> None:
    await tables.commit([Write("a", key.encode(), key.upper().encode()) for key in ("b", "d", "da", "f", "h")])


async def test_get_and_overwrite(disk: Disk) -> None:
    tables = await disk.open_tables("index", ["a", "b"])
    assert tables.get("a", b"k") is None
    await tables.commit([Write("a", b"k", b"1"), Write("b", b"k", b"2"), Write("a", b"gone", b"x"), Write("a", b"gone", None)])
    assert (tables.get("a", b"k"), tables.get("b", b"k"), tables.get("a", b"gone")) == (b"1", b"2", None)
    await tables.commit([Write("a", b"k", b""), Write("b", b"k", None), Write("b", b"never", None)])
    assert (tables.get("a", b"k"), tables.get("b", b"k")) == (b"", None)
    assert tables.get_many("a", [b"no", b"k", b"gone", b"k"]) == [None, b"", None, b""]
    assert tables.get_many("a", []) == []
    await tables.close()


@pytest.mark.parametrize(
    ("start", "end", "limit", "reverse", "expected"),
    [
        (b"", None, 10, False, "b d da f h"),
        (b"", None, 2, False, "b d"),
        (b"d", b"f", 10, False, "d da"),
        (b"c", b"g", 10, False, "d da f"),
        (b"i", None, 10, False, ""),
        (b"f", b"d", 10, False, ""),
        (b"", None, 0, False, ""),
        (b"", None, 10, True, "h f da d b"),
        (b"", b"f", 2, True, "da d"),
        (b"d", b"g", 10, True, "f da d"),
        (b"", b"z", 1, True, "h"),
        (b"", b"b", 1, True, ""),
        (b"da", b"da", 5, True, ""),
        (b"", None, 1, False, "b"),
        (b"c", b"d", 1, False, ""),
        (b"c", b"da", 1, False, "d"),
        (b"i", None, 1, False, ""),
    ],
)
async def test_scan(disk: Disk, start: bytes, end: bytes | None, limit: int, reverse: bool, expected: str) -> None:
    tables = await disk.open_tables("index", ["a"])
    assert tables.scan("a", start, end, limit=limit, reverse=reverse) == []
    await fill(tables)
    found = tables.scan("a", start, end, limit=limit, reverse=reverse)
    assert found == [(key.encode(), key.upper().encode()) for key in expected.split()]
    await tables.close()


async def test_keys_and_tables_are_checked(disk: Disk) -> None:
    tables = await disk.open_tables("index", ["a"])
    await tables.commit([Write("a", b"k" * 511, b"v" * 100_000)])
    assert tables.get("a", b"k" * 511) == b"v" * 100_000
    for write in (Write("a", b"", b""), Write("a", b"k" * 512, b""), Write("z", b"k", b"")):
        with pytest.raises(BadInput):
            await tables.commit([Write("a", b"whole", b""), write])
    with pytest.raises(BadInput):
        tables.get("z", b"k")
    for table, keys in (("z", [b"k"]), ("a", [b"k", b""])):
        with pytest.raises(BadInput):
            tables.get_many(table, keys)
    with pytest.raises(BadInput):
        tables.scan("z", limit=1)
    assert tables.get("a", b"whole") is None
    await tables.close()


async def test_what_was_committed_is_there_when_it_is_opened_again(disk: Disk) -> None:
    tables = await disk.open_tables("deep/index", ["a"])
    await fill(tables)
    await tables.close()
    tables = await disk.open_tables("deep/index", ["a", "more"])
    assert len(tables.scan("a", limit=10)) == 5
    assert tables.scan("more", limit=1) == []
    await tables.close()
    assert "data.mdb" in await disk.list_dir("deep/index")


async def test_a_second_handle_sees_the_same(disk: Disk) -> None:
    one = await disk.open_tables("index", ["a"])
    two = await disk.open_tables("index", ["a"])
    await one.commit([Write("a", b"k", b"v")])
    assert two.get("a", b"k") == b"v"
    with pytest.raises(BadInput):
        await disk.open_tables("index", ["b"])
    await one.close()
    assert two.get("a", b"k") == b"v"
    await two.close()


async def test_commits_of_many_tasks(disk: Disk) -> None:
    tables = await disk.open_tables("index", ["a"])

    async def commit(number: int) -> None:
        key = b"%03d" % number
        await tables.commit([Write("a", key, b"x"), Write("a", b"last", key)])
        assert tables.get("a", key) == b"x"

    async with trio.open_nursery() as nursery:
        for number in range(60):
            nursery.start_soon(commit, number)
    assert len(tables.scan("a", limit=100)) == 61
    await tables.close()


async def test_the_map_grows(disk: Disk) -> None:
    tables = await disk.open_tables("index", ["a"], map_bytes=1 << 16)
    for number in range(20):
        await tables.commit([Write("a", b"%05d/%03d" % (number, item), b"v" * 200) for item in range(100)])
    assert len(tables.scan("a", limit=10_000)) == 2000
    await tables.close()


KEYS = st.binary(min_size=1, max_size=3)
BATCHES = st.lists(st.lists(st.tuples(KEYS, st.none() | st.binary(max_size=4)), max_size=6), max_size=6)


@pytest.mark.parametrize("kind", ["real", "sim"])
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    batches=BATCHES,
    start=st.binary(max_size=2),
    end=st.none() | st.binary(max_size=2),
    limit=st.integers(0, 5),
    reverse=st.booleans(),
)
def test_like_a_sorted_dict(
    kind: str,
    tmp_path_factory: pytest.TempPathFactory,
    batches: list[list[tuple[bytes, bytes | None]]],
    start: bytes,
    end: bytes | None,
    limit: int,
    reverse: bool,
) -> None:
    model: dict[bytes, bytes] = {}

    async def main() -> None:
        world: World = make_world() if kind == "real" else SimWorld(1)
        disk = world.open_disk(str(tmp_path_factory.mktemp("tables")))
        await disk.make_dirs("")
        tables = await disk.open_tables("t", ["a"], map_bytes=1 << 20)
        for batch in batches:
            await tables.commit([Write("a", key, value) for key, value in batch])
            for key, value in batch:
                if value is None:
                    model.pop(key, None)
                else:
                    model[key] = value
        expected = [item for item in sorted(model.items(), reverse=reverse) if start <= item[0] and (end is None or item[0] < end)]
        assert tables.scan("a", start, end, limit=limit, reverse=reverse) == expected[:limit]
        await tables.close()

    trio.run(main)


async def test_count(disk: Disk) -> None:
    tables = await disk.open_tables("index", ["a", "b"])
    assert tables.count("a") == 0
    await tables.commit([Write("a", b"1", b"x"), Write("a", b"2", b"x"), Write("b", b"1", b"x")])
    await tables.commit([Write("a", b"1", None), Write("a", b"2", b"y")])
    assert (tables.count("a"), tables.count("b")) == (1, 1)
    with pytest.raises(BadInput):
        tables.count("c")
    await tables.close()


async def test_closed_tables_are_not_read(disk: Disk) -> None:
    tables = await disk.open_tables("index", ["a"])
    second = await disk.open_tables("index", ["a"])
    await tables.close()
    assert second.get("a", b"k") is None
    await second.close()
    for read in (lambda: second.get("a", b"k"), lambda: second.get_many("a", [b"k"]), lambda: second.scan("a", limit=1)):
        with pytest.raises(OSError, match="closed"):
            read()
