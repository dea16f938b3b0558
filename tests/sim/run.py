"""One seed: a cluster, clients and a nemesis, as its script says; then rest, repair, and the checkers.

The whole of a run follows from (seed, mutant, what is kept of the script).  ``play`` returns what was found wrong and the trace.
"""

from __future__ import annotations

import time
import traceback
from dataclasses import dataclass, field

import trio

from ring.world.sim import Simulation, run
from storage.erasure.interface import Coding
from tests.sim import checkers, rest
from tests.sim.cluster import Cluster, Member
from tests.sim.history import History, Kind
from tests.sim.mutants import MUTANTS
from tests.sim.nemesis import Nemesis
from tests.sim.options import SHARDS, Options
from tests.sim.rings import Operator
from tests.sim.script import RACING_NAMES, Keep, Script, draw
from tests.sim.workload import Workload

WHOLE = Keep()
TASK_FAILED = "a task failed"
RECLAIM_AGE_S = 8.0
ENDS_WITHIN_S = 3600.0  # virtual: faults, rest and checks together take a few hundred
SHARDS_EVERY = 4  # the last of so many seeds cuts listings into shards
# Switched on with what they check: conditional writes as a register, and plain writes that take effect once.
RACING_NAMES_ARE_REGISTERS = True
PLAIN_NAMES_ARE_REGISTERS = True


@dataclass
class Report:
    seed: int
    mutant: str
    keep: Keep = WHOLE
    violations: list[str] = field(default_factory=list)
    trace: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    virtual_s: float = 0.0
    cpu_s: float = 0.0

    @property
    def noticed(self) -> bool:
        """A checker spoke up.  That a task failed is not enough: a mutant may just not work."""
        return any(not violation.startswith(TASK_FAILED) for violation in self.violations)


def command(seed: int, mutant: str = "", keep: Keep = WHOLE) -> str:
    """What replays it."""
    parts = [f".venv/bin/python -m tests.sim --seed {seed}", f"--mutant {mutant}" if mutant else "", keep.arguments]
    return " ".join(part for part in parts if part)


def script_of(seed: int, mutant: str = "") -> Script:
    options = Options()
    if mutant:
        MUTANTS[mutant].apply(options)
    return draw(seed, options.members, options.traits)


def play(
    seed: int, mutant: str = "", keep: Keep = WHOLE, *, keep_trace: bool = True, ends_within_s: float = ENDS_WITHIN_S
) -> Report:
    report = Report(seed, mutant, keep)
    begun = time.process_time()
    simulation = Simulation(seed)
    options = Options()
    if mutant:
        MUTANTS[mutant].apply(options)
    script = draw(seed, options.members, options.traits).kept(keep)
    options.wire, options.door, options.control = script.wire, script.door, script.control
    if script.reclaims and not mutant:
        options.reclaim_age_s = RECLAIM_AGE_S
    if seed % SHARDS_EVERY == SHARDS_EVERY - 1 and not mutant:
        options.shards = SHARDS
    if script.coded is not None and (options.traits.coded or not mutant):
        options.coded = Coding(script.coded.k, script.coded.m)
        simulation.trace(f"container {script.coded.container} is coded {options.coded}")
    simulation.trace(str(script))
    try:
        run(seed * 1000 + keep.salt, _play, simulation, options, script, report, ends_within_s)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is a finding
        report.violations.append(f"{TASK_FAILED}:\n" + "".join(traceback.format_exception(error)))
    if keep_trace:
        report.trace = simulation.lines
    report.cpu_s = time.process_time() - begun
    return report


async def _play(simulation: Simulation, options: Options, script: Script, report: Report, ends_within_s: float) -> None:
    with trio.move_on_after(ends_within_s) as limit:
        await _play_script(simulation, options, script, report)
    if limit.cancelled_caught:
        report.violations.append(f"no end after {ends_within_s:.0f} virtual s; last: {simulation.lines[-1]}")


async def _play_script(simulation: Simulation, options: Options, script: Script, report: Report) -> None:
    cluster = Cluster(simulation, options)
    await cluster.format()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(cluster.run)
        workload = Workload(cluster, script)
        await workload.prepare()
        nemesis = Nemesis(cluster, script.faults)
        unlucky = nemesis.scene.unlucky
        cluster.ledger.liar = unlucky.device.id if script.destructive or script.honest else None
        cluster.ledger.honest = unlucky.audits_always = script.honest
        if script.honest:
            unlucky.audit.set()
        operator = Operator(cluster, script.changes, losing=script.loses is not None)
        begin = trio.current_time()
        until = begin + script.faults_s
        async with trio.open_nursery() as busy:
            busy.start_soon(operator.run, begin)
            if script.loses is not None:
                busy.start_soon(_lose, cluster, operator, unlucky, begin + script.loses)
            for requests in script.clients:
                busy.start_soon(workload.client, requests, until)
            busy.start_soon(_harass, nemesis, begin, until)
        simulation.trace("---- rest")
        nemesis.rest()
        await rest.replace_disks(cluster)
        await operator.finish()
        if script.audits and not unlucky.lost:
            unlucky.audit.set()
            unlucky.audited = trio.Event()  # from now on
        rested = trio.current_time()
        report.violations += await rest.converge(cluster, workload)
        if options.reclaim_age_s and not report.mutant:
            await rest.forget(cluster)
            report.violations += await rest.converge(cluster, workload)
        await workload.hang_up()
        replaced = script.honest and unlucky.replaced > 0
        report.violations += await rest.final_reads(cluster, workload, disks_were_replaced=replaced)
        report.violations += await rest.alive(cluster, workload)
        report.virtual_s = trio.current_time()
        nursery.cancel_scope.cancel()
    history = workload.history
    if script.destructive:
        # A device that lies can make a majority stale, until the replicator has been by: then nothing may be missing.
        history = History([o for o in history.operations if o.kind is not Kind.READ or o.start >= rested])
    report.violations += cluster.ledger.violations
    report.violations += workload.violations
    report.violations += checkers.acked_puts_are_readable(history)
    report.violations += checkers.no_delete_resurrects(history)
    report.violations += checkers.reads_see_what_was_written(history)
    if not script.destructive:
        report.violations += checkers.one_register(history, _registers)
    report.violations = list(dict.fromkeys(report.violations))  # once is enough
    for operation in history.operations:
        key = f"{operation.kind.value} {operation.outcome.value}"
        report.counts[key] = report.counts.get(key, 0) + 1


def _registers(name: str) -> bool:
    return RACING_NAMES_ARE_REGISTERS if name in RACING_NAMES else PLAIN_NAMES_ARE_REGISTERS


async def _harass(nemesis: Nemesis, begin: float, until: float) -> None:
    with trio.move_on_at(until):
        await nemesis.run(begin)


async def _lose(cluster: Cluster, operator: Operator, member: Member, at: float) -> None:
    """A device is gone for good, and the rings go without it."""
    await trio.sleep_until(at)
    cluster.simulation.trace(f"{member.name} loses its device for good")
    if member.node.up:
        member.crash(power=True, silent=False)
    operator.lose(member)
    cluster.ledger.lost(member.device.id)
    await trio.sleep(2)
    member.start()
