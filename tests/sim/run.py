"""One seed: a cluster, clients and a nemesis; then rest, repair, and the checkers.

The whole of a run follows from (seed, mutant): which members, which faults, which requests.  ``play`` returns what was found wrong
and the trace.
"""

from __future__ import annotations

import traceback
from dataclasses import dataclass, field

import trio

from ring.errors import RingfortError
from ring.names import Span
from ring.service.register import Register
from ring.world.sim import Simulation, run
from tests.sim import checkers
from tests.sim.cluster import Cluster, Member, Options
from tests.sim.history import History, Kind, Outcome
from tests.sim.mutants import MUTANTS
from tests.sim.nemesis import Nemesis
from tests.sim.rings import Operator
from tests.sim.workload import ACCOUNT, CONTAINERS, NAMES, Workload

CLIENTS = 7
FAULTS_S = 60.0
CONVERGE_S = 600.0
LOOK_EVERY_S = 20.0


@dataclass
class Report:
    seed: int
    mutant: str
    violations: list[str] = field(default_factory=list)
    trace: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    virtual_s: float = 0.0


def command(seed: int, mutant: str = "") -> str:
    """What replays it."""
    return f".venv/bin/python -m tests.sim --seed {seed}" + (f" --mutant {mutant}" if mutant else "")


def play(seed: int, mutant: str = "", *, keep_trace: bool = True) -> Report:
    report = Report(seed, mutant)
    simulation = Simulation(seed)
    options = Options(wire=seed % 4 == 0)
    if mutant:
        MUTANTS[mutant](options)
    try:
        run(seed, _play, simulation, options, report)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is a finding
        report.violations.append("a task failed:\n" + "".join(traceback.format_exception(error)))
    if keep_trace:
        report.trace = simulation.lines
    return report


async def _play(simulation: Simulation, options: Options, report: Report) -> None:
    rng = simulation.derive("plan")
    cluster = Cluster(simulation, options)
    await cluster.format()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(cluster.run)
        workload = Workload(cluster, simulation.derive("workload"))
        await workload.prepare()
        destructive = rng.random() < 0.4
        nemesis = Nemesis(cluster, simulation.derive("nemesis"), destructive=destructive)
        operator = Operator(cluster, simulation.derive("operator"))
        changing = rng.random() < options.ring_changes
        losing = changing and not destructive and rng.random() < 0.3
        until = trio.current_time() + FAULTS_S
        async with trio.open_nursery() as busy:
            if changing:
                busy.start_soon(operator.run, until)
            if losing:
                busy.start_soon(_lose, cluster, operator, nemesis.unlucky, until - rng.uniform(5, FAULTS_S - 10))
            for number in range(CLIENTS):
                busy.start_soon(workload.client, number, until)
            busy.start_soon(nemesis.run, until)
        simulation.trace("---- rest")
        nemesis.rest()
        await _replace_disks(cluster)
        if changing:
            await operator.finish()
        if not nemesis.unlucky.lost:
            nemesis.unlucky.audit.set()
        rest = trio.current_time()
        report.violations += await _converge(cluster)
        report.violations += await _final_reads(cluster, workload)
        report.virtual_s = trio.current_time()
        nursery.cancel_scope.cancel()
    report.violations = list(dict.fromkeys(report.violations))  # once is enough
    history = workload.history
    if destructive:
        # A device that lies can make a majority stale, until the replicator has been by: then nothing may be missing.
        history = History([o for o in history.operations if o.kind is not Kind.READ or o.start >= rest])
    report.violations += workload.violations
    report.violations += checkers.acked_puts_are_readable(history)
    report.violations += checkers.no_delete_resurrects(history)
    report.violations += checkers.reads_see_what_was_written(history)
    for operation in history.operations:
        key = f"{operation.kind.value} {operation.outcome.value}"
        report.counts[key] = report.counts.get(key, 0) + 1


async def _lose(cluster: Cluster, operator: Operator, member: Member, at: float) -> None:
    """A device is gone for good, and the rings go without it."""
    await trio.sleep_until(at)
    cluster.simulation.trace(f"{member.name} loses its device for good")
    if member.node.up:
        member.crash(power=True, silent=False)
    operator.lose(member)
    await trio.sleep(2)
    member.start()


async def _replace_disks(cluster: Cluster) -> None:
    """The operator formats what has no label any more."""
    for member in cluster.members:
        while not member.node.up:
            await trio.sleep(1)
        root = member.medium.root
        if root is not None and not root.entries:
            cluster.simulation.trace(f"{member.name} gets a new disk")
            await member.format()


async def _converge(cluster: Cluster) -> list[str]:
    """Wait until all replicas agree, at most CONVERGE_S."""
    deadline = trio.current_time() + CONVERGE_S
    while True:
        found = await _differences(cluster)
        if not found:
            cluster.simulation.trace("---- converged")
            return []
        if trio.current_time() > deadline:
            return [f"not converged {CONVERGE_S:.0f} s after the last fault:", *found]
        await trio.sleep(LOOK_EVERY_S)


async def _differences(cluster: Cluster) -> list[str]:
    newest = await Register(cluster.kv).newest()
    found = [f"{m.name} does not serve" for m in cluster.members if m.keeper is None or (m.local is None and not m.lost)]
    found += [f"{m.name} is not audited" for m in cluster.members if m.audit.is_set() and not m.audited.is_set()]
    found += [f"{m.name} has another edition" for m in cluster.members if m.keeper is not None and m.keeper.edition != newest]
    if newest is not None:
        found += [f"ring {name} is not settled" for name, ring in newest.rings.items() if ring.newest != ring.settled]
    keeper = cluster.members[0].keeper
    if found or keeper is None:
        return found
    roots: dict[tuple[str, int], dict[str, bytes]] = {}
    for member in cluster.members:
        store, books = member.store, member.books
        if member.lost:
            continue
        if store is None or books is None:
            return [f"{member.name} does not serve"]
        try:
            owed = store.unpaid(10)
            if owed:
                found.append(f"{member.name} owes {owed}")
            for kind, overlap in keeper.overlaps.items():
                for partition in range(overlap.ring.partition_count):
                    span = Span(overlap.ring.part_power, partition)
                    held = await (store.digests(span) if kind == "object" else books.digests(kind, span))
                    roots.setdefault((kind, partition), {})[member.name] = held.root
        except RingfortError as error:
            return [f"{member.name}: {error}"]
    for (kind, partition), answers in roots.items():
        primaries = {device.ip for device in keeper.overlaps[kind].ring.primaries(partition)}
        for name, root in answers.items():
            if name not in primaries and any(root):
                found.append(f"{kind} partition {partition}: {name} is no primary and still holds something")
        roots[kind, partition] = {name: root for name, root in answers.items() if name in primaries}
    return found + checkers.replicas_agree(roots)


async def _final_reads(cluster: Cluster, workload: Workload) -> list[str]:
    """Every name at every front door, and the listings against them."""
    found: list[str] = []
    objects: dict[str, tuple[int, str]] = {}
    for container in CONTAINERS:
        for item in NAMES:
            name = f"{container}/{item}"
            for member in cluster.members:
                operation = await workload.get(member, name)
                if operation.outcome is not Outcome.ACKED:
                    found.append(f"{name} cannot be read at rest: {operation}")
            meta = await workload.head(cluster.members[0], name)
            if meta is not None:
                objects[name] = meta
    for member in cluster.members:
        listed: dict[str, tuple[int, str]] = {}
        for container in CONTAINERS:
            page = await workload.listing(member, container)
            if page is None:
                found.append(f"{ACCOUNT}/{container} cannot be listed at rest by {member.name}")
            else:
                listed |= page
        found += checkers.listings_equal_objects(listed, objects)
    return found
