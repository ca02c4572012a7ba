"""The emulator's figures, and an agent's against it. Run: pytest tests/benchmarks/test_emulator.py"""

import asyncio
import gc
import io
import json
import statistics
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from time import perf_counter

import pytest
from websockets.asyncio.client import ClientConnection, connect

from inkturns import Agent, Turn, connect_query
from inkturns.agent import Thought
from inkturns.testing.conversations import conversation
from inkturns.testing.emulator import InkEmulator
from inkturns.testing.script import Script, say

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
        async def respond(turn: Turn, thought: Thought) -> None:
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


def test_from_the_end_to_the_first_spoken_item(say: Callable[[str], None]) -> None:
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
    assert figures[0][0] - figures[1][0] <= 1


# -- many sessions

SERVER = """
import asyncio, sys
from inkturns.testing.emulator import InkEmulator
from inkturns.testing.conversations import conversation
async def main():
    async with InkEmulator(lambda number: conversation(number, 8), log=lambda line: None) as emulator:
        print(emulator.url, flush=True)
        await asyncio.to_thread(sys.stdin.read)
asyncio.run(main())
"""
CHUNK = 0.1


@contextmanager
def emulator_of_its_own() -> Iterator[str]:
    """An emulator in a process, as the real one would be; gives its address."""
    command = [sys.executable, "-c", SERVER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        yield process.stdout.readline().strip()
        process.communicate()


async def lateness(url: str, sessions: int, seconds: float) -> list[float]:
    """Of every event of so many sessions in real time: from when the audio left that it comes of to when it is here."""
    late: list[float] = []
    clock = asyncio.get_running_loop().time

    async def session(socket: ClientConnection, number: int, begin: float) -> None:
        left: list[float] = []

        async def microphone() -> None:
            for n in range(round(seconds / CHUNK)):
                await asyncio.sleep(max(0.0, begin + n * CHUNK - clock()))
                left.append(clock())
                await socket.send(bytes(3200))
            await asyncio.sleep(1)
            await socket.close()

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(microphone())
            frames = [(clock(), frame) async for frame in socket]
        expected = [at for at, _ in conversation(number, 8).frames()]
        for (here, _), at in islice(zip(frames, expected, strict=False), 1, None):  # not `connected`
            late.append(here - left[max(0, -(-round(at * 100) // 10) - 1)])

    query = connect_query(encoding="pcm_s16le", sample_rate=16000)
    sockets = [await connect(f"{url}?{query}", compression=None) for _ in range(sessions)]
    begin = clock() + 0.5
    async with asyncio.TaskGroup() as tasks:
        for number, socket in enumerate(sockets):
            tasks.create_task(session(socket, number, begin + number * 2 / sessions))
    return late


def test_two_hundred_sessions(say: Callable[[str], None], pytestconfig: pytest.Config) -> None:
    """In real time, against one emulator, from one client process: no event later than 50 ms at the 99th percentile."""
    with emulator_of_its_own() as url:
        late = asyncio.run(lateness(url, 200, 20))
    say(f"{len(late)} events, median {statistics.median(late) * 1000:.1f} ms, p99 {quantile(late, 0.99) * 1000:.1f} ms")
    assert quantile(late, 0.99) <= 0.05
