"""Sums of multiples of pieces in GF(2^8), by vectors: where the built-in codec spends its time.

A product with a constant is a sum of doublings of its bits: sum_j c_j d_j = sum_b 2^b (sum of those d_j whose c_j has bit b).  By
Horner's rule, highest bit first, a row of the matrix takes 7 doublings, however many pieces it sums; and the sum of each pair of
pieces is made once for all rows and bits.  Each step is one operation of numpy on a block of bytes that stays in the processor's
cache; numpy lets go of the interpreter meanwhile.  Multiplying byte by byte from tables (``bytes.translate`` with whole numbers, or
numpy's ``take``) is slower, the more so the more parities there are: docs/performance/erasure.md.

numpy is imported when this module is: builtin.py does that when the first codec is made, that is on nodes with an erasure-coded
policy.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from ring.world.interface import Buffer
from storage.erasure.field import Matrix, Row

Bytes = npt.NDArray[np.uint8]

BLOCK_BYTES = 32 << 10  # of each piece at a time, at most
_REDUCED = np.uint8(0x1D)  # x^8
_Step = tuple[tuple[tuple[int, int], ...], ...]  # for each row: (pair of pieces, which of them: 1, 2, or 3 for both)


def combine(rows: Matrix, pieces: Sequence[Buffer]) -> list[Buffer]:
    """Each row times the pieces, which are of one size: a buffer for each row."""
    size = len(pieces[0])
    result = np.empty((len(rows), size), np.uint8)
    if size and rows:
        arrays = [np.frombuffer(piece, np.uint8) for piece in pieces]
        steps = _steps(rows)
        block = -(-size // -(-size // BLOCK_BYTES))
        carries = np.empty((len(rows), block), np.uint8)
        both = np.empty((len(pieces) // 2, block), np.uint8)
        for start in range(0, size, block):
            end = min(size, start + block)
            inside = slice(0, end - start)
            _combine_block(steps, [array[start:end] for array in arrays], result[:, start:end], carries[:, inside], both[:, inside])
    return [row.data for row in result]


def _combine_block(steps: tuple[_Step, ...], pieces: list[Bytes], result: Bytes, carries: Bytes, both: Bytes) -> None:
    sums = []
    for pair, total in enumerate(both):
        one, other = pieces[2 * pair : 2 * pair + 2]
        np.bitwise_xor(one, other, out=total)
        sums.append((one, other, total))
    if len(pieces) % 2:
        sums.append((pieces[-1],) * 3)
    result.fill(0)
    for number, step in enumerate(steps):
        if number:
            np.right_shift(result, 7, out=carries)
            np.multiply(carries, _REDUCED, out=carries)
            np.add(result, result, out=result)  # modulo 256: what falls off is in carries
            np.bitwise_xor(result, carries, out=result)
        for row, subsets in zip(result, step, strict=True):
            for pair, subset in subsets:
                np.bitwise_xor(row, sums[pair][subset - 1], out=row)


@lru_cache(1024)
def _steps(rows: Matrix) -> tuple[_Step, ...]:
    """For each bit from the highest that any factor has."""
    highest = max(factor.bit_length() for row in rows for factor in row)
    return tuple(tuple(_subsets(row, bit) for row in rows) for bit in range(highest - 1, -1, -1))


def _subsets(row: Row, bit: int) -> tuple[tuple[int, int], ...]:
    bits = [factor >> bit & 1 for factor in row]
    found = ((pair // 2, bits[pair] | sum(bits[pair + 1 : pair + 2]) << 1) for pair in range(0, len(bits), 2))
    return tuple((pair, subset) for pair, subset in found if subset)
