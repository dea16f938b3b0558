"""Chance from a seed: the same numbers from the same seed on every machine and with every version of numpy.  Pure.

Splitmix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, OOPSLA 2014), many numbers at a time.  Not for
secrets.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint64]
_STEP = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1


def mix(words: Words) -> Words:
    """Each word scrambled: words that differ in one bit have nothing in common."""
    z = words ^ (words >> np.uint64(30))
    z *= np.uint64(0xBF58476D1CE4E5B9)
    z ^= z >> np.uint64(27)
    z *= np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return z


class Shuffler:
    def __init__(self, seed: int) -> None:
        self._state = seed & _MASK

    def words(self, count: int) -> Words:
        """The next ``count`` random words."""
        steps = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(_STEP) + np.uint64(self._state)
        self._state = (self._state + count * _STEP) & _MASK
        return mix(steps)

    def below(self, bound: int, count: int) -> NDArray[np.int64]:
        """``count`` numbers, 0 <= each < bound <= 2^32."""
        return (((self.words(count) >> np.uint64(32)) * np.uint64(bound)) >> np.uint64(32)).astype(np.int64)

    def order(self, count: int, groups: Words | None = None) -> NDArray[np.int64]:
        """A permutation of 0 to count - 1; by ``groups`` first when given, and at random within a group.

        The number itself is the end of what is sorted, so no two are equal and every sort gives the same order."""
        return order_by(self.words(count), groups)

    def round_trip(self, count: int) -> NDArray[np.int64]:
        """A permutation of 0 to count - 1 out of few: steps of one random length around a circle.  Costs no sort."""
        if count < 3:
            return np.arange(count, dtype=np.int64)
        start, stride = (int(word) % count for word in self.words(2))
        while math.gcd(stride, count) != 1:
            stride = (stride + 1) % count
        return (start + stride * np.arange(count, dtype=np.int64)) % count


def order_by(words: Words, groups: Words | None = None) -> NDArray[np.int64]:
    """The order of ``words`` by their leading bits, within ``groups`` (small numbers) when given."""
    count = len(words)
    low = np.uint64(max(1, count.bit_length()))
    key = (words >> low) << low
    if groups is not None and count:
        high = np.uint64(max(1, int(groups.max()).bit_length()))
        key = ((words >> (low + high)) << low) | (groups << (np.uint64(64) - high))
    key |= np.arange(count, dtype=np.uint64)
    key.sort()
    return (key & ((np.uint64(1) << low) - np.uint64(1))).astype(np.int64)
