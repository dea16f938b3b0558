"""Objects in parts: uploads over S3 read by both dialects, their states, and the sweeper that removes what nobody owns."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path as FilePath

import pytest

from proxy.app import FrontDoor
from proxy.large import manifest, records
from proxy.large.manifest import Manifest, Part, Stretch
from ring.daemon.worker import Busy, Idle
from ring.errors import FormatError, Unavailable
from ring.names import HIDDEN, Path
from ring.wire.message import BytesBody
from storage.client.interface import NewObject, Query, Row
from tests.proxy.door import Answer, Client, FaultyStorage, S3Client, StillClock

GOLDEN = FilePath(__file__).parents[1] / "golden"
PARTS = (Part(1, "parts/0a/00001/01", 5, "5d41402abc4b2a76b9719d911017c592"), Part(3, "parts/0a/00003/02", 2, "0" * 32))
HIDDEN_CONTAINER = Path(HIDDEN + "AUTH_p1", "bucket")


@pytest.fixture
async def ann(front_door: FrontDoor) -> S3Client:
    client = S3Client(front_door)
    await client("PUT", "/bucket")
    return client


@pytest.fixture
def swift(front_door: FrontDoor) -> Client:
    return Client(front_door, {"x-auth-token": "token-ann"})


def tag(answer: Answer, name: str) -> str:
    found = re.search(rf"<{name}>([^<]*)</{name}>", answer.body.decode())
    return found[1] if found else ""


async def begin(ann: S3Client, key: str = "big") -> str:
    headers = {"x-amz-meta-a": "b", "content-type": "text/x"}
    return tag(await ann("POST", f"/bucket/{key}?uploads", headers), "UploadId")


async def send(ann: S3Client, upload: str, number: int, data: bytes, key: str = "big") -> str:
    answer = await ann("PUT", f"/bucket/{key}?partNumber={number}&uploadId={upload}", body=data)
    assert answer.status == 200
    return answer["etag"]


def listed(parts: list[tuple[int, str]]) -> bytes:
    rows = "".join(f"<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>" for number, etag in parts)
    return f"<CompleteMultipartUpload>{rows}</CompleteMultipartUpload>".encode()


async def finish(ann: S3Client, upload: str, parts: list[tuple[int, str]], headers: dict[str, str] | None = None) -> Answer:
    return await ann("POST", f"/bucket/big?uploadId={upload}", headers, listed(parts))


async def upload(ann: S3Client, pieces: list[bytes]) -> str:
    upload_id = await begin(ann)
    parts = [(number, await send(ann, upload_id, number, piece)) for number, piece in enumerate(pieces, 1)]
    assert (await finish(ann, upload_id, parts)).status == 200
    return upload_id


async def hidden_names(storage: FaultyStorage) -> list[str]:
    page = await storage.list_container(HIDDEN_CONTAINER, Query())
    return [item.name for item in page.items]


def etag_of(pieces: list[bytes]) -> str:
    digests = b"".join(hashlib.md5(piece).digest() for piece in pieces)
    return f"{hashlib.md5(digests).hexdigest()}-{len(pieces)}"


PIECES = [b"01234", b"56789abc", b"de"]


async def test_an_upload_reads_as_one_body_in_both_dialects(ann: S3Client, swift: Client) -> None:
    await upload(ann, PIECES)
    whole = b"".join(PIECES)
    got = await ann("GET", "/bucket/big")
    assert (got.status, got.body, got["etag"], got["x-amz-meta-a"]) == (200, whole, f'"{etag_of(PIECES)}"', "b")
    head = await ann("HEAD", "/bucket/big")
    assert (head.status, head["etag"], head["content-type"]) == (200, f'"{etag_of(PIECES)}"', "text/x")
    got = await swift("GET", "/v1/AUTH_p1/bucket/big")
    assert (got.body, got["etag"], got["x-object-meta-a"]) == (whole, etag_of(PIECES), "b")
    assert not [name for name in got.headers if "sysmeta" in name]
    listing = await swift("GET", "/v1/AUTH_p1/bucket?format=json")
    assert f'"hash":"{etag_of(PIECES)}","bytes":15'.encode() in listing.body
    account = await swift("HEAD", "/v1/AUTH_p1")
    assert (account["x-account-container-count"], account["x-account-bytes-used"]) == ("1", "15")


@pytest.mark.parametrize(("first", "last"), [(0, 0), (0, 4), (4, 5), (3, 14), (5, 12), (13, 99), (14, 14)])
async def test_ranges_across_parts(ann: S3Client, first: int, last: int) -> None:
    await upload(ann, PIECES)
    got = await ann("GET", "/bucket/big", {"range": f"bytes={first}-{last}"})
    assert (got.status, got.body) == (206, b"".join(PIECES)[first : last + 1])
    assert got["content-range"] == f"bytes {first}-{min(last, 14)}/15"


async def test_other_reads_of_a_manifest(ann: S3Client) -> None:
    await upload(ann, PIECES)
    assert (await ann("GET", "/bucket/big", {"range": "bytes=-3"})).body == b"cde"
    assert (await ann("GET", "/bucket/big", {"range": "bytes=15-"})).status == 416
    assert (await ann("GET", "/bucket/big", {"if-match": f'"{etag_of(PIECES)}"'})).status == 200
    assert (await ann("GET", "/bucket/big", {"if-none-match": f'"{etag_of(PIECES)}"'})).status == 304
    part = await ann("GET", "/bucket/big?partNumber=2")
    assert (part.status, part.body, part["x-amz-mp-parts-count"]) == (206, PIECES[1], "3")
    assert part["content-range"] == "bytes 5-12/15"
    assert (await ann("HEAD", "/bucket/big?partNumber=3"))["x-amz-mp-parts-count"] == "3"
    assert (await ann("GET", "/bucket/big?partNumber=4")).status == 416
    await ann("PUT", "/bucket/copy", {"x-amz-copy-source": "bucket/big"})
    copy = await ann("GET", "/bucket/copy")
    assert (copy.body, copy["etag"]) == (b"".join(PIECES), f'"{hashlib.md5(b"".join(PIECES)).hexdigest()}"')
    changed = {"x-amz-copy-source": "bucket/big", "x-amz-metadata-directive": "REPLACE", "x-amz-meta-c": "d"}
    assert (await ann("PUT", "/bucket/big", changed)).status == 200
    got = await ann("GET", "/bucket/big")
    assert (got.body, got["etag"], got["x-amz-meta-c"]) == (b"".join(PIECES), f'"{etag_of(PIECES)}"', "d")


async def test_conditional_writes_know_a_manifest_by_the_etag_that_clients_see(ann: S3Client) -> None:
    await upload(ann, PIECES)
    assert (await ann("PUT", "/bucket/big", {"if-match": '"' + "0" * 32 + '-3"'}, b"x")).status == 412
    assert (await ann("PUT", "/bucket/big", {"if-match": f'"{etag_of(PIECES)}"'}, b"x")).status == 200


async def test_a_large_part_streams(ann: S3Client) -> None:
    pieces = [b"x" * 90_000, b"y" * 90_000]
    await upload(ann, pieces)
    assert (await ann("GET", "/bucket/big")).body == b"".join(pieces)
    assert (await ann("GET", "/bucket/big", {"range": "bytes=1-179998"})).body == b"".join(pieces)[1:-1]


async def test_a_part_sent_again_replaces_the_first(ann: S3Client) -> None:
    upload_id = await begin(ann)
    old = await send(ann, upload_id, 1, b"first")
    new = await send(ann, upload_id, 1, b"second")
    page = await ann("GET", f"/bucket/big?uploadId={upload_id}")
    assert (page.body.count(b"<Part>"), tag(page, "Size")) == (1, "6")
    assert tag(await finish(ann, upload_id, [(1, old)]), "Code") == "InvalidPart"
    assert (await finish(ann, upload_id, [(1, new)])).status == 200
    assert (await ann("GET", "/bucket/big")).body == b"second"


async def test_what_complete_refuses(ann: S3Client) -> None:
    upload_id = await begin(ann)
    small, large = await send(ann, upload_id, 1, b"1"), await send(ann, upload_id, 2, b"22222")
    for parts, error in (
        ([], "MalformedXML"),
        ([(2, large), (1, small)], "InvalidPartOrder"),
        ([(1, small), (1, small)], "InvalidPartOrder"),
        ([(1, small), (2, large)], "EntityTooSmall"),
        ([(3, large)], "InvalidPart"),
        ([(1, large)], "InvalidPart"),
    ):
        assert tag(await finish(ann, upload_id, parts), "Code") == error
    assert (
        tag(await ann("POST", f"/bucket/big?uploadId={upload_id}", body=b"<CompleteMultipartUpload><Part>"), "Code")
        == "MalformedXML"
    )
    assert tag(await ann("POST", f"/bucket/other?uploadId={upload_id}", body=listed([(2, large)])), "Code") == "NoSuchUpload"
    assert tag(await ann("POST", "/bucket/big?uploadId=../../x", body=listed([(2, large)])), "Code") == "NoSuchUpload"
    await ann("PUT", "/bucket/big", body=b"there")
    assert tag(await finish(ann, upload_id, [(2, large)], {"if-none-match": "*"}), "Code") == "PreconditionFailed"
    assert (await finish(ann, upload_id, [(2, large)])).status == 200  # the upload stayed open


async def test_complete_again_is_answered_again(ann: S3Client) -> None:
    upload_id = await begin(ann)
    etag = await send(ann, upload_id, 1, b"data")
    first = await finish(ann, upload_id, [(1, etag)])
    again = await finish(ann, upload_id, [(1, etag)])
    assert (again.status, tag(again, "ETag")) == (200, tag(first, "ETag"))
    assert tag(await ann("DELETE", f"/bucket/big?uploadId={upload_id}"), "Code") == "NoSuchUpload"
    late = await ann("PUT", f"/bucket/big?partNumber=1&uploadId={upload_id}", body=b"late")
    assert tag(late, "Code") == "NoSuchUpload"
    await ann("DELETE", "/bucket/big")
    assert tag(await finish(ann, upload_id, [(1, etag)]), "Code") == "NoSuchUpload"  # no delete resurrects


async def test_a_complete_that_storage_cut_short_can_be_repeated_but_not_aborted(ann: S3Client, storage: FaultyStorage) -> None:
    upload_id = await begin(ann)
    one, two = await send(ann, upload_id, 1, b"11111"), await send(ann, upload_id, 2, b"2")
    storage.lost = lambda call, path: call == "put" and path.account == "AUTH_p1"
    assert (await finish(ann, upload_id, [(1, one), (2, two)])).status == 503
    storage.lost = lambda call, path: False
    assert tag(await ann("DELETE", f"/bucket/big?uploadId={upload_id}"), "Code") == "OperationAborted"
    assert tag(await finish(ann, upload_id, [(1, one)]), "Code") == "OperationAborted"
    assert (await finish(ann, upload_id, [(1, one), (2, two)])).status == 200
    assert (await ann("GET", "/bucket/big")).body == b"111112"


async def test_abort_removes_all(ann: S3Client, storage: FaultyStorage) -> None:
    upload_id = await begin(ann)
    await send(ann, upload_id, 1, b"data")
    assert (await ann("DELETE", f"/bucket/big?uploadId={upload_id}")).status == 204
    assert await hidden_names(storage) == []
    assert tag(await ann("DELETE", f"/bucket/big?uploadId={upload_id}"), "Code") == "NoSuchUpload"
    assert tag(await ann("GET", f"/bucket/big?uploadId={upload_id}"), "Code") == "NoSuchUpload"


async def test_parts_copied_from_objects(ann: S3Client) -> None:
    await ann("PUT", "/bucket/source", body=b"0123456789")
    upload_id = await begin(ann)
    target = f"/bucket/big?partNumber=%d&uploadId={upload_id}"
    one = await ann("PUT", target % 1, {"x-amz-copy-source": "bucket/source", "x-amz-copy-source-range": "bytes=2-8"})
    two = await ann("PUT", target % 2, {"x-amz-copy-source": "bucket/source"})
    assert (one.status, tag(one, "ETag")) == (200, f"&quot;{hashlib.md5(b'2345678').hexdigest()}&quot;")
    for extra, error in (
        ({"x-amz-copy-source-range": "bytes=2-"}, "InvalidArgument"),
        ({"x-amz-copy-source-range": "bytes=2-10"}, "InvalidArgument"),
        ({"x-amz-copy-source-range": "bytes=20-21"}, "InvalidRange"),
        ({"x-amz-copy-source-if-match": "x"}, "PreconditionFailed"),
    ):
        assert tag(await ann("PUT", target % 3, {"x-amz-copy-source": "bucket/source", **extra}), "Code") == error
    parts = [(n, tag(answer, "ETag").replace("&quot;", '"')) for n, answer in ((1, one), (2, two))]
    assert (await finish(ann, upload_id, parts)).status == 200
    assert (await ann("GET", "/bucket/big")).body == b"23456780123456789"


async def test_listings_of_uploads_and_parts(ann: S3Client) -> None:
    ids = [await begin(ann, key) for key in ("b", "a%20x", "b")]
    page = await ann("GET", "/bucket?uploads&encoding-type=url")
    assert re.findall("<Key>([^<]*)</Key>", page.body.decode()) == ["a%20x", "b", "b"]
    assert re.findall("<UploadId>([^<]*)</UploadId>", page.body.decode()) == [ids[1], *sorted((ids[0], ids[2]))]
    page = await ann("GET", "/bucket?uploads&max-uploads=1&prefix=b")
    assert (tag(page, "IsTruncated"), tag(page, "NextKeyMarker")) == ("true", "b")
    page = await ann("GET", f"/bucket?uploads&key-marker=b&upload-id-marker={tag(page, 'NextUploadIdMarker')}")
    assert re.findall("<Key>([^<]*)</Key>", page.body.decode()) == ["b"]
    for number in (1, 2, 10):
        await send(ann, ids[0], number, b"x", "b")
    page = await ann("GET", f"/bucket/b?uploadId={ids[0]}&max-parts=2")
    assert re.findall("<PartNumber>([^<]*)</PartNumber>", page.body.decode()) == ["1", "2"]
    assert (tag(page, "IsTruncated"), tag(page, "NextPartNumberMarker")) == ("true", "2")
    page = await ann("GET", f"/bucket/b?uploadId={ids[0]}&part-number-marker=2")
    assert re.findall("<PartNumber>([^<]*)</PartNumber>", page.body.decode()) == ["10"]
    assert tag(await ann("PUT", f"/bucket/b?partNumber=10001&uploadId={ids[0]}", body=b"x"), "Code") == "InvalidArgument"
    assert tag(await ann("POST", "/none/b?uploads"), "Code") == "NoSuchBucket"


# ---- the sweeper


@pytest.mark.parametrize("how", ["deleted by S3", "replaced by S3", "deleted by Swift", "replaced by another upload"])
async def test_parts_of_a_lost_manifest_go_after_the_grace(
    front_door: FrontDoor, ann: S3Client, swift: Client, storage: FaultyStorage, clock: StillClock, how: str
) -> None:
    sweeper = front_door.sweeper
    upload_id = await upload(ann, PIECES)
    clock.seconds += 1e6
    await sweeper.run_once()
    assert (await ann_at(ann, clock)("GET", "/bucket/big")).body == b"".join(PIECES)
    client = ann_at(ann, clock)
    if how == "deleted by S3":
        await client("DELETE", "/bucket/big")
    elif how == "replaced by S3":
        await client("PUT", "/bucket/big", body=b"new")
    elif how == "deleted by Swift":
        await swift("DELETE", "/v1/AUTH_p1/bucket/big")
    else:
        await upload(client, [b"other"])
    await sweeper.run_once()
    assert len([name for name in await hidden_names(storage) if upload_id in name]) == 4  # someone may still be reading
    clock.seconds += 3601
    await sweeper.run_once()
    assert not [name for name in await hidden_names(storage) if upload_id in name]
    if how == "replaced by another upload":
        assert (await ann_at(ann, clock)("GET", "/bucket/big")).body == b"other"


def ann_at(ann: S3Client, clock: StillClock) -> S3Client:
    ann.seconds = clock.seconds
    return ann


async def test_storage_that_cannot_answer_costs_no_part(
    front_door: FrontDoor, ann: S3Client, storage: FaultyStorage, clock: StillClock
) -> None:
    await upload(ann, PIECES)
    storage.lost = lambda call, path: call == "head"
    for _ in range(2):
        failures = 0
        busy: Busy | Idle = Busy()
        while isinstance(busy, Busy):
            try:
                busy = await front_door.sweeper.work()
            except Unavailable:
                failures += 1
        assert failures == 1
        clock.seconds += 1e6
    storage.lost = lambda call, path: False
    await front_door.sweeper.run_once()
    assert (await ann_at(ann, clock)("GET", "/bucket/big")).body == b"".join(PIECES)


async def test_parts_that_a_manifest_does_not_name_go(
    front_door: FrontDoor, ann: S3Client, storage: FaultyStorage, clock: StillClock
) -> None:
    upload_id = await begin(ann)
    await send(ann, upload_id, 1, b"first")
    etag = await send(ann, upload_id, 1, b"second")
    await send(ann, upload_id, 2, b"unused")
    await finish(ann, upload_id, [(1, etag)])
    clock.seconds += 86_401
    await front_door.sweeper.run_once()
    assert len([name for name in await hidden_names(storage) if name.startswith("parts/")]) == 1
    assert (await ann_at(ann, clock)("GET", "/bucket/big")).body == b"second"
    page = await storage.list_container(HIDDEN_CONTAINER, Query(prefix="uploads/"))
    assert [records.state_of(row.content_type) for row in page.items if isinstance(row, Row)] == [records.State.SETTLED]


async def test_forgotten_parts_and_the_shelf_itself_go(
    front_door: FrontDoor, ann: S3Client, storage: FaultyStorage, clock: StillClock
) -> None:
    upload_id = await begin(ann)
    assert (await ann("DELETE", f"/bucket/big?uploadId={upload_id}")).status == 204
    late = Path(HIDDEN_CONTAINER.account, "bucket", records.part_name(upload_id, 1, "0" * 32))
    await storage.put_object(late, NewObject(), BytesBody(b"late"))
    await front_door.sweeper.run_once()
    assert await hidden_names(storage) == [late.object]
    clock.seconds += 86_401
    await front_door.sweeper.run_once()
    assert await hidden_names(storage) == []
    await storage.delete_container(Path("AUTH_p1", "bucket"))
    await front_door.sweeper.run_once()
    page = await storage.list_account(Path(HIDDEN_CONTAINER.account), Query())
    assert page.items == []


# ---- formats


def test_golden_manifest() -> None:
    made = Manifest("0a" * 16, PARTS)
    assert made.encode() == (GOLDEN / "manifest.json").read_bytes()
    assert manifest.decode(made.encode()) == made
    for harmed in (
        b"",
        b"[]",
        b'{"v":2,"upload":"x","parts":[]}',
        b'{"v":1,"upload":"x"}',
        b'{"v":1,"upload":"x","parts":[[1,"n",-1]]}',
    ):
        with pytest.raises(FormatError):
            manifest.decode(harmed)


def test_golden_record() -> None:
    record = records.Record(
        1, records.State.COMPLETING, "0b" * 16, "kéy/1", "text/plain", {"x-object-meta-a": "b"}, 1700000000.5, PARTS
    )
    assert records.encode(record) == (GOLDEN / "upload-record.json").read_bytes()
    assert records.decode(records.encode(record)) == record
    for harmed in (b"", b'{"v":1}', records.encode(record).replace(b'"v":1', b'"v":2')):
        with pytest.raises(FormatError):
            records.decode(harmed)


@pytest.mark.parametrize(
    ("offset", "length", "found"),
    [
        (0, 7, [(1, 0, 5), (3, 0, 2)]),
        (4, 2, [(1, 4, 1), (3, 0, 1)]),
        (5, 1, [(3, 0, 1)]),
        (6, 99, [(3, 1, 1)]),
        (7, 1, []),
        (0, 0, []),
    ],
)
def test_stretches(offset: int, length: int, found: list[tuple[int, int, int]]) -> None:
    by_number = {part.number: part for part in PARTS}
    expected = [Stretch(by_number[number], start, size) for number, start, size in found]
    assert list(Manifest("x", PARTS).stretches(offset, length)) == expected
