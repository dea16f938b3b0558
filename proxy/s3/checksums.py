"""What a body must be: Content-MD5, x-amz-content-sha256, x-amz-checksum-*; and a body that is checked while it is read.

The verdict falls before the last bytes are handed on, so nothing of a wrong body is ever stored.
Source: "Checking object integrity", S3 user guide.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import zlib
from collections.abc import Sequence
from typing import Protocol

import trio

from proxy.errors import BadChecksum, BadRequest
from proxy.s3.crc import CRC32C, CRC64NVME, SLICE_BYTES, Crc
from ring.wire.message import Headers
from storage.client.interface import BodySource

PREFIX = "x-amz-checksum-"
_SLOW = frozenset(("crc32c", "crc64nvme"))
SYSMETA = "x-sysmeta-s3-checksum-"  # as stored with the object
_NOT_ALGORITHMS = frozenset(("x-amz-checksum-mode", "x-amz-checksum-algorithm", "x-amz-checksum-type"))
ALGORITHMS = {"crc32": 4, "crc32c": 4, "crc64nvme": 8, "sha1": 20, "sha256": 32}  # bytes of their digests


class Hash(Protocol):
    def update(self, data: bytes, /) -> None: ...

    def digest(self) -> bytes: ...


class Crc32:
    def __init__(self) -> None:
        self._value = 0

    def update(self, data: bytes) -> None:
        self._value = zlib.crc32(data, self._value)

    def digest(self) -> bytes:
        return self._value.to_bytes(4, "big")


def new_hash(algorithm: str) -> Hash:
    """Of one of ALGORITHMS, or "md5"."""
    match algorithm:
        case "crc32":
            return Crc32()
        case "crc32c":
            return Crc(CRC32C)
        case "crc64nvme":
            return Crc(CRC64NVME)
        case _:
            return hashlib.new(algorithm, usedforsecurity=False)


def check_algorithm(algorithm: str) -> None:
    """BadRequest for what is none."""
    if algorithm not in ALGORITHMS:
        raise BadRequest("Checksum algorithm provided is unsupported. Please try again with any of the valid types.")


class Check:
    """One digest that a body must have.  ``expected`` may come late (a trailer)."""

    __slots__ = ("algorithm", "code", "expected", "hash")

    def __init__(self, algorithm: str, expected: bytes | None, *, code: str = "BadDigest") -> None:
        self.algorithm = algorithm
        self.expected = expected
        self.code = code
        self.hash = new_hash(algorithm)

    def verify(self) -> None:
        """BadChecksum."""
        assert self.expected is not None
        if self.hash.digest() != self.expected:
            raise BadChecksum(f"The {self.algorithm.upper()} you specified did not match the calculated checksum.", code=self.code)


def content_md5(headers: Headers) -> str:
    """As hex; "" when not given.  BadRequest (InvalidDigest)."""
    value = headers.get("content-md5")
    if not value:
        return ""
    digest = _decode(value)
    if digest is None or len(digest) != 16:
        raise BadRequest("The Content-MD5 you specified is not valid.", code="InvalidDigest")
    return digest.hex()


def stated(headers: Headers) -> list[tuple[str, str]]:
    """The (algorithm, base64 value) that the headers announce: at most one.  BadRequest."""
    found = [
        (name[len(PREFIX) :], value) for name, value in headers.fields if name.startswith(PREFIX) and name not in _NOT_ALGORITHMS
    ]
    if len(found) > 1:
        raise BadRequest("Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed.")
    for algorithm, value in found:
        parse_value(algorithm, value)
    return found


def parse_value(algorithm: str, value: str) -> bytes:
    """The digest.  BadRequest."""
    check_algorithm(algorithm)
    digest = _decode(value)
    if digest is None or len(digest) != ALGORITHMS[algorithm]:
        raise BadRequest(f"Value for {PREFIX}{algorithm} header is invalid.")
    return digest


def _decode(value: str) -> bytes | None:
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        return None


async def update(checks: Sequence[Check], data: bytes) -> None:
    """Slow sums let others run in between."""
    for check in checks:
        if check.algorithm not in _SLOW or len(data) <= SLICE_BYTES:
            check.hash.update(data)
            continue
        for start in range(0, len(data), SLICE_BYTES):
            check.hash.update(data[start : start + SLICE_BYTES])
            await trio.lowlevel.checkpoint()


class CheckedBody:
    """A body that must pass ``checks``, and end where its length says."""

    def __init__(self, body: BodySource, checks: Sequence[Check]) -> None:
        self.length = body.length
        self._body = body
        self._checks = checks
        self._left = body.length
        self._verified = False

    async def read(self, max_bytes: int = 1 << 20) -> bytes:
        data = await self._body.read(max_bytes)
        if data:
            await update(self._checks, data)
            if self._left is not None:
                self._left -= len(data)
        if not self._verified and (not data or self._left == 0):
            self._verified = True
            for check in self._checks:
                check.verify()
        return data
