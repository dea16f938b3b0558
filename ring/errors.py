"""The root of every error that Ringfort raises on purpose.

    RingfortError            a message for people, and a hint where one helps
      BadInput               what the caller gave cannot be used
      Unavailable            it cannot be known or done now; nothing was changed for certain, trying again is right
      Conflict               the state forbids it
      NotFound
      DiskFault              a device could not keep its promise (I/O error, full, torn)
        DiskFull
      FormatError            bytes on disk or on the wire are not what their format says

Each package hangs its own errors below these (see its errors.py).  A timeout or a lost connection is Unavailable, never
NotFound: absence of evidence deletes nothing.
"""


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
