"""Simulation: nodes with worlds of their own on one network, all from one seed.

A node is up from the start.  ``crash`` ends its life: what it had open is worthless, its tasks that run under ``SimNode.run`` are
cancelled, its disks keep what they must and, by the seed, some of what they may.  ``restart`` gives it a new ``world``.
``Simulation.trace`` is the run's history; two runs of one seed have the same.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable

import trio

from ring.world.interface import Disk, World
from ring.world.sim.clock import SimClock, SimEntropy, SimOffload, SimProcess
from ring.world.sim.disk import SimDisk
from ring.world.sim.life import Life
from ring.world.sim.medium import Medium
from ring.world.sim.net import SimNet, SimNetwork


class Simulation:
    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.rng = self.derive("simulation")
        self.lines: list[str] = []
        self.network = SimNetwork(self.derive("network"), self.trace)
        self._nodes: dict[str, SimNode] = {}

    def node(self, name: str) -> SimNode:
        """The node with this name; it is made when first asked for."""
        found = self._nodes.get(name)
        if found is None:
            found = self._nodes[name] = SimNode(self, name)
        return found

    @property
    def nodes(self) -> list[SimNode]:
        return list(self._nodes.values())

    def trace(self, line: str) -> None:
        try:
            time = trio.current_time()
        except RuntimeError:  # before the run
            time = 0.0
        self.lines.append(f"{time:.6f} {line}")

    def derive(self, purpose: str) -> random.Random:
        """A generator of its own for each purpose, so that one more draw here changes nothing there."""
        return random.Random(f"{self.seed}/{purpose}")


class SimNode:
    def __init__(self, simulation: Simulation, name: str) -> None:
        self.name = name
        self.clock = SimClock()
        self.process = SimProcess()
        self._simulation = simulation
        self._media: dict[str, Medium] = {}
        self._lives = 0
        self._rng = simulation.derive(f"{name}/crashes")
        self.restart()

    @property
    def up(self) -> bool:
        return self.life.alive

    def disk(self, root: str) -> Medium:
        """What lies below that root, with its faults."""
        found = self._media.get(root)
        if found is None:
            simulation = self._simulation
            rng = simulation.derive(f"{self.name}/{root}")
            found = self._media[root] = Medium(rng, lambda line: simulation.trace(f"{self.name}:{root} {line}"))
        return found

    @property
    def media(self) -> list[Medium]:
        return list(self._media.values())

    def crash(self, *, power: bool | None = None, silent: bool | None = None) -> None:
        """Stop at once.  ``power``: the page cache is lost too.  ``silent``: peers are left half-open.  None: by the seed."""
        power = self._rng.random() < 0.7 if power is None else power
        silent = (power and self._rng.random() < 0.5) if silent is None else silent
        self._simulation.trace(f"{self.name} crashes power={power} silent={silent}")
        self._simulation.network.stop_host(self.name, silent=silent)
        for medium in self._media.values():
            medium.crash(power=power)
        self.life.end()

    def restart(self) -> None:
        """A new life and a new ``world``."""
        self._lives += 1
        simulation = self._simulation
        self.life = life = Life(self.name, self._lives)
        simulation.network.start_host(life)
        disks: dict[str, Disk] = {}

        def open_disk(root: str) -> Disk:
            if root not in disks:
                disks[root] = self.open_disk(root)
            return disks[root]

        self.world = World(
            clock=self.clock,
            net=SimNet(simulation.network, life),
            rng=simulation.derive(f"{self.name}/{self._lives}/rng"),
            entropy=SimEntropy(simulation.derive(f"{self.name}/{self._lives}/entropy")),
            offload=SimOffload(),
            process=self.process,
            open_disk=open_disk,
        )
        simulation.trace(f"{self.name} starts life {self._lives}")

    def open_disk(self, root: str) -> Disk:
        """A handle of its own, as another process of the machine has it."""
        mount = next((mount for mount in self._media if root.startswith(f"{mount}/")), root)
        below = [part for part in root.removeprefix(mount).split("/") if part]
        return SimDisk(root, self.life, self.disk(mount), self.clock.now, below)

    async def run(self, main: Callable[[World], Awaitable[None]]) -> None:
        """Run ``main`` with this life's world until it returns or the node crashes."""
        world = self.world

        async def call() -> None:
            await main(world)

        await self.life.run(call)


class SimWorld(World):
    """The world of a single simulated node, ``node``: for tests that need just one."""

    node: SimNode

    def __init__(self, seed: int = 0) -> None:
        node = Simulation(seed).node("localhost")
        world = node.world
        super().__init__(world.clock, world.net, world.rng, world.entropy, world.offload, world.process, world.open_disk)
        object.__setattr__(self, "node", node)
