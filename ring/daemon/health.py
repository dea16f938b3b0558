"""What a daemon tells of itself: ``/metrics`` in Prometheus text and ``/health`` as JSON.

A check says what is wrong, or "" when nothing is; 200 when all are well, 503 otherwise.  Checks that do not answer in time have
failed.  Neighbours: ``metrics``, ring.wire.router.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence

import trio

from ring.daemon.metrics import CONTENT_TYPE, Registry, merge
from ring.errors import RingfortError
from ring.wire.message import Handler, Headers, Request, Response
from ring.wire.router import Router

Check = Callable[[], Awaitable[str]]
CHECK_S = 5.0


def metrics_handler(registry: Registry, others: Callable[[], Awaitable[Sequence[str]]] | None = None) -> Handler:
    """This worker's numbers, added to the texts of the machine's ``others`` when there are any."""

    async def metrics(request: Request) -> Response:
        texts = [registry.render(), *(await others() if others is not None else ())]
        return Response(200, Headers([("content-type", CONTENT_TYPE)]), merge(texts).encode())

    return metrics


def health_handler(checks: Mapping[str, Check]) -> Handler:
    """``{"status": "ok", "checks": {"name": "ok" or what is wrong}}``."""

    async def health(request: Request) -> Response:
        found = {name: await _ask(check) for name, check in checks.items()}
        well = not any(found.values())
        answer = {"status": "ok" if well else "failing", "checks": {name: text or "ok" for name, text in found.items()}}
        return Response(200 if well else 503, Headers([("content-type", "application/json")]), json.dumps(answer).encode() + b"\n")

    return health


def add_routes(router: Router, registry: Registry, checks: Mapping[str, Check]) -> None:
    """GET /metrics and GET /health."""
    router.add("GET", "/metrics", metrics_handler(registry))
    router.add("GET", "/health", health_handler(checks))


async def _ask(check: Check) -> str:
    with trio.move_on_after(CHECK_S):
        try:
            return await check()
        except RingfortError as error:
            return f"{type(error).__name__}: {error.message}"
    return f"no answer within {CHECK_S:g} s"
