"""The docs point at what is there, and every format has its page, its codec and its golden bytes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.tidy.tree import ROOT, modules

FORMATS = ROOT / "docs/formats"
GOLDEN = ROOT / "tests/golden"
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
PATH = re.compile(r"(?:ring|storage|identity|proxy|blockgw|compute|tools|tests|docs)/[\w./-]+\.(?:py|md|txt|sh|bin|json)")
CODE = re.compile(r"`([^`]+)`")
PAGES = sorted([*(ROOT / "docs").rglob("*.md"), *ROOT.glob("*.md")])


def anchors(page: Path) -> set[str]:
    """Of its headings, as a web view of the repository makes them."""
    heads = re.findall(r"^#+\s+(.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for link in LINK.findall(page.read_text()):
        if link.startswith(("http://", "https://", "mailto:")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_paths_that_are_named_exist(page: Path) -> None:
    """In backticks: a path with a slash that begins with a folder of ours."""
    paths = [one for one in CODE.findall(page.read_text()) if PATH.fullmatch(one)]
    assert [path for path in paths if not (ROOT / path).exists()] == []


def rows() -> list[tuple[str, list[str], list[str]]]:
    """Of the index: page, codecs, golden files."""
    found = []
    for line in (FORMATS / "README.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("|") and len(cells) >= 4 and LINK.search(cells[0]):
            found.append((LINK.findall(cells[0])[0], CODE.findall(cells[2]), CODE.findall(cells[3])))
    return found


def test_every_format_is_in_the_index() -> None:
    assert sorted(page for page, _, _ in rows()) == sorted(path.name for path in FORMATS.glob("*.md") if path.name != "README.md")


def test_every_format_has_a_codec_and_golden_bytes() -> None:
    missing = []
    for page, codecs, golden in rows():
        missing += [(page, "codec")] if not codecs else []
        missing += [(page, "golden")] if not golden else []
        missing += [(page, path) for path in (*codecs, *golden) if not (ROOT / path).exists()]
    assert missing == []


def test_every_golden_file_belongs_to_a_format_and_is_read_by_a_test() -> None:
    listed = {path for _, _, golden in rows() for path in golden}
    there = {f"tests/golden/{path.name}" for path in GOLDEN.iterdir()}
    assert there - listed == set()
    tests = "\n".join(path.read_text() for path in modules("tests"))
    unread = [name for name in there if Path(name).name not in tests and Path(name).stem not in tests]
    assert unread == []


def test_changes_are_numbered_fragments() -> None:
    names = [path.name for path in (ROOT / "docs/changes").glob("*.md")]
    assert names and all(re.fullmatch(r"\d{4}-[a-z0-9-]+\.md", name) for name in names)
