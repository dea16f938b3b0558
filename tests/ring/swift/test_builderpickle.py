"""The pickle machine: what it reads it reads as pickle does, and nothing else; hostile files do nothing and cost little."""

from __future__ import annotations

import copyreg
import io
import pickle
import pickletools
import tracemalloc
from array import array
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ring.errors import FormatError
from ring.swift.builderpickle import decode, encode
from tests.ring.swift.ground import GOLDEN, Array, python2

# of protocol 2: what Swift's builders are made of, and no more
ADMITTED = {
    *("PROTO", "STOP", "MARK", "NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"),
    *("BINUNICODE", "SHORT_BINSTRING", "BINSTRING", "EMPTY_LIST", "APPEND", "APPENDS", "EMPTY_TUPLE", "TUPLE"),
    *("TUPLE1", "TUPLE2", "TUPLE3", "EMPTY_DICT", "SETITEM", "SETITEMS", "BINPUT", "LONG_BINPUT", "BINGET", "LONG_BINGET"),
    *("GLOBAL", "REDUCE"),
}

plain = st.none() | st.booleans() | st.integers(-(1 << 62), 1 << 62) | st.floats(allow_nan=False) | st.text()
arrays = st.tuples(st.sampled_from("BHI"), st.lists(st.integers(0, 255))).map(lambda made: array(made[0], made[1]))
keys = st.text() | st.integers() | st.tuples(st.integers(), st.text()) | st.just(())
values = st.recursive(
    plain | arrays,
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(0, 99), inner) | st.tuples(inner, inner),
    max_leaves=12,
)
records = st.dictionaries(
    st.text(max_size=9),
    st.recursive(plain, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=12),
    max_size=4,
)


def same(ours: object, theirs: object) -> bool:
    """As Swift's reader has it, with arrays of numpy for arrays."""
    match theirs:
        case array():
            return isinstance(ours, np.ndarray) and ours.itemsize == theirs.itemsize and bool(ours.tolist() == theirs.tolist())
        case list() | tuple():
            if isinstance(ours, np.ndarray):
                return bool(ours.tolist() == list(theirs))
            assert isinstance(ours, list | tuple)
            return isinstance(ours, type(theirs)) and len(ours) == len(theirs) and all(map(same, ours, theirs))
        case dict():
            assert isinstance(ours, dict)
            return ours.keys() == theirs.keys() and all(same(ours[key], theirs[key]) for key in theirs)
        case str() if isinstance(ours, bytes):  # of Python 2, in a tuple
            return ours.decode() == theirs
        case _:
            return type(ours) is type(theirs) and bool(ours == theirs)


@given(st.dictionaries(st.text(), values, max_size=4))
def test_it_reads_what_pickle_wrote(value: dict[str, object]) -> None:
    assert same(decode(pickle.dumps(value, protocol=2)), value)


@given(st.dictionaries(keys, plain))
def test_keys_are_text_numbers_and_tuples_of_them(value: dict[object, object]) -> None:
    value = {key: one for key, one in value.items() if not (type(key) is int and abs(key) >= 1 << 62)}
    value = {key: one for key, one in value.items() if not (isinstance(key, tuple) and key and abs(key[0]) >= 1 << 62)}
    assert decode(pickle.dumps(value, protocol=2)) == value


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(0, 3000), max_size=3),
    st.sampled_from([255, 256, 65535, 70000, 0x7FFFFFFF, 0xFFFFFFFF]),
    st.integers(0, 1 << 32),
)
@example([1000, 1001, 999], 0xFFFFFFFF, 1)
def test_numbers_of_any_width_in_lists_of_any_length(lengths: list[int], largest: int, seed: int) -> None:
    """Numbers of 1, 2 and 4 bytes side by side, and in arrays and lists beside each other, as Swift's batches have them."""
    chance = np.random.default_rng(seed)
    numbers = [chance.integers(0, chance.choice([200, 60000, largest + 1], length).clip(1), length).tolist() for length in lengths]
    value = {"arrays": [array("I", one) for one in numbers], **{str(i): one for i, one in enumerate(numbers)}}
    assert same(decode(pickle.dumps(value, protocol=2)), value)


@given(records)
def test_pickle_reads_what_it_wrote(value: dict[str, object]) -> None:
    data = encode(value)  # type: ignore[arg-type]  # hypothesis's own nesting
    assert pickle.loads(data) == value
    assert {op.name for op, _, _ in pickletools.genops(data)} <= ADMITTED
    assert decode(data) == value


@pytest.mark.parametrize(("dtype", "code"), [("u1", "B"), ("u2", "H"), ("u4", "I")])
@pytest.mark.parametrize("length", [0, 1, 999, 1000, 1001, 2500])
def test_arrays_that_it_wrote(dtype: str, code: str, length: int) -> None:
    numbers = np.random.default_rng(length).integers(0, 1 << 31 if code == "I" else 1 << 8 * np.dtype(dtype).itemsize, length)
    assert pickle.loads(encode({"a": numbers.astype(dtype)})) == {"a": array(code, numbers.tolist())}


def test_one_dict_twice_stays_one() -> None:
    one: dict[str, int] = {"id": 3}
    read = pickle.loads(encode({"devs": [one, None], "removed": [one]}))
    assert read["devs"][0] is read["removed"][0]


@pytest.mark.parametrize("raw", [False, True])
def test_it_reads_what_python_2_wrote(raw: bool) -> None:
    value = {
        "name": "sdb1",
        "meta": "Größe",
        "big": 1 << 40,
        "H": Array("H", range(400)),
        "B": Array("B", []),
        "I": Array("I", [7]),
    }
    read = decode(python2(value, raw_arrays=raw))
    assert isinstance(read, dict)
    assert (read["name"], read["meta"], read["big"]) == ("sdb1", "Größe", 1 << 40)
    assert [read[code].tolist() for code in "HBI"] == [list(range(400)), [], [7]]
    assert [read[code].itemsize for code in "HBI"] == [2, 1, 4]


# ---- hostile


def refused(data: bytes) -> str:
    with pytest.raises(FormatError) as caught:
        decode(data)
    message = str(caught.value)
    assert message.isprintable()
    assert len(message) < 400
    return message


def text(value: str) -> bytes:
    return b"X" + len(value.encode()).to_bytes(4, "little") + value.encode()


def short(value: str) -> bytes:
    return b"\x8c" + bytes([len(value)]) + value.encode()


def attacks(command: str) -> dict[str, tuple[bytes, bool]]:
    """By route: a pickle, and whether pickle itself runs the command when it loads it."""
    shell, python = text(command), text(f"__import__('os').system({command!r})")
    return {
        "GLOBAL REDUCE": (b"\x80\x02cos\nsystem\n" + shell + b"\x85R.", True),
        "GLOBAL REDUCE, Python 2's name": (b"\x80\x02cposix\nsystem\n" + shell + b"\x85R.", True),
        "eval": (b"\x80\x02cbuiltins\neval\n" + python + b"\x85R.", True),
        "exec": (b"\x80\x02cbuiltins\nexec\n" + python + b"\x85R.", True),
        "__builtin__": (b"\x80\x02c__builtin__\neval\n" + python + b"\x85R.", True),
        "STACK_GLOBAL": (b"\x80\x04" + short("os") + short("system") + b"\x93" + shell + b"\x85R.", True),
        "STACK_GLOBAL, protocol 2": (b"\x80\x02" + text("os") + text("system") + b"\x93" + shell + b"\x85R.", True),
        "INST": (b"\x80\x02(" + shell + b"ios\nsystem\n.", True),
        "OBJ": (b"\x80\x02(cos\nsystem\n" + shell + b"o.", True),
        "NEWOBJ": (b"\x80\x02csubprocess\nPopen\n" + shell + b"\x85\x81.", False),
        "NEWOBJ_EX": (b"\x80\x04csubprocess\nPopen\n" + shell + b"\x85}\x92.", False),
        "EXT1": (b"\x80\x02\x82\xf0" + shell + b"\x85R.", True),
        "EXT2": (b"\x80\x02\x83\xf0\x00" + shell + b"\x85R.", True),
        "EXT4": (b"\x80\x02\x84\xf0\x00\x00\x00" + shell + b"\x85R.", True),
        "PERSID": (b"\x80\x02Pos.system\n.", False),
        "BINPERSID": (b"\x80\x02" + shell + b"Q.", False),
        "BUILD": (b"\x80\x02carray\narray\nU\x01H]\x86R}" + text("x") + shell + b"sb.", False),
        "a name reached through array": (b"\x80\x02carray\narray.__class__\n" + shell + b"\x85R.", False),
        "array by another module": (b"\x80\x02cos\narray\n.", False),
        "array's newer way": (b"\x80\x02carray\n_array_reconstructor\n(carray\narray\nU\x01HK\x02]tR.", False),
        "an object of Swift's": (b"\x80\x02ccopy_reg\n_reconstructor\n(cswift.common.ring.builder\nRingBuilder\nN]tR.", False),
        "after a builder": (GOLDEN.joinpath("swift-2.38.builder").read_bytes()[:-1] + b"cos\nsystem\n" + shell + b"\x85R.", True),
        "inside of a builder": (b"\x80\x02}" + text("devs") + b"]cos\nsystem\n" + shell + b"\x85Ras.", True),
    }


@pytest.mark.parametrize("route", list(attacks("")))
def test_nothing_is_ever_run(route: str, tmp_path: Path) -> None:
    proof = tmp_path / "proof"
    data, bites = attacks(f"touch '{proof}'")[route]
    copyreg.add_extension("os", "system", 0xF0)
    try:
        if bites:
            pickle.loads(data)
            assert proof.exists()  # or the attack is none
            proof.unlink()
        refused(data)
    finally:
        copyreg.remove_extension("os", "system", 0xF0)
    assert not proof.exists()


def test_every_other_opcode_is_refused() -> None:
    codes = {ord(op.code): op.name for op in pickletools.opcodes}
    for byte in range(256):
        if codes.get(byte) not in ADMITTED:
            assert "opcode" in refused(b"\x80\x02" + bytes([byte]) + b"\n" * 20 + b"."), codes.get(byte)


def test_the_message_is_one_line_whatever_the_name() -> None:
    assert "it names os.\\x1b[31m\\xe9" in refused(b"\x80\x02cos\n\x1b[31m\xe9\n.")
    with pytest.raises(FormatError) as caught:
        decode(b"\x80\x02cswift.common.ring.builder\nRingBuilder\n.")
    assert "swift-ring-builder" in caught.value.hint


ARRAY = b"carray\narray\nU\x01H"
MALFORMED = {
    "nothing": b"",
    "no end": b"\x80\x02N",
    "protocol 4": b"\x80\x04N.",
    "protocol in the middle": b"\x80\x02\x80\x02N.",
    "empty stack": b"\x80\x02.",
    "two values": b"\x80\x02NN.",
    "open mark": b"\x80\x02(N.",
    "mark without a value before": b"\x80\x02(].",
    "something behind the end": b"\x80\x02N.N",
    "no mark": b"\x80\x02]Ne.",
    "append to a dict": b"\x80\x02}Na.",
    "append to nothing": b"\x80\x02Na.",
    "append beyond a mark": b"\x80\x02](Na.",
    "set in a list": b"\x80\x02]NNs.",
    "set on nothing": b"\x80\x02U\x01aNs.",
    "odd items": b"\x80\x02}(U\x01au.",
    "tuple of too few": b"\x80\x02N\x87.",
    "list as a key": b"\x80\x02}]Ns.",
    "None as a key": b"\x80\x02}NNs.",
    "tuple of tuples as a key": b"\x80\x02})\x85Ns.",
    "memo of nothing": b"\x80\x02q\x00.",
    "memo that is not there": b"\x80\x02h\x00.",
    "memo beyond": b"\x80\x02Nr\xff\xff\xff\xffj\xfe\xff\xff\xff.",
    "text that is not UTF-8": b"\x80\x02X\x01\x00\x00\x00\xff.",
    "bytes that are not UTF-8, as a value": b"\x80\x02}U\x01aU\x01\xffs.",
    "bytes that are not UTF-8, as a key": b"\x80\x02}U\x01\xffNs.",
    "a very long number": b"\x80\x02\x8a\x09" + bytes(9) + b".",
    "a name without an end": b"\x80\x02c" + b"a" * 300,
    "call of a value": b"\x80\x02N)R.",
    "call without arguments": b"\x80\x02carray\narray\n)R.",
    "call with a list": b"\x80\x02carray\narray\n]R.",
    "call with three": b"\x80\x02" + ARRAY + b"]N\x87R.",
    "array that is not called": b"\x80\x02" + ARRAY[:-3] + b".",
    "array that is not called, in a list": b"\x80\x02]" + ARRAY[:-3] + b"a.",
    "array that is not called, in a long list": b"\x80\x02](" + ARRAY[:-3] + b"e.",
    "array that is not called, in a tuple": b"\x80\x02" + ARRAY + b"\x86.",
    "array that is not called, in a long tuple": b"\x80\x02(" + ARRAY + b"t.",
    "array that is not called, in a dict": b"\x80\x02}U\x01a" + ARRAY[:-3] + b"s.",
    "array that is not called, as a key": b"\x80\x02}" + ARRAY[:-3] + b"Ns.",
    "array of u": b"\x80\x02carray\narray\nU\x01u]\x86R.",
    "array of d": b"\x80\x02carray\narray\nU\x01d]\x86R.",
    "array of a number": b"\x80\x02carray\narray\nK\x01]\x86R.",
    "array of a list as type": b"\x80\x02carray\narray\n]]\x86R.",
    "array of a tuple": b"\x80\x02" + ARRAY + b")\x86R.",
    "array of text": b"\x80\x02" + ARRAY + b"X\x02\x00\x00\x00ab\x86R.",
    "array of half a number": b"\x80\x02" + ARRAY + b"U\x03abc\x86R.",
    "array of texts": b"\x80\x02" + ARRAY + b"](U\x01ae\x86R.",
    "array of true": b"\x80\x02" + ARRAY + b"](\x88e\x86R.",
    "array of a negative number": b"\x80\x02" + ARRAY + b"](J\xff\xff\xff\xffe\x86R.",
    "array of too big a number": b"\x80\x02" + ARRAY + b"](J\x00\x00\x01\x00e\x86R.",
    "array of many too big numbers": b"\x80\x02" + ARRAY + b"](" + b"J\x00\x00\x01\x00" * 500 + b"e\x86R.",
    "array of numbers, then text": b"\x80\x02" + ARRAY + b"](" + b"K\x01" * 500 + b"e(U\x01aK\x01e\x86R.",
    "two arrays of one tuple": b"\x80\x02(" + ARRAY + b"](" + b"K\x01" * 500 + b"e\x86q\x00R" + ARRAY[:-3] + b"h\x00Rt.",
    "two arrays of one short tuple": b"\x80\x02(" + ARRAY + b"](K\x01e\x86q\x00R" + ARRAY[:-3] + b"h\x00Rt.",
    "an array of an array": b"\x80\x02" + ARRAY + ARRAY + b"](K\x01e\x86R\x86R.",
    "two arrays of one list": b"\x80\x02(](K\x01eq\x00" + (ARRAY + b"h\x00\x86R") * 2 + b"t.",
    "a list used up": b"\x80\x02](" + b"K\x01" * 500 + b"eq\x00}(U\x01ah\x00U\x01bh\x00u\x86.",
}


@pytest.mark.parametrize("name", list(MALFORMED))
def test_malformed(name: str) -> None:
    refused(MALFORMED[name])


def test_cut_anywhere() -> None:
    data = GOLDEN.joinpath("swift-2.38.builder").read_bytes()
    for length in range(len(data)):
        refused(data[:length])


@settings(max_examples=500)
@given(st.data())
def test_any_byte_changed_is_read_or_refused(data: st.DataObject) -> None:
    whole = bytearray(GOLDEN.joinpath("swift-2.38.builder").read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    try:
        decode(bytes(whole))
    except FormatError as error:
        assert str(error).startswith("not a Swift builder file: ")


@settings(max_examples=500)
@given(st.lists(st.sampled_from([*map(bytes, ([one] for one in range(256))), ARRAY, b"K\x01" * 200, b"q\x00", b"h\x00"])))
def test_any_bytes_are_read_or_refused(pieces: list[bytes]) -> None:
    try:
        decode(b"\x80\x02" + b"".join(pieces) + b".")
    except FormatError as error:
        assert str(error).startswith("not a Swift builder file: ")


class Careful(pickle.Unpickler):
    """Pickle's own machine, with nothing but array.array to call."""

    def find_class(self, module: str, name: str) -> object:
        assert (module, name) == ("array", "array")
        return array


pieces = st.sampled_from(
    [
        *(
            b"N",
            b"\x88",
            b"\x89",
            b"K\x07",
            b"M\x07\x01",
            b"J\xff\xff\xff\xff",
            b"\x8a\x01\x05",
            b"G" + bytes(8),
            b"X\x01\0\0\0x",
            b"U\x01H",
        ),
        *(b"]", b"a", b"e", b")", b"t", b"\x85", b"\x86", b"\x87", b"}", b"s", b"u", b"(", b"q\x00", b"h\x00", b"q\x01", b"h\x01"),
        *(b"r\x02\0\0\0", b"j\x02\0\0\0", ARRAY, ARRAY + b"]\x86R", b"R", b"K\x01" * 200, b"(" + b"M\x01\x02K\x03" * 100 + b"e"),
    ]
)


@settings(max_examples=2000, deadline=None)
@given(st.lists(pieces, max_size=25), st.booleans())
def test_what_it_reads_at_all_pickle_reads_the_same(program: list[bytes], in_a_dict: bool) -> None:
    data = b"\x80\x02" + b"".join(program) + b"."
    if in_a_dict:
        data = b"\x80\x02}X\x01\0\0\0k" + b"".join(program) + b"s."
    try:
        ours = decode(data)
    except FormatError:
        return
    assert same(ours, Careful(io.BytesIO(data), encoding="utf-8").load())


def peak_bytes(call: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


LIST = b"](" + b"K\x01" * 50_000 + b"eq\x01"
BOMBS = {
    "a memo index of four thousand million": b"\x80\x02Nr\xf0\xff\xff\xff.",
    "text of four thousand million bytes": b"\x80\x02X\xff\xff\xff\xffa.",
    "bytes of four thousand million bytes": b"\x80\x02T\xff\xff\xff\xffa.",
    "tuples of tuples, as a key": b"\x80\x02})" + b"q\x00h\x00\x86" * 60 + b"Ns.",
    "tuples of tuples": b"\x80\x02)" + b"q\x00h\x00\x86" * 60 + b".",
    "a thousand arrays of one list": b"\x80\x02(" + LIST + (b"carray\narray\nU\x01Ih\x01\x86R" * 1000) + b"t.",
    "a thousand values of one list": b"\x80\x02" + LIST + b"}(" + b"K\x05h\x01" * 1000 + b"u\x86.",
    "a thousand arrays of one text": b"\x80\x02(T\xa0\x86\x01\x00"
    + b"a" * 100_000
    + b"q\x01"
    + (ARRAY + b"h\x01\x86R") * 1000
    + b"t.",
    "a thousand arrays of one tuple": b"\x80\x02(" + ARRAY + LIST + b"\x86q\x02" + b"R" + (ARRAY[:-3] + b"h\x02R") * 1000 + b"t.",
    "a thousand arrays of one array": b"\x80\x02(" + ARRAY + LIST + b"\x86Rq\x02" + (ARRAY + b"h\x02\x86R") * 1000 + b"t.",
    "a thousand tuples of one list": b"\x80\x02(" + LIST + b"h\x01\x85" * 1000 + b"t.",
    "a list in itself": b"\x80\x02" + LIST + b"h\x01a.",
    "numbers without an end": b"\x80\x02(" * 50 + b"K\x01" * 50_000,
}


@pytest.mark.parametrize("name", list(BOMBS))
def test_memory_is_bounded_by_the_file(name: str) -> None:
    def read() -> None:
        try:
            decode(BOMBS[name])
        except FormatError:
            return

    assert peak_bytes(read) < 100_000 + 50 * len(BOMBS[name])


@pytest.mark.parametrize("op", [b"}", b"]", b"N", b"(", b")"])
def test_values_have_an_end(op: bytes) -> None:
    with pytest.raises(FormatError, match="more than 1000 values"):
        decode(b"\x80\x02" + op * 5000 + b".", steps_max=1000)


def test_depth_has_none() -> None:
    deep = decode(b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".")
    assert isinstance(deep, list)
    assert len(deep) == 1
