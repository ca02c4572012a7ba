"""Telemetry of live calls: one trace a turn, its thoughts and its reply, and what is counted."""

import importlib
import io
import logging
import subprocess
import sys
from collections.abc import AsyncIterator
from hashlib import sha256
from typing import Any

import anyio
import pytest
from opentelemetry import context, metrics, trace
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes
from opentelemetry.trace import StatusCode

import inkturns.telemetry
from inkturns import Agent, Policy, Recorder, ReplyDone, ReplyStarted, Thought, Turn, Turns, current_thought
from inkturns.events import TurnEagerEnd, TurnEnd, TurnResume, TurnStart, TurnUpdate, UsePolicy
from inkturns.telemetry import instrument, names
from inkturns.testing import virtual_time
from tests.collected import Collected, check_spans
from tests.conftest import Call


@pytest.fixture
def collected() -> Collected:
    return Collected()


def thinks(agent: Agent, *, seconds: float = 0.5, error: Exception | None = None) -> None:
    @agent.think
    async def think(turn: Turn) -> AsyncIterator[str]:
        current_thought().usage(input_tokens=10, output_tokens=2, cached_tokens=4, cost=0.25)
        await anyio.sleep(seconds)
        if error is not None:
            raise error
        yield "a secret "
        yield "reply"


def speaks(agent: Agent) -> None:
    @agent.respond
    async def respond(turn: Turn, thought: Thought[str]) -> None:
        async for _ in thought:
            await anyio.sleep(0.25)


async def two_guesses(call: Call) -> None:
    """0.0 the turn, 1.0 a guess, 1.25 a resume, 2.0 a guess, 3.0 the end; the reply is over at 3.5."""
    call.start()
    await anyio.sleep(1)
    call.eager("my card")
    await anyio.sleep(0.25)
    call.resume()
    await anyio.sleep(0.75)
    call.eager("my card is lost")
    await anyio.sleep(1)
    call.end("my card is lost")
    await anyio.sleep(2)


def seconds(span: Any, since: Any) -> tuple[float, float]:
    return (span.start_time - since.start_time) / 1e9, (span.end_time - since.start_time) / 1e9


# -- the spans of a turn


async def test_a_turn_is_a_trace_with_a_span_for_each_thought_and_for_its_reply(
    call: Call, collected: Collected
) -> None:
    agent = call.agent()
    thinks(agent)
    speaks(agent)
    collected.of(agent, name="booking", call="7f3a", currency="EUR", attributes={"arm": "b"})
    async with agent:
        await two_guesses(call)
    check_spans(collected)
    common = {"gen_ai.agent.name": "booking", "gen_ai.conversation.id": "7f3a", "arm": "b"}
    [turn] = collected.turns
    assert turn.name == "invoke_agent booking"
    assert turn.attributes == common | {
        "gen_ai.operation.name": "invoke_agent",
        "inkturns.turn.number": 1,
        "inkturns.turn.end": "server",
        "inkturns.turn.answered": True,
        "inkturns.turn.latest_thought": 2,
        "inkturns.turn.saved": 0.5,
        "inkturns.turn.gap": 1.0,
    }
    assert [(event.name, (event.timestamp - (turn.start_time or 0)) / 1e9) for event in turn.events] == [
        ("inkturns.eager_end", 1.0),
        ("inkturns.resume", 1.25),
        ("inkturns.eager_end", 2.0),
        ("inkturns.end", 3.0),
        ("inkturns.reply_started", 3.0),
    ]
    usage = {"input_tokens": 10, "output_tokens": 2, "cache_read.input_tokens": 4}
    used = {f"gen_ai.usage.{name}": value for name, value in usage.items()} | {"inkturns.usage.cost": 0.25}
    cancelled, adopted = collected.named("inkturns.thought")
    assert cancelled.attributes == common | used | {
        "inkturns.thought.number": 1,
        "inkturns.thought.speculative": True,
        "inkturns.thought.outcome": "cancelled",
        "inkturns.thought.reason": "resumed",
        "inkturns.thought.items": 0,
    }
    assert adopted.attributes == common | used | {
        "inkturns.thought.number": 2,
        "inkturns.thought.speculative": True,
        "inkturns.thought.outcome": "adopted",
        "inkturns.thought.items": 2,
        "inkturns.thought.head_start": 1.0,
        "inkturns.thought.saved": 0.5,
        "gen_ai.response.time_to_first_chunk": 0.5,
    }
    [reply] = collected.named("inkturns.reply")
    assert reply.attributes == common | {"inkturns.reply.outcome": "heard"}
    times = [seconds(span, turn) for span in (cancelled, adopted, reply, turn)]
    assert times == [(1.0, 1.25), (2.0, 2.5), (3.0, 3.5), (0.0, 3.5)]


async def test_what_is_counted(call: Call, collected: Collected) -> None:
    agent = call.agent()
    thinks(agent)
    speaks(agent)
    collected.of(agent, name="booking", call="7f3a", currency="EUR", attributes={"arm": "b"})
    async with agent:
        call.start()
        assert collected.total("inkturns.open_calls") == 1
        await two_guesses(call)
    assert collected.total("inkturns.open_calls") == 0
    assert collected.total("inkturns.reports", report__kind="duplicate_start") == 1
    assert collected.total("inkturns.turns", turn__end="server", turn__answered=True) == 1
    assert collected.total("inkturns.thoughts", thought__outcome="adopted", thought__speculative=True) == 1
    assert collected.total("inkturns.thoughts", thought__outcome="cancelled", thought__reason="resumed") == 1
    assert collected.total("inkturns.thoughts") == 2
    assert collected.total("inkturns.replies", reply__outcome="heard") == 1
    assert collected.total("inkturns.usage.input_tokens", thought__outcome="cancelled") == 10
    assert collected.total("inkturns.usage.output_tokens", thought__outcome="adopted") == 2
    assert collected.total("inkturns.usage.cost", usage__currency="EUR") == 0.5
    assert collected.histogram("inkturns.turn.end_to_first_item") == (1, 0.0)
    assert collected.histogram("inkturns.turn.end_to_first_sound") == (1, 0.0)
    assert collected.histogram("inkturns.thought.gap") == (1, 1.0)
    assert collected.histogram("inkturns.thought.saved") == (1, 0.5)
    assert collected.histogram("inkturns.thought.time_to_first_item") == (1, 0.5)
    [saved] = collected.points["inkturns.thought.saved"]
    assert saved.explicit_bounds == names.BUCKETS
    points = [point for points in collected.points.values() for point in points]
    assert len(points) == 17
    for point in points:
        assert {"gen_ai.agent.name": "booking", "arm": "b"}.items() <= dict(point.attributes).items()
        assert "7f3a" not in f"{point.attributes}"


async def test_without_a_currency_no_cost_is_counted(call: Call, collected: Collected) -> None:
    agent = call.agent()
    thinks(agent)
    speaks(agent)
    collected.of(agent)
    async with agent:
        await two_guesses(call)
    assert "inkturns.usage.cost" not in collected.points
    assert collected.total("inkturns.usage.input_tokens") == 20


async def test_the_users_own_spans_nest_under_the_thought_that_makes_them(call: Call, collected: Collected) -> None:
    """However deep, and whatever was current where the agent was fed."""
    tracer = collected.tracers.get_tracer("of a model's SDK")
    agent = call.agent()

    async def inner() -> None:
        with tracer.start_as_current_span("chat"):
            await anyio.sleep(0.5)

    @agent.think
    async def think(turn: Turn) -> AsyncIterator[str]:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(inner)
        yield "a"

    speaks(agent)
    collected.of(agent)
    async with agent:
        with tracer.start_as_current_span("feeder") as feeder:
            await two_guesses(call)
        assert trace.get_current_span() is trace.INVALID_SPAN
    chats, thoughts = collected.named("chat"), collected.named("inkturns.thought")
    assert [chat.parent and chat.parent.span_id for chat in chats] == [
        thought.context and thought.context.span_id for thought in thoughts
    ]
    assert len(chats) == 2
    for span in (*thoughts, *collected.named("invoke_agent agent")):
        assert span.context
        assert span.context.trace_id != feeder.get_span_context().trace_id
        assert [link.context for link in span.links] == []


async def test_the_users_own_spans_nest_under_the_reply_that_says_them(call: Call, collected: Collected) -> None:
    """What `say` is given has no span, and so they stand alone there."""
    tracer = collected.tracers.get_tracer("of a voice")
    agent = call.agent()
    thinks(agent)

    async def synthesis() -> None:
        with tracer.start_as_current_span("synthesis"):
            await anyio.sleep(0.5)

    @agent.respond
    async def respond(turn: Turn, thought: Thought[str]) -> None:
        async for _ in thought:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(synthesis)

    collected.of(agent)
    async with agent:
        await agent.say("Hello!")
        call.turn("yes")
        await anyio.sleep(1.25)
        call.turn("wait")
        await anyio.sleep(3)
    alone, *nested = [span.parent and span.parent.span_id for span in collected.named("synthesis")]
    assert alone is None
    replies = [reply.context and reply.context.span_id for reply in collected.named("inkturns.reply")]
    assert (len(replies), len(nested)) == (2, 4)
    assert {*nested} == {*replies}


async def test_each_turn_links_to_the_span_around_run_and_to_the_turn_before(call: Call, collected: Collected) -> None:
    agent = call.agent()
    thinks(agent)
    speaks(agent)
    collected.of(agent)
    with collected.tracers.get_tracer("a server").start_as_current_span("request") as request:
        async with agent:
            with trace.use_span(trace.INVALID_SPAN):
                for _ in range(3):
                    call.turn("yes")
                    await anyio.sleep(3)
    roots = collected.named("invoke_agent agent")
    outer = request.get_span_context()
    assert [[link.context for link in root.links] for root in roots] == [
        [outer, *([roots[n - 1].context] if n else [])] for n in range(3)
    ]
    assert len({root.context.trace_id for root in roots if root.context} | {outer.trace_id}) == 4


@pytest.mark.parametrize("where", ["think", "think, at the end", "respond"])
async def test_what_has_failed_is_an_error_with_its_type_alone(call: Call, collected: Collected, where: str) -> None:
    """What is cancelled is none."""
    agent = call.agent()
    secret = ValueError("no such user: a secret")
    failures: list[Exception] = []
    agent.on_failure(lambda turn, error: failures.append(error))
    thinks(agent, error=None if where == "respond" else secret)

    @agent.respond
    async def respond(turn: Turn, thought: Thought[str]) -> None:
        async for _ in thought:
            raise secret

    collected.of(agent)
    async with agent:
        call.start()
        if where == "think":
            call.eager("my card")
            await anyio.sleep(1)
        call.end("my card")
        await anyio.sleep(2)
    check_spans(collected)
    failed = {span.name: span.attributes for span in collected.ended if span.status.status_code is StatusCode.ERROR}
    assert {name: (of or {})["error.type"] for name, of in failed.items()} == (
        {"inkturns.reply": "ValueError"}
        if where == "respond"
        else {"inkturns.thought": "ValueError", "inkturns.reply": "ValueError"}
    )
    assert failures
    assert "secret" not in collected.everything
    assert collected.total("inkturns.replies", reply__outcome="failed") == 1
    assert all(event.name.startswith("inkturns.") for span in collected.ended for event in span.events)


async def test_a_thought_that_never_began_and_a_reply_that_was_cut(call: Call, collected: Collected) -> None:
    agent = call.agent()
    thinks(agent, seconds=5)
    speaks(agent)
    collected.of(agent)
    async with agent:
        call.guess("a")
        call.resume()  # in the same step: nothing was asked of the model
        call.end("a b")
        await anyio.sleep(1)
        call.turn("wait")
        await anyio.sleep(9)
    check_spans(collected)
    outcomes = [(span.attributes or {})["inkturns.thought.outcome"] for span in collected.named("inkturns.thought")]
    assert sorted(map(str, outcomes)) == ["adopted", "adopted", "not_begun"]
    assert collected.total("inkturns.thoughts", thought__outcome="not_begun", thought__reason="resumed") == 1
    assert collected.total("inkturns.replies", reply__outcome="not_begun") == 1
    interrupted, wait = collected.named("invoke_agent agent")
    assert [event.name for event in interrupted.events][-1] == "inkturns.interrupted"
    assert (wait.attributes or {})["inkturns.turn.interrupted"] == 1


async def test_a_stuck_task_is_reported_on_its_turn_whose_span_waits_for_it(call: Call, collected: Collected) -> None:
    agent = call.agent(grace=0.5)

    @agent.think
    async def think(turn: Turn) -> str:
        await call.stubborn(4)
        return "a"

    speaks(agent)
    collected.of(agent)
    async with agent:
        call.guess("a")
        await anyio.sleep(1)
        call.resume()
        call.end("a b")
        await anyio.sleep(9)
    check_spans(collected)
    assert collected.total("inkturns.reports", report__kind="stuck_task") == 1
    [event] = [event for event in collected.turns[0].events if event.name == "inkturns.report"]
    assert event.attributes == {"inkturns.report.kind": "stuck_task"}


# -- words


@pytest.mark.parametrize("content", [False, True])
async def test_no_words_unless_content_is_asked_for(
    call: Call, collected: Collected, content: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """In no span, event, metric or log, and in no error."""
    agent = call.agent()
    thinks(agent)
    speaks(agent)
    collected.of(agent, content=content, attributes={"arm": "b"})
    with caplog.at_level(logging.DEBUG):
        async with agent:
            await two_guesses(call)
            call.feed('{"type": "turn.end", "transcript": 4111}')
            call.feed('{"type": "my card is lost"}')
    for words in ("card", "secret", "lost"):
        assert (words in collected.everything) is content
        assert words not in " ".join(record.getMessage() for record in caplog.records if record.name != "inkturns")
    if content:
        [turn] = collected.turns
        of = turn.attributes or {}
        assert of["gen_ai.input.messages"] == (
            '[{"role": "user", "parts": [{"type": "text", "content": "my card is lost"}]}]'
        )
        assert of["gen_ai.output.messages"] == (
            '[{"role": "assistant", "parts": [{"type": "text", "content": "a secret reply"}]}]'
        )
        guess = collected.named("inkturns.thought")[0].attributes or {}
        assert '"my card"' in str(guess["gen_ai.input.messages"])


@pytest.mark.parametrize("options", [{}, {"call": "7f3a", "sample": 0.0}])
async def test_with_content_too_no_words_of_a_pause(call: Call, collected: Collected, options: dict[str, Any]) -> None:
    """As in the recording, and where the call is not in the sample that is recorded."""
    agent = call.agent(recorder=Recorder(io.BytesIO(), **options))
    assert agent.recorder is not None
    recorder = agent.recorder
    thinks(agent)
    speaks(agent)
    collected.of(agent, content=True, call="inner")
    collected.of(agent, content=True, call="outer")
    async with agent:
        call.guess("before")
        await anyio.sleep(1)
        recorder.pause()
        call.end("before my pin")
        await anyio.sleep(3)
        call.turn("my pin")
        recorder.resume()
        await anyio.sleep(3)
        assert "reply" not in collected.everything.replace("inkturns.reply", "")
        call.turn("after")
        await anyio.sleep(3)
        call.start()
        call.end("")
    assert "my pin" not in collected.everything
    for words in ("before", "after", "a secret reply"):
        assert words in collected.everything


async def test_the_calls_id_can_be_hashed(call: Call, collected: Collected) -> None:
    agent = call.agent()
    thinks(agent)
    speaks(agent)
    collected.of(agent, call="+49 30 123456", hash_call=True)
    async with agent:
        await two_guesses(call)
    assert "123456" not in collected.everything
    hashed = sha256(b"+49 30 123456").hexdigest()[:32]
    assert {(span.attributes or {})["gen_ai.conversation.id"] for span in collected.ended} == {hashed}


# -- a watcher


def test_a_watcher_has_a_trace_a_turn_too(collected: Collected) -> None:
    """Its thoughts end where the machine has done with them, and its reply where it is told so."""
    turns = Turns()
    watched = collected.of(turns, name="watched")
    turns.feed(TurnStart(), 10)
    turns.feed(TurnUpdate("a"), 10.5)
    turns.feed(TurnEagerEnd("a"), 11)
    turns.feed(TurnResume(), 11.5)
    turns.feed(TurnEagerEnd("a b"), 12)
    turns.feed(TurnEnd("a b"), 13)
    turns.feed(ReplyStarted(1), 13.5)
    turns.feed(ReplyDone(1), 15)
    turns.feed(TurnStart(), 16)
    turns.feed(TurnEnd("c"), 17)
    watched.remove()
    check_spans(collected)
    first, second = collected.named("invoke_agent watched")
    assert seconds(first, first) == (0.0, 5.0)
    assert seconds(second, first) == (6.0, 7.0)
    assert [seconds(span, first) for span in collected.named("inkturns.thought")] == [(1, 1.5), (2, 3), (7, 7)]
    [reply] = collected.named("inkturns.reply")
    assert seconds(reply, first) == (3.0, 5.0)
    assert collected.histogram("inkturns.thought.gap") == (1, 1.0)
    assert collected.histogram("inkturns.turn.end_to_first_sound") == (1, 0.5)
    assert collected.total("inkturns.replies", reply__outcome="heard") == collected.total("inkturns.replies") == 1
    assert collected.total("inkturns.thoughts", thought__outcome="adopted") == 2


def test_a_watcher_that_tells_nothing_about_replies_has_no_spans_of_them(collected: Collected) -> None:
    turns = Turns()
    watched = collected.of(turns)
    for t in (1.0, 5.0):
        turns.feed(TurnStart(), t)
        turns.feed(TurnEnd("yes"), t + 1)
    watched.remove()
    check_spans(collected)
    assert [seconds(turn, turn) for turn in collected.turns] == [(0.0, 1.0), (0.0, 1.0)]
    assert not collected.named("inkturns.reply")
    assert collected.total("inkturns.replies") == 0


def test_a_watched_reply_that_is_cut_short_and_a_turn_without_an_answer(collected: Collected) -> None:
    turns = Turns()
    watched = collected.of(turns)
    turns.feed(TurnStart(), 1)
    turns.feed(TurnEnd("yes"), 2)
    turns.feed(ReplyStarted(1), 3)
    turns.feed(ReplyStarted(9), 3)
    turns.feed(TurnStart(), 4)
    turns.feed(TurnEnd(""), 5)
    turns.feed(TurnStart(), 6)
    turns.feed(TurnEagerEnd("left open"), 7)
    watched.remove()
    check_spans(collected)
    [reply] = collected.named("inkturns.reply")
    assert (reply.attributes or {})["inkturns.reply.outcome"] == "interrupted"
    answered = [(turn.attributes or {}).get("inkturns.turn.answered") for turn in collected.turns]
    assert answered == [True, False, None]
    assert collected.total("inkturns.turns", turn__end="empty", turn__answered=False) == 1


def test_a_turn_that_adds_to_another_says_so(collected: Collected) -> None:
    turns = Turns()
    watched = collected.of(turns)
    turns.feed(TurnStart(turn_id="1"), 1)
    turns.feed(TurnEnd("book a table", turn_id="1"), 2)
    turns.feed(TurnUpdate("book a table for two", turn_id="1"), 3)
    watched.remove()
    second = collected.named("invoke_agent agent")[1]
    assert (second.attributes or {})["inkturns.turn.continues"] == 1
    assert [event.name for event in second.events] == ["inkturns.report"]


@pytest.mark.parametrize("times", [[None, None], [5.0, 4.0], [1.0, 1e300], [0.0, float("nan")], [0.0, -1e12]])
def test_whatever_the_clock_says_the_times_are_in_order(times: list[float | None], collected: Collected) -> None:
    turns = Turns()
    watched = collected.of(turns)
    for event, t in zip((TurnStart(), TurnEnd("yes")), times, strict=True):
        turns.feed(event, t)
    watched.remove()
    check_spans(collected)
    assert len(collected.turns) == 1


def test_what_comes_without_a_time_spoils_no_other_times(collected: Collected) -> None:
    """Application events often have none. This machine's clock is not the call's."""
    turns = Turns()
    watched = collected.of(turns)
    turns.feed(UsePolicy(Policy()))
    for number in (1, 2):
        t = number * 10.0
        turns.feed(TurnStart(), t)
        turns.feed(TurnEagerEnd("yes"), t + 1)
        turns.feed(TurnEnd("yes"), t + 2)
        turns.feed(ReplyStarted(number))
        turns.feed(ReplyDone())
    watched.remove()
    check_spans(collected)
    first, second = collected.turns
    assert seconds(first, first) == (0.0, 2.0)
    assert seconds(second, first) == (10.0, 12.0)
    assert collected.histogram("inkturns.thought.gap") == (2, 2.0)


def test_a_turn_that_is_left_open_lasts_until_the_last_word(collected: Collected) -> None:
    turns = Turns()
    watched = collected.of(turns)
    for t, event in enumerate((TurnStart(), TurnUpdate("a"), TurnUpdate("a b"))):
        turns.feed(event, float(t))
    watched.remove()
    [turn] = collected.turns
    assert seconds(turn, turn) == (0.0, 2.0)


# -- on, off, and in the way of nobody


def test_it_can_be_taken_off_in_mid_call_and_the_recorder_stands_there_again(collected: Collected) -> None:
    file = io.BytesIO()
    recorder = Recorder(file)
    turns = Turns(recorder=recorder)
    outer = collected.of(turns)
    inner = collected.of(turns, name="a second one")
    assert turns.recorder is not recorder
    assert turns.recorder is not None
    assert turns.recorder.sample == 1.0  # whatever else a recorder has and can do is there
    turns.feed(TurnStart())
    outer.remove()  # not the last that came: it is deaf, and passes on what it is told
    outer.remove()
    turns.feed(TurnStart(), 1)
    inner.remove()
    assert turns.recorder is not recorder
    turns.feed(TurnEnd("yes"), 2)
    assert len(collected.turns) == 2
    assert collected.total("inkturns.open_calls") == 0
    assert len(file.getvalue().splitlines()) == 4  # the header, the start, the second start, the end


def test_where_no_provider_is_set_up_it_takes_itself_off_and_says_nothing(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    assert type(trace.get_tracer_provider()) is trace.ProxyTracerProvider
    assert metrics.get_meter_provider() is not None
    turns = Turns()
    instrument(turns, call="7f3a")
    assert turns.recorder is not None
    turns.feed(TurnStart())
    assert turns.recorder is None
    turns.feed(TurnEnd("yes"))
    assert (caplog.records, capfd.readouterr().out, capfd.readouterr().err) == ([], "", "")


async def test_spans_without_metrics_and_metrics_without_spans(call: Call, collected: Collected) -> None:
    none = trace.NoOpTracerProvider()
    some: list[dict[str, Any]] = [
        {"tracer_provider": collected.tracers},
        {"meter_provider": collected.meters},
        {"meter_provider": collected.meters, "tracer_provider": none},
    ]
    for providers in some:
        agent = Agent()
        thinks(agent)
        speaks(agent)
        instrument(agent, **providers)
        async with agent:
            agent.feed(TurnEnd("yes"))
            await anyio.sleep(3)
    check_spans(collected)
    assert len(collected.turns) == 1
    assert collected.total("inkturns.turns") == 2


async def test_a_share_of_the_calls_is_kept_and_the_others_are_as_without_it(call: Call, collected: Collected) -> None:
    """The call's id decides, as it does for a Recorder."""
    recorded = set()
    for number in range(40):
        file = io.BytesIO()
        agent = Agent(recorder=Recorder(file, call=f"{number}", sample=0.25))
        own = agent.recorder
        agent.think(lambda turn: "a")
        speaks(agent)
        handle = collected.of(agent, call=f"{number}", sample=0.25)
        if file.getvalue():
            recorded.add(f"{number}")
        else:
            assert agent.recorder is own
        async with agent:
            agent.feed(TurnEnd("yes"))
            await anyio.sleep(3)
        handle.remove()
        assert agent.recorder is own
    kept = {(span.attributes or {})["gen_ai.conversation.id"] for span in collected.turns}
    assert kept == recorded
    assert 4 <= len(kept) == len(collected.turns) == collected.total("inkturns.turns") <= 16


def test_what_goes_wrong_in_it_is_said_once_and_the_call_goes_on(
    collected: Collected, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(Collected):
        def on_start(self, span: object, parent_context: object = None) -> None:
            raise ValueError("a secret")

    file = io.BytesIO()
    turns = Turns(recorder=Recorder(file))
    Broken().of(turns)
    for number in range(3):
        turns.feed(TurnStart(), number)
        turns.feed(TurnEnd("yes"), number)
    assert [record.getMessage() for record in caplog.records] == ["telemetry takes itself off: ValueError"]
    assert len(file.getvalue().splitlines()) == 7


@pytest.mark.parametrize("at", range(1, 19))
async def test_whatever_raises_in_it_what_has_begun_is_ended_and_the_call_is_no_longer_open(
    call: Call, at: int, caplog: pytest.LogCaptureFixture
) -> None:
    class Breaks(Collected):
        """A processor raises, the n-th time that it is called."""

        calls = 0

        def _calls(self) -> None:
            self.calls += 1
            if self.calls == at:
                raise ValueError("a secret")

        def on_start(self, span: Any, parent_context: object = None) -> None:
            self._calls()
            super().on_start(span)

        def on_end(self, span: Any) -> None:
            super().on_end(span)
            self._calls()

    collected = Breaks()
    agent = call.agent()
    thinks(agent)
    speaks(agent)
    collected.of(agent)
    async with agent:
        for _ in range(3):
            await two_guesses(call)
    assert collected.begun == len(collected.ended)
    assert collected.total("inkturns.open_calls") == 0
    assert [settled.outcome for settled in call.settled] == ["cancelled", "adopted"] * 3
    said = [record.getMessage() for record in caplog.records]
    assert said == ["telemetry takes itself off: ValueError"]


def test_what_else_a_recorder_is_given_and_asked(collected: Collected) -> None:
    file = io.BytesIO()
    turns = Turns(recorder=Recorder(file))
    collected.of(turns)
    assert turns.recorder is not None
    turns.recorder.note({"mine": 1})
    assert b'{"mine":1}' in file.getvalue()
    turns = Turns()
    collected.of(turns)
    assert turns.recorder is not None
    with pytest.raises(AttributeError, match="there is no recorder, which would have 'pause'"):
        turns.recorder.pause()


async def test_an_agent_that_is_instrumented_in_its_call_tells_of_what_is_begun_from_then_on(
    call: Call, collected: Collected
) -> None:
    """Without its first note nobody knows what it will say of its thoughts: they are a watcher's."""
    agent = call.agent()
    thinks(agent)
    speaks(agent)
    async with agent:
        call.guess("a")
        await anyio.sleep(1)
        collected.of(agent)
        call.resume()
        call.eager("a b")
        call.end("a b")
        await anyio.sleep(1)
        await two_guesses(call)
    check_spans(collected)
    assert len(collected.turns) == 1
    assert len(collected.named("inkturns.thought")) == 2


async def test_an_agents_call_goes_on_when_it_is_taken_off_and_what_was_open_is_ended_then(
    call: Call, collected: Collected
) -> None:
    agent = call.agent()
    thinks(agent, seconds=3)
    speaks(agent)
    handle = collected.of(agent)
    async with agent:
        call.guess("a")
        await anyio.sleep(1)
        handle.remove()
        check_spans(collected)
        assert [span.name for span in collected.ended] == ["inkturns.thought", "invoke_agent agent"]
        assert agent.recorder is None
        call.end("a")
        await anyio.sleep(9)
    assert [settled.outcome for settled in call.settled] == ["adopted"]
    assert collected.total("inkturns.thoughts") == collected.total("inkturns.turns") == 0
    assert len(collected.ended) == 2


async def test_what_say_is_given_is_no_turn(call: Call, collected: Collected) -> None:
    agent = call.agent()
    speaks(agent)

    async def greeting() -> AsyncIterator[str]:
        assert trace.get_current_span() is trace.INVALID_SPAN
        yield "Hello!"

    collected.of(agent)
    async with agent:
        await agent.say(greeting())
        call.turn("yes")  # no `think`: the thoughts of such an agent leave no notes
        await anyio.sleep(1)
    check_spans(collected)
    assert len(collected.turns) == 1
    assert collected.total("inkturns.replies") == 1


async def test_baggage_of_the_call_is_there_in_think(call: Call, collected: Collected) -> None:
    key = context.create_key("baggage")
    agent = call.agent()
    seen: list[object] = []

    @agent.think
    def think(turn: Turn) -> str:
        seen.append(context.get_value(key))
        return "a"

    speaks(agent)
    collected.of(agent)
    token = context.attach(context.set_value(key, "tenant 4"))
    async with agent:
        call.turn("yes")
        await anyio.sleep(1)
    context.detach(token)
    assert seen == ["tenant 4"]


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"name": 4}, TypeError, "instrument: name must be text, got 4"),
        ({"call": 4}, TypeError, "instrument: call must be text or None, got 4"),
        ({"content": "no"}, TypeError, "instrument: content must be True or False, got 'no'"),
        ({"hash_call": None}, TypeError, "instrument: hash_call must be True or False, got None"),
        ({"currency": 4}, TypeError, "instrument: currency must be text or None, got 4"),
        ({"sample": "1"}, TypeError, "instrument: sample must be a share from 0.0 to 1.0, got '1'"),
        ({"sample": 1.5}, ValueError, "instrument: sample must be a share from 0.0 to 1.0, got 1.5"),
        ({"sample": True}, ValueError, "instrument: sample must be a share from 0.0 to 1.0, got True"),
        ({"sample": 0.5}, ValueError, "instrument: sample needs `call`, the id by which it is decided"),
        ({"attributes": {"arm": []}}, TypeError, "instrument: attributes must be text, numbers or booleans"),
        ({"attributes": {"id": "7f"}, "call": "7f"}, ValueError, r"instrument: attributes\['id'\] is the call's id"),
        ({"name": "7f", "call": "7f"}, ValueError, "instrument: name is the call's id: each call would be a metric"),
        ({"attributes": "arm"}, TypeError, "instrument: attributes must be a mapping or None, got str"),
        ({"attributes": {"": 1}}, ValueError, "attributes must have names that telemetry does not use, got ''"),
        ({"attributes": {names.CONVERSATION: "b"}}, ValueError, "names that telemetry does not use, got 'gen_ai.conv"),
        (
            {"attributes": {"a": float("nan")}},
            ValueError,
            r"\['a'\] must be finite and within 64 bits, got nan",
        ),
        ({"attributes": {"a": 2**63}}, ValueError, r"attributes\['a'\] must be finite and within 64 bits, got 9"),
        (
            {"tracer_provider": Agent},
            TypeError,
            "tracer_provider must be a TracerProvider or None, got type",
        ),
        ({"meter_provider": 4}, TypeError, "instrument: meter_provider must be a MeterProvider or None, got int"),
    ],
)
def test_f41_nonsense_is_refused(options: dict[str, Any], error: type[Exception], said: str) -> None:
    turns = Turns(Policy())
    with pytest.raises(error, match=said):
        instrument(turns, **options)
    assert turns.recorder is None


def test_f41_what_is_no_agent_is_refused() -> None:
    with pytest.raises(TypeError, match="instrument: turns must be an Agent or a Turns, got type"):
        instrument(Agent)  # type: ignore[arg-type]


def test_the_names_are_those_of_the_conventions() -> None:
    """As far as the installed package has them: the last two came later."""
    known = {value for value in vars(gen_ai_attributes).values() if isinstance(value, str)}
    ours = {value for value in vars(names).values() if isinstance(value, str) and value.startswith("gen_ai.")}
    later = {names.FIRST_CHUNK, names.CACHED_TOKENS, names.HEARD_WORDS, names.SAID_WORDS}
    assert ours - later <= known
    assert later <= ours


def test_without_the_api_it_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.trace", None)
    with pytest.raises(ImportError, match=r'needs opentelemetry-api: pip install "inkturns\[otel\]"'):
        importlib.reload(inkturns.telemetry)


def test_virtual_time_is_as_good_as_any() -> None:
    """The first time of a call is now, by the calendar."""
    collected = Collected()

    async def one() -> None:
        turns = Turns(clock=anyio.current_time)
        watched = collected.of(turns)
        turns.feed(TurnEnd("yes"))
        watched.remove()

    virtual_time.run(one)
    assert (collected.turns[0].start_time or 0) > 1_700_000_000 * 10**9


def test_the_providers_of_the_process_may_be_set_after_it_and_before_the_call() -> None:
    """In a process of its own: they are set once."""
    code = """
from opentelemetry import metrics, trace
from inkturns import Agent
from inkturns.telemetry import instrument
from inkturns.testing import virtual_time
from tests.collected import Collected, check_spans

async def frames():
    yield {"type": "turn.start"}
    yield {"type": "turn.end", "transcript": "Hi"}

agent, collected = Agent(), Collected()
agent.think(lambda turn: "Hi")
agent.respond(lambda turn, thought: None)
instrument(agent)
trace.set_tracer_provider(collected.tracers)
metrics.set_meter_provider(collected.meters)
virtual_time.run(agent.run, frames())
check_spans(collected)
print(len(collected.turns), collected.total("inkturns.turns"))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("1 1.0\n", "")
