"""From the overlay to the tables: one sorted batch and one synchronous commit at a time, then the log's segments go.

Decides when (a full overlay, a second after the first row, a sealed log, somebody's ``once``) and what a failing commit means: a
full disk is tried again and refuses merges meanwhile; anything else takes the device out of service, for a store that failed to
commit is not believed.  In both cases the log still has every row.

Neighbours: books (``swap`` gives the batch, ``applied`` ends it), commit (cuts the log).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import trio

from ring.errors import DiskFault, DiskFull
from ring.world.interface import Disk, Tables, Write
from storage.rows.commit import GroupCommit, Segment
from storage.rows.tables import as_fault
from storage.sync.tree import Toggles

APPLY_INTERVAL_S = 1.0
APPLY_ROWS = 2_000  # as soon as there are so many
OVERLAY_ROWS_MAX = 20_000  # merges wait for the tables beyond
RETRY_S = 1.0


class ApplierDevice(Protocol):
    @property
    def disk(self) -> Disk: ...

    def fail(self, reason: str, error: BaseException | None = None) -> None: ...


@dataclass(frozen=True, slots=True)
class Batch:
    """``toggles`` are read against the tables when they are committed."""

    writes: Sequence[Write]
    toggles: Sequence[Toggles]


class Applier:
    """``row_count``: rows that wait in the overlay; None when there is nothing at all to apply."""

    def __init__(
        self,
        device: ApplierDevice,
        tables: Tables,
        log: GroupCommit,
        row_count: Callable[[], int | None],
        swap: Callable[[], Batch],
        applied: Callable[[], None],
    ) -> None:
        self._device = device
        self._tables = tables
        self._log = log
        self._row_count = row_count
        self._swap = swap
        self._applied = applied
        self._wake = trio.Event()
        self._hurry = trio.Event()
        self._batch: Batch | None = None  # swapped out and not yet committed
        self._segments: list[Segment] = []  # hold nothing but what the batch and earlier ones hold
        self._sealed = False  # the last of them is the log's sealed one
        self._disk_full = False
        self.lock = trio.Lock()  # whoever changes the books' tables holds it
        self.commits = 0  # counter

    def wake(self) -> None:
        """There is something to apply, soon."""
        self._wake.set()
        if self._log.sealed or (self._row_count() or 0) >= APPLY_ROWS:
            self._hurry.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            while self._row_count() is None and self._batch is None and not self._log.sealed:
                self._wake = trio.Event()
                self._hurry = trio.Event()
                await self._wake.wait()
            if self._batch is not None:
                await trio.sleep(RETRY_S)
            else:
                with trio.move_on_after(APPLY_INTERVAL_S):
                    await self._hurry.wait()
            self._hurry = trio.Event()
            try:
                await self.once()
            except DiskFull:
                continue
            except DiskFault as fault:
                self._device.fail(fault.message, fault.__cause__)
                self._log.refuse(fault)
                await trio.sleep_forever()

    async def once(self) -> None:
        """Apply what is visible now.  Raises DiskFull (it will be tried again) or DiskFault (the device is out of service)."""
        async with self.lock:
            with trio.CancelScope(shield=True):
                if self._batch is None:
                    await self._cut()
                try:
                    await self._commit()
                except DiskFault as fault:
                    if isinstance(fault, DiskFull):
                        self._disk_full = True
                    else:
                        self._device.fail(fault.message, fault.__cause__)
                    self._log.refuse(fault)
                    raise

    async def _cut(self) -> None:
        done = trio.Event()

        def then(segment: Segment | None) -> None:
            if segment is not None:
                self._segments.append(segment)
            self._sealed = self._log.sealed
            self._batch = self._swap()
            self._log.wake()
            done.set()

        self._log.cut(then)
        await done.wait()

    async def _commit(self) -> None:
        batch = self._batch
        assert batch is not None
        writes = list(batch.writes)
        for toggles in batch.toggles:
            writes += toggles.writes(self._tables)
        if writes:
            await self._tables.commit(writes)
            self.commits += 1
        self._batch = Batch((), ())  # what follows may fail and be tried again: to toggle twice is to take back
        try:
            while self._segments:
                await self._segments[0].file.close()
                await self._device.disk.unlink(self._segments[0].path)
                del self._segments[0]
        except OSError as error:
            raise as_fault(error, "a row log segment cannot be removed") from error
        self._batch = None
        self._applied()
        if self._sealed or self._disk_full:
            sealed_since = self._log.sealed and not self._sealed
            self._sealed = self._disk_full = False
            if not sealed_since:
                self._log.reopen()
