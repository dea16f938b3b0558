"""Whatever is done one after another, the builder stays sound and every promise of a pass holds."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from ring.builder.builder import Builder
from tests.tools.cli.ring.desk import Desk

devices = st.sampled_from([f"d{number}" for number in range(8)])
numbers = st.sampled_from(["0", "50", "100", "333.3"])
commands = st.one_of(
    st.tuples(st.just("add"), st.integers(1, 4).map(str), st.integers(1, 3).map(str), numbers),
    st.tuples(st.just("set_weight"), devices, numbers),
    st.tuples(st.just("set_zone"), devices, st.integers(1, 4).map(str)),
    st.tuples(st.just("set_info"), devices, st.sampled_from(["_note", ":6300", "/sdz"])),
    st.tuples(st.just("remove"), devices),
    st.tuples(st.just("set_replicas"), st.sampled_from(["1", "2", "2.5", "3"])),
    st.tuples(st.just("set_overload"), st.sampled_from(["0", "10%", "1"])),
    st.tuples(st.just("set_min_part_hours"), st.sampled_from(["0", "1", "24"])),
    st.sampled_from(
        [
            ("write_ring",),
            ("pretend_min_part_hours_passed",),
            ("prepare_increase_partition_power",),
            ("increase_partition_power",),
            ("cancel_increase_partition_power",),
            ("finish_increase_partition_power",),
        ]
    ),
)
Words = tuple[str, ...]
rounds = st.tuples(
    st.lists(commands, max_size=3), st.sampled_from([0, 0.5, 2, 30]), st.sampled_from([("rebalance",), ("rebalance", "--force")])
)


@given(st.lists(rounds, max_size=4))
@settings(max_examples=60, deadline=None)
def test_any_sequence_of_commands(sequence: list[tuple[list[Words], float, Words]]) -> None:
    folder = Path(tempfile.mkdtemp())
    try:
        desk = Desk.with_zones(folder, 4, part_power=4)
        desk.placed()
        for changes, hours, rebalance in sequence:
            for words in changes:
                step(desk, words)
            desk.hours_pass(hours)
            step(desk, rebalance)
    finally:
        shutil.rmtree(folder)


def may_move(desk: Desk, builder: Builder, partition: int) -> bool:
    moved_at = int(builder.moved_at[partition])
    return not moved_at or moved_at + 3600 * builder.min_part_hours <= desk.clock.now()


def step(desk: Desk, words: Words) -> None:
    if words[0] == "add":
        _, zone, server, weight = words
        words = ("add", f"r1z{zone}-10.0.{zone}.{server}:6200/sdb", weight)
    before, files = desk.builder, desk.files()
    said = desk(*words)
    assert said.status in (0, 1, 2), said
    assert bool(said.err) == (said.status == 2), said
    after = desk.builder
    after.validate()
    written = desk.files() != files
    if said.status == 2:
        assert not written
    if said.status == 0:
        assert written
    if written and words[0] == "rebalance":
        assert desk("--json").json["ring"]["state"] == "up-to-date"
        assert desk.ring.version == after.version
        if [len(row) for row in before.table] == [len(row) for row in after.table]:
            for partition in range(after.partition_count):
                left = {*before.holders(partition)} - {*after.holders(partition)}
                assert len(left) <= 1, (partition, words)
                if left:
                    assert left <= before.removed or may_move(desk, before, partition), (partition, words)
    assert desk().status == 0
