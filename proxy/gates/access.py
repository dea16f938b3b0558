"""Who may do what: an account belongs to its project, administrators may all, and a container's ACL opens it to others.

Roles on the account's own project: the writers' may do everything, the readers' only read.  ACLs are Swift's: X-Container-Read and
X-Container-Write hold a list of ".r:*" (anybody reads objects), ".rlistings" (and lists them), "PROJECT:USER" with ids, either of
them "*".  Referrer names other than "*" are not supported and grant nothing.

Neighbours: operations.verbs (rights), identity.client (Access), storage.client (a container's metadata).
Standard: Swift, "Access Control Lists", overview_acl.
"""

from __future__ import annotations

from identity.client.interface import Access, Forbidden, Unauthorized
from proxy.operations.verbs import Right
from ring.names import Path
from storage.client.errors import ContainerNotFound
from storage.client.interface import Storage

READ_ACL = "x-container-read"
WRITE_ACL = "x-container-write"
_WRITERS = frozenset(("admin", "manager", "member", "swiftoperator"))
_READERS = frozenset(("reader",))
_READING = frozenset((Right.READ_OBJECT, Right.LIST, Right.READ_BOOK))


def owns(access: Access, path: Path, right: Right) -> bool:
    """Whether the caller needs no ACL."""
    if access.is_admin:
        return True
    if right is Right.MANAGE or access.account != path.account or not access.project_id:
        return False
    roles = access.roles
    return not roles.isdisjoint(_WRITERS) or (right in _READING and not roles.isdisjoint(_READERS))


class AccessGate:
    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    async def check(self, access: Access | None, path: Path, right: Right) -> None:
        """Raises Unauthorized when nobody is calling, Forbidden when it is somebody who may not."""
        if access is not None and owns(access, path, right):
            return
        if path.container and await self._acl_grants(access, path, right):
            return
        if access is None:
            raise Unauthorized("This server could not verify that you are authorized to access the document you requested.")
        raise Forbidden("Access was denied to this resource.")

    async def _acl_grants(self, access: Access | None, path: Path, right: Right) -> bool:
        if right not in (Right.READ_OBJECT, Right.LIST, Right.WRITE_OBJECT):
            return False
        try:
            book = await self._storage.head_container(Path(path.account, path.container))
        except ContainerNotFound:
            return False
        name = WRITE_ACL if right is Right.WRITE_OBJECT else READ_ACL
        return acl_grants(book.metadata.get(name, ""), access, right)


def acl_grants(acl: str, access: Access | None, right: Right) -> bool:
    entries = {entry.strip() for entry in acl.split(",")} if acl else set()
    if not entries:
        return False
    if right is not Right.WRITE_OBJECT and ".r:*" in entries and (right is Right.READ_OBJECT or ".rlistings" in entries):
        return True
    if access is None:
        return False
    project, user = access.project_id, access.user_id
    return not entries.isdisjoint((f"{project}:{user}", f"{project}:*", f"*:{user}", "*:*"))
