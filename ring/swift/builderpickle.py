"""The part of pickle that a Swift ``.builder`` is made of: plain values and ``array.array``, protocol 2.

A builder file comes from somebody else, and a pickle is a program.  This reads it with a machine of its own that knows only the
opcodes which build plain values, and one name, ``array.array``, for which it makes a numpy array itself: there is nothing in
it that could be called.  Any other opcode or name, a reference to what is not there, and a file that is cut are a FormatError.

Bounds: steps and memory grow with the bytes of the file alone, up to ``STEPS_MAX`` values outside of arrays; a list becomes an
array once.  Numbers in long lists (2^part_power of them) stay undecoded spans of the file until they become an array as a whole.

What ``encode`` writes is read by every Swift: ASCII text as the byte strings of Python 2, which Python 3 takes for text.

Source: the opcodes as Python's ``pickletools`` documents them.  Neighbour: ``swiftbuilder.py`` says what the values mean.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from ring.errors import FormatError

Numbers = NDArray[np.uint8] | NDArray[np.uint16] | NDArray[np.uint32]
Value = None | bool | int | float | str | bytes | Numbers | Sequence["Value"] | Mapping[str, "Value"]

STEPS_MAX = 8_000_000  # 65,535 devices and what Swift counts about them take four to seven million
INT_BYTES_MAX = 8
NUMBER_MAX = 0xFFFFFFFF
_TYPES: dict[str, np.dtype[np.unsignedinteger]] = {"B": np.dtype(np.uint8), "H": np.dtype(np.uint16), "I": np.dtype(np.uint32)}
_CODES = {dtype: code for code, dtype in _TYPES.items()}

_BATCH = 1000  # numbers that Swift writes between a MARK and its APPENDS
_INTS = re.compile(rb"(?:K.|M..|J...[\x00-\x7f]){1,%d}+" % _BATCH, re.DOTALL)  # BININT1, BININT2, BININT that is not negative
_RUN_BYTES_MIN = 256  # shorter ones are read one by one
_WIDTH = np.zeros(256, np.int64)
_WIDTH[[ord("K"), ord("M"), ord("J")]] = 2, 3, 5


class _Array:
    """Stands for ``array.array`` on the stack."""


class _List(list[object]):
    """A list that may hold undecoded numbers: ``packed``."""

    packed = False


class _Used:
    """What is left of a list that became an array."""


@dataclass(frozen=True, slots=True)
class _Run:
    """Numbers of a list, bytes ``start`` to ``end`` of the file, not decoded yet."""

    start: int
    end: int


# ---- reading


def decode(data: bytes, *, steps_max: int = STEPS_MAX) -> object:
    """None, bool, int, float, str, list, dict (keys: str, int, and tuples of them), and arrays of uint8, uint16 or uint32.

    Text that Python 2 wrote as bytes is decoded as UTF-8.  FormatError for anything else.
    """
    return _Machine(data).run(steps_max)


class _Machine:
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0
        self.stack: list[object] = []
        self.marks: list[list[object]] = []
        self.memo: dict[int, object] = {}
        self.loose: dict[int, object] = {}  # by id: numbers of a list, which may still become an array.array, once
        self.steps: Mapping[int, Callable[[], None]] = {
            0x80: self._proto,
            ord("("): self._mark,
            ord("N"): lambda: self.stack.append(None),
            0x88: lambda: self.stack.append(True),
            0x89: lambda: self.stack.append(False),
            ord("K"): lambda: self.stack.append(self._number(1)),
            ord("M"): lambda: self.stack.append(self._number(2)),
            ord("J"): lambda: self.stack.append(self._number(4, signed=True)),
            0x8A: self._long,
            ord("G"): lambda: self.stack.append(struct.unpack(">d", self._take(8))[0]),
            ord("X"): lambda: self.stack.append(self._text(self._take(self._number(4)))),
            ord("U"): lambda: self.stack.append(self._take(self._number(1))),
            ord("T"): lambda: self.stack.append(self._take(self._number(4))),
            ord("]"): lambda: self.stack.append(_List()),
            ord("a"): lambda: self._extend([self._pop()]),
            ord("e"): lambda: self._extend(self._pop_to_mark()),
            ord(")"): lambda: self.stack.append(()),
            0x85: lambda: self._tuple(1),
            0x86: lambda: self._tuple(2),
            0x87: lambda: self._tuple(3),
            ord("t"): self._tuple_to_mark,
            ord("}"): lambda: self.stack.append({}),
            ord("s"): self._set_item,
            ord("u"): lambda: self._set_items(self._pop_to_mark()),
            ord("q"): lambda: self._put(self._number(1)),
            ord("r"): lambda: self._put(self._number(4)),
            ord("h"): lambda: self._get(self._number(1)),
            ord("j"): lambda: self._get(self._number(4)),
            ord("c"): self._global,
            ord("R"): self._reduce,
        }

    def run(self, steps_max: int) -> object:
        for _ in range(steps_max):
            op = self._take(1)[0]
            if op == ord("."):
                return self._stop()
            step = self.steps.get(op)
            if step is None:
                self.at -= 1
                raise self._refused(f"opcode {chr(op) if 32 < op < 127 else hex(op)}, which no Swift builder has")
            step()
        raise self._refused(f"more than {steps_max} values")

    def _refused(self, why: str, hint: str = "") -> FormatError:
        return FormatError(f"not a Swift builder file: {why} (byte {self.at})", hint=hint)

    def _stop(self) -> object:
        if self.marks or len(self.stack) != 1:
            raise self._refused("it ends in the middle of a value")
        if self.at != len(self.data):
            raise self._refused("something stands behind its end")
        return self._settled(self.stack[0])

    # ---- bytes

    def _take(self, count: int) -> bytes:
        taken = self.data[self.at : self.at + count]
        if len(taken) != count:
            raise self._refused("it is cut short")
        self.at += count
        return taken

    def _number(self, count: int, *, signed: bool = False) -> int:
        return int.from_bytes(self._take(count), "little", signed=signed)

    def _long(self) -> None:
        count = self._number(1)
        if count > INT_BYTES_MAX:
            raise self._refused(f"a number of {count} bytes")
        self.stack.append(self._number(count, signed=True))

    def _text(self, data: bytes) -> str:
        try:
            return data.decode()
        except UnicodeDecodeError as error:
            raise self._refused("text that is not UTF-8") from error

    def _line(self) -> bytes:
        end = self.data.find(b"\n", self.at, self.at + 256)
        if end < 0:
            raise self._refused("a name without an end")
        return self._take(end + 1 - self.at)[:-1]

    # ---- the stack

    def _proto(self) -> None:
        if self.at != 1 or self._number(1) != 2:
            raise self._refused("not protocol 2 of pickle")

    def _pop(self) -> object:
        if not self.stack:
            raise self._refused("a value is missing")
        return self.stack.pop()

    def _mark(self) -> None:
        self.marks.append(self.stack)
        self.stack = []
        runs: list[_Run] = []
        at = self.at
        while found := _INTS.match(self.data, at):
            runs.append(_Run(at, found.end()))
            at = found.end()
        if at - self.at >= _RUN_BYTES_MIN and self.data[at : at + 1] == b"e":
            self.stack.extend(runs)
            self.at = at

    def _pop_to_mark(self) -> list[object]:
        if not self.marks:
            raise self._refused("a mark is missing")
        items, self.stack = self.stack, self.marks.pop()
        return items

    def _tuple(self, count: int) -> None:
        if len(self.stack) < count:
            raise self._refused("a value is missing")
        self.stack[-count:] = [tuple(self._values(self.stack[-count:]))]

    def _tuple_to_mark(self) -> None:
        items = tuple(self._values(self._pop_to_mark()))
        self.stack.append(items)

    def _values(self, items: list[object]) -> list[object]:
        """As they go into something: many numbers as an array.  Array as such is no value; it stands on the stack to be called."""
        if any(item is _Array for item in items):
            raise self._refused("array.array that is not called")
        return [self._loose(item) if isinstance(item, _List) and item.packed else item for item in items]

    def _loose(self, values: _List) -> object:
        numbers = self._numbers(values)
        self.loose[id(numbers)] = numbers
        return numbers

    def _extend(self, items: list[object]) -> None:
        top = self.stack[-1] if self.stack else None
        if not isinstance(top, _List):
            raise self._refused("items without a list")
        top.extend(self._text(item) if isinstance(item, bytes) else item for item in self._values(items))
        top.packed = top.packed or any(type(item) is _Run for item in items)

    def _set_item(self) -> None:
        value = self._pop()
        self._set_items([self._pop(), value])

    def _set_items(self, items: list[object]) -> None:
        if not self.stack or type(self.stack[-1]) is not dict or len(items) % 2:
            raise self._refused("items without a dict")
        for key, value in zip(items[::2], items[1::2], strict=True):
            self.stack[-1][self._key(key)] = self._settled(value)

    def _key(self, key: object) -> object:
        if type(key) is tuple:  # of tuples, hashing could take for ever
            return tuple(self._plain_key(one) for one in key)
        return self._plain_key(key)

    def _plain_key(self, key: object) -> str | int:
        if isinstance(key, bytes):
            return self._text(key)
        if isinstance(key, str | int):
            return key
        raise self._refused("a key that is neither text nor number")

    def _settled(self, value: object) -> object:
        """As it goes into a dict: text as text."""
        if isinstance(value, bytes):
            return self._text(value)
        return self._values([value])[0] if isinstance(value, _List) or value is _Array else value

    def _put(self, index: int) -> None:
        if not self.stack:
            raise self._refused("a value is missing")
        self.memo[index] = self.stack[-1]

    def _get(self, index: int) -> None:
        if index not in self.memo:
            raise self._refused("a reference to nothing")
        self.stack.append(self.memo[index])

    # ---- arrays

    def _global(self) -> None:
        start = self.at
        module, name = self._line(), self._line()
        if (module, name) != (b"array", b"array"):
            self.at = start
            old = module.startswith(b"swift.") and name == b"RingBuilder"
            raise self._refused(
                f"it names {ascii((module + b'.' + name).decode('latin-1'))[1:-1]}",
                "one of the oldest Swifts wrote it: let swift-ring-builder write it anew"
                if old
                else "do not load it with Swift either",
            )
        self.stack.append(_Array)

    def _reduce(self) -> None:
        arguments, callee = self._pop(), self._pop()
        if callee is not _Array or type(arguments) is not tuple or not 1 <= len(arguments) <= 2:
            raise self._refused("a call of something that is not array.array")
        code = self._settled(arguments[0])
        dtype = _TYPES.get(code) if isinstance(code, str) else None
        if dtype is None:
            raise self._refused("an array of another type than B, H or I")
        content = arguments[1] if len(arguments) == 2 else _List()
        if isinstance(content, bytes):  # Python 2.6 and before, on a little-endian machine
            if len(content) % dtype.itemsize:
                raise self._refused("an array that is cut short")
            self.stack.append(np.frombuffer(content, dtype.newbyteorder("<")))
            return
        if isinstance(content, _List):
            content = self._loose(content)
        if not isinstance(content, np.ndarray) or self.loose.pop(id(content), None) is None:
            raise self._refused("an array of something that is not a list of its own")
        numbers, largest = content, (1 << 8 * dtype.itemsize) - 1
        if len(numbers) and numbers.max() > largest:
            raise self._refused(f"a number above {largest} in an array of {code}")
        self.stack.append(numbers.astype(dtype))

    def _numbers(self, values: _List) -> NDArray[np.uint32]:
        """The numbers of a list, which is used up by it: else a short file could make many big arrays of one list."""
        pieces: list[NDArray[np.uint32]] = []
        for kind, group in groupby(values, type):
            items = list(group)
            if kind is _Run:
                pieces.append(_decode_runs(self.data, [run for run in items if isinstance(run, _Run)]))
                continue
            numbers = [number for number in items if type(number) is int and 0 <= number <= NUMBER_MAX]
            if len(numbers) != len(items):
                raise self._refused("something in a list of numbers that is not one")
            pieces.append(np.array(numbers, np.uint32))
        values[:] = [_Used]
        values.packed = True
        return np.concatenate(pieces) if pieces else np.zeros(0, np.uint32)


def _decode_runs(data: bytes, runs: list[_Run]) -> NDArray[np.uint32]:
    """All runs side by side, a number of each per step: a run has a thousand, a list has thousands of runs."""
    raw = np.frombuffer(data, np.uint8)
    at = np.array([run.start for run in runs])
    end = np.array([run.end for run in runs])
    steps: list[NDArray[np.uint32]] = []
    counts = np.zeros(len(runs), np.int64)
    while (alive := at < end).any():
        width = np.where(alive, _WIDTH[raw[at]], 0)
        number = raw.take(at + 1, mode="clip").astype(np.uint32)
        for byte in range(1, int(width.max()) - 1):
            more = raw.take(at + 1 + byte, mode="clip").astype(np.uint32) << np.uint32(8 * byte)
            number |= np.where(width > byte + 1, more, 0).astype(np.uint32)
        steps.append(number)
        counts += alive
        at = at + width
    by_run = np.stack(steps, axis=1)
    inside = np.arange(by_run.shape[1]) < counts[:, None]
    return by_run[inside]


# ---- writing


def encode(value: Value) -> bytes:
    """A dict that is there twice is one dict for the reader too."""
    out: list[bytes] = [b"\x80\x02"]
    _write(value, out, {})
    return b"".join([*out, b"."])


def _write(value: Value, out: list[bytes], dicts: dict[int, int]) -> None:
    match value:
        case None:
            out.append(b"N")
        case bool():
            out.append(b"\x88" if value else b"\x89")
        case int():
            out.append(_int(value))
        case float():
            out.append(b"G" + struct.pack(">d", value))
        case str():
            out.append(_text(value))
        case np.ndarray():
            out.append(b"carray\narray\n" + _text(_CODES[value.dtype]) + b"]" + _items(value) + b"\x86R")
        case dict():
            if id(value) in dicts:
                out.append(b"j" + dicts[id(value)].to_bytes(4, "little"))
                return
            dicts[id(value)] = len(dicts)
            out.append(b"}r" + dicts[id(value)].to_bytes(4, "little") + b"(")
            for key, item in value.items():
                out.append(_text(key))
                _write(item, out, dicts)
            out.append(b"u")
        case list():
            out.append(b"](")
            for item in value:
                _write(item, out, dicts)
            out.append(b"e")
        case _:
            raise TypeError(f"no Swift builder holds a {type(value).__name__}")


def _int(value: int) -> bytes:
    if -(1 << 31) <= value < 1 << 31:
        return b"J" + value.to_bytes(4, "little", signed=True)
    return b"\x8a\x08" + value.to_bytes(INT_BYTES_MAX, "little", signed=True)


def _text(value: str) -> bytes:
    data = value.encode()
    if not value.isascii():
        return b"X" + len(data).to_bytes(4, "little") + data
    if len(data) < 256:
        return b"U" + len(data).to_bytes(1, "little") + data
    return b"T" + len(data).to_bytes(4, "little") + data


def _items(numbers: Numbers) -> bytes:
    """Lists in batches, so that a reader's stack stays small."""
    size = numbers.dtype.itemsize
    cells = np.zeros(len(numbers), [("op", "u1"), ("number", f"<u{size}")])
    cells["op"] = {1: ord("K"), 2: ord("M"), 4: ord("J")}[size]
    cells["number"] = numbers
    data, step = cells.tobytes(), _BATCH * (1 + size)
    return b"".join(b"(" + data[start : start + step] + b"e" for start in range(0, len(data), step))
