"""``ringfort recon`` and ``ringfort worker`` on a running cloud."""

from __future__ import annotations

import json
from contextlib import closing

import pytest

from tests.live.conftest import Start
from tools.cli.main import run
from tools.deploy.session import CloudClient

pytestmark = pytest.mark.live


def test_what_a_cloud_does_is_shown_and_asked_for(start: Start, capsys: pytest.CaptureFixture[str]) -> None:
    cloud = start("--workers", "2")
    data = ["--data", str(cloud.data)]
    with closing(CloudClient(cloud.data)) as client:
        client.s3("PUT", "/bucket")
        for number in range(20):
            client.s3("PUT", f"/bucket/o{number}", content=b"x" * 1000)
    assert run(["recon", "--json", *data]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [one["answers"] for one in told["processes"]] == [True, True] and len(told["devices"]) == 4
    assert {"object-auditor d0", "object-replicator d3", "parts-sweeper"} <= {one["name"] for one in told["workers"]}
    assert sum(one["count"] for one in told["requests"] if (one["api"], one["method"]) == ("object", "PUT")) == 21
    assert run(["recon", "problems", "--check", *data]) == 0
    assert capsys.readouterr().out == "none\n"

    assert run(["worker", "run", "object-replicator", "--device", "d0", "--device", "d3", "--json", *data]) == 0
    done = json.loads(capsys.readouterr().out)
    assert [one["name"] for one in done] == ["object-replicator d0", "object-replicator d3"]
    assert all(one["last"]["units"] > 0 and one["last"]["errors"] == 0 and one["passes"] >= 1 for one in done)
    assert run(["worker", "run", "object-auditor", "--no-wait", *data]) == 0
    assert capsys.readouterr().out.count("object-auditor d") == 4
    assert run(["worker", "run", "object-auditr", *data]) == 2
    assert "object-auditor" in capsys.readouterr().err

    assert cloud.stop() == 0
    assert run(["recon", *data]) == 2
    assert "no cloud runs" in capsys.readouterr().err
