"""Swift's dialect over fakes: a request in, status, headers and body out."""

from __future__ import annotations

import hashlib
import json

import pytest

from identity.client.fake import FakeIdentity
from proxy.gates.access import AccessGate
from proxy.gates.limits import Limits
from proxy.gates.memory import MemoryBudget
from proxy.large.reader import ManifestReader
from proxy.operations.books import BookVerbs
from proxy.operations.objects import ObjectVerbs
from proxy.pipeline import Pipeline
from proxy.swift.app import SwiftApp
from ring.errors import Unavailable
from storage.client.fake import FakeStorage
from tests.proxy.door import NOW, Client, StillClock


@pytest.fixture
def swift(storage: FakeStorage, identity: FakeIdentity, clock: StillClock) -> SwiftApp:
    limits = Limits(object_bytes_max=1 << 20)
    pipeline = Pipeline(identity, limits, AccessGate(storage), MemoryBudget(8 << 20))
    objects = ObjectVerbs(storage, clock, ManifestReader(storage), object_bytes_max=limits.object_bytes_max)
    return SwiftApp(pipeline, objects, BookVerbs(storage), clock)


@pytest.fixture
def ann(swift: SwiftApp) -> Client:
    return Client(swift, {"x-auth-token": "token-ann"})


A = "/v1/AUTH_p1"


def md5(data: bytes) -> str:
    return hashlib.md5(data).hexdigest()


async def test_an_account_is_there_before_anything_is_in_it(ann: Client) -> None:
    head = await ann("HEAD", A)
    assert head.status == 204
    assert (head["x-account-container-count"], head["x-account-object-count"], head["x-account-bytes-used"]) == ("0", "0", "0")
    assert head["x-trans-id"] == "tx-test"
    assert (await ann("GET", A)).status == 204
    listing = await ann("GET", f"{A}?format=json")
    assert (listing.status, listing.body) == (200, b"[]")


async def test_the_life_of_an_object(ann: Client) -> None:
    assert (await ann("PUT", f"{A}/c/o", body=b"x")).status == 404
    assert (await ann("PUT", f"{A}/c")).status == 201
    assert (await ann("PUT", f"{A}/c")).status == 202
    put = await ann("PUT", f"{A}/c/a%20b/%C3%B6.txt", {"x-object-meta-color": "blue", "etag": f'"{md5(b"hello")}"'}, b"hello")
    assert (put.status, put["etag"], put.body) == (201, md5(b"hello"), b"")
    got = await ann("GET", f"{A}/c/a%20b/%C3%B6.txt")
    assert (got.status, got.body, got["content-type"]) == (200, b"hello", "text/plain")
    assert (got["etag"], got["x-object-meta-color"], got["accept-ranges"]) == (md5(b"hello"), "blue", "bytes")
    assert got["last-modified"] == "Tue, 14 Nov 2023 22:13:21 GMT"  # rounded up
    head = await ann("HEAD", f"{A}/c/a%20b/%C3%B6.txt")
    assert (head.status, head.body, head["etag"]) == (200, b"", md5(b"hello"))
    posted = await ann("POST", f"{A}/c/a%20b/%C3%B6.txt", {"x-object-meta-size": "big"})
    assert posted.status == 202
    head = await ann("HEAD", f"{A}/c/a%20b/%C3%B6.txt")
    assert "x-object-meta-color" not in head.headers
    assert (head["x-object-meta-size"], head["content-type"]) == ("big", "text/plain")
    assert (await ann("DELETE", f"{A}/c")).status == 409
    assert (await ann("DELETE", f"{A}/c/a%20b/%C3%B6.txt")).status == 204
    gone = await ann("GET", f"{A}/c/a%20b/%C3%B6.txt")
    assert (gone.status, gone.body) == (404, b"<html><h1>Not Found</h1><p>The resource could not be found.</p></html>")
    assert (await ann("DELETE", f"{A}/c")).status == 204
    assert (await ann("HEAD", f"{A}/c")).status == 404


@pytest.mark.parametrize(("value", "asked"), [("true", 1), (" Yes", 1), ("1", 1), ("false", 0), ("", 0), ("newest", 0)])
async def test_x_newest_asks_all_replicas(ann: Client, storage: FakeStorage, value: str, asked: int) -> None:
    await ann("PUT", f"{A}/c")
    await ann("PUT", f"{A}/c/o", body=b"0123456789")
    for method, more in (("GET", {}), ("HEAD", {}), ("GET", {"range": "bytes=-3"})):
        storage.asked_newest = 0
        assert (await ann(method, f"{A}/c/o", {"x-newest": value, **more})).status in (200, 206)
        assert bool(storage.asked_newest) == bool(asked)


@pytest.mark.parametrize(
    ("headers", "status", "body"),
    [
        ({"range": "bytes=0-0"}, 206, b"0"),
        ({"range": "bytes=2-4"}, 206, b"234"),
        ({"range": "bytes=7-"}, 206, b"789"),
        ({"range": "bytes=8-99"}, 206, b"89"),
        ({"range": "bytes=-3"}, 206, b"789"),
        ({"range": "bytes=5-2"}, 200, b"0123456789"),
        ({"range": "lines=1-2"}, 200, b"0123456789"),
        ({"range": "bytes=10-"}, 416, None),
        ({"range": "bytes=-0"}, 416, None),
        ({"range": "bytes=2-4", "if-range": f'"{md5(b"0123456789")}"'}, 206, b"234"),
        ({"range": "bytes=2-4", "if-range": '"other"'}, 200, b"0123456789"),
        ({"if-none-match": f'"{md5(b"0123456789")}"'}, 304, b""),
        ({"if-none-match": "other"}, 200, b"0123456789"),
        ({"if-match": "other"}, 412, None),
        ({"if-match": "*"}, 200, b"0123456789"),
        ({"if-modified-since": "Tue, 14 Nov 2023 22:13:21 GMT"}, 304, b""),
        ({"if-unmodified-since": "Tue, 14 Nov 2023 22:13:21 GMT"}, 200, b"0123456789"),
        ({"if-unmodified-since": "Mon, 13 Nov 2023 22:13:20 GMT"}, 412, None),
    ],
)
async def test_ranges_and_conditions(ann: Client, headers: dict[str, str], status: int, body: bytes | None) -> None:
    await ann("PUT", f"{A}/c")
    await ann("PUT", f"{A}/c/o", body=b"0123456789")
    got = await ann("GET", f"{A}/c/o", headers)
    assert got.status == status
    if body is not None:
        assert got.body == body
    if status == 206:
        first = b"0123456789".index(body or b"")
        assert got["content-range"] == f"bytes {first}-{first + len(body or b'') - 1}/10"
    if status == 416:
        assert got["content-range"] == "bytes */10"


async def test_refused_writes(ann: Client) -> None:
    await ann("PUT", f"{A}/c")
    assert (await ann("PUT", f"{A}/c/o", {"etag": md5(b"other")}, b"data")).status == 422
    assert (await ann("PUT", f"{A}/c/o", {"content-length": "2000000"}, b"x" * 2_000_000)).status == 413
    assert (await ann("PUT", f"{A}/c/o", body=b"x" * 2_000_000, chunked=True)).status == 413
    assert (await ann("GET", f"{A}/c/o")).status == 404
    assert (await ann("PUT", f"{A}/c/o", {"if-none-match": "*"}, b"1")).status == 201
    assert (await ann("PUT", f"{A}/c/o", {"if-none-match": "*"}, b"2")).status == 412
    assert (await ann("PUT", f"{A}/c/o", {"if-match": md5(b"1")}, b"2")).status == 201
    assert (await ann("DELETE", f"{A}/c/o", {"if-match": md5(b"1")})).status == 412
    assert (await ann("PUT", f"{A}/c/o", {"x-symlink-target": "c/p"})).status == 501
    assert (await ann("PUT", f"{A}/c/o?multipart-manifest=put", body=b"[]")).status == 501
    for method in ("POST", "DELETE"):
        assert (await ann(method, f"{A}/c?bulk-delete", body=b"/c/o")).status == 501
    assert (await ann("GET", f"{A}/c/o")).body == b"2"


async def test_a_body_without_a_length(swift: SwiftApp, ann: Client) -> None:
    await ann("PUT", f"{A}/c")
    assert (await ann("PUT", f"{A}/c/o", body=b"abc", chunked=True)).status == 201
    assert (await ann("GET", f"{A}/c/o")).body == b"abc"


@pytest.mark.parametrize(
    ("method", "target", "headers", "status"),
    [
        ("GET", "/v1/", {}, 404),
        ("GET", f"{A}/c%00d", {}, 412),
        ("GET", f"{A}/%00parts/x", {}, 412),
        ("GET", "/v1/%00AUTH_p1/c", {}, 412),
        ("GET", f"{A}/c/%ff", {}, 412),
        ("GET", f"{A}/c/%2", {}, 412),
        ("GET", f"{A}//o", {}, 412),
        ("PUT", f"{A}/{'c' * 257}", {}, 400),
        ("PUT", f"{A}/c/{'o' * 1025}", {}, 400),
        ("GET", f"{A}?limit=10001", {}, 412),
        ("GET", f"{A}?prefix=%00", {}, 412),
        ("PUT", f"{A}/c/o", {"x-object-meta-" + "n" * 129: "v"}, 400),
        ("PUT", f"{A}/c/o", {"x-object-meta-n": "v" * 2049}, 400),
        ("PUT", f"{A}/c/o", {f"x-object-meta-{n}": "v" for n in range(91)}, 400),
        ("PUT", f"{A}/c/o", {"x-delete-at": "1"}, 400),
        ("PUT", f"{A}/c/o", {"x-delete-after": "soon"}, 400),
        ("PUT", f"{A}/d", {"x-storage-policy": "gold"}, 400),
        ("PUT", f"{A}/d", {"x-container-read": ".r:example.com"}, 400),
        ("PATCH", f"{A}/c/o", {}, 405),
    ],
)
async def test_what_is_malformed(ann: Client, method: str, target: str, headers: dict[str, str], status: int) -> None:
    await ann("PUT", f"{A}/c")
    answer = await ann(method, target, headers)
    assert answer.status == status
    assert answer["x-trans-id"] == "tx-test"


async def test_dots_are_ordinary_names(ann: Client) -> None:
    await ann("PUT", f"{A}/..")
    await ann("PUT", f"{A}/../../../etc/passwd", body=b"mine")
    assert (await ann("GET", f"{A}/..?format=plain")).body == b"../../etc/passwd\n"
    assert (await ann("GET", f"{A}/../../../etc/passwd")).body == b"mine"


@pytest.mark.parametrize(
    ("who", "method", "target", "status"),
    [
        ("", "GET", f"{A}/c/o", 401),
        ("nobody", "GET", f"{A}/c/o", 401),
        ("bob", "GET", f"{A}/c/o", 403),
        ("bob", "PUT", f"{A}/c/o", 403),
        ("bob", "HEAD", A, 403),
        ("root", "GET", f"{A}/c/o", 200),
        ("eve", "GET", f"{A}/c/o", 200),
        ("eve", "PUT", f"{A}/c/o", 403),
        ("eve", "DELETE", f"{A}/c/o", 403),
        ("", "GET", f"{A}/open/o", 200),
        ("bob", "GET", f"{A}/open/o", 200),
        ("", "GET", f"{A}/open", 401),
        ("", "PUT", f"{A}/open/o", 401),
        ("", "GET", f"{A}/listed", 204),
        ("bob", "PUT", f"{A}/shared/o", 201),
        ("bob", "GET", f"{A}/shared/o", 403),
        ("bob", "DELETE", f"{A}/shared", 403),
    ],
)
async def test_who_may_do_what(swift: SwiftApp, ann: Client, who: str, method: str, target: str, status: int) -> None:
    for name, headers in (
        ("c", {}),
        ("open", {"x-container-read": ".r:*"}),
        ("listed", {"x-container-read": ".r:*,.rlistings"}),
        ("shared", {"x-container-write": "p2:id-bob"}),
    ):
        await ann("PUT", f"{A}/{name}", headers)
    await ann("PUT", f"{A}/c/o", body=b"x")
    await ann("PUT", f"{A}/open/o", body=b"x")
    client = Client(swift, {"x-auth-token": f"token-{who}"} if who else {})
    answer = await client(method, target)
    assert answer.status == status
    if status == 401:
        assert answer["www-authenticate"] == 'Swift realm="AUTH_p1"'
    assert "x-container-read" not in answer.headers


NAMES = ["a/1", "a/2", "a/b/3", "b", "c&<d>"]


@pytest.mark.parametrize(
    ("query", "body"),
    [
        ("", "a/1\na/2\na/b/3\nb\nc&<d>\n"),
        ("?limit=2", "a/1\na/2\n"),
        ("?marker=a/2&limit=1", "a/b/3\n"),
        ("?end_marker=a/b", "a/1\na/2\n"),
        ("?prefix=a/", "a/1\na/2\na/b/3\n"),
        ("?delimiter=/", "a/\nb\nc&<d>\n"),
        ("?delimiter=/&prefix=a/", "a/1\na/2\na/b/\n"),
        ("?path=a", "a/1\na/2\n"),
        ("?reverse=true&limit=2", "c&<d>\nb\n"),
        ("?limit=0", ""),
    ],
)
async def test_listings(ann: Client, query: str, body: str) -> None:
    await ann("PUT", f"{A}/c")
    for name in NAMES:
        await ann("PUT", f"{A}/c/{name.replace('<', '%3C')}", body=b"xy")
    answer = await ann("GET", f"{A}/c{query}")
    assert answer.status == (200 if body else 204)
    assert answer.body.decode() == body
    assert (answer["x-container-object-count"], answer["x-container-bytes-used"]) == ("5", "10")


async def test_listing_formats(ann: Client) -> None:
    await ann("PUT", f"{A}/c", {"x-container-meta-k": "v"})
    for name in ("a/1", "c&<d>"):
        await ann("PUT", f"{A}/c/{name}", {"content-type": "text/x"}, b"xy")
    answer = await ann("GET", f"{A}/c?format=json&delimiter=/")
    assert answer["content-type"] == "application/json; charset=utf-8"
    assert answer["x-container-meta-k"] == "v"
    assert json.loads(answer.body) == [
        {"subdir": "a/"},
        {
            "name": "c&<d>",
            "hash": md5(b"xy"),
            "bytes": 2,
            "content_type": "text/x",
            "last_modified": "2023-11-14T22:13:20.000030",
        },
    ]
    answer = await ann("GET", f"{A}/c?delimiter=/", {"accept": "application/xml;q=0.9"})
    assert answer.body.decode() == (
        '<?xml version="1.0" encoding="UTF-8"?>\n<container name="c"><subdir name="a/"><name>a/</name></subdir>'
        f"<object><name>c&amp;&lt;d&gt;</name><hash>{md5(b'xy')}</hash><bytes>2</bytes><content_type>text/x</content_type>"
        "<last_modified>2023-11-14T22:13:20.000030</last_modified></object></container>"
    )
    answer = await ann("GET", f"{A}?format=json")
    rows = json.loads(answer.body)
    assert [(row["name"], row["count"], row["bytes"]) for row in rows] == [("c", 2, 4)]
    assert (await ann("GET", f"{A}/c", {"accept": "image/png"})).status == 406


async def test_metadata_of_accounts_and_containers(ann: Client) -> None:
    assert (await ann("POST", A, {"x-account-meta-a": "1"})).status == 204
    assert (await ann("HEAD", A))["x-account-meta-a"] == "1"
    assert (await ann("POST", f"{A}/c", {"x-container-meta-a": "1"})).status == 404
    await ann("PUT", f"{A}/c", {"x-container-read": ".r:*"})
    assert (await ann("POST", f"{A}/c", {"x-container-meta-a": "1"})).status == 204
    head = await ann("HEAD", f"{A}/c")
    assert (head.status, head["x-container-meta-a"], head["x-container-read"]) == (204, "1", ".r:*")
    await ann("POST", f"{A}/c", {"x-remove-container-meta-a": "x", "x-container-read": ""})
    head = await ann("HEAD", f"{A}/c")
    assert "x-container-meta-a" not in head.headers and "x-container-read" not in head.headers


async def test_copies(ann: Client) -> None:
    await ann("PUT", f"{A}/c")
    await ann("PUT", f"{A}/c/o", {"x-object-meta-a": "1", "content-type": "text/x"}, b"data")
    copied = await ann("PUT", f"{A}/c/p%20q", {"x-copy-from": "/c/o", "x-object-meta-b": "2"})
    assert (copied.status, copied["x-copied-from"]) == (201, "c/o")
    got = await ann("GET", f"{A}/c/p%20q")
    assert (got.body, got["x-object-meta-a"], got["x-object-meta-b"], got["content-type"]) == (b"data", "1", "2", "text/x")
    copied = await ann("COPY", f"{A}/c/p%20q", {"destination": "c/r", "x-fresh-metadata": "true", "x-object-meta-c": "3"})
    assert copied.status == 201
    got = await ann("GET", f"{A}/c/r")
    assert (got.body, got["x-object-meta-c"]) == (b"data", "3") and "x-object-meta-a" not in got.headers
    assert (await ann("COPY", f"{A}/c/p%20q")).status == 412
    assert (await ann("PUT", f"{A}/c/x", {"x-copy-from": "c/none"})).status == 404
    assert (await ann("PUT", f"{A}/c/x", {"x-copy-from": "/%00c/none"})).status == 412
    assert (await ann("PUT", f"{A}/c/x", {"x-copy-from": "c/o", "x-copy-from-account": "AUTH_p2"})).status == 403


async def test_expiry(ann: Client, clock: StillClock) -> None:
    await ann("PUT", f"{A}/c")
    await ann("PUT", f"{A}/c/o", {"x-delete-after": "60"}, b"x")
    assert (await ann("HEAD", f"{A}/c/o"))["x-delete-at"] == str(int(NOW) + 60)
    clock.seconds += 60
    assert (await ann("GET", f"{A}/c/o")).status == 404


async def test_an_account_is_made_and_deleted_by_administrators(swift: SwiftApp, ann: Client) -> None:
    root = Client(swift, {"x-auth-token": "token-root"})
    assert (await ann("PUT", A)).status == 403
    assert (await ann("DELETE", A)).status == 403
    assert (await Client(swift)("DELETE", A)).status == 401
    assert (await root("DELETE", A)).status == 404  # nothing has made it yet
    assert (await root("PUT", A, {"x-account-meta-a": "1"})).status == 201
    assert (await root("PUT", A)).status == 202
    assert (await ann("HEAD", A))["x-account-meta-a"] == "1"
    assert (await ann("PUT", f"{A}/c")).status == 201
    assert (await root("DELETE", f"{A}?bulk-delet=1")).status == 400
    assert (await ann("HEAD", A)).status == 204
    assert (await root("DELETE", A)).status == 204
    gone = await ann("GET", A)
    assert (gone.status, gone.body) == (410, b"<html><h1>Gone</h1><p>This resource is no longer available.</p></html>")
    assert (await ann("HEAD", A)).status == 410
    assert (await ann("POST", A, {"x-account-meta-a": "1"})).status == 404
    assert (await ann("PUT", f"{A}/another")).status == 404
    assert (await root("DELETE", A)).status == 404
    again = await root("PUT", A)
    assert (again.status, again.body) == (403, b"Recently deleted")


async def test_storage_that_cannot_answer(ann: Client, storage: FakeStorage) -> None:
    storage.fail_next.append(Unavailable("too few"))
    answer = await ann("GET", f"{A}/c/o")
    assert answer.status == 503
    assert b"try again" in answer.body


async def test_a_large_body_is_lent_memory_until_it_is_closed(swift: SwiftApp, ann: Client) -> None:
    await ann("PUT", f"{A}/c")
    await ann("PUT", f"{A}/c/o", body=b"x" * 100_000)
    assert len((await ann("GET", f"{A}/c/o")).body) == 100_000
    memory = swift._pipeline._memory
    assert memory.used_bytes == 0
    memory.total_bytes = 1000
    assert (await ann("GET", f"{A}/c/o")).status == 503
    assert (await ann("GET", f"{A}/c/o", {"range": "bytes=0-9"})).status == 206
    assert memory.used_bytes == 0


@pytest.mark.parametrize(
    ("method", "target", "name"),
    [
        ("PUT", f"{A}/c/o", "x-object-meta-a"),
        ("POST", f"{A}/c/o", "x-object-meta-a"),
        ("PUT", f"{A}/c", "x-container-meta-a"),
        ("POST", f"{A}/c", "x-container-meta-a"),
        ("POST", A, "x-account-meta-a"),
    ],
)
async def test_the_longest_value_of_metadata(ann: Client, method: str, target: str, name: str) -> None:
    await ann("PUT", f"{A}/c")
    await ann("PUT", f"{A}/c/o")
    assert (await ann(method, target, {name: "v" * 257})).status == 400
    assert (await ann(method, target, {name: "v" * 256})).status in (201, 202, 204)
    assert (await ann("HEAD", target))[name] == "v" * 256


async def test_options(ann: Client) -> None:
    asked = await ann("OPTIONS", f"{A}/c/o")
    assert (asked.status, asked["allow"]) == (200, "COPY, DELETE, GET, HEAD, POST, PUT")
    assert (await ann("OPTIONS", f"{A}/c/o", {"origin": "http://elsewhere.example"})).status == 401


@pytest.mark.parametrize("size", [20, 200_000])
async def test_several_ranges(ann: Client, size: int) -> None:
    data = bytes(range(256)) * (size // 256 + 1)
    data = data[:size]
    await ann("PUT", f"{A}/c")
    await ann("PUT", f"{A}/c/o", {"content-type": "text/x"}, data)
    got = await ann("GET", f"{A}/c/o", {"range": "bytes=0-3,8-9,-2"})
    assert got.status == 206
    assert "content-range" not in got.headers
    kind, _, boundary = got["content-type"].partition("; boundary=")
    assert kind == "multipart/byteranges"
    expected = b""
    for start, stop in ((0, 4), (8, 10), (size - 2, size)):
        head = f"\r\n--{boundary}\r\nContent-Type: text/x\r\nContent-Range: bytes {start}-{stop - 1}/{size}\r\n\r\n"
        expected += head.encode() + data[start:stop]
    assert got.body == expected[2:] + f"\r\n--{boundary}--\r\n".encode()
    one = await ann("GET", f"{A}/c/o", {"range": f"bytes=1-2,{size}-"})  # of which one is in the object
    assert (one.status, one.body, one["content-range"]) == (206, data[1:3], f"bytes 1-2/{size}")
    assert (await ann("GET", f"{A}/c/o", {"range": f"bytes={size}-,{size + 1}-"})).status == 416
    stale = await ann("GET", f"{A}/c/o", {"range": "bytes=0-0,2-2", "if-range": '"other"'})
    assert (stale.status, stale.body) == (200, data)


async def test_a_dynamic_large_object(swift: SwiftApp, ann: Client, storage: FakeStorage) -> None:
    whole = bytes(range(256)) * 1000
    for container in ("c", "segments"):
        await ann("PUT", f"{A}/{container}")
    for at, start in enumerate(range(0, len(whole), 100_000)):
        await ann("PUT", f"{A}/segments/a b/{at}", body=whole[start : start + 100_000])
    for bad in ("segments", "/x", "segments/", "segments/a?b"):
        for method in ("PUT", "POST"):
            assert (await ann(method, f"{A}/c/big", {"x-object-manifest": bad})).status == 400
    assert (await ann("PUT", f"{A}/c/big", {"x-object-manifest": "segments/a%20b/", "content-type": "a/b"})).status == 201
    etag = md5("".join(md5(whole[at : at + 100_000]) for at in range(0, len(whole), 100_000)).encode())
    for method in ("GET", "HEAD"):
        got = await ann(method, f"{A}/c/big")
        assert (got.status, got["etag"], got["content-type"]) == (200, f'"{etag}"', "a/b")
        assert got["x-object-manifest"] == "segments/a%20b/"
    got = await ann("GET", f"{A}/c/big")
    assert got.body == whole
    for text, start, stop in (("99990-200010", 99_990, 200_011), ("-5", len(whole) - 5, len(whole)), ("0-0", 0, 1)):
        part = await ann("GET", f"{A}/c/big", {"range": f"bytes={text}"})
        assert (part.status, part.body) == (206, whole[start:stop])
        assert part["content-range"] == f"bytes {start}-{stop - 1}/{len(whole)}"
    assert (await ann("GET", f"{A}/c/big", {"range": f"bytes={len(whole)}-"})).status == 416
    assert (await ann("GET", f"{A}/c/big", {"if-none-match": f'"{etag}"'})).status == 304
    assert (await ann("GET", f"{A}/c/big", {"if-match": f'"{md5(b"")}"'})).status == 412
    raw = await ann("GET", f"{A}/c/big?multipart-manifest=get")
    assert (raw.body, raw["etag"]) == (b"", md5(b""))
    assert (await ann("COPY", f"{A}/c/big", {"destination": "c/copy"})).status == 501
    assert (await ann("DELETE", f"{A}/c/big")).status == 204
    assert (await ann("HEAD", f"{A}/segments/a%20b/0")).status == 200


async def test_the_segments_of_a_large_object_are_read_as_the_caller(swift: SwiftApp, ann: Client) -> None:
    for container in ("c", "segments"):
        await ann("PUT", f"{A}/{container}")
    await ann("PUT", f"{A}/segments/s/1", body=b"secret")
    await ann("PUT", f"{A}/c/big", {"x-object-manifest": "segments/s/"})
    await ann("POST", f"{A}/c", {"x-container-read": ".r:*"})
    anybody = Client(swift)
    assert (await anybody("GET", f"{A}/c/big")).status == 401
    await ann("POST", f"{A}/segments", {"x-container-read": ".r:*,.rlistings"})
    assert (await anybody("GET", f"{A}/c/big")).body == b"secret"
    await ann("DELETE", f"{A}/segments/s/1")
    assert (await ann("GET", f"{A}/c/big")).body == b""


@pytest.mark.parametrize("method", ["POST", "DELETE"])
async def test_bulk_delete(swift: SwiftApp, ann: Client, method: str) -> None:
    for container in ("c", "full", "empty"):
        await ann("PUT", f"{A}/{container}")
    for name in ("c/a%20b", "c/d", "full/o"):
        await ann("PUT", f"{A}/{name}", body=b"x")
    names = b"c/a%20b\n/c/d\n\nc/none\nempty\nfull\n"
    done = await ann(method, f"{A}?bulk-delete", {"accept": "application/json"}, names)
    assert (done.status, json.loads(done.body)) == (
        200,
        {
            "Number Deleted": 3,
            "Number Not Found": 1,
            "Response Body": "",
            "Response Status": "400 Bad Request",
            "Errors": [["full", "409 Conflict"]],
        },
    )
    assert (await ann("GET", f"{A}/c")).body == b""
    plain = await ann(method, f"{A}?bulk-delete", body=b"full/o")
    assert plain.body.startswith(b"Number Deleted: 1\nNumber Not Found: 0\n")
    assert (await Client(swift)(method, f"{A}?bulk-delete", body=b"c")).status == 401
    other = await Client(swift, {"x-auth-token": "token-bob"})(method, f"{A}?bulk-delete", {"accept": "text/json"}, b"c")
    assert json.loads(other.body)["Errors"] == [["c", "403 Forbidden"]]
    assert (await ann("HEAD", f"{A}/c")).status == 204
