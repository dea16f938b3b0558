"""Both engines on the same bytes: they agree, or the one for the hot path refuses what the reference would take.

An outcome is the list of what a server would act on: heads, bodies, and the refusal that ends it.  How the bytes were split on
their way never matters.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ring.wire.engine import HeadLimits, Refused, RequestEngine
from ring.wire.h11_engine import H11Requests
from ring.wire.httptools_engine import HttptoolsRequests

LIMITS = HeadLimits(head_bytes=4096, target_bytes=1024, header_count=20)
ENGINES = [HttptoolsRequests, H11Requests]
Outcome = list[tuple[object, ...]]


def outcome(engine: RequestEngine, pieces: Sequence[bytes]) -> Outcome:
    """What comes of the pieces and the end of the stream after them."""
    found: Outcome = []
    waiting = [*pieces, b""]
    in_body = False
    body = b""
    try:
        while True:
            if in_body:
                data = engine.next_data(1 << 20)
                if data:
                    body += data
                    continue
                if data == b"":
                    found.append(("body", body))
                    in_body, body = False, b""
                    continue
            else:
                head = engine.next_head()
                if head is not None:
                    # h11 lowers this one value
                    fields = tuple((name, value.lower() if name == "transfer-encoding" else value) for name, value in head.headers)
                    found.append((head.method, head.target, fields, head.length, head.keep_alive, head.expects_continue))
                    in_body = True
                    continue
            if engine.eof:
                found.append(("cut off", body) if not engine.idle else ("end",))
                return found
            engine.receive(waiting.pop(0))
    except Refused as refused:
        found.append(("refused", refused.status))
        return found


def messages(found: Outcome) -> Outcome:
    return [item for item in found if item[0] not in ("refused", "end", "cut off")]


def check_agreement(pieces: Sequence[bytes]) -> Outcome:
    fast, reference = outcome(HttptoolsRequests(LIMITS), pieces), outcome(H11Requests(LIMITS), pieces)
    if fast[-1][0] == "refused":
        # Being stricter is allowed, taking something else from the same bytes is not.
        assert messages(reference)[: len(messages(fast))] == messages(fast)
    else:
        assert fast == reference
    return fast


def request(*fields: str, line: str = "PUT /a HTTP/1.1", body: str = "") -> bytes:
    return "\r\n".join([line, "Host: h", *fields, "", body]).encode("latin-1")


CORPUS: list[tuple[str, bytes, object]] = [
    # name, bytes, the status of the refusal or what bodies came
    ("plain", request(line="GET /a?b=c HTTP/1.1"), [b""]),
    ("length", request("Content-Length: 5", body="hello"), [b"hello"]),
    ("chunked", request("Transfer-Encoding: chunked", body="5\r\nhello\r\n1;x=y\r\n!\r\n0\r\n\r\n"), [b"hello!"]),
    ("trailer", request("Transfer-Encoding: chunked", body="0\r\nX-Sum: 1\r\n\r\n"), [b""]),
    ("pipelined", request("Content-Length: 2", body="hi") + request(line="GET /b HTTP/1.1"), [b"hi", b""]),
    ("leading blank line", b"\r\n" + request(line="GET / HTTP/1.1"), [b""]),
    ("upgrade is ignored", request("Upgrade: h2c", "Connection: upgrade", "Content-Length: 2", body="hi"), [b"hi"]),
    ("absolute form", request(line="GET http://other/x HTTP/1.1"), [b""]),
    ("HTTP/1.0", b"GET / HTTP/1.0\r\n\r\n", [b""]),
    ("length and chunked", request("Content-Length: 5", "Transfer-Encoding: chunked", body="0\r\n\r\n"), 400),
    ("chunked and length", request("Transfer-Encoding: chunked", "Content-Length: 5", body="0\r\n\r\n"), 400),
    ("two lengths", request("Content-Length: 5", "Content-Length: 6", body="hello!"), 400),
    ("length list", request("Content-Length: 5, 6", body="hello!"), 400),
    ("negative length", request("Content-Length: -1"), 400),
    ("signed length", request("Content-Length: +5", body="hello"), 400),
    ("huge length", request("Content-Length: 99999999999999999999"), 400),
    ("identity", request("Transfer-Encoding: identity"), 400),
    ("chunked twice", request("Transfer-Encoding: chunked, chunked", body="0\r\n\r\n"), 400),
    ("two codings", request("Transfer-Encoding: chunked", "Transfer-Encoding: identity", body="0\r\n\r\n"), 400),
    ("vertical tab before chunked", request("Transfer-Encoding: \x0bchunked", body="0\r\n\r\n"), 400),
    ("chunked in 1.0", request("Transfer-Encoding: chunked", line="PUT /a HTTP/1.0", body="0\r\n\r\n"), 400),
    ("folded line", request("X: a", " b"), 400),
    ("bare LF", b"GET / HTTP/1.1\nHost: h\n\n", 400),
    ("one bare LF", b"GET / HTTP/1.1\r\nHost: h\nX: y\r\n\r\n", 400),
    ("bare CR", request("X: a\rb"), 400),
    ("NUL", request("X: a\0b"), 400),
    ("blank before colon", request("Content-Length : 5", body="hello"), 400),
    ("no name", request(": x"), 400),
    ("no colon", request("nonsense"), 400),
    ("no host", b"GET / HTTP/1.1\r\n\r\n", 400),
    ("two hosts", request("Host: other"), 400),
    ("two blanks", request(line="GET  / HTTP/1.1"), 400),
    ("tab", request(line="GET\t/ HTTP/1.1"), 400),
    ("blank in target", request(line="GET /a b HTTP/1.1"), 400),
    ("raw UTF-8 in target", request(line="GET /\xc3\xa9 HTTP/1.1"), 400),
    ("no target", request(line="GET HTTP/1.1"), 400),
    ("relative target", request(line="GET a HTTP/1.1"), 400),
    ("asterisk", request(line="GET * HTTP/1.1"), 400),
    ("HTTP/0.9", b"GET /\r\n\r\n", 400),
    ("HTTP/2.0", request(line="GET / HTTP/2.0"), 505),
    ("HTTP/1.2", request(line="GET / HTTP/1.2"), 505),
    ("preface of HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    ("TLS", b"\x16\x03\x01\x02\x00", 400),
    ("CONNECT", request(line="CONNECT h:80 HTTP/1.1"), 501),
    ("unknown method", request(line="BREW / HTTP/1.1"), 501),
    ("lower-case method", request(line="get / HTTP/1.1"), 501),
    ("unknown expectation", request("Expect: teapot", "Content-Length: 1", body="x"), 417),
    ("long target", request(line=f"GET /{'a' * 2000} HTTP/1.1"), 414),
    ("long head", request("X: " + "a" * 5000), 431),
    ("many fields", request(*(f"X-{n}: 1" for n in range(30))), 431),
    ("empty chunk size", request("Transfer-Encoding: chunked", body="\r\nhello\r\n0\r\n\r\n"), 400),
    ("chunk size with 0x", request("Transfer-Encoding: chunked", body="0x5\r\nhello\r\n0\r\n\r\n"), 400),
    ("negative chunk size", request("Transfer-Encoding: chunked", body="-5\r\nhello\r\n0\r\n\r\n"), 400),
    ("huge chunk size", request("Transfer-Encoding: chunked", body="f" * 30 + "\r\nhello\r\n0\r\n\r\n"), 400),
    ("chunk line with bare LF", request("Transfer-Encoding: chunked", body="5\nhello\r\n0\r\n\r\n"), 400),
    ("chunk longer than its size", request("Transfer-Encoding: chunked", body="5\r\nhelloo\r\n0\r\n\r\n"), 400),
    ("chunk ends in LF", request("Transfer-Encoding: chunked", body="5\r\nhello\n0\r\n\r\n"), 400),
    ("long extension", request("Transfer-Encoding: chunked", body="5;" + "x" * 9000 + "\r\nhello\r\n0\r\n\r\n"), 400),
    ("bad trailer", request("Transfer-Encoding: chunked", body="0\r\nno colon\r\n\r\n"), 400),
]


@pytest.mark.parametrize(("data", "expected"), [row[1:] for row in CORPUS], ids=[row[0] for row in CORPUS])
def test_corpus(data: bytes, expected: object) -> None:
    whole = check_agreement([data])
    if isinstance(expected, int):
        assert whole[-1] == ("refused", expected)
    else:
        assert [item[1] for item in whole if item[0] == "body"] == expected
        assert whole[-1] == ("end",)
    assert check_agreement([data[at : at + 1] for at in range(len(data))]) == whole


LAXER = {"long extension"}  # the one refusal of the corpus that the reference does not share


@pytest.mark.parametrize(("name", "data"), [row[:2] for row in CORPUS if isinstance(row[2], int)])
def test_both_refuse(name: str, data: bytes) -> None:
    reference = outcome(H11Requests(LIMITS), [data])
    assert (reference[-1][0] == "refused") == (name not in LAXER)


@pytest.mark.parametrize("engine", ENGINES)
def test_truncated(engine: Callable[[HeadLimits], RequestEngine]) -> None:
    data = request("Content-Length: 5", body="hello")
    for length in range(1, len(data)):
        found = outcome(engine(LIMITS), [data[:length]])
        assert found[-1][0] == "cut off"
        assert ("body", b"hello") not in found


@pytest.mark.parametrize("engine", ENGINES)
def test_absolute_form_replaces_host(engine: Callable[[HeadLimits], RequestEngine]) -> None:
    reader = engine(LIMITS)
    reader.receive(request(line="GET http://other:81?q HTTP/1.1"))
    head = reader.next_head()
    assert head is not None
    assert (head.target, head.headers.get("host")) == ("/?q", "other:81")


@pytest.mark.parametrize("engine", ENGINES)
def test_a_body_of_known_length_is_not_copied(engine: Callable[[HeadLimits], RequestEngine]) -> None:
    reader = engine(LIMITS)
    reader.receive(request("Content-Length: 100000"))
    assert reader.next_head() is not None
    piece = bytes(50_000)
    reader.receive(piece)
    data = reader.next_data(1 << 20)
    assert data == piece
    if engine is HttptoolsRequests:
        assert data is piece


FRAGMENTS = [
    *(
        "GET ",
        "PUT ",
        "POST ",
        "/",
        "/a%20b",
        "*",
        "http://h/",
        " HTTP/1.1",
        " HTTP/1.0",
        " HTTP/1.",
        "\r\n",
        "\r\n\r\n",
        "\n",
        "\r",
    ),
    *("Host: h\r\n", "Host:", "Content-Length: 3\r\n", "Content-Length: 0\r\n", "content-length:3\r\n", "Content-Length: 3,3\r\n"),
    *(
        "Transfer-Encoding: chunked\r\n",
        "Transfer-Encoding: CHUNKED\r\n",
        "transfer-encoding:\tchunked\r\n",
        "Transfer-Encoding: x\r\n",
    ),
    *(
        "Connection: close\r\n",
        "Connection: keep-alive\r\n",
        "Expect: 100-continue\r\n",
        "X: y\r\n",
        "X:\r\n",
        "X: \xe9\r\n",
        " ",
        "\t",
    ),
    *(
        "abc",
        "3\r\nabc\r\n",
        "0\r\n\r\n",
        "3;a=b\r\nabc\r\n",
        "3 \r\nabc\r\n",
        "A\r\n0123456789\r\n",
        "0\r\nT: v\r\n\r\n",
        "\0",
        ":",
        ",",
        "3",
    ),
]
_lines = st.sampled_from(["GET / HTTP/1.1\r\nHost: h\r\n", "PUT /a HTTP/1.1\r\nHost: h\r\n", "PUT /a HTTP/1.0\r\n", ""])
_fragments = st.lists(st.one_of(st.sampled_from(FRAGMENTS), st.text(alphabet="aA1:;=\r\n \t\x00\x7f\xff", max_size=3)), max_size=8)
_message = st.tuples(_lines, _fragments, st.sampled_from(["", "\r\n", "\r\n\r\n"]), _fragments).map(
    lambda parts: (parts[0] + "".join(parts[1]) + parts[2] + "".join(parts[3])).encode("latin-1")
)


@settings(max_examples=600, deadline=None)
@given(st.lists(_message, min_size=1, max_size=3), st.lists(st.integers(0, 200), max_size=4))
def test_made_up_input(parts: list[bytes], cuts: list[int]) -> None:
    data = b"".join(parts)
    whole = check_agreement([data])
    edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    pieces = [data[start:end] for start, end in pairwise(edges)]
    assert check_agreement(pieces) == whole


_token = st.text(alphabet="abcXYZ-09", min_size=1, max_size=8)
_value = st.text(alphabet="ab ,;=\"'\xe9", max_size=10)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(_token, _value), max_size=6), st.lists(st.binary(min_size=1, max_size=40), max_size=5), st.booleans())
def test_well_formed_input_is_taken(fields: list[tuple[str, str]], chunks: list[bytes], chunked: bool) -> None:
    head = "PUT /a HTTP/1.1\r\nHost: h\r\n" + "".join(f"Q{name}: {value}\r\n" for name, value in fields)
    if chunked:
        body = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
        head += "Transfer-Encoding: chunked\r\n"
    else:
        body = b"".join(chunks)
        head += f"Content-Length: {len(body)}\r\n"
    found = check_agreement([head.encode("latin-1") + b"\r\n" + body])
    assert [item for item in found if item[0] in ("body", "end")] == [("body", b"".join(chunks)), ("end",)]
