"""The guard in Pipecat's pipeline. Each defect that begins on the wire is shown twice with the same messages: without
the guard as Pipecat has it, with it as one right answer; with time between the messages, and with all of them in one
step. What the guard cannot mend is shown too."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from pipecat.frames.frames import Frame, FunctionCallFromLLM, LLMMessagesAppendFrame, LLMTextFrame
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.services.llm_service import FunctionCallParams

from inkturns import Policy, Turns
from inkturns.actions import CancelReason, ReportKind
from inkturns.adapters.pipecat import Pipecat
from inkturns.adapters.pipecat_outbox import PATIENCE, Outbox
from inkturns.testing import virtual_time

from .test_pipecat import START, Heard, Line, Model, call, eager, echo, end, messages_of, update
from .test_pipecat_defects import BLANK, NO_END, NO_START, TWO_EAGERS, TWO_ENDS, Go

BYE: list[Line] = [START, 0.1, end("bye"), 3.0]


def guarded(
    script: Sequence[Line], *, policy: Policy | None = None, turns: Turns | None = None, **options: Any
) -> Heard:
    return call(script, turns=turns or Turns(policy or Policy(), source=Pipecat()), guarded=True, **options)


def at_once(script: Sequence[Line]) -> list[Line]:
    """The messages without a pause among them; then the pauses. A turn that nobody waits for is spoken over."""
    return [*(line for line in script if not isinstance(line, float)), 10.0]


def users(heard: Heard) -> list[str]:
    return [text for role, text in heard.messages if role == "user"]


# -- what it mends


def test_f01_one_reply_where_a_second_eager_end_comes_without_a_resume() -> None:
    for script in (TWO_EAGERS, at_once(TWO_EAGERS)):
        assert call(script).said == ["re: hello", "re: hello world"]
        heard = guarded(script)
        assert (heard.said, users(heard)) == (["re: hello world"], ["hello world"])


@pytest.mark.parametrize("steps", range(8))
def test_f02_a_tool_call_that_withdraws_the_speculation_in_the_tick_of_the_end_is_answered_once(steps: int) -> None:
    """The model's service drops what the aggregator commits; the guard sees both, and has the model run again."""
    go = Go(steps)
    tools: list[str] = []

    async def weather(params: FunctionCallParams) -> None:
        tools.append("weather")
        await params.result_callback("rain")

    async def think(model: Model, context: LLMContext, text: str) -> None:
        model.register_function("weather", weather)
        if messages_of(context)[-1]["role"] != "user":
            await model.push_frame(LLMTextFrame("rain"))
        else:
            if len(model.asked) == 1:
                await go.wait()
            await model.run_function_calls([FunctionCallFromLLM("weather", "1", {}, context)])

    heard = guarded([START, 0.1, eager("weather?"), 0.2, go, end("weather?"), 10.0], think=think)
    assert (heard.said, tools, users(heard)) == (["rain"], ["weather"], ["weather?"])


FAILS: list[Line] = [START, 0.1, eager("hello"), 0.5, end("hello"), 10.0]


async def fail_once(model: Model, context: LLMContext, text: str) -> None:
    if len(model.asked) == 1:
        raise RuntimeError("429")
    await echo(model, context, text)


def test_f03_a_speculation_that_failed_is_not_adopted() -> None:
    assert call(FAILS, think=fail_once).said == []
    turns = Turns(source=Pipecat())
    cancelled: list[CancelReason] = []
    turns.on_cancel(lambda turn, reason: cancelled.append(reason))
    heard = guarded(FAILS, turns=turns, think=fail_once)
    assert (heard.asked, heard.said, users(heard)) == (["hello", "hello"], ["re: hello"], ["hello"])
    assert cancelled == [CancelReason.FAILED]


@pytest.mark.parametrize("steps", range(8))
def test_f03_nor_where_it_fails_in_the_tick_of_the_end(steps: int) -> None:
    """From the fourth step on the reply has been committed: that failure is the model's own, as without the guard."""
    go = Go(steps)

    async def think(model: Model, context: LLMContext, text: str) -> None:
        if len(model.asked) == 1:
            await go.wait()
        await fail_once(model, context, text)

    heard = guarded([START, 0.1, eager("hello"), 0.2, go, end("hello"), 10.0], think=think)
    assert heard.said == (["re: hello"] if steps < 4 else [])


def test_f04_a_turn_without_a_start_is_answered_and_stays_out_of_the_next() -> None:
    assert call(NO_START).asked == ["hi", "hello you there"]
    heard = guarded(NO_START)
    assert heard.asked == users(heard) == ["hi", "hello", "you there"]
    assert heard.said == ["re: hi", "re: hello", "re: you there"]
    heard = guarded(at_once(NO_START))
    assert users(heard) == ["hi", "hello", "you there"]
    assert heard.said == ["re: you there"]


def test_f05_the_words_of_a_turn_whose_end_was_missed_enter_the_context_without_a_run() -> None:
    for script in (NO_END, at_once(NO_END)):
        assert users(call(script)) == ["you"]
        heard = guarded(script)
        assert (heard.asked, heard.said, users(heard)) == (["you"], ["re: you"], ["hello", "you"])


def test_f05_and_a_speculation_on_them_is_withdrawn() -> None:
    script: list[Line] = [START, 0.1, eager("hello"), 0.1, START, 0.1, update("you"), 0.1, end("you"), 3.0]
    for lines in (script, at_once(script)):
        heard = guarded(lines)
        assert (heard.asked, heard.said, users(heard)) == (["hello", "you"], ["re: you"], ["hello", "you"])


def test_f06_the_same_end_twice_is_one_message_and_one_answer() -> None:
    script = [*TWO_ENDS, *BYE]
    assert call(script).asked == ["hello", "hello bye"]
    heard = guarded(script)
    assert heard.asked == users(heard) == ["hello", "bye"]
    assert heard.said == ["re: hello", "re: bye"]
    heard = guarded(at_once(script))
    assert (heard.said, users(heard)) == (["re: bye"], ["hello", "bye"])


def test_f07_blank_text_asks_no_model() -> None:
    for script in (BLANK, at_once(BLANK)):
        assert call(script).asked == ["", "hello"]
        heard = guarded(script)
        assert (heard.asked, heard.said) == (["hello"], ["re: hello"])


@pytest.mark.parametrize("match", [("co-operate", "cooperate"), ("hello", "hello,"), ("HELLO", "Hello. ")])
def test_f21_punctuation_alone_asks_no_model_again(match: tuple[str, str]) -> None:
    script: list[Line] = [START, 0.1, eager(match[0]), 0.5, end(match[1]), 3.0]
    heard = guarded(script)
    assert (heard.asked, heard.said) == ([match[0]], [f"re: {match[0]}"])
    if match[0] == "co-operate":
        assert len(call(script).asked) == 2


@pytest.mark.parametrize(("first", "last"), [("का", "की"), ("at -5", "at 5"), ("2.5", "2 5")])
def test_f21_other_words_are_not_answered_with_a_reply_to_the_first(first: str, last: str) -> None:
    """Pipecat's own match takes marks and minus signs for punctuation."""
    script: list[Line] = [START, 0.1, eager(first), 0.5, end(last), 3.0]
    for lines in (script, at_once(script)):
        assert call(lines).said == [f"re: {first}"]
        assert guarded(lines).said == [f"re: {last}"]


def test_f29_the_next_start_in_the_step_of_an_end_does_not_overtake_it() -> None:
    """Pipecat's start is a system frame: it overtakes the stop, and the new turn is answered with the old words."""
    script: list[Line] = [START, 0.1, eager("one"), 0.1, end("one"), START, eager("two"), end("two"), 3.0]
    assert call(script).said == ["re: one"]
    heard = guarded(script)
    assert (heard.said, users(heard)) == (["re: two"], ["one", "two"])


LATE: list[Line] = [START, 0.1, end("hello"), 3.0, end("hello there"), 3.0, *BYE]


def test_f30_words_after_the_end_are_a_turn_and_stay_out_of_the_next() -> None:
    assert call(LATE).asked == ["hello", "hello there bye"]
    heard = guarded(LATE)
    assert heard.asked == users(heard) == ["hello", "hello there", "bye"]
    heard = guarded(at_once(LATE))
    assert (users(heard), heard.said) == (["hello", "hello there", "bye"], ["re: bye"])


def test_f30_words_after_the_end_that_add_nothing_are_dropped_and_reported() -> None:
    turns = Turns(source=Pipecat())
    reports: list[ReportKind] = []
    turns.on_report(lambda report: reports.append(report.kind))
    heard = guarded([START, 0.1, end("hello there"), 3.0, update("hello"), 1.0, *BYE], turns=turns)
    assert (users(heard), reports) == (["hello there", "bye"], [ReportKind.LATE])


def test_f31_the_same_eager_end_twice_is_answered_once() -> None:
    script: list[Line] = [START, 0.1, eager("hello"), 0.1, eager("hello"), 0.1, end("hello"), 5.0]
    for lines in (script, at_once(script)):
        assert call(lines).said == ["re: hello", "re: hello"]
        heard = guarded(lines)
        assert (heard.asked, heard.said) == (["hello"], ["re: hello"])


def test_f31_pipecats_own_look_at_the_turn_in_the_tick_of_its_end_answers_it_once() -> None:
    """Its strategy looks each half second. Where that falls on the stop, two tasks end the turn: one takes the
    speculation, and the other answers afresh."""
    script: list[Line] = [START, 0.1, eager("hello"), 0.3, end("hello"), 5.0]
    assert call(script).said == ["re: hello", "re: hello"]
    assert guarded(script).said == ["re: hello"]


def test_f34_a_connection_that_begins_with_an_update_begins_a_turn() -> None:
    """The service says that the connection was lost in mid-turn; the new one goes on without a start."""

    def lost(heard: Heard) -> None:
        asyncio.get_running_loop().create_task(heard.service._end_turn_cut_short())

    script: list[Line] = [START, 0.1, update("a table"), 0.1, lost, 3.0, update("for"), 0.1, end("for two"), 3.0, *BYE]
    assert call(script).asked == ["a table", "for two bye"]
    heard = guarded(script)
    assert heard.asked == users(heard) == ["a table", "for two", "bye"]


def test_f45_an_end_without_text_answers_the_words_that_were_heard() -> None:
    script: list[Line] = [START, 0.1, update("hello"), 0.1, end(""), 8.0]
    assert (call(script).asked, users(call(script))) == ([], [])
    for lines in (script, at_once(script)):
        heard = guarded(lines)
        assert (heard.said, users(heard)) == (["re: hello"], ["hello"])


# -- what it cannot mend


def test_f34_it_cannot_tell_a_new_connection_that_the_service_says_nothing_of() -> None:
    """Pipecat's frames hold no ids: the new connection's words revise the old one's."""
    lines: list[Line] = [
        START,
        0.1,
        update("a table"),
        0.1,
        {"type": "connected", "request_id": "2"},
        update("for two"),
    ]
    heard = guarded([*lines, 0.1, end("for two"), 3.0])
    assert users(heard) == ["for two"]


# -- the outbox


def test_a_frame_that_cannot_be_handed_on_holds_up_no_other() -> None:
    """The first waits for what is on its way, so that both leave through the queue."""
    handed: list[str] = []

    class Owner:
        def create_task(self, coroutine: Any) -> asyncio.Task[None]:
            return asyncio.ensure_future(coroutine)

        async def push_frame(self, frame: Frame) -> None:
            if isinstance(frame, LLMTextFrame) and frame.text == "first":
                raise ConnectionError("gone")
            handed.append(getattr(frame, "text", ""))

    async def sent() -> bool:
        outbox = Outbox(Owner(), on_processed=lambda _: None, on_asked=lambda: None)  # type: ignore[arg-type]
        outbox.follows = True
        await outbox.send(LLMMessagesAppendFrame(messages=[]))
        await outbox.send(LLMTextFrame("first"), waits=True)
        await outbox.send(LLMTextFrame("second"))
        await asyncio.sleep(2 * PATIENCE)
        await outbox.send(LLMTextFrame("third"))
        return outbox.is_empty

    assert virtual_time.run(sent)
    assert handed == ["", "second", "third"]
