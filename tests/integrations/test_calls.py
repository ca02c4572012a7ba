"""The server of calls in the client's README: run as it stands, against the emulator and a model on this machine.

This side is the provider's: it signs, sends the caller's sound, plays what comes, and sends marks back.
"""

import asyncio
import base64
import hashlib
import hmac
import json
import os
import re
import signal
import socket
import sys
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import attrs
import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from inkturns.testing.emulator import InkEmulator, Script, say

README = (Path(__file__).parents[2] / "inkturns/ink/README.md").read_text()
(CODE,) = re.findall(r'^```python\n("""calls\.py.*?)^```$', README, re.MULTILINE | re.DOTALL)
TOKEN = "the account's token"
FRAME = base64.b64encode(b"\xff" * 800).decode()  # a tenth of a second


def signature(token: str = TOKEN) -> dict[str, str]:
    mac = hmac.new(token.encode(), b"wss://calls.example.com/call", hashlib.sha1)
    return {"X-Twilio-Signature": base64.b64encode(mac.digest()).decode()}


# -- the model


@attrs.define
class Model:
    """A chat API that streams: it calls the tool in its first answer to a caller who books, and then talks."""

    asked: list[list[dict[str, Any]]] = attrs.field(factory=list)
    fails: int = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):  # the thought was cancelled
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                length = re.search(r"content-length: (\d+)", head, re.IGNORECASE)
                assert length
                asked = json.loads(await reader.readexactly(int(length[1])))["messages"]
                self.asked.append(asked)
                if self.fails:
                    self.fails -= 1
                    writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 2\r\n\r\n{}")
                else:
                    body = (
                        "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in self.chunks(asked)) + "data: [DONE]\n\n"
                    )
                    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n")
                    writer.write(f"Content-Length: {len(body)}\r\n\r\n{body}".encode())
                await writer.drain()
        writer.close()

    def chunks(self, messages: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        head: dict[str, Any] = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "local"}
        for delta in self.answers(messages):
            yield {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
        yield {**head, "choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}}

    def answers(self, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
        if "book" in messages[-1]["content"] and messages[-1]["role"] == "user":
            first = {"index": 0, "id": "c1", "type": "function", "function": {"name": "book", "arguments": '{"peo'}}
            second = {"index": 0, "function": {"arguments": 'ple": 4}'}}
            return [{"role": "assistant", "tool_calls": [first]}, {"tool_calls": [second]}]
        words = ["Your table ", "is booked. ", "It is by the ", "window. ", "Anything else?"]
        return [{"role": "assistant", "content": ""}, *({"content": word} for word in words)]


# -- the server


@attrs.define
class Server:
    """The README's server, in a process."""

    port: int
    process: asyncio.subprocess.Process
    emulator: InkEmulator
    model: Model
    said: list[str]  # by the emulator

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/call"

    async def connected(self, calls: int) -> None:
        """So many have reached the emulator. Sound that comes before, and faster than real time, is not all kept."""
        async with asyncio.timeout(30):
            while len(self.emulator.connections) < calls:
                await asyncio.sleep(0.05)

    async def healthz(self) -> tuple[int, str]:
        async with httpx.AsyncClient() as client:
            answer = await client.get(f"http://127.0.0.1:{self.port}/healthz")
            return answer.status_code, answer.text


@asynccontextmanager
async def serving(
    path: Path,
    script: Script | Sequence[Script] | Callable[[int], Script],
    workers: int = 1,
    on_audio: Any = None,
    **environment: str,
) -> AsyncIterator[Server]:
    (path / "calls.py").write_text(CODE)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    model, said = Model(), list[str]()
    async with (
        InkEmulator(script, speed=float("inf"), max_connections=300, log=said.append, on_audio=on_audio) as emulator,
        await asyncio.start_server(model, "127.0.0.1", 0) as models,
    ):
        env = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), str(path)]),
            "INK_URL": emulator.url,
            "OPENAI_BASE_URL": f"http://127.0.0.1:{models.sockets[0].getsockname()[1]}/v1",
            "OPENAI_API_KEY": "none",
            "AUTH_TOKEN": TOKEN,
            "PUBLIC_URL": "wss://calls.example.com",
            **environment,
        }
        run = ["uvicorn", "calls:app", "--port", str(port), "--workers", str(workers), "--ws", "websockets-sansio"]
        log = (path / "log").open("wb")
        with log:
            process = await asyncio.create_subprocess_exec(sys.executable, "-m", *run, env=env, stdout=log, stderr=log)
        server = Server(port, process, emulator, model, said)
        try:
            async with asyncio.timeout(30):
                while True:
                    try:
                        assert await server.healthz() == (200, "ready\n")
                        break
                    except httpx.TransportError:
                        await asyncio.sleep(0.05)
            yield server
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
            print((path / "log").read_text())  # shown where the test fails


# -- the telephone


class Phone:
    """A provider's side of a call. `plays` says whether marks come back by themselves."""

    def __init__(self, line: ClientConnection, plays: bool = True) -> None:
        self.line, self.plays = line, plays
        self.events: list[str] = []
        self.marks: list[str] = []  # not played yet
        self.clears: list[float] = []  # when they came
        self.seconds = 0.0  # of sound that was sent here
        self.changed = asyncio.Condition()

    async def start(self) -> None:
        await self.line.send('{"event": "connected", "protocol": "Call", "version": "1.0.0"}')
        start = {"streamSid": "MZ1", "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1}}
        await self.send("start", start=start)

    async def send(self, event: str, **members: Any) -> None:
        await self.line.send(json.dumps({"event": event, "streamSid": "MZ1", **members}))

    async def says(self, seconds: float, frame: str = FRAME) -> None:
        """So much of the script's sound."""
        for _ in range(round(seconds * 10)):
            await self.send("media", media={"track": "inbound", "payload": frame})

    async def played(self, count: int = 1) -> None:
        for _ in range(count):
            await self.send("mark", mark={"name": self.marks.pop(0)})

    async def hears(self) -> None:
        """Until the line is closed."""
        try:
            async for text in self.line:
                message = json.loads(text)
                assert message["streamSid"] == "MZ1"
                async with self.changed:
                    self.events.append(message["event"])
                    if message["event"] == "media":
                        self.seconds += len(base64.b64decode(message["media"]["payload"])) / 8000
                    elif message["event"] == "mark":
                        self.marks.append(message["mark"]["name"])
                        if self.plays:
                            await self.played()
                    elif message["event"] == "clear":
                        self.clears.append(time.monotonic())
                        await self.played(len(self.marks))  # the provider sends back what it has dropped
                    self.changed.notify_all()
        except ConnectionClosed:
            pass

    async def until(self, what: Any) -> None:
        async with asyncio.timeout(30), self.changed:
            await self.changed.wait_for(what)


@asynccontextmanager
async def phoning(server: Server, plays: bool = True) -> AsyncIterator[Phone]:
    async with connect(server.url, additional_headers=signature(), proxy=None) as line, asyncio.TaskGroup() as tasks:
        phone = Phone(line, plays)
        ear = tasks.create_task(phone.hears())
        await phone.start()
        yield phone
        await line.close()
        await ear


GREETING = {"role": "assistant", "content": "Mill Road Kitchen. What can I do for you?"}
BOOKED = [
    {
        "role": "assistant",
        "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "book", "arguments": '{"people": 4}'}}],
    },
    {"role": "tool", "tool_call_id": "c1", "content": "booked for 4"},
]


def test_a_caller_who_interrupts_has_heard_what_was_marked(tmp_path: Path) -> None:
    """The greeting is heard, the booking is made, the reply is interrupted after its first sentence: the model's next
    request has exactly that."""

    async def call() -> None:
        first, second = say("I would like to book a table for four."), say("Is it quiet there?", after=5)
        script = Script(first, second)
        half = Script(first).seconds
        async with serving(tmp_path, script) as server, phoning(server, plays=False) as phone:
            await phone.until(lambda: len(phone.marks) == 4)  # it begins, two sentences, the end
            await phone.played(4)
            await server.connected(1)
            await phone.says(half)
            await phone.until(lambda: len(phone.marks) == 5)  # it begins, three sentences, the end
            assert len(server.model.asked) >= 2
            await phone.played(2)
            heard = phone.seconds
            await phone.says(script.seconds - half)
            await phone.until(lambda: "clear" in phone.events and len(phone.marks) == 5)
            assert phone.seconds > heard
            system, *history = server.model.asked[-1]
            assert system["role"] == "system"
            assert history == [
                GREETING,
                {"role": "user", "content": "I would like to book a table for four."},
                *BOOKED,
                {"role": "assistant", "content": "Your table is booked. "},
                {"role": "user", "content": "Is it quiet there?"},
            ]
            await phone.send("stop", stop={"callSid": "CA1"})

    asyncio.run(call())


def test_a_caller_who_hangs_up_ends_the_call(tmp_path: Path) -> None:
    async def call() -> None:
        async with serving(tmp_path, Script(say("Hello there, is this the restaurant?"))) as server:
            for number, goodbye in enumerate(("stop", None), 1):
                async with phoning(server) as phone:
                    await server.connected(number)
                    await phone.says(2)
                    if goodbye is not None:
                        await phone.send(goodbye)
                        await phone.line.wait_closed()
            await ended(server, 2)

    asyncio.run(call())


async def ended(server: Server, connections: int) -> None:
    """All connections to Ink are closed."""
    async with asyncio.timeout(30):
        while sum("closed after" in line for line in server.said) < connections:
            await asyncio.sleep(0.05)
    assert len(server.emulator.connections) == connections


def test_one_calls_failure_hurts_nobody(tmp_path: Path) -> None:
    async def call() -> None:
        script = Script(say("What would that cost me?"))
        async with serving(tmp_path, script) as server, phoning(server) as good:
            async with phoning(server) as bad:
                await bad.line.send("this is not JSON")
                await bad.line.wait_closed()
            server.model.fails = 100  # whatever is thought fails, and is logged
            await server.connected(1)
            await good.says(script.seconds)
            async with asyncio.timeout(30):
                while "a call's agent failed" not in (tmp_path / "log").read_text():
                    await asyncio.sleep(0.05)
            assert not good.line.close_code
            assert await server.healthz() == (200, "ready\n")
            assert "a call ended by an error" in (tmp_path / "log").read_text()

    asyncio.run(call())


def test_who_is_refused(tmp_path: Path) -> None:
    async def status(server: Server, headers: dict[str, str]) -> int:
        try:
            async with connect(server.url, additional_headers=headers, proxy=None):
                return 101
        except InvalidStatus as refused:
            return refused.response.status_code

    async def call() -> None:
        async with serving(tmp_path, Script(say("Hi.")), MOST_CALLS="1") as server:
            assert await status(server, {}) == 403
            assert await status(server, signature("another token")) == 403
            assert await status(server, {"X-Twilio-Signature": "schl\u00fcssel"}) == 403
            async with phoning(server) as phone:
                await phone.until(lambda: phone.seconds)
                assert await status(server, signature()) == 503
            async with asyncio.timeout(30):
                while await status(server, signature()) != 101:
                    await asyncio.sleep(0.05)

    asyncio.run(call())


def test_a_call_has_a_longest_length(tmp_path: Path) -> None:
    async def call() -> None:
        async with serving(tmp_path, Script(say("Hi.")), LONGEST="1") as server, phoning(server) as phone:
            await asyncio.wait_for(phone.line.wait_closed(), 30)
            assert await server.healthz() == (200, "ready\n")

    asyncio.run(call())


@pytest.mark.parametrize("workers", [1, 2])
def test_sigterm_under_a_hundred_calls(workers: int, tmp_path: Path) -> None:
    """What is being said is heard to its end, no call is left, and the process is gone."""

    async def call() -> None:
        script = Script(say("What would that cost me?"))
        async with serving(tmp_path, script, workers, GRACE="0") as server, asyncio.TaskGroup() as tasks:

            async def one(number: int) -> None:
                async with phoning(server, plays=False) as phone:
                    await phone.until(lambda: len(phone.marks) == 4)
                    await phone.played(4)
                    await server.connected(100)
                    await phone.says(script.seconds)
                    await phone.until(lambda: len(phone.marks) == 5)
                    ready.append(number)
                    await terminated.wait()
                    if number % 2:  # the other half's far end plays on until it is cut
                        await asyncio.sleep(1)
                        await phone.played(5)
                    await phone.line.wait_closed()
                    assert phone.line.close_code == 1000

            ready: list[int] = []
            terminated = asyncio.Event()
            callers = [tasks.create_task(one(number)) for number in range(100)]
            async with asyncio.timeout(90):
                while len(ready) < 100:
                    await asyncio.sleep(0.05)
            server.process.send_signal(signal.SIGTERM)
            await asyncio.sleep(0.5)
            if workers == 1:
                assert await server.healthz() == (503, "draining\n")
                with pytest.raises(InvalidStatus, match="503"):
                    await connect(server.url, additional_headers=signature(), proxy=None)
            terminated.set()
            await asyncio.wait_for(asyncio.gather(*callers), 60)
            assert await asyncio.wait_for(server.process.wait(), 30) in (0, -signal.SIGTERM)
            await ended(server, 100)
            assert "Traceback" not in (tmp_path / "log").read_text()

    asyncio.run(call())


def memory_of(process: asyncio.subprocess.Process) -> float:
    """MiB."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    (kibibytes,) = re.findall(r"^VmRSS:\s+(\d+) kB$", status, re.MULTILINE)
    return int(kibibytes) / 1024


class Ear:
    """What the emulator hears of at most 100 callers: whose sound it is, and when it said that a turn starts. Each
    caller's sound is one byte, over and over; the server's own silence is another."""

    def __init__(self) -> None:
        self.starts: dict[int, list[float]] = defaultdict(list)
        self.emulator: InkEmulator
        self._callers: dict[int, int] = {}
        self._heard: dict[int, float] = {}  # when the latest frame of a connection came
        self._read: dict[int, int] = defaultdict(int)

    def __call__(self, number: int, audio: bytes) -> None:
        """Before the emulator takes this frame: all that it has said since the last one, it said when that one came."""
        if audio[0] < 100:
            self._callers[number] = audio[0]
        sent = self.emulator.connections[number].sent
        for _, out in sent[self._read[number] :]:
            if '"turn.start"' in str(out):
                self.starts[self._callers[number]].append(self._heard[number])
        self._read[number], self._heard[number] = len(sent), time.monotonic()


@pytest.mark.parametrize(("count", "speed"), [(20, 6), pytest.param(100, 1, marks=pytest.mark.full)])
def test_cost_of_many_calls_for_a_minute(
    count: int, speed: float, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """So many times faster than in real time. Each turn of each call is answered, the second half needs no more memory,
    and it is said how long it takes from Ink's turn.start to what `listen` does, at the telephone."""
    turns = 8

    def script(number: int) -> Script:
        """The first words come when all are connected, and not of all at once."""
        first = 10 + 4 * number / count
        return Script(
            *[say("What would that cost me, all in all?", after=4.4 if turn else first) for turn in range(turns)]
        )

    seconds = script(count).seconds
    assert seconds >= 60

    async def call() -> None:
        answered, waits, memory = list[int](), list[float](), list[float]()
        async with serving(tmp_path, script, on_audio=(ear := Ear())) as server, asyncio.TaskGroup() as tasks:
            ear.emulator = server.emulator

            async def one(number: int) -> None:
                async with phoning(server) as phone:
                    frame = base64.b64encode(bytes([number]) * 800).decode()
                    await phone.says(0.1, frame)  # from here on the server fills up with silence
                    await server.connected(count)
                    begin = time.monotonic()
                    for at in range(round(seconds * 10)):
                        await asyncio.sleep(begin + at / 10 / speed - time.monotonic())
                        await phone.says(0.1, frame)
                    await phone.until(
                        lambda: len(phone.clears) == turns and phone.events.count("mark") == 4 + 5 * turns
                    )
                    memory.append(memory_of(server.process))
                    answered.append(phone.events.count("media"))
                    assert len(ear.starts[number]) == turns
                    waits.extend(heard - said for said, heard in zip(ear.starts[number], phone.clears, strict=True))
                    await phone.send("stop", stop={"callSid": "CA1"})

            async def looks() -> None:
                await server.connected(count)
                await asyncio.sleep(seconds / speed / 2)
                half.append(memory_of(server.process))

            half = list[float]()
            tasks.create_task(looks())
            await asyncio.wait([tasks.create_task(one(number)) for number in range(count)])
            assert answered == [2 + 3 * turns] * count  # the greeting, and every reply, in sentences
            assert len(server.emulator.connections) == count
            assert max(memory) < half[0] * 1.15
            waits.sort()
            with capsys.disabled():
                middle, p99 = waits[len(waits) // 2], waits[len(waits) * 99 // 100]
                print(f"\n{count} calls: from turn.start to the telephone {middle * 1000:.1f} ms, ", end="")
                print(f"p99 {p99 * 1000:.1f} ms; {max(memory):.0f} MiB at the end, {half[0]:.0f} at half")
        assert "Traceback" not in (tmp_path / "log").read_text()

    asyncio.run(call())
