"""What the HTTP server costs: requests a second, and server cpu per request, of a handler that answers with 4 KiB.

Run as ``python -m tools.bench.wire``.  The server is a process of its own; the load is a plain poll loop over keep-alive
connections that counts bytes and parses nothing, so that it is not what is measured.
"""

from __future__ import annotations

import argparse
import os
import resource
import select
import signal
import socket
import statistics
import sys
import time

import trio

from ring.wire.engine import HeadLimits, RequestEngine
from ring.wire.h11_engine import H11Requests
from ring.wire.httptools_engine import HttptoolsRequests
from ring.wire.message import Headers, Request, Response
from ring.wire.server import serve
from ring.world.interface import TcpAddress
from ring.world.real import make_world

CONNECTIONS = 16
BODY_BYTES = 4096
REQUEST_FIELDS = (
    "Host: 127.0.0.1:8080\r\nUser-Agent: bench/1\r\nAccept-Encoding: identity\r\n"
    "X-Amz-Date: 20260101T000000Z\r\nX-Amz-Content-SHA256: e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\r\n"
    "Authorization: AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20260101/us-east-1/s3/aws4_request\r\n"
)
ENGINES: dict[str, type[HttptoolsRequests] | type[H11Requests]] = {"httptools": HttptoolsRequests, "h11": H11Requests}


async def _serve(engine: type[HttptoolsRequests] | type[H11Requests], ready_fd: int) -> None:
    world = make_world()
    listener = await world.net.listen(TcpAddress("127.0.0.1", 0))
    payload = bytes(BODY_BYTES)

    async def handler(request: Request) -> Response:
        if request.body.length:
            await request.body.read_all(1 << 20)
        return Response(
            200, Headers([("etag", "0123456789abcdef0123456789abcdef"), ("content-type", "application/octet-stream")]), payload
        )

    def make(limits: HeadLimits) -> RequestEngine:
        return engine(limits)

    os.write(ready_fd, f"{listener.address.port}\n".encode() if isinstance(listener.address, TcpAddress) else b"\n")
    await serve(world, [listener], handler, engine=make)


def _start_server(engine: type[HttptoolsRequests] | type[H11Requests]) -> tuple[int, int]:
    """A child process that serves; its pid and port."""
    read_fd, write_fd = os.pipe()
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
        trio.run(_serve, engine, write_fd)
        os._exit(0)
    os.close(write_fd)
    with os.fdopen(read_fd) as pipe:
        return pid, int(pipe.readline())


def _cpu_seconds(pid: int) -> float:
    with open(f"/proc/{pid}/schedstat") as file:
        return int(file.read().split()[0]) / 1e9


def _load(port: int, request: bytes, seconds: float) -> int:
    """Ask and ask again on every connection; how many answers came."""
    poll = select.epoll()
    connections: dict[int, socket.socket] = {}
    for _ in range(CONNECTIONS):
        connection = socket.create_connection(("127.0.0.1", port))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connections[connection.fileno()] = connection
        poll.register(connection, select.EPOLLIN)
    first = next(iter(connections.values()))
    first.sendall(request)
    head = b""
    while b"\r\n\r\n" not in head:
        head += first.recv(1 << 20)
    answer_bytes = head.index(b"\r\n\r\n") + 4 + BODY_BYTES
    seen = len(head)
    while seen < answer_bytes:
        seen += len(first.recv(1 << 20))
    left = dict.fromkeys(connections, answer_bytes)
    for connection in connections.values():
        connection.sendall(request)
    done = 0
    end = time.monotonic() + seconds
    buffer = bytearray(1 << 20)
    while time.monotonic() < end:
        for fd, _ in poll.poll():
            left[fd] -= connections[fd].recv_into(buffer)
            if left[fd] == 0:
                done += 1
                left[fd] = answer_bytes
                connections[fd].sendall(request)
    poll.close()
    for connection in connections.values():
        connection.close()
    return done


def measure(name: str, request: bytes, rounds: int, seconds: float, engine: str) -> None:
    pid, port = _start_server(ENGINES[engine])
    try:
        _load(port, request, 0.3)
        rates, costs = [], []
        for _ in range(rounds):
            before = _cpu_seconds(pid)
            count = _load(port, request, seconds)
            costs.append((_cpu_seconds(pid) - before) / count * 1e3)
            rates.append(count / seconds)
        print(f"{name:18} {engine:10} {statistics.median(rates):9.0f} requests/s {statistics.median(costs):8.4f} ms cpu/request")
    finally:
        os.kill(pid, signal.SIGTERM)
        os.waitpid(pid, 0)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--engine", choices=[*ENGINES, "both"], default="both")
    options = parser.parse_args(arguments)
    get = f"GET /bucket/key-0001 HTTP/1.1\r\n{REQUEST_FIELDS}\r\n".encode()
    put = f"PUT /bucket/key-0001 HTTP/1.1\r\n{REQUEST_FIELDS}Content-Length: {BODY_BYTES}\r\n\r\n".encode() + bytes(BODY_BYTES)
    for engine in ENGINES if options.engine == "both" else [options.engine]:
        measure("GET 4 KiB", get, options.rounds, options.seconds, engine)
        measure("PUT and GET 4 KiB", put, options.rounds, options.seconds, engine)
    print(
        f"load: {CONNECTIONS} connections, {resource.getrusage(resource.RUSAGE_SELF).ru_utime:.1f} s of its own cpu",
        file=sys.stderr,
    )


if __name__ == "__main__":
    main()
