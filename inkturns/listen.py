"""`inkturns listen`: a WAV file to Ink 2 in real time, and what the machine makes of what comes back.

Rules of this file:
- The sound keeps time: no chunk goes out before it is due, for the server's clock is the sound that it is sent, and
  bursts are refused. After the file comes silence, else an open turn would stay open for ever.
- A lost connection is an input like any other: the machine closes the turn that was cut and hands over its words. What
  was not sent yet is sent on the next connection; the pauses before one grow.
- The key goes to Cartesia and nowhere else: no redirect is followed.
- Needs `websockets` (extra `cartesia`).
"""

import asyncio
import contextlib
import os
import struct
import wave
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import attrs
from rich.console import Console
from rich.text import Text
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI, WebSocketException
from websockets.uri import parse_uri

from inkturns.actions import Action
from inkturns.errors import DecodeError
from inkturns.events import Disconnected, Event, ServerError, TurnStart
from inkturns.hooks import Turns
from inkturns.recording import Recorder, Replayed
from inkturns.timeline import Summary, Timeline, clean
from inkturns.wire import close_command, connect_query, decode

__all__ = ["DIRECT", "LIVE", "ListenError", "Listening", "Sound", "listen"]

LIVE = "wss://api.cartesia.ai/stt/turns/websocket"
VERSION = "2026-08-14"
CHUNK = 0.1  # seconds of sound in a frame: the vendor's advice
PAUSES = (0.5, 1, 2, 4, 8)  # seconds before each attempt to connect again; a turn that starts begins them anew
TRAIL = 1.5  # seconds of silence after the file, at least: the server hears its last words late
PATIENCE = 15.0  # the same at most: more than the longest `end_timeout_ms`
FAREWELL = 10.0  # seconds that the server has for its last events, once it was asked to close
FASTEST = 384_000  # samples a second; a header that says more is broken
DIRECT: dict[str, Any] = {"proxy": None}


class ListenError(Exception):
    """What ends it, as one sentence for a person; `code` is the command's exit code."""

    def __init__(self, sentence: str, code: int = 2) -> None:
        super().__init__(sentence)
        self.code = code


@attrs.define(eq=False)
class Sound:
    """A WAV file's sound, as 16-bit mono, chunk by chunk."""

    rate: int
    channels: int
    seconds: float
    _file: wave.Wave_read
    failed: OSError | None = None  # why it cannot be read any further

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Self:
        """Raises ListenError for what is no WAV file of 16-bit samples in one or two channels."""
        name = os.fspath(path)
        how = f"; make one with: ffmpeg -i {name} -ac 1 -c:a pcm_s16le out.wav"
        try:
            file = wave.open(name, "rb")  # noqa: SIM115  the sound's, to its end
        except OSError as error:
            raise ListenError(f"{name}: {error.strerror}") from None
        except (wave.Error, EOFError, RuntimeError) as error:  # the last: of a chunk that ends beyond the file
            raise ListenError(
                f"{name}: no WAV file of 16-bit samples ({str(error) or 'it is cut short'}){how}"
            ) from None
        what = None
        if file.getsampwidth() != 2:
            what = f"its samples have {file.getsampwidth() * 8} bits, not 16"
        elif file.getnchannels() not in (1, 2):
            what = f"it has {file.getnchannels()} channels, not one or two"
        elif not 0 < file.getframerate() <= FASTEST:
            what = f"its sample rate is {file.getframerate()}"
        elif not file.getnframes():
            what, how = "it holds no sound", ""
        if what is not None:
            file.close()
            raise ListenError(f"{name}: {what}{how}")
        frames = file.getnframes()
        if size := Path(name).stat().st_size:  # a pipe has none; and of a file that was cut, the header tells lies
            frames = min(frames, size // (2 * file.getnchannels()))
        return cls(file.getframerate(), file.getnchannels(), frames / file.getframerate(), file)

    def chunk(self) -> bytes:
        """The next CHUNK of it, two channels mixed into one; empty at its end, also where it ends in a failure."""
        try:
            data = self._file.readframes(max(1, int(self.rate * CHUNK)))
        except OSError as error:
            self.failed, data = error, b""
        samples = struct.unpack(f"<{len(data) // 2}h", data[: len(data) // 2 * 2])
        if self.channels == 2:
            samples = tuple((left + right) // 2 for left, right in zip(samples[::2], samples[1::2], strict=False))
        return struct.pack(f"<{len(samples)}h", *samples)

    def silence(self) -> bytes:
        """A CHUNK of nothing."""
        return bytes(2 * max(1, int(self.rate * CHUNK)))

    def close(self) -> None:
        self._file.close()


class Connect(connect):
    """A connection to where it was sent, and not to where a redirect would send the key."""

    def process_redirect(self, exc: Exception) -> Exception:
        return exc


@attrs.define(eq=False)
class Listening:
    """One sound on its way to a server, over as many connections as it takes.

    show   is given every input with its actions
    say    is told, in a sentence, what becomes of the connection
    speed  how many seconds of sound go out in one: 1, but for a server that takes more
    """

    sound: Sound
    turns: Turns
    url: str
    headers: Mapping[str, str] = attrs.field(factory=dict)
    show: Callable[[Event | None, float, tuple[Action, ...]], object] = attrs.field(default=lambda *_: None)
    say: Callable[[str], object] = attrs.field(default=lambda _: None)
    speed: float = 1.0
    _chunk: bytes = b""  # the next to go out; none is left when the sound is over
    _closing: bool = False  # the server was asked to close
    _failures: int = 0
    _refusal: ServerError | None = None  # the last error on this connection

    async def run(self) -> None:
        """Returns when the sound is over and the server has said all. Raises ListenError where it refuses, or stays
        away."""
        self._chunk = self.sound.chunk()
        try:
            while why := await self._connection():
                if self._refusal is not None:
                    why += f": {_words(self._refusal)}"
                self._take(Disconnected(why))
                if not self._chunk:
                    self.say(f"{why}, when all of the sound was sent")
                    break
                if self._refusal is not None and _is_final(self._refusal.status_code):
                    raise ListenError(f"the server refused: {_words(self._refusal)}", 1)
                if self._failures == len(PAUSES):
                    raise ListenError(f"{why}, {self._failures + 1} times in a row", 1)
                pause = PAUSES[self._failures]
                self._failures += 1
                self.say(f"{why}; again in {pause} s")
                await asyncio.sleep(pause / self.speed)
            if self.sound.failed is not None:
                raise ListenError(f"the sound could not be read to its end: {self.sound.failed.strerror}")
        finally:
            if self.turns.machine.turn is not None:  # stopped in mid-turn: its words are not lost either
                self._take(Disconnected("stopped"))

    async def _connection(self) -> str:
        """One connection, from its opening to its end. Why it was lost; empty: it was closed as agreed."""
        self._refusal = None
        try:
            async with Connect(self.url, additional_headers=self.headers, close_timeout=1, **self._way()) as socket:
                sender = asyncio.create_task(self._send(socket))
                try:
                    async for frame in socket:
                        self._take(frame)
                finally:
                    sender.cancel()
                    await asyncio.wait([sender])
            return "" if self._closing else "the server closed the connection"
        except ConnectionClosed as error:
            if error.rcvd is not None and error.rcvd.code == 1008:  # a policy violation: the next would be one too
                raise ListenError(f"the server refused: {error.rcvd.reason or 'it does not say why'}", 1) from None
            return "the connection was lost"
        except InvalidStatus as error:
            status = error.response.status_code
            if _is_final(status):
                hint = "; is CARTESIA_API_KEY right?" if status in (401, 403) else ""
                raise ListenError(f"the server refused the connection: HTTP {status}{hint}", 1) from None
            return f"the server refused the connection: HTTP {status}"
        except (OSError, InvalidHandshake) as error:
            return f"no connection: {error or type(error).__name__}"
        except (WebSocketException, UnicodeError, ImportError) as error:  # a host, or a proxy, that cannot be
            raise ListenError(f"no connection: {error}") from None

    def _way(self) -> dict[str, Any]:
        """What is on this machine is not reached through a proxy."""
        host = parse_uri(self.url).host
        return DIRECT if host in ("localhost", "::1") or host.startswith("127.") else {}

    async def _send(self, socket: ClientConnection) -> None:
        """The sound, then silence while a turn is open, then the wish to close; each when it is due."""
        now = asyncio.get_running_loop().time
        due = now()
        with contextlib.suppress(ConnectionClosed):  # whoever receives hears of it, and says so
            while chunk := self._chunk:
                await socket.send(chunk)
                self._chunk = self.sound.chunk()
                due = await self._pace(due, chunk)
            silence, quiet = self.sound.silence(), 0.0
            while quiet < (TRAIL if self.turns.machine.turn is None else PATIENCE):
                await socket.send(silence)
                quiet += CHUNK
                due = await self._pace(due, silence)
            self._closing = True
            await socket.send(close_command())
            await asyncio.sleep(FAREWELL)
            await socket.close()

    async def _pace(self, due: float, chunk: bytes) -> float:
        """Waits until the next chunk is due. Time that was lost stays lost: catching up would be a burst."""
        now = asyncio.get_running_loop().time
        due += len(chunk) / 2 / self.sound.rate / self.speed
        await asyncio.sleep(due - now())
        return max(due, now() - CHUNK)

    def _take(self, item: str | bytes | Disconnected) -> None:
        now = asyncio.get_running_loop().time()
        try:
            event: Event | None = item if isinstance(item, Disconnected) else decode(item)
        except DecodeError:
            event = None
        if isinstance(event, TurnStart):
            self._failures = 0
        if isinstance(event, ServerError):
            self._refusal = event
        elif not isinstance(event, Disconnected):
            self._refusal = None  # it went on after that
        self.show(event, now, self.turns.feed(item, now))


def _is_final(status: int | None) -> bool:
    """Of a 429, the limit of connections, and of a 5xx there may be an end; of what else is refused there is none, nor
    of a redirect."""
    return status is not None and status < 500 and status not in (408, 429)


def _words(error: ServerError) -> str:
    said = ": ".join(part for part in (error.title, error.message) if part)
    return f"{said or 'no reason given'} ({error.status_code})"


def listen(file: str, url: str | None, record: str | None, *, speed: float = 1.0, out: Console, err: Console) -> int:
    """What the command does; its exit code."""

    def say(sentence: str) -> None:
        err.print(Text(clean(sentence)), soft_wrap=True)

    def show(event: Event | None, now: float, actions: tuple[Action, ...]) -> None:
        machine = turns.machine
        one = Replayed(next(lines), now, event, actions, machine.turn, machine.phase, None, None, None)
        if one.line == 1:
            timeline.begin(Path(file).name, one)
        timeline.show(one, summary.add(Path(file).name, one))

    lines, timeline, summary = count(1), Timeline(out), Summary()
    recorder: Recorder | None = None
    try:
        sound = Sound.open(file)
        with contextlib.closing(sound):
            address, headers = _address(url, sound.rate)
            if record is not None:
                labels = {"file": Path(file).name, "server": urlsplit(address).hostname or ""}
                recorder = Recorder(record, started=datetime.now(UTC).isoformat(timespec="seconds"), labels=labels)
            turns = Turns(recorder=recorder)
            say(f"{sound.seconds:.1f} s of sound at {sound.rate} Hz, to {address.partition('?')[0]}")
            try:
                asyncio.run(Listening(sound, turns, address, headers, show, say, speed).run())
            finally:
                summary.close()
                summary.show(out)
    except ListenError as error:
        say(str(error))
        return error.code
    finally:
        if recorder is not None:
            recorder.close()
    return 0


def _address(url: str | None, rate: int) -> tuple[str, dict[str, str]]:
    """The full address, and the headers; the key is for Cartesia alone."""
    key = os.environ.get("CARTESIA_API_KEY", "").strip()
    if url is None and not key:
        raise ListenError(
            "the live service needs a key: make one at https://play.cartesia.ai/keys and set it, "
            "export CARTESIA_API_KEY=…; or name another server with --url"
        )
    try:
        uri = parse_uri(url or LIVE)
    except (InvalidURI, ValueError):
        raise ListenError(f"{url}: no address of a WebSocket, ws://host:port/path") from None
    ours = uri.secure and (uri.host == "cartesia.ai" or uri.host.endswith(".cartesia.ai"))
    joint = "&" if uri.query else "?"
    return f"{url or LIVE}{joint}{connect_query(sample_rate=rate, version=VERSION)}", {"X-API-Key": key} if ours else {}
