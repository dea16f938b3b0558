"""The field, the matrices, and who loads numpy."""

from __future__ import annotations

import random
import subprocess
import sys
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.erasure.codecs import CODECS, make_codec
from storage.erasure.combine import BLOCK_BYTES, combine
from storage.erasure.errors import BadCoding
from storage.erasure.field import Matrix, generator, inverse, inverse_matrix, multiply, product, rebuilding
from storage.erasure.interface import Coding
from storage.erasure.liberasurecode import available

ELEMENT = st.integers(0, 255)


@settings(deadline=None)
@given(ELEMENT, ELEMENT, ELEMENT)
def test_it_is_a_field(a: int, b: int, c: int) -> None:
    assert multiply(a, b) == multiply(b, a) < 256
    assert multiply(a, multiply(b, c)) == multiply(multiply(a, b), c)
    assert multiply(a, b ^ c) == multiply(a, b) ^ multiply(a, c)
    assert (multiply(a, 1), multiply(a, 0)) == (a, 0)


def test_its_polynomial() -> None:
    assert (multiply(0x80, 2), multiply(2, 0x8E)) == (0x1D, 1)
    assert all(multiply(a, inverse(a)) == 1 for a in range(1, 256))


@pytest.mark.parametrize(("k", "m"), [(4, 2), (3, 4), (6, 6)])
def test_any_k_rows_can_be_inverted(k: int, m: int) -> None:
    rows = generator(k, m)
    identity = tuple(tuple(int(i == j) for j in range(k)) for i in range(k))
    for held in combinations(range(k + m), k):
        part: Matrix = tuple(rows[index] for index in held)
        assert product(part, inverse_matrix(part)) == identity
        assert rebuilding(k, m, held, tuple(range(k + m))) == product(rows, inverse_matrix(part))


def test_a_matrix_without_an_inverse() -> None:
    with pytest.raises(ZeroDivisionError):
        inverse_matrix(((1, 2), (2, 4)))


@pytest.mark.parametrize("size", [0, 1, 2, 7, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, 2 * BLOCK_BYTES + 5])
@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_combining_is_the_sum_of_products(size: int, count: int) -> None:
    rng = random.Random(f"{size} {count}")
    pieces = [rng.randbytes(size) for _ in range(count)]
    rows = (
        tuple(rng.randrange(256) for _ in range(count)),
        tuple([0] * count),
        tuple(int(j == 0) for j in range(count)),
        tuple([255] * count),
    )
    tables = {factor: bytes(multiply(factor, value) for value in range(256)) for row in rows for factor in row}
    expected = []
    for row in rows:
        total = 0
        for factor, piece in zip(row, pieces, strict=True):
            total ^= int.from_bytes(piece.translate(tables[factor]), "big")
        expected.append(total.to_bytes(size, "big"))
    assert [bytes(one) for one in combine(rows, pieces)] == expected


def test_nothing_to_combine() -> None:
    assert combine((), [b"abc"]) == []
    assert [bytes(one) for one in combine(((0, 0),), [b"abc", b"def"])] == [b"\0\0\0"]


# ---- which codec


def test_codecs_by_name() -> None:
    coding = Coding(4, 2)
    assert [make_codec(coding, name).name for name in CODECS] == list(CODECS)
    assert available() and make_codec(coding).name == "pyeclib"
    with pytest.raises(BadCoding, match="no codec 'jerasure'") as caught:
        make_codec(coding, "jerasure")
    assert caught.value.hint == "there are builtin and pyeclib"


# What a node without an erasure-coded policy imports; the name of a package that must not have come along.
ROOMS = "import storage.erasure.codecs, storage.erasure.reader, storage.erasure.writer, storage.erasure.plan"
MAKE = "from storage.erasure.interface import Coding; storage.erasure.codecs.make_codec(Coding(4, 2), {name!r})"


def loaded(code: str) -> set[str]:
    """Which of numpy and PyECLib a fresh interpreter has loaded after this."""
    show = "import sys; print(*({'numpy', 'pyeclib'} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", f"{code}; {show}"], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_libraries_are_loaded_when_a_codec_is_made_and_not_before() -> None:
    assert loaded(ROOMS) == set()
    assert loaded(f"{ROOMS}; {MAKE.format(name='pyeclib')}") == {"pyeclib"}
    assert loaded(f"{ROOMS}; {MAKE.format(name='builtin')}") == {"numpy"}


REFUSED = """
from ring.errors import Unavailable
try:
    {make}
except Unavailable as error:
    print(error.hint)
"""


def test_where_pyeclib_is_not_installed() -> None:
    """The built-in codec takes its place; asked for by name it is Unavailable, with a hint."""
    hide = f"import sys; sys.modules['pyeclib'] = None; {ROOMS}"
    assert "numpy" in loaded(f"{hide}; {MAKE.format(name='')}")
    code = hide + REFUSED.format(make=MAKE.format(name="pyeclib"))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'ringfort[erasure]'" in done.stdout
