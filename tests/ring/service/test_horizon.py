"""Horizons: what lets tombstones be forgotten, and what does not."""

from __future__ import annotations

from array import array
from collections.abc import Mapping

import pytest

from ring.device import Device
from ring.names import NameHasher
from ring.placement import Ring
from ring.service.edition import Edition, RingId, Standing
from ring.service.horizon import Horizon, next_horizons
from ring.service.overlap import Overlap
from ring.service.register import Report
from ring.timestamp import Timestamp

ONE, TWO = RingId(1, 11), RingId(2, 22)
STEP = 10
HASHER = NameHasher(b"", b"")


def ring(*ids: int) -> Ring:
    devices = tuple(Device(number, 1, number, f"n{number}", 1, "d", 1.0) if number in ids else None for number in range(9))
    return Ring(1, 0, devices, tuple(array("H", [number]) for number in ids), HASHER)


RING = ring(0, 1, 2)
SETTLED = {name: Overlap.of(RING) for name in ("object", "object-1", "container", "account")}


def edition(**horizons: Horizon) -> Edition:
    named = {name.replace("_", "-"): horizon for name, horizon in horizons.items()}
    return Edition(5, {name: Standing(ONE, ONE) for name in SETTLED}, named)


def said(clean: int, *proposals: int, newest: RingId = ONE) -> dict[int, Report]:
    return {number: Report(clean, proposal, newest, ONE) for number, proposal in enumerate(proposals)}


def step(now: Edition, reports: Mapping[str, dict[int, Report]], overlaps: Mapping[str, Overlap] = SETTLED) -> dict[str, Horizon]:
    return dict(next_horizons(now, overlaps, reports, STEP))


def test_it_closes_at_the_least_that_anybody_proposes() -> None:
    assert step(edition(), {"object": said(0, 100, 90, 10**15)}) == {"object": Horizon(90, 0)}


def test_nothing_closes_while_a_device_has_not_spoken_or_for_little() -> None:
    assert step(edition(), {"object": said(0, 100, 90)}) == {}
    now = edition(object=Horizon(50, 50))
    assert step(now, {"object": said(50, 100, 59, 100)}) == dict(now.horizons)
    assert step(now, {"object": said(50, 100, 60, 100)}) == {"object": Horizon(60, 50)}


def test_it_is_reclaimed_when_all_are_clean_and_the_next_one_closes() -> None:
    now = edition(object=Horizon(50, 0))
    assert step(now, {"object": said(50, 51, 52, 53)}) == {"object": Horizon(50, 50)}
    assert step(now, {"object": said(50, 70, 61, 80)}) == {"object": Horizon(61, 50)}


@pytest.mark.parametrize(
    "reports",
    [
        said(50, 70, 70),  # one is silent
        {**said(50, 70, 70, 70), 1: Report(49, 70, ONE, ONE)},  # one is clean up to less
        said(50, 70, 70, 70, newest=TWO),  # they speak of another ring
        {},
    ],
)
def test_one_that_is_not_clean_holds_it_up(reports: dict[int, Report]) -> None:
    now = edition(object=Horizon(50, 0))
    assert step(now, {"object": reports}) == dict(now.horizons)


def test_a_device_that_no_ring_names_holds_nothing_up() -> None:
    reports = {**said(50, 55, 55, 55), 7: Report(0, 1, ONE, ONE)}
    assert step(edition(object=Horizon(50, 0)), {"object": reports}) == {"object": Horizon(50, 50)}


def test_while_a_ring_moves_its_horizon_stays() -> None:
    moving = {**SETTLED, "object": Overlap(ring(0, 1, 3), RING)}
    for now in (edition(object=Horizon(50, 0)), edition()):
        reports = {"object": {number: Report(50, 90, ONE, ONE) for number in (0, 1, 2, 3)}}
        assert step(now, reports, moving) == dict(now.horizons)


def test_rows_follow_what_they_are_rows_of() -> None:
    rows = {"container": said(0, 100, 100, 100), "account": said(0, 100, 100, 100)}
    assert step(edition(), rows) == {}
    objects = {"object": Horizon(80, 80)}
    assert step(edition(**objects), rows) == objects  # the other policy's objects have none yet
    objects = {"object": Horizon(80, 80), "object_1": Horizon(95, 60)}
    assert step(edition(**objects), rows)["container"] == Horizon(60, 0)
    done = edition(**objects, container=Horizon(60, 60))
    assert step(done, rows)["account"] == Horizon(60, 0)


def test_what_a_horizon_says_of_a_time() -> None:
    horizon = Horizon(50, 40)
    assert horizon.closes(Timestamp(50)) and not horizon.closes(Timestamp(50, 1)) and not horizon.closes(Timestamp(51))
    assert horizon.forgets(Timestamp(40)) and not horizon.forgets(Timestamp(41))
    assert not Horizon().closes(Timestamp(0)) and not Horizon().forgets(Timestamp(0))
