"""The application does what nobody expects: in hooks, in other threads, at the last moment. Nobody is left waiting, and
what is said of it is true."""

import asyncio
import gc
import warnings
from collections.abc import AsyncIterator, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

import anyio
import pytest
import trio

from inkturns import Agent
from inkturns.actions import Turn
from inkturns.agent import Audible, Replied, ReplyOutcome, Thought, committed
from inkturns.events import TurnEnd, TurnStart
from inkturns.policy import Policy
from inkturns.testing import virtual_time

if TYPE_CHECKING:
    from tests.conftest import Call


class Stop(BaseException):
    """As KeyboardInterrupt."""


def stops(*given: object) -> None:
    raise Stop


async def test_a_thought_that_was_made_and_then_cancelled_says_when(call: "Call") -> None:
    agent = call.speaks()
    agent.think(lambda turn: "a")
    async with agent:
        call.guess("hello")
        await anyio.sleep(1)
        call.resume()
    [settled] = call.settled
    assert (settled.finished, settled.cancelled_at) == (0.0, 1.0)


@pytest.mark.parametrize("fails", [True, False])
def test_f33_a_task_that_outlives_its_thought_does_not_wait_for_ever(call: "Call", fails: bool) -> None:
    agent, told, left = call.speaks(), list[str](), list[asyncio.Task[None]]()

    async def books() -> None:
        try:
            await committed()
        except RuntimeError as error:
            told.append(str(error))

    @agent.think
    async def think(turn: Turn) -> str:
        left.append(asyncio.create_task(books(), context=copy_context()))
        await anyio.sleep(0.1)
        if fails:
            raise ValueError
        return "a"

    async def serves() -> None:
        async with agent:
            call.guess("book it")
            await anyio.sleep(1)
            call.resume()
            await left[0]

    virtual_time.run(serves)
    assert told == ["the thought is cancelled"]
    assert [one.cancelled_at for one in call.settled] == [None if fails else 1.0]


# -- say


@pytest.mark.usefixtures("only_new_garbage")
@pytest.mark.parametrize("how", ["interrupted at once", "behind another"])
async def test_a_coroutine_that_is_not_said_does_not_warn(call: "Call", how: str) -> None:
    agent = call.speaks()

    async def farewell() -> str:
        raise AssertionError("nobody asks for it")

    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        async with agent:
            if how == "behind another":
                agent.say("hello")
            speech = agent.say(farewell())
            call.start()
            agent.interrupt()
            assert await speech is ReplyOutcome.NOT_BEGUN
            await anyio.sleep(1)
        gc.collect()
    assert warned == []


class Response(AsyncIterator[str]):
    """A stream as a model's SDK has it: `close` is async."""

    async def __anext__(self) -> str:
        raise AssertionError("nobody asks for it")

    def close(self) -> Coroutine[Any, Any, None]:
        raise AssertionError("nobody would await it")


async def test_a_stream_that_is_not_said_is_left_alone(call: "Call") -> None:
    agent = call.speaks()
    async with agent:
        agent.say("hello")
        speech = agent.say(Response())
        call.start()
        assert await speech is ReplyOutcome.NOT_BEGUN


async def test_who_says_again_what_was_not_heard_is_not_asked_for_ever(call: "Call") -> None:
    agent, told = call.speaks(), list[ReplyOutcome]()

    @agent.on_replied
    def again(replied: Replied) -> None:
        told.append(replied.outcome)
        if replied.outcome is not ReplyOutcome.HEARD:
            agent.say("again")

    async with agent:
        agent.say("one")
        agent.say("two")
    assert told == [ReplyOutcome.NOT_BEGUN, ReplyOutcome.HEARD]  # the second first, when the items have ended


async def test_what_is_said_does_not_wait_for_a_listen(call: "Call") -> None:
    agent, outcomes = call.speaks(), list[ReplyOutcome]()

    @agent.listen
    async def listen(turn: Turn) -> None:
        outcomes.append(await agent.say("yes?"))
        call.see("listens")

    async with agent:
        call.start()
        await anyio.sleep(1)
    assert call.seen == [(0.0, "yes?"), (0.0, "listens")]
    assert outcomes == [ReplyOutcome.HEARD]


# -- what is raised where nobody waits for it


async def test_a_hook_that_stops_everything_when_the_drain_is_over(call: "Call") -> None:
    agent = call.agent(drain_timeout=2.0)
    agent.on_interrupt(stops)
    agent.think(lambda turn: "a")

    @agent.respond
    async def respond(turn: Turn, thought: Thought[str]) -> None:
        await thought
        thought.sounding()
        await anyio.sleep(99)

    async def serves() -> None:
        async with agent:
            call.turn("hello")
            await anyio.sleep(1)

    with pytest.raises(BaseExceptionGroup, match="the call failed") as raised:
        await serves()
    assert [type(one) for one in raised.value.exceptions] == [Stop]
    assert anyio.current_time() == 3.0


async def test_a_hook_that_stops_everything_when_the_call_is_closed(call: "Call") -> None:
    """The reply that goes on beside the open turn is cut, and nobody waits for what was to be said."""
    agent = call.agent(policy=Policy(interrupts=lambda turn: False))
    agent.on_abandon(stops)
    agent.on_replied(stops)

    @agent.respond
    async def respond(turn: Turn, thought: Thought[str]) -> None:
        await thought
        await anyio.sleep(99)

    async def serves() -> None:
        async with agent:
            agent.say("hello")
            await anyio.sleep(1)
            call.start()
            speeches.extend(agent.say(text) for text in ("one", "two"))
            agent.close()

    speeches: list[Any] = []
    with pytest.raises(BaseExceptionGroup, match="the call failed") as raised:
        await serves()
    assert raised.value.subgroup(Stop) is not None
    assert anyio.current_time() == 1.0
    assert [await speech for speech in speeches] == [ReplyOutcome.NOT_BEGUN] * 2


def test_a_cancellation_that_was_there_before_the_call_is_one() -> None:
    """Ctrl-C while a program loads its models cancels the task that is running."""
    agent = Agent()

    async def items() -> AsyncIterator[TurnStart]:
        await anyio.sleep(9)
        yield TurnStart()

    async def main() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await agent.run(items())

    with pytest.raises(asyncio.CancelledError):
        virtual_time.run(main)


async def test_close_ends_the_tasks_of_the_block_without_an_error(call: "Call", backend: str) -> None:
    """A trio nursery raises its cancellations as a group."""
    agent = call.speaks()
    async with agent:
        if backend == "trio":
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.sleep, 9)
                nursery.start_soon(trio.sleep, 9)
                await trio.sleep(1)
                agent.close()
        else:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(asyncio.sleep(9))
                tasks.create_task(asyncio.sleep(9))
                await asyncio.sleep(1)
                agent.close()
    assert anyio.current_time() == 1.0


async def test_what_a_task_of_the_block_raises_is_raised_when_the_others_are_cancelled(call: "Call") -> None:
    agent = call.speaks()

    async def breaks() -> None:
        try:
            await anyio.sleep(9)
        finally:
            raise ValueError

    async def serves() -> None:
        async with agent, anyio.create_task_group() as tasks:
            tasks.start_soon(breaks)
            await anyio.sleep(1)
            agent.close()

    with pytest.raises(ExceptionGroup) as raised:
        await serves()
    assert [type(one) for one in raised.value.exceptions] == [ValueError]


async def test_what_the_items_raised_is_raised_though_the_call_is_cancelled(call: "Call") -> None:
    agent = call.agent()
    agent.think(lambda turn: "a")

    @agent.respond
    async def respond(turn: Turn, thought: Thought[str]) -> None:
        await anyio.sleep(9)

    async def items() -> AsyncIterator[TurnEnd]:
        yield TurnEnd("hello")
        raise ConnectionError("lost")

    with pytest.raises(ConnectionError, match="lost"), anyio.move_on_after(1):
        await agent.run(items())
    assert anyio.current_time() == 1.0


# -- other threads, and after the call


async def test_a_reply_that_is_told_to_sound_in_another_thread_does_not_sound(call: "Call") -> None:
    agent, raised = call.agent(audible=Audible.TOLD), list[BaseException | None]()
    agent.think(lambda turn: "a")

    @agent.respond
    async def respond(turn: Turn, thought: Thought[str]) -> None:
        await thought
        with ThreadPoolExecutor() as player:
            raised.append(player.submit(thought.sounding).exception())

    told: list[Replied] = []
    agent.on_replied(told.append)
    async with agent:
        call.turn("hello")
    assert "must be called in the thread and the loop of the call" in str(raised[0])
    assert [(one.sounded_at, one.text) for one in told] == [(None, "")]


def test_after_the_call_and_its_loop_nothing_is_fed() -> None:
    agent = Agent()

    async def serves() -> None:
        async with agent:
            pass

    virtual_time.run(serves)
    with pytest.raises(RuntimeError, match="inside its `run`"):
        agent.feed(TurnStart())


async def test_the_words_of_an_item_are_a_str(call: "Call") -> None:
    agent = call.speaks(text=lambda item: 5)
    failures: list[str] = []
    agent.on_failure(lambda turn, error: failures.append(str(error)))
    async with agent:
        await agent.say("secret")
    assert failures == ["Agent: text(item) must return a str, got int"]


@pytest.mark.parametrize("takes", ["each", "whole"])
async def test_an_item_whose_words_stop_the_reply_is_not_heard(call: "Call", takes: str) -> None:
    """`text` is the user's code, and may interrupt the reply that it is asked about."""

    def text(item: str) -> str:
        if item == "b":
            agent.interrupt()
        return item

    agent = call.agent(text=text)
    replied: list[Replied] = []
    agent.on_replied(replied.append)

    @agent.think
    async def think(turn: Turn) -> AsyncIterator[str]:
        for item in "abc":
            yield item

    @agent.respond
    async def respond(turn: Turn, thought: Thought[str]) -> None:
        if takes == "each":
            await call.speak(thought)
        else:
            call.see(f"{await thought}")

    async with agent:
        call.guess("hello")
        await anyio.sleep(1)
        call.end("hello")
        await anyio.sleep(1)
    assert call.said == (["a"] if takes == "each" else [])
    assert [(one.outcome, one.text) for one in replied] == [(ReplyOutcome.INTERRUPTED, "a")]
