"""The set-hash tree against the plain definition: XOR of digests, grouped by leaf; and that a part power is only a way to ask."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ring.errors import BadInput
from ring.names import Span
from storage.sync.tree import (
    STORED_BITS,
    ZERO,
    Toggles,
    combine,
    differing,
    digest,
    digests,
    leaf_bits,
    leaf_of,
    leaf_span,
    partition_from,
    xor,
)
from tests.storage.rows.memory import MemoryTables

HASHES = st.binary(min_size=16, max_size=16)
# Few distinct prefixes, so that leaves are shared.
CLOSE = st.builds(lambda head, tail: head + tail, st.sampled_from([b"\0\0\0", b"\0\0\1", b"\x7f\xff\xff", b"\xff\xff\xff"]), HASHES)
ITEMS = st.sets(st.one_of(HASHES, CLOSE), max_size=30)
POWERS = st.integers(0, STORED_BITS)
WHOLE = Span(0, 0)


def fill(items: set[bytes]) -> MemoryTables:
    tables = MemoryTables()
    toggles = Toggles("object")
    for item in items:
        toggles.toggle(item, digest(item, b""))
    tables.apply(toggles.writes(tables))
    return tables


@given(ITEMS, POWERS)
def test_digests_are_the_sums_by_leaf(items: set[bytes], part_power: int) -> None:
    tables = fill(items)
    for span in {Span.of(item, part_power) for item in items} | {Span(part_power, 0), Span(part_power, (1 << part_power) - 1)}:
        expected: dict[int, bytes] = {}
        root = ZERO
        for item in items:
            if item in span:
                leaf = leaf_of(item, part_power)
                expected[leaf] = xor(expected.get(leaf, ZERO), digest(item, b""))
                root = xor(root, digest(item, b""))
        found = digests(tables, "object", span)
        assert found.leaves == expected
        assert found.root == root
        assert len(found.leaves) <= 4096
        for leaf in expected:
            start, end = leaf_span(span, leaf).bounds
            inside = {item for item in items if start <= item and (end is None or item < end)}
            assert inside == {item for item in items if item in span and leaf_of(item, part_power) == leaf}


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


@given(st.sets(CLOSE, max_size=20), st.sets(CLOSE, max_size=5), POWERS)
@settings(max_examples=50)
def test_the_leaves_that_differ_hold_the_keys_that_differ(common: set[bytes], only: set[bytes], part_power: int) -> None:
    one, other = fill(common), fill(common | only)
    for span in {Span.of(item, part_power) for item in common | only}:
        leaves = differing(digests(one, "object", span), digests(other, "object", span))
        assert leaves == sorted({leaf_of(item, part_power) for item in only - common if item in span})


@given(ITEMS, st.integers(0, STORED_BITS - 1))
def test_a_growing_part_power_splits_partitions_without_a_rewrite(items: set[bytes], part_power: int) -> None:
    """The two halves together are the partition they were; leaf by leaf too, as long as they have as many."""
    tables = fill(items)
    for span in {Span.of(item, part_power) for item in items} | {Span(part_power, 0)}:
        before = digests(tables, "object", span)
        halves = [digests(tables, "object", Span(part_power + 1, 2 * span.partition + half)) for half in (0, 1)]
        assert combine(*halves).root == before.root == xor(halves[0].root, halves[1].root)
        bits = leaf_bits(part_power + 1)
        finer = {(half << bits) | leaf: value for half in (0, 1) for leaf, value in halves[half].leaves.items()}
        summed: dict[int, bytes] = {}
        for leaf, value in finer.items():
            at = leaf >> (bits + 1 - leaf_bits(part_power))  # the same leaves above a part power of 12, pairs of them below
            summed[at] = xor(summed.get(at, ZERO), value)
        assert {leaf: value for leaf, value in summed.items() if value != ZERO} == before.leaves


@pytest.mark.parametrize("part_power", [0, 1, 6, 11, 12, 13, 20, 23, 24])
def test_spans_and_their_leaves_cover_every_hash_once(part_power: int) -> None:
    """In order and without a gap: a partition's leaves end where the next partition begins."""
    count = 1 << part_power
    for partition in {0, 1, count // 2, count - 2, count - 1} & set(range(count)):
        span = Span(part_power, partition)
        at: bytes | None = span.bounds[0]
        for leaf in range(1 << leaf_bits(part_power)):
            start, end = leaf_span(span, leaf).bounds
            assert start == at and (end is None or start < end)
            at = end
        assert at == span.bounds[1]
        if partition == count - 1:
            assert at is None
        else:
            assert at == Span(part_power, partition + 1).bounds[0]


@given(ITEMS, POWERS, POWERS)
def test_going_through_what_is_held_survives_a_change_of_the_part_power(items: set[bytes], before: int, after: int) -> None:
    """A place among the hashes is what is remembered: no partition is left out, and none is met twice when the power grows."""
    tables = fill(items)
    start: bytes | None = b""
    met: list[Span] = []
    while start is not None and (span := partition_from(tables, "object", start, before if len(met) < 3 else after)) is not None:
        met.append(span)
        start = span.bounds[1]
    for item in items:
        holding = [span for span in met if item in span]
        assert holding and (len(holding) == 1 or after < before)
    assert all(any(item in span for item in items) for span in met)
    assert partition_from(tables, "container", b"", before) is None


def test_kinds_are_apart_and_can_be_combined() -> None:
    tables = MemoryTables()
    for kind, key in (("object", b"\xff" * 16), ("container", b"\xff" * 16), ("account", bytes(16))):
        toggles = Toggles(kind)
        toggles.toggle(key, digest(key, kind.encode()))
        tables.apply(toggles.writes(tables))
    container, account = digests(tables, "container", WHOLE), digests(tables, "account", WHOLE)
    assert container.root == digest(b"\xff" * 16, b"container")
    assert combine(container, account).root == xor(container.root, account.root)
    assert combine(container, account).leaves == {**account.leaves, **container.leaves}


def test_leaves_that_cannot_be() -> None:
    for call in (
        lambda: leaf_span(Span(2, 0), 4096),
        lambda: leaf_span(Span(24, 0), 1),
        lambda: leaf_span(WHOLE, -1),
        lambda: leaf_of(bytes(16), 25),
        lambda: digests(MemoryTables(), "object", Span(25, 0)),
        lambda: partition_from(MemoryTables(), "object", b"", 25),
    ):
        with pytest.raises(BadInput):
            call()
