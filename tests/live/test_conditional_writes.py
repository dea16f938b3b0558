"""Conditional writes at a running cloud: clients on connections of their own, so at whichever worker took them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.live.conftest import Start
from tools.deploy.session import CloudClient

pytestmark = pytest.mark.live

CLIENTS = 8


def test_one_winner_and_no_lost_count(start: Start) -> None:
    cloud = start("--workers", "2")
    with CloudSession(CloudClient(cloud.data)) as session, ThreadPoolExecutor(CLIENTS) as pool:
        for number in range(5):
            replies = list(
                pool.map(lambda who, number=number: session.put(f"lock{number}", b"%d" % who, "if-none-match", "*"), range(CLIENTS))
            )
            assert sorted(reply.status_code for reply in replies) == [201] + [412] * (CLIENTS - 1), [
                reply.text for reply in replies
            ]
            winner = next(who for who, reply in enumerate(replies) if reply.status_code == 201)
            assert session.get(f"lock{number}").content == b"%d" % winner
        assert session.put("count", b"0", "if-none-match", "*").status_code == 201
        counted = sum(pool.map(lambda who: session.count_up(3), range(CLIENTS)))
        assert int(session.get("count").content) == counted == 3 * CLIENTS


class CloudSession:
    """A container, and one connection for each request."""

    def __init__(self, client: CloudClient) -> None:
        self._client = client
        self._url = f"{client.urls['object-store']}/race"

    def __enter__(self) -> CloudSession:
        self._ask("PUT", "").raise_for_status()
        return self

    def __exit__(self, *error: object) -> None:
        self._client.close()

    def _ask(self, method: str, name: str, content: bytes = b"", headers: dict[str, str] | None = None) -> httpx.Response:
        with httpx.Client(timeout=60.0, trust_env=False) as http:
            return http.request(
                method, f"{self._url}{name}", content=content, headers={"X-Auth-Token": self._client.token, **(headers or {})}
            )

    def put(self, name: str, data: bytes, condition: str, etag: str) -> httpx.Response:
        return self._ask("PUT", f"/{name}", data, {condition: etag})

    def get(self, name: str) -> httpx.Response:
        return self._ask("GET", f"/{name}")

    def count_up(self, times: int) -> int:
        """By compare and set; how often it was done."""
        done = 0
        while done < times:
            found = self.get("count")
            reply = self.put("count", b"%d" % (int(found.content) + 1), "if-match", found.headers["etag"])
            assert reply.status_code in (201, 412), reply.text
            done += reply.status_code == 201
        return done
