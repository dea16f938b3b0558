"""The set-hash tree: what a device holds of a partition, in a form that two replicas can compare.

Every key of an index has a 16-byte digest of (key, content).  A leaf is the XOR of the digests of the keys that share the leading
``STORED_BITS`` bits of their name's hash; a digest toggled twice is gone, so a change costs one read and one write, whatever the
partition's size.  Leaves lie sparsely in the table "tree" under kind byte + 3 bytes of hash, and are summed up to at most 4,096
per partition when they are read.  They know nothing of partitions: whoever asks says the part power (a ``Span``), two sides that
compare sum to the same leaves whatever their rings, and a growing part power rewrites nothing.

Pure but for reading Tables; the caller commits the Writes together with the index they describe.  Neighbours:
storage.object.index and storage.rows.books toggle, storage.client's replicator compares.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from ring.errors import BadInput
from ring.names import Span
from ring.world.interface import Tables, Write
from storage.client.node import LeafDigests

TABLE = "tree"
DIGEST_BYTES = 16
STORED_BITS = 24
LEAF_BITS = 12  # of a partition: 4,096 leaves
ZERO = bytes(DIGEST_BYTES)
KIND_BYTES = {"object": b"o", "container": b"c", "account": b"a"}
_SCAN_ROWS = 10_000


def digest(key: bytes, content: bytes) -> bytes:
    """16 bytes over a key and whatever of its content replicas must agree on."""
    return hashlib.blake2b(len(key).to_bytes(2, "big") + key + content, digest_size=DIGEST_BYTES).digest()


def xor(one: bytes, other: bytes) -> bytes:
    return (int.from_bytes(one, "big") ^ int.from_bytes(other, "big")).to_bytes(DIGEST_BYTES, "big")


class Toggles:
    """Changes of one transaction.  ``toggle`` the old digest of a key out and its new one in; then commit ``writes()``."""

    def __init__(self, kind: str) -> None:
        self._kind = KIND_BYTES[kind]
        self._changes: dict[bytes, int] = {}

    def toggle(self, name_hash: bytes, digest: bytes) -> None:
        """``name_hash``: at least the first 3 bytes of the hash that the key begins with."""
        leaf = name_hash[:3]
        self._changes[leaf] = self._changes.get(leaf, 0) ^ int.from_bytes(digest, "big")

    def digests(self, span: Span) -> LeafDigests:
        """The changes as a tree: together (``combine``) with what it was before they make the one that it becomes."""
        bits = leaf_bits(span.part_power)
        shift, mask = STORED_BITS - span.part_power - bits, (1 << bits) - 1
        sums: dict[int, int] = {}
        for stored, change in self._changes.items():
            number = int.from_bytes(stored, "big")
            if number >> (STORED_BITS - span.part_power) == span.partition:
                leaf = (number >> shift) & mask
                sums[leaf] = sums.get(leaf, 0) ^ change
        return _leaf_digests(sums)

    def writes(self, tables: Tables) -> list[Write]:
        """In key order.  Reads the leaves as they are: nothing may commit to this kind's leaves until these are committed."""
        changed = [(self._kind + leaf, change) for leaf, change in sorted(self._changes.items()) if change]
        writes = []
        for (key, change), old in zip(changed, tables.get_many(TABLE, [key for key, _ in changed]), strict=True):
            new = change ^ int.from_bytes(old or b"", "big")
            writes.append(Write(TABLE, key, new.to_bytes(DIGEST_BYTES, "big") if new else None))
        return writes


def leaf_bits(part_power: int) -> int:
    """How many bits a leaf's number has: 12, fewer above a part power of 12.  BadInput above 24."""
    if not 0 <= part_power <= STORED_BITS:
        raise BadInput(f"part power {part_power} is not within 0 to {STORED_BITS}")
    return min(LEAF_BITS, STORED_BITS - part_power)


def leaf_of(name_hash: bytes, part_power: int) -> int:
    """The leaf, within its partition, of a hash."""
    bits = leaf_bits(part_power)
    return (int.from_bytes(name_hash[:4], "big") >> (32 - part_power - bits)) & ((1 << bits) - 1)


def leaf_span(span: Span, leaf: int) -> Span:
    """The hashes of one leaf of a partition."""
    bits = leaf_bits(span.part_power)
    if not 0 <= leaf < 1 << bits:
        raise BadInput(f"no leaf {leaf} with part power {span.part_power}")
    return Span(span.part_power + bits, (span.partition << bits) | leaf)


def digests(tables: Tables, kind: str, span: Span) -> LeafDigests:
    """The partition's leaves, summed to at most 4,096, and their sum.  Costs one step per stored leaf (about a microsecond)."""
    prefix = KIND_BYTES[kind]
    bits = leaf_bits(span.part_power)
    shift, mask = STORED_BITS - span.part_power - bits, (1 << bits) - 1
    first, last = span.bounds
    start = prefix + first[:3]
    end = prefix + last[:3] if last is not None else bytes([prefix[0] + 1])
    sums: dict[int, int] = {}
    while True:
        pairs = tables.scan(TABLE, start, end, limit=_SCAN_ROWS)
        for key, value in pairs:
            leaf = (int.from_bytes(key[1:4], "big") >> shift) & mask
            sums[leaf] = sums.get(leaf, 0) ^ int.from_bytes(value, "big")
        if len(pairs) < _SCAN_ROWS:
            return _leaf_digests(sums)
        start = pairs[-1][0] + b"\0"


def partition_from(tables: Tables, kind: str, start: bytes, part_power: int) -> Span | None:
    """The first partition at or behind ``start`` (b"", or where another one ends) of which the tree has anything; None: there is
    none.  One step, however much is held: who goes through them all remembers a place among the hashes, which is as good after the
    part power has changed."""
    leaf_bits(part_power)  # BadInput
    prefix = KIND_BYTES[kind]
    pairs = tables.scan(TABLE, prefix + start[:3], bytes([prefix[0] + 1]), limit=1)
    return Span.of(pairs[0][0][1:4] + b"\0", part_power) if pairs else None


def combine(*parts: LeafDigests) -> LeafDigests:
    """The tree of disjoint sets together (containers and accounts), all of one span."""
    sums: dict[int, int] = {}
    for part in parts:
        for leaf, value in part.leaves.items():
            sums[leaf] = sums.get(leaf, 0) ^ int.from_bytes(value, "big")
    return _leaf_digests(sums)


def differing(one: LeafDigests, other: LeafDigests) -> list[int]:
    """The leaves to compare key by key, ascending; none when the roots are equal.  Both are of one span."""
    if one.root == other.root:
        return []
    leaves: set[int] = set(one.leaves) | set(other.leaves)
    return sorted(leaf for leaf in leaves if one.leaves.get(leaf) != other.leaves.get(leaf))


def _leaf_digests(sums: Mapping[int, int]) -> LeafDigests:
    root = 0
    for value in sums.values():
        root ^= value
    leaves = {leaf: value.to_bytes(DIGEST_BYTES, "big") for leaf, value in sorted(sums.items()) if value}
    return LeafDigests(root.to_bytes(DIGEST_BYTES, "big"), leaves)
