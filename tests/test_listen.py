"""`inkturns listen`: what goes out is the file's sound, in time; what comes back is shown, recorded and not lost."""

import asyncio
import contextlib
import io
import json
import os
import signal
import struct
import subprocess
import sys
import threading
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

from inkturns.actions import Abandon, Action, EndReason
from inkturns.cli import listen as the_module
from inkturns.cli.listen import ListenError, Listening, ink_for, listen, settings_of
from inkturns.cli.main import app
from inkturns.cli.wav import Wav, WavError
from inkturns.events import Disconnected, Event, TurnEnd
from inkturns.ink import LIVE, Ink
from inkturns.ink.sound import silence
from inkturns.replay import replay
from inkturns.settings import PATIENT, TurnSettings
from inkturns.turns import Turns

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


class Far:
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

    def __init__(self, url: str, path: Path, *, speed: float = 20, **options: Any) -> None:
        self.inputs: list[tuple[Event | None, tuple[Action, ...]]] = []
        show = lambda event, now, actions: self.inputs.append((event, actions))  # noqa: E731
        wav = Wav.open(str(path))
        self.ink = Ink(url=url, encoding=wav.encoding, sample_rate=wav.rate, **options)
        self.listening = Listening(wav, Turns(), self.ink, show, speed)

    @property
    def abandoned(self) -> list[tuple[str, EndReason | None]]:
        actions = [action for _, actions in self.inputs for action in actions]
        return [(action.turn.transcript, action.turn.end) for action in actions if isinstance(action, Abandon)]

    @property
    def ended(self) -> list[str]:
        return [event.transcript for event, _ in self.inputs if isinstance(event, TurnEnd)]

    async def run(self) -> "Heard":
        with contextlib.closing(self.listening.wav):
            await self.listening.run()
        return self


def hear(path: Path, *handlers: Handler, speed: float = 20, process_request: Any = None, **options: Any) -> Heard:
    async def call() -> Heard:
        async with serving(*handlers, process_request=process_request) as url:
            return await Heard(url, path, speed=speed, **options).run()

    return asyncio.run(call())


def command(*args: object) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["listen", *map(str, args)], env={"COLUMNS": "500"})
    return done.exit_code, done.stderr


# -- the file

WIDTHS = {"pcm_s16le": 2, "pcm_s32le": 4, "pcm_f16le": 2, "pcm_f32le": 4, "pcm_mulaw": 1, "pcm_alaw": 1}
TAGS = {"pcm_s16le": 1, "pcm_s32le": 1, "pcm_f16le": 3, "pcm_f32le": 3, "pcm_mulaw": 7, "pcm_alaw": 6}


def riff(
    encoding: str,
    data: bytes,
    *,
    rate: int = 8000,
    channels: int = 1,
    size: int | None = None,
    extensible: bool = False,
    before: bytes = b"",
) -> bytes:
    """A WAV file as other programs write it."""
    width = WIDTHS[encoding]
    form = struct.pack("<HIIHH", channels, rate, rate * width * channels, width * channels, width * 8)
    if extensible:
        form = struct.pack("<H", 0xFFFE) + form + struct.pack("<HHIH", 22, width * 8, 0, TAGS[encoding]) + bytes(14)
    else:
        form = struct.pack("<H", TAGS[encoding]) + form
    head = b"RIFF" + bytes(4) + b"WAVE" + before + b"fmt " + struct.pack("<I", len(form)) + form
    return head + b"data" + struct.pack("<I", len(data) if size is None else size) + data


def opened(path: Path, data: bytes) -> Wav:
    path.write_bytes(data)
    return Wav.open(str(path))


def all_of(wav: Wav) -> bytes:
    with contextlib.closing(wav):
        return b"".join(iter(wav.chunk, b""))


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 44100, 48000, 240_000])
def test_the_sound_is_the_files_own_at_any_rate(rate: int, tmp_path: Path) -> None:
    wav = Wav.open(str(written(tmp_path / "a.wav", TONE, rate=rate)))
    assert (wav.encoding, wav.rate, wav.seconds) == ("pcm_s16le", rate, len(TONE) / rate)
    assert len(wav.chunk()) == 2 * (rate // 10)
    wav.close()
    assert struct.unpack(f"<{len(TONE)}h", all_of(Wav.open(str(tmp_path / "a.wav")))) == tuple(TONE)


@pytest.mark.parametrize("extensible", [False, True])
@pytest.mark.parametrize("encoding", WIDTHS)
def test_a_file_of_any_encoding_that_ink_takes_is_sent_as_it_is(
    encoding: str, extensible: bool, tmp_path: Path
) -> None:
    data = bytes(range(256)) * 32
    more = b"LIST" + struct.pack("<I", 3) + b"odd\0"
    wav = opened(tmp_path / "a.wav", riff(encoding, data, extensible=extensible, before=more))
    assert (wav.encoding, wav.seconds) == (encoding, len(data) / WIDTHS[encoding] / 8000)
    assert all_of(wav) == data


@pytest.mark.parametrize(
    ("encoding", "kind", "samples", "mixed"),
    [
        ("pcm_s16le", "h", (100, 300, -32768, -32768, 32767, 32767, 5, -5), (200, -32768, 32767, 0)),
        ("pcm_s32le", "i", (100, 300, -(2**31), -(2**31)), (200, -(2**31))),
        ("pcm_f16le", "e", (0.5, 0.25, -1, 1), (0.375, 0)),
        ("pcm_f32le", "f", (0.5, 0.25, -1, 1), (0.375, 0)),
    ],
)
def test_two_channels_are_mixed_into_one(
    encoding: str, kind: str, samples: tuple[float, ...], mixed: tuple[float, ...], tmp_path: Path
) -> None:
    wav = opened(tmp_path / "a.wav", riff(encoding, struct.pack(f"<{len(samples)}{kind}", *samples), channels=2))
    assert struct.unpack(f"<{len(mixed)}{kind}", all_of(wav)) == mixed


@pytest.mark.parametrize("cut", [4000, 4001])
def test_a_file_that_was_cut_short_is_heard_as_far_as_it_goes(cut: int, tmp_path: Path) -> None:
    path = written(tmp_path / "a.wav", TONE)
    wav = opened(path, path.read_bytes()[:-cut])
    assert wav.seconds == pytest.approx(3 - 2000 / 8000, abs=0.001)
    assert len(all_of(wav)) == 2 * len(TONE) - 2 * ((cut + 1) // 2)


def test_what_stands_behind_the_sound_is_not_sent(wav: Path) -> None:
    path = wav.with_name("more.wav")
    assert len(all_of(opened(path, wav.read_bytes() + b"LIST and the names of the singers"))) == 2 * len(TONE)


@pytest.mark.parametrize(("size", "seconds"), [(None, 3), (0xFFFFFFFF, None)])
def test_a_pipe_is_heard_too(size: int | None, seconds: float | None, tmp_path: Path) -> None:
    os.mkfifo(pipe := tmp_path / "pipe.wav")
    data = struct.pack(f"<{len(TONE)}h", *TONE)
    with ThreadPoolExecutor() as other:
        other.submit(pipe.write_bytes, riff("pcm_s16le", data, size=size))
        wav = Wav.open(str(pipe))
        assert wav.seconds == seconds
        assert all_of(wav) == data


@pytest.mark.parametrize(
    ("made", "why"),
    [
        (lambda path: written(path, [1, 2], width=1), "its samples are of format 1 with 8 bits"),
        (lambda path: written(path, [1, 2], width=3), "its samples are of format 1 with 24 bits"),
        (lambda path: written(path, [1, 2, 3, 4, 5, 6], channels=3), "it has 3 channels of pcm_s16le"),
        (lambda path: path.write_bytes(riff("pcm_mulaw", b"some", channels=2)), "it has 2 channels of pcm_mulaw"),
        (lambda path: path.write_bytes(riff("pcm_mulaw", b"some", channels=0)), "it has 0 channels of pcm_mulaw"),
        (lambda path: written(path, []), "it holds no sound"),
        (lambda path: path.write_text("ID3 an mp3, say, with words enough"), "it does not begin with RIFF and WAVE"),
        (lambda path: path.write_bytes(b""), "it is cut short"),
        (lambda path: path.write_bytes(riff("pcm_s16le", b"")[:30]), "it is cut short"),
        (lambda path: path.write_bytes(riff("pcm_s16le", b"")[:12] + b"data" + bytes(8)), "does not say its format"),
        (
            lambda path: path.write_bytes(riff("pcm_s16le", b"")[:12] + b"fmt \x02\0\0\0xxdata" + bytes(4)),
            "unpack",
        ),
        (lambda path: patched(path, 36, b"LIST\xff\xff\xff\xff"), "a part of 4294967295 bytes stands before the sound"),
        (lambda path: patched(path, 24, struct.pack("<I", 384_001)), "its sample rate is 384001"),
        (lambda path: patched(path, 24, bytes(4)), "its sample rate is 0"),
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


def test_a_file_that_fails_in_its_header_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stdin:
        buffer = Failing(b"RIFF", after=0)

    monkeypatch.setattr(sys, "stdin", Stdin)
    with pytest.raises(WavError, match=f"^-: {os.strerror(5)}$"):
        Wav.open("-")


def test_another_format_is_told_how_to_become_one_of_these(wav: Path) -> None:
    with pytest.raises(WavError, match="ffmpeg"):
        Wav.open(str(patched(wav, 20, struct.pack("<H", 2))))


# -- where it goes, and how


def test_without_a_key_it_says_how_to_get_one(wav: Path) -> None:
    code, said = command(wav)
    assert code == 2
    assert "export CARTESIA_API_KEY=" in said
    assert "--url" in said


def client(
    wav: Path, url: str | None = None, settings: TurnSettings | None = None, keyterms: Sequence[str] = ()
) -> Ink:
    with contextlib.closing(Wav.open(str(wav))) as sound:
        return ink_for(sound, url, settings, keyterms)


def test_a_key_is_what_is_not_blank_of_it(wav: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CARTESIA_API_KEY", " secret\r\n")
    assert client(wav).api_key == "secret"
    monkeypatch.setenv("CARTESIA_API_KEY", " \n")
    with pytest.raises(ListenError, match="needs a key"):
        client(wav)
    monkeypatch.setenv("CARTESIA_API_KEY", "se cret")
    with pytest.raises(ListenError, match="without spaces") as wrong:
        client(wav)
    assert "se cret" not in str(wrong.value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (None, True),
        (LIVE, True),
        ("wss://cartesia.ai/", True),
        ("ws://api.cartesia.ai/stt/turns/websocket", False),
        ("wss://api.cartesia.ai.example.com/", False),
        ("wss://notcartesia.ai/", False),
        ("wss://example.com/?at=cartesia.ai", False),
        ("wss://cartesia.ai:me@example.com/", False),
    ],
)
def test_the_key_goes_to_cartesia_alone(
    url: str | None, shown: bool, wav: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CARTESIA_API_KEY", "secret")
    assert client(wav, url).api_key == ("secret" if shown else None)


def test_the_client_takes_the_files_encoding_and_what_was_asked_for(wav: Path) -> None:
    ink = client(wav, "ws://127.0.0.1:1", PATIENT, ["Ink"])
    assert (ink.encoding, ink.sample_rate, ink.settings, ink.keyterms) == ("pcm_s16le", 8000, PATIENT, ["Ink"])


@pytest.mark.parametrize(
    "url",
    [
        *("http://127.0.0.1:1/", "nonsense", "ws://127.0.0.1:port/", "ws://", "ws://a..b/"),
        *("ws://127.0.0.1:1/#there", "ws://me@127.0.0.1:1/", "ws://\N{LATIN SMALL LETTER U WITH DIAERESIS}..b/"),
    ],
)
def test_an_address_that_is_none_is_refused(url: str, wav: Path) -> None:
    code, said = command(wav, "--url", url)
    assert code == 2
    assert said.startswith("--url must be the address of a WebSocket")


@pytest.mark.parametrize(
    ("text", "settings"),
    [
        (None, None),
        ("patient", PATIENT),
        ("end_threshold=0.4", TurnSettings(end_threshold=0.4)),
        ("end_threshold=0.4,end_timeout_ms=3000", TurnSettings(end_threshold=0.4, end_timeout_ms=3000)),
    ],
)
def test_settings(text: str | None, settings: TurnSettings | None) -> None:
    assert settings_of(text) == settings


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("hasty", "there is no 'hasty'; there is balanced, responsive, patient, start_threshold"),
        ("end_threshold=low", "could not convert string to float: 'low'"),
        ("end_threshold=0.9", "end_threshold"),
        ("end_timeout_ms=5.5", "'5.5'"),
        ("", "there is no ''"),
    ],
)
def test_settings_that_are_none(text: str, why: str, wav: Path) -> None:
    code, said = command(wav, "--url", "ws://127.0.0.1:1", "--settings", text)
    assert code == 2
    assert said.startswith(f"--settings {text}: ")
    assert why in said


def test_too_many_keyterms_are_refused(wav: Path) -> None:
    code, said = command(wav, "--url", "ws://127.0.0.1:1", *["--keyterm", "Ink"] * 101)
    assert (code, said.count("\n")) == (2, 1)
    assert "keyterms must be at most 100, got 101" in said


def test_a_way_that_is_none_is_tried_once(wav: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(variable, "nonsense")
    monkeypatch.delenv("no_proxy", raising=False)
    record = wav.with_suffix(".jsonl")
    code, said = command(wav, "--url", "ws://me:secret@example.invalid/?token=secret", "--record", record)
    assert code == 2
    assert "secret" not in record.read_text()
    assert said.splitlines()[1].startswith("no connection to ws://example.invalid:80/: the proxy's address is wrong")
    assert "secret" not in said


# -- the session


def test_it_sends_the_sound_then_silence_then_close(wav: Path) -> None:
    ink = Far(turn("hello there"), at_close=[{"type": "turn.start"}, {"type": "turn.end", "transcript": "Bye."}])
    heard = hear(wav, ink)
    assert ink.sound[: 2 * len(TONE)] == struct.pack(f"<{len(TONE)}h", *TONE)
    assert set(ink.sound[2 * len(TONE) :]) == {0}
    assert len(ink.sound) >= 2 * 8000 * (3 + the_module.TRAIL)
    assert ink.commands == ['{"type":"close"}']
    assert heard.ended == ["hello there", "Bye."]


def test_the_silence_is_that_of_the_encoding(tmp_path: Path) -> None:
    (path := tmp_path / "a.wav").write_bytes(riff("pcm_mulaw", b"sound" * 400))
    hear(path, ink := Far({}))
    assert ink.sound == b"sound" * 400 + silence("pcm_mulaw", len(ink.sound) - 2000)


def test_it_keeps_time(wav: Path) -> None:
    began = time.monotonic()
    hear(wav, ink := Far({}), speed=5)
    assert len(ink.sound) / 2 / 8000 == pytest.approx(3 + the_module.TRAIL, abs=0.11)
    assert 0.85 <= time.monotonic() - began < 3


def test_an_open_turn_gets_silence_until_it_ends(wav: Path) -> None:
    late = 2 * 8000 * 6  # the server's timeout, counted in sound
    heard = hear(wav, ink := Far(turn("hello there", end=late)))
    assert heard.ended == ["hello there"]
    assert late <= len(ink.sound) < late + 2 * 8000
    assert heard.abandoned == []


def test_a_turn_that_never_ends_is_closed_with_its_words(wav: Path) -> None:
    heard = hear(wav, ink := Far(turn("hello there", end=10**9)), speed=200)
    assert len(ink.sound) / 2 / 8000 == pytest.approx(3 + the_module.PATIENCE, abs=0.3)
    assert heard.abandoned == [("hello", EndReason.LOST)]


class Failing(io.BytesIO):
    """A file on a disk that fails after so many bytes."""

    def __init__(self, data: bytes, after: int) -> None:
        super().__init__(data)
        self.after = after

    def read(self, size: int | None = -1) -> bytes:
        if self.tell() >= self.after:
            raise OSError(5, os.strerror(5))
        return super().read(size)


def test_a_file_that_fails_is_heard_as_far_as_it_goes(wav: Path) -> None:
    async def call() -> None:
        async with asyncio.timeout(20), serving(ink := Far(turn("hello there", end=18_000))) as url:
            heard = Heard(url, wav)
            heard.listening.wav.close()
            heard.listening.wav = Wav("pcm_s16le", 8000, 1, 3, Failing(wav.read_bytes()[44:], after=16000), 48_000)
            with pytest.raises(ListenError, match=rf"not be read to its end: {os.strerror(5)}$") as failed:
                await heard.run()
            assert failed.value.code == 2
            assert heard.ended == ["hello there"]
            assert ink.commands == ['{"type":"close"}']

    asyncio.run(call())


def test_garbage_is_shown_and_changes_nothing(wav: Path) -> None:
    heard = hear(wav, Far({1: "no frame", **turn("hello there", start=2)}))
    assert heard.inputs[1][0] is None
    assert heard.ended == ["hello there"]


def test_a_file_that_gives_nothing_any_more_is_left(wav: Path) -> None:
    class Stuck(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            assert let_go.wait(20)
            return b""

    async def call() -> None:
        async with serving(Far({})) as url:
            heard = Heard(url, wav)
            heard.listening.wav.close()
            heard.listening.wav = Wav("pcm_s16le", 8000, 1, None, Stuck(), float("inf"))
            task = asyncio.create_task(heard.run())
            while not heard.inputs:
                await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            let_go.set()
            while any(thread.daemon and thread.name.startswith("wav") for thread in threading.enumerate()):
                await asyncio.sleep(0.01)
            await asyncio.sleep(0)

    let_go = threading.Event()
    asyncio.run(call())


# -- trouble


def test_a_lost_connection_hands_over_the_words_and_the_rest_is_sent_on_the_next(wav: Path) -> None:
    first, second = Far({**turn("hello there"), 3200: None}), Far(turn("there you are", end=3000))
    heard = hear(wav, first, second)
    assert heard.abandoned == [("hello", EndReason.LOST)]
    assert heard.ended == ["there you are"]
    sound = struct.pack(f"<{len(TONE)}h", *TONE)
    again = sound.index(second.sound[:1600])
    assert len(first.sound) <= again < len(first.sound) + 3 * 1600  # what was under way is gone
    assert second.sound.startswith(sound[again:])


def test_a_file_waits_for_the_connection(wav: Path) -> None:
    """Nobody speaks it, so an outage costs nothing of it, however long that is."""
    times = 0

    def busy(socket: ServerConnection, request: Request) -> Response | None:
        nonlocal times
        times += 1
        if times > 1:
            return None
        response = socket.respond(429, "Busy.\n")
        response.headers["Retry-After"] = "1"  # 20 s of sound at this speed
        return response

    heard = hear(wav, ink := Far(turn("hello there")), process_request=busy)
    assert ink.sound.startswith(struct.pack(f"<{len(TONE)}h", *TONE))
    assert heard.ended == ["hello there"]
    assert (heard.ink.stats.refusals, heard.ink.stats.dropped) == (1, 0)


def test_a_server_that_stays_away_is_given_up(wav: Path) -> None:
    with pytest.raises(ListenError, match=r"^no connection to Ink 2 for 0.5 s: .*127.0.0.1:1:") as given_up:
        asyncio.run(Heard("ws://127.0.0.1:1", wav, give_up=0.5).run())
    assert given_up.value.code == 1


def error(status: int, message: str = "Model not found") -> dict[str, Any]:
    return {"type": "error", "status_code": status, "title": "Bad request", "message": message}


@pytest.mark.parametrize(("status", "hint"), [(401, "; is CARTESIA_API_KEY right?"), (402, ""), (302, "")])
def test_a_refusal_is_final(status: int, hint: str, wav: Path) -> None:
    def refuse(socket: ServerConnection, request: Request) -> Response:
        return socket.respond(status, "no\n")

    with pytest.raises(ListenError, match=rf"^Ink 2 refused: HTTP {status}: no") as refused:
        hear(wav, Far({}), process_request=refuse)
    assert str(refused.value).endswith(hint or "no")
    assert refused.value.code == 1


def test_the_key_follows_no_redirect(wav: Path) -> None:
    async def call() -> list[str]:
        seen: list[str] = []

        def look(socket: ServerConnection, request: Request) -> None:
            seen.extend(request.headers.get_all("X-API-Key"))

        async with serving(Far({}), process_request=look) as other:

            def redirect(socket: ServerConnection, request: Request) -> Response:
                response = socket.respond(302, "There.")
                response.headers["Location"] = other
                return response

            async with serving(Far({}), process_request=redirect) as url:
                with pytest.raises(ListenError, match="HTTP 302"):
                    await Heard(url, wav, api_key="secret").run()
        return seen

    assert asyncio.run(call()) == []


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
    cut = Far({**turn("hello there"), 3200: None})
    code, out, err = listened(wav, record, cut, Far(turn("there you are", end=3000)))
    assert code == 0
    assert "respond 1" in out
    assert "abandon: lost" in out
    assert "answered (server)" in out
    first, *rest = err.splitlines()
    assert first.startswith("3.0 s of sound at 8000 Hz (pcm_s16le), to ws://127.0.0.1:")
    assert rest == ["the connection was lost; connecting again"]
    replayed = list(replay(record.read_bytes().splitlines()))
    assert [one.differs for one in replayed] == [None] * len(replayed)
    assert [one.event.transcript for one in replayed if isinstance(one.event, TurnEnd)] == ["there you are"]
    header = json.loads(record.read_text().splitlines()[0])
    assert header["labels"] == {"file": "hello.wav", "server": "127.0.0.1"}
    assert header["started"]


def test_a_refusal_is_a_sentence_and_an_exit_code(wav: Path) -> None:
    async def refuses(socket: ServerConnection) -> None:
        await socket.send(json.dumps(error(400)))

    assert listened(wav, None, Far({}))[0] == 0
    code, _, err = listened(wav, None, refuses)
    assert code == 1
    assert err.splitlines()[-1] == "Ink 2 refused: Bad request: Model not found (400)"


def test_who_never_gets_through_has_nothing_to_sum_up(wav: Path) -> None:
    async def refuses(socket: ServerConnection) -> None:
        await socket.close(1008, "Invalid\x1b[2J")

    code, out, err = listened(wav, None, refuses)
    assert (code, out) == (1, "")
    assert err.splitlines()[-1] == "Ink 2 refused: Invalid\N{REPLACEMENT CHARACTER}[2J"


def test_f57_no_password_and_no_key_is_printed(wav: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CARTESIA_API_KEY", "secret")

    async def call() -> tuple[int, str, str]:
        async with serving(Far({**turn("hello there"), 3200: None}), Far({})) as url:
            out, err = io.StringIO(), io.StringIO()
            address = url.replace("ws://", "ws://me:secret@") + "?token=secret"
            consoles = Console(file=out, width=120), Console(file=err, width=120)
            record = str(wav.with_suffix(".jsonl"))
            code = await asyncio.to_thread(
                listen, str(wav), address, record, speed=50, out=consoles[0], err=consoles[1]
            )
            return code, out.getvalue(), err.getvalue()

    code, out, err = asyncio.run(call())
    assert code == 0
    assert "secret" not in out + err + wav.with_suffix(".jsonl").read_text()


def test_standard_input_is_heard_too(wav: Path) -> None:
    run = "from inkturns.cli.main import main; main()"

    async def call() -> tuple[int, str, bytes]:
        async with serving(ink := Far(turn("hello there"))) as url:
            args = [
                sys.executable,
                "-c",
                run,
                "listen",
                "-",
                "--url",
                url,
                "--settings",
                "patient",
                "--keyterm",
                "Ink 2",
            ]
            pipe = await asyncio.create_subprocess_exec(
                *args, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
            out, _ = await asyncio.wait_for(pipe.communicate(wav.read_bytes()[: 44 + 16000]), 30)
            assert pipe.returncode is not None
            assert ink.request is not None
            assert "keyterm=Ink%202" in ink.request.path
            assert "turn_end_timeout_ms=8000" in ink.request.path
            return pipe.returncode, out.decode(), ink.sound

    code, out, sound = asyncio.run(call())
    assert code == 0
    assert "standard input" in out
    assert sound[:16000] == wav.read_bytes()[44:16044]


def test_standard_input_that_says_nothing_does_not_hold_the_command(wav: Path) -> None:
    run = "from inkturns.cli.main import main; main()"

    async def call() -> int:
        async with serving(ink := Far({})) as url:
            args = [sys.executable, "-c", run, "listen", "-", "--url", url]
            with subprocess.Popen(
                args, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            ) as child:
                assert child.stdin is not None
                child.stdin.write(wav.read_bytes()[:4000])
                child.stdin.flush()
                while not ink.sound:
                    await asyncio.sleep(0.05)
                child.send_signal(signal.SIGINT)
                return await asyncio.to_thread(child.wait, 20)

    assert asyncio.run(asyncio.wait_for(call(), 30)) == 130


def test_stopped_in_mid_turn_it_keeps_the_words(wav: Path) -> None:
    async def call() -> None:
        async with serving(Far(turn("hello there", end=10**9))) as url:
            heard = Heard(url, wav, speed=1)
            task = asyncio.create_task(heard.run())
            while len(heard.inputs) < 3:
                await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert heard.abandoned == [("hello", EndReason.LOST)]

    asyncio.run(call())


def test_ctrl_c_ends_it_and_the_words_of_the_open_turn_are_kept(wav: Path, tmp_path: Path) -> None:
    record = tmp_path / "call.jsonl"
    run = "from inkturns.cli.main import main; main()"

    async def call() -> tuple[int, str]:
        async with serving(Far(turn("hello there", end=10**9))) as url:
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
    monkeypatch.setitem(sys.modules, "inkturns.cli.listen", None)
    code, said = command(wav, "--url", "ws://127.0.0.1:1")
    assert code == 2
    assert 'pip install "inkturns[cartesia,testing]"' in said


def test_the_other_commands_do_without_it() -> None:
    session = Path(__file__).parent / "sessions/ink2-complete-turn.jsonl"
    without = "import sys; sys.modules.update(cartesia=None, websockets=None, hypothesis=None)"
    run = f"{without}; from inkturns.cli.main import main; main()"
    done = subprocess.run([sys.executable, "-c", run, "replay", str(session)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    done = subprocess.run([sys.executable, "-c", run, "demo"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert "needs cartesia: pip install" in done.stderr
