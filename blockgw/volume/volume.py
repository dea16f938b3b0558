"""Volume: a BlockDevice made of a write log, immutable segment objects and, below all, an image.

Layers, newest first: ``dirty`` (taken, in the log), ``frozen`` (being destaged), ``stable`` (in segments), the base image, zeroes.

Invariants
- What ``flush`` acknowledged is in the log of two devices or in segments at a quorum.
- Segments are written one after another; segment n+1 only after n is at its quorum.  So at recovery the first missing one ends
  them.
- A segment's name is only ever given to one content: after a failure the very same bytes are written again, so that a replica
  which took the first try holds nothing stale.
- A log file goes only when segments hold all of it.
- Only the holder of the register's epoch serves; it loses the volume when a move of the register fails.
- Nothing is served before the register names a checkpoint of the present epoch; so only that epoch's log matters at recovery.
- RAM: at most DIRTY_BYTES_MAX taken since the last freeze, and as much again frozen.  Beyond it writers wait, ROOM_S at most.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from uuid import UUID

import trio

from blockgw.volume import logfile, segment, writelog
from blockgw.volume.blocks import BlockReader, read_object
from blockgw.volume.extents import Extent, ExtentMap
from blockgw.volume.layers import Base, Stable, Taken, batches, below, bytes_of, through
from blockgw.volume.logfile import Kind
from blockgw.volume.register import Register, RegisterKeeper
from blockgw.volume.segment import (
    Checkpoint,
    CheckpointExtent,
    SegmentExtent,
    SegmentHeader,
    SegmentId,
    checkpoint_name,
)
from blockgw.volume.writelog import WriteLog
from ring.errors import BadInput, Conflict, DiskFault, NotFound, RingfortError, Unavailable
from ring.names import HIDDEN, Path
from ring.wire.message import BytesBody
from ring.world.interface import Buffer, Disk
from storage.client.errors import ObjectNotFound
from storage.client.interface import NewObject, Query, Row, Storage

ACCOUNT = HIDDEN + "volumes"
SEGMENT_BYTES = 4 << 20
DIRTY_BYTES_DESTAGE = 8 << 20  # begin to destage
DIRTY_BYTES_MAX = 64 << 20  # beyond it writers wait
LOG_BUFFER_BYTES_MAX = 4 << 20  # taken and unsynced; beyond it writers wait
DESTAGE_AFTER_S = 2.0
RETRY_S = 1.0
ROOM_S = 120.0  # a writer that waits longer is told a medium error
DISCARD_BYTES_MAX = 1 << 30  # of one log record
RUN_PIECES_MAX = 1024  # looked at for one answer of run_at
CHECKPOINT_EVERY = 64  # segments


def _unheard(trouble: str) -> None:
    """Where nobody wants to know."""


class Volume:
    """Implements blockgw.scsi.block.BlockDevice.  Made by ``open``; ``run`` destages until cancelled; then ``close``."""

    def __init__(
        self,
        volume_id: UUID,
        size: int,
        storage: Storage,
        reader: BlockReader,
        keeper: RegisterKeeper,
        base: Base | None,
        note: Callable[[str], None],
    ) -> None:
        self.size = size
        self._id = volume_id
        self._storage = storage
        self._reader = reader
        self._keeper = keeper
        self._base = base
        self._note = note
        self._container = Path(ACCOUNT, str(volume_id))
        self._dirty: ExtentMap[Taken] = ExtentMap()
        self._frozen: ExtentMap[Taken] = ExtentMap()
        self._stable: ExtentMap[Stable] = ExtentMap()
        self._dirty_bytes = 0
        self._frozen_sequence = 0
        self._batches: deque[list[Extent[Taken]]] = deque()  # of the frozen layer, not in segments yet
        self._objects: set[str] = set()  # segments and checkpoints of ours that are known to exist
        self._log: WriteLog
        self._next_segment = 0
        self._destaged_sequence = 0
        self._last_placed = 0  # sequence of the newest write in a layer
        self._since_checkpoint = 0
        self._wanted = trio.Event()  # destaging is wanted now
        self._room = trio.Event()  # destaging made room
        self._destaging = trio.Lock()
        self._lost: RingfortError | None = None  # why nothing may be written any more

    # ---- opening

    @classmethod
    async def open(
        cls,
        volume_id: UUID,
        size: int,
        *,
        storage: Storage,
        reader: BlockReader,
        keeper: RegisterKeeper,
        disks: Sequence[Disk],
        base: Base | None,
        log_copies: int = 2,
        note: Callable[[str], None] = _unheard,
    ) -> Volume:
        """Take the volume over at the next epoch and recover it.  The caller holds its claim (register.claim).

        Unavailable when segments or logs cannot be read: nothing is served from a partial recovery.  ``note``: is told what goes
        wrong in the background."""
        self = cls(volume_id, size, storage, reader, keeper, base, note)
        old = await keeper.load()
        epoch = old.epoch + 1
        await keeper.move(Register(epoch, old.checkpoint, old.checkpoint_epoch, old.closed))
        covered = await self._recover_objects(old)
        copies = min(log_copies, len(disks))
        # Before its first checkpoint nothing of a volume was served; after an orderly close its log is empty.
        faults_max = len(disks) if old.closed or not old.checkpoint else copies - 1
        records = await writelog.replay(disks, volume_id, epoch=old.checkpoint_epoch, faults_max=faults_max)
        last = covered
        for record in records:
            if record.sequence > covered:
                data = record.data if record.kind == Kind.WRITE else None
                self._place(Taken(record.sequence, data), record.offset, record.length)
                last = max(last, record.sequence)
        self._log = WriteLog(
            disks,
            volume_id,
            epoch,
            copies=copies,
            next_sequence=last + 1,
            undestaged=self._undestaged,
        )
        self._destaged_sequence = covered
        await self._destage()
        await self._checkpoint()
        await writelog.remove_logs(disks, volume_id, keep_epoch=epoch)
        return self

    async def _recover_objects(self, old: Register) -> int:
        """The checkpoint and the segments after it.  The log sequence they cover."""
        covered, next_segment = 0, 0
        if old.checkpoint:
            data = await read_object(self._storage, self._object(old.checkpoint))
            checkpoint = segment.decode_checkpoint(data)
            for one in checkpoint.extents:
                self._stable.insert(Extent(one.start, one.start + one.length, one.segment, one.offset))
            self._objects |= {one.segment.name for one in checkpoint.extents if one.segment is not None} | {old.checkpoint}
            covered, next_segment = checkpoint.log_sequence, checkpoint.next_segment
        while True:
            found = SegmentId(old.checkpoint_epoch, next_segment)
            try:
                header, start = await self._segment_header(found)
            except ObjectNotFound:
                return covered
            self._apply_segment(found, header, start)
            covered = header.log_sequence
            next_segment += 1

    async def _segment_header(self, found: SegmentId) -> tuple[SegmentHeader, int]:
        path = self._object(found.name)
        head = await read_object(self._storage, path, 0, segment.FRAME_BYTES)
        return segment.decode_segment_header(await read_object(self._storage, path, 0, segment.segment_header_length(head)))

    def _apply_segment(self, found: SegmentId, header: SegmentHeader, start: int) -> None:
        self._objects.add(found.name)
        at = start
        for one in header.extents:
            source: Stable = None if one.zero else found
            self._stable.insert(Extent(one.start, one.start + one.length, source, 0 if one.zero else at))
            if not one.zero:
                at += one.length

    # ---- BlockDevice

    def read_now(self, offset: int, length: int) -> bytes | None:
        pieces: list[bytes] = []
        for where in self._resolve(offset, offset + length):
            match where:
                case bytes():
                    pieces.append(where)
                case (path, start, count):
                    data = self._reader.read_now(path, start, count)
                    if data is None or len(data) != count:
                        return None
                    pieces.append(data)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def read(self, offset: int, length: int) -> bytes:
        while True:
            where = list(self._resolve(offset, offset + length))
            try:
                return await self._fetch(where)
            except ObjectNotFound as error:
                # A checkpoint may have swept a segment between our look at the map and the read; the map knows better now.
                if where == list(self._resolve(offset, offset + length)):
                    raise DiskFault(f"volume {self._id}: {error.message}") from error

    async def _fetch(self, found: Sequence[bytes | tuple[Path, int, int]]) -> bytes:
        pieces: list[bytes] = []
        for where in found:
            match where:
                case bytes():
                    pieces.append(where)
                case (path, start, count):
                    data = await self._reader.read(path, start, count)
                    if len(data) != count:
                        raise DiskFault(f"{path} is shorter than the volume's map says")
                    pieces.append(data)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def write_now(self, offset: int, data: Buffer) -> bool:
        """Never: a write that was answered out of RAM would be lost with its worker, and the initiator, which logs in to the next
        one, would have its later flush acknowledged without it."""
        return False

    async def write(self, offset: int, data: Buffer, *, durable: bool = False) -> None:
        await self._wait_for_room()
        self._take(offset, len(data), bytes(data))
        await self.flush()  # durable or not: see write_now; all writes that wait share one sync

    async def discard(self, offset: int, length: int) -> None:
        self._check_range(offset, length)
        for at in range(offset, offset + length, DISCARD_BYTES_MAX):
            await self._wait_for_room()
            self._take(at, min(DISCARD_BYTES_MAX, offset + length - at), None)
        await self.flush()

    async def flush(self) -> None:
        self._check()
        sequence = self._log.last_taken
        try:
            await self._log.sync()
        except DiskFault as fault:
            # Segments are as good as the log: slower, but the devices left may be enough for them.
            try:
                await self._settle(sequence)
            except Conflict:
                raise
            except RingfortError as error:
                raise fault from error
        self._check()

    def run_at(self, offset: int) -> tuple[int, bool]:
        """MappedDevice: what was discarded or never written, and lies beyond the image, is unmapped."""
        wanted: bool | None = None
        end = offset
        for count, (piece_end, mapped) in enumerate(self._runs(offset)):
            if (wanted is not None and mapped != wanted) or count == RUN_PIECES_MAX:
                break
            wanted, end = mapped, piece_end
        return end - offset, bool(wanted)

    # ---- the worker's side

    @property
    def healthy(self) -> bool:
        """False when nothing may be written any more: it must be opened anew."""
        return self._lost is None

    async def run(self) -> None:
        """Destage in the background, until cancelled.  Conflict when the volume was taken over."""
        trouble = ""
        while True:
            with trio.move_on_after(DESTAGE_AFTER_S):
                await self._wanted.wait()
            self._wanted = trio.Event()
            if not (len(self._dirty) or len(self._frozen)):
                continue
            try:
                await self._settle(0, checkpoint=self._since_checkpoint >= CHECKPOINT_EVERY)
                trouble = ""
            except Conflict as error:
                self._lose(error)
                raise
            except RingfortError as error:
                # The objects' quorum is out of reach: the log keeps what was acknowledged, writers wait when there is no room.
                if error.message != trouble:
                    trouble = error.message
                    self._note(f"{self._id} is not destaged: {trouble}")
                await trio.sleep(RETRY_S)

    async def close(self) -> None:
        """Destage everything and checkpoint.  If that fails the log stays and the next open replays it."""
        if self._lost is not None:
            await self._log.close(remove=False)
            return
        try:
            try:
                await self._log.sync()
            except DiskFault as error:
                self._note(f"{self._id} closes without its log: {error.message}")
            await self._settle(self._log.last_taken, checkpoint=True, closed=True)
        except RingfortError:
            await self._log.close(remove=False)
            raise
        finally:
            self._lose(Unavailable(f"volume {self._id} is closed"))
        await self._log.close(remove=True)

    async def abandon(self) -> None:
        """Let go without writing: the volume is to be deleted, or was lost."""
        self._lose(Unavailable(f"volume {self._id} is closed"))
        await self._log.close(remove=False)

    # ---- inside

    def _object(self, name: str) -> Path:
        return Path(self._container.account, self._container.container, name)

    def _lose(self, why: RingfortError) -> None:
        self._lost = self._lost or why
        self._make_room()  # who waits for some is told

    def _make_room(self) -> None:
        room, self._room = self._room, trio.Event()
        room.set()

    def _check(self) -> None:
        if self._lost is not None:
            raise Unavailable(f"volume {self._id} cannot be written: {self._lost.message}")

    def _crowded(self) -> bool:
        return self._dirty_bytes > DIRTY_BYTES_MAX or self._log.buffer_bytes > LOG_BUFFER_BYTES_MAX

    async def _wait_for_room(self) -> None:
        self._check()
        deadline = trio.current_time() + ROOM_S
        while self._crowded():
            if self._log.buffer_bytes > LOG_BUFFER_BYTES_MAX:
                await self.flush()
            else:
                self._wanted.set()
                with trio.CancelScope(deadline=deadline) as waiting:
                    await self._room.wait()
                if waiting.cancelled_caught:
                    raise DiskFault(f"volume {self._id}: its writes could not be destaged for {ROOM_S:.0f} s")
            self._check()

    def _check_range(self, offset: int, length: int) -> None:
        if offset < 0 or length < 0 or offset + length > self.size:
            raise BadInput(f"{length} bytes at {offset} are outside of a volume of {self.size}")

    def _take(self, offset: int, length: int, data: bytes | None) -> None:
        self._check_range(offset, length)
        if length == 0:
            return
        kind = Kind.WRITE if data is not None else Kind.DISCARD
        sequence = self._log.take(kind, offset, length, data or b"")
        self._place(Taken(sequence, data), offset, length)
        if self._dirty_bytes > DIRTY_BYTES_DESTAGE:
            self._wanted.set()

    def _place(self, taken: Taken, offset: int, length: int) -> None:
        self._last_placed = taken.sequence
        self._dirty.insert(Extent(offset, offset + length, taken, 0))
        self._dirty_bytes += length if taken.data is not None else logfile.RECORD_BYTES

    def _undestaged(self) -> Iterator[tuple[int, Kind, int, int, Buffer]]:
        for layer in (self._frozen, self._dirty):
            for extent in layer:
                data = extent.source.data
                length = extent.end - extent.start
                if data is None:
                    yield extent.source.sequence, Kind.DISCARD, extent.start, length, b""
                else:
                    piece = memoryview(data)[extent.offset : extent.offset + length]
                    yield extent.source.sequence, Kind.WRITE, extent.start, length, piece

    def _resolve(self, start: int, end: int) -> Iterator[bytes | tuple[Path, int, int]]:
        """The bytes where they are at hand, else (object, offset, length), in order."""
        for extent in through((self._dirty, self._frozen), start, end):
            if isinstance(extent, Extent):
                length = extent.end - extent.start
                data = extent.source.data
                yield bytes(length) if data is None else data[extent.offset : extent.offset + length]
                continue
            for stable in self._stable.lookup(*extent):
                if not isinstance(stable, Extent):
                    yield from below(self._base, *stable)
                elif stable.source is None:
                    yield bytes(stable.end - stable.start)
                else:
                    yield self._object(stable.source.name), stable.offset, stable.end - stable.start

    def _runs(self, start: int) -> Iterator[tuple[int, bool]]:
        """(end, whether it is mapped), one after another, from ``start`` to the end of the volume."""
        base_end = min(self._base.size, self.size) if self._base is not None else 0
        for extent in through((self._dirty, self._frozen), start, self.size):
            if isinstance(extent, Extent):
                yield extent.end, extent.source.data is not None
                continue
            for stable in self._stable.lookup(*extent):
                if isinstance(stable, Extent):
                    yield stable.end, stable.source is not None
                    continue
                at, end = stable
                if at < base_end:
                    yield min(end, base_end), True
                if end > base_end:
                    yield end, False

    async def _settle(self, sequence: int, *, checkpoint: bool = False, closed: bool = False) -> None:
        """Destage what was taken up to ``sequence``, and at least one layer."""
        async with self._destaging:
            await self._destage()
            while self._destaged_sequence < sequence and (len(self._frozen) or len(self._dirty)):
                await self._destage()
            if checkpoint:
                await self._checkpoint(closed=closed)
            await self._log.destaged(self._destaged_sequence)

    async def _destage(self) -> None:
        """Write the frozen layer as segments, or the dirty one when there is none.  After an error it goes on where it was."""
        if not len(self._frozen):
            if not len(self._dirty):
                return
            self._frozen, self._dirty = self._dirty, ExtentMap()
            self._dirty_bytes = 0
            self._frozen_sequence = self._last_placed
            self._batches.extend(batches(self._frozen, SEGMENT_BYTES))
            self._make_room()
        while self._batches:
            batch = self._batches[0]
            # Only the last segment of a layer covers the log: before it, replay repeats what some of them hold already.
            covers = self._frozen_sequence if len(self._batches) == 1 else self._destaged_sequence
            extents = tuple(SegmentExtent(e.start, e.end - e.start, e.source.data is None) for e in batch)
            header = SegmentHeader(covers, extents)
            head = segment.encode_segment_header(header)
            data = b"".join([head, *(bytes_of(extent) for extent in batch)])
            found = SegmentId(self._keeper.value.epoch, self._next_segment)
            await self._storage.put_object(self._object(found.name), NewObject(), BytesBody(data))
            self._batches.popleft()
            self._next_segment += 1
            self._since_checkpoint += 1
            self._apply_segment(found, header, len(head))
        self._destaged_sequence = self._frozen_sequence
        self._frozen = ExtentMap()

    async def _checkpoint(self, *, closed: bool = False) -> None:
        """The whole map as an object, then the register points to it, then segments that nothing refers to go."""
        epoch = self._keeper.value.epoch
        extents = tuple(CheckpointExtent(e.start, e.end - e.start, e.source, e.offset) for e in self._stable)
        checkpoint = Checkpoint(self._next_segment, self._destaged_sequence, extents)
        name = checkpoint_name(epoch, self._next_segment)
        await self._storage.put_object(self._object(name), NewObject(), BytesBody(segment.encode_checkpoint(checkpoint)))
        await self._keeper.move(Register(epoch, name, epoch, closed))
        self._since_checkpoint = 0
        self._objects.add(name)
        await self._sweep({name} | {one.segment.name for one in extents if one.segment is not None})

    async def _sweep(self, needed: set[str]) -> None:
        """Delete the objects that neither the map nor the register refers to; what cannot be deleted now is tried next time."""
        for name in self._objects - needed:
            try:
                await self._storage.delete_object(self._object(name))
            except ObjectNotFound:
                pass
            except RingfortError:
                continue
            self._objects.discard(name)


async def delete_objects(storage: Storage, volume_id: UUID) -> None:
    """Everything a deleted volume left in the object store, page by page; no error when there is nothing."""
    container = Path(ACCOUNT, str(volume_id))
    try:
        while True:
            page = await storage.list_container(container, Query(limit=1000))
            for row in page.items:
                if isinstance(row, Row):
                    try:
                        await storage.delete_object(Path(container.account, container.container, row.name))
                    except ObjectNotFound:
                        continue
            if not page.items:
                break
        await storage.delete_container(container)
    except NotFound:
        return
