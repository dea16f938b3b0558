"""Storage policies: the kinds of object storage that a cluster offers, each with a ring of its own.  Pure data.

Swift's words (overview_policies): an index that never changes and is what the ring's and the devices' folders are named after, a
name that people use in ``X-Storage-Policy``, one default for containers that name none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum

from ring.errors import BadInput

PACK_CUT_BYTES = 256 * 1024


class Consistency(Enum):
    """Of the objects of a policy."""

    QUORUM = "quorum"  # majorities of the primaries: what was acknowledged is seen, or the answer is 503
    AVAILABLE = "available"  # Swift's way: handoffs count, the first good answer serves


@dataclass(frozen=True, slots=True)
class Policy:
    index: int
    name: str
    replicas: float
    pack_cut_bytes: int = PACK_CUT_BYTES  # objects of fewer bytes live in their pack record, larger ones in a file
    default: bool = False
    k: int = 0  # erasure-coded: data fragments of an object, any k of k + m give it back; 0: whole copies
    m: int = 0  # parity fragments
    consistency: Consistency = Consistency.QUORUM

    @property
    def coded(self) -> bool:
        return self.k > 0

    @property
    def ring_name(self) -> str:
        """``object`` for policy 0, else ``object-N``: the stem of its ring file, as in Swift."""
        return f"object-{self.index}" if self.index else "object"


class Policies:
    """The policies of a cluster.  BadInput when they contradict each other."""

    def __init__(self, policies: Sequence[Policy]) -> None:
        self._by_index = {policy.index: policy for policy in sorted(policies, key=lambda p: p.index)}
        self._by_name = {policy.name.lower(): policy for policy in policies}
        if not len(self._by_index) == len(self._by_name) == len(policies):
            raise BadInput("two policies have the same index or name")
        if any(not p.name or p.index < 0 or p.replicas < 1 or p.pack_cut_bytes < 0 for p in policies):
            raise BadInput("a policy has a name, an index from 0 on and at least one replica")
        if any((p.k > 0) != (p.m > 0) or (p.coded and p.replicas != p.k + p.m) for p in policies):
            raise BadInput("an erasure-coded policy has data and parity fragments, and a replica in its ring for each")
        if any(p.coded and p.consistency is not Consistency.QUORUM for p in policies):
            raise BadInput("the objects of an erasure-coded policy are at majorities", hint="consistency=quorum")
        defaults = [policy for policy in policies if policy.default]
        if len(policies) == 1:
            defaults = list(policies)
        if len(defaults) != 1:
            raise BadInput(f"one policy is the default, not {len(defaults)}")
        self.default = defaults[0]

    def __iter__(self) -> Iterator[Policy]:
        """In the order of their indexes."""
        return iter(self._by_index.values())

    def __len__(self) -> int:
        return len(self._by_index)

    def by_index(self, index: int) -> Policy | None:
        return self._by_index.get(index)

    def by_name(self, name: str) -> Policy | None:
        """Names are compared without case, as in Swift."""
        return self._by_name.get(name.lower())
