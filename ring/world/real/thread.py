"""A device's I/O thread: jobs in by a queue, results out by one wakeup of trio for all that are ready.

Jobs run one at a time and in order.  Consecutive jobs of one group (appends to one file, commits to one tables store) are
handed to the group together, so that it can write them all and sync once: this is where group commit comes from.

A job that changes anything is never cancelled half way: its task waits for it, whatever its cancel scope says, and meets the
cancellation at its next checkpoint.  Who only reads may go away.  The thread ends when it had nothing to do for a while and starts
again with the next job.

The system may not come back from a call: a disk that neither answers nor fails.  After ``hung_s`` all that wait get ETIMEDOUT, and
so does whoever comes before the call has returned.  What was being done then may happen yet; what had not begun never will, but for
what has to be put in order (``finish``), which is done when the disk answers again, before anything else is asked of it.
"""

from __future__ import annotations

import errno
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol, TypeVar

import trio

from ring.world.interface import HUNG_S
from ring.world.real.doorbell import Doorbell
from ring.world.real.watchdog import Watchdog

T = TypeVar("T")
IDLE_S = 5.0
BATCH_JOBS_MAX = 256
_watchdog = Watchdog()


class Group(Protocol):
    def run_group(self, jobs: Sequence[Any]) -> None:
        """Run the jobs, in order; set ``result`` or ``error`` of each.  On the I/O thread."""


class Job:
    """One trip to the thread.  Subclasses carry what a group needs to know."""

    __slots__ = ("abandoned", "error", "group", "must", "reads", "result", "task", "undo")

    def __init__(self, group: Group | None = None) -> None:
        self.group = group
        self.reads = False  # it changes nothing: who asked may go away
        self.must = False  # it is to be done also when nobody waits for it any more
        self.abandoned = False  # nobody waits for it any more
        self.undo: Callable[[Any], None] | None = None  # with its result, when nobody is there to take that
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
    def __init__(self, name: str, *, hung_s: float = HUNG_S, watchdog: Watchdog | None = None) -> None:
        self._name = name
        self._hung_s = hung_s
        self._watchdog = watchdog or _watchdog
        self._waiting: set[Job] = set()  # those that a task waits for
        self._began = 0.0  # when what the system is asked now was begun; 0.0: nothing is
        self._hung = False
        self._jobs: queue.SimpleQueue[Job] = queue.SimpleQueue()
        self._done: deque[Job] = deque()
        self._lock = threading.Lock()  # starting and ending of the thread and of its jobs
        self._running = False
        self._signalled = False  # a wakeup of trio is on its way
        self._bell: Doorbell | None = None  # of the run that uses it

    async def call(self, function: Callable[..., T], *args: Any) -> T:
        result: T = await self.submit(Call(function, args))
        return result

    async def read(self, function: Callable[..., T], *args: Any) -> T:
        """``call`` of what changes nothing: a cancelled task does not wait for it."""
        job = Call(function, args)
        job.reads = True
        result: T = await self.submit(job)
        return result

    async def take(self, function: Callable[..., T], *args: Any, undo: Callable[[T], None]) -> T:
        """``call`` of what makes something that must not be left: ``undo`` has it when it comes too late."""
        job = Call(function, args)
        job.undo = undo
        result: T = await self.submit(job)
        return result

    async def finish(self, function: Callable[..., None], *args: Any) -> None:
        """``call``; where the disk does not answer it is done when it does, and not waited for."""
        job = Call(function, args)
        job.must = True
        try:
            await self.submit(job)
        except OSError:
            if not job.abandoned:
                raise

    async def submit(self, job: Job) -> Any:
        """Queue the job, wait for it, return its result or raise its error.  OSError ETIMEDOUT when the disk does not answer."""
        await trio.lowlevel.checkpoint_if_cancelled()
        job.task = trio.lowlevel.current_task()
        bell = Doorbell.here()
        if bell is not self._bell:  # an earlier run's, which rings for nobody any more
            self._bell = bell
            self._done.clear()
            self._signalled = False
        with self._lock:
            if self._hung:
                job.abandoned = True
                if job.must:
                    self._jobs.put(job)
                raise _no_answer()
            self._waiting.add(job)
            self._jobs.put(job)
            if not self._running:
                self._running = True
                threading.Thread(target=self._main, name=self._name, daemon=True).start()
                self._watchdog.add(self)

        def give_up(_raise_cancel: object) -> trio.lowlevel.Abort:
            if not job.reads:
                return trio.lowlevel.Abort.FAILED
            job.abandoned = True
            self._waiting.discard(job)
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(give_up)
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
                        self._watchdog.discard(self)
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
        if first.group is not None:
            while end < len(batch) and batch[end].group is first.group:
                end += 1
        with self._lock:
            jobs = [job for job in batch[at:end] if job.must or not job.abandoned]
            if not jobs:
                return end
            self._began = time.monotonic()
        failed = False
        try:
            if first.group is None:
                first.result = first.run()
            else:
                first.group.run_group(jobs)
        except BaseException as error:  # noqa: BLE001 - it is the waiting task's, whatever it is
            failed = True
            for job in jobs:
                job.error = error
        with self._lock:
            self._began = 0.0
            self._hung = False
            self._done.extend(jobs)
            late = first.abandoned
        if late and not failed and first.undo is not None:
            first.undo(first.result)
        if not self._signalled:
            self._signalled = True
            assert self._bell is not None
            self._bell.ring(self._deliver)
        return end

    # ---- on trio's side

    def _deliver(self) -> None:
        self._signalled = False  # before the draining: what comes later sends its own wakeup
        while self._done:
            job = self._done.popleft()
            if not job.abandoned:
                self._waiting.discard(job)
                assert job.task is not None
                trio.lowlevel.reschedule(job.task)

    def _give_up(self, began: float) -> None:
        self._deliver()
        with self._lock:
            if self._began != began:
                return  # it has come back
            self._hung = True
            waiting, self._waiting = self._waiting, set()
            for job in waiting:
                job.abandoned = True
                job.error = _no_answer()
        for job in waiting:
            assert job.task is not None
            trio.lowlevel.reschedule(job.task)

    # ---- on the watchdog's

    def look(self, now: float) -> None:
        began = self._began
        if began and not self._hung and now - began > self._hung_s:
            assert self._bell is not None
            self._bell.ring(partial(self._give_up, began))


def _no_answer() -> OSError:
    return OSError(errno.ETIMEDOUT, "the disk does not answer")
