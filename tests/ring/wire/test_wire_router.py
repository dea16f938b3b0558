"""Where a method and a path lead."""

from __future__ import annotations

import pytest

from ring.wire.message import BytesBody, Handler, Headers, Request, Response
from ring.wire.router import Router


def named(name: str) -> Handler:
    async def handler(request: Request) -> Response:
        params = ",".join(f"{key}={value}" for key, value in request.params.items())
        return Response(200, body=f"{name} {params} {request.target}".encode())

    return handler


def make() -> Router:
    router = Router()
    for method, path in [
        ("GET", "/"),
        ("GET", "/v3"),
        ("GET", "/v3/users"),
        ("POST", "/v3/users"),
        ("GET", "/v3/users/{id}"),
        ("DELETE", "/v3/users/{id}"),
        ("GET", "/v3/users/me"),
        ("GET", "/v3/users/{id}/projects"),
        ("GET", "/v3/users/me/groups"),
        ("GET", "/v1/{account}/{container}/{object:path}"),
    ]:
        router.add(method, path, named(path))
    inner = Router(not_found=lambda request: Response(404, body=b"inner"))
    inner.add("GET", "/", named("inner /"))
    inner.add("GET", "/x/{y}", named("inner"))
    router.mount("/in", inner)
    return router


@pytest.mark.parametrize(
    ("method", "target", "status", "expected"),
    [
        ("GET", "/", 200, "/  /"),
        ("GET", "/v3", 200, "/v3  /v3"),
        ("GET", "/v3/", 200, "/v3  /v3/"),
        ("GET", "/v3?a=/b", 200, "/v3  /v3?a=/b"),
        ("HEAD", "/v3", 200, "/v3  /v3"),
        ("GET", "/v3/users/7", 200, "/v3/users/{id} id=7 /v3/users/7"),
        ("GET", "/v3/users/a%2Fb%20c", 200, "/v3/users/{id} id=a/b c /v3/users/a%2Fb%20c"),
        ("GET", "/v3/users/me", 200, "/v3/users/me  /v3/users/me"),
        ("GET", "/v3/users/m%65", 200, "/v3/users/me  /v3/users/m%65"),
        ("GET", "/v3/users/me/projects", 200, "/v3/users/{id}/projects id=me /v3/users/me/projects"),
        ("GET", "/v1/a/c/o/p/", 200, "/v1/{account}/{container}/{object:path} account=a,container=c,object=o/p/ /v1/a/c/o/p/"),
        ("GET", "/v1/a//o", 404, "not found\n"),
        ("GET", "/v3/users/%ff", 400, "not UTF-8: '%ff'\n"),
        ("GET", "/v3/users/%", 400, "broken percent-encoding: '%'\n"),
        ("GET", "/v3/nothing", 404, "not found\n"),
        ("GET", "//v3", 404, "not found\n"),
        ("PUT", "/v3/users", 405, "method not allowed\n"),
        ("GET", "/in", 200, "inner /  /"),
        ("GET", "/in/", 200, "inner /  /"),
        ("GET", "/in?q", 200, "inner /  /?q"),
        ("GET", "/in/x/1?q", 200, "inner y=1 /x/1?q"),
        ("GET", "/in/z", 404, "inner"),
        ("GET", "/inner", 404, "not found\n"),
    ],
)
async def test_routes(method: str, target: str, status: int, expected: str) -> None:
    response = await make()(Request(method, target, Headers(), BytesBody()))
    assert isinstance(response.body, bytes)
    assert (response.status, response.body.decode()) == (status, expected)


async def test_allow() -> None:
    response = await make()(Request("PUT", "/v3/users/7", Headers(), BytesBody()))
    assert response.headers.get("allow") == "DELETE, GET, HEAD"


def test_routes_that_contradict_each_other() -> None:
    router = make()
    with pytest.raises(AssertionError):
        router.add("GET", "/v3/users/{user}", named("x"))
    with pytest.raises(AssertionError):
        router.add("GET", "/v3/users", named("x"))
