"""docs/ring.md tells what is: its commands run, and its JSON fields are those that are printed."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

from tests.tools.cli.ring.desk import Desk
from tools.cli.ring.group import VERBS

PAGE = Path(__file__).parents[4] / "docs/ring.md"
COMMAND = re.compile(r"^    \$ ringfort ring object\.builder ?(.*)$", re.MULTILINE)


def section(name: str) -> str:
    return PAGE.read_text().partition(f"\n## {name}\n")[2].partition("\n## ")[0]


def commands(name: str) -> list[list[str]]:
    return [shlex.split(line) for line in COMMAND.findall(section(name))]


def test_every_command_names_a_verb(tmp_path: Path) -> None:
    named = {words[0] for words in map(shlex.split, COMMAND.findall(PAGE.read_text())) if words}
    assert len(named) > 10
    assert named <= {name for verbs in VERBS.values() for name in verbs}


def test_the_commands_go_well_in_their_order(tmp_path: Path) -> None:
    """As the page has them, with the two zones that it leaves out."""
    desk = Desk(tmp_path)
    for words in commands("Build a ring"):
        if words == ["rebalance"]:
            for zone in (2, 3):
                desk.done("add", f"r1z{zone}-10.0.{zone}.1:6200/sdb", "100", f"r1z{zone}-10.0.{zone}.1:6200/sdc", "100")
        said = desk.done(*words)
        if words[:1] == ["add"]:
            assert said.replace("\n", "\n    ").strip() in section("Build a ring")
    for name in ("Replace a disk", "Grow", "Drain", "Spread, or balance"):
        desk.hours_pass(2)
        for words in commands(name):
            assert desk(*words).status in (0, 1), words
    desk.hours_pass(2)
    desk("rebalance")
    for words in commands("More partitions"):
        desk.done(*words)
    desk.path.unlink()
    for words in commands("When the builder is lost"):
        desk.done(*words)


def fields(value: Any) -> set[str]:
    """Names, at any depth but that of devices, which have a line of their own."""
    if isinstance(value, list):
        return {name for one in value for name in fields(one)}
    if not isinstance(value, dict):
        return set()
    return set(value).union(*(fields(inner) for name, inner in value.items() if name != "devices"))


def test_the_fields_of_json_are_as_documented(tmp_path: Path) -> None:
    desk = Desk.with_zones(tmp_path)
    desk.done("add", "r1z1-10.0.1.9:6200/sdb", 100)
    rebalanced = desk("rebalance", "--json").json
    shown = desk("--json").json
    printed = {
        "none": fields(shown),
        "a device": fields(shown["devices"]),
        "list_parts": fields(desk("list_parts", "d0", "--json").json),
        "dispersion": fields(desk("dispersion", "--json").json),
        "version": fields(desk("version", "--json").json),
        "id": fields(desk("id", "--json").json),
        "validate": fields(desk("validate", "--json").json),
        "rebalance": fields(rebalanced),
    }
    assert fields(desk("search", "d0", "--json").json) == printed["a device"]
    lines = dict(re.findall(r"^\| `?([a-z_ ]+)`? \| (.*) \|$", section("JSON"), re.MULTILINE))
    documented = {name: set(re.findall(r"`(\w+)`", line)) for name, line in lines.items() if name in printed}
    (tmp_path / "object.ring").write_bytes(b"")
    assert documented == printed | {"none": printed["none"] | {"why"}}
    assert "why" in fields(desk("--json").json)
