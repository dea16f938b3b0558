"""What two worker processes say over their sockets, put together; what is wrong with it; and a pass on demand."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import pytest
import trio

from ring.daemon.log import Log
from ring.daemon.metrics import Registry
from ring.daemon.pacing import Pacing
from ring.daemon.requests import RequestLog
from ring.daemon.runner import Roster, Runner, State, WorkerState
from ring.daemon.tally import Pass
from ring.daemon.worker import Busy, Idle, Progress
from ring.daemon.yielding import Yielding
from ring.errors import BadInput, DiskFault, NotFound, Unavailable
from ring.wire.message import Handler, Headers, Request, Response
from ring.wire.router import Router
from ring.wire.server import LogLine, serve
from ring.world.interface import UnixAddress, World
from ring.world.real import make_world
from storage.object.health import Health
from tools.cli import recon as words
from tools.cli.bars import bar, duration, percent, size
from tools.cli.main import run
from tools.cli.recon_json import as_dict
from tools.cli.worker import _ended, _run, chosen
from tools.deploy.device_status import DEVICES_PATH, DeviceState, Refilling, WorkerDevices, unwell
from tools.deploy.latency import Latency, latencies
from tools.deploy.layout import Layout
from tools.deploy.load import SharedSpeed
from tools.deploy.recon import BEHIND_MAX_S, LAG_MAX_S, OWED_MAX, Cloud, Process, WorkerRecon, add_routes, gather
from tools.deploy.ring_status import RINGS_PATH, RingState, WorkerRings


class Steps:
    """A pass of three units, ended by the second time it is asked to begin."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.left = 0
        self.fails = False

    def progress(self) -> Progress:
        return Progress(1 - self.left / 3, facts={"steps": 3 - self.left, "single_partitions": 0})

    def begin(self) -> None:
        self.left = 3

    async def work(self) -> Busy | Idle:
        await trio.lowlevel.checkpoint()
        if self.fails:
            self.fails = False
            raise DiskFault("EIO")
        if self.left == 0:
            return Idle.after(1000)
        self.left -= 1
        return Busy(1, 1 << 20)


def page(value: object) -> Handler:
    async def handle(request: Request) -> Response:
        return Response(200, Headers(), msgspec.json.encode(value))

    return handle


@contextmanager
def short_folder() -> Iterator[Path]:
    """The path of a socket has 107 bytes."""
    with TemporaryDirectory(prefix="rf-") as folder:
        yield Path(folder)


async def process(nursery: trio.Nursery, world: World, layout: Layout, number: int, *workers: Steps) -> None:
    """As tools.deploy.worker serves its own socket."""
    roster, registry, router = Roster(), Registry(), Router()
    lines: list[str] = []
    log = Log(lines.append, world.clock)
    for one in workers:
        nursery.start_soon(roster.run, Runner(one, Pacing(), world.clock, log, registry))
    speed = SharedSpeed(layout.speed, number, Yielding())
    add_routes(router, world, number, roster, speed)
    router.add("GET", RINGS_PATH, page(WorkerRings(number, 7, {"object": RingState(3, 2, {number: 0.5})})))
    state = device(id=number, total_bytes=1000, free_bytes=250, reserve_bytes=10, objects=4, quarantined=0)
    router.add("GET", DEVICES_PATH, page(WorkerDevices(number, [state])))
    RequestLog(log, registry, "object")(LogLine("tx", "1.2.3.4", "GET", "/x", 200, 0, 10, 0.004, 0.0))

    async def metrics(request: Request) -> Response:
        return Response(200, Headers(), registry.render().encode())

    router.add("GET", "/metrics", metrics)
    listener = await world.net.listen(UnixAddress(layout.worker_socket(number)))
    await nursery.start(lambda task_status: serve(world, [listener], router, task_status=task_status))


async def test_processes_are_asked_and_a_pass_is_made_on_demand() -> None:
    world = make_world()
    with short_folder() as folder:
        layout = Layout(folder)
        layout.run.mkdir()
        with pytest.raises(Unavailable, match="no cloud runs"):
            await gather(world, layout)
        async with trio.open_nursery() as nursery:
            first, second = Steps("auditor d0"), Steps("auditor d1")
            await process(nursery, world, layout, 0, first, Steps("sweeper"))
            await process(nursery, world, layout, 1, second)
            (layout.run / "worker-2.sock").touch()  # nobody serves it
            cloud = await gather(world, layout)
            assert [one.name for one in cloud.workers] == ["auditor d0", "auditor d1", "sweeper"]
            assert cloud.requests["object", "GET"].total == 2
            assert cloud.requests["object", "GET"].percentile_s(99) == 0.005
            assert cloud.problems() == ["worker process 2 does not answer"]
            assert all(abs(one.clock_off_s) < 1 for one in cloud.processes.values())

            assert chosen(cloud, "auditor", ()) == {"auditor d0": 0, "auditor d1": 1}
            assert chosen(cloud, "auditor", ("1",)) == chosen(cloud, "auditor", ("d1",)) == {"auditor d1": 1}
            assert chosen(cloud, "sweeper", ()) == {"sweeper": 0}
            with pytest.raises(BadInput, match="d7"):
                chosen(cloud, "auditor", ("d0", "d7"))
            with pytest.raises(NotFound) as caught:
                chosen(cloud, "nobody", ())
            assert caught.value.hint == "there are auditor, sweeper"

            done = await _run(world, layout, "auditor", ("d1",), True)
            assert list(done) == ["auditor d1"] and done["auditor d1"].last is not None
            assert (done["auditor d1"].last.units, done["auditor d1"].last.done_bytes) == (3, 3 << 20)
            first.fails = True
            done = await _run(world, layout, "auditor", (), False)
            assert set(done) == {"auditor d0", "auditor d1"}

            text = "\n".join(words.text(cloud, tuple(words.SECTIONS)))
            for line in (
                "2 of 3 worker processes answer",
                "edition 7: all processes agree",
                "object           version 3, settled 2 [##########          ]  50%",
                "in service   [###############     ]  75%",
                "worker process 2 does not answer",
            ):
                assert line in text
            told = json.loads(json.dumps(as_dict(cloud, tuple(words.SECTIONS))))
            assert list(told) == list(words.SECTIONS)
            assert told["rings"]["0"] == {"edition": 7, "object": {"version": 3, "settled": 2, "devices": {"0": 0.5}}}
            assert list(as_dict(cloud, ("problems", "backlog"))) == ["problems", "backlog"]
            assert [one["name"] for one in told["workers"]] == ["auditor d0", "auditor d1", "sweeper"]
            assert told["processes"][2]["answers"] is False and told["devices"][0]["state"] == "in service"
            assert any("auditor d1" in line for line in words.one_by_one(cloud))
            nursery.cancel_scope.cancel()


def worker(name: str, **more: object) -> WorkerState:
    known = WorkerState(name, State.RESTING, Progress(), None, None, 0, 0.0, 0.0, None, None, "")
    return replace(known, **more)  # type: ignore[arg-type]


def device(**more: object) -> DeviceState:
    known = DeviceState(
        id=3,
        state="in service",
        reason="",
        since=0.0,
        total_bytes=None,
        free_bytes=None,
        reserve_bytes=None,
        objects=None,
        quarantined=None,
        leaving={},
    )
    return msgspec.structs.replace(known, **more)


def cloud_of(*workers: WorkerState, devices: tuple[DeviceState, ...] = (), edition: int = 1, off_s: float = 0.0) -> Cloud:
    other = Process(WorkerRecon(0, 1e6, [], 1.0, 0.0, 0), WorkerRings(0, 1, {}), WorkerDevices(0, []))
    recon = WorkerRecon(1, 1e6, list(workers), 1.0, 0.0, 0)
    return Cloud({0: other, 1: Process(recon, WorkerRings(1, edition, {}), WorkerDevices(1, list(devices)), {}, off_s)})


@pytest.mark.parametrize(
    "cloud, said",
    [
        (cloud_of(worker("object-replicator d0", last=Pass(1e6 - 60, 50.0))), ""),
        (cloud_of(edition=2), "different editions of the rings: 1, 2"),
        (cloud_of(off_s=-3.0), "the clock of worker process 1 is -3.0 s off"),
        (cloud_of(devices=(device(state="out", reason="no label"),)), "device d3 is out: no label"),
        (cloud_of(devices=(device(refilling=Refilling(0.25, 60.0)),)), "device d3 is being refilled, 25% is done"),
        (cloud_of(devices=(device(quarantined=2),)), "device d3 has put 2 versions aside"),
        (
            cloud_of(worker("object-updater d0", state=State.FAILING, error="DiskFault: EIO")),
            "object-updater d0 fails: DiskFault: EIO",
        ),
        (
            cloud_of(worker("object-replicator d0", progress=Progress(facts={"single_partitions": 2, "short_partitions": 5}))),
            "2 partit",
        ),
        (cloud_of(worker("object-replicator d0", progress=Progress(facts={"short_partitions": 5}))), "5 partitions have too few"),
        (cloud_of(worker("book-replicator d0", last=Pass(1e6 - LAG_MAX_S - 60, 50.0))), "its last pass ended 3610 s ago"),
        (cloud_of(worker("object-expirer d0", progress=Progress(facts={"behind_s": BEHIND_MAX_S + 1}))), "3601 s behind"),
        (cloud_of(worker("object-updater d0", progress=Progress(left=OWED_MAX))), "10000 rows are owed"),
        (cloud_of(worker("parts-sweeper", last=Pass(0.0, 1.0))), ""),
    ],
)
def test_what_is_wrong_is_said(cloud: Cloud, said: str) -> None:
    problems = cloud.problems()
    assert len(problems) == bool(said)
    if said:
        assert said in problems[0]
    assert "\n".join(words.text(cloud, tuple(words.SECTIONS)))  # it can be printed


def test_a_dead_device_is_one_line() -> None:
    """Whatever its absence makes others say of themselves."""
    short = Progress(facts={"short_partitions": 40})
    gone = "Unavailable: device 3 is out of service: no label"
    others = [
        worker(f"{kind} d{number}", progress=short) for kind in ("object-replicator", "book-replicator") for number in range(3)
    ]
    others += [worker(f"object-updater d{number}", state=State.FAILING, error=gone) for number in range(3)]
    assert cloud_of(*others, devices=(device(state="out", reason="no label"),)).problems() == ["device d3 is out: no label"]
    filling = cloud_of(*others[:6], devices=(device(refilling=Refilling(0.25, 60.0)),))
    assert filling.problems() == ["device d3 is being refilled, 25% is done"]
    assert cloud_of(*others).problems() == [
        "book-replicator d0 d1 d2, object-replicator d0 d1 d2: 40 partitions have too few copies of something",
        f"object-updater d0 d1 d2 fail: {gone}",
    ]
    single = worker("object-replicator d5", progress=Progress(facts={"single_partitions": 2}))
    assert cloud_of(*others, single, devices=(device(state="out", reason="no label"),)).problems()[1:] == [
        "object-replicator d5: 2 partitions have one copy of something"
    ]


def test_health_calls_devices_as_all_else_does() -> None:
    health = {2: Health(), 3: Health()}
    assert unwell(health) == ""
    health[2].missing("no label", 1.0)
    assert unwell(health) == "d2 is out: no label"


def test_passes_that_cannot_be_waited_for_are_an_error() -> None:
    before = {"auditor d0": worker("auditor d0", passes=4)}
    assert not _ended(before, before)
    assert _ended(before, {"auditor d0": worker("auditor d0", passes=5)})
    with pytest.raises(Unavailable, match="does not run any more"):
        _ended(before, {})
    with pytest.raises(Unavailable, match="started again"):
        _ended(before, {"auditor d0": worker("auditor d0", passes=0)})


def test_latencies_are_read_out_of_metrics_added_and_subtracted() -> None:
    def text(few: int, all_of_them: int, failed: int) -> str:
        start = 'ringfort_request_seconds_bucket{server="object",method="PUT",le='
        return (
            f'{start}"0.01"}} {few}\n{start}"+Inf"}} {all_of_them}\n'
            f'ringfort_requests_total{{server="object",method="PUT",status="503"}} {failed}\n'
            f'ringfort_requests_total{{server="object",method="PUT",status="201"}} {all_of_them - failed}\n'
        )

    before, after = latencies(text(4, 10, 1))["object", "PUT"], latencies(text(104, 110, 3))["object", "PUT"]
    assert (before.total, before.errors, before.percentile_s(50), before.percentile_s(40)) == (10, 1, None, 0.01)
    since = after.since(before)
    assert (since.total, since.errors, since.percentile_s(99)) == (100, 2, 0.01)
    assert before.since(after) == before  # the process was started again
    assert (before + after).total == 120 and (before + Latency()).total == 10
    assert latencies("") == {} and Latency().percentile_s(50) is None


def test_words_for_amounts() -> None:
    assert [duration(seconds) for seconds in (None, 0.04, 9.94, 12, 75, 3700, 90000)] == [
        "-", "0.0s", "9.9s", "12s", "1m15s", "1h1m", "1d1h",
    ]  # fmt: skip
    assert [size(count) for count in (0, 1023, 1024, 3 << 30, 1 << 50)] == ["0 B", "1023 B", "1.0 KiB", "3.0 GiB", "1024.0 TiB"]
    assert (bar(0.5, 4), bar(None, 4), bar(2.0, 4)) == ("[##  ]", "[    ]", "[####]")
    assert (percent(0.999), percent(1.0), percent(None)) == (" 99%", "100%", "   ?")


@pytest.mark.parametrize("other", ["--json", "--check"])
def test_what_does_not_go_with_watching(other: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["recon", "--watch", other, "--data", str(tmp_path)]) == 2
    assert "goes neither with --json nor with --check" in capsys.readouterr().err
