"""What a write of an erasure-coded policy writes, at whichever timestamp it gets: a small object, a large body, a deletion.

Each knows its steps at the primaries (coded_writing), and how to be written anew when nothing of it was shown.  Decides nothing.
Neighbours: coded_objects (the caller), coded_writing (the steps), large (bodies on their way).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing
from typing import Protocol

from ring.world.interface import Buffer
from storage.client.coded_writing import CodedBody, Round, bury, send_coded, stage_copies, stage_deletion
from storage.client.errors import NoQuorum
from storage.client.interface import NewObject
from storage.client.large import PiecesSource
from storage.client.node import Version
from storage.client.reach import Reach, Replicas
from storage.client.writing import Send
from storage.erasure.interface import Coding


class Content(Protocol):
    """``sends``: per primary.  ``promised``: the version's timestamp is a ballot, for which these (bits) gave their promise; 0: it
    is a plain one."""

    def sends(
        self, reach: Reach, coding: Coding, replicas: Replicas, version: Version, *, promised: int
    ) -> tuple[Round, Sequence[Send]]: ...

    @property
    def spent(self) -> bool:
        """``again`` has work to do before it can be written at another timestamp."""

    async def again(self, reach: Reach, coding: Coding, policy: int, version: Version) -> None:
        """Make it ready to be written anew; ``version``: as which it was staged.  NoQuorum."""

    async def aclose(self) -> None:
        """What was not staged is forgotten."""


class _AtHand:
    """All of it is in memory."""

    spent = False

    async def again(self, reach: Reach, coding: Coding, policy: int, version: Version) -> None:
        return

    async def aclose(self) -> None:
        return


class SmallContent(_AtHand):
    def __init__(self, data: Buffer) -> None:
        self._data = data

    def sends(
        self, reach: Reach, coding: Coding, replicas: Replicas, version: Version, *, promised: int
    ) -> tuple[Round, Sequence[Send]]:
        return stage_copies(reach, coding, replicas, version, self._data, promised=promised)


class Deletion(_AtHand):
    """A plain one has one step.  What is newer came at the same time: it counts as done there.  One with a condition has two, as
    any conditional write: who shows it must know that a majority stands to the promise."""

    def sends(
        self, reach: Reach, coding: Coding, replicas: Replicas, version: Version, *, promised: int
    ) -> tuple[Round, Sequence[Send]]:
        if promised:
            return stage_deletion(reach, coding, replicas, version, promised)
        return bury(reach, coding, replicas, version)


class LargeContent:
    def __init__(self, large: CodedBody) -> None:
        self._large = large

    @property
    def spent(self) -> bool:
        return self._large.spent

    def sends(
        self, reach: Reach, coding: Coding, replicas: Replicas, version: Version, *, promised: int
    ) -> tuple[Round, Sequence[Send]]:
        return self._large.steps(version, replicas, promised=promised)

    async def again(self, reach: Reach, coding: Coding, policy: int, version: Version) -> None:
        """What is staged of the body gives it back."""
        if not self.spent:
            return
        async with aclosing(self._large.again(version)) as readings:
            async for pieces in readings:
                async with aclosing(PiecesSource(pieces, version.size)) as source:
                    replicas = reach.objects(policy, version.path)
                    again = await send_coded(reach, coding, replicas, version.path, NewObject(), [], source)
                if again.etag == version.etag:
                    before, self._large = self._large, again
                    await before.aclose()
                    return
                await again.aclose()
        raise NoQuorum(f"{version.path}: a newer version came first, and too little of this one is there", hint="send it again")

    async def aclose(self) -> None:
        await self._large.aclose()
