"""simulate, as a conversation.  One device per server, zones 1 to 4, 64 partitions x 3: each partition is missing in one zone."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tools.cli.ring.desk import Desk


def placed(folder: Path, zones: int = 4) -> Desk:
    desk = Desk.with_zones(folder, zones)
    desk.placed()
    return desk


def test_what_is_named_fails_together(tmp_path: Path) -> None:
    desk = placed(tmp_path, 3)
    before = desk.files()
    one = desk("simulate", "--device", "d1", "--json").json
    assert one["named"] == {"fail": ["d1r1z2-10.0.2.1:6200/sdb"], "devices": [1], "left": [0, 0, 64, 0]}
    assert one["random"] is one["levels"] is one["per_year"] is None
    for way in (["--device", "1", "--zone", "r1z3"], ["--server", "10.0.2.1", "--zone", "z3"], ["--device", "z2", "--device", "2"]):
        assert desk("simulate", "--json", *way).json["named"]["left"] == [0, 64, 0, 0]
    everything = desk("simulate", "--region", "1", "--json").json["named"]
    assert (everything["devices"], everything["left"]) == ([0, 1, 2], [64, 0, 0, 0])
    assert desk("simulate", "--region", "r1", "--json").json["named"]["left"] == [64, 0, 0, 0]
    assert desk.files() == before


def test_what_is_named_as_a_table(tmp_path: Path) -> None:
    lines = placed(tmp_path, 3).done("simulate", "--zone", "r1z1", "--zone", "r1z2", "--device", "2", "--fill", "64GB").splitlines()
    assert lines == [
        "object.builder, build version 5: 64 partitions, 3 replicas, 3 devices",
        "",
        "Without d2r1z3-10.0.3.1:6200/sdb, d0r1z1-10.0.1.1:6200/sdb, d1r1z2-10.0.2.1:6200/sdb (3 devices):",
        "copies left  partitions   percent",
        "          0          64  100.0000",
        "          1           0    0.0000",
        "          2           0    0.0000",
        "          3           0    0.0000",
        "Lost for good, if they do not come back: 64.0 GB of objects.",
    ]


def test_the_worst_of_each_level(tmp_path: Path) -> None:
    desk = placed(tmp_path)
    levels = desk("simulate", "--all", "--json").json["levels"]
    assert [(level["level"], level["tiers"], level["worst"], level["left"], level["losing"]) for level in levels] == [
        ("region", 1, "r1", [64, 0, 0, 0], 1),
        ("zone", 4, "r1z1", [0, 0, 48, 16], 0),
        ("server", 4, "r1z1-10.0.1.1", [0, 0, 48, 16], 0),
        ("device", 4, "d0r1z1-10.0.1.1:6200/sdb", [0, 0, 48, 16], 0),
    ]
    lines = desk.done("simulate", "--all").splitlines()
    assert " ".join(lines[3].split()) == "level worst of devices 0 left 1 left 2 left 3 left that lose a partition"
    assert " ".join(lines[4].split()) == "region r1 1 4 64 0 0 0 1 of 1"


def test_random_failures(tmp_path: Path) -> None:
    desk = placed(tmp_path)
    said = desk("simulate", "--random", 3, "--trials", 50, "--seed", 4, "--json").json["random"]
    # Any three of four devices hold 16 partitions whole, 48 with two of the copies.
    assert said["mean"] == pytest.approx([16, 48, 0, 0])
    assert (said["worst"], said["any_lost"], said["exact"], said["any_lost_95"]) == ([16, 48, 0, 0], 1.0, True, [1.0, 1.0])
    text = desk.done("simulate", "--random", 2)
    assert "Without 2 of 4 devices, by lot (1,000 trials, seed 1; the mean is exact):" in text
    assert "Some partition has no copy left with the probability 0, exactly." in text
    both = desk("simulate", "--random", 2, "--zone", "r1z1", "--json").json
    assert both["named"]["left"] == [0, 0, 48, 16]
    assert both["random"]["among"] == 3
    assert both["random"]["mean"] == pytest.approx([16, 48, 0, 0])


def test_losses_per_year(tmp_path: Path) -> None:
    desk = placed(tmp_path)
    said = desk("simulate", "--json", "--afr", 0.1, "--rebuild-hours", 87.6, "--server-afr", 0, "--zone-afr", 0, "--region-afr", 1)
    rows = said.json["per_year"]
    assert said.json["levels"] is None
    assert [row["up_to"] for row in rows] == ["device", "server", "zone", "region"]
    w = 1 / (1 / 0.1 + 0.01)
    assert rows[0]["partitions"] == rows[1]["partitions"] == rows[2]["partitions"] == pytest.approx(64 * 3 * w * (w * 0.01) ** 2)
    assert rows[3]["object_chance"] == pytest.approx(1 / 1.01, rel=1e-3)
    assert rows[0]["repair_hours"] == [87.6, 87.6]
    own = desk("simulate", "--json", "--rebuild-hours", 10, "--zone-rebuild-hours", 20).json["per_year"]
    assert [row["repair_hours"][0] for row in own] == [10, 10, 20, 10]


def test_a_rebuild_takes_what_the_table_allows(tmp_path: Path) -> None:
    """48 replicas of a device come from three others: at 1 GB/s each, 108 TB take ten hours, after one."""
    desk = placed(tmp_path)
    rows = desk("simulate", "--json", "--fill", "108TB", "--rate", "1GB/s").json["per_year"]
    assert rows[0]["repair_hours"] == pytest.approx([11, 11])
    assert rows[3]["repair_hours"] == [1, 1]  # of the only region: from nowhere
    assert rows[0]["bytes"] == pytest.approx(rows[0]["partitions"] * 108e12 / 48)
    text = desk.done("simulate", "--fill", "108TB", "--rate", "1GB/s", "--detect-hours", 2)
    assert "A rebuild takes what it held, from all devices that share a partition with it, at 1.00 GB/s each, after 2 h." in text
    assert "devices 0.02 12 h " in " ".join(text.split())


def test_without_options_the_levels_and_the_years(tmp_path: Path) -> None:
    desk = placed(tmp_path)
    text = desk.done("simulate")
    assert "when the worst of a level fails alone" in text
    assert "Expected to be lost in a year" in text
    assert "A rebuild takes 24 h (not said: --rebuild-hours, or --fill and --rate)." in text
    said = desk("simulate", "--json").json
    assert said["levels"] and said["per_year"] and not said["named"] and not said["random"]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--device", "d9"], "ringfort: no device matches d9\nhint: "),
        (["--device", "sdb"], "ringfort: not a search value: sdb\n"),
        (["--server", "10.0.0.99"], "ringfort: no device matches 10.0.0.99\n"),
        (["--server", "10.0.0"], "ringfort: not an IP address: 10.0.0\n"),
        (["--zone", "1"], "ringfort: not a zone: 1\nhint: r1z2\n"),
        (["--zone", "r1z9"], "ringfort: no device matches r1z9\n"),
        (["--region", "one"], "ringfort: not a region: one\n"),
        (["--random", "5"], "ringfort: 5 devices cannot fail: 4 hold something\n"),
        (["--random", "0"], "ringfort: 0 devices cannot fail"),
        (["--random", "4", "--device", "1"], "ringfort: 4 devices cannot fail: 3 hold something\n"),
        (["--random", "2", "--trials", "0"], "ringfort: Invalid value for '--trials'"),
        (["--afr", "-0.1"], "ringfort: not a number from 0 on: -0.1\n"),
        (["--afr", "nan"], "ringfort: not a number from 0 on: nan\n"),
        (["--rate", "1MB/s"], "ringfort: --rate tells nothing before it is known how full the ring is\n"),
        (["--rate", "1MB/s", "--fill", "1TB", "--rebuild-hours", "3"], "ringfort: --rebuild-hours and --rate both say"),
        (["--rate", "0", "--fill", "1TB"], "ringfort: a rate is more than 0 bytes/s"),
    ],
)
def test_errors_are_one_clear_line_and_exit_2(tmp_path: Path, arguments: list[str], line: str) -> None:
    said = placed(tmp_path)("simulate", *arguments)
    assert (said.status, said.out) == (2, "")
    assert said.err.startswith(line)


def test_before_the_first_rebalance(tmp_path: Path) -> None:
    assert Desk.with_zones(tmp_path)("simulate").err == "ringfort: nothing is placed yet\nhint: rebalance first\n"
