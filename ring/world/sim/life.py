"""Life: one run of a simulated node, from its start to its crash.

Everything that a node holds (open files, streams, listeners) belongs to one life and is worthless after it: whoever still uses
it, a clean-up under a shielded scope for instance, gets NodeCrashed.  It is no Exception, so that code which handles errors does
not take a dead machine for a faulty one.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

from ring.world.sim.timer import Alarm, VirtualClock


class NodeCrashed(BaseException):
    """The node that made this call is no more."""


class Life:
    def __init__(self, name: str, number: int) -> None:
        self.name = name
        self.number = number
        self.alive = True
        self.frozen = False
        self._thawed = trio.Event()
        self._scopes: dict[int, trio.CancelScope] = {}  # waits that end with the life
        self._alarms: dict[int, Alarm] = {}  # the same, cheaper
        self._serial = 0
        self._at_end: list[Callable[[], None]] = []

    def check(self) -> None:
        if not self.alive:
            raise NodeCrashed(self.name)

    def at_end(self, call: Callable[[], None]) -> None:
        """Call it when the node crashes."""
        self._at_end.append(call)

    def freeze(self) -> None:
        """Stopped as by SIGSTOP: nothing of it reaches a disk, the network or a client, and nothing reaches it.  What it computes
        meanwhile stays in it; when it is thawed all its timers have run out."""
        if not self.frozen:  # who waits already waits for the same thaw
            self.frozen = True
            self._thawed = trio.Event()

    def thaw(self) -> None:
        self.frozen = False
        self._thawed.set()

    async def awake(self) -> None:
        """Wait until it is not frozen."""
        while self.frozen and self.alive:
            await self._thawed.wait()

    def end(self) -> None:
        self.alive = False
        self.thaw()
        for call in self._at_end:
            call()
        for scope in list(self._scopes.values()):
            scope.cancel()
        for alarm in list(self._alarms.values()):
            alarm.ring()

    async def sleep_until(self, deadline: float) -> None:
        """Sleep, whatever the task's cancel scopes say; NodeCrashed if the life ends meanwhile."""
        clock = trio.lowlevel.current_clock()
        if isinstance(clock, VirtualClock):
            alarm = clock.alarm(deadline)
            self._alarms[alarm.serial] = alarm
            await trio.lowlevel.wait_task_rescheduled(lambda _: trio.lowlevel.Abort.FAILED)
            del self._alarms[alarm.serial]
            self.check()
            return
        with trio.CancelScope(deadline=deadline, shield=True) as scope:
            serial = self._enter(scope)
            try:
                await trio.sleep_forever()
            finally:
                del self._scopes[serial]
        self.check()

    async def run(self, main: Callable[[], Awaitable[None]]) -> None:
        """Run ``main`` until it returns or the life ends."""
        self.check()
        with trio.CancelScope() as scope:
            serial = self._enter(scope)
            try:
                await main()
            except NodeCrashed:
                pass
            except BaseExceptionGroup as group:
                _, rest = group.split(NodeCrashed)
                if rest is not None:
                    raise rest from None
            finally:
                del self._scopes[serial]

    def _enter(self, scope: trio.CancelScope) -> int:
        self._serial += 1
        self._scopes[self._serial] = scope
        return self._serial
