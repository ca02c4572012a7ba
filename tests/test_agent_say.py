"""Agent: what it says by itself, and what is written down of a call."""

import io
import json
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from inkturns.actions import Turn
from inkturns.agent import Agent, Replied, ReplyOutcome, Speech, Thought, committed, current_thought
from inkturns.events import Event, ReplyDone, StopReply, TurnEnd, TurnStart
from inkturns.policy import Policy
from inkturns.recording import Recorder
from inkturns.replay import replay

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
    async def respond(turn: Turn | None, thought: Thought[Any]) -> None:
        assert turn == Turn(0)
        assert (thought.number, thought.speculative, thought.head_start) == (0, False, 0.0)
        await call.speak(thought)
        await anyio.sleep(1)

    async with agent:
        outcome = await agent.say(what if what == "welcome" else stream_of("wel", "come", pause=0))
        call.see(outcome)
    assert call.said == [*(["welcome"] if what == "welcome" else ["wel", "come"]), "heard"]
    assert call.seen[-1] == (1.0, "heard")
    assert agent.history.messages() == [{"role": "assistant", "content": "welcome"}]
    assert call.settled == []  # it is no thought of a turn


async def test_say_awaits_a_reply_that_is_in_flight_and_the_next_waits_for_it(call: "Call") -> None:
    agent = call.agent()
    agent.think(lambda turn: turn.transcript)

    @agent.respond
    async def respond(turn: Turn | None, thought: Thought[Any]) -> None:
        await call.speak(thought)
        await anyio.sleep(1)

    async with agent:
        call.turn("hello")
        agent.say("word")
        await agent.say("word")
    assert call.seen == [(0.0, "hello"), (1.0, "word"), (2.0, "word")]


async def test_what_is_said_is_interrupted_by_a_turn(call: "Call") -> None:
    agent = call.speaks()
    agent.on_interrupt(lambda number: call.see(f"interrupt {number}"))
    agent.listen(lambda turn: call.see(f"listen {turn.number}"))

    async with agent:
        agent.say(stream_of("a", "b", "c"))
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
        speech = agent.say(slow())
        await anyio.sleep(0.5)
        call.start()
        assert await speech is ReplyOutcome.NOT_BEGUN
        assert anyio.current_time() == 0.5
        await anyio.sleep(3)
    assert call.seen == [(0.5, "listen 1")]


async def test_what_is_said_is_not_stopped_by_a_backchannel_and_is_by_its_end(call: "Call") -> None:
    agent = call.speaks(policy=Policy(interrupts=lambda turn: "stop" in turn.transcript))
    agent.listen(lambda turn: call.see(f"listen {turn.number}"))
    agent.think(lambda turn: "so be it")
    async with agent:
        agent.say(stream_of("a", "b", "c"))
        await anyio.sleep(0.5)
        call.turn("mhm")
        await anyio.sleep(1)
        call.turn("stop")
    assert call.seen == [(0.0, "a"), (1.0, "b"), (1.5, "listen 2"), (1.5, "so be it")]


async def test_a_say_is_awaited_inside_respond_only_where_it_does_not_wait_for_it(call: "Call") -> None:
    agent = call.agent()
    errors: list[str] = []

    async def later() -> None:
        await anyio.sleep(1)
        call.see(await agent.say("afterwards"))

    async with anyio.create_task_group() as tasks:

        @agent.respond
        async def respond(turn: Turn, thought: Thought[Any]) -> None:
            if turn.number:
                tasks.start_soon(later)
                behind = agent.say("behind it")
                with pytest.raises(RuntimeError, match="waits for this `respond`") as raised:
                    await behind
                errors.append(str(raised.value))
            await call.speak(thought)

        agent.think(lambda turn: "hello")
        async with agent:
            call.turn("hello")
            await anyio.sleep(2)
    assert len(errors) == 1
    assert call.seen == [(0.0, "hello"), (0.0, "behind it"), (1.0, "afterwards"), (1.0, "heard")]


async def test_a_respond_that_awaits_its_own_speech_is_told(call: "Call") -> None:
    agent = call.agent()
    failures: list[str] = []
    speeches: list[Speech] = []
    agent.on_failure(lambda turn, error: failures.append(f"{turn and turn.number} {type(error).__name__}"))

    @agent.respond
    async def respond(turn: Turn, thought: Thought[Any]) -> None:
        await speeches[0]

    async with agent:
        speeches.append(agent.say("hello"))
        assert await speeches[0] is ReplyOutcome.FAILED
    assert failures == ["0 RuntimeError"]


async def test_who_stops_waiting_for_a_speech_does_not_stop_it(call: "Call") -> None:
    agent = call.speaks()
    async with agent:
        speech = agent.say(stream_of("a", "b"))
        with anyio.move_on_after(0.5):
            await speech
        assert speech.outcome is None
        assert [await speech, await speech, speech.outcome] == ["heard"] * 3
    assert call.seen == [(0.0, "a"), (1.0, "b")]


@pytest.mark.parametrize("step", [0, 1, 2, 3, 5, 8])
async def test_f52_say_returns_when_the_call_ends_under_it(call: "Call", step: int) -> None:
    """In whichever step of the loop the call is closed: nobody waits for ever."""
    agent = call.speaks()

    async def say(what: Any) -> None:
        call.see(await agent.say(what))

    async with anyio.create_task_group() as tasks:
        async with agent:
            tasks.start_soon(say, stream_of("a", "b", pause=9))
            tasks.start_soon(say, "next")
            for _ in range(step):
                await anyio.lowlevel.checkpoint()
            agent.close()
        tasks.cancel_scope.deadline = anyio.current_time() + 1
    assert not tasks.cancel_scope.cancelled_caught
    assert len([what for what in call.said if what in [*ReplyOutcome]]) == 2


async def test_what_waits_to_be_said_when_the_items_end_is_not_begun_and_what_is_said_drains(call: "Call") -> None:
    agent = call.speaks()
    async with agent:
        speeches = [agent.say(stream_of(word)) for word in ("one", "two", "three")]
        await anyio.sleep(0.1)
    assert [speech.outcome for speech in speeches] == ["heard", "not_begun", "not_begun"]
    assert call.seen == [(0.0, "one")]
    assert anyio.current_time() >= 1


async def test_a_farewell_that_has_begun_is_heard_when_the_items_end(call: "Call") -> None:
    agent = call.speaks()
    async with agent:
        speech = agent.say(stream_of("good", "bye"))
    assert (speech.outcome, call.said) == ("heard", ["good", "bye"])


@pytest.mark.parametrize("how", ["a value", "a stream", "a coroutine"])
async def test_after_the_items_and_after_the_call_a_say_is_not_begun(call: "Call", how: str) -> None:
    agent = call.speaks()
    late: list[Speech] = []

    async def coroutine() -> str:
        return "never"

    @agent.on_replied
    def on_replied(replied: Replied) -> None:
        if replied.outcome is ReplyOutcome.HEARD:
            what = "x" if how == "a value" else stream_of("x") if how == "a stream" else coroutine()
            late.append(agent.say(what))

    async with agent:
        agent.say("one")
    late.append(agent.say(coroutine()))
    assert [await speech for speech in late] == ["not_begun"] * 2
    assert call.said == ["one"]


async def test_say_begins_at_once_and_the_barge_in_is_noticed(call: "Call") -> None:
    """F54: the greeting is not awaited before the first frame is read."""
    agent = call.speaks()
    speech = []

    async def frames() -> AsyncIterator[Any]:
        speech.append(agent.say(stream_of("wel", "come", "to", "us")))
        await anyio.sleep(1.5)
        yield TurnStart()
        call.see(await speech[0])
        await anyio.sleep(5)

    await agent.run(frames())
    assert call.seen == [(0.0, "wel"), (1.0, "come"), (1.5, "interrupted")]


@pytest.mark.parametrize("hook", ["on_start", "on_update", "on_resume", "on_end", "on_abandon", "on_stall"])
async def test_f54_say_from_a_hook_is_taken_up_after_the_actions_at_hand(call: "Call", hook: str) -> None:
    speeches: list[Speech] = []
    agent = call.speaks(policy=Policy(stall_timeout=1.0))
    agent.think(lambda turn: "re")

    def says(turn: Turn) -> None:
        if not speeches:
            speeches.append(agent.say(f"at {hook}"))

    getattr(agent, hook)(says)
    async with agent:
        call.start()
        await anyio.sleep(0.1)
        call.eager("one")
        await anyio.sleep(0.1)
        call.resume()
        await anyio.sleep(2)
        call.update("one two")
        await anyio.sleep(0.1)
        call.end("one two")
        await anyio.sleep(0.1)
        call.start()
        call.end("")
        await anyio.sleep(0.1)
    assert [speech.outcome for speech in speeches] == ["heard"]
    assert f"at {hook}" in call.said


@pytest.mark.parametrize("words", ["update", "resume", "start", "end"])
async def test_f48_what_is_not_audible_when_the_user_goes_on_is_withdrawn(call: "Call", words: str) -> None:
    """A re-prompt in an open turn, whose voice takes its time; and one that waits behind it."""
    agent = call.speaks()
    agent.think(lambda turn: "re")

    async def slow() -> AsyncIterator[str]:
        await anyio.sleep(1)
        yield "are you there?"

    async with agent:
        call.start()
        if words == "resume":
            call.eager("so")
        await anyio.sleep(1)
        speeches = [agent.say(slow()), agent.say("hello?")]
        await anyio.sleep(0.5)
        if words == "resume":
            call.resume()
        elif words == "start":
            call.feed(TurnStart(turn_id="2"))
        else:
            getattr(call, words)("so")
        assert [speech.outcome for speech in speeches] == ["not_begun", "not_begun"]
        await anyio.sleep(3)
    assert call.said == (["re"] if words == "end" else [])


async def test_what_cannot_be_said_is_refused(call: "Call") -> None:
    agent = call.speaks()
    async with agent:
        with pytest.raises(TypeError, match="must not be a generator"):
            agent.say(item for item in "abc")
        with pytest.raises(TypeError, match=r"must not be an async function, got .*; call it"):
            agent.say(stream_of)
    assert call.said == []


async def test_interrupt_stops_a_speech_that_is_not_audible_yet_and_the_next_begins(call: "Call") -> None:
    agent = call.speaks()

    async def slow() -> str:
        await anyio.sleep(1)
        return "never"

    async with agent:
        first, second = agent.say(slow()), agent.say("next")
        await anyio.sleep(0.5)
        agent.interrupt()
        assert [await first, await second] == ["not_begun", "heard"]
    assert call.seen == [(0.5, "next")]


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
    async def respond(turn: Turn | None, thought: Thought[Any]) -> None:
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
    replied = told.pop()
    assert told == [
        {"t": 0.0, "agent": "began", "turn": 1, "thought": 1},
        {"t": 0.25, "agent": "settled", "turn": 1, "head_start": None, "saved": None},
        {"t": 0.25, "agent": "began", "turn": 1, "thought": 2},
        {"t": 0.75, "agent": "first", "turn": 1, "thought": 2},
        {"t": 0.75, "agent": "finished", "turn": 1, "thought": 2, "items": 2},
        {"t": 1.25, "agent": "settled", "turn": 1, "head_start": 1.0, "saved": 0.5},
        {"t": 1.25, "agent": "responds", "turn": 1},
    ]
    assert replied["replied"].pop("turn")["transcript"] == "one two"
    assert replied == {
        "t": 1.25,
        "agent": "replied",
        "turn": 1,
        "replied": {
            "thought": 2,
            "outcome": "heard",
            "committed_at": 1.25,
            "first_item": 1.25,
            "sounded_at": 1.25,
            "over_at": 1.25,
            "text": "ab",
            "saved": 0.5,
            "head_start": 1.0,
        },
    }
    assert [(one["thought"], one["outcome"], one["reason"], one["notes"]) for one in settled] == [
        (1, "cancelled", "superseded", {}),
        (2, "adopted", None, {"tokens": 7}),
    ]
    rest = [(line["t"], line["agent"], line["turn"]) for line in lines if "agent" in line and line["turn"] != 1]
    assert sorted(rest) == sorted(
        [
            (0.0, "run", 0),
            *[(2.0, "began", 2), (2.5, "first", 2), (2.5, "finished", 2), (2.5, "settled", 2), (3.0, "replied", 2)],
            *[(3.0, "began", 3), (3.5, "first", 3), (3.5, "failed", 3), (3.5, "settled", 3), (3.5, "replied", 3)],
            *[(2.0, "responds", 2), (3.0, "responds", 3), (4.0, "responds", 0)],
            (4.0, "replied", 0),
        ]
    )
    [cut] = [line["replied"] for line in lines if line.get("agent") == "replied" and line["turn"] == 2]
    assert (cut["text"], cut["outcome"]) == ("a bit", "interrupted")
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
    [replied] = [line["replied"] for line in lines if line.get("agent") == "replied"]
    # A cancellation reaches the agent when the block is left.
    over_at, text = (2.5, "abc") if "time" in how else (1.5, "ab")
    assert (replied["over_at"], replied["text"], replied["outcome"]) == (over_at, text, "interrupted")
    assert call.said == [*text]


async def test_a_recording_says_what_a_reply_failed_with(call: "Call") -> None:
    """Its kind alone: the message may hold the caller's words."""
    file = io.BytesIO()
    agent = call.agent(recorder=Recorder(file))
    agent.on_failure(lambda turn, error: None)

    @agent.respond
    async def respond(turn: Turn, thought: Thought[str]) -> None:
        raise KeyError("shibboleth")

    async with agent:
        await agent.say("hello")
    lines = [json.loads(line) for line in file.getvalue().splitlines()]
    assert [line["error"] for line in lines if line.get("agent") == "replied"] == ["KeyError"]
    assert b"shibboleth" not in file.getvalue()


async def test_a_redacted_recording_redacts_what_was_heard(call: "Call") -> None:
    file = io.BytesIO()
    agent = call.speaks(recorder=Recorder(file, redact=True))
    agent.think(lambda turn: "Quite so, 5")
    await agent.run(frames(*HELLO))
    assert b"Quite" not in file.getvalue()
    assert b"hello" not in file.getvalue()


async def test_f25_what_waits_to_be_said_is_not_said_over_the_user_who_barges_in(call: "Call") -> None:
    agent = call.agent()
    agent.think(lambda turn: turn.transcript)

    @agent.respond
    async def respond(turn: Turn | None, thought: Thought[Any]) -> None:
        await call.speak(thought)
        await anyio.sleep(5)

    async with agent, anyio.create_task_group() as tasks:
        call.turn("hello")
        await anyio.sleep(1)

        async def also() -> None:
            call.see(await agent.say("by the way"))

        tasks.start_soon(also)
        await anyio.sleep(1)
        call.start()
        await anyio.sleep(1)
        call.end("stop")
        await anyio.sleep(9)
        await agent.say("anything else?")
    assert call.seen == [(0.0, "hello"), (2.0, "not_begun"), (3.0, "stop"), (12.0, "anything else?")]


async def test_f25_nor_over_one_whose_turn_is_over_already(call: "Call") -> None:
    agent = call.agent()
    agent.think(lambda turn: turn.transcript)

    @agent.respond
    async def respond(turn: Turn | None, thought: Thought[Any]) -> None:
        await call.speak(thought)
        await anyio.sleep(5)

    async with agent:
        call.turn("hello")
        await anyio.sleep(1)
        agent.say("by the way")
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
            agent.say("one moment")
        return "yes"

    async with agent:
        call.turn("hello")
        await anyio.sleep(1)
    assert call.said == ["yes"]


async def test_a_speech_of_another_agent_may_be_awaited_though_it_waits(call: "Call") -> None:
    """It waits for a reply of its own agent, and not for the `respond` that awaits it."""
    outer, inner = call.agent(), Agent()

    @inner.respond
    async def says(turn: Turn, thought: Thought[str]) -> None:
        await anyio.sleep(1)
        await call.speak(thought)

    @outer.respond
    async def respond(turn: Turn, thought: Thought[str]) -> None:
        async with inner:
            inner.say("one")
            await inner.say("two")
        await call.speak(thought)

    async with outer:
        await outer.say("three")
    assert call.seen == [(1.0, "one"), (2.0, "two"), (2.0, "three")]


async def test_a_speech_that_waits_begins_though_the_reply_that_was_stopped_goes_on(call: "Call") -> None:
    """The application feeds StopReply itself, and the task that is stuck holds nobody up."""
    agent = call.agent(grace=0.5)

    @agent.respond
    async def respond(turn: Turn, thought: Thought[str]) -> None:
        if await thought == "one":
            await call.stubborn(9)
        else:
            call.see("two")

    async with agent:
        agent.say("one")
        await anyio.sleep(1)
        second = agent.say("two")
        agent.feed(StopReply())
        assert await second is ReplyOutcome.HEARD
        assert call.seen == [(1.5, "two")]


async def test_a_reply_that_a_hook_calls_done_is_cut_by_the_end_that_it_feeds_too(call: "Call") -> None:
    """Both are taken in one step, in which the agent has not looked at the reply between them."""
    agent = call.agent(policy=Policy(interrupts=lambda turn: False))
    replied: list[Replied] = []
    agent.on_replied(replied.append)
    agent.think(lambda turn: turn.transcript)

    @agent.respond
    async def respond(turn: Turn, thought: Thought[str]) -> None:
        await thought
        await anyio.sleep(3)

    @agent.on_update
    def on_update(turn: Turn) -> None:
        if turn.number == 2:
            agent.feed(ReplyDone())
            agent.feed(TurnEnd(transcript="two"))

    async with agent:
        call.turn("one")
        await anyio.sleep(1)
        call.start()
        call.update("two")
        await anyio.sleep(9)
    assert [(one.turn.number, one.outcome, one.over_at) for one in replied] == [
        (1, ReplyOutcome.INTERRUPTED, 1.0),
        (2, ReplyOutcome.HEARD, 4.0),
    ]
