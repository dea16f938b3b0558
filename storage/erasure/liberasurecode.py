"""The codec of PyECLib: liberasurecode's ``isa_l_rs_cauchy``, by the vector instructions of ISA-L.

Optional (extra ``erasure``); PyECLib's wheels bring both libraries along.  liberasurecode puts a header of its own before each
piece, in which only index and sizes vary.  Ours are stored without; for decoding they are put before again, from a pattern that the
library made itself, so nothing here knows that header's format.  Each call holds the interpreter for the fraction of a millisecond
that it takes.  Neighbours: interface.py says what it promises.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import lru_cache

from ring.errors import Unavailable
from ring.world.interface import Buffer
from storage.erasure.interface import Coding, cut, restored, sources, wanted

BACKEND = "isa_l_rs_cauchy"
_PATTERNS_MAX = 64  # sizes of pieces whose headers are kept


def available() -> bool:
    """Whether PyECLib is installed, and ISA-L with it."""
    try:
        from pyeclib.ec_iface import check_backend_available
    except ImportError:
        return False
    return check_backend_available(BACKEND)


class LiberasurecodeCodec:
    """See ``Codec``.  Unavailable where it is not installed."""

    name = "pyeclib"

    def __init__(self, coding: Coding) -> None:
        if not available():
            raise Unavailable(
                f"PyECLib with {BACKEND} is not installed here", hint="pip install 'ringfort[erasure]', or use the built-in codec"
            )
        from pyeclib.ec_iface import ECDriver

        self.k = coding.k
        self.m = coding.m
        self._driver = ECDriver(ec_type=BACKEND, k=self.k, m=self.m)
        self._headers = lru_cache(_PATTERNS_MAX)(self._make_headers)

    def encode(self, block: Buffer) -> list[Buffer]:
        """By ``reconstruct``, as if all parity were lost: the library's own encoding also copies the data, twice, and more than
        halves its speed where that makes malloc ask the system for memory anew every time."""
        pieces = cut(block, self.k)
        parity = self.reconstruct(dict(enumerate(pieces)), range(self.k, self.k + self.m))
        return [*pieces, *parity.values()]

    def decode(self, pieces: Mapping[int, Buffer], length: int) -> Buffer:
        """By ``reconstruct``: the library's own decoding copies the block three times, and takes several times as long."""
        return restored(self, pieces, length)

    def reconstruct(self, pieces: Mapping[int, Buffer], missing: Collection[int]) -> dict[int, Buffer]:
        held = sources(pieces, self.k, self.m)
        indexes = wanted(missing, self.k, self.m)
        size = len(pieces[held[0]])
        if not size or not indexes:
            return dict.fromkeys(indexes, b"")
        headers = self._headers(size)
        fragments = [headers[index] + pieces[index] for index in held]
        absent = [index for index in indexes if index not in pieces]
        rebuilt = self._driver.reconstruct(fragments, absent) if absent else []
        result = dict(pieces)
        result.update(zip(absent, (memoryview(fragment)[-size:] for fragment in rebuilt), strict=True))
        return {index: result[index] for index in indexes}

    def _make_headers(self, size: int) -> list[bytes]:
        """What liberasurecode writes before each piece of this size."""
        return [fragment[:-size] for fragment in self._driver.encode(bytes(size * self.k))]
