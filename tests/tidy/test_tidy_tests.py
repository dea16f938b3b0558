"""House rules of tests: no patches, no real sleeps, no skips without a reason, unique names."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tests.tidy.tree import ROOT, calls, dotted, modules, named, parsed

PROCESSES = ("tests/live/", "tests/compat/")  # these wait for real processes
PATCHES = {"monkeypatch.setattr", "monkeypatch.delattr", "monkeypatch.setitem", "monkeypatch.delitem"}
Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(path: Path) -> Iterator[Function]:
    for node in ast.walk(parsed(path)):
        if isinstance(node, Function):
            yield node


def arguments(function: Function) -> set[str]:
    return {one.arg for one in (*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs)}


def is_fixture(function: Function) -> bool:
    marks = [one.func if isinstance(one, ast.Call) else one for one in function.decorator_list]
    return any(dotted(one) == "pytest.fixture" for one in marks)


def test_nothing_of_the_product_is_patched() -> None:
    found = []
    for path in modules("tests"):
        for node in ast.walk(parsed(path)):
            names = []
            if isinstance(node, ast.Import):
                names = [one.name for one in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [f"{node.module}.{one.name}" for one in node.names]
            found += [(named(path), name) for name in names if name.startswith(("unittest.mock", "mock"))]
        found += [(named(path), name) for name, _ in calls(path) if name in PATCHES]
    assert found == []


def test_no_test_waits_for_the_wall_clock() -> None:
    found = []
    for path in modules("tests"):
        if named(path).startswith(PROCESSES):
            continue
        found += [(named(path), call.lineno) for name, call in calls(path) if name == "time.sleep"]
    assert found == []


def test_short_sleeps_are_on_the_virtual_clock() -> None:
    """A sleep of part of a second is a wait for a task; only where the clock jumps is it sure and free."""
    found = []
    for path in modules("tests"):
        virtual = any(word in path.read_text() for word in ("autojump_clock", "MockClock", "ring.world.sim"))
        if virtual or named(path).startswith(PROCESSES) or not path.name.startswith("test_"):
            continue
        for name, call in calls(path):
            match call.args:
                case [ast.Constant(value=float(seconds))] if name == "trio.sleep" and seconds < 1:
                    found.append((named(path), call.lineno))
                case _:
                    continue
    assert found == []


def waits(function: Function) -> bool:
    names = {dotted(node.func) for node in ast.walk(function) if isinstance(node, ast.Call)}
    return bool(names & {"trio.sleep", "trio.sleep_until", "trio.move_on_after", "trio.fail_after"})


def test_a_test_whose_fixture_needs_the_virtual_clock_asks_for_it_itself() -> None:
    """pytest-trio gives a run only the clock that the test function itself names."""
    found = []
    for path in modules("tests"):
        known = [*functions(path)]
        above = [folder / "conftest.py" for folder in path.parents if ROOT in folder.parents and (folder / "conftest.py").exists()]
        fixtures = {one.name: arguments(one) for each in (*above, path) for one in functions(each) if is_fixture(one)}
        for function in known:
            if not isinstance(function, ast.AsyncFunctionDef) or not function.name.startswith("test_") or not waits(function):
                continue
            asked, seen = set(arguments(function)), set[str]()
            while asked - seen:
                name = (asked - seen).pop()
                seen.add(name)
                asked |= fixtures.get(name, set())
            if "autojump_clock" in asked - arguments(function):
                found.append((named(path), function.name))
    assert found == []


def test_a_skip_has_its_reason() -> None:
    found = []
    for path in modules("tests"):
        reasons: set[int] = set()
        for name, call in calls(path):
            if name in ("pytest.mark.skip", "pytest.mark.skipif", "pytest.mark.xfail", "pytest.skip", "pytest.xfail"):
                stated = any(one.arg == "reason" for one in call.keywords) or (name.count(".") == 1 and call.args)
                if stated:
                    reasons.add(id(call.func))
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.Attribute) and dotted(node) in ("pytest.mark.skip", "pytest.mark.skipif", "pytest.mark.xfail"):
                found += [(named(path), node.lineno)] if id(node) not in reasons else []
    assert found == []


def test_files_of_tests_have_names_of_their_own() -> None:
    names = Counter(path.name for path in modules("tests") if path.name.startswith("test_"))
    assert [name for name, count in names.items() if count > 1] == []
