"""The recipes of inkturns/README.md: as they are meant, and with a barge-in at every step of them.

Whatever a recipe waits for takes its model, tool, voice or telephone 0.1 s here, in virtual time; so a barge-in at each
multiple of 0.05 s comes before, in and together with every step.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio
import pytest
from cartesia import AsyncCartesia

from inkturns import Agent, Policy, Thought, Turn
from inkturns.actions import Report, ReportKind
from inkturns.events import TurnEagerEnd, TurnEnd, TurnStart, TurnUpdate
from inkturns.testing.emulator import InkEmulator, Script, say, trouble
from inkturns.testing.virtual_time import BACKENDS, run
from tests.chat import check_valid
from tests.readmes import ROOT, recipe

SESSION = (ROOT / "tests/sessions/ink2-complete-turn.jsonl").read_text().splitlines()
WORDS = json.loads(SESSION[-1])["transcript"]
STEP = 0.1
BARGE_INS = [round(n * STEP / 2, 3) for n in range(1, 32)]

everywhere = pytest.mark.parametrize("backend", BACKENDS)


async def step() -> None:
    await anyio.sleep(STEP)


async def user(first: str, barge_in: float, then: str) -> AsyncIterator[object]:
    """A guess at once, its turn's end after a step; another turn so many seconds after the beginning; then silence."""
    yield TurnStart()
    yield TurnEagerEnd(first)
    if barge_in < STEP:  # the user goes on before the end
        await anyio.sleep(barge_in)
        yield TurnUpdate(f"{first} {then}")
        yield TurnEnd(f"{first} {then}")
    else:
        await step()
        yield TurnEnd(first)
        await anyio.sleep(barge_in - STEP)
        yield TurnStart()
        yield TurnUpdate(then)
        await step()
        yield TurnEnd(then)
    await anyio.sleep(10)


def no_stuck_task(agent: Agent) -> None:
    @agent.on_report
    def on_report(report: Report) -> None:
        assert report.kind is not ReportKind.STUCK_TASK


class Phone:
    """A telephone's far end: a word takes a step to play, and what was played is known."""

    def __init__(self) -> None:
        self.waiting: list[tuple[str, Callable[[], None]]] = []
        self.is_playing = ""
        self.all_played = ""

    async def push(self, word: str, on_first_sound: Callable[[], None]) -> None:
        self.waiting.append((word, on_first_sound))

    async def played(self) -> None:
        self.is_playing = ""
        while self.waiting:
            word, sounds = self.waiting.pop(0)
            await step()  # it is on its way
            sounds()
            await step()
            self.is_playing += word
            self.all_played += word

    def clear(self) -> None:
        self.waiting.clear()

    def heard(self) -> str:
        return self.is_playing


# -- with a barge-in at every step


@everywhere
@pytest.mark.parametrize("barge_in", BARGE_INS)
def test_a_greeting_and_a_re_prompt(backend: str, barge_in: float) -> None:
    """The greeting begins at once, whatever the user does is heard meanwhile, and nothing is said over the user."""
    said: list[str] = []
    answered: list[str] = []
    speaking = False

    async def frames() -> AsyncIterator[object]:
        nonlocal speaking
        await anyio.sleep(barge_in)
        yield TurnStart()
        speaking = True
        yield TurnUpdate("I am")
        await anyio.sleep(9)  # it stalls, and the agent asks
        yield TurnUpdate("I am here")
        speaking = False
        yield TurnEnd("I am here")
        await anyio.sleep(5)

    async def call() -> list[Any]:
        agent = Agent(Policy(stall_timeout=8))
        agent.on_end(lambda turn: answered.append(turn.transcript))

        @agent.think
        async def think(turn: Turn) -> AsyncIterator[str]:
            await step()
            yield "Good."

        @agent.respond
        async def respond(turn: Turn, thought: Thought[Any]) -> None:
            heard = ""
            async for text in thought:
                for word in text.split(" "):
                    thought.heard(heard)
                    assert not speaking or text == "Are you still there?"
                    said.append(word)
                    await step()
                    heard = f"{heard} {word}".lstrip()
            thought.heard(heard)

        await recipe("A greeting and a re-prompt")["serve_call"](agent, frames())
        return agent.history.messages()

    messages = run(call, backend=backend)
    check_valid(messages)
    assert said[0] == "Hello!"
    assert "still" in said
    assert answered == ["I am here"]
    greeting = "Hello! How can I help?"
    said_before = [message["content"] for message in messages[:-2]]  # the user's words and the answer are the last
    assert said_before[-1] == "Are you still there?"
    heard = said_before[0].split() if len(said_before) > 1 else []
    assert heard == greeting.split()[: len(heard)]
    assert len(heard) in {min(5, int((barge_in + early) / STEP)) for early in (-0.001, 0.001)}  # or in the same moment
    assert messages[-1] == {"role": "assistant", "content": "Good."}


@everywhere
@pytest.mark.parametrize("barge_in", BARGE_INS)
def test_playout_that_only_the_telephone_knows(backend: str, barge_in: float) -> None:
    """The history holds what the telephone has played, to the word."""
    phone = Phone()

    async def call() -> list[Any]:
        agent: Agent = recipe("Playout that only the telephone knows")["telephone_agent"](phone)
        no_stuck_task(agent)

        @agent.think
        async def think(turn: Turn) -> AsyncIterator[str]:
            for word in ("one ", "two ", "three "):
                await step()
                yield word

        await agent.run(user("count", barge_in, "again"))
        return agent.history.messages()

    messages = run(call, backend=backend)
    check_valid(messages)
    said = "".join(message["content"] for message in messages if message["role"] == "assistant")
    assert said == phone.all_played
    assert said.endswith("one two three ")
    assert messages[-2]["content"].endswith("again")


@everywhere
@pytest.mark.parametrize("barge_in", BARGE_INS)
def test_a_tool_loop(backend: str, barge_in: float) -> None:
    """A guess calls no tool; what a tool has done stands in the next prompt, whole; no table is booked twice."""
    booked: list[str] = []
    prompts: list[list[Any]] = []
    ended = 0

    async def model(messages: list[Any]) -> AsyncIterator[object]:
        prompts.append([*messages])
        await step()
        if any(message["role"] == "tool" for message in messages):
            yield "It is booked."
            return
        yield "One moment. "
        await step()
        for number in (1, 2):
            yield {
                "id": f"{len(prompts)}.{number}",
                "type": "function",
                "function": {"name": "book", "arguments": "{}"},
            }

    async def book(arguments: str) -> str:
        assert ended
        await step()
        booked.append(arguments)
        await step()
        return "done"

    async def call() -> list[Any]:
        nonlocal ended
        agent = Agent()
        no_stuck_task(agent)
        recipe("A tool loop")["think_with_tools"](agent, model, {"book": book})

        @agent.respond
        async def respond(turn: Turn, thought: Thought[Any]) -> None:
            async for _ in thought:
                await step()

        @agent.on_end
        def on_end(turn: Turn) -> None:
            nonlocal ended
            ended += 1

        await agent.run(user("a table", barge_in, "please"))
        return agent.history.messages()

    messages = run(call, backend=backend)
    check_valid(messages)
    for prompt in prompts:
        check_valid(prompt)
    assert booked == ["{}", "{}"]
    assert [message["role"] for message in messages].count("tool") == 2
    assert messages[-1]["content"].endswith("It is booked.")


@everywhere
@pytest.mark.parametrize("barge_in", BARGE_INS)
def test_clean_up_when_cancelled(backend: str, barge_in: float) -> None:
    """Each stream that was opened is closed, and where a cancellation broke it off, to the end of its closing."""
    opened: list[str] = []
    closed: list[str] = []
    cut: list[str] = []

    class Stream:
        def __init__(self, text: str) -> None:
            self.text = text
            self.is_finished = False

        async def __aiter__(self) -> AsyncIterator[str]:
            for _ in range(3):
                await step()
                yield "word "
            self.is_finished = True

        async def close(self) -> None:
            closed.append(self.text)
            try:
                await anyio.sleep(3 * STEP)
            except anyio.get_cancelled_exc_class():
                cut.append(self.text)
                assert self.is_finished
                raise

    class Model:
        async def open(self, text: str) -> Stream:
            await step()
            opened.append(text)
            return Stream(text)

    async def call() -> None:
        agent = Agent()
        no_stuck_task(agent)
        think = recipe("Clean-up when cancelled")["think"]
        agent.think(lambda turn: think(turn, Model()))

        @agent.respond
        async def respond(turn: Turn, thought: Thought[Any]) -> None:
            await thought

        await agent.run(user("a", barge_in, "b"))

    run(call, backend=backend)
    assert closed == opened
    assert opened[-1].endswith("b")
    assert cut == [] or (backend, cut) == ("asyncio", ["a"])


@everywhere
def test_and_on_asyncio_without_a_shield(backend: str) -> None:
    """As the recipe says: asyncio's cancellation is delivered once, and the clean-up has `grace`; trio's every time."""
    closed: list[str] = []

    async def call() -> None:
        agent = Agent()
        no_stuck_task(agent)

        @agent.think
        async def think(turn: Turn) -> AsyncIterator[str]:
            try:
                await anyio.sleep_forever()
                yield "never"
            finally:
                await anyio.sleep(3 * STEP)
                closed.append(turn.transcript)

        agent.respond(lambda turn, thought: None)

        async def frames() -> AsyncIterator[object]:
            yield TurnEagerEnd("a")
            await step()
            yield TurnUpdate("b")
            await anyio.sleep(1)

        await agent.run(frames())

    run(call, backend=backend)
    assert closed == (["a"] if backend == "asyncio" else [])


# -- on sockets


class Call:
    """An agent that answers with "yes", and what became of its turns."""

    def __init__(self) -> None:
        self.agent = Agent()
        self.said: list[object] = []
        self.lost: list[str] = []
        self.agent.think(lambda turn: "yes")
        self.agent.respond(self.respond)
        self.agent.on_abandon(lambda turn: self.lost.append(turn.transcript))

    async def respond(self, turn: Turn, thought: Thought[Any]) -> None:
        async for item in thought:
            self.said.append((turn.transcript, item))


def test_the_cartesia_sdk() -> None:
    here = Call()

    async def microphone() -> AsyncIterator[bytes]:
        while not here.said:
            yield bytes(3200)
            await asyncio.sleep(0.001)

    async def call() -> None:
        async with (
            InkEmulator(Script(say("For two.")), speed=float("inf")) as emulator,
            AsyncCartesia(api_key="none", websocket_base_url=emulator.base_url) as client,
        ):
            await recipe("The Cartesia SDK")["serve_call"](here.agent, client, microphone())

    asyncio.run(call())
    assert here.said == [("For two.", "yes")]


def test_the_client_with_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the top README says, against the emulator, which drops the first connection."""
    here = Call()

    async def microphone() -> AsyncIterator[bytes]:
        while not here.said:
            yield bytes(800)
            await asyncio.sleep(0.001)

    async def call() -> None:
        scripts = [Script(say("I would like", trouble("drop", on="turn.update"), "a table.")), Script(say("For two."))]
        async with InkEmulator(scripts, speed=float("inf")) as emulator:
            monkeypatch.setattr("inkturns.ink.client.LIVE", emulator.url)
            await recipe("Quick start", "README.md", "Ink(")["serve_call"](here.agent, "none", microphone())

    asyncio.run(call())
    assert here.lost == ["I"]  # the first words come late
    assert here.said == [("For two.", "yes")]


def test_a_program_that_only_has_callbacks() -> None:
    async def call() -> None:
        loop = asyncio.get_running_loop()

        def register(callback: Callable[[str | None], object]) -> None:
            for i, frame in enumerate([*SESSION, None]):
                loop.call_later(i / 1000, callback, frame)

        await recipe("A program that only has callbacks")["serve_call"](here.agent, loop, register)

    here = Call()
    asyncio.run(call())
    assert here.said == [(WORDS, "yes")]
