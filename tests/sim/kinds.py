"""Names of the kinds of fault, so that a script can be drawn without a cluster.  What each does: faults.py."""

from __future__ import annotations

FAULT_KINDS = (
    # machines
    "kill",
    "power",
    "power-all",
    "freeze",
    # the network
    "cut",
    "isolate",
    "delay",
    "reset",
    "jitter",
    "repeat",
    "half-open",
    # clocks
    "clock-step",
    "clock-drift",
    # disks: what they said is durable stays so
    "slow-disk",
    "full-disk",
    "short-write",
    "read-only",
    "unmount",
    # control state
    "deaf",
)
SINCE = ("hanging-disk", "seesaw", "hermit")  # drawn apart: a run without them is what it was before there were such faults
HONEST = (  # to one device of the run, which knows that it lacks something
    "replaced-disk",
    "old-rot",
)
DESTRUCTIVE = (  # to one device of the run
    "rot",
    "lost-write",
    "misdirected-write",
    "failed-sync",
    "dead-disk",
    "new-disk",
    "swapped-disks",
)
