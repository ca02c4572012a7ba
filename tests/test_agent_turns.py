"""Agent: what it begins, holds, cancels and commits as turns go by."""

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from inkturns.actions import CancelReason, ReportKind, Turn
from inkturns.agent import Outcome, Thought, current_thought
from inkturns.events import ContextChanged, Disconnected, EndNow
from inkturns.policy import AfterDisconnect, AfterResume, Policy

if TYPE_CHECKING:
    from tests.conftest import Call


# -- at most one thinks, at most one responds; cancelling is immediate


async def test_what_is_cancelled_is_cut_at_once_and_the_next_begins_when_it_is_gone(call: "Call") -> None:
    agent = call.speaks(grace=1)
    thinking = 0

    @agent.think
    async def think(turn: Turn) -> str:
        nonlocal thinking
        thinking += 1
        assert thinking == 1
        call.see(f"think {turn.transcript}")
        try:
            await anyio.sleep(10)
        finally:
            call.see(f"cancelled {turn.transcript}")
            await call.stubborn(0.5)
            thinking -= 1
        return "never"

    async with agent:
        call.guess("a")
        await anyio.sleep(1)
        call.eager("a b")
        await anyio.sleep(0.1)
        call.eager("a b c")  # the second never began
        await anyio.sleep(2)
        call.resume()
        await anyio.sleep(1)
    assert call.seen == [
        *[(0.0, "think a"), (1.0, "cancelled a"), (1.5, "think a b c"), (3.1, "cancelled a b c")],
    ]
    assert [(settled.thought, settled.began, settled.outcome) for settled in call.settled] == [
        (2, None, Outcome.CANCELLED),
        (1, 0.0, Outcome.CANCELLED),
        (3, 1.5, Outcome.CANCELLED),
    ]


@pytest.mark.parametrize("step", range(10))
async def test_what_is_cancelled_in_the_step_in_which_it_would_begin_never_begins(call: "Call", step: int) -> None:
    agent = call.speaks(grace=5)
    leave = anyio.Event()

    @agent.think
    async def think(turn: Turn) -> None:
        call.see(f"think {turn.transcript} {current_thought().cut_at}")
        if turn.latest_thought == 1:
            with anyio.CancelScope(shield=True):
                await leave.wait()
        await anyio.sleep(9)

    async with agent:
        call.guess("a")
        await anyio.sleep(1)
        call.eager("a b")
        await anyio.sleep(1)
        leave.set()
        for _ in range(step):
            await anyio.lowlevel.checkpoint()
        call.resume()
        said = [*call.said]
        await anyio.sleep(1)
        assert call.said == said
    assert "think a None" in said
    assert {settled.outcome for settled in call.settled} == {Outcome.CANCELLED}


async def test_who_swallows_a_cancellation_is_cancelled_again(call: "Call", backend: str) -> None:
    """On trio at each checkpoint, on asyncio after each `grace`."""
    agent = call.speaks(grace=0.5)
    swallowed = 0

    @agent.think
    async def think(turn: Turn) -> str:
        nonlocal swallowed
        for _ in range(5):
            try:
                await anyio.sleep(10)
            except anyio.get_cancelled_exc_class():
                swallowed += 1
        await anyio.sleep(10)
        return "never"

    async with agent:
        call.guess("a")
        await anyio.sleep(1)
        call.resume()
        await anyio.sleep(0.01)
        assert swallowed == (1 if backend == "asyncio" else 5)
        await anyio.sleep(2.5)
        assert swallowed == 5
        assert [settled.outcome for settled in call.settled] == [Outcome.CANCELLED]
    assert call.said == []


async def test_a_stuck_thought_is_reported_once_and_never_heard(call: "Call") -> None:
    agent = call.speaks(grace=0.5)

    @agent.think
    async def think(turn: Turn) -> AsyncIterator[str]:
        call.see(f"think {turn.number}")
        if turn.number == 1:
            yield "a"
            for _ in range(5):
                await call.stubborn(1)
                yield "stuck"
        yield f"reply {turn.number}"

    async with agent:
        call.turn("hello")
        await anyio.sleep(0.1)
        call.turn("stop")
        await anyio.sleep(0.1)
        call.turn("please")
        await anyio.sleep(3)
    assert call.seen == [(0.0, "think 1"), (0.0, "a"), (0.6, "think 3"), (0.6, "reply 3")]
    assert [(report.kind, report.event) for report in call.reports] == [(ReportKind.STUCK_TASK, None)]
    assert "thought 1 of turn 1" in call.reports[0].detail


async def test_a_stuck_reply_is_reported_and_takes_no_more(call: "Call") -> None:
    agent = call.agent(grace=0.5)
    agent.think(lambda turn: ticking())

    async def ticking() -> AsyncIterator[int]:
        for i in range(20):
            yield i
            await anyio.sleep(0.1)

    @agent.respond
    async def respond(turn: Turn, thought: Thought[Any]) -> None:
        with anyio.CancelScope(shield=turn.number == 1):
            async for item in thought:
                call.see(f"{turn.number}: {item}")
                if turn.number == 1:
                    await call.stubborn(3)
            with pytest.raises(RuntimeError, match="interrupted"):
                await thought
            assert [item async for item in thought] == []
            call.see(f"{turn.number} is over")

    async with agent:
        call.turn("hello")
        await anyio.sleep(1)
        call.turn("stop")
        await anyio.sleep(0.6)
        call.start()
        await anyio.sleep(2)
    assert [seen for seen in call.seen if not seen[1].startswith("2: ")] == [(0.0, "1: 0"), (3.0, "1 is over")]
    assert [seen for seen in call.seen if seen[1] in ("2: 0", "2: 5", "2: 6")] == [(1.5, "2: 0"), (1.5, "2: 5")]
    assert [report.detail for report in call.reports] == [
        "reply to turn 1 goes on though it was cancelled; it is not heard"
    ]


async def test_when_respond_returns_the_rest_of_its_thought_is_cancelled(call: "Call") -> None:
    agent = call.agent()

    @agent.think
    async def think(turn: Turn) -> AsyncIterator[str]:
        try:
            yield "a"
            await anyio.sleep(10)
            yield "b"
        finally:
            call.see("cancelled")

    @agent.respond
    async def respond(turn: Turn, thought: Thought[Any]) -> None:
        call.see(await anext(thought))

    async with agent:
        call.turn("hello")
        await anyio.sleep(1)
        [settled] = call.settled
    assert call.seen == [(0.0, "a"), (0.0, "cancelled")]
    assert (settled.outcome, settled.reason, settled.items, settled.finished) == (Outcome.ADOPTED, None, 1, None)


async def test_nothing_can_be_taken_from_a_thought_whose_reply_is_over(call: "Call") -> None:
    agent = call.agent()
    agent.think(lambda turn: three_words())

    async def three_words() -> AsyncIterator[str]:
        for word in "one", "two", "three":
            yield word

    async with anyio.create_task_group() as tasks:

        async def later(thought: Thought[Any]) -> None:
            await anyio.sleep(1)
            await call.speak(thought)

        @agent.respond
        async def respond(turn: Turn, thought: Thought[Any]) -> None:
            tasks.start_soon(later, thought)
            call.see(await anext(thought))

        async with agent:
            call.turn("count")
            await anyio.sleep(2)
    assert call.said == ["one"]
    assert agent.history.messages()[-1] == {"role": "assistant", "content": "one"}


async def test_respond_takes_what_was_made_before_and_then_what_comes(call: "Call") -> None:
    agent = call.speaks()

    @agent.think
    async def think(turn: Turn) -> AsyncIterator[str]:
        for word in "one", "two", "three":
            await anyio.sleep(0.4)
            yield word

    async with agent:
        call.guess("count")
        await anyio.sleep(1)
        assert call.seen == []
        call.end("Count!")
    assert call.seen == [(1.0, "one"), (1.0, "two"), (1.2, "three")]


async def test_a_kept_thought_outlives_a_resume_until_the_text_moves(call: "Call") -> None:
    agent = call.speaks(policy=Policy(after_resume=AfterResume.KEEP))

    @agent.think
    async def think(turn: Turn) -> str:
        call.see(f"think {turn.transcript}")
        return turn.transcript

    async with agent:
        call.guess("hello")
        await anyio.sleep(1)
        call.resume()
        await anyio.sleep(1)
        call.end("hello")
        await anyio.sleep(1)
        call.guess("one")
        await anyio.sleep(1)
        call.resume()
        call.update("one two")
        await anyio.sleep(1)
        call.end("one two")
    assert call.seen == [
        *[(0.0, "think hello"), (2.0, "hello"), (3.0, "think one"), (5.0, "think one two"), (5.0, "one two")]
    ]
    assert [settled.reason for settled in call.settled] == [None, CancelReason.MOVED, None]


# -- the application's inputs


async def test_end_now_closes_the_turn_and_adopts_what_was_thought(call: "Call") -> None:
    agent = call.speaks()
    agent.think(lambda turn: f"{turn.latest_thought}")
    agent.on_end(lambda turn: call.see(f"{turn.end} {turn.transcript}"))
    async with agent:
        agent.end_now()  # nothing is open
        call.guess("hello")
        await anyio.sleep(1)
        agent.end_now()
        await anyio.sleep(1)
        call.start()
        call.update("you")
        agent.feed(EndNow())
    assert call.seen == [(1.0, "forced hello"), (1.0, "1"), (2.0, "forced you"), (2.0, "1")]


async def test_context_changed_withdraws_the_thought_and_thinks_again(call: "Call") -> None:
    agent = call.speaks()
    fact = "old"

    @agent.think
    async def think(turn: Turn) -> str:
        return fact

    async with agent:
        call.guess("hello")
        await anyio.sleep(1)
        fact = "new"
        agent.context_changed()
        await anyio.sleep(1)
        call.end("hello")
        await anyio.sleep(1)
        agent.feed(ContextChanged())
    assert call.seen == [(2.0, "new")]
    assert [settled.reason for settled in call.settled] == [CancelReason.CONTEXT_CHANGED, None]


async def test_use_decides_by_another_policy_from_here_on(call: "Call") -> None:
    agent = call.speaks(policy=Policy(speculate=False))
    agent.think(lambda turn: call.see(f"think {current_thought().speculative}"))
    async with agent:
        call.guess("one")
        await anyio.sleep(1)
        call.end("one")
        await anyio.sleep(1)
        agent.use(Policy(after_disconnect=AfterDisconnect.RESPOND))
        call.guess("two")
        await anyio.sleep(1)
        call.feed(Disconnected())
    assert call.seen == [(1.0, "think False"), (1.0, "None"), (2.0, "think True"), (3.0, "None")]


# -- settled


async def test_every_thought_is_settled_with_what_became_of_it(call: "Call") -> None:
    agent = call.speaks()
    failures: list[Exception] = []
    agent.on_failure(lambda turn, error: failures.append(error))

    @agent.think
    async def think(turn: Turn) -> AsyncIterator[str]:
        await anyio.sleep(0.25)
        yield "a"
        await anyio.sleep(0.25)
        if "fail" in turn.transcript:
            raise ValueError("so be it")
        yield "b"
        await anyio.sleep(0.25)

    async with agent:
        call.guess("one")
        await anyio.sleep(1)
        call.resume()  # which cancels it, after it was finished
        call.eager("one fail")
        await anyio.sleep(1)  # failed
        call.resume()
        call.update("one two")
        call.eager("one two")
        await anyio.sleep(0.375)
        call.end("one two")  # adopted
        await anyio.sleep(1)
        call.turn("fail")  # adopted, and failed
        await anyio.sleep(1)
    assert [
        (s.turn.number, s.thought, s.speculative, s.outcome, s.reason, s.began, s.first_item, s.finished, s.items)
        for s in call.settled
    ] == [
        (1, 1, True, Outcome.CANCELLED, CancelReason.RESUMED, 0.0, 0.25, 0.75, 2),
        (1, 2, True, Outcome.FAILED, CancelReason.FAILED, 1.0, 1.25, None, 1),
        (1, 3, True, Outcome.ADOPTED, None, 2.0, 2.25, 2.75, 2),
        (2, 1, False, Outcome.FAILED, None, 3.375, 3.625, None, 1),
    ]
    assert [s.committed_at for s in call.settled] == [None, None, 2.375, 3.375]
    assert [s.turn.transcript for s in call.settled] == ["one", "one fail", "one two", "fail"]
    assert [s.turn.end is None for s in call.settled] == [True, True, False, False]
    assert list(map(str, failures)) == ["so be it"]


async def test_a_thought_that_was_cancelled_before_it_failed_is_cancelled_alone(call: "Call") -> None:
    agent = call.speaks()

    @agent.think
    async def think(turn: Turn) -> str:
        try:
            await anyio.sleep(9)
        finally:
            raise ValueError("in its clean-up")

    async with agent:
        call.guess("one")
        await anyio.sleep(1)
        call.resume()
    [settled] = call.settled
    assert (settled.outcome, settled.reason) == (Outcome.CANCELLED, CancelReason.RESUMED)
