"""Records and sessions as the Identity API v3 words them.  Pure."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from identity.catalog import catalog
from identity.login import Session
from identity.records import Record, User, fields
from identity.store import IdentityStore, vars_id


def moment(seconds: float) -> str:
    """2026-01-01T00:00:00.000000Z"""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def resource(record: Record, base: str, collection: str) -> dict[str, Any]:
    """With links; a password never leaves."""
    body = fields(record)
    if isinstance(record, User):
        for name in ("password", "password_changed"):
            del body[name]
        body["password_expires_at"] = None
        body["options"] = {}
        if not body["default_project_id"]:
            del body["default_project_id"]
    if collection == "projects":
        body |= {"parent_id": body["domain_id"], "is_domain": False, "tags": [], "options": {}}
    if collection == "roles":
        body |= {"domain_id": None, "options": {}}
    if collection == "domains":
        body |= {"tags": [], "options": {}}
    if collection == "regions":
        body["parent_region_id"] = body["parent_region_id"] or None
    if collection == "endpoints":
        body["region"] = body["region_id"]
    body["links"] = {"self": f"{base}/v3/{collection}/{vars_id(record)}"}
    return body


def token(store: IdentityStore, session: Session, *, with_catalog: bool = True) -> dict[str, Any]:
    payload = session.payload
    body: dict[str, Any] = {
        "methods": list(payload.methods),
        "user": {
            "id": session.user.id,
            "name": session.user.name,
            "domain": {"id": session.user_domain.id, "name": session.user_domain.name},
            "password_expires_at": None,
        },
        "audit_ids": [payload.audit_id],
        "expires_at": moment(payload.expires),
        "issued_at": moment(payload.issued),
    }
    if session.project is not None and session.project_domain is not None:
        body["project"] = {
            "id": session.project.id,
            "name": session.project.name,
            "domain": {"id": session.project_domain.id, "name": session.project_domain.name},
        }
        body["is_domain"] = False
    if session.scope_domain is not None:
        body["domain"] = {"id": session.scope_domain.id, "name": session.scope_domain.name}
    if session.roles:
        body["roles"] = [{"id": role.id, "name": role.name} for role in session.roles]
        if with_catalog:
            body["catalog"] = catalog(store, session.project.id if session.project else "")
    return {"token": body}
