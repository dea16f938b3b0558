"""What can go wrong while rings change.

Unavailable     StaleRing
"""

from __future__ import annotations

from ring.errors import Unavailable


class StaleRing(Unavailable):
    """Refused, and nothing was done: it was asked for by the rules of an older edition than the device keeps to."""

    def __init__(self, message: str, *, edition: int = 0, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.edition = edition  # the one in force at the device
