"""The Worker that removes parts nobody owns: of manifests that were replaced or deleted, by whichever dialect, and of uploads that
were aborted or left half way.

One unit is one record.  A manifest is looked for with a plain HEAD: only a definite answer that it is not there, or that another
object has its name, moves a record on; Unavailable is raised, and leaves all as it is.  Parts go no sooner than ``grace_s`` after
their manifest was found gone, so that those who are reading it can end.

Neighbours: records and shelf; uploads leaves to this what it need not wait for.
"""

from __future__ import annotations

from proxy.large.manifest import UPLOAD
from proxy.large.records import KV_PREFIX, PARTS, RECORDS, State, kv_key, state_of
from proxy.large.shelf import GONE, PAGE, Shelf
from ring.daemon.worker import Busy, Idle, Progress
from ring.kv.interface import KV, Delete
from ring.names import Path
from ring.world.interface import Clock, Entropy
from storage.client.errors import ContainerNotEmpty, ContainerNotFound, PreconditionFailed
from storage.client.interface import Prefix, Row, Storage

GRACE_S = 3600.0
SETTLE_S = 86_400.0  # no request lasts so long
INTERVAL_S = 300.0  # between rounds


class PartsSweeper:
    """A Worker (ring.daemon.worker)."""

    name = "parts-sweeper"

    def __init__(
        self,
        storage: Storage,
        kv: KV,
        clock: Clock,
        entropy: Entropy,
        *,
        grace_s: float = GRACE_S,
        settle_s: float = SETTLE_S,
        interval_s: float = INTERVAL_S,
    ) -> None:
        self._storage = storage
        self._kv = kv
        self._clock = clock
        self._entropy = entropy
        self._grace_s = grace_s
        self._settle_s = settle_s
        self._interval_s = interval_s
        self._containers: list[Path] | None = None  # still to be swept in this round; None between rounds
        self._round = 0  # containers of it
        self._sweep: _Sweep | None = None

    def progress(self) -> Progress:
        """Of the containers of this round."""
        if self._containers is None:
            return Progress(1.0)
        left = len(self._containers) + (self._sweep is not None)
        return Progress(1.0 - left / max(1, self._round))

    def begin(self) -> None:
        """Called again, it goes through all containers."""

    async def work(self) -> Busy | Idle:
        """One record, or one upload's forgotten parts.  Idle when a round over all containers has ended.

        What fails is left for the next round: the unit after it is another."""
        if self._containers is None:
            entries = await self._kv.range(KV_PREFIX)
            self._containers = [Path(*entry.key.removeprefix(KV_PREFIX).split("/", 1)) for entry in entries]
            self._round = len(self._containers)
        if self._sweep is None:
            if not self._containers:
                self._containers = None
                return Idle.after(self._interval_s)
            container = self._containers.pop()
            self._sweep = _Sweep(container, Shelf(self._storage, self._entropy, container))
        sweep = self._sweep
        item = await sweep.next()
        if item is None:
            self._sweep = None
            if not sweep.seen:
                await self._close(sweep.shelf, sweep.container)
        elif isinstance(item, Row):
            await self._judge(sweep.shelf, sweep.container, item)
        else:
            await self._remove_forgotten(sweep.shelf, item.name.removeprefix(PARTS).rstrip("/"))
        return Busy()

    async def run_once(self) -> None:
        """One whole round."""
        while isinstance(await self.work(), Busy):
            pass

    async def _judge(self, shelf: Shelf, container: Path, row: Row) -> None:
        upload_id = row.name.removeprefix(RECORDS)
        age_s = self._clock.now() - row.timestamp.seconds
        state = state_of(row.content_type)
        try:
            match state:
                case State.COMPLETE | State.SETTLED:
                    await self._judge_complete(shelf, container, upload_id, state, age_s)
                case State.COMPLETING if age_s >= self._settle_s:
                    held = await shelf.read(upload_id)
                    is_there = await self._is_there(container, held.record.key, upload_id)
                    # Parts stay as they are either way: an open upload can be completed again.
                    if held.record.state is State.COMPLETING:
                        await shelf.advance(upload_id, held, state=State.COMPLETE if is_there else State.OPEN)
                case State.OPEN if age_s >= self._settle_s:
                    held = await shelf.read(upload_id)
                    if held.record.state is State.OPEN and not await self._has_container(container):
                        await shelf.advance(upload_id, held, state=State.DOOMED)
                case State.DOOMED if age_s >= self._grace_s:
                    await shelf.remove_parts(upload_id)
                    await shelf.remove_record(upload_id)
        except (PreconditionFailed, *GONE):
            pass  # the record has moved on; the next round sees how

    async def _judge_complete(self, shelf: Shelf, container: Path, upload_id: str, state: State, age_s: float) -> None:
        held = await shelf.read(upload_id)
        if held.record.state not in (State.COMPLETE, State.SETTLED):
            return
        if not await self._is_there(container, held.record.key, upload_id):
            await shelf.advance(upload_id, held, state=State.DOOMED)
        elif state is State.COMPLETE and age_s >= self._settle_s:
            await shelf.remove_parts(upload_id, keep=frozenset(part.name for part in held.record.parts))
            await shelf.advance(upload_id, held, state=State.SETTLED)

    async def _is_there(self, container: Path, key: str, upload_id: str) -> bool:
        """Whether the upload's manifest is what the key names."""
        try:
            meta = await self._storage.head_object(Path(container.account, container.container, key))
        except GONE:
            return False
        return meta.metadata.get(UPLOAD) == upload_id

    async def _has_container(self, container: Path) -> bool:
        try:
            await self._storage.head_container(container)
        except ContainerNotFound:
            return False
        return True

    async def _remove_forgotten(self, shelf: Shelf, upload_id: str) -> None:
        """Parts that arrived after their upload was aborted: there is no record of it."""
        try:
            await shelf.read(upload_id)
        except GONE:
            await shelf.remove_parts(upload_id, before=self._clock.now() - self._settle_s)

    async def _close(self, shelf: Shelf, container: Path) -> None:
        """Nothing is on the shelf: when its container is gone too, so is the shelf."""
        if await self._has_container(container):
            return
        try:
            await self._storage.delete_container(shelf.path)
        except ContainerNotEmpty:
            return
        except ContainerNotFound:
            pass
        await self._kv.transact([], [Delete(kv_key(container.account, container.container))])


class _Sweep:
    """A container's units, one after another: its records (Rows), then the uploads that have parts (Prefixes)."""

    def __init__(self, container: Path, shelf: Shelf) -> None:
        self.container = container
        self.shelf = shelf
        self.seen = False  # anything at all
        self._scans = [(PARTS, "/"), (RECORDS, "")]
        self._marker = ""
        self._items: list[Row | Prefix] = []

    async def next(self) -> Row | Prefix | None:
        while not self._items:
            if not self._scans:
                return None
            prefix, delimiter = self._scans[-1]
            page = await self.shelf.page(prefix, delimiter, self._marker)
            self._items = list(reversed(page))
            if len(page) < PAGE:
                self._scans.pop()
                self._marker = ""
            else:
                self._marker = page[-1].name
        self.seen = True
        return self._items.pop()
