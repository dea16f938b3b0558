"""Bodies that say which PUT they are of, so that whoever reads one knows what it saw, and whether it is whole.  Pure."""

from __future__ import annotations

import hashlib


def body_of(value: int, size: int) -> bytes:
    """The body of PUT number ``value``."""
    line = b"%d:%d\n" % (value, size)
    pattern = hashlib.sha256(line).digest()
    return (line + pattern * (size // 32 + 1))[: max(size, len(line))]


def value_of(body: bytes) -> int:
    """Which PUT it is of; ValueError when it is of none, or damaged."""
    value, _, size = body.partition(b"\n")[0].partition(b":")
    if body_of(int(value), int(size)) != body:
        raise ValueError(f"a body of PUT {int(value)} with {len(body)} bytes is damaged")
    return int(value)
