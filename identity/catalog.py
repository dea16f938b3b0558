"""The service catalog as one project sees it (Identity API v3, "catalog" of a token).  Pure apart from reading the store."""

from __future__ import annotations

from typing import Any

from identity.records import Endpoint, Service
from identity.store import IdentityStore


def catalog(store: IdentityStore, project_id: str) -> list[dict[str, Any]]:
    """Endpoints whose URL needs a project are left out of a token that has none."""
    by_service: dict[str, list[Endpoint]] = {}
    for endpoint in store.all(Endpoint):
        if endpoint.enabled and (project_id or "project_id" not in endpoint.url):
            by_service.setdefault(endpoint.service_id, []).append(endpoint)
    found = []
    for service in sorted(store.all(Service), key=lambda service: service.name):
        endpoints = by_service.get(service.id)
        if not service.enabled or not endpoints:
            continue
        found.append(
            {
                "id": service.id,
                "name": service.name,
                "type": service.type,
                "endpoints": [
                    {
                        "id": endpoint.id,
                        "interface": endpoint.interface,
                        "region": endpoint.region_id,
                        "region_id": endpoint.region_id,
                        "url": fill(endpoint.url, project_id),
                    }
                    for endpoint in sorted(endpoints, key=lambda e: (e.region_id, e.interface != "public", e.interface))
                ],
            }
        )
    return found


def fill(url: str, project_id: str) -> str:
    """Replaces the two spellings of a project's place in an endpoint URL."""
    for place in ("%(project_id)s", "$(project_id)s", "%(tenant_id)s", "$(tenant_id)s"):
        url = url.replace(place, project_id)
    return url
