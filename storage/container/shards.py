"""The map of a container that is cut into shards: which range of names lies where, and how one map follows another.  Pure.

A map covers all names by ranges (lower, upper], each with a shard: a book in the container's hidden account.  Maps of one container
are versions of one another; what writes them (sharder) orders them by compare and set, and copies the newest into the header of
the container's own book, the *root*, where everybody reads it.  docs/ARCHITECTURE.md ("Shards of a listing") has the argument.

Decides: where a name belongs, what a listing reads next, what a split and a join make of a map, which headers refuse rows.
Never touches I/O.  Neighbours: sharder (writes maps), storage.client.pages and books (read them), storage.rows (refuses, lets go).
Format: docs/formats/shards.md; golden bytes: tests/golden/shards.json.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from ring.errors import BadInput, FormatError
from ring.names import HIDDEN, Path
from ring.timestamp import OFFSET_MAX, Timestamp

if TYPE_CHECKING:
    from storage.client.node import BookHeader

MAP = "x-sysmeta-shards"  # of a root: its map
SUMS = "x-sysmeta-shard-sums"  # of a root: objects and bytes in its shards
OF = "x-sysmeta-shard-of"  # of a shard: its root
LASTING = frozenset((MAP, SUMS, OF))  # say where rows are: no deletion of the book changes that
FORMAT = 1
MAP_BYTES_MAX = 900_000  # a value of control state ends at 1 MiB, and so does a header
_ACCOUNT = f"{HIDDEN}shards-"
_SUCCESSOR = "\0"  # name + this is the least name above it

Metadata = Mapping[str, tuple[str, Timestamp]]


@dataclass(frozen=True, slots=True)
class Shard:
    """A range that ends with ``upper`` ("": without end) and begins behind the one before it."""

    upper: str
    name: str
    active: bool = True  # rows go there; else it is created: listings look there, nobody writes
    sources: tuple[str, ...] = ()  # shards that were there before and may still hold rows of this range

    @property
    def settled(self) -> bool:
        return self.active and not self.sources


class Part(NamedTuple):
    """What a listing reads next: names of ``shard`` with start < name < end.  That is all there is up to ``until`` and with it (in
    reverse: down to it); None: up to the listing's own bound."""

    shard: Shard
    start: str
    end: str
    until: str | None


@dataclass(frozen=True, slots=True)
class ShardMap:
    version: int  # from 1
    stamp: Timestamp  # of its copies in headers; above that of the version before
    shards: tuple[Shard, ...]

    def place(self, name: str) -> Shard:
        return self.shards[self._index(name)]

    def lower(self, index: int) -> str:
        return self.shards[index - 1].upper if index else ""

    def part(self, start: str, end: str, *, reverse: bool) -> Part:
        """The first range, in the direction asked for, that may have a name with start < name < end ("" is no bound)."""
        if reverse:
            index = len(self.shards) - 1
            if end:
                index = min(index, self._index(end))
                if index and end == self.lower(index) + _SUCCESSOR:
                    index -= 1  # nothing of this range is below that
            lower = self.lower(index)
            until = lower + _SUCCESSOR if index and lower > start else None
            return Part(self.shards[index], max(start, lower), self._least(end, self.shards[index].upper), until)
        index = self._index(start + _SUCCESSOR) if start else 0
        shard = self.shards[index]
        until = shard.upper if shard.upper and (not end or shard.upper + _SUCCESSOR < end) else None
        return Part(shard, max(start, self.lower(index)), self._least(end, shard.upper), until)

    def index(self, name: str) -> int | None:
        """Of the range whose shard has this name."""
        return next((at for at, shard in enumerate(self.shards) if shard.name == name), None)

    @property
    def settled(self) -> bool:
        return all(shard.settled for shard in self.shards)

    @property
    def sources(self) -> Sequence[str]:
        """Shards to be closed and emptied: everything that took their place is active."""
        waiting = {source for shard in self.shards if not shard.active for source in shard.sources}
        return list(dict.fromkeys(s for shard in self.shards for s in shard.sources if s not in waiting))

    # ---- how one map follows another

    def split(self, index: int, pivots: Sequence[str], stamp: Timestamp) -> ShardMap:
        """A range cut behind each of the pivots.  BadInput when they do not lie inside of it, or the map grows too large."""
        old = self.shards[index]
        uppers = [*pivots, old.upper]
        bounds = [self.lower(index), *pivots]
        if not pivots or any(a >= b for a, b in zip(bounds, uppers, strict=True) if b) or not all(pivots):
            raise BadInput("these names do not cut the range")
        return self._with(index, 1, uppers, (old.name,), stamp)

    def join(self, index: int, stamp: Timestamp) -> ShardMap:
        """A range and the next one made one."""
        one, other = self.shards[index : index + 2]
        return self._with(index, 2, [other.upper], (one.name, other.name), stamp)

    def opened(self, stamp: Timestamp) -> ShardMap:
        """All that was created is active: this map stands at a majority of the root, and the shards at majorities of theirs."""
        return ShardMap(self.version + 1, stamp, tuple(replace(shard, active=True) for shard in self.shards))

    def emptied(self, source: str, stamp: Timestamp) -> ShardMap:
        """A source that is closed and holds no row any more."""
        shards = (replace(shard, sources=tuple(s for s in shard.sources if s != source)) for shard in self.shards)
        return ShardMap(self.version + 1, stamp, tuple(shards))

    def _with(self, index: int, count: int, uppers: Sequence[str], sources: tuple[str, ...], stamp: Timestamp) -> ShardMap:
        assert all(shard.settled for shard in self.shards[index : index + count])
        new = _created(uppers, sources, stamp)
        made = ShardMap(self.version + 1, stamp, (*self.shards[:index], *new, *self.shards[index + count :]))
        return _fitting(made)

    def _index(self, name: str) -> int:
        return bisect_left(self.shards, name, hi=len(self.shards) - 1, key=lambda shard: shard.upper)

    @staticmethod
    def _least(end: str, upper: str) -> str:
        bound = upper + _SUCCESSOR if upper else ""
        return min(end, bound) if end and bound else end or bound


def first_map(pivots: Sequence[str], stamp: Timestamp) -> ShardMap:
    """Of a container that was not cut before.  The root needs not be named as a source: it always is one."""
    if any(a >= b for a, b in zip(("", *pivots), pivots, strict=False)):
        raise BadInput("these names do not cut a listing")
    return _fitting(ShardMap(1, stamp, _created([*pivots, ""], (), stamp)))


def pivot(one: str, other: str) -> str:
    """A short string that is not below ``one`` and below ``other``, its next neighbour above."""
    assert one < other
    common = next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    short = other[: common + 1]
    return short if one <= short < other and len(short) < len(one) else one


# ---- shards as books


def made_at(name: str) -> Timestamp:
    """When a shard of this name was planned: its header's ``created``, the same whoever makes it.  FormatError."""
    try:
        stamp = name.rpartition("-")[0]
        return Timestamp.unpack(bytes.fromhex(stamp))
    except (ValueError, BadInput) as error:
        raise FormatError(f"{name!r} is no shard's name") from error


def above(stamp: Timestamp) -> Timestamp:
    """The least timestamp above: of the deletion of what a shard with this stamp replaced."""
    return Timestamp(stamp.ticks, stamp.offset + 1) if stamp.offset < OFFSET_MAX else Timestamp(stamp.ticks + 1)


@lru_cache(maxsize=4096)
def shards_account(root: Path) -> Path:
    """The hidden account of a container's shards."""
    digest = hashlib.blake2b(f"{root.account}/{root.container}".encode(), digest_size=16).hexdigest()
    return Path(f"{_ACCOUNT}{digest}")


def shard_path(root: Path, name: str) -> Path:
    return Path(shards_account(root).account, name)


def is_shard(path: Path) -> bool:
    return path.account.startswith(_ACCOUNT) and bool(path.container)


def in_transit(header: BookHeader) -> bool:
    """Whether a device that knows this header forwards the book's rows to shards."""
    return MAP in header.metadata or (is_shard(header.path) and not header.exists)


def is_shards_account(path: Path) -> bool:
    return path.account.startswith(_ACCOUNT) and not path.container


def root_of(metadata: Metadata) -> Path | None:
    """Of a shard's header: its root."""
    account, _, container = metadata[OF][0].partition("/") if OF in metadata else ("", "", "")
    return Path(account, container) if container else None


def of_value(root: Path) -> str:
    return f"{root.account}/{root.container}"


# ---- a root's header


def map_of(metadata: Metadata) -> ShardMap | None:
    """None: not cut.  FormatError when it is of a newer format, or damaged."""
    found = metadata.get(MAP)
    return decode(found[0]) if found is not None else None


def sums_of(metadata: Metadata) -> tuple[int, int]:
    """Objects and bytes in a root's shards, as last heard."""
    found = metadata.get(SUMS)
    if found is None:
        return 0, 0
    objects, _, size = found[0].partition(" ")
    if not (objects.isdecimal() and size.isdecimal()):
        raise FormatError(f"not the sums of shards: {found[0]!r}")
    return int(objects), int(size)


def sums_value(objects: int, bytes_used: int) -> str:
    return f"{objects} {bytes_used}"


# ---- codec


class _PackedMap(msgspec.Struct, frozen=True, array_like=True):
    format: int
    version: int
    stamp: str
    shards: tuple[tuple[str, str, bool, tuple[str, ...]], ...]


class _PackedFormat(msgspec.Struct, frozen=True, array_like=True):
    format: int


def encode(value: ShardMap) -> str:
    shards = tuple((shard.upper, shard.name, shard.active, shard.sources) for shard in value.shards)
    return msgspec.json.encode(_PackedMap(FORMAT, value.version, value.stamp.pack().hex(), shards)).decode()


@lru_cache(maxsize=256)
def decode(text: str) -> ShardMap:
    """FormatError."""
    try:
        found = msgspec.json.decode(text, type=_PackedFormat).format
        if found > FORMAT:
            raise FormatError(f"a map of shards has format {found}; this program knows up to {FORMAT}")
        packed = msgspec.json.decode(text, type=_PackedMap)
        shards = tuple(Shard(*fields) for fields in packed.shards)
        uppers = [shard.upper for shard in shards]
        if not shards or uppers[-1] or not all(uppers[:-1]) or any(a >= b for a, b in pairwise(uppers[:-1])):
            raise FormatError("a map of shards whose ranges do not follow one another")
        return ShardMap(packed.version, Timestamp.unpack(bytes.fromhex(packed.stamp)), shards)
    except (msgspec.MsgspecError, ValueError, BadInput) as error:
        raise FormatError(f"not a map of shards: {error}") from error


def _created(uppers: Sequence[str], sources: tuple[str, ...], stamp: Timestamp) -> tuple[Shard, ...]:
    return tuple(Shard(upper, f"{stamp.pack().hex()}-{at}", False, sources) for at, upper in enumerate(uppers))


def _fitting(made: ShardMap) -> ShardMap:
    if len(encode(made).encode()) > MAP_BYTES_MAX:
        raise BadInput("the map of shards would be too large", hint="shards of more rows: background.shard_rows")
    return made
