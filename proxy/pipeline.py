"""The gates in their order, then the verb.

    0  transaction id   the server gives each request one before any of this, so that every refusal carries it
    1  authentication   the dialects' (a token, a signature), through ``identify``: who it is must be known before a name can be
                        resolved (a bucket's project), and strangers learn nothing more than that they are
    2  limits           cheap, and what is refused here need not be looked up
    3  access           may cost a look at a container's ACL, so only for what is within limits
    4  memory           last, so that a request that is refused anyway never holds any

Neighbours: swift.app and s3.app call ``run`` with an operation and the verb that carries it out.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from identity.client.interface import Access, Identity
from proxy.errors import Busy
from proxy.gates.access import AccessGate
from proxy.gates.limits import Limits
from proxy.gates.memory import BUFFER_BYTES, MemoryBudget
from proxy.operations.verbs import CopyObject, ObjectRead, Operation, PutObject, Right, UploadPart
from storage.client.bodies import aclose

Verb = TypeVar("Verb", bound=Operation)
Result = TypeVar("Result")


class Pipeline:
    def __init__(self, identity: Identity, limits: Limits, access: AccessGate, memory: MemoryBudget) -> None:
        self.limits = limits
        self._identity = identity
        self._access = access
        self._memory = memory

    def identify(self, token: str) -> Access | None:
        """Who sends this token; None without one.  Raises Unauthorized."""
        return self._identity.authenticate(token) if token else None

    async def admit(self, access: Access | None, operation: Operation) -> None:
        """The gates alone, but for memory's.  Raises what they raise."""
        self.limits.check(operation)
        await self._access.check(access, operation.path, operation.right)
        if isinstance(operation, CopyObject):
            await self._access.check(access, operation.source, Right.READ_OBJECT)

    async def run(self, access: Access | None, operation: Verb, verb: Callable[[Verb], Awaitable[Result]]) -> Result:
        """The gates, then ``verb``.  A streaming result's body must be closed by the caller; that gives its memory back."""
        await self.admit(access, operation)
        if isinstance(operation, (PutObject, UploadPart)):
            cost = self._memory.take(operation.body.length)
        elif isinstance(operation, CopyObject):
            cost = self._memory.take(BUFFER_BYTES)
        else:
            result = await verb(operation)
            if isinstance(result, ObjectRead) and not isinstance(result.body, bytes):
                try:
                    result.body = self._memory.lend(result.body)
                except Busy:
                    await aclose(result.body)
                    raise
            return result
        try:
            return await verb(operation)
        finally:
            self._memory.give(cost)
