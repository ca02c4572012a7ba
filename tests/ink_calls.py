"""Calls of Ink's client, for its tests: a caller, a server that keeps what it hears, and a loop for both.

Server and client share one loop over real sockets, whose clock jumps: a call of a minute takes a fraction of a second,
and each test is the same each time.
"""

import asyncio
import gc
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from random import Random
from typing import Any, TypeVar

import attrs
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.http11 import Request, Response

from inkturns.events import Disconnected
from inkturns.ink import Ink
from inkturns.testing.virtual_time import VirtualLoop

Handler = Callable[[ServerConnection], Awaitable[None]]
Frame = str | bytes | Disconnected
Value = TypeVar("Value")
RATE = 8000


class SocketLoop(VirtualLoop):
    patience = 0.0003


def run(main: Coroutine[Any, Any, Value]) -> Value:
    """Runs it, and sees to it that no task, file or socket is left."""

    async def checked() -> Value:
        value = await main
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not left
        return value

    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0  # noqa: PTH112, PTH208
    gc.freeze()  # so that the collection looks at this call alone: it takes half a second where many tests are loaded
    try:
        with asyncio.Runner(loop_factory=SocketLoop) as runner:
            value = runner.run(checked())
        gc.collect()
    finally:
        gc.unfreeze()
    if before:
        assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
    return value


def now() -> float:
    return asyncio.get_running_loop().time()


# -- the caller


def speech(seconds: float, width: int = 1, rate: int = RATE) -> bytes:
    """Sound of which no piece of a few bytes comes twice."""
    return Random(seconds).randbytes(round(seconds * rate) * width)


async def spoken(data: bytes, chunk: int = 400, a_second: int = RATE) -> AsyncIterator[bytes]:
    """The sound in real time, each chunk when it has been said."""
    due = now()
    for at in range(0, len(data), chunk):
        piece = data[at : at + chunk]
        due += len(piece) / a_second
        await asyncio.sleep(due - now())
        yield piece


async def silent() -> AsyncIterator[bytes]:
    """A caller who says nothing, and stays."""
    await asyncio.get_running_loop().create_future()
    yield b""


def mulaw(url: str | None = None, **options: Any) -> Ink:
    return Ink(url=url, **{"encoding": "pcm_mulaw", "sample_rate": RATE, **options})


async def heard(ink: Ink, sound: Any, into: list[tuple[float, Frame]] | None = None) -> list[tuple[float, Frame]]:
    """All frames of a call, with their times; `into` has them also where the call fails."""
    into = [] if into is None else into
    async with ink.connect(sound) as frames:
        async for frame in frames:
            into.append((now(), frame))
    return into


# -- the server


@attrs.define
class Line:
    """A server that keeps what it hears. After so many bytes of a connection it does something; by default it accepts,
    hears until it is asked to close, and says `at_close`."""

    does: dict[int, Handler] = attrs.field(factory=dict)
    at_close: Sequence[dict[str, Any]] = ()
    accepts: bool = True
    sound: bytes = b""
    times: list[float] = attrs.field(factory=list)
    commands: list[str] = attrs.field(factory=list)
    requests: list[Request] = attrs.field(factory=list)

    async def __call__(self, socket: ServerConnection) -> None:
        assert socket.request is not None
        self.requests.append(socket.request)
        if self.accepts:
            await socket.send(json.dumps({"type": "connected", "request_id": str(id(socket))}))
        begin = len(self.sound)
        async for message in socket:
            if isinstance(message, str):
                self.commands.append(message)
                if message == '{"type":"close"}':
                    for frame in self.at_close:
                        await socket.send(json.dumps(frame))
                    return
                continue
            self.sound += message
            self.times.append(now())
            for size in [size for size in self.does if size <= len(self.sound) - begin]:
                await self.does.pop(size)(socket)


async def cut(socket: ServerConnection) -> None:
    socket.transport.abort()


def says(*frames: dict[str, Any]) -> Callable[[ServerConnection], Awaitable[None]]:
    async def send(socket: ServerConnection) -> None:
        for frame in frames:
            await socket.send(json.dumps(frame))

    return send


def closes(code: int, reason: str = "") -> Callable[[ServerConnection], Awaitable[None]]:
    async def close(socket: ServerConnection) -> None:
        await socket.close(code, reason)

    return close


@asynccontextmanager
async def serving(*handlers: Handler, **options: Any) -> AsyncIterator[str]:
    """A server with a handler for each connection, the last one for all that come after it."""
    left = [*handlers]

    async def handle(socket: ServerConnection) -> None:
        await (left.pop(0) if len(left) > 1 else left[0])(socket)

    server: Server
    async with serve(handle, "127.0.0.1", 0, **{"close_timeout": 1, **options}) as server:
        yield f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}/stt/turns/websocket"


def answering(*statuses: int | tuple[int, dict[str, str], str], before: int = 0) -> Callable[..., Response | None]:
    """Refuses the upgrades with these, each with an HTTP status; then, and `before` so many, accepts."""
    left: list[Any] = [None] * before + [*statuses]

    def answer(socket: ServerConnection, request: Request) -> Response | None:
        if not left or (status := left.pop(0)) is None:
            return None
        code, headers, body = status if isinstance(status, tuple) else (status, {}, "No.\n")
        response = socket.respond(code, body)
        response.headers.update(headers)
        return response

    return answer


def kinds(frames: list[tuple[float, Frame]]) -> list[str]:
    return ["lost" if isinstance(frame, Disconnected) else json.loads(frame)["type"] for _, frame in frames]
