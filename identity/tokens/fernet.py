"""Fernet tokens (github.com/fernet/spec): who, which project, until when, sealed and signed; nothing is stored.  Pure.

The payload is msgpack.  The newest key makes tokens, all known keys open them, so keys rotate without a logout.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from ring.errors import NotFound

TOKEN_CHARACTERS_MAX = 1024


class Payload(msgspec.Struct, frozen=True, array_like=True):
    user_id: str
    scope: str  # "project", "domain", "system" or ""
    target_id: str
    methods: tuple[str, ...]
    issued: float  # wall seconds
    expires: float
    audit_id: str


class Tokens:
    """``keys``: url-safe base64 Fernet keys, newest first."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._fernet = MultiFernet([Fernet(key) for key in keys])

    def issue(self, payload: Payload) -> str:
        return self._fernet.encrypt_at_time(msgspec.msgpack.encode(payload), int(payload.issued)).decode().rstrip("=")

    def open(self, token: str) -> Payload:
        """NotFound for anything these keys did not make.  The caller checks ``expires``."""
        if len(token) > TOKEN_CHARACTERS_MAX:
            raise NotFound("not a token of ours")
        try:
            data = self._fernet.decrypt((token + "=" * (-len(token) % 4)).encode("ascii"))
            return msgspec.msgpack.decode(data, type=Payload)
        except (InvalidToken, msgspec.DecodeError, UnicodeEncodeError) as error:
            raise NotFound("not a token of ours") from error
