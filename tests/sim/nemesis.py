"""The nemesis: seeded faults while clients work, within what the system promises to survive.

Anything may happen to any machine's power, network and clock, also to all at once.  Destruction of what was durable (rot, lost
writes, failed syncs, an emptied disk) stays with one unlucky device per run: "one bad disk".
"""

from __future__ import annotations

import random

import trio

from tests.sim.cluster import Cluster, Member

CALM_S = 2.0  # mean time between two episodes
EPISODE_S = 6.0  # mean length of one
DOWN_MAX_S = 10.0
CLOCK_STEP_MAX_S = 20.0


class Nemesis:
    def __init__(self, cluster: Cluster, rng: random.Random, *, destructive: bool) -> None:
        self._cluster = cluster
        self._rng = rng
        self._network = cluster.simulation.network
        self.unlucky = rng.choice(cluster.members)
        self._swapped: Member | None = None  # who has the unlucky one's disk, and the other way round
        self._deeds = [
            *(self.crash,) * 3,
            self.crash_all,
            *(self.cut_some,) * 2,
            *(self.isolate,) * 3,
            *(self.shake_network,) * 2,
            *(self.set_clock,) * 2,
            *(self.slow_disk,) * 2,
            self.fill_disk,
            *(self.deafen,) * 2,
        ]
        if destructive:
            self._deeds += [self.rot, self.rot, self.fail_sync, self.lose_write, self.disk_errors, self.empty_disk, self.swap_disks]

    async def run(self, until: float) -> None:
        """Episodes of one to three faults at a time; most of them end together, some overlap with the next."""
        async with trio.open_nursery() as nursery:
            while trio.current_time() < until:
                await trio.sleep(self._rng.expovariate(1 / CALM_S))
                for deed in self._rng.choices(self._deeds, k=self._rng.choice((1, 1, 2, 3))):
                    deed(nursery)
                    await trio.sleep(self._rng.uniform(0, 1))
                await trio.sleep(self._rng.expovariate(1 / EPISODE_S))
                if self._rng.random() < 0.7:
                    self._network.heal()
                    for member in self._cluster.members:
                        member.medium.heal()
                        member.kv.away = False
                    self._trace("the faults of the network and the disks end")

    def rest(self) -> None:
        """All faults end; every machine comes up.  What was destroyed stays so."""
        self._network.heal()
        for member in self._cluster.members:
            member.kv.away = False
        if self._swapped is not None:
            for member in (self.unlucky, self._swapped):
                if member.node.up:
                    member.crash(power=True, silent=False)
            self.unlucky.medium.swap(self._swapped.medium)
        for member in self._cluster.members:
            member.node.clock.correct()
            member.medium.heal()
            member.start()

    # ---- deeds

    def crash(self, nursery: trio.Nursery) -> None:
        self._crash(nursery, self._rng.choice(self._cluster.members), power=self._rng.random() < 0.7)

    def crash_all(self, nursery: trio.Nursery) -> None:
        """The power fails in the whole room."""
        for member in self._cluster.members:
            self._crash(nursery, member, power=True)

    def _crash(self, nursery: trio.Nursery, member: Member, *, power: bool) -> None:
        if not member.node.up:
            return
        member.crash(power=power, silent=power and self._rng.random() < 0.5)
        down_s = self._rng.uniform(0.1, DOWN_MAX_S)

        async def come_back() -> None:
            await trio.sleep(down_s)
            member.start()

        nursery.start_soon(come_back)

    def cut_some(self, nursery: trio.Nursery) -> None:
        names = [member.name for member in self._cluster.members]
        for _ in range(self._rng.randrange(1, 6)):
            self._network.cut(*self._rng.sample(names, 2))

    def isolate(self, nursery: trio.Nursery) -> None:
        names = [member.name for member in self._cluster.members]
        self._rng.shuffle(names)
        count = self._rng.choice((1, 1, 2))
        self._network.partition(names[:count], names[count:])

    def shake_network(self, nursery: trio.Nursery) -> None:
        names = [member.name for member in self._cluster.members]
        for _ in range(self._rng.randrange(1, 8)):
            link = self._network.link(*self._rng.sample(names, 2))
            link.delay_s = self._rng.choice((0.0, 0.02, 0.5, 3.0))
            link.reset_chance = self._rng.choice((0.0, 0.05, 0.3))
        self._trace("network shaken")

    def set_clock(self, nursery: trio.Nursery) -> None:
        clock = self._rng.choice(self._cluster.members).node.clock
        if self._rng.random() < 0.3:
            clock.correct()
        elif self._rng.random() < 0.5:
            clock.correct()
            clock.step(self._rng.uniform(-CLOCK_STEP_MAX_S, CLOCK_STEP_MAX_S))
        else:
            clock.drift(self._rng.uniform(-0.01, 0.01))
        self._trace("a clock was set")

    def slow_disk(self, nursery: trio.Nursery) -> None:
        self._rng.choice(self._cluster.members).medium.slow_s = self._rng.choice((0.01, 0.2, 1.0))
        self._trace("a disk is slow")

    def fill_disk(self, nursery: trio.Nursery) -> None:
        self._rng.choice(self._cluster.members).medium.room_bytes = self._rng.randrange(20_000)
        self._trace("a disk is nearly full")

    def deafen(self, nursery: trio.Nursery) -> None:
        """Some machines hear nothing of the control state: they learn of new rings when others refuse their requests."""
        for member in self._rng.sample(self._cluster.members, self._rng.randrange(1, len(self._cluster.members))):
            member.kv.away = True
        self._trace("some machines have no control state")

    # ---- to the unlucky one (while its disk is in it)

    def rot(self, nursery: trio.Nursery) -> None:
        medium = self.unlucky.medium
        files = [path for path in medium.files() if path.startswith(("packs/", "files/"))]
        if files and self._swapped is None:
            medium.rot(self._rng.choice(files), self._rng)

    def fail_sync(self, nursery: trio.Nursery) -> None:
        if self._swapped is None:
            self.unlucky.medium.sync_errors += 1

    def lose_write(self, nursery: trio.Nursery) -> None:
        if self._swapped is None:
            self.unlucky.medium.writes_to_lose += 1

    def disk_errors(self, nursery: trio.Nursery) -> None:
        self.unlucky.medium.dead = True
        self._trace(f"{self.unlucky.name} disk is dead")

    def empty_disk(self, nursery: trio.Nursery) -> None:
        """The disk is replaced; the machine restarts for it.  It is out of service until somebody formats it (see run.py)."""
        if self._swapped is None and self._rng.random() < 0.5:
            self._crash(nursery, self.unlucky, power=True)
            self.unlucky.medium.empty()

    def swap_disks(self, nursery: trio.Nursery) -> None:
        """Wrong cabling: two machines come up with each other's disk, and must serve neither, until somebody notices."""
        other = self._rng.choice(self._cluster.members)
        if self._swapped is None and other is not self.unlucky and self._rng.random() < 0.5:
            self._swapped = other
            self.unlucky.medium.heal()  # what counts down would hit the other's disk
            for member in (self.unlucky, other):
                self._crash(nursery, member, power=True)
            self.unlucky.medium.swap(other.medium)

    def _trace(self, line: str) -> None:
        self._cluster.simulation.trace(line)
