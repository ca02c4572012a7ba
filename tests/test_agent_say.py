"""Agent: what it says by itself, and what is written down of a call."""

import io
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from inkturns.actions import Turn
from inkturns.agent import Thought, committed, current_thought
from inkturns.events import Event, TurnEnd, TurnStart
from inkturns.policy import Policy
from inkturns.recording import Recorder, replay

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


# -- say


async def stream_of(*items: str, pause: float = 1.0) -> AsyncIterator[str]:
    for item in items:
        yield item
        await anyio.sleep(pause)


@pytest.mark.parametrize("what", ["welcome", "stream"])
async def test_say_speaks_through_respond_and_returns_when_it_was_heard(call: "Call", what: str) -> None:
    agent = call.agent()

    @agent.respond
    async def respond(turn: Turn | None, thought: Thought) -> None:
        assert turn is None
        assert (thought.number, thought.speculative, thought.head_start) == (0, False, 0.0)
        await call.speak(thought)
        await anyio.sleep(1)

    async with agent:
        await agent.say(what if what == "welcome" else stream_of("wel", "come", pause=0))
        call.see("said")
    assert call.said == [*(["welcome"] if what == "welcome" else ["wel", "come"]), "said"]
    assert call.seen[-1] == (1.0, "said")
    assert agent.history.messages() == [{"role": "assistant", "content": "welcome"}]
    assert call.settled == []  # it is no thought of a turn


async def test_say_awaits_a_reply_that_is_in_flight_and_the_next_waits_for_it(call: "Call") -> None:
    agent = call.agent()
    agent.think(lambda turn: turn.transcript)

    @agent.respond
    async def respond(turn: Turn | None, thought: Thought) -> None:
        await call.speak(thought)
        await anyio.sleep(1)

    async with agent, anyio.create_task_group() as tasks:
        call.turn("hello")
        tasks.start_soon(agent.say, "word")
        tasks.start_soon(agent.say, "word")
    assert call.seen == [(0.0, "hello"), (1.0, "word"), (2.0, "word")]


async def test_what_is_said_is_interrupted_by_a_turn(call: "Call") -> None:
    agent = call.speaks()
    agent.on_interrupt(lambda number: call.see(f"interrupt {number}"))
    agent.listen(lambda turn: call.see(f"listen {turn.number}"))

    async with agent, anyio.create_task_group() as tasks:
        tasks.start_soon(agent.say, stream_of("a", "b", "c"))
        await anyio.sleep(1.5)
        call.start()
        call.see("started")
        await anyio.sleep(3)
    assert call.seen == [(0.0, "a"), (1.0, "b"), (1.5, "interrupt 0"), (1.5, "started"), (1.5, "listen 1")]


async def test_what_was_not_yet_heard_when_the_user_speaks_is_not_said(call: "Call") -> None:
    agent = call.speaks()
    agent.listen(lambda turn: call.see(f"listen {turn.number}"))

    async def slow() -> str:
        await anyio.sleep(1)
        return "welcome"

    async with agent:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(agent.say, slow())
            await anyio.sleep(0.5)
            call.start()
        assert anyio.current_time() == 0.5
        await anyio.sleep(3)
    assert call.seen == [(0.5, "listen 1")]


async def test_what_is_said_is_not_stopped_by_a_backchannel_and_is_by_its_end(call: "Call") -> None:
    agent = call.speaks(policy=Policy(interrupts=lambda text: "stop" in text))
    agent.listen(lambda turn: call.see(f"listen {turn.number}"))
    agent.think(lambda turn: "so be it")
    async with agent, anyio.create_task_group() as tasks:
        tasks.start_soon(agent.say, stream_of("a", "b", "c"))
        await anyio.sleep(0.5)
        call.turn("mhm")
        await anyio.sleep(1)
        call.turn("stop")
    assert call.seen == [(0.0, "a"), (1.0, "b"), (1.5, "listen 2"), (1.5, "so be it")]


async def test_say_from_inside_respond_is_refused_and_from_a_task_that_outlives_it_is_not(call: "Call") -> None:
    agent = call.agent()
    failures: list[Exception] = []

    async def later(tasks: Any) -> None:
        await anyio.sleep(1)
        await agent.say("afterwards")

    async with anyio.create_task_group() as tasks:

        @agent.respond
        async def respond(turn: Turn | None, thought: Thought) -> None:
            await call.speak(thought)
            if turn is not None:
                tasks.start_soon(later, tasks)
                try:
                    await agent.say("never")
                except RuntimeError as error:
                    failures.append(error)

        async with agent:
            call.turn("hello")
            await anyio.sleep(2)
    assert [str(error) for error in failures] == ["say, inside respond, would wait for itself"]
    assert call.seen == [(1.0, "afterwards")]


async def test_a_caller_of_say_who_is_cancelled_takes_his_words_back(call: "Call") -> None:
    agent = call.speaks()
    async with agent:
        with anyio.move_on_after(1.5):
            await agent.say(stream_of("a", "b", "c"))
        await anyio.sleep(3)
        with anyio.move_on_after(0):
            await agent.say("never")
        await anyio.sleep(1)
        await agent.say("d")
    assert call.seen == [(0.0, "a"), (1.0, "b"), (5.5, "d")]
    assert agent.history.messages() == [{"role": "assistant", "content": text} for text in ("ab", "d")]


@pytest.mark.parametrize("step", [0, 1, 2, 3, 5, 8])
async def test_say_returns_when_the_call_ends_under_it(call: "Call", step: int) -> None:
    """In whichever step of the loop the call is closed: nobody waits for ever."""
    agent = call.speaks()

    async def say(what: Any) -> None:
        with suppress(RuntimeError):  # it came too late
            await agent.say(what)
        call.see("returned")

    async with anyio.create_task_group() as tasks:
        async with agent:
            tasks.start_soon(say, stream_of("a", "b", pause=9))
            tasks.start_soon(say, "next")
            for _ in range(step):
                await anyio.lowlevel.checkpoint()
            agent.close()
        tasks.cancel_scope.deadline = anyio.current_time() + 1
    assert not tasks.cancel_scope.cancelled_caught
    assert call.said.count("returned") == 2


async def test_two_says_when_the_items_end_leave_nobody_waiting(call: "Call") -> None:
    agent = call.speaks()
    async with anyio.create_task_group() as tasks:
        async with agent:
            for word in "one", "two", "three":
                tasks.start_soon(agent.say, stream_of(word))
            await anyio.sleep(0.1)
        tasks.cancel_scope.deadline = anyio.current_time() + 1
    assert not tasks.cancel_scope.cancelled_caught
    assert call.said[0] in ("one", "two", "three")


# -- what is written down


async def test_a_recording_says_what_became_of_each_thought_and_still_replays(call: "Call") -> None:
    file = io.BytesIO()
    agent = call.agent(recorder=Recorder(file), policy=Policy(stall_timeout=60.0))

    @agent.think
    async def think(turn: Turn) -> AsyncIterator[str]:
        await anyio.sleep(0.5)
        current_thought().note(tokens=7)
        yield "a"
        yield "b"
        if turn.transcript == "fail":
            raise ValueError("a secret")

    @agent.respond
    async def respond(turn: Turn | None, thought: Thought) -> None:
        if turn is not None and turn.number == 2:
            await anext(thought)
            thought.heard("a bit")
            await anyio.sleep(9)
        async for _ in thought:
            pass

    agent.on_failure(lambda turn, error: None)
    async with agent:
        call.guess("one")
        await anyio.sleep(0.25)
        call.eager("one two")
        await anyio.sleep(1)
        call.end("one two")
        await anyio.sleep(0.75)
        call.turn("cut")
        await anyio.sleep(1)
        call.turn("fail")
        await anyio.sleep(1)
        await agent.say("bye")
    lines = [json.loads(line) for line in file.getvalue().splitlines()]
    told = [line for line in lines if "agent" in line and line["turn"] == 1]
    settled = [line.pop("settled") for line in told if line["agent"] == "settled"]
    assert told == [
        {"t": 0.0, "agent": "began", "turn": 1, "thought": 1},
        {"t": 0.25, "agent": "settled", "turn": 1, "head_start": None, "saved": None},
        {"t": 0.25, "agent": "began", "turn": 1, "thought": 2},
        {"t": 0.75, "agent": "first", "turn": 1, "thought": 2},
        {"t": 0.75, "agent": "finished", "turn": 1, "thought": 2, "items": 2},
        {"t": 1.25, "agent": "settled", "turn": 1, "head_start": 1.0, "saved": 0.5},
        {"t": 1.25, "agent": "heard", "turn": 1, "text": "ab", "whole": True},
    ]
    assert [(one["thought"], one["outcome"], one["reason"], one["notes"]) for one in settled] == [
        (1, "void", "superseded", {}),
        (2, "adopted", None, {"tokens": 7}),
    ]
    rest = [(line["t"], line["agent"], line["turn"]) for line in lines if "agent" in line and line["turn"] != 1]
    assert sorted(rest) == sorted(
        [
            *[(2.0, "began", 2), (2.5, "first", 2), (2.5, "finished", 2), (2.5, "settled", 2), (3.0, "heard", 2)],
            *[(3.0, "began", 3), (3.5, "first", 3), (3.5, "failed", 3), (3.5, "settled", 3), (3.5, "heard", 3)],
            *[(4.0, "began", 0), (4.0, "first", 0), (4.0, "finished", 0), (4.0, "heard", 0)],
        ]
    )
    [cut] = [line for line in lines if line.get("agent") == "heard" and line["turn"] == 2]
    assert (cut["text"], cut["whole"]) == ("a bit", False)
    [failed] = [line for line in lines if line.get("agent") == "failed"]
    assert failed["error"] == "ValueError"
    assert b"a secret" not in file.getvalue()
    replayed = list(replay(file.getvalue().splitlines()))
    assert len(replayed) == sum("out" in line for line in lines) > 10
    assert not [entry for entry in replayed if entry.differs]


@pytest.mark.parametrize("how", ["closed", "cancelled", "cancelled, in a block that takes its time"])
async def test_a_recording_says_how_far_a_reply_was_heard_when_the_call_was_stopped(call: "Call", how: str) -> None:
    file = io.BytesIO()
    agent = call.speaks(recorder=Recorder(file))
    agent.think(lambda turn: stream_of("a", "b", "c"))
    with anyio.move_on_after(1.5):
        async with agent:
            call.turn("hello")
            try:
                await anyio.sleep(1.5 if how == "closed" else 9)
                agent.close()
            finally:
                with anyio.CancelScope(shield="time" in how):
                    await anyio.sleep(1)
    lines = [json.loads(line) for line in file.getvalue().splitlines()]
    assert [line for line in lines if line.get("agent") == "heard"] == [
        {"t": 1.5, "agent": "heard", "turn": 1, "text": "ab", "whole": False}
    ]
    assert call.said == ["a", "b"]


async def test_a_masked_recording_masks_what_was_heard(call: "Call") -> None:
    file = io.BytesIO()
    agent = call.speaks(recorder=Recorder(file, text=False))
    agent.think(lambda turn: "Quite so, 5")
    await agent.run(frames(*HELLO))
    assert b"Quite" not in file.getvalue()
    assert b"hello" not in file.getvalue()


async def test_f25_what_waits_to_be_said_is_not_said_over_the_user_who_barges_in(call: "Call") -> None:
    agent = call.agent()
    agent.think(lambda turn: turn.transcript)

    @agent.respond
    async def respond(turn: Turn | None, thought: Thought) -> None:
        await call.speak(thought)
        await anyio.sleep(5)

    async with agent, anyio.create_task_group() as tasks:
        call.turn("hello")
        await anyio.sleep(1)

        async def also() -> None:
            await agent.say("by the way")
            call.see("asked")

        tasks.start_soon(also)
        await anyio.sleep(1)
        call.start()
        await anyio.sleep(1)
        call.end("stop")
        await anyio.sleep(9)
        await agent.say("anything else?")
    assert call.seen == [(0.0, "hello"), (2.0, "asked"), (3.0, "stop"), (12.0, "anything else?")]


async def test_f25_nor_over_one_whose_turn_is_over_already(call: "Call") -> None:
    agent = call.agent()
    agent.think(lambda turn: turn.transcript)

    @agent.respond
    async def respond(turn: Turn | None, thought: Thought) -> None:
        await call.speak(thought)
        await anyio.sleep(5)

    async with agent, anyio.create_task_group() as tasks:
        call.turn("hello")
        await anyio.sleep(1)
        tasks.start_soon(agent.say, "by the way")
        await anyio.sleep(1)
        call.turn("stop")
        await anyio.sleep(9)
    assert call.said == ["hello", "stop"]


@pytest.mark.parametrize("gate", [False, True])
async def test_say_inside_think_is_refused(call: "Call", gate: bool) -> None:
    """It would be heard before the turn's end; or, behind the gate, wait for the reply that waits for it."""
    agent = call.speaks()

    @agent.think
    async def think(turn: Turn) -> str:
        if gate:
            await committed()
        with pytest.raises(RuntimeError, match="say, inside think"):
            await agent.say("one moment")
        return "yes"

    async with agent:
        call.turn("hello")
        await anyio.sleep(1)
    assert call.said == ["yes"]
