"""`inkturns listen`: what goes out is the file's sound, in time; what comes back is shown, recorded and not lost."""

import asyncio
import io
import json
import os
import signal
import struct
import subprocess
import sys
import time
import wave
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.http11 import Request, Response

from inkturns import listen as the_module
from inkturns.actions import Abandon, Action, EndReason
from inkturns.cli import app
from inkturns.events import Disconnected, Event, TurnEnd
from inkturns.hooks import Turns
from inkturns.listen import ListenError, Listening, Sound, listen
from inkturns.recording import replay

Handler = Callable[[ServerConnection], Awaitable[None]]
TONE = [*range(-12000, 12000)]  # no two chunks alike


@pytest.fixture(autouse=True)
def _no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CARTESIA_API_KEY", raising=False)


@pytest.fixture
def wav(tmp_path: Path) -> Path:
    """Three seconds."""
    return written(tmp_path / "hello.wav", TONE)


def written(path: Path, samples: Sequence[int], *, rate: int = 8000, channels: int = 1, width: int = 2) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(b"".join(sample.to_bytes(width, "little", signed=width > 1) for sample in samples))
    return path


def patched(path: Path, at: int, data: bytes) -> Path:
    """A file of three seconds, with other bytes in its head."""
    whole = written(path, TONE).read_bytes()
    path.write_bytes(whole[:at] + data + whole[at + len(data) :])
    return path


@asynccontextmanager
async def serving(*handlers: Handler, **options: Any) -> AsyncIterator[str]:
    """A server with a handler for each connection, the last for all that come after it."""
    left = [*handlers]

    async def handle(socket: ServerConnection) -> None:
        await (left.pop(0) if len(left) > 1 else left[0])(socket)

    server: Server
    async with serve(handle, "127.0.0.1", 0, **options) as server:
        yield f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}/stt/turns/websocket"


class Ink:
    """A server that hears: `says` is what it sends after so many bytes of sound; None: it cuts the line."""

    def __init__(self, says: dict[int, dict[str, Any] | str | None], at_close: Sequence[dict[str, Any]] = ()) -> None:
        self.says = dict(says)
        self.at_close = at_close
        self.sound = b""
        self.commands: list[str] = []
        self.request: Request | None = None

    async def __call__(self, socket: ServerConnection) -> None:
        self.request = socket.request
        await socket.send(json.dumps({"type": "connected", "request_id": str(id(self))}))
        async for message in socket:
            if isinstance(message, str):
                self.commands.append(message)
                for frame in self.at_close:
                    await socket.send(json.dumps(frame))
                return
            self.sound += message
            for size in [size for size in self.says if size <= len(self.sound)]:
                says = self.says.pop(size)
                if says is None:
                    socket.transport.abort()
                    return
                await socket.send(says if isinstance(says, str) else json.dumps(says))


def turn(text: str, start: int = 1, end: int = 7000) -> dict[int, dict[str, Any] | str | None]:
    return {
        start: {"type": "turn.start"},
        start + 1600: {"type": "turn.update", "transcript": text.partition(" ")[0]},
        end: {"type": "turn.end", "transcript": text},
    }


class Heard:
    """A Listening and what it said."""

    def __init__(self, url: str, path: Path, *, speed: float = 20) -> None:
        self.inputs: list[tuple[Event | None, tuple[Action, ...]]] = []
        self.said: list[str] = []
        show = lambda event, now, actions: self.inputs.append((event, actions))  # noqa: E731
        self.listening = Listening(Sound.open(path), Turns(), url, {}, show, self.said.append, speed)

    @property
    def abandoned(self) -> list[tuple[str, EndReason | None]]:
        actions = [action for _, actions in self.inputs for action in actions]
        return [(action.turn.transcript, action.turn.end) for action in actions if isinstance(action, Abandon)]

    @property
    def ended(self) -> list[str]:
        return [event.transcript for event, _ in self.inputs if isinstance(event, TurnEnd)]

    async def run(self) -> "Heard":
        await self.listening.run()
        return self


def hear(path: Path, *handlers: Handler, speed: float = 20, **options: Any) -> Heard:
    async def call() -> Heard:
        async with serving(*handlers, **options) as url:
            return await Heard(url, path, speed=speed).run()

    return asyncio.run(call())


def command(*args: object) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["listen", *map(str, args)], env={"COLUMNS": "500"})
    return done.exit_code, done.stderr


# -- the file


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 44100, 48000])
def test_a_sound_is_the_files_own_at_any_rate(rate: int, tmp_path: Path) -> None:
    sound = Sound.open(written(tmp_path / "a.wav", TONE, rate=rate))
    chunks = list(iter(sound.chunk, b""))
    assert struct.unpack(f"<{len(TONE)}h", b"".join(chunks)) == tuple(TONE)
    assert {len(chunk) for chunk in chunks[:-1]} <= {len(sound.silence())}
    assert abs(len(sound.silence()) / 2 / rate - 0.1) < 0.001
    assert (sound.rate, sound.seconds) == (rate, len(TONE) / rate)
    sound.close()


def test_two_channels_are_mixed_into_one(tmp_path: Path) -> None:
    sound = Sound.open(written(tmp_path / "a.wav", [100, 300, -32768, -32768, 32767, 32767, 5, -5], channels=2))
    assert struct.unpack("<4h", sound.chunk()) == (200, -32768, 32767, 0)
    sound.close()


def test_a_file_that_was_cut_short_is_heard_as_far_as_it_goes(tmp_path: Path) -> None:
    path = written(tmp_path / "a.wav", TONE)
    path.write_bytes(path.read_bytes()[:-4001])
    sound = Sound.open(path)
    assert len(b"".join(iter(sound.chunk, b""))) == 2 * len(TONE) - 4002
    assert sound.seconds == pytest.approx(3 - 2001 / 8000, abs=0.01)
    sound.close()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no such pipes")
def test_a_pipe_is_heard_too(wav: Path, tmp_path: Path) -> None:
    os.mkfifo(pipe := tmp_path / "pipe.wav")
    with ThreadPoolExecutor() as other:
        other.submit(pipe.write_bytes, wav.read_bytes())
        sound = Sound.open(pipe)
        assert sound.seconds == 3
        assert len(b"".join(iter(sound.chunk, b""))) == 2 * len(TONE)
        sound.close()


@pytest.mark.parametrize(
    ("made", "why"),
    [
        (lambda path: written(path, [1, 2], width=1), "its samples have 8 bits, not 16"),
        (lambda path: written(path, [1, 2], width=3), "its samples have 24 bits, not 16"),
        (lambda path: written(path, [1, 2, 3, 4, 5, 6], channels=3), "it has 3 channels, not one or two"),
        (lambda path: written(path, []), "it holds no sound"),
        (lambda path: path.write_text("ID3 an mp3, say, with words enough"), "no WAV file of 16-bit samples"),
        (lambda path: path.write_bytes(b""), "it is cut short"),
        (lambda path: patched(path, 36, b"LIST\xff\xff\xff\xff"), "no WAV file of 16-bit samples"),
        (lambda path: patched(path, 24, struct.pack("<I", 384_001)), "its sample rate is 384001"),
        (lambda path: patched(path, 24, bytes(4)), "its sample rate is 0"),
        (lambda path: patched(path, 20, struct.pack("<H", 3)), "unknown format: 3"),
        (lambda path: path.mkdir(), os.strerror(21)),
        (lambda path: None, os.strerror(2)),
    ],
)
def test_another_format_is_refused_in_a_sentence(made: Callable[[Path], object], why: str, tmp_path: Path) -> None:
    made(path := tmp_path / "a.wav")
    code, said = command(path, "--url", "ws://127.0.0.1:1")
    assert code == 2
    assert said.startswith(f"{path}: ")
    assert why in said
    assert said.count("\n") == 1


def test_another_format_is_told_how_to_become_this_one(wav: Path) -> None:
    with pytest.raises(ListenError, match="ffmpeg"):
        Sound.open(patched(wav, 20, struct.pack("<H", 3)))
    sound = Sound.open(written(wav, TONE, rate=384_000))
    assert sound.rate == 384_000
    sound.close()


# -- where it goes


def test_without_a_key_it_says_how_to_get_one(wav: Path) -> None:
    code, said = command(wav)
    assert code == 2
    assert "export CARTESIA_API_KEY=" in said
    assert "--url" in said


def test_a_key_is_what_is_not_blank_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CARTESIA_API_KEY", " secret\r\n")
    assert the_module._address(None, 16000)[1] == {"X-API-Key": "secret"}
    monkeypatch.setenv("CARTESIA_API_KEY", " \n")
    with pytest.raises(ListenError, match="needs a key"):
        the_module._address(None, 16000)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (None, True),
        ("wss://api.cartesia.ai/stt/turns/websocket", True),
        ("wss://cartesia.ai/", True),
        ("ws://api.cartesia.ai/stt/turns/websocket", False),
        ("wss://api.cartesia.ai.example.com/", False),
        ("wss://example.com/?at=cartesia.ai", False),
    ],
)
def test_the_key_goes_to_cartesia_alone(url: str | None, shown: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CARTESIA_API_KEY", "secret")
    address, headers = the_module._address(url, 16000)
    assert headers == ({"X-API-Key": "secret"} if shown else {})
    assert "secret" not in address
    assert address.count("?") == 1
    assert address.startswith(url or "wss://api.cartesia.ai/stt/turns/websocket?")
    assert address.endswith("model=ink-2&encoding=pcm_s16le&sample_rate=16000&cartesia_version=2026-08-14")


@pytest.mark.parametrize(
    "url",
    [
        *("http://127.0.0.1:1/", "nonsense", "ws://127.0.0.1:port/", "ws://"),
        *("ws://127.0.0.1:1/#there", "ws://me@127.0.0.1:1/", "ws://\N{LATIN SMALL LETTER U WITH DIAERESIS}..b/"),
    ],
)
def test_an_address_that_is_none_is_refused(url: str, wav: Path) -> None:
    code, said = command(wav, "--url", url)
    assert code == 2
    assert "no address of a WebSocket" in said


@pytest.mark.parametrize(
    ("url", "proxy", "why"),
    [
        ("ws://a..b/", None, "label"),
        ("ws://example.invalid/", "nonsense", "proxy"),
        ("ws://example.invalid/", "http://a..b:1", "label"),
        ("ws://example.invalid/", "socks5://127.0.0.1:1", "python-socks"),
    ],
)
def test_a_way_that_is_none_is_tried_once(
    url: str, proxy: str | None, why: str, wav: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if proxy is not None:
        for variable in ("http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.setenv(variable, proxy)
        monkeypatch.delenv("no_proxy", raising=False)
    code, said = command(wav, "--url", url)
    assert code == 2
    _, last = said.splitlines()
    assert last.startswith("no connection: ")
    assert why in last


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_what_is_on_this_machine_is_reached_without_a_proxy(
    host: str, wav: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(variable, "http://127.0.0.1:1")

    async def call() -> Heard:
        async with serving(Ink(turn("hello"))) as url:
            return await Heard(url.replace("127.0.0.1", host), wav).run()

    heard = asyncio.run(call())
    assert (heard.ended, heard.said) == (["hello"], [])


# -- the session


def test_it_sends_the_sound_then_silence_then_close(wav: Path) -> None:
    ink = Ink(turn("hello there"), at_close=[{"type": "turn.start"}, {"type": "turn.end", "transcript": "Bye."}])
    heard = hear(wav, ink)
    assert ink.sound[: 2 * len(TONE)] == struct.pack(f"<{len(TONE)}h", *TONE)
    assert set(ink.sound[2 * len(TONE) :]) == {0}
    assert len(ink.sound) >= 2 * 8000 * (3 + the_module.TRAIL)
    assert ink.commands == ['{"type":"close"}']
    assert heard.ended == ["hello there", "Bye."]
    assert heard.said == []


def test_it_keeps_time(wav: Path) -> None:
    began = time.monotonic()
    hear(wav, ink := Ink({}), speed=5)
    assert len(ink.sound) / 2 / 8000 == pytest.approx(3 + the_module.TRAIL, abs=0.11)
    assert 0.85 <= time.monotonic() - began < 3


def test_an_open_turn_gets_silence_until_it_ends(wav: Path) -> None:
    late = 2 * 8000 * 6  # the server's timeout, counted in sound
    heard = hear(wav, ink := Ink(turn("hello there", end=late)))
    assert heard.ended == ["hello there"]
    assert late <= len(ink.sound) < late + 2 * 8000
    assert heard.abandoned == []


def test_a_turn_that_never_ends_is_closed_with_its_words(wav: Path) -> None:
    heard = hear(wav, ink := Ink(turn("hello there", end=10**9)), speed=200)
    assert len(ink.sound) / 2 / 8000 == pytest.approx(3 + the_module.PATIENCE, abs=0.3)
    assert heard.abandoned == [("hello", EndReason.LOST)]


def test_a_server_that_does_not_close_is_left(wav: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def stays(socket: ServerConnection) -> None:
        async for _ in socket:
            pass

    monkeypatch.setattr(the_module, "FAREWELL", 0.1)
    assert hear(wav, stays).said == []


class Failing(io.BytesIO):
    """A file on a disk that fails after its first second."""

    def read(self, size: int | None = -1) -> bytes:
        if self.tell() > 16000:
            raise OSError(5, os.strerror(5))
        return super().read(size)


def test_a_file_that_fails_is_heard_as_far_as_it_goes(wav: Path) -> None:
    async def call() -> None:
        async with asyncio.timeout(20), serving(ink := Ink(turn("hello there", end=18_000))) as url:
            heard = Heard(url, wav)
            heard.listening.sound.close()
            heard.listening.sound = Sound(8000, 1, 3, wave.open(Failing(wav.read_bytes())))  # noqa: SIM115
            with pytest.raises(ListenError, match=rf"not be read to its end: {os.strerror(5)}$") as failed:
                await heard.run()
            assert failed.value.code == 2
            assert heard.ended == ["hello there"]
            assert ink.commands == ['{"type":"close"}']

    asyncio.run(call())


def test_garbage_is_shown_and_changes_nothing(wav: Path) -> None:
    heard = hear(wav, Ink({1: "no frame", **turn("hello there", start=2)}))
    assert heard.inputs[1][0] is None
    assert heard.ended == ["hello there"]


# -- trouble


def test_a_lost_connection_hands_over_the_words_and_the_rest_is_sent_on_the_next(wav: Path) -> None:
    first, second = Ink({**turn("hello there"), 3200: None}), Ink(turn("there you are", end=3000))
    heard = hear(wav, first, second)
    assert heard.abandoned == [("hello", EndReason.LOST)]
    assert heard.ended == ["there you are"]
    assert heard.said == ["the connection was lost; again in 0.5 s"]
    sound = struct.pack(f"<{len(TONE)}h", *TONE)
    again = sound.index(second.sound[:1600])
    assert len(first.sound) <= again < len(sound)  # what went out into the void is gone
    assert second.sound.startswith(sound[again:])


def test_the_pauses_grow_and_end(wav: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(the_module, "PAUSES", (0.1, 0.2))

    async def call() -> list[str]:
        async with serving(Ink({}), process_request=lambda socket, request: socket.respond(503, "no")) as url:
            heard = Heard(url, wav)
            with pytest.raises(ListenError, match="3 times in a row") as given_up:
                await heard.run()
            assert given_up.value.code == 1
            return heard.said

    assert [said.rpartition("again in ")[2] for said in asyncio.run(call())] == ["0.1 s", "0.2 s"]


def test_a_turn_that_starts_begins_the_pauses_anew(wav: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(the_module, "PAUSES", (0.1,))
    cuts = [Ink({1: {"type": "turn.start"}, 1601: None}) for _ in range(3)]
    heard = hear(wav, *cuts, Ink(turn("hello", end=1800)), speed=10)
    assert [said.rpartition("again in ")[2] for said in heard.said] == ["0.1 s"] * 3
    assert heard.ended == ["hello"]


def test_a_connection_lost_after_the_sound_ends_it(wav: Path) -> None:
    heard = hear(wav, Ink({**turn("hello there", end=10**9), 2 * len(TONE) + 4000: None}))
    assert heard.abandoned == [("hello", EndReason.LOST)]
    assert heard.said == ["the connection was lost, when all of the sound was sent"]


def test_a_server_that_closes_in_the_middle_is_called_again(wav: Path) -> None:
    async def closes(socket: ServerConnection) -> None:
        await socket.recv()

    heard = hear(wav, closes, Ink(turn("hello", end=3000)))
    assert heard.said == ["the server closed the connection; again in 0.5 s"]
    assert heard.ended == ["hello"]


def error(status: int, message: str = "Model not found") -> dict[str, Any]:
    return {"type": "error", "status_code": status, "title": "Bad request", "message": message}


@pytest.mark.parametrize(("status", "final"), [(400, True), (402, True), (429, False), (500, False)])
def test_an_error_instead_of_connected(status: int, final: bool, wav: Path) -> None:
    async def refuses(socket: ServerConnection) -> None:
        await socket.send(json.dumps(error(status)))

    if final:
        with pytest.raises(ListenError, match=rf"^the server refused: Bad request: Model not found \({status}\)$"):
            hear(wav, refuses, Ink({}))
    else:
        assert hear(wav, refuses, Ink(turn("hello", end=3000))).ended == ["hello"]


def test_the_reason_of_what_is_refused_again_and_again_is_said(wav: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(the_module, "PAUSES", (0.1,) * 5)

    async def refuses(socket: ServerConnection) -> None:
        await socket.send(json.dumps(error(429, "Too many connections")))

    with pytest.raises(ListenError, match=r"Too many connections \(429\), 6 times in a row"):
        hear(wav, refuses)


def test_an_error_that_the_server_goes_on_after_is_no_refusal(wav: Path) -> None:
    heard = hear(wav, Ink({1: error(400), **turn("hello there", start=2), 7001: None}), Ink({}))
    assert heard.ended == ["hello there"]
    assert len(heard.said) == 1


@pytest.mark.parametrize(
    ("status", "final", "said"),
    [
        (200, True, "HTTP 200"),
        (302, True, "HTTP 302"),
        (401, True, "is CARTESIA_API_KEY right?"),
        (402, True, "HTTP 402"),
        (429, False, ""),
        (503, False, ""),
    ],
)
def test_a_refused_upgrade(status: int, final: bool, said: str, wav: Path) -> None:
    times = 0

    def refuse(socket: ServerConnection, request: Request) -> Response | None:
        nonlocal times
        times += 1
        return socket.respond(status, "no") if times == 1 else None

    if final:
        with pytest.raises(ListenError) as refused:
            hear(wav, Ink({}), process_request=refuse)
        assert said in str(refused.value)
        assert times == 1
    else:
        heard = hear(wav, Ink(turn("hello", end=3000)), process_request=refuse)
        assert heard.said == [f"the server refused the connection: HTTP {status}; again in 0.5 s"]
        assert heard.ended == ["hello"]


def test_the_key_follows_no_redirect(wav: Path) -> None:
    async def call() -> list[str]:
        seen: list[str] = []

        def look(socket: ServerConnection, request: Request) -> None:
            seen.extend(request.headers.get_all("X-API-Key"))

        async with serving(Ink({}), process_request=look) as other:

            def redirect(socket: ServerConnection, request: Request) -> Response:
                response = socket.respond(302, "There.")
                response.headers["Location"] = other
                return response

            async with serving(Ink({}), process_request=redirect) as url:
                heard = Heard(url, wav)
                heard.listening.headers = {"X-API-Key": "secret"}
                with pytest.raises(ListenError, match="HTTP 302"):
                    await heard.run()
        return seen

    assert asyncio.run(call()) == []


def test_a_violation_of_its_policy_is_final(wav: Path) -> None:
    async def closes(socket: ServerConnection) -> None:
        await socket.close(1008, "Invalid turn thresholds")

    with pytest.raises(ListenError, match=r"^the server refused: Invalid turn thresholds$"):
        hear(wav, closes)


# -- the command


def listened(wav: Path, record: Path | None, *handlers: Handler) -> tuple[int, str, str]:
    """What the command does, in a loop of its own, as it has it; the server in another."""
    out, err = io.StringIO(), io.StringIO()

    async def call() -> int:
        async with serving(*handlers) as url:
            to, said = Console(file=out, width=120), Console(file=err, width=120)
            return await asyncio.to_thread(
                listen, str(wav), url, str(record) if record else None, speed=50, out=to, err=said
            )

    return asyncio.run(call()), out.getvalue(), err.getvalue()


def test_what_it_hears_is_shown_and_its_recording_replays(wav: Path, tmp_path: Path) -> None:
    record = tmp_path / "call.jsonl"
    cut = Ink({**turn("hello there"), 3200: None})
    code, out, err = listened(wav, record, cut, Ink(turn("there you are", end=3000)))
    assert code == 0
    assert "respond 1" in out
    assert "abandon: lost" in out
    assert "answered (server)" in out
    assert err.splitlines()[0].startswith("3.0 s of sound at 8000 Hz, to ws://127.0.0.1:")
    replayed = list(replay(record.read_bytes().splitlines()))
    assert [one.differs for one in replayed] == [None] * len(replayed)
    assert [one.event.transcript for one in replayed if isinstance(one.event, TurnEnd)] == ["there you are"]
    header = json.loads(record.read_text().splitlines()[0])
    assert header["labels"] == {"file": "hello.wav", "server": "127.0.0.1"}
    assert header["started"]


def test_a_refusal_is_a_sentence_and_an_exit_code(wav: Path) -> None:
    async def refuses(socket: ServerConnection) -> None:
        await socket.send(json.dumps(error(400)))

    assert listened(wav, None, Ink({}))[0] == 0
    code, _, err = listened(wav, None, refuses)
    assert code == 1
    assert err.splitlines()[-1] == "the server refused: Bad request: Model not found (400)"


def test_who_never_gets_through_has_nothing_to_sum_up(wav: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(the_module, "PAUSES", ())
    out, err = io.StringIO(), io.StringIO()
    consoles = Console(file=out, width=120), Console(file=err, width=200)
    assert listen(str(wav), "ws://127.0.0.1:1", None, out=consoles[0], err=consoles[1]) == 1
    assert "disconnected" in out.getvalue()
    assert err.getvalue().splitlines()[-1].startswith("no connection: ")


def test_stopped_in_mid_turn_it_keeps_the_words(wav: Path) -> None:
    async def call() -> None:
        async with serving(Ink(turn("hello there", end=10**9))) as url:
            heard = Heard(url, wav, speed=1)
            task = asyncio.create_task(heard.listening.run())
            while len(heard.inputs) < 3:
                await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert heard.abandoned == [("hello", EndReason.LOST)]

    asyncio.run(call())


def test_ctrl_c_ends_it_and_the_words_of_the_open_turn_are_kept(wav: Path, tmp_path: Path) -> None:
    record = tmp_path / "call.jsonl"
    run = "from inkturns.cli import main; main()"

    async def call() -> tuple[int, str]:
        async with serving(Ink(turn("hello there", end=10**9))) as url:
            args = [sys.executable, "-c", run, "listen", str(wav), "--url", url, "--record", str(record)]
            child = subprocess.Popen(args, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
            while "turn.update" not in (record.read_text() if record.exists() else ""):
                await asyncio.sleep(0.05)
            child.send_signal(signal.SIGINT)
            _, err = await asyncio.to_thread(child.communicate)
            return child.returncode, err

    code, err = asyncio.run(asyncio.wait_for(call(), 30))
    assert code == 130
    assert "Traceback" not in err
    *_, last = replay(record.read_bytes().splitlines())
    assert last.event == Disconnected("stopped")
    assert isinstance(last.actions[-1], Abandon)
    assert last.actions[-1].turn.transcript == "hello"


def test_without_websockets_it_says_what_to_install(wav: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "inkturns.listen", None)
    code, said = command(wav, "--url", "ws://127.0.0.1:1")
    assert code == 2
    assert 'pip install "inkturns[cartesia,testing]"' in said


def test_the_other_commands_do_without_it() -> None:
    session = Path(__file__).parent / "sessions/ink2-complete-turn.jsonl"
    without = "import sys; sys.modules.update(cartesia=None, websockets=None, hypothesis=None)"
    run = f"{without}; from inkturns.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", run, "replay", str(session)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    done = subprocess.run([sys.executable, "-c", run, "demo"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert "this needs cartesia: pip install" in done.stderr
