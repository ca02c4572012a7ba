"""Agent: how a stream runs ahead of its reply, by how much, and in whose task."""

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from inkturns.actions import CancelReason, Turn
from inkturns.agent import Outcome, Thought

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


# -- the buffer


def counted(call: "Call", made: list[int]) -> AsyncIterator[int]:
    async def stream() -> AsyncIterator[int]:
        for i in range(10):
            made.append(i)
            yield i

    return stream()


@pytest.mark.parametrize("buffer_size", [1, 3])
async def test_a_stream_runs_ahead_by_the_buffer_size_before_and_after_the_commit(
    call: "Call", buffer_size: int
) -> None:
    agent, made = call.agent(buffer_size=buffer_size), list[int]()
    ahead = []
    agent.think(lambda turn: counted(call, made))

    @agent.respond
    async def respond(turn: Turn, thought: Thought[Any]) -> None:
        async for i in thought:
            await anyio.sleep(0.1)
            ahead.append(len(made) - i - 1)

    async with agent:
        call.guess("hello")
        await anyio.sleep(1)
        assert made == list(range(buffer_size))
        call.end("hello")
    assert made == list(range(10))
    assert ahead == [min(buffer_size, 9 - i) for i in range(10)]


async def test_whoever_waits_for_all_of_a_stream_is_not_stopped_by_the_buffer(call: "Call") -> None:
    agent, made = call.agent(buffer_size=2), list[int]()
    agent.think(lambda turn: counted(call, made))

    @agent.respond
    async def respond(turn: Turn, thought: Thought[Any]) -> None:
        call.see(f"{await thought}")

    async with agent:
        call.guess("hello")
        await anyio.sleep(1)
        assert made == [0, 1]
        call.end("hello")
    assert call.said == [f"{list(range(10))}"]


async def test_who_stops_waiting_for_all_of_a_stream_leaves_the_buffer_as_it_was(call: "Call") -> None:
    agent = call.agent(buffer_size=2)
    agent.think(lambda turn: letters("abcdefgh", pause=0.1))
    taken: list[object] = []

    @agent.respond
    async def respond(turn: Turn, thought: Thought[Any]) -> None:
        with anyio.move_on_after(0.35):
            await thought
        await anyio.sleep(10)
        taken.extend([current async for current in thought])

    async with agent:
        call.turn("hello")
        await anyio.sleep(5)
        assert call.settled == []  # it has not run on to its end
    assert taken == list("abcdefgh")


async def test_waiting_on_a_thought_may_be_cancelled_and_taken_up_again(call: "Call") -> None:
    """A timeout around taking the next item, at any moment: nothing is lost, doubled or out of order."""
    agent = call.agent(buffer_size=2)
    agent.think(lambda turn: letters("abcdefghijklmnopqrstuvwxyz", pause=0.07))
    taken: list[object] = []
    timeouts = 0

    @agent.respond
    async def respond(turn: Turn, thought: Thought[Any]) -> None:
        nonlocal timeouts
        for patience in (0.0, 0.01, 0.03, 0.07, 0.01, 0.02) * 200:
            with anyio.move_on_after(patience) as scope:
                taken.append(await anext(thought))
            timeouts += scope.cancelled_caught
            if len(taken) % 5 == 0:
                with anyio.move_on_after(patience):
                    await thought
                    pytest.fail("it was not over")
            if len(taken) == 20:
                break
        taken.extend(await thought)

    async with agent:
        call.turn("hello")
    assert "".join(map(str, taken)) == "abcdefghijklmnopqrstuvwxyz"
    assert timeouts > 20


async def test_a_value_is_not_lost_to_a_timeout(call: "Call") -> None:
    agent = call.agent()

    @agent.think
    async def think(turn: Turn) -> str:
        await anyio.sleep(1)
        return "a"

    @agent.respond
    async def respond(turn: Turn, thought: Thought[Any]) -> None:
        for _ in range(3):
            with anyio.move_on_after(0.3):
                await thought
                pytest.fail("it was not over")
        call.see(await thought)

    async with agent:
        call.turn("hello")
    assert call.seen == [(1.0, "a")]


# -- one task iterates and closes


async def test_one_task_iterates_and_closes_a_stream(call: "Call") -> None:
    """A scope open around a yield, with tasks in it, is entered and left in one task, at every way to end."""
    agent = call.speaks(buffer_size=1)

    @agent.think
    async def think(turn: Turn) -> AsyncIterator[str]:
        task = anyio.get_current_task().id
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(anyio.sleep, 0.5)
                yield "a"
                yield "b"
        finally:
            call.see(f"closed {anyio.get_current_task().id == task}")

    async with agent:
        call.guess("hello")
        await anyio.sleep(0.1)
        call.resume()  # cancelled in the wait for room
        await anyio.sleep(0.1)
        assert call.said == ["closed True"]
        call.end("hello")
        await anyio.sleep(1)
        assert call.said == ["closed True", "a", "b", "closed True"]
    assert call.reports == []


async def test_no_scope_of_the_agents_is_open_between_two_items(call: "Call") -> None:
    agent = call.speaks(buffer_size=1)

    @agent.think
    async def think(turn: Turn) -> AsyncIterator[str]:
        with anyio.fail_after(10):
            yield "a"
        with anyio.CancelScope() as across:
            yield "b"
        across.cancel()
        yield "c"

    async with agent:
        call.guess("hello")
        await anyio.sleep(1)
        call.end("hello")
    assert call.said == ["a", "b", "c"]


@pytest.mark.parametrize("caught", [True, False])
async def test_what_is_raised_in_the_wait_for_room_is_thrown_in_at_the_yield(call: "Call", caught: bool) -> None:
    """A timeout of the stream's own, around its yield, that passes while the buffer is full."""
    agent = call.speaks(buffer_size=1)

    @agent.think
    async def think(turn: Turn) -> AsyncIterator[str]:
        try:
            with anyio.fail_after(1):
                yield "a"
        except TimeoutError:
            call.see("timeout")
            if not caught:
                raise
        yield "b"

    async with agent:
        call.guess("hello")
        await anyio.sleep(2)
        assert call.seen == [(1.0, "timeout")]
        call.end("hello")
    assert call.said == ["timeout", "a", "b"]
    # Not caught, it failed while it was speculative; the end thought afresh, and that was taken from at once.
    assert [settled.reason for settled in call.settled] == ([None] if caught else [CancelReason.FAILED, None])


async def test_a_stream_may_end_where_something_is_thrown_in(call: "Call") -> None:
    agent = call.speaks(buffer_size=1)

    @agent.think
    async def think(turn: Turn) -> AsyncIterator[str]:
        with anyio.move_on_after(1):
            yield "a"

    async with agent:
        call.guess("hello")
        await anyio.sleep(2)
        call.end("hello")
    assert call.said == ["a"]
    [settled] = call.settled
    assert (settled.outcome, settled.items, settled.finished) == (Outcome.ADOPTED, 1, 1.0)


async def test_a_stream_that_nothing_can_be_thrown_into_is_cancelled(call: "Call") -> None:
    agent = call.speaks(buffer_size=1)
    streams = [Letters("ab"), Letters("ab")]
    made = [*streams]
    agent.think(lambda turn: streams.pop(0))
    async with agent:
        call.guess("hello")
        await anyio.sleep(1)
        call.resume()
        await anyio.sleep(1)
        call.end("hello")
    assert call.said == ["a", "b"]
    assert [stream.asked for stream in made] == [1, 3]


async def test_a_stream_that_goes_on_after_it_was_cancelled_is_closed_and_not_heard(call: "Call") -> None:
    agent = call.speaks()

    @agent.think
    async def think(turn: Turn) -> AsyncIterator[str]:
        try:
            try:
                await anyio.sleep(1)
            except BaseException:
                yield "in spite of all"
                pytest.fail("it was iterated on")
        finally:
            call.see("closed")

    async with agent:
        call.guess("hello")
        await anyio.sleep(0.5)
        call.resume()
        await anyio.sleep(0.5)
        assert call.seen == [(0.5, "closed")]
        [settled] = call.settled
    assert (settled.outcome, settled.items) == (Outcome.CANCELLED, 1)
