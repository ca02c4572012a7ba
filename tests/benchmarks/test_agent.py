"""The agent's figures. Run: pytest tests/benchmarks"""

import asyncio
import gc
import json
import statistics
import subprocess
import sys
import tracemalloc
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import anyio
import pytest

from inkturns import Agent, Thought, Turn
from inkturns.events import TurnEagerEnd, TurnEnd, TurnResume, TurnStart
from inkturns.testing import virtual_time

SOAK = 100_000  # turns
AGENTS, FRAMES_A_SECOND, TURN_SECONDS, SECONDS = 1000, 5, 6, 10

Say = Callable[[str], None]
Figure = Callable[..., float]


def frame(kind: str, transcript: str | None = None) -> str:
    message = {"type": kind, "request_id": "2ff8af53-4d38-479d-8287-58940f01c701"}
    return json.dumps(message if transcript is None else message | {"transcript": transcript})


# -- what it costs to begin and to cancel


class Race:
    """Times a call to what comes of it, ours and theirs in turn in one loop."""

    def __init__(self) -> None:
        self.begin = 0.0
        self.times: dict[str, list[float]] = {"ours": [], "theirs": []}
        self.done = anyio.Event()

    def go(self) -> None:
        self.done = anyio.Event()
        self.begin = perf_counter()

    def arrives(self, whose: str) -> None:
        self.times[whose].append(perf_counter() - self.begin)
        self.done.set()

    def ratio(self) -> float:
        """Of the medians, without the first tenth, which warms up."""
        ours, theirs = (statistics.median(times[len(times) // 10 :]) for times in self.times.values())
        return ours / theirs

    def shown(self) -> str:
        ours, theirs = (statistics.median(times) * 1e6 for times in self.times.values())
        return f"{ours:.1f} µs to {theirs:.1f} µs"


async def begins(rounds: int) -> Race:
    """eager_end fed to the first line of `think`, against start_soon to the first line of a task."""
    race = Race()
    agent = Agent()

    @agent.think
    async def think(turn: Turn) -> str:
        race.arrives("ours")
        return "yes"

    @agent.respond
    async def respond(turn: Turn, thought: Thought[Any]) -> None:
        await thought

    async def theirs() -> None:
        race.arrives("theirs")

    start, eager, end = frame("turn.start"), frame("turn.eager_end", "yes"), frame("turn.end", "yes")
    async with agent, anyio.create_task_group() as tasks:
        for _ in range(rounds):
            race.go()
            tasks.start_soon(theirs)
            await race.done.wait()
            agent.feed(start)
            await anyio.sleep(0)
            race.go()
            agent.feed(eager)
            await race.done.wait()
            agent.feed(end)
            for _ in range(10):
                await anyio.sleep(0)
    return race


async def cancels(rounds: int) -> Race:
    """resume fed to the cancellation in `think`, against CancelScope.cancel to that in a task."""
    race = Race()
    agent = Agent()
    waiting = anyio.Event()

    async def waits(whose: str) -> None:
        try:
            waiting.set()
            await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class():
            race.arrives(whose)
            raise

    @agent.think
    async def think(turn: Turn) -> None:
        await waits("ours")

    @agent.respond
    async def respond(turn: Turn, thought: Thought[Any]) -> None:
        await thought

    async def theirs(scope: anyio.CancelScope) -> None:
        with scope:
            await waits("theirs")

    start, eager, resume = frame("turn.start"), frame("turn.eager_end", "yes"), frame("turn.resume")
    end = frame("turn.end", "yes")
    async with agent, anyio.create_task_group() as tasks:
        for _ in range(rounds):
            scope, waiting = anyio.CancelScope(), anyio.Event()
            tasks.start_soon(theirs, scope)
            await waiting.wait()
            await anyio.sleep(0)
            race.go()
            scope.cancel()
            await race.done.wait()
            agent.feed(end)
            agent.feed(start)
            waiting = anyio.Event()
            agent.feed(eager)
            await waiting.wait()
            await anyio.sleep(0)
            race.go()
            agent.feed(resume)
            await race.done.wait()
            for _ in range(10):
                await anyio.sleep(0)
        agent.close()
    return race


@pytest.mark.parametrize("backend", virtual_time.BACKENDS)
@pytest.mark.parametrize("what", [begins, cancels])
def test_against_anyio(what: Callable[[int], Any], backend: str, figure: Figure, say: Say) -> None:
    """`CancelScope.cancel` and `start_soon` of anyio; ours decodes the frame too."""
    races = [anyio.run(what, 1500, backend=backend) for _ in range(5)]
    say(min(races, key=Race.ratio).shown())
    figure(f"{'begin' if what is begins else 'cancel'}, {backend}", [race.ratio() for race in races])


# -- what the user waits for

STEPS = [n / 4 for n in range(13)]  # 0 to 3 s


async def first_heard(latency: float, gap: float, said: list[tuple[float, Any]]) -> float:
    """Seconds from the turn's end to the first item spoken; the end is the last of what is said."""
    agent = Agent()
    heard: list[float] = []

    @agent.think
    async def think(turn: Turn) -> AsyncIterator[str]:
        await anyio.sleep(latency)
        yield turn.transcript

    @agent.respond
    async def respond(turn: Turn, thought: Thought[Any]) -> None:
        async for item in thought:
            assert item == "yes, please"
            heard.append(anyio.current_time() - ended)

    ended = 0.0
    async with agent:
        for wait, event in said:
            await anyio.sleep(wait)
            ended = anyio.current_time()
            agent.feed(event)
        await anyio.sleep(10)
    return heard[0]


@pytest.mark.parametrize("backend", virtual_time.BACKENDS)
def test_from_the_end_to_the_first_item(backend: str, figure: Figure, say: Say) -> None:
    """A model that takes L, an end g after its eager end: the first item is spoken max(0, L - g) after the end,
    exactly; a right guess never costs time, and a wrong one nothing over no eager end at all."""

    def heard(latency: float, gap: float, *said: tuple[float, Any]) -> float:
        return virtual_time.run(first_heard, latency, gap, list(said), backend=backend)

    start, end = TurnStart(), TurnEnd(transcript="yes, please")
    right, wrong = TurnEagerEnd(transcript="yes, please"), TurnEagerEnd(transcript="yes")
    gained = off = 0.0
    for latency in STEPS:
        without = heard(latency, 0, (0, start), (1, end))
        assert without == latency
        for gap in STEPS:
            guessed = heard(latency, gap, (0, start), (1, right), (gap, end))
            assert guessed == max(0, latency - gap)
            off = max(off, abs(guessed - max(0, latency - gap)))
            gained += without - guessed
            assert heard(latency, gap, (0, start), (1, wrong), (gap, end)) == without
            assert heard(latency, gap, (0, start), (1, wrong), (gap, TurnResume()), (gap, end)) == without
    figure("first item", off)
    say(f"exact, {gained / len(STEPS) ** 2:.2f} s gained on average")


# -- a turn, to what many write by hand

ITEMS = [f"item {i} " for i in range(10)]


class HandWritten:
    """json.loads, an if-chain, asyncio's own tasks and a queue: it thinks ahead, cancels, speaks and stops."""

    def __init__(self, arrived: Callable[[], None], latency: float | None = None) -> None:
        self.arrived = arrived
        self.latency = latency  # None: ten items, at once; else one, after so long
        self.thought: asyncio.Task[None] | None = None
        self.reply: asyncio.Task[None] | None = None
        self.listening: asyncio.Task[None] | None = None
        self.items: asyncio.Queue[str | None] = asyncio.Queue()
        self.text = self.thought_of = ""

    def feed(self, raw: str) -> None:
        message = json.loads(raw)
        kind = message["type"]
        if kind == "turn.update":
            self.text = message["transcript"]
        elif kind == "turn.start":
            self.text = ""
            if self.reply is not None:
                self.reply.cancel()
                self.reply = None
            self.listening = asyncio.create_task(self.listen())
        elif kind == "turn.eager_end":
            self.text = message["transcript"]
            self.begin()
        elif kind == "turn.resume":
            if self.thought is not None:
                self.thought.cancel()
                self.thought = None
        elif kind == "turn.end":
            self.text = message["transcript"]
            if self.thought is None or self.text != self.thought_of:
                self.begin()
            self.thought = None
            self.reply = asyncio.create_task(self.respond(self.items))

    def begin(self) -> None:
        if self.thought is not None:
            self.thought.cancel()
        self.thought_of = self.text
        self.items = asyncio.Queue()
        self.thought = asyncio.create_task(self.run_ahead(self.text, self.items))

    async def run_ahead(self, text: str, items: "asyncio.Queue[str | None]") -> None:
        async for item in self.think(text):
            items.put_nowait(item)
        items.put_nowait(None)

    async def think(self, text: str) -> AsyncIterator[str]:
        self.arrived()
        if self.latency is None:
            for item in ITEMS:
                yield item
        else:
            await asyncio.sleep(self.latency)
            yield text

    async def respond(self, items: "asyncio.Queue[str | None]") -> None:
        self.arrived()
        while await items.get() is not None:
            pass

    async def listen(self) -> None:
        pass


def with_roles(agent: Agent, arrived: Callable[[], None], latency: float | None = None) -> None:
    """What HandWritten does."""

    @agent.think
    async def think(turn: Turn) -> AsyncIterator[str]:
        arrived()
        if latency is None:
            for item in ITEMS:
                yield item
        else:
            await asyncio.sleep(latency)
            yield turn.transcript

    @agent.respond
    async def respond(turn: Turn, thought: Thought[str]) -> None:
        arrived()
        async for _ in thought:
            pass

    @agent.listen
    async def listen(turn: Turn) -> None:
        pass


def nothing() -> None:
    pass


async def warm_turns() -> list[float]:
    """Of each batch the median of the turns' ratios, ours to theirs in turn in one loop."""
    words = [*"abcdefgh"]
    said = [frame("turn.start"), *(frame("turn.update", " ".join(words[:n])) for n in range(1, 9))]
    eager, end = frame("turn.eager_end", " ".join(words)), frame("turn.end", " ".join(words))
    agent = Agent()
    with_roles(agent, nothing)
    feeds: list[Callable[[str], object]] = [agent.feed, HandWritten(nothing).feed]
    batches = []
    async with agent:
        for _ in range(15):
            ratios = []
            for _ in range(101):
                times = []
                for feed in feeds:
                    begin = perf_counter()
                    for raw in said:
                        feed(raw)
                    feed(eager)
                    for _ in range(8):
                        await asyncio.sleep(0)
                    feed(end)
                    for _ in range(8):
                        await asyncio.sleep(0)
                    times.append(perf_counter() - begin)
                ratios.append(times[0] / times[1])
            batches.append(statistics.median(ratios))
    return batches


def test_a_warm_turn(figure: Figure) -> None:
    """A start, 8 updates, an eager end, the end; `think` makes 10 items, `respond` takes them, `listen` returns. The
    loop turns 8 times after the eager end and after the end."""
    gc.collect()
    gc.freeze()
    batches = anyio.run(warm_turns)
    gc.unfreeze()
    figure("warm turn", batches[1:])  # the first warms up


# -- a thousand calls on one core


def one_turn() -> list[str]:
    """A turn's frames: six seconds of them."""
    words = [*"abcdefghijklmnopqrs"]
    said = [frame("turn.update", " ".join(words[:n])) for n in range(1, len(words) + 1)]
    eager = [frame("turn.eager_end", " ".join(words[:10])), frame("turn.resume")]
    last = [frame("turn.eager_end", " ".join(words)), frame("turn.end", " ".join(words))]
    frames = [frame("turn.start"), *said[:10], *eager, *said[10:], said[-1], said[-1], *last]
    return [*frames, *[frame("turn.update", "")] * (FRAMES_A_SECOND * TURN_SECONDS - len(frames))]


async def a_thousand(kind: str) -> tuple[float, float, float]:
    """The processor's share, and the median and 99th percentile of frame to role, in milliseconds."""
    waits: list[float] = []
    fed = [0.0] * AGENTS
    stop = anyio.Event()

    def of(number: int) -> Callable[[], None]:
        return lambda: waits.append(perf_counter() - fed[number])

    async def serve(agent: Agent) -> None:
        async with agent:
            await stop.wait()

    feeds: list[Callable[[str], object]] = []
    async with anyio.create_task_group() as tasks:
        for number in range(AGENTS):
            if kind == "theirs":
                feeds.append(HandWritten(of(number), 0.3).feed)
                continue
            agent = Agent()
            with_roles(agent, of(number), 0.3)
            tasks.start_soon(serve, agent)
            feeds.append(agent.feed)
        await anyio.sleep(0.2)
        frames = one_turn()
        total = AGENTS * FRAMES_A_SECOND * SECONDS
        gc.collect()
        gc.freeze()  # as a server does once it is up; else the pauses are those of what pytest has on the heap
        begin, cpu = perf_counter(), process_time()
        done = 0
        while done < total:
            due = min(total, int((perf_counter() - begin) * AGENTS * FRAMES_A_SECOND))
            while done < due:
                number, step = done % AGENTS, done // AGENTS
                fed[number] = perf_counter()
                feeds[number](frames[(step + number) % len(frames)])
                done += 1
            await anyio.sleep(0.001)
        share = (process_time() - cpu) / (perf_counter() - begin)
        gc.unfreeze()
        stop.set()
    waits.sort()
    return share, statistics.median(waits) * 1000, waits[len(waits) * 99 // 100] * 1000


def test_a_thousand_agents(figure: Figure, say: Say) -> None:
    """1,000 agents, 5 frames a second, a turn every 6 s, on one core: the processor's share, and from a frame to its
    role, ours and hand-written. They keep up: p99 is below 20 ms."""
    figures = {kind: anyio.run(a_thousand, kind) for kind in ("theirs", "ours")}
    for kind, (share, median, p99) in figures.items():
        say(f"{kind}: {share:.0%} of a core, frame to role {median:.2f} ms, p99 {p99:.2f} ms")
    assert figures["ours"][2] < 20
    figure("agents, CPU", figures["ours"][0] / figures["theirs"][0])
    figure("agents, p99", figures["ours"][2] / figures["theirs"][2])


# -- memory


def test_memory_of_an_idle_agent(figure: Figure, say: Say) -> None:
    """New and after a turn, with its roles and its call, beyond the task that reads its frames, which any agent has."""

    async def reads(items: AsyncIterator[Any]) -> None:
        async for _ in items:
            pass

    async def forever(turn: bool) -> AsyncIterator[Any]:
        if turn:
            yield TurnStart()
            yield TurnEagerEnd(transcript="yes")
            yield TurnEnd(transcript="yes")
        await anyio.sleep_forever()

    def an_agent() -> Callable[[AsyncIterator[Any]], Any]:
        agent = Agent()
        with_roles(agent, lambda: None)
        return agent.run

    async def size(serves: Callable[[], Callable[[AsyncIterator[Any]], Any]], turn: bool) -> float:
        async with anyio.create_task_group() as tasks:
            for _ in range(2):  # the first warms up
                tracemalloc.start()
                for _ in range(1000):
                    tasks.start_soon(serves(), forever(turn))
                await anyio.sleep(3)
                gc.collect()
                traced = tracemalloc.get_traced_memory()[0] / 1000
                tracemalloc.stop()
            tasks.cancel_scope.cancel()
        return traced

    sizes: list[float] = []
    for turn in (False, True):
        whole, without = virtual_time.run(size, an_agent, turn), virtual_time.run(size, lambda: reads, turn)
        say(f"{whole - without:.0f} bytes, {'after a turn' if turn else 'new'}; with the task, {whole:.0f}")
        sizes.append(whole - without)
    figure("idle agent", max(sizes) / 1024)


def test_soak(figure: Figure, say: Say) -> None:
    """100,000 turns of hostile calls, an agent a call, in two processes: flat, the last tenth against the first."""
    program = [sys.executable, str(Path(__file__).with_name("soak.py"))]
    commands = [[*program, str(seed), str(SOAK // 2)] for seed in (0, 1_000_000)]
    halves = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for command in commands]
    seen = [json.loads(half.communicate()[0]) for half in halves]
    for half in seen:
        say("{calls} calls; bytes kept by 200, before and after: {kept_before} and {kept_after}".format(**half))
        say("{megabytes_after_a_tenth:.0f} MB after a tenth, {megabytes:.0f} after all".format(**half))
        say("CPU time of the last tenth, to the first: {time:.2f}".format(**half))
    figure("soak", max(max(0, half["kept_after"] - max(half["kept_before"], 0)) for half in seen) / 1024)
    assert all(half["megabytes"] <= half["megabytes_after_a_tenth"] * 1.05 for half in seen)
