"""Which project holds which bucket name.  Names are claimed cluster-wide when a bucket is made through S3.

A claim is the key ``buckets/NAME`` in kv; a View of them answers look-ups from RAM.  While nobody holds a name, each project sees
its own Swift container of that name as a bucket.  A claim comes before its container and goes after it, so that a crash in between
leaves at worst a name that its owner can use or delete again.

Neighbours: s3 (resolves and claims), client.objects, ring.kv.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import msgspec

from proxy.errors import BadBucketName, BucketTaken
from ring.errors import FormatError, Unavailable
from ring.kv.interface import KV, Delete, Entry, Put, Unchanged
from ring.kv.view import View
from ring.names import HIDDEN, Path

PREFIX = "buckets/"
RESERVED = frozenset(("v1", "auth", "info", "healthcheck", "endpoints"))  # paths of Swift's on the same port
_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_ADDRESS = re.compile(r"\d+\.\d+\.\d+\.\d+")
_ATTEMPTS = 5


class _Value(msgspec.Struct, frozen=True):
    project: str
    container: str


@dataclass(frozen=True, slots=True)
class Claim:
    project_id: str
    path: Path


def account_of(project_id: str) -> str:
    return f"AUTH_{project_id}"


def check_name(name: str) -> None:
    """Whether a bucket may be made with this name.  BadBucketName."""
    if not _NAME.fullmatch(name) or ".." in name or ".-" in name or "-." in name or _ADDRESS.fullmatch(name) or name in RESERVED:
        raise BadBucketName("The specified bucket is not valid.")


class BucketClaims:
    def __init__(self, kv: KV) -> None:
        self._kv = kv
        self.view: View[Claim] = View(kv, PREFIX, _decode)

    def path(self, name: str, project_id: str) -> Path | None:
        """The container behind a bucket's name, as a project sees it ("": anybody).  That it exists is not said."""
        claim = self.view.get(PREFIX + name)
        if claim is not None:
            return claim.path
        if not project_id or not name or name in RESERVED or name.startswith(HIDDEN):
            return None
        return Path(account_of(project_id), name)

    def is_held_by_others(self, name: str, project_id: str) -> bool:
        claim = self.view.get(PREFIX + name)
        return claim is not None and claim.project_id != project_id

    async def claim(self, name: str, project_id: str) -> Path:
        """Hold the name for the project; the container that goes with it.  BadBucketName, BucketTaken."""
        check_name(name)
        key = PREFIX + name
        path = Path(account_of(project_id), name)
        for _ in range(_ATTEMPTS):
            entry = await self._kv.get(key)
            if entry is not None:
                held = _decode(entry)
                if held.project_id != project_id:
                    raise BucketTaken(f"the bucket name {name} is taken")
                return held.path
            value = msgspec.json.encode(_Value(project_id, name))
            outcome = await self._kv.transact([Unchanged(key, 0)], [Put(key, value)])
            if outcome.succeeded:
                await self._see(outcome.revision)
                return path
        raise Unavailable(f"the claim on bucket {name} keeps changing")

    async def release(self, name: str, project_id: str) -> None:
        """Give the name back, if the project holds it."""
        entry = await self._kv.get(PREFIX + name)
        if entry is not None and _decode(entry).project_id == project_id:
            outcome = await self._kv.transact([Unchanged(entry.key, entry.modified)], [Delete(entry.key)])
            await self._see(outcome.revision)

    async def _see(self, revision: int) -> None:
        """Read one's own writes; a view that is not kept up (no ``run``) has nothing to wait for."""
        if self.view.revision >= 0:
            await self.view.wait(revision)


def _decode(entry: Entry) -> Claim:
    try:
        value = msgspec.json.decode(entry.value, type=_Value)
    except msgspec.MsgspecError as error:
        raise FormatError(f"{entry.key} is no bucket's claim: {error}") from error
    return Claim(value.project, Path(account_of(value.project), value.container))
