"""Returning: comparing the rows of a device that was away while tombstones of rows were forgotten.

As storage.object.returning does it for objects, row by row.  Of what is not above the horizon:

- a device that is clean holds it: it stays;
- such a device holds something newer of the name: that is taken;
- such a device holds something older: ours was not deleted (that device would have forgotten the older one too), and stays; the
  replicator pushes it;
- every other device that is to hold the book answers, is clean, and knows nothing of the name: it was deleted, or all who had it
  are gone.  The row is put aside, as a file in ``quarantine``, and this device lets go of it; a tombstone just goes;
- else nothing follows, and it is looked at again.

A row in transit is compared with what the whole listing says, by majorities: it may have moved on.

Headers need none of that: deletions of books are never forgotten.  Neighbours: reclaimer (calls it, and moves the mark in the end),
windows, storage.sync.comparing.  Format: docs/formats/returned.md.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Awaitable, Callable, Mapping, Sequence

from ring.device import Device
from ring.errors import BadInput, DiskFault, FormatError, NewerFormat, Unavailable
from ring.names import Path, Span
from ring.service.overlap import Overlap
from ring.timestamp import Timestamp
from ring.world.interface import Clock, Disk
from storage.client.interface import Row
from storage.client.node import BookHeader, Node
from storage.container.shards import in_transit, is_shard, root_of
from storage.container.windows import ROWS_AT_ONCE, Window, window
from storage.rows.books import Books
from storage.rows.merge import supersedes
from storage.sync.comparing import Others, ask, holders

MAGIC = "ringfort returned rows"
FORMAT = 1
FOLDER, SUFFIX = "quarantine", ".rows"

Listed = Callable[[Path, str, str], Awaitable[Mapping[str, Row]]]  # of a container: live rows above and below these names


class Returning:
    def __init__(
        self, kind: str, clock: Clock, device: Device, books: Books, nodes: Callable[[Device], Node], listed: Listed
    ) -> None:
        self.put_aside = 0  # rows, since the start
        self._kind = kind
        self._clock = clock
        self._device = device
        self._books = books
        self._nodes = nodes
        self._listed = listed

    async def look(self, overlap: Overlap, span: Span, until: int) -> bool:
        """True when all that is held of the partition at or below ``until`` (ticks) is known not to have been deleted."""
        others = [device for device in holders(overlap, span) if device.id != self._device.id]
        if not others:
            return True
        answers = await ask(others, self._nodes, overlap, span, clean=until, kind=self._kind)
        if not answers.answers:
            return False
        mine = await self._books.digests(self._kind, span)
        differing = answers.differ_all(mine)
        good = True
        for leaf in sorted(mine.leaves):
            theirs = await answers.leaf(span, leaf) if leaf in differing else []
            if theirs is None:
                return False
            for book, digest in await self._books.leaf(self._kind, span, leaf):
                header = self._books.header(book)
                if header is None:
                    continue
                try:
                    if in_transit(header):
                        good &= await self._in_transit(header, until)
                    elif leaf in differing and not any(there.get(book) == (book, digest) for there in theirs):
                        good &= await self._book(header.path, answers, until)
                except (Unavailable, DiskFault):
                    good = False
        return good

    async def _book(self, path: Path, answers: Others, until: int) -> bool:
        good, after = True, ""
        while True:
            found = await window(self._books, path, [answer.node for answer in answers.answers], after)
            for header in found.headers:
                if header is not None and header != found.header:
                    await self._books.merge_header(header)
            state = await self._books.book(path)
            if state is not None and in_transit(state.header):  # as others know: then theirs have moved on
                return await self._in_transit(state.header, until)
            good &= await self._rows(path, found, Timestamp(until), all_answered=not answers.silent)
            if found.after is None:
                return good
            after = found.after

    async def _rows(self, path: Path, found: Window, until: Timestamp, *, all_answered: bool) -> bool:
        newer, unknown = [], []
        for name, row in found.mine.items():
            if row.timestamp > until:
                continue
            known = [other for there in found.theirs if (other := there.get(name)) is not None]
            better = [other for other in known if supersedes(other, row)]
            if better:
                newer.append(better[0])
            elif not known:
                unknown.append(row)
        if newer:
            await self._books.merge_rows(path, newer)
        if unknown and all_answered:
            await self._part_with(path, unknown)
        return all_answered or not unknown

    async def _in_transit(self, header: BookHeader, until: int) -> bool:
        path = header.path
        root = root_of(header.metadata) if is_shard(path) else path
        if root is None:
            return False
        after = ""
        while (page := await self._books.rows(path, start=after, end="", limit=ROWS_AT_ONCE, reverse=False)) is not None:
            old = [row for row in page.rows if row.timestamp <= Timestamp(until)]
            if old:
                listed = await self._listed(root, after, old[-1].name + "\0")
                await self._part_with(path, [row for row in old if row.name not in listed])
                there = [row for row in old if row.name in listed and not supersedes(row, listed[row.name])]
                await self._books.let_go(path, there)
            if page.complete:
                return True
            after = page.rows[-1].name
        return True

    async def _part_with(self, path: Path, rows: Sequence[Row]) -> None:
        """Of rows that nobody else knows.  DiskFault."""
        live = [row for row in rows if not row.deleted]
        if live:
            await put_aside(self._books.disk, path, live, self._clock.now())
        await self._books.let_go(path, rows)
        self.put_aside += len(live)


def encode(book: Path, rows: Sequence[Row], put_aside_at: float) -> bytes:
    body = {
        "magic": MAGIC,
        "format": FORMAT,
        "book": [book.account, book.container],
        "put_aside_at": put_aside_at,
        "rows": [
            {
                "name": row.name,
                "timestamp": str(row.timestamp),
                "size": row.size,
                "etag": row.etag,
                "content_type": row.content_type,
                "count": row.count,
            }
            for row in rows
        ],
    }
    return (json.dumps({**body, "checksum": _checksum(body)}, indent=1, sort_keys=True) + "\n").encode()


def decode(data: bytes, name: str) -> tuple[Path, list[Row], float]:
    """The book, its rows, and when they were put aside (wall seconds).  FormatError: damaged, or newer than this program."""
    try:
        body = json.loads(data)
        checksum = body.pop("checksum")
        if body["magic"] != MAGIC or checksum != _checksum(body):
            raise FormatError(f"{name} is damaged")
        if body["format"] > FORMAT:
            raise NewerFormat("rows that were put aside", int(body["format"]), FORMAT, path=name)
        rows = [
            Row(
                str(row["name"]),
                Timestamp.parse(row["timestamp"]),
                int(row["size"]),
                str(row["etag"]),
                str(row["content_type"]),
                int(row["count"]),
            )
            for row in body["rows"]
        ]
        return Path(*body["book"]), rows, float(body["put_aside_at"])
    except (ValueError, KeyError, TypeError, AttributeError, BadInput) as error:
        raise FormatError(f"{name} says nothing of rows") from error


async def put_aside(disk: Disk, book: Path, rows: Sequence[Row], now: float) -> None:
    """A file of them in ``quarantine``; durable when it returns.  DiskFault."""
    data = encode(book, rows, now)
    kept = zlib.crc32(repr([(row.name, row.timestamp.pack()) for row in rows]).encode())  # the same rows twice are one file
    name = f"{zlib.crc32(str(book).encode()):08x}-{kept:08x}{SUFFIX}"
    try:
        await disk.make_dirs(FOLDER)
        await disk.replace_file(f"{FOLDER}/{name}", data)
    except OSError as error:
        raise DiskFault(f"rows of {book} cannot be put aside: {error.strerror or error}") from error


async def listing(disk: Disk) -> list[tuple[str, Path, list[Row], float]]:
    """All files of a device: name, and what ``decode`` says.  FormatError, OSError."""
    names = sorted(name for name in await disk.list_dir(FOLDER) if name.endswith(SUFFIX))
    return [(name, *decode(await disk.read_file(f"{FOLDER}/{name}"), name)) for name in names]


def _checksum(body: Mapping[str, object]) -> str:
    return f"{zlib.crc32(json.dumps(body, sort_keys=True, separators=(',', ':')).encode()):08x}"
