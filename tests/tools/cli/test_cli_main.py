"""The command itself: its version, its errors."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
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


def test_what_cannot_be_printed_is_an_error(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tools.cli.main", "--version"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, cwd=Path(__file__).parents[3])
    assert (done.returncode, done.stderr) == (2, f"ringfort: {os.strerror(errno.ENOSPC)}\n")
