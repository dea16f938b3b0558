"""The store against a dict, with crashes between: hypothesis looks for the sequence that breaks it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ring.names import Span
from ring.timestamp import Timestamp
from ring.world.sim import SimWorld, run
from storage.client.errors import ObjectNotFound
from storage.object.device import Label
from storage.object.store import ObjectStore
from tests.storage.object.object_rig import CLUSTER, HASHER, SPANS, path, put, put_file, read, serving, version

NAMES = ("a", "b", "c")
Step = tuple[str, str, int]
OPERATIONS = st.tuples(
    st.sampled_from(("put", "put", "file", "delete", "post", "drop", "drop", "pay")), st.sampled_from(NAMES), st.integers(1, 60)
)
EVENTS = st.tuples(st.sampled_from(("crash", "stop", "forget index", "commit")), st.just(""), st.integers(0, 9))
STEPS = st.lists(st.one_of(OPERATIONS, OPERATIONS, OPERATIONS, OPERATIONS, OPERATIONS, EVENTS), min_size=20, max_size=80)


class Model:
    """What a device must hold: per name timestamp, body (None: a tombstone) and time of the last POST; and what it owes."""

    def __init__(self) -> None:
        self.held: dict[str, tuple[int, bytes | None, int]] = {}
        self.owed: dict[tuple[str, int], bool] = {}

    def put(self, name: str, ticks: int, data: bytes | None, *, owes: bool) -> None:
        old = self.held.get(name)
        if old is None or _rank(ticks, data) > _rank(old[0], old[1]):
            self.held[name] = ticks, data, 0
            if owes:
                if old is not None and old[0] != ticks:
                    self.owed.pop((name, old[0]), None)
                self.owed[name, ticks] = True

    async def check(self, store: ObjectStore) -> None:
        for name in NAMES:
            head = await store.head(path(name))
            if name not in self.held:
                assert head is None
                continue
            ticks, data, posted = self.held[name]
            assert head is not None
            assert (head.timestamp.ticks, head.size) == (ticks, len(data or b""))
            assert head.metadata_timestamp == (Timestamp(posted) if posted else None)
            assert await read(store, name) == data
        owed = {(item[1].path.object, item[1].timestamp.ticks) for item in store.unpaid(100)}
        assert owed >= set(self.owed)  # a debt may be handed out again after a crash, but none is forgotten
        for span in SPANS:
            digests = await store.digests(span)
            for leaf in digests.leaves:
                assert await store.leaf(span, leaf)
        assert sum([len(await _keys(store, span)) for span in SPANS]) == len(self.held)


async def _keys(store: ObjectStore, span: Span) -> list[bytes]:
    digests = await store.digests(span)
    return [key for leaf in digests.leaves for key, _ in await store.leaf(span, leaf)]


def _rank(ticks: int, data: bytes | None) -> tuple[int, bool, str]:
    return ticks, data is None, "" if data is None else version("", ticks, data).etag


@given(STEPS, st.integers(0, 2**32 - 1))
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_against_the_model(steps: list[Step], seed: int) -> None:
    run(seed, _play, steps, seed)


async def _play(steps: list[Step], seed: int) -> None:
    world = SimWorld(seed)
    node = world.node
    disk = world.open_disk("d")
    await disk.make_dirs("")
    await disk.make_dirs("packs")
    await disk.make_dirs("quarantine")
    await disk.make_dirs_many([f"files/{store_folder(name)}" for name in NAMES])
    await disk.replace_file("device.json", Label(CLUSTER, 1).encode())
    model = Model()
    remaining = list(steps)
    while remaining:

        async def work(store: ObjectStore) -> None:
            await model.check(store)
            while remaining:
                kind, name, number = remaining.pop(0)
                if kind in ("crash", "stop", "forget index"):
                    if kind == "crash":
                        node.crash(power=number % 2 == 0)
                    return
                await _step(store, model, kind, name, number)
                await model.check(store)

        before = remaining[:]
        await node.run(lambda world: _serve(world, work))  # type: ignore[arg-type]
        done = before[: len(before) - len(remaining)]
        if not node.up:
            node.restart()
        if done and done[-1][0] == "forget index":
            await node.world.open_disk("d").unlink("tables/data.mdb")
            model.owed.clear()  # all are handed out again


async def _serve(world: SimWorld, work: Callable[[ObjectStore], Awaitable[None]]) -> None:
    async with serving(world, "d", segment_bytes_max=5000) as store:
        await work(store)


async def _step(store: ObjectStore, model: Model, kind: str, name: str, number: int) -> None:
    held = model.held.get(name)
    match kind:
        case "put":
            data = b"%d" % (number % 7) * number
            await put(store, name, number, data, owe=number % 2 == 0)
            model.put(name, number, data, owes=number % 2 == 0)
        case "file":
            data = b"%d" % (number % 7) * number
            await put_file(store, name, number, data)
            model.put(name, number, data, owes=False)
        case "delete":
            await put(store, name, number, None, owe=True)
            model.put(name, number, None, owes=True)
        case "post":
            try:
                await store.post(path(name), {"x-object-meta-p": str(number)}, "", Timestamp(number))
            except ObjectNotFound:
                assert held is None or held[1] is None
            else:
                assert held is not None
                if number > max(held[0], held[2]):
                    model.held[name] = held[0], held[1], number
        case "drop":
            if held is not None and (name, held[0]) not in {(i[1].path.object, i[1].timestamp.ticks) for i in store.unpaid(100)}:
                assert await store.drop(store.key(path(name), Timestamp(held[0])), "handed off")
                del model.held[name]
        case "pay":
            store.mark_paid([item[0] for item in store.unpaid(100)][:2])
            left = {(item[1].path.object, item[1].timestamp.ticks) for item in store.unpaid(100)}
            model.owed = {key: True for key in model.owed if key in left}
        case "commit":
            await store.index.commit()


def store_folder(name: str) -> str:
    return HASHER.hash(path(name)).hex()[:3]
