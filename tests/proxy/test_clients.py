"""Released clients over real loopback: boto3 and python-swiftclient against the front door on fakes."""

from __future__ import annotations

import hashlib
import io
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any

import boto3
import httpx
import pytest
import trio
from boto3.s3.transfer import TransferConfig
from botocore.client import Config
from botocore.exceptions import ClientError

from identity.client.fake import FakeIdentity
from proxy.app import make_app
from ring.kv.memory import MemoryKV
from ring.wire.server import serve
from ring.world.interface import TcpAddress
from ring.world.real import make_world
from storage.client.fake import FakeStorage

pytestmark = pytest.mark.live


@dataclass
class Site:
    url: str

    def s3(self, name: str = "ann", **config: Any) -> Any:
        return boto3.client(
            "s3",
            endpoint_url=self.url,
            aws_access_key_id=f"key-{name}",
            aws_secret_access_key=f"secret-{name}",
            region_name="us-east-1",
            config=Config(retries={"max_attempts": 0}, s3={"addressing_style": "path"}, **config),
        )


@pytest.fixture
async def site(identity: FakeIdentity, nursery: trio.Nursery) -> AsyncIterator[Site]:
    world = make_world()
    door = make_app(FakeStorage(world.clock), identity, MemoryKV(), world)
    await nursery.start(door.run)
    listener = await world.net.listen(TcpAddress("127.0.0.1", 0))
    await nursery.start(serve, world, [listener], door)
    yield Site(f"http://{listener.address}")
    nursery.cancel_scope.cancel()


async def call(function: Callable[[], Any]) -> Any:
    return await trio.to_thread.run_sync(function)


async def test_boto3(site: Site) -> None:
    def talk() -> None:
        s3 = site.s3()
        s3.create_bucket(Bucket="bucket")
        key = "a//ö b+c/../%7E&=?#.txt"
        put = s3.put_object(Bucket="bucket", Key=key, Body=b"hello", Metadata={"color": "blue"}, ContentType="text/x")
        assert put["ETag"] == f'"{hashlib.md5(b"hello").hexdigest()}"' and put["ChecksumCRC32"] == "NhCmhg=="
        got = s3.get_object(Bucket="bucket", Key=key)
        assert (got["Body"].read(), got["Metadata"], got["ContentType"]) == (b"hello", {"color": "blue"}, "text/x")
        assert s3.get_object(Bucket="bucket", Key=key, Range="bytes=1-2")["Body"].read() == b"el"
        assert s3.head_object(Bucket="bucket", Key=key)["ContentLength"] == 5
        assert [item["Key"] for item in s3.list_objects_v2(Bucket="bucket")["Contents"]] == [key]
        assert [item["Key"] for item in s3.list_objects(Bucket="bucket")["Contents"]] == [key]
        assert [bucket["Name"] for bucket in s3.list_buckets()["Buckets"]] == ["bucket"]
        s3.copy_object(Bucket="bucket", Key="copy", CopySource={"Bucket": "bucket", "Key": key})
        assert s3.get_object(Bucket="bucket", Key="copy")["Body"].read() == b"hello"
        with pytest.raises(ClientError, match="PreconditionFailed"):
            s3.put_object(Bucket="bucket", Key="copy", Body=b"x", IfNoneMatch="*")
        with pytest.raises(ClientError, match="NotImplemented"):
            s3.delete_bucket_lifecycle(Bucket="bucket")
        for other in (site.s3("bob"), site.s3("nobody")):
            with pytest.raises(ClientError, match=r"AccessDenied|InvalidAccessKeyId"):
                other.get_object(Bucket="bucket", Key="copy")
        deleted = s3.delete_objects(Bucket="bucket", Delete={"Objects": [{"Key": key}, {"Key": "copy"}, {"Key": "none"}]})
        assert len(deleted["Deleted"]) == 3
        s3.delete_bucket(Bucket="bucket")
        with pytest.raises(ClientError, match="404"):
            s3.head_bucket(Bucket="bucket")

    await call(talk)


async def test_boto3_multipart(site: Site) -> None:
    data = bytes(range(256)) * (12 << 12)  # 12 MiB

    def talk() -> None:
        s3 = site.s3()
        s3.create_bucket(Bucket="bucket")
        config = TransferConfig(multipart_threshold=5 << 20, multipart_chunksize=5 << 20, max_concurrency=3)
        s3.upload_fileobj(io.BytesIO(data), "bucket", "big", Config=config, ExtraArgs={"Metadata": {"a": "b"}})
        head = s3.head_object(Bucket="bucket", Key="big")
        assert (head["ContentLength"], head["ETag"][-3:], head["Metadata"]) == (len(data), '-3"', {"a": "b"})
        target = io.BytesIO()
        s3.download_fileobj("bucket", "big", target, Config=config)
        assert target.getvalue() == data
        s3.copy({"Bucket": "bucket", "Key": "big"}, "bucket", "again", Config=config)
        assert s3.get_object(Bucket="bucket", Key="again")["Body"].read() == data
        upload = s3.create_multipart_upload(Bucket="bucket", Key="left")["UploadId"]
        s3.upload_part(Bucket="bucket", Key="left", UploadId=upload, PartNumber=1, Body=b"x")
        assert len(s3.list_parts(Bucket="bucket", Key="left", UploadId=upload)["Parts"]) == 1
        assert len(s3.list_multipart_uploads(Bucket="bucket")["Uploads"]) == 1
        s3.abort_multipart_upload(Bucket="bucket", Key="left", UploadId=upload)
        assert "Uploads" not in s3.list_multipart_uploads(Bucket="bucket")

    await call(talk)


@pytest.mark.parametrize("version", ["s3", "s3v4", None])
async def test_boto3_presigned(site: Site, version: str | None) -> None:
    def sign() -> tuple[str, str]:
        site.s3().create_bucket(Bucket="bucket")
        s3 = site.s3(signature_version=version) if version else site.s3()
        put = s3.generate_presigned_url("put_object", Params={"Bucket": "bucket", "Key": "ö b"})
        get = s3.generate_presigned_url("get_object", Params={"Bucket": "bucket", "Key": "ö b", "ResponseContentType": "a/b"})
        return put, get

    put, get = await call(sign)
    async with httpx.AsyncClient() as client:
        assert (await client.put(put, content=b"hello")).status_code == 200
        answer = await client.get(get)
        assert (answer.status_code, answer.content, answer.headers["content-type"]) == (200, b"hello", "a/b")
        assert (await client.delete(get)).status_code == 403
        assert (await client.put(put, content=b"x", headers={"x-amz-copy-source": "bucket/other"})).status_code == 403


async def test_boto3_without_checksums(site: Site) -> None:
    def talk() -> None:
        s3 = site.s3(request_checksum_calculation="when_required")
        s3.create_bucket(Bucket="bucket")
        s3.put_object(Bucket="bucket", Key="o", Body=b"x" * 300_000, ContentLength=300_000)
        assert len(s3.get_object(Bucket="bucket", Key="o")["Body"].read()) == 300_000
        s3.put_object(Bucket="bucket", Key="empty", Body=b"")
        assert s3.get_object(Bucket="bucket", Key="empty")["Body"].read() == b""

    await call(talk)


async def test_swift_command(site: Site, tmp_path: FilePath) -> None:
    (tmp_path / "file.txt").write_bytes(b"hello" * 1000)
    swift = FilePath(sys.executable).parent / "swift"
    options = ["--os-storage-url", f"{site.url}/v1/AUTH_p1", "--os-auth-token", "token-ann"]

    async def run(*arguments: str) -> str:
        done = await trio.run_process(
            [str(swift), *options, *arguments], capture_stdout=True, capture_stderr=True, check=False, cwd=tmp_path
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.decode()

    assert "Containers: 0" in await run("stat")
    await run("post", "c", "-m", "Color:Blue")
    assert "Meta Color: Blue" in await run("stat", "c")
    await run("upload", "c", "file.txt")
    assert await run("list", "c") == "file.txt\n"
    assert "Content Length: 5000" in await run("stat", "c", "file.txt")
    await run("download", "c", "file.txt", "-o", "back.txt")
    assert (tmp_path / "back.txt").read_bytes() == b"hello" * 1000
    await run("delete", "c")
    assert await run("list") == ""
