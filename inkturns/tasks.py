"""Tasks: pieces of user code that are ordered, started in their turn, cut, waited for and reported as stuck.

Rules of this file:
- It knows no turns. Only this file starts a task. Each job ends through one function, `Jobs._end`, also where its task
  was cancelled before its first step and ran no line.
- A cut sets `cut_at`, and from that step on nothing more is taken from the job, or given to it.
- A job begins once the last of its lane is gone, or has been reported as stuck; and once the job that it is to come
  after is gone, or `patience` is over, when that one is cut.
- A cut cancels the task, and again after each `grace` (F49): asyncio delivers a cancellation once. While the job has a
  block open the cut is withheld until the block ends, or `block_timeout` is over.
- An alarm is set only where something waits. An idle call has no task on asyncio, and one on trio, which is its alarm
  clock.
"""

import asyncio
import heapq
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextvars import Context, copy_context
from functools import partial
from itertools import count
from types import ModuleType, TracebackType, coroutine
from typing import TYPE_CHECKING, Any, Protocol, Self

import anyio
from anyio.lowlevel import current_token

if TYPE_CHECKING:
    import trio

__all__ = ["AGAIN", "Alarm", "Backend", "Job", "Jobs", "Lane", "Wakeup", "backend_of_this_loop"]

AGAIN = 0.05  # seconds between two cancellations of one task, at least


# -- the two backends


class Alarm(Protocol):
    """A function that will be called at a time, unless it is cancelled before."""

    def cancel(self) -> None: ...


class Wakeup(Protocol):
    """Wakes whoever waits. May be fired in a loop's bare callback."""

    async def wait(self) -> object: ...

    def fire(self) -> None: ...


Work = Callable[[Any], Coroutine[Any, Any, None]]
Over = Callable[[Any, BaseException | None], None]


class Backend(Protocol):
    """What a loop does for `Jobs`. It is entered where the call begins; what it starts runs in a copy of the context of
    that moment. `start` and `call_at` work in a bare callback of the loop."""

    cancelled: type[BaseException]
    now: Callable[[], float]

    def wakeup(self) -> Wakeup: ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    @property
    def place(self) -> Callable[[], object]:
        """A function that tells in which loop or thread this code runs: two calls in one place give the same."""

    def is_cancelled(self) -> bool:
        """Whether somebody has cancelled the task that entered it since then; asked where a cancellation got out."""

    def start(self, name: str, job: "Job", work: Work, over: Over) -> Any:
        """Starts a task that runs `work(job)`, with the next step of the loop, and returns what `cancel` takes.
        `over(job, raised)` is called once, in the step in which it ends: None, `cancelled` where a cancellation got
        out, or an error. One that is cancelled before its first step does not run, and its end is told all the same."""

    def cancel(self, task: Any) -> None: ...

    def call_at(self, when: float, function: Callable[[], None]) -> Alarm: ...


async def _to_its_end(job: "Job", work: Work, over: Over) -> None:
    raised: BaseException | None = None
    try:
        await _first_step()
        await work(job)
    except GeneratorExit:  # the loop was closed under it
        raise
    except BaseException as error:  # KeyboardInterrupt too: it is raised where the call ends
        raised = error
    try:
        over(job, raised)
    finally:
        raised = None  # its traceback has this frame


@coroutine
def _first_step() -> Iterator[None]:
    """The task's coroutine is driven up to here before the task has it: a task that is cancelled before its first step
    then raises here, and not nowhere."""
    yield


class AsyncioWakeup:
    """Cheaper than asyncio.Event."""

    __slots__ = ("_loop", "_waiting")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: list[asyncio.Future[None]] | None = None

    async def wait(self) -> None:
        future: asyncio.Future[None] = self._loop.create_future()
        if self._waiting is None:
            self._waiting = [future]
        else:
            self._waiting.append(future)
        try:
            await future
        except BaseException:
            if self._waiting and future in self._waiting:
                self._waiting.remove(future)
            raise

    def fire(self) -> None:
        if self._waiting is not None:
            waiting, self._waiting = self._waiting, None
            for future in waiting:
                if not future.done():
                    future.set_result(None)


class OnAsyncio:
    """asyncio's own tasks and alarms."""

    __slots__ = ("_context", "_loop", "_requests", "_task", "now")
    cancelled: type[BaseException] = asyncio.CancelledError

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._context = copy_context()
        self.now: Callable[[], float] = self._loop.time

    async def __aenter__(self) -> Self:
        self._task = asyncio.current_task()
        self._requests = self._cancel_requests()
        if self._task is not None and self._task._must_cancel:  # type: ignore[attr-defined]
            self._requests -= 1  # it is cancelled by Ctrl-C, say, and has not seen it yet
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    @property
    def place(self) -> Callable[[], object]:
        return asyncio._get_running_loop

    def is_cancelled(self) -> bool:
        return self._cancel_requests() > self._requests

    def _cancel_requests(self) -> int:
        return 0 if self._task is None else self._task.cancelling()

    def wakeup(self) -> Wakeup:
        return AsyncioWakeup(self._loop)

    def start(self, name: str, job: "Job", work: Work, over: Over) -> "asyncio.Task[None]":
        steps = _to_its_end(job, work, over)
        steps.send(None)
        return asyncio.Task(steps, loop=self._loop, name=name, context=self._context.copy())

    def cancel(self, task: "asyncio.Task[Any]") -> None:
        task.cancel()

    def call_at(self, when: float, function: Callable[[], None]) -> Alarm:
        return self._loop.call_at(when, function, context=self._context)


class OnTrio:
    """trio's nursery and scopes. A scope is shielded: a cancellation from outside reaches the task that entered the
    call, which cuts the others. Alarms ring in one task, whose scope has the earliest one as its deadline."""

    def __init__(self) -> None:
        import trio

        self._trio: ModuleType = trio
        self.cancelled: type[BaseException] = trio.Cancelled
        self.now: Callable[[], float] = trio.current_time
        self._context = copy_context()
        self._alarms: list[tuple[float, int, TrioAlarm]] = []
        self._numbers = count()
        self._clock: trio.CancelScope = trio.CancelScope(shield=True)
        self._is_over = False

    async def __aenter__(self) -> Self:
        self._manager = self._trio.open_nursery()
        self._nursery: trio.Nursery = await self._manager.__aenter__()
        self._context.run(self._nursery.start_soon, self._rings)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_over = True
        self._clock.cancel()
        await self._manager.__aexit__(None, None, None)

    @property
    def place(self) -> Callable[[], object]:
        return threading.get_ident

    def is_cancelled(self) -> bool:
        return True  # trio's Cancelled is raised for nothing else

    def wakeup(self) -> Wakeup:
        return TrioWakeup(self._trio.lowlevel.ParkingLot)

    def start(self, name: str, job: "Job", work: Work, over: Over) -> "trio.CancelScope":
        scope: trio.CancelScope = self._trio.CancelScope(shield=True)
        context: Context = self._context.copy()
        context.run(partial(self._nursery.start_soon, self._run, scope, job, work, over, name=name))
        return scope

    async def _run(self, scope: "trio.CancelScope", job: "Job", work: Work, over: Over) -> None:
        raised: BaseException | None = None
        try:
            with scope:
                if not scope.cancel_called:  # trio starts such a task too
                    await work(job)
        except BaseException as error:
            raised = error
        try:
            over(job, raised)
        finally:
            raised = None

    def cancel(self, task: "trio.CancelScope") -> None:
        task.cancel()

    def call_at(self, when: float, function: Callable[[], None]) -> Alarm:
        alarm = TrioAlarm(function)
        heapq.heappush(self._alarms, (when, next(self._numbers), alarm))
        if when < self._clock.deadline:
            self._clock.deadline = when
        return alarm

    async def _rings(self) -> None:
        while not self._is_over:
            with self._clock:
                await self._trio.sleep_forever()
            self._clock = self._trio.CancelScope(shield=True)
            while self._alarms and self._alarms[0][0] <= self.now():
                heapq.heappop(self._alarms)[2].rings()
            if self._alarms:
                self._clock.deadline = self._alarms[0][0]


class TrioWakeup:
    """Makes its parking lot when somebody waits: most are never waited for."""

    __slots__ = ("_lot", "_make")

    def __init__(self, make: "Callable[[], trio.lowlevel.ParkingLot]") -> None:
        self._make = make
        self._lot: trio.lowlevel.ParkingLot | None = None

    async def wait(self) -> None:
        if self._lot is None:
            self._lot = self._make()
        await self._lot.park()

    def fire(self) -> None:
        if self._lot is not None:
            self._lot.unpark_all()


class TrioAlarm:
    def __init__(self, function: Callable[[], None]) -> None:
        self._function: Callable[[], None] | None = function

    def cancel(self) -> None:
        self._function = None

    def rings(self) -> None:
        if self._function is not None:
            self._function()


def backend_of_this_loop() -> Backend:
    """The running loop's. Raises RuntimeError outside one."""
    return OnAsyncio() if current_token().backend_class.__module__.endswith("_asyncio") else OnTrio()


# -- jobs

Ended = Callable[[Any, Exception | None], None]


class Job:
    """One piece of user code, from its order to its end. `changed` fires when it is cut and when it is gone."""

    __slots__ = (
        *("_after", "_alarm", "_blocks", "_ended", "_is_cancelled", "_lane", "_task", "_work"),
        *("begun", "changed", "cut_at", "gone", "name", "stuck"),
    )
    _work: Work  # and the next three: as `order` was given them
    _ended: Ended
    _lane: "Lane | None"
    _after: "Job | None"
    _task: Any  # the backend's, once it has begun

    def __init__(self, jobs: "Jobs", name: str) -> None:
        self.name = name
        self.changed = jobs.backend.wakeup()
        self.cut_at: float | None = None
        self.begun = False  # its task was started
        self.gone = False
        self.stuck = False
        self._alarm: Alarm | None = None
        self._blocks = 0
        self._is_cancelled = False

    @property
    def has_block(self) -> bool:
        """Whether a block is open that a cut may not break."""
        return self._blocks > 0


class Lane:
    """Jobs of which one runs at a time."""

    __slots__ = ("running",)

    def __init__(self) -> None:
        self.running: Job | None = None  # None too once it is gone, or stuck


class Jobs:
    """All jobs of a call.

    grace           seconds that a cancelled task has to end
    block_timeout   seconds that a block may outlive the cut
    on_stuck(job)   told once of a job that goes on `grace` after its cancellation
    on_crash(error) told of what is neither an Exception nor a cancellation: KeyboardInterrupt, say"""

    __slots__ = (
        *("_all_gone", "_block_timeout", "_grace", "_jobs", "_on_crash", "_on_stuck", "_waiting"),
        *("backend", "now"),
    )

    def __init__(
        self,
        backend: Backend,
        *,
        grace: float,
        block_timeout: float,
        on_stuck: Callable[[Job], None],
        on_crash: Callable[[BaseException], None],
    ) -> None:
        self.backend = backend
        self.now = backend.now
        self._grace = grace
        self._block_timeout = block_timeout
        self._on_stuck = on_stuck
        self._on_crash = on_crash
        self._jobs: dict[Job, None] = {}  # ordered, and not gone
        self._waiting: list[Job] = []  # ordered, and not begun
        self._all_gone = backend.wakeup()

    def order(
        self,
        job: Job,
        work: Work,
        ended: Ended,
        lane: Lane | None = None,
        after: Job | None = None,
        patience: float = 0.0,
    ) -> None:
        """Has `work(job)` run in a task, in its turn. `ended(job, error)` is called once, in whatever way the job ends,
        also where it never begins; a stray cancellation is a RuntimeError there."""
        job._work, job._ended, job._lane = work, ended, lane
        job._after = after
        self._jobs[job] = None
        if after is not None and not after.gone:
            job._alarm = self.backend.call_at(self.now() + patience, partial(self._is_past_patience, job))
        elif lane is None or lane.running is None:
            self._start(job)
            return
        self._waiting.append(job)
        self._begin()

    def cut(self, job: Job) -> None:
        """Nothing is taken from the job from now on; it is cancelled, or never begins."""
        if job.cut_at is not None or job.gone:
            return
        job.cut_at = self.now()
        if not job.begun and job in self._jobs:
            self._waiting.remove(job)
            self._end(job, None)
            return
        if not job.begun:
            pass  # never ordered
        elif job._blocks:
            job._alarm = self.backend.call_at(job.cut_at + self._block_timeout, partial(self._cancel, job))
        else:
            self._cancel(job)
        job.changed.fire()  # after it, so that the cancellation reaches who waits for a change

    def cut_all(self) -> None:
        for job in [*self._jobs]:
            self.cut(job)

    def begins_block(self, job: Job) -> None:
        job._blocks += 1

    def ends_block(self, job: Job) -> None:
        """Delivers the cut that the block withheld, if it was the last one."""
        job._blocks -= 1
        if job.cut_at is not None and not job._blocks and not job._is_cancelled and not job.gone:
            self._silence(job)
            self._cancel(job)

    async def join(self) -> None:
        """Returns when all jobs are gone, however often its task is cancelled meanwhile; the last cancellation is
        raised then."""
        cancelled: BaseException | None = None
        with anyio.CancelScope(shield=True):
            while self._jobs:
                try:
                    await self._all_gone.wait()
                except self.backend.cancelled as error:  # asyncio's own, which no shield holds
                    cancelled = error
        if cancelled is not None:
            raise cancelled

    # -- how a job begins and ends

    def _begin(self) -> None:
        """Starts whatever waits and need not wait any longer."""
        for job in [*self._waiting]:
            lane, after = job._lane, job._after
            if (lane is None or lane.running is None) and (after is None or after.gone):
                self._waiting.remove(job)
                self._silence(job)
                self._start(job)

    def _start(self, job: Job) -> None:
        job._after = None
        if job._lane is not None:
            job._lane.running = job
        job.begun = True
        job._task = self.backend.start(job.name, job, job._work, self._end)

    def _is_past_patience(self, job: Job) -> None:
        after, job._alarm, job._after = job._after, None, None
        assert after is not None
        self.cut(after)
        self._begin()

    def _cancel(self, job: Job) -> None:
        job._is_cancelled = True
        self.backend.cancel(job._task)
        job._alarm = self.backend.call_at(self.now() + self._grace, partial(self._is_past_grace, job))

    def _is_past_grace(self, job: Job) -> None:
        self.backend.cancel(job._task)
        job._alarm = self.backend.call_at(self.now() + max(self._grace, AGAIN), partial(self._is_past_grace, job))
        if not job.stuck:
            job.stuck = True
            if job._lane is not None and job._lane.running is job:
                job._lane.running = None
            try:
                self._on_stuck(job)
            except BaseException as error:
                self._on_crash(error)
            self._begin()

    def _end(self, job: Job, raised: BaseException | None) -> None:
        """The one way in which a job ends."""
        job.gone = True
        self._silence(job)
        del self._jobs[job]
        if job._lane is not None and job._lane.running is job:
            job._lane.running = None
        job.changed.fire()
        error = None if raised is None else self._judged(job, raised)
        ended = job._ended
        job._task = None  # it holds the job: a cycle would wait for the garbage collector
        del job._work, job._ended
        try:
            ended(job, error)
        except BaseException as crash:
            self._on_crash(crash)
        if self._waiting:
            self._begin()
        if not self._jobs:
            self._all_gone.fire()

    def _judged(self, job: Job, raised: BaseException) -> Exception | None:
        """The error with which it failed; None where it was cut, and the cancellation came out of it."""
        cancelled = self.backend.cancelled
        while isinstance(raised, BaseExceptionGroup):  # of a task group, which adds the loop's cancellations
            rest = raised.split(cancelled)[1]
            if rest is not None:
                raised = rest
                break
            raised = raised.exceptions[0]
        if isinstance(raised, Exception):
            return raised
        if not isinstance(raised, cancelled):
            self._on_crash(raised)
            return None
        if job.cut_at is not None:
            return None
        stray = RuntimeError(f"{job.name} was cancelled, and not by its agent")
        stray.__cause__ = raised
        return stray

    def _silence(self, job: Job) -> None:
        alarm, job._alarm = job._alarm, None
        if alarm is not None:
            alarm.cancel()
