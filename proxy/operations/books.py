"""Accounts and containers.  An account needs no making: it is there, and empty, for the project that it belongs to; unless it was
deleted, and what was in it is still going (AccountGone).

Neighbours: verbs, storage.client.
"""

from __future__ import annotations

from proxy.operations.verbs import (
    DeleteAccount,
    DeleteContainer,
    HeadAccount,
    HeadContainer,
    ListAccount,
    ListContainer,
    PostAccount,
    PostContainer,
    PutAccount,
    PutContainer,
)
from ring.timestamp import ZERO
from storage.client.errors import AccountNotFound
from storage.client.interface import BookMeta, Page, Storage

_EMPTY = BookMeta(ZERO, {}, object_count=0, bytes_used=0)


class BookVerbs:
    def __init__(self, storage: Storage, *, default_policy: int = 0) -> None:
        self._storage = storage
        self._default_policy = default_policy  # of containers that name none

    async def head_account(self, operation: HeadAccount) -> BookMeta:
        try:
            return await self._storage.head_account(operation.path)
        except AccountNotFound:
            return _EMPTY

    async def list_account(self, operation: ListAccount) -> Page:
        if operation.query.limit == 0:
            return Page(await self.head_account(HeadAccount(operation.path)), (), truncated=False)
        try:
            return await self._storage.list_account(operation.path, operation.query)
        except AccountNotFound:
            return Page(_EMPTY, (), truncated=False)

    async def post_account(self, operation: PostAccount) -> None:
        await self._storage.put_account(operation.path, operation.metadata)

    async def put_account(self, operation: PutAccount) -> bool:
        """True when it was made.  AccountGone."""
        return await self._storage.put_account(operation.path, operation.metadata)

    async def delete_account(self, operation: DeleteAccount) -> None:
        """With all that is in it, which goes later.  AccountNotFound, AccountGone."""
        await self._storage.delete_account(operation.path)

    async def put_container(self, operation: PutContainer) -> bool:
        """True when it was created."""
        policy, default = operation.policy, self._default_policy
        return await self._storage.put_container(operation.path, operation.metadata, policy=policy, default=default)

    async def post_container(self, operation: PostContainer) -> None:
        await self._storage.post_container(operation.path, operation.metadata)

    async def delete_container(self, operation: DeleteContainer) -> None:
        await self._storage.delete_container(operation.path)

    async def head_container(self, operation: HeadContainer) -> BookMeta:
        return await self._storage.head_container(operation.path)

    async def list_container(self, operation: ListContainer) -> Page:
        if operation.query.limit == 0:
            return Page(await self._storage.head_container(operation.path), (), truncated=False)
        return await self._storage.list_container(operation.path, operation.query)
