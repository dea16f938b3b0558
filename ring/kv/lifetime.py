"""A background task that lives as long as a ``with`` block, whose errors stay what they are.

A nursery wraps what its body raises in an ExceptionGroup; here the caller's own error comes out as it was raised.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import trio


@asynccontextmanager
async def running(task: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    """Run ``task`` beside the block and cancel it at the block's end."""
    raised: BaseException | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(task)
        try:
            yield
        except BaseException as error:  # noqa: BLE001  raised again below, outside the nursery
            raised = error
        nursery.cancel_scope.cancel()
    if raised is not None:
        raise raised
