"""The root of every error that Ringfort raises on purpose.

    RingfortError            a message for people, and a hint where one helps
      BadInput               what the caller gave cannot be used
      Unavailable            it cannot be known or done now; nothing was changed for certain, trying again is right
      Conflict               the state forbids it
      NotFound
      DiskFault              a device could not keep its promise (I/O error, full, torn)
        DiskFull
      FormatError            bytes on disk or on the wire are not what their format says
      NewerFormat          a newer program wrote them: they are right, and left alone

Each package hangs its own errors below these (see its errors.py).  A timeout or a lost connection is Unavailable, never
NotFound: absence of evidence deletes nothing.
"""

from __future__ import annotations


class RingfortError(Exception):
    """Base of the tree; ``hint`` says what to do about it."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class BadInput(RingfortError):
    """What the caller gave cannot be used."""


class Unavailable(RingfortError):
    """Not now: too few answers, a timeout, a lost connection."""


class Conflict(RingfortError):
    """The state of things forbids it."""


class NotFound(RingfortError):
    """It is known not to be there."""


class DiskFault(RingfortError):
    """A device could not keep its promise."""


class DiskFull(DiskFault):
    """No space left on a device."""


class FormatError(RingfortError):
    """Bytes are not what their format says."""


class NewerFormat(FormatError):
    """A newer program wrote it.  Nobody repairs, replaces or makes anew what raises this."""

    def __init__(self, what: str, version: int, known: int, *, path: str = "") -> None:
        """``what`` has format ``version``, and this program knows up to ``known``."""
        where = f"{path}: " if path else ""
        super().__init__(
            f"{where}{what} has format {version}; this program knows up to {known}",
            hint="run the newer version of ringfort that wrote it",
        )
        self._said = what, version, known

    def at(self, path: str) -> NewerFormat:
        """The same, said of a file."""
        return NewerFormat(*self._said, path=path)
