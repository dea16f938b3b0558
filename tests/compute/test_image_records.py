"""The table of image fields: what a client may set, what patches do, and what the API shows."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compute.images.records import (
    NUMBER_MAX,
    PROPERTIES_MAX,
    ImageRecord,
    decode,
    encode,
    patched,
    render,
    visible_to,
    with_fields,
)
from identity.client.interface import Access
from ring.errors import BadInput

NO_NUMBERS: list[Any] = [-1, True, 1.5, "1", None, NUMBER_MAX + 1, 10**30]
NO_TEXTS: list[Any] = [None, 1, [], {}, "x" * 4097]
NEW = ImageRecord(id="i", owner="p1", created=0.0, updated=0.0)
FULL = with_fields(NEW, {"name": "n", "disk_format": "raw", "tags": ["t"], "min_disk": 1, "protected": True, "os_distro": "debian"})


@pytest.mark.parametrize(
    "given_fields, expected",
    [
        ({}, {}),
        ({"name": "x"}, {"name": "x"}),
        ({"name": None}, {"name": ""}),
        ({"disk_format": "raw", "container_format": "bare"}, {"disk_format": "raw", "container_format": "bare"}),
        ({"disk_format": None}, {"disk_format": None}),
        ({"visibility": "community"}, {"visibility": "community"}),
        ({"min_disk": 0, "min_ram": NUMBER_MAX}, {"min_disk": 0, "min_ram": NUMBER_MAX}),
        ({"protected": True, "os_hidden": True}, {"protected": True, "os_hidden": True}),
        ({"tags": []}, {"tags": []}),
        ({"os_distro": "debian"}, {"properties": {"os_distro": "debian"}}),
        ({"hw_x": ""}, {"properties": {"hw_x": ""}}),
    ],
)
def test_fields_that_are_taken(given_fields: dict[str, Any], expected: dict[str, Any]) -> None:
    record = with_fields(NEW, given_fields)
    assert {name: getattr(record, name) for name in expected} == expected
    assert decode(encode(record)) == record


@pytest.mark.parametrize(
    "given_fields",
    [
        *({name: "x"} for name in ("id", "owner", "status", "size", "checksum", "self", "locations", "os_hash_value")),
        {"name": 1},
        {"name": "x" * 256},
        {"disk_format": "exe"},
        {"disk_format": 3},
        {"container_format": "zip"},
        {"visibility": None},
        {"visibility": "secret"},
        *({"min_disk": value} for value in NO_NUMBERS),
        {"protected": "yes"},
        {"protected": 1},
        {"tags": "t"},
        {"tags": [1]},
        {"tags": ["x" * 256]},
        *({"property": value} for value in NO_TEXTS),
        {"p" * 256: "x"},
        {f"p{number}": "x" for number in range(PROPERTIES_MAX + 1)},
    ],
    ids=lambda value: repr(value)[:40],
)
def test_fields_that_are_refused(given_fields: dict[str, Any]) -> None:
    with pytest.raises(BadInput):
        with_fields(NEW, given_fields)


@pytest.mark.parametrize(
    "patch, expected",
    [
        ([], {}),
        ([{"op": "replace", "path": "/name", "value": "m"}], {"name": "m"}),
        ([{"op": "add", "path": "/new", "value": "v"}], {"properties": {"os_distro": "debian", "new": "v"}}),
        ([{"op": "remove", "path": "/os_distro"}], {"properties": {}}),
        ([{"op": "add", "path": "/a~1b~0c", "value": "v"}], {"properties": {"os_distro": "debian", "a/b~c": "v"}}),
        ([{"op": "replace", "path": "/tags", "value": ["u"]}, {"op": "replace", "path": "/name", "value": "z"}], {"tags": ["u"]}),
    ],
)
def test_patches(patch: list[Any], expected: dict[str, Any]) -> None:
    record = patched(FULL, patch)
    assert {name: getattr(record, name) for name in expected} == expected


@pytest.mark.parametrize(
    "change",
    [
        "x",
        {},
        {"op": "replace", "path": "/name"},
        {"op": "replace", "path": "name", "value": "x"},
        {"op": "replace", "path": "/", "value": "x"},
        {"op": "replace", "path": 3, "value": "x"},
        {"op": "replace", "path": "/status", "value": "active"},
        {"op": "replace", "path": "/owner", "value": "p2"},
        {"op": "remove", "path": "/name"},
        {"op": "remove", "path": "/none"},
        {"op": "move", "path": "/name", "from": "/os_distro"},
        {"op": ["add"], "path": "/name", "value": "x"},
    ],
    ids=repr,
)
def test_patches_that_are_refused_whole(change: Any) -> None:
    with pytest.raises(BadInput):
        patched(FULL, [{"op": "replace", "path": "/name", "value": "other"}, change])


@pytest.mark.parametrize(
    "visibility, project, roles, seen",
    [
        ("private", "p1", "member", True),
        ("private", "p2", "member", False),
        ("shared", "p2", "member", False),
        ("private", "p2", "admin", True),
        ("public", "p2", "member", True),
        ("community", "p2", "reader", True),
    ],
)
def test_who_sees_what(visibility: str, project: str, roles: str, seen: bool) -> None:
    access = Access("u", "u", project, project, "default", frozenset({roles}), float("inf"))
    assert visible_to(with_fields(NEW, {"visibility": visibility}), access) is seen


def test_what_is_shown() -> None:
    shown = render(FULL)
    assert shown["os_distro"] == "debian" and shown["created_at"] == "1970-01-01T00:00:00Z"
    assert (shown["self"], shown["file"], shown["schema"]) == ("/v2/images/i", "/v2/images/i/file", "/v2/schemas/image")
    assert shown["os_hash_algo"] is None and "import_source" not in shown


@given(st.dictionaries(st.text(max_size=20), st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=20)), max_size=5))
def test_properties_never_hide_the_real_fields(fields: dict[str, Any]) -> None:
    try:
        record = with_fields(NEW, fields)
    except BadInput:
        return
    shown = render(record)
    assert (shown["id"], shown["owner"], shown["status"]) == ("i", "p1", "queued")
    assert decode(encode(record)) == record
