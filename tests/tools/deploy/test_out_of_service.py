"""What stands for a device that is out of service answers all that a device is asked, with Unavailable."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable
from typing import Any

import pytest

from ring.device import Device
from ring.errors import Unavailable
from storage.client.node import Node
from tools.deploy.devices import OutOfService

DEVICE = Device(id=1, region=1, zone=1, ip="127.0.0.1", port=0, name="d1", weight=1.0)
QUESTIONS = [name for name, one in vars(Node).items() if inspect.iscoroutinefunction(one)]
OTHERS = [name for name, one in vars(Node).items() if inspect.isfunction(one) and name not in QUESTIONS and name[0] != "_"]


@pytest.mark.parametrize("name", QUESTIONS)
async def test_every_question_is_refused(name: str) -> None:
    ask: Any = getattr(OutOfService(DEVICE, "it has no label"), name)
    answer: Awaitable[object] = ask(None)
    with pytest.raises(Unavailable, match="device 1 is out of service: it has no label"):
        await answer


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_no_question_gives_the_same_device(name: str) -> None:
    """It was forgotten once for a new one of these: then replicators of other devices died of it."""
    gone = OutOfService(DEVICE, "")
    told: Any = getattr(gone, name)
    arguments = len(inspect.signature(getattr(Node, name)).parameters) - 1
    assert told(*[None] * arguments) is gone
