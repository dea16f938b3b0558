"""Editions: what follows what, and the bytes."""

from __future__ import annotations

import pathlib

import pytest

from ring.errors import BadInput, Conflict, FormatError
from ring.service.edition import Edition, RingId, Standing, decode, encode
from ring.service.horizon import Horizon

GOLDEN = pathlib.Path(__file__).parents[2] / "golden" / "edition-1.json"
GOLDEN_2 = GOLDEN.with_name("edition-2.json")
ONE, TWO, THREE = RingId(1, 11), RingId(2, 22), RingId(3, 33)
FIRST = Edition(1, {"object": Standing(ONE, ONE), "container": Standing(ONE, ONE)})


def test_a_ring_is_published_and_settles() -> None:
    second = FIRST.published("object", TWO, moves=True)
    assert (second.number, second.rings["object"]) == (2, Standing(TWO, ONE))
    assert second.rings["container"] == FIRST.rings["container"]
    third = second.published("object", THREE, moves=True)
    assert third.rings["object"] == Standing(THREE, ONE)  # the settled one stays what all have in common
    fourth = third.settle("object")
    assert (fourth.number, fourth.rings["object"]) == (4, Standing(THREE, THREE))


def test_where_nothing_moves_it_is_settled_at_once() -> None:
    assert FIRST.published("object", TWO, moves=False).rings["object"] == Standing(TWO, TWO)
    moving = FIRST.published("object", TWO, moves=True)
    assert moving.published("object", THREE, moves=False).rings["object"] == Standing(THREE, ONE)


def test_what_cannot_follow() -> None:
    with pytest.raises(Conflict, match="in force already"):
        FIRST.published("object", ONE, moves=False)
    with pytest.raises(Conflict, match="would follow version 1"):
        FIRST.published("object", RingId(1, 12), moves=True)
    with pytest.raises(BadInput, match="no ring files"):
        FIRST.published("files", TWO, moves=True)


def test_the_ring_of_a_new_policy_has_nothing_to_settle() -> None:
    second = FIRST.published("object-7", ONE, moves=False)
    assert second.number == FIRST.number + 1
    assert second.rings["object-7"] == Standing(ONE, ONE)
    assert second.rings["object"] == FIRST.rings["object"]
    assert second.published("object-7", TWO, moves=True).rings["object-7"] == Standing(TWO, ONE)


def test_the_files_that_it_takes() -> None:
    assert FIRST.published("object", TWO, moves=True).needed == {("object", 1): ONE, ("object", 2): TWO, ("container", 1): ONE}


def test_the_bytes_are_those_of_format_1() -> None:
    edition = FIRST.published("object", TWO, moves=True)
    assert encode(edition) == GOLDEN.read_bytes()
    assert decode(GOLDEN.read_bytes()) == edition


def test_with_horizons_the_bytes_are_those_of_format_2() -> None:
    edition = FIRST.at_horizons({"object": Horizon(170000000000000, 169999000000000)})
    assert encode(edition) == GOLDEN_2.read_bytes()
    assert decode(GOLDEN_2.read_bytes()) == edition
    assert edition.number == FIRST.number + 1
    after = edition.published("object", TWO, moves=True).settle("object")
    assert after.horizons == edition.horizons


def test_a_newer_format_is_refused_with_a_clear_line() -> None:
    with pytest.raises(FormatError, match="has format 3; this program knows up to 2") as refused:
        decode(encode(FIRST).replace(b'"format":1', b'"format":3'))
    assert "newer version of ringfort" in refused.value.hint


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"\xff",
        b'{"magic":"other","format":1,"checksum":0,"edition":{}}',
        encode(FIRST).replace(b'"number":1', b'"number":2'),  # its checksum is of something else
        encode(FIRST)[:-3],
        encode(FIRST).replace(b'"format":1', b'"format":3'),
    ],
)
def test_what_is_no_edition_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        decode(data)
