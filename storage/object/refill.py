"""Refill: a device that lost what it held is filled by its peers, all at once, and trusted again partition by partition.

The device itself leads.  For each partition that it is to hold it asks one peer to bring what it has of it (``Fill`` over the node
protocol), then the others, which find only what the first one lacked.  Each peer is asked about some partitions at a time, so there
is one stream per peer, with several versions in flight; the peers take turns in being first.  What others lost, too, or do not
answer for, comes first: it has the fewest copies.

A partition is trusted when enough peers vouched: any majority of its devices that could have acknowledged something without them
would have had to be without this device, too.  Of n devices of which q are a majority, that are n - q + 1 others (of the ring in
force, and of the settled one while it moves).  A peer that is being refilled itself brings what it has and does not vouch.
Where there are no others, nothing can be brought, and what is here is what there is.

    Plan      which partition is asked of whom next; pure
    Refiller  the Worker of the device that is filled

Neighbours: storage.client.trust (is told), storage.object.filling (the peers' end), storage.sync.tree.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import trio

from ring.daemon.worker import Busy, Idle, Progress
from ring.errors import DiskFault, NotFound, Unavailable
from ring.names import Span
from ring.service.overlap import Overlap
from storage.client.filling import Filled, Filler
from storage.client.trust import Trust
from storage.object.device import is_to_be_refilled, read_refill
from storage.object.refill_mark import Memory
from storage.object.store import ObjectStore

PARTITIONS_AT_ONCE = 64  # in one question
UNIT_S = 1.0  # each peer is kept busy for about so long in one unit
AGAIN_S = 2.0  # until a peer that did not answer, or did not vouch, is asked again


async def memory_of(stores: Mapping[int, ObjectStore]) -> Memory | None:
    """Of the refill of a device that has lost something; None when what is brought back cannot be remembered: not the device itself
    is marked, but only its part for some policy.  OSError."""
    device = stores[0].device
    marks = {policy: await read_refill(store.device.disk) for policy, store in stores.items()}
    mark = marks.pop(0)
    if mark is None:
        return None
    losses = device.losses
    parts = [f"object-{policy}" for policy, lost in marks.items() if lost is not None]
    return Memory(device.disk, mark, stands=lambda: device.losses == losses and not device.health.out, forget=parts)


async def has_lost(stores: Mapping[int, ObjectStore]) -> bool:
    """Whether a device may lack what it acknowledged: its disk is new, or what it lost was found by a start, this one or one
    before.  ``stores``: its engines that were opened, by policy, its books being opened too.  OSError."""
    return any([await is_to_be_refilled(store.device.disk) for store in stores.values()])


@dataclass(slots=True, eq=False)
class Want:
    """One partition.  ``groups``: (other devices, how many of them must vouch)."""

    ring: str
    span: Span
    groups: tuple[tuple[frozenset[int], int], ...]
    order: tuple[int, ...]  # whom to ask, the first one first
    vouched: set[int] = field(default_factory=set)
    known: bool = False  # it was filled before
    later: dict[int, float] = field(default_factory=dict)  # peers that brought what they had, and did not vouch: until when to wait

    @property
    def filled(self) -> bool:
        return self.known or all(len(self.vouched & members) >= needed for members, needed in self.groups)

    @property
    def missing(self) -> set[int]:
        """Who may yet vouch, and has not, where somebody must."""
        groups = [members for members, needed in self.groups if len(self.vouched & members) < needed]
        return set[int]().union(*groups) - self.vouched

    def next(self, away: Iterable[int], now: float) -> int | None:
        """Whom to ask now; None: nobody who is there."""
        for peer in self.order:
            if peer in self.vouched or peer in away or self.later.get(peer, now) > now:
                continue
            if any(peer in members and len(self.vouched & members) < needed for members, needed in self.groups):
                return peer
        return None


def wants_of(device_id: int, ring: str, overlap: Overlap) -> list[Want]:
    """Every partition of which this device is to hold a replica, by the ring in force or the settled one."""
    numbers: set[int] = set()
    for ring_of in (overlap.ring, overlap.settled) if overlap.moving else (overlap.ring,):
        spread = overlap.finest - ring_of.part_power
        for row in ring_of.table:
            for partition, holder in enumerate(row):
                if holder == device_id:
                    numbers.update(range(partition << spread, (partition + 1) << spread))
    found = []
    for number in sorted(numbers):
        places = overlap.places_at(number)
        ids = [device.id for device in places.devices]
        groups = []
        for members, majority in places.voters.groups:
            inside = {ids[index] for index in range(len(ids)) if members >> index & 1}
            if device_id in inside:
                groups.append((frozenset(inside - {device_id}), min(len(inside) - majority + 1, len(inside) - 1)))
        others = sorted(one for one in ids if one != device_id)
        turn = number % len(others) if others else 0
        found.append(Want(ring, Span(overlap.finest, number), tuple(groups), tuple(others[turn:] + others[:turn])))
    return found


class Plan:
    def __init__(self, wants: Iterable[Want]) -> None:
        self.total = 0
        self.filled = 0
        self._queues: dict[int, deque[Want]] = {}  # by peer
        self._waiting: list[Want] = []  # nobody who is needed is there
        self.away: dict[int, float] = {}  # peers: until when they are not asked
        self._again_at = math.inf  # when some want of those that wait may be asked for again
        self._doubted: set[int] = set()  # peers that did not answer or did not vouch, when they were asked last
        for want in wants:
            self.total += 1
            self._put(want, 0.0)

    @property
    def left(self) -> int:
        return self.total - self.filled

    @property
    def peers(self) -> list[int]:
        """Those who can be asked something now."""
        return sorted(peer for peer, queue in self._queues.items() if queue)

    def take(self, peer: int) -> list[Want]:
        """What to ask this peer next, all of one ring; give it back with ``answered`` or ``gone``."""
        queue = self._queues.get(peer) or deque()
        taken: list[Want] = []
        while queue and len(taken) < PARTITIONS_AT_ONCE and queue[0].ring == (taken or queue)[0].ring:
            taken.append(queue.popleft())
        return taken

    def answered(self, taken: Sequence[Want], peer: int, answer: Filled, now: float) -> list[Want]:
        """Those that are filled with it."""
        whole, left = set(answer.whole), set(answer.left)
        filled: list[Want] = []
        unsaid: list[Want] = []
        for want in taken:
            if want.span.partition in whole:
                want.vouched.add(peer)
                if self._put(want, now):
                    filled.append(want)
            elif want.span.partition in left:
                self._queues.setdefault(peer, deque()).append(want)
            else:
                unsaid.append(want)  # it brought all it could, and does not vouch
        for want in unsaid:  # others of its partitions are asked for meanwhile
            want.later[peer] = now + AGAIN_S
            self._put(want, now)
        if unsaid:
            self._doubt(peer)
        elif whole:
            self._doubted.discard(peer)
        return filled

    def gone(self, taken: Sequence[Want], peer: int, now: float) -> None:
        """It did not answer."""
        self.away[peer] = now + AGAIN_S
        for want in (*taken, *self._queues.pop(peer, ())):
            self._put(want, now)
        self._doubt(peer)

    def _doubt(self, peer: int) -> None:
        if peer not in self._doubted:
            self._doubted.add(peer)
            self._queues = {other: deque(sorted(queue, key=self._copies)) for other, queue in self._queues.items()}

    def _copies(self, want: Want) -> int:
        """How many others are likely to have it: what has the fewest is asked for first (storage.sync.order)."""
        return sum(peer not in self._doubted for peer in want.order)

    def lacking(self) -> dict[int, list[Want]]:
        """By peer whose word is missing, though it was asked: what it does not vouch for."""
        found: dict[int, list[Want]] = {}
        for want in (*self._waiting, *(want for queue in self._queues.values() for want in queue)):
            for peer in want.missing & (want.later.keys() | self.away.keys()):
                found.setdefault(peer, []).append(want)
        return found

    def look(self, now: float) -> None:
        """Who was away may be asked again."""
        back = [peer for peer, until in self.away.items() if now >= until]
        for peer in back:
            del self.away[peer]
        if back or now >= self._again_at:
            self._again_at = math.inf
            waiting, self._waiting = self._waiting, []
            for want in waiting:
                self._put(want, now)

    def _put(self, want: Want, now: float) -> bool:
        if want.filled:
            self.filled += 1
            return True
        peer = want.next(self.away, now)
        if peer is None:
            self._waiting.append(want)
            self._again_at = min(self._again_at, *want.later.values(), math.inf)
        else:
            self._queues.setdefault(peer, deque()).append(want)
        return False


class Refiller:
    """``overlaps``: of every ring; ``fillers``: how a peer is asked to bring what it has; ``done``: all is trusted again.

    When a ring changes, all that is not trusted yet is begun anew: what was brought stays, so that goes quickly.  ``memory``: what
    was trusted before, also in an earlier life."""

    def __init__(
        self,
        device_id: int,
        trust: Trust,
        overlaps: Callable[[], Mapping[str, Overlap]],
        fillers: Callable[[int], Filler],
        done: Callable[[], Awaitable[None]],
        memory: Memory | None = None,
    ) -> None:
        self.name = f"refiller d{device_id}"
        self.pushed = 0
        self.pushed_bytes = 0
        self.plan: Plan | None = None
        self.began = trio.current_time()
        self._device_id = device_id
        self._trust = trust
        self._overlaps = overlaps
        self._fillers = fillers
        self._done = done
        self._memory = memory
        self._known: Mapping[str, Overlap] = {}

    def progress(self) -> Progress:
        plan = self.plan
        facts = {"pushed": float(self.pushed), "pushed_bytes": float(self.pushed_bytes)}
        if plan is None:
            return Progress(None if self._trust.waits else 1.0, facts=facts)
        return Progress(plan.filled / plan.total if plan.total else 1.0, plan.left, facts)

    @property
    def waits_for(self) -> tuple[int, ...]:
        """Peers that are needed, and do not answer or do not vouch."""
        return tuple(sorted(self.plan.away.keys() | self.plan.lacking().keys())) if self.plan is not None else ()

    @property
    def eta_s(self) -> float | None:
        plan = self.plan
        if plan is None or not plan.filled:
            return None
        return (trio.current_time() - self.began) / plan.filled * plan.left

    def begin(self) -> None:
        """It begins by itself."""

    async def work(self) -> Busy | Idle:
        if not self._trust.waits:
            return Idle.after(3600.0)
        overlaps = self._overlaps()
        if self.plan is None or any(self._known.get(name) is not overlap for name, overlap in overlaps.items()):
            self._begin(overlaps)
        plan = self.plan
        assert plan is not None
        plan.look(trio.current_time())
        before, before_bytes = self.pushed, self.pushed_bytes
        until = trio.current_time() + UNIT_S
        async with trio.open_nursery() as nursery:
            for peer in plan.peers:
                nursery.start_soon(self._stream, plan, peer, until)
        if self._memory is not None:
            await self._remember(self._memory)
        if not plan.left:
            await self._done()
            self._trust.begin({})
            return Busy(self.pushed - before, self.pushed_bytes - before_bytes)
        if not plan.peers:
            return Idle.after(AGAIN_S, over=False)
        return Busy(max(1, self.pushed - before), self.pushed_bytes - before_bytes)

    def _begin(self, overlaps: Mapping[str, Overlap]) -> None:
        self._known = dict(overlaps)
        wants = [want for name, overlap in sorted(overlaps.items()) for want in wants_of(self._device_id, name, overlap)]
        waiting: dict[str, tuple[int, set[int]]] = {}
        for want in wants:
            if self._memory is not None:
                want.vouched |= self._memory.without
                want.known = self._memory.has(want.ring, want.span)
            if not want.filled:
                waiting.setdefault(want.ring, (want.span.part_power, set()))[1].add(want.span.partition)
        self._trust.begin(waiting)
        self.plan = Plan(wants)
        self.began = trio.current_time()

    async def _remember(self, memory: Memory) -> None:
        try:
            await memory.save()
        except OSError as error:
            raise DiskFault(f"what was brought back cannot be written down: {error.strerror or error}") from error

    async def _stream(self, plan: Plan, peer: int, until: float) -> None:
        """Ask one peer for some partitions after the other."""
        while trio.current_time() < until and (taken := plan.take(peer)):
            try:
                numbers = [want.span.partition for want in taken]
                ring, edition = taken[0].ring, self._known[taken[0].ring].claim.edition
                answer = await self._fillers(peer).fill(ring, taken[0].span.part_power, numbers, self._device_id, edition)
            except (Unavailable, DiskFault, NotFound):
                plan.gone(taken, peer, trio.current_time())
                return
            self.pushed += answer.pushed
            self.pushed_bytes += answer.pushed_bytes
            for want in plan.answered(taken, peer, answer, trio.current_time()):
                self._trust.filled(want.ring, want.span)
                if self._memory is not None:
                    self._memory.note(want.ring, want.span)
