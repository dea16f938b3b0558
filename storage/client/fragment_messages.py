"""The node protocol's messages for erasure-coded policies, since 1.3.  Pure.

A field added later is passed over by older peers: ``promised`` has no meaning to one before 1.4.

Questions of a few hundred bytes, but for STAGE with a small object's bytes.  A fragment's bytes go as a body: PUT with
``piece_bytes`` begins one, COMMIT with ``fragment`` (its description, docs/formats/fragment.md) stages it; GET with ``version``
reads one.  Neighbours: protocol.py (the other messages), remote_fragments.py and server.py (the two ends).
"""

from __future__ import annotations

import msgspec

from ring.names import Path
from storage.client.node import Debt, Kind, Version


class Sightings(msgspec.Struct, tag="sightings", frozen=True):
    path: Path


class Stage(msgspec.Struct, tag="stage", frozen=True):
    version: Version
    data: bytes | None  # None: only the note that there is this version; or (since 1.4) a tombstone
    seen: bool
    promised: bool = False  # since 1.4: see storage.client.fragments


class CommitStaged(msgspec.Struct, tag="commit_staged", frozen=True):
    version: Version
    debt: Debt | None
    seen: bool


class Refuse(msgspec.Struct, tag="refuse", frozen=True):
    version: Version


class Forget(msgspec.Struct, tag="forget", frozen=True):
    version: Version


class Describe(msgspec.Struct, tag="describe", frozen=True):
    """Answered with the description's bytes, or nil."""

    version: Version


def minor_of(message: Message) -> int:
    """The least minor version that a peer must speak to be asked this: an older one refuses a tombstone here."""
    return 4 if isinstance(message, Stage) and message.version.kind is Kind.TOMBSTONE else 3


Message = Sightings | Stage | CommitStaged | Refuse | Forget | Describe
MESSAGES = (Sightings, Stage, CommitStaged, Refuse, Forget, Describe)
