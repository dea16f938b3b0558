"""Pages of listings: brings what ListingMerge asks for from a majority of a book's replicas.

Devices of this worker are asked first.  A replica that fails is replaced by another.  Replicas that know of no such book count as
answers, but while any does not, all that can be reached take part: one that was just emptied should not speak for the rest.

Of a container that is cut into shards, every fetch asks the root first and then, by the map that the root's pages carry, the shard;
docs/ARCHITECTURE.md ("Shards of a listing") says why in this order.

Neighbours: storage.container.listing (decides), storage.container.shards (the map), books (the caller).
"""

from __future__ import annotations

from collections.abc import Sequence

from ring.errors import DiskFault, NotFound, RingfortError, Unavailable
from ring.names import Path
from ring.service.voters import Voters
from storage.account.book import gone
from storage.client.errors import AccountGone, AccountNotFound, ContainerNotFound, NoQuorum
from storage.client.fanout import Progress
from storage.client.interface import Page, Query
from storage.client.local import LocalNode
from storage.client.node import BookHeader, BookState, Node, RowPage
from storage.client.reach import Reach, Replicas
from storage.container.listing import Fetch, ListingMerge
from storage.container.shards import MAP, Part, ShardMap, map_of, shard_path

OLD_MAPS_MAX = 10


def not_found(path: Path, header: BookHeader | None = None) -> NotFound:
    if path.container:
        return ContainerNotFound(f"{path} does not exist")
    if header is not None and gone(header):
        return AccountGone(f"{path} was deleted", hint="it can be made again when all that was in it is removed")
    return AccountNotFound(f"{path} does not exist")


async def list_page(reach: Reach, replicas: Replicas, path: Path, query: Query, *, also_gone: bool = False) -> Page:
    """NoQuorum; ContainerNotFound or AccountNotFound when a majority knows of none, AccountGone unless ``also_gone``."""
    merge = ListingMerge(query)
    root = Majority(reach, replicas, path)
    shards = Shards(reach, path)
    while (fetch := merge.next_fetch()) is not None:
        pages = await root.rows(fetch)
        found = map_in(pages)
        if found is None:
            merge.receive(pages)
            continue
        part = found.part(fetch.start, fetch.end, reverse=fetch.reverse)
        inner = await shards.rows(part, fetch)
        if inner is not None:
            merge.receive(pages, inner, part.until)
    if not merge.state.header.exists and not (also_gone and gone(merge.state.header)):
        raise not_found(path, merge.state.header)
    return merge.page()


def map_in(pages: Sequence[RowPage]) -> ShardMap | None:
    """The newest map of shards that these pages of a root tell of.  FormatError."""
    found = [page.state.header.metadata for page in pages if MAP in page.state.header.metadata]
    return map_of(max(found, key=lambda metadata: metadata[MAP][1])) if found else None


class Majority:
    """A majority of one book's replicas, for as many fetches as a page takes: devices of this worker first; one that fails is
    replaced by another."""

    def __init__(self, reach: Reach, replicas: Replicas, path: Path) -> None:
        self._reach = reach
        self._replicas = replicas
        self._path = path
        self._usable = sorted(range(len(replicas.nodes)), key=lambda place: not isinstance(replicas.nodes[place], LocalNode))
        self._everybody = False
        self.absent = False  # nobody who answered knows of such a book

    async def rows(self, fetch: Fetch) -> list[RowPage]:
        """One page of each of them.  NoQuorum."""
        replicas = self._replicas
        while replicas.voters.majority(_bits(self._usable)):
            chosen = self._usable if self._everybody else _fewest(self._usable, replicas.voters)
            answers = await ask_for_rows(self._reach, [replicas.nodes[place] for place in chosen], self._path, fetch)
            failed = {place for place, answer in zip(chosen, answers, strict=True) if isinstance(answer, RingfortError)}
            absent = sum(answer is None for answer in answers)
            if failed:
                self._usable = [place for place in self._usable if place not in failed]
            elif absent and len(chosen) < len(self._usable):
                self._everybody = True
            else:
                self.absent = absent == len(answers)
                return [answer if isinstance(answer, RowPage) else _absent(self._path) for answer in answers]
        raise replicas.short(f"{self._path}: too few primaries can be asked for its rows")


class Shards:
    """What a page needs of a container's shards: of each range first its sources, then its shard, since rows go that way."""

    def __init__(self, reach: Reach, root: Path) -> None:
        self._reach = reach
        self._root = root
        self._asked: dict[str, Majority] = {}
        self._old_maps = 0

    async def rows(self, part: Part, fetch: Fetch) -> list[RowPage] | None:
        """None: the shard was replaced since the map that named it; its rows may be elsewhere, so look at the root again."""
        inner = Fetch(part.start, part.end, fetch.limit, fetch.reverse)
        pages: list[RowPage] = []
        for source in part.shard.sources:
            pages += await self._majority(source).rows(inner)
        shard = self._majority(part.shard.name)
        own = await shard.rows(inner)
        if any(page.state.header.deleted is not None for page in own):
            self._old_maps += 1
            if self._old_maps < OLD_MAPS_MAX:
                return None
            raise NoQuorum(f"{self._root}: its shards are replaced faster than they can be read")
        if shard.absent and part.shard.active:  # one that is being made has nothing yet
            raise NoQuorum(f"{self._root}: none of the primaries that answer has its shard {part.shard.name}")
        return pages + own

    def _majority(self, name: str) -> Majority:
        found = self._asked.get(name)
        if found is None:
            path = shard_path(self._root, name)
            found = Majority(self._reach, self._reach.replicas(self._reach.rings.container, path), path)
            self._asked[name] = found
        return found


def _fewest(usable: Sequence[int], voters: Voters) -> list[int]:
    """The first of them that make a majority."""
    chosen: list[int] = []
    bits = 0
    for place in usable:
        if voters.majority(bits):
            break
        if any(members >> place & 1 and (bits & members).bit_count() < needed for members, needed in voters.groups):
            chosen.append(place)
            bits |= 1 << place
    return chosen


def _bits(places: Sequence[int]) -> int:
    return sum(1 << place for place in places)


async def ask_for_rows(reach: Reach, nodes: Sequence[Node], path: Path, fetch: Fetch) -> list[RowPage | RingfortError | None]:
    answers: list[RowPage | RingfortError | None] = [Unavailable("no answer in time")] * len(nodes)
    others = []

    async def ask(index: int, node: Node) -> RowPage | None:
        return await node.rows(path, start=fetch.start, end=fetch.end, limit=fetch.limit, reverse=fetch.reverse)

    for place, node in enumerate(nodes):
        if isinstance(node, LocalNode):
            try:
                answers[place] = await ask(place, node)
            except (Unavailable, DiskFault) as error:
                answers[place] = error
        else:
            others.append(place)
    if others:
        missing = set(others)

        def receive(index: int, reply: RowPage | RingfortError | None) -> Progress:
            answers[others[index]] = reply
            missing.discard(others[index])
            return Progress.OPEN if missing else Progress.SETTLED

        settling = reach.fanout.start([nodes[place] for place in others], ask, receive)
        await settling.wait(reach.settings.read_timeout_s, 0)
    return list(answers)  # a copy: one that comes too late changes nothing


def _absent(path: Path) -> RowPage:
    return RowPage(BookState(BookHeader(path, None, None), 0, 0), [], complete=True)
