"""Agent: what a cancellation costs, what it breaks, and that nobody is left waiting (F49, F51, F52)."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from time import process_time
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from inkturns.actions import ReportKind, Turn
from inkturns.agent import Agent, Outcome, Thought, committed
from inkturns.events import Event, TurnEagerEnd, TurnEnd, TurnStart
from inkturns.testing import virtual_time

if TYPE_CHECKING:
    from tests.conftest import Call


HELLO: tuple[Event, ...] = (TurnStart(), TurnEnd(transcript="hello"))


async def frames(*items: Any) -> AsyncIterator[Any]:
    """Items, and seconds between them."""
    for item in items:
        if isinstance(item, float):
            await anyio.sleep(item)
        else:
            yield item


# -- F49: a cancellation costs nothing while it waits


def steps_of_the_loop(main: Callable[[Callable[[], int]], Any]) -> int:
    """Runs it in virtual time, with a function that tells how often the loop has turned."""
    turned = 0

    class Loop(virtual_time.VirtualLoop):
        def _run_once(self) -> None:
            nonlocal turned
            turned += 1
            super()._run_once()  # type: ignore[misc]

    with asyncio.Runner(loop_factory=Loop) as runner:
        return runner.run(main(lambda: turned))  # type: ignore[no-any-return]


async def in_a_group(work: Any) -> None:
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(work)


async def under_a_timeout(work: Any) -> None:
    async with asyncio.timeout(60):
        await work


async def in_anyios_group(work: Any) -> None:
    async def run() -> None:
        await work

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run)


async def under_anyios_timeout(work: Any) -> None:
    with anyio.fail_after(60):
        await work


async def plainly(work: Any) -> None:
    await work


AROUND = [plainly, in_a_group, under_a_timeout, in_anyios_group, under_anyios_timeout]


async def closes_politely(seconds: float, closed: list[float]) -> None:
    try:
        await asyncio.sleep(60)
    finally:
        with anyio.CancelScope(shield=True):  # for anyio's group, which cancels at each step
            await asyncio.sleep(seconds)
        closed.append(asyncio.get_running_loop().time())


@pytest.mark.parametrize("around", AROUND)
def test_f49_who_closes_politely_costs_no_step_of_the_loop(around: Callable[[Any], Any]) -> None:
    closed: list[float] = []

    async def main(turned: Callable[[], int]) -> int:
        agent = Agent(grace=2)
        agent.think(lambda turn: around(closes_politely(1, closed)))
        agent.respond(lambda turn, thought: None)
        async with agent:
            agent.feed(TurnEagerEnd(transcript="hello"))
            await asyncio.sleep(1)
            before = turned()
            agent.feed(TurnEnd(transcript=""))  # blank: the same words, and then another thought
            agent.close()
        return turned() - before

    assert steps_of_the_loop(main) < 20
    assert closed == [2.0]


def test_f49_in_real_time_too() -> None:
    """Less than 5 ms beyond what the loop itself takes, in 0.3 s; a busy one takes all of it."""
    closed: list[float] = []

    async def polite() -> float:
        agent = Agent()
        agent.think(lambda turn: in_a_group(closes_politely(0.3, closed)))
        agent.respond(lambda turn, thought: None)
        async with agent:
            agent.feed(TurnEagerEnd(transcript="hello"))
            await asyncio.sleep(0.05)
            begin = process_time()
            agent.close()
        return process_time() - begin

    assert min(asyncio.run(polite()) for _ in range(3)) < 0.005
    assert len(closed) == 3


def test_f49_a_stuck_task_is_cancelled_again_after_each_grace() -> None:
    cancelled: list[float] = []

    async def main(turned: Callable[[], int]) -> int:
        loop = asyncio.get_running_loop()
        agent = Agent(grace=0.5)

        @agent.think
        async def think(turn: Turn) -> None:
            while loop.time() < 10:
                try:
                    await asyncio.sleep(10 - loop.time())
                except asyncio.CancelledError:
                    cancelled.append(loop.time())

        agent.respond(lambda turn, thought: None)
        async with agent:
            agent.feed(TurnEagerEnd(transcript="hello"))
            await asyncio.sleep(1)
            before = turned()
            agent.close()
        return turned() - before

    steps = steps_of_the_loop(main)
    assert cancelled == [1 + n / 2 for n in range(19)]
    assert steps < 18 * 5


def test_f49_without_grace_it_is_not_cancelled_at_each_step() -> None:
    async def main(turned: Callable[[], int]) -> int:
        loop = asyncio.get_running_loop()
        agent = Agent(grace=0)

        @agent.think
        async def think(turn: Turn) -> None:
            while loop.time() < 2:
                with suppress(asyncio.CancelledError):
                    await asyncio.sleep(2 - loop.time())

        agent.respond(lambda turn, thought: None)
        async with agent:
            agent.feed(TurnEagerEnd(transcript="hello"))
            await asyncio.sleep(1)
            before = turned()
            agent.close()
        return turned() - before

    assert steps_of_the_loop(main) < 120


@pytest.mark.parametrize("around", AROUND)
def test_f49_the_block_of_a_child_task_stays_whole(around: Callable[[Any], Any]) -> None:
    seen: list[tuple[float, str]] = []

    async def books() -> None:
        loop = asyncio.get_running_loop()
        async with committed():
            await asyncio.sleep(2)
            seen.append((loop.time(), "booked"))
        seen.append((loop.time(), "it went on"))

    async def main() -> None:
        agent = Agent(grace=0.5)
        agent.think(lambda turn: around(books()))

        @agent.respond
        async def respond(turn: Turn, thought: Thought[Any]) -> None:
            await thought

        async with agent:
            agent.feed(TurnEnd(transcript="book"))
            await asyncio.sleep(1)
            agent.feed(TurnStart())
            await asyncio.sleep(3)

    with asyncio.Runner(loop_factory=virtual_time.VirtualLoop) as runner:
        runner.run(main())
    assert seen == [(2.0, "booked")]


async def test_a_timeout_around_a_block_breaks_it(call: "Call") -> None:
    """Others' cancellations are not withheld."""
    agent = call.speaks()

    @agent.think
    async def think(turn: Turn) -> str:
        with anyio.move_on_after(1) as scope:
            async with committed():
                await anyio.sleep(5)
                call.see("never")
        return f"timeout {scope.cancelled_caught}"

    async with agent:
        call.turn("book")
    assert call.seen == [(1.0, "timeout True")]


async def test_a_task_that_is_cut_before_its_first_step_is_seen_to_end(call: "Call") -> None:
    agent = call.speaks()
    agent.think(lambda turn: call.see("never"))
    async with agent:
        call.guess("hello")
        call.resume()  # in the same step
        await anyio.sleep(0)
        await anyio.sleep(0)
        await anyio.sleep(0)
        [settled] = call.settled
    assert (settled.outcome, settled.began, settled.cancelled_at) == (Outcome.CANCELLED, None, 0.0)
    assert call.said == []


def test_a_task_that_somebody_else_cancels_before_its_first_step_is_seen_to_end() -> None:
    agent, failures = Agent(), list[Exception]()
    agent.on_failure(lambda turn, error: failures.append(error))
    agent.think(lambda turn: "never")
    agent.respond(lambda turn, thought: None)

    async def main() -> None:
        async with agent:
            before = asyncio.all_tasks()
            agent.feed(TurnEnd(transcript="hello"))
            for task in asyncio.all_tasks() - before:
                task.cancel()
            await asyncio.sleep(1)

    with asyncio.Runner(loop_factory=virtual_time.VirtualLoop) as runner:
        runner.run(main())
    assert sorted(f"{error}" for error in failures) == [
        "reply to turn 1 was cancelled, and not by its agent",
        "thought 1 of turn 1 was cancelled, and not by its agent",
    ]


# -- F51: at most one listen


async def test_f51_a_slow_listen_is_cut_before_the_reply_to_its_turn(call: "Call") -> None:
    agent = call.speaks(grace=0.5)
    agent.think(lambda turn: "a")

    @agent.listen
    async def listen(turn: Turn) -> None:
        try:
            await anyio.sleep(2)  # the voice is stopped, at last
            call.see("silences the new reply")
        finally:
            call.see("over")

    async with agent:
        call.turn("hello")
        await anyio.sleep(5)
    assert sorted(call.seen) == [(0.5, "a"), (0.5, "over")]


async def test_f51_a_new_listen_cuts_the_old_and_begins_when_it_is_gone(call: "Call") -> None:
    agent = call.speaks(grace=0.5)
    agent.think(lambda turn: "a")
    listening = 0

    @agent.listen
    async def listen(turn: Turn) -> None:
        nonlocal listening
        listening += 1
        assert listening == 1
        call.see(f"listen {turn.number}")
        try:
            await anyio.sleep(60)
        finally:
            await call.stubborn(0.25)
            listening -= 1

    async with agent:
        for _ in range(3):
            call.start()
            call.update("well")
            await anyio.sleep(1)
        agent.close()
    assert call.seen == [(0.0, "listen 1"), (1.25, "listen 2"), (2.25, "listen 3")]
    assert ReportKind.STUCK_TASK not in [report.kind for report in call.reports]


async def test_f51_a_listen_that_hangs_is_reported(call: "Call", caplog: pytest.LogCaptureFixture) -> None:
    agent = call.speaks(grace=0.5)
    agent.think(lambda turn: "a")

    @agent.listen
    async def listen(turn: Turn) -> None:
        await call.stubborn(3)

    async with agent:
        call.turn("hello")
        await anyio.sleep(5)
    assert call.seen == [(0.5, "a")]
    [report] = call.reports
    assert report.kind is ReportKind.STUCK_TASK
    assert report.detail == "listen of turn 1 goes on though it was cancelled; it is not heard"
    assert [(record.levelno, record.name) for record in caplog.records] == [(logging.ERROR, "inkturns")]


# -- F52: however often it is cancelled, nobody is left waiting


async def hostile(call: "Call", agent: Agent, told: list[str]) -> None:
    """A call with a thought, a reply with a block, a speech that waits and one who waits for it."""

    async def waits() -> None:
        told.append(await agent.say("afterwards"))

    async with anyio.create_task_group() as tasks, agent:
        call.guess("book")
        await anyio.lowlevel.checkpoint()
        call.end("book")
        tasks.start_soon(waits)
        for _ in range(4):
            await anyio.lowlevel.checkpoint()
        call.start()
        await anyio.sleep(60)


def bookings(call: "Call", booked: list[str]) -> Agent:
    agent = call.speaks(grace=0.25, committed_block_timeout=1)

    @agent.think
    async def think(turn: Turn) -> str:
        async with committed():
            booked.append("begins")
            await anyio.sleep(0.5)
            booked.append("ends")
        return "booked"

    @agent.listen
    async def listen(turn: Turn) -> None:
        await anyio.sleep(1)

    return agent


@pytest.mark.parametrize("first", range(14))
def test_f52_cancelled_twice_at_every_pair_of_steps_nobody_is_left_waiting(first: int, call: "Call") -> None:
    """Natively, as asyncio.run does where Ctrl-C is pressed twice."""

    async def main(second: int) -> None:
        told: list[str] = []
        booked: list[str] = []
        agent = bookings(call, booked)
        before = asyncio.all_tasks()
        served = asyncio.ensure_future(hostile(call, agent, told))
        for _ in range(first):
            await asyncio.sleep(0)
        served.cancel()
        for _ in range(second):
            await asyncio.sleep(0)
        served.cancel()
        done, _ = await asyncio.wait([served], timeout=30)
        assert done, "run has not returned"
        assert served.cancelled()
        assert asyncio.all_tasks() == before
        assert booked in ([], ["begins", "ends"])
        with pytest.raises(RuntimeError, match="inside its `run`"):
            agent.feed(TurnStart())

    for second in range(14):
        with asyncio.Runner(loop_factory=virtual_time.VirtualLoop) as runner:
            runner.run(main(second))


@pytest.mark.parametrize("steps", range(14))
async def test_f52_cancelled_by_a_scope_at_every_step(call: "Call", steps: int) -> None:
    told: list[str] = []
    booked: list[str] = []
    agent = bookings(call, booked)
    with anyio.move_on_after(30) as patience:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(hostile, call, agent, told)
            for _ in range(steps):
                await anyio.lowlevel.checkpoint()
            tasks.cancel_scope.cancel()
    assert not patience.cancelled_caught
    assert booked in ([], ["begins", "ends"])


def test_f52_a_cancellation_that_comes_while_the_tasks_end_is_raised_when_they_are_gone() -> None:
    ended: list[float] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        agent = Agent()
        agent.think(lambda turn: closes_politely(0.25, ended))
        agent.respond(lambda turn, thought: None)

        async def serve() -> None:
            async with agent:
                agent.feed(TurnEagerEnd(transcript="hello"))
                await asyncio.sleep(1)
                agent.close()

        served = asyncio.ensure_future(serve())
        await asyncio.sleep(1.125)
        served.cancel()
        with pytest.raises(asyncio.CancelledError):
            await served
        assert loop.time() == 1.25

    with asyncio.Runner(loop_factory=virtual_time.VirtualLoop) as runner:
        runner.run(main())
    assert ended == [1.25]
