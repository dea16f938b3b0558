"""Passwords at rest: scrypt (RFC 7914).  Pure; slow on purpose, so callers run it through world.offload.

Form: ``scrypt$<log2 n>$<r>$<p>$<salt, base64url>$<digest, base64url>``.
"""

from __future__ import annotations

import base64
import hashlib
import hmac

from ring.errors import FormatError

LOG2_N = 14
R = 8
P = 1
PASSWORD_BYTES_MAX = 4096


def encode(password: str, salt: bytes) -> str:
    """``salt``: 16 unpredictable bytes."""
    digest = _scrypt(password, salt, LOG2_N, R, P)
    return f"scrypt${LOG2_N}${R}${P}${_text(salt)}${_text(digest)}"


def verify(password: str, encoded: str) -> bool:
    """Constant time in the digest.  False for a user without a password; FormatError for a record that is not ours."""
    if not encoded or len(password.encode("utf-8", "surrogatepass")) > PASSWORD_BYTES_MAX:
        return False
    try:
        kind, log2_n, r, p, salt, digest = encoded.split("$")
        if kind != "scrypt" or not 10 <= int(log2_n) <= 20:
            raise ValueError(kind)
        wanted = _bytes(digest)
        found = _scrypt(password, _bytes(salt), int(log2_n), int(r), int(p))
    except ValueError as error:
        raise FormatError("a stored password cannot be read") from error
    return hmac.compare_digest(found, wanted)


def _scrypt(password: str, salt: bytes, log2_n: int, r: int, p: int) -> bytes:
    data = password.encode("utf-8", "surrogatepass")
    return hashlib.scrypt(data, salt=salt, n=1 << log2_n, r=r, p=p, maxmem=256 << 20, dklen=32)


def _bytes(text: str) -> bytes:
    """Strict: the decoder passes over characters that are not base64 unless told to validate."""
    return base64.b64decode(text, altchars=b"-_", validate=True)


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode()
