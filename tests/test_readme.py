"""Every code block of the README is run here, or compared with what it shows; CI runs its two commands besides."""

import asyncio
import contextlib
import io
import json
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import anyio
import pytest
from cartesia import AsyncCartesia
from rich.console import Console
from websockets.asyncio.server import ServerConnection, serve

from inkturns import Agent, Policy, ReportKind, Settled, Thought, Turn, TurnEagerEnd, TurnEnd, TurnStart, pretended
from inkturns.cli import main
from inkturns.recording import Recorder, replay
from inkturns.testing.emulator import InkEmulator
from inkturns.testing.script import Script, say, trouble
from inkturns.testing.virtual import run
from inkturns.view import View

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
FRAMEWORKS = re.compile(r"^from (livekit|pipecat)\b", re.MULTILINE)  # such a block is run in tests/integrations
PYTHON = [
    (code, shown if kind == "text" else "")
    for (language, code), (kind, shown) in pairwise([*BLOCKS, ("", "")])
    if language == "python" and not FRAMEWORKS.search(code)
]
SESSION = (ROOT / "tests/sessions/ink2-complete-turn.jsonl").read_text().splitlines()
WORDS = json.loads(SESSION[-1])["transcript"]


def recipe(heading: str) -> dict[str, Any]:
    """The names that the code under a heading defines."""
    code = re.search(rf"^### {re.escape(heading)}\n.*?^```python\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    assert code
    names: dict[str, Any] = {}
    exec(compile(code[1], heading, "exec"), names)
    return names


@pytest.mark.parametrize(("code", "printed"), PYTHON, ids=[code.strip().splitlines()[-1][:40] for code, _ in PYTHON])
def test_a_block_runs_and_prints_what_is_shown(
    code: str, printed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(code, "README.md", "exec"), {"__name__": "readme"})
    assert out.getvalue() == printed


def test_no_block_is_of_another_kind() -> None:
    assert {language for language, _ in BLOCKS} == {"bash", "json", "mermaid", "python", "text"}


def test_the_pictures_are_the_diagrams() -> None:
    drawn = [(ROOT / f"diagrams/{name}.mmd").read_text() for name in ("turns", "machine")]
    assert [code for language, code in BLOCKS if language == "mermaid"] == drawn


def shown_after(start: str) -> str:
    """The text block that follows these words."""
    shown = re.search(r"^```text\n(.*?)^```$", README[README.index(start) :], re.MULTILINE | re.DOTALL)
    assert shown
    return shown[1].rstrip("\n")


def replayed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, file: str) -> str:
    """What the command prints, 120 columns wide."""
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("sys.argv", ["inkturns", "replay", file])
    with contextlib.suppress(SystemExit):
        main()
    return "\n".join(line.rstrip() for line in capsys.readouterr().out.splitlines())


def test_the_published_turn_is_what_the_command_prints(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = next(code for language, code in BLOCKS if language == "bash" and " replay " in code)
    assert shown_after(command) in replayed(capsys, monkeypatch, command.split()[-1])


def test_the_demos_recording_is_what_the_command_prints(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """In virtual time: on a socket its times are some milliseconds later."""
    call = pretended.Call(View(Console(file=io.StringIO()), ""), recorder=Recorder(tmp_path / "demo.jsonl"))

    async def go() -> None:
        call.begin()
        await call.agent.run(pretended.conversation().play(pretended.SETTINGS))

    run(go)
    assert shown_after("`--record demo.jsonl`") in replayed(capsys, monkeypatch, str(tmp_path / "demo.jsonl"))


def test_the_recording_is_one() -> None:
    lines = next(code for language, code in BLOCKS if language == "json").splitlines()
    assert [(replayed.event, replayed.differs) for replayed in replay(lines)] == [(TurnStart(), None)]


# -- the recipes, against the real thing


class Call:
    """An agent that answers with "yes", and what became of its turns."""

    def __init__(self, policy: Policy | None = None) -> None:
        self.agent = Agent(policy or Policy())
        self.said: list[object] = []
        self.lost: list[str] = []
        self.agent.think(lambda turn: "yes")
        self.agent.respond(self.respond)
        self.agent.on_abandon(lambda turn: self.lost.append(turn.transcript))

    async def respond(self, turn: Turn | None, thought: Thought) -> None:
        async for item in thought:
            self.said.append((turn.transcript if turn else None, item))


@contextlib.asynccontextmanager
async def ink(handler: Callable[[ServerConnection], Awaitable[None]]) -> AsyncIterator[str]:
    async with serve(handler, "127.0.0.1", 0) as server:
        yield f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}"


async def whole_turn(socket: ServerConnection) -> None:
    for frame in SESSION:
        await socket.send(frame)


def test_the_cartesia_sdk() -> None:
    async def microphone(sound: asyncio.Queue[bytes | None]) -> None:
        while not here.said:
            sound.put_nowait(bytes(3200))
            await asyncio.sleep(0.001)
        sound.put_nowait(None)

    async def call() -> None:
        scripts = [Script(say("I would like", trouble("drop", on="turn.update"), "a table.")), Script(say("For two."))]
        async with (
            InkEmulator(scripts, speed=float("inf")) as emulator,
            AsyncCartesia(api_key="none", websocket_base_url=emulator.base_url) as client,
            asyncio.TaskGroup() as tasks,
        ):
            sound: asyncio.Queue[bytes | None] = asyncio.Queue()
            tasks.create_task(microphone(sound))
            await recipe("The Cartesia SDK")["serve_call"](here.agent, client, sound)

    here = Call()
    asyncio.run(call())
    assert here.lost == ["I would like"]
    assert here.said == [("For two.", "yes")]


def test_the_cartesia_sdk_while_nobody_answers() -> None:
    """The line drops, and the next attempt finds no server."""
    gone, answered = asyncio.Event(), asyncio.Event()

    async def cut(ours: ServerConnection) -> None:
        for frame in SESSION[:4]:
            await ours.send(frame)
        ours.transport.abort()
        gone.set()

    async def line(port: int) -> None:
        async with serve(cut, "127.0.0.1", port):
            await gone.wait()
        await asyncio.sleep(0.7)  # the recipe tries after 0.5 s
        async with serve(whole_turn, "127.0.0.1", port):
            await answered.wait()

    async def call() -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        async with (
            AsyncCartesia(api_key="none", websocket_base_url=f"ws://127.0.0.1:{port}") as client,
            asyncio.TaskGroup() as tasks,
        ):
            tasks.create_task(line(port))
            await recipe("The Cartesia SDK")["serve_call"](here.agent, client, asyncio.Queue())
            answered.set()

    here = Call()
    asyncio.run(call())
    assert here.lost == [json.loads(SESSION[3])["transcript"]]
    assert here.said == [(WORDS, "yes")]


def test_raw_websockets_with_reconnection() -> None:
    asked: list[str] = []

    async def handler(socket: ServerConnection) -> None:
        assert socket.request
        asked.append(socket.request.path)
        if len(asked) == 1:
            for frame in SESSION[:4]:
                await socket.send(frame)
            socket.transport.abort()
        else:
            await whole_turn(socket)

    async def call() -> None:
        async with ink(handler) as url:
            await recipe("Raw `websockets`, with reconnection")["serve_call"](here.agent, url)

    here = Call()
    asyncio.run(call())
    assert here.lost == ["So the"]
    assert here.said == [(WORDS, "yes")]
    assert asked == ["/?model=ink-2&encoding=pcm_s16le&sample_rate=16000&cartesia_version=2026-08-14"] * 2


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


def test_a_tool_that_must_not_run_for_a_guess() -> None:
    ran: list[str] = []

    async def model(text: str) -> AsyncIterator[str]:
        yield "book"
        yield text

    async def book() -> str:
        ran.append("book")
        return "booked"

    async def frames() -> AsyncIterator[object]:
        for text in ("a", "a table"):
            yield TurnEagerEnd(text)
            await anyio.sleep(1)
            assert not ran
        yield TurnEnd("a table")

    async def call() -> list[object]:
        agent = Agent()
        said: list[object] = []
        settled: list[Settled] = []
        agent.think(lambda turn: think(turn, model, {"book": book}))

        @agent.respond
        async def respond(turn: Turn, thought: Thought) -> None:
            said.extend(await thought)

        agent.on_settled(settled.append)
        await agent.run(frames())
        assert len(settled) == 2
        return said

    think = recipe("A tool that must not run for a guess")["think"]
    assert run(call) == ["booked", "a table"]
    assert ran == ["book"]


def test_a_greeting_and_a_re_prompt() -> None:
    async def frames() -> AsyncIterator[object]:
        yield TurnStart()
        await anyio.sleep(10)
        yield TurnEnd("here")

    async def call() -> None:
        await recipe("A greeting and a re-prompt")["serve_call"](here.agent, frames())

    here = Call(Policy(stall_timeout=8))
    run(call)
    assert here.said == [(None, "Hello! How can I help?"), (None, "Are you still there?"), ("here", "yes")]


def test_playout_that_only_the_telephone_side_knows() -> None:
    class Phone:
        async def push(self, word: str) -> None: ...

        async def played(self) -> None:
            await anyio.sleep(5)

        def heard(self) -> str:
            return "a long"

    async def frames() -> AsyncIterator[object]:
        yield TurnEnd("go on")
        await anyio.sleep(1)
        yield TurnEnd("stop")
        await anyio.sleep(1)

    async def call() -> list[dict[str, str]]:
        agent = Agent()
        agent.think(lambda turn: "a long story")
        agent.respond(recipe("Playout that only the telephone side knows")["respond_through"](Phone()))
        await agent.run(frames())
        return agent.history.messages()

    assert [message["content"] for message in run(call)] == ["go on", "a long", "stop", "a long"]


def test_clean_up_when_cancelled() -> None:
    class Model:
        closed = 0

        async def open(self, text: str) -> "Model":
            return self

        async def __aiter__(self) -> AsyncIterator[str]:
            yield "a word"
            await anyio.sleep_forever()

        async def close(self) -> None:
            await anyio.sleep(0.3)
            self.closed += 1

    async def frames() -> AsyncIterator[object]:
        yield TurnEagerEnd("a")
        await anyio.sleep(1)
        yield TurnEagerEnd("a table")
        await anyio.sleep(1)

    async def call() -> None:
        agent = Agent()
        think = recipe("Clean-up when cancelled")["think"]
        agent.think(lambda turn: think(turn, model))
        agent.respond(lambda turn, thought: None)
        stuck: list[ReportKind] = []
        agent.on_report(lambda report: stuck.append(report.kind))
        await agent.run(frames())
        assert ReportKind.STUCK_TASK not in stuck

    model = Model()
    run(call)
    assert model.closed == 2
