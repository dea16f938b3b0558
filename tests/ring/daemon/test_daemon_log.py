"""Lines as they reach the sink."""

from __future__ import annotations

import pytest

from ring.daemon.log import Level, Log, redact_target
from ring.daemon.metrics import Registry
from ring.daemon.requests import RequestLog
from ring.errors import Unavailable
from ring.wire.server import LogLine


class FixedClock:
    def now(self) -> float:
        return 1700000000.0625


def test_lines() -> None:
    lines: list[str] = []
    log = Log(lines.append, FixedClock(), fields={"worker": 3}).bind(device="d1")
    log.debug("not shown")
    log.info("started", port=80, ratio=0.1 + 0.2, on=True, nothing=None, path="/a b", empty="")
    log.warning('say "hi"\n\\', tail="\x00\x7f\u2028\x85é=")
    log.failure("push failed", Unavailable("no answer", hint="look at the switch"), peer="10.0.0.1:1")
    prefix = "time=2023-11-14T22:13:20.062Z level="
    assert [line.removeprefix(prefix) for line in lines] == [
        'info worker=3 device=d1 msg=started port=80 ratio=0.3 on=true nothing= path="/a b" empty=""',
        'warning worker=3 device=d1 msg="say \\"hi\\"\\n\\\\" tail="\\u0000\\u007f\\u2028\\u0085é="',
        'error worker=3 device=d1 msg="push failed" peer=10.0.0.1:1 error="Unavailable: no answer" hint="look at the switch"',
    ]


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("/b/k", "/b/k"),
        ("/b/k?list-type=2", "/b/k?list-type=2"),
        ("/b/k?X-Amz-Signature=abc&X-Amz-Date=1", "/b/k?X-Amz-Signature=-&X-Amz-Date=1"),
        ("/b/k?x=1&X-Amz-Signatur%65=abc", "/b/k?x=1&X-Amz-Signatur%65=-"),
        ("/b?X-Amz-Security-Token=a%2Fb&Signature=x", "/b?X-Amz-Security-Token=-&Signature=-"),
        ("/v1/a/c/o?temp_url_sig=abc&temp_url_expires=9", "/v1/a/c/o?temp_url_sig=-&temp_url_expires=9"),
        ("/b?signature", "/b?signature"),
    ],
)
def test_signatures_are_blotted_out(target: str, expected: str) -> None:
    assert redact_target(target) == expected


def test_requests_are_logged_and_counted() -> None:
    lines: list[str] = []
    registry = Registry()
    record = RequestLog(Log(lines.append, FixedClock()), registry, "object", level=Level.DEBUG)
    record(LogLine("tx1", "", "GET", "/a?Signature=s", 200, 0, 5, 0.25, 0.0, "agent 1"))
    record(LogLine("tx2", "", "BREW", "/a", 500, 7, 0, 0.5, 0.0, "", "Traceback\n  no"))
    assert lines == [
        'time=2023-11-14T22:13:20.062Z level=error msg=request server=object peer="" method=BREW target=/a status=500 bytes_in=7'
        ' bytes_out=0 seconds=0.5 trans_id=tx2 agent="" error="Traceback\\n  no"'
    ]
    text = registry.render()
    assert 'ringfort_requests_total{server="object",method="GET",status="200"} 1\n' in text
    assert 'ringfort_requests_total{server="object",method="other",status="500"} 1\n' in text
    assert 'ringfort_request_seconds_bucket{server="object",method="GET",le="0.25"} 1\n' in text
    assert 'ringfort_answer_bytes_total{server="object"} 5\n' in text
