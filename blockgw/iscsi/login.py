"""The login phase of one connection (RFC 7143 6, 11.12, 11.13): PDUs in, steps out.  Pure.

``receive`` takes one login request and says what to do: ``NeedTarget`` (look the target up, then call ``found``) or ``Answer``
(send this; the phase may be over, well or badly).  Stages only go forward; a key spoken twice, a wrong stage, text that never
ends: refused.

Neighbours: negotiation.py and chap.py (decide the keys), session.py (takes over), blockgw.target.connection (performs it).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from ring.world.interface import Buffer

from . import pdu, text
from .chap import AuthenticationError, Chap, Secret
from .negotiation import SEGMENT_BYTES_MAX, Negotiation, Parameters
from .pdu import ProtocolError
from .text import Pairs

SECURITY, OPERATIONAL, FULL_FEATURE = 0, 1, 3
TEXT_BYTES_MAX = 16384  # of one request, over all PDUs that it continues in
SEGMENT_BYTES_LOGIN = 8192  # before anything was agreed (RFC 7143 13.12)
REQUESTS_MAX = 32
NAME_BYTES_MAX = 223  # RFC 7143 4.2.7.2
PORTAL_GROUP = 1
_SECURITY_KEYS = frozenset(("CHAP_A", "CHAP_I", "CHAP_C", "CHAP_N", "CHAP_R"))
_SESSION_KEYS = frozenset(("InitiatorName", "TargetName", "SessionType"))


class Refusal(Enum):
    """Status-Class and Status-Detail of a login that ends here (RFC 7143 11.13.5)."""

    INITIATOR_ERROR = 0x0200
    AUTHENTICATION = 0x0201
    NOT_FOUND = 0x0203
    UNSUPPORTED_VERSION = 0x0205
    TOO_MANY_CONNECTIONS = 0x0206
    MISSING_PARAMETER = 0x0207
    SESSION_TYPE = 0x0209
    NO_SUCH_SESSION = 0x020A
    INVALID_REQUEST = 0x020B
    UNAVAILABLE = 0x0301
    OUT_OF_RESOURCES = 0x0302


@dataclass(frozen=True, slots=True)
class NeedTarget:
    iqn: str


@dataclass(frozen=True, slots=True)
class Answer:
    pdu: bytes
    logged_in: bool = False
    refusal: Refusal | None = None


@dataclass(frozen=True, slots=True)
class Access:
    """What a target asks of initiators: nothing, CHAP, and its own side of mutual CHAP."""

    initiator: Secret | None = None
    target: Secret | None = None


class Refused(Exception):
    """A verdict on its way up; it does not leave this module."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.name)
        self.refusal = refusal


class Login:
    """``tsih`` is the session handle to give out.  After ``logged_in``: the names, ``parameters`` and sequence numbers."""

    def __init__(self, token: Callable[[int], bytes], *, tsih: int) -> None:
        assert 0 < tsih <= 0xFFFF
        self._token = token
        self._tsih = tsih
        self.initiator_name = ""
        self.target_name = ""  # empty in a discovery session
        self.discovery = False
        self.isid = bytes(6)
        self.status_sn = 0
        self.command_sn = 0
        self._stage: int | None = None
        self._negotiation = Negotiation()
        self._seen: dict[str, str] = {}
        self._text = b""
        self._requests = 0
        self._access: Access | None = None  # None: the target is not known yet
        self._chap: Chap | None = None
        self._authenticated = False
        self._declared = False
        self._introduced = False
        self._fields = (0, 0, 0, 0)  # of the request at hand: flags, stage, next stage, itt
        self._pairs: Pairs = []

    @property
    def parameters(self) -> Parameters:
        return self._negotiation.parameters()

    def receive(self, header: bytes, segment: Buffer) -> NeedTarget | Answer:
        """Take one PDU.  ProtocolError when it is no login request: there is nobody to answer then."""
        if header[0] != pdu.LOGIN | pdu.IMMEDIATE:
            raise ProtocolError("not a login request")
        _, flags, _, version_min, _, isid, tsih, itt, _, command_sn, _ = pdu.LOGIN_REQUEST.unpack(header)
        first = self._requests == 0
        self._requests += 1
        stage, following = flags >> 2 & 3, flags & 3
        self._fields = (flags, stage, following, itt)
        if first:
            self.isid, self.command_sn = isid, command_sn
        try:
            if self._requests > REQUESTS_MAX:
                raise Refused(Refusal.INITIATOR_ERROR)
            if version_min > 0:
                raise Refused(Refusal.UNSUPPORTED_VERSION)
            if tsih:  # a second connection to a session, or one to reinstate: MaxConnections is 1
                raise Refused(Refusal.NO_SUCH_SESSION)
            if isid != self.isid or stage not in (SECURITY, OPERATIONAL) or (self._stage is not None and stage != self._stage):
                raise Refused(Refusal.INVALID_REQUEST)
            self._stage = stage
            if flags & pdu.TRANSIT and (flags & pdu.CONTINUES or following <= stage or following == 2):
                raise Refused(Refusal.INVALID_REQUEST)
            self._text += segment
            if len(self._text) > TEXT_BYTES_MAX:
                raise Refused(Refusal.INITIATOR_ERROR)
            if flags & pdu.CONTINUES:
                return self._answer([], transit=False)
            try:
                self._pairs = text.decode(self._text)
            except ProtocolError:
                raise Refused(Refusal.INITIATOR_ERROR) from None
            self._text = b""
            return self._request() if self._access is not None else self._introduce()
        except Refused as refused:
            return self.refuse(refused.refusal)

    def found(self, access: Access | Refusal) -> Answer:
        """The answer to NeedTarget."""
        try:
            if isinstance(access, Refusal):
                raise Refused(access)
            self._access = access
            return self._request()
        except Refused as refused:
            return self.refuse(refused.refusal)

    def _introduce(self) -> NeedTarget | Answer:
        """The first whole request says who, what and where."""
        keys = dict(self._pairs)
        self.initiator_name = keys.get("InitiatorName", "")
        self.discovery = keys.get("SessionType", "Normal") == "Discovery"
        self.target_name = keys.get("TargetName", "")
        if keys.get("SessionType", "Normal") not in ("Normal", "Discovery"):
            raise Refused(Refusal.SESSION_TYPE)
        if len(self.initiator_name) > NAME_BYTES_MAX or len(self.target_name) > NAME_BYTES_MAX:
            raise Refused(Refusal.INITIATOR_ERROR)
        if not self.initiator_name or not (self.target_name or self.discovery):
            raise Refused(Refusal.MISSING_PARAMETER)
        self._negotiation = Negotiation(discovery=self.discovery)
        if not self.discovery:
            return NeedTarget(self.target_name)
        self._access = Access()
        return self._request()

    def _request(self) -> Answer:
        assert self._access is not None
        flags, stage, _, _ = self._fields
        transit = flags & pdu.TRANSIT != 0
        for key, value in self._pairs:  # also a second CHAP_R: one guess a connection
            if key in self._seen and (key not in _SESSION_KEYS or self._seen[key] != value):  # libiscsi repeats its name
                raise Refused(Refusal.INITIATOR_ERROR)
            self._seen[key] = value
        keys = dict(self._pairs)
        answers: Pairs = []
        if stage == SECURITY:
            answers += self._security(self._access, keys)
        elif any(key in _SECURITY_KEYS or key == "AuthMethod" for key in keys):
            raise Refused(Refusal.INVALID_REQUEST)
        if self._access.initiator is not None and not self._authenticated and (transit or stage != SECURITY):
            if stage != SECURITY or self._chap is None:
                raise Refused(Refusal.AUTHENTICATION)
            transit = False  # not before CHAP is through
        for key, value in self._pairs:
            if key in _SESSION_KEYS or key in _SECURITY_KEYS or key == "AuthMethod":
                continue
            answer = self._negotiation.answer(key, value)
            if answer is not None:
                answers.append((key, answer))
        if not self._introduced:
            self._introduced = True
            if not self.discovery:
                answers.append(("TargetPortalGroupTag", str(PORTAL_GROUP)))
        if stage == OPERATIONAL and not self._declared:
            self._declared = True
            answers.append(("MaxRecvDataSegmentLength", str(SEGMENT_BYTES_MAX)))
        return self._answer(answers, transit=transit)

    def _security(self, access: Access, keys: dict[str, str]) -> Pairs:
        answers: Pairs = []
        if "AuthMethod" in keys:
            offered = keys["AuthMethod"].split(",")
            method = "None" if access.initiator is None else "CHAP"
            if method not in offered:
                raise Refused(Refusal.AUTHENTICATION)
            answers.append(("AuthMethod", method))
            if access.initiator is not None:
                self._chap = Chap(access.initiator, access.target, self._token)
        if not _SECURITY_KEYS & keys.keys():
            return answers
        if self._chap is None or self._authenticated:
            raise Refused(Refusal.AUTHENTICATION)
        try:
            if "CHAP_A" in keys:
                answers += self._chap.challenge(keys)
            else:
                answers += self._chap.verify(keys)
                self._authenticated = True
        except AuthenticationError:
            raise Refused(Refusal.AUTHENTICATION) from None
        return answers

    def _answer(self, pairs: Pairs, *, transit: bool) -> Answer:
        stage, following = self._fields[1:3]
        flags = stage << 2
        if transit:
            flags |= pdu.TRANSIT | following
            self._stage = following
        logged_in = transit and following == FULL_FEATURE
        return Answer(self._encode(flags, text.encode(pairs), 0, tsih=self._tsih if logged_in else 0), logged_in)

    def refuse(self, refusal: Refusal) -> Answer:
        return Answer(self._encode(self._fields[1] << 2, b"", refusal.value), refusal=refusal)

    def _encode(self, flags: int, data: bytes, status: int, tsih: int = 0) -> bytes:
        itt = self._fields[3]
        window = (self.command_sn, self.command_sn)  # the session opens the window with its first answer
        fields = (pdu.LOGIN_RESPONSE, flags, 0, 0, len(data), self.isid, tsih, itt, self.status_sn, *window, *divmod(status, 256))
        self.status_sn = self.status_sn + 1 & pdu.MASK
        return pdu.LOGIN_REPLY.pack(*fields) + data + pdu.pad(data)


# ---- routing: what an acceptor sees when it peeks at a new connection


def first_pdu_bytes(first: Buffer) -> int:
    """How many bytes to peek at before ``target_name_of`` can tell: 48 until the length is known, then the whole first PDU.

    0 when it is no login request that this target would take."""
    if len(first) < pdu.HEADER_BYTES:
        return pdu.HEADER_BYTES
    length = int.from_bytes(first[4:8], "big")
    return 0 if first[0] != pdu.LOGIN | pdu.IMMEDIATE or length > SEGMENT_BYTES_LOGIN else pdu.HEADER_BYTES + length


def target_name_of(first: Buffer) -> str | None:
    """The target that a connection's first PDU asks for; None in a discovery session, or when it does not (yet) say."""
    need = first_pdu_bytes(first)
    if not need or len(first) < need or need == pdu.HEADER_BYTES:
        return None
    try:
        keys = dict(text.decode(bytes(first[pdu.HEADER_BYTES : need])))
    except ProtocolError:
        return None
    return keys.get("TargetName")
