"""The dashboard: each query finds something among what the Prometheus exporter emits of a call."""

import json
import re
from collections.abc import AsyncIterator
from importlib.resources import files

import anyio
import pytest
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from prometheus_client import REGISTRY

from inkturns import Agent, Thought, Turn, current_thought
from inkturns.events import TurnEagerEnd, TurnEnd, TurnResume, TurnStart
from inkturns.telemetry import instrument
from inkturns.testing import virtual_time
from tests.conftest import Call

DASHBOARD = json.loads((files("inkturns.telemetry") / "dashboard.json").read_text(encoding="utf-8"))
QUERIES = {
    f"{panel['title']}: {target['legendFormat']}": target["expr"]
    for panel in DASHBOARD["panels"]
    for target in panel["targets"]
}


async def eventful_call(meters: MeterProvider) -> None:
    """Thoughts that are adopted, cancelled, failed and stuck; what they used."""
    agent = Agent(grace=0.25)

    @agent.think
    async def think(turn: Turn) -> AsyncIterator[str]:
        current_thought().usage(input_tokens=9, output_tokens=3, cost=0.1)
        if turn.transcript == "fail":
            raise ValueError
        if turn.transcript == "stuck":
            await Call.stubborn(2)
        await anyio.sleep(0.25)
        yield "yes"

    @agent.respond
    async def respond(turn: Turn, thought: Thought[str]) -> None:
        async for _ in thought:
            await anyio.sleep(0.25)

    instrument(agent, name="booking", currency="USD", meter_provider=meters)
    async with agent:
        for text in ("fail", "stuck", "what I want"):
            agent.feed(TurnStart())
            agent.feed(TurnEagerEnd(text))
            await anyio.sleep(0.5)
            agent.feed(TurnResume())
            await anyio.sleep(1)
            agent.feed(TurnEagerEnd(f"{text} is this"))
            await anyio.sleep(0.5)
            agent.feed(TurnEnd(f"{text} is this"))
            await anyio.sleep(5)


@pytest.fixture(scope="module")
def series() -> list[tuple[str, dict[str, str]]]:
    """What is emitted: names and labels."""
    reader = PrometheusMetricReader()
    meters = MeterProvider([reader], shutdown_on_exit=False)
    virtual_time.run(eventful_call, meters)
    emitted = [(sample.name, sample.labels) for metric in REGISTRY.collect() for sample in metric.samples]
    meters.shutdown()
    return emitted


def found(selector: str, series: list[tuple[str, dict[str, str]]]) -> list[dict[str, str]]:
    """The labels of what a selector, `name{label="value", …}`, finds."""
    name, _, rest = selector.replace("$agent", ".*").rstrip("}").partition("{")
    matchers = re.findall(r'(\w+)(=~?)"([^"]*)"', rest)

    def matches(labels: dict[str, str]) -> bool:
        return all(
            re.fullmatch(value if how == "=~" else re.escape(value), labels.get(label, ""))
            for label, how, value in matchers
        )

    return [labels for one, labels in series if one == name and matches(labels)]


@pytest.mark.parametrize("title", QUERIES)
def test_each_query_finds_its_series(title: str, series: list[tuple[str, dict[str, str]]]) -> None:
    query = QUERIES[title]
    selectors = re.findall(r"\b\w+\{[^}]*\}", query)
    assert selectors
    wanted = {label.strip() for labels in re.findall(r"by \(([^)]*)\)", query) for label in labels.split(",")}
    wanted |= set(re.findall(r"\{\{(\w+)\}\}", title))
    for selector in selectors:
        labels = found(selector, series)
        assert labels, selector
        assert any(wanted <= set(one) for one in labels), wanted


def test_a_query_that_finds_nothing_is_found_out(series: list[tuple[str, dict[str, str]]]) -> None:
    assert found('inkturns_turns_total{gen_ai_agent_name=~"$agent"}', series)
    assert not found("inkturns_turns{}", series)
    assert not found('inkturns_turns_total{gen_ai_agent_name="other"}', series)


def test_it_answers_what_an_operator_asks() -> None:
    titles = {panel["title"] for panel in DASHBOARD["panels"]}
    assert {"Saved", "Extra model calls a turn", "Waste by reason", "Reports", "Stuck tasks"} <= titles
    assert {target["legendFormat"] for target in DASHBOARD["panels"][0]["targets"]} == {"p50", "p90"}
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in DASHBOARD["panels"]]
    assert len(set(places)) == len(places)
