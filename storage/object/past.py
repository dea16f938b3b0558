"""Past: which versions of a name a device held a moment ago, before what it holds now.  In RAM only, bounded, and honest about it.

Whoever wrote a version and finds something newer in its place must know whether anybody can have seen it meanwhile: if so, to
write it again would make it happen twice.  Nobody was shown a version that too few devices ever held, and what a device holds
only ever grows: so it is enough to remember, of names that were written lately, the last few versions that were replaced.  What was
forgotten, or was before this process, is answered with "maybe".  That goes for what was dropped too (handed off, reclaimed, put
into quarantine): a name that holds nothing may have held something; how new that can have been is remembered for all names at once.

Pure.  Neighbours: index.py (tells what is replaced), store.py (asks), storage.client.quorum (what follows from the answer).
"""

from __future__ import annotations

from ring.timestamp import ZERO, Timestamp

NAMES_MAX = 8192  # of one generation; there are two
VERSIONS_MAX = 16  # of one name

Known = tuple[Timestamp, Timestamp | None]  # a version, and of which it is a copy
_NOTHING: Known = (ZERO, None)


class Past:
    def __init__(self) -> None:
        self._young: dict[bytes, tuple[Known, ...]] = {}  # by hash, the oldest first; whole from the first one on; (): not known
        self._elder: dict[bytes, tuple[Known, ...]] = {}  # names that were written before those; forgotten all at once
        self._gone: dict[bytes, Timestamp] = {}  # of those of them that were dropped: what was
        self._unknown = ZERO  # what is not above this may have been held, and dropped, of any name that is not remembered

    def replaced(self, name_hash: bytes, old: Known | None) -> None:
        """What was held (None: nothing) made room for something newer."""
        before = self._of(name_hash)
        if before is None:
            self._remember(name_hash, ((self._unknown, None),) if old is None else (old,))
        elif before:
            self._remember(name_hash, (*before[1 - VERSIONS_MAX :], old or _NOTHING))

    def dropped(self, name_hash: bytes, version: Timestamp) -> None:
        """What was held is gone without anything newer: what is held now says nothing of what was."""
        self._gone[name_hash] = max(version, self._gone.get(name_hash, ZERO))
        self._remember(name_hash, ())

    def _of(self, name_hash: bytes) -> tuple[Known, ...] | None:
        found = self._young.get(name_hash)
        return self._elder.get(name_hash) if found is None else found

    def _remember(self, name_hash: bytes, versions: tuple[Known, ...]) -> None:
        if len(self._young) >= NAMES_MAX:
            self._elder, self._young = self._young, {}
            for forgotten in self._gone.keys() - self._elder.keys() - {name_hash}:
                self._unknown = max(self._unknown, self._gone.pop(forgotten))
        self._young[name_hash] = versions

    def clear(self, until: Timestamp) -> None:
        """After a replay: what it told is not all that was.  ``until``: what may have been taken before is not above it."""
        self._young.clear()
        self._elder.clear()
        self._gone.clear()
        self._unknown = max(self._unknown, until)

    def never(self, name_hash: bytes, version: Timestamp, held: Known | None, *, other: bool = False) -> bool:
        """Whether this device surely never held ``version``, nor a copy of it; ``held`` is what it holds now.  ``other``: what is
        held is not it, though it may have its timestamp."""
        replaced = self._of(name_hash)
        if replaced == ():
            return False
        if held is None or held[0] < version:  # had it been held, it would be still, or something above it: or it was dropped
            return version > (self._unknown if replaced is None else replaced[0][0])
        if held[1] == version or (held[0] == version and not other) or replaced is None or replaced[0][0] >= version:
            return False
        return not any(version in known for known in replaced)
