"""Secrets that must be read back (S3 secrets, token keys, CHAP secrets): AES-256-GCM under a key derived from the root key.

Form: base64url of version byte 1, nonce (12), ciphertext and tag.  The purpose is bound to it: a sealed S3 secret does not open as
a token key.  The root key is 32 bytes in a file of mode 0600; it never enters kv.
"""

from __future__ import annotations

import base64
import binascii

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from ring.errors import FormatError
from ring.world.interface import Entropy

ROOT_KEY_BYTES = 32
_VERSION = b"\x01"


class Sealer:
    def __init__(self, root_key: bytes, entropy: Entropy) -> None:
        if len(root_key) != ROOT_KEY_BYTES:
            raise FormatError(f"the root key has {len(root_key)} bytes, not {ROOT_KEY_BYTES}")
        key = HKDF(SHA256(), 32, salt=None, info=b"ringfort sealing").derive(root_key)
        self._cipher = AESGCM(key)
        self._entropy = entropy

    def seal(self, purpose: str, secret: bytes) -> str:
        nonce = self._entropy.token(12)
        return base64.urlsafe_b64encode(_VERSION + nonce + self._cipher.encrypt(nonce, secret, purpose.encode())).decode()

    def open(self, purpose: str, sealed: str) -> bytes:
        """FormatError when it was sealed under another key or for another purpose."""
        try:
            data = base64.b64decode(sealed, altchars=b"-_", validate=True)
            if data[:1] != _VERSION:
                raise FormatError(f"a sealed {purpose} has an unknown version", hint="it was written by a newer Ringfort")
            return self._cipher.decrypt(data[1:13], data[13:], purpose.encode())
        except (InvalidTag, binascii.Error, ValueError) as error:
            raise FormatError(f"a sealed {purpose} does not open with this root key") from error
