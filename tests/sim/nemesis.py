"""The nemesis: plays the faults of a script while clients work, and ends them all.

Decides nothing: which faults there are is the script's, what they do is in faults.py.
"""

from __future__ import annotations

from collections.abc import Sequence

import trio

from tests.sim.cluster import Cluster
from tests.sim.faults import FAULTS, End, Scene
from tests.sim.script import Fault


class Nemesis:
    def __init__(self, cluster: Cluster, faults: Sequence[Fault]) -> None:
        simulation = cluster.simulation
        self.scene = Scene(cluster, simulation.derive("unlucky").choice(cluster.members))
        self._cluster = cluster
        self._faults = faults
        self._standing: dict[int, End] = {}

    async def run(self, begin: float) -> None:
        """Until the last fault has begun and ended.  Cancelled: those that stand are ended by ``rest``."""
        async with trio.open_nursery() as nursery:
            self.scene.start = nursery.start_soon
            for fault in self._faults:
                await trio.sleep_until(begin + fault.at_s)
                self._cluster.simulation.trace(f"fault {fault.number}: {fault.kind} for {fault.lasts_s:.1f} s")
                rng = self._cluster.simulation.derive(f"fault/{fault.number}")
                self._standing[fault.number] = FAULTS[fault.kind](self.scene, rng)
                nursery.start_soon(self._end, fault)

    async def _end(self, fault: Fault) -> None:
        await trio.sleep(fault.lasts_s)
        self._standing.pop(fault.number)()

    def rest(self) -> None:
        """All faults end; every machine comes up.  What was destroyed stays so."""
        scene, network = self.scene, self._cluster.simulation.network
        for end in self._standing.values():
            end()
        self._standing.clear()
        network.heal()
        if scene.swapped is not None:
            for member in (scene.unlucky, scene.swapped):
                if member.node.up:
                    member.crash(power=True, silent=False)
            scene.unlucky.medium.swap(scene.swapped.medium)
            scene.swapped = None
        for member in self._cluster.members:
            member.kv.away = False
            member.node.life.thaw()
            member.node.clock.correct()
            member.medium.heal()
            member.start()
