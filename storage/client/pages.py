"""Pages of listings: brings what ListingMerge asks for from a majority of a book's replicas.

Devices of this worker are asked first.  A replica that fails in the middle is replaced and the page begun anew, because a page
is merged from the same replicas from its first row to its last.  Replicas that know of no such book count as answers, but while
any does not, all that can be reached take part: one that was just emptied should not speak for the rest.

Neighbours: storage.container.listing (decides), books (the caller).
"""

from __future__ import annotations

from collections.abc import Sequence

from ring.errors import DiskFault, NotFound, RingfortError, Unavailable
from ring.names import Path
from ring.service.voters import Voters
from storage.account.book import gone
from storage.client.errors import AccountGone, AccountNotFound, ContainerNotFound
from storage.client.fanout import Progress
from storage.client.interface import Page, Query
from storage.client.local import LocalNode
from storage.client.node import BookHeader, BookState, Node, RowPage
from storage.client.reach import Reach, Replicas
from storage.container.listing import Fetch, ListingMerge


def not_found(path: Path, header: BookHeader | None = None) -> NotFound:
    if path.container:
        return ContainerNotFound(f"{path} does not exist")
    if header is not None and gone(header):
        return AccountGone(f"{path} was deleted", hint="it can be made again when all that was in it is removed")
    return AccountNotFound(f"{path} does not exist")


async def list_page(reach: Reach, replicas: Replicas, path: Path, query: Query, *, also_gone: bool = False) -> Page:
    """NoQuorum; ContainerNotFound or AccountNotFound when a majority knows of none, AccountGone unless ``also_gone``."""
    usable = sorted(range(len(replicas.nodes)), key=lambda place: not isinstance(replicas.nodes[place], LocalNode))
    everybody = False
    while replicas.voters.majority(_bits(usable)):
        chosen = usable if everybody else _fewest(usable, replicas.voters)
        asked = [replicas.nodes[place] for place in chosen]
        merge = ListingMerge(query, len(asked))
        failed: set[int] = set()
        absent = 0
        while not failed and (fetch := merge.next_fetch()) is not None:
            answers = await _fetch(reach, asked, path, fetch)
            failed = {place for place, answer in enumerate(answers) if isinstance(answer, RingfortError)}
            absent = sum(answer is None for answer in answers)
            if failed or (absent and len(asked) < len(usable)):
                break
            merge.receive(
                [_absent(path) if answer is None else answer for answer in answers if not isinstance(answer, RingfortError)]
            )
        if failed:
            lost = {chosen[place] for place in failed}
            usable = [place for place in usable if place not in lost]
        elif absent and len(asked) < len(usable):
            everybody = True
        else:
            if not merge.state.header.exists and not (also_gone and gone(merge.state.header)):
                raise not_found(path, merge.state.header)
            return merge.page()
    raise replicas.short(f"{path}: too few primaries can be asked for its rows")


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


async def _fetch(reach: Reach, nodes: Sequence[Node], path: Path, fetch: Fetch) -> list[RowPage | RingfortError | None]:
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
