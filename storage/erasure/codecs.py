"""Which codec a node uses: PyECLib's where it is installed, the built-in one else.  They read each other's pieces, so nodes may
differ.

Neighbours: the two codecs; interface.py.  Codecs are kept: making one costs more than a stripe.
"""

from __future__ import annotations

from functools import lru_cache

from storage.erasure.builtin import BuiltinCodec
from storage.erasure.errors import BadCoding
from storage.erasure.interface import Codec, Coding
from storage.erasure.liberasurecode import LiberasurecodeCodec, available

CODECS = ("builtin", "pyeclib")


@lru_cache(64)
def make_codec(coding: Coding, name: str = "") -> Codec:
    """The fastest that is here; or the one of that name (BadCoding for another, Unavailable when it is not installed)."""
    match name:
        case "builtin":
            return BuiltinCodec(coding)
        case "pyeclib":
            return LiberasurecodeCodec(coding)
        case "":
            return LiberasurecodeCodec(coding) if available() else BuiltinCodec(coding)
        case _:
            raise BadCoding(f"there is no codec {name[:40]!r}", hint=f"there are {' and '.join(CODECS)}")
