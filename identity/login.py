"""Login: methods in, token out (Identity API v3, POST /auth/tokens), and tokens back into who they stand for.

Every failure is the same Unauthorized, so that nobody learns which part was wrong; a wrong user name costs as much time as a wrong
password.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any

from identity import passwords
from identity.client.sealing import Sealer
from identity.errors import BadInput, Unauthorized, not_authenticated
from identity.records import Domain, Project, Revocation, Role, TokenKey, User
from identity.store import IdentityStore
from identity.tokens.fernet import Payload, Tokens
from ring.errors import Conflict, NotFound
from ring.world.interface import World

TOKEN_KEY_PURPOSE = "token key"
CACHE_ENTRIES_MAX = 10_000
# Verified against when there is no such user, so that the answer takes as long.
_NOBODY = passwords.encode("", bytes(16))


@dataclass(frozen=True, slots=True)
class Session:
    """What a valid token stands for."""

    payload: Payload
    user: User
    user_domain: Domain
    project: Project | None
    project_domain: Domain | None
    scope_domain: Domain | None
    roles: tuple[Role, ...]


class Login:
    def __init__(self, world: World, store: IdentityStore, sealer: Sealer, *, token_ttl_s: float = 3600.0) -> None:
        self._world = world
        self._store = store
        self._sealer = sealer
        self._token_ttl_s = token_ttl_s
        self._tokens: tuple[int, Tokens] | None = None
        self._sessions: dict[str, Session] = {}
        self._sessions_revision = -1

    async def issue(self, auth: object) -> tuple[str, Session]:
        """``auth``: the value of "auth" in the request.  BadInput when it is not of the API's form, else Unauthorized."""
        body = _object(auth, "auth")
        identity = _object(body.get("identity"), "identity")
        methods = identity.get("methods")
        if not isinstance(methods, list) or not methods or not all(isinstance(m, str) for m in methods):
            raise BadInput("auth.identity.methods must name at least one method")
        user: User | None = None
        scope = body.get("scope")
        expires = self._world.clock.now() + self._token_ttl_s
        used: list[str] = []
        for method in methods:
            match method:
                case "password":
                    found: User = await self._by_password(_object(identity.get("password"), "password"))
                case "token":
                    old = self._open(_text(_object(identity.get("token"), "token").get("id"), "token.id"))
                    found, expires = old.user, min(expires, old.payload.expires)
                    used += [m for m in old.payload.methods if m not in used]
                case _:
                    raise not_authenticated()
            if user is not None and user.id != found.id:
                raise not_authenticated()
            user = found
            if method not in used:
                used.append(method)
        assert user is not None
        kind, target = self._scope(user, scope)
        now = self._world.clock.now()
        audit = base64.urlsafe_b64encode(self._world.entropy.token(16)).decode().rstrip("=")
        payload = Payload(user.id, kind, target, tuple(used), now, expires, audit)
        session = self._session(payload)
        return self._keys().issue(payload), session

    def open(self, token: str) -> Session:
        """Who a token stands for, now.  Unauthorized."""
        revision = self._store.revision
        if revision != self._sessions_revision:
            self._sessions.clear()
            self._sessions_revision = revision
        session = self._sessions.get(token)
        if session is None:
            session = self._open(token)
            if len(self._sessions) >= CACHE_ENTRIES_MAX:
                self._sessions.clear()
            self._sessions[token] = session
        if session.payload.expires <= self._world.clock.now():
            raise not_authenticated()
        return session

    async def revoke(self, session: Session) -> None:
        payload = session.payload
        ttl_s = payload.expires - self._world.clock.now()
        await self._store.revoke(Revocation(audit_id=payload.audit_id, expires=payload.expires), ttl_s=ttl_s)

    async def rotate(self) -> TokenKey:
        """Add a token key; the ones before it go on opening tokens."""
        numbers = [key.number for key in self._store.token_keys()]
        secret = base64.urlsafe_b64encode(self._world.entropy.token(32))
        sealed = self._sealer.seal(TOKEN_KEY_PURPOSE, secret)
        key = TokenKey(number=max(numbers, default=0) + 1, sealed_key=sealed)
        try:
            await self._store.add_token_key(key)
        except Conflict:
            return self._store.token_keys()[0]
        return key

    async def _by_password(self, method: dict[str, Any]) -> User:
        given = _object(method.get("user"), "password.user")
        password = _text(given.get("password"), "password.user.password")
        user: User | None = self._named(User, given, "user")
        encoded = user.password if user is not None and user.password else _NOBODY
        right = await self._world.offload.run(passwords.verify, password, encoded)
        if user is None or not user.password or not right:
            raise not_authenticated()
        return user

    def _named(self, kind: type[User] | type[Project], given: dict[str, Any], word: str) -> Any:
        """By id, or by name in a domain by id or name; None when there is none."""
        if "id" in given:
            return self._store.find(kind, _text(given["id"], f"{word}.id"))
        name = _text(given.get("name"), f"{word}.name")
        where = _object(given.get("domain"), f"{word}.domain")
        domain = self._domain(where, f"{word}.domain")
        return self._store.by_name(kind, name, domain.id) if domain is not None else None

    def _domain(self, given: dict[str, Any], word: str) -> Domain | None:
        if "id" in given:
            return self._store.find(Domain, _text(given["id"], f"{word}.id"))
        return self._store.by_name(Domain, _text(given.get("name"), f"{word}.name"))

    def _scope(self, user: User, scope: object) -> tuple[str, str]:
        if scope is None:
            if user.default_project_id and self._store.roles_of(user.id, "project", user.default_project_id):
                return "project", user.default_project_id
            return "", ""
        if scope == "unscoped" or (isinstance(scope, dict) and "unscoped" in scope):
            return "", ""
        given = _object(scope, "scope")
        if "project" in given:
            project = self._named(Project, _object(given["project"], "scope.project"), "project")
            if project is None:
                raise not_authenticated()
            return "project", project.id
        if "domain" in given:
            domain = self._domain(_object(given["domain"], "scope.domain"), "domain")
            if domain is None:
                raise not_authenticated()
            return "domain", domain.id
        raise not_authenticated()

    def _open(self, token: str) -> Session:
        try:
            payload = self._keys().open(token)
        except NotFound as error:
            raise not_authenticated() from error
        if payload.expires <= self._world.clock.now() or self._store.revoked(payload.audit_id):
            raise not_authenticated()
        return self._session(payload)

    def _session(self, payload: Payload) -> Session:
        """Unauthorized when the user, project or domain is gone or disabled, or no role is left."""
        store = self._store
        user = store.find(User, payload.user_id)
        if user is None or not user.enabled or payload.issued < user.password_changed:
            raise not_authenticated()
        user_domain = store.find(Domain, user.domain_id)
        if user_domain is None or not user_domain.enabled:
            raise not_authenticated()
        project = project_domain = scope_domain = None
        roles: list[Role] = []
        match payload.scope:
            case "project":
                project = store.find(Project, payload.target_id)
                project_domain = store.find(Domain, project.domain_id) if project is not None else None
                if project is None or not project.enabled or project_domain is None or not project_domain.enabled:
                    raise not_authenticated()
                roles = store.roles_of(user.id, "project", project.id)
            case "domain":
                scope_domain = store.find(Domain, payload.target_id)
                if scope_domain is None or not scope_domain.enabled:
                    raise not_authenticated()
                roles = store.roles_of(user.id, "domain", scope_domain.id)
            case _:
                pass
        if payload.scope and not roles:
            raise Unauthorized("The request you have made requires authentication.")
        return Session(payload, user, user_domain, project, project_domain, scope_domain, tuple(roles))

    def _keys(self) -> Tokens:
        revision = self._store.revision
        if self._tokens is None or self._tokens[0] != revision:
            keys = [self._sealer.open(TOKEN_KEY_PURPOSE, key.sealed_key) for key in self._store.token_keys()]
            if not keys:
                raise not_authenticated()
            self._tokens = (revision, Tokens(keys))
        return self._tokens[1]


def _object(value: object, word: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise BadInput(f"Expecting to find {word} in the request body: an object.")
    return value


def _text(value: object, word: str) -> str:
    if not isinstance(value, str):
        raise BadInput(f"Expecting to find {word} in the request body: a string.")
    return value
