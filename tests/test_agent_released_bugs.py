"""What went wrong in released systems, and does not here: one test for each failure in which tasks are involved, by the
number of the failure, each with the order of events that brought it about."""

from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from inkturns.actions import CancelReason, ReportKind, Turn
from inkturns.agent import Outcome, Thought, committed, current_thought
from inkturns.events import (
    Connected,
    Disconnected,
    EndNow,
    ReplyDone,
    ServerError,
    ThoughtFailed,
    TurnStart,
    TurnUpdate,
)
from inkturns.policy import AfterStall, Policy, min_words

if TYPE_CHECKING:
    from tests.conftest import Call


async def model(turn: Turn, latency: float = 0.5) -> AsyncIterator[str]:
    """A language model: what it answers says what it was asked."""
    await anyio.sleep(latency)
    yield f"re: {turn.transcript}"


async def test_f01_two_eager_ends_without_a_resume_and_one_reply_is_heard(call: "Call") -> None:
    agent = call.speaks()
    agent.think(model)
    async with agent:
        call.guess("hello")
        await anyio.sleep(1)
        call.eager("hello world")
        await anyio.sleep(1)
        call.end("hello world")
    assert call.seen == [(2.0, "re: hello world")]
    assert [(one.thought, one.outcome) for one in call.settled] == [(1, Outcome.CANCELLED), (2, Outcome.ADOPTED)]


@pytest.mark.parametrize("step", range(6))
@pytest.mark.parametrize("withdrawn", [True, False])
async def test_f02_the_tool_is_asked_for_in_the_tick_of_the_end(call: "Call", step: int, withdrawn: bool) -> None:
    """The speculation withdraws itself (or asks for the tool) within a few steps of the loop of the commit: somebody
    answers, once."""
    agent = call.speaks()
    failures: list[Exception] = []
    agent.on_failure(lambda turn, error: failures.append(error))
    asked = anyio.Event()
    tools = 0

    @agent.think
    async def think(turn: Turn) -> str:
        nonlocal tools
        if turn.latest_thought == 1:
            await asked.wait()
            if withdrawn and current_thought().committed_at is None:
                raise RuntimeError("a tool is needed")
        async with committed():
            tools += 1
        return f"re: {turn.transcript}"

    async with agent:
        call.guess("book it")
        await anyio.sleep(1)
        asked.set()
        for _ in range(step):
            await anyio.lowlevel.checkpoint()
        call.end("book it")
        await anyio.sleep(1)
    assert call.said == ["re: book it"]
    assert tools == 1
    assert failures == []


@pytest.mark.parametrize("how", ["raises", "is said to have failed"])
async def test_f03_the_speculation_fails_and_a_matching_end_follows(call: "Call", how: str) -> None:
    agent = call.speaks()

    @agent.think
    async def think(turn: Turn) -> str:
        if turn.latest_thought == 1 and how == "raises":
            raise TimeoutError("429")
        return f"{turn.latest_thought}"

    async with agent:
        call.guess("hello")
        await anyio.sleep(1)
        if how != "raises":
            call.feed(ThoughtFailed(1, 1))
        call.end("Hello.")
    assert call.said == ["2"]


async def test_f14_a_watchdog_closes_the_turn_right_after_an_eager_end(call: "Call") -> None:
    agent = call.speaks(policy=Policy(stall_timeout=1.0, after_stall=AfterStall.END))
    agent.think(lambda turn: model(turn, latency=3))
    async with agent:
        call.start()
        call.update("hello")
        await anyio.sleep(0.999)
        call.eager("hello")
        await anyio.sleep(0.002)
        call.end("hello")  # the server's comes after the watchdog's
        await anyio.sleep(9)
    assert call.seen == [(3.999, "re: hello")]
    assert [(one.outcome, one.speculative) for one in call.settled] == [(Outcome.ADOPTED, True)]
    assert call.reports == []  # it is an echo


async def test_f15_what_was_thought_in_a_turn_that_was_lost_is_not_adopted_by_the_next(call: "Call") -> None:
    agent = call.speaks()
    agent.think(model)
    async with agent:
        call.guess("yes")
        await anyio.sleep(1)
        call.feed(Disconnected())
        call.turn("yes")
        await anyio.sleep(1)
    assert call.seen == [(1.5, "re: yes")]
    assert [(one.turn.number, one.outcome) for one in call.settled] == [(1, Outcome.CANCELLED), (2, Outcome.ADOPTED)]


async def test_f16_a_turn_is_discarded_while_its_speculation_waits(call: "Call") -> None:
    """Nothing is parked for ever, and the next turn is answered."""
    agent = call.speaks()

    @agent.think
    async def think(turn: Turn) -> str:
        await committed()
        return f"re: {turn.transcript}"

    async with agent:
        call.guess("hello")
        await anyio.sleep(1)
        call.start()  # supersedes it
        await anyio.sleep(1)
        assert [one.outcome for one in call.settled] == [Outcome.CANCELLED]
        call.end("you")
    assert call.seen == [(2.0, "re: you")]


async def test_f17_one_utterance_finalised_twice_and_the_next_turn_is_answered(call: "Call") -> None:
    agent = call.speaks()
    agent.think(model)
    async with agent:
        call.guess("hello")
        call.end("hello")
        call.end("hello")
        call.eager("hello")
        call.end("hello")
        await anyio.sleep(1)
        call.turn("you")
        await anyio.sleep(1)
    assert call.seen == [(0.5, "re: hello"), (1.5, "re: you")]


async def test_f18_a_superseded_speculation_that_does_not_let_itself_be_cancelled_is_never_heard(call: "Call") -> None:
    agent = call.speaks(grace=0.5)

    @agent.think
    async def think(turn: Turn) -> AsyncIterator[str]:
        for _ in range(5):
            await (call.stubborn(1) if turn.latest_thought == 1 else anyio.sleep(1))
            yield f"{turn.latest_thought}"

    async with agent:
        call.guess("hello")
        await anyio.sleep(0.25)
        call.eager("hello world")
        call.end("hello world")
        await anyio.sleep(20)
    assert call.seen == [(1.75 + i, "2") for i in range(5)]
    assert [report.kind for report in call.reports] == [ReportKind.STUCK_TASK]


async def test_f19_the_turn_ends_while_a_tool_of_the_last_reply_runs(call: "Call") -> None:
    """No thought begins while a reply is in flight: it would not know the result."""
    agent = call.speaks(policy=Policy(interrupts=min_words(3)))
    known: list[list[str]] = []

    @agent.think
    async def think(turn: Turn) -> AsyncIterator[str]:
        known.append([message["content"] for message in agent.history.messages(turn)])
        yield "one moment. "
        async with committed():
            await anyio.sleep(1)
        yield f"booked {turn.number}"

    async with agent:
        call.turn("book it")
        await anyio.sleep(0.5)
        call.guess("thank you")
        await anyio.sleep(2)  # while the reply goes on, and once it is over
        call.end("thank you")
    assert known == [["book it"], ["book it", "one moment. booked 1", "thank you"]]


@pytest.mark.parametrize("outcome", ["resumed", "lost", "failed", "mismatched"])
async def test_f22_a_speculation_leaves_nothing_in_the_history_and_the_user_stands_there_once(
    call: "Call", outcome: str
) -> None:
    agent = call.speaks()

    @agent.think
    async def think(turn: Turn) -> str:
        assert [message["content"] for message in agent.history.messages(turn)][-1] == turn.transcript
        if outcome == "failed" and turn.latest_thought == 1:
            raise ValueError
        return f"re: {turn.transcript}"

    async with agent:
        call.guess("hello")
        await anyio.sleep(1)
        assert agent.history.messages() == []
        if outcome == "resumed":
            call.resume()
        if outcome == "lost":
            call.feed(Disconnected())
        else:
            call.end("hello you" if outcome == "mismatched" else "hello")
        await anyio.sleep(1)
    said = "hello you" if outcome == "mismatched" else "hello"
    assert agent.history.messages() == [
        {"role": "user", "content": said},
        *([] if outcome == "lost" else [{"role": "assistant", "content": f"re: {said}"}]),
    ]


async def test_f23_side_effects_of_a_speculation_that_is_discarded_do_not_happen(call: "Call") -> None:
    agent = call.speaks()
    booked: list[str] = []

    @agent.think
    async def think(turn: Turn) -> str:
        await anyio.sleep(0.1)
        async with committed():
            booked.append(turn.transcript)
        return "booked"

    async with agent:
        for text in "a table", "a table for two", "a table for three":
            call.eager(text)
            await anyio.sleep(1)
        call.resume()
        await anyio.sleep(1)
        call.end("a table for four")
        await anyio.sleep(1)
    assert booked == ["a table for four"]


@pytest.mark.parametrize("latency", [0.0, 0.3, 0.5])
async def test_f24_the_user_starts_to_speak_while_the_agent_thinks(call: "Call", latency: float) -> None:
    """From the same step on nothing of the earlier turn is let out, though its item may be there already."""
    agent = call.speaks()
    agent.think(lambda turn: model(turn, latency))

    async def listen(turn: Turn) -> None:
        await anyio.sleep(0.25)

    agent.listen(listen)
    async with agent:
        call.turn("hello")
        await anyio.sleep(0.17)
        call.start()
        await anyio.sleep(9)
    assert call.seen == []
    assert agent.history.messages() == [{"role": "user", "content": "hello"}]


async def test_f24_an_item_that_was_made_in_the_step_of_the_start_is_not_let_out(call: "Call") -> None:
    agent = call.speaks()
    made = anyio.Event()

    @agent.think
    async def think(turn: Turn) -> str:
        await made.wait()
        return "late"

    async with agent:
        for step in range(8):
            call.turn("hello")
            await anyio.sleep(0.1)
            made.set()
            for _ in range(step):
                await anyio.lowlevel.checkpoint()
            call.start()
            said = [*call.said]
            await anyio.sleep(1)
            assert call.said == said
            call.end("")
            made = anyio.Event()


async def test_f25_a_reply_that_does_not_let_itself_be_interrupted_does_not_play_with_the_new_one(call: "Call") -> None:
    agent = call.agent(grace=0.5)

    @agent.think
    async def think(turn: Turn) -> AsyncIterator[str]:
        for i in range(9):
            yield f"{turn.number}: {i}"
            await anyio.sleep(0.25)

    @agent.respond
    async def respond(turn: Turn, thought: Thought[Any]) -> None:
        with anyio.CancelScope(shield=True):
            await call.speak(thought)

    async with agent:
        call.turn("hello")
        await anyio.sleep(0.375)
        call.turn("stop")
        await anyio.sleep(9)
    assert call.said == ["1: 0", "1: 1", *(f"2: {i}" for i in range(9))]


async def test_f26_the_reply_changes_within_the_step_in_which_it_is_looked_at(call: "Call") -> None:
    """Two turns, an interrupt and words of the application, in one step: each decision sees the one before it."""
    agent = call.speaks()
    agent.think(model)
    agent.on_interrupt(lambda number: call.see(f"interrupt {number}"))
    async with agent:
        agent.say("welcome")
        await anyio.sleep(1)
        call.turn("one")
        call.turn("two")
        agent.interrupt()
        call.turn("three")
    assert call.said == ["welcome", "interrupt 1", "interrupt 2", "re: three"]


async def test_f27_no_reply_plays_over_a_turn_that_is_in_its_eager_state(call: "Call") -> None:
    agent = call.speaks()

    @agent.think
    async def think(turn: Turn) -> AsyncIterator[str]:
        for i in range(9):
            yield f"{turn.number}: {i}"
            await anyio.sleep(1)

    async with agent:
        call.turn("hello")
        await anyio.sleep(0.5)
        call.guess("and")
        await anyio.sleep(5)
        assert call.seen == [(0.0, "1: 0")]
        call.end("and")
        agent.close()


async def test_f28_the_user_speaks_before_the_reply_is_scheduled(call: "Call") -> None:
    """Its thought never begins, and is seen to end; its turn is in the history."""
    agent = call.speaks()
    agent.think(lambda turn: call.see(f"think {turn.number}"))
    agent.on_interrupt(lambda number: call.see(f"interrupt {number}"))
    async with agent:
        call.turn("hello")
        call.start()  # in the same step
        await anyio.sleep(1)
        [settled] = call.settled
    assert call.said == ["interrupt 1"]
    assert (settled.outcome, settled.began, settled.items, settled.turn.transcript) == (
        Outcome.ADOPTED,
        None,
        0,
        "hello",
    )
    assert agent.history.messages() == [{"role": "user", "content": "hello"}]


async def test_f31_an_answer_after_a_tool_call_is_spoken_once(call: "Call") -> None:
    """Several inferences in a turn are one thought. Nothing of a cancelled one is heard, and all of the adopted one."""
    agent = call.speaks()

    @agent.think
    async def think(turn: Turn) -> AsyncIterator[str]:
        for inference in "look it up", "tool", "answer":
            await anyio.sleep(0.3)
            yield f"{turn.latest_thought}: {inference}"

    async with agent:
        call.guess("what")
        await anyio.sleep(0.5)
        call.eager("what is it")
        await anyio.sleep(0.7)
        call.end("What is it?")
        await anyio.sleep(1)
        call.end("What is it?")
    assert call.said == ["2: look it up", "2: tool", "2: answer"]


async def test_f32_the_user_goes_on_and_the_timer_that_was_armed_does_not_end_the_turn(call: "Call") -> None:
    agent = call.speaks(policy=Policy(stall_timeout=2.0, after_stall=AfterStall.END))
    agent.think(lambda turn: turn.transcript)
    async with agent:
        call.guess("hello")
        await anyio.sleep(1.9)
        call.resume()
        await anyio.sleep(1.9)
        call.update("hello you")
        await anyio.sleep(1.9)
        assert call.seen == []
        call.end("hello you")
    assert call.seen == [(5.7, "hello you")]


@pytest.mark.parametrize("ending", ["resume", "start", "lost", "close", "end"])
async def test_f33_who_waits_for_the_commit_never_waits_for_ever(call: "Call", ending: str) -> None:
    agent = call.speaks()

    @agent.think
    async def think(turn: Turn) -> str:
        call.see("waits")
        try:
            await committed()
            call.see("committed")
        finally:
            call.see("over")
        return "a"

    async with agent:
        call.guess("book it")
        await anyio.sleep(1)
        endings: dict[str, Callable[[], None]] = {
            "resume": call.resume,
            "start": call.start,
            "lost": lambda: call.feed(Disconnected()),
            "close": agent.close,
            "end": lambda: call.end("book it"),
        }
        endings[ending]()
        await anyio.sleep(1)
    assert call.said == ["waits", *(["committed", "over", "a"] if ending == "end" else ["over"])]
    assert call.seen[-1][0] == 1.0


@pytest.mark.parametrize("when", ["before", "on the first item", "after"])
async def test_f36_the_words_guard_holds_only_while_a_reply_is_audible(call: "Call", when: str) -> None:
    """The tail of an utterance, while the model runs, is no backchannel."""
    agent = call.agent(policy=Policy(interrupts=min_words(3)))
    agent.think(model)

    @agent.respond
    async def respond(turn: Turn, thought: Thought[Any]) -> None:
        await call.speak(thought)
        await anyio.sleep(1)

    async with agent:
        call.turn("I want to book")
        await anyio.sleep({"before": 0.25, "on the first item": 0.75, "after": 2}[when])
        call.turn("for two")
        await anyio.sleep(2)
    answers = {
        "before": ["re: for two"],
        "on the first item": ["re: I want to book"],
        "after": ["re: I want to book", "re: for two"],
    }
    assert call.said == answers[when]


async def test_f37_what_was_discarded_does_not_swallow_the_next_reply(call: "Call") -> None:
    """Whatever was thrown away, in whatever way, the next whole turn is answered."""
    agent = call.speaks(policy=Policy(interrupts=min_words(2)), grace=0.25)

    @agent.think
    async def think(turn: Turn) -> str:
        if turn.transcript == "fail" and turn.latest_thought == 1:
            raise ValueError
        await anyio.sleep(0.1)
        return f"re: {turn.transcript}"

    storms: list[tuple[Callable[[], object], ...]] = [
        (lambda: call.guess("fail"),),
        (lambda: call.guess("a"), call.resume, lambda: call.eager("b"), call.resume),
        (lambda: call.turn("c"), agent.interrupt),
        (lambda: call.turn("d"), call.start, lambda: call.end("")),
        (lambda: call.guess("e"), lambda: call.feed(Disconnected())),
        (call.start, lambda: call.feed(Connected(request_id="new"))),
        (lambda: call.feed(ServerError(status_code=500)), lambda: call.feed("no frame"), call.resume),
        (lambda: call.turn("g"), lambda: call.feed(ReplyDone()), lambda: call.feed(EndNow())),
    ]
    async with agent:
        for i, storm in enumerate(storms):
            for act in storm:
                act()
            await anyio.sleep(1)
            call.start()
            call.end(f"whole {i}")
            await anyio.sleep(1)
    assert [what for what in call.said if "whole" in what] == [f"re: whole {i}" for i in range(len(storms))]


async def test_f40_respond_and_on_end_are_asked_once_a_turn(call: "Call") -> None:
    agent = call.agent()
    agent.think(model)
    agent.on_end(lambda turn: call.see(f"end {turn.number}"))

    @agent.respond
    async def respond(turn: Turn, thought: Thought[Any]) -> None:
        call.see(f"respond {turn.number}")
        await thought

    async with agent:
        call.guess("hello")
        call.resume()
        call.eager("hello")
        agent.context_changed()
        await anyio.sleep(1)
        agent.end_now()
        agent.end_now()
        call.end("hello")
        call.eager("hello")
        await anyio.sleep(1)
        call.turn("you")
    assert call.said == ["end 1", "respond 1", "end 2", "respond 2"]


async def test_f42_the_late_end_of_a_cancelled_reply_does_not_end_the_new_one(call: "Call") -> None:
    agent = call.agent(grace=0.25)
    agent.think(lambda turn: f"re: {turn.transcript}")
    agent.on_interrupt(lambda number: call.see(f"interrupt {number}"))

    @agent.respond
    async def respond(turn: Turn, thought: Thought[Any]) -> None:
        call.see(await thought)
        await call.stubborn(1 if turn.number == 1 else 4)
        call.see(f"end of {turn.number}")

    async with agent:
        call.turn("one")
        await anyio.sleep(0.5)
        call.turn("two")  # at once: cancel, then create
        await anyio.sleep(1)
        call.feed(ReplyDone(1))  # late, too
        call.start()  # the second is still in flight
        await anyio.sleep(5)
    assert call.seen == [
        *[(0.0, "re: one"), (0.5, "interrupt 1"), (0.75, "re: two"), (1.0, "end of 1")],
        *[(1.5, "interrupt 2"), (4.75, "end of 2")],
    ]


async def test_f44_feeding_never_waits_for_a_role(call: "Call") -> None:
    """The user goes on while the model runs, in the very task that reads the frames."""
    agent = call.speaks()

    @agent.think
    async def think(turn: Turn) -> str:
        call.see(f"think {turn.transcript}")
        await anyio.sleep(9)
        return f"re: {turn.transcript}"

    @agent.listen
    async def listen(turn: Turn) -> None:
        await anyio.sleep(0.1)

    async def ink() -> AsyncIterator[object]:
        yield TurnStart()
        yield {"type": "turn.eager_end", "transcript": "hello"}
        await anyio.sleep(0.25)
        call.see("resume is read")
        yield '{"type":"turn.resume"}'
        yield TurnUpdate(transcript="hello you")
        await anyio.sleep(1)
        yield b'{"type":"turn.end","transcript":"hello you"}'

    await agent.run(ink())
    assert call.seen == [
        *[(0.0, "think hello"), (0.25, "resume is read"), (1.25, "think hello you"), (10.25, "re: hello you")]
    ]
    assert [one.reason for one in call.settled] == [CancelReason.RESUMED, None]
