"""The set-hash tree against the plain definition: XOR of digests, grouped by leaf."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ring.errors import BadInput
from ring.names import partition_of
from storage.sync.tree import (
    ZERO,
    Toggles,
    combine,
    differing,
    digest,
    digests,
    leaf_of,
    leaf_range,
    partition_range,
    xor,
)
from tests.storage.rows.memory import MemoryTables

HASHES = st.binary(min_size=16, max_size=16)
# Few distinct prefixes, so that leaves are shared.
CLOSE = st.builds(lambda head, tail: head + tail, st.sampled_from([b"\0\0\0", b"\0\0\1", b"\x7f\xff\xff", b"\xff\xff\xff"]), HASHES)


def fill(items: set[bytes]) -> MemoryTables:
    tables = MemoryTables()
    toggles = Toggles("object")
    for item in items:
        toggles.toggle(item, digest(item, b""))
    tables.apply(toggles.writes(tables))
    return tables


@given(st.sets(st.one_of(HASHES, CLOSE), max_size=30), st.sampled_from([0, 1, 7, 8, 12, 13, 20, 24]))
def test_digests_are_the_sums_by_leaf(items: set[bytes], part_power: int) -> None:
    tables = fill(items)
    for partition in {partition_of(item, part_power) for item in items} | {0, (1 << part_power) - 1}:
        expected: dict[int, bytes] = {}
        root = ZERO
        for item in items:
            if partition_of(item, part_power) == partition:
                leaf = leaf_of(item, part_power)
                expected[leaf] = xor(expected.get(leaf, ZERO), digest(item, b""))
                root = xor(root, digest(item, b""))
        found = digests(tables, "object", partition, part_power)
        assert found.leaves == expected
        assert found.root == root
        assert len(found.leaves) <= 4096
        for leaf in expected:
            start, end = leaf_range(partition, leaf, part_power)
            inside = [item for item in items if start <= item and (end is None or item < end)]
            assert {leaf_of(item, part_power) for item in inside} == {leaf}
            assert {partition_of(item, part_power) for item in inside} == {partition}
            assert len(inside) == sum(leaf_of(i, part_power) == leaf and partition_of(i, part_power) == partition for i in items)


@given(st.lists(st.lists(st.tuples(CLOSE, st.sampled_from([b"a", b"b", None])), max_size=10), max_size=5))
def test_incremental_equals_rebuilt(transactions: list[list[tuple[bytes, bytes | None]]]) -> None:
    tables, held = MemoryTables(), dict[bytes, bytes]()
    for transaction in transactions:
        toggles = Toggles("object")
        for key, content in transaction:
            if key in held:
                toggles.toggle(key, digest(key, held.pop(key)))
            if content is not None:
                held[key] = content
                toggles.toggle(key, digest(key, content))
        tables.apply(toggles.writes(tables))
    rebuilt, toggles = MemoryTables(), Toggles("object")
    for key, content in held.items():
        toggles.toggle(key, digest(key, content))
    rebuilt.apply(toggles.writes(rebuilt))
    assert tables.data.get("tree", {}) == rebuilt.data.get("tree", {})


@given(st.sets(CLOSE, max_size=20), st.sets(CLOSE, max_size=5))
@settings(max_examples=50)
def test_the_leaves_that_differ_hold_the_keys_that_differ(common: set[bytes], only: set[bytes]) -> None:
    one, other = digests(fill(common), "object", 0, 0), digests(fill(common | only), "object", 0, 0)
    assert differing(one, other) == sorted({leaf_of(item, 0) for item in only - common})


def test_a_growing_part_power_splits_partitions_without_a_rewrite() -> None:
    items = {bytes([n]) + bytes(15) for n in range(256)}
    tables = fill(items)
    for part_power in range(8):
        for partition in range(1 << part_power):
            halves = [digests(tables, "object", 2 * partition + half, part_power + 1).root for half in (0, 1)]
            assert digests(tables, "object", partition, part_power).root == xor(*halves)


def test_kinds_are_apart_and_can_be_combined() -> None:
    tables = MemoryTables()
    for kind, key in (("object", b"\xff" * 16), ("container", b"\xff" * 16), ("account", bytes(16))):
        toggles = Toggles(kind)
        toggles.toggle(key, digest(key, kind.encode()))
        tables.apply(toggles.writes(tables))
    container, account = digests(tables, "container", 0, 0), digests(tables, "account", 0, 0)
    assert container.root == digest(b"\xff" * 16, b"container")
    assert combine(container, account).root == xor(container.root, account.root)
    assert combine(container, account).leaves == {**account.leaves, **container.leaves}


def test_ranges() -> None:
    assert partition_range(0, 0) == (bytes(4), None)
    assert partition_range(3, 2) == (b"\xc0\0\0\0", None)
    assert partition_range(1, 8) == (b"\1\0\0\0", b"\2\0\0\0")
    for call in (lambda: partition_range(4, 2), lambda: leaf_range(0, 4096, 2), lambda: leaf_of(bytes(16), 25)):
        with pytest.raises(BadInput):
            call()
