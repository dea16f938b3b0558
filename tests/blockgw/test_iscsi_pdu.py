"""Digests, and how a stream is cut into PDUs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockgw.iscsi import pdu
from blockgw.iscsi.crc32c import crc32c, digest
from blockgw.iscsi.pdu import Framer, ProtocolError
from tests.blockgw.initiator import data_out

# RFC 7143 appendix A.4, as they are on the wire
VECTORS = [
    (bytes(32), "aa36918a"),
    (b"\xff" * 32, "43aba862"),
    (bytes(range(32)), "4e79dd46"),
    (bytes(range(31, -1, -1)), "5cdb3f11"),
    (bytes.fromhex("01c00000" + "00" * 12 + "14000000000004000000001400000018280000000000000002" + "00" * 7), "563a96d9"),
]


@pytest.mark.parametrize(("data", "expected"), VECTORS)
def test_crc32c_vectors(data: bytes, expected: str) -> None:
    assert digest(data).hex() == expected


def test_crc32c_of_odd_lengths() -> None:
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(b"") == 0


def wire(sizes: list[int], *, header_digest: bool = False, data_digest: bool = False) -> tuple[bytes, list[tuple[bytes, bytes]]]:
    stream, expected = b"", []
    for number, size in enumerate(sizes):
        data = bytes((number & 0xFF,)) * size
        whole = data_out(number, 0, 0, 0, data)
        header, padded = whole[:48], whole[48:]
        expected.append((header, data))
        stream += header + (digest(header) if header_digest else b"")
        stream += padded + (digest(padded) if data_digest and size else b"")
    return stream, expected


@given(st.lists(st.integers(0, 200), max_size=8), st.lists(st.integers(1, 300), max_size=30), st.booleans(), st.booleans())
def test_any_cut_gives_the_same_pdus(sizes: list[int], cuts: list[int], header_digest: bool, data_digest: bool) -> None:
    stream, expected = wire(sizes, header_digest=header_digest, data_digest=data_digest)
    framer, found = Framer(200, header_digest=header_digest, data_digest=data_digest), []
    for size in [*cuts, len(stream)]:
        part, stream = stream[:size], stream[size:]
        if part:
            assert framer.wanted > 0
            found += [(header, bytes(segment)) for header, segment in framer.feed(part)]
    assert found == expected


def test_wanted_is_what_is_missing() -> None:
    stream, _ = wire([100])
    framer = Framer(100)
    assert list(framer.feed(stream[:40])) == [] and framer.wanted == 8
    assert list(framer.feed(stream[40:48])) == [] and framer.wanted == 100
    assert len(list(framer.feed(stream[48:]))) == 1 and framer.wanted == 48


def test_a_flipped_bit_is_found() -> None:
    stream, _ = wire([100], header_digest=True, data_digest=True)
    for place in (3, 50, 60, len(stream) - 1):
        broken = bytearray(stream)
        broken[place] ^= 1
        with pytest.raises(ProtocolError):
            list(Framer(200, header_digest=True, data_digest=True).feed(bytes(broken)))


@pytest.mark.parametrize("head", ["01800000ff000000", "0180000001000000", "01800000 00ffffff", "01800000 00002001"])
def test_lengths_are_refused_before_their_bytes_come(head: str) -> None:
    with pytest.raises(ProtocolError):
        list(Framer(8192).feed(bytes.fromhex(head).ljust(48, b"\0")))


def test_rest_after_stopping_between_pdus() -> None:
    stream, expected = wire([4, 8])
    framer = Framer(100)
    for header, _ in framer.feed(stream + b"tail"):
        assert header == expected[0][0]
        break
    assert framer.rest() == stream[52:] + b"tail"


def test_headers_are_48_bytes() -> None:
    layouts = [pdu.COMMAND, pdu.DATA_OUT_HEADER, pdu.REQUEST, pdu.LOGIN_REQUEST, pdu.RESPONSE, pdu.DATA_IN_HEADER, pdu.R2T_HEADER]
    assert {layout.size for layout in [*layouts, pdu.REPLY, pdu.LOGIN_REPLY]} == {pdu.HEADER_BYTES}
