"""What goes wrong in Pipecat's own turn-taking, F01 to F08, each shown twice with the same words of the same server:
its service, user aggregator and gate do it; inkturns, as the watcher in that very pipeline or as an Agent, does not.

What stands here of Pipecat is true of one version. Where another is installed the first test fails, and each of the
others says by itself whether that version has mended it."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from importlib.metadata import version
from typing import Any

import attrs
import pytest
from pipecat.frames.frames import FunctionCallFromLLM, LLMTextFrame
from pipecat.processors.aggregators.llm_context import LLMContext

from inkturns import Agent, Policy, Turns, committed
from inkturns.actions import CancelReason, EndReason, ReportKind, Turn
from inkturns.adapters.pipecat import Pipecat
from inkturns.agent import Thought
from inkturns.testing import virtual_time

from .test_pipecat import START, Heard, Line, Model, Thinks, call, eager, echo, end, messages_of, update

RAN = "1.14.0"


def test_pipecat_is_the_version_whose_defects_these_are() -> None:
    assert version("pipecat-ai") == RAN, "look at each of these again, and say which that version has mended"


@attrs.define
class Watched:
    """What the watcher's hooks were told in Pipecat's own pipeline."""

    turns: Turns
    thoughts: list[str] = attrs.field(factory=list)
    cancelled: list[CancelReason] = attrs.field(factory=list)
    answered: list[str] = attrs.field(factory=list)
    abandoned: list[tuple[str, EndReason | None]] = attrs.field(factory=list)
    reports: list[ReportKind] = attrs.field(factory=list)


def through_pipecat(
    script: Sequence[Line], think: Thinks = echo, policy: Policy | None = None
) -> tuple[Heard, Watched]:
    """A call through Pipecat, watched."""
    turns = Turns(policy or Policy(), source=Pipecat(), clock=lambda: asyncio.get_running_loop().time())
    watched = Watched(turns)
    turns.on_think(lambda turn: watched.thoughts.append(turn.transcript))
    turns.on_cancel(lambda turn, reason: watched.cancelled.append(reason))
    turns.on_end(lambda turn: watched.answered.append(turn.transcript))
    turns.on_abandon(lambda turn: watched.abandoned.append((turn.transcript, turn.end)))
    turns.on_report(lambda report: watched.reports.append(report.kind))
    return call(script, think=think, turns=turns), watched


@attrs.define
class Spoken:
    """What an Agent asked its model, what the user heard, and the history of the last turn that it answered."""

    asked: list[str] = attrs.field(factory=list)
    said: list[str] = attrs.field(factory=list)
    messages: list[Any] = attrs.field(factory=list)


async def answer(turn: Turn) -> str:
    await asyncio.sleep(0.3)
    return f"re: {turn.transcript}"


def through_an_agent(script: Sequence[Line], think: Callable[[Turn], Awaitable[str]] = answer) -> Spoken:
    """The same messages at the same times, to an Agent."""
    spoken = Spoken()

    async def whole() -> None:
        agent = Agent()

        @agent.think
        async def thinking(turn: Turn) -> str:
            spoken.asked.append(turn.transcript)
            return await think(turn)

        @agent.respond
        async def respond(turn: Turn | None, thought: Thought[Any]) -> None:
            spoken.said.append(await thought)
            if turn is not None:
                spoken.messages = [(one["role"], one["content"]) for one in agent.history.messages(turn)]

        async def ink() -> AsyncIterator[str]:
            for line in script:
                if callable(line):
                    line(None)  # type: ignore[arg-type]
                elif isinstance(line, dict):
                    yield json.dumps(line)
                else:
                    await asyncio.sleep(line)

        await agent.run(ink())

    virtual_time.run(whole)
    return spoken


TWO_EAGERS = [START, 0.1, eager("hello"), 0.1, eager("hello world"), 0.1, end("hello world"), 5.0]


def test_f01_pipecat_says_the_replies_to_both_eager_ends() -> None:
    """The second speculation waits behind the first; the turn's end releases the one and holds the other no more."""
    heard, _ = through_pipecat(TWO_EAGERS)
    assert heard.said == ["re: hello", "re: hello world"]


def test_f01_inkturns_says_one_to_the_committed_text() -> None:
    _, watched = through_pipecat(TWO_EAGERS)
    assert (watched.cancelled, watched.answered) == ([CancelReason.SUPERSEDED], ["hello world"])
    assert through_an_agent(TWO_EAGERS).said == ["re: hello world"]


class Go:
    """Lets a speculation that waits for it go on, in the tick in which the script gets to it."""

    def __init__(self, steps: int) -> None:
        self._steps = steps
        self._event = asyncio.Event()

    def __call__(self, heard: object) -> None:
        self._event.set()

    async def wait(self) -> None:
        await self._event.wait()
        for _ in range(self._steps):
            await asyncio.sleep(0)


def tool_in_the_tick_of_the_end(go: Go) -> list[Line]:
    return [START, 0.1, eager("weather?"), 0.2, go, end("weather?"), 10.0]


@pytest.mark.parametrize("steps", range(1, 6))
def test_f02_pipecat_answers_nothing_where_a_speculation_asks_for_a_tool_as_its_turn_ends(steps: int) -> None:
    """The model's service withdraws the speculation that the user aggregator commits in the same tick."""
    go = Go(steps)

    async def think(model: Model, context: LLMContext, text: str) -> None:
        if messages_of(context)[-1]["role"] != "user":
            await model.push_frame(LLMTextFrame("rain"))
        else:
            await go.wait()
            await model.run_function_calls([FunctionCallFromLLM("weather", "1", {}, context)])

    heard, watched = through_pipecat(tool_in_the_tick_of_the_end(go), think)
    assert heard.asked == ["weather?"]
    assert heard.said == []
    assert watched.answered == ["weather?"]  # its thought is not void because Pipecat dropped its own
    assert watched.cancelled == []


@pytest.mark.parametrize("steps", range(8))
def test_f02_inkturns_answers_once_with_what_the_tool_said(steps: int) -> None:
    go = Go(steps)
    tools: list[str] = []

    async def think(turn: Turn) -> str:
        await go.wait()
        await committed()
        tools.append("weather")
        return "rain"

    spoken = through_an_agent(tool_in_the_tick_of_the_end(go), think)
    assert (spoken.said, tools) == (["rain"], ["weather"])


ADOPTED = [START, 0.1, eager("hello"), 0.5, end("hello"), 10.0]


def test_f03_pipecat_adopts_a_speculation_that_failed_and_says_nothing() -> None:
    async def think(model: Model, context: LLMContext, text: str) -> None:
        if len(model.asked) == 1:
            raise RuntimeError("429")
        await echo(model, context, text)

    heard, _ = through_pipecat(ADOPTED, think)
    assert (heard.asked, heard.said) == (["hello"], [])


def test_f03_inkturns_thinks_afresh() -> None:
    asked: list[str] = []

    async def think(turn: Turn) -> str:
        asked.append(turn.transcript)
        if len(asked) == 1:
            raise RuntimeError("429")
        return await answer(turn)

    assert through_an_agent(ADOPTED, think).said == ["re: hello"]
    assert asked == ["hello", "hello"]


NO_START = [START, 0.1, end("hi"), 3.0, end("hello"), 3.0, START, 0.1, update("you"), 0.1, end("you there"), 3.0]


def test_f04_pipecat_glues_a_turn_without_a_start_onto_the_next() -> None:
    heard, _ = through_pipecat(NO_START)
    assert heard.asked == ["hi", "hello you there"]


def test_f04_inkturns_has_it_as_a_turn_of_its_own_and_reports_it() -> None:
    _, watched = through_pipecat(NO_START)
    assert watched.answered == ["hi", "hello", "you there"]
    assert watched.reports == [ReportKind.MISSED_START]
    assert through_an_agent(NO_START).asked == ["hi", "hello", "you there"]


NO_END = [START, 0.1, update("hello"), 0.1, START, 0.1, update("you"), 0.1, end("you"), 3.0]


def test_f05_pipecat_loses_the_words_of_a_turn_whose_end_was_missed() -> None:
    heard, _ = through_pipecat(NO_END)
    assert heard.asked == ["you"]
    assert [text for _, text in heard.messages if "hello" in text] == []


def test_f05_inkturns_closes_the_old_turn_and_keeps_its_words() -> None:
    _, watched = through_pipecat(NO_END)
    assert watched.abandoned == [("hello", EndReason.SUPERSEDED)]
    assert watched.answered == ["you"]
    assert through_an_agent(NO_END).messages == [("user", "hello"), ("user", "you")]


TWO_ENDS = [START, 0.1, update("hello"), 0.1, end("hello"), end("hello"), 5.0]


def test_f06_pipecat_writes_the_message_twice_and_asks_the_model_again() -> None:
    """The second one waits in the aggregator: it is written, and asked, when the session ends or with the next turn."""
    heard, _ = through_pipecat(TWO_ENDS)
    assert heard.asked == ["hello", "hello"]
    assert [text for role, text in heard.messages if role == "user"] == ["hello", "hello"]
    heard, _ = through_pipecat([*TWO_ENDS, START, 0.1, end("bye"), 3.0])
    assert heard.asked == ["hello", "hello bye"]


def test_f06_inkturns_answers_the_same_end_once() -> None:
    _, watched = through_pipecat([*TWO_ENDS, START, 0.1, end("bye"), 3.0])
    assert watched.answered == ["hello", "bye"]
    assert set(watched.reports) == {ReportKind.LATE}
    spoken = through_an_agent(TWO_ENDS)
    assert (spoken.asked, spoken.said, spoken.messages) == (["hello"], ["re: hello"], [("user", "hello")])


BLANK = [START, 0.1, eager(""), 0.5, end("hello"), 3.0]


def test_f07_pipecat_asks_the_model_about_nothing() -> None:
    heard, _ = through_pipecat(BLANK)
    assert heard.asked == ["", "hello"]


def test_f07_inkturns_begins_no_thought_on_blank_text() -> None:
    _, watched = through_pipecat(BLANK)
    assert watched.thoughts == ["hello"]
    assert through_an_agent(BLANK).asked == ["hello"]


def three_eagers(look: Callable[[Heard], object]) -> list[Line]:
    """Looks right after the end, in the next turn's eager state when the timers of the first have fired, and after its
    end."""
    first: list[Line] = [START, eager("a"), 0.1, eager("a b"), 0.1, eager("a b c"), 0.1, end("a b c"), 0.1, look]
    return [*first, 4.5, START, eager("d"), 0.5, look, end("d"), 0.1, look, 10.0]


def test_f08_pipecats_timers_outlive_the_commit_and_clear_the_next_ones_handle() -> None:
    looks: list[tuple[int, bool]] = []  # timers that run, and whether the strategy knows of one

    def look(heard: Heard) -> None:
        [strategy] = heard.pair.user()._user_turn_controller.user_turn_strategies.stop or []
        timers = [task for task in asyncio.all_tasks() if "_speculation_timeout_handler" in task.get_name()]
        looks.append((len(timers), vars(strategy)["_speculation_timeout_task"] is not None))

    through_pipecat(three_eagers(look))
    after_the_commit, in_the_next_turn, after_its_commit = looks
    assert after_the_commit == (2, False)  # those of the first two
    assert in_the_next_turn == (1, False)  # its own runs, and the first turn's have cleared the handle to it
    assert after_its_commit == (1, False)  # so that it outlives that commit too


def test_f08_inkturns_has_one_deadline_and_none_after_the_commit() -> None:
    deadlines: list[float | None] = []
    policy = Policy(stall_timeout=6.0)
    turns = Turns(policy, source=Pipecat(), clock=lambda: asyncio.get_running_loop().time())
    call(three_eagers(lambda heard: deadlines.append(turns.machine.deadline)), turns=turns)
    after_the_commit, in_the_next_turn, after_its_commit = deadlines
    assert (after_the_commit, after_its_commit) == (None, None)
    assert in_the_next_turn == pytest.approx(0.1 + 0.4 + 4.5 + 6.0)  # from that turn's own text
