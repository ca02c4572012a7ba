"""Agent: what it is given, what its roles may return, and what a thought knows."""

import math
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from inkturns import agent as module
from inkturns.actions import Turn
from inkturns.agent import Agent, Thought, committed, current_thought
from inkturns.events import TurnEnd, TurnStart

if TYPE_CHECKING:
    from tests.conftest import Call


async def nothing(*given: object) -> None:
    pass


async def letters(text: str = "abc", pause: float = 0.0) -> AsyncIterator[str]:
    for letter in text:
        if pause:
            await anyio.sleep(pause)
        yield letter


class Letters:
    """A stream that is no generator."""

    def __init__(self, text: str = "abc") -> None:
        self.left = list(text)
        self.asked = 0

    def __aiter__(self) -> "Letters":
        return self

    async def __anext__(self) -> str:
        self.asked += 1
        if not self.left:
            raise StopAsyncIteration
        return self.left.pop(0)


# -- what is given, and what is refused


@pytest.mark.parametrize("option", ["grace", "committed_block_timeout", "drain_timeout"])
@pytest.mark.parametrize(
    ("value", "error"), [("1", TypeError), (True, TypeError), (None, TypeError), (-0.1, ValueError)]
)
def test_seconds_are_checked_when_given(option: str, value: object, error: type[Exception]) -> None:
    with pytest.raises(error, match=f"Agent: {option} must be"):
        Agent(**{option: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("option", ["grace", "committed_block_timeout", "drain_timeout"])
@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_seconds_are_finite(option: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"Agent: {option} must be 0 or more seconds and finite"):
        Agent(**{option: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(("value", "error"), [(0, ValueError), (-1, ValueError), (1.0, TypeError), (True, TypeError)])
def test_buffer_size_is_a_whole_number_from_one(value: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="Agent: buffer_size "):
        Agent(buffer_size=value)


def test_what_turns_checks_an_agent_checks() -> None:
    with pytest.raises(TypeError, match="Agent: recorder must be a Recorder"):
        Agent(recorder="call.jsonl")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="Agent: source must have"):
        Agent(source=object())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="policy must be a Policy"):
        Agent("eager")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="clock"):
        Agent(clock=lambda: 0.0)  # type: ignore[call-arg]


def test_the_smallest_options_are_taken() -> None:
    agent = Agent(buffer_size=1, grace=0, committed_block_timeout=0)
    assert (agent.buffer_size, agent.grace, agent.committed_block_timeout) == (1, 0, 0)


@pytest.mark.parametrize("role", ["listen", "think", "respond"])
def test_a_role_is_given_once_is_callable_and_its_decorator_returns_it(role: str) -> None:
    agent = Agent()
    assert getattr(agent, role)(nothing) is nothing
    with pytest.raises(ValueError, match=f"there is a {role} already"):
        getattr(agent, role)(nothing)
    with pytest.raises(TypeError, match=rf"{role}\(.*\) must be a function, got 'nothing'"):
        getattr(Agent(), role)("nothing")


@pytest.mark.parametrize("hook", ["on_settled", "on_failure", "on_end", "on_report"])
def test_hooks_are_called_not_awaited(hook: str) -> None:
    agent = Agent()
    with pytest.raises(TypeError, match=f"{hook}.*must not be async"):
        getattr(agent, hook)(nothing)
    with pytest.raises(TypeError, match=rf"{hook}.* must be a function, got None"):
        getattr(agent, hook)(None)
    assert getattr(agent, hook)(print) is print


async def test_think_without_respond_is_refused_when_the_call_begins() -> None:
    agent = Agent()
    agent.think(nothing)
    with pytest.raises(RuntimeError, match="no respond"):
        await agent.run(letters())


async def test_an_agent_serves_one_call() -> None:
    agent = Agent()
    await agent.run(letters(""))
    with pytest.raises(RuntimeError, match="one call"):
        await agent.run(letters(""))
    with pytest.raises(RuntimeError, match="one call"):
        async with agent:
            pytest.fail("it began again")


async def test_without_roles_the_agent_is_its_hooks(call: "Call") -> None:
    agent = call.agent()
    agent.on_start(lambda turn: call.see(f"start {turn.number}"))
    agent.on_eager_end(lambda turn: call.see(f"eager {turn.transcript}"))
    agent.on_end(lambda turn: call.see(f"end {turn.transcript}"))
    async with agent:
        call.guess("hello")
        call.end("hello there")
        with pytest.raises(RuntimeError, match="give the agent a `respond`"):
            agent.say("hi")
    assert call.said == ["start 1", "eager hello", "end hello there"]
    assert call.settled == []
    assert agent.history.messages() == [{"role": "user", "content": "hello there"}]


async def test_respond_without_think_has_nothing_to_take(call: "Call") -> None:
    agent = call.agent()

    @agent.respond
    async def respond(turn: Turn, thought: Thought[Any]) -> None:
        call.see(f"{turn.transcript} {[item async for item in thought]} {await thought}")

    async with agent:
        call.turn("hello")
    assert call.said == ["hello [] None"]


# -- what roles are, and what think returns

THINKS: dict[str, tuple[Callable[[], Any], Any]] = {
    "a value": (lambda: "a", "a"),
    "None": (lambda: None, None),
    "a list": (lambda: ["a", "b"], ["a", "b"]),
    "a future value": (partial(nothing), None),
    "a stream": (letters, ["a", "b", "c"]),
    "no items": (lambda: letters(""), []),
    "an iterator that is no generator": (Letters, ["a", "b", "c"]),
}


def stream_later() -> Awaitable[AsyncIterator[str]]:
    async def later() -> AsyncIterator[str]:
        await anyio.sleep(0.1)
        return letters()

    return later()


THINKS["a future stream"] = (stream_later, ["a", "b", "c"])


@pytest.mark.parametrize("speculative", [True, False])
@pytest.mark.parametrize("kind", THINKS)
async def test_an_await_of_a_thought_is_its_value_or_the_list_of_its_stream(
    call: "Call", kind: str, speculative: bool
) -> None:
    make, expected = THINKS[kind]
    agent = call.agent()
    taken = []
    agent.think(lambda turn: make())

    @agent.respond
    async def respond(turn: Turn, thought: Thought[Any]) -> None:
        taken.append(await thought)
        taken.append(await thought)  # as often as one likes

    async with agent:
        call.start()
        if speculative:
            call.eager("hello")
            await anyio.sleep(1)
        call.end("hello")
    assert taken == [expected, expected]


@pytest.mark.parametrize("kind", THINKS)
async def test_an_iteration_takes_each_item_once_and_a_value_once(call: "Call", kind: str) -> None:
    make, expected = THINKS[kind]
    agent = call.agent()
    taken = []
    agent.think(lambda turn: make())

    @agent.respond
    async def respond(turn: Turn, thought: Thought[Any]) -> None:
        taken.extend([item async for item in thought])
        taken.extend([item async for item in thought])

    async with agent:
        call.turn("hello")
    assert taken == (expected if "stream" in kind or "no " in kind else [expected])
    [settled] = call.settled
    assert settled.items == len(taken)


async def test_an_await_after_an_iteration_gives_what_is_left(call: "Call") -> None:
    agent = call.agent()
    taken: list[object] = []
    agent.think(lambda turn: letters())

    @agent.respond
    async def respond(turn: Turn, thought: Thought[Any]) -> None:
        async for item in thought:
            taken.append(item)
            break
        taken.append(await thought)

    async with agent:
        call.turn("hello")
    assert taken == ["a", ["b", "c"]]


async def test_roles_may_be_plain_functions(call: "Call") -> None:
    agent = call.agent()
    agent.listen(lambda turn: call.see(f"listen {turn.number}"))
    agent.think(lambda turn: call.see(f"think {turn.transcript}"))
    agent.respond(lambda turn, thought: call.see(f"respond {turn.number} {thought.number}"))
    async with agent:
        call.guess("hello")
        await anyio.sleep(1)
        call.end("hello")
    assert sorted(call.seen) == [(0.0, "listen 1"), (0.0, "think hello"), (1.0, "respond 1 1")]


async def test_a_thought_is_given_its_text_and_its_number(call: "Call") -> None:
    agent = call.speaks()

    @agent.think
    async def think(turn: Turn) -> str:
        thought = current_thought()
        return f"{turn.transcript} {turn.latest_thought} {thought.number} {thought.speculative}"

    async with agent:
        call.guess("hello")
        await anyio.sleep(1)
        call.eager("hello world")
        await anyio.sleep(1)
        call.end("Hello, world.")
    assert call.said == ["hello world 2 2 True"]


# -- what a thought knows


async def test_head_start_and_saved_are_what_speculation_gave_and_gained(call: "Call") -> None:
    agent = call.agent()
    known: list[tuple[float | None, float | None]] = []

    @agent.think
    async def think(turn: Turn) -> AsyncIterator[str]:
        thought = current_thought()
        known.append((thought.head_start, thought.saved))
        await anyio.sleep(0.4)
        yield "a"
        known.append((thought.head_start, thought.saved))

    @agent.respond
    async def respond(turn: Turn, thought: Thought[Any]) -> None:
        known.append((thought.head_start, thought.saved))
        await thought
        known.append((thought.head_start, thought.saved))

    async with agent:
        call.guess("hello")
        await anyio.sleep(1)
        call.end("hello")  # the model took 0.4 of that second
        await anyio.sleep(1)
        call.guess("you")
        await anyio.sleep(0.25)
        call.end("you")  # the model is not there yet
        await anyio.sleep(1)
        call.turn("they")  # not speculative
    expected: list[tuple[float | None, float | None]] = [
        *[(None, None), (None, None), (1.0, 0.4), (1.0, 0.4)],
        *[(None, None), (0.25, None), (0.25, 0.25), (0.25, 0.25)],
        *[(0.0, None), (0.0, None), (0.0, 0.0), (0.0, 0.0)],
    ]
    assert [(h and round(h, 6), s and round(s, 6)) for h, s in sorted_pairs(known)] == sorted_pairs(expected)


def sorted_pairs(pairs: list[tuple[float | None, float | None]]) -> list[tuple[float | None, float | None]]:
    """Thought and reply begin in one step, in either order."""
    return [pair for i in range(0, 12, 4) for pair in sorted(pairs[i : i + 4], key=str)]


async def test_a_thought_that_never_ran_had_no_head_start(call: "Call") -> None:
    agent = call.agent(grace=1)
    known: list[object] = []

    @agent.think
    async def think(turn: Turn) -> str:
        if turn.latest_thought == 1:
            await call.stubborn(0.5)
        return "a"

    @agent.respond
    async def respond(turn: Turn, thought: Thought[Any]) -> None:
        known.append((thought.head_start, thought.saved))
        await thought
        known.append((thought.head_start, thought.saved, thought.began))

    async with agent:
        call.guess("hello")
        await anyio.sleep(0.1)
        call.eager("hello you")  # waits until the first is gone
        call.end("hello you")
    assert known == [(0.0, None), (0.0, 0.0, 0.5)]


async def test_notes_come_back_when_the_thought_is_settled(call: "Call") -> None:
    agent = call.speaks()

    @agent.think
    async def think(turn: Turn) -> str:
        current_thought().note(model="small", tokens=1)
        current_thought().note(tokens=2)
        return "a"

    async with agent:
        call.guess("hello")
        await anyio.sleep(1)
        call.resume()
        call.end("hello you")
    assert [settled.notes for settled in call.settled] == [{"model": "small", "tokens": 2}] * 2


async def test_the_current_thought_is_known_however_deep(call: "Call") -> None:
    agent = call.speaks()
    seen: list[Thought[Any]] = []

    async def deep() -> None:
        seen.append(current_thought())

    @agent.think
    async def think(turn: Turn) -> AsyncIterator[str]:
        await deep()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(deep)
        yield "a"
        await deep()

    async with agent:
        call.turn("hello")
    assert len(seen) == 3
    assert len(set(map(id, seen))) == 1


async def test_outside_a_thought_there_is_none() -> None:
    with pytest.raises(RuntimeError, match="outside a thought"):
        current_thought()
    with pytest.raises(RuntimeError, match="outside a thought"):
        committed()


async def test_in_respond_and_listen_there_is_no_thought(call: "Call") -> None:
    agent = call.agent()
    failures: list[Exception] = []
    agent.on_failure(lambda turn, error: failures.append(error))
    agent.listen(lambda turn: current_thought())
    agent.think(lambda turn: "a")

    @agent.respond
    async def respond(turn: Turn, thought: Thought[Any]) -> None:
        await committed()

    async with agent:
        call.turn("hello")
    assert [str(error).startswith("outside a thought") for error in failures] == [True] * 2


async def test_a_thought_that_nobody_speaks_has_no_items_and_is_not_heard(call: "Call") -> None:
    agent = call.speaks()

    @agent.think
    async def think(turn: Turn) -> str:
        thought = current_thought()
        with pytest.raises(RuntimeError, match="is not heard before its turn is committed"):
            thought.heard("a")
        assert [item async for item in thought] == []
        with pytest.raises(RuntimeError, match="interrupted"):
            await thought
        return "a"

    async with agent:
        call.guess("hello")
        await anyio.sleep(1)
        call.end("hello")
    assert call.said == ["a"]


def test_the_package_gives_the_agents_names_when_they_are_asked_for() -> None:
    import inkturns

    names = {*module.__all__} & {*inkturns.__all__}
    assert names >= {"Agent", "Thought", "committed", "current_thought"}
    for name in names:
        assert getattr(inkturns, name) is getattr(module, name)


async def test_run_takes_whatever_can_be_iterated(call: "Call") -> None:
    class Frames(Letters):
        async def __anext__(self) -> Any:
            await super().__anext__()
            return (TurnStart(), TurnEnd(transcript="hello"))[self.asked - 1]

    agent = call.speaks()
    agent.think(lambda turn: turn.transcript)
    await agent.run(Frames("ab"))
    assert call.said == ["hello"]
