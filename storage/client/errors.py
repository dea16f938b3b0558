"""What can go wrong with objects and books.

NotFound            ObjectNotFound ContainerNotFound AccountNotFound AccountGone
Conflict            ContainerNotEmpty PolicyConflict Superseded PreconditionFailed
BadInput            BadDigest EntityTooLarge
Unavailable         NoQuorum (Lost UnderPromise NoRoom) DeviceFull PromisedAbove ClockAhead Doubted
"""

from __future__ import annotations

from ring.errors import BadInput, Conflict, NotFound, Unavailable
from ring.timestamp import Timestamp


class ObjectNotFound(NotFound):
    """A majority of primaries knows no such object, or its deletion."""


class ContainerNotFound(NotFound):
    """There is no such container."""


class AccountNotFound(NotFound):
    """There is no such account."""


class AccountGone(NotFound):
    """The account was deleted, and what was in it is being removed.  Until that is done it cannot be made again."""


class ContainerNotEmpty(Conflict):
    """Only an empty container can be deleted."""


class PolicyConflict(Conflict):
    """The container's objects are, or were until a moment ago, in another storage policy."""


class PreconditionFailed(Conflict):
    """If-Match or If-None-Match does not hold."""


class Superseded(Conflict):
    """Something newer than the given timestamp is stored."""

    def __init__(self, message: str, newest: Timestamp) -> None:
        super().__init__(message)
        self.newest = newest


class BadDigest(BadInput):
    """The body's MD5 is not the one that was announced."""


class EntityTooLarge(BadInput):
    """The body is larger than allowed."""


class NoQuorum(Unavailable):
    """Too few primaries answered."""


class Lost(NoQuorum):
    """Enough primaries answered, but too many of them lost what they had of this name."""


class NoRoom(NoQuorum):
    """So many primaries are full that it cannot be stored.  What is there can be read and deleted."""


class DeviceFull(Unavailable):
    """The device has no room for what was sent."""


class PromisedAbove(Unavailable):
    """The device has promised a conditional write to take nothing of the name that is older than ``ballot``.  It did not take what
    was sent, which says nothing of what it holds: whoever brought a copy keeps it and comes again.  To a conditional write,
    with its own timestamp as ``ballot``: the promise that it was given does not stand at this device (any more)."""

    def __init__(self, message: str, ballot: Timestamp) -> None:
        super().__init__(message)
        self.ballot = ballot


class UnderPromise(NoQuorum):
    """What is to be brought to a majority is in the way of a conditional write that has not come to its end."""


class Doubted(Unavailable):
    """A device lost what it had of this name, and cannot say what is there before it was brought back."""


class ClockAhead(Unavailable):
    """A device did not take a timestamp that is too far ahead of its clock."""
