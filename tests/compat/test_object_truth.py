"""What clients may believe of the object API of a running cloud: their own writes at once, whichever worker answers, and nothing of
a write that did not arrive whole."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from random import Random
from urllib.parse import urlsplit

import httpx
import pytest

from tests.compat.conftest import Cloud
from tools.deploy.session import CloudClient

pytestmark = pytest.mark.compat

PACK_CUT = 256 << 10
EDGES = [0, 1, PACK_CUT - 1, PACK_CUT, PACK_CUT + 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1]


@pytest.fixture(scope="module")
def url(client: CloudClient) -> Iterator[str]:
    """A container over Swift."""
    client.call("object-store", "PUT", "/truth")
    yield client.urls["object-store"] + "/truth"


def ask(url: str, client: CloudClient, method: str, headers: dict[str, str] | None = None, content: bytes = b"") -> httpx.Response:
    """On a connection of its own, so that any worker may answer."""
    return httpx.request(
        method, url, headers={"x-auth-token": client.token, **(headers or {})}, content=content, trust_env=False, timeout=60.0
    )


def test_what_was_written_is_there_and_listed_at_once(client: CloudClient, url: str) -> None:
    failures: list[str] = []

    def write_and_look(writer: int) -> None:
        random = Random(writer)
        for turn, size in enumerate([*EDGES, 10, 20, 30]):
            name = f"own-{writer}/{turn % 3}"
            data = random.randbytes(size)
            put = ask(f"{url}/{name}", client, "PUT", content=data)
            got = ask(f"{url}/{name}", client, "GET")
            listed = ask(f"{url}?format=json&prefix=own-{writer}/", client, "GET").json()
            row = next((row for row in listed if row["name"] == name), None)
            if (put.status_code, got.content, row and (row["bytes"], row["hash"])) != (201, data, (size, put.headers["etag"])):
                failures.append(f"{name} after PUT of {size}: {put.status_code} {got.status_code} {row}")
            if turn % 4 == 3:
                gone = ask(f"{url}/{name}", client, "DELETE").status_code, ask(f"{url}/{name}", client, "GET").status_code
                names = ask(f"{url}?prefix=own-{writer}/", client, "GET").text.split()
                if gone != (204, 404) or name in names:
                    failures.append(f"{name} after DELETE: {gone} {names}")

    threads = [threading.Thread(target=write_and_look, args=(writer,)) for writer in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


@pytest.mark.parametrize(("length", "sent"), [(1000, 999), (PACK_CUT + 1000, PACK_CUT), (3 << 20, 2 << 20)])
@pytest.mark.parametrize("how", ["end", "reset"])
def test_a_body_that_is_cut_short_stores_nothing(client: CloudClient, url: str, length: int, sent: int, how: str) -> None:
    parts = urlsplit(url)
    target = f"{parts.path}/cut-{length}-{how}"
    head = f"PUT {target} HTTP/1.1\r\nHost: {parts.netloc}\r\nX-Auth-Token: {client.token}\r\nContent-Length: {length}\r\n\r\n"
    with socket.create_connection((parts.hostname, parts.port), timeout=30) as connection:
        connection.sendall(head.encode() + b"x" * sent)
        if how == "reset":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        else:
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(65536):
                pass
    assert ask(f"{parts.scheme}://{parts.netloc}{target}", client, "GET").status_code == 404
    assert target.rpartition("/")[2] not in ask(url, client, "GET").text.split()


def test_several_ranges_of_one_object(client: CloudClient, url: str) -> None:
    data = Random(1).randbytes(2 << 20)
    ask(f"{url}/ranged", client, "PUT", content=data)
    got = ask(f"{url}/ranged", client, "GET", {"range": f"bytes=0-9,{1 << 20}-{(1 << 20) + 99_999},-5"})
    assert got.status_code == 206
    boundary = got.headers["content-type"].partition("boundary=")[2].encode()
    found = [part.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n") for part in got.content.split(b"--" + boundary)[1:-1]]
    assert found == [data[:10], data[1 << 20 : (1 << 20) + 100_000], data[-5:]]


def test_settings_that_were_never_made(cloud: Cloud) -> None:
    cloud.run("aws", "s3", "mb", "s3://never-set")
    for verb, code in (
        ("get-bucket-policy", "NoSuchBucketPolicy"),
        ("get-bucket-tagging", "NoSuchTagSet"),
        ("get-bucket-cors", "NoSuchCORSConfiguration"),
        ("get-bucket-lifecycle-configuration", "NoSuchLifecycleConfiguration"),
    ):
        assert code in cloud.try_run("aws", "s3api", verb, "--bucket", "never-set").stderr
    assert "BucketOwner" in cloud.run("aws", "s3api", "get-bucket-request-payment", "--bucket", "never-set")
    cloud.run("aws", "s3", "rb", "s3://never-set")
