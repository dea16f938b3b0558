"""The identity store: reads from RAM, changes as kv transactions that compare what they were decided on.

Reading is plain calls on a ``ring.kv.view.View`` of ``identity/``.  A change names the revisions it saw, so two writers of
one record, or of one name, cannot both win; it returns when this process's view has it (read your writes).
"""

from __future__ import annotations

import msgspec

from identity.errors import BadInput, Conflict, NotFound
from identity.records import (
    COLLECTIONS,
    PREFIX,
    Credential,
    Domain,
    Endpoint,
    Grant,
    Project,
    Record,
    RecordT,
    Revocation,
    Role,
    Service,
    TokenKey,
    User,
    decode,
    encode,
    key_of,
    name_key,
)
from ring.kv.interface import KV, Delete, Entry, Operation, Put, Unchanged
from ring.kv.view import View

_WORDS: dict[type[Record], str] = {kind: name[:-1] for kind, name in COLLECTIONS.items()}


class IdentityStore:
    def __init__(self, kv: KV, view: View[Entry]) -> None:
        """``view`` is of the prefix ``identity/`` and is run by the caller."""
        self._kv = kv
        self._view = view
        self._decoded: dict[str, tuple[int, Record]] = {}

    # ---- reading

    @property
    def revision(self) -> int:
        """Changes whenever anything here may have changed: for caches."""
        return self._view.changes

    def find(self, kind: type[RecordT], record_id: str) -> RecordT | None:
        return self._read(kind, f"{PREFIX}{COLLECTIONS[kind]}/{record_id}")

    def get(self, kind: type[RecordT], record_id: str) -> RecordT:
        """NotFound in Keystone's words."""
        record = self.find(kind, record_id)
        if record is None:
            raise NotFound(f"Could not find {_WORDS[kind]}: {record_id}.")
        return record

    def all(self, kind: type[RecordT]) -> list[RecordT]:
        prefix = f"{PREFIX}{COLLECTIONS[kind]}/"
        found = [self._read(kind, key) for key, _ in self._view.items(prefix)]
        return [record for record in found if record is not None]

    def by_name(self, kind: type[RecordT], name: str, domain_id: str = "") -> RecordT | None:
        """Of domains, roles (no domain), projects and users."""
        entry = self._view.get(f"{PREFIX}names/{COLLECTIONS[kind]}/{domain_id}/{name}")
        return self.find(kind, entry.value.decode()) if entry is not None else None

    def grants(self, *, scope: str = "", target_id: str = "", user_id: str = "") -> list[Grant]:
        prefix = f"{PREFIX}grants/"
        if scope:
            prefix += f"{scope}/"
            if target_id:
                prefix += f"{target_id}/"
        found = [decode(Grant, entry.value) for _, entry in self._view.items(prefix)]
        return [
            grant
            for grant in found
            if (not target_id or grant.target_id == target_id) and (not user_id or grant.user_id == user_id)
        ]

    def roles_of(self, user_id: str, scope: str, target_id: str) -> list[Role]:
        found = [self.find(Role, grant.role_id) for grant in self.grants(scope=scope, target_id=target_id, user_id=user_id)]
        return [role for role in found if role is not None]

    def credential(self, access: str) -> Credential | None:
        entry = self._view.get(f"{PREFIX}credentials/{access}")
        return decode(Credential, entry.value) if entry is not None else None

    def credentials_of(self, user_id: str) -> list[Credential]:
        found = [decode(Credential, entry.value) for _, entry in self._view.items(f"{PREFIX}credentials/")]
        return [credential for credential in found if credential.user_id == user_id]

    def token_keys(self) -> list[TokenKey]:
        """Newest first."""
        found = [decode(TokenKey, entry.value) for _, entry in self._view.items(f"{PREFIX}tokenkeys/")]
        return sorted(found, key=lambda key: key.number, reverse=True)

    def revoked(self, audit_id: str) -> bool:
        return self._view.get(f"{PREFIX}revoked/{audit_id}") is not None

    def _read(self, kind: type[RecordT], key: str) -> RecordT | None:
        entry = self._view.get(key)
        if entry is None:
            self._decoded.pop(key, None)
            return None
        known = self._decoded.get(key)
        if known is not None and known[0] == entry.modified and isinstance(known[1], kind):
            return known[1]
        record = decode(kind, entry.value)
        self._decoded[key] = (entry.modified, record)
        return record

    # ---- changing

    async def create(self, record: Record) -> None:
        """Conflict when the id or the name is taken."""
        compares = [Unchanged(key_of(record), 0)]
        operations: list[Operation] = [Put(key_of(record), encode(record))]
        name = name_key(record)
        if name is not None:
            compares.append(Unchanged(name, 0))
            operations.append(Put(name, str(vars_id(record)).encode()))
        if not await self._transact(compares, operations):
            word = _WORDS[type(record)]
            shown = getattr(record, "name", vars_id(record))
            raise Conflict(f"Conflict occurred attempting to store {word} - Duplicate entry found with name {shown}.")

    async def update(self, record: RecordT, **changes: object) -> RecordT:
        """The record with some fields replaced.  Conflict when it changed meanwhile or the new name is taken."""
        entry = self._view.get(key_of(record))
        if entry is None:
            raise NotFound(f"Could not find {_WORDS[type(record)]}: {vars_id(record)}.")
        new = msgspec.structs.replace(decode(type(record), entry.value), **changes)
        compares = [Unchanged(entry.key, entry.modified)]
        operations: list[Operation] = [Put(entry.key, encode(new))]
        old_name, new_name = name_key(decode(type(record), entry.value)), name_key(new)
        if old_name is not None and new_name is not None and old_name != new_name:
            compares.append(Unchanged(new_name, 0))
            operations += [Delete(old_name), Put(new_name, str(vars_id(new)).encode())]
        if not await self._transact(compares, operations):
            raise Conflict(f"Conflict occurred attempting to store {_WORDS[type(record)]} - it changed, or the name is taken.")
        return new

    async def delete(self, record: Record) -> None:
        """With what hangs on it: grants of a user or project, credentials, endpoints of a service."""
        keys = [key_of(record)]
        name = name_key(record)
        if name is not None:
            keys.append(name)
        match record:
            case User(id=user_id):
                keys += [grant.key for grant in self.grants(user_id=user_id)]
                keys += [f"{PREFIX}credentials/{c.access}" for c in self.credentials_of(user_id)]
            case Project(id=project_id):
                keys += [grant.key for grant in self.grants(scope="project", target_id=project_id)]
            case Role(id=role_id):
                keys += [grant.key for grant in self.grants() if grant.role_id == role_id]
            case Service(id=service_id):
                keys += [key_of(e) for e in self.all(Endpoint) if e.service_id == service_id]
            case Domain(id=domain_id):
                held = [r.domain_id for r in self.all(Project)] + [r.domain_id for r in self.all(User)]
                if domain_id in held:
                    raise Conflict("The domain still holds users or projects.")
            case _:
                pass
        # The record goes last: a crash in between leaves a record that can be deleted again.
        for at in range(len(keys) - 1, -1, -100):
            await self._transact([], [Delete(key) for key in keys[max(0, at - 99) : at + 1]])

    async def grant(self, grant: Grant) -> None:
        await self._transact([], [Put(grant.key, encode(grant))])

    async def ungrant(self, grant: Grant) -> None:
        if self._view.get(grant.key) is None:
            raise NotFound("Could not find role assignment.")
        await self._transact([], [Delete(grant.key)])

    async def add_credential(self, credential: Credential) -> None:
        key = f"{PREFIX}credentials/{credential.access}"
        if not await self._transact([Unchanged(key, 0)], [Put(key, encode(credential))]):
            raise Conflict("Conflict occurred attempting to store credential - the access key is taken.")

    async def delete_credential(self, access: str) -> None:
        await self._transact([], [Delete(f"{PREFIX}credentials/{access}")])

    async def add_token_key(self, key: TokenKey) -> None:
        where = f"{PREFIX}tokenkeys/{key.number:08d}"
        if not await self._transact([Unchanged(where, 0)], [Put(where, encode(key))]):
            raise Conflict("another worker rotated the token keys just now")

    async def revoke(self, revocation: Revocation, *, ttl_s: float) -> None:
        """The mark goes by itself when the token would have expired."""
        lease = await self._kv.grant(max(ttl_s, 1.0))
        await self._transact([], [Put(f"{PREFIX}revoked/{revocation.audit_id}", encode(revocation), lease)])

    async def _transact(self, compares: list[Unchanged], operations: list[Operation]) -> bool:
        outcome = await self._kv.transact(compares, operations)
        await self._view.wait(outcome.revision)
        return outcome.succeeded


def vars_id(record: Record) -> str:
    """The id of a record that has one."""
    value = getattr(record, "id", None)
    if not isinstance(value, str) or not value:
        raise BadInput(f"a {type(record).__name__} has no id")
    return value
