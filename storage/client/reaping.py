"""Reaping: what the account reaper does to a gone account, through majorities like everybody else.

Everything here may be done twice, and by several at once.  Neighbours: books and objects (which do it), storage.account.reaper
(decides what and when), storage.account.book (what gone means).
"""

from __future__ import annotations

from collections.abc import Sequence

from ring.names import Path
from ring.timestamp import OFFSET_MAX, Timestamp
from storage.account.book import gone, reaped
from storage.client.books import BookOperations, newest_of
from storage.client.errors import AccountNotFound, ContainerNotFound, ObjectNotFound
from storage.client.interface import Query, Row
from storage.client.node import BookState
from storage.client.objects import ObjectOperations
from storage.client.pages import list_page
from storage.client.reach import Reach


class Reaping:
    def __init__(self, reach: Reach, books: BookOperations, objects: ObjectOperations) -> None:
        self._reach = reach
        self._books = books
        self._objects = objects

    async def gone(self, account: Path) -> BookState | None:
        """What a majority knows of the account, sums and all, when it is gone and not reaped; else None."""
        state = await self._reach.current(lambda: self._books.state(account))
        return state if state is not None and gone(state.header) else None

    async def containers(self, account: Path, marker: str, limit: int) -> Sequence[Row]:
        """Live rows behind ``marker``.  NotFound when it is not gone."""
        return await self._rows(account, marker, limit)

    async def objects(self, container: Path, marker: str, limit: int) -> Sequence[Row]:
        """ContainerNotFound."""
        return await self._rows(container, marker, limit)

    async def delete_object(self, container: Path, row: Row) -> bool:
        """What the row stands for; False when a majority knows of no such object: then the row goes."""
        path = Path(container.account, container.container, row.name)
        try:
            await self._objects.delete(path, None)
        except ObjectNotFound:
            await self._forget(container, row)
            return False
        return True

    async def delete_container(self, account: Path, row: Row) -> bool:
        """ContainerNotEmpty; False when there was none: then the row goes."""
        try:
            await self._reach.current(lambda: self._books.delete_container(Path(account.account, row.name)))
        except ContainerNotFound:
            await self._forget(account, row)
            return False
        return True

    async def mark_reaped(self, account: Path) -> None:
        """Nothing is left in it."""

        async def mark() -> None:
            state = await self._books.state(account)
            if state is not None and gone(state.header):
                at = self._reach.timestamps.next(newest_of(state))
                await self._books.merge_header(reaped(state.header, at))

        await self._reach.current(mark)

    async def _rows(self, book: Path, marker: str, limit: int) -> Sequence[Row]:
        query = Query(marker=marker, limit=limit)
        page = await self._reach.current(lambda: list_page(self._reach, self._books.replicas(book), book, query, also_gone=True))
        return [item for item in page.items if isinstance(item, Row)]

    async def _forget(self, book: Path, row: Row) -> None:
        """A row of what does not exist, just above that row: whatever made a newer one meanwhile keeps it."""
        stamp = Timestamp(row.timestamp.ticks, min(row.timestamp.offset + 1, OFFSET_MAX))
        rows = [Row(row.name, stamp, deleted=True)]
        try:
            await self._reach.current(lambda: self._books.merge_rows(book, rows))
        except (ContainerNotFound, AccountNotFound):
            return  # and so is its book
