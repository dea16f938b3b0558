"""What becomes of a server's LogLine: one line in the log, and the counters beside it.

``serve(..., on_request=RequestLog(log, registry, "object"))``.  Neighbours: ``log``, ``metrics``, ring.wire.server.
"""

from __future__ import annotations

from ring.daemon.log import Level, Log, Value, redact_target
from ring.daemon.metrics import Registry
from ring.wire.server import LogLine

_KNOWN_METHODS = frozenset(("GET", "HEAD", "PUT", "POST", "DELETE", "PATCH", "OPTIONS", "COPY"))


class RequestLog:
    """Callable with a LogLine.  ``server`` names the API: a label of the numbers and a key of the lines."""

    def __init__(self, log: Log, registry: Registry, server: str, *, level: Level = Level.INFO) -> None:
        self._log = log
        self._level = level
        self._server = server
        labels = ("server", "method", "status")
        self._requests = registry.counter("ringfort_requests_total", "Requests answered.", labels)
        self._seconds = registry.histogram(
            "ringfort_request_seconds", "From a request's head to the end of its answer.", labels[:2]
        )
        self._bytes_in = registry.counter("ringfort_request_bytes_total", "Bytes of request bodies.", labels[:1])
        self._bytes_out = registry.counter("ringfort_answer_bytes_total", "Bytes of answers' bodies.", labels[:1])

    def __call__(self, line: LogLine) -> None:
        method = line.method if line.method in _KNOWN_METHODS else "other"
        self._requests.add(1, self._server, method, str(line.status))
        self._seconds.observe(line.duration_s, self._server, method)
        self._bytes_in.add(line.bytes_in, self._server)
        self._bytes_out.add(line.bytes_out, self._server)
        level = Level.ERROR if line.status >= 500 and line.error else self._level
        if level < self._log.level:
            return
        fields: dict[str, Value] = {
            "server": self._server,
            "peer": line.peer,
            "method": line.method,
            "target": redact_target(line.target),
            "status": line.status,
            "bytes_in": line.bytes_in,
            "bytes_out": line.bytes_out,
            "seconds": line.duration_s,
            "trans_id": line.trans_id,
            "agent": line.user_agent,
        }
        if line.error:
            fields["error"] = line.error
        self._log.write(level, "request", fields)
