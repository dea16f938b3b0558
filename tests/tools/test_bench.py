"""The benchmark's parts: the load generator against a small server, what it makes of answers, and its figures."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import repeat

import pytest

from tools.bench.load import Answer, BadAnswer, Job, Result, parse_cpu_s, percentile, run
from tools.bench.objects import Cell, body_of, line, locker, page_check

BODY = bytes(range(256)) * 1024  # larger than what is read for a head


class _Store(BaseHTTPRequestHandler):
    """Remembers what was put; serves one byte too few, a wrong byte or a 503 where the path asks for it."""

    protocol_version = "HTTP/1.1"
    kept: dict[str, bytes]

    def do_PUT(self) -> None:
        self.kept[self.path] = self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(201, b"")

    def do_GET(self) -> None:
        body = self.kept.get(self.path, BODY)
        match self.path:
            case "/short":
                self._answer(200, body[:-1])
            case "/wrong":
                self._answer(200, body[:-1] + b"!")
            case "/busy":
                self._answer(503, b"busy")
            case "/gone":
                self.close_connection = True
            case _:
                self._answer(200, body)

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@contextmanager
def serving() -> Iterator[tuple[str, int]]:
    handler = type("Store", (_Store,), {"kept": {}})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield "127.0.0.1", server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def get(path: str, body: bytes = BODY) -> Job:
    return Job(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode(), expected=memoryview(body))


def put(path: str, body: bytes) -> Job:
    return Job(f"PUT {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode(), memoryview(body))


@pytest.mark.parametrize("concurrency", [1, 4])
def test_what_was_put_is_got_and_counted(concurrency: int) -> None:
    bodies = [bytes(body_of(number, 3000 + number)) for number in range(20)]
    with serving() as address:
        puts = run(address, (put(f"/{i}", body) for i, body in enumerate(bodies)), concurrency=concurrency, seconds=30)
        gets = run(address, (get(f"/{i}", body) for i, body in enumerate(bodies)), concurrency=concurrency, seconds=30)
    size = sum(map(len, bodies))
    assert (puts.operations, puts.body_bytes, puts.errors) == (20, size, Counter())
    assert (gets.operations, gets.body_bytes, gets.errors) == (20, size, Counter())


@pytest.mark.parametrize(
    ("path", "error"),
    [("/short", "wrong length"), ("/wrong", "wrong bytes"), ("/busy", "status 503"), ("/gone", "the connection was closed")],
)
def test_a_bad_answer_is_an_error_and_the_load_goes_on(path: str, error: str) -> None:
    jobs = [get("/a"), get(path), get("/b")]
    with serving() as address:
        result = run(address, iter(jobs), concurrency=1, seconds=30)
    assert result.errors == Counter({error: 1})
    assert result.operations == 2


def test_a_server_that_only_fails_ends_the_run() -> None:
    with serving() as address:
        result = run(address, repeat(get("/busy")), concurrency=4, seconds=30)
    assert result.operations == 0
    assert 100 <= result.errors.total() < 110


@pytest.mark.parametrize("cut", [1, 7, 4096, 1 << 20])
def test_an_answer_may_come_in_any_pieces(cut: int) -> None:
    answer = b"HTTP/1.1 200 OK\r\nX-A: b\r\ncontent-length: %d\r\n\r\n" % len(BODY) + BODY
    reader = Answer(get("/"))
    ends = [reader.feed(memoryview(answer)[at : at + cut]) for at in range(0, len(answer), cut)]
    assert ends == [False] * (len(ends) - 1) + [True]


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nab", "no HTTP/1.1 answer"),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nab", "status 404"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "an answer without Content-Length"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nabc", "more bytes than were announced"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nax", "wrong bytes"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"a" * 70_000, "a head without end"),
    ],
)
def test_answers_that_are_errors(answer: bytes, error: str) -> None:
    with pytest.raises(BadAnswer, match=error):
        Answer(get("/", b"ab")).feed(memoryview(answer))


@pytest.mark.parametrize(
    ("page", "wrong"),
    [
        (b'[{"name":"a","bytes":1},{"name": "b"}]', ""),
        (b'[{"name":"a"}]', "a page of 1 names, not 2"),
        (b'[{"name":"a"},{"name":"c"}]', "a page of other names"),
    ],
)
def test_a_page_has_the_names_it_should(page: bytes, wrong: str) -> None:
    assert page_check(["a", "b"], rb'"name": ?"([^"]*)"')(page) == wrong


def test_percentiles_are_of_the_nearest_rank() -> None:
    values = [float(value) for value in range(200, 0, -1)]
    assert [percentile(values, percent) for percent in (0, 50, 99, 100)] == [1.0, 100.0, 198.0, 200.0]
    assert percentile([3.0], 99) == 3.0


def test_cpu_is_user_and_system_time_whatever_the_command_is_called() -> None:
    stat = "17 (a ) b (c) S 1 17 17 0 -1 4194560 900 0 0 0 250 50 7 9 20 0 5 0 1000 1 2 3"
    assert parse_cpu_s(stat, 100) == 3.0


def test_the_holder_of_a_lock() -> None:
    locks = (
        "1: POSIX  ADVISORY  WRITE 5 fe:00:77 0 EOF\n"
        "2: FLOCK  ADVISORY  WRITE 9 fe:00:77 0 EOF\n"
        "2: -> FLOCK  ADVISORY  WRITE 8 fe:00:78 0 EOF\n"
    )
    assert locker(locks, 77) == 9
    assert locker(locks, 79) is None


def test_the_figures_of_a_line() -> None:
    cell = Cell("swift", "PUT 4 KiB", 16, Result(2.0, [0.01] * 99 + [0.05], 409_600, 0.165))
    shown = cell.as_json()
    assert (shown["ops_per_s"], shown["mb_per_s"], shown["p50_ms"], shown["p99_ms"]) == (50.0, 0.2, 10.0, 10.0)
    assert (shown["cpu_ms_per_op"], shown["ratio"]) == (1.65, 10.0)
    assert " ".join(line(cell).split()) == "swift PUT 4 KiB 16 50 0.2 10.00 10.00 1.650 16.50 10.0x 0"


def test_a_run_without_the_servers_cpu_has_no_ratio() -> None:
    cell = Cell("s3", "GET 1 MiB", 1, Result(1.0, [0.01], 1 << 20))
    assert (cell.ratio, cell.as_json()["cpu_ms_per_op"]) == (None, None)
    assert line(cell).split()[-4:] == ["-", "7.70", "-", "0"]
