"""The processes of `test_many_sessions`: an emulator or a bare server, and the clients of many sessions in real time.

    python tests/benchmarks/many_sessions.py emulator
    python tests/benchmarks/many_sessions.py bare
    python tests/benchmarks/many_sessions.py client URL SESSIONS SECONDS

A server prints its address and then, for each line that it reads, the seconds of CPU that it has used. The client
prints how late each event came, in seconds, as a JSON list: from the moment that the audio left which causes the event
to the moment that the event is here.
"""

import asyncio
import gc
import json
import sys
from itertools import count, islice
from time import process_time

from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection, serve

from inkturns import connect_query
from inkturns.testing.emulator import InkEmulator
from inkturns.testing.emulator.conversations import conversation

CHUNK = 0.1  # seconds of audio in a frame
BYTES = 32_000  # in a second of audio
TURNS = 8
QUERY = connect_query(encoding="pcm_s16le", sample_rate=16000)


async def emulator() -> None:
    async with InkEmulator(
        lambda number: conversation(number, TURNS), max_connections=1000, log=lambda line: None
    ) as server:
        await measured(server.url)


async def bare() -> None:
    """Sends the same frames after as much sound, and judges nothing: they are made before the first call."""
    frames = [list(conversation(number, TURNS).frames()) for number in range(1000)]
    numbers = count()

    async def call(socket: ServerConnection) -> None:
        rest, heard = iter(frames[next(numbers)]), 0
        at, frame = next(rest)
        await socket.send(frame)  # `connected`
        at, frame = next(rest)
        async for sound in socket:
            heard += len(sound)
            while round(at * BYTES) <= heard:
                await socket.send(frame)
                at, frame = next(rest, (1e9, ""))

    async with serve(call, "127.0.0.1", 0, compression=None) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        await measured(f"ws://127.0.0.1:{port}")


async def measured(url: str) -> None:
    print(url, flush=True)
    while await asyncio.to_thread(sys.stdin.readline):
        print(process_time(), flush=True)


async def client(url: str, sessions: int, seconds: float) -> list[float]:
    late: list[float] = []
    clock = asyncio.get_running_loop().time
    chunk = bytes(round(BYTES * CHUNK))

    async def session(socket: ClientConnection, expected: list[float], begin: float) -> None:
        left: list[float] = []

        async def microphone() -> None:
            for n in range(round(seconds / CHUNK)):
                await asyncio.sleep(max(0.0, begin + n * CHUNK - clock()))
                left.append(clock())
                await socket.send(chunk)
            await asyncio.sleep(1)
            await socket.close()

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(microphone())
            here = [clock() async for _ in socket]
        for came, at in islice(zip(here, expected, strict=False), 1, None):  # the first is `connected`
            late.append(came - left[max(0, -(-round(at * 100) // 10) - 1)])

    scripts = [[at for at, _ in conversation(number, TURNS).frames()] for number in range(sessions)]
    sockets = [await connect(f"{url}?{QUERY}", compression=None) for _ in range(sessions)]
    gc.collect()
    gc.freeze()
    begin = clock() + 0.5
    async with asyncio.TaskGroup() as tasks:
        for number, socket in enumerate(sockets):
            tasks.create_task(session(socket, scripts[number], begin + number * 2 / sessions))
    return late


if __name__ == "__main__":
    if sys.argv[1] == "client":
        print(json.dumps(asyncio.run(client(sys.argv[2], int(sys.argv[3]), float(sys.argv[4])))))
    else:
        asyncio.run(emulator() if sys.argv[1] == "emulator" else bare())
