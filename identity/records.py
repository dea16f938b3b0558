"""Identity's records as they lie in kv: JSON of frozen structs, one key each.  Pure.

identity/domains/<id>        Domain
identity/projects/<id>       Project
identity/users/<id>          User
identity/roles/<id>          Role
identity/regions/<id>        Region
identity/services/<id>       Service
identity/endpoints/<id>      Endpoint
identity/grants/<scope>/<target>/<user>/<role>   Grant; scope is "project" or "domain"
identity/credentials/<access key>                Credential (EC2: an S3 key)
identity/tokenkeys/<number>  TokenKey
identity/revoked/<audit id>  Revocation
identity/names/<kind>/<domain>/<name>            the id that holds a name
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from ring.errors import FormatError

PREFIX = "identity/"


class Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=False):
    """Base: unknown fields of a newer version are ignored on reading."""


class Domain(Record, frozen=True, kw_only=True):
    id: str
    name: str
    description: str = ""
    enabled: bool = True


class Project(Record, frozen=True, kw_only=True):
    id: str
    name: str
    domain_id: str
    description: str = ""
    enabled: bool = True


class User(Record, frozen=True, kw_only=True):
    id: str
    name: str
    domain_id: str
    password: str = ""  # passwords.encode's form; "" cannot log in with one
    password_changed: float = 0.0  # wall seconds; tokens from before are void
    email: str = ""
    description: str = ""
    default_project_id: str = ""
    enabled: bool = True


class Role(Record, frozen=True, kw_only=True):
    id: str
    name: str
    description: str = ""


class Region(Record, frozen=True, kw_only=True):
    id: str
    description: str = ""
    parent_region_id: str = ""


class Service(Record, frozen=True, kw_only=True):
    id: str
    name: str
    type: str
    description: str = ""
    enabled: bool = True


class Endpoint(Record, frozen=True, kw_only=True):
    id: str
    service_id: str
    interface: str  # public, internal, admin
    url: str  # may hold %(project_id)s
    region_id: str
    enabled: bool = True


class Grant(Record, frozen=True, kw_only=True):
    scope: str
    target_id: str
    user_id: str
    role_id: str

    @property
    def key(self) -> str:
        return f"{PREFIX}grants/{self.scope}/{self.target_id}/{self.user_id}/{self.role_id}"


class Credential(Record, frozen=True, kw_only=True):
    access: str
    sealed_secret: str  # under the root key
    user_id: str
    project_id: str


class TokenKey(Record, frozen=True, kw_only=True):
    number: int  # the highest is the primary
    sealed_key: str


class Revocation(Record, frozen=True, kw_only=True):
    audit_id: str
    expires: float


COLLECTIONS: dict[type[Record], str] = {
    Domain: "domains",
    Project: "projects",
    User: "users",
    Role: "roles",
    Region: "regions",
    Service: "services",
    Endpoint: "endpoints",
}
RecordT = TypeVar("RecordT", bound=Record)


def encode(record: Record) -> bytes:
    return msgspec.json.encode(record)


def decode(kind: type[RecordT], data: bytes) -> RecordT:
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.DecodeError as error:
        raise FormatError(f"a stored {kind.__name__} cannot be read: {error}") from error


def fields(record: Record) -> dict[str, Any]:
    """As a plain dict, in the order of definition."""
    return {name: getattr(record, name) for name in record.__struct_fields__}


def key_of(record: Any) -> str:
    """The kv key of a record that has an id."""
    return f"{PREFIX}{COLLECTIONS[type(record)]}/{record.id}"


def name_key(record: Record) -> str | None:
    """The key that makes a record's name unique; None where names need not be."""
    match record:
        case Domain(name=name):
            return f"{PREFIX}names/domains//{name}"
        case Role(name=name):
            return f"{PREFIX}names/roles//{name}"
        case Project(name=name, domain_id=domain):
            return f"{PREFIX}names/projects/{domain}/{name}"
        case User(name=name, domain_id=domain):
            return f"{PREFIX}names/users/{domain}/{name}"
        case _:
            return None
