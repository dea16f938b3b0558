"""openstack, unmodified: from a token to a guest's console."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from tests.compat.conftest import Cloud

pytestmark = pytest.mark.compat
BOOT_S = 180.0


def openstack(cloud: Cloud, *arguments: str) -> Any:
    """With JSON output, decoded."""
    out = cloud.run("openstack", "--os-cloud", "ringfort", *arguments, "-f", "json")
    return json.loads(out)


def test_token_and_catalog(cloud: Cloud) -> None:
    token = openstack(cloud, "token", "issue")
    assert token["id"] and token["project_id"]
    types = {service["Type"] for service in openstack(cloud, "catalog", "list")}
    assert {"identity", "object-store", "image", "block-storage", "compute"} <= types


def test_wrong_password(cloud: Cloud) -> None:
    refused = cloud.try_run("openstack", "--os-cloud", "ringfort", "--os-password", "wrong", "token", "issue")
    assert refused.returncode == 1 and "401" in refused.stderr


def test_users_and_projects(cloud: Cloud) -> None:
    openstack(cloud, "project", "create", "works")
    openstack(cloud, "user", "create", "--project", "works", "--password", "p w", "john")
    cloud.run("openstack", "--os-cloud", "ringfort", "role", "add", "--user", "john", "--project", "works", "member")
    assignments = openstack(cloud, "role", "assignment", "list", "--user", "john", "--names")
    assert [(one["Role"], one["Project"]) for one in assignments] == [("member", "works@Default")]
    credentials = openstack(cloud, "ec2", "credentials", "create", "--user", "john", "--project", "works")
    assert credentials["access"] and credentials["secret"]
    cloud.run("openstack", "--os-cloud", "ringfort", "user", "delete", "john")


def test_image_volume_server(cloud: Cloud, guest_image: Path) -> None:
    image = openstack(
        cloud, "image", "create", "--file", str(guest_image), "--disk-format", "raw", "--container-format", "bare", "guest"
    )
    assert openstack(cloud, "image", "show", image["id"])["status"] == "active"
    assert [(one["Name"], one["Status"]) for one in openstack(cloud, "image", "list")] == [("guest", "active")]
    volume = openstack(cloud, "volume", "create", "--image", "guest", "--size", "1", "root")
    _wait(lambda: openstack(cloud, "volume", "show", volume["id"])["status"], "available")
    assert [one["Name"] for one in openstack(cloud, "volume", "list")] == ["root"]
    server = openstack(cloud, "server", "create", "--volume", "root", "--flavor", "m1.tiny", "one")
    try:
        _wait(lambda: openstack(cloud, "server", "show", "one")["status"], "ACTIVE")
        _wait(lambda: str("READY boot=1" in _console(cloud)), "True")
        assert [(one["Name"], one["Status"]) for one in openstack(cloud, "server", "list")] == [("one", "ACTIVE")]
        assert openstack(cloud, "volume", "show", "root")["status"] == "in-use"
    finally:
        cloud.run("openstack", "--os-cloud", "ringfort", "server", "delete", server["id"])
    _wait(lambda: str(len(openstack(cloud, "server", "list"))), "0")
    _wait(lambda: openstack(cloud, "volume", "show", "root")["status"], "available")
    cloud.run("openstack", "--os-cloud", "ringfort", "volume", "delete", "root")
    _wait(lambda: str(len(openstack(cloud, "volume", "list"))), "0")
    cloud.run("openstack", "--os-cloud", "ringfort", "image", "delete", "guest")
    assert openstack(cloud, "image", "list") == []


def _console(cloud: Cloud) -> str:
    return cloud.run("openstack", "--os-cloud", "ringfort", "console", "log", "show", "one")


def _wait(look: Any, wanted: str) -> None:
    deadline = time.monotonic() + BOOT_S
    while (now := look()) != wanted:
        assert now.lower() != "error" and time.monotonic() < deadline, f"{now}, not {wanted}"
