"""What Ink's client costs beyond `websockets`: sound out, frames in, memory. Run: pytest tests/benchmarks."""

import asyncio
import gc
import json
import subprocess
import sys
import tracemalloc
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any

import pytest
from websockets.asyncio.client import connect

from inkturns import Turns, TurnSettings
from inkturns.ink import Ink

CHUNK = bytes(160)  # 20 ms of mu-law, as telephones send it
CHUNKS, FRAMES, CALLS = 200, 200, 100
SETTINGS = TurnSettings(end_threshold=0.3)

# The server is a process of its own, which does nothing but read, and write all frames at once.
SERVER = """
import asyncio, sys
from websockets.asyncio.server import serve
frames = sys.argv[1].encode()
async def talk(socket):
    await socket.send('{"type":"connected","request_id":"r"}')
    async for message in socket:
        if message == '{"type":"close"}':
            return
        if isinstance(message, str):
            socket.transport.write((b"\\x81" + bytes([len(frames)]) + frames) * int(sys.argv[2]))
async def main():
    async with serve(talk, "127.0.0.1", 0, compression=None) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await asyncio.to_thread(sys.stdin.read)
asyncio.run(main())
"""
UPDATE = json.dumps({"type": "turn.update", "request_id": "r", "turn_id": "1", "transcript": "I would like to book a"})


@pytest.fixture
def url() -> Iterator[str]:
    command = [sys.executable, "-c", SERVER, UPDATE, str(FRAMES)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        yield f"ws://127.0.0.1:{process.stdout.readline().strip()}/"
        process.communicate()


class Source:
    """Sound in batches: `run` gives one, and returns when whoever reads it wants more."""

    def __init__(self) -> None:
        self.left, self.wanted, self.more = 0, asyncio.Event(), asyncio.Event()

    async def run(self) -> None:
        self.left = CHUNKS
        self.wanted.clear()
        self.more.set()
        await self.wanted.wait()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            while self.left:
                self.left -= 1
                await asyncio.sleep(0)  # each comes in a step of its own
                yield CHUNK
            self.more.clear()
            self.wanted.set()
            await self.more.wait()


def compared(
    compare: Callable[..., float],
    name: str,
    per: int,
    ours: Callable[[], Coroutine[Any, Any, None]],
    theirs: Callable[[], Coroutine[Any, Any, None]],
    loop: asyncio.AbstractEventLoop,
) -> None:
    compare(name, lambda: loop.run_until_complete(ours()), lambda: loop.run_until_complete(theirs()), per=per)


def test_sound_out(url: str, compare: Callable[..., float]) -> None:
    """From the sound's iterator to bytes on the socket, to `await socket.send(chunk)` in a loop."""
    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        ink = Ink(url=url, encoding="pcm_mulaw", sample_rate=8000, keep=3600)

        async def begin() -> list[Any]:
            mine, bare = Source(), Source()
            call = ink.connect(mine)
            frames = await call.__aenter__()
            await anext(frames)
            socket = await connect(url, compression=None)

            async def send() -> None:
                async for chunk in bare:
                    await socket.send(chunk)

            return [mine, bare, call, socket, asyncio.create_task(send())]

        mine, bare, call, socket, task = runner.run(begin())
        compared(compare, "sound out", CHUNKS, mine.run, bare.run, loop)

        async def end() -> None:
            task.cancel()
            await asyncio.wait([task])
            await socket.close()
            await call.__aexit__(None, None, None)

        runner.run(end())
        assert ink.stats.dropped == 0


def test_frames_in(url: str, compare: Callable[..., float]) -> None:
    """From frames on the socket to `feed`, to `async for frame in socket`."""
    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        ink = Ink(url=url, encoding="pcm_mulaw", sample_rate=8000)

        async def begin() -> list[Any]:
            call = ink.connect(Source())
            frames = await call.__aenter__()
            await anext(frames)
            socket = await connect(url, compression=None)
            await socket.recv()
            return [call, frames, socket]

        call, frames, socket = runner.run(begin())

        async def read(source: Any) -> None:
            turns, left = Turns(), FRAMES
            async for frame in source:
                turns.feed(frame)
                left -= 1
                if not left:
                    break

        async def ours() -> None:
            ink.use(SETTINGS)
            await read(frames)

        async def theirs() -> None:
            await socket.send('{"type":"config","turn":{"end_threshold":0.3}}')
            await read(socket)

        compared(compare, "frames in", FRAMES, ours, theirs, loop)

        async def end() -> None:
            await socket.close()
            await call.__aexit__(None, None, None)

        runner.run(end())


def test_memory(url: str, figure: Callable[..., float]) -> None:
    """Of a call that is connected, beyond a bare connection that one task reads and another sends to."""

    async def waits() -> AsyncIterator[bytes]:
        yield CHUNK
        await asyncio.get_running_loop().create_future()

    async def ours(ready: asyncio.Semaphore) -> None:
        async with Ink(url=url, encoding="pcm_mulaw", sample_rate=8000).connect(waits()) as frames:
            async for _ in frames:
                ready.release()

    async def theirs(ready: asyncio.Semaphore) -> None:
        async with connect(url, compression=None) as socket:

            async def send() -> None:
                async for chunk in waits():
                    await socket.send(chunk)

            task = asyncio.create_task(send())
            try:
                async for _ in socket:
                    ready.release()
            finally:
                task.cancel()

    async def memory(call: Callable[[asyncio.Semaphore], Coroutine[Any, Any, None]]) -> float:
        ready = asyncio.Semaphore(0)
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        tasks = [asyncio.create_task(call(ready)) for _ in range(CALLS)]
        for _ in tasks:
            await ready.acquire()
        gc.collect()
        after = tracemalloc.get_traced_memory()[0]
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        return (after - before) / CALLS / 1024

    async def both() -> list[float]:
        found = []
        for _ in range(4):  # the first loads what is loaded once
            bare = await memory(theirs)
            found.append(await memory(ours) - bare)
        return found[1:]

    tracemalloc.start()
    try:
        values = asyncio.run(both())
    finally:
        tracemalloc.stop()
    figure("call", values)
