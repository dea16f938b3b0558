"""Passwords at rest and sealed secrets."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from identity import passwords
from identity.client.sealing import Sealer
from identity.tokens.fernet import Payload, Tokens
from ring.errors import FormatError, NotFound
from ring.world.sim import SimWorld


@settings(max_examples=5, deadline=None)
@given(st.text(max_size=40), st.text(max_size=40))
def test_only_the_password_verifies(right: str, other: str) -> None:
    encoded = passwords.encode(right, b"0123456789abcdef")
    assert passwords.verify(right, encoded)
    assert passwords.verify(other, encoded) == (other == right)


def test_damaged_passwords_are_told() -> None:
    assert not passwords.verify("x", "")
    for encoded in ("md5$x", "scrypt$99$8$1$AA==$AA==", "scrypt$14$8$1$!$!"):
        with pytest.raises(FormatError):
            passwords.verify("x", encoded)


def test_sealed_secrets_open_for_their_purpose_only() -> None:
    sealer = Sealer(bytes(32), SimWorld(1).entropy)
    sealed = sealer.seal("s3 secret", b"value")
    assert sealer.open("s3 secret", sealed) == b"value"
    assert sealer.seal("s3 secret", b"value") != sealed
    with pytest.raises(FormatError):
        sealer.open("token key", sealed)
    with pytest.raises(FormatError):
        Sealer(b"\1" * 32, SimWorld(1).entropy).open("s3 secret", sealed)
    for harmed in ("", "AA==", sealed[:-8], "B" + sealed[1:], sealed[:-6] + "AAAA=="):
        with pytest.raises(FormatError):
            sealer.open("s3 secret", harmed)


@given(st.text(max_size=300))
def test_no_other_text_is_a_token(text: str) -> None:
    with pytest.raises(NotFound):
        Tokens([b"A" * 43 + b"="]).open(text)


def test_tokens_are_made_with_the_newest_key_and_opened_with_all() -> None:
    old, new = b"A" * 43 + b"=", b"B" * 42 + b"A="
    payload = Payload("u", "project", "p", ("password",), 1000.0, 2000.0, "audit")
    token = Tokens([old]).issue(payload)
    assert Tokens([new, old]).open(token) == payload
    with pytest.raises(NotFound):
        Tokens([new]).open(token)
