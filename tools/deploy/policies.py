"""The storage policies of a cloud: what ``ringfort up --policy`` says, and what it comes to.

A policy once made never changes: its objects lie as it says.  Policies can be added at any start, each with a ring of its own over
the devices of the ring ``object``; they are numbered in the order in which they were made.  Policy 0 is always there: whole copies,
as many as ``--replicas`` says.

Neighbours: layout (CloudRecord keeps them), create and supervisor (make them), checks (asks whether they can be).
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from ring.errors import BadInput, Conflict
from ring.policy import Consistency, Policies, Policy
from storage.erasure.interface import Coding
from tools.deploy.layout import CloudRecord, PolicyRecord

POLICY_0 = "Policy-0"
_KEYS = ("name", "type", "replicas", "k", "m", "default", "consistency")
_NAME_MAX = 60


def parse(text: str) -> PolicyRecord:
    """``name=NAME,type=replication,replicas=N`` or ``name=NAME,type=ec,k=K,m=M``, and ``default`` when it is that; of whole copies
    also ``consistency=available``.  BadInput."""
    found: dict[str, str] = {}
    for part in text.split(","):
        key, equals, value = part.partition("=")
        key = key.strip()
        if key not in _KEYS or key in found or bool(equals) == (key == "default"):
            raise BadInput(
                f"--policy {text!r}: {part!r} is not understood",
                hint="for instance name=cold,type=ec,k=4,m=2 or name=two,type=replication,replicas=2,default",
            )
        found[key] = value.strip()
    name, kind = found.get("name", ""), found.get("type", "")
    if not name or len(name) > _NAME_MAX or not all(c.isascii() and (c.isalnum() or c in "-_.") for c in name):
        raise BadInput(f"--policy {text!r}: {name!r} is not a name", hint="letters, digits, - _ and . as in name=cold")
    needed = {"replication": ("replicas",), "ec": ("k", "m")}.get(kind)
    if needed is None:
        raise BadInput(f"--policy {text!r}: there is no type {kind!r}", hint="type=replication or type=ec")
    consistency = found.get("consistency", Consistency.QUORUM.value)
    if consistency not in {one.value for one in Consistency} or (kind == "ec" and consistency != Consistency.QUORUM.value):
        raise BadInput(
            f"--policy {text!r}: there is no consistency {consistency!r} for it", hint="quorum; for whole copies also available"
        )
    extra = set(found) - {"name", "type", "default", "consistency", *needed}
    missing = [key for key in needed if key not in found]
    if extra or missing:
        raise BadInput(
            f"--policy {text!r}: a policy of type {kind} has {' and '.join(needed)}, and nothing else",
            hint="for instance name=cold,type=ec,k=4,m=2 or name=two,type=replication,replicas=2",
        )
    numbers = {key: _number(text, key, found[key]) for key in needed}
    default = "default" in found
    if kind == "replication":
        if numbers["replicas"] < 1:
            raise BadInput(f"--policy {text!r}: at least one replica", hint="2 survive the loss of a device")
        return PolicyRecord(name=name, replicas=numbers["replicas"], default=default, consistency=consistency)
    coding = Coding(numbers["k"], numbers["m"])  # BadCoding
    return PolicyRecord(name=name, replicas=coding.count, k=coding.k, m=coding.m, default=default)


def policies_of(record: CloudRecord) -> Policies:
    """All of a cloud, policy 0 included."""
    others = record.policies
    first = Policy(0, POLICY_0, record.replicas, default=not any(other.default for other in others))
    rest = [
        Policy(
            index,
            other.name,
            other.replicas,
            default=other.default,
            k=other.k,
            m=other.m,
            consistency=Consistency(other.consistency),
        )
        for index, other in enumerate(others, 1)
    ]
    return Policies([first, *rest])


def added(record: CloudRecord, asked: Sequence[PolicyRecord]) -> list[PolicyRecord]:
    """Those of ``asked`` that the cloud does not have yet.  Conflict when it has another one of that name; BadInput when it has too
    few devices."""
    known = {POLICY_0.lower(): None, **{one.name.lower(): one for one in record.policies}}
    new: list[PolicyRecord] = []
    for one in asked:
        if one.name.lower() in known:
            if not _same(known[one.name.lower()], one):
                raise Conflict(f"the cloud has another policy {one.name}", hint="a policy never changes: give a new one a new name")
            continue
        if one.replicas > record.devices:
            kind = f"{one.k}+{one.m}" if one.k else f"{one.replicas} replicas"
            raise BadInput(
                f"policy {one.name} ({kind}) needs {one.replicas} devices, the cloud has {record.devices}",
                hint="each fragment or copy of an object goes to a device of its own",
            )
        known[one.name.lower()] = one
        new.append(one)
    if sum(one.default for one in (*record.policies, *new)) > 1:
        raise Conflict("one policy is the default, not two", hint="which one it is, is said when it is made, and stays")
    return new


def _same(known: PolicyRecord | None, asked: PolicyRecord) -> bool:
    """Names are compared without case; that it is the default need not be said again."""
    return known is not None and known == msgspec.structs.replace(asked, name=known.name, default=asked.default or known.default)


def _number(text: str, key: str, value: str) -> int:
    if not value.isascii() or not value.isdigit() or len(value) > 4:
        raise BadInput(f"--policy {text!r}: {key} is a number, not {value!r}", hint="for instance type=ec,k=4,m=2")
    return int(value)
