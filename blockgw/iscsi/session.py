"""The full feature phase of one session: received bytes in, events out, and what to send in ``out``.  Pure.

``receive`` is a generator on purpose: the caller performs each event before the next PDU is looked at, so everything is
answered in order and a batch needs no bookkeeping.  The hot path is ``_command`` -> caller reads or writes -> ``complete_read`` or
``complete``; keep calls and objects there few.

Limits on what a peer can make us hold: COMMANDS_MAX commands, IMMEDIATE_MAX more, FIRST_BURST a command unasked for, and
SOLICITED_BYTES_MAX asked for (commands wait for their R2T in order, so the oldest always gets on).

Order: simple tasks may overtake each other; an ORDERED task waits for all older ones and holds back all younger ones
(SAM-5 8.6).  ``released`` gives the tasks that a completion set free.

Neighbours: transfer.py (data-out), blockgw.scsi.nexus (commands -> actions), blockgw.target.connection (performs).  RFC 7143.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ring.world.interface import Buffer

from ..scsi.action import Compare, Done, Parameters, Write, refuse
from ..scsi.nexus import Nexus
from ..scsi.sense import INVALID_FIELD_IN_CDB
from . import pdu, text
from .crc32c import digest
from .negotiation import SEGMENT_BYTES_MAX
from .negotiation import Parameters as SessionParameters
from .pdu import FINAL, MASK, NO_TAG, ORDERED, READS, WRITES, Framer, ProtocolError, pad
from .transfer import Task, Transfer

COMMANDS_MAX = 128
IMMEDIATE_MAX = 16
SOLICITED_BYTES_MAX = 8 << 20

_OVERFLOW, _UNDERFLOW, _STATUS = 0x04, 0x02, 0x01

# Reject reasons (RFC 7143 11.17.1)
PROTOCOL_ERROR, NOT_SUPPORTED, TOO_MANY_IMMEDIATE = 0x04, 0x05, 0x06

# task management: functions and responses (RFC 7143 11.5, 11.6)
ABORT_TASK, ABORT_TASK_SET, CLEAR_TASK_SET, LUN_RESET, TARGET_WARM_RESET = 1, 2, 4, 5, 6
TASK_REASSIGN = 8
COMPLETE, NO_SUCH_TASK, NO_SUCH_LUN, NO_REASSIGNMENT, NO_SUCH_FUNCTION = 0, 1, 2, 4, 5


@dataclass(frozen=True, slots=True)
class Management:
    """Abort ``tasks`` (those in performance too), then call ``manage``.  ``resets``: and everybody else's tasks."""

    itt: int
    function: int
    tasks: tuple[Task, ...]
    response: int = COMPLETE

    @property
    def resets(self) -> bool:
        return self.response == COMPLETE and self.function in (CLEAR_TASK_SET, LUN_RESET, TARGET_WARM_RESET)


@dataclass(frozen=True, slots=True)
class SendTargets:
    """Call ``answer_targets`` with the targets: ``name`` alone, or all when it is None."""

    itt: int
    name: str | None


@dataclass(frozen=True, slots=True)
class LoggedOut:
    """The answer is in ``out``: send it and close."""


Event = Task | Management | SendTargets | LoggedOut


class Session:
    """``nexus`` is None in a discovery session.  ``out`` is what to send, in order; empty it when it is sent."""

    def __init__(
        self,
        parameters: SessionParameters,
        nexus: Nexus | None,
        *,
        command_sn: int,
        status_sn: int,
        target_name: str = "",
        commands_max: int = COMMANDS_MAX,
    ) -> None:
        self.parameters = parameters
        self.nexus = nexus
        self.out: list[Buffer] = []
        self.out_bytes = 0  # of data segments in out: when it is time to send
        self.tasks: dict[int, Task] = {}  # by initiator task tag, oldest first
        self._target_name = target_name
        self._framer = Framer(SEGMENT_BYTES_MAX, header_digest=parameters.header_digest, data_digest=parameters.data_digest)
        self._digests = parameters.header_digest or parameters.data_digest
        self._segment_max = min(parameters.segment_max, parameters.burst_max)
        self._command_sn = command_sn  # ExpCmdSN
        self._status_sn = status_sn
        self._room = commands_max - 1  # less the commands that are open: MaxCmdSN - ExpCmdSN
        self._ordered = 0  # ORDERED tasks among ``tasks``
        self._held: list[Task] = []  # ready, but behind an ORDERED one (or being one)
        self._solicited = 0
        self._waiting: deque[Task] = deque()  # for room to ask for their data
        self._tag = 0
        self._text = b""  # what is still to be sent of a long text response

    @property
    def wanted(self) -> int:
        """Bytes until the PDU at hand is whole."""
        return self._framer.wanted

    def receive(self, data: bytes) -> Iterator[Event]:
        """ProtocolError: send what is in ``out`` and close."""
        for header, segment in self._framer.feed(data):
            opcode = header[0] & 0x3F
            if opcode == pdu.SCSI_COMMAND:
                task = self._command(header, segment)
            elif opcode == pdu.DATA_OUT:
                task = self._data_out(header, segment)
            else:
                event = self._request(opcode, header, segment)
                if event is not None:
                    yield event
                continue
            if task is not None:
                yield task

    # ---- commands

    def _command(self, header: bytes, segment: Buffer) -> Task | None:
        opcode, flags, lun, itt, expected, command_sn, _, cdb = pdu.COMMAND.unpack(header)
        counted = not opcode & pdu.IMMEDIATE
        if counted:
            if not self._next(command_sn):
                return None
        elif len(self.tasks) >= COMMANDS_MAX + IMMEDIATE_MAX:
            self._reject(header, TOO_MANY_IMMEDIATE)
            return None
        if self.nexus is None or itt in self.tasks or itt == NO_TAG or flags & (READS | WRITES) == READS | WRITES:
            self._reject(header, PROTOCOL_ERROR)
            raise ProtocolError("a command that cannot be here")
        if counted:
            self._room -= 1
        action = self.nexus.start(lun, cdb)
        task = Task(itt, lun, flags, expected, action, counted=counted)
        self.tasks[itt] = task
        attribute = flags & pdu.ATTRIBUTES
        if attribute == ORDERED:
            self._ordered += 1
        if segment or not flags & FINAL:
            self._check_unasked(flags, expected, len(segment))
        if task.wanted:
            length = min(task.wanted, expected) if flags & WRITES else 0
            if isinstance(action, Parameters) and action.exact and length != expected:
                task.action, task.wanted = refuse(INVALID_FIELD_IN_CDB), 0
                return self._data_is_here(task)
            if length <= len(segment) and flags & FINAL:
                task.data = segment if len(segment) == length else memoryview(segment)[:length]
            else:
                return self._collect(task, length, segment)
        return self._data_is_here(task)

    def _next(self, command_sn: int) -> bool:
        """Is it the command to come?  False: outside the window, to be ignored (RFC 7143 4.2.2.1)."""
        ahead = command_sn - self._command_sn & MASK
        if ahead == 0 and self._room >= 0:
            self._command_sn = command_sn + 1 & MASK
            return True
        if ahead <= self._room:
            raise ProtocolError("a gap in the command numbers")
        return False

    def _check_unasked(self, flags: int, expected: int, length: int) -> None:
        limit = min(self.parameters.first_burst_max, expected)
        if not flags & WRITES or length > limit or (length and not self.parameters.immediate_data):
            raise ProtocolError("immediate data that was not agreed")
        if not flags & FINAL and (self.parameters.initial_r2t or length == limit):
            raise ProtocolError("unsolicited data that was not agreed")

    def _collect(self, task: Task, length: int, segment: Buffer) -> Task | None:
        transfer = Transfer(length, task.expected, self.parameters.first_burst_max, not task.flags & FINAL)
        transfer.immediate(segment)
        task.transfer = transfer
        if not transfer.unsolicited:
            self._waiting.append(task)
            self._solicit()
        return None

    def _solicit(self) -> None:
        """Ask for data, in the order of the commands, as far as the budget goes."""
        while self._waiting:
            task = self._waiting[0]
            transfer = task.transfer
            assert transfer is not None
            need = transfer.length - transfer.received
            if self._solicited and self._solicited + need > SOLICITED_BYTES_MAX:
                return
            self._waiting.popleft()
            self._solicited += need
            transfer.granted = need
            self._ask(task, transfer)

    def _ask(self, task: Task, transfer: Transfer) -> None:
        self._tag = self._tag + 1 & 0x7FFFFFFF
        number = transfer.r2t_sn
        offset, length = transfer.open_burst(self._tag, self.parameters.burst_max)
        window = (self._status_sn, self._command_sn, self._command_sn + self._room & MASK)
        self._send(pdu.R2T_HEADER.pack(pdu.R2T, FINAL, task.lun, task.itt, self._tag, *window, number, offset, length))

    def _data_out(self, header: bytes, segment: Buffer) -> Task | None:
        _, flags, _, itt, tag, _, data_sn, offset = pdu.DATA_OUT_HEADER.unpack(header)
        task = self.tasks.get(itt)
        if task is None or task.transfer is None or task.ready:
            return None  # of a command that was aborted, or refused before all its unsolicited data was here
        transfer = task.transfer
        if not transfer.take(tag, data_sn, offset, segment, final=flags & FINAL != 0):
            return None
        if not transfer.complete:
            if transfer.granted:
                self._ask(task, transfer)
            else:
                self._waiting.append(task)
                self._solicit()
            return None
        task.data = transfer.data
        return self._data_is_here(task)

    def _data_is_here(self, task: Task) -> Task | None:
        task.ready = True
        if task.wanted:
            action = task.action
            assert isinstance(action, Write | Compare | Parameters)
            if len(task.data) < task.wanted:
                task.action = action = action.shorten(len(task.data))
                if isinstance(action, Write):
                    task.data = memoryview(task.data)[: action.data_out]
            if isinstance(action, Parameters):
                task.action = action.then(bytes(task.data))
        if self._ordered and not self._may_go(task):
            task.data = bytes(task.data)
            self._held.append(task)
            return None
        return task

    def _may_go(self, task: Task) -> bool:
        attribute = task.flags & pdu.ATTRIBUTES
        if attribute == pdu.HEAD_OF_QUEUE:
            return True
        for older in self.tasks.values():
            if older is task:
                return True
            if attribute == ORDERED or older.flags & pdu.ATTRIBUTES == ORDERED:
                return False
        return True

    def released(self) -> list[Task]:
        """The tasks that held back until now and may go."""
        if not self._held:
            return []
        free = [task for task in self._held if self._may_go(task)]
        self._held = [task for task in self._held if task not in free]
        return free

    # ---- answers

    def complete_read(self, task: Task, data: Buffer) -> None:
        """A read that went well."""
        length = len(data)
        if length != task.expected or length > self._segment_max or self._digests or not task.flags & READS:
            self.complete(task, Done(data))
            return
        del self.tasks[task.itt]
        if task.counted:
            self._room += 1
        if task.flags & pdu.ATTRIBUTES == ORDERED:
            self._ordered -= 1
        status_sn, expected_sn = self._status_sn, self._command_sn
        self._status_sn = status_sn + 1 & MASK
        self.out.append(
            pdu.DATA_IN_HEADER.pack(
                pdu.DATA_IN,
                FINAL | _STATUS,
                0,
                length,
                task.itt,
                NO_TAG,
                status_sn,
                expected_sn,
                expected_sn + self._room & MASK,
                0,
                0,
                0,
            )
        )
        self.out.append(data)
        self.out_bytes += length

    def complete(self, task: Task, done: Done) -> None:
        """Answer a command; one that was aborted only goes away."""
        self._forget(task)
        if task.aborted:
            return
        if done.sense is not None:
            sense = done.sense.encode()
            self._respond(task, done.status, len(sense).to_bytes(2, "big") + sense, 0)
        elif not done.data:
            self._respond(task, done.status, b"", task.wanted)
        elif not task.flags & READS or not task.expected:
            self._respond(task, done.status, b"", len(done.data))
        else:
            self._data_in(task, done.data)

    def _respond(self, task: Task, status: int, sense: bytes, moved: int) -> None:
        flag, residual = _residual(task.expected, moved)
        number = task.transfer.r2t_sn if task.transfer is not None else 0
        header = pdu.RESPONSE.pack(
            pdu.SCSI_RESPONSE, FINAL | flag, 0, status, len(sense), task.itt, *self._numbers(), number, 0, residual
        )
        self._send(header, sense)

    def _data_in(self, task: Task, data: Buffer) -> None:
        flag, residual = _residual(task.expected, len(data))
        view = memoryview(data)[: task.expected]
        offset, number, burst = 0, 0, self.parameters.burst_max
        while True:
            length = min(self._segment_max, burst, len(view) - offset)
            burst -= length
            last = offset + length == len(view)
            flags = FINAL if last or not burst else 0
            if last:
                flags |= _STATUS | flag
                numbers = self._numbers()
            else:
                numbers = (0, self._command_sn, self._command_sn + self._room & MASK)
            header = pdu.DATA_IN_HEADER.pack(
                pdu.DATA_IN, flags, 0, length, task.itt, NO_TAG, *numbers, number, offset, residual if last else 0
            )
            self._send(header, view[offset : offset + length])
            if last:
                return
            offset += length
            number += 1
            burst = burst or self.parameters.burst_max

    def _forget(self, task: Task) -> None:
        if self.tasks.pop(task.itt, None) is None:
            return
        if task.counted:
            self._room += 1
        if task.flags & pdu.ATTRIBUTES == ORDERED:
            self._ordered -= 1
        if task.transfer is not None:
            self._solicited -= task.transfer.granted
            task.transfer.granted = 0
            self._solicit()

    def _numbers(self) -> tuple[int, int, int]:
        """StatSN (taken), ExpCmdSN, MaxCmdSN."""
        status_sn = self._status_sn
        self._status_sn = status_sn + 1 & MASK
        return status_sn, self._command_sn, self._command_sn + self._room & MASK

    def _send(self, header: bytes, data: Buffer = b"") -> None:
        self.out.append(header)
        if self.parameters.header_digest:
            self.out.append(digest(header))
        if data:
            padding = pad(data)
            self.out.append(data)
            if padding:
                self.out.append(padding)
            if self.parameters.data_digest:
                self.out.append(digest(bytes(data) + padding))
            self.out_bytes += len(data)

    # ---- everything else

    def _request(self, opcode: int, header: bytes, segment: Buffer) -> Management | SendTargets | LoggedOut | None:
        if opcode not in (pdu.NOP_OUT, pdu.TASK_MANAGEMENT, pdu.TEXT, pdu.LOGOUT):
            self._reject(header, NOT_SUPPORTED)
            raise ProtocolError(f"opcode {opcode:#x} in the full feature phase")
        first, flags, _, lun, itt, word, command_sn, _, _, _ = pdu.REQUEST.unpack(header)
        if not first & pdu.IMMEDIATE and not self._next(command_sn):
            return None
        match opcode:
            case pdu.NOP_OUT:
                if itt != NO_TAG:
                    self._reply(pdu.NOP_IN, itt, word=NO_TAG, data=segment[: self.parameters.segment_max])
                return None
            case pdu.TASK_MANAGEMENT:
                return self._manage(flags & 0x7F, lun, itt, word)
            case pdu.TEXT:
                return self._text_request(header, flags, itt, word, bytes(segment))
        supported = flags & 0x7F in (0, 1)  # close the session, or its only connection
        self._reply(pdu.LOGOUT_RESPONSE, itt, response=0 if supported else 2, word=0)
        return LoggedOut() if supported else None

    def ping(self) -> None:
        """A NOP-In that the initiator has to answer."""
        self._tag = self._tag + 1 & 0x7FFFFFFF
        window = (self._status_sn, self._command_sn, self._command_sn + self._room & MASK)  # takes no StatSN
        self._send(pdu.REPLY.pack(pdu.NOP_IN, FINAL, 0, 0, bytes(8), NO_TAG, self._tag, *window, 0, 0, 0))

    def _manage(self, function: int, lun: bytes, itt: int, referenced: int) -> Management:
        addressed = self.nexus is not None and self.nexus.has(lun)
        match function:
            case 1:  # ABORT_TASK
                task = self.tasks.get(referenced)
                found = task is not None and task.lun == lun
                management = Management(itt, function, (task,) if task and found else (), COMPLETE if found else NO_SUCH_TASK)
            case 2 | 4 | 5 if not addressed:
                management = Management(itt, function, (), NO_SUCH_LUN)
            case 2 | 4 | 5 | 6:
                management = Management(itt, function, tuple(self.tasks.values()))
            case 8:
                management = Management(itt, function, (), NO_REASSIGNMENT)
            case _:
                management = Management(itt, function, (), NO_SUCH_FUNCTION)
        for task in management.tasks:
            self.abort(task)
        return management

    def abort(self, task: Task) -> None:
        """It will not be answered.  One that was handed out stays in ``tasks`` until its performer calls ``complete``."""
        task.aborted = True
        if task in self._held:
            self._held.remove(task)
            self._forget(task)
        elif not task.ready:
            if task in self._waiting:
                self._waiting.remove(task)
            self._forget(task)

    def manage(self, management: Management) -> None:
        """Answer, now that the tasks are gone."""
        self._reply(pdu.TASK_MANAGEMENT_RESPONSE, management.itt, response=management.response, word=0)

    def _text_request(self, header: bytes, flags: int, itt: int, tag: int, data: bytes) -> SendTargets | None:
        if flags & pdu.CONTINUES:
            self._reject(header, PROTOCOL_ERROR)
            raise ProtocolError("a text request that goes on and on")
        if tag != NO_TAG:  # the initiator asks for the rest
            self._text_reply(itt)
            return None
        keys = dict(text.decode(data))
        name = keys.pop("SendTargets", None)
        if name is None or keys or (name == "All" and self.nexus is not None):
            self._text = text.encode((key, "NotUnderstood") for key in keys) or text.encode([("SendTargets", "Reject")])
            self._text_reply(itt)
            return None
        return SendTargets(itt, None if name == "All" else name or self._target_name)

    def answer_targets(self, event: SendTargets, targets: Iterable[tuple[str, str]]) -> None:
        """``targets``: name and address ("host:port,group")."""
        self._text = b"".join(text.encode([("TargetName", name), ("TargetAddress", address)]) for name, address in targets)
        self._text_reply(event.itt)

    def _text_reply(self, itt: int) -> None:
        part, self._text = self._text[: self.parameters.segment_max], self._text[self.parameters.segment_max :]
        flags = pdu.CONTINUES if self._text else FINAL
        self._reply(pdu.TEXT_RESPONSE, itt, flags=flags, word=1 if self._text else NO_TAG, data=part)

    def _reply(self, opcode: int, itt: int, *, word: int, flags: int = FINAL, response: int = 0, data: Buffer = b"") -> None:
        self._send(pdu.REPLY.pack(opcode, flags, response, len(data), bytes(8), itt, word, *self._numbers(), 0, 0, 0), data)

    def _reject(self, header: bytes, reason: int) -> None:
        self._reply(pdu.REJECT, NO_TAG, word=0, response=reason, data=header)


def _residual(expected: int, moved: int) -> tuple[int, int]:
    if moved == expected:
        return 0, 0
    return (_OVERFLOW, moved - expected) if moved > expected else (_UNDERFLOW, expected - moved)
