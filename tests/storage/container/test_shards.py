"""The map of shards: where names lie, what a listing reads next, how maps follow one another, their bytes."""

from __future__ import annotations

import pathlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ring.errors import BadInput, FormatError
from ring.names import Path
from ring.timestamp import Timestamp
from storage.container.shards import (
    LASTING,
    MAP,
    OF,
    SUMS,
    Shard,
    ShardMap,
    above,
    decode,
    encode,
    first_map,
    is_shard,
    made_at,
    map_of,
    of_value,
    pivot,
    root_of,
    shard_path,
    shards_account,
    sums_of,
    sums_value,
)

ROOT = Path("AUTH_a", "photos")
GOLDEN = pathlib.Path(__file__).parents[2] / "golden" / "shards.json"
NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=6)


def plain(*uppers: str) -> ShardMap:
    return ShardMap(3, Timestamp(9), tuple(Shard(upper, f"s{at}") for at, upper in enumerate((*uppers, ""))))


MAPS = st.sets(NAMES, max_size=6).map(lambda uppers: plain(*sorted(uppers)))


@pytest.mark.parametrize(("name", "shard"), [("a", "s0"), ("g", "s0"), ("g\0", "s1"), ("h", "s1"), ("p", "s1"), ("q", "s2")])
def test_a_range_ends_with_its_upper_name(name: str, shard: str) -> None:
    assert plain("g", "p").place(name).name == shard


@pytest.mark.parametrize(
    ("start", "end", "reverse", "expected"),
    [
        ("", "", False, ("s0", "", "g\0", "g")),
        ("f", "", False, ("s0", "f", "g\0", "g")),
        ("g", "", False, ("s1", "g", "p\0", "p")),
        ("z", "", False, ("s2", "z", "", None)),
        ("h", "k", False, ("s1", "h", "k", None)),
        ("h", "p\0", False, ("s1", "h", "p\0", None)),
        ("h", "r", False, ("s1", "h", "p\0", "p")),
        ("", "", True, ("s2", "p", "", "p\0")),
        ("", "p\0", True, ("s1", "g", "p\0", "g\0")),
        ("", "g\0", True, ("s0", "", "g\0", None)),
        ("a", "c", True, ("s0", "a", "c", None)),
        ("g", "z", True, ("s2", "p", "z", "p\0")),
        ("p", "z", True, ("s2", "p", "z", None)),
    ],
)
def test_what_a_listing_reads_next(start: str, end: str, reverse: bool, expected: tuple[str, str, str, str | None]) -> None:
    part = plain("g", "p").part(start, end, reverse=reverse)
    assert (part.shard.name, part.start, part.end, part.until) == expected


@given(MAPS, st.sets(NAMES, max_size=12), st.one_of(st.just(""), NAMES), st.one_of(st.just(""), NAMES), st.booleans())
def test_going_from_part_to_part_meets_every_name_once_and_in_order(
    shards: ShardMap, names: set[str], start: str, end: str, reverse: bool
) -> None:
    found: list[str] = []
    low, high = start, end
    for _ in range(len(shards.shards) + 1):
        if high and low >= high:
            break
        part = shards.part(low, high, reverse=reverse)
        held = [n for n in names if shards.place(n) == part.shard and n > part.start and (not part.end or n < part.end)]
        found += sorted(held, reverse=reverse)
        if part.until is None:
            break
        low, high = (low, part.until) if reverse else (part.until, high)
    else:
        pytest.fail("it never ends")
    assert found == sorted((n for n in names if n > start and (not end or n < end)), reverse=reverse)


def test_a_split_and_what_follows_it() -> None:
    first = first_map(["g", "p"], Timestamp(10))
    assert [shard.active for shard in first.shards] == [False] * 3 and not first.settled and not first.sources
    opened = first.opened(Timestamp(11))
    assert opened.settled and opened.version == 2
    split = opened.split(1, ["k"], Timestamp(12))
    middle = opened.shards[1].name
    assert [shard.upper for shard in split.shards] == ["g", "k", "p", ""]
    assert [shard.sources for shard in split.shards] == [(), (middle,), (middle,), ()]
    assert split.sources == []  # nothing is closed before all that takes its place is active
    active = split.opened(Timestamp(13))
    assert active.sources == [middle] and not active.settled
    done = active.emptied(middle, Timestamp(14))
    assert done.settled and done.index(middle) is None
    assert len({shard.name for shard in (*first.shards, *split.shards)}) == 5
    joined = done.join(0, Timestamp(15)).opened(Timestamp(16))
    assert [shard.upper for shard in joined.shards] == ["k", "p", ""]
    assert joined.sources == [done.shards[0].name, done.shards[1].name]


@pytest.mark.parametrize("pivots", [[], [""], ["g"], ["p"], ["a"], ["z"], ["k", "h"], ["h", "h"]])
def test_a_range_is_cut_inside_only(pivots: list[str]) -> None:
    with pytest.raises(BadInput):
        plain("g", "p").split(1, pivots, Timestamp(10))


def test_a_map_that_would_not_fit_is_not_made() -> None:
    long = ["x" * 1000 + f"{number:06d}" for number in range(1000)]
    with pytest.raises(BadInput, match="too large"):
        first_map(long, Timestamp(1))


@given(st.tuples(NAMES, NAMES).filter(lambda pair: pair[0] != pair[1]).map(sorted))
def test_a_pivot_parts_two_neighbours(pair: list[str]) -> None:
    one, other = pair
    assert one <= pivot(one, other) < other
    assert len(pivot(one, other)) <= len(one)


def test_a_pivot_is_short() -> None:
    assert pivot("photos/2023/" + "x" * 900, "photos/2024/" + "y" * 900) == "photos/2024"


@given(MAPS)
def test_maps_survive_their_bytes(shards: ShardMap) -> None:
    assert decode(encode(shards)) == shards


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a map"),
        ("[2]", "format 2"),
        ("[1,1]", "not a map"),
        ('[1,1,"00",[["","s",true,[]]]]', "not a map"),
        ('[1,1,"000000000000000900000000",[]]', "do not follow"),
        ('[1,1,"000000000000000900000000",[["g","s",true,[]]]]', "do not follow"),
        ('[1,1,"000000000000000900000000",[["g","s",true,[]],["c","t",true,[]],["","u",true,[]]]]', "do not follow"),
    ],
)
def test_what_is_no_map_is_refused(text: str, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        decode(text)


def golden() -> bytes:
    settled = first_map(["g", "ö"], Timestamp(10, 1)).opened(Timestamp(11))
    return encode(settled.split(1, ["k"], Timestamp(12))).encode()


def test_golden_bytes() -> None:
    assert golden() == GOLDEN.read_bytes()


def test_books_of_shards() -> None:
    name = first_map(["g"], Timestamp(10, 3)).shards[1].name
    path = shard_path(ROOT, name)
    path.check()
    assert is_shard(path) and not is_shard(path.parent) and not is_shard(ROOT)
    assert path.parent == shards_account(ROOT) != shards_account(Path("AUTH_a", "photos2"))
    assert made_at(name) == Timestamp(10, 3) < above(made_at(name))
    with pytest.raises(FormatError):
        made_at("photos")


def test_what_headers_say() -> None:
    shards = plain("g")
    at = Timestamp(5)
    assert map_of({}) is None and map_of({MAP: (encode(shards), at)}) == shards
    assert sums_of({}) == (0, 0) and sums_of({SUMS: (sums_value(3, 12), at)}) == (3, 12)
    with pytest.raises(FormatError):
        sums_of({SUMS: ("3", at)})
    assert root_of({}) is None and root_of({OF: (of_value(ROOT), at)}) == ROOT
    assert set(LASTING) == {MAP, SUMS, OF}
