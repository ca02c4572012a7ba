"""What telemetry costs an agent. Run: pytest tests/benchmarks

In real time a process that serves a few calls wakes up often, and what that costs depends on what else the machine
does: from run to run it differs by more than telemetry costs. So what telemetry adds to a turn is measured by itself,
in virtual time, in turn with the same turns without it; and the figure sets it against what a turn of an agent costs in
real time.
"""

import asyncio
import gc
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from itertools import count
from threading import Thread
from time import process_time

import anyio
import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from inkturns import Agent, Thought, Turn
from inkturns.ink import Ink
from inkturns.telemetry import instrument
from inkturns.testing import virtual_time

CALLS, SECONDS = 40, 6.0  # in real time
BATCHES, AGENTS, TURNS = 15, 10, 5  # in virtual time
TOKENS = 30

Figure = Callable[..., float]
Say = Callable[[str], None]
Prepare = Callable[[Agent], object]


class Telemetry:
    """With the SDK's own processor. What a span costs to send is the exporter's, and does not depend on the agent."""

    def __init__(self) -> None:
        self.spans = InMemorySpanExporter()
        self._tracers = TracerProvider(shutdown_on_exit=False)
        self._tracers.add_span_processor(BatchSpanProcessor(self.spans))
        self._meters = MeterProvider([InMemoryMetricReader()], shutdown_on_exit=False)
        self._calls = count()
        self.ways: dict[str, Prepare] = {
            "without": lambda agent: None,
            "with": lambda agent: self._instruments(agent, 1.0),
            "sampled out": lambda agent: self._instruments(agent, 0.0),
        }

    def _instruments(self, agent: Agent, sample: float) -> None:
        call = f"{next(self._calls)}"
        providers = {"tracer_provider": self._tracers, "meter_provider": self._meters}
        instrument(agent, call=call, sample=sample, **providers)  # type: ignore[arg-type]

    def over(self) -> None:
        self._tracers.shutdown()


def an_agent(prepare: Prepare) -> Agent:
    """Its model streams some tokens in real time, its voice takes them."""
    agent = Agent()

    @agent.think
    async def think(turn: Turn) -> AsyncIterator[str]:
        await asyncio.sleep(0.3)
        for _ in range(TOKENS):
            yield "token "
            await asyncio.sleep(0.02)

    @agent.respond
    async def respond(turn: Turn, thought: Thought[str]) -> None:
        async for _ in thought:
            pass

    prepare(agent)
    return agent


# -- what it adds to a turn


def a_turn() -> list[str | None]:
    """Six seconds of frames, five a second: a wrong guess and a right one. None: a silence as long as a frame."""
    said = "I would like to book a table for two people tonight at seven please and thanks"
    words = said.split()

    def frame(kind: str, of: int | None = None) -> str:
        message = {"type": kind, "request_id": "2ff8af53-4d38-479d-8287-58940f01c701"}
        return json.dumps(message if of is None else message | {"transcript": " ".join(words[:of])})

    first = [frame("turn.update", n) for n in range(1, 10)]
    second = [frame("turn.update", n) for n in range(10, 17)]
    guess = [frame("turn.eager_end", 9), frame("turn.resume")]
    frames = [frame("turn.start"), *first, *guess, *second, frame("turn.eager_end", 16), None, frame("turn.end", 16)]
    return [*frames, *[None] * (30 - len(frames))]


async def turns_of_some_agents(prepare: Prepare) -> None:
    frames = a_turn()

    async def one() -> None:
        agent = an_agent(prepare)
        async with agent:
            for _ in range(TURNS):
                for frame in frames:
                    if frame is not None:
                        agent.feed(frame)
                    await asyncio.sleep(0.2)

    async with anyio.create_task_group() as tasks:
        for _ in range(AGENTS):
            tasks.start_soon(one)


def added_to_a_turn(telemetry: Telemetry) -> dict[str, float]:
    """Seconds of CPU, the lowest batch's, beyond the lowest without telemetry."""
    seconds: dict[str, list[float]] = {way: [] for way in telemetry.ways}
    for _ in range(BATCHES):
        for way, prepare in telemetry.ways.items():
            gc.collect()
            begin = process_time()
            virtual_time.run(turns_of_some_agents, prepare)
            seconds[way].append((process_time() - begin) / (AGENTS * TURNS))
    return {way: min(each) - min(seconds["without"]) for way, each in seconds.items()}


# -- what a turn costs in real time


@pytest.fixture
def url() -> Iterator[str]:
    """Ink 2, emulated in a process of its own."""
    command = [sys.executable, "-m", "inkturns", "serve", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        address = server.stdout.readline().split()[-1]
        Thread(target=server.stdout.read, daemon=True).start()  # it says what happens, and must not wait for a reader
        yield address
        server.terminate()


async def sound() -> AsyncIterator[bytes]:
    """Ten chunks a second, in real time."""
    loop = asyncio.get_running_loop()
    due = loop.time()
    for _ in range(int(SECONDS * 10)):
        yield bytes(1600)
        due += 0.1
        await asyncio.sleep(max(0.0, due - loop.time()))


def of_a_turn(url: str, prepare: Prepare) -> float:
    """Seconds of CPU of this process for a turn: Ink's client sends sound and receives about five frames a second."""
    ended: list[Turn] = []

    async def one(number: int) -> None:
        await asyncio.sleep(number * 0.1 / CALLS)
        agent = an_agent(prepare)
        agent.on_end(ended.append)
        async with Ink(api_key="none", encoding="pcm_s16le", sample_rate=8000, url=url).connect(sound()) as frames:
            await agent.run(frames)

    async def all_of_them() -> None:
        async with anyio.create_task_group() as tasks:
            for number in range(CALLS):
                tasks.start_soon(one, number)

    gc.collect()
    begin = process_time()
    anyio.run(all_of_them)
    return (process_time() - begin) / len(ended)


def test_what_an_instrumented_agent_costs(url: str, figure: Figure, say: Say) -> None:
    telemetry = Telemetry()
    added = added_to_a_turn(telemetry)
    seen = {way: [of_a_turn(url, telemetry.ways[way]) for _ in range(2)] for way in ("without", "with")}
    telemetry.over()
    assert len(telemetry.spans.get_finished_spans()) > BATCHES * AGENTS * TURNS
    for way, each in seen.items():
        say(f"a turn in real time, {way}: {' and '.join(f'{one * 1e3:.1f}' for one in each)} ms of CPU")
    say(f"telemetry adds {added['with'] * 1e3:.2f} ms; sampled out {added['sampled out'] * 1e3:.3f} ms")
    turn = min(seen["without"])
    figure("traced agent", 1 + added["with"] / turn)
    figure("traced agent, sampled out", 1 + added["sampled out"] / turn)
