"""The codec that is always there: Reed-Solomon by numpy, without a library of its own.

Neighbours: interface.py says what it promises, field.py gives the matrices, combine.py multiplies.  numpy is loaded when the first
codec is made and not before.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from ring.world.interface import Buffer
from storage.erasure.field import generator, rebuilding
from storage.erasure.interface import Coding, cut, restored, sources, wanted


class BuiltinCodec:
    """See ``Codec``."""

    name = "builtin"

    def __init__(self, coding: Coding) -> None:
        from storage.erasure.combine import combine  # loads numpy: only nodes with an erasure-coded policy pay for it

        self.k = coding.k
        self.m = coding.m
        self._combine = combine

    def encode(self, block: Buffer) -> list[Buffer]:
        pieces = cut(block, self.k)
        return pieces + self._combine(generator(self.k, self.m)[self.k :], pieces)

    def decode(self, pieces: Mapping[int, Buffer], length: int) -> Buffer:
        return restored(self, pieces, length)

    def reconstruct(self, pieces: Mapping[int, Buffer], missing: Collection[int]) -> dict[int, Buffer]:
        held = sources(pieces, self.k, self.m)
        indexes = wanted(missing, self.k, self.m)
        rows = rebuilding(self.k, self.m, held, indexes)
        return dict(zip(indexes, self._combine(rows, [pieces[index] for index in held]), strict=True))
