"""Telemetry in the storm: whatever is cancelled when, each span ends once, and what is counted is what the report of
the same call counts. Its recording gives the same spans."""

import io
from collections.abc import AsyncIterator
from random import Random
from typing import Any

import pytest
from rich.console import Console

from inkturns.agent import Agent, current_thought
from inkturns.demo.call import SETTINGS, SimulatedCall, conversation
from inkturns.demo.view import View
from inkturns.events import (
    Connected,
    ContextChanged,
    Disconnected,
    EndNow,
    Event,
    ReplyDone,
    ReplyStarted,
    StopReply,
    Tick,
    TurnEagerEnd,
    TurnEnd,
    TurnResume,
    TurnStart,
    TurnUpdate,
)
from inkturns.policy import Policy, min_words
from inkturns.recording import Recorder
from inkturns.report import Fleet, turns_of
from inkturns.report.calls import calls_of
from inkturns.telemetry.export import export
from inkturns.telemetry.instrument import Options
from inkturns.testing import virtual_time
from inkturns.testing.storm import World, storm
from inkturns.testing.virtual_time import BACKENDS
from inkturns.turns import Turns
from tests.collected import Collected, check_spans, compared
from tests.recorded import no_fault

TEXTS = (TurnUpdate, TurnEagerEnd, TurnEnd)
APPLICATION = (ReplyDone(), StopReply(), EndNow(), ContextChanged(), Disconnected("lost"), Tick())
OPTIONS: dict[str, Any] = {"name": "agent", "call": "7f3a", "currency": "EUR"}
SEEDS = 10  # a test
CHUNKS = [
    pytest.param(backend, chunk, marks=[pytest.mark.full] if chunk else [])
    for backend in BACKENDS
    for chunk in range(27)
]


def check_counts(collected: Collected, lines: list[bytes]) -> None:
    """Counters, and counts and sums of histograms, are those of `report`."""
    rows = turns_of(lines, on_error=lambda error: None)  # a policy that no recording can say
    fleet = Fleet()
    fleet.add(rows)
    figures = fleet.figures()
    total = collected.total
    assert total("inkturns.open_calls") == 0
    if rows:  # a call without a closed turn has no figures
        begun = total("inkturns.thoughts") - total("inkturns.thoughts", thought__outcome="not_begun")
        assert (begun, total("inkturns.turns", turn__answered=True)) == (figures["thoughts"], figures["turns"])
        assert total("inkturns.reports") == sum(figures["reports"].values())
    for outcome in ("adopted", "failed"):
        assert total("inkturns.thoughts", thought__outcome=outcome) == figures[outcome]
    for reason, times in figures["cancelled"].items():
        assert total("inkturns.thoughts", thought__reason=reason) == times
    for kind, times in figures["reports"].items():
        assert total("inkturns.reports", report__kind=kind) == times
    for end, times in figures["abandoned"].items():
        assert total("inkturns.turns", turn__end=end, turn__answered=False) == times
    tokens = ("inkturns.usage.input_tokens", "inkturns.usage.output_tokens")
    of_unused = [total(name, thought__outcome=one) for name in tokens for one in ("cancelled", "failed")]
    assert sum(of_unused) == figures["wasted_tokens"]
    cost = sum(total("inkturns.usage.cost", thought__outcome=one) for one in ("cancelled", "failed"))
    assert cost == pytest.approx(figures["wasted_cost"])
    times_of = {
        "inkturns.turn.end_to_first_item": [row.end_to_first_item for row in rows],
        "inkturns.turn.end_to_first_sound": [row.end_to_first_sound for row in rows],
        "inkturns.thought.gap": [row.gap for row in rows],
        "inkturns.thought.saved": [row.saved for row in rows],
        "inkturns.thought.time_to_first_item": [thought.first_item for row in rows for thought in row.thoughts],
    }
    for name, values in times_of.items():
        known = [value for value in values if value is not None]
        assert collected.histogram(name) == (len(known), round(sum(known), 6)), name


def check_recording(collected: Collected, lines: list[bytes]) -> None:
    """Its spans are those of the live call, one by one."""
    again = Collected()
    [call] = calls_of(lines, lambda error: None)
    export(call, Options(**OPTIONS), again.tracers, no_fault)
    assert compared(again.ended) == compared(collected.ended)


def records(message: dict[str, object]) -> None:
    """A tool loop of the storm's, which tells too what its model used."""
    thought = current_thought()
    thought.record(message)
    thought.usage(input_tokens=7, output_tokens=2, cost=0.125)


@pytest.mark.parametrize(("backend", "chunk"), CHUNKS)
def test_spans_and_counts_of_storms(backend: str, chunk: int) -> None:
    for seed in range(chunk * SEEDS, (chunk + 1) * SEEDS):
        collected, file = Collected(), io.BytesIO()

        def make_call(world: World, collected: Collected = collected, file: io.BytesIO = file) -> Agent:
            agent = Agent(world.policy, recorder=Recorder(file), **world.options)
            world.joins(agent)
            world.record = records
            collected.of(agent, **OPTIONS)
            return agent

        storm(make_call, seed, backend=backend)
        lines = file.getvalue().splitlines(keepends=True)
        check_spans(collected)
        check_counts(collected, lines)
        check_recording(collected, lines)


@pytest.mark.parametrize(
    "seed", [pytest.param(seed, marks=[pytest.mark.full] if seed >= 20 else []) for seed in range(150)]
)
def test_spans_and_counts_of_watched_calls(seed: int) -> None:
    """Whatever a watcher is fed, at whatever times."""
    draw = Random(seed)
    policies = (Policy(), Policy(max_thoughts=1, think_after=0.3), Policy(interrupts=min_words(2), stall_timeout=2.0))
    collected, file = Collected(), io.BytesIO()
    turns = Turns(draw.choice(policies), recorder=Recorder(file))
    watched = collected.of(turns, **OPTIONS)
    has_gaps, now, turn_id = draw.random() < 0.3, 5.0, draw.choice((None, 1))
    turns.feed(Connected(), now)
    for _ in range(40):
        now += draw.choice((0.0, 0.1, 0.5, 1.0))
        turn_id = turn_id and turn_id + (draw.random() < 0.2)
        words, of = draw.choice(("a", "a b", "a b c", "b", "", "hi there")), f"{turn_id}" if turn_id else None
        from_server = (TurnStart(turn_id=of), TurnResume(turn_id=of), *(kind(words, turn_id=of) for kind in TEXTS))
        event: Event = draw.choice((*from_server, *from_server, ReplyStarted(draw.randrange(9)), *APPLICATION))
        turns.feed(event, None if has_gaps and draw.random() < 0.25 else now)
    turns.feed(Disconnected("over"), now)
    watched.remove()
    lines = file.getvalue().splitlines(keepends=True)
    check_spans(collected)
    check_recording(collected, lines)
    if not has_gaps:
        check_counts(collected, lines)


def test_spans_and_counts_of_the_demo() -> None:
    collected, file = Collected(), io.BytesIO()
    call = SimulatedCall(View(Console(file=io.StringIO()), ""), recorder=Recorder(file))
    collected.of(call.agent, **OPTIONS)

    async def frames() -> AsyncIterator[Any]:
        async for frame in conversation().play(SETTINGS):
            yield frame

    async def go() -> None:
        call.begin()
        await call.agent.run(frames())

    virtual_time.run(go)
    lines = file.getvalue().splitlines(keepends=True)
    check_spans(collected)
    check_counts(collected, lines)
    check_recording(collected, lines)
    assert len(collected.turns) > 4
    assert collected.total("inkturns.thoughts", thought__outcome="adopted") > 2
    assert collected.total("inkturns.thoughts", thought__outcome="cancelled") > 1
