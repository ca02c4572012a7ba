"""Agent: what raises, where it is seen, and what goes on in spite of it."""

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from inkturns.actions import CancelReason, Turn
from inkturns.agent import Agent, Outcome, Thought
from inkturns.events import Event, TurnEagerEnd, TurnEnd, TurnStart
from inkturns.policy import Policy
from inkturns.testing import virtual_time

if TYPE_CHECKING:
    from tests.conftest import Call


class Stop(BaseException):
    """No Exception, as KeyboardInterrupt is none."""


async def hello(pause: float = 0.0) -> AsyncIterator[Event]:
    yield TurnStart()
    yield TurnEnd(transcript="hello")
    await anyio.sleep(pause)


def fails(role: str, agent: Agent, error: Exception) -> None:
    """An agent of which one role, or hook, raises."""

    def broken(*given: object) -> Any:
        raise error

    async def respond(turn: Turn, thought: Thought[Any]) -> None:
        async for _ in thought:
            pass

    roles: dict[str, Any] = {"listen": lambda turn: None, "think": lambda turn: "a", "respond": respond}
    for name, given in (roles | {role: broken}).items():
        getattr(agent, name)(given)


EVERYWHERE = ["listen", "think", "respond", "on_start", "on_think", "on_update", "on_end", "on_settled"]


@pytest.mark.parametrize("where", EVERYWHERE)
async def test_what_a_role_or_a_hook_raises_ends_run_and_is_raised_as_itself(call: "Call", where: str) -> None:
    agent, error = call.agent(), ValueError(where)
    fails(where, agent, error)
    with pytest.raises(ValueError, match=where) as raised:
        await agent.run(hello(pause=9))
    assert raised.value is error
    assert anyio.current_time() == 0


@pytest.mark.parametrize("where", EVERYWHERE)
async def test_on_failure_is_told_once_and_the_call_goes_on(call: "Call", where: str) -> None:
    agent, error = call.agent(), ValueError(where)
    failures: list[tuple[Turn | None, Exception]] = []
    agent.on_failure(lambda turn, error: failures.append((turn, error)))
    fails(where, agent, error)
    async with agent:
        call.turn("hello")
        await anyio.sleep(1)
        assert [seen for _, seen in failures] == [error]
        call.turn("you")
        await anyio.sleep(1)
    assert [seen for _, seen in failures] == [error] * 2
    assert len(call.settled) == 2
    if where in ("listen", "think", "respond", "on_settled"):
        assert [turn and turn.number for turn, _ in failures] == [1, 2]


async def test_several_on_failure_hooks_are_all_told(call: "Call") -> None:
    agent = call.agent()
    fails("respond", agent, ValueError("respond"))

    def told(name: str, turn: Turn | None, error: Exception) -> None:
        call.see(f"{name} {error}")

    for name in "one", "two":
        agent.on_failure(partial(told, name))
    await agent.run(hello())
    assert call.said == ["one respond", "two respond"]


async def test_what_on_failure_raises_ends_run(call: "Call") -> None:
    agent = call.agent()
    fails("respond", agent, ValueError("respond"))

    @agent.on_failure
    def on_failure(turn: Turn | None, error: Exception) -> None:
        raise KeyError("another") from error

    with pytest.raises(KeyError, match="another") as raised:
        await agent.run(hello(pause=9))
    assert isinstance(raised.value.__cause__, ValueError)


async def test_several_errors_are_raised_as_a_group(call: "Call") -> None:
    agent = call.agent()

    def broken(turn: Turn) -> None:
        raise ValueError(f"{turn.number}")

    agent.on_start(broken)
    agent.on_update(broken)

    async def frames() -> AsyncIterator[Event]:
        yield TurnEnd(transcript="hello")  # opens its turn too
        raise ConnectionError("gone")

    with pytest.raises(ExceptionGroup) as raised:
        await agent.run(frames())
    assert [type(error) for error in raised.value.exceptions] == [ConnectionError, ValueError, ValueError]


async def test_a_thought_that_fails_while_speculative_is_thought_failed_and_nothing_else(call: "Call") -> None:
    agent = call.speaks()
    failures: list[Exception] = []
    agent.on_failure(lambda turn, error: failures.append(error))
    agent.on_cancel(lambda turn, reason: call.see(reason))

    @agent.think
    async def think(turn: Turn) -> AsyncIterator[str]:
        yield f"{turn.latest_thought}"
        if turn.latest_thought == 1:
            raise ConnectionError("429")

    async with agent:
        call.guess("hello")
        await anyio.sleep(1)
        call.end("hello")
    assert call.seen == [(0.0, "failed"), (1.0, "2")]
    assert failures == []
    assert [(one.outcome, one.reason) for one in call.settled] == [
        (Outcome.FAILED, CancelReason.FAILED),
        (Outcome.ADOPTED, None),
    ]


async def test_a_speculation_that_fails_does_not_end_run(call: "Call") -> None:
    agent = call.speaks()

    @agent.think
    async def think(turn: Turn) -> str:
        if turn.latest_thought == 1:
            raise ConnectionError("429")
        return "a"

    async with agent:
        call.guess("hello")
        await anyio.sleep(1)
        call.end("hello")
    assert call.said == ["a"]


async def test_respond_sees_what_its_thought_raised_after_the_items_before_it(call: "Call") -> None:
    agent = call.agent()
    failures: list[Exception] = []
    agent.on_failure(lambda turn, error: failures.append(error))

    @agent.think
    async def think(turn: Turn) -> AsyncIterator[str]:
        yield "a"
        yield "b"
        raise ValueError("so be it")

    @agent.respond
    async def respond(turn: Turn, thought: Thought[Any]) -> None:
        if turn.number == 1:
            with pytest.raises(ValueError, match="so be it"):
                await call.speak(thought)
            with pytest.raises(ValueError, match="so be it"):
                await thought
            call.see("sorry")
        else:
            await thought

    async with agent:
        call.turn("hello")
        await anyio.sleep(1)
        call.turn("you")
    assert call.said == ["a", "b", "sorry"]
    assert list(map(str, failures)) == ["so be it"] * 2  # once each, though respond lets the second one through


@pytest.mark.parametrize("more", [True, False])
async def test_what_a_thought_raised_is_told_once_though_respond_took_it_in_a_task_group(
    call: "Call", more: bool
) -> None:
    agent = call.agent()
    failures: list[Exception] = []
    agent.on_failure(lambda turn, error: failures.append(error))

    @agent.think
    async def think(turn: Turn) -> AsyncIterator[str]:
        yield "a"
        raise ValueError("so be it")

    @agent.respond
    async def respond(turn: Turn, thought: Thought[Any]) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call.speak, thought)
            if more:
                try:
                    await anyio.sleep(9)
                finally:
                    raise OSError("and its own")

    async with agent:
        call.turn("hello")
        await anyio.sleep(1)
    assert call.said == ["a"]
    first, *rest = failures
    assert str(first) == "so be it"
    groups = [[str(one) for one in error.exceptions] for error in rest if isinstance(error, ExceptionGroup)]
    assert groups == ([["and its own"]] if more else [])
    assert len(groups) == len(rest)


async def test_what_respond_raises_while_its_thought_goes_on_ends_both(call: "Call") -> None:
    agent = call.agent()
    failures: list[Exception] = []
    agent.on_failure(lambda turn, error: failures.append(error))

    @agent.think
    async def think(turn: Turn) -> AsyncIterator[str]:
        try:
            yield "a"
            await anyio.sleep(9)
        finally:
            call.see("cancelled")

    @agent.respond
    async def respond(turn: Turn, thought: Thought[Any]) -> None:
        await anext(thought)
        raise OSError("the line is cut")

    async with agent:
        call.turn("hello")
        await anyio.sleep(1)
        call.turn("you")  # there is nothing to interrupt
        await anyio.sleep(1)
    assert call.seen == [(0.0, "cancelled"), (1.0, "cancelled")]
    assert list(map(str, failures)) == ["the line is cut"] * 2


async def test_a_failure_of_what_is_said_has_turn_0(call: "Call") -> None:
    agent = call.speaks()
    failures: list[object] = []
    agent.on_failure(lambda turn, error: failures.append((turn and turn.number, str(error))))

    async def broken() -> AsyncIterator[str]:
        yield "a"
        raise ValueError("so be it")

    async with agent:
        await agent.say(broken())
        await agent.say("b")
    assert call.said == ["a", "b"]
    assert failures == [(0, "so be it")]


async def test_the_other_tasks_are_over_when_one_has_failed(call: "Call") -> None:
    agent = call.agent()

    @agent.think
    async def think(turn: Turn) -> str:
        try:
            await anyio.sleep(9)
        finally:
            call.see("think")
        return "a"

    @agent.respond
    async def respond(turn: Turn, thought: Thought[Any]) -> None:
        try:
            await thought
        finally:
            call.see("respond")

    @agent.listen
    async def listen(turn: Turn) -> None:
        await anyio.sleep(0.25)
        raise ValueError("so be it")

    with pytest.raises(ValueError, match="so be it"):
        await agent.run(hello(pause=9))
    assert [seen for seen in call.seen if seen[1] == "think"] == [(0.25, "think")]


async def test_errors_of_a_task_group_are_raised_as_its_group(call: "Call") -> None:
    agent = call.speaks()

    async def broken() -> None:
        raise ValueError("so be it")

    @agent.think
    async def think(turn: Turn) -> str:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(broken)
        return "a"

    with pytest.raises(ExceptionGroup) as raised:
        await agent.run(hello())
    assert [type(error) for error in raised.value.exceptions] == [ValueError]


@pytest.mark.parametrize("told", [True, False])
async def test_clean_up_that_fails_in_a_task_group_when_the_call_is_closed(call: "Call", told: bool) -> None:
    """The group holds the cancellation and the error; the one is the loop's, the other is seen as any other."""
    agent = call.speaks()
    failures: list[Exception] = []
    if told:
        agent.on_failure(lambda turn, error: failures.append(error))

    async def broken() -> None:
        try:
            await anyio.sleep(9)
        finally:
            raise ValueError("in its clean-up")

    @agent.think
    async def think(turn: Turn) -> str:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(broken)
            await anyio.sleep(9)
        return "a"

    async def served() -> None:
        async with agent:
            call.turn("hello")
            await anyio.sleep(1)
            agent.close()

    if told:
        await served()
    else:
        with pytest.raises(ExceptionGroup) as raised:
            await served()
        failures.append(raised.value)
    [group] = failures
    assert isinstance(group, ExceptionGroup)
    assert [str(error) for error in group.exceptions] == ["in its clean-up"]


async def test_hooks_that_raise_do_not_stop_each_other_nor_the_agent(call: "Call") -> None:
    agent = call.speaks()
    failures: list[str] = []
    agent.think(lambda turn: turn.transcript)
    agent.on_failure(lambda turn, error: failures.append(f"{error}"))

    @agent.on_end
    def first(turn: Turn) -> None:
        raise ValueError("first")

    @agent.on_end
    def second(turn: Turn) -> None:
        call.see("second")
        raise ValueError("second")

    async with agent:
        call.turn("hello")
    assert call.said == ["second", "hello"]
    assert failures == ["first", "second"]


async def test_a_hook_that_raises_at_the_very_end_is_seen_too(call: "Call") -> None:
    """on_abandon and on_settled of a turn that was open when the call was closed; and of a thought that never ended."""
    agent = call.speaks()
    agent.think(lambda turn: anyio.sleep(9))

    def broken(*given: object) -> None:
        raise ValueError("so be it")

    agent.on_abandon(broken)
    agent.on_settled(broken)
    agent.on_eager_end(lambda turn: agent.close())

    async def frames() -> AsyncIterator[Event]:
        async for event in hello(1):
            yield event
        yield TurnStart()
        yield TurnEagerEnd(transcript="you")

    with pytest.raises(ExceptionGroup) as raised:
        await agent.run(frames())
    assert [str(error) for error in raised.value.exceptions] == ["so be it"] * 3


async def test_a_hook_of_the_report_of_a_stuck_task_may_raise(call: "Call") -> None:
    agent = call.speaks(grace=0.25)
    failures: list[Exception] = []
    agent.on_failure(lambda turn, error: failures.append(error))

    @agent.on_report
    def on_report(report: object) -> None:
        raise ValueError("so be it")

    @agent.think
    async def think(turn: Turn) -> str:
        if turn.latest_thought == 1:
            await call.stubborn(1)
        await anyio.sleep(1)
        return "a"

    async with agent:
        call.guess("hello")
        await anyio.sleep(0.25)
        call.resume()
        call.end("hello")
    assert call.seen == [(1.5, "a")]
    assert list(map(str, failures)) == ["so be it"]


async def test_what_policy_functions_raise_never_gets_out(call: "Call") -> None:
    def broken(*given: object) -> bool:
        raise ValueError("so be it")

    agent = call.speaks(policy=Policy(match=broken, interrupts=broken))
    agent.think(lambda turn: "a")
    async with agent:
        call.guess("hello")
        call.update("hello you")
        await anyio.sleep(1)
        call.end("hello you")
        call.turn("and")
    assert {report.kind.value for report in call.reports} == {"policy_error"}


@pytest.mark.parametrize("role", ["think", "respond"])
def test_who_awaits_what_somebody_else_cancelled_has_failed(role: str) -> None:
    """asyncio alone: CancelledError comes out of an await though nobody has cancelled the task."""
    agent = Agent()
    failures: list[Exception] = []
    agent.on_failure(lambda turn, error: failures.append(error))

    async def stray() -> None:
        task = asyncio.ensure_future(asyncio.sleep(9))
        task.cancel()
        await task

    @agent.think
    async def think(turn: Turn) -> str:
        if role == "think":
            await stray()
        return "a"

    @agent.respond
    async def respond(turn: Turn, thought: Thought[Any]) -> None:
        await thought
        await stray()

    virtual_time.run(agent.run, hello())
    [failure] = failures
    label = "thought 1 of turn 1" if role == "think" else "reply to turn 1"
    assert str(failure) == f"{label} was cancelled, and not by its agent"
    assert isinstance(failure.__cause__, asyncio.CancelledError)


async def test_what_is_no_exception_in_a_task_group_stops_everything(call: "Call") -> None:
    agent = call.speaks()

    async def broken() -> None:
        raise Stop

    @agent.think
    async def think(turn: Turn) -> str:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(broken)
            await anyio.sleep(9)
        return "a"

    with pytest.raises(BaseExceptionGroup) as raised:
        await agent.run(hello(pause=9))
    assert raised.value.subgroup(Stop) is not None
    assert call.said == []


async def test_what_is_no_exception_stops_everything(call: "Call") -> None:
    agent = call.speaks()

    @agent.on_end
    def on_end(turn: Turn) -> None:
        raise Stop

    agent.think(lambda turn: "a")
    with pytest.raises(BaseExceptionGroup) as raised:
        await agent.run(hello())
    assert [type(one) for one in raised.value.exceptions] == [Stop]
    assert call.said == []
