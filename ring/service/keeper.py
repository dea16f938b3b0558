"""Keeper: the edition of rings that this process goes by, on disk and in RAM.

Moves an edition in: every ring file is checked and durable first, then the edition's file, then all of it changes in RAM at once,
and from then on the gate refuses what follows an older one.  So a restart never goes back: having an edition in force *is* the
promise to refuse older ones.  The workers of a machine share the folder; one of them (``writes``) writes it, the others read it
again (``reload``).  Decides nothing about which edition comes next.

Folder: ``edition.json``, and ``NAME.VERSION.ring`` for each ring that the edition names.  Neighbours: edition, overlap, gate;
follow and agent (bring editions).
"""

from __future__ import annotations

import zlib
from collections.abc import Awaitable, Callable, Mapping

import trio

from ring.errors import FormatError, NotFound, RingfortError, Unavailable
from ring.names import NameHasher
from ring.placement import Ring
from ring.ringfile import decode as decode_ring
from ring.service.edition import Edition, RingId, Standing, decode, encode, file_name
from ring.service.gate import Gate
from ring.service.horizon import NO_HORIZON
from ring.service.overlap import Claim, Overlap
from ring.world.interface import Disk, World

EDITION = "edition.json"
PART_BYTES = 1 << 20  # of a ring file, to one who fetches it


class Keeper:
    def __init__(self, world: World, disk: Disk, hasher: NameHasher, *, writes: bool = True) -> None:
        self.gate = Gate(self._heard)
        self.overlaps: Mapping[str, Overlap] = {}
        self.changed = trio.Event()  # replaced at each change
        self.newest_heard = 0  # the newest edition that anybody spoke of
        self._world = world
        self._disk = disk
        self._hasher = hasher
        self._writes = writes
        self._edition = Edition(0, {})
        self._rings: dict[tuple[str, RingId], Ring] = {}
        self._coming: dict[str, str] = {}  # by ring, the file that may be in force next
        self._turn = trio.Lock()
        self._told: list[Callable[[Mapping[str, Overlap]], None]] = []

    @property
    def edition(self) -> Edition:
        return self._edition

    def tell(self, call: Callable[[Mapping[str, Overlap]], None]) -> None:
        """Call it now and at every change, in the same breath."""
        self._told.append(call)
        call(self.overlaps)

    # ---- life

    async def load(self, read_first: Callable[[], Awaitable[Mapping[str, bytes]]]) -> None:
        """What is on disk; where there is nothing yet, edition 1 of ``read_first`` (ring files by name).  FormatError, OSError."""
        if not await self.reload():
            first = await read_first()
            rings = {name: RingId.of(decode_ring(data, self._hasher).version, data) for name, data in first.items()}
            edition = Edition(1, {name: Standing(ring, ring) for name, ring in rings.items()})
            await self.adopt(edition, {(name, rings[name].version): data for name, data in first.items()})

    async def reload(self) -> bool:
        """Take what another process of this machine wrote, when it is newer.  True when any edition is in force."""
        if await self._disk.info(EDITION) is not None:
            edition = decode(await self._disk.read_file(EDITION))
            if edition.number > self._edition.number:
                await self.adopt(edition, {}, from_disk=True)
        return self._edition.number > 0

    async def adopt(self, edition: Edition, files: Mapping[tuple[str, int], bytes], *, from_disk: bool = False) -> bool:
        """Put ``edition`` in force; ``files`` are the rings that the folder lacks.  False when this one or a newer one is already.

        FormatError when a ring is not what the edition says, NotFound when one is missing; nothing has changed then."""
        async with self._turn:
            if edition.number <= self._edition.number:
                return False
            rings: dict[tuple[str, RingId], Ring] = {}
            for (name, version), wanted in edition.needed.items():
                ring = self._rings.get((name, wanted))
                rings[name, wanted] = ring or await self._bring(name, wanted, files.get((name, version)))
            if self._writes:  # also what was read: who wrote it may have ended before it was durable
                await self._disk.replace_file(EDITION, encode(edition))
            self._swap(edition, rings)
            if self._writes and not from_disk:  # what was found at a start may be of a step that was taken and not heard of
                await self._tidy()
        return True

    async def adopt_with(self, edition: Edition, files: Mapping[tuple[str, int], bytes]) -> bool:
        """``adopt``, where ``files`` may be of other rings; False when some ring is missing."""
        fitting = {key: data for key, data in files.items() if edition.needed.get(key) == RingId.of(key[1], data)}
        try:
            return await self.adopt(edition, fitting)
        except (NotFound, FormatError):
            return False

    async def store(self, name: str, version: int, data: bytes, *, before: Edition) -> bool:
        """A ring file that the edition after ``before`` will name.  False, and nothing is written, when that is not in force (any
        more): the file of that version might be another one by now, and in force."""
        async with self._turn:
            if self._edition is not before:
                return False
            self._coming[name] = file_name(name, version)
            await self._disk.replace_file(file_name(name, version), data)
        return True

    async def _bring(self, name: str, wanted: RingId, data: bytes | None) -> Ring:
        path = file_name(name, wanted.version)
        if data is None:
            try:
                data = await self._disk.read_file(path)
            except FileNotFoundError:
                raise NotFound(f"version {wanted.version} of ring {name} is not here") from None
            known = True
        else:
            known = False
        if zlib.crc32(data) != wanted.checksum:
            raise FormatError(f"version {wanted.version} of ring {name} is another ring than the one in force")
        ring = await self._world.offload.run(decode_ring, data, self._hasher)
        if ring.version != wanted.version:
            raise FormatError(f"a file of ring {name} says version {ring.version}, not {wanted.version}")
        if self._writes and not known:
            await self._disk.replace_file(path, data)
        return ring

    def _swap(self, edition: Edition, rings: dict[tuple[str, RingId], Ring]) -> None:
        """In one breath: nobody sees half of it."""
        claim = Claim(edition.number)
        overlaps: dict[str, Overlap] = {}
        for name, standing in edition.rings.items():
            ring, settled = rings[name, standing.newest], rings[name, standing.settled]
            old = self.overlaps.get(name)
            horizon = edition.horizons.get(name, NO_HORIZON)
            if old is not None and old.ring is ring and old.settled is settled:
                overlaps[name] = Overlap(ring, settled, claim, old._places, horizon=horizon)
            else:
                overlaps[name] = Overlap(ring, settled, claim, horizon=horizon)
        self._edition, self._rings, self.overlaps = edition, rings, overlaps
        self.gate.edition = edition.number
        for call in self._told:
            call(overlaps)
        changed, self.changed = self.changed, trio.Event()
        changed.set()

    async def _tidy(self) -> None:
        """Rings that no edition names any more.  What cannot be removed now is removed after the next change."""
        needed = {file_name(name, version) for name, version in self._edition.needed} | set(self._coming.values())
        for path in await self._disk.list_dir(""):
            if path.endswith(".ring") and path not in needed:
                await self._disk.unlink(path)

    def _heard(self, edition: int) -> None:
        if edition > self.newest_heard:
            self.newest_heard = edition
            changed, self.changed = self.changed, trio.Event()
            changed.set()

    # ---- for others (a RingSource)

    async def edition_file(self) -> bytes:
        return encode(self._edition)

    async def ring_part(self, name: str, version: int, offset: int) -> bytes:
        """At most PART_BYTES of a ring file that is in force; b"" at its end.  NotFound."""
        if (name, version) not in self._edition.needed:
            raise NotFound(f"version {version} of ring {name} is not in force here")
        try:
            data = await self._disk.read_file(file_name(name, version))
        except FileNotFoundError:
            raise NotFound(f"version {version} of ring {name} is not here any more") from None
        except OSError as error:
            raise Unavailable(f"ring {name} cannot be read: {error}") from error
        return data[offset : offset + PART_BYTES]

    def has(self, name: str, ring: RingId) -> bool:
        return (name, ring) in self._rings

    async def wait_beyond(self, edition: int, timeout_s: float) -> bool:
        """Until a newer edition than this one is in force, at most so long."""
        with trio.move_on_after(timeout_s):
            while self._edition.number <= edition:
                await self.changed.wait()
        return self._edition.number > edition


def checked(name: str, data: bytes, hasher: NameHasher) -> Ring:
    """A ring file that somebody wants to publish.  FormatError says whose it is."""
    try:
        return decode_ring(data, hasher)
    except RingfortError as error:
        raise FormatError(f"ring {name}: {error.message}", hint=error.hint) from error
