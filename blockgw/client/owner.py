"""Who holds something in kv: one incarnation of one worker of one start of the cloud; and when such a holder is known to be dead.

There is one cloud per data folder and one process per worker number, so a holder of another start of the cloud, or an earlier
incarnation of the same worker, is dead, and what it held may be taken at once.  Of any other only its lease tells.  Pure.
"""

from __future__ import annotations

import msgspec


class Owner(msgspec.Struct, frozen=True):
    cloud: str  # this start of the cloud
    worker: int
    incarnation: int  # of that worker

    def __str__(self) -> str:
        return f"{self.cloud}/{self.worker}/{self.incarnation}"

    @classmethod
    def parse(cls, text: str) -> Owner | None:
        """The reverse of ``str``; None when it is not one."""
        cloud, _, rest = text.partition("/")
        worker, _, incarnation = rest.partition("/")
        if not cloud or not worker.isdecimal() or not incarnation.isdecimal():
            return None
        return cls(cloud, int(worker), int(incarnation))


def dead(held: Owner, me: Owner) -> bool:
    """Whether ``held`` is not running any more, or is ``me``."""
    return held.cloud != me.cloud or (held.worker == me.worker and held.incarnation <= me.incarnation)
