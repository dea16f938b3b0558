"""Sharding: what the sharder asks and does through majorities, like everybody else.

Everything here may be done twice, and by several at once.  Neighbours: books (which does it), pages (asks many at once),
storage.container.sharder (decides what and when), storage.container.shards (the map).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from ring.names import Path
from storage.client.books import BookOperations
from storage.client.errors import ContainerNotFound
from storage.client.interface import Query, Row
from storage.client.node import BookHeader, BookState, RowPage
from storage.client.pages import ask_for_rows
from storage.client.reach import Reach, Replicas
from storage.container.listing import FETCH_ROWS_MAX, Fetch
from storage.container.shards import ShardMap, map_of
from storage.rows.merge import supersedes


class Sharding:
    """Errors of every call: NoQuorum."""

    def __init__(self, reach: Reach, books: BookOperations) -> None:
        self._reach = reach
        self._books = books

    async def state(self, book: Path) -> BookState | None:
        """What a majority knows of it, merged."""
        return await self._reach.current(lambda: self._books.state(book))

    async def merge_header(self, header: BookHeader) -> None:
        """At a majority when it returns."""
        await self._reach.current(lambda: self._books.merge_header(header))

    async def give(self, shard: Path, rows: Sequence[Row]) -> bool:
        """To a majority of a shard; False when it was replaced."""
        try:
            await self._reach.current(lambda: self._books.merge_rows(shard, rows))
        except ContainerNotFound:
            return False
        return True

    async def lacking(self, shard: Path, rows: Sequence[Row], after: str) -> list[Row]:
        """Those of ``rows`` (in order of names, all behind ``after``) that a majority is not known to have, or newer ones."""
        replicas, pages = await self._ask(shard, Fetch(after, rows[-1].name + "\0", FETCH_ROWS_MAX, False))
        held = dict.fromkeys((row.name for row in rows), 0)
        wanted = {row.name: row for row in rows}
        for place, page in pages.items():
            for theirs in page.rows:
                mine = wanted.get(theirs.name)
                if mine is not None and not supersedes(mine, theirs):
                    held[mine.name] |= 1 << place
        return [row for row in rows if not replicas.voters.majority(held[row.name])]

    async def map_of(self, root: Path) -> ShardMap | None:
        """As a majority knows it; None: it is not cut."""
        state = await self.state(root)
        return None if state is None else map_of(state.header.metadata)

    async def listed(self, root: Path, after: str, end: str) -> Mapping[str, Row]:
        """The live rows of a container between two names, wherever they lie, by majorities."""
        found: dict[str, Row] = {}
        while True:
            query = Query(marker=after, end_marker=end, limit=FETCH_ROWS_MAX)
            try:
                page = await self._reach.current(partial(self._books.list_container, root, query))
            except ContainerNotFound:
                return {}
            rows = [item for item in page.items if isinstance(item, Row)]
            found.update((row.name, row) for row in rows)
            if not page.truncated:
                return found
            after = rows[-1].name

    async def is_emptied(self, shard: Path) -> bool:
        """Whether a majority of its primaries says, in one look each, that it was replaced and that they hold no row of it."""
        replicas, pages = await self._ask(shard, Fetch("", "", 1, False))
        empty = [place for place, page in pages.items() if page.state.header.deleted is not None and not page.rows]
        return replicas.voters.majority(sum(1 << place for place in empty))

    async def _ask(self, book: Path, fetch: Fetch) -> tuple[Replicas, dict[int, RowPage]]:
        """All replicas; those that have the book, and answer."""
        replicas = self._books.replicas(book)
        answers = await ask_for_rows(self._reach, replicas.nodes, book, fetch)
        return replicas, {place: answer for place, answer in enumerate(answers) if isinstance(answer, RowPage)}
