"""Faults that the simulated machine can have: writes that go wrong, connections that are forgotten, machines that stand still."""

from __future__ import annotations

import pytest
import trio

from ring.world.interface import OpenMode, Stream, TcpAddress, World
from ring.world.sim import SimNode, Simulation, run


async def two_files(node: SimNode) -> World:
    world = node.world
    disk = world.open_disk("/d")
    await disk.make_dirs("")
    for name in ("one", "other"):
        await disk.replace_file(name, b"." * 100)
    return world


def test_a_misdirected_write_is_lost_here_and_lands_there() -> None:
    async def main() -> tuple[bytes, bytes]:
        node = Simulation(3).node("n")
        world = await two_files(node)
        disk, medium = world.open_disk("/d"), node.disk("/d")
        medium.writes_to_misdirect = 1
        file = await disk.open("one", OpenMode.WRITE)
        await file.pwrite(10, b"#####")
        await file.sync()
        await file.pwrite(20, b"+")
        await file.close()
        return await disk.read_file("one"), await disk.read_file("other")

    one, other = run(3, main)
    assert one == b"." * 20 + b"+" + b"." * 79
    assert len(other) == 100 and 0 < other.count(b"#") <= 5 and set(other) == set(b".#")


def test_a_write_that_is_cut_short_says_so() -> None:
    async def main() -> bytes:
        node = Simulation(1).node("n")
        world = await two_files(node)
        node.disk("/d").writes_to_cut = 1
        file = await world.open_disk("/d").open("one", OpenMode.WRITE)
        with pytest.raises(OSError, match="Input/output"):
            await file.append([b"#" * 50], sync=True)
        await file.pwrite(0, b"+")
        await file.close()
        return await world.open_disk("/d").read_file("one")

    found = run(1, main)
    assert found.startswith(b"+.") and 0 < found.count(b"#") < 50


async def connected(simulation: Simulation) -> tuple[Stream, Stream]:
    one, other = (simulation.node(name).world for name in ("one", "other"))
    listener = await other.net.listen(TcpAddress("other", 80))
    async with trio.open_nursery() as nursery:
        found: list[Stream] = []

        async def accept() -> None:
            found.append(await listener.accept())

        nursery.start_soon(accept)
        mine = await one.net.connect(TcpAddress("other", 80))
    return mine, found[0]


def test_a_forgotten_connection_says_nothing_and_a_new_one_works() -> None:
    async def main() -> list[object]:
        simulation = Simulation(1)
        mine, theirs = await connected(simulation)
        simulation.network.half_open("one", "other")
        await mine.send_all(b"lost")
        heard: list[object] = []
        with trio.move_on_after(3600):
            heard.append(await theirs.receive_some())
        simulation.network.heal()
        with trio.move_on_after(3600):
            heard.append(await theirs.receive_some())
        again = await simulation.node("one").world.net.connect(TcpAddress("other", 80))
        await again.send_all(b"x")
        return heard

    assert run(1, main) == []


def test_links_are_mended_one_by_one() -> None:
    async def main() -> tuple[bool, bytes]:
        simulation = Simulation(1)
        network = simulation.network
        mine, theirs = await connected(simulation)
        network.cut("one", "other")
        network.cut("other", "third")
        await mine.send_all(b"held")
        network.mend([("one", "other")])
        return network.link("other", "third").cut, bytes(await theirs.receive_some())

    assert run(1, main) == (True, b"held")


def test_jitter_lets_messages_of_different_connections_overtake() -> None:
    network = Simulation(1).network
    assert network.latency("a", "b") < 0.001
    network.link("a", "b").jitter_s = 1.0
    delays = [network.latency("a", "b") for _ in range(50)]
    assert max(delays) > 0.8 and min(delays) < 0.2


def test_a_frozen_machine_does_nothing_until_it_is_thawed() -> None:
    async def main() -> list[tuple[str, float]]:
        simulation = Simulation(1)
        node = simulation.node("one")
        mine, theirs = await connected(simulation)
        disk = node.world.open_disk("/d")
        await disk.make_dirs("")
        done: list[tuple[str, float]] = []

        async def write() -> None:
            await disk.replace_file("f", b"x")
            done.append(("written", trio.current_time()))

        async def send() -> None:
            await mine.send_all(b"x")
            done.append(("sent", trio.current_time()))

        async def receive() -> None:
            await theirs.receive_some()
            done.append(("received", trio.current_time()))

        start = trio.current_time()
        node.life.freeze()
        async with trio.open_nursery() as nursery:
            for task in (write, send, receive):
                nursery.start_soon(task)
            await trio.sleep(15)
            node.life.freeze()  # once more: that changes nothing
            await trio.sleep(15)
            assert done == []
            node.life.thaw()
        return sorted((what, round(at - start)) for what, at in done)

    assert run(1, main) == [("received", 30), ("sent", 30), ("written", 30)]


def test_a_machine_may_crash_while_it_is_frozen() -> None:
    async def main() -> bool:
        node = Simulation(1).node("n")
        disk = node.world.open_disk("/d")

        async def live(world: World) -> None:
            await disk.make_dirs("")
            raise AssertionError("it was frozen")

        node.life.freeze()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(node.run, live)
            await trio.sleep(5)
            node.crash(power=False, silent=False)
        return node.up

    assert run(1, main) is False
