"""What can go wrong with fragments.

BadInput            BadCoding
Unavailable         TooFewFragments
FormatError         BadFragment BadPiece MixedFragments
"""

from __future__ import annotations

from collections.abc import Iterable

from ring.errors import BadInput, FormatError, Unavailable


class BadCoding(BadInput):
    """No such code, or numbers that it cannot have."""


class TooFewFragments(Unavailable):
    """Fewer fragments than it takes.  ``lost``: indexes of those that are not to be had; ``stripe``: the first that wants them."""

    def __init__(self, needed: int, lost: Iterable[int], *, stripe: int | None = None) -> None:
        self.needed = needed
        self.lost = tuple(sorted(set(lost)))
        self.stripe = stripe
        where = "" if stripe is None else f" of stripe {stripe}"
        names = ", ".join(map(str, self.lost))
        super().__init__(
            f"{needed} fragments{where} are needed; not to be had: {names}",
            hint="bring back the devices that hold them",
        )


class BadFragment(FormatError):
    """What says what a fragment is cannot be read."""


class BadPiece(FormatError):
    """A piece is not what was written."""


class MixedFragments(FormatError):
    """These are not fragments of one version of one object."""
