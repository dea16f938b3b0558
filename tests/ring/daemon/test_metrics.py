"""Numbers as Prometheus reads them."""

from __future__ import annotations

from ring.daemon.metrics import Registry, merge


def make(scale: float = 1) -> Registry:
    registry = Registry()
    puts = registry.counter("puts_total", "Puts,\nall of them.", ["status", "path"])
    puts.add(2 * scale, "201", 'a"b\\c\nd} e')
    puts.add(0.5, "503", "")
    registry.gauge("free_bytes", "Free.").set(10 * scale)
    registry.gauge("queue", "Waiting.", ["disk"]).follow(lambda: 3 * scale, "d1")
    seconds = registry.histogram("wait_seconds", "Waits.", ["disk"], [0.1, 1])
    for value in (0.05, 0.1, 0.5, 7):
        seconds.observe(value * scale, "d1")
    return registry


TEXT = """\
# HELP puts_total Puts,\\nall of them.
# TYPE puts_total counter
puts_total{status="201",path="a\\"b\\\\c\\nd} e"} 2
puts_total{status="503",path=""} 0.5
# HELP free_bytes Free.
# TYPE free_bytes gauge
free_bytes 10
# HELP queue Waiting.
# TYPE queue gauge
queue{disk="d1"} 3
# HELP wait_seconds Waits.
# TYPE wait_seconds histogram
wait_seconds_bucket{disk="d1",le="0.1"} 2
wait_seconds_bucket{disk="d1",le="1"} 3
wait_seconds_bucket{disk="d1",le="+Inf"} 4
wait_seconds_sum{disk="d1"} 7.65
wait_seconds_count{disk="d1"} 4
"""


def test_render() -> None:
    assert make().render() == TEXT


def test_the_same_name_is_the_same_metric() -> None:
    registry = make()
    registry.counter("puts_total", "", ["status", "path"]).add(1, "503", "")
    assert registry.counter("puts_total", "", ["status", "path"]).value("503", "") == 1.5


def test_merge() -> None:
    assert merge([TEXT]) == TEXT
    merged = merge([TEXT, make(2).render(), "other_total 1\nnot a sample\n\n"]).splitlines()
    assert [line for line in merged if not line.startswith("#")] == [
        'puts_total{status="201",path="a\\"b\\\\c\\nd} e"} 6',
        'puts_total{status="503",path=""} 1',
        "free_bytes 30",
        'queue{disk="d1"} 9',
        'wait_seconds_bucket{disk="d1",le="0.1"} 3',
        'wait_seconds_bucket{disk="d1",le="1"} 6',
        'wait_seconds_bucket{disk="d1",le="+Inf"} 8',
        'wait_seconds_sum{disk="d1"} 22.950000000000003',
        'wait_seconds_count{disk="d1"} 8',
        "other_total 1",
    ]
    assert [line for line in merged if line.startswith("#")] == [line for line in TEXT.splitlines() if line.startswith("#")]
    assert merge([]) == ""
