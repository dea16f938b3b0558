"""The operational keys: how each is agreed, and what comes out (RFC 7143 13).  Pure.

The table gives each key its rule, what this target wants, and the range; what was not spoken of keeps the standard's default.
CRC32C is taken only from an initiator that does not offer None: the digest is dear here, and TCP and the volume have checks of
their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from . import text

SEGMENT_BYTES_MAX = 262144  # the largest data segment this target takes
ANSWERS = frozenset(("NotUnderstood", "Irrelevant", "Reject"))


class Rule(Enum):
    MINIMUM = "minimum"
    MAXIMUM = "maximum"
    AND = "and"  # Yes when both say Yes
    OR = "or"
    LIST = "list"  # the first of the target's own that the initiator lists
    DECLARE = "declare"  # a statement: not answered
    OBSOLETE = "obsolete"


@dataclass(frozen=True, slots=True)
class Key:
    rule: Rule
    default: str  # when nobody speaks of it
    ours: str = ""  # what this target wants; lists: in order
    low: int = 0
    high: int = 0
    discovery: bool = True  # has a meaning in a discovery session


_ANY = 0xFFFFFF

KEYS = {
    "HeaderDigest": Key(Rule.LIST, "None", "None,CRC32C"),
    "DataDigest": Key(Rule.LIST, "None", "None,CRC32C"),
    "MaxConnections": Key(Rule.MINIMUM, "1", "1", 1, 65535, False),
    "InitialR2T": Key(Rule.OR, "Yes", "No", discovery=False),
    "ImmediateData": Key(Rule.AND, "Yes", "Yes", discovery=False),
    "MaxRecvDataSegmentLength": Key(Rule.DECLARE, "8192", "", 512, _ANY),
    "MaxBurstLength": Key(Rule.MINIMUM, "262144", "262144", 512, _ANY, False),
    "FirstBurstLength": Key(Rule.MINIMUM, "65536", "65536", 512, _ANY, False),
    "DefaultTime2Wait": Key(Rule.MAXIMUM, "2", "2", 0, 3600),
    "DefaultTime2Retain": Key(Rule.MINIMUM, "20", "0", 0, 3600),
    "MaxOutstandingR2T": Key(Rule.MINIMUM, "1", "1", 1, 65535, False),
    "DataPDUInOrder": Key(Rule.OR, "Yes", "Yes", discovery=False),
    "DataSequenceInOrder": Key(Rule.OR, "Yes", "Yes", discovery=False),
    "ErrorRecoveryLevel": Key(Rule.MINIMUM, "0", "0", 0, 2),
    "TaskReporting": Key(Rule.LIST, "RFC3720", "RFC3720", discovery=False),
    "iSCSIProtocolLevel": Key(Rule.MINIMUM, "1", "1", 0, 31),
    "InitiatorAlias": Key(Rule.DECLARE, ""),
    "IFMarker": Key(Rule.OBSOLETE, "No"),
    "OFMarker": Key(Rule.OBSOLETE, "No"),
    "IFMarkInt": Key(Rule.OBSOLETE, "2048"),
    "OFMarkInt": Key(Rule.OBSOLETE, "2048"),
}


@dataclass(frozen=True, slots=True)
class Parameters:
    """What a session runs by.  Lengths are bytes."""

    header_digest: bool = False
    data_digest: bool = False
    segment_max: int = 8192  # of the initiator: what it takes in one data segment
    burst_max: int = 262144
    first_burst_max: int = 65536
    initial_r2t: bool = True
    immediate_data: bool = True


class Negotiation:
    """Take the initiator's keys one by one; ``parameters`` is what holds so far."""

    def __init__(self, *, discovery: bool = False) -> None:
        self._discovery = discovery
        self._values = {name: key.default for name, key in KEYS.items()}

    def answer(self, name: str, value: str) -> str | None:
        """What to answer to one key; None for nothing."""
        key = KEYS.get(name)
        if value in ANSWERS:
            return None
        if key is None:
            return "NotUnderstood"
        if self._discovery and not key.discovery:
            return "Irrelevant"
        result = _settle(key, value)
        if key.rule is Rule.DECLARE:
            if result is not None:
                self._values[name] = result
            return None if result is not None else "Reject"
        if result is None:
            return "Reject"
        self._values[name] = result
        return result

    def parameters(self) -> Parameters:
        burst = int(self._values["MaxBurstLength"])
        return Parameters(
            header_digest=self._values["HeaderDigest"] == "CRC32C",
            data_digest=self._values["DataDigest"] == "CRC32C",
            segment_max=int(self._values["MaxRecvDataSegmentLength"]),
            burst_max=burst,
            first_burst_max=min(burst, int(self._values["FirstBurstLength"])),
            initial_r2t=self._values["InitialR2T"] == "Yes",
            immediate_data=self._values["ImmediateData"] == "Yes",
        )


def _settle(key: Key, value: str) -> str | None:
    """The outcome, None when the value is not one that the key can have."""
    match key.rule:
        case Rule.OBSOLETE:
            return None
        case Rule.LIST:
            offered = value.split(",")
            return next((choice for choice in key.ours.split(",") if choice in offered), None)
        case Rule.AND | Rule.OR:
            if value not in ("Yes", "No"):
                return None
            yes = (value == "Yes", key.ours == "Yes")
            return "Yes" if (all(yes) if key.rule is Rule.AND else any(yes)) else "No"
        case Rule.DECLARE if not key.high:
            return value
    given = text.number(value)
    if given is None or not key.low <= given <= key.high:
        return None
    if key.rule is Rule.DECLARE:
        return str(given)
    return str(min(given, int(key.ours)) if key.rule is Rule.MINIMUM else max(given, int(key.ours)))
