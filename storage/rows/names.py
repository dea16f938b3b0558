"""Where a name lies in an ordered table whose keys end at 511 bytes, so that byte order stays exact.  Pure but for scanning.

A key is a 16-byte id and what is left of the name.  A name longer than ``INLINE_MAX`` goes on under another id: its first 494 bytes
are a *branch* key (id + 494 bytes + NUL, the only keys of 511 bytes), whose value is the id under which the rest of all names with
that beginning lies; that id is derived, so finding one row needs no look at the branches.  A branch key stands right behind the
name that is exactly its 494 bytes, and no shorter name can fall among its names, so a scan that walks into branches as it
meets them yields UTF-8 byte order.  Names of 1,024 bytes need two branches.

Neighbours: books and apply.  Format: docs/formats/rows.md.
"""

from __future__ import annotations

import hashlib

from ring.errors import BadInput
from ring.world.interface import Tables, Write
from storage.rows.row import seal, unseal

TABLE = "rows"
ID_BYTES = 16
INLINE_MAX = 494
BRANCH_KEY_BYTES = ID_BYTES + INLINE_MAX + 1
_SCAN_ROWS = 1024
KINDS = {"book": ("container", "account"), "container": ("container",), "account": ("account",)}


def row_key(book: bytes, name: bytes) -> bytes:
    """The key of a row; ``book`` is the book's hash."""
    while len(name) > INLINE_MAX:
        book, name = _branch_id(book, name[:INLINE_MAX]), name[INLINE_MAX:]
    return book + name


def branch_writes(book: bytes, name: bytes) -> list[Write]:
    """The branches that a name needs; writing them again changes nothing."""
    writes = []
    while len(name) > INLINE_MAX:
        head = name[:INLINE_MAX]
        branch = _branch_id(book, head)
        writes.append(Write(TABLE, book + head + b"\0", seal(branch)))
        book, name = branch, name[INLINE_MAX:]
    return writes


def scan_names(
    tables: Tables, book: bytes, start: bytes, end: bytes | None, *, limit: int, reverse: bool
) -> tuple[list[bytes], list[bytes]]:
    """Names and sealed values of at most ``limit`` rows with start < name < end (b"" and None: no bound), in order.

    Synchronous: one consistent look for a page without long names."""
    names: list[bytes] = []
    values: list[bytes] = []
    low = book + start[:INLINE_MAX] + (b"\0" if start else b"")
    high: bytes | None
    if end is None:
        high = _next_id(book)
    elif len(end) > INLINE_MAX:
        high = book + end[:INLINE_MAX] + b"\1"  # the branch, and nothing behind it
    else:
        high = book + end
    while len(names) < limit:
        wanted = min(limit - len(names), max(_SCAN_ROWS, limit))
        pairs = tables.scan(TABLE, low, high, limit=wanted, reverse=reverse)
        branches = [at for at, pair in enumerate(pairs) if len(pair[0]) == BRANCH_KEY_BYTES]
        if not branches:
            names += [key[ID_BYTES:] for key, _ in pairs]
            values += [value for _, value in pairs]
            break
        done = 0
        for at in branches:
            names += [key[ID_BYTES:] for key, _ in pairs[done:at]]
            values += [value for _, value in pairs[done:at]]
            done = at + 1
            head = pairs[at][0][ID_BYTES:-1]
            inside_start = start[INLINE_MAX:] if len(start) > INLINE_MAX and start[:INLINE_MAX] == head else b""
            inside_end = end[INLINE_MAX:] if end is not None and len(end) > INLINE_MAX and end[:INLINE_MAX] == head else None
            inside = scan_names(
                tables, unseal(pairs[at][1]), inside_start, inside_end, limit=max(0, limit - len(names)), reverse=reverse
            )
            names += [head + name for name in inside[0]]
            values += inside[1]
        names += [key[ID_BYTES:] for key, _ in pairs[done:]]
        values += [value for _, value in pairs[done:]]
        if len(pairs) < wanted:
            break
        if reverse:
            high = pairs[-1][0]
        else:
            low = pairs[-1][0] + b"\0" if len(pairs[-1][0]) < BRANCH_KEY_BYTES else pairs[-1][0][:-1] + b"\1"
    return names[:limit], values[:limit]


def _branch_id(book: bytes, head: bytes) -> bytes:
    """In the book's partition (its first four bytes are the book's)."""
    return book[:4] + hashlib.blake2b(head, digest_size=ID_BYTES - 4, key=book).digest()


def _next_id(book: bytes) -> bytes | None:
    value = int.from_bytes(book, "big") + 1
    return value.to_bytes(ID_BYTES, "big") if value < 1 << 128 else None


def kinds_of(kind: str) -> tuple[str, ...]:
    """The trees that a kind of book stands for: "book" is containers and accounts together."""
    try:
        return KINDS[kind]
    except KeyError:
        raise BadInput(f"no kind of book: {kind!r}") from None
