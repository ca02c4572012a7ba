"""The emulator's figures, and an agent's against it. Run: pytest tests/benchmarks/test_emulator.py"""

import asyncio
import gc
import io
import json
import statistics
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from time import perf_counter
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

from inkturns import Agent, Turn, connect_query
from inkturns.agent import Thought
from inkturns.testing.emulator import InkEmulator, Script, say

QUERY = connect_query(encoding="pcm_mulaw", sample_rate=8000)
TURNS, ROUNDS = 20, 12
SCRIPT = Script(*[say("Yes, that would be fine, thank you.") for _ in range(TURNS)])


def quantile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, round(share * len(values)))]


# -- from the end of a turn to the first spoken item


class Call:
    """A client that sends the audio of SCRIPT, so that each turn.end comes of a piece of audio by itself, which leaves
    only when all that came before is dealt with."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.sent = 0.0  # when that piece left
        self.answered = asyncio.Event()
        self.seconds: list[float] = []

    def spoken(self) -> None:
        self.seconds.append(perf_counter() - self.sent)
        self.answered.set()

    async def speak(self) -> None:
        at, eager = 0, False
        for seconds, frame in SCRIPT.frames():
            kind = json.loads(frame)["type"]
            eager = kind == "turn.eager_end" or (eager and kind != "turn.end")
            if kind != "turn.end":
                continue
            before = round(seconds * 100) - 1  # hundredths of a second of audio
            await self.socket.send(bytes((before - at) * 80))
            await (await self.socket.ping())
            await asyncio.sleep(0.002)  # the thought is made
            self.answered.clear()
            self.sent = perf_counter()
            await self.socket.send(bytes(80))
            await self.answered.wait()
            at = before + 1
        await self.socket.close()


async def through_the_agent(url: str) -> list[float]:
    async with connect(f"{url}?{QUERY}", compression=None) as socket, asyncio.TaskGroup() as tasks:
        agent, call = Agent(), Call(socket)

        @agent.think
        async def think(turn: Turn) -> AsyncIterator[str]:
            for word in ("Very", "well."):
                yield word

        @agent.respond
        async def respond(turn: Turn, thought: Thought[Any]) -> None:
            async for _ in thought:
                if not call.answered.is_set():
                    call.spoken()

        tasks.create_task(call.speak())
        await agent.run(socket)
        return call.seconds


async def bare(url: str) -> list[float]:
    async with connect(f"{url}?{QUERY}", compression=None) as socket, asyncio.TaskGroup() as tasks:
        call, out = Call(socket), io.StringIO()
        tasks.create_task(call.speak())
        async for frame in socket:
            print(frame, file=out)
            if json.loads(frame)["type"] == "turn.end":
                call.spoken()
        return call.seconds


def test_from_the_end_to_the_first_spoken_item(say: Callable[[str], None], figure: Callable[..., float]) -> None:
    """At most 1 ms more, at the median, than a bare client takes to print the frame. Both times begin when the audio
    leaves that makes the turn end, so that both have the emulator's own in them."""

    async def both() -> tuple[list[float], list[float]]:
        ours, theirs = list[float](), list[float]()
        async with InkEmulator(SCRIPT, speed=float("inf")) as emulator:
            for _ in range(ROUNDS):
                gc.collect()
                ours += await through_the_agent(emulator.url)
                theirs += await bare(emulator.url)
        return ours, theirs

    ours, theirs = asyncio.run(both())
    assert len(ours) == len(theirs) == TURNS * ROUNDS
    figures = [(statistics.median(times) * 1000, quantile(times, 0.99) * 1000) for times in (ours, theirs)]
    say("median {:.2f} ms, p99 {:.2f} ms; bare {:.2f} and {:.2f}".format(*figures[0], *figures[1]))
    figure("spoken", figures[0][0] - figures[1][0])


# -- many sessions

PROGRAM = [sys.executable, str(Path(__file__).with_name("many_sessions.py"))]
SECONDS = 10.0


def held(server_of: str, sessions: int) -> tuple[list[float], float]:
    """How late each event came, in ms, and the server's share of a core, in per cent. Each side is a process."""
    with subprocess.Popen([*PROGRAM, server_of], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdin
        assert server.stdout

        def used() -> float:
            assert server.stdin
            assert server.stdout
            server.stdin.write("\n")
            server.stdin.flush()
            return float(server.stdout.readline())

        url = server.stdout.readline().strip()
        before = used()
        client = [*PROGRAM, "client", url, str(sessions), str(SECONDS)]
        late = json.loads(subprocess.run(client, capture_output=True, text=True, check=True).stdout)
        cpu = used() - before
        server.stdin.close()
    return [seconds * 1000 for seconds in late], cpu / SECONDS * 100


def test_many_sessions(say: Callable[[str], None], figure: Callable[..., float]) -> None:
    """In real time, against one server. The CPU includes the handshakes, and the making of the emulator's scripts."""
    shares = {}
    for server_of, sessions in (("emulator", 200), ("bare", 200), ("emulator", 400)):
        late, cpu = held(server_of, sessions)
        shares[server_of, sessions] = cpu
        median, p99 = statistics.median(late), quantile(late, 0.99)
        say(f"{server_of}, {sessions}: {len(late)} events, median {median:.1f} ms, p99 {p99:.1f} ms, {cpu:.0f} %")
        if server_of == "emulator":
            figure(f"{sessions} sessions, p99", p99)
    figure("200 sessions, share", shares["emulator", 200])
    figure("200 sessions, CPU", shares["emulator", 200] / shares["bare", 200])
