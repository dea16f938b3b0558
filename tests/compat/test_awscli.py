"""aws, unmodified."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

import httpx
import pytest

from tests.compat.conftest import Cloud

pytestmark = pytest.mark.compat


def test_a_bucket_from_make_to_remove(cloud: Cloud, tmp_path: Path) -> None:
    small, large, back = tmp_path / "small", tmp_path / "large", tmp_path / "back"
    small.write_text("hello")
    large.write_bytes(Random(6).randbytes(20 << 20))
    cloud.run("aws", "s3", "mb", "s3://aws-cli")
    cloud.run("aws", "s3", "cp", str(small), "s3://aws-cli/folder/small")
    cloud.run("aws", "s3", "cp", str(large), "s3://aws-cli/large")
    cloud.run("aws", "s3", "cp", "s3://aws-cli/large", str(back))
    assert back.read_bytes() == large.read_bytes()
    listed = json.loads(cloud.run("aws", "s3api", "list-objects-v2", "--bucket", "aws-cli"))
    assert [item["Key"] for item in listed["Contents"]] == ["folder/small", "large"]
    head = json.loads(cloud.run("aws", "s3api", "head-object", "--bucket", "aws-cli", "--key", "large"))
    assert head["ContentLength"] == 20 << 20
    url = cloud.run("aws", "s3", "presign", "s3://aws-cli/folder/small").strip()
    assert httpx.get(url, trust_env=False).text == "hello"
    assert "PRE folder/" in cloud.run("aws", "s3", "ls", "s3://aws-cli/")
    missing = cloud.try_run("aws", "s3api", "get-object", "--bucket", "aws-cli", "--key", "none", str(back))
    assert missing.returncode in (254, 255) and "NoSuchKey" in missing.stderr
    cloud.run("aws", "s3", "rm", "--recursive", "s3://aws-cli")
    cloud.run("aws", "s3", "rb", "s3://aws-cli")


def test_sync_moves_nothing_the_second_time(cloud: Cloud, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "deep").mkdir(parents=True)
    for name in ("one", "deep/two"):
        (tree / name).write_text(name)
    cloud.run("aws", "s3", "mb", "s3://aws-sync")
    assert "upload" in cloud.run("aws", "s3", "sync", str(tree), "s3://aws-sync/t")
    assert cloud.run("aws", "s3", "sync", str(tree), "s3://aws-sync/t") == ""
