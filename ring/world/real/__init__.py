"""The machine behind World: the only place of the product with threads.

    thread.py    a device's I/O threads: a queue in, one wakeup of trio for everything that is ready
    doorbell.py  how those threads wake trio's loop
    watchdog.py  sees when one of them does not come back
    file.py      RealFile: an open file; page-cache reads inline, everything else on the device's thread
    disk.py      RealDisk: the file system below one root
    tables.py    LmdbTables: a device's ordered store
    net.py       TCP and unix sockets as streams, without a task or a thread per connection
    process.py   child processes
    clock.py     wall clock, entropy, offload

``make_world`` puts them together.  The composition root may also use ``net.stream_from_socket`` and
``net.listener_from_socket`` to adopt sockets that it inherited, and ``stream.socket`` to hand one on.
"""

from __future__ import annotations

import os
import random

from ring.world.interface import HUNG_S, Disk, World
from ring.world.real.clock import RealClock, RealEntropy, RealOffload
from ring.world.real.disk import RealDisk
from ring.world.real.net import RealNet, listener_from_socket, stream_from_socket
from ring.world.real.process import RealProcess

__all__ = ["listener_from_socket", "make_world", "stream_from_socket"]


def make_world(*, hung_s: float = HUNG_S) -> World:
    """A World on this machine.  One per process is the rule; it is used from one trio run at a time."""
    disks: dict[str, RealDisk] = {}

    def open_disk(root: str) -> Disk:
        root = os.path.abspath(root)
        disk = disks.get(root)
        if disk is None:
            disk = disks[root] = RealDisk(root, hung_s=hung_s)
        return disk

    return World(
        clock=RealClock(),
        net=RealNet(),
        rng=random.Random(os.urandom(32)),
        entropy=RealEntropy(),
        offload=RealOffload(),
        process=RealProcess(),
        open_disk=open_disk,
    )
