"""Locks by key: conditional writes and the ends of large ones wait for each other in a process, where outbidding would cost more.

Neighbours: objects, coded_objects (the users).  What holds across processes is the register's to say.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from ring.names import Path


class KeyLocks:
    """One holder per key at a time; a key that nobody holds or wants takes no room."""

    def __init__(self) -> None:
        self._locks: dict[Path, tuple[trio.Lock, int]] = {}

    @asynccontextmanager
    async def holding(self, key: Path, *, always: bool) -> AsyncIterator[None]:
        """Unless ``always``, only behind somebody who holds it: the small writes of a key wait for a large one, whose commit they
        would spoil, and not for each other."""
        if not always and key not in self._locks:
            yield
            return
        lock, users = self._locks.get(key, (trio.Lock(), 0))
        self._locks[key] = (lock, users + 1)
        try:
            async with lock:
                yield
        finally:
            lock, users = self._locks.pop(key)
            if users > 1:
                self._locks[key] = (lock, users - 1)
