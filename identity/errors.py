"""Identity's errors: the ring tree plus Unauthorized and Forbidden (identity.client.interface).

NotFound      "Could not find user: NAME."
Conflict      a name is taken
BadInput      a body that is not what the API says
Unauthorized  401
Forbidden     403
"""

from __future__ import annotations

from identity.client.interface import Forbidden, Unauthorized
from ring.errors import BadInput, Conflict, NotFound

__all__ = ["BadInput", "Conflict", "Forbidden", "NotFound", "Unauthorized", "not_authenticated"]


def not_authenticated() -> Unauthorized:
    """Keystone's one sentence for every failed login: it tells nobody which part was wrong."""
    return Unauthorized("The request you have made requires authentication.")
