"""The load generator: keep-alive connections over plain sockets, one epoll loop, every answer checked.

It knows HTTP/1.1 as far as a benchmark needs it (answers with a Content-Length) and nothing of S3 or Swift: objects.py makes the
jobs.  A connection has one request under way.  An answer of the wrong status, of other bytes than expected, or none, is an error;
its connection is made anew and the load goes on.  The time of an operation runs from its first byte sent to its last received.
"""

from __future__ import annotations

import math
import os
import select
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

RECEIVE_BYTES = 256 << 10
HEAD_BYTES_MAX = 64 << 10
ANSWER_S = 30.0  # a connection that says nothing for so long is an error
ERRORS_MAX = 100  # a run ends early: it measures nothing any more


@dataclass(frozen=True, slots=True)
class Job:
    """One request and what must come back."""

    head: bytes  # up to and with the empty line
    body: memoryview = field(default_factory=lambda: memoryview(b""))
    statuses: tuple[int, ...] = (200, 201)
    expected: memoryview | None = None  # the body, byte for byte
    check: Callable[[bytes], str] | None = None  # of the body; what is wrong with it, "" for nothing


class BadAnswer(Exception):
    """What came is not what was asked for."""


class Answer:
    """Reads one answer piece by piece; BadAnswer at the first wrong byte."""

    __slots__ = ("_head", "_job", "_kept", "_left", "received")

    def __init__(self, job: Job) -> None:
        self._job = job
        self._head = b""
        self._left = -1  # bytes of the body still to come; -1: the head is not complete
        self._kept: list[bytes] = []
        self.received = 0  # bytes of the body

    def feed(self, data: memoryview) -> bool:
        """Whether the answer is complete with ``data``."""
        if self._left < 0:
            before = len(self._head)
            self._head += bytes(data[: HEAD_BYTES_MAX + 4])
            end = self._head.find(b"\r\n\r\n")
            if end < 0:
                if len(self._head) > HEAD_BYTES_MAX:
                    raise BadAnswer("a head without end")
                return False
            self._left = self._read_head(self._head[:end])
            data = data[end + 4 - before :]
        if len(data) > self._left:
            raise BadAnswer("more bytes than were announced")
        expected = self._job.expected
        if expected is not None and data != expected[self.received : self.received + len(data)]:
            raise BadAnswer("wrong bytes")
        if self._job.check is not None:
            self._kept.append(bytes(data))
        self.received += len(data)
        self._left -= len(data)
        if self._left:
            return False
        if self._job.check is not None and (wrong := self._job.check(b"".join(self._kept))):
            raise BadAnswer(wrong)
        return True

    def _read_head(self, head: bytes) -> int:
        """The length of the body."""
        lines = head.split(b"\r\n")
        status = lines[0].split(b" ", 2)
        if len(status) < 2 or not status[0].startswith(b"HTTP/1.1") or not status[1].isdigit():
            raise BadAnswer("no HTTP/1.1 answer")
        if int(status[1]) not in self._job.statuses:
            raise BadAnswer(f"status {int(status[1])}")
        length = None
        for line in lines[1:]:
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        if length is None:
            if int(status[1]) != 204:
                raise BadAnswer("an answer without Content-Length")
            length = 0
        if self._job.expected is not None and length != len(self._job.expected):
            raise BadAnswer("wrong length")
        return length


@dataclass(slots=True)
class Result:
    """Of one run."""

    seconds: float = 0.0
    latencies_s: list[float] = field(default_factory=list)  # of the operations that succeeded
    body_bytes: int = 0  # of them, sent and received
    cpu_s: float | None = None  # of the server
    errors: Counter[str] = field(default_factory=Counter)

    @property
    def operations(self) -> int:
        return len(self.latencies_s)

    @property
    def per_second(self) -> float:
        return self.operations / self.seconds if self.seconds else 0.0

    @property
    def mb_per_second(self) -> float:
        return self.body_bytes / 1e6 / self.seconds if self.seconds else 0.0

    @property
    def cpu_ms(self) -> float | None:
        """Of the server, per operation."""
        return self.cpu_s / self.operations * 1e3 if self.cpu_s is not None and self.operations else None

    def percentile_ms(self, percent: float) -> float | None:
        return percentile(self.latencies_s, percent) * 1e3 if self.latencies_s else None


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that ``percent`` of them do not exceed (nearest rank)."""
    return sorted(values)[max(0, math.ceil(len(values) * percent / 100) - 1)]


def parse_cpu_s(stat: str, ticks_per_s: int) -> float:
    """Seconds of cpu, user and system, of all threads, from /proc/PID/stat (proc(5))."""
    fields = stat.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / ticks_per_s


def cpu_s(pids: Sequence[int]) -> float:
    """Of these processes together.  OSError when one of them is gone."""
    ticks_per_s = os.sysconf("SC_CLK_TCK")
    return sum(parse_cpu_s(Path(f"/proc/{pid}/stat").read_text(), ticks_per_s) for pid in pids)


class _Connection:
    __slots__ = ("_answer", "_job", "_waiting", "began", "socket")

    def __init__(self, address: tuple[str, int]) -> None:
        self.socket = socket.create_connection(address, timeout=ANSWER_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self._waiting: list[memoryview] = []
        self.began = 0.0

    def begin(self, job: Job) -> bool:
        """Send as much as goes; whether all went."""
        self._job = job
        self._answer = Answer(job)
        self._waiting = [memoryview(job.head), job.body] if job.body else [memoryview(job.head)]
        self.began = time.perf_counter()
        return self.send()

    def send(self) -> bool:
        waiting = self._waiting
        while waiting:
            try:
                sent = self.socket.sendmsg(waiting)
            except BlockingIOError:
                return False
            while waiting and sent >= len(waiting[0]):
                sent -= len(waiting.pop(0))
            if waiting:
                waiting[0] = waiting[0][sent:]
        return True

    def receive(self, buffer: memoryview) -> int | None:
        """The size of the bodies of a finished operation; None while it is under way.  BadAnswer, OSError."""
        try:
            count = self.socket.recv_into(buffer)
        except BlockingIOError:
            return None
        if count == 0:
            raise BadAnswer("the connection was closed")
        if not self._answer.feed(buffer[:count]):
            return None
        if self._waiting:
            raise BadAnswer("answered before all was sent")
        return len(self._job.body) + self._answer.received


def run(address: tuple[str, int], jobs: Iterator[Job], *, concurrency: int, seconds: float, pids: Sequence[int] = ()) -> Result:
    """Send ``jobs`` until there are no more or the time is over; what was begun is finished.  ``pids``: the server's processes."""
    result = Result()
    buffer = memoryview(bytearray(RECEIVE_BYTES))
    connections: dict[int, _Connection] = {}
    with select.epoll() as poll:

        def fail(connection: _Connection, kind: str) -> None:
            result.errors[kind] += 1
            del connections[connection.socket.fileno()]
            connection.socket.close()  # which also takes it out of the poll

        def begin(connection: _Connection | None) -> None:
            """The next job, on a new connection when the last one's is lost."""
            while time.perf_counter() < end and result.errors.total() < ERRORS_MAX and (job := next(jobs, None)) is not None:
                try:
                    if connection is None:
                        connection = _Connection(address)
                        connections[connection.socket.fileno()] = connection
                        poll.register(connection.socket, select.EPOLLIN)
                    if not connection.begin(job):
                        poll.modify(connection.socket, select.EPOLLIN | select.EPOLLOUT)
                    busy.add(connection)
                    return
                except OSError as error:
                    if connection is None:
                        result.errors[type(error).__name__] += 1
                    else:
                        fail(connection, type(error).__name__)
                        connection = None

        busy: set[_Connection] = set()
        before = cpu_s(pids) if pids else None
        began = time.perf_counter()
        end = began + seconds
        for _ in range(concurrency):
            begin(None)
        while busy:
            events = poll.poll(1.0)
            now = time.perf_counter()
            for number, event in events:
                connection = connections[number]
                try:
                    if event & select.EPOLLOUT and connection.send():
                        poll.modify(connection.socket, select.EPOLLIN)
                    if not event & ~select.EPOLLOUT:
                        continue
                    size = connection.receive(buffer)
                except (BadAnswer, OSError) as error:
                    busy.discard(connection)
                    fail(connection, str(error) if isinstance(error, BadAnswer) else type(error).__name__)
                    begin(None)
                    continue
                if size is not None:
                    result.latencies_s.append(time.perf_counter() - connection.began)
                    result.body_bytes += size
                    busy.discard(connection)
                    begin(connection)
            if not events:
                for connection in [one for one in busy if now - one.began > ANSWER_S]:
                    busy.discard(connection)
                    fail(connection, "no answer")
        result.seconds = time.perf_counter() - began
        if before is not None:
            result.cpu_s = cpu_s(pids) - before
        for connection in connections.values():
            connection.socket.close()
    return result
