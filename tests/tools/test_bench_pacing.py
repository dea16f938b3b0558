"""How the figures of clients beside background work are printed."""

from __future__ import annotations

from tools.bench.pacing import HEADING, Row, line


def test_lines_stand_below_their_heading() -> None:
    full = line(Row("yields", "refill", 1.25, 22.0, 0.5, 3.0, 900.0, 12.5, 240.0))
    assert len(full) == len(HEADING) == len(line(Row("does not", "none")))
    assert full.split() == ["yields", "refill", "1.2", "22.0", "0.5", "3.0", "900.0", "12.5", "240.0"]
    assert line(Row("yields", "none", 1.0, 2.0, 3.0, 4.0, 5.0)).split()[-2:] == ["-", "-"]
