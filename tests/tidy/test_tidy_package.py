"""What is installed: one version, and lists of packages that agree with each other."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.tidy.tree import PACKAGES, ROOT
from tools.cli.main import VERSION

DEPLOY = ROOT / "tools/deploy"
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
RUN, TEST = DEPLOY / "lock.txt", DEPLOY / "lock-test.txt"


def locked(path: Path) -> dict[str, Version]:
    found: dict[str, Version] = {}
    for line in path.read_text().splitlines():
        if not line.strip() or line.lstrip().startswith(("#", "--hash", "-r ", "-c ")):
            continue
        requirement = Requirement(line.split(" \\")[0].split(" #")[0].strip())
        [pin] = list(requirement.specifier)
        assert pin.operator == "==", line
        assert canonicalize_name(requirement.name) not in found, line
        found[canonicalize_name(requirement.name)] = Version(pin.version)
    return found


def wanted(group: str) -> list[Requirement]:
    project = PROJECT["project"]
    texts = project["dependencies"] if group == "run" else project["optional-dependencies"][group]
    return [Requirement(text) for text in texts]


def test_one_version() -> None:
    assert PROJECT["project"]["version"] == VERSION


@pytest.mark.parametrize("group", ["run", "test"])
def test_the_lock_has_what_the_project_asks_for(group: str) -> None:
    pins = locked(RUN) | (locked(TEST) if group == "test" else {})
    missing = [str(one) for one in wanted(group) if canonicalize_name(one.name) not in pins]
    assert missing == []
    assert [str(one) for one in wanted(group) if pins[canonicalize_name(one.name)] not in one.specifier] == []


def test_the_two_locks_agree() -> None:
    run, test = locked(RUN), locked(TEST)
    assert {name: (run[name], test[name]) for name in run.keys() & test.keys() if run[name] != test[name]} == {}


def test_debian_packages() -> None:
    lines = [line for line in (DEPLOY / "packages.txt").read_text().splitlines() if line and not line.startswith("#")]
    assert lines and all(re.fullmatch(r"(?:run|test) [a-z0-9][a-z0-9.+-]+", line) for line in lines)
    names = [line.split()[1] for line in lines]
    assert len(names) == len(set(names))


def test_every_package_is_shipped_and_checked() -> None:
    patterns = PROJECT["tool"]["setuptools"]["packages"]["find"]["include"]
    assert sorted(patterns) == sorted(f"{name}*" for name in PACKAGES)
    assert set(PROJECT["tool"]["mypy"]["packages"]) == {*PACKAGES, "tests"}
    assert PROJECT["tool"]["importlinter"]["root_packages"] == list(PACKAGES)
    layers = PROJECT["tool"]["importlinter"]["contracts"][0]["layers"]
    assert layers == list(reversed(PACKAGES))


def test_every_noun_of_the_command_is_there() -> None:
    from tools.cli.main import NOUNS

    for target in NOUNS.values():
        module, _, _ = target.partition(":")
        assert (ROOT / (module.replace(".", "/") + ".py")).exists(), target
