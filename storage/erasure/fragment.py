"""What a fragment is a fragment of, and whether its pieces are what was written.  A pure codec.

``Origin`` is what all fragments of one version of an object share, and no others: hash of the name, timestamp, ETag, size and
coding. Fragments of different origins must never be decoded together: the result would be neither object; ``agree`` refuses them.
``Fragment`` adds the index and a CRC-32 for each piece, in the layout of ``FileInfo.crcs`` (storage/object/record.py) with pieces
for blocks.  A piece is verified by itself, before anything is decoded with it: one wrong byte of one piece would spoil a whole
stripe.

Format: docs/formats/fragment.md; golden bytes: tests/golden/fragment-1.bin.  Neighbours: layout.py, writer.py, reader.py.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

from ring.errors import BadInput
from ring.timestamp import Timestamp
from ring.world.interface import Buffer
from storage.erasure.errors import BadFragment, BadPiece, MixedFragments
from storage.erasure.interface import Coding
from storage.erasure.layout import Layout

VERSION = 1
MAGIC = b"RFe"
HEAD_BYTES = 8  # magic, version, crc32
CRC_BYTES = 4


@dataclass(frozen=True, slots=True)
class Origin:
    """One version of one object, coded in one way."""

    hash: bytes  # of the name, 16 bytes
    timestamp: Timestamp
    etag: str  # two writers may use one timestamp
    size: int
    coding: Coding

    @property
    def layout(self) -> Layout:
        return Layout(self.coding, self.size)


@dataclass(frozen=True, slots=True)
class Fragment:
    origin: Origin
    index: int
    crcs: bytes  # 4 bytes for each stripe

    def check_piece(self, stripe: int, piece: Buffer) -> None:
        """BadPiece unless it is this fragment's piece of that stripe."""
        layout = self.origin.layout
        if not 0 <= stripe < layout.stripe_count:
            raise BadPiece(f"the object has {layout.stripe_count} stripes, so no stripe {stripe}")
        if len(piece) != layout.piece_bytes(stripe):
            raise BadPiece(f"piece {self.index} of stripe {stripe} has {len(piece)} bytes, not {layout.piece_bytes(stripe)}")
        if zlib.crc32(piece).to_bytes(CRC_BYTES, "big") != self.crcs[CRC_BYTES * stripe : CRC_BYTES * (stripe + 1)]:
            raise BadPiece(f"piece {self.index} of stripe {stripe} has another checksum than when it was written")


def agree(fragments: Iterable[Fragment]) -> Origin:
    """What they are all fragments of.  MixedFragments when that is not one version in one coding, or when there are none."""
    origins = list(dict.fromkeys(fragment.origin for fragment in fragments))
    if len(origins) != 1:
        raise MixedFragments(f"fragments of one version are needed, these are of {len(origins)}")
    return origins[0]


# ---- bytes


class _Body(msgspec.Struct, array_like=True, frozen=True):
    hash: bytes
    version: bytes
    etag: str
    size: int
    code: str
    k: int
    m: int
    segment_bytes: int
    index: int
    crcs: bytes


_encode_body = msgspec.msgpack.Encoder().encode
_decode_body = msgspec.msgpack.Decoder(_Body).decode


def encode_fragment(fragment: Fragment) -> bytes:
    origin, coding = fragment.origin, fragment.origin.coding
    _check(fragment)
    body = _encode_body(
        _Body(
            origin.hash,
            origin.timestamp.pack(),
            origin.etag,
            origin.size,
            coding.code,
            coding.k,
            coding.m,
            coding.segment_bytes,
            fragment.index,
            fragment.crcs,
        )
    )
    head = MAGIC + bytes([VERSION])
    return b"".join((head, zlib.crc32(body, zlib.crc32(head)).to_bytes(CRC_BYTES, "big"), body))


def decode_fragment(data: Buffer) -> Fragment:
    """BadFragment for anything that ``encode_fragment`` did not make."""
    view = memoryview(data)
    if len(view) < HEAD_BYTES or view[: len(MAGIC)] != MAGIC:
        raise BadFragment("this does not describe a fragment")
    version, body = view[len(MAGIC)], view[HEAD_BYTES:]
    if zlib.crc32(body, zlib.crc32(view[: len(MAGIC) + 1])) != int.from_bytes(view[HEAD_BYTES - CRC_BYTES : HEAD_BYTES], "big"):
        raise BadFragment("the description of a fragment is damaged")
    if version != VERSION:
        raise BadFragment(
            f"the description of a fragment has format {version}; this version reads {VERSION}", hint="upgrade this node"
        )
    try:
        read = _decode_body(body)
        coding = Coding(read.k, read.m, read.segment_bytes, read.code)
        origin = Origin(read.hash, Timestamp.unpack(read.version), read.etag, read.size, coding)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise BadFragment("the description of a fragment is not of its format") from error
    except BadInput as error:
        raise BadFragment(f"no such fragment can be: {error.message}", hint=error.hint) from error
    fragment = Fragment(origin, read.index, read.crcs)
    _check(fragment)
    return fragment


def _check(fragment: Fragment) -> None:
    origin = fragment.origin
    if len(origin.hash) != 16 or origin.size < 0 or not 0 <= fragment.index < origin.coding.count:
        raise BadFragment(f"{origin.coding} has no fragment {fragment.index} of an object of {origin.size} bytes")
    if len(fragment.crcs) != CRC_BYTES * origin.layout.stripe_count:
        raise BadFragment(f"{origin.layout.stripe_count} stripes need as many checksums, not {len(fragment.crcs) / CRC_BYTES:g}")
