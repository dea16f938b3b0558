"""The codec of manifests: the body that names an object's parts, and the headers that tell of the whole.

A manifest is stored as an object under the client's name.  Its body is JSON (docs/formats/manifest.md); the size and ETag that
clients see are in its x-sysmeta-* headers, so that a HEAD needs no body.  Pure.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import msgspec

from ring.errors import FormatError, NewerFormat
from storage.client.interface import ObjectMeta

VERSION = 1
SIZE = "x-sysmeta-large-size"
ETAG = "x-sysmeta-large-etag"
UPLOAD = "x-sysmeta-large-upload"
PARTS = "x-sysmeta-large-parts"


class Part(msgspec.Struct, frozen=True, array_like=True):
    """One part: an object in the hidden container that never changes."""

    number: int
    name: str
    size: int
    etag: str  # hex MD5


class _Body(msgspec.Struct, frozen=True):
    v: int
    upload: str
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class Stretch:
    """``length`` bytes from ``offset`` on of one part."""

    part: Part
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Manifest:
    upload_id: str
    parts: tuple[Part, ...]

    @property
    def size(self) -> int:
        return sum(part.size for part in self.parts)

    @property
    def etag(self) -> str:
        """S3's ETag of a multipart object: the MD5 of the parts' MD5s, and their number."""
        digests = b"".join(bytes.fromhex(part.etag) for part in self.parts)
        return f"{hashlib.md5(digests, usedforsecurity=False).hexdigest()}-{len(self.parts)}"

    def headers(self) -> dict[str, str]:
        return {SIZE: str(self.size), ETAG: self.etag, UPLOAD: self.upload_id, PARTS: str(len(self.parts))}

    def encode(self) -> bytes:
        return msgspec.json.encode(_Body(VERSION, self.upload_id, self.parts))

    def stretches(self, offset: int, length: int) -> Iterator[Stretch]:
        """The parts, or what of them, that make up ``length`` bytes from ``offset`` on."""
        at, end = 0, offset + length
        for part in self.parts:
            start, stop = max(offset - at, 0), min(part.size, end - at)
            if start < stop:
                yield Stretch(part, start, stop - start)
            at += part.size
            if at >= end:
                return

    def span(self, number: int) -> tuple[int, int] | None:
        """Offset and length of the ``number``-th part (counted from 1, in order); None when there is none."""
        if not 1 <= number <= len(self.parts):
            return None
        return sum(part.size for part in self.parts[: number - 1]), self.parts[number - 1].size


def decode(data: bytes) -> Manifest:
    """Raises FormatError."""
    try:
        body = msgspec.json.decode(data, type=_Body)
    except msgspec.MsgspecError as error:
        raise FormatError(f"not a manifest: {error}") from error
    if body.v > VERSION:
        raise NewerFormat("a manifest", body.v, VERSION)
    if body.v != VERSION:
        raise FormatError(f"not a manifest: it has format {body.v}")
    return Manifest(body.upload, body.parts)


def is_manifest(meta: ObjectMeta) -> bool:
    return SIZE in meta.metadata


def visible(meta: ObjectMeta) -> ObjectMeta:
    """As a client sees it: a manifest has the size and the ETag of the whole."""
    size = meta.metadata.get(SIZE)
    return meta if size is None else replace(meta, size=int(size), etag=meta.metadata[ETAG])


def make(upload_id: str, parts: Sequence[Part]) -> Manifest:
    return Manifest(upload_id, tuple(parts))
