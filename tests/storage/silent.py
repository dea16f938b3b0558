"""A node that never answers."""

from __future__ import annotations

from collections.abc import Callable

from ring.device import Device
from ring.errors import Unavailable


class Silent:
    def __init__(self, device: Device) -> None:
        self.device = device

    def under(self, claim: object) -> Silent:
        return self

    def __getattr__(self, name: str) -> Callable[..., object]:
        async def refuse(*arguments: object, **named: object) -> None:
            raise Unavailable("it does not answer")

        return refuse
