"""Books of the facade: containers and accounts, each a header and rows on a majority of its primaries.

A write merges at all primaries and stands at a majority.  A read asks a majority and merges what they say, field by field and
row by row, so it sees every write that stood.  A container also has a row in its account's book: made with it, removed with it,
and kept true by the container updater, whose reports carry counts.

Neighbours: storage.rows.merge (the one merge rule), storage.container.listing (pages), objects (asks whether a container is there).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import trio

from ring.errors import BadInput, DiskFault, RingfortError, Unavailable
from ring.names import Path
from ring.service.overlap import Overlap
from ring.timestamp import ZERO, Timestamp
from storage.account.book import ended, gone
from storage.client.errors import ContainerNotEmpty, ContainerNotFound, PolicyConflict
from storage.client.fanout import Progress
from storage.client.interface import BookMeta, Page, Query, Row
from storage.client.local import LocalNode
from storage.client.node import BookHeader, BookState, Node
from storage.client.pages import list_page, not_found
from storage.client.quorum import BookQuorum, Outcome, Reply, Verdict
from storage.client.reach import Reach, Replicas
from storage.container.listing import book_meta
from storage.container.shards import ShardMap, map_of, shard_path
from storage.rows.merge import merge_states


@dataclass(frozen=True, slots=True)
class Known:
    """A container that was seen to exist."""

    policy: int
    until: float
    shards: ShardMap | None = None  # that it was cut into then


class BookOperations:
    def __init__(self, reach: Reach) -> None:
        self._reach = reach
        self._known: dict[Path, Known] = {}

    # ---- containers

    async def container(self, path: Path) -> Known:
        """That it exists, by a majority not long ago.  ContainerNotFound; absence is never remembered."""
        known = self._known.get(path)
        if known is not None and known.until > trio.current_time():
            return known
        state = await self._reach.current(lambda: self._state(self._reach.rings.container, path))
        if state is None or not state.header.exists:
            self._known.pop(path, None)
            raise ContainerNotFound(f"{path} does not exist")
        if len(self._known) > 10_000:
            self._known.clear()
        until = trio.current_time() + self._reach.settings.container_cache_s
        known = Known(state.header.policy, until, map_of(state.header.metadata))
        self._known[path] = known
        return known

    def listed_at(self, path: Path) -> Replicas:
        """Where the row of an object goes, by the rings in force now and by the map of shards that was seen last.  An old map does
        no harm: a shard that was replaced refuses rows, and whoever pays them turns to the root."""
        known = self._known.get(path.parent)
        shard = known.shards.place(path.object) if known is not None and known.shards is not None else None
        if shard is None or not shard.active:
            return self._reach.replicas(self._reach.rings.container, path.parent)
        replicas = self._reach.replicas(self._reach.rings.container, shard_path(path.parent, shard.name))
        replicas.shard = shard.name
        return replicas

    def last_known(self, path: Path) -> Known | None:
        """What a majority said of it last, however long ago."""
        return self._known.get(path)

    async def put_container(self, path: Path, metadata: Mapping[str, str], policy: int | None, default: int) -> bool:
        path.check()
        accounts = self._reach.rings.account  # its row is listed as of now: not where what was deleted meanwhile may be forgotten
        self._reach.rings.of_policy(default if policy is None else policy)
        await self._account_for(path.parent)
        state = await self._state(self._reach.rings.container, path)
        created = state is None or not state.header.exists
        wanted = policy if policy is not None else default if created else None
        if state is not None and wanted is not None and wanted != state.header.policy:
            self._check_policy(path, state.header)
        header = self._header(path, state, metadata, wanted or 0)
        await self._merge_header(self._reach.rings.container, header)
        assert header.created is not None
        # Also when it was there: an earlier PUT may have come this far and no further.  A newer report stays what it is.
        await self._list_in_account(accounts, path.parent, Row(path.container, header.created))
        return created

    def _check_policy(self, path: Path, header: BookHeader) -> None:
        """Before it gets another policy than it has or had.  PolicyConflict."""
        if header.exists:
            raise PolicyConflict(
                f"{path} has storage policy {header.policy}", hint="a container keeps its policy; make another one"
            )
        settings = self._reach.settings
        wait_s = settings.container_cache_s + settings.write_timeout_s
        if header.deleted is not None and self._reach.world.clock.now() < header.deleted.seconds + wait_s:
            # Whoever saw it exist a moment ago may still write where its objects were.
            raise PolicyConflict(
                f"{path} was deleted a moment ago and had another storage policy", hint=f"make it again in {wait_s:g} s"
            )

    async def head_container(self, path: Path) -> BookMeta:
        return book_meta(self._existing(path, await self._state(self._reach.rings.container, path)))

    async def post_container(self, path: Path, metadata: Mapping[str, str]) -> None:
        await self._post(self._reach.rings.container, path, metadata)

    async def delete_container(self, path: Path) -> None:
        ring = self._reach.rings.container
        state = self._existing(path, await self._state(ring, path))
        page = await list_page(self._reach, self._replicas(ring, path), path, Query(limit=1))
        if page.items:
            raise ContainerNotEmpty(f"{path} is not empty")
        timestamp = self._reach.timestamps.next(newest_of(state))
        self._known.pop(path, None)
        await self._merge_header(ring, replace(state.header, deleted=timestamp, metadata={}))
        self._known.pop(path, None)
        await self._list_in_account(self._reach.rings.account, path.parent, Row(path.container, timestamp, deleted=True))

    async def list_container(self, path: Path, query: Query) -> Page:
        ring = self._reach.rings.container
        return await list_page(self._reach, self._replicas(ring, path), path, query)

    async def merge_rows(
        self, book: Path, rows: Sequence[Row], header: BookHeader | None = None, ring: Overlap | None = None
    ) -> None:
        """At a majority of the book's primaries; one that lacks the book is given ``header`` first.

        NoQuorum; ContainerNotFound or AccountNotFound when a majority lacks it and there is no header to give."""
        missing: set[int] = set()

        async def send(index: int, node: Node) -> bool:
            if await node.merge_rows(book, rows) is not None:
                return True
            if header is not None:
                await node.merge_header(header)
                return await node.merge_rows(book, rows) is not None
            missing.add(index)
            return False

        replicas = self._replicas(ring or self._ring_of(book), book)
        if await self._write(replicas, send) is not Verdict.STORED:
            if replicas.voters.majority(sum(1 << index for index in missing)):
                raise not_found(book)
            raise replicas.short(f"{book}: too few primaries took its rows")

    # ---- accounts

    async def put_account(self, path: Path, metadata: Mapping[str, str]) -> bool:
        path.check()
        state = await self._state(self._reach.rings.account, path)
        created = state is None or not state.header.exists
        if state is not None and gone(state.header):
            raise not_found(path, state.header)
        await self._merge_header(self._reach.rings.account, self._header(path, state, metadata, 0))
        return created

    async def head_account(self, path: Path) -> BookMeta:
        return book_meta(self._existing(path, await self._state(self._reach.rings.account, path)))

    async def post_account(self, path: Path, metadata: Mapping[str, str]) -> None:
        await self._post(self._reach.rings.account, path, metadata)

    async def delete_account(self, path: Path) -> None:
        ring = self._reach.rings.account
        state = self._existing(path, await self._state(ring, path))
        await self._merge_header(ring, ended(state.header, self._reach.timestamps.next(newest_of(state))))

    async def list_account(self, path: Path, query: Query) -> Page:
        ring = self._reach.rings.account
        return await list_page(self._reach, self._replicas(ring, path), path, query)

    # ---- either, for storage.client.reaping

    async def state(self, book: Path) -> BookState | None:
        """What a majority knows of it, deleted or not."""
        return await self._state(self._ring_of(book), book)

    def replicas(self, book: Path) -> Replicas:
        return self._replicas(self._ring_of(book), book)

    async def merge_header(self, header: BookHeader) -> None:
        """At a majority."""
        await self._merge_header(self._ring_of(header.path), header)

    # ---- how

    def _ring_of(self, book: Path) -> Overlap:
        return self._reach.rings.container if book.container else self._reach.rings.account

    def _replicas(self, ring: Overlap, path: Path) -> Replicas:
        return self._reach.replicas(ring, path)

    def _existing(self, path: Path, state: BookState | None) -> BookState:
        if state is None or not state.header.exists:
            raise not_found(path, None if state is None else state.header)
        return state

    async def _state(self, ring: Overlap, path: Path) -> BookState | None:
        """What a majority knows of it, merged; None when they know of nothing."""
        replicas = self._replicas(ring, path)
        nodes = replicas.nodes
        quorum = BookQuorum(replicas.voters)
        places = []
        for index, node in enumerate(nodes):
            if not isinstance(node, LocalNode):
                places.append(index)
            elif not quorum.settled:
                try:
                    quorum.receive(index, await node.book(path))
                except (Unavailable, DiskFault):
                    quorum.fail(index)
        if not quorum.settled:
            listening = True

            def receive(index: int, reply: BookState | RingfortError | None) -> Progress:
                if not listening:
                    return Progress.SETTLED
                place = places[index]
                settled = quorum.fail(place) if isinstance(reply, RingfortError) else quorum.receive(place, reply)
                return Progress.SETTLED if settled else Progress.DECIDED if quorum.decided else Progress.OPEN

            async def ask(index: int, node: Node) -> BookState | None:
                return await node.book(path)

            settling = self._reach.fanout.start([nodes[place] for place in places], ask, receive)
            await settling.wait(self._reach.settings.read_timeout_s, self._reach.settings.grace_s)
            listening = False
        if not quorum.decided:
            raise replicas.short(f"{path}: {len(quorum.answers)} of {len(nodes)} primaries answered")
        states = [state for state in quorum.answers.values() if state is not None]
        return merge_states(states) if states else None

    async def _post(self, ring: Overlap, path: Path, metadata: Mapping[str, str]) -> None:
        state = self._existing(path, await self._state(ring, path))
        await self._merge_header(ring, self._header(path, state, metadata, 0))

    async def _merge_header(self, ring: Overlap, header: BookHeader) -> None:
        async def send(index: int, node: Node) -> bool:
            await node.merge_header(header)
            return True

        replicas = self._replicas(ring, header.path)
        if await self._write(replicas, send) is not Verdict.STORED:
            raise replicas.short(f"{header.path}: too few primaries stored it")

    async def _write(self, replicas: Replicas, send: Callable[[int, Node], Awaitable[bool]]) -> Verdict:
        quorum = self._reach.write_quorum(replicas.voters)
        verdict: Verdict | None = None
        refusal: BadInput | None = None

        def receive(index: int, reply: bool | RingfortError) -> Progress:
            nonlocal verdict, refusal
            if isinstance(reply, BadInput):
                refusal = reply
            outcome = Outcome.STORED if reply is True else Outcome.FAILED
            verdict = quorum.receive(index, Reply(outcome)) or verdict
            return Progress.OPEN if verdict is None else Progress.SETTLED

        settling = self._reach.fanout.start(replicas.nodes, send, receive)
        await settling.wait(self._reach.settings.write_timeout_s, 0)
        if verdict is not Verdict.STORED and refusal is not None:
            raise refusal
        return verdict or Verdict.UNAVAILABLE

    async def _list_in_account(self, ring: Overlap, account: Path, row: Row) -> None:
        state = await self._state(ring, account)
        header = state.header if state is not None else self._header(account, state, {}, 0)
        await self.merge_rows(account, [row], header, ring)

    async def _account_for(self, account: Path) -> None:
        """Before a container is made in it.  AccountGone; one that was reaped is made again first, since a row alone does not."""
        state = await self._state(self._reach.rings.account, account)
        if state is not None and not state.header.exists:
            if gone(state.header):
                raise not_found(account, state.header)
            await self._merge_header(self._reach.rings.account, self._header(account, state, {}, 0))

    def _header(self, path: Path, state: BookState | None, metadata: Mapping[str, str], policy: int) -> BookHeader:
        """The book as it shall be: made new when it is not there, and ``metadata`` set above all that was."""
        timestamp = self._reach.timestamps.next(newest_of(state))
        stamped = {name: (value, timestamp) for name, value in metadata.items()}
        if state is not None and state.header.exists:
            return replace(state.header, metadata=stamped)
        return BookHeader(path, timestamp, state.header.deleted if state is not None else None, policy, stamped)


def newest_of(state: BookState | None) -> Timestamp | None:
    """The newest timestamp in its header."""
    if state is None:
        return None
    header = state.header
    return max(header.created or ZERO, header.deleted or ZERO, *(at for _, at in header.metadata.values()))
