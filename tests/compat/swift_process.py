"""Swift's own code at the other end of a pipe: one JSON request per line, one JSON answer.

The far end is run by Swift's interpreter: ``python swift_process.py FOLDER``, with a ``swift.conf`` in FOLDER.  ``Swift`` is ours.
"""

from __future__ import annotations

import array
import importlib
import json
import subprocess
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

PREFIX, SUFFIX = b"changeme", "größe".encode()
CONF = f"[swift-hash]\nswift_hash_path_prefix = {PREFIX.decode()}\nswift_hash_path_suffix = {SUFFIX.decode()}\n"


class Swift:
    """``ask("verb", ...)`` calls the function of that name below, in Swift's interpreter."""

    def __init__(self, python: Path, folder: Path) -> None:
        (folder / "swift.conf").write_text(CONF, encoding="utf-8")
        self._process = subprocess.Popen(
            [str(python), "-W", "ignore", __file__, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            env={"PYTHONIOENCODING": "utf-8", "LC_ALL": "C.UTF-8"},
        )

    def ask(self, verb: str, **arguments: object) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([verb, arguments], default=str) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, "Swift's process ended"
        told, error = json.loads(answer)
        assert not error, error
        return told

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        status = self._process.wait()
        self._process.stdout.close()
        assert status == 0


# ---- in Swift's interpreter


def make(path: str, create: list[float], steps: list[list[Any]]) -> list[str]:
    """A builder by calls of RingBuilder; what Swift refuses is left out, and told."""
    builder = _swift("swift.common.ring.builder").RingBuilder(*create)
    refused = []
    for name, *arguments in steps:
        if name == "hours_pass":
            builder._last_part_moves_epoch = max(0, builder._last_part_moves_epoch - 3600 * arguments[0])
            continue
        try:
            getattr(builder, name)(*arguments)
        except (_swift("swift.common.exceptions").SwiftException, ValueError, ZeroDivisionError) as error:
            refused.append(f"{name}: {error}")
    builder.save(path)
    return refused


def describe(path: str) -> dict[str, Any]:
    """All that a builder file holds, but for the graph that Swift counts anew."""
    builder = _swift("swift.common.ring.builder").RingBuilder.load(path)
    content = cast("dict[str, Any]", builder.to_dict())
    del content["_dispersion_graph"]
    _tidy(content["_replica2part2dev"], content["devs"])
    content["_same_devices"] = all(any(one is dev for dev in builder.devs) for one in content["_remove_devs"])
    return content


def save_again(path: str, target: str) -> None:
    _swift("swift.common.ring.builder").RingBuilder.load(path).save(target)


def write_ring(path: str, target: str, version: int, id_bytes: int) -> None:
    builder = _swift("swift.common.ring.builder").RingBuilder.load(path)
    builder.set_dev_id_bytes(id_bytes)
    builder.get_ring().save(target, format_version=version)


def ring(path: str) -> dict[str, Any]:
    content = cast("dict[str, Any]", _swift("swift.common.ring.ring").RingData.load(path).to_dict())
    _tidy(content["replica2part2dev_id"], content["devs"])
    return content


def _tidy(table: list[Any] | None, devices: list[Any]) -> None:
    """Without an empty row (of a fraction of a replica that is less than one partition), nor what a failed rebalance left."""
    if table and not len(table[-1]):
        table.pop()
    for device in devices:
        if device is not None:
            device.pop("tiers", None)


def same_ring(path: str, other: str) -> bool:
    """What swift-ring-builder asks before it says that a ring is up-to-date."""
    return ring(path) | {"dev_id_bytes": 0} == ring(other) | {"dev_id_bytes": 0}


def nodes(path: str, names: list[list[str]]) -> list[list[Any]]:
    """Of each account, container and object: partition, ids of its primaries."""
    loaded = _swift("swift.common.ring").Ring(path)
    found = [loaded.get_nodes(*(part or None for part in name)) for name in names]
    return [[partition, [node["id"] for node in primaries]] for partition, primaries in found]


def rebalance(path: str) -> dict[str, Any]:
    """One pass, validated before and after."""
    builder = _swift("swift.common.ring.builder").RingBuilder.load(path)
    builder.validate()
    moved, balance, removed = builder.rebalance(seed="7")
    builder.validate()
    builder.save(path)
    return {"moved": moved, "balance": balance, "removed": removed, "dispersion": builder.dispersion}


def dispersion(path: str) -> list[float]:
    """As its file says, and as Swift counts it."""
    builder = _swift("swift.common.ring.builder").RingBuilder.load(path)
    said = builder.dispersion
    builder._build_dispersion_graph()
    return [said, builder.dispersion]


def _swift(module: str) -> Any:
    return importlib.import_module(module)


def _plain(value: object) -> object:
    if isinstance(value, array.array):
        return value.tolist()
    raise TypeError(type(value))


VERBS: Mapping[str, Callable[..., Any]] = {
    one.__name__: one for one in (make, describe, save_again, write_ring, ring, same_ring, nodes, rebalance, dispersion)
}


def main() -> None:
    if not _swift("swift.common.utils").set_swift_dir(sys.argv[1]):
        raise SystemExit("swift.conf is not where it should be")
    for line in sys.stdin:
        verb, arguments = json.loads(line)
        try:
            answer = [VERBS[verb](**arguments), ""]
        except Exception:  # noqa: BLE001  # whatever Swift makes of a file is for the test to see
            answer = [None, traceback.format_exc()]
        sys.stdout.write(json.dumps(answer, default=_plain) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
