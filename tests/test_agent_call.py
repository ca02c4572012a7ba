"""Agent: a call from its beginning to its end, and how it is fed."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from inkturns.actions import ReportKind, Turn
from inkturns.agent import Agent, Outcome, ReplyOutcome, Thought
from inkturns.events import Connected, Disconnected, Event, TurnEagerEnd, TurnEnd, TurnStart
from inkturns.policy import AfterDisconnect, AfterStall, Policy
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


# -- run


async def test_a_reply_that_is_committed_when_the_items_end_may_finish(call: "Call") -> None:
    agent = call.agent()

    @agent.think
    async def think(turn: Turn) -> AsyncIterator[str]:
        for word in "a", "b":
            await anyio.sleep(1)
            yield word

    @agent.respond
    async def respond(turn: Turn, thought: Thought[Any]) -> None:
        await call.speak(thought)
        await anyio.sleep(1)
        call.see("heard")

    await agent.run(frames(*HELLO))
    assert call.seen == [(1.0, "a"), (2.0, "b"), (3.0, "heard")]


@pytest.mark.parametrize("after_disconnect", AfterDisconnect)
async def test_f53_an_open_turn_is_abandoned_when_the_items_end(
    call: "Call", after_disconnect: AfterDisconnect
) -> None:
    """Whatever the policy says: the caller has hung up."""
    agent = call.speaks(policy=Policy(after_disconnect=after_disconnect))
    agent.think(lambda turn: turn.transcript.upper())
    agent.on_abandon(lambda turn: call.see(f"{turn.end}"))
    agent.on_end(lambda turn: call.see("ended"))
    await agent.run(frames(TurnStart(), TurnEagerEnd(transcript="hello"), 1.0))
    assert call.seen == [(1.0, "lost")]


async def test_what_the_items_raise_is_raised_after_the_reply_has_finished(call: "Call") -> None:
    async def broken() -> AsyncIterator[Event]:
        for event in HELLO:
            yield event
        raise ConnectionError("gone")

    agent = call.speaks()

    @agent.think
    async def think(turn: Turn) -> str:
        await anyio.sleep(1)
        return "a"

    with pytest.raises(ConnectionError, match="gone"):
        await agent.run(broken())
    assert call.seen == [(1.0, "a")]


async def test_what_the_block_raises_is_raised_as_itself(call: "Call") -> None:
    agent = call.agent()
    with pytest.raises(ConnectionError, match="gone"):
        async with agent:
            raise ConnectionError("gone")


async def test_what_cannot_be_iterated_is_refused_before_the_call_begins(call: "Call") -> None:
    agent = call.agent()
    with pytest.raises(TypeError, match="items must be an async iterable of frames, got list"):
        await agent.run([])  # type: ignore[arg-type]
    async with agent:  # it can still serve its call
        agent.feed(TurnStart())


async def test_close_ends_the_call_at_once_and_without_an_error(call: "Call") -> None:
    agent = call.agent()
    agent.close()  # before it has begun, too
    agent.on_abandon(lambda turn: call.see(f"{turn.end}"))

    @agent.think
    async def think(turn: Turn) -> str:
        try:
            await anyio.sleep(9)
        finally:
            call.see("think")
        return "never"

    @agent.respond
    async def respond(turn: Turn, thought: Thought[Any]) -> None:
        try:
            await anyio.sleep(9)
        finally:
            call.see("respond")

    @agent.listen
    async def listen(turn: Turn) -> None:
        try:
            await anyio.sleep(9)
        finally:
            call.see("listen")

    async def close() -> None:
        await anyio.sleep(1)
        agent.close()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(close)
        await agent.run(frames(*HELLO, 9.0))
    assert sorted(call.seen) == [(0.5, "listen"), (1.0, "respond"), (1.0, "think")]  # listen: cut for the reply
    assert [settled.outcome for settled in call.settled] == [Outcome.ADOPTED]
    agent.close()


@pytest.mark.parametrize("after_disconnect", AfterDisconnect)
async def test_close_hands_over_the_words_of_the_open_turn(call: "Call", after_disconnect: AfterDisconnect) -> None:
    """Unanswered, whatever the policy says: nobody would hear it."""
    agent = call.speaks(policy=Policy(after_disconnect=after_disconnect))
    agent.on_abandon(lambda turn: call.see(f"{turn.end} {turn.transcript}"))
    agent.think(lambda turn: anyio.sleep(9))
    async with agent:
        call.guess("hello")
        await anyio.sleep(1)
        agent.close()
        await anyio.sleep(9)
    assert call.seen == [(1.0, "lost hello")]
    assert [settled.outcome for settled in call.settled] == [Outcome.CANCELLED]


@pytest.mark.parametrize("at", [0.5, 1.5, 2.5])  # while the items come, while it thinks, while it speaks
async def test_cancellation_from_outside_stops_at_once_and_every_task_is_over(call: "Call", at: float) -> None:
    agent = call.agent()
    running = 0

    async def counted(seconds: float) -> None:
        nonlocal running
        running += 1
        try:
            await anyio.sleep(seconds)
        finally:
            with anyio.move_on_after(0.1, shield=True):  # clean-up takes a while
                await anyio.sleep(9)
            running -= 1

    @agent.think
    async def think(turn: Turn) -> str:
        await counted(1)
        return "a"

    @agent.respond
    async def respond(turn: Turn, thought: Thought[Any]) -> None:
        await thought
        await counted(9)

    @agent.listen
    async def listen(turn: Turn) -> None:
        await counted(9)

    with anyio.move_on_after(at) as scope:
        await agent.run(frames(1.0, *HELLO))
    assert scope.cancelled_caught
    assert running == 0
    assert anyio.current_time() == pytest.approx(at + (0.1 if at > 1 else 0))


async def test_a_task_that_will_not_end_is_reported_and_waited_for(call: "Call") -> None:
    agent = call.speaks(grace=0.5)

    @agent.think
    async def think(turn: Turn) -> str:
        await call.stubborn(5)
        return "never"

    async with agent:
        call.guess("hello")
        await anyio.sleep(1)
        agent.close()
    assert anyio.current_time() == 5
    assert [(report.kind, report.detail) for report in call.reports] == [
        (ReportKind.STUCK_TASK, "thought 1 of turn 1 goes on though it was cancelled; it is not heard")
    ]
    assert call.said == []


async def test_as_many_connections_as_the_call_needs(call: "Call") -> None:
    agent = call.speaks()
    agent.think(lambda turn: f"{turn.request_id}: {turn.transcript}")
    agent.on_abandon(lambda turn: call.see(f"{turn.end} {turn.transcript}"))
    async with agent:
        for name in "first", "second":
            call.feed(Connected(request_id=name))
            call.turn("hello")
            await anyio.sleep(1)
            call.guess("and")
            await anyio.sleep(1)
            call.feed(Disconnected("network"))
    assert call.said == ["first: hello", "lost and", "second: hello", "lost and"]


# -- feed


async def test_outside_a_call_nothing_is_fed_or_said(call: "Call") -> None:
    agent = call.speaks()
    acts: list[Callable[[], object]] = [call.start, agent.end_now, agent.context_changed, agent.interrupt]
    acts += [lambda: agent.use(Policy())]
    for _ in range(2):
        for act in acts:
            with pytest.raises(RuntimeError, match="inside its `run`"):
                act()
        if agent._call is None:
            with pytest.raises(RuntimeError, match="inside its call"):
                agent.say("hello")
            async with agent:
                pass
        else:
            assert await agent.say("hello") is ReplyOutcome.NOT_BEGUN


async def test_feed_returns_the_actions_without_running_a_role(call: "Call") -> None:
    agent = call.speaks()
    agent.think(lambda turn: call.see("think"))
    async with agent:
        actions = [type(action).__name__ for event in HELLO for action in agent.feed(event)]
        assert call.seen == []
        await anyio.sleep(1)
    assert actions == ["Listen", "Hear", "Think", "Respond"]
    assert call.said == ["think", "None"]


async def test_a_frame_that_cannot_be_read_is_a_report(call: "Call") -> None:
    agent = call.speaks()
    agent.think(lambda turn: turn.transcript)
    nonsense = (b"\xff", "[]", {"type": "turn.end", "transcript": 5}, None, '{"type":"turn.sigh"}')
    await agent.run(frames(*nonsense, *HELLO))
    assert [report.kind for report in call.reports] == [ReportKind.BAD_FRAME] * 4 + [ReportKind.UNKNOWN_TYPE]
    assert call.said == ["hello"]


def test_feed_works_in_a_bare_callback_of_a_plain_asyncio_loop() -> None:
    said: list[object] = []
    agent = Agent(policy=Policy(stall_timeout=1.0, after_stall=AfterStall.END))

    @agent.think
    async def think(turn: Turn) -> AsyncIterator[str]:
        yield turn.transcript
        await asyncio.sleep(9)

    @agent.respond
    async def respond(turn: Turn, thought: Thought[Any]) -> None:
        async for item in thought:
            said.append(item)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with agent:
            events: list[Event] = [TurnStart(), TurnEagerEnd(transcript="hello"), TurnEnd(transcript="hello")]
            for event in [*events, TurnStart(), TurnEagerEnd(transcript="you")]:
                loop.call_soon(agent.feed, event)
                await asyncio.sleep(0.1)
            await asyncio.sleep(2)  # the stall ends it
            loop.call_soon(agent.interrupt)
            loop.call_soon(agent.close)
            await asyncio.sleep(9)

    with asyncio.Runner(loop_factory=virtual_time.VirtualLoop) as runner:
        runner.run(main())
        assert runner.get_loop().time() == pytest.approx(2.5)
    assert said == ["hello", "you"]


def test_feed_works_in_a_bare_callback_of_trio() -> None:
    import trio
    import trio.testing

    said: list[object] = []
    agent = Agent(policy=Policy(stall_timeout=1.0, after_stall=AfterStall.END))
    agent.think(lambda turn: turn.transcript)

    @agent.respond
    async def respond(turn: Turn, thought: Thought[Any]) -> None:
        said.append((trio.current_time(), await thought))

    async def main() -> None:
        token = trio.lowlevel.current_trio_token()
        async with agent:
            for event in (TurnStart(), TurnEagerEnd(transcript="hello")):
                token.run_sync_soon(agent.feed, event)
            await trio.sleep(2)
            token.run_sync_soon(agent.close)
            await trio.sleep(9)

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    assert said == [(1.0, "hello")]


who: ContextVar[str] = ContextVar("who")


async def test_roles_run_in_the_context_of_run_not_of_who_fed(call: "Call") -> None:
    agent = call.agent()
    agent.listen(lambda turn: call.see(f"listen {who.get()}"))
    agent.think(lambda turn: call.see(f"think {who.get()}"))
    agent.respond(lambda turn, thought: call.see(f"respond {who.get()}"))
    who.set("run")

    async def feed() -> None:
        who.set("feed")
        call.guess("hello")
        await anyio.sleep(1)
        call.end("hello")
        await agent.say("hello")

    async with agent, anyio.create_task_group() as tasks:
        tasks.start_soon(feed)
    assert sorted(call.said) == ["listen run", "respond run", "respond run", "think run"]


async def test_feeding_from_a_hook_is_handled_after_it(call: "Call") -> None:
    agent = call.speaks()
    agent.think(lambda turn: turn.transcript)

    @agent.on_update
    def on_update(turn: Turn) -> None:
        if turn.transcript == "that is all":
            assert agent.feed(TurnEnd(transcript=turn.transcript)) == ()
            agent.interrupt()

    @agent.on_start
    def on_start(turn: Turn) -> None:
        if turn.number == 2:
            agent.end_now()  # nothing was said

    agent.listen(lambda turn: call.see(f"listen {turn.number}"))
    agent.on_abandon(lambda turn: call.see(f"{turn.end}"))
    async with agent:
        call.start()
        call.update("that is all")
        await anyio.sleep(1)
        call.start()
        await anyio.sleep(1)
    assert call.seen == [(0.0, "listen 1"), (1.0, "empty"), (1.0, "listen 2")]


async def test_ticks_come_by_themselves_at_the_deadline(call: "Call") -> None:
    agent = call.speaks(policy=Policy(stall_timeout=2.0))
    agent.on_stall(lambda turn: call.see(f"stall {turn.transcript}"))
    agent.think(lambda turn: turn.transcript)
    async with agent:
        call.start()
        await anyio.sleep(1)
        call.update("hello")  # moves it to 3
        await anyio.sleep(4)  # once
        call.update("hello you")
        agent.use(Policy(stall_timeout=0.5, after_stall=AfterStall.END))  # brings it forward
        await anyio.sleep(1)
        call.start()
        agent.use(Policy())  # takes it away
        await anyio.sleep(9)
    assert call.seen == [(3.0, "stall hello"), (5.5, "stall hello you"), (5.5, "hello you")]


async def test_a_source_may_give_several_events_a_frame(call: "Call") -> None:
    class Words:
        def events(self, frame: str) -> tuple[Event, ...]:
            return (TurnStart(), TurnEnd(transcript=frame))

    agent = call.speaks(source=Words())
    agent.think(lambda turn: turn.transcript)
    await agent.run(frames("one", 1.0, "two"))
    assert call.said == ["one", "two"]


# -- the policy's functions


async def test_policy_functions_that_raise_are_reported_and_count_as_their_safe_side(call: "Call") -> None:
    def broken(*given: object) -> bool:
        raise ValueError("so be it")

    agent = call.agent(policy=Policy(match=broken, interrupts=broken))
    agent.think(lambda turn: f"{turn.transcript} {turn.latest_thought}")

    @agent.respond
    async def respond(turn: Turn, thought: Thought[Any]) -> None:
        await call.speak(thought)
        await anyio.sleep(2)

    async with agent:
        call.guess("hello")
        await anyio.sleep(1)
        call.end("hello")  # matches nothing
        await anyio.sleep(1)
        call.turn("stop")  # interrupts: the user has the floor
    assert call.said == ["hello 2", "stop 1"]
    assert {report.kind for report in call.reports} == {ReportKind.POLICY_ERROR}


async def test_what_the_closing_step_still_orders_is_not_heard(call: "Call") -> None:
    agent = call.speaks()
    agent.think(lambda turn: turn.transcript)
    agent.on_start(lambda turn: agent.close())  # hangs up
    async with agent:
        call.feed(TurnEnd(transcript="hello"))
        await anyio.sleep(1)
    assert call.seen == []


async def test_a_turn_that_opens_and_ends_at_once_is_listened_to_before_its_reply(call: "Call") -> None:
    agent = call.speaks()
    agent.think(lambda turn: turn.transcript)
    agent.listen(lambda turn: call.see(f"listen {turn.number}"))
    async with agent:
        call.feed(TurnEnd(transcript="hello"))
        await anyio.sleep(1)
    assert call.seen == [(0.0, "listen 1"), (0.0, "hello")]
