"""Same seed, same history: within a process, and in processes whose hashes are salted differently."""

from __future__ import annotations

import os
import sys

import pytest
import trio
import trio._core._run as trio_run

from ring.world.interface import OpenMode, TcpAddress, World
from ring.world.real import make_world
from ring.world.sim import Simulation, run


def test_trio_still_has_what_scheduling_needs() -> None:
    """When this fails trio has moved its private switch: see ring/world/sim/scheduling.py."""
    assert trio_run._ALLOW_DETERMINISTIC_SCHEDULING in (True, False)
    trio_run._r.getstate()


def order(seed: int) -> list[int]:
    finished: list[int] = []

    async def child(number: int) -> None:
        for _ in range(3):
            await trio.lowlevel.checkpoint()
        finished.append(number)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(child, number)

    run(seed, main)
    return finished


def test_the_seed_decides_the_order() -> None:
    assert order(1) == order(1)
    assert order(1) != order(2)


def test_time_is_virtual() -> None:
    async def main() -> float:
        await trio.sleep(1_000_000)
        return trio.current_time()

    assert run(0, main) == pytest.approx(1_000_000)


def history(seed: int) -> list[str]:
    """Three nodes that talk, write, crash and come back."""

    async def main() -> list[str]:
        simulation = Simulation(seed)
        names = ["one", "two", "three"]

        async def serve(world: World) -> None:
            disk = world.open_disk("/disk")
            await disk.make_dirs("")
            if await disk.info("log") is None:
                await (await disk.open("log", OpenMode.CREATE)).close()
            log = await disk.open("log", OpenMode.WRITE)
            listener = await world.net.listen(TcpAddress("", 80))
            async with trio.open_nursery() as nursery:
                while True:
                    nursery.start_soon(answer, world, await listener.accept(), log)

        async def answer(world: World, stream: object, log: object) -> None:
            try:
                while data := await stream.receive_some():  # type: ignore[attr-defined]
                    await log.append([data], sync=world.rng.random() < 0.5)  # type: ignore[attr-defined]
                    await stream.send_all(b"%d" % log.size())  # type: ignore[attr-defined]
            except (trio.BrokenResourceError, OSError) as error:
                simulation.trace(f"server: {type(error).__name__}")

        async def ask(world: World, target: str) -> None:
            while True:
                try:
                    with trio.move_on_after(2):
                        stream = await world.net.connect(TcpAddress(target, 80))
                        for _ in range(5):
                            await stream.send_all(world.entropy.token(world.rng.randrange(1, 9000)))
                            simulation.trace(f"{target} answers {bytes(await stream.receive_some()).decode()}")
                except (trio.BrokenResourceError, OSError) as error:
                    simulation.trace(f"client: {type(error).__name__}")
                await trio.sleep(world.rng.random())

        async def life(name: str) -> None:
            node = simulation.node(name)
            while True:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(node.run, serve)
                    for other in names:
                        if other != name:
                            nursery.start_soon(node.run, lambda world, other=other: ask(world, other))
                await trio.sleep(1)
                node.restart()

        async with trio.open_nursery() as nursery:
            for name in names:
                nursery.start_soon(life, name)
            for _ in range(10):
                await trio.sleep(simulation.rng.random() * 3)
                node = simulation.node(simulation.rng.choice(names))
                if node.up:
                    node.crash()
                simulation.network.cut(*simulation.rng.sample(names, 2))
                await trio.sleep(simulation.rng.random())
                simulation.network.heal()
            nursery.cancel_scope.cancel()
        return simulation.lines

    return run(seed, main)


def test_the_seed_decides_the_history() -> None:
    first = history(5)
    assert len(first) > 100
    assert history(5) == first
    assert history(6) != first


async def test_another_process_has_the_same_history() -> None:
    code = (
        "import sys, hashlib, importlib.util\n"
        f"spec = importlib.util.spec_from_file_location('history', {__file__!r})\n"
        "module = importlib.util.module_from_spec(spec)\n"
        "spec.loader.exec_module(module)\n"
        "print(hashlib.sha256('\\n'.join(module.history(7)).encode()).hexdigest())\n"
    )
    digests = set()
    for salt in ("0", "1", "4294967295"):
        env = {**os.environ, "PYTHONHASHSEED": salt, "PYTHONPATH": os.getcwd()}
        argv = [sys.executable, "-c", code]
        status, output, errors = await make_world().process.run(
            ["env", f"PYTHONHASHSEED={salt}", f"PYTHONPATH={env['PYTHONPATH']}", *argv]
        )
        assert status == 0, errors.decode()
        digests.add(output)
    assert len(digests) == 1
