"""AWS Signature Version 4 as a server checks it: the Authorization header, presigned queries, and the chain of chunk signatures.

Pure: requests in, a verdict or BadSignature out; keys and the time of day are given.  ``SigningKeys`` remembers derived keys.
The canonical path is what was received, decoded and encoded again as S3 does (once, nothing normalised: "//" and ".." are keys).
Every x-amz-* header that arrives must be signed, so that nobody can add one to a presigned URL.

Neighbours: auth (which scheme a request uses), chunked (uses ChunkChain).
Source: "Authenticating Requests: AWS Signature Version 4", S3 API reference.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import quote, unquote_to_bytes

from proxy.errors import BadSignature, ClockSkewed
from ring.wire.dates import parse_date
from ring.wire.message import Headers

ALGORITHM = "AWS4-HMAC-SHA256"
SKEW_MAX_S = 15 * 60
PRESIGNED_EXPIRES_MAX_S = 7 * 24 * 3600
UNSIGNED = "UNSIGNED-PAYLOAD"
EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()
_KEYS_MAX = 4096
_UNRESERVED = "-_.~"
_DATE = re.compile(r"(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z")
_SCOPE = re.compile(r"([^/]{1,128}(?:/[^/]{1,128})*)/(\d{8})/([A-Za-z0-9-]{1,64})/([a-z0-9]{1,32})/aws4_request")
_HEX64 = re.compile(r"[0-9a-f]{64}")
_BLANKS = re.compile(r" {2,}")


@dataclass(frozen=True, slots=True)
class Scope:
    access_key: str
    date: str  # YYYYMMDD
    region: str
    service: str

    @property
    def text(self) -> str:
        return f"{self.date}/{self.region}/{self.service}/aws4_request"


@dataclass(frozen=True, slots=True)
class Claim:
    """What a request says of its own signature."""

    scope: Scope
    timestamp: str  # 20130524T000000Z
    signed_headers: tuple[str, ...]
    signature: str
    payload: str  # x-amz-content-sha256, or UNSIGNED
    presigned: bool
    expires_s: int = 0


class SigningKeys:
    """Derived keys, remembered: four HMACs once a day, key and region."""

    def __init__(self) -> None:
        self._keys: dict[tuple[str, Scope], bytes] = {}

    def get(self, secret: str, scope: Scope) -> bytes:
        found = self._keys.get((secret, scope))
        if found is None:
            if len(self._keys) >= _KEYS_MAX:
                self._keys.clear()
            found = self._keys[(secret, scope)] = derive_key(secret, scope)
        return found


def derive_key(secret: str, scope: Scope) -> bytes:
    key = f"AWS4{secret}".encode()
    for part in (scope.date, scope.region, scope.service, "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    return key


def read_header(headers: Headers) -> Claim:
    """The claim of an Authorization header that begins with ALGORITHM.  Raises BadSignature."""
    fields: dict[str, str] = {}
    for part in headers.get("authorization")[len(ALGORITHM) :].split(","):
        name, _, value = part.strip().partition("=")
        fields[name] = value
    try:
        credential, signed, signature = fields["Credential"], fields["SignedHeaders"], fields["Signature"]
    except KeyError as missing:
        raise BadSignature(f"the Authorization header has no {missing}", code="AuthorizationHeaderMalformed", status=400) from None
    payload = headers.get("x-amz-content-sha256")
    if not payload:
        raise BadSignature("Missing required header for this request: x-amz-content-sha256", code="InvalidRequest", status=400)
    timestamp = headers.get("x-amz-date") or _from_http_date(headers.get("date"))
    claim = Claim(_scope(credential), timestamp, _signed(signed), signature, payload, presigned=False)
    if claim.scope.date != timestamp[:8]:
        raise BadSignature("the credential's date is not the request's", code="AuthorizationHeaderMalformed", status=400)
    return claim


def read_query(pairs: Sequence[tuple[str, str]], headers: Headers) -> Claim:
    """The claim of a presigned URL.  Raises BadSignature."""
    fields = dict(pairs)
    try:
        algorithm, credential, timestamp, expires, signed, signature = (
            fields[f"X-Amz-{name}"] for name in ("Algorithm", "Credential", "Date", "Expires", "SignedHeaders", "Signature")
        )
    except KeyError as missing:
        raise _malformed_query(f"the query has no {missing}") from None
    if algorithm != ALGORITHM:
        raise _malformed_query("X-Amz-Algorithm only supports AWS4-HMAC-SHA256")
    if not (expires.isascii() and expires.isdigit()) or not 1 <= int(expires) <= PRESIGNED_EXPIRES_MAX_S:
        raise _malformed_query("X-Amz-Expires must be between 1 second and a week (604800)")
    payload = headers.get("x-amz-content-sha256") or fields.get("X-Amz-Content-Sha256") or UNSIGNED
    claim = Claim(_scope(credential), timestamp, _signed(signed), signature, payload, presigned=True, expires_s=int(expires))
    if claim.scope.date != timestamp[:8]:
        raise _malformed_query("the credential's date is not the request's")
    return claim


def verify(
    claim: Claim, key: bytes, method: str, raw_path: str, pairs: Sequence[tuple[str, str]], headers: Headers, now: float
) -> None:
    """``raw_path`` as received, ``pairs`` the decoded query in any order.  Raises ClockSkewed or BadSignature."""
    signed_at = parse_timestamp(claim.timestamp)
    if claim.presigned:
        if signed_at - SKEW_MAX_S > now:
            raise BadSignature("Request is not yet valid", code="AccessDenied")
        if now > signed_at + claim.expires_s:
            raise BadSignature("Request has expired", code="AccessDenied")
    elif abs(now - signed_at) > SKEW_MAX_S:
        raise ClockSkewed("The difference between the request time and the current time is too large.")
    values = _header_values(claim, headers)
    query = canonical_query(pairs, leave_out="X-Amz-Signature" if claim.presigned else "")
    path = canonical_path(raw_path)
    for candidate in (path,) if path == raw_path else (path, raw_path):
        text = _string_to_sign(claim, method, candidate, query, values)
        expected = hmac.digest(key, text.encode("utf-8", "replace"), "sha256").hex()
        if hmac.compare_digest(expected.encode(), claim.signature.encode("utf-8", "replace")):
            return
    raise BadSignature(
        "The request signature we calculated does not match the signature you provided. Check your key and signing method."
    )


def canonical_path(raw_path: str) -> str:
    if raw_path.isascii() and raw_path.replace("/", "").isalnum():
        return raw_path
    return quote(unquote_to_bytes(raw_path), safe=_UNRESERVED + "/") or "/"


def canonical_query(pairs: Sequence[tuple[str, str]], *, leave_out: str = "") -> str:
    if not pairs:
        return ""
    encoded = [
        (
            quote(name.encode("utf-8", "surrogateescape"), safe=_UNRESERVED),
            quote(value.encode("utf-8", "surrogateescape"), safe=_UNRESERVED),
        )
        for name, value in pairs
        if name != leave_out
    ]
    encoded.sort()
    return "&".join([f"{name}={value}" for name, value in encoded])


def parse_timestamp(text: str) -> float:
    """Seconds since 1970 of 20130524T000000Z.  Raises BadSignature."""
    match = _DATE.fullmatch(text)
    if match is not None:
        year, month, day, hour, minute, second = map(int, match.groups())
        try:
            return datetime(year, month, day, hour, minute, second, tzinfo=UTC).timestamp()
        except ValueError:
            pass
    raise BadSignature("AWS authentication requires a valid Date or x-amz-date header", code="AccessDenied")


def _header_values(claim: Claim, headers: Headers) -> str:
    """The canonical headers.  Raises BadSignature when one that must be signed is not."""
    signed = claim.signed_headers
    found: dict[str, str] = {}
    for name, value in headers.fields:
        if name in signed:
            value = value.strip()
            if "  " in value:
                value = _BLANKS.sub(" ", value)
            found[name] = f"{found[name]},{value}" if name in found else value
        elif name.startswith("x-amz-") and not (claim.presigned and name == "x-amz-content-sha256"):
            raise BadSignature(f"There were headers present in the request which were not signed: {name}", code="AccessDenied")
    return "".join([f"{name}:{found.get(name, '')}\n" for name in signed])


def _string_to_sign(claim: Claim, method: str, path: str, query: str, values: str) -> str:
    # Header values are latin-1 text of bytes that were UTF-8 when they were signed.
    canonical = f"{method}\n{path}\n{query}\n".encode("utf-8", "replace") + values.encode("latin-1", "replace")
    canonical += f"\n{';'.join(claim.signed_headers)}\n{claim.payload}".encode("utf-8", "replace")
    return f"{ALGORITHM}\n{claim.timestamp}\n{claim.scope.text}\n{hashlib.sha256(canonical).hexdigest()}"


def _scope(credential: str) -> Scope:
    match = _SCOPE.fullmatch(credential)
    if match is None or match[4] != "s3":
        raise BadSignature("the credential is malformed", code="AuthorizationHeaderMalformed", status=400)
    return Scope(*match.groups())


def _signed(text: str) -> tuple[str, ...]:
    names = tuple(text.split(";"))
    if "host" not in names or list(names) != sorted(set(names)) or text != text.lower():
        raise BadSignature(
            "SignedHeaders must be sorted, in lower case, and have host", code="AuthorizationHeaderMalformed", status=400
        )
    return names


def _malformed_query(message: str) -> BadSignature:
    return BadSignature(message, code="AuthorizationQueryParametersError", status=400)


def _from_http_date(text: str) -> str:
    seconds = parse_date(text)
    if seconds is None:
        raise BadSignature("AWS authentication requires a valid Date or x-amz-date header", code="AccessDenied")
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y%m%dT%H%M%SZ")


class ChunkChain:
    """The signatures of a streamed body's chunks, each made over the one before, and at last that of the trailer."""

    def __init__(self, key: bytes, claim: Claim) -> None:
        self._key = key
        self._head = f"{claim.timestamp}\n{claim.scope.text}\n"
        self._last = claim.signature

    def check_chunk(self, signature: str, sha256: str) -> None:
        """Raises BadSignature."""
        self._check("AWS4-HMAC-SHA256-PAYLOAD", signature, f"{EMPTY_SHA256}\n{sha256}")

    def check_trailer(self, signature: str, trailer: bytes) -> None:
        """``trailer``: its lines but the signature's, "name:value\\n" each.  Raises BadSignature."""
        self._check("AWS4-HMAC-SHA256-TRAILER", signature, hashlib.sha256(trailer).hexdigest())

    def _check(self, algorithm: str, signature: str, rest: str) -> None:
        text = f"{algorithm}\n{self._head}{self._last}\n{rest}"
        expected = hmac.digest(self._key, text.encode(), "sha256").hex()
        if not hmac.compare_digest(expected.encode(), signature.encode("utf-8", "replace")):
            raise BadSignature("The signature of a chunk does not match.")
        self._last = expected


def is_sha256(text: str) -> bool:
    return _HEX64.fullmatch(text) is not None
