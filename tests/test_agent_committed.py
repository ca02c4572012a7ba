"""Agent: what waits for the commit of its thought, and what is kept whole."""

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import anyio
import pytest
from anyio.abc import TaskGroup

from inkturns.actions import ReportKind, Turn
from inkturns.agent import Agent, Thought, committed
from inkturns.events import Disconnected, TurnEagerEnd, TurnEnd, TurnStart

if TYPE_CHECKING:
    from tests.conftest import Call


# -- what waits for the commit


async def test_committed_waits_for_the_end_of_the_turn(call: "Call") -> None:
    agent = call.speaks()

    @agent.think
    async def think(turn: Turn) -> AsyncIterator[str]:
        call.see("asked")
        await committed()
        call.see("booked")
        yield "booked"
        await committed()
        async with committed():
            call.see("and once more")

    async with agent:
        call.guess("book it")
        await anyio.sleep(1)
        call.end("Book it.")
    assert sorted(call.seen) == [(0.0, "asked"), (1.0, "and once more"), (1.0, "booked"), (1.0, "booked")]


async def test_what_waits_for_the_commit_of_a_cancelled_thought_never_goes_on(call: "Call") -> None:
    agent = call.speaks()

    @agent.think
    async def think(turn: Turn) -> str:
        try:
            if turn.latest_thought == 1:
                await committed()
            else:
                async with committed():
                    call.see("in the block")
            call.see(f"committed {turn.latest_thought}")
        finally:
            call.see(f"out {turn.latest_thought}")
        return "a"

    async with agent:
        call.guess("book")
        await anyio.sleep(1)
        call.eager("book it")
        await anyio.sleep(1)
        call.resume()
        await anyio.sleep(1)
        call.end("")  # answers what was said
    assert call.seen == [
        *[(1.0, "out 1"), (2.0, "out 2")],
        *[(3.0, "in the block"), (3.0, "committed 3"), (3.0, "out 3"), (3.0, "a")],
    ]


async def test_a_task_of_the_thought_may_wait_for_the_commit(call: "Call") -> None:
    agent = call.speaks()

    async def effect(name: str) -> None:
        await committed()
        call.see(name)

    @agent.think
    async def think(turn: Turn) -> str:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(effect, f"effect of {turn.transcript}")
        return "done"

    async with agent:
        call.guess("this")
        await anyio.sleep(1)
        call.eager("that")
        await anyio.sleep(1)
        call.end("that")
    assert call.seen == [(2.0, "effect of that"), (2.0, "done")]


@pytest.mark.parametrize("whole", [True, False])
async def test_the_gate_fails_closed_where_cancellation_does_not_reach(call: "Call", whole: bool, backend: str) -> None:
    """A task that outlives its thought, and, on trio, a thought that has shielded itself: asyncio's own cancellation
    reaches the latter."""
    agent = call.speaks()

    async def effect(name: str) -> None:
        with pytest.raises(RuntimeError, match="the thought is cancelled"):
            await gate()
        call.see(name)

    async def gate() -> None:
        if not whole:
            await committed()
        async with committed():
            pytest.fail("a cancelled thought got through")

    async def run(tasks: TaskGroup) -> None:
        @agent.think
        async def think(turn: Turn) -> str:
            tasks.start_soon(effect, "elsewhere")
            with anyio.CancelScope(shield=True):
                await effect("shielded")
            return "a"

        async with agent:
            call.guess("hello")
            await anyio.sleep(1)
            call.feed(Disconnected())
            await anyio.sleep(1)

    async with anyio.create_task_group() as tasks:
        await run(tasks)
    assert sorted(call.seen) == [(1.0, "elsewhere"), *([(1.0, "shielded")] if backend == "trio" else [])]


async def test_a_block_is_kept_whole_and_the_next_thought_begins_after_it(call: "Call") -> None:
    agent = call.speaks()

    @agent.think
    async def think(turn: Turn) -> AsyncIterator[str]:
        call.see(f"think {turn.number}")
        if turn.number == 1:
            yield "one moment"
            async with committed():
                await anyio.sleep(3)  # longer than `grace`
                call.see("booked")
            await anyio.sleep(0)
            pytest.fail("it went on after its block")
        yield "booked already"

    async with agent:
        call.turn("book it")
        await anyio.sleep(1)
        call.guess("no")  # a barge-in
        await anyio.sleep(1)
        call.end("no")
        await anyio.sleep(5)
    assert call.seen == [
        *[(0.0, "think 1"), (0.0, "one moment"), (3.0, "booked"), (3.0, "think 2"), (3.0, "booked already")],
    ]
    assert call.reports == []


async def test_a_block_that_was_entered_ahead_is_whole_too(call: "Call") -> None:
    """The barge-in comes before the thought was heard at all; the block is around its yields."""
    agent = call.speaks(buffer_size=1)

    @agent.think
    async def think(turn: Turn) -> AsyncIterator[str]:
        if turn.number == 1:
            async with committed():
                for i in range(3):
                    yield f"never heard {i}"
                    await anyio.sleep(1)
                call.see("whole")

    @agent.listen
    async def listen(turn: Turn) -> None:
        await call.stubborn(0.3)

    async with agent:
        call.turn("book it")
        await anyio.sleep(0.1)
        call.start()
        await anyio.sleep(5)
    assert call.seen == [(3.1, "whole")]


async def test_a_block_has_until_the_block_timeout(call: "Call") -> None:
    agent = call.speaks(committed_block_timeout=2)

    @agent.think
    async def think(turn: Turn) -> str:
        if turn.number == 1:
            try:
                async with committed():
                    await anyio.sleep(10)
                call.see("nobody may take it for done")
            finally:
                call.see("cut")
        call.see(f"think {turn.number}")
        return "a"

    async with agent:
        call.turn("book it")
        await anyio.sleep(1)
        call.turn("no")
        await anyio.sleep(5)
    assert call.seen == [(3.0, "cut"), (3.0, "think 2"), (3.0, "a")]
    assert call.reports == []


async def test_a_block_that_will_not_end_is_reported_after_the_block_timeout_and_grace(call: "Call") -> None:
    agent = call.speaks(committed_block_timeout=2, grace=0.5)

    @agent.think
    async def think(turn: Turn) -> str:
        if turn.number == 1:
            async with committed():
                await call.stubborn(8)
        call.see(f"think {turn.number}")
        return "a"

    async with agent:
        call.turn("book it")
        await anyio.sleep(1)
        call.turn("no")
        await anyio.sleep(5)
        assert call.seen == [(3.5, "think 2"), (3.5, "a")]
    assert [report.kind for report in call.reports] == [ReportKind.STUCK_TASK]


async def test_blocks_may_be_nested_and_several(call: "Call") -> None:
    agent = call.speaks()

    async def effect(seconds: float) -> None:
        async with committed():
            await anyio.sleep(seconds)
            call.see(f"effect {seconds}")

    @agent.think
    async def think(turn: Turn) -> str:
        if turn.number == 1:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(effect, 2)
                async with committed():
                    await effect(1)
            await anyio.sleep(0)
        call.see(f"think {turn.number}")
        return "a"

    async with agent:
        call.turn("book it")
        await anyio.sleep(0.5)
        call.turn("no")
        await anyio.sleep(5)
    assert call.seen == [(1.0, "effect 1"), (2.0, "effect 2"), (2.0, "think 2"), (2.0, "a")]


# -- what a fresh mind found


@pytest.mark.parametrize("how", ["block", "await"])
@pytest.mark.parametrize("closes", [False, True])
async def test_a_gate_inside_a_block_is_the_blocks_own(call: "Call", how: str, closes: bool) -> None:
    """So that a helper with a gate of its own does not tear the block in half, when the barge-in came between."""
    agent = call.speaks()

    @agent.think
    async def think(turn: Turn) -> str:
        async with committed():
            call.see("debit")
            await anyio.sleep(1)
            if how == "block":
                async with committed():
                    call.see("credit")
            else:
                await committed()
                call.see("credit")
            await anyio.sleep(1)
            call.see("whole")
        return "x"

    async with agent:
        call.turn("pay")
        await anyio.sleep(0.5)
        agent.close() if closes else call.start()
        with anyio.CancelScope(shield=closes):
            await anyio.sleep(5)
    assert call.seen == [(0.0, "debit"), (1.0, "credit"), (2.0, "whole")]


async def test_tasks_that_share_a_gate_have_a_block_each(call: "Call") -> None:
    """The block that ends first leaves the other one whole."""
    agent = call.speaks()

    @agent.think
    async def think(turn: Turn) -> str:
        gate = committed()

        async def pays(seconds: float) -> None:
            async with gate:
                await anyio.sleep(seconds)
                await committed()
                call.see("whole")

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(pays, 0.5)
            tasks.start_soon(pays, 2)
        return "x"

    async with agent:
        call.turn("pay")
        await anyio.sleep(1)
        call.start()
        await anyio.sleep(5)
    assert call.seen == [(0.5, "whole"), (2.0, "whole")]


async def test_the_thought_of_an_agent_inside_a_block_of_another_waits_for_its_own_commit(call: "Call") -> None:
    outer, inner = call.speaks(), Agent()

    @inner.think
    async def books(turn: Turn) -> str:
        await committed()
        call.see("booked")
        return "x"

    @inner.respond
    async def respond(turn: Turn, thought: Thought[str]) -> None:
        await thought

    @outer.think
    async def think(turn: Turn) -> str:
        async with committed(), inner:
            inner.feed(TurnStart())
            inner.feed(TurnEagerEnd(transcript="book"))
            await anyio.sleep(1)
            inner.feed(TurnEnd(transcript="book"))
            await anyio.sleep(1)
        return "y"

    async with outer:
        call.turn("hello")
        await anyio.sleep(5)
    assert call.seen == [(1.0, "booked"), (2.0, "y")]


async def test_a_block_that_was_broken_leaves_the_clean_up_after_it_alone(call: "Call") -> None:
    """The cut was delivered when `committed_block_timeout` was over, and not once more at the block's end."""
    agent = call.speaks(committed_block_timeout=2, grace=5)

    @agent.think
    async def think(turn: Turn) -> str:
        if turn.number == 1:
            try:
                async with committed():
                    await anyio.sleep(10)
            finally:
                with anyio.CancelScope(shield=True):
                    await anyio.sleep(1)
                    call.see("cleaned up")
        return "a"

    async with agent:
        call.turn("book it")
        await anyio.sleep(1)
        call.start()
        await anyio.sleep(9)
    assert call.seen == [(4.0, "cleaned up")]
