"""A device's I/O thread: jobs in by a queue, results out by one wakeup of trio for all that are ready.

Jobs run one at a time and in order.  Consecutive jobs of one group (appends to one file, commits to one tables store) are
handed to the group together, so that it can write them all and sync once: this is where group commit comes from.

A job is never cancelled half way: its task waits for it, whatever its cancel scope says, and meets the cancellation at its
next checkpoint.  The thread ends when it had nothing to do for a while and starts again with the next job.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

import trio

T = TypeVar("T")
IDLE_S = 5.0
BATCH_JOBS_MAX = 256


class Group(Protocol):
    def run_group(self, jobs: Sequence[Any]) -> None:
        """Run the jobs, in order; set ``result`` or ``error`` of each.  On the I/O thread."""


class Job:
    """One trip to the thread.  Subclasses carry what a group needs to know."""

    __slots__ = ("error", "group", "result", "task")

    def __init__(self, group: Group | None = None) -> None:
        self.group = group
        self.result: Any = None
        self.error: BaseException | None = None
        self.task: trio.lowlevel.Task | None = None

    def run(self) -> Any:
        raise NotImplementedError


class Call(Job):
    """Any function, alone."""

    __slots__ = ("args", "function")

    def __init__(self, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
        super().__init__()
        self.function = function
        self.args = args

    def run(self) -> Any:
        return self.function(*self.args)


class IoThread:
    def __init__(self, name: str) -> None:
        self._name = name
        self._jobs: queue.SimpleQueue[Job] = queue.SimpleQueue()
        self._done: deque[Job] = deque()
        self._lock = threading.Lock()  # starting and ending of the thread
        self._running = False
        self._signalled = False  # a wakeup of trio is on its way
        self._token: trio.lowlevel.TrioToken | None = None

    async def call(self, function: Callable[..., T], *args: Any) -> T:
        result: T = await self.submit(Call(function, args))
        return result

    async def submit(self, job: Job) -> Any:
        """Queue the job, wait for it, return its result or raise its error."""
        await trio.lowlevel.checkpoint_if_cancelled()
        job.task = trio.lowlevel.current_task()
        self._token = trio.lowlevel.current_trio_token()
        with self._lock:
            self._jobs.put(job)
            if not self._running:
                self._running = True
                threading.Thread(target=self._main, name=self._name, daemon=True).start()
        await trio.lowlevel.wait_task_rescheduled(_not_abortable)
        if job.error is not None:
            try:
                raise job.error
            finally:
                del job  # else the traceback would hold itself
        return job.result

    # ---- on the thread

    def _main(self) -> None:
        while True:
            try:
                batch = [self._jobs.get(timeout=IDLE_S)]
            except queue.Empty:
                with self._lock:
                    if self._jobs.empty():
                        self._running = False
                        return
                continue
            try:
                while len(batch) < BATCH_JOBS_MAX:
                    batch.append(self._jobs.get_nowait())
            except queue.Empty:
                pass
            at = 0
            while at < len(batch):
                at = self._run_from(batch, at)

    def _run_from(self, batch: list[Job], at: int) -> int:
        first = batch[at]
        end = at + 1
        try:
            if first.group is None:
                first.result = first.run()
            else:
                while end < len(batch) and batch[end].group is first.group:
                    end += 1
                first.group.run_group(batch[at:end])
        except BaseException as error:  # noqa: BLE001 - it is the waiting task's, whatever it is
            for job in batch[at:end]:
                job.error = error
        self._done.extend(batch[at:end])
        if not self._signalled:
            self._signalled = True
            assert self._token is not None
            try:
                self._token.run_sync_soon(self._deliver)
            except trio.RunFinishedError:  # nobody is left to be told
                self._done.clear()
                self._signalled = False
        return end

    # ---- on trio's side

    def _deliver(self) -> None:
        self._signalled = False  # before the draining: what comes later sends its own wakeup
        while self._done:
            task = self._done.popleft().task
            assert task is not None
            trio.lowlevel.reschedule(task)


def _not_abortable(_raise_cancel: object) -> trio.lowlevel.Abort:
    return trio.lowlevel.Abort.FAILED
