"""A cloud's life as the programs around it see it: files, signals, locks, starts and ends."""

from __future__ import annotations

import base64
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

import httpx
import pytest

from tests.live.conftest import Start
from tools.deploy.session import CloudClient, RunningCloud

pytestmark = pytest.mark.live

TOP = Path(__file__).resolve().parents[2]
NO_PORTS = [word for name in ("object", "control", "iscsi") for word in (f"--{name}-port", "0")]
SECRETS = ("root.key", "cluster.key", "hash.json", "admin.json")


def up(data: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tools.cli.main", "up", "--data", str(data), *NO_PORTS, *arguments]
    return subprocess.Popen(command, cwd=TOP, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def until(condition: Callable[[], bool], timeout_s: float = 30.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


def holders(data: Path) -> list[int]:
    """The processes that have something of DIR open."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            links = [os.readlink(link) for link in (process / "fd").iterdir()]
        except OSError:
            continue
        if any(link.startswith(f"{data}/") for link in links):
            found.append(int(process.name))
    return found


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def variables(path: Path) -> dict[str, str]:
    lines = (line.removeprefix("export ").partition("=") for line in path.read_text().splitlines())
    return {name: value.strip("'") for name, _, value in lines}


def test_what_up_writes_and_hides(start: Start) -> None:
    cloud = start("--workers", "2")
    data = cloud.data
    client = CloudClient(data)
    assert client.http.get(f"{client.urls['s3']}/info").status_code == 200

    s3 = variables(data / "s3.env")
    assert set(s3) == {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL", "AWS_DEFAULT_REGION"}
    openrc = variables(data / "openrc")
    assert {"OS_AUTH_URL", "OS_USERNAME", "OS_PASSWORD", "OS_PROJECT_NAME"} <= set(openrc)
    assert openrc["OS_AUTH_URL"] in (data / "clouds.yaml").read_text()
    assert s3["AWS_ENDPOINT_URL"] in cloud.ready.read_text()
    assert [mode(data / name) for name in ("clouds.yaml", "openrc", "s3.env")] == [0o600] * 3
    assert [mode(data / name) for name in ("secrets", "run", "logs", "devices", "rings")] == [0o700] * 5
    assert [mode(data / "secrets" / name) for name in SECRETS] == [0o600] * 4

    control = openrc["OS_AUTH_URL"].removesuffix("/identity/v3")
    health = client.http.get(f"{control}/health")
    assert (health.status_code, health.json()["status"]) == (200, "ok")
    metrics = client.http.get(f"{control}/metrics").text
    assert "ringfort_workers_down 0" in metrics.splitlines()

    secrets = [text.encode() for text in (s3["AWS_SECRET_ACCESS_KEY"], openrc["OS_PASSWORD"], client.token)]
    for name in ("root.key", "cluster.key"):
        key = (data / "secrets" / name).read_bytes()
        secrets += [key, key.hex().encode(), base64.b64encode(key)]
    seen = b"".join(path.read_bytes() for path in (data / "logs").iterdir())
    for pid in cloud.pids():
        seen += Path(f"/proc/{pid}/cmdline").read_bytes() + Path(f"/proc/{pid}/environ").read_bytes()
    assert b"tools.deploy.worker" in seen and b"worker starts" in seen
    assert not [secret for secret in secrets if secret in seen]

    # Another one is refused at once, and changes nothing.
    before = {path.name: path.stat().st_mtime_ns for path in data.iterdir()}
    second = up(data)
    out, err = second.communicate(timeout=20)
    hint = "hint: stop it first, or name another --data"
    assert (second.returncode, out, err.splitlines()) == (2, "", [f"ringfort: {data} is in use by a running cloud", hint])
    assert before == {path.name: path.stat().st_mtime_ns for path in data.iterdir()}

    cloud.process.send_signal(signal.SIGINT)
    cloud.process.send_signal(signal.SIGTERM)
    until(lambda: not cloud.ready.exists())
    while cloud.process.poll() is None:  # impatience changes nothing
        cloud.process.send_signal(signal.SIGTERM)
        time.sleep(0.005)
    assert cloud.process.returncode == 0
    assert holders(data) == []
    client.close()


def test_stopped_while_it_starts(folder: Path, start: Start) -> None:
    data = folder / "cloud"
    for moment in ("says", "rings/object.ring", "cloud.json", "run/kv.sock"):
        process = up(data, "--workers", "2")
        assert process.stdout is not None
        if moment != "run/kv.sock":
            assert process.stdout.readline().startswith("creating a cloud"), moment
        until((data if moment == "says" else data / moment).exists)
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=20)
        assert (process.returncode, err) == (0, ""), (moment, out)
        assert not (data / "ready").exists()
        assert holders(data) == []
        if moment == "cloud.json":
            for socket in (data / "run").iterdir():
                socket.unlink()
    _works(start())


def _works(cloud: RunningCloud) -> None:
    with closing(CloudClient(cloud.data)) as client:
        client.s3("PUT", "/works")


def test_a_first_run_that_is_killed_is_begun_anew(folder: Path, start: Start) -> None:
    data = folder / "cloud"
    for sign in ("lock", "creating", "rings/object.ring"):
        process = up(data)
        until((data / sign).exists)
        process.kill()
        process.communicate()
        assert not (data / "cloud.json").exists()
    _works(start())


def test_a_main_process_that_is_killed_takes_its_workers_along(start: Start) -> None:
    cloud = start("--workers", "2")
    client = CloudClient(cloud.data)
    client.s3("PUT", "/there")
    client.s3("PUT", "/there/object", content=b"kept")
    client.close()
    workers = cloud.workers()
    assert len(workers) == 2
    cloud.process.kill()
    cloud.process.wait()
    again = start("--workers", "2")  # at once
    assert not [pid for pid in workers if Path(f"/proc/{pid}/cmdline").exists() and _is_worker(pid)]
    client = CloudClient(again.data)
    assert client.s3("GET", "/there/object").content == b"kept"
    client.close()
    again.process.kill()
    began = time.monotonic()
    until(lambda: holders(again.data) == [], 2.0)
    assert time.monotonic() - began < 2
    again.process.wait()  # it is not "still running" at the end of the test only because nobody has looked
    assert not again.ready.exists()


def _is_worker(pid: int) -> bool:
    return b"tools.deploy.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()


def test_the_number_of_workers_may_change(start: Start) -> None:
    kept: dict[str, bytes] = {}
    volumes: list[str] = []
    for workers in (1, 3, 2):
        cloud = start("--workers", str(workers))
        client = CloudClient(cloud.data)
        assert len(cloud.workers()) == workers
        if not kept:
            client.s3("PUT", "/kept")
        for name, data in kept.items():
            assert client.s3("GET", f"/kept/{name}").content == data
        for number in range(6):
            name, data = f"{workers}-{number}", os.urandom(10 ** (number + 1))
            client.s3("PUT", f"/kept/{name}", content=data)
            kept[name] = data
        listed = client.call("object-store", "GET", "/kept?format=json").json()
        assert [row["name"] for row in listed] == sorted(kept)
        body = {"volume": {"size": 1, "name": f"of {workers}"}}
        volumes.append(client.call("block-storage", "POST", "/volumes", body).json()["volume"]["id"])
        for volume in volumes:
            client.wait("a volume", partial(_volume_status, client, volume), "available")
        client.close()
        assert cloud.stop() == 0
        assert holders(cloud.data) == []


def _volume_status(client: CloudClient, volume_id: str) -> str:
    return str(client.call("block-storage", "GET", f"/volumes/{volume_id}").json()["volume"]["status"])


def test_devices_that_are_not_there_are_not_empty(start: Start) -> None:
    """One device without its label, one whose folder is empty: the cloud says so and serves what it can; nothing is forgotten."""
    cloud = start("--workers", "2", "--devices", "5")
    client = CloudClient(cloud.data)
    # Of five devices two will be out: three buckets in ten have both of them among their three primaries and are unknown then.
    buckets = [f"kept-{number}" for number in range(10)]
    for bucket in buckets:
        client.s3("PUT", f"/{bucket}")
    kept = {f"{bucket}/{number}": os.urandom(1000 * number) for bucket in buckets for number in range(4)}
    for name, data in kept.items():
        client.s3("PUT", f"/{name}", content=data)
    client.close()
    assert cloud.stop() == 0

    devices = cloud.data / "devices"  # d0 has one of the three logs of control state, d4 none: two of the logs are needed
    (devices / "d4" / "device.json").rename(devices / "d4" / "hidden")
    (devices / "d0").rename(cloud.data / "put-aside")
    (devices / "d0").mkdir(mode=0o700)
    cloud = start("--workers", "2")
    client = CloudClient(cloud.data)
    health = _health(client)
    assert health.status_code == 503
    text = re.sub(r"\s+", " ", health.text)
    for number in (0, 4):
        assert f"d{number} is out: {devices}/d{number} is not a device: it has no label" in text
    found = {name: _get(client, f"/{name}") for name in kept}
    assert {status for status, _ in found.values()} <= {200, 503}, "what is not known is never said to be gone"
    assert [name for name, (status, data) in found.items() if status == 200 and data != kept[name]] == []
    assert any(status == 200 for status, _ in found.values())
    client.close()
    assert cloud.stop() == 0
    assert not (devices / "d0" / "device.json").exists()

    (devices / "d4" / "hidden").rename(devices / "d4" / "device.json")
    (devices / "d0").rename(cloud.data / "impostor")
    (cloud.data / "put-aside").rename(devices / "d0")
    client = CloudClient(start("--workers", "2").data)
    assert _health(client).status_code == 200
    for name, data in kept.items():
        assert client.s3("GET", f"/{name}").content == data
    client.close()


def _health(client: CloudClient) -> httpx.Response:
    return client.http.get(client.urls["identity"].removesuffix("/identity/v3") + "/health")


def _get(client: CloudClient, path: str) -> tuple[int, bytes]:
    headers = client.signer.headers("GET", path, {}, now=time.time())
    reply = client.http.get(client.objects + path, headers=headers)
    return reply.status_code, reply.content


def test_a_worker_that_hangs(start: Start) -> None:
    """Others go on meanwhile; /health tells; afterwards it serves as before."""
    cloud = start("--workers", "2")
    client = CloudClient(cloud.data)
    client.s3("PUT", "/kept")
    client.s3("PUT", "/kept/before", content=b"before")
    hanging = cloud.workers()[1]
    os.kill(hanging, signal.SIGSTOP)
    try:
        client.http.close()
        client.http = httpx.Client(timeout=20.0, trust_env=False)  # new connections: the old ones may be that worker's
        health = _health(client)
        assert health.status_code == 503 and re.search(r"worker [01] does not answer", health.text), health.text
        metrics = client.http.get(client.urls["identity"].removesuffix("/identity/v3") + "/metrics").text
        assert "ringfort_workers_down 1" in metrics.splitlines()
    finally:
        os.kill(hanging, signal.SIGCONT)
    until(lambda: _health(client).status_code == 200)
    assert client.s3("GET", "/kept/before").content == b"before"
    client.s3("PUT", "/kept/after", content=b"after")
    assert cloud.workers()[1] == hanging
    client.close()
