"""Which handler answers a method and a path.

    router = Router()
    router.add("GET", "/v3/users/{id}", show_user)          one segment, in request.params["id"]
    router.add("GET", "/v1/{account}/{rest:path}", fetch)    all that is left, slashes and all
    router.mount("/identity", identity_router)               the handler sees the target without the prefix

Literal segments win over parameters.  Segments are split before they are percent-decoded, so %2F stays within one.  One trailing
slash makes no difference, but in {name:path}.  HEAD falls back to GET's handler.  Each API words 404, 405 and 400 itself.

Pure but for awaiting the handler.  Neighbours: ``server`` calls a Router as any Handler.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from ring.errors import BadInput
from ring.wire.message import Handler, Headers, Request, Response
from ring.wire.query import unquote

NotFoundAnswer = Callable[[Request], Response]
NotAllowedAnswer = Callable[[Request, Sequence[str]], Response]
BadTargetAnswer = Callable[[Request, BadInput], Response]


def _text(status: int, text: str) -> Response:
    return Response(status, Headers([("content-type", "text/plain; charset=utf-8")]), text.encode())


@dataclass(slots=True)
class _Place:
    """A node of the tree of segments."""

    literals: dict[str, _Place] = field(default_factory=dict)
    parameter: tuple[str, _Place] | None = None
    rest: tuple[str, dict[str, Handler]] | None = None
    handlers: dict[str, Handler] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Route:
    """What a path leads to: handlers by method, and the path's parameters, still encoded."""

    handlers: dict[str, Handler]
    params: tuple[tuple[str, str], ...]


class Router:
    """A Handler.  The answers get the request, and for 405 the sorted methods that would do (Allow is set for you)."""

    def __init__(
        self,
        *,
        not_found: NotFoundAnswer = lambda request: _text(404, "not found\n"),
        not_allowed: NotAllowedAnswer = lambda request, methods: _text(405, "method not allowed\n"),
        bad_target: BadTargetAnswer = lambda request, error: _text(400, f"{error.message}\n"),
    ) -> None:
        self._not_found = not_found
        self._not_allowed = not_allowed
        self._bad_target = bad_target
        self._root = _Place()
        self._mounts: list[tuple[str, Handler]] = []  # longest prefix first

    def add(self, method: str, path: str, handler: Handler) -> None:
        """``path`` is of decoded literals and {parameters}; {name:path} only at its end."""
        place = self._root
        segments = path.strip("/").split("/") if path.strip("/") else []
        for at, segment in enumerate(segments):
            if not segment.startswith("{"):
                place = place.literals.setdefault(segment, _Place())
                continue
            name, _, kind = segment[1:-1].partition(":")
            if kind == "path":
                assert at == len(segments) - 1, f"{{{name}:path}} ends a path"
                if place.rest is None:
                    place.rest = (name, {})
                assert place.rest[0] == name, f"{path}: the parameter is called {place.rest[0]!r} in another route"
                place.rest[1][method] = handler
                return
            if place.parameter is None:
                place.parameter = (name, _Place())
            # Two names for one place would make the parameter's name depend on the method.
            assert place.parameter[0] == name, f"{path}: the parameter is called {place.parameter[0]!r} in another route"
            place = place.parameter[1]
        assert method not in place.handlers, f"{method} {path} is there already"
        place.handlers[method] = handler

    def mount(self, prefix: str, handler: Handler) -> None:
        """Give everything at and below ``prefix`` ("/identity") to ``handler``, with the prefix cut off the target."""
        assert prefix.startswith("/") and not prefix.endswith("/")
        self._mounts.append((prefix, handler))
        self._mounts.sort(key=lambda mount: -len(mount[0]))

    def find(self, raw_path: str) -> Route | None:
        """Raises BadInput for a broken percent-encoding."""
        segments = raw_path.removeprefix("/").split("/")
        found = _walk(self._root, segments, 0, ())
        if found is None and segments[-1] == "":  # "/v3/" where only "/v3" is known
            found = _walk(self._root, segments[:-1], 0, ())
        return found

    async def __call__(self, request: Request) -> Response:
        target = request.target
        for prefix, handler in self._mounts:
            if target.startswith(prefix) and target[len(prefix) : len(prefix) + 1] in ("", "/", "?"):
                rest = target[len(prefix) :]
                return await handler(replace(request, target=rest if rest.startswith("/") else "/" + rest))
        try:
            route = self.find(request.raw_path)
            if route is None:
                return self._not_found(request)
            params = {name: unquote(value) for name, value in route.params}
        except BadInput as error:
            return self._bad_target(request, error)
        handlers = route.handlers
        found = handlers.get(request.method) or (handlers.get("GET") if request.method == "HEAD" else None)
        if found is None:
            methods = sorted({*handlers, *(("HEAD",) if "GET" in handlers else ())})
            response = self._not_allowed(request, methods)
            response.headers.replace("allow", ", ".join(methods))
            return response
        request.params = params
        return await found(request)


def _walk(place: _Place, segments: list[str], at: int, params: tuple[tuple[str, str], ...]) -> Route | None:
    """The first route that fits, literals before parameters before the rest; a dead end is backed out of."""
    if at == len(segments):
        return Route(place.handlers, params) if place.handlers else None
    segment = segments[at]
    if not segment and at == len(segments) - 1 and place.handlers:
        return Route(place.handlers, params)
    if place.literals:
        below = place.literals.get(unquote(segment) if "%" in segment else segment)
        if below is not None and (found := _walk(below, segments, at + 1, params)) is not None:
            return found
    if place.parameter is not None and segment:
        name, below = place.parameter
        if (found := _walk(below, segments, at + 1, (*params, (name, segment)))) is not None:
            return found
    if place.rest is not None:
        name, handlers = place.rest
        return Route(handlers, (*params, (name, "/".join(segments[at:]))))
    return None
