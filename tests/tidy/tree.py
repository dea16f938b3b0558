"""The project's own files, as the tidy tests look at them.  Needs no git: what .gitignore names is left out by hand."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from fnmatch import fnmatch
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("ring", "storage", "identity", "proxy", "blockgw", "compute", "tools")
IGNORED = (*(ROOT / ".gitignore").read_text().split(), ".git")


def ignored(path: Path) -> bool:
    return any(fnmatch(path.name, pattern.strip("/")) for pattern in IGNORED)


def entries() -> list[str]:
    """Names at the top of the tree."""
    return sorted(path.name for path in ROOT.iterdir() if not ignored(path))


def files(*tops: str) -> Iterator[Path]:
    """All files below these folders of the tree; of the whole tree when none are named."""
    waiting = [ROOT / top for top in tops or entries()]
    while waiting:
        path = waiting.pop()
        if path.is_dir():
            waiting += [one for one in path.iterdir() if not ignored(one)]
        else:
            yield path


def modules(*tops: str) -> list[Path]:
    return sorted(path for path in files(*tops) if path.suffix == ".py")


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def dotted(node: ast.expr) -> str:
    """``a.b.c`` of a chain of names; "" of anything else."""
    match node:
        case ast.Name(id=name):
            return name
        case ast.Attribute(value=value, attr=attribute):
            head = dotted(value)
            return f"{head}.{attribute}" if head else ""
        case _:
            return ""


def calls(path: Path) -> Iterator[tuple[str, ast.Call]]:
    """Every call of a module by the dotted name of what is called."""
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Call):
            yield dotted(node.func), node
