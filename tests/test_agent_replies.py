"""Agent: when it listens, and when a reply is in flight, audible and done."""

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import anyio

from inkturns.actions import Turn
from inkturns.agent import Outcome, Thought
from inkturns.events import ReplyDone, ReplyStarted
from inkturns.policy import Policy, min_words

if TYPE_CHECKING:
    from tests.conftest import Call


# -- listen


def listens(call: "Call", agent: Any) -> None:
    @agent.listen  # type: ignore[untyped-decorator]
    async def listen(turn: Turn) -> None:
        call.see(f"listen {turn.number}")


async def test_listen_is_called_once_a_turn_when_it_opens(call: "Call") -> None:
    agent = call.speaks()
    agent.think(lambda turn: "a")
    listens(call, agent)
    async with agent:
        for text in "hello", "you":
            call.start()
            await anyio.sleep(1)
            call.update(text)
            call.eager(text)
            call.resume()
            await anyio.sleep(1)
            call.end(text)
            await anyio.sleep(1)
    assert call.seen == [(0.0, "listen 1"), (2.0, "a"), (3.0, "listen 2"), (5.0, "a")]


async def test_the_interrupted_reply_is_gone_before_listen_is_called(call: "Call") -> None:
    agent = call.agent()
    agent.think(lambda turn: "a")
    listens(call, agent)

    @agent.respond
    async def respond(turn: Turn, thought: Thought[Any]) -> None:
        try:
            call.see(await thought)
            await anyio.sleep(10)
        finally:
            await call.stubborn(0.03)
            call.see("gone")

    async with agent:
        call.turn("hello")
        await anyio.sleep(1)
        call.start()
        await anyio.sleep(1)
    assert call.seen[1:] == [(0.0, "a"), (1.03, "gone"), (1.03, "listen 2")]


async def test_listen_waits_no_longer_than_50_ms(call: "Call") -> None:
    agent = call.agent()
    agent.think(lambda turn: "a")
    listens(call, agent)

    @agent.respond
    async def respond(turn: Turn, thought: Thought[Any]) -> None:
        try:
            await thought
            await anyio.sleep(10)
        finally:
            await call.stubborn(0.3)
            call.see("gone")

    async with agent:
        call.turn("hello")
        await anyio.sleep(1)
        call.start()
        await anyio.sleep(1)
    assert call.seen == [(0.0, "listen 1"), (1.05, "listen 2"), (1.3, "gone")]


async def test_a_reply_that_goes_on_defers_listen_to_its_interrupt(call: "Call") -> None:
    agent = call.agent(policy=Policy(interrupts=min_words(2)))
    agent.think(lambda turn: "a")
    listens(call, agent)

    @agent.respond
    async def respond(turn: Turn, thought: Thought[Any]) -> None:
        try:
            call.see(await thought)
            await anyio.sleep(5)
        finally:
            call.see("gone")

    async with agent:
        call.turn("tell me")
        await anyio.sleep(1)
        call.start()
        call.update("well")
        await anyio.sleep(1)
        assert call.seen == [(0.0, "listen 1"), (0.0, "a")]
        call.update("well what")
        await anyio.sleep(1)
    assert call.seen[2:] == [(2.0, "gone"), (2.0, "listen 2")]


async def test_a_reply_that_goes_on_defers_listen_to_its_end(call: "Call") -> None:
    agent = call.agent(policy=Policy(interrupts=min_words(2)))
    agent.think(lambda turn: "a")
    listens(call, agent)

    @agent.respond
    async def respond(turn: Turn, thought: Thought[Any]) -> None:
        await thought
        await anyio.sleep(2)
        call.see("heard")

    async with agent:
        call.turn("tell me")
        await anyio.sleep(1)
        call.start()
        await anyio.sleep(2)
        assert call.seen == [(0.0, "listen 1"), (2.0, "heard"), (2.0, "listen 2")]
        call.end("well")
    assert call.seen[3:] == [(5.0, "heard")]


async def test_a_backchannel_is_never_listened_to(call: "Call") -> None:
    agent = call.agent(policy=Policy(interrupts=min_words(2)))
    agent.think(lambda turn: "a")
    listens(call, agent)
    agent.on_abandon(lambda turn: call.see(f"{turn.end} {turn.transcript}"))

    @agent.respond
    async def respond(turn: Turn, thought: Thought[Any]) -> None:
        call.see(await thought)
        await anyio.sleep(2)
        call.see("heard")

    async with agent:
        call.turn("tell me")
        await anyio.sleep(1)
        call.turn("mhm")
        await anyio.sleep(0.5)
        call.turn("yes")
        await anyio.sleep(2)
    assert call.seen == [
        *[(0.0, "listen 1"), (0.0, "a"), (1.0, "backchannel mhm"), (1.5, "backchannel yes"), (2.0, "heard")]
    ]
    assert agent.history.messages() == [
        {"role": "user", "content": "tell me"},
        {"role": "assistant", "content": "a"},
    ]


async def test_speech_that_the_application_began_elsewhere_defers_listen_too(call: "Call") -> None:
    """ReplyStarted(0), fed, is a reply in flight like any other, though no task of the agent speaks it."""
    agent = call.speaks(policy=Policy(interrupts=min_words(2)))
    agent.think(lambda turn: "a")
    listens(call, agent)
    async with agent:
        call.feed(ReplyStarted(0))
        call.turn("mhm")
        await anyio.sleep(1)
        assert call.seen == []
        call.start()
        call.update("oh wait")  # `wait` interrupts
        await anyio.sleep(1)
        assert call.seen == [(1.0, "listen 2")]
        call.end("")
        await anyio.sleep(1)
        call.feed(ReplyStarted(0))
        call.start()
        await anyio.sleep(1)
        assert call.seen[2:] == []
        call.feed(ReplyDone(0))
        await anyio.sleep(1)
        assert call.seen[2:] == [(4.0, "listen 3")]


async def test_a_reply_starts_after_the_listen_of_its_turn(call: "Call") -> None:
    agent = call.speaks(grace=0.5)
    agent.think(lambda turn: f"a {turn.number}")

    @agent.listen
    async def listen(turn: Turn) -> None:
        await anyio.sleep(0.3 if turn.number == 1 else 9)
        call.see(f"quiet {turn.number}")

    async with agent:
        call.turn("hello")
        await anyio.sleep(1)
        call.turn("you")
        await anyio.sleep(1)
        call.turn("two")  # the listen of another turn is not waited for
        await anyio.sleep(1)
    assert call.seen == [(0.3, "quiet 1"), (0.3, "a 1"), (1.5, "a 2"), (2.5, "a 3")]


# -- replies, as the machine is told of them


async def test_a_reply_is_audible_from_its_first_item_and_done_when_respond_returns(call: "Call") -> None:
    agent = call.agent(policy=Policy(interrupts=lambda text: False))
    agent.on_interrupt(lambda number: call.see(f"interrupt {number}"))

    @agent.think
    async def think(turn: Turn) -> str:
        await anyio.sleep(1)
        return "a"

    @agent.respond
    async def respond(turn: Turn, thought: Thought[Any]) -> None:
        await thought
        await anyio.sleep(1)

    async with agent:
        call.turn("one")
        await anyio.sleep(0.5)
        call.turn("two")  # not audible yet: interrupts, whatever the policy says
        assert call.seen == [(0.5, "interrupt 1")]
        await anyio.sleep(1.5)
        call.turn("three")  # audible: a backchannel
        await anyio.sleep(1)
        call.turn("four")  # done: nothing to interrupt
        await anyio.sleep(5)
    assert len(call.seen) == 1
    assert [settled.turn.transcript for settled in call.settled] == ["one", "two", "four"]


async def test_while_a_reply_is_in_flight_nothing_is_thought_ahead(call: "Call") -> None:
    agent = call.agent(policy=Policy(interrupts=min_words(2)))
    agent.think(lambda turn: call.see(f"think {turn.transcript}"))

    @agent.respond
    async def respond(turn: Turn, thought: Thought[Any]) -> None:
        await thought
        await anyio.sleep(2)

    async with agent:
        call.turn("hello")
        await anyio.sleep(1)
        call.guess("oh")
        await anyio.sleep(2)
        call.eager("oh well")
        await anyio.sleep(1)
    assert call.seen == [(0.0, "think hello"), (2.0, "think oh"), (3.0, "think oh well")]  # at 2.0 the reply is over


async def test_a_reply_that_was_told_to_be_done_is_over(call: "Call") -> None:
    """ReplyDone, fed while `respond` goes on: the machine thinks ahead again, and nothing of the old reply is said."""
    agent = call.agent(policy=Policy(interrupts=min_words(2)))
    listens(call, agent)

    @agent.think
    async def think(turn: Turn) -> AsyncIterator[str]:
        for _ in range(9):
            yield f"a {turn.number}"
            await anyio.sleep(1)

    @agent.respond
    async def respond(turn: Turn, thought: Thought[Any]) -> None:
        await call.speak(thought)

    async with agent:
        call.turn("hello")
        await anyio.sleep(0.5)
        call.guess("well")
        await anyio.sleep(1)
        call.feed(ReplyDone(1))
        call.eager("well then")
        await anyio.sleep(0.5)
        call.end("well then")
        await anyio.sleep(0.4)
        agent.close()
    assert call.seen == [(0.0, "listen 1"), (0.0, "a 1"), (1.0, "a 1"), (1.5, "listen 2"), (2.0, "a 2")]
    assert call.settled[-1].began == 1.5


async def test_interrupt_stops_whatever_is_said_and_cancels_what_would_be(call: "Call") -> None:
    agent = call.agent()
    agent.on_interrupt(lambda number: call.see(f"interrupt {number}"))

    @agent.think
    async def think(turn: Turn) -> AsyncIterator[str]:
        for i in range(5):
            await anyio.sleep(1)
            yield f"{turn.number}: {i}"

    @agent.respond
    async def respond(turn: Turn, thought: Thought[Any]) -> None:
        await call.speak(thought)

    async with agent:
        agent.interrupt()  # nothing to stop
        call.turn("hello")
        await anyio.sleep(1.5)
        agent.interrupt()
        agent.interrupt()
        await anyio.sleep(3)
        call.turn("go on")
        await anyio.sleep(0.5)
        agent.interrupt()  # before it was heard
        await anyio.sleep(3)
    assert call.seen == [(1.0, "1: 0"), (1.5, "interrupt 1"), (5.0, "interrupt 2")]
    assert [settled.outcome for settled in call.settled] == [Outcome.ADOPTED] * 2
