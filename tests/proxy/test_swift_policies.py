"""X-Storage-Policy: taken, shown, kept; the default of containers and buckets that name none."""

from __future__ import annotations

import json

import pytest

from identity.client.fake import FakeIdentity
from proxy.gates.access import AccessGate
from proxy.gates.limits import Limits
from proxy.gates.memory import MemoryBudget
from proxy.large.reader import ManifestReader
from proxy.operations.books import BookVerbs
from proxy.operations.objects import ObjectVerbs
from proxy.pipeline import Pipeline
from proxy.swift.app import SwiftApp
from proxy.swift.info import info
from storage.client.fake import FakeStorage
from tests.proxy.door import Client, StillClock

A = "/v1/AUTH_p1"


@pytest.fixture
def ann(storage: FakeStorage, identity: FakeIdentity, clock: StillClock) -> Client:
    pipeline = Pipeline(identity, Limits(), AccessGate(storage), MemoryBudget(8 << 20))
    objects = ObjectVerbs(storage, clock, ManifestReader(storage), object_bytes_max=1 << 20)
    books = BookVerbs(storage, default_policy=1)
    return Client(SwiftApp(pipeline, objects, books, clock, policies=("Gold", "cold")), {"x-auth-token": "token-ann"})


async def test_a_container_has_the_policy_that_it_was_made_with(ann: Client) -> None:
    assert (await ann("PUT", f"{A}/c", {"x-storage-policy": "GOLD"})).status == 201
    assert (await ann("HEAD", f"{A}/c"))["x-storage-policy"] == "Gold"
    assert (await ann("GET", f"{A}/c"))["x-storage-policy"] == "Gold"
    assert (await ann("PUT", f"{A}/c", {"x-container-meta-a": "b"})).status == 202  # none is named: it keeps its own
    assert (await ann("PUT", f"{A}/c", {"x-storage-policy": "gold"})).status == 202
    assert (await ann("PUT", f"{A}/c", {"x-storage-policy": "cold"})).status == 409
    assert (await ann("HEAD", f"{A}/c"))["x-storage-policy"] == "Gold"
    assert (await ann("PUT", f"{A}/d", {"x-storage-policy": "tin"})).status == 400


async def test_the_default(ann: Client) -> None:
    assert (await ann("PUT", f"{A}/c")).status == 201
    assert (await ann("HEAD", f"{A}/c"))["x-storage-policy"] == "cold"
    head = await ann("HEAD", A)
    assert not [name for name in head.headers if "storage-policy" in name]  # nobody adds up who has what
    body = info(Limits(), ("Gold", "cold"), 1).body
    assert isinstance(body, bytes)
    assert json.loads(body)["swift"]["policies"] == [
        {"name": "Gold", "aliases": "Gold"},
        {"name": "cold", "aliases": "cold", "default": True},
    ]
