"""Edition: the numbered state of all rings of a cluster: of each name the newest version, the settled one, and its horizon.

Pure; the bytes are in docs/formats/edition.md.  Each edition follows from the one before by exactly one step: ``published``,
``settled``, or new ``horizons``.  Which of two steps comes first is decided by the register.  Neighbours: keeper (holds one),
register (orders them), horizon (what reclaim needs).
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping

import msgspec

from ring.errors import BadInput, Conflict, FormatError, NewerFormat
from ring.service.horizon import Horizon

MAGIC = "ringfort-edition"
FORMAT = 2  # 2 has horizons; one without them is still written as 1
POLICY_RING = "object-"  # object-N is the ring of storage policy N; policy 0's is ``object``


class RingId(msgspec.Struct, frozen=True, array_like=True):
    """A ring by what is in it: two rings of one version are told apart by the checksum of their files."""

    version: int
    checksum: int

    @classmethod
    def of(cls, version: int, data: bytes) -> RingId:
        return cls(version, zlib.crc32(data))


class Standing(msgspec.Struct, frozen=True):
    """Of one name."""

    newest: RingId
    settled: RingId


class Edition(msgspec.Struct, frozen=True, omit_defaults=True):
    number: int
    rings: Mapping[str, Standing]
    horizons: Mapping[str, Horizon] = {}  # by ring; one that is not there has none yet

    def published(self, name: str, ring: RingId, *, moves: bool) -> Edition:
        """``ring`` in force under ``name``.  When no replica moves it is settled at once, if the one before it was."""
        old = self.rings.get(name)
        if old is None and name.startswith(POLICY_RING):  # of a new storage policy: it has no data yet
            return self._with(name, Standing(ring, ring))
        if old is None:
            raise BadInput(f"there is no ring {name}", hint="one of " + ", ".join(sorted(self.rings)))
        if ring.version <= old.newest.version:
            same = "is in force already" if ring == old.newest else f"would follow version {old.newest.version}"
            raise Conflict(f"version {ring.version} of ring {name} {same}", hint="nodes never go back to an older version")
        at_once = not moves and old.settled == old.newest
        return self._with(name, Standing(ring, ring if at_once else old.settled))

    def settle(self, name: str) -> Edition:
        """The newest ring of ``name`` is where all of its data is."""
        newest = self.rings[name].newest
        return self._with(name, Standing(newest, newest))

    def at_horizons(self, horizons: Mapping[str, Horizon]) -> Edition:
        """Of each ring where it closes and what may be forgotten (horizon.next_horizons)."""
        return Edition(self.number + 1, self.rings, horizons)

    def _with(self, name: str, standing: Standing) -> Edition:
        return Edition(self.number + 1, {**self.rings, name: standing}, self.horizons)

    @property
    def needed(self) -> dict[tuple[str, int], RingId]:
        """The ring files that it takes, by (name, version)."""
        return {(name, ring.version): ring for name, s in self.rings.items() for ring in (s.newest, s.settled)}


class _File(msgspec.Struct, frozen=True, kw_only=True):
    magic: str = MAGIC
    format: int = FORMAT
    checksum: int  # crc32 of ``edition`` as it is written
    edition: msgspec.Raw


def encode(edition: Edition) -> bytes:
    in_order = msgspec.structs.replace(
        edition, rings=dict(sorted(edition.rings.items())), horizons=dict(sorted(edition.horizons.items()))
    )
    body = msgspec.json.encode(in_order)
    version = 2 if edition.horizons else 1  # as old as can be: a node that is not upgraded yet goes on
    return msgspec.json.encode(_File(format=version, checksum=zlib.crc32(body), edition=msgspec.Raw(body)))


def decode(data: bytes) -> Edition:
    """FormatError unless it is a whole edition of a format that we know."""
    try:
        file = msgspec.json.decode(data, type=_File)
        if file.magic != MAGIC or zlib.crc32(file.edition) != file.checksum:
            raise FormatError("not an edition of rings, or a damaged one")
        if file.format > FORMAT:
            raise NewerFormat("an edition of rings", file.format, FORMAT)
        return msgspec.json.decode(file.edition, type=Edition)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise FormatError(f"an edition of rings that cannot be read: {error}") from error


def file_name(name: str, version: int) -> str:
    """Of a ring that is or was in force, in the keeper's folder."""
    return f"{name}.{version}.ring"
