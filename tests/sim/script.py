"""The script of a run: what a seed chose, before anything runs.  Pure: no cluster, no trio.

Drawing everything first has two uses.  A seed draws *which* faults, requests and ring changes there are (swarm testing: a run
with a few kinds of fault, many times each, finds what a run with a little of everything hides).  And each of them has a number, so
that a failing run can be played again with some of them left out (``Keep``), which is how shrink.py makes it short.

    Fault      one fault: when, how long, of which kind (faults.py)
    Request    one step of a client
    Change     one ring change of the operator (rings.py)
    Script     all of them, and what the run is made of

Each fault, client and change has a random generator of its own, named by its number, so leaving one out changes no other's draws.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from tests.sim.kinds import DESTRUCTIVE, FAULT_KINDS, HONEST, SINCE

FAULTS_S = (25.0, 45.0)  # how long clients and nemesis are at it
REQUESTS_MAX = 120  # of a client
CLIENTS = (4, 5, 6, 7, 8)
PAUSES_S = (0.3, 0.8, 0.8, 2.0)
RACING_PAUSES_S = (0.05, 0.2, 0.5)
SIZES = (10, 300, 3000, 4097, 9000, 20_000)
PLAIN_VERBS = {"put": 45, "get": 35, "delete": 13, "post": 4, "list": 3}
RACING_VERBS = {"put": 8, "get": 30, "delete": 7, "create": 20, "replace": 25, "remove": 10}
PLAIN_NAMES = ("c0/x", "c0/y", "c0/z", "c1/x", "c1/y", "c1/z")
RACING_NAMES = ("r/p", "r/q")
CODED_EVERY = 5  # the last of so many seeds has an erasure-coded container
CODINGS = ((2, 1), (2, 1), (4, 2))


@dataclass(frozen=True, slots=True)
class Fault:
    number: int
    kind: str
    at_s: float
    lasts_s: float


@dataclass(frozen=True, slots=True)
class Request:
    """``verb``: one of PLAIN_VERBS or RACING_VERBS; ``create`` is PUT if there is nothing, ``replace`` and ``remove`` are PUT and
    DELETE if it is what this client saw last."""

    number: int
    pause_s: float  # before it
    verb: str
    member: int
    name: str
    size: int
    look: int  # at how many other front doors to look afterwards


@dataclass(frozen=True, slots=True)
class Change:
    number: int
    at_s: float


@dataclass(frozen=True, slots=True)
class Keep:
    """Numbers of what is played; None: all."""

    faults: frozenset[int] | None = None
    changes: frozenset[int] | None = None
    requests: frozenset[int] | None = None
    salt: int = 0  # another order of tasks, other delays: the same script

    @property
    def arguments(self) -> str:
        """As the command line takes them."""
        parts = [
            f"--{name} {spell(numbers)}"
            for name, numbers in (("faults", self.faults), ("changes", self.changes), ("requests", self.requests))
            if numbers is not None
        ]
        return " ".join([*parts, *([f"--salt {self.salt}"] if self.salt else [])])


@dataclass(frozen=True, slots=True)
class Traits:
    """Chances that belong to what is tested and not to the seed: a mutant may need a fault to show itself."""

    ring_changes: float = 0.6
    destructive: float = 0.4
    racing: float = 0.35
    kinds: Mapping[str, float] | None = None  # weights of the faults, in place of the seed's choice
    coded: bool = False  # whatever the seed says
    honest: float = 0.3  # of runs in which no device lies or goes for good


@dataclass(frozen=True, slots=True)
class Coded:
    """A container of the run has an erasure-coded policy."""

    container: str
    k: int
    m: int


@dataclass(frozen=True, slots=True)
class Script:
    seed: int
    faults_s: float
    destructive: bool  # one device may destroy what it said was durable
    loses: float | None  # when a device is gone for good
    honest: bool  # one device may lose what it held, and knows
    wire: bool  # members talk over the node protocol's real bytes
    door: bool  # clients talk HTTP to the front door
    control: bool  # control state is the production store, on one machine, and not in RAM
    audits: bool
    reclaims: bool  # tombstones are forgotten when everybody has them
    kinds: tuple[str, ...]
    faults: tuple[Fault, ...]
    changes: tuple[Change, ...]
    clients: tuple[tuple[Request, ...], ...]
    coded: Coded | None = None
    salt: int = 0

    def kept(self, keep: Keep) -> Script:
        return replace(
            self,
            faults=tuple(f for f in self.faults if keep.faults is None or f.number in keep.faults),
            changes=tuple(c for c in self.changes if keep.changes is None or c.number in keep.changes),
            clients=tuple(
                tuple(r for r in requests if keep.requests is None or r.number in keep.requests) for requests in self.clients
            ),
            salt=keep.salt,
        )

    @property
    def requests(self) -> list[Request]:
        return [request for requests in self.clients for request in requests]

    def __str__(self) -> str:
        ways = [name for name, on in (("node protocol", self.wire), ("HTTP", self.door), ("control logs", self.control)) if on]
        return (
            f"{self.faults_s:.0f} s, {' and '.join(ways) or 'direct calls'}, {len(self.faults)} faults ({', '.join(self.kinds)}), "
            f"{len(self.changes)} ring changes, {len(self.clients)} clients, {len(self.requests)} requests"
        )


def draw(seed: int, members: int, traits: Traits, *, faults_s: float = 0.0) -> Script:
    rng = random.Random(f"{seed}/script")
    faults_s = faults_s or rng.uniform(*FAULTS_S)
    destructive = rng.random() < traits.destructive
    changing = rng.random() < traits.ring_changes
    losing = changing and not destructive and rng.random() < 0.3
    racing = rng.random() < traits.racing
    kinds = {**_kinds(rng, destructive, traits), **_later_kinds(seed, traits)}
    faults, changes = _faults(rng, kinds, faults_s), _changes(rng, faults_s) if changing else ()
    losses = () if destructive or losing else _losses(seed, faults_s, len(faults), traits)
    clients = tuple(_clients(rng, members, racing))
    return Script(
        seed=seed,
        faults_s=faults_s,
        destructive=destructive,
        loses=rng.uniform(10, faults_s - 5) if losing else None,
        honest=bool(losses),
        wire=seed % 4 == 0,
        door=seed % 4 == 2,
        control=seed % 4 == 1,
        audits=destructive or rng.random() < 0.25 or bool(losses),
        reclaims=seed % 8 in (1, 3, 6),  # those with shards (run.SHARDS_EVERY) among them
        kinds=tuple(sorted({*kinds, *(fault.kind for fault in losses)})),
        faults=tuple(sorted((*faults, *losses), key=lambda fault: fault.at_s)),
        changes=changes,
        clients=clients,
        coded=_coded(seed, clients) if traits.coded or _draws_coded(seed) else None,
    )


def _draws_coded(seed: int) -> bool:
    return seed % CODED_EVERY == CODED_EVERY - 1


def _coded(seed: int, clients: Sequence[Sequence[Request]]) -> Coded:
    """Of the containers that are written to."""
    rng = random.Random(f"{seed}/coded")
    containers = sorted({request.name.partition("/")[0] for requests in clients for request in requests})
    return Coded(rng.choice(containers), *rng.choice(CODINGS))


def _kinds(rng: random.Random, destructive: bool, traits: Traits) -> Mapping[str, float]:
    """The swarm: each kind is in or out, and those that are in come with rates of their own."""
    if traits.kinds is not None:
        return traits.kinds
    share = rng.choice((0.2, 0.4, 0.4, 0.7))
    found = {kind: rng.choice((1.0, 1.0, 2.0, 4.0)) for kind in FAULT_KINDS if rng.random() < share}
    if destructive:
        found |= dict.fromkeys(rng.sample(DESTRUCTIVE, rng.randrange(1, 5)), 2.0)
    return found


def _later_kinds(seed: int, traits: Traits) -> Mapping[str, float]:
    if traits.kinds is not None:
        return {}
    return {kind: rng.choice((1.0, 2.0, 4.0)) for kind in SINCE if (rng := random.Random(f"{seed}/{kind}")).random() < 0.2}


def _faults(rng: random.Random, kinds: Mapping[str, float], faults_s: float) -> tuple[Fault, ...]:
    if not kinds:
        return ()
    names = sorted(kinds)
    count = rng.choice((4, 8, 14, 20))
    times = sorted(rng.uniform(0.5, faults_s) for _ in range(count))
    drawn = rng.choices(names, [kinds[name] for name in names], k=count)
    return tuple(
        Fault(number, kind, at, min(rng.expovariate(1 / 5), 15.0))
        for number, (kind, at) in enumerate(zip(drawn, times, strict=True))
    )


def _losses(seed: int, faults_s: float, number: int, traits: Traits) -> tuple[Fault, ...]:
    """What one device loses and knows of, beside the other faults.  ``number``: of the first."""
    rng = random.Random(f"{seed}/losses")
    if rng.random() >= traits.honest:
        return ()
    kinds = rng.choice((HONEST, HONEST[:1], HONEST[1:]))
    times = sorted(rng.uniform(3, faults_s) for _ in range(rng.choice((1, 2, 4, 8))))
    return tuple(Fault(number + index, rng.choice(kinds), at, rng.uniform(0.5, 6.0)) for index, at in enumerate(times))


def _changes(rng: random.Random, faults_s: float) -> tuple[Change, ...]:
    times = sorted(rng.uniform(1, faults_s) for _ in range(rng.choice((2, 4, 7))))
    return tuple(Change(number, at) for number, at in enumerate(times))


def _clients(rng: random.Random, members: int, racing: bool) -> Iterable[tuple[Request, ...]]:
    """A few names or many, small bodies or large ones, eager or lazy: each run has its own mix."""
    names = rng.sample(PLAIN_NAMES, rng.choice((1, 2, 4, 6)))
    sizes = rng.sample(SIZES, rng.choice((2, 4, 6)))
    pause_s = rng.choice(PAUSES_S)
    verbs = {verb: weight * rng.choice((0.5, 1.0, 1.0, 2.0)) for verb, weight in PLAIN_VERBS.items()}
    count = rng.choice(CLIENTS)
    racers = rng.randrange(2, count) if racing else 0
    raced = rng.sample(RACING_NAMES, rng.choice((1, 2)))
    racing_pause_s = rng.choice(RACING_PAUSES_S)
    for client in range(count):
        races = client < racers
        weights, own, mean_s = (RACING_VERBS, raced, racing_pause_s) if races else (verbs, names, pause_s)
        yield tuple(
            Request(
                number=client * REQUESTS_MAX + index,
                pause_s=rng.expovariate(1 / mean_s),
                verb=rng.choices(list(weights), list(weights.values()))[0],
                member=rng.randrange(members),
                name=rng.choice(own),
                size=rng.choice(sizes),
                look=2 if rng.random() < 0.5 else 0,
            )
            for index in range(REQUESTS_MAX)
        )


def spell(numbers: Iterable[int]) -> str:
    """As ranges: 1-3,7; "none" when there are none."""
    parts: list[list[int]] = []
    for number in sorted(numbers):
        if parts and parts[-1][1] == number - 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in parts) or "none"


def unspell(text: str) -> frozenset[int]:
    """ValueError when it is no list of ranges."""
    if text == "none":
        return frozenset()
    found: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        found |= set(range(int(first), int(last or first) + 1))
    return frozenset(found)


def numbers_of(items: Sequence[Fault | Change | Request]) -> frozenset[int]:
    return frozenset(item.number for item in items)
