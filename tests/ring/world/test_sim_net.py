"""What can go wrong between two simulated hosts."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from ring.world.interface import Stream, TcpAddress, UnixAddress
from ring.world.sim import Simulation


async def connected(simulation: Simulation) -> tuple[Stream, Stream]:
    listener = await simulation.node("b").world.net.listen(TcpAddress("b", 80))
    client = await simulation.node("a").world.net.connect(TcpAddress("b", 80))
    return client, await listener.accept()


async def test_hosts_and_ports(autojump_clock: MockClock) -> None:
    simulation = Simulation(1)
    a, b = simulation.node("a"), simulation.node("b")
    listener = await b.world.net.listen(TcpAddress("b", 0))
    assert isinstance(listener.address, TcpAddress)
    own = await b.world.net.connect(TcpAddress("127.0.0.1", listener.address.port))
    await own.aclose()
    with pytest.raises(ConnectionRefusedError):
        await a.world.net.connect(TcpAddress("127.0.0.1", listener.address.port))
    with pytest.raises(TimeoutError):
        await a.world.net.connect(TcpAddress("nowhere", 80))
    await b.world.net.listen(UnixAddress("/run/s"))
    with pytest.raises(FileNotFoundError):
        await a.world.net.connect(UnixAddress("/run/s"))


async def test_a_cut_holds_what_is_sent_and_is_one_way(autojump_clock: MockClock) -> None:
    simulation = Simulation(1)
    client, server = await connected(simulation)
    simulation.network.cut("a", "b")
    await client.send_all(b"held")
    await server.send_all(b"goes")
    assert await client.receive_some() == b"goes"
    with trio.move_on_after(100) as scope:
        await server.receive_some()
    assert scope.cancelled_caught
    with pytest.raises(TimeoutError):
        await simulation.node("b").world.net.connect(TcpAddress("a", 80))
    simulation.network.heal()
    received = b""
    while len(received) < 4:
        received += await server.receive_some()
    assert received == b"held"


async def test_a_sender_waits_while_the_link_is_cut_and_the_window_full(autojump_clock: MockClock) -> None:
    simulation = Simulation(1)
    client, server = await connected(simulation)
    simulation.network.partition(["a"], ["b"])
    done = []

    async def send() -> None:
        await client.send_all(bytes(1_000_000))
        await client.aclose()
        done.append(trio.current_time())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        await trio.sleep(50)
        assert not done
        simulation.network.heal()
        total = 0
        while data := await server.receive_some():
            total += len(data)
    assert total == 1_000_000


async def test_delay(autojump_clock: MockClock) -> None:
    simulation = Simulation(1)
    client, server = await connected(simulation)
    simulation.network.link("a", "b").delay_s = 2.0
    before = trio.current_time()
    await client.send_all(b"x")
    await server.receive_some()
    assert trio.current_time() - before >= 2.0


async def test_a_reset_in_the_middle_of_a_body(autojump_clock: MockClock) -> None:
    simulation = Simulation(1)
    client, server = await connected(simulation)
    simulation.network.link("a", "b").reset_chance = 0.2
    with pytest.raises(trio.BrokenResourceError):
        while True:
            await client.send_all(b"x" * 1000)
            await server.receive_some()
    with pytest.raises(trio.BrokenResourceError):
        await server.receive_some()


async def test_a_killed_node_resets_its_connections(autojump_clock: MockClock) -> None:
    simulation = Simulation(1)
    client, _ = await connected(simulation)
    async with trio.open_nursery() as nursery:

        async def receive() -> None:
            with pytest.raises(trio.BrokenResourceError):
                await client.receive_some()

        nursery.start_soon(receive)
        await trio.sleep(1)
        simulation.node("b").crash(power=False, silent=False)
    with pytest.raises(trio.BrokenResourceError):
        await client.send_all(b"x")


async def test_a_node_without_power_leaves_peers_half_open(autojump_clock: MockClock) -> None:
    simulation = Simulation(1)
    client, _ = await connected(simulation)
    simulation.node("b").crash(power=True, silent=True)
    await client.send_all(b"into the void")
    with trio.move_on_after(1000) as scope:
        await client.receive_some()
    assert scope.cancelled_caught
    simulation.node("b").restart()
    with pytest.raises(trio.BrokenResourceError):
        await client.send_all(b"who is there")
    with pytest.raises(ConnectionRefusedError):
        await simulation.node("a").world.net.connect(TcpAddress("b", 80))


async def test_processes_are_recorded_or_refused(autojump_clock: MockClock) -> None:
    node = Simulation(1).node("a")
    with pytest.raises(FileNotFoundError):
        await node.world.process.start(["/usr/bin/qemu"])
    node.process.programs["qemu"] = lambda argv, data: (0, data.upper(), b"")
    assert await node.world.process.run(["/usr/bin/qemu"], input=b"x") == (0, b"X", b"")
    child = await node.world.process.start(["/usr/bin/qemu", "-S"])
    child.signal(15)
    assert await child.wait() == -15
    assert node.process.children[0].argv == ("/usr/bin/qemu", "-S")
