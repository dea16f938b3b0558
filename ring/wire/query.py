"""Percent-encodings and query strings, read strictly: what is not UTF-8, or not an encoding, is BadInput and never guessed at.

Pure.  Standard: RFC 3986 sections 2.1 and 3.4; '+' as a blank is the HTML form's rule, which S3 and Swift clients follow in
queries.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from urllib.parse import quote as _quote

from ring.errors import BadInput

_BROKEN = re.compile(r"%(?![0-9A-Fa-f]{2})")
PAIRS_MAX = 1000


def unquote(text: str, *, plus: bool = False) -> str:
    """Percent-decode; ``plus`` reads '+' as a blank.  BadInput for a broken encoding or bytes that are not UTF-8."""
    return _decode(unquote_bytes(text, plus=plus), text)


def unquote_bytes(text: str, *, plus: bool = False) -> bytes:
    """Percent-decode to bytes.  Characters beyond ASCII stand for their latin-1 byte, as they came on the wire."""
    if plus:
        text = text.replace("+", " ")
    try:
        raw = text.encode("latin-1")
    except UnicodeEncodeError:
        raise BadInput(f"not a percent-encoded text: {text[:60]!r}") from None
    if "%" not in text:
        return raw
    if _BROKEN.search(text):
        raise BadInput(f"broken percent-encoding: {text[:60]!r}")
    first, *rest = raw.split(b"%")
    return b"".join([first, *(bytes((int(part[:2], 16),)) + part[2:] for part in rest)])


def _decode(raw: bytes, text: str) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        raise BadInput(f"not UTF-8: {text[:60]!r}") from None


def quote(text: str, safe: str = "/") -> str:
    """Percent-encode all but letters, digits, '-', '.', '_', '~' and ``safe``."""
    return _quote(text, safe=safe)


class Query:
    """The parameters of a query string, in order.  A name may occur several times; one without '=' has the value ""."""

    __slots__ = ("pairs",)

    def __init__(self, pairs: Iterable[tuple[str, str]] = ()) -> None:
        self.pairs = list(pairs)

    @classmethod
    def parse(cls, query_string: str, *, plus: bool = True) -> Query:
        """BadInput for broken encodings, and for more than PAIRS_MAX parameters."""
        if not query_string:
            return cls()
        parts = query_string.split("&")
        if len(parts) > PAIRS_MAX:
            raise BadInput(f"more than {PAIRS_MAX} query parameters")
        pairs = []
        for part in parts:
            if part:
                name, _, value = part.partition("=")
                pairs.append((unquote(name, plus=plus), unquote(value, plus=plus)))
        return cls(pairs)

    def get(self, name: str, default: str = "") -> str:
        """The first value, or ``default``."""
        for key, value in self.pairs:
            if key == name:
                return value
        return default

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.pairs if key == name]

    def number(self, name: str, default: int, *, least: int = 0, most: int | None = None) -> int:
        """A whole number; BadInput when it is none or out of bounds."""
        text = self.get(name)
        if not text:
            return default
        if not (text.isascii() and text.isdigit() and len(text) <= 18):
            raise BadInput(f"{name} is not a whole number: {text[:40]!r}")
        number = int(text)
        if number < least or (most is not None and number > most):
            raise BadInput(f"{name} is out of bounds: {number}")
        return number

    def __contains__(self, name: str) -> bool:
        return any(key == name for key, _ in self.pairs)

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(self.pairs)

    def __len__(self) -> int:
        return len(self.pairs)

    def __repr__(self) -> str:
        return f"Query({self.pairs!r})"


def encode_query(pairs: Mapping[str, str] | Iterable[tuple[str, str]]) -> str:
    """name=value&..., with blanks as %20, so that every reader agrees."""
    items = pairs.items() if isinstance(pairs, Mapping) else pairs
    return "&".join(f"{_quote(name, safe='')}={_quote(value, safe='')}" for name, value in items)
