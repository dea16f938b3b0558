"""Standing: up to which time a device is known to be clean, kept on the device itself; and what it may do until it is.

Its mark M, for a ring, says: whatever was deleted at or below M and forgotten by everybody, nothing of that is on this device any
more (ring.service.horizon).  It moves only when the device has compared all it holds with all the others, never with time.  When
the ring's horizon has gone beyond M, the device was away, or is an old disk that came back: it is *behind*.  What it holds at or
below the horizon may have been deleted, so it answers for no name, pays no row of that age and pushes nothing of that age, until
its reclaimer has compared all of it (storage.object.returning).  No clock is asked: a mark from last year is as good as today's
when nothing was forgotten in between.

The mark lies in a file of its own, beside the tables, because tables can be made anew.  A mark that is lost or damaged counts as
none, which costs a comparison.  It is set back to none when records that were acknowledged are missing from the device: the
deletions may be among them.  A device that holds nothing is clean.

Neighbours: storage.object.store and storage.rows.books (ask), storage.object.reclaimer (moves it).  Format: docs/formats/clean.md.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterable, Mapping

import trio

from ring.errors import DiskFault, NewerFormat, Unavailable
from ring.service.horizon import NO_HORIZON, Horizon
from ring.timestamp import TICKS_MAX, Timestamp
from ring.world.interface import Disk

MAGIC = "ringfort clean"
FORMAT = 1
OBJECTS_PATH = "clean-objects.json"
BOOKS_PATH = "clean-books.json"
OBJECTS = "object"  # how a store of objects calls its ring, whatever its policy


def encode(marks: Mapping[str, int]) -> bytes:
    body = {"magic": MAGIC, "format": FORMAT, "clean": dict(marks)}
    return (json.dumps({**body, "checksum": _checksum(body)}, indent=1, sort_keys=True) + "\n").encode()


def decode(data: bytes, path: str) -> dict[str, int]:
    """None at all when it is damaged.  NewerFormat."""
    try:
        body = json.loads(data)
        checksum = body.pop("checksum")
        if body["magic"] != MAGIC or checksum != _checksum(body):
            return {}
        version = int(body["format"])
        if version > FORMAT:
            raise NewerFormat("the device's mark", version, FORMAT, path=path)
        marks = {str(name): int(ticks) for name, ticks in body["clean"].items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}
    return {name: ticks for name, ticks in marks.items() if 0 <= ticks <= TICKS_MAX}


class Standing:
    """Of one engine of a device.  ``horizon`` gives the horizon in force of a ring; whoever knows the rings sets it before the
    engine is opened."""

    def __init__(self, disk: Disk, path: str) -> None:
        self.horizon: Callable[[str], Horizon] = lambda name: NO_HORIZON
        self._disk = disk
        self._path = path
        self._marks: dict[str, int] = {}
        self._writing = trio.Lock()  # the file has the marks of all rings: each write is of what the one before it left

    async def load(self) -> None:
        """OSError; NewerFormat when a newer program wrote it."""
        try:
            data = await self._disk.read_file(self._path)
        except FileNotFoundError:
            self._marks = {}
        else:
            self._marks = decode(data, self._path)

    def mark(self, name: str) -> int:
        """Ticks; 0: none."""
        return self._marks.get(name, 0)

    def behind(self, name: str) -> bool:
        return self.mark(name) < self.horizon(name).reclaimed

    def check(self, name: str) -> None:
        """Before the device answers for a name: Unavailable while it is behind."""
        if self.behind(name):
            raise Unavailable("the device was away, and is being compared with the others", hint="ask the others meanwhile")

    def doubts(self, name: str, timestamp: Timestamp) -> bool:
        """Whether what it holds of that time may have been deleted meanwhile."""
        return self.behind(name) and self.horizon(name).forgets(timestamp)

    def closed_above(self, name: str, timestamp: Timestamp) -> Timestamp | None:
        """When nothing new may be written at this time: above what it must be."""
        horizon = self.horizon(name)
        return Timestamp(horizon.closed + 1) if horizon.closes(timestamp) else None

    async def take_back(self) -> None:
        """Something that the engine had acknowledged is missing: it may be a deletion.  Before it is forgotten that anything is.
        DiskFault."""
        async with self._writing:
            if self._marks:
                await self._write({})

    async def opened(self, names: Iterable[str], *, empty: bool) -> None:
        """The engine was opened.  ``empty``: it holds nothing.  DiskFault."""
        if empty:
            for name in names:
                await self.move(name, self.horizon(name).reclaimed)

    async def move(self, name: str, ticks: int) -> None:
        """It is clean up to here; durable when it returns.  DiskFault."""
        async with self._writing:
            if ticks > self.mark(name):
                await self._write({**self._marks, name: ticks})

    async def _write(self, marks: dict[str, int]) -> None:
        try:
            await self._disk.replace_file(self._path, encode(marks))
        except OSError as error:
            raise DiskFault(f"{self._path} cannot be written: {error.strerror or error}") from error
        self._marks = marks


def _checksum(body: Mapping[str, object]) -> str:
    return f"{zlib.crc32(json.dumps(body, sort_keys=True, separators=(',', ':')).encode()):08x}"
