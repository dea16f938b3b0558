"""What the front door's tests stand on."""

from __future__ import annotations

import pytest

from identity.client.fake import FakeIdentity
from storage.client.fake import FakeStorage
from tests.proxy.door import StillClock


@pytest.fixture
def clock() -> StillClock:
    return StillClock()


@pytest.fixture
def storage(clock: StillClock) -> FakeStorage:
    return FakeStorage(clock)


@pytest.fixture
def identity() -> FakeIdentity:
    identity = FakeIdentity()
    identity.add("ann", project="p1")
    identity.add("bob", project="p2")
    identity.add("eve", project="p1", roles=frozenset(("reader",)))
    identity.add("root", project="adm", roles=frozenset(("admin",)))
    return identity
