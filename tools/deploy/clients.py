"""The files that clients people have read: clouds.yaml (openstack), openrc (any shell), s3.env (AWS tools).  All 0600."""

from __future__ import annotations

import json
from dataclasses import dataclass

from tools.deploy.layout import Admin, Layout, write_file

S3_REGION = "us-east-1"
REGION = "RegionOne"


@dataclass(frozen=True, slots=True)
class Endpoints:
    """As clients reach them."""

    host: str
    object_port: int
    control_port: int
    iscsi_port: int

    @property
    def _host(self) -> str:
        return f"[{self.host}]" if ":" in self.host else self.host

    @property
    def objects(self) -> str:
        return f"http://{self._host}:{self.object_port}"

    @property
    def control(self) -> str:
        return f"http://{self._host}:{self.control_port}"

    @property
    def auth(self) -> str:
        return f"{self.control}/identity/v3"

    @property
    def iscsi(self) -> str:
        return f"{self._host}:{self.iscsi_port}"


def write_client_files(layout: Layout, endpoints: Endpoints, admin: Admin) -> None:
    auth = {
        "auth_url": endpoints.auth,
        "username": admin.user,
        "password": admin.password,
        "project_name": admin.project,
        "user_domain_name": "Default",
        "project_domain_name": "Default",
    }
    clouds = [
        "# openstack --os-cloud ringfort ...   (OS_CLIENT_CONFIG_FILE names this file)",
        "clouds:",
        "  ringfort:",
        "    auth:",
    ]
    clouds += [f"      {name}: {json.dumps(value)}" for name, value in auth.items()]
    clouds += [f"    region_name: {json.dumps(REGION)}", "    identity_api_version: 3", "    interface: public", ""]
    write_file(layout.root / "clouds.yaml", "\n".join(clouds).encode())

    openrc = {f"OS_{name.upper()}": value for name, value in auth.items()}
    openrc |= {"OS_REGION_NAME": REGION, "OS_IDENTITY_API_VERSION": "3", "OS_INTERFACE": "public"}
    write_file(layout.root / "openrc", "".join(f"export {name}={_quoted(value)}\n" for name, value in openrc.items()).encode())

    s3 = {
        "AWS_ACCESS_KEY_ID": admin.access_key,
        "AWS_SECRET_ACCESS_KEY": admin.secret_key,
        "AWS_ENDPOINT_URL": endpoints.objects,
        "AWS_DEFAULT_REGION": S3_REGION,
    }
    write_file(layout.root / "s3.env", "".join(f"{name}={value}\n" for name, value in s3.items()).encode())


def _quoted(value: str) -> str:
    return "'" + value.replace("'", "'\\''") + "'"
