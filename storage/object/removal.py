"""Removal: what a device lets go of, by itself: what others hold, and what has rotted.

A record in the log says so (a drop); nothing is told to anybody, and nothing is deleted by it.  One drop of a name at a time, so
that each meets what it is for, or something newer: compaction relies on that.  A damaged file is put aside by rename.  That a
damaged version was here stays known: too few might know of it otherwise.  The record of its drop is the device's doubt (doubts.py);
where fragments are kept (``notes``) a note takes the place of its data.

Neighbours: store.py (whose device it is), auditor.py and the readers (find damage), replicator.py and reconstructor.py (drop).
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import trio

from ring.errors import Conflict, DiskFault
from storage.object.device import QUARANTINE
from storage.object.doubts import QUARANTINED
from storage.object.entry import Held
from storage.object.files import disk_fault, file_name, file_path
from storage.object.record import Info, Record, RecordKind, info_of

if TYPE_CHECKING:
    from storage.object.store import ObjectStore

QUARANTINED_MAX = 1000  # more than that, and the device itself is to blame


class Removal:
    def __init__(self, store: ObjectStore) -> None:
        self.quarantined = 0  # since the start
        self.notes = False
        self._store = store
        self._dropping: dict[bytes, trio.Event] = {}  # by hash

    async def drop(self, key: bytes, reason: str) -> bool:
        """See ObjectStore."""
        held = self._get(key)
        if held is None:
            return False
        if self._store.index.owes(key):
            raise Conflict("it still owes a container row", hint="pay it first")
        return await self._drop(held, reason)

    async def quarantine(self, key: bytes) -> bool:
        """See ObjectStore."""
        held = self._get(key)
        if held is None:
            return False
        device = self._store.device
        if held.entry.in_file:
            name = file_name(held.hash, held.timestamp, held.entry.serial)
            try:
                with suppress(FileNotFoundError):  # that is its damage
                    await device.disk.rename(file_path(held.hash, held.timestamp, held.entry.serial), f"{QUARANTINE}/{name}")
            except OSError as error:
                raise disk_fault(device.device_id, "put a file into quarantine", error) from error
        note = await self._note_of(held)
        gone = await self._drop(held, QUARANTINED)
        if gone and note is not None:
            await self._store.packs.submit(note).wait()
        return gone

    async def examine(self, key: bytes) -> bool:
        """See ObjectStore."""
        held = self._get(key)
        if held is None or not await self._store.reader.problem(held):
            return True
        now = self._get(key)
        if now is None or now.entry != held.entry:
            return True  # something else lies there by now
        self.quarantined += 1
        if self.quarantined > QUARANTINED_MAX:
            self._store.device.fail("too much of what it holds is damaged")
        self._store.device.check()
        await self.quarantine(key)
        return False

    def dropped(self, name_hash: bytes) -> None:
        """A drop landed."""
        self._dropping.pop(name_hash, None)

    async def _note_of(self, held: Held) -> Record | None:
        """Of a fragment, or of a whole copy where others have fragments: what says that there is the version."""
        if held.entry.kind is not RecordKind.FRAGMENT and not (self.notes and held.entry.kind is RecordKind.OBJECT_INLINE):
            return None
        try:
            version = await self._store.reader.describe(held, await self._store.reader.path(held))
        except DiskFault:
            return None
        return Record(RecordKind.NOTE, held.hash, held.timestamp, info_of(version, None))

    async def _drop(self, held: Held, reason: str) -> bool:
        while (under_way := self._dropping.get(held.hash)) is not None and not under_way.is_set():
            await under_way.wait()
        if self._get(held.key) is None:
            return False
        info = Info(("", "", ""), etag=held.entry.etag, posted_at=held.entry.posted_at, reason=reason)  # the path may be damaged
        pending = self._store.packs.submit(Record(RecordKind.DROP, held.hash, held.timestamp, info))
        pending.settled = settled = self._dropping[held.hash] = trio.Event()
        try:
            return (await pending.wait()).taken
        finally:
            if pending.done and self._dropping.get(held.hash) is settled:  # else it is on its way still
                del self._dropping[held.hash]

    def _get(self, key: bytes) -> Held | None:
        held = self._store.newest(key[:16])
        return held if held is not None and held.key == key else None
