"""A picture of a ring as SVG: how full each device is held against its quota, and what a plan moves in and out of each zone.

Decides what is drawn where; counts come from ``builder.py`` and ``plan.py``.  Writes the text itself: no file, no library.  One
page for 8 devices or 1,000; readable on light and dark pages (the colours follow the reader's setting), with a title and a
description for those who cannot see it, and the exact numbers of each device behind its bar.  Pure.
"""

from __future__ import annotations

import html
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ring.builder.builder import Builder
from ring.builder.plan import Flow, Plan
from ring.builder.quota import targets
from ring.device import Device
from ring.errors import Conflict

WIDTH = 1200.0
LEFT, RIGHT = 76.0, 24.0  # where bars begin and end
BARS = 84.0  # height of a full bar
OFF = 15.0  # height of the largest deviation, up or down
SLOT_MAX, SLOT_ONE_LINE, SLOT_MIN = 64.0, 9.0, 4.6  # of a device; above the second all zones stand in one line
SLOT_NAMED = 22.0  # room for a device's id
SERVER_GAP, ZONE_GAP = 0.7, 2.0  # in slots; a zone's is wider by ZONE_GAP_MIN
ZONE_GAP_MIN, ZONE_GAP_MAX = 20.0, 64.0
ROW = 24.0  # of a zone's moves
EM, EM_NARROW = 0.64, 0.34  # width of a character by its size, as wide as the wider fonts have it; the second of dots and spaces
_ILLEGAL = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # XML 1.0, section 2.2

STYLE = """
text{font-family:system-ui,-apple-system,"Segoe UI","DejaVu Sans",sans-serif;font-size:11px;fill:#1d2733}
.title{font-size:20px;font-weight:600}.head{font-size:15px;font-weight:600}.zone{font-size:12px;font-weight:600}
.soft,.small{fill:#5c6877}.small{font-size:9px}.end{text-anchor:end}.mid{text-anchor:middle}
.page{fill:#ffffff}.line{stroke:#dfe4ea;fill:none}.zero{stroke:#8a96a3;fill:none}
.held{fill:#6f9bc8}.over{fill:#d1540a}.under{fill:#7a4fc0}.room{fill:none;stroke:#7a4fc0;stroke-dasharray:2 2}
.quota{stroke:#1d2733;fill:none}.within{fill:#b3bdc9}.in{fill:#2b7f6e}.out{fill:#b5842a}
@media (prefers-color-scheme:dark){
text{fill:#e5e9ee}.soft,.small{fill:#9aa6b4}
.page{fill:#12171d}.line{stroke:#2b343f}.zero{stroke:#6d7988}
.held{fill:#4f7fb0}.over{fill:#ff8b3d}.under{fill:#b99cf2}.room{stroke:#b99cf2}
.quota{stroke:#e5e9ee}.within{fill:#56616e}.in{fill:#4fb5a0}.out{fill:#d8a94e}}
"""


@dataclass(frozen=True, slots=True)
class _Bar:
    device: Device
    held: int
    quota: int
    removed: bool

    @property
    def off(self) -> int:
        return self.held - self.quota


@dataclass(frozen=True, slots=True)
class _Block:
    """Servers of one zone that stand side by side."""

    zone: tuple[int, int]
    servers: Sequence[Sequence[_Bar]]
    continued: bool

    def slots(self) -> float:
        return sum(map(len, self.servers)) + SERVER_GAP * (len(self.servers) - 1)


def plot(builder: Builder, *, title: str, plan: Plan | None = None) -> str:
    """The text of an SVG file.  ``plan``: draw its moves too.  Conflict when nothing is placed yet and there is no plan;
    BadInput when the devices with weight are fewer than the replicas."""
    if not builder.table and plan is None:
        raise Conflict("nothing is placed yet", hint="rebalance first, or plot what would be placed: --plan")
    bars = _bars(builder)
    page = _Page()
    y = _header(page, builder, bars, title)
    y = _fill(page, bars, y)
    if plan is not None:
        y = _moves(page, plan, y)
    return page.text(y, title, _description(bars, plan))


def _bars(builder: Builder) -> list[_Bar]:
    held = builder.counts() if builder.table else {device.id: 0 for device in builder.present}
    quotas = targets(builder.present, builder.rows, builder.overload, held).quotas
    order = sorted(builder.present, key=lambda d: (d.region, d.zone, _natural(d.ip), d.id))
    return [_Bar(device, held[device.id], quotas.get(device.id, 0), device.id in builder.removed) for device in order]


def _natural(text: str) -> list[tuple[int, str]]:
    """10.0.0.9 before 10.0.0.10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", text)]


# ---- the page


class _Page:
    def __init__(self) -> None:
        self._parts: list[str] = []

    def add(self, *parts: str) -> None:
        self._parts += parts

    def write(self, x: float, y: float, text: str, kind: str = "") -> None:
        name = f' class="{kind}"' if kind else ""
        self._parts.append(f'<text x="{_n(x)}" y="{_n(y)}"{name}>{escaped(text)}</text>')

    def rect(self, x: float, y: float, width: float, height: float, kind: str) -> None:
        if height > 0 and width > 0:
            self._parts.append(f'<rect class="{kind}" x="{_n(x)}" y="{_n(y)}" width="{_n(width)}" height="{_n(height)}"/>')

    def across(self, x: float, end: float, y: float, kind: str) -> None:
        self._parts.append(f'<path class="{kind}" d="M{_n(x)} {_n(y)}H{_n(end)}"/>')

    def down(self, x: float, y: float, end: float, kind: str) -> None:
        self._parts.append(f'<path class="{kind}" d="M{_n(x)} {_n(y)}V{_n(end)}"/>')

    def text(self, height: float, title: str, description: str) -> str:
        size = f'{_n(WIDTH)} {_n(height)}"'
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size} width="{_n(WIDTH)}" height="{_n(height)}" '
            f'role="img" aria-labelledby="ring-title ring-desc">\n'
            f'<title id="ring-title">{escaped(title)}</title>\n<desc id="ring-desc">{escaped(description)}</desc>\n'
            f"<style>{STYLE}</style>\n"
        )
        page = f'<rect class="page" width="{_n(WIDTH)}" height="{_n(height)}"/>\n'
        return head + page + "\n".join(self._parts) + "\n</svg>\n"


def escaped(text: str) -> str:
    """As the text of an element; characters that XML cannot hold become U+FFFD."""
    return html.escape(_ILLEGAL.sub("\ufffd", text)).replace("\r", "&#13;")  # a bare one would be read as a line feed


def _n(number: float) -> str:
    return f"{number:.2f}".rstrip("0").rstrip(".")


def _signed(number: int) -> str:
    return f"{number:+,}".replace("-", "\u2212") if number else "0"


def _width(text: str, size: float) -> float:
    return size * sum(EM_NARROW if c in " .,:;'|!il" else EM for c in text)


def _shortened(text: str, width: float, size: float) -> str:
    """The end of a text, which tells names apart, with an ellipsis; nothing when it would be less than three characters."""
    if _width(text, size) <= width:
        return text
    rest = text
    while rest and _width("\u2026" + rest, size) > width:
        rest = rest[1:].lstrip(".:")
    return "\u2026" + rest if len(rest) >= 3 else ""


def _plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _round_up(number: float) -> float:
    """The next number of the kind that an axis ends with."""
    if number <= 0:
        return 1.0
    unit = 10.0 ** math.floor(math.log10(number))
    return next(step * unit for step in (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10) if step * unit >= number * (1 - 1e-9))


# ---- what stands above


def _header(page: _Page, builder: Builder, bars: Sequence[_Bar], title: str) -> float:
    regions, zones = {b.device.region for b in bars}, {(b.device.region, b.device.zone) for b in bars}
    servers = {(b.device.region, b.device.zone, b.device.ip) for b in bars}
    page.write(24, 38, title, "title")
    page.write(
        24,
        58,
        f"{_plural(len(bars), 'device')} on {_plural(len(servers), 'server')} in {_plural(len(zones), 'zone')} and "
        f"{_plural(len(regions), 'region')} \u00b7 {_plural(builder.partition_count, 'partition')} \u00d7 "
        f"{builder.replicas:g} replicas",
        "soft",
    )
    return 84.0


def _worst(bars: Sequence[_Bar]) -> str:
    over = max(bars, key=lambda b: b.off)
    under = min(bars, key=lambda b: b.off)
    exact = sum(1 for b in bars if not b.off)
    if exact == len(bars):
        return "Every device holds exactly its quota."
    words = [f"{exact:,} of {_plural(len(bars), 'device')} hold exactly their quota"]
    words += [f"most above: d{over.device.id} by {over.off:,}"] if over.off > 0 else []
    words += [f"most below: d{under.device.id} by {-under.off:,}"] if under.off < 0 else []
    return "; ".join(words) + "."


def _description(bars: Sequence[_Bar], plan: Plan | None) -> str:
    text = f"Partitions held by each device beside its quota, by zone and server. {_worst(bars)}"
    if plan is not None:
        text += f" Planned: {_plural(plan.moves, 'move')} in {_plural(len(plan.passes), 'pass').replace('passs', 'passes')}."
        for flow in _zones(plan.flows):
            text += f" {_zone(flow.tier[:2])}: {flow.arrives:,} in, {flow.leaves:,} out, {flow.within:,} of both inside."
    return text


def _zone(tier: Iterable[object]) -> str:
    region, zone = tier
    return f"r{region}z{zone}"


def _zones(flows: Sequence[Flow]) -> list[Flow]:
    return [flow for flow in flows if len(flow.tier) == 2]


# ---- fill per device


def _fill(page: _Page, bars: Sequence[_Bar], y: float) -> float:
    page.write(24, y + 14, "Fill per device", "head")
    page.write(24, y + 32, _worst(bars), "soft")
    _legend(page, y + 14, [("held", "held"), ("over", "above quota"), ("room", "below quota"), ("quota", "quota")])
    top = _round_up(max(max(b.held, b.quota) for b in bars))
    off = max(abs(b.off) for b in bars)
    slot, lines = _lay_out(bars)
    y += 44
    for line in lines:
        y = _line(page, line, slot, top, off, y)
    return y + 12


def _legend(page: _Page, y: float, entries: Sequence[tuple[str, str]]) -> None:
    x = WIDTH - RIGHT - sum(30 + len(words) * 6.4 for _, words in entries)
    for kind, words in entries:
        if kind == "quota":
            page.across(x, x + 12, y - 4, "quota")
        else:
            page.rect(x + 0.5, y - 8.5, 11, 9, kind)
        page.write(x + 17, y, words, "soft")
        x += 30 + len(words) * 6.4


def _lay_out(bars: Sequence[_Bar]) -> tuple[float, list[list[_Block]]]:
    """The width of a device, and the blocks of each line: all zones side by side when that leaves room enough, else wrapped."""
    room = WIDTH - LEFT - RIGHT
    zones: dict[tuple[int, int], dict[str, list[_Bar]]] = {}
    for bar in bars:
        zones.setdefault((bar.device.region, bar.device.zone), {}).setdefault(bar.device.ip, []).append(bar)
    whole = [_Block(zone, list(servers.values()), False) for zone, servers in zones.items()]
    slot = min(SLOT_MAX, (room - ZONE_GAP_MIN * (len(whole) - 1)) / (sum(b.slots() for b in whole) + ZONE_GAP * (len(whole) - 1)))
    if slot < SLOT_ONE_LINE:
        slot = min(SLOT_ONE_LINE, max(SLOT_MIN, room / max(block.slots() for block in whole)))
    lines: list[list[_Block]] = [[]]
    used = 0.0
    for block in (piece for one in whole for piece in _pieces(one, room / slot)):
        width = block.slots() * slot
        if lines[-1] and used + width > room + 0.01:
            lines.append([])
            used = 0.0
        lines[-1].append(block)
        used += width + _gap(slot)
    return slot, lines


def _gap(slot: float) -> float:
    return min(ZONE_GAP_MAX, ZONE_GAP * slot + ZONE_GAP_MIN)


def _pieces(block: _Block, most: float) -> list[_Block]:
    """A zone cut between servers, and a server only where it is longer than a line of ``most`` slots."""
    step = int(most)
    servers = [server[start : start + step] for server in block.servers for start in range(0, len(server), step)]
    cut: list[list[Sequence[_Bar]]] = [[]]
    used = 0.0
    for server in servers:
        if cut[-1] and used + len(server) > most + 0.01:
            cut.append([])
            used = 0.0
        cut[-1].append(server)
        used += len(server) + SERVER_GAP
    return [_Block(block.zone, piece, index > 0) for index, piece in enumerate(cut)]


def _line(page: _Page, blocks: Sequence[_Block], slot: float, top: float, off: int, y: float) -> float:
    base = y + 22 + BARS
    end = LEFT + sum(block.slots() * slot for block in blocks) + _gap(slot) * (len(blocks) - 1)
    for part in (0.0, 0.5, 1.0):
        level = base - BARS * part
        page.across(LEFT - 4, end, level, "zero" if not part else "line")
        if top * part == int(top * part):  # there are no halves of partitions
            page.write(LEFT - 8, level + 4, f"{top * part:,.10g}", "soft end")
    middle = base - BARS / 2
    page.add(
        f'<text class="small mid" transform="translate({_n(18)} {_n(middle)}) rotate(-90)">partitions</text>',
    )
    zero = base + 8 + OFF
    if off:
        page.across(LEFT - 4, end, zero, "line")
        page.write(LEFT - 8, zero - OFF + 6, _signed(off), "small end")
        page.write(LEFT - 8, zero + OFF + 2, _signed(-off), "small end")
        page.add(f'<text class="small mid" transform="translate({_n(18)} {_n(zero)}) rotate(-90)">off quota</text>')
    names = (zero + OFF if off else base) + 12
    x = LEFT
    captions = [_caption(block) for block in blocks]
    rooms = [block.slots() * slot + _gap(slot) for block in blocks]
    rooms[-1] = WIDTH - LEFT - sum(rooms[:-1])
    wordy = all(_width(label + more, 12) + 26 <= room for room, (label, more) in zip(rooms, captions, strict=True))
    for block, (label, more) in zip(blocks, captions, strict=True):
        page.write(x, base - BARS - 8, label, "zone")
        if wordy:
            page.write(x + _width(label, 12) + 10, base - BARS - 8, more, "soft")
        _block(page, block, x, slot, top, off, base, zero, names)
        x += block.slots() * slot + _gap(slot)
    return names + (30 if slot >= SLOT_NAMED else 18)


def _caption(block: _Block) -> tuple[str, str]:
    bars = [bar for server in block.servers for bar in server]
    more = f"{_plural(len(bars), 'device')}, {sum(b.held for b in bars):,} of {sum(b.quota for b in bars):,} partitions"
    return _zone(block.zone) + (" (continued)" if block.continued else ""), more


def _block(page: _Page, block: _Block, x: float, slot: float, top: float, off: int, base: float, zero: float, names: float) -> None:
    tall = slot >= SLOT_NAMED
    for server in block.servers:
        start = x
        for bar in server:
            _device(page, bar, x, slot, top, off, base, zero)
            if tall:
                page.write(x + slot / 2, names - 2, f"d{bar.device.id}", "small mid")
            x += slot
        name = _shortened(server[0].device.ip, x - start + (SERVER_GAP * slot - 3 if len(block.servers) > 1 else _gap(slot) - 8), 9)
        page.write((start + x) / 2, names + (10 if tall else 0), name, "small mid")
        x += SERVER_GAP * slot


def _device(page: _Page, bar: _Bar, x: float, slot: float, top: float, off: int, base: float, zero: float) -> None:
    inset = min(3.0, slot * 0.12)
    left, width = x + inset, slot - 2 * inset
    scale = BARS / top
    device = bar.device
    words = f"{device}, weight {device.weight:g}: holds {bar.held:,}, quota {bar.quota:,} ({_signed(bar.off)})"
    words += ", being removed" if bar.removed else ""
    words += f"\n{device.meta}" if device.meta else ""
    page.add("<g>", f"<title>{escaped(words)}</title>")
    low, high = sorted((bar.held, bar.quota))
    page.rect(left, base - low * scale, width, low * scale, "held")
    if bar.off > 0:
        page.rect(left, base - high * scale, width, (high - low) * scale, "over")
    elif (high - low) * scale >= 1.5:
        page.rect(left + 0.5, base - high * scale + 0.5, width - 1, (high - low) * scale - 0.5, "room")
    page.across(x + inset / 2, x + slot - inset / 2, base - bar.quota * scale, "quota")
    if bar.off:
        height = max(0.75, OFF * abs(bar.off) / off)
        page.rect(left, zero - height if bar.off > 0 else zero, width, height, "over" if bar.off > 0 else "under")
    page.add("</g>")


# ---- moves per zone


def _moves(page: _Page, plan: Plan, y: float) -> float:
    flows = _zones(plan.flows)
    page.write(24, y + 14, "Moves per zone", "head")
    passes = f"{len(plan.passes):,} pass{'' if len(plan.passes) == 1 else 'es'}"
    bound = plan.passes[0].lower_bound if plan.passes else 0
    page.write(24, y + 32, f"{_plural(plan.moves, 'move')} in {passes}; no plan has fewer than {bound:,}." if flows else "", "soft")
    if not flows:
        page.write(24, y + 32, "Nothing would move.", "soft")
        return y + 60
    _legend(page, y + 14, [("out", "to other zones"), ("in", "from other zones"), ("within", "within the zone")])
    y += 52
    most = _round_up(max(max(flow.arrives, flow.leaves) for flow in flows))
    room = (WIDTH - LEFT - RIGHT) / 2 - 70  # beside each half stand its numbers
    centre = LEFT + (WIDTH - LEFT - RIGHT) / 2
    bottom = y + ROW * len(flows)
    for part in (-1.0, -0.5, 0.0, 0.5, 1.0):
        x = centre + room * part
        page.down(x, y, bottom + 4, "line" if part else "zero")
        if most * part == int(most * part):  # there are no halves of replicas
            page.write(x, bottom + 18, f"{abs(most * part):,.10g}", "soft mid")
    page.write(centre - room / 2, bottom + 34, "\u2190 replicas out", "soft mid")
    page.write(centre + room / 2, bottom + 34, "replicas in \u2192", "soft mid")
    for flow in flows:
        page.write(LEFT - 8, y + 16, _zone(flow.tier), "zone end")
        page.add("<g>")
        words = f"{_zone(flow.tier)}: {flow.arrives:,} in, {flow.leaves:,} out, {flow.within:,} of both within the zone"
        page.add(f"<title>{escaped(words)}</title>")
        scale = room / most
        near = flow.within * scale
        page.rect(centre, y + 4, near, ROW - 8, "within")
        page.rect(centre - near, y + 4, near, ROW - 8, "within")
        page.rect(centre + near, y + 4, (flow.arrives - flow.within) * scale, ROW - 8, "in")
        page.rect(centre - flow.leaves * scale, y + 4, (flow.leaves - flow.within) * scale, ROW - 8, "out")
        page.add("</g>")
        page.write(centre + flow.arrives * scale + 6, y + 16, f"{flow.arrives:,}")
        page.write(centre - flow.leaves * scale - 6, y + 16, f"{flow.leaves:,}", "end")
        y += ROW
    return bottom + 54
