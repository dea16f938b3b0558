"""boto3, unmodified."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import boto3
import httpx
import pytest
from boto3.s3.transfer import TransferConfig
from botocore.client import Config
from botocore.exceptions import ClientError

from tests.compat.conftest import Cloud

pytestmark = pytest.mark.compat


@pytest.fixture
def s3(cloud: Cloud) -> Iterator[Any]:
    environment = cloud.environment
    client = boto3.client(
        "s3",
        endpoint_url=environment["AWS_ENDPOINT_URL"],
        aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
        region_name=environment["AWS_DEFAULT_REGION"],
    )
    yield client
    client.close()


def test_buckets_and_objects(s3: Any) -> None:
    s3.create_bucket(Bucket="boto-basic")
    assert "boto-basic" in [bucket["Name"] for bucket in s3.list_buckets()["Buckets"]]
    s3.head_bucket(Bucket="boto-basic")
    put = s3.put_object(
        Bucket="boto-basic", Key="a/ä b+c.txt", Body=b"hello", ContentType="text/plain", Metadata={"colour": "blue"}
    )
    head = s3.head_object(Bucket="boto-basic", Key="a/ä b+c.txt")
    assert (head["ETag"], head["ContentLength"], head["ContentType"]) == (put["ETag"], 5, "text/plain")
    assert head["Metadata"] == {"colour": "blue"}
    assert s3.get_object(Bucket="boto-basic", Key="a/ä b+c.txt")["Body"].read() == b"hello"
    ranged = s3.get_object(Bucket="boto-basic", Key="a/ä b+c.txt", Range="bytes=1-3")
    assert (ranged["Body"].read(), ranged["ContentRange"]) == (b"ell", "bytes 1-3/5")
    with pytest.raises(ClientError) as missing:
        s3.get_object(Bucket="boto-basic", Key="nothing")
    assert missing.value.response["Error"]["Code"] == "NoSuchKey"
    with pytest.raises(ClientError) as busy:
        s3.delete_bucket(Bucket="boto-basic")
    assert busy.value.response["Error"]["Code"] == "BucketNotEmpty"
    s3.delete_object(Bucket="boto-basic", Key="a/ä b+c.txt")
    s3.delete_bucket(Bucket="boto-basic")
    with pytest.raises(ClientError):
        s3.head_bucket(Bucket="boto-basic")


def test_listings(s3: Any) -> None:
    s3.create_bucket(Bucket="boto-list")
    keys = [f"{folder}/{number:03}" for folder in ("a", "b", "c") for number in range(7)] + ["top"]
    for key in keys:
        s3.put_object(Bucket="boto-list", Key=key, Body=b"")
    pages = list(s3.get_paginator("list_objects_v2").paginate(Bucket="boto-list", PaginationConfig={"PageSize": 4}))
    assert [item["Key"] for page in pages for item in page["Contents"]] == sorted(keys)
    grouped = s3.list_objects_v2(Bucket="boto-list", Delimiter="/")
    assert [one["Prefix"] for one in grouped["CommonPrefixes"]] == ["a/", "b/", "c/"]
    assert [item["Key"] for item in grouped["Contents"]] == ["top"]
    inner = s3.list_objects(Bucket="boto-list", Prefix="b/", MaxKeys=3)
    assert ([item["Key"] for item in inner["Contents"]], inner["IsTruncated"]) == (["b/000", "b/001", "b/002"], True)
    gone = s3.delete_objects(Bucket="boto-list", Delete={"Objects": [{"Key": key} for key in keys]})
    assert len(gone["Deleted"]) == len(keys)
    assert s3.list_objects_v2(Bucket="boto-list")["KeyCount"] == 0


def test_multipart(s3: Any, tmp_path: Path) -> None:
    s3.create_bucket(Bucket="boto-multi")
    data = Random(5).randbytes(17 << 20)
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(data)
    config = TransferConfig(multipart_threshold=5 << 20, multipart_chunksize=5 << 20, max_concurrency=4)
    s3.upload_file(str(source), "boto-multi", "big", Config=config)
    assert s3.head_object(Bucket="boto-multi", Key="big")["ETag"].endswith('-4"')
    s3.download_file("boto-multi", "big", str(target), Config=config)
    assert target.read_bytes() == data
    s3.copy_object(Bucket="boto-multi", Key="small-copy", CopySource={"Bucket": "boto-multi", "Key": "big"})
    assert s3.get_object(Bucket="boto-multi", Key="small-copy")["Body"].read() == data
    upload = s3.create_multipart_upload(Bucket="boto-multi", Key="left")
    s3.upload_part(Bucket="boto-multi", Key="left", UploadId=upload["UploadId"], PartNumber=1, Body=b"x" * (5 << 20))
    assert [one["Key"] for one in s3.list_multipart_uploads(Bucket="boto-multi")["Uploads"]] == ["left"]
    s3.abort_multipart_upload(Bucket="boto-multi", Key="left", UploadId=upload["UploadId"])
    assert "Uploads" not in s3.list_multipart_uploads(Bucket="boto-multi")


@pytest.mark.parametrize("version", ["s3v4", "s3"])
def test_presigned_urls(cloud: Cloud, s3: Any, version: str) -> None:
    environment = cloud.environment
    signer = boto3.client(
        "s3",
        endpoint_url=environment["AWS_ENDPOINT_URL"],
        aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
        region_name="us-east-1",
        config=Config(signature_version=version),
    )
    bucket = f"boto-presign-{version}"
    s3.create_bucket(Bucket=bucket)
    s3.put_object(Bucket=bucket, Key="k e y", Body=b"presigned")
    url = signer.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "k e y"}, ExpiresIn=60)
    assert httpx.get(url, trust_env=False).content == b"presigned"
    assert httpx.get(url.replace("presign", "presing"), trust_env=False).status_code in (403, 404)
    assert httpx.get(environment["AWS_ENDPOINT_URL"] + f"/{bucket}/k%20e%20y", trust_env=False).status_code == 403
    signer.close()


def test_wrong_secret(cloud: Cloud) -> None:
    environment = cloud.environment
    stranger = boto3.client(
        "s3",
        endpoint_url=environment["AWS_ENDPOINT_URL"],
        aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key="wrong",
        region_name="us-east-1",
    )
    with pytest.raises(ClientError) as refused:
        stranger.list_buckets()
    assert refused.value.response["Error"]["Code"] == "SignatureDoesNotMatch"
    stranger.close()
