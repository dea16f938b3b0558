"""RowPayer: brings the container rows that object writes owe to the container's devices.

One batch at a time goes to each (device, book); rows that come up meanwhile travel together in the next, so that many writes
into one container cost its devices few commits.  Waiting is bounded: a row that is late stays owed in the object's record, and
the updater sends it again (rows are last-write-wins, so twice is once).

Neighbours: local (its caller), the nodes it pays to, storage.object.updater (what stayed owed).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import trio

from ring.errors import RingfortError
from ring.names import Path
from ring.service.overlap import Claim
from storage.client.node import Debt, Node
from storage.client.watch import Watch

ROW_WAIT_S = 1.0
BATCH_ROWS_MAX = 256
QUEUE_ROWS_MAX = 4096


class _Wait:
    """A debt on its way to ``left`` devices."""

    __slots__ = ("_event", "left", "paid")

    def __init__(self, count: int) -> None:
        self._event = trio.Event()
        self.left = count
        self.paid = True

    def answer(self, took: bool) -> None:
        self.left -= 1
        self.paid = self.paid and took
        if self.left == 0 or not self.paid:
            self._event.set()

    @property
    def over(self) -> bool:
        return self._event.is_set()

    def expire(self) -> None:
        self._event.set()

    async def wait(self) -> bool:
        await self._event.wait()
        return self.left == 0 and self.paid


class _Due(NamedTuple):
    debt: Debt
    wait: _Wait


_Key = tuple[int, Path, Claim | None]  # device, book, and by which edition the rows came to be owed


class RowPayer:
    """``nodes`` finds a device's node by id (None: this process knows of none such); ``primaries`` the devices of a container;
    ``claim`` the edition in force, by which what is owed from now on is sent, however late: a device that goes by a newer one may
    have forgotten what was deleted meanwhile.  ``nursery`` runs the batches."""

    def __init__(
        self,
        nursery: trio.Nursery,
        nodes: Callable[[int], Node | None],
        *,
        primaries: Callable[[Path], Sequence[int]] = lambda container: (),
        claim: Callable[[], Claim | None] = lambda: None,
        wait_s: float = ROW_WAIT_S,
        batch_rows_max: int = BATCH_ROWS_MAX,
        queue_rows_max: int = QUEUE_ROWS_MAX,
    ) -> None:
        self._nursery = nursery
        self._nodes = nodes
        self._primaries = primaries
        self._claim = claim
        self._batch_rows_max = batch_rows_max
        self._queue_rows_max = queue_rows_max
        self._watch = Watch(nursery, wait_s)
        self._queues: dict[_Key, list[_Due]] = {}

    async def pay(self, debt: Debt) -> bool:
        """True when every device of the debt has the row durably; False when that is not known in time."""
        if not debt.device_ids:
            return True
        wait = _Wait(len(debt.device_ids))
        due, claim = _Due(debt, wait), self._claim()
        for device_id in debt.device_ids:
            self._enqueue((device_id, debt.book, claim), due)
        self._watch.add(wait)
        return await wait.wait()

    def _enqueue(self, key: _Key, due: _Due) -> None:
        queue = self._queues.get(key)
        if queue is None:
            self._queues[key] = [due]
            self._nursery.start_soon(self._run, key)
        elif len(queue) < self._queue_rows_max:
            queue.append(due)
        else:
            due.wait.answer(False)

    async def _run(self, key: _Key) -> None:
        device_id, book, claim = key
        queue = self._queues[key]
        try:
            while queue:
                batch = queue[: self._batch_rows_max]
                del queue[: self._batch_rows_max]
                node = self._nodes(device_id)
                took, refused = False, False
                if node is not None:
                    if claim is not None and claim.edition:
                        node = node.under(claim)
                    try:
                        took = await node.merge_rows(book, [due.debt.row for due in batch]) is not None
                        refused = not took
                    except RingfortError:
                        took = False  # unknown: the row stays owed
                for due in batch:
                    if refused and book != due.debt.container:
                        self._redirect(due, claim)
                    else:
                        due.wait.answer(took)
        finally:
            del self._queues[key]

    def _redirect(self, due: _Due, claim: Claim | None) -> None:
        """The shard was replaced: to all primaries of the container, which forward it."""
        devices = self._primaries(due.debt.container)
        if not devices:
            due.wait.answer(False)
            return
        due.wait.left += len(devices) - 1
        for device_id in devices:
            self._enqueue((device_id, due.debt.container, claim), due)
