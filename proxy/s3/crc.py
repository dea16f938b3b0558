"""CRC32C and CRC64NVME at a bearable speed without machine code: a message is folded as one big integer.  Pure.

A message is a polynomial over GF(2).  x^h is congruent to some R of low degree, so what stands above degree h may be replaced by
its product with R: as many shifts and additions of big integers as R has terms.  Places h where R has few terms were searched
for; each fold halves the message, and a table takes the rest byte by byte.  Both sums are reflected: bit 0 of the little-endian
integer is the coefficient of the highest degree.

Neighbours: checksums.  Source: RFC 3720 appendix B.4 (CRC32C), NVM Express NVM command set specification (64b CRC).
"""

from __future__ import annotations

SLICE_BYTES = 64 << 10  # folded at a time


class Kind:
    """One sum: its width, its reflected polynomial, and where to fold, the highest place first, with x to that power modulo the
    polynomial (reflected)."""

    def __init__(self, width: int, polynomial: int, folds: tuple[tuple[int, int], ...]) -> None:
        self.width = width
        self.ones = (1 << width) - 1
        self._polynomial = polynomial
        self._table = [self.times_x(byte, 8) for byte in range(256)]
        # Of each fold: its height, and where the terms of R are, counted down from degree width - 1.
        self._folds = [(height, tuple(at for at in range(width) if remainder >> at & 1)) for height, remainder in folds]

    def update(self, register: int, data: bytes) -> int:
        """The register after ``data``."""
        for start in range(0, len(data), SLICE_BYTES):
            piece = data[start : start + SLICE_BYTES]
            register = self._bytewise(*self._folded(register, piece))
        return register

    def _folded(self, register: int, data: bytes) -> tuple[int, bytes]:
        """A short message with the same sum."""
        bits = 8 * len(data)
        if bits < 2 * self._folds[-1][0]:
            return register, data
        message = int.from_bytes(data, "little") ^ register
        for height, terms in self._folds:
            above = bits - height
            if above <= self.width:
                continue
            high = message & ((1 << above) - 1)
            # high * R has above + width bits; both ends of the sum stand at degree 0.
            length = max(height, above + self.width)
            # The product's lowest degree is its highest bit: bit i of high times the term at ``at`` is bit i + at + 1.
            low = (message >> above) << (length - height)
            lead = length - above - self.width + 1
            for at in terms:
                low ^= high << (lead + at)
            message, bits = low, length
        spare = -bits % 8  # leading zeros, which a register of zero does not mind
        return 0, (message << spare).to_bytes((bits + spare) // 8, "little")

    def _bytewise(self, register: int, data: bytes) -> int:
        table = self._table
        for byte in data:
            register = table[(register ^ byte) & 255] ^ (register >> 8)
        return register

    def times_x(self, value: int, steps: int) -> int:
        """``value`` times x to the power of ``steps``, modulo the polynomial."""
        for _ in range(steps):
            value = (value >> 1) ^ self._polynomial if value & 1 else value >> 1
        return value


CRC32C = Kind(
    32,
    0x82F63B78,
    (
        (247124, 0x86101820), (123359, 0x81088409), (62530, 0x88406408), (31875, 0x80609021), (15557, 0x854A020A),
        (8308, 0x8A220390), (3867, 0xA0461428), (1928, 0xC5930910), (967, 0x94A20153), (498, 0x945880A6),
    ),
)  # fmt: skip
CRC64NVME = Kind(
    64,
    0x9A6C9329AC4BC9B5,
    (
        (259520, 0x8185590103850110), (127554, 0x826E1018014022A5), (63550, 0x80102641821A3121), (31805, 0xE20100EA02475100),
        (17190, 0x895405900209A44A), (8018, 0x84812B460212B079), (3998, 0xDB040A973681A408), (2097, 0xA44D2C5445048712),
        (1046, 0xF5030B20010388B9), (510, 0xC448448159CA08B4),
    ),
)  # fmt: skip


class Crc:
    """As hashlib's."""

    def __init__(self, kind: Kind) -> None:
        self._kind = kind
        self._register = kind.ones

    def update(self, data: bytes) -> None:
        self._register = self._kind.update(self._register, data)

    def digest(self) -> bytes:
        return (self._register ^ self._kind.ones).to_bytes(self._kind.width // 8, "big")
