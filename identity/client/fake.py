"""Identity in RAM for the tests of other rooms: tokens and keys as given."""

from __future__ import annotations

from identity.client.interface import Access, S3Key, Unauthorized


class FakeIdentity:
    """Implements identity.client.interface.Identity."""

    def __init__(self) -> None:
        self.tokens: dict[str, Access] = {}
        self.keys: dict[str, S3Key] = {}

    def add(self, name: str, *, project: str, roles: frozenset[str] = frozenset({"member"})) -> Access:
        """A user ``name`` on ``project`` with token "token-NAME", access key "key-NAME" and secret "secret-NAME"."""
        access = Access(f"id-{name}", name, project, project, "default", roles, float("inf"))
        self.tokens[f"token-{name}"] = access
        self.keys[f"key-{name}"] = S3Key(f"key-{name}", f"secret-{name}", access)
        return access

    def authenticate(self, token: str) -> Access:
        try:
            return self.tokens[token]
        except KeyError:
            raise Unauthorized("The request you have made requires authentication.") from None

    def s3_key(self, access_key: str) -> S3Key | None:
        return self.keys.get(access_key)

    def project_exists(self, project_id: str) -> bool:
        return any(access.project_id == project_id for access in self.tokens.values())
