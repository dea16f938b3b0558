"""Host: serves one watched device, as a worker does; for the tests of watch.py."""

from __future__ import annotations

from collections.abc import Callable

import trio

from ring.errors import RingfortError
from ring.world.interface import World
from storage.object.device import OpenDevice
from storage.object.health import Change, Reserve, State
from storage.object.store import ObjectStore
from storage.object.watch import LOOK_S, DeviceWatch
from storage.rows.books import Books
from tests.storage.object.object_rig import CLUSTER, HASHER


class Host:
    def __init__(self, world: World, root: str, reserve: Reserve, *, look_s: float = LOOK_S) -> None:
        self.world = world
        self.store: ObjectStore | None = None
        self.books: Books | None = None
        self.openings = 0
        self.changes: list[tuple[State, State]] = []
        self.watch = DeviceWatch(world, root, CLUSTER, 1, reserve=reserve, look_s=look_s, note=self.note)

    def note(self, change: Change) -> None:
        if change.before is not change.after:
            self.changes.append((change.before, change.after))

    @property
    def state(self) -> State:
        return self.watch.health.state

    @property
    def open(self) -> ObjectStore:
        """RingfortError is for tests that meet it closed."""
        if self.store is None:
            raise RingfortError("the device is out")
        return self.store

    async def serve(self, device: OpenDevice, serves: Callable[[], None]) -> None:
        store, books = ObjectStore(self.world, device, HASHER), Books(self.world, device, HASHER)
        try:
            async with trio.open_nursery() as nursery:
                await nursery.start(store.run)
                await nursery.start(books.run)
                self.store, self.books = store, books
                self.openings += 1
                serves()
                await trio.sleep_forever()
        finally:
            self.store = self.books = None
            with trio.CancelScope(shield=True):
                for close in (store.close, books.close, device.close):
                    try:
                        await close()
                    except (OSError, RingfortError):
                        continue
