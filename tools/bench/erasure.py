"""How fast stripes of an erasure-coded policy are coded: the two codecs, and the other ways of multiplying that were tried.

python -m tools.bench.erasure [--json] [--seconds S]

MB/s are of the object's bytes (10^6), by the cpu time of one thread, the best of many turns that the ways take in rotation: so
other work on the machine disturbs little.  Every result is compared with the first way's.  Table: docs/performance/erasure.md.
"""

from __future__ import annotations

import argparse
import json
import os
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from ring.world.interface import Buffer
from storage.erasure.codecs import CODECS, make_codec
from storage.erasure.combine import combine
from storage.erasure.field import Matrix, generator, multiply, rebuilding
from storage.erasure.interface import SEGMENT_BYTES, Codec, Coding, cut
from storage.erasure.liberasurecode import available

CODINGS = (Coding(4, 2), Coding(8, 4), Coding(10, 4))
Combine = Callable[[Matrix, Sequence[Buffer]], list[Buffer]]

# ---- rows times pieces, as it could be done

_TABLES = [bytes(multiply(factor, value) for value in range(256)) for factor in range(256)]
_WIDE: dict[int, npt.NDArray[np.uint16]] = {}


def by_integers(rows: Matrix, pieces: Sequence[Buffer]) -> list[Buffer]:
    """No numpy: tables, and whole numbers of as many bits as a piece has."""
    result: list[Buffer] = []
    for row in rows:
        total = 0
        for factor, piece in zip(row, pieces, strict=True):
            total ^= int.from_bytes(bytes(piece).translate(_TABLES[factor]), "little")
        result.append(total.to_bytes(len(pieces[0]), "little"))
    return result


def by_tables(rows: Matrix, pieces: Sequence[Buffer]) -> list[Buffer]:
    """Tables, and numpy's sums."""
    result: list[Buffer] = []
    for row in rows:
        total = np.zeros(len(pieces[0]), np.uint8)
        for factor, piece in zip(row, pieces, strict=True):
            np.bitwise_xor(total, np.frombuffer(bytes(piece).translate(_TABLES[factor]), np.uint8), out=total)
        result.append(total.data)
    return result


def by_take(rows: Matrix, pieces: Sequence[Buffer]) -> list[Buffer]:
    """Tables of two bytes at a time, by numpy's take."""
    result: list[Buffer] = []
    for row in rows:
        total = np.zeros(len(pieces[0]) // 2, np.uint16)
        for factor, piece in zip(row, pieces, strict=True):
            if factor not in _WIDE:
                table = np.frombuffer(_TABLES[factor], np.uint8).astype(np.uint16)
                _WIDE[factor] = (table[:, None] << 8 | table[None, :]).reshape(-1).astype(np.uint16)
            np.bitwise_xor(total, np.take(_WIDE[factor], np.frombuffer(piece, np.uint16), mode="clip"), out=total)
        result.append(total.data.cast("B"))
    return result


WAYS: dict[str, Combine] = {
    "translate + whole numbers": by_integers,
    "translate + numpy": by_tables,
    "numpy take, 16 bits": by_take,
    "numpy, doublings (built-in)": combine,
}

# ---- timing


@dataclass(frozen=True, slots=True)
class Result:
    coding: str
    way: str
    what: str
    mb_per_s: float


def best(calls: Mapping[str, Callable[[], object]], seconds: float) -> dict[str, float]:
    """Cpu seconds of the fastest turn of each, in rotation."""
    times = dict.fromkeys(calls, float("inf"))
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        for name, call in calls.items():
            begin = time.thread_time()
            for _ in range(4):
                call()
            times[name] = min(times[name], (time.thread_time() - begin) / 4)
    return times


def of_ways(coding: Coding, block: bytes, seconds: float) -> list[Result]:
    k, m = coding.k, coding.m
    pieces = cut(block, k)
    whole = pieces + combine(generator(k, m)[k:], pieces)
    tasks = {"encode": (generator(k, m)[k:], pieces)}
    for losses in (1, m):
        held = tuple(range(losses, k + losses))
        tasks[f"decode, {losses} lost"] = (rebuilding(k, m, held, tuple(range(losses))), [whole[index] for index in held])
    results = []
    for what, (rows, inputs) in tasks.items():
        first, *others = ([bytes(piece) for piece in way(rows, inputs)] for way in WAYS.values())
        assert all(other == first for other in others), f"{coding}: the ways of {what} differ"
        calls = {name: partial(way, rows, inputs) for name, way in WAYS.items()}
        for name, taken in best(calls, seconds).items():
            results.append(Result(str(coding), name, what, len(block) / taken / 1e6))
    return results


def of_codecs(coding: Coding, block: bytes, seconds: float) -> list[Result]:
    names = [name for name in CODECS if name != "pyeclib" or available()]
    codecs = {name: make_codec(coding, name) for name in names}
    whole = dict(enumerate(codecs["builtin"].encode(block)))
    results = []
    held = {losses: {index: bytes(whole[index]) for index in range(losses, losses + coding.k)} for losses in (1, coding.m)}
    tasks: dict[str, Callable[[Codec], Callable[[], object]]] = {
        "encode": lambda codec: partial(codec.encode, block),
        "decode, 1 lost": lambda codec: partial(codec.decode, held[1], len(block)),
        f"decode, {coding.m} lost": lambda codec: partial(codec.decode, held[coding.m], len(block)),
        "rebuild 1": lambda codec: partial(codec.reconstruct, held[1], [0]),
    }
    for what, task in tasks.items():
        for codec in codecs.values():
            assert codec.decode(held[coding.m], len(block)) == block
        for name, taken in best({name: task(codec) for name, codec in codecs.items()}, seconds).items():
            results.append(Result(str(coding), f"codec {name}", what, len(block) / taken / 1e6))
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0, help="for each row of the table")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    block = os.urandom(SEGMENT_BYTES)
    results: list[Result] = []
    for coding in CODINGS:
        for measure in (of_ways, of_codecs):
            found = measure(coding, block, arguments.seconds)
            results += found
            if not arguments.json:
                for one in found:
                    print(f"{one.coding:5} {one.way:28} {one.what:16} {one.mb_per_s:8.0f} MB/s", flush=True)
    checks = best({"crc32": lambda: zlib.crc32(block)}, arguments.seconds)
    if arguments.json:
        rows = [{"coding": one.coding, "way": one.way, "what": one.what, "mb_per_s": round(one.mb_per_s)} for one in results]
        print(json.dumps({"rows": rows, "crc32_mb_per_s": round(len(block) / checks["crc32"] / 1e6)}))
    else:
        print(f"crc32 of a piece: {len(block) / checks['crc32'] / 1e6:.0f} MB/s")


if __name__ == "__main__":
    main()
