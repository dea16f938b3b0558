"""Target: what is served under one IQN.  Pure data; TargetServer's ``lookup`` makes it, and owns the device in it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from ..iscsi.login import Access
from ..scsi.block import BlockDevice

DATA_LUN = 1


@dataclass(frozen=True, slots=True)
class Target:
    iqn: str
    portal: str  # "host:port" for SendTargets
    volume_id: UUID
    device: BlockDevice
    access: Access = field(default_factory=Access)  # CHAP; Access() lets everybody in
    lun: int = DATA_LUN


Lookup = Callable[[str], Awaitable[Target | None]]  # by IQN; None: no such target.  Unavailable: not now.
Discover = Callable[[], Awaitable[Sequence[tuple[str, str]]]]  # for SendTargets: IQN and "host:port" of each target
