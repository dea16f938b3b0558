"""The picture: every device is there with its numbers, nothing overlaps or leaves the page, no name breaks the file."""

from __future__ import annotations

import itertools
import re
from collections import defaultdict
from collections.abc import Iterator
from xml.etree.ElementTree import Element

import defusedxml.ElementTree as ElementTree
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ring.builder.builder import Builder
from ring.builder.plan import plan
from ring.builder.plot import BARS, STYLE, WIDTH, escaped, plot
from ring.errors import BadInput, Conflict

NOW = 1_800_000_000.0
SVG = "{http://www.w3.org/2000/svg}"
SIZES = {"title": 20.0, "head": 15.0, "zone": 12.0, "small": 9.0}
NARROW = " .,:;'|!il"


def builder(zones: int, servers: int, devices: int, part_power: int = 6, *, ip: str = "10.0.{}.{}", placed: bool = True) -> Builder:
    made = Builder.create(part_power, 3, 1)
    for zone in range(1, zones + 1):
        for server in range(1, servers + 1):
            for device in range(devices):
                made.add_device(region=1, zone=zone, ip=ip.format(zone, server), port=6200, name=f"sd{device}", weight=100)
    if placed:
        made.rebalance(1, NOW - 36000)
    return made


def drawn(text: str) -> Element:
    page: Element = ElementTree.fromstring(text)
    return page


def groups(page: Element) -> dict[str, Element]:
    """By the first line of what a reader sees when pointing at it."""
    return {(group.findtext(f"{SVG}title") or "").split("\n")[0]: group for group in page.iter(f"{SVG}g")}


def rects(within: Element, kind: str) -> list[Element]:
    return [rect for rect in within.iter(f"{SVG}rect") if rect.get("class") == kind]


def number(element: Element, name: str) -> float:
    return float(element.attrib[name])


def words(page: Element) -> Iterator[tuple[float, float, float, str]]:
    """y, from x, to x, text of what is written level, as wide as a wide font has it."""
    for text in page.iter(f"{SVG}text"):
        if "transform" in text.attrib or not text.text:
            continue
        kinds = text.get("class", "").split()
        size = next((SIZES[kind] for kind in kinds if kind in SIZES), 11.0)
        width = size * sum(0.3 if c in NARROW else 0.6 for c in text.text)
        x = number(text, "x") - (width if "end" in kinds else width / 2 if "mid" in kinds else 0)
        yield number(text, "y"), x, x + width, text.text


def check_layout(page: Element) -> None:
    height = number(page, "height")
    for rect in page.iter(f"{SVG}rect"):
        assert number(rect, "width") > 0 and number(rect, "height") > 0
        if rect.get("class") != "page":
            assert number(rect, "x") >= 0 and number(rect, "x") + number(rect, "width") <= WIDTH - 20
            assert number(rect, "y") >= 0 and number(rect, "y") + number(rect, "height") <= height
    lines: dict[float, list[tuple[float, float, str]]] = defaultdict(list)
    for y, start, end, text in words(page):
        assert start >= 0 and end <= WIDTH and 0 < y < height, text
        lines[y].append((start, end, text))
    for line in lines.values():
        line.sort()
        for one, following in itertools.pairwise(line):
            assert one[1] <= following[0] + 0.5, (one, following)
    by_bottom: dict[float, list[tuple[float, float]]] = defaultdict(list)
    for rect in rects(page, "held"):
        bottom = round(number(rect, "y") + number(rect, "height"), 1)
        by_bottom[bottom].append((number(rect, "x"), number(rect, "x") + number(rect, "width")))
    assert by_bottom
    for row in by_bottom.values():
        row.sort()
        assert all(one[1] <= following[0] for one, following in itertools.pairwise(row))


@pytest.mark.parametrize(
    ("zones", "servers", "devices", "part_power"),
    [(3, 1, 1, 4), (4, 1, 2, 6), (5, 4, 4, 9), (5, 20, 10, 12), (1, 1, 700, 11), (1, 3, 300, 11), (40, 2, 2, 9), (2, 120, 1, 9)],
)
def test_any_ring_fits_its_page(zones: int, servers: int, devices: int, part_power: int) -> None:
    made = builder(zones, servers, devices, part_power, ip="10.200.{}.{}")
    made.add_device(region=1, zone=1, ip="10.200.1.250", port=6200, name="new", weight=100)
    made.set_weight(0, 0)
    page = drawn(plot(made, title="object.builder", plan=plan(made, now=NOW)))
    check_layout(page)
    named = [name for name in groups(page) if re.match(r"d\d+r1z", name)]
    assert len(named) == zones * servers * devices + 1


def test_long_names_of_servers_do_not_overlap() -> None:
    check_layout(drawn(plot(builder(4, 3, 2, ip="storage-node-{}-{}.rack-7.example.org"), title="t")))
    check_layout(drawn(plot(builder(4, 3, 2, ip="2001:db8:0:{}::1:{}"), title="t")))


def test_bars_are_as_high_as_devices_are_full() -> None:
    made = builder(3, 1, 1, 4)  # 16 partitions on each; the axis ends at 20
    held = rects(drawn(plot(made, title="t")), "held")[1:]  # the first is the legend's
    assert [number(rect, "height") for rect in held] == [pytest.approx(BARS * 16 / 20, abs=0.01)] * 3


def test_over_and_under() -> None:
    made = builder(3, 1, 1, 4)
    made.add_device(region=1, zone=4, ip="10.0.4.1", port=6200, name="new", weight=100)
    found = groups(drawn(plot(made, title="t")))
    assert list(found) == [
        "d0r1z1-10.0.1.1:6200/sd0, weight 100: holds 16, quota 12 (+4)",
        "d1r1z2-10.0.2.1:6200/sd0, weight 100: holds 16, quota 12 (+4)",
        "d2r1z3-10.0.3.1:6200/sd0, weight 100: holds 16, quota 12 (+4)",
        "d3r1z4-10.0.4.1:6200/new, weight 100: holds 0, quota 12 (−12)",
    ]
    full, _, _, empty = found.values()
    held, over = rects(full, "held")[0], rects(full, "over")
    assert number(held, "height") == pytest.approx(BARS * 12 / 20, abs=0.01)
    assert number(over[0], "height") == pytest.approx(BARS * 4 / 20, abs=0.01)
    assert number(over[0], "y") + number(over[0], "height") == pytest.approx(number(held, "y"), abs=0.02)
    assert rects(empty, "held") == [] and len(rects(empty, "room")) == 1
    # below, against the largest deviation: 4 up, 12 down
    assert number(over[1], "height") * 3 == pytest.approx(number(rects(empty, "under")[0], "height"), abs=0.02)


def test_moves_per_zone() -> None:
    made = builder(3, 1, 1, 4)
    made.add_device(region=1, zone=4, ip="10.0.4.1", port=6200, name="new", weight=100)
    page = drawn(plot(made, title="t", plan=plan(made, now=NOW)))
    found = groups(page)
    four = found["r1z4: 12 in, 0 out, 0 of both within the zone"]
    one = found["r1z1: 0 in, 4 out, 0 of both within the zone"]
    assert number(rects(four, "in")[0], "width") == pytest.approx(3 * number(rects(one, "out")[0], "width"), abs=0.02)
    assert rects(four, "out") == rects(one, "in") == []
    text = " ".join(page.itertext())
    assert "12 moves in 1 pass; no plan has fewer than 12." in text
    assert "r1z4: 12 in, 0 out, 0 of both inside." in (page.findtext(f"{SVG}desc") or "")


def test_what_cannot_be_seen_is_said() -> None:
    page = drawn(plot(builder(3, 1, 1), title="object.builder, build version 4"))
    assert page.attrib["role"] == "img"
    ids = page.attrib["aria-labelledby"].split()
    assert [element.attrib["id"] for element in page if "id" in element.attrib] == ids
    assert page.findtext(f"{SVG}title") == "object.builder, build version 4"
    assert "Every device holds exactly its quota." in (page.findtext(f"{SVG}desc") or "")
    assert "Moves per zone" not in " ".join(page.itertext())


def test_nothing_to_move_is_said() -> None:
    made = builder(3, 1, 1)
    assert "Nothing would move." in " ".join(drawn(plot(made, title="t", plan=plan(made, now=NOW))).itertext())


def test_light_and_dark_colour_the_same_things() -> None:
    light, dark = STYLE.split("@media (prefers-color-scheme:dark)")
    coloured = {name for names in re.findall(r"([.\w,]+)\{[^}]*(?:fill|stroke):#", light) for name in names.split(",")}
    assert coloured
    assert coloured == {name for names in re.findall(r"([.\w,]+)\{[^}]*(?:fill|stroke):#", dark) for name in names.split(",")}


NASTY = "<&>\"' ]]> --> \x00\x1b\ud800 &amp; </svg><script>"


def test_no_name_breaks_the_file() -> None:
    made = builder(3, 1, 1)
    made.set_info(0, meta=NASTY, name="<sd&>")
    text = plot(made, title=NASTY)
    text.encode()  # no lone surrogates
    page = drawn(text)
    title = page.findtext(f"{SVG}title")
    assert title == "<&>\"' ]]> --> ��� &amp; </svg><script>"
    assert not list(page.iter(f"{SVG}script"))
    shown = page.find(f"{SVG}g/{SVG}title")
    assert shown is not None and shown.text is not None
    assert shown.text.endswith("&amp; </svg><script>") and "/<sd&>" in shown.text


@given(st.text(st.characters(codec=None)))
def test_any_text_is_text_in_xml(text: str) -> None:
    parsed = ElementTree.fromstring(f"<t>{escaped(text)}</t>".encode())
    assert len(parsed.text or "") == len(text)


def test_line_ends_stay() -> None:
    assert ElementTree.fromstring(f"<t>{escaped(chr(13) + chr(10))}</t>").text == "\r\n"


def test_a_ring_that_is_not_placed() -> None:
    made = builder(3, 1, 1, placed=False)
    with pytest.raises(Conflict, match="nothing is placed"):
        plot(made, title="t")
    page = drawn(plot(made, title="t", plan=plan(made, now=NOW)))
    assert len(rects(page, "room")) == 3 + 1
    with pytest.raises(BadInput, match="3 replicas need"):
        made.remove(0)
        plot(made, title="t", plan=plan(builder(3, 1, 1), now=NOW))
