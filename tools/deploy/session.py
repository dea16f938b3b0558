"""A running cloud as a program that starts, uses, kills and stops it sees it: for the demo, benchmarks and live tests."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import httpx

from ring.errors import RingfortError, Unavailable
from tools.bench.signer import Signer

START_S = 120.0
STOP_S = 60.0


class CloudFailed(RingfortError):
    """The cloud did not do what was asked of it."""


@dataclass(slots=True)
class RunningCloud:
    """``ringfort up`` on a folder, as a child process."""

    data: Path
    process: subprocess.Popen[bytes]

    @classmethod
    def start(cls, data: Path, *arguments: str, log: Path | None = None) -> RunningCloud:
        """Start it and wait until it is ready.  Ports are the system's choice unless ``arguments`` say otherwise."""
        ports = [word for name in ("object", "control", "iscsi") for word in (f"--{name}-port", "0")]
        argv = [sys.executable, "-m", "tools.cli.main", "up", "--data", str(data), *ports, *arguments]
        log = log or data.with_name(data.name + ".log")
        with log.open("ab") as out:
            before = out.tell()
            process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                cwd=Path(__file__).resolve().parents[2],
                start_new_session=True,
            )
        cloud = cls(data, process)
        deadline = time.monotonic() + START_S
        while b"ringfort is ready" not in _after(log, before):
            if process.poll() is not None:
                raise CloudFailed(f"ringfort up ended with status {process.returncode}: {_tail(log)}")
            if time.monotonic() > deadline:
                cloud.kill()
                raise CloudFailed(f"ringfort up was not ready after {START_S:.0f} s: {_tail(log)}")
            time.sleep(0.05)
        return cloud

    @property
    def ready(self) -> Path:
        return self.data / "ready"

    def workers(self) -> list[int]:
        """The pids of the worker processes."""
        children = []
        for thread in Path(f"/proc/{self.process.pid}/task").glob("*"):  # a child belongs to the thread that started it
            try:
                children += (thread / "children").read_text().split()
            except OSError:  # that thread has ended
                continue
        return sorted(int(pid) for pid in children if b"tools.deploy.worker" in _command(int(pid)))

    def pids(self) -> list[int]:
        return [self.process.pid, *self.workers()]

    def stop(self) -> int:
        """SIGTERM, and its exit status."""
        self.process.terminate()
        try:
            return self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise CloudFailed(f"the cloud did not stop within {STOP_S:.0f} s") from None

    def kill(self) -> None:
        """kill -9 every process of it at once, and wait until all are gone."""
        pids = self.pids()
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.process.wait()
        deadline = time.monotonic() + 10
        while any(_command(pid) for pid in pids) and time.monotonic() < deadline:
            time.sleep(0.01)


class CloudClient:
    """The APIs of a cloud with its first user's keys, as one project."""

    def __init__(self, data: Path) -> None:
        s3 = _variables(data / "s3.env", "")
        auth = _variables(data / "openrc", "export ")
        self.objects = s3["AWS_ENDPOINT_URL"]
        self.signer = Signer(s3["AWS_ACCESS_KEY_ID"], s3["AWS_SECRET_ACCESS_KEY"], urlsplit(self.objects).netloc)
        self.http = httpx.Client(timeout=120.0, trust_env=False)
        scope = {"project": {"name": auth["OS_PROJECT_NAME"], "domain": {"name": auth["OS_PROJECT_DOMAIN_NAME"]}}}
        user = {"name": auth["OS_USERNAME"], "password": auth["OS_PASSWORD"], "domain": {"name": auth["OS_USER_DOMAIN_NAME"]}}
        identity = {"methods": ["password"], "password": {"user": user}}
        try:
            reply = self.http.post(f"{auth['OS_AUTH_URL']}/auth/tokens", json={"auth": {"identity": identity, "scope": scope}})
            _check(reply, 201)
        except BaseException:
            self.http.close()
            raise
        self.token = reply.headers["X-Subject-Token"]
        token = reply.json()["token"]
        self.project_id: str = token["project"]["id"]
        self.urls = {
            service["type"]: next(e["url"] for e in service["endpoints"] if e["interface"] == "public")
            for service in token["catalog"]
        }

    def close(self) -> None:
        self.http.close()

    def s3(self, method: str, path: str, query: Mapping[str, str] | None = None, content: Any = None) -> httpx.Response:
        """``path``: "/BUCKET/KEY", unencoded."""
        asked = dict(query or {})
        headers = self.signer.headers(method, path, asked, now=time.time())
        url = self.objects + quote(path, safe="/~")
        if asked:
            url += "?" + "&".join(f"{quote(k, safe='~')}={quote(v, safe='~')}" for k, v in sorted(asked.items()))
        reply = self.http.request(method, url, headers=headers, content=content)
        return _check(reply, 200, 204)

    def call(
        self, service: str, method: str, path: str, body: Any = None, *, content: Any = None, expect: int = 0
    ) -> httpx.Response:
        """One request to a service of the catalog; ``expect`` 0 is any 2xx."""
        headers = {"X-Auth-Token": self.token}
        url = self.urls[service] + path
        if content is not None:
            reply = self.http.request(method, url, headers=headers, content=content)
        else:
            reply = self.http.request(method, url, headers=headers, json=body)
        return _check(reply, *([expect] if expect else range(200, 300)))

    def wait(self, what: str, look: Callable[[], str], wanted: str, *, bad: tuple[str, ...] = (), timeout_s: float = 120.0) -> None:
        """Look again and again until ``look`` says ``wanted``."""
        deadline = time.monotonic() + timeout_s
        while (now := look()) != wanted:
            if now in bad:
                raise CloudFailed(f"{what} is {now}")
            if time.monotonic() > deadline:
                raise Unavailable(f"{what} is {now} after {timeout_s:.0f} s, not {wanted}")
            time.sleep(0.1)


def _check(reply: httpx.Response, *statuses: int) -> httpx.Response:
    if reply.status_code not in statuses:
        reply.read()
        raise CloudFailed(f"{reply.request.method} {reply.request.url.path} answered {reply.status_code}: {reply.text[:300]}")
    return reply


def _variables(path: Path, prefix: str) -> dict[str, str]:
    lines = [line.removeprefix(prefix).partition("=") for line in path.read_text().splitlines()]
    return {name: value.strip("'") for name, found, value in lines if found}


def _tail(log: Path) -> str:
    return " / ".join(log.read_text(errors="replace").splitlines()[-5:])


def _command(pid: int) -> bytes:
    """Of a process; b"" when it is gone or a zombie."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def _after(log: Path, offset: int) -> bytes:
    with log.open("rb") as file:
        file.seek(offset)
        return file.read()
