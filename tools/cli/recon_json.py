"""What ``ringfort recon --json`` prints: one member for each section that was asked for.

Decides the shape only; tools.cli.recon has the words for people.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import msgspec

from tools.deploy.recon import Cloud, ended_at


def as_dict(cloud: Cloud, sections: Sequence[str]) -> dict[str, object]:
    """``workers`` as WorkerState, ``devices`` as DeviceState, ``rings`` as RingState, by process and ring."""
    return {name: SECTIONS[name](cloud) for name in sections}


def _processes(cloud: Cloud) -> object:
    return [
        {
            "worker": number,
            "answers": process.recon is not None,
            "clock_off_s": round(process.clock_off_s, 4),
            "rings": msgspec.to_builtins(process.rings, str_keys=True),
            "load": None
            if process.recon is None
            else {
                "speed": process.recon.speed,
                "slowdown": process.recon.slowdown,
                "in_flight": process.recon.in_flight,
            },
        }
        for number, process in cloud.processes.items()
    ]


def _rings(cloud: Cloud) -> object:
    known = {str(number): process.rings for number, process in cloud.processes.items() if process.rings is not None}
    return {
        number: {"edition": rings.edition, **msgspec.to_builtins(rings.rings, str_keys=True)} for number, rings in known.items()
    }


def _requests(cloud: Cloud) -> object:
    return [
        {
            "api": api,
            "method": method,
            "count": latency.total,
            "errors": latency.errors,
            "p50_s": latency.percentile_s(50),
            "p99_s": latency.percentile_s(99),
        }
        for (api, method), latency in sorted(cloud.requests.items())
    ]


def _redundancy(cloud: Cloud) -> object:
    ended = [ended_at(one) for one in cloud.workers if "replicator" in one.name and one.last is not None]
    facts = ("single_partitions", "short_partitions", "pushed", "dropped", "unanswered")
    lag_s = round(cloud.now - min(ended), 3) if ended else None
    return {**{what: cloud.fact("replicator", what) for what in facts}, "lag_s": lag_s}


def _quarantined(cloud: Cloud) -> object:
    return {
        "put_aside": sum(device.quarantined or 0 for device in cloud.devices),
        "damaged": cloud.fact("auditor", "damaged"),
        "orphans": cloud.fact("auditor", "orphans"),
    }


def _backlog(cloud: Cloud) -> object:
    def left(kind: str) -> int:
        return sum(one.progress.left or 0 for one in cloud.workers if one.name.partition(" ")[0].endswith(kind))

    reports = left("container-updater")
    return {
        "rows": left("updater") - reports,
        "reports": reports,
        "expired": cloud.fact("expirer", "left"),
        "expirer_behind_s": max((one.progress.facts.get("behind_s", 0) for one in cloud.workers), default=0),
        "accounts": cloud.fact("reaper", "accounts_left"),
        "objects": cloud.fact("reaper", "objects_left"),
    }


def _listings(cloud: Cloud) -> object:
    names = sorted({name for one in cloud.workers if "sharder" in one.name for name in one.progress.facts})
    return {name: cloud.fact("sharder", name) for name in names}


SECTIONS: Mapping[str, Callable[[Cloud], object]] = {
    "processes": _processes,
    "rings": _rings,
    "requests": _requests,
    "devices": lambda cloud: msgspec.to_builtins(cloud.devices, str_keys=True),
    "workers": lambda cloud: msgspec.to_builtins(cloud.workers),
    "redundancy": _redundancy,
    "quarantined": _quarantined,
    "backlog": _backlog,
    "listings": _listings,
    "problems": Cloud.problems,
}
