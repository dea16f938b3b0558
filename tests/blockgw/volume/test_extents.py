"""ExtentMap against an array of one entry a byte."""

from hypothesis import given
from hypothesis import strategies as st

from blockgw.volume.extents import Extent, ExtentMap

SIZE = 64
WRITES = st.lists(st.tuples(st.integers(0, SIZE - 1), st.integers(0, SIZE // 2)), max_size=40)


@given(WRITES, st.integers(0, SIZE - 1), st.integers(0, SIZE))
def test_lookup_tells_what_was_written_last(writes: list[tuple[int, int]], start: int, length: int) -> None:
    extents: ExtentMap[int] = ExtentMap()
    model: list[tuple[int, int] | None] = [None] * SIZE
    for number, (offset, size) in enumerate(writes):
        end = min(offset + size, SIZE)
        extents.insert(Extent(offset, end, number, 0))
        for at in range(offset, end):
            model[at] = (number, at - offset)
    end = min(start + length, SIZE)
    found: list[tuple[int, int] | None] = []
    for one in extents.lookup(start, end):
        if isinstance(one, Extent):
            found += [(one.source, one.offset + at) for at in range(one.end - one.start)]
        else:
            found += [None] * (one[1] - one[0])
    assert found == model[start:end]


@given(WRITES)
def test_extents_are_disjoint_and_in_order(writes: list[tuple[int, int]]) -> None:
    extents: ExtentMap[int] = ExtentMap()
    for number, (offset, size) in enumerate(writes):
        extents.insert(Extent(offset, offset + size, number, 0))
    ends = [0, *(one.end for one in extents)]
    assert all(one.start >= end and one.end > one.start for one, end in zip(extents, ends, strict=False))
    assert sum(extents.bytes_by_source().values()) == sum(one.end - one.start for one in extents)
