"""Names of things and where they hash to.  Pure.

The hash of a name is MD5(prefix + "/account[/container[/object]]" + suffix), as in Swift (overview_ring): its versions all share
it, and its top bits are the partition.  Prefix and suffix are secrets of the cluster, so that nobody can aim at one partition.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache

import msgspec

from ring.errors import BadInput

NAME_BYTES_MAX = {"account": 256, "container": 256, "object": 1024}
HIDDEN = "\0"  # first character of containers and accounts that the system keeps for itself; no client can name one


class Path(msgspec.Struct, frozen=True):
    """An account, a container (``object`` empty) or an object.  Names are text; UTF-8 when hashed."""

    account: str
    container: str = ""
    object: str = ""

    def __str__(self) -> str:
        if self.container and self.object:  # nearly all, and every request spells several
            return f"/{self.account}/{self.container}/{self.object}"
        text = f"/{self.account}"
        if self.container:
            text += f"/{self.container}"
        if self.object:
            text += f"/{self.object}"
        return text

    @property
    def parent(self) -> Path:
        """The container of an object, the account of a container."""
        return Path(self.account, self.container) if self.object else Path(self.account)

    def check(self) -> Path:
        """BadInput when a name is empty where it must not be, too long, not UTF-8, or has a '/' where none may be."""
        parts = (("account", self.account), ("container", self.container), ("object", self.object))
        for kind, name in parts:
            try:
                length = len(name.encode())
            except UnicodeEncodeError as error:
                raise BadInput(f"the {kind} name is not UTF-8") from error
            if length > NAME_BYTES_MAX[kind]:
                raise BadInput(f"the {kind} name is longer than {NAME_BYTES_MAX[kind]} bytes")
            if kind != "object" and "/" in name:
                raise BadInput(f"a {kind} name has no '/'")
        if not self.account or (self.object and not self.container):
            raise BadInput("a name is empty")
        return self


@dataclass(frozen=True, slots=True)
class NameHasher:
    prefix: bytes
    suffix: bytes

    def hash(self, path: Path) -> bytes:
        """16 bytes."""
        return _hash(self.prefix, self.suffix, path)


@lru_cache(maxsize=4096)  # one request hashes its few names again at every ring and device it comes by
def _hash(prefix: bytes, suffix: bytes, path: Path) -> bytes:
    return hashlib.md5(prefix + str(path).encode() + suffix, usedforsecurity=False).digest()


def partition_of(digest: bytes, part_power: int) -> int:
    """The partition of a hash: its top ``part_power`` bits (0 to 32)."""
    return int.from_bytes(digest[:4], "big") >> (32 - part_power)


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """A partition together with the part power that its number belongs to: the hashes whose first ``part_power`` bits (0 to 32)
    are ``partition``.

    Rings of different powers, as there are while one is being increased, number their partitions differently; a Span is the same
    hashes to everybody.  BadInput when there is no such partition."""

    part_power: int
    partition: int

    def __post_init__(self) -> None:
        if not 0 <= self.part_power <= 32 or not 0 <= self.partition < 1 << self.part_power:
            raise BadInput(f"with a part power of {self.part_power} there is no partition {self.partition}")

    @classmethod
    def of(cls, name_hash: bytes, part_power: int) -> Span:
        """The one that a hash lies in."""
        return cls(part_power, partition_of(name_hash, part_power))

    def __contains__(self, name_hash: bytes) -> bool:
        return partition_of(name_hash, self.part_power) == self.partition

    @property
    def bounds(self) -> tuple[bytes, bytes | None]:
        """Of keys that begin with a hash: start <= key < end (4 bytes each; None: nothing lies behind)."""
        shift = 32 - self.part_power
        end = (self.partition + 1) << shift
        return (self.partition << shift).to_bytes(4, "big"), end.to_bytes(4, "big") if end < 1 << 32 else None
