"""`inkturns demo`: a whole call on this machine.

Rules of this file:
- The socket, the SDK, the agent and the machine are real. The simulated parts are in `call.py`.
- Each task is ended by the function that started it.
- Needs the extras `cartesia` and `testing`.
"""

import asyncio
import re
import sys
from collections.abc import AsyncIterator, Iterable
from contextlib import ExitStack, closing, nullcontext, suppress
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

from cartesia import AsyncCartesia, DefaultAsyncHttpxClient
from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text
from websockets.exceptions import WebSocketException

from inkturns.agent import Agent
from inkturns.demo.call import CHUNK, RATE, SEED, SETTINGS, SimulatedCall, conversation, microphone
from inkturns.demo.view import View
from inkturns.events import Disconnected
from inkturns.printable import printable
from inkturns.recording import Recorder
from inkturns.testing.emulator import InkEmulator, Script
from inkturns.wire import close_command

__all__ = ["demo", "hold", "picture", "read_script", "recording"]

ASKED: Any = {
    **{f"turn_{name}": value for name, value in SETTINGS.given().items()},
    "websocket_connection_options": {"proxy": None},  # what is on this machine is not reached through one
}


# -- through the real SDK, over a real socket


async def hold(script: Script, call: SimulatedCall) -> None:
    """Holds the call: starts the emulator, connects the SDK, sends the sound, and runs the agent on the events."""
    view, agent, chunks = call.view, call.agent, microphone(script)
    here = DefaultAsyncHttpxClient(trust_env=False)  # no proxy: the emulator is on this machine
    async with (
        InkEmulator(script, seed=call.seed, speed=call.speed, log=view.note) as emulator,
        AsyncCartesia(api_key="none", websocket_base_url=emulator.base_url, http_client=here) as client,
        client.stt.auto_finalize.websocket(model="ink-2", encoding="pcm_s16le", sample_rate=RATE, **ASKED) as ink,
    ):
        call.begin()
        answers = asyncio.create_task(agent.run(_events(ink, view)))
        beside = [asyncio.create_task(_speak(chunks, ink, call)), asyncio.create_task(_draw(view, agent))]
        try:
            await answers
        finally:
            for task in beside:
                task.cancel()
            await asyncio.wait(beside)


async def _speak(chunks: Iterable[tuple[bytes, float]], ink: Any, call: SimulatedCall) -> None:
    """Sends the sound in real time, then `close`. Stops where the connection is lost."""
    now = asyncio.get_running_loop().time
    due = now()
    with suppress(WebSocketException):
        for chunk, level in chunks:
            await ink.send_raw(chunk)
            call.view.levels.append(level)
            due += CHUNK / call.speed
            await asyncio.sleep(due - now())
        await ink.send_raw(close_command())


async def _events(ink: Any, view: View) -> AsyncIterator[object]:
    """The SDK's events. Its iterator raises for a lost connection and for a bad frame; both end the call."""
    try:
        async for event in ink:
            yield event
    except (WebSocketException, ValueError) as error:
        view.tell("odd", f"the connection is lost: {error}")
        yield Disconnected(type(error).__name__)


async def _draw(view: View, agent: Agent) -> None:
    while not view.out.quiet:  # rich is quiet once nobody reads its output
        view.phase = str(agent.machine.phase).replace("_", " ")
        view.draw()
        await asyncio.sleep(0.08)
    agent.close()


# -- the command


def demo(
    out: Console,
    *,
    plain: bool = False,
    seed: int | None = None,
    speed: float = 1.0,
    script: Script | None = None,
    record: str | None = None,
) -> int:
    """Runs the command. Returns its exit code."""
    seed = SEED if seed is None else seed
    recorder = None if record is None else _recorder(record, seed, speed)
    call = _call(out, not plain and out.is_terminal, seed, speed, recorder)

    async def run() -> None:
        with call.view:
            await asyncio.create_task(hold(conversation(seed) if script is None else script, call))

    with ExitStack() as after:
        if recorder is not None:
            after.callback(recorder.close)
        try:
            asyncio.run(run())
        except WebSocketException as error:
            out.print(Text(printable(f"the emulator refused the connection: {error}"), "red"), soft_wrap=True)
            return 1
    show_summary(out, call)
    return 0


def _call(out: Console, live: bool, seed: int, speed: float, recorder: Recorder | None = None) -> SimulatedCall:
    title = f"a simulated call, seed {seed}" + (f", {speed:g} times as fast" if speed != 1 else "")
    return SimulatedCall(View(out, title, live), seed, speed, recorder)


def _recorder(file: Any, seed: int, speed: float) -> Recorder:
    labels = {"simulated": "user, model, voice, tool", "speed": f"{speed:g}"}
    return Recorder(file, settings=SETTINGS, call=f"demo {seed}", labels=labels)


def show_summary(out: Console, call: SimulatedCall) -> None:
    for name, said in call.summary():
        out.print(Text(f"{name:>11}  ", "dim").append(said, "not dim"), soft_wrap=not out.is_terminal)


def read_script(path: str) -> Script:
    """`-` is standard input. Raises OSError for a file that cannot be read, and ScriptError for a line that cannot."""
    with nullcontext(sys.stdin.buffer) if path == "-" else Path(path).open("rb") as lines:
        return Script.from_lines(lines)


def picture(seed: int = SEED, width: int = 100) -> str:
    """The last screen of the demo as an SVG. It runs in virtual time, so the picture is the same each time."""
    from inkturns.testing import virtual_time

    out = Console(record=True, width=width, height=60, force_terminal=True, color_system="truecolor", file=StringIO())

    call = _call(out, True, seed, 1.0)

    async def run() -> str:
        call.begin()
        await asyncio.create_task(call.agent.run(conversation(seed).play(SETTINGS)))
        out.print(Text("$ inkturns demo", "bold"))
        out.print(call.view.drawn(whole=True))
        show_summary(out, call)
        svg = out.export_svg(title="inkturns demo", theme=MONOKAI, unique_id="demo")
        return re.sub(r"\s*@font-face \{.*?\}", "", svg, flags=re.DOTALL)  # a browser would fetch it

    return virtual_time.run(run)


def recording(seed: int = SEED) -> list[bytes]:
    """The lines of the demo's recording. It runs in virtual time, so that all but the date is the same each time."""
    from inkturns.testing import virtual_time

    file = BytesIO()
    with closing(_recorder(file, seed, 1.0)) as recorder:
        call = _call(Console(file=StringIO()), False, seed, 1.0, recorder)

        async def run() -> None:
            call.begin()
            await asyncio.create_task(call.agent.run(conversation(seed).play(SETTINGS)))

        virtual_time.run(run)
        return file.getvalue().splitlines(keepends=True)
