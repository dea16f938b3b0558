"""The field GF(2^8) and the matrices of the code.  Pure numbers; small: bytes are multiplied in combine.py.

Elements are 0 to 255: polynomials over GF(2) modulo x^8 + x^4 + x^3 + x^2 + 1 (0x11D), as in ISA-L and most Reed-Solomon codes. The
code ``rs-cauchy`` is systematic: the generator is the identity above a Cauchy matrix, parity row i having 1 / ((k + i) xor j) in
column j.  Every square part of a Cauchy matrix can be inverted, so any k pieces give back the rest, for every k and m; that is not
so for ISA-L's Vandermonde matrix.  These are the numbers of ISA-L's ``gf_gen_cauchy1_matrix``, so of liberasurecode's
``isa_l_rs_cauchy``: either codec reads what the other wrote.
"""

from __future__ import annotations

from functools import lru_cache

Row = tuple[int, ...]
Matrix = tuple[Row, ...]

POLYNOMIAL = 0x11D


def _tables() -> tuple[bytes, bytes]:
    """Powers of 2 (twice over, so that sums of logarithms need no modulo), and logarithms."""
    powers, logarithms, value = bytearray(510), bytearray(256), 1
    for exponent in range(255):
        powers[exponent] = powers[exponent + 255] = value
        logarithms[value] = exponent
        value <<= 1
        if value & 0x100:
            value ^= POLYNOMIAL
    return bytes(powers), bytes(logarithms)


_POWERS, _LOGARITHMS = _tables()


def multiply(a: int, b: int) -> int:
    return _POWERS[_LOGARITHMS[a] + _LOGARITHMS[b]] if a and b else 0


def inverse(a: int) -> int:
    """1 / a; a is not 0."""
    assert a, "0 has no inverse"
    return _POWERS[255 - _LOGARITHMS[a]]


def product(left: Matrix, right: Matrix) -> Matrix:
    """left x right."""
    columns = tuple(zip(*right, strict=True))
    return tuple(tuple(_dot(row, column) for column in columns) for row in left)


def inverse_matrix(matrix: Matrix) -> Matrix:
    """Gauss and Jordan.  ZeroDivisionError when there is none."""
    size = len(matrix)
    rows = [[*row, *(int(i == j) for j in range(size))] for i, row in enumerate(matrix)]
    for column in range(size):
        pivot = next((i for i in range(column, size) if rows[i][column]), None)
        if pivot is None:
            raise ZeroDivisionError("the matrix has no inverse")
        rows[column], rows[pivot] = rows[pivot], rows[column]
        scale = inverse(rows[column][column])
        rows[column] = head = [multiply(scale, value) for value in rows[column]]
        for i in range(size):
            factor = rows[i][column]
            if i != column and factor:
                rows[i] = [value ^ multiply(factor, other) for value, other in zip(rows[i], head, strict=True)]
    return tuple(tuple(row[size:]) for row in rows)


@lru_cache(64)
def generator(k: int, m: int) -> Matrix:
    """k + m rows of k: piece i is row i times the data pieces."""
    identity = tuple(tuple(int(i == j) for j in range(k)) for i in range(k))
    return identity + tuple(tuple(inverse((k + i) ^ j) for j in range(k)) for i in range(m))


@lru_cache(4096)
def rebuilding(k: int, m: int, held: tuple[int, ...], wanted: tuple[int, ...]) -> Matrix:
    """A row of k for each wanted piece: times the k held pieces, in their order, it gives that piece."""
    assert len(held) == k
    rows = generator(k, m)
    chosen = tuple(rows[index] for index in wanted)
    if held == tuple(range(k)):
        return chosen
    return product(chosen, inverse_matrix(tuple(rows[index] for index in held)))


def _dot(row: Row, column: Row) -> int:
    total = 0
    for a, b in zip(row, column, strict=True):
        total ^= multiply(a, b)
    return total
