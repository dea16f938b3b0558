"""RefillMark: what ``refill.json`` says: that a device may lack what it acknowledged, and what of that others have brought back.

That there is one is what counts: one that cannot be read says that nothing was brought back.  What was brought back stays so over
restarts and new rings, since from then on the device acknowledges nothing of it that it does not hold.  Otherwise two
devices that are refilled one after the other would wait for each other after a restart.  A new loss writes a new mark, without it.

    RefillMark   the file
    Memory       what the refill that is under way adds to it

Pure but for the Memory's file.  Neighbours: device (marks a loss), refill (remembers), tools.deploy.replace (``without``).
Format: docs/formats/device-label.md.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import trio

from ring.errors import NewerFormat
from ring.names import Span
from ring.world.interface import Disk

REFILL_PATH = "refill.json"
MAGIC = "ringfort refill"
FORMAT = 2
SAVE_S = 5.0

Partitions = tuple[int, frozenset[int]]  # part power, numbers


@dataclass(frozen=True, slots=True)
class RefillMark:
    """``filled``: by ring, what is trusted again; ``without``: devices whose word is not waited for any more, because what they
    held is lost, too, and a person has said so."""

    reason: str
    filled: Mapping[str, Partitions] = field(default_factory=dict)
    without: frozenset[int] = frozenset()

    def encode(self) -> bytes:
        body = {
            "magic": MAGIC,
            "format": FORMAT,
            "reason": self.reason,
            "filled": {ring: [power, _bits(numbers)] for ring, (power, numbers) in sorted(self.filled.items())},
            "without": sorted(self.without),
        }
        return (json.dumps({**body, "checksum": _checksum(body)}, indent=1, sort_keys=True) + "\n").encode()

    @classmethod
    def decode(cls, data: bytes) -> RefillMark:
        """One that is damaged, or of format 1, knows of nothing that was brought back.  NewerFormat."""
        try:
            body = json.loads(data)
            version = int(body.get("format", 1))
            reason = str(body["reason"])
            if version > FORMAT:
                raise NewerFormat("the mark of a refill", version, FORMAT, path=REFILL_PATH)
            if version < FORMAT:
                return cls(reason)
            if body.pop("checksum") != _checksum(body):
                return cls("its mark is damaged")
            filled = {str(ring): (int(power), _numbers(bits)) for ring, (power, bits) in body["filled"].items()}
            return cls(reason, filled, frozenset(map(int, body["without"])))
        except (ValueError, KeyError, TypeError, AttributeError):
            return cls("its mark is damaged")


class Memory:
    """Of a device whose mark lies on ``disk``.  ``stands``: whether that is still the loss that is being refilled: asked in the
    same breath in which the file is begun to be written, so that a newer mark is never written over."""

    def __init__(
        self, disk: Disk, mark: RefillMark, *, stands: Callable[[], bool] = lambda: True, forget: Iterable[str] = ()
    ) -> None:
        """``forget``: rings of which more was lost than this mark knows of."""
        self.without = mark.without
        self._disk = disk
        self._reason = mark.reason
        self._stands = stands
        lost = set(forget)
        self._filled = {ring: (power, set(numbers)) for ring, (power, numbers) in mark.filled.items() if ring not in lost}
        self._changed = False
        self._saved_at = trio.current_time()

    def has(self, ring: str, span: Span) -> bool:
        power, numbers = self._filled.get(ring, (0, set[int]()))
        return power <= span.part_power and span.partition >> (span.part_power - power) in numbers

    def note(self, ring: str, span: Span) -> None:
        """It is trusted again.  Durable by a later ``save``."""
        power, numbers = self._filled.get(ring, (span.part_power, set[int]()))
        if power < span.part_power:  # the ring has grown
            spread = span.part_power - power
            numbers = {at for number in numbers for at in range(number << spread, (number + 1) << spread)}
        elif power > span.part_power:
            return  # it is forgotten, and brought again after a restart
        numbers.add(span.partition)
        self._filled[ring] = span.part_power, numbers
        self._changed = True

    async def save(self) -> None:
        """Now and then.  OSError."""
        now = trio.current_time()
        if self._changed and now - self._saved_at >= SAVE_S and self._stands():
            self._changed, self._saved_at = False, now
            filled = {ring: (power, frozenset(numbers)) for ring, (power, numbers) in self._filled.items()}
            await self._disk.replace_file(REFILL_PATH, RefillMark(self._reason, filled, self.without).encode())


def _bits(numbers: Iterable[int]) -> str:
    """Hexadecimal, bit n for partition n."""
    data = bytearray(max(numbers, default=-1) // 8 + 1)
    for number in numbers:
        data[number >> 3] |= 1 << (number & 7)
    return data.hex()


def _numbers(bits: str) -> frozenset[int]:
    return frozenset(8 * at + bit for at, byte in enumerate(bytes.fromhex(bits)) for bit in range(8) if byte >> bit & 1)


def _checksum(body: Mapping[str, object]) -> str:
    return f"{zlib.crc32(json.dumps(body, sort_keys=True, separators=(',', ':')).encode()):08x}"
