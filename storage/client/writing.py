"""Writing: one version to its primaries at once, to a verdict; a handoff takes the copy of a primary that cannot.

Used for small objects and tombstones (whole body at hand) and for the commits of large ones.  Replies that come after the verdict
still start handoffs, so that a slow failure is mended too.

Neighbours: quorum (decides), fanout (carries), objects and large (callers).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from ring.errors import BadInput, RingfortError
from ring.names import Path
from ring.service.errors import StaleRing
from ring.timestamp import TICKS_PER_SECOND, Timestamp
from storage.client.debts import assign
from storage.client.errors import ClockAhead, DeviceFull, NoRoom, PromisedAbove
from storage.client.fanout import Progress
from storage.client.interface import Row
from storage.client.node import Debt, Node, WriteReply
from storage.client.quorum import Outcome, Reply, Verdict, WriteQuorum
from storage.client.reach import Reach, Replicas

HIDDEN_S = 1.0
Send = Callable[[Node, Debt | None], Awaitable[WriteReply]]


def debts_of(row: Row, container: Path, replicas: Replicas, listed_at: Replicas) -> list[Debt | None]:
    """What each replica of the object owes to the container's devices."""
    holders = [node.device.id for node in replicas.nodes]
    owed = assign(holders, [node.device.id for node in listed_at.nodes])
    return [Debt(row, container, ids, listed_at.shard) if ids else None for ids in owed]


class Write:
    """One version on its way.  ``debts`` per primary; a handoff takes over the debt of the primary that it stands in for."""

    def __init__(
        self,
        reach: Reach,
        replicas: Replicas,
        timestamp: Timestamp,
        debts: Sequence[Debt | None],
        listed_at: Replicas,
        *,
        quorum: WriteQuorum | None = None,
    ) -> None:
        self._reach = reach
        self.timestamp = timestamp
        self._debts = list(debts)
        self._quorum = quorum or reach.write_quorum(replicas.voters)
        self._replicas = replicas
        self._handoffs = replicas.handoffs()
        self._listed_at = {node.device.id: 1 << index for index, node in enumerate(listed_at.nodes)}
        self._row_voters = listed_at.voters
        self._rows_paid = 0  # bits of the container's replicas
        self.verdict: Verdict | None = None
        self.newest = timestamp  # what superseded it
        self.stored: dict[int, Node] = {}  # primaries that have it
        self.full = 0  # bits of the primaries that had no room
        self._refusal: BadInput | ClockAhead | None = None

    @property
    def hidden(self) -> bool:
        """It stands, but a device holds what is so far ahead of it that it was not written at the same time: by a clock that was
        ahead, and nobody was told that it was done (it would be at a majority).  A reader that met it would be shown that."""
        ahead = self._quorum.newest.ticks - self.timestamp.ticks
        return self.verdict is Verdict.STORED and ahead > HIDDEN_S * TICKS_PER_SECOND

    @property
    def refusal(self) -> RingfortError | None:
        """Why it was not taken, if it is known."""
        if self._refusal is None and self.full:
            short = self._replicas.short("too few primaries have room", self.full)
            return short if isinstance(short, NoRoom) else None
        return self._refusal

    @property
    def listed(self) -> bool:
        """A majority of the container's devices has the row."""
        return self._row_voters.majority(self._rows_paid)

    async def run(self, send: Sequence[Send], send_handoff: Send | None) -> Verdict:
        """``send`` per primary.  Returns at the verdict, or a little later for the rows' sake."""
        primaries = self._replicas.nodes

        async def call(index: int, node: Node) -> WriteReply:
            if index < len(primaries):
                return await send[index](node, self._debts[index])
            assert send_handoff is not None
            return await send_handoff(node, self._debts[index])

        def receive(index: int, reply: WriteReply | RingfortError) -> Progress:
            if isinstance(reply, BadInput):
                self._refusal = reply
                self._take(index, Reply(Outcome.FAILED))
            elif isinstance(reply, PromisedAbove):
                self._take(index, Reply(Outcome.PROMISED, reply.ballot))
            elif isinstance(reply, ClockAhead):
                self._refusal = ClockAhead(reply.message, hint=reply.hint)
                self._take(index, Reply(Outcome.FAILED))
            elif isinstance(reply, RingfortError):
                if isinstance(reply, DeviceFull) and index < len(primaries):
                    self.full |= 1 << index
                self._take(index, Reply(Outcome.FAILED))
                refused = isinstance(reply, StaleRing)  # by a device that works: nobody needs to stand in for it
                if send_handoff is not None and not refused and self.verdict in (None, Verdict.STORED):
                    device = self._handoffs.next()
                    if device is not None:
                        self._debts.append(self._debts[index])
                        node = self._reach.handoff(self._replicas, device)
                        self._reach.fanout.add(settling, len(self._debts) - 1, node, call, receive)
            elif reply.newest > self.timestamp:
                self._take(index, Reply(Outcome.SUPERSEDED, reply.newest, reply.never))
            else:
                if index < len(primaries):
                    self.stored[index] = primaries[index]
                debt = self._debts[index]
                if reply.paid and debt is not None:
                    for device_id in debt.device_ids:
                        self._rows_paid |= self._listed_at[device_id]
                self._take(index, Reply(Outcome.STORED))
            return self._progress(not settling.missing)

        settling = self._reach.fanout.settling()
        for index, node in enumerate(primaries):
            self._reach.fanout.add(settling, index, node, call, receive)
        await settling.wait(self._reach.settings.write_timeout_s, self._reach.settings.row_wait_s)
        if self.verdict is None:
            self.verdict = self._quorum.at_the_end()
            self.newest = max(self.newest, self._quorum.newest)
        return self.verdict

    def _take(self, replica: int, reply: Reply) -> None:
        verdict = self._quorum.receive(replica, reply)
        if self.verdict is None:
            self.verdict = verdict
            self.newest = max(self.newest, self._quorum.newest)

    def _progress(self, all_replied: bool) -> Progress:
        if self.verdict is None:
            if all_replied:
                return Progress.SETTLED
            return Progress.DECIDED if self._quorum.deciding else Progress.OPEN
        if self.verdict is not Verdict.STORED or self.listed or all_replied:
            return Progress.SETTLED
        return Progress.DECIDED


def at_once(replicas: Replicas, send: Send) -> list[Send]:
    """The same call for every primary."""
    return [send] * len(replicas.nodes)
