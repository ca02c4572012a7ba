"""Agent: what was done stays, what was meant is said, what fails is seen (F46, F58, F59)."""

import logging
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from inkturns.actions import Turn
from inkturns.agent import Agent, committed, current_thought
from inkturns.events import Event, TurnEnd, TurnStart

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


# -- F46: what was done was done

CALL = {"role": "assistant", "tool_calls": [{"id": "1", "type": "function", "function": {"name": "book"}}]}
RESULT = {"role": "tool", "tool_call_id": "1", "content": "booked"}


@pytest.mark.parametrize("barge_in", [0.0, 0.5, 1.5, 2.5])
async def test_f46_what_a_committed_thought_did_stands_though_its_reply_is_cut(call: "Call", barge_in: float) -> None:
    agent = call.speaks()

    @agent.think
    async def think(turn: Turn) -> AsyncIterator[str]:
        if turn.number > 1:
            return
        yield "one moment"
        async with committed():
            current_thought().record(CALL)
            await anyio.sleep(2)
            current_thought().record(RESULT)
        yield "booked"

    async with agent:
        call.turn("book it")
        if barge_in:
            await anyio.sleep(barge_in)
        call.start()
        await anyio.sleep(5)
        call.end("no")
    messages = agent.history.messages()
    assert (CALL in messages, RESULT in messages) == ((False, False) if barge_in == 0 else (True, True))


async def test_f46_a_cancelled_thought_leaves_nothing(call: "Call") -> None:
    agent = call.speaks()

    @agent.think
    async def think(turn: Turn) -> str:
        current_thought().record({"role": "assistant", "content": f"looked up {turn.transcript}"})
        return "found"

    async with agent:
        call.guess("one")
        await anyio.sleep(1)
        call.eager("two")
        await anyio.sleep(1)
        call.end("two")
    assert [message["content"] for message in agent.history.messages()] == ["two", "looked up two", "found"]


# -- F58: what was meant


async def a_coroutine() -> str:
    return "never"


async def a_stream() -> AsyncIterator[str]:
    yield "never"


MISTAKES: dict[str, tuple[Callable[[], Any], str]] = {
    "generator": (lambda: (item for item in "abc"), "must not be a generator, got .*; write `async def`"),
    "coroutine function": (lambda: a_coroutine, "must not be an async function, got .*; call it"),
    "stream function": (lambda: a_stream, "must not be an async function, got .*; call it"),
    "function": (lambda: len, "must not be a function, got .*; call it"),
    "method": (lambda: "never".upper, "must not be a function, got .*; call it"),
}


@pytest.mark.parametrize("kind", MISTAKES)
async def test_f58_a_value_that_was_meant_otherwise_is_refused(call: "Call", kind: str) -> None:
    agent, failures = call.speaks(), list[Exception]()
    make, message = MISTAKES[kind]
    agent.on_failure(lambda turn, error: failures.append(error))
    agent.think(lambda turn: make())
    async with agent:
        call.turn("hello")
    assert call.said == []
    [failure] = failures
    assert isinstance(failure, TypeError)
    with pytest.raises(TypeError, match=message):
        raise failure


async def test_f58_a_coroutine_that_a_coroutine_returns_is_refused_and_closed(call: "Call") -> None:
    agent, failures = call.speaks(), list[str]()
    agent.on_failure(lambda turn, error: failures.append(f"{error}"))

    async def think(turn: Turn) -> Any:
        return a_coroutine()  # it forgets to await it

    agent.think(think)
    async with agent:
        call.turn("hello")
    [failure] = failures
    assert failure.startswith("a reply must not be a coroutine, got <coroutine object a_coroutine")


@pytest.mark.parametrize("role", ["listen", "respond"])
def test_f58_a_generator_is_no_role(role: str) -> None:
    def generator(*given: object) -> Any:
        yield

    async def stream(*given: object) -> AsyncIterator[None]:
        yield

    for function in (generator, stream):
        with pytest.raises(TypeError, match=rf"{role}\(.*\): the role must not be .*generator"):
            getattr(Agent(), role)(function)
    with pytest.raises(TypeError, match=rf"{role}\(.*\) must be a function of"):
        getattr(Agent(), role)(lambda: None)


# -- F59: failures are seen


async def test_f59_a_guess_that_fails_is_logged_and_in_its_settled(
    call: "Call", caplog: pytest.LogCaptureFixture
) -> None:
    agent = call.speaks()

    @agent.think
    async def think(turn: Turn) -> str:
        if turn.latest_thought == 1:
            raise PermissionError("a secret of the caller's")
        return "a"

    async with agent:
        call.guess("hello")
        await anyio.sleep(1)
        call.end("hello")
    logged = [(record.levelno, record.name, record.getMessage()) for record in caplog.records]
    assert logged == [(logging.WARNING, "inkturns", "thought 1 of turn 1 failed: PermissionError")]
    assert "secret" not in caplog.text
    assert [type(settled.error) for settled in call.settled] == [PermissionError, type(None)]


async def test_f46_what_was_done_stands_though_nothing_of_the_reply_was_heard(call: "Call") -> None:
    agent = call.speaks()

    @agent.think
    async def think(turn: Turn) -> str:
        async with committed():
            current_thought().record({"role": "assistant", "content": "it is booked"})
            await anyio.sleep(1)
        return "booked"

    async with agent:
        call.turn("book it")
        await anyio.sleep(0.5)
        call.start()
        await anyio.sleep(1)
        assert [message["content"] for message in agent.history.messages()] == ["book it", "it is booked"]
