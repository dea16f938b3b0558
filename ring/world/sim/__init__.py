"""A seeded imitation of the machine, with faults: whole clusters in one process, on a virtual clock.

    simulation.py  Simulation, its SimNodes (crash, restart) and SimWorld, the world of a single one
    scheduling.py  ``run``: trio with virtual time and repeatable scheduling
    timer.py       the virtual clock, and cheap waiting
    life.py        what ends when a node crashes
    medium.py      a device: durable and pending bytes, crash rules, faults
    disk.py        a node's handles on it
    tables.py      the ordered store
    net.py         listeners, streams, links and their faults
    clock.py       wall clock (step, drift), entropy, offload, processes

Tests of one room take ``SimWorld(seed)`` with pytest-trio's ``autojump_clock``; the cluster tests take ``Simulation``.
"""

from ring.world.sim.life import NodeCrashed
from ring.world.sim.medium import Medium
from ring.world.sim.scheduling import run
from ring.world.sim.simulation import SimNode, Simulation, SimWorld

__all__ = ["Medium", "NodeCrashed", "SimNode", "SimWorld", "Simulation", "run"]
