"""Clients of a cloud in a storm: seeded requests in both dialects, each with its time and fate in a history (tests.sim.history).

What is asked is drawn from a seed; what comes of it is the storm's doing.  Bodies say which PUT they are of (tests.sim.bodies).  An
answer that no storm excuses (a wrong body, a page out of order, a 500, a 404 for a container that is there) is a violation at once.
Beside plain reads and writes there are races of conditional writes: several clients at once create one name (``If-None-Match: *``)
or replace one version (``If-Match``), and one of them may win.
"""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from tests.live.door import Answer, Dialect, Door, Keys, NoAnswer, NotSent
from tests.sim.bodies import body_of, value_of
from tests.sim.history import History, Kind, Operation, Outcome
from tests.sim.linearizable import ALWAYS, Condition, When

CONTAINERS = ("calm", "gale", "squall")
RACE = "race-"  # names of races begin so
NAMES = 40  # of plain reads and writes, in each container
CLIENTS = 6
RACERS = 3
SMALL = (0, 100, 3000, 4096, 20_000, 200_000)
LARGE = (262_145, 700_000, 1_500_000)
PART_BYTES = 5 << 20
BLOWN_AWAY_S = 0.05  # before the next request, when nobody listens
PAGE = 100
BUSY = (503, 504)


@dataclass
class Log:
    """What all clients did and saw."""

    history: History = field(default_factory=History)
    violations: list[str] = field(default_factory=list)
    won: Counter[tuple[str, str]] = field(default_factory=Counter)  # (name, what was to be replaced): acknowledged winners
    outcomes: Counter[str] = field(default_factory=Counter)
    values: Callable[[], int] = field(default_factory=lambda: itertools.count(1).__next__)


def now() -> float:
    return time.monotonic()


class Client:
    """One connection's worth of requests; not shared between threads."""

    def __init__(self, log: Log, keys: Keys, name: str) -> None:
        self._log = log
        self._door = Door(keys)
        self.name = name

    def close(self) -> None:
        self._door.close()

    # ---- one operation each

    def put(
        self,
        dialect: Dialect,
        name: str,
        size: int,
        headers: dict[str, str] | None = None,
        condition: Condition = ALWAYS,
    ) -> Operation:
        operation = self._begin(Kind.PUT, name, dialect, self._log.values(), condition)
        body = body_of(operation.value, size)
        failed = () if condition is ALWAYS else (412,)
        self._run(operation, lambda: self._door.ask(dialect, "PUT", name, body=body, headers=headers), (200, 201), failed=failed)
        return operation

    def put_in_parts(self, name: str, size: int) -> Operation:
        operation = self._begin(Kind.PUT, name, Dialect.S3, self._log.values())
        body = body_of(operation.value, size)
        self._run(operation, lambda: self._door.put_in_parts(name, body, PART_BYTES), (200,))
        return operation

    def get(self, dialect: Dialect, name: str) -> tuple[Operation, str]:
        """And the ETag of what was read."""
        operation = self._begin(Kind.READ, name, dialect)
        answer = self._run(operation, lambda: self._door.ask(dialect, "GET", name), (200, 404))
        if answer is None or answer.status != 200:
            return operation, ""
        try:
            operation.value = value_of(answer.body)
        except ValueError as error:
            self._log.violations.append(f"{operation}: {error}")
        return operation, answer.headers.get("etag", "").strip('"')

    def delete(self, dialect: Dialect, name: str) -> Operation:
        operation = self._begin(Kind.DELETE, name, dialect)
        answer = self._run(operation, lambda: self._door.ask(dialect, "DELETE", name), (204, 404))
        if answer is not None and answer.status == 404:  # it saw that there is nothing
            operation.kind = Kind.READ
        return operation

    def post(self, name: str) -> None:
        headers = {"X-Object-Meta-Weather": self.name, "Content-Type": "text/plain"}
        self._run(None, lambda: self._door.ask(Dialect.SWIFT, "POST", name, headers=headers), (202, 404))

    def list(self, container: str) -> None:
        query = {"format": "json", "limit": str(PAGE)}
        answer = self._run(None, lambda: self._door.ask(Dialect.SWIFT, "GET", container, query), (200,))
        if answer is not None:
            names = [row["name"] for row in msgspec.json.decode(answer.body)]
            if names != sorted(set(names)):
                self._log.violations.append(f"a page of {container} is out of order: {names}")

    def replace(self, dialect: Dialect, name: str, etag: str, value: int) -> None:
        """Write on the condition that this version (PUT number ``value``), or none (""), is there."""
        headers = {"If-Match": f'"{etag}"'} if etag else {"If-None-Match": "*"}
        condition = Condition(When.EQUAL, value) if etag else Condition(When.ABSENT)
        if self.put(dialect, name, 200, headers, condition).outcome is Outcome.ACKED:
            self._log.won[name, etag] += 1

    # ----

    def _begin(self, kind: Kind, name: str, dialect: Dialect, value: int = 0, condition: Condition = ALWAYS) -> Operation:
        return self._log.history.begin(kind, name, now(), f"{self.name} {dialect.value}", value, condition)

    def _run(
        self, operation: Operation | None, ask: Callable[[], Answer], wanted: tuple[int, ...], *, failed: tuple[int, ...] = ()
    ) -> Answer | None:
        """The answer, if it is a ``wanted`` one."""
        answer: Answer | None = None
        outcome, detail = Outcome.UNKNOWN, ""
        try:
            answer = ask()
            detail = str(answer.status)
            if answer.status in wanted and b"NoSuchBucket" not in answer.body:
                outcome = Outcome.ACKED
            elif answer.status in failed:
                outcome = Outcome.FAILED
            elif answer.status not in BUSY:
                what = operation or self.name
                self._log.violations.append(f"{what}: no storm excuses status {answer.status}: {answer.body[:300]!r}")
        except NotSent as error:
            outcome, detail = Outcome.REFUSED, str(error)
        except NoAnswer as error:
            detail = str(error)
        if operation is not None:
            operation.end, operation.outcome, operation.detail = now(), outcome, detail
        self._log.outcomes[f"{operation.kind.value if operation else 'other'} {outcome.value}"] += 1
        if outcome is not Outcome.ACKED and answer is None:
            time.sleep(BLOWN_AWAY_S)
        return answer if outcome is Outcome.ACKED else None


class Load:
    """All clients of a storm, each a thread."""

    def __init__(self, log: Log, keys: Keys, seed: int, pause_s: float) -> None:
        self._log = log
        self._keys = keys
        self._seed = seed
        self._pause_s = pause_s
        self._stop = threading.Event()
        self._failures: list[BaseException] = []
        self._threads = [threading.Thread(target=self._guard, args=(self._mixed, number), daemon=True) for number in range(CLIENTS)]
        self._barrier = threading.Barrier(RACERS)
        self._threads += [threading.Thread(target=self._guard, args=(self._race, number), daemon=True) for number in range(RACERS)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Raises what a client raised that no cloud can be blamed for."""
        self._stop.set()
        for thread in self._threads:
            thread.join()
        if self._failures:
            raise self._failures[0]

    def _guard(self, run: Callable[[Client, random.Random, int], None], number: int) -> None:
        client = Client(self._log, self._keys, f"{run.__name__.strip('_')}-{number}")
        try:
            run(client, random.Random(f"{self._seed}/{client.name}"), number)
        except threading.BrokenBarrierError:
            return
        except BaseException as error:  # noqa: BLE001 - told by ``stop``
            self._failures.append(error)
        finally:
            self._barrier.abort()
            client.close()

    def _mixed(self, client: Client, rng: random.Random, number: int) -> None:
        while not self._stop.wait(rng.expovariate(1 / self._pause_s)):
            name = f"{rng.choice(CONTAINERS)}/{rng.randrange(NAMES):02}"
            dialect = rng.choice((Dialect.S3, Dialect.SWIFT))
            choice = rng.random()
            if choice < 0.36:
                client.put(dialect, name, rng.choice(SMALL))
            elif choice < 0.40:
                client.put(dialect, name, rng.choice(LARGE))
            elif choice < 0.415:
                client.put_in_parts(name, rng.choice((*LARGE, *LARGE, PART_BYTES + 1000)))
            elif choice < 0.80:
                client.get(dialect, name)
            elif choice < 0.92:
                client.delete(dialect, name)
            elif choice < 0.96:
                client.post(name)
            else:
                client.list(rng.choice(CONTAINERS))

    def _race(self, client: Client, rng: random.Random, number: int) -> None:
        """All racers at once: create a name, then replace it a few times; one of them may win each time."""
        together = random.Random(f"{self._seed}/race")  # the same for each of them
        for turn in itertools.count():
            name = f"{together.choice(CONTAINERS)}/{RACE}{turn:04}"
            etag, value = "", 0
            for _ in range(together.randrange(1, 4)):
                self._barrier.wait()
                if self._stop.is_set():
                    self._barrier.abort()
                    return
                client.replace(rng.choice((Dialect.S3, Dialect.SWIFT)), name, etag, value)
                self._barrier.wait()
                read, found = client.get(Dialect.S3, name)
                etag, value = (found, read.value) if found else (etag, value)
                time.sleep(self._pause_s)
