"""CHAP (RFC 1994; RFC 7143 12.1.3), the target's side: one-way, and mutual when the initiator asks for it.  Pure.

The algorithm is the first of the initiator's list that is known here (MD5, SHA1, SHA-256, SHA3-256).  A challenge is used
once.  One that comes back as the initiator's own (a reflection) is refused.  Names and responses are compared in constant time.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ring.errors import BadInput

from . import text
from .text import Pairs

ALGORITHMS = {5: "md5", 6: "sha1", 7: "sha256", 8: "sha3_256"}  # the registry of RFC 7143 16.3
CHALLENGE_BYTES_MAX = 1024


class AuthenticationError(BadInput):
    """The initiator did not prove who it is."""


@dataclass(frozen=True, slots=True)
class Secret:
    """Who, and what it knows.  BadInput unless both are given."""

    user: str
    secret: str = field(repr=False)

    def __post_init__(self) -> None:
        if not self.user or not self.secret:
            raise BadInput("CHAP needs a user and a secret")


class Chap:
    """First ``challenge`` (from CHAP_A), then ``verify`` (from CHAP_N and CHAP_R, and CHAP_I and CHAP_C when mutual)."""

    def __init__(self, initiator: Secret, target: Secret | None, token: Callable[[int], bytes]) -> None:
        if target is not None and target.secret == initiator.secret:
            raise BadInput("mutual CHAP with one secret for both sides proves nothing")
        self._initiator = initiator
        self._target = target
        self._token = token
        self._algorithm = ""
        self._identifier = 0
        self._challenge = b""

    def challenge(self, keys: Mapping[str, str]) -> Pairs:
        """AuthenticationError when there is no common algorithm."""
        offered = (text.number(item) for item in keys.get("CHAP_A", "").split(","))
        choice = next((number for number in offered if number in ALGORITHMS), None)
        if choice is None:
            raise AuthenticationError("no common CHAP algorithm")
        self._algorithm = ALGORITHMS[choice]
        self._identifier = self._token(1)[0]
        self._challenge = self._token(hashlib.new(self._algorithm, usedforsecurity=False).digest_size)
        return [("CHAP_A", str(choice)), ("CHAP_I", str(self._identifier)), ("CHAP_C", f"0x{self._challenge.hex()}")]

    def verify(self, keys: Mapping[str, str]) -> Pairs:
        """The target's own proof when it was asked for, else nothing.  AuthenticationError."""
        challenge, self._challenge = self._challenge, b""
        if not challenge:
            raise AuthenticationError("no challenge is open")
        expected = self._digest(self._identifier, self._initiator.secret, challenge)
        given = _binary(keys.get("CHAP_R", ""))
        same_name = hmac.compare_digest(keys.get("CHAP_N", "").encode(), self._initiator.user.encode())
        same_response = hmac.compare_digest(given or b"", expected)
        if not (same_name and same_response):
            raise AuthenticationError("wrong CHAP name or secret")
        if "CHAP_I" not in keys and "CHAP_C" not in keys:
            return []
        identifier, theirs = text.number(keys.get("CHAP_I", "")), _binary(keys.get("CHAP_C", ""))
        if identifier is None or not 0 <= identifier <= 255 or not theirs or len(theirs) > CHALLENGE_BYTES_MAX:
            raise AuthenticationError("a malformed challenge")
        if theirs == challenge:
            raise AuthenticationError("a reflected challenge")
        if self._target is None:
            raise AuthenticationError("the initiator wants mutual CHAP, and this target has no secret for it")
        proof = self._digest(identifier, self._target.secret, theirs)
        return [("CHAP_N", self._target.user), ("CHAP_R", f"0x{proof.hex()}")]

    def _digest(self, identifier: int, secret: str, challenge: bytes) -> bytes:
        data = bytes((identifier,)) + secret.encode() + challenge
        return hashlib.new(self._algorithm, data, usedforsecurity=False).digest()


def _binary(value: str) -> bytes | None:
    """A binary value: 0x and hexadecimal, or 0b and base64 (RFC 7143 6.1)."""
    try:
        match value[:2].lower():
            case "0x":
                return bytes.fromhex(value[2:] if len(value) % 2 == 0 else "0" + value[2:])
            case "0b":
                return base64.b64decode(value[2:], validate=True)
    except (ValueError, binascii.Error):
        return None
    return None
