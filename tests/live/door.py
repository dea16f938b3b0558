"""One client's way to the cloud: requests in S3's and Swift's words over a keep-alive connection, and what became of them.

Stdlib HTTP, and no retry: what happened to a request must be known.  Neighbours: load.py (asks), tools.bench.signer (signatures).
"""

from __future__ import annotations

import http.client
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from urllib.parse import quote, urlsplit

from tools.bench.signer import Signer
from tools.deploy.session import CloudClient

TIMEOUT_S = 15.0
_UPLOAD_ID = re.compile(rb"<UploadId>([^<]+)</UploadId>")


class Dialect(Enum):
    S3 = "s3"
    SWIFT = "swift"


class NotSent(Exception):
    """Nobody heard the request: it did not happen."""


class NoAnswer(Exception):
    """It may have happened."""


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: Mapping[str, str] = field(default_factory=dict)  # names in lower case
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Keys:
    """Where the object API is and how to be let in."""

    host: str
    account: str  # the path of the project's account
    token: str
    signer: Signer

    @classmethod
    def of(cls, client: CloudClient) -> Keys:
        return cls(
            urlsplit(client.objects).netloc, urlsplit(client.urls["object-store"]).path.rstrip("/"), client.token, client.signer
        )


class Door:
    def __init__(self, keys: Keys) -> None:
        self.keys = keys
        self._connection: http.client.HTTPConnection | None = None

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def ask(
        self,
        dialect: Dialect,
        method: str,
        path: str = "",
        query: Mapping[str, str] | None = None,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """``path``: CONTAINER/OBJECT, CONTAINER or "".  NotSent, NoAnswer."""
        sent = dict(headers or {})
        asked = dict(query or {})
        if dialect is Dialect.S3:
            target = f"/{path}"
            sent |= self.keys.signer.headers(method, target, asked, now=time.time())
        else:
            target = f"{self.keys.account}/{path}".rstrip("/")
            sent["X-Auth-Token"] = self.keys.token
        target = quote(target, safe="/~")
        if asked:
            target += "?" + "&".join(f"{quote(name, safe='~')}={quote(value, safe='~')}" for name, value in sorted(asked.items()))
        return self._exchange(method, target, sent, body)

    def _exchange(self, method: str, target: str, headers: dict[str, str], body: bytes | None) -> Answer:
        reused = self._connection is not None
        connection = self._connection or http.client.HTTPConnection(self.keys.host, timeout=TIMEOUT_S)
        if not reused:
            try:
                connection.connect()
            except OSError as error:
                raise NotSent(str(error)) from error
            self._connection = connection
        try:
            connection.request(method, target, body, headers)
            reply = connection.getresponse()
            data = reply.read()
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise NoAnswer(f"{type(error).__name__}: {error}") from error
        if reply.will_close:
            self.close()
        return Answer(reply.status, {name.lower(): value for name, value in reply.getheaders()}, data)

    # ---- several requests that are one verb

    def put_in_parts(self, path: str, body: bytes, part_bytes: int) -> Answer:
        """A multipart upload.  NotSent also when it was given up before its completion was asked for."""
        try:
            begun = self.ask(Dialect.S3, "POST", path, {"uploads": ""}, b"")
            found = _UPLOAD_ID.search(begun.body)
            if begun.status != 200 or found is None:
                raise NotSent(f"the upload was not begun: {begun.status}")
            upload = found[1].decode()
            parts = []
            for number, at in enumerate(range(0, len(body), part_bytes), start=1):
                query = {"partNumber": str(number), "uploadId": upload}
                stored = self.ask(Dialect.S3, "PUT", path, query, body[at : at + part_bytes])
                if stored.status != 200:
                    raise NotSent(f"a part was not stored: {stored.status}")
                parts.append(f"<Part><PartNumber>{number}</PartNumber><ETag>{stored.headers['etag']}</ETag></Part>")
        except NoAnswer as error:
            raise NotSent(str(error)) from error
        document = f"<CompleteMultipartUpload>{''.join(parts)}</CompleteMultipartUpload>".encode()
        done = self.ask(Dialect.S3, "POST", path, {"uploadId": upload}, document)
        if done.status == 200 and b"<Error>" in done.body:
            return Answer(500, done.headers, done.body)
        return done
