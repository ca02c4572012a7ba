"""Agent: the end of the call, stray cancellations, and where it is fed (F53, F55, F60)."""

import asyncio
import gc
import threading
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from inkturns import tasks
from inkturns.actions import Turn
from inkturns.agent import Agent, Outcome, Replied, ReplyOutcome, Thought, committed, current_thought
from inkturns.events import Event, TurnEagerEnd, TurnEnd, TurnResume, TurnStart
from inkturns.policy import Policy
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


# -- F53: the end of the call commits nothing


@pytest.mark.parametrize("how", ["the items end", "close", "cancelled", "an error"])
async def test_f53_no_tool_runs_for_half_a_sentence(call: "Call", how: str) -> None:
    agent = call.speaks(policy=Policy(after_disconnect="respond"))  # type: ignore[arg-type]
    agent.on_abandon(lambda turn: call.see(f"{turn.end} {turn.transcript}"))

    @agent.think
    async def think(turn: Turn) -> str:
        async with committed():
            call.see("booked")
        return "a"

    with anyio.move_on_after(1 if how == "cancelled" else 60), suppress(ConnectionError):
        async with agent:
            call.guess("book a ta")
            await anyio.sleep(60 if how == "cancelled" else 1)
            if how == "close":
                agent.close()
            elif how == "an error":
                raise ConnectionError
    assert call.seen == [(1.0, "lost book a ta")]
    assert [settled.outcome for settled in call.settled] == [Outcome.CANCELLED]


# -- F55: a stray CancelledError is a failure


@pytest.mark.parametrize("where", ["on_start", "on_settled", "on_replied", "listen", "think", "respond"])
def test_f55_a_stray_cancellation_of_a_hook_or_a_role_is_a_failure(where: str) -> None:
    agent, failures = Agent(), list[Exception]()
    agent.on_failure(lambda turn, error: failures.append(error))

    def stray(*given: object) -> Any:
        raise asyncio.CancelledError("of a future that it asked")

    async def respond(turn: Turn, thought: Thought[Any]) -> None:
        with suppress(RuntimeError):
            await thought

    roles: dict[str, Any] = {"think": lambda turn: "a", "respond": respond}
    for name, role in (roles | {where: stray}).items():
        getattr(agent, name)(role)

    async def main() -> None:
        async with agent:
            agent.feed(TurnStart())
            agent.feed(TurnEnd(transcript="hello"))
            await asyncio.sleep(1)

    with asyncio.Runner(loop_factory=virtual_time.VirtualLoop) as runner:
        runner.run(main())
    [failure] = failures
    assert isinstance(failure, RuntimeError)
    assert isinstance(failure.__cause__, asyncio.CancelledError)


def test_f55_a_stray_cancellation_of_the_items_is_a_failure_and_a_real_one_is_not() -> None:
    async def stray() -> AsyncIterator[Event]:
        yield TurnStart()
        raise asyncio.CancelledError

    async def main() -> None:
        with pytest.raises(RuntimeError, match="the iteration of the items was cancelled") as raised:
            await Agent().run(stray())
        assert isinstance(raised.value.__cause__, asyncio.CancelledError)
        real = asyncio.ensure_future(Agent().run(frames(TurnStart(), 60.0)))
        await asyncio.sleep(1)
        real.cancel()
        with pytest.raises(asyncio.CancelledError):
            await real

    with asyncio.Runner(loop_factory=virtual_time.VirtualLoop) as runner:
        runner.run(main())


def test_f55_on_failure_itself() -> None:
    agent = Agent()

    @agent.on_failure
    def on_failure(turn: Turn | None, error: Exception) -> None:
        raise asyncio.CancelledError

    def broken(turn: Turn) -> None:
        raise ValueError

    agent.on_start(broken)
    with pytest.raises(RuntimeError, match="on_failure was cancelled"):
        virtual_time.run(agent.run, frames(TurnStart(), 1.0))


# -- F60: drain_timeout


@pytest.mark.parametrize("how", ["a reply", "a speech"])
async def test_f60_a_reply_that_never_ends_does_not_hold_the_call(call: "Call", how: str) -> None:
    agent, replied = call.agent(drain_timeout=5), list[Replied]()
    agent.on_replied(replied.append)
    agent.think(lambda turn: "a")

    @agent.respond
    async def respond(turn: Turn, thought: Thought[str]) -> None:
        call.see(await thought)
        await anyio.sleep_forever()

    async with agent:
        if how == "a reply":
            call.turn("hello")
        else:
            agent.say("a")
        await anyio.sleep(1)
    assert anyio.current_time() == 6
    assert [(one.outcome, one.over_at) for one in replied] == [(ReplyOutcome.INTERRUPTED, 6.0)]


async def test_once_the_items_have_ended_only_what_concerns_the_reply_is_taken(call: "Call") -> None:
    agent = call.agent()
    agent.think(lambda turn: "a")

    @agent.respond
    async def respond(turn: Turn, thought: Thought[str]) -> None:
        await thought
        await anyio.sleep(1)
        assert agent.feed(TurnEnd(transcript="too late")) == ()
        agent.end_now()
        call.see("heard")

    agent.on_start(lambda turn: call.see(f"start {turn.number}"))
    async with agent:
        call.turn("hello")
    assert call.said == ["start 1", "heard"]


# -- where it is fed


async def test_fed_from_another_thread_or_another_loop_it_says_what_to_do(call: "Call") -> None:
    agent = call.speaks()
    errors: list[str] = []

    def elsewhere() -> None:
        for act in (lambda: agent.feed(TurnStart()), agent.close, lambda: agent.say("a"), agent.interrupt):
            try:
                act()
            except RuntimeError as error:
                errors.append(f"{error}")

    async def another_loop() -> None:
        elsewhere()

    async with agent:
        for run in (elsewhere, lambda: asyncio.run(another_loop())):
            thread = threading.Thread(target=run)
            thread.start()
            thread.join()
        call.feed(TurnStart())
    assert len(errors) == 8
    assert all("loop.call_soon_threadsafe(agent." in error for error in errors)


async def test_after_close_a_feed_does_nothing(call: "Call") -> None:
    agent = call.speaks()
    agent.on_start(lambda turn: call.see("start"))
    with anyio.CancelScope() as scope:
        async with agent:
            agent.close()
            assert agent.feed(TurnEnd(transcript="hello")) == ()
            scope.shield = True
    assert call.said == []
    assert agent.history.messages() == []


# -- an agent inside a thought of another's


async def test_the_thought_is_the_innermost_agents(call: "Call") -> None:
    outer, inner = call.speaks(), Agent()
    known: list[str] = []

    def knows() -> str:
        try:
            return f"turn {current_thought().turn.transcript}"
        except RuntimeError:
            return "none"

    inner.on_start(lambda turn: known.append(f"hook: {knows()}"))
    inner.listen(lambda turn: known.append(f"listen: {knows()}"))
    inner.think(lambda turn: known.append(f"think: {knows()}"))

    @inner.respond
    async def respond(turn: Turn, thought: Thought[Any]) -> None:
        known.append(f"respond: {knows()}")
        await thought

    @outer.think
    async def think(turn: Turn) -> str:
        await inner.run(frames(TurnStart(), 1.0, TurnEnd(transcript="inner"), 1.0))
        known.append(f"after it: {knows()}")
        return "a"

    async with outer:
        call.turn("outer")
    told = ["after it: turn outer", "listen: none", "respond: none", "think: turn inner"]
    assert sorted(one for one in known if "hook" not in one) == told


# -- what is neither an Exception nor a cancellation ends the call, wherever it is raised


class Stop(BaseException):
    """As KeyboardInterrupt."""


@pytest.mark.parametrize("where", ["on_stall", "on_settled", "on_report", "on_replied"])
async def test_a_hook_that_stops_everything(call: "Call", where: str) -> None:
    """Called by an alarm, by a job that ends, by one that is stuck."""
    agent = call.speaks(policy=Policy(stall_timeout=1.0), grace=0.25)

    @agent.think
    async def think(turn: Turn) -> str:
        if where == "on_report":
            await call.stubborn(1)
        return "a"

    def stops(*given: object) -> None:
        raise Stop

    getattr(agent, where)(stops)

    async def serves() -> None:
        async with agent:
            call.guess("hello")
            await anyio.sleep(0.5)
            if where == "on_report":
                call.resume()
            elif where != "on_stall":
                call.end("hello")
            await anyio.sleep(5)

    with pytest.raises(BaseExceptionGroup) as raised:
        await serves()
    assert raised.value.subgroup(Stop) is not None
    assert anyio.current_time() < 3


async def test_the_stream_of_a_speech_that_is_stuck_is_reported(call: "Call") -> None:
    agent = call.speaks(grace=0.25)

    async def stream() -> AsyncIterator[str]:
        yield "a"
        await call.stubborn(2)

    async with agent:
        agent.say(stream())
        await anyio.sleep(0.5)
        agent.interrupt()
        await anyio.sleep(1)
        assert [report.detail for report in call.reports] == [
            "thought 0 of turn 0 goes on though it was cancelled; it is not heard"
        ]


def test_f55_a_group_of_stray_cancellations_is_a_failure() -> None:
    agent, failures = Agent(), list[Exception]()
    agent.on_failure(lambda turn, error: failures.append(error))

    def think(turn: Turn) -> str:
        raise BaseExceptionGroup("of tasks", [asyncio.CancelledError()])

    async def respond(turn: Turn, thought: Thought[str]) -> None:
        with suppress(RuntimeError):
            await thought

    agent.think(think)
    agent.respond(respond)
    virtual_time.run(agent.run, frames(TurnEnd(transcript="hello"), 1.0))
    assert [f"{error}" for error in failures] == ["thought 1 of turn 1 was cancelled, and not by its agent"]


def test_a_task_whose_loop_is_closed_under_it_tells_nothing() -> None:
    told: list[object] = []

    async def work(job: object) -> None:
        told.append("work")

    steps = tasks._to_its_end(None, work, lambda job, raised: told.append(raised))  # type: ignore[arg-type]
    steps.send(None)
    steps.close()
    assert told == []


@pytest.mark.usefixtures("only_new_garbage")
@pytest.mark.parametrize("backend", virtual_time.BACKENDS)
def test_turns_leave_nothing_to_the_garbage_collector(backend: str) -> None:
    """Answered, cancelled and interrupted ones: what is over holds itself in no cycle. With a thousand calls in one
    process, each pass of the collector would be a pause in all of them."""

    async def found() -> int:
        agent = Agent()

        @agent.think
        async def think(turn: Turn) -> AsyncIterator[str]:
            yield turn.transcript
            await anyio.sleep(0.1)
            yield "please"

        @agent.respond
        async def respond(turn: Turn, thought: Thought[str]) -> None:
            async for _ in thought:
                pass

        @agent.listen
        async def listen(turn: Turn) -> None:
            await anyio.sleep(0.1)

        async def turns(count: int) -> None:
            for number in range(count):
                agent.feed(TurnStart())
                agent.feed(TurnEagerEnd(transcript="yes"))
                await anyio.sleep(0.05)
                if number % 2:
                    agent.feed(TurnResume())
                    await anyio.sleep(0.01)
                agent.feed(TurnEnd(transcript="yes, please"))
                await anyio.sleep(0.05 if number % 3 else 1)

        async with agent:
            await turns(12)  # what is made once
            await anyio.sleep(1)
            gc.collect()
            gc.disable()
            try:
                await turns(60)
                await anyio.sleep(1)
                return gc.collect()
            finally:
                gc.enable()

    assert virtual_time.run(found, backend=backend) < 60  # not one object a turn


async def test_a_hook_that_stops_everything_before_the_thought_is_known(call: "Call") -> None:
    """One frame opens a turn and begins a thought. The hook of the first action stops the call, and the machine has a
    live thought that the agent never began."""
    agent = call.speaks()
    failures: list[Exception] = []
    agent.on_failure(lambda turn, error: failures.append(error))
    agent.think(lambda turn: "a")

    @agent.on_start
    def on_start(turn: Turn) -> None:
        raise Stop

    async def serves() -> None:
        async with agent:
            call.eager("hello")

    with pytest.raises(BaseExceptionGroup) as raised:
        await serves()
    assert [type(one) for one in raised.value.exceptions] == [Stop]
    assert failures == []
    assert agent.history.messages() == [{"role": "user", "content": "hello"}]
