"""The consistency ``available``, Swift's way, for the objects of a policy that says so: writing and reading go on as long as
anybody can do it, and what is read may be old.

A write stands when as many copies as a majority of the primaries are durable anywhere: a handoff's copy counts.  A read is served
by the first device that has data, primaries before handoffs; a deletion that one of them knows hides what is older.  ``X-Newest``
asks all of them, and takes the newest that anybody names.  That nothing is there is said when a majority of the primaries knows of
nothing, or somebody of its deletion; else it is not known (503).

So an acknowledged write may be missed by the next read, and a deleted object may come back until replicators have been by.
Conditional writes still go through the primaries' register, with its majorities (register.py): of those that race one wins.  They
are evaluated on the newest that any primary or handoff names, and write nothing else than what was asked for.  A POST needs a
majority of the primaries too, who hold what it is for.

Neighbours: quorum (the other consistency), writing, objects and reach (which ask which one it is).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import trio

from ring.errors import DiskFault, RingfortError, Unavailable
from ring.names import Path
from ring.service.voters import Voters
from storage.client.fanout import Progress
from storage.client.local import LocalNode
from storage.client.node import Kind, Node, Version
from storage.client.quorum import Outcome, Reply, Verdict, WriteQuorum, rank
from storage.client.reach import Reach, Replicas
from storage.client.reading import Finding

FIRST_ANSWER_S = 0.5  # then the next device is asked too


@dataclass(slots=True)
class AvailableQuorum(WriteQuorum):
    """Of one write.  Replicas from ``voters.count`` on are handoffs, and count."""

    def receive(self, replica: int, reply: Reply) -> Verdict | None:
        match reply.outcome:
            case Outcome.STORED:
                self.stored |= 1 << replica
            case Outcome.SUPERSEDED | Outcome.PROMISED:
                self.superseded |= 1 << replica
                self.newest = max(self.newest, reply.newest)
            case Outcome.FAILED:
                self.failed |= 1 << replica
        return self.verdict()

    def verdict(self) -> Verdict | None:
        if self.superseded:
            return Verdict.SUPERSEDED  # a copy of it may be read meanwhile: nobody promised that it is not
        if self.stored.bit_count() >= self.voters.groups[0][1]:
            return Verdict.STORED
        return None  # another handoff may take it

    @property
    def deciding(self) -> bool:
        return False

    def at_the_end(self) -> Verdict:
        return self.verdict() or Verdict.UNAVAILABLE


def enough(voters: Voters, places: int) -> bool:
    """Whether these (bits of primaries, or of handoffs in their places) are enough copies."""
    return places.bit_count() >= voters.groups[0][1]


async def find_any(reach: Reach, replicas: Replicas, path: Path, *, newest: bool = False, everybody: bool = False) -> Finding:
    """What there is to be read; with ``newest``, of all primaries that answer, with ``everybody`` of handoffs too.  NoQuorum when
    that nothing is there cannot be known."""
    asking = _Asking(reach, replicas, path)
    nodes = sorted(enumerate(replicas.nodes), key=lambda place: not isinstance(place[1], LocalNode))
    if everybody:
        await asking.ask_all([*(node for _, node in nodes), *_handoffs(reach, replicas)])
    elif newest:
        await asking.ask_all([node for _, node in nodes])
    else:
        for _, node in nodes:
            await asking.ask(node)
            if asking.served:
                break
    if not asking.served and not everybody:
        await asking.ask_all(list(_handoffs(reach, replicas)))
    best = asking.best
    if best is None and not asking.nothing_is_there():
        raise replicas.short(f"{path}: too few primaries answered")
    same = [node for node, version in asking.found if best is not None and rank(version)[:3] == rank(best)[:3]]
    stale = [node for node, version in asking.found if node not in same] + asking.without
    return Finding(best, replicas, same, stale, asking.silent)


def _handoffs(reach: Reach, replicas: Replicas) -> Iterator[Node]:
    order = replicas.handoffs()
    for _ in replicas.nodes:
        device = order.next()
        if device is None:
            return
        yield reach.handoff(replicas, device)


class _Asking:
    def __init__(self, reach: Reach, replicas: Replicas, path: Path) -> None:
        self._reach = reach
        self._replicas = replicas
        self._path = path
        self.found: list[tuple[Node, Version]] = []
        self.without: list[Node] = []
        self.silent: list[Node] = []

    @property
    def best(self) -> Version | None:
        return max((version for _, version in self.found), key=rank, default=None)

    @property
    def served(self) -> bool:
        """Somebody has data that no known deletion hides."""
        best = self.best
        return best is not None and best.kind is Kind.OBJECT

    def nothing_is_there(self) -> bool:
        know_nothing = sum(1 << number for number, node in enumerate(self._replicas.nodes) if node in self.without)
        return self._replicas.voters.newest(know_nothing)

    async def ask(self, node: Node) -> None:
        try:
            with trio.fail_after(FIRST_ANSWER_S):
                self._take(node, await node.head(self._path))
        except (Unavailable, DiskFault, trio.TooSlowError):
            self.silent.append(node)

    async def ask_all(self, nodes: Sequence[Node]) -> None:
        if not nodes:
            return
        waiting = list(nodes)

        async def head(index: int, node: Node) -> Version | None:
            return await node.head(self._path)

        def receive(index: int, reply: Version | RingfortError | None) -> Progress:
            if nodes[index] not in waiting:
                return Progress.SETTLED
            waiting.remove(nodes[index])
            if isinstance(reply, RingfortError):
                self.silent.append(nodes[index])
            else:
                self._take(nodes[index], reply)
            return Progress.OPEN if waiting else Progress.SETTLED

        settling = self._reach.fanout.start(nodes, head, receive)
        await settling.wait(self._reach.settings.read_timeout_s, 0)
        self.silent += waiting
        waiting.clear()

    def _take(self, node: Node, version: Version | None) -> None:
        if version is None:
            self.without.append(node)
        else:
            self.found.append((node, version))
