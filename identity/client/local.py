"""LocalIdentity: the Identity protocol answered from this process's view of kv; nothing waits."""

from __future__ import annotations

from identity.client.interface import Access, S3Key
from identity.client.sealing import Sealer
from identity.errors import Unauthorized
from identity.login import Login, Session
from identity.records import Project, User
from identity.store import IdentityStore

SECRET_PURPOSE = "s3 secret"


class LocalIdentity:
    """Implements identity.client.interface.Identity."""

    def __init__(self, store: IdentityStore, login: Login, sealer: Sealer) -> None:
        self._store = store
        self._login = login
        self._sealer = sealer
        self._keys: dict[str, S3Key] = {}
        self._keys_revision = -1

    def authenticate(self, token: str) -> Access:
        if not token:
            raise Unauthorized("The request you have made requires authentication.")
        return access_of(self._login.open(token))

    def s3_key(self, access_key: str) -> S3Key | None:
        revision = self._store.revision
        if revision != self._keys_revision:
            self._keys.clear()
            self._keys_revision = revision
        key = self._keys.get(access_key)
        if key is None:
            key = self._s3_key(access_key)
            if key is not None:
                self._keys[access_key] = key
        return key

    def project_exists(self, project_id: str) -> bool:
        return self._store.find(Project, project_id) is not None

    def _s3_key(self, access_key: str) -> S3Key | None:
        credential = self._store.credential(access_key)
        if credential is None:
            return None
        user = self._store.find(User, credential.user_id)
        project = self._store.find(Project, credential.project_id)
        if user is None or not user.enabled or project is None or not project.enabled:
            return None
        roles = self._store.roles_of(user.id, "project", project.id)
        if not roles:
            return None
        secret = self._sealer.open(SECRET_PURPOSE, credential.sealed_secret).decode()
        names = frozenset(role.name for role in roles)
        access = Access(user.id, user.name, project.id, project.name, project.domain_id, names, float("inf"))
        return S3Key(access_key, secret, access)


def access_of(session: Session) -> Access:
    domain = session.project_domain or session.scope_domain or session.user_domain
    return Access(
        user_id=session.user.id,
        user_name=session.user.name,
        project_id=session.project.id if session.project else "",
        project_name=session.project.name if session.project else "",
        domain_id=domain.id,
        roles=frozenset(role.name for role in session.roles),
        expires=session.payload.expires,
    )
