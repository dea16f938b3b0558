"""One command's data from the initiator: immediate, unsolicited, then solicited bursts, strictly in order.  Pure.

``Transfer`` keeps the data and checks every Data-Out PDU against what was asked for (RFC 7143 11.7, 11.8; DataPDUInOrder and
DataSequenceInOrder are Yes).  It may be sent more than the command takes: the excess is counted and let go.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ring.world.interface import Buffer

from ..scsi.action import Action
from .pdu import NO_TAG, ProtocolError


@dataclass(slots=True)
class Transfer:
    length: int  # bytes that the command takes
    expected: int  # bytes that the initiator is ready to send
    first_burst_max: int
    unsolicited: bool  # Data-Out PDUs come before any R2T
    data: bytearray = field(default_factory=bytearray)
    received: int = 0  # offset of the next byte
    granted: int = 0  # bytes of the connection's budget that it holds
    tag: int = NO_TAG  # of the burst that is open
    burst_end: int = 0
    data_sn: int = 0
    r2t_sn: int = 0

    @property
    def complete(self) -> bool:
        return not self.unsolicited and self.received >= self.length

    def immediate(self, segment: Buffer) -> None:
        self._keep(segment)
        self.burst_end = min(self.first_burst_max, self.expected) if self.unsolicited else self.received

    def open_burst(self, tag: int, burst_max: int) -> tuple[int, int]:
        """Offset and length to ask for now."""
        length = min(burst_max, self.length - self.received)
        self.tag, self.burst_end, self.data_sn = tag, self.received + length, 0
        self.r2t_sn += 1
        return self.received, length

    def take(self, tag: int, data_sn: int, offset: int, segment: Buffer, *, final: bool) -> bool:
        """One Data-Out.  True when it ended its burst.  ProtocolError."""
        end = offset + len(segment)
        if tag != (NO_TAG if self.unsolicited else self.tag) or (self.received >= self.burst_end and not self.unsolicited):
            raise ProtocolError("data-out that was not asked for")
        if data_sn != self.data_sn or offset != self.received or end > self.burst_end:
            raise ProtocolError(f"data-out {data_sn} at {offset}, not {self.data_sn} at {self.received} (to {self.burst_end})")
        self.data_sn += 1
        self._keep(segment)
        if self.unsolicited:
            if final:
                self.unsolicited = False
            elif end == self.burst_end:
                raise ProtocolError("unsolicited data without an end")
            return final
        if final != (end == self.burst_end):
            raise ProtocolError("a burst of another length than was asked for")
        return final

    def _keep(self, segment: Buffer) -> None:
        room = self.length - self.received
        if room > 0:
            self.data += segment if len(segment) <= room else memoryview(segment)[:room]
        self.received += len(segment)


class Task:
    """One SCSI command from its arrival to its answer."""

    __slots__ = ("aborted", "action", "counted", "data", "expected", "flags", "itt", "lun", "ready", "transfer", "wanted")

    def __init__(self, itt: int, lun: bytes, flags: int, expected: int, action: Action, *, counted: bool) -> None:
        self.itt = itt
        self.lun = lun
        self.flags = flags  # byte 1 of the command
        self.expected = expected  # bytes to transfer by the initiator's word
        self.action = action
        self.wanted = action.data_out  # bytes that its CDB takes
        self.counted = counted  # in the command window
        self.data: Buffer = b""  # all that came for the action
        self.transfer: Transfer | None = None
        self.ready = False  # its data is here
        self.aborted = False  # no answer is wanted any more
