"""The client's reader of answers against h11's: it agrees, or refuses what h11 would take."""

from __future__ import annotations

from collections.abc import Sequence

import h11
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ring.wire.engine import Refused
from ring.wire.httptools_engine import HttptoolsResponses

# status, fields, body, whether the body came to its end; or None: refused, or cut off in the head
Outcome = tuple[int, list[tuple[str, str]], bytes, bool] | None


def ours(method: str, pieces: Sequence[bytes]) -> Outcome:
    reader = HttptoolsResponses()
    assert reader.expect()
    waiting = [*pieces, b""]
    body = b""
    try:
        while (head := reader.next_head(method)) is None:
            if reader.eof:
                return None
            reader.receive(waiting.pop(0))
    except Refused:
        return None
    fields = [(name, value.lower() if name == "transfer-encoding" else value) for name, value in head.headers]
    try:
        while True:
            data = reader.next_data(1 << 20)
            if data == b"":
                return head.status, fields, body, True
            if data is None:
                if reader.eof:
                    return head.status, fields, body, False
                reader.receive(waiting.pop(0))
            else:
                body += data
    except Refused:
        return head.status, fields, body, False


def theirs(method: str, pieces: Sequence[bytes]) -> Outcome:
    connection = h11.Connection(h11.CLIENT)
    connection.send(h11.Request(method=method, target="/", headers=[("Host", "h")]))
    connection.send(h11.EndOfMessage())
    waiting = [*pieces, b""]
    head: h11.Response | None = None
    body = b""

    def found(whole: bool) -> Outcome:
        if head is None:
            return None
        return head.status_code, [(name.decode("latin-1"), value.decode("latin-1")) for name, value in head.headers], body, whole

    try:
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                if not waiting:
                    return found(False)
                connection.receive_data(waiting.pop(0))
            elif isinstance(event, h11.Response):
                head = event
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                return found(True)
            elif isinstance(event, h11.ConnectionClosed) or event is h11.PAUSED:
                return found(False)
    except h11.RemoteProtocolError:
        return found(False)


def check(method: str, pieces: Sequence[bytes]) -> Outcome:
    fast = ours(method, pieces)
    if fast is not None:
        reference = theirs(method, pieces)
        assert reference is not None
        assert fast[:2] == reference[:2]
        if fast[3]:
            assert fast == reference
        else:  # refused in the body: what was read until then is the same
            assert reference[2].startswith(fast[2])
    return fast


HEAD = "HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (HEAD + "Content-Length: 2\r\n\r\nok", b"ok"),
        (HEAD + "Content-Length: 2\r\n\r\nokay", b"ok"),
        (HEAD + "Transfer-Encoding: chunked\r\n\r\n2;a=b\r\nok\r\n0\r\nT: u\r\n\r\n", b"ok"),
        (HEAD + "\r\nto the end", b"to the end"),
        ("HTTP/1.1 100 Continue\r\n\r\n" + HEAD + "Content-Length: 0\r\n\r\n", b""),
        ("HTTP/1.1 204 No Content\r\n\r\n", b""),
        ("HTTP/1.1 404\r\nContent-Length: 0\r\n\r\n", b""),
        (HEAD + "Content-Length: 3\r\n\r\nok", None),
        (HEAD + "Content-Length: 2\r\nContent-Length: 3\r\n\r\nokay", None),
        (HEAD + "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", None),
        (HEAD + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", None),
        (HEAD + "Transfer-Encoding: chunked\r\n\r\n2\nok\r\n0\r\n\r\n", None),
        (HEAD + "Transfer-Encoding: chunked\r\n\r\n2\r\nokk\r\n0\r\n\r\n", None),
        (HEAD + "X: a\r\n b\r\nContent-Length: 0\r\n\r\n", None),
        (HEAD + "X : a\r\nContent-Length: 0\r\n\r\n", None),
        (HEAD.replace("\r\n", "\n") + "Content-Length: 0\n\n", None),
        ("\r\n" + HEAD + "Content-Length: 0\r\n\r\n", None),
        ("HTTP/1.1 99 Low\r\nContent-Length: 0\r\n\r\n", None),
        ("HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n", None),
        ("HTTP/3.0 200 OK\r\nContent-Length: 0\r\n\r\n", None),
    ],
)
def test_corpus(text: str, expected: bytes | None) -> None:
    data = text.encode("latin-1")
    whole = check("GET", [data])
    assert (whole[2] if whole is not None and whole[3] else None) == expected
    assert check("GET", [data[at : at + 1] for at in range(len(data))]) == whole


FRAGMENTS = [
    *(
        "HTTP/1.1 200 OK\r\n",
        "HTTP/1.1 204 \r\n",
        "HTTP/1.0 304 X\r\n",
        "HTTP/1.1 100 C\r\n\r\n",
        "HTTP/1.1 ",
        "HTTP",
        "\r\n",
        "\n",
        "\r\n\r\n",
    ),
    *(
        "Content-Length: 3\r\n",
        "content-length: 0\r\n",
        "Content-Length: 3, 3\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Connection: close\r\n",
    ),
    *(
        "X: y\r\n",
        "X:\r\n",
        "X: \xe9\r\n",
        " ",
        "\t",
        "\0",
        ":",
        "abc",
        "3\r\nabc\r\n",
        "3 \r\nabc\r\n",
        "0\r\n\r\n",
        "0\r\nT: v\r\n\r\n",
    ),
]


@settings(max_examples=500, deadline=None)
@given(
    st.sampled_from(["GET", "HEAD", "PUT"]),
    st.sampled_from(["HTTP/1.1 200 OK\r\n", "HTTP/1.1 404 Not Found\r\n", "HTTP/1.0 200 OK\r\n", ""]),
    st.lists(st.sampled_from(FRAGMENTS), max_size=5),
    st.sampled_from(["\r\n", "\r\n\r\n", ""]),
    st.lists(st.sampled_from(FRAGMENTS), max_size=4),
    st.integers(0, 60),
)
def test_made_up_answers(method: str, line: str, fields: list[str], end: str, body: list[str], cut: int) -> None:
    data = (line + "".join(fields) + end + "".join(body)).encode("latin-1")
    whole = check(method, [data])
    pieces = [piece for piece in (data[:cut], data[cut:]) if piece]
    assert check(method, pieces) == whole
