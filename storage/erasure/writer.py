"""From an object's bytes to its fragments, stripe by stripe.  Sans-I/O: bytes in, pieces out; the caller sends them.

Holds less than one stripe of bytes.  Neighbours: a codec makes the pieces; quorum.py says when they are durable; fragment.py
describes them once the object's end, and so its ETag, is known.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from ring.timestamp import Timestamp
from ring.world.interface import Buffer
from storage.erasure.fragment import CRC_BYTES, Fragment, Origin
from storage.erasure.interface import Codec, Coding


@dataclass(frozen=True, slots=True)
class Stripe:
    number: int
    pieces: list[Buffer]  # by index


class StripeWriter:
    """``feed`` it the object, then ``finish`` it, then ask for ``fragments``."""

    def __init__(self, codec: Codec, coding: Coding) -> None:
        assert (codec.k, codec.m) == (coding.k, coding.m)
        self._codec = codec
        self._coding = coding
        self._waiting: list[Buffer] = []  # of the stripe that is not full yet
        self._waiting_bytes = 0
        self._crcs = [bytearray() for _ in range(coding.count)]
        self.size = 0

    def feed(self, data: Buffer) -> Iterator[Stripe]:
        """The stripes that are full now.  Run through it before the next call; pieces may be views of the data: it must stay as it
        is while they are used."""
        view = memoryview(data).cast("B")
        segment = self._coding.segment_bytes
        at = 0
        while at < len(view):
            part = view[at : at + segment - self._waiting_bytes]
            at += len(part)
            self.size += len(part)
            self._waiting_bytes += len(part)
            if self._waiting_bytes == segment:
                yield self._encode(part)
            else:
                self._waiting.append(bytes(part))  # the caller may use its buffer again

    def finish(self) -> Iterator[Stripe]:
        """The last stripe, when it is a part of one."""
        if self._waiting_bytes:
            yield self._encode(b"")

    def fragments(self, name_hash: bytes, timestamp: Timestamp, etag: str) -> list[Fragment]:
        """What the fragments are, by index.  After ``finish``."""
        assert not self._waiting_bytes, "the last stripe is not encoded yet"
        origin = Origin(name_hash, timestamp, etag, self.size, self._coding)
        return [Fragment(origin, index, bytes(crcs)) for index, crcs in enumerate(self._crcs)]

    def _encode(self, last: Buffer) -> Stripe:
        block = b"".join((*self._waiting, last)) if self._waiting else last
        self._waiting.clear()
        self._waiting_bytes = 0
        pieces = self._codec.encode(block)
        number = len(self._crcs[0]) // CRC_BYTES
        for crcs, piece in zip(self._crcs, pieces, strict=True):
            crcs += zlib.crc32(piece).to_bytes(CRC_BYTES, "big")
        return Stripe(number, pieces)
