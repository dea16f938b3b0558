"""Chance from a seed: the same numbers from the same seed on every machine and with every version of numpy.  Pure.

Splitmix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, OOPSLA 2014), many numbers at a time.  Not for
secrets.
"""

from __future__ import annotations

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

    def order(self, count: int) -> NDArray[np.int64]:
        """A permutation of 0 to count - 1."""
        return np.argsort(self.words(count), kind="stable")
