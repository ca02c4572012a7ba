"""`inkturns demo`: a call from beginning to end, on this machine alone.

Rules of this file: the socket, the SDK, the agent and the machine are the real ones, and what is not is in
`pretended.py`; each task is ended where it was started; needs `cartesia[websockets]` and the emulator (extras
`cartesia`, `testing`).
"""

import asyncio
import re
import sys
from collections.abc import AsyncIterator, Iterable
from contextlib import ExitStack, nullcontext, suppress
from io import StringIO
from pathlib import Path
from typing import Any

from cartesia import AsyncCartesia, DefaultAsyncHttpxClient
from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text
from websockets.exceptions import WebSocketException

from inkturns.agent import Agent
from inkturns.events import Disconnected
from inkturns.listen import DIRECT
from inkturns.pretended import CHUNK, RATE, SEED, SETTINGS, Call, conversation, microphone
from inkturns.recording import Recorder
from inkturns.testing.emulator import InkEmulator
from inkturns.testing.script import Script
from inkturns.timeline import clean
from inkturns.view import View
from inkturns.wire import close_command

__all__ = ["demo", "held", "picture", "read_script"]

ASKED: Any = {
    **{f"turn_{name}": value for name, value in SETTINGS.given().items()},
    "websocket_connection_options": DIRECT,
}


# -- through the real SDK, over a real socket


async def held(script: Script, call: Call) -> None:
    """The call: the emulator, the SDK connected to it, the sound into it, the agent at its events."""
    view, agent, chunks = call.view, call.agent, microphone(script)
    here = DefaultAsyncHttpxClient(trust_env=False)  # the environment's proxies are for what is elsewhere
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


async def _speak(chunks: Iterable[tuple[bytes, float]], ink: Any, call: Call) -> None:
    """The sound, in real time, then the wish to close. A connection that is gone takes no more of it."""
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
    """The SDK's events. What its iterator raises, for garbage too, is a lost connection."""
    try:
        async for event in ink:
            yield event
    except (WebSocketException, ValueError) as error:
        view.tell("odd", f"the connection is lost: {error}")
        yield Disconnected(type(error).__name__)


async def _draw(view: View, agent: Agent) -> None:
    while not view.out.quiet:  # as rich is once the reader has gone
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
    """What the command does; its exit code."""
    seed = SEED if seed is None else seed
    recorder = None
    if record is not None:
        labels = {"simulated": "user, model, voice, tool", "speed": f"{speed:g}"}
        recorder = Recorder(record, settings=SETTINGS, call=f"demo {seed}", labels=labels)
    call = _call(out, not plain and out.is_terminal, seed, speed, recorder)

    async def run() -> None:
        with call.view:
            await asyncio.create_task(held(conversation(seed) if script is None else script, call))

    with ExitStack() as after:
        if recorder is not None:
            after.callback(recorder.close)
        try:
            asyncio.run(run())
        except WebSocketException as error:
            out.print(Text(clean(f"the emulator refused the connection: {error}"), "red"), soft_wrap=True)
            return 1
    show_sum(out, call)
    return 0


def _call(out: Console, live: bool, seed: int, speed: float, recorder: Recorder | None = None) -> Call:
    title = f"a simulated call, seed {seed}" + (f", {speed:g} times as fast" if speed != 1 else "")
    return Call(View(out, title, live), seed, speed, recorder)


def show_sum(out: Console, call: Call) -> None:
    for name, said in call.sum():
        out.print(Text(f"{name:>11}  ", "dim").append(said, "not dim"), soft_wrap=not out.is_terminal)


def read_script(path: str) -> Script:
    """`-` is standard input. Raises OSError for a file that cannot be read, and ScriptError for a line that cannot."""
    with nullcontext(sys.stdin.buffer) if path == "-" else Path(path).open("rb") as lines:
        return Script.from_lines(lines)


def picture(seed: int = SEED, width: int = 100) -> str:
    """The demo as it ends on a terminal, as an SVG: in virtual time, so that it is the same each time."""
    from inkturns.testing import virtual

    out = Console(record=True, width=width, height=60, force_terminal=True, color_system="truecolor", file=StringIO())

    call = _call(out, True, seed, 1.0)

    async def run() -> str:
        call.begin()
        await asyncio.create_task(call.agent.run(conversation(seed).play(SETTINGS)))
        out.print(Text("$ inkturns demo", "bold"))
        out.print(call.view.drawn(whole=True))
        show_sum(out, call)
        svg = out.export_svg(title="inkturns demo", theme=MONOKAI, unique_id="demo")
        return re.sub(r"\s*@font-face \{.*?\}", "", svg, flags=re.DOTALL)  # which would be fetched

    return virtual.run(run)
