"""S3's dialect over fakes: a signed request in, status, headers and XML out."""

from __future__ import annotations

import base64
import hashlib
import re

import pytest

from proxy.app import FrontDoor
from proxy.errors import BadSignature, Busy
from proxy.s3.errors import answer
from ring.errors import RingfortError, Unavailable
from storage.client.fake import FakeStorage
from tests.proxy.door import Answer, Client, S3Client


@pytest.fixture
def ann(front_door: FrontDoor) -> S3Client:
    return S3Client(front_door)


@pytest.fixture
def bob(front_door: FrontDoor) -> S3Client:
    return S3Client(front_door, "bob")


def md5(data: bytes) -> str:
    return hashlib.md5(data).hexdigest()


def code(answer: Answer) -> str:
    found = re.search(rb"<Code>(\w+)</Code>", answer.body)
    return found[1].decode() if found else ""


def tags(answer: Answer, name: str) -> list[str]:
    return re.findall(rf"<{name}>([^<]*)</{name}>", answer.body.decode())


async def test_the_life_of_a_bucket(ann: S3Client, bob: S3Client, front_door: FrontDoor) -> None:
    assert code(await ann("HEAD", "/pictures")) == "NoSuchBucket"
    assert (await ann("PUT", "/pictures")).status == 200
    assert (await ann("PUT", "/pictures")).status == 200  # again, by its owner
    assert code(await bob("PUT", "/pictures")) == "BucketAlreadyExists"
    assert code(await bob("GET", "/pictures")) == "AccessDenied"
    assert tags(await ann("GET", "/"), "Name") == ["pictures"]
    assert tags(await bob("GET", "/"), "Name") == []
    assert (await ann("HEAD", "/pictures")).status == 200
    assert b"<LocationConstraint" in (await ann("GET", "/pictures?location")).body
    assert b"<VersioningConfiguration" in (await ann("GET", "/pictures?versioning")).body
    await ann("PUT", "/pictures/o", body=b"x")
    assert code(await ann("DELETE", "/pictures")) == "BucketNotEmpty"
    await ann("DELETE", "/pictures/o")
    assert (await ann("DELETE", "/pictures")).status == 204
    assert (await bob("PUT", "/pictures")).status == 200
    assert code(await ann("GET", "/pictures")) == "AccessDenied"


@pytest.mark.parametrize(
    "name", ["v1", "auth", "info", "healthcheck", "endpoints", "ab", "A-B", "a..b", "-ab", "192.168.1.1", "a" * 64]
)
async def test_names_that_no_bucket_gets(ann: S3Client, name: str) -> None:
    assert (await ann("PUT", f"/{name}")).status == 400
    assert (await ann("GET", f"/{name}")).status == 404


@pytest.mark.parametrize(
    ("headers", "error"),
    [
        ({"x-amz-bucket-object-lock-enabled": "false"}, ""),
        ({"x-amz-bucket-object-lock-enabled": "true"}, "NotImplemented"),
        ({"x-amz-object-ownership": "BucketOwnerEnforced"}, ""),
        ({"x-amz-object-ownership": "ObjectWriter"}, "NotImplemented"),
        ({"x-amz-acl": "public-read-write"}, "NotImplemented"),
        ({"x-amz-grant-read": "id=1"}, "NotImplemented"),
    ],
)
async def test_what_a_bucket_can_be_asked_for(ann: S3Client, headers: dict[str, str], error: str) -> None:
    configuration = b"<CreateBucketConfiguration><LocationConstraint>here</LocationConstraint></CreateBucketConfiguration>"
    assert code(await ann("PUT", "/bucket", headers, configuration)) == error
    assert (await ann("HEAD", "/bucket")).status == (404 if error else 200)


async def test_a_name_whose_container_was_never_made_can_be_used_or_given_back(
    ann: S3Client, bob: S3Client, front_door: FrontDoor
) -> None:
    await front_door.claims.claim("bucket", "p1")
    assert code(await bob("PUT", "/bucket")) == "BucketAlreadyExists"
    assert code(await ann("GET", "/bucket")) == "NoSuchBucket"
    assert (await ann("PUT", "/bucket")).status == 200
    await ann("DELETE", "/bucket")
    await front_door.claims.claim("bucket", "p1")
    assert code(await ann("DELETE", "/bucket")) == "NoSuchBucket"
    assert (await bob("PUT", "/bucket")).status == 200


async def test_a_swift_container_is_a_bucket_while_nobody_holds_the_name(
    ann: S3Client, bob: S3Client, front_door: FrontDoor
) -> None:
    swift = Client(front_door, {"x-auth-token": "token-ann"})
    await swift("PUT", "/v1/AUTH_p1/Shared")
    await swift("PUT", "/v1/AUTH_p1/photos")
    await swift("PUT", "/v1/AUTH_p1/photos/o", {"x-object-meta-a": "b"}, b"x")
    got = await ann("GET", "/photos/o")
    assert (got.body, got["x-amz-meta-a"]) == (b"x", "b")
    assert tags(await ann("GET", "/"), "Name") == ["Shared", "photos"]
    assert code(await bob("GET", "/photos")) == "NoSuchBucket"
    assert (await bob("PUT", "/photos")).status == 200
    assert code(await ann("GET", "/photos/o")) == "AccessDenied"
    assert tags(await ann("GET", "/"), "Name") == ["Shared"]
    assert (await swift("GET", "/v1/AUTH_p1/photos/o")).body == b"x"


async def test_the_life_of_an_object(ann: S3Client, front_door: FrontDoor) -> None:
    await ann("PUT", "/bucket")
    headers = {
        "content-type": "text/x",
        "x-amz-meta-color": "blue",
        "content-encoding": "aws-chunked,gzip",
        "cache-control": "no-store",
        "content-md5": base64.b64encode(hashlib.md5(b"hello").digest()).decode(),
    }
    put = await ann("PUT", "/bucket/a//b/../%C3%B6", headers, b"hello")
    assert (put.status, put["etag"], put.body) == (200, f'"{md5(b"hello")}"', b"")
    assert put["x-amz-request-id"] == "tx-test"
    got = await ann("GET", "/bucket/a//b/../%C3%B6")
    assert (got.status, got.body, got["etag"], got["content-type"]) == (200, b"hello", f'"{md5(b"hello")}"', "text/x")
    assert (got["x-amz-meta-color"], got["content-encoding"], got["cache-control"]) == ("blue", "gzip", "no-store")
    assert got["last-modified"] == "Tue, 14 Nov 2023 22:13:21 GMT"
    part = await ann("GET", "/bucket/a//b/../%C3%B6", {"range": "bytes=1-2"})
    assert (part.status, part.body, part["content-range"]) == (206, b"el", "bytes 1-2/5")
    head = await ann("HEAD", "/bucket/a//b/../%C3%B6")
    assert (head.status, head.body) == (200, b"")
    swift = Client(front_door, {"x-auth-token": "token-ann"})
    assert (await swift("GET", "/v1/AUTH_p1/bucket/a//b/../%C3%B6"))["x-object-meta-color"] == "blue"
    named = await ann("GET", "/bucket/a//b/../%C3%B6?response-content-type=a%2Fb&response-content-disposition=x%C3%B6")
    assert (named["content-type"], named["content-disposition"]) == ("a/b", "x\xc3\xb6")
    assert (await ann("GET", "/bucket/a//b/../%C3%B6?response-content-type=a%0D%0Ab")).status == 400
    assert (await ann("DELETE", "/bucket/a//b/../%C3%B6")).status == 204
    assert (await ann("DELETE", "/bucket/a//b/../%C3%B6")).status == 204
    gone = await ann("GET", "/bucket/a//b/../%C3%B6")
    assert (gone.status, code(gone)) == (404, "NoSuchKey")
    assert gone.body.startswith(b'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>NoSuchKey</Code>')
    for method in ("GET", "PUT", "DELETE"):
        assert code(await ann(method, "/nothing-here/o")) == "NoSuchBucket"


CRC32 = "NhCmhg=="  # of "hello"


@pytest.mark.parametrize(
    ("headers", "error"),
    [
        ({"content-md5": base64.b64encode(bytes(16)).decode()}, "BadDigest"),
        ({"content-md5": "short"}, "InvalidDigest"),
        ({"x-amz-content-sha256": hashlib.sha256(b"hello").hexdigest()}, ""),
        ({"x-amz-content-sha256": hashlib.sha256(b"other").hexdigest()}, "XAmzContentSHA256Mismatch"),
        ({"x-amz-content-sha256": "nonsense"}, "InvalidArgument"),
        ({"x-amz-checksum-crc32": CRC32}, ""),
        ({"x-amz-checksum-crc32": "AAAAAA=="}, "BadDigest"),
        ({"x-amz-checksum-crc32": "AAAA"}, "InvalidRequest"),
        ({"x-amz-checksum-sha256": base64.b64encode(hashlib.sha256(b"hello").digest()).decode()}, ""),
        ({"x-amz-checksum-sha1": base64.b64encode(hashlib.sha1(b"other").digest()).decode()}, "BadDigest"),
        ({"x-amz-checksum-crc32c": "mnG7TA=="}, ""),
        ({"x-amz-checksum-crc32c": "AAAAAA=="}, "BadDigest"),
        ({"x-amz-checksum-crc64nvme": "AAAAAAAAAAA="}, "BadDigest"),
        ({"x-amz-checksum-crc64nvme": "AAAAAAA="}, "InvalidRequest"),
        ({"x-amz-checksum-md6": "AAAA"}, "InvalidRequest"),
        ({"x-amz-checksum-crc32": CRC32, "x-amz-checksum-sha1": "AAAA"}, "InvalidRequest"),
        ({"if-none-match": "*"}, ""),
        ({"if-match": "*"}, "NoSuchKey"),
        ({"x-amz-acl": "private"}, ""),
        ({"x-amz-acl": "public-read"}, "NotImplemented"),
        ({"x-amz-server-side-encryption": "AES256"}, "NotImplemented"),
        ({"x-amz-tagging": "a=b"}, "NotImplemented"),
        ({"x-amz-object-lock-mode": "COMPLIANCE"}, "NotImplemented"),
        ({"x-amz-storage-class": "STANDARD"}, ""),
        ({"x-amz-storage-class": "GLACIER"}, "InvalidStorageClass"),
        ({"x-amz-meta-a": "v" * 2049}, "MetadataTooLarge"),
    ],
)
async def test_what_a_put_is_held_to(ann: S3Client, headers: dict[str, str], error: str) -> None:
    await ann("PUT", "/bucket")
    put = await ann("PUT", "/bucket/o", headers, b"hello")
    assert code(put) == error
    got = await ann("GET", "/bucket/o", {"x-amz-checksum-mode": "ENABLED"})
    assert got.status == (404 if error else 200)
    for name, value in headers.items():
        if name.startswith("x-amz-checksum-") and not error:
            assert put[name] == got[name] == value


@pytest.mark.parametrize(
    ("method", "target", "error"),
    [
        ("DELETE", "/bucket?lifecycle", "NotImplemented"),
        ("DELETE", "/bucket?replication", "NotImplemented"),
        ("DELETE", "/bucket?encryption", "NotImplemented"),
        ("DELETE", "/bucket?policy", "NotImplemented"),
        ("PUT", "/bucket?versioning", "NotImplemented"),
        ("GET", "/bucket?versions", "NotImplemented"),
        ("GET", "/bucket?nonsense=1", "NotImplemented"),
        ("GET", "/bucket/o?attributes", "NotImplemented"),
        ("DELETE", "/bucket/o?tagging", "NotImplemented"),
        ("GET", "/bucket/o?versionId=1", "NotImplemented"),
        ("DELETE", "/bucket/o?versionId=1", "NotImplemented"),
        ("PUT", "/bucket/o?acl", "NotImplemented"),
        ("PUT", "/bucket/o?partNumber=1", "NotImplemented"),
        ("POST", "/bucket/o?restore", "NotImplemented"),
        ("POST", "/bucket", "NotImplemented"),
        ("PATCH", "/bucket/o", "MethodNotAllowed"),
        ("GET", "/bucket?acl&location", "InvalidArgument"),
        ("GET", "/bucket?max-keys=x", "InvalidArgument"),
        ("GET", "/bucket?list-type=3", "InvalidArgument"),
        ("GET", "/bucket?list-type=2&continuation-token=%21", "InvalidArgument"),
        ("GET", "/bucket?encoding-type=base64", "InvalidArgument"),
        ("GET", "/bucket?prefix=%00", "InvalidArgument"),
        ("GET", "/bucket/%00", "InvalidURI"),
        ("GET", "/%00bucket/o", "InvalidURI"),
        ("GET", "/%00AUTH_p1/o", "InvalidURI"),
        ("GET", "//o", "InvalidURI"),
        ("GET", "/bucket/" + "k" * 1025, "KeyTooLongError"),
        ("PUT", "/bucket/" + "%C3%B6" * 513, "KeyTooLongError"),
    ],
)
async def test_what_is_refused(ann: S3Client, method: str, target: str, error: str) -> None:
    await ann("PUT", "/bucket")
    answer = await ann(method, target)
    assert code(answer) == error
    assert (await ann("HEAD", "/bucket")).status == 200


async def test_broken_encodings(front_door: FrontDoor) -> None:
    anybody = Client(front_door)
    for target in ("/bucket/%ff", "/bucket/%2", "/bucket?prefix=%ff"):
        assert code(await anybody("GET", target)) == "InvalidURI"


async def test_strangers(front_door: FrontDoor, ann: S3Client) -> None:
    await ann("PUT", "/bucket")
    await ann("PUT", "/bucket/o", body=b"x")
    anybody = Client(front_door)
    assert code(await anybody("GET", "/")) == "AccessDenied"
    assert code(await anybody("GET", "/bucket/o")) == "AccessDenied"
    assert code(await anybody("PUT", "/bucket/p", body=b"x")) == "AccessDenied"
    assert code(await anybody("GET", "/unknown/o")) == "NoSuchBucket"
    await Client(front_door, {"x-auth-token": "token-ann"})("POST", "/v1/AUTH_p1/bucket", {"x-container-read": ".r:*"})
    assert (await anybody("GET", "/bucket/o")).body == b"x"
    assert code(await anybody("GET", "/bucket/o?response-content-type=a")) == "InvalidRequest"
    assert code(await anybody("GET", "/bucket")) == "AccessDenied"


async def test_virtual_hosts(front_door: FrontDoor, ann: S3Client) -> None:
    await ann("PUT", "/bucket")
    virtual = S3Client(front_door, host="bucket.s3.example:8080")
    assert (await virtual("PUT", "/v1/o", body=b"x")).status == 200
    assert (await virtual("GET", "/v1/o")).body == b"x"
    assert tags(await virtual("GET", "/"), "Key") == ["v1/o"]
    assert (await ann("GET", "/bucket/v1/o")).body == b"x"


KEYS = ["a/1", "a/2", "a/b/3", "b", "c d&<e>", "tab\tx"]


@pytest.fixture
async def filled(ann: S3Client) -> S3Client:
    await ann("PUT", "/bucket")
    for key in ("a/1", "a/2", "a/b/3", "b", "c%20d&%3Ce%3E", "tab%09x"):
        await ann("PUT", f"/bucket/{key}", body=b"xy")
    return ann


@pytest.mark.parametrize(
    ("query", "keys", "prefixes", "truncated"),
    [
        ("", ["a/1", "a/2", "a/b/3", "b", "c d&amp;&lt;e&gt;", "tab&#x9;x"], [], "false"),
        ("encoding-type=url", ["a/1", "a/2", "a/b/3", "b", "c%20d%26%3Ce%3E", "tab%09x"], [], "false"),
        ("max-keys=2", ["a/1", "a/2"], [], "true"),
        ("max-keys=0", [], [], "false"),
        ("max-keys=5000&prefix=b", ["b"], [], "false"),
        ("prefix=a/", ["a/1", "a/2", "a/b/3"], [], "false"),
        ("delimiter=/", ["b", "c d&amp;&lt;e&gt;", "tab&#x9;x"], ["a/"], "false"),
        ("delimiter=/&prefix=a/", ["a/1", "a/2"], ["a/b/"], "false"),
        ("delimiter=/&max-keys=1", [], ["a/"], "true"),
    ],
)
@pytest.mark.parametrize("version", ["1", "2"])
async def test_listings(filled: S3Client, version: str, query: str, keys: list[str], prefixes: list[str], truncated: str) -> None:
    answer = await filled("GET", f"/bucket?{'list-type=2&' if version == '2' else ''}{query}".rstrip("?&"))
    assert answer.status == 200
    assert tags(answer, "Key") == keys
    assert re.findall("<CommonPrefixes><Prefix>([^<]*)</Prefix>", answer.body.decode()) == prefixes
    assert tags(answer, "IsTruncated") == [truncated]
    assert len(tags(answer, "KeyCount")) == (version == "2")


async def test_pages(filled: S3Client) -> None:
    seen: list[str] = []
    token = ""
    for _ in range(10):
        answer = await filled("GET", f"/bucket?list-type=2&max-keys=1&delimiter=/{token}")
        seen += tags(answer, "Key") + re.findall("<CommonPrefixes><Prefix>([^<]*)</Prefix>", answer.body.decode())
        tokens = tags(answer, "NextContinuationToken")
        if not tokens:
            break
        token = f"&continuation-token={tokens[0].replace('=', '%3D')}"
    assert seen == ["a/", "b", "c d&amp;&lt;e&gt;", "tab&#x9;x"]
    assert tags(await filled("GET", "/bucket?marker=a/2&max-keys=1"), "NextMarker") == ["a/b/3"]
    after = await filled("GET", "/bucket?list-type=2&start-after=b&fetch-owner=true")
    assert tags(after, "Key") == ["c d&amp;&lt;e&gt;", "tab&#x9;x"]
    assert tags(after, "ID") == ["p1", "p1"]


async def test_many_deletes(filled: S3Client) -> None:
    keys = (b"a/1", b"none", b"c d&amp;&lt;e&gt;")
    body = b"<Delete>" + b"".join(b"<Object><Key>%b</Key></Object>" % key for key in keys) + b"</Delete>"
    answer = await filled("POST", "/bucket?delete", body=body)
    assert tags(answer, "Key") == ["a/1", "none", "c d&amp;&lt;e&gt;"]
    assert answer.body.count(b"<Deleted>") == 3
    quiet = b'<Delete xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Quiet>true</Quiet><Object><Key>b</Key></Object></Delete>'
    assert b"<Deleted>" not in (await filled("POST", "/bucket?delete", body=quiet)).body
    assert tags(await filled("GET", "/bucket"), "Key") == ["a/2", "a/b/3", "tab&#x9;x"]


BILLION = (
    b'<!DOCTYPE l [<!ENTITY a0 "aaaaaaaaaa">'
    + b"".join(b'<!ENTITY a%d "%b">' % (n, b"&a%d;" % (n - 1) * 10) for n in range(1, 9))
    + b"]><Delete><Object><Key>&a8;</Key></Object></Delete>"
)


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"", "MalformedXML"),
        (b"<Delete>", "MalformedXML"),
        (b"<Delete></Delete>", "MalformedXML"),
        (b"<Other><Object><Key>k</Key></Object></Other>", "MalformedXML"),
        (b"<Delete><Object></Object></Delete>", "MalformedXML"),
        (b"<Delete>" + b"<Object><Key>k</Key></Object>" * 1001 + b"</Delete>", "MalformedXML"),
        (b"<?xml version='1.0' encoding='no-such'?><Delete/>", "MalformedXML"),
        (b"\xff\xfe<Delete/>", "MalformedXML"),
        (BILLION, "MalformedXML"),
        (b'<!DOCTYPE d SYSTEM "file:///etc/passwd"><Delete><Object><Key>k</Key></Object></Delete>', "MalformedXML"),
        (b"<Delete>" + b"x" * (3 << 20) + b"</Delete>", "MaxMessageLengthExceeded"),
        (b"<Delete><Object><Key>a/1</Key><VersionId>1</VersionId></Object></Delete>", "NotImplemented"),
    ],
)
async def test_bad_documents(filled: S3Client, body: bytes, error: str) -> None:
    for chunked in (False, True):
        assert code(await filled("POST", "/bucket?delete", body=body, chunked=chunked)) == error
    assert len(tags(await filled("GET", "/bucket"), "Key")) == len(KEYS)


async def test_copies(ann: S3Client, bob: S3Client) -> None:
    await ann("PUT", "/bucket")
    await bob("PUT", "/others")
    await bob("PUT", "/others/secret", body=b"s")
    await ann("PUT", "/bucket/o", {"x-amz-meta-a": "1", "content-type": "text/x"}, b"data")
    copied = await ann("PUT", "/bucket/p", {"x-amz-copy-source": "/bucket/o"})
    assert (copied.status, tags(copied, "ETag")) == (200, [f"&quot;{md5(b'data')}&quot;"])
    got = await ann("GET", "/bucket/p")
    assert (got.body, got["x-amz-meta-a"], got["content-type"]) == (b"data", "1", "text/x")
    replaced = {"x-amz-metadata-directive": "REPLACE", "x-amz-meta-b": "2", "x-amz-copy-source": "bucket/o"}
    assert (await ann("PUT", "/bucket/o", replaced)).status == 200  # onto itself: rclone's way to set a time
    got = await ann("GET", "/bucket/o")
    assert (got.body, got["x-amz-meta-b"], got["content-type"]) == (b"data", "2", "binary/octet-stream")
    assert "x-amz-meta-a" not in got.headers
    for source, more, error in (
        ("bucket/o", {}, "InvalidRequest"),
        ("bucket", {}, "InvalidArgument"),
        ("%ff/o", {}, "InvalidArgument"),
        ("bucket/%00", {}, "InvalidURI"),
        ("bucket/none", {}, "NoSuchKey"),
        ("no-bucket/o", {}, "NoSuchBucket"),
        ("others/secret", {}, "AccessDenied"),
        ("bucket/p?versionId=7", {}, "NotImplemented"),
        ("bucket/p", {"x-amz-copy-source-if-match": "other"}, "PreconditionFailed"),
        ("bucket/p", {"x-amz-copy-source-if-none-match": md5(b"data")}, "PreconditionFailed"),
        ("bucket/p", {"x-amz-metadata-directive": "GUESS"}, "InvalidArgument"),
    ):
        assert code(await ann("PUT", "/bucket/o", {"x-amz-copy-source": source, **more})) == error, source


async def test_storage_that_cannot_answer(ann: S3Client, storage: FakeStorage) -> None:
    await ann("PUT", "/bucket")
    storage.fail_next.append(Unavailable("too few"))
    answer = await ann("GET", "/bucket/o")
    assert (answer.status, code(answer)) == (503, "ServiceUnavailable")


async def test_paths_of_swift_are_no_buckets(front_door: FrontDoor, ann: S3Client) -> None:
    anybody = Client(front_door)
    info = await anybody("GET", "/info")
    assert (info.status, b'"swift"' in info.body) == (200, True)
    assert (await anybody("GET", "/healthcheck")).body == b"OK"
    assert (await anybody("GET", "/auth/v1.0")).status == 404
    assert (await anybody("GET", "/v1/AUTH_p1")).status == 401
    assert code(await ann("GET", "/v1/AUTH_p1")) == "NoSuchBucket"


@pytest.mark.parametrize(
    ("subresource", "status", "answer"),
    [
        ("accelerate", 200, "AccelerateConfiguration"),
        ("cors", 404, "NoSuchCORSConfiguration"),
        ("encryption", 404, "ServerSideEncryptionConfigurationNotFoundError"),
        ("lifecycle", 404, "NoSuchLifecycleConfiguration"),
        ("logging", 200, "BucketLoggingStatus"),
        ("notification", 200, "NotificationConfiguration"),
        ("object-lock", 404, "ObjectLockConfigurationNotFoundError"),
        ("ownershipControls", 200, "BucketOwnerEnforced"),
        ("policy", 404, "NoSuchBucketPolicy"),
        ("publicAccessBlock", 404, "NoSuchPublicAccessBlockConfiguration"),
        ("replication", 404, "ReplicationConfigurationNotFoundError"),
        ("requestPayment", 200, "BucketOwner"),
        ("tagging", 404, "NoSuchTagSet"),
        ("website", 404, "NoSuchWebsiteConfiguration"),
    ],
)
async def test_what_a_bucket_was_never_set_to(ann: S3Client, bob: S3Client, subresource: str, status: int, answer: str) -> None:
    await ann("PUT", "/bucket")
    got = await ann("GET", f"/bucket?{subresource}")
    assert (got.status, answer in got.body.decode()) == (status, True)
    assert code(await bob("GET", f"/bucket?{subresource}")) == "AccessDenied"
    assert code(await ann("GET", f"/nowhere?{subresource}")) == "NoSuchBucket"
    for method in ("PUT", "DELETE"):
        assert code(await ann(method, f"/bucket?{subresource}")) == "NotImplemented"
    assert (await ann("HEAD", "/bucket")).status == 200


async def test_what_an_object_was_never_set_to(ann: S3Client) -> None:
    await ann("PUT", "/bucket")
    await ann("PUT", "/bucket/o", body=b"x")
    assert b"<TagSet></TagSet>" in (await ann("GET", "/bucket/o?tagging")).body
    assert code(await ann("GET", "/bucket/o?retention")) == "NoSuchObjectLockConfiguration"
    assert code(await ann("GET", "/bucket/none?tagging")) == "NoSuchKey"
    assert code(await ann("PUT", "/bucket/o?tagging", body=b"<Tagging/>")) == "NotImplemented"
    assert (await ann("GET", "/bucket/o")).body == b"x"
    assert code(await ann("OPTIONS", "/bucket/o", {"origin": "http://x"})) == "AccessForbidden"


@pytest.mark.parametrize(("digest", "error"), [(hashlib.md5(b"").digest(), "BadDigest"), (None, "")])
async def test_many_deletes_with_content_md5(ann: S3Client, digest: bytes | None, error: str) -> None:
    await ann("PUT", "/bucket")
    await ann("PUT", "/bucket/o", body=b"x")
    document = b"<Delete><Object><Key>o</Key></Object></Delete>"
    digest = digest or hashlib.md5(document).digest()
    deleted = await ann("POST", "/bucket?delete", {"content-md5": base64.b64encode(digest).decode()}, document)
    assert code(deleted) == error
    assert (await ann("HEAD", "/bucket/o")).status == (200 if error else 404)


async def test_a_checksum_in_a_trailer_is_kept(ann: S3Client) -> None:
    await ann("PUT", "/bucket")
    headers = {
        "x-amz-content-sha256": "STREAMING-UNSIGNED-PAYLOAD-TRAILER",
        "x-amz-decoded-content-length": "5",
        "x-amz-trailer": "x-amz-checksum-crc32",
    }
    body = b"5\r\nhello\r\n0\r\nx-amz-checksum-crc32:" + CRC32.encode() + b"\r\n\r\n"
    put = await ann("PUT", "/bucket/o", headers, body)
    got = await ann("GET", "/bucket/o", {"x-amz-checksum-mode": "ENABLED"})
    assert put["x-amz-checksum-crc32"] == got["x-amz-checksum-crc32"] == CRC32
    assert "x-amz-checksum-crc32" not in (await ann("GET", "/bucket/o")).headers


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (BadSignature("Request has expired", code="AccessDenied"), b"<Message>Request has expired</Message>"),
        (Unavailable("2 of 3 are away"), b"<Message>Service is unable to handle request.</Message>"),
        (Busy("full"), b"<Message>Please reduce your request rate.</Message>"),
    ],
)
def test_the_words_of_an_error(error: RingfortError, message: bytes) -> None:
    body = answer(error, "/bucket", "tx").body
    assert isinstance(body, bytes) and message in body
