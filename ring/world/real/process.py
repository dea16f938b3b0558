"""Child processes of the real world: argument vectors only, never a shell.  Neighbours: ring.world.interface."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence

import trio

from ring.world.interface import Child


class RealChild:
    def __init__(self, process: trio.Process) -> None:
        self._process = process
        self.pid: int = process.pid

    async def wait(self) -> int:
        return await self._process.wait()

    def signal(self, number: int) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.Signals(number))


class RealProcess:
    async def start(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        log_path: str | None = None,
        pass_fds: Sequence[int] = (),
    ) -> Child:
        log = os.open(log_path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640) if log_path is not None else None
        try:
            process = await trio.lowlevel.open_process(
                list(argv),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=dict(env) if env is not None else None,
                cwd=cwd,
                pass_fds=tuple(pass_fds),
            )
        finally:
            if log is not None:
                os.close(log)
        return RealChild(process)

    async def run(self, argv: Sequence[str], *, input: bytes = b"", timeout_s: float = 60.0) -> tuple[int, bytes, bytes]:
        try:
            with trio.fail_after(timeout_s):
                done = await trio.run_process(
                    list(argv), stdin=input, capture_stdout=True, capture_stderr=True, check=False, deliver_cancel=_kill
                )
        except trio.TooSlowError:
            return -signal.SIGKILL, b"", b""
        return done.returncode, done.stdout, done.stderr


async def _kill(process: trio.Process) -> None:
    process.kill()
