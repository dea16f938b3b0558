"""What each kind of fault does to a cluster, and how it ends.  Neighbours: nemesis.py (when), kinds.py (names), ring.world.sim.

A fault is a function ``(Scene, Random) -> how to end it``.  It may hit any machine's power, network and clock, also all at once.
Destruction of what was durable stays with one unlucky device of a run: "one bad disk".  To add one: a function here, its name in
kinds.py.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import trio

from ring.world.sim.medium import FolderNode, Medium
from tests.sim.cluster import Cluster, Member
from tests.sim.coded import RING

CLOCK_STEP_MAX_S = 20.0
DRIFT_MAX = 0.01
End = Callable[[], None]


@dataclass
class Scene:
    """Whom faults may hit."""

    cluster: Cluster
    unlucky: Member
    swapped: Member | None = None  # who has the unlucky one's disk, and the other way round
    unmounted: dict[str, FolderNode | None] = field(default_factory=dict)  # what belongs there, by member
    start: Callable[[Callable[[], Awaitable[None]]], None] = lambda task: None  # what goes on beside the faults

    def trace(self, line: str) -> None:
        self.cluster.simulation.trace(line)

    @property
    def names(self) -> list[str]:
        return [member.name for member in self.cluster.members]

    def anyone(self, rng: random.Random) -> Member:
        return rng.choice(self.cluster.members)


# ---- machines


def kill(scene: Scene, rng: random.Random) -> End:
    return _crash(scene, scene.anyone(rng), power=False, silent=False)


def power(scene: Scene, rng: random.Random) -> End:
    """The page cache is lost too, and peers may never hear of it."""
    return _crash(scene, scene.anyone(rng), power=True, silent=rng.random() < 0.5)


def power_all(scene: Scene, rng: random.Random) -> End:
    """The power fails in the whole room."""
    ends = [_crash(scene, member, power=True, silent=rng.random() < 0.5) for member in scene.cluster.members]

    def end() -> None:
        for one in ends:
            one()

    return end


def _crash(scene: Scene, member: Member, *, power: bool, silent: bool) -> End:
    if not member.node.up:
        return _nothing
    member.crash(power=power, silent=silent)
    return member.start


def freeze(scene: Scene, rng: random.Random) -> End:
    """SIGSTOP, and SIGCONT later: whoever was thawed goes on where it was, whatever happened meanwhile."""
    member = scene.anyone(rng)
    life = member.node.life
    life.freeze()
    scene.trace(f"{member.name} is frozen")

    def end() -> None:
        life.thaw()
        scene.trace(f"{member.name} is thawed")

    return end


# ---- network


def cut(scene: Scene, rng: random.Random) -> End:
    """Some links, one direction each."""
    links = [_link(scene, rng) for _ in range(rng.randrange(1, 6))]
    for link in links:
        scene.cluster.simulation.network.cut(*link)
    return lambda: scene.cluster.simulation.network.mend(links)


def isolate(scene: Scene, rng: random.Random) -> End:
    network, names = scene.cluster.simulation.network, scene.names
    rng.shuffle(names)
    count = rng.choice((1, 1, 2, 3))
    network.partition(names[:count], names[count:])
    links = [link for a in names[:count] for b in names[count:] for link in ((a, b), (b, a))]
    return lambda: network.mend(links)


def seesaw(scene: Scene, rng: random.Random) -> End:
    """Most of a name's primaries are cut off, and when they come back the other ones: who was not asked before is asked now.

    Each side long enough for a request to give up those who do not answer."""
    keeper = next((member.keeper for member in scene.cluster.members if member.keeper is not None), None)
    if keeper is None:
        return _nothing
    ring, network = keeper.overlaps["object"].ring, scene.cluster.simulation.network
    primaries = [device.ip for device in ring.primaries(rng.randrange(ring.partition_count))]
    rng.shuffle(primaries)
    most = len(primaries) // 2 + 1

    async def play() -> None:
        for names in (primaries[:most], primaries[most:]):
            scene.trace(f"{' '.join(names)} are cut off")
            links = [link for a in names for b in scene.names if a != b for link in ((a, b), (b, a))]
            for link in links:
                network.cut(*link)
            await trio.sleep(rng.uniform(2.5, 6.0))
            network.mend(links)

    scene.start(play)
    return _nothing


def delay(scene: Scene, rng: random.Random) -> End:
    seconds = rng.choice((0.02, 0.5, 3.0))
    return _shake(scene, rng, lambda name: ("delay_s", seconds))


def reset(scene: Scene, rng: random.Random) -> End:
    chance = rng.choice((0.05, 0.3))
    return _shake(scene, rng, lambda name: ("reset_chance", chance))


def jitter(scene: Scene, rng: random.Random) -> End:
    seconds = rng.choice((0.05, 1.0))
    return _shake(scene, rng, lambda name: ("jitter_s", seconds))


def repeat(scene: Scene, rng: random.Random) -> End:
    return _shake(scene, rng, lambda name: ("repeat_chance", 0.3))


def half_open(scene: Scene, rng: random.Random) -> End:
    for _ in range(rng.randrange(1, 8)):
        scene.cluster.simulation.network.half_open(*_link(scene, rng))
    return _nothing


def _shake(scene: Scene, rng: random.Random, change: Callable[[str], tuple[str, float]]) -> End:
    network = scene.cluster.simulation.network
    links = [_link(scene, rng) for _ in range(rng.randrange(1, 12))]
    for source, target in links:
        name, value = change(source)
        setattr(network.link(source, target), name, value)
    scene.trace(f"{change('')[0]} {change('')[1]} for {len(links)} links")
    return lambda: network.mend(links)


def _link(scene: Scene, rng: random.Random) -> tuple[str, str]:
    source, target = rng.sample(scene.names, 2)
    return source, target


# ---- clocks


def clock_step(scene: Scene, rng: random.Random) -> End:
    clock = scene.anyone(rng).node.clock
    clock.correct()
    clock.step(rng.uniform(-CLOCK_STEP_MAX_S, CLOCK_STEP_MAX_S))
    scene.trace("a clock was set")
    return _nothing if rng.random() < 0.5 else clock.correct


def clock_drift(scene: Scene, rng: random.Random) -> End:
    clock = scene.anyone(rng).node.clock
    clock.drift(rng.uniform(-DRIFT_MAX, DRIFT_MAX))
    scene.trace("a clock drifts")
    return _nothing if rng.random() < 0.5 else clock.correct


# ---- disks


def slow_disk(scene: Scene, rng: random.Random) -> End:
    member = scene.anyone(rng)
    medium = member.medium
    medium.slow_s = rng.choice((0.01, 0.2, 1.0))
    scene.trace(f"{member.name} disk is slow")

    def end() -> None:
        medium.slow_s = 0.0

    return end


def full_disk(scene: Scene, rng: random.Random) -> End:
    member = scene.anyone(rng)
    medium = member.medium
    medium.room_bytes = rng.randrange(20_000)
    scene.trace(f"{member.name} disk has room for {medium.room_bytes} bytes")

    def end() -> None:
        medium.room_bytes = None

    return end


def short_write(scene: Scene, rng: random.Random) -> End:
    medium = scene.anyone(rng).medium
    medium.writes_to_cut += rng.choice((1, 1, 3))

    def end() -> None:
        medium.writes_to_cut = 0

    return end


def read_only(scene: Scene, rng: random.Random) -> End:
    """As a file system does that met an error."""
    member = scene.anyone(rng)
    medium = member.medium
    medium.read_only = True
    scene.trace(f"{member.name} disk is read-only")

    def end() -> None:
        medium.read_only = False

    return end


def hanging_disk(scene: Scene, rng: random.Random) -> End:
    """Nothing that is asked of it comes back, for a while or up to the rest."""
    member = scene.anyone(rng)
    medium = member.medium
    medium.hung = True
    scene.trace(f"{member.name} disk hangs")

    def end() -> None:
        medium.hung = False
        scene.trace(f"{member.name} disk goes on")

    return end if rng.random() < 0.6 else _nothing


def unmount(scene: Scene, rng: random.Random) -> End:
    """What is below the mount point is empty, or not there at all.  The machine may start again meanwhile, and find it so."""
    member = scene.anyone(rng)
    medium = member.medium
    if member.name in scene.unmounted or _swapped(scene, member):
        return _nothing
    scene.unmounted[member.name] = medium.root
    medium.root = FolderNode() if rng.random() < 0.5 else None
    scene.trace(f"{member.name} disk is unmounted")
    again = _crash(scene, member, power=rng.random() < 0.5, silent=False) if rng.random() < 0.5 else _nothing
    if again is not _nothing:
        again()

    def end() -> None:
        medium.root = scene.unmounted.pop(member.name)
        scene.trace(f"{member.name} disk is mounted again")

    return end


def deaf(scene: Scene, rng: random.Random) -> End:
    """Some machines hear nothing of the control state: they learn of new rings when others refuse their requests."""
    away = rng.sample(scene.cluster.members, rng.randrange(1, len(scene.cluster.members)))
    for member in away:
        member.kv.away = True
    scene.trace("some machines have no control state")

    def end() -> None:
        for member in away:
            member.kv.away = False

    return end


def hermit(scene: Scene, rng: random.Random) -> End:
    """One that does not hear of the control state again before the rest."""
    member = scene.anyone(rng)
    member.kv.away = True
    scene.trace(f"{member.name} has no control state any more")
    return _nothing


# ---- to the unlucky one (while its own disk is in it), which knows of it


def replaced_disk(scene: Scene, rng: random.Random) -> End:
    """An empty disk in its place, in use or with a restart, which is made a device at once (``ringfort node replace``)."""
    member = scene.unlucky
    if not _at_home(scene):
        return _nothing
    again = _crash(scene, member, power=True, silent=False) if rng.random() < 0.5 else _nothing
    member.exchange_disk()
    scene.start(member.install)
    return again


def old_rot(scene: Scene, rng: random.Random) -> End:
    """In what the newest segments of the logs have behind them: nobody can take it for the end of a write that was cut off."""
    medium = scene.unlucky.medium
    if _at_home(scene):
        newest = _newest_segments(medium)
        paths = [path for path in _rots(medium) if path not in newest]
        for path in rng.sample(paths, min(len(paths), rng.choice((1, 3, 10)))):
            medium.rot(path, rng)
    return _nothing


def _rots(medium: Medium) -> list[str]:
    return [path for path in medium.files() if path.removeprefix(f"{RING}/").startswith(("packs/", "files/"))]


def _newest_segments(medium: Medium) -> set[str]:
    """Of each log, what was appended to last and what compaction made last; two each, for one may have been begun just now."""
    found: set[str] = set()
    for folder in ("packs/", f"{RING}/packs/"):
        paths = sorted(path for path in medium.files() if path.startswith(folder))
        for compacted in (False, True):
            found.update([path for path in paths if ("-" in path.removeprefix(folder)) == compacted][-2:])
    return found


# ---- ... or does not


def rot(scene: Scene, rng: random.Random) -> End:
    medium = scene.unlucky.medium
    if _at_home(scene):
        files = _rots(medium)
        if files:
            medium.rot(rng.choice(files), rng)
    return _nothing


def lost_write(scene: Scene, rng: random.Random) -> End:
    if _at_home(scene):
        scene.unlucky.medium.writes_to_lose += 1
    return _nothing


def misdirected_write(scene: Scene, rng: random.Random) -> End:
    if _at_home(scene):
        scene.unlucky.medium.writes_to_misdirect += 1
    return _nothing


def failed_sync(scene: Scene, rng: random.Random) -> End:
    medium = scene.unlucky.medium
    if _at_home(scene):
        medium.sync_errors += 1
        if rng.random() < 0.3:
            medium.forgets_bytes = rng.randrange(1, 4096)
    return _nothing


def dead_disk(scene: Scene, rng: random.Random) -> End:
    medium = scene.unlucky.medium
    medium.dead = True
    scene.trace(f"{scene.unlucky.name} disk is dead")

    def end() -> None:
        medium.dead = False

    return end


def new_disk(scene: Scene, rng: random.Random) -> End:
    """The disk is replaced; the machine restarts for it.  It is out of service until somebody formats it (see rest.py)."""
    if not _at_home(scene) or rng.random() < 0.5:
        return _nothing
    again = _crash(scene, scene.unlucky, power=True, silent=False)
    scene.unlucky.medium.empty()
    return again


def swapped_disks(scene: Scene, rng: random.Random) -> End:
    """Wrong cabling: two machines come up with each other's disk, and must serve neither, until somebody notices."""
    other = scene.anyone(rng)
    one = scene.unlucky
    if not _at_home(scene) or other is one or other.name in scene.unmounted:
        return _nothing
    scene.swapped = other
    one.medium.heal()  # what counts down would hit the other's disk
    ends = [_crash(scene, member, power=True, silent=False) for member in (one, other)]
    one.medium.swap(other.medium)

    def end() -> None:
        for again in ends:
            again()

    return end


def _at_home(scene: Scene) -> bool:
    return scene.swapped is None and scene.unlucky.name not in scene.unmounted


def _swapped(scene: Scene, member: Member) -> bool:
    return scene.swapped is not None and member in (scene.unlucky, scene.swapped)


def _nothing() -> None:
    """It wears off, or nobody ends it."""


FAULTS: dict[str, Callable[[Scene, random.Random], End]] = {
    call.__name__.replace("_", "-"): call
    for call in (
        *(kill, power, power_all, freeze),
        *(cut, isolate, seesaw, delay, reset, jitter, repeat, half_open),
        *(clock_step, clock_drift),
        *(slow_disk, full_disk, short_write, read_only, hanging_disk, unmount),
        *(deaf, hermit),
        *(replaced_disk, old_rot),
        *(rot, lost_write, misdirected_write, failed_sync, dead_disk, new_disk, swapped_disks),
    )
}
