"""Storage in RAM: keeps every promise of the facade but durability.  For the tests of the rooms above.

``fail_next`` makes the next calls raise, so that those rooms can show what they do when storage cannot answer.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field, replace

import msgspec

from ring.names import Path
from ring.timestamp import Timestamp, TimestampSource
from ring.wire.message import Piece
from ring.world.interface import Clock
from storage.client.errors import (
    AccountGone,
    AccountNotFound,
    BadDigest,
    ContainerNotEmpty,
    ContainerNotFound,
    EntityTooLarge,
    ObjectNotFound,
    PolicyConflict,
    PreconditionFailed,
    Superseded,
)
from storage.client.interface import (
    BodySource,
    BookMeta,
    Condition,
    NewObject,
    ObjectMeta,
    Page,
    Prefix,
    Query,
    Reading,
    Row,
    Stored,
)


@dataclass(slots=True)
class _Book:
    created: Timestamp
    metadata: dict[str, str] = field(default_factory=dict)
    policy: int = 0
    rows: dict[str, Row] = field(default_factory=dict)


class FakeStorage:
    """Implements storage.client.interface.Storage."""

    def __init__(self, clock: Clock) -> None:
        self._timestamps = TimestampSource(clock)
        self._accounts: dict[str, _Book] = {}
        self._containers: dict[Path, _Book] = {}
        self._objects: dict[Path, tuple[ObjectMeta, bytes]] = {}
        self._gone: set[str] = set()
        self.fail_next: list[Exception] = []
        self.asked_newest = 0  # reads that asked all replicas

    def _enter(self) -> None:
        if self.fail_next:
            raise self.fail_next.pop(0)

    async def put_object(self, path: Path, new: NewObject, body: BodySource) -> Stored:
        self._enter()
        path.check()
        container = self._container(path.parent)
        data = bytearray()
        while chunk := await body.read():
            data += chunk
            if new.size_max is not None and len(data) > new.size_max:
                raise EntityTooLarge(f"the object is larger than {new.size_max} bytes")
        etag = hashlib.md5(data, usedforsecurity=False).hexdigest()
        if new.etag and new.etag != etag:
            raise BadDigest(f"the body's MD5 is {etag}, not {new.etag}")
        old = self._objects.get(path)
        _check(new.condition, old[0] if old else None)
        if new.timestamp is not None and old is not None and old[0].timestamp >= new.timestamp:
            raise Superseded("a newer version is stored", old[0].timestamp)
        timestamp = new.timestamp or self._timestamps.next(old[0].timestamp if old else None)
        meta = ObjectMeta(timestamp, len(data), etag, new.content_type, dict(new.metadata))
        self._objects[path] = (meta, bytes(data))
        size = new.listing_size if new.listing_size is not None else meta.size
        container.rows[path.object] = Row(path.object, timestamp, size, new.listing_etag or etag, new.content_type)
        return Stored(meta, listed=True)

    async def get_object(
        self,
        path: Path,
        *,
        offset: int = 0,
        length: int | None = None,
        version: Timestamp | None = None,
        newest: bool = False,
    ) -> Reading:
        self._enter()
        self.asked_newest += newest
        meta, data = self._object(path)
        if version is not None and version != meta.timestamp:
            raise ObjectNotFound(f"{path} has no version {version}")
        end = len(data) if length is None else min(len(data), offset + length)

        async def pieces() -> AsyncIterator[Piece]:
            for at in range(offset, end, 1 << 20):
                yield data[at : min(end, at + (1 << 20))]

        return Reading(meta, pieces())

    async def head_object(self, path: Path, *, newest: bool = False) -> ObjectMeta:
        self._enter()
        self.asked_newest += newest
        return self._object(path)[0]

    async def delete_object(self, path: Path, *, condition: Condition | None = None) -> None:
        self._enter()
        meta, _ = self._object(path)
        _check(condition, meta)
        del self._objects[path]
        del self._containers[path.parent].rows[path.object]

    async def post_object(self, path: Path, metadata: Mapping[str, str], *, content_type: str = "") -> None:
        self._enter()
        meta, data = self._object(path)
        kept = {name: value for name, value in meta.metadata.items() if name.startswith("x-sysmeta-")}
        new = replace(
            meta,
            metadata={**kept, **metadata},
            metadata_timestamp=self._timestamps.next(),
            content_type=content_type or meta.content_type,
        )
        self._objects[path] = (new, data)
        row = self._containers[path.parent].rows[path.object]
        self._containers[path.parent].rows[path.object] = msgspec.structs.replace(row, content_type=new.content_type)

    async def put_container(self, path: Path, metadata: Mapping[str, str], *, policy: int | None = None, default: int = 0) -> bool:
        self._enter()
        path.check()
        self._check_account(path.account)
        self._accounts.setdefault(path.account, _Book(self._timestamps.next()))
        created = path not in self._containers
        if not created and policy is not None and policy != self._containers[path].policy:
            raise PolicyConflict(f"{path} has storage policy {self._containers[path].policy}")
        new = _Book(self._timestamps.next(), policy=default if policy is None else policy)
        book = self._containers.setdefault(path, new)
        _merge(book.metadata, metadata)
        return created

    async def head_container(self, path: Path) -> BookMeta:
        self._enter()
        return _container_meta(self._container(path))

    async def post_container(self, path: Path, metadata: Mapping[str, str]) -> None:
        self._enter()
        _merge(self._container(path).metadata, metadata)

    async def delete_container(self, path: Path) -> None:
        self._enter()
        if self._container(path).rows:
            raise ContainerNotEmpty(f"{path} is not empty")
        del self._containers[path]

    async def list_container(self, path: Path, query: Query) -> Page:
        self._enter()
        book = self._container(path)
        return _page(_container_meta(book), book.rows, query)

    async def put_account(self, path: Path, metadata: Mapping[str, str]) -> bool:
        self._enter()
        self._check_account(path.account)
        created = path.account not in self._accounts
        _merge(self._accounts.setdefault(path.account, _Book(self._timestamps.next())).metadata, metadata)
        return created

    async def head_account(self, path: Path) -> BookMeta:
        self._enter()
        return self._account_meta(path)

    async def post_account(self, path: Path, metadata: Mapping[str, str]) -> None:
        self._enter()
        self._account_meta(path)
        _merge(self._accounts[path.account].metadata, metadata)

    async def delete_account(self, path: Path) -> None:
        """There is no reaper here: it stays gone."""
        self._enter()
        self._account_meta(path)
        self._gone.add(path.account)

    async def list_account(self, path: Path, query: Query) -> Page:
        self._enter()
        meta = self._account_meta(path)
        rows = {}
        for container, book in self._containers.items():
            if container.account == path.account:
                sums = _container_meta(book)
                rows[container.container] = Row(container.container, book.created, size=sums.bytes_used, count=sums.object_count)
        return _page(meta, rows, query)

    def _object(self, path: Path) -> tuple[ObjectMeta, bytes]:
        try:
            return self._objects[path]
        except KeyError:
            raise ObjectNotFound(f"{path} does not exist") from None

    def _container(self, path: Path) -> _Book:
        try:
            return self._containers[path]
        except KeyError:
            raise ContainerNotFound(f"{path} does not exist") from None

    def _check_account(self, account: str) -> None:
        if account in self._gone:
            raise AccountGone(f"/{account} was deleted")

    def _account_meta(self, path: Path) -> BookMeta:
        self._check_account(path.account)
        if path.account not in self._accounts:
            raise AccountNotFound(f"{path} does not exist")
        account = self._accounts[path.account]
        books = [_container_meta(b) for p, b in self._containers.items() if p.account == path.account]
        return BookMeta(
            account.created,
            dict(account.metadata),
            object_count=sum(b.object_count for b in books),
            bytes_used=sum(b.bytes_used for b in books),
            container_count=len(books),
        )


def _merge(into: dict[str, str], changes: Mapping[str, str]) -> None:
    for name, value in changes.items():
        if value:
            into[name] = value
        else:
            into.pop(name, None)


def _check(condition: Condition | None, old: ObjectMeta | None) -> None:
    if condition is None:
        return
    if condition.if_match and (old is None or not {"*", old.etag} & set(condition.if_match)):
        raise PreconditionFailed("If-Match does not hold")
    if condition.if_none_match and old is not None and {"*", old.etag} & set(condition.if_none_match):
        raise PreconditionFailed("If-None-Match does not hold")


def _container_meta(book: _Book) -> BookMeta:
    return BookMeta(
        book.created,
        dict(book.metadata),
        len(book.rows),
        sum(row.size for row in book.rows.values()),
        policy=book.policy,
    )


def _page(meta: BookMeta, rows: Mapping[str, Row], query: Query) -> Page:
    items: list[Row | Prefix] = []
    names = sorted(rows, key=lambda name: name.encode(), reverse=query.reverse)
    low, high = (query.end_marker, query.marker) if query.reverse else (query.marker, query.end_marker)
    for name in names:
        key = name.encode()
        if not name.startswith(query.prefix) or (low and key <= low.encode()) or (high and key >= high.encode()):
            continue
        item: Row | Prefix = rows[name]
        if query.delimiter:
            head, found, _ = name[len(query.prefix) :].partition(query.delimiter)
            if found:
                item = Prefix(query.prefix + head + query.delimiter)
                if (items and items[-1] == item) or item.name == query.marker:
                    continue
        if len(items) == query.limit:
            return Page(meta, items, truncated=True)
        items.append(item)
    return Page(meta, items, truncated=False)
