"""What a body must be: Content-MD5, x-amz-content-sha256, x-amz-checksum-*; and a body that is checked while it is read.

The verdict falls before the last bytes are handed on, so nothing of a wrong body is ever stored.  crc32c and crc64nvme need code
that is not there at any bearable speed: they are refused, never ignored.
Source: "Checking object integrity", S3 user guide.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import zlib
from collections.abc import Sequence
from typing import Protocol

from proxy.errors import BadChecksum, BadRequest, NotSupported
from ring.wire.message import Headers
from storage.client.interface import BodySource

PREFIX = "x-amz-checksum-"
SYSMETA = "x-sysmeta-s3-checksum-"  # as stored with the object
_NOT_ALGORITHMS = frozenset(("x-amz-checksum-mode", "x-amz-checksum-algorithm", "x-amz-checksum-type"))
ALGORITHMS = {"crc32": 4, "sha1": 20, "sha256": 32}  # bytes of their digests
KNOWN = frozenset((*ALGORITHMS, "crc32c", "crc64nvme"))


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
    """NotSupported."""
    check_algorithm(algorithm)
    return Crc32() if algorithm == "crc32" else hashlib.new(algorithm, usedforsecurity=False)


def check_algorithm(algorithm: str) -> None:
    """NotSupported for those that S3 has and we do not, BadRequest for what is none."""
    if algorithm in ALGORITHMS:
        return
    if algorithm in KNOWN:
        raise NotSupported(f"The checksum algorithm {algorithm.upper()} is not supported; use CRC32, SHA1 or SHA256.")
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
    """The (algorithm, base64 value) that the headers announce: at most one.  BadRequest, NotSupported."""
    found = [
        (name[len(PREFIX) :], value) for name, value in headers.fields if name.startswith(PREFIX) and name not in _NOT_ALGORITHMS
    ]
    if len(found) > 1:
        raise BadRequest("Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed.")
    for algorithm, value in found:
        parse_value(algorithm, value)
    return found


def parse_value(algorithm: str, value: str) -> bytes:
    """The digest.  BadRequest, NotSupported."""
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
            for check in self._checks:
                check.hash.update(data)
            if self._left is not None:
                self._left -= len(data)
        if not self._verified and (not data or self._left == 0):
            self._verified = True
            for check in self._checks:
                check.verify()
        return data
