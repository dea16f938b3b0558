"""Signatures: what botocore signs, we accept; what anybody changed afterwards, we refuse."""

from __future__ import annotations

import base64
import hashlib
import hmac
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

import pytest
from botocore.auth import HmacV1QueryAuth, S3SigV4Auth, S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from identity.client.fake import FakeIdentity
from proxy.errors import BadChecksum, BadRequest, BadSignature, ClockSkewed
from proxy.s3.auth import S3Auth, Signed, payload
from proxy.s3.errors import code_of
from ring.errors import RingfortError
from ring.wire.message import BodyBroken, BytesBody, Headers, Request
from ring.wire.query import Query
from tests.proxy.door import StillClock

KEYS = Credentials("key-ann", "secret-ann")
HOST = "http://cloud.example:8080"


class NowClock(StillClock):
    """The wall clock of this test's start: botocore asks nobody for the time."""

    def __init__(self) -> None:
        self.seconds = datetime.now(UTC).timestamp()


@pytest.fixture
def now() -> NowClock:
    return NowClock()


@pytest.fixture
def auth(identity: FakeIdentity, now: NowClock) -> S3Auth:
    return S3Auth(identity, now)


def received(signed: AWSRequest, body: bytes = b"") -> Request:
    prepared = signed.prepare()
    url = urlsplit(prepared.url)
    target = url.path + (f"?{url.query}" if url.query else "")
    headers = [(name, value.decode() if isinstance(value, bytes) else value) for name, value in prepared.headers.items()]
    if "host" not in {name.lower() for name, _ in headers}:
        headers.append(("host", url.netloc))
    return Request(signed.method, target or "/", Headers(headers), BytesBody(body), trans_id="tx")


def identify(auth: S3Auth, request: Request) -> Signed:
    return auth.identify(request, Query.parse(request.query_string).pairs, "")


URLS = [
    "/",
    "/bucket",
    "/bucket/",
    "/bucket/key",
    "/bucket/a//b///c",
    "/bucket/../..",
    "/bucket/./x",
    "/bucket/with%20blank",
    "/bucket/%C3%B6%E4%BD%A0%F0%9F%8C%8D",
    "/bucket/%2B%3D%26%3F%23%25%7E~-_.",
    "/bucket/a+b",
    "/bucket/!$'()*,;:@",
    "/bucket/%2Fleading",
    "/bucket?acl",
    "/bucket?acl=",
    "/bucket?uploads&prefix=",
    "/bucket?list-type=2&prefix=a%2Fb&delimiter=%2F&encoding-type=url",
    "/bucket?prefix=%C3%B6%20x&marker=%2B",
    "/bucket?b=2&a=1&B=3&A=&a=0",
    "/bucket/key?partNumber=1&uploadId=abc~",
    "/bucket?x=%25%26%3D",
]


@pytest.mark.parametrize("url", URLS)
@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_header(auth: S3Auth, url: str, method: str) -> None:
    request = AWSRequest(method, HOST + url, headers={"x-amz-meta-a": " two   blanks ", "Content-Type": "text/x"}, data=b"data")
    S3SigV4Auth(KEYS, "s3", "eu-west-1").add_auth(request)
    access = identify(auth, received(request)).access
    assert access is not None and access.user_name == "ann"


@pytest.mark.parametrize("url", URLS)
def test_presigned_v4(auth: S3Auth, url: str) -> None:
    request = AWSRequest("GET", HOST + url)
    S3SigV4QueryAuth(KEYS, "s3", "us-east-1", expires=60).add_auth(request)
    access = identify(auth, received(request)).access
    assert access is not None and access.user_name == "ann"


@pytest.mark.parametrize("url", [url for url in URLS if "acl=" not in url])
def test_presigned_v2(auth: S3Auth, url: str) -> None:
    request = AWSRequest("GET", HOST + url, headers={"x-amz-meta-a": "b"})
    HmacV1QueryAuth(KEYS, expires=60).add_auth(request)
    access = identify(auth, received(request)).access
    assert access is not None and access.user_name == "ann"


def test_presigned_v2_binds_a_virtual_host_s_bucket(auth: S3Auth) -> None:
    request = AWSRequest("GET", "http://bucket.cloud.example/key", auth_path="/bucket/key")
    HmacV1QueryAuth(KEYS, expires=60).add_auth(request)
    arrived = received(request)
    pairs = Query.parse(arrived.query_string).pairs
    assert auth.identify(arrived, pairs, "bucket").access is not None
    with pytest.raises(BadSignature):
        auth.identify(arrived, pairs, "other")


def changed_method(request: Request) -> None:
    request.method = "DELETE"


def changed_path(request: Request) -> None:
    request.target = request.target.replace("/key", "/kez")


def added_parameter(request: Request) -> None:
    request.target += ("&" if "?" in request.target else "?") + "acl"


def changed_value(request: Request) -> None:
    request.headers.replace("x-amz-meta-a", "c")


def added_amz_header(request: Request) -> None:
    request.headers.add("x-amz-copy-source", "/private/key")


def odd_signature(request: Request) -> None:
    request.headers.replace("authorization", request.headers.get("authorization")[:-2] + "\xff\xfe")


@pytest.mark.parametrize("change", [changed_method, changed_path, added_parameter, changed_value, added_amz_header, odd_signature])
@pytest.mark.parametrize("scheme", ["header", "query", "v2"])
def test_a_changed_request_is_refused(auth: S3Auth, change: object, scheme: str) -> None:
    request = AWSRequest("GET", HOST + "/bucket/key", headers={"x-amz-meta-a": "b"})
    if scheme == "header":
        S3SigV4Auth(KEYS, "s3", "us-east-1").add_auth(request)
    elif scheme == "query":
        S3SigV4QueryAuth(KEYS, "s3", "us-east-1", expires=60).add_auth(request)
    else:
        HmacV1QueryAuth(KEYS, expires=60).add_auth(request)
    arrived = received(request)
    if change is odd_signature and scheme != "header":
        return
    assert callable(change)
    change(arrived)
    with pytest.raises(BadSignature):
        identify(auth, arrived)


@pytest.mark.parametrize(
    ("authorization", "code"),
    [
        ("AWS key-ann:abcd", "InvalidRequest"),
        ("AWS4-HMAC-SHA256", "AuthorizationHeaderMalformed"),
        ("AWS4-HMAC-SHA256 Credential=x, SignedHeaders=host, Signature=y", "AuthorizationHeaderMalformed"),
        ("AWS4-HMAC-SHA256 Credential=no/20231114/r/s3/aws4_request, SignedHeaders=host, Signature=y", "InvalidAccessKeyId"),
        (
            "AWS4-HMAC-SHA256 Credential=key-ann/20231114/r/ec2/aws4_request, SignedHeaders=host, Signature=y",
            "AuthorizationHeaderMalformed",
        ),
        (
            "AWS4-HMAC-SHA256 Credential=key-ann/20231114/r/s3/aws4_request, SignedHeaders=date, Signature=y",
            "AuthorizationHeaderMalformed",
        ),
        (
            "AWS4-HMAC-SHA256 Credential=key-ann/20231113/r/s3/aws4_request, SignedHeaders=host, Signature=y",
            "AuthorizationHeaderMalformed",
        ),
        (
            "AWS4-HMAC-SHA256 Credential=key-ann/20231114/r/s3/aws4_request, SignedHeaders=host, Signature=y",
            "SignatureDoesNotMatch",
        ),
    ],
)
def test_malformed_headers(identity: FakeIdentity, clock: StillClock, authorization: str, code: str) -> None:
    signed = authorization.replace("SignedHeaders=host,", "SignedHeaders=host;x-amz-content-sha256;x-amz-date,")
    headers = [
        ("host", "h"),
        ("x-amz-date", "20231114T221320Z"),
        ("x-amz-content-sha256", "UNSIGNED-PAYLOAD"),
        ("authorization", signed),
    ]
    with pytest.raises(RingfortError) as caught:
        identify(S3Auth(identity, clock), Request("GET", "/b", Headers(headers), BytesBody()))
    assert code_of(caught.value) == (code, 403 if code in ("InvalidAccessKeyId", "SignatureDoesNotMatch") else 400)


@pytest.mark.parametrize("minutes", [-16, 16])
def test_a_skewed_clock(auth: S3Auth, now: NowClock, minutes: int) -> None:
    request = AWSRequest("GET", HOST + "/bucket")
    S3SigV4Auth(KEYS, "s3", "us-east-1").add_auth(request)
    now.seconds += minutes * 60
    with pytest.raises(ClockSkewed):
        identify(auth, received(request))


@pytest.mark.parametrize("scheme", ["v4", "v2"])
def test_an_expired_link(auth: S3Auth, now: NowClock, scheme: str) -> None:
    request = AWSRequest("GET", HOST + "/bucket/key")
    (S3SigV4QueryAuth(KEYS, "s3", "us-east-1", expires=60) if scheme == "v4" else HmacV1QueryAuth(KEYS, expires=60)).add_auth(
        request
    )
    now.seconds += 59
    assert identify(auth, received(request)).access is not None
    now.seconds += 3
    with pytest.raises(BadSignature, match="expired"):
        identify(auth, received(request))


# ---- bodies


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class Signer:
    """Signs chunks as the S3 reference says, independently of the code under test."""

    def __init__(self, secret: str = "secret-ann") -> None:
        self.when = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        self.scope = f"{self.when[:8]}/us-east-1/s3/aws4_request"
        key = f"AWS4{secret}".encode()
        for part in self.scope.split("/"):
            key = hmac.new(key, part.encode(), "sha256").digest()
        self.key = key
        self.last = ""

    def sign(self, text: str) -> str:
        self.last = hmac.new(self.key, text.encode(), "sha256").hexdigest()
        return self.last

    def request(self, kind: str, decoded: int, extra: dict[str, str] | None = None) -> Request:
        headers = {
            "host": "h",
            "x-amz-content-sha256": kind,
            "x-amz-date": self.when,
            "x-amz-decoded-content-length": str(decoded),
            **(extra or {}),
        }
        names = sorted(headers)
        canonical = "PUT\n/b/k\n\n" + "".join(f"{name}:{headers[name]}\n" for name in names) + f"\n{';'.join(names)}\n{kind}"
        signature = self.sign(f"AWS4-HMAC-SHA256\n{self.when}\n{self.scope}\n{sha256(canonical.encode())}")
        headers["authorization"] = (
            f"AWS4-HMAC-SHA256 Credential=key-ann/{self.scope},SignedHeaders={';'.join(names)},Signature={signature}"
        )
        return Request("PUT", "/b/k", Headers(headers.items()), BytesBody())

    def chunk(self, data: bytes) -> bytes:
        text = f"AWS4-HMAC-SHA256-PAYLOAD\n{self.when}\n{self.scope}\n{self.last}\n{sha256(b'')}\n{sha256(data)}"
        return f"{len(data):x};chunk-signature={self.sign(text)}\r\n".encode() + data + (b"\r\n" if data else b"")

    def trailer(self, lines: dict[str, str]) -> bytes:
        plain = "".join(f"{name}:{value}\n" for name, value in lines.items())
        signature = self.sign(f"AWS4-HMAC-SHA256-TRAILER\n{self.when}\n{self.scope}\n{self.last}\n{sha256(plain.encode())}")
        return "".join(f"{name}:{value}\r\n" for name, value in {**lines, "x-amz-trailer-signature": signature}.items()).encode()


class Dribble(BytesBody):
    """Gives a few bytes at a time."""

    async def read(self, max_bytes: int = 1 << 20) -> bytes:
        return await super().read(min(max_bytes, 7))


async def read_payload(auth: S3Auth, request: Request, wire: bytes) -> bytes:
    request.body = Dribble(wire)
    body = await payload(request, identify(auth, request))
    data = b""
    while piece := await body.read(5):
        data += piece
        assert body.length is None or len(data) <= body.length
    return data


SIGNED = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"


def signed_chunks(pieces: list[bytes]) -> tuple[Request, bytes]:
    signer = Signer()
    request = signer.request(SIGNED, sum(map(len, pieces)))
    return request, b"".join(signer.chunk(piece) for piece in [*pieces, b""]) + b"\r\n"


@pytest.mark.parametrize("pieces", [[], [b"hello"], [b"x" * 64, b"y" * 3], [b"a", b"b", b"c"]])
async def test_signed_chunks(auth: S3Auth, pieces: list[bytes]) -> None:
    request, wire = signed_chunks(pieces)
    assert await read_payload(auth, request, wire) == b"".join(pieces)


async def test_signed_chunks_cut_anywhere_are_refused(auth: S3Auth) -> None:
    request, wire = signed_chunks([b"hello", b"world"])
    for end in range(len(wire)):
        with pytest.raises(BodyBroken):
            await read_payload(auth, request, wire[:end])


async def test_signed_chunks_changed_anywhere_are_refused(auth: S3Auth) -> None:
    request, wire = signed_chunks([b"hello", b"world"])
    for at in range(len(wire)):
        changed = wire[:at] + bytes((wire[at] ^ 1,)) + wire[at + 1 :]
        with pytest.raises(RingfortError):
            await read_payload(auth, request, changed)


async def test_chunks_in_another_order_are_refused(auth: S3Auth) -> None:
    signer = Signer()
    request = signer.request(SIGNED, 2)
    one, two, end = signer.chunk(b"1"), signer.chunk(b"2"), signer.chunk(b"")
    with pytest.raises(BadSignature):
        await read_payload(auth, request, two + one + end + b"\r\n")


CRC32_HELLO = base64.b64encode((0x3610A686).to_bytes(4, "big")).decode()


async def test_signed_trailer(auth: S3Auth) -> None:
    def wire(value: str, *, tamper: bytes = b"") -> tuple[Request, bytes]:
        signer = Signer()
        request = signer.request(f"{SIGNED}-TRAILER", 5, {"x-amz-trailer": "x-amz-checksum-crc32"})
        body = signer.chunk(b"hello") + signer.chunk(b"") + signer.trailer({"x-amz-checksum-crc32": value})
        return request, body.replace(tamper, tamper.upper()) + b"\r\n"

    assert await read_payload(auth, *wire(CRC32_HELLO)) == b"hello"
    with pytest.raises(BadChecksum):
        await read_payload(auth, *wire("AAAAAA=="))
    with pytest.raises(BadSignature):
        await read_payload(auth, *wire(CRC32_HELLO, tamper=CRC32_HELLO.encode()))


@pytest.mark.parametrize(
    ("wire", "error"),
    [
        (b"5\r\nhello\r\n0\r\nx-amz-checksum-crc32:" + CRC32_HELLO.encode() + b"\r\n\r\n", None),
        (b"2\r\nhe\r\n3\r\nllo\r\n0\r\nx-amz-checksum-crc32: " + CRC32_HELLO.encode() + b"\r\n\r\n", None),
        (b"5\r\nhello\r\n0\r\nx-amz-checksum-crc32:AAAAAA==\r\n\r\n", BadChecksum),
        (b"5\r\nhello\r\n0\r\n\r\n", BadRequest),
        (b"5\r\nhello\r\n0\r\nnonsense\r\n\r\n", BadRequest),
        (b"5\r\nhello\r\n0\r\n" + b"a:b\r\n" * 20 + b"\r\n", BadRequest),
        (b"4\r\nhell\r\n0\r\nx-amz-checksum-crc32:AAAAAA==\r\n\r\n", BodyBroken),
        (b"6\r\nhello!\r\n0\r\n\r\n", BodyBroken),
        (b"5\r\nhello", BodyBroken),
        (b"5\r\nhelloX\r\n", BodyBroken),
        (b"zz\r\n", BodyBroken),
        (b"-5\r\nhello\r\n", BodyBroken),
        (b"5" * 5000, BodyBroken),
        (b"ffffffffffffffff\r\nhello\r\n", BodyBroken),
        (b"", BodyBroken),
    ],
)
async def test_unsigned_trailer(auth: S3Auth, wire: bytes, error: type[Exception] | None) -> None:
    request = Signer().request("STREAMING-UNSIGNED-PAYLOAD-TRAILER", 5, {"x-amz-trailer": "x-amz-checksum-crc32"})
    if error is None:
        assert await read_payload(auth, request, wire) == b"hello"
        return
    with pytest.raises(error):
        await read_payload(auth, request, wire)


@pytest.mark.parametrize("data", [b"", b"hello"])
async def test_a_hashed_payload(auth: S3Auth, data: bytes) -> None:
    request = AWSRequest("PUT", HOST + "/b/k", data=data, headers={"Content-Length": str(len(data))})
    S3SigV4Auth(KEYS, "s3", "us-east-1").add_auth(request)
    arrived = received(request)
    assert await read_payload(auth, arrived, data) == data
    with pytest.raises(BadChecksum):
        await read_payload(auth, arrived, b"other")


def test_keys_are_derived_anew_each_day(auth: S3Auth, now: NowClock) -> None:
    request = AWSRequest("GET", HOST + "/bucket")
    S3SigV4Auth(KEYS, "s3", "us-east-1").add_auth(request)
    now.seconds += timedelta(minutes=10).total_seconds()
    assert identify(auth, received(request)).access is not None
    assert identify(auth, received(request)).access is not None
    assert len(auth._keys._keys) == 1
