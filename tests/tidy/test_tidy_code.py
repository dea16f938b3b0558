"""House rules of product code that no linter knows."""

from __future__ import annotations

import ast
import re

from tests.tidy.tree import PACKAGES, ROOT, calls, entries, files, modules, named, parsed

LINES_MAX = 500
TOP = {*PACKAGES, "tests", "docs", ".ci", ".gitignore", "Makefile", "README.md", "pyproject.toml"}
# The places of those who build it, in pieces so that this file does not name them.
BANNED = ("/work" + "/", "shared" + "/research")
UNFINISHED = re.compile(r"\b(?:TO" + r"DO|FIX" + r"ME|X" + r"XX)\b")
IGNORE = re.compile(r"# type: ignore(?:\[([a-z-]+)\])?(  # \w)?")
# Effects go through World (ruff bans the modules; these are built in).
EFFECTS = {"open", "input", "print", "breakpoint"}
OUTSIDE = ("ring/world/real/", "tools/")


def test_the_top_of_the_tree() -> None:
    assert set(entries()) == TOP


def test_every_module_opens_with_a_docstring() -> None:
    assert [named(path) for path in modules(*PACKAGES, "tests") if not ast.get_docstring(parsed(path))] == []


def test_every_folder_of_modules_is_a_package_with_a_map() -> None:
    folders = {path.parent for path in modules(*PACKAGES)}
    assert [named(folder) for folder in sorted(folders) if not (folder / "__init__.py").exists()] == []


def test_no_module_holds_two_ideas() -> None:
    long = {named(path): len(path.read_text().splitlines()) for path in modules(*PACKAGES)}
    assert {name: count for name, count in long.items() if count > LINES_MAX} == {}


def test_the_project_speaks_of_itself_alone() -> None:
    found = [(named(path), word) for path in files() for word in BANNED if word in path.read_text(errors="replace")]
    assert found == []


def test_nothing_is_left_for_later() -> None:
    texts = {named(path): path.read_text(errors="replace") for path in files() if ROOT / "tests/golden" not in path.parents}
    assert {name: found for name, text in texts.items() if (found := UNFINISHED.findall(text))} == {}


def test_a_type_that_is_ignored_has_its_reason_nearby() -> None:
    """On its line, or where the module first ignores that kind of error."""
    found = []
    for path in modules(*PACKAGES):
        explained: set[str] = set()
        for line in path.read_text().splitlines():
            match = IGNORE.search(line)
            if match and match[2]:
                explained.add(match[1])
            elif match and match[1] not in explained:
                found.append((named(path), line.strip()))
    assert found == []


def test_effects_go_through_world() -> None:
    inside = [path for path in modules(*PACKAGES) if not named(path).startswith(OUTSIDE)]
    assert [(named(path), name, call.lineno) for path in inside for name, call in calls(path) if name in EFFECTS] == []


def test_no_folder_is_common_ground() -> None:
    vague = {"common", "util", "utils", "helpers", "misc"}
    assert [named(path) for path in modules(*PACKAGES) if vague & {path.stem, *path.relative_to(ROOT).parts}] == []
