"""The command itself: its version, its errors."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from tools.cli.main import NOUNS, run

Capture = pytest.CaptureFixture[str]


def test_the_version_is_the_project_s(capsys: Capture) -> None:
    run(["--version"])
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]
    assert capsys.readouterr().out == f"ringfort {project['version']}\n"


def test_top_level(capsys: Capture) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out.startswith("ringfort ")
    assert run(["nonsense"]) == 2
    assert run(["--nonsense"]) == 2
    assert "hint: ringfort --help" in capsys.readouterr().err


def test_help_lists_every_noun(capsys: Capture) -> None:
    assert run(["--help"]) == 0
    out = capsys.readouterr().out
    assert [noun for noun in NOUNS if f"\n  {noun} " not in out] == []
