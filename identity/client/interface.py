"""Identity as the other rooms see it: who is calling, and what may they do.

``Access`` is what a valid token, password or S3 key amounts to.  Look-ups are answered from RAM (ring.kv.view), so they are plain
calls and never wait.  ``fake`` stands beside it for tests.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from ring.errors import RingfortError


class Unauthorized(RingfortError):
    """Who is calling is not known (401): no, a wrong or an expired token, key or password."""


class Forbidden(RingfortError):
    """Known, and not allowed (403)."""


@dataclass(frozen=True, slots=True)
class Access:
    user_id: str
    user_name: str
    project_id: str  # "" when the token has no project
    project_name: str
    domain_id: str  # of the project, or of the user without one
    roles: frozenset[str]  # role names on the project
    expires: float  # wall seconds; infinity for S3 keys

    @property
    def is_admin(self) -> bool:
        return "admin" in self.roles

    @property
    def account(self) -> str:
        """The Swift account of the project."""
        return f"AUTH_{self.project_id}"


@dataclass(frozen=True, slots=True)
class S3Key:
    access_key: str
    secret: str
    access: Access


class Identity(Protocol):
    def authenticate(self, token: str) -> Access:
        """Raises Unauthorized."""

    def s3_key(self, access_key: str) -> S3Key | None:
        """The secret behind an EC2 credential, to check a signature with; None: no such key, or its user is disabled."""

    def project_exists(self, project_id: str) -> bool: ...
