"""The client's side of Signature Version 4 (AWS: "Authenticating Requests: Using the Authorization Header").  Pure.

For load generators and the demo; bodies go as UNSIGNED-PAYLOAD, as AWS tools send them over TLS.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import quote

UNSIGNED = "UNSIGNED-PAYLOAD"


@dataclass(frozen=True, slots=True)
class Signer:
    access_key: str
    secret_key: str
    host: str  # as in the Host header, with the port
    region: str = "us-east-1"

    def headers(self, method: str, path: str, query: dict[str, str] | None = None, *, now: float) -> dict[str, str]:
        """The headers to add to a request.  ``path`` unencoded; ``now`` wall seconds."""
        moment = datetime.fromtimestamp(now, UTC).strftime("%Y%m%dT%H%M%SZ")
        signed = {"host": self.host, "x-amz-content-sha256": UNSIGNED, "x-amz-date": moment}
        names = ";".join(signed)
        canonical = "\n".join(
            [
                method,
                quote(path, safe="/~"),
                "&".join(f"{quote(k, safe='~')}={quote(v, safe='~')}" for k, v in sorted((query or {}).items())),
                *(f"{name}:{value}" for name, value in signed.items()),
                "",
                names,
                UNSIGNED,
            ]
        )
        scope = f"{moment[:8]}/{self.region}/s3/aws4_request"
        text = "\n".join(["AWS4-HMAC-SHA256", moment, scope, hashlib.sha256(canonical.encode()).hexdigest()])
        key = b"AWS4" + self.secret_key.encode()
        for word in (moment[:8], self.region, "s3", "aws4_request"):
            key = hmac.digest(key, word.encode(), "sha256")
        signature = hmac.digest(key, text.encode(), "sha256").hex()
        value = f"AWS4-HMAC-SHA256 Credential={self.access_key}/{scope}, SignedHeaders={names}, Signature={signature}"
        return {"x-amz-content-sha256": UNSIGNED, "x-amz-date": moment, "authorization": value}
