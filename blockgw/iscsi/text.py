"""Text of login and text PDUs: key=value pairs, each ended by a NUL (RFC 7143 6.1).  Pure."""

from __future__ import annotations

from collections.abc import Iterable

from .pdu import ProtocolError

KEY_BYTES_MAX = 63
Pairs = list[tuple[str, str]]


def encode(pairs: Iterable[tuple[str, str]]) -> bytes:
    return b"".join(f"{key}={value}\0".encode() for key, value in pairs)


def decode(data: bytes) -> Pairs:
    """In order; keys may repeat, that is for the caller to refuse.  ProtocolError."""
    pairs = []
    for item in data.split(b"\0"):
        if not item:
            continue
        key, equals, value = item.partition(b"=")
        if not equals or not 0 < len(key) <= KEY_BYTES_MAX:
            raise ProtocolError("text that is not key=value")
        try:
            pairs.append((key.decode("ascii"), value.decode("utf-8")))
        except UnicodeDecodeError:
            raise ProtocolError("text that is not UTF-8") from None
    return pairs


def number(value: str) -> int | None:
    """A numerical value, decimal or 0x (RFC 7143 6.1); None when it is not one."""
    digits, base = (value[2:], 16) if value[:2] in ("0x", "0X") else (value, 10)
    if not digits.isascii() or not digits.isalnum() or len(digits) > 20:
        return None
    try:
        return int(digits, base)
    except ValueError:
        return None
