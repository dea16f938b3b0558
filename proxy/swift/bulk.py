"""Bulk deletes: a list of names in one body, each deleted as if asked for alone, and one report of what came of them.

Neighbours: app.  Source: "Bulk delete", Swift API reference (object-store v1).
"""

from __future__ import annotations

import msgspec
import trio

from identity.client.interface import Access
from proxy.errors import BadRequest
from proxy.operations.books import BookVerbs
from proxy.operations.objects import ObjectVerbs
from proxy.operations.verbs import DeleteContainer, DeleteObject
from proxy.pipeline import Pipeline
from proxy.swift.errors import page, reason_of, status_of
from proxy.swift.parse import path_of
from ring.errors import RingfortError
from ring.names import Path
from ring.wire.message import Headers, Request, Response
from ring.wire.query import quote

_NAMES_MAX = 10_000
_BYTES_MAX = 4 << 20
_AT_ONCE = 8


async def bulk_delete(
    pipeline: Pipeline, objects: ObjectVerbs, books: BookVerbs, request: Request, access: Access | None, account: Path
) -> Response:
    """BadRequest."""
    if access is None:
        return page(401)
    names = [line.strip() for line in (await _read(request)).decode("utf-8", "replace").splitlines() if line.strip()]
    if len(names) > _NAMES_MAX:
        raise BadRequest(f"Maximum Bulk Deletes: {_NAMES_MAX} per request", status=413)
    statuses = [0] * len(names)
    todo = iter(list(enumerate(names)))

    async def delete() -> None:
        for at, name in todo:
            try:
                path = path_of(f"/v1/{quote(account.account)}/{name.removeprefix('/')}")
                if path.object:
                    await pipeline.run(access, DeleteObject(path), objects.delete)
                elif path.container:
                    await pipeline.run(access, DeleteContainer(path), books.delete_container)
                else:
                    raise BadRequest("no name")
                statuses[at] = 204
            except RingfortError as error:
                found = status_of(error)
                if found is None:
                    raise
                statuses[at] = found

    async with trio.open_nursery() as nursery:
        for _ in range(min(_AT_ONCE, len(names))):
            nursery.start_soon(delete)
    return _report(request, names, statuses)


async def _read(request: Request) -> bytes:
    data = bytearray()
    while piece := await request.body.read(_BYTES_MAX + 1 - len(data)):
        data += piece
        if len(data) > _BYTES_MAX:
            raise BadRequest(f"the list is longer than {_BYTES_MAX} bytes", status=413)
    return bytes(data)


def _report(request: Request, names: list[str], statuses: list[int]) -> Response:
    wrong = [
        [name, f"{status} {reason_of(status)}"] for name, status in zip(names, statuses, strict=True) if status not in (204, 404)
    ]
    total = "200 OK"
    if wrong:
        total = "502 Bad Gateway" if any(status >= 500 for status in statuses) else "400 Bad Request"
    elif not names:
        total = "400 Bad Request"
    report = {
        "Number Deleted": statuses.count(204),
        "Number Not Found": statuses.count(404),
        "Response Body": "" if names else "Invalid bulk delete.",
        "Response Status": total,
        "Errors": wrong,
    }
    if "json" in request.headers.get("accept"):
        return Response(200, Headers([("content-type", "application/json")]), msgspec.json.encode(report))
    lines = [f"{key}: {value}" for key, value in report.items() if key != "Errors"]
    lines += ["Errors:", *(f"{name}, {text}" for name, text in wrong)]
    return Response(200, Headers([("content-type", "text/plain")]), "\n".join(lines).encode())
