"""swift, unmodified, with Keystone v3 authentication."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from tests.compat.conftest import Cloud

pytestmark = pytest.mark.compat


def test_a_container_from_post_to_delete(cloud: Cloud, tmp_path: Path) -> None:
    source, target = tmp_path / "source.bin", tmp_path / "target.bin"
    source.write_bytes(Random(7).randbytes(3 << 20))
    assert "AUTH_" in cloud.run("swift", "stat")
    cloud.run("swift", "post", "swift-basic", "-m", "Colour:blue")
    cloud.run("swift", "upload", "swift-basic", str(source), "--object-name", "folder/ö bject")
    assert "Colour: blue" in cloud.run("swift", "stat", "swift-basic")
    assert "3145728" in cloud.run("swift", "stat", "swift-basic", "folder/ö bject")
    cloud.run("swift", "post", "swift-basic", "folder/ö bject", "-m", "Kind:test")
    assert "Meta Kind: test" in cloud.run("swift", "stat", "swift-basic", "folder/ö bject")
    assert "swift-basic" in cloud.run("swift", "list").split()
    assert cloud.run("swift", "list", "swift-basic").strip() == "folder/ö bject"
    cloud.run("swift", "download", "swift-basic", "folder/ö bject", "-o", str(target))
    assert target.read_bytes() == source.read_bytes()
    cloud.run("swift", "delete", "swift-basic")
    missing = cloud.try_run("swift", "stat", "swift-basic")
    assert missing.returncode == 1 and "not found" in missing.stderr.lower()


def test_a_bucket_is_a_container(cloud: Cloud) -> None:
    cloud.run("aws", "s3", "mb", "s3://swift-and-s3")
    cloud.run("swift", "upload", "swift-and-s3", __file__, "--object-name", "this")
    assert cloud.run("aws", "s3", "cp", "s3://swift-and-s3/this", "-") == Path(__file__).read_text()
    cloud.run("swift", "delete", "swift-and-s3")


def test_a_file_in_segments(cloud: Cloud, tmp_path: Path) -> None:
    source, target = tmp_path / "source.bin", tmp_path / "target.bin"
    source.write_bytes(Random(8).randbytes(5 << 20))
    cloud.run("swift", "upload", "swift-large", str(source), "--object-name", "big", "--segment-size", "2000000")
    assert "Manifest: swift-large_segments/" in cloud.run("swift", "stat", "swift-large", "big")
    cloud.run("swift", "download", "swift-large", "big", "-o", str(target))
    assert target.read_bytes() == source.read_bytes()
    cloud.run("swift", "delete", "swift-large", "big")
    assert cloud.run("swift", "list", "swift-large_segments") == ""
    cloud.run("swift", "delete", "swift-large")
    cloud.run("swift", "delete", "swift-large_segments")
