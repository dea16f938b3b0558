"""Login conversations: requests in, answers out."""

from __future__ import annotations

import hashlib

import pytest

from blockgw.iscsi import pdu, text
from blockgw.iscsi.chap import Secret
from blockgw.iscsi.login import (
    Access,
    Answer,
    Login,
    NeedTarget,
    Refusal,
    first_pdu_bytes,
    target_name_of,
)
from blockgw.iscsi.negotiation import Negotiation, Parameters
from blockgw.iscsi.pdu import ProtocolError
from ring.errors import BadInput
from tests.blockgw.initiator import IDENTITY, INITIATOR, IQN, answers, login, security
from tests.blockgw.initiator import Answer as Heard

OPEN = Access()
CHAP = Access(Secret("user", "initiator-secret"))
MUTUAL = Access(Secret("user", "initiator-secret"), Secret("target", "the-target-secret"))
OFFER = [*IDENTITY, ("AuthMethod", "CHAP,None")]
HASHES = {5: "md5", 6: "sha1", 7: "sha256", 8: "sha3_256"}


class Talk:
    """One login phase; ``say`` gives what the target answers."""

    def __init__(self, access: Access | Refusal = OPEN) -> None:
        self.access = access
        self.issued = 0
        self.login = Login(self._token, tsih=9)
        self.last = Answer(b"")

    def _token(self, length: int) -> bytes:
        self.issued += 1
        return bytes((self.issued,)) * length

    def say(self, request: bytes) -> Heard:
        length = int.from_bytes(request[5:8], "big")
        step = self.login.receive(request[:48], request[48 : 48 + length])
        if isinstance(step, NeedTarget):
            assert step.iqn == IQN
            step = self.login.found(self.access)
        self.last = step
        return answers(step.pdu)[0]


def response(heard: Heard, secret: str) -> str:
    algorithm = HASHES[int(heard.keys["CHAP_A"])]
    data = bytes((int(heard.keys["CHAP_I"]),)) + secret.encode() + bytes.fromhex(heard.keys["CHAP_C"][2:])
    return "0x" + hashlib.new(algorithm, data, usedforsecurity=False).hexdigest()


def test_straight_to_full_feature() -> None:
    talk = Talk()
    heard = talk.say(login([*IDENTITY, ("HeaderDigest", "CRC32C,None"), ("InitialR2T", "No")]))
    assert heard.opcode == pdu.LOGIN_RESPONSE and heard.login_status == 0
    assert heard.flags == pdu.TRANSIT | 1 << 2 | 3
    assert heard.header[14:16] == b"\0\x09"  # the session's handle
    assert heard.keys == {
        "HeaderDigest": "None",
        "InitialR2T": "No",
        "TargetPortalGroupTag": "1",
        "MaxRecvDataSegmentLength": "262144",
    }
    assert talk.last.logged_in
    assert (talk.login.initiator_name, talk.login.target_name) == (INITIATOR, IQN)
    assert not talk.login.parameters.initial_r2t


def test_security_without_chap_then_operational() -> None:
    talk = Talk()
    heard = talk.say(security(OFFER, following=1))
    assert heard.keys == {"AuthMethod": "None", "TargetPortalGroupTag": "1"} and heard.flags == pdu.TRANSIT | 1
    assert talk.say(login([("MaxBurstLength", "65536")])).keys["MaxBurstLength"] == "65536"
    assert talk.last.logged_in and talk.login.parameters.burst_max == 65536


@pytest.mark.parametrize(("offered", "chosen"), [("7,5", 7), ("5", 5), ("6", 6), ("99,8,5", 8)])
def test_chap(offered: str, chosen: int) -> None:
    talk = Talk(CHAP)
    assert talk.say(security(OFFER)).keys["AuthMethod"] == "CHAP"
    challenge = talk.say(security([("CHAP_A", offered)]))
    assert challenge.keys["CHAP_A"] == str(chosen)
    proof = [("CHAP_N", "user"), ("CHAP_R", response(challenge, "initiator-secret"))]
    assert talk.say(security(proof, following=1)).flags == pdu.TRANSIT | 1
    assert talk.say(login([])).login_status == 0 and talk.last.logged_in


def test_names_may_be_repeated_in_the_next_stage() -> None:
    talk = Talk()
    talk.say(security(OFFER, following=1))
    assert talk.say(login(IDENTITY)).login_status == 0 and talk.last.logged_in


def test_another_target_in_the_next_stage() -> None:
    talk = Talk()
    talk.say(security(OFFER, following=1))
    assert talk.say(login([("TargetName", IQN + "0")])).login_status == Refusal.INITIATOR_ERROR.value


def test_transit_waits_for_chap() -> None:
    talk = Talk(CHAP)
    assert talk.say(security(OFFER, following=1)).flags == 0
    assert talk.say(security([("CHAP_A", "5")], following=3)).flags == 0
    assert not talk.last.logged_in


def test_mutual_chap() -> None:
    talk = Talk(MUTUAL)
    talk.say(security(OFFER))
    challenge = talk.say(security([("CHAP_A", "7")]))
    proof = [("CHAP_N", "user"), ("CHAP_R", response(challenge, "initiator-secret")), ("CHAP_I", "3"), ("CHAP_C", "0x" + "ab" * 32)]
    heard = talk.say(security(proof, following=3))
    expected = hashlib.sha256(b"\x03the-target-secret" + b"\xab" * 32).hexdigest()
    assert heard.keys == {"CHAP_N": "target", "CHAP_R": f"0x{expected}"} and talk.last.logged_in


def chap_with(access: Access, proof: list[tuple[str, str]], *, secret: str = "initiator-secret") -> Talk:
    """Up to the proof; "{r}" and "{c}" in it become the right response and the target's challenge."""
    talk = Talk(access)
    talk.say(security(OFFER))
    challenge = talk.say(security([("CHAP_A", "7")]))
    fill = {"r": response(challenge, secret), "c": challenge.keys["CHAP_C"]}
    talk.say(security([(key, value.format(**fill)) for key, value in proof], following=1))
    return talk


BAD_PROOFS = [
    (CHAP, [("CHAP_N", "other"), ("CHAP_R", "{r}")]),
    (CHAP, [("CHAP_N", "user"), ("CHAP_R", "0x00")]),
    (CHAP, [("CHAP_N", "user"), ("CHAP_R", "{r}00")]),
    (CHAP, [("CHAP_N", "user"), ("CHAP_R", "zzz")]),
    (CHAP, [("CHAP_N", "user")]),
    (CHAP, [("CHAP_N", "user"), ("CHAP_R", "{r}"), ("CHAP_I", "1"), ("CHAP_C", "0xabab")]),  # no secret for mutual
    (MUTUAL, [("CHAP_N", "user"), ("CHAP_R", "{r}"), ("CHAP_I", "1"), ("CHAP_C", "{c}")]),  # reflected
    (MUTUAL, [("CHAP_N", "user"), ("CHAP_R", "{r}"), ("CHAP_I", "256"), ("CHAP_C", "0xabab")]),
    (MUTUAL, [("CHAP_N", "user"), ("CHAP_R", "{r}"), ("CHAP_I", "1"), ("CHAP_C", "0x" + "ab" * 2000)]),
]


@pytest.mark.parametrize(("access", "proof"), BAD_PROOFS)
def test_bad_proofs(access: Access, proof: list[tuple[str, str]]) -> None:
    assert chap_with(access, proof).last.refusal is Refusal.AUTHENTICATION


def test_wrong_secret() -> None:
    talk = chap_with(CHAP, [("CHAP_N", "user"), ("CHAP_R", "{r}")], secret="guess")
    assert talk.last.refusal is Refusal.AUTHENTICATION


def test_each_login_has_its_own_challenge() -> None:
    talk = Talk(CHAP)
    talk.say(security(OFFER))
    first = talk.say(security([("CHAP_A", "7")])).keys["CHAP_C"]
    again = Talk(CHAP)
    again.issued = talk.issued
    again.say(security(OFFER))
    assert again.say(security([("CHAP_A", "7")])).keys["CHAP_C"] != first


def test_one_secret_for_both_sides_is_refused() -> None:
    talk = Talk(Access(Secret("user", "same"), Secret("target", "same")))
    with pytest.raises(BadInput):
        talk.say(security(OFFER))


REFUSED: list[tuple[Access | Refusal, list[bytes], Refusal]] = [
    (Refusal.NOT_FOUND, [login(IDENTITY)], Refusal.NOT_FOUND),
    (Refusal.UNAVAILABLE, [login(IDENTITY)], Refusal.UNAVAILABLE),
    (CHAP, [login(IDENTITY)], Refusal.AUTHENTICATION),  # past security
    (CHAP, [security([*IDENTITY, ("AuthMethod", "None")])], Refusal.AUTHENTICATION),
    (CHAP, [security(IDENTITY, following=1)], Refusal.AUTHENTICATION),
    (CHAP, [security(OFFER), security([("CHAP_A", "4,99")])], Refusal.AUTHENTICATION),
    (CHAP, [security(OFFER), security([("CHAP_N", "user"), ("CHAP_R", "0x00")])], Refusal.AUTHENTICATION),  # before a challenge
    (CHAP, [security(OFFER), security([("CHAP_A", "5")]), security([("CHAP_A", "5")])], Refusal.INITIATOR_ERROR),  # a second one
    (OPEN, [security([*IDENTITY, ("AuthMethod", "CHAP")])], Refusal.AUTHENTICATION),
    (OPEN, [security([*IDENTITY, ("CHAP_A", "5")])], Refusal.AUTHENTICATION),
    (OPEN, [login([*IDENTITY, ("CHAP_A", "5")])], Refusal.INVALID_REQUEST),
    (OPEN, [login([("InitiatorName", "iqn")])], Refusal.MISSING_PARAMETER),
    (OPEN, [login([("TargetName", IQN)])], Refusal.MISSING_PARAMETER),
    (OPEN, [login([*IDENTITY[:1], ("SessionType", "Odd"), *IDENTITY[2:]])], Refusal.SESSION_TYPE),
    (OPEN, [login([("InitiatorName", "i" * 224), *IDENTITY[1:]])], Refusal.INITIATOR_ERROR),
    (OPEN, [login(IDENTITY, tsih=5)], Refusal.NO_SUCH_SESSION),
    (OPEN, [login(IDENTITY, stage=2)], Refusal.INVALID_REQUEST),
    (OPEN, [login(IDENTITY, stage=3)], Refusal.INVALID_REQUEST),
    (OPEN, [login(IDENTITY, following=1)], Refusal.INVALID_REQUEST),  # to where it is
    (OPEN, [login(IDENTITY, following=2)], Refusal.INVALID_REQUEST),
    (OPEN, [login(IDENTITY, more=True)], Refusal.INVALID_REQUEST),  # T and C
    (OPEN, [login(IDENTITY, following=None), security([])], Refusal.INVALID_REQUEST),  # backwards
    (OPEN, [login(IDENTITY, following=None), login([], isid=b"sixsix")], Refusal.INVALID_REQUEST),
    (OPEN, [login(b"no equals sign\0")], Refusal.INITIATOR_ERROR),
    (OPEN, [login(b"\xff\xfe=x\0")], Refusal.INITIATOR_ERROR),
    (OPEN, [login(b"x" * 64 + b"=1\0")], Refusal.INITIATOR_ERROR),
    (OPEN, [login([*IDENTITY, ("MaxBurstLength", "512"), ("MaxBurstLength", "1024")])], Refusal.INITIATOR_ERROR),
    (OPEN, [login(b"a=" + b"b" * 8000, following=None, more=True)] * 3, Refusal.INITIATOR_ERROR),
    (OPEN, [login(IDENTITY, following=None), *[login([], following=None)] * 32], Refusal.INITIATOR_ERROR),
]


@pytest.mark.parametrize(("access", "requests", "refusal"), REFUSED)
def test_refusals(access: Access | Refusal, requests: list[bytes], refusal: Refusal) -> None:
    talk = Talk(access)
    for request in requests[:-1]:
        talk.say(request)
        assert talk.last.refusal is None
    heard = talk.say(requests[-1])
    assert (heard.login_status, talk.last.refusal, talk.last.logged_in) == (refusal.value, refusal, False)


def test_a_newer_version_only() -> None:
    request = bytearray(login(IDENTITY))
    request[2:4] = b"\x02\x01"
    assert Talk().say(bytes(request)).login_status == Refusal.UNSUPPORTED_VERSION.value


def test_anything_else_first() -> None:
    with pytest.raises(ProtocolError):
        Talk().login.receive(b"\x01".ljust(48, b"\0"), b"")


def test_text_over_several_requests() -> None:
    whole = text.encode([*IDENTITY, ("MaxBurstLength", "1024")])
    talk = Talk()
    assert talk.say(login(whole[:50], following=None, more=True)).data == b""
    assert talk.say(login(whole[50:])).keys["MaxBurstLength"] == "1024"
    assert talk.last.logged_in


def test_discovery_session() -> None:
    talk = Talk()
    pairs = [("InitiatorName", INITIATOR), ("SessionType", "Discovery"), ("MaxBurstLength", "1024"), ("DefaultTime2Wait", "0")]
    heard = talk.say(login(pairs))
    assert talk.last.logged_in and talk.login.discovery and talk.login.target_name == ""
    assert heard.keys == {"MaxBurstLength": "Irrelevant", "DefaultTime2Wait": "2", "MaxRecvDataSegmentLength": "262144"}


NEGOTIATED = [
    ("HeaderDigest", "None,CRC32C", "None"),
    ("HeaderDigest", "CRC32C,None", "None"),
    ("DataDigest", "CRC32C", "CRC32C"),
    ("DataDigest", "MD5", "Reject"),
    ("MaxConnections", "8", "1"),
    ("InitialR2T", "Yes", "Yes"),
    ("InitialR2T", "No", "No"),
    ("InitialR2T", "Maybe", "Reject"),
    ("ImmediateData", "Yes", "Yes"),
    ("ImmediateData", "No", "No"),
    ("MaxRecvDataSegmentLength", "65536", None),
    ("MaxRecvDataSegmentLength", "511", "Reject"),
    ("MaxBurstLength", "16776192", "262144"),
    ("MaxBurstLength", "0x1000", "4096"),
    ("MaxBurstLength", "-1", "Reject"),
    ("MaxBurstLength", "1_000", "Reject"),
    ("FirstBurstLength", "131072", "65536"),
    ("DefaultTime2Wait", "0", "2"),
    ("DefaultTime2Retain", "20", "0"),
    ("MaxOutstandingR2T", "16", "1"),
    ("DataPDUInOrder", "No", "Yes"),
    ("DataSequenceInOrder", "No", "Yes"),
    ("ErrorRecoveryLevel", "2", "0"),
    ("TaskReporting", "ResponseFence,RFC3720", "RFC3720"),
    ("iSCSIProtocolLevel", "2", "1"),
    ("IFMarker", "No", "Reject"),
    ("OFMarkInt", "2048", "Reject"),
    ("InitiatorAlias", "anything", None),
    ("X-com.example.key", "1", "NotUnderstood"),
    ("MaxBurstLength", "NotUnderstood", None),
]


@pytest.mark.parametrize(("key", "value", "answer"), NEGOTIATED)
def test_negotiation(key: str, value: str, answer: str | None) -> None:
    assert Negotiation().answer(key, value) == answer


def test_defaults_hold_for_what_nobody_spoke_of() -> None:
    assert Negotiation().parameters() == Parameters()


def test_first_burst_is_within_the_burst() -> None:
    negotiation = Negotiation()
    negotiation.answer("MaxBurstLength", "1024")
    assert negotiation.parameters().first_burst_max == 1024


def test_peeking_at_a_connection() -> None:
    first = security(OFFER)
    need = first_pdu_bytes(first[:48])
    assert first_pdu_bytes(first[:20]) == 48 and 48 < need <= len(first)
    assert [target_name_of(first[:size]) for size in (0, 47, 48, need - 1)] == [None] * 4
    assert target_name_of(first[:need]) == target_name_of(first + b"more") == IQN
    assert target_name_of(login([("InitiatorName", INITIATOR), ("SessionType", "Discovery")])) is None
    assert target_name_of(login(b"\xff=\0")) is None


@pytest.mark.parametrize("first", [b"GET / HTTP/1.1\r\n".ljust(48), bytes(48), bytes.fromhex("4387000000ffffff").ljust(48, b"\0")])
def test_peeking_at_something_else(first: bytes) -> None:
    assert first_pdu_bytes(first) == 0 and target_name_of(first) is None
