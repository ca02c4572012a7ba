"""`inkturns listen`: a WAV file to Ink 2 in real time, and what the machine makes of what comes back.

Rules of this file:
- The sound keeps time, for the server's clock is the sound that it gets. After the file comes silence, since an open
  turn ends by silence only.
- A file waits in an outage: nobody speaks it, so nothing of it has to be dropped.
- The key goes to Cartesia only. No sentence has the key, or an address's user or password (F57).
- Needs `websockets` (extra `cartesia`).
"""

import asyncio
import contextlib
import logging
import os
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from itertools import count
from pathlib import Path
from urllib.parse import urlsplit

import attrs
from rich.console import Console
from rich.text import Text

from inkturns.actions import Action
from inkturns.cli.timeline import Summary, Timeline
from inkturns.cli.wav import CHUNK, Wav, WavError
from inkturns.errors import DecodeError, OutageError, RefusedError
from inkturns.events import Disconnected, Event
from inkturns.ink import LIVE, Ink
from inkturns.ink.opening import check_url, where
from inkturns.ink.sound import silence
from inkturns.printable import printable
from inkturns.recording import Recorder
from inkturns.replay import Replayed
from inkturns.settings import BALANCED, PATIENT, RESPONSIVE, TurnSettings
from inkturns.turns import Turns
from inkturns.wire import decode

__all__ = ["ListenError", "Listening", "ink_for", "listen", "settings_of"]

TRAIL = 1.5  # seconds of silence after the file, at least: the server hears its last words late
PATIENCE = 15.0  # the same at most: more than the longest `end_timeout_ms`
PROFILES = {"balanced": BALANCED, "responsive": RESPONSIVE, "patient": PATIENT}


class ListenError(Exception):
    """What ends it, as one sentence for a person; `code` is the command's exit code."""

    def __init__(self, sentence: str, code: int = 2) -> None:
        super().__init__(sentence)
        self.code = code


@attrs.define(eq=False)
class Listening:
    """A file on its way to a server.

    show   is given every input with its actions
    speed  how many seconds of sound go out in one: 1, but for a server that takes more
    """

    wav: Wav
    turns: Turns
    ink: Ink
    show: Callable[[Event | None, float, tuple[Action, ...]], object] = attrs.field(default=lambda *_: None)
    speed: float = 1.0

    async def run(self) -> None:
        """Returns when the sound is over and the server has said all. Raises ListenError where it refuses, or stays
        away."""
        try:
            async with self.ink.connect(self._sound()) as frames:
                async for frame in frames:
                    self._take(frame)
        except RefusedError as error:
            hint = "; is CARTESIA_API_KEY right?" if error.status in (401, 403) else ""
            raise ListenError(f"{error}{hint}", 2 if error.status is None else 1) from None
        except OutageError as error:
            raise ListenError(str(error), 1) from None
        finally:
            if self.turns.machine.turn is not None:  # its words are not lost
                self._take(Disconnected("stopped"))
        if self.wav.failed is not None:
            raise ListenError(f"the sound could not be read to its end: {self.wav.failed.strerror}")

    async def _sound(self) -> AsyncIterator[bytes]:
        """The file, then silence for as long as a turn is open; each chunk when it is due."""
        due = _now()
        while chunk := await _in_thread(self.wav.chunk):
            while not self.ink.connected:
                await asyncio.sleep(CHUNK / self.speed)
            yield chunk
            due = await self._pace(due)
        quiet, seconds = silence(self.wav.encoding, max(1, int(self.wav.rate * CHUNK))), 0.0
        while seconds < (TRAIL if self.turns.machine.turn is None else PATIENCE):
            yield quiet
            seconds += CHUNK
            due = await self._pace(due)

    async def _pace(self, due: float) -> float:
        """Waits until the next chunk is due. Lost time stays lost: catching up would be a burst."""
        due = max(due, _now() - CHUNK) + CHUNK / self.speed
        await asyncio.sleep(due - _now())
        return due

    def _take(self, item: str | bytes | Disconnected) -> None:
        now = _now()
        try:
            event: Event | None = item if isinstance(item, Disconnected) else decode(item)
        except DecodeError:
            event = None
        self.show(event, now, self.turns.feed(item, now))


def _now() -> float:
    return asyncio.get_running_loop().time()


async def _in_thread(read: Callable[[], bytes]) -> bytes:
    """Waits in a thread, since a pipe may have nothing for long. It is a daemon: one that waits for ever does not keep
    the command from ending."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[bytes] = loop.create_future()

    def give(data: bytes) -> None:
        if not done.cancelled():
            done.set_result(data)

    def work() -> None:
        data = read()
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(give, data)

    threading.Thread(target=work, name="wav", daemon=True).start()
    return await done


# -- the command


def listen(
    file: str,
    url: str | None,
    record: str | None,
    *,
    settings: str | None = None,
    keyterms: Sequence[str] = (),
    speed: float = 1.0,
    out: Console,
    err: Console,
) -> int:
    """What the command does; its exit code."""

    def say(sentence: str) -> None:
        err.print(Text(printable(sentence)), soft_wrap=True)

    def show(event: Event | None, now: float, actions: tuple[Action, ...]) -> None:
        machine = turns.machine
        one = Replayed(next(lines), now, event, actions, machine.turn, machine.phase, None, None, None)
        if one.line == 1:
            timeline.begin(title, one)
        timeline.show(one, summary.add(title, one))

    title = "standard input" if file == "-" else Path(file).name
    lines, timeline, summary = count(1), Timeline(out), Summary()
    recorder: Recorder | None = None
    try:
        wav = Wav.open(file)
        with contextlib.closing(wav), _told(say):
            ink = ink_for(wav, url, settings_of(settings), keyterms)
            if record is not None:
                labels = {"file": title, "server": urlsplit(url or LIVE).hostname or ""}
                recorder = Recorder(record, labels=labels, settings=ink.settings)
            turns = Turns(recorder=recorder)
            seconds = "sound" if wav.seconds is None else f"{wav.seconds:.1f} s of sound"
            say(f"{seconds} at {wav.rate} Hz ({wav.encoding}), to {where(url or LIVE)}")
            try:
                asyncio.run(Listening(wav, turns, ink, show, speed).run())
            finally:
                summary.close()
                if summary.inputs:
                    summary.show(out)
    except (ListenError, WavError) as error:
        say(str(error))
        return error.code if isinstance(error, ListenError) else 2
    finally:
        if recorder is not None:
            recorder.close()
    return 0


@contextlib.contextmanager
def _told(say: Callable[[str], None]) -> Iterator[None]:
    """What the client logs is said."""

    class Saying(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            say(record.getMessage())

    logger, handler = logging.getLogger("inkturns.ink"), Saying(logging.WARNING)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


def ink_for(wav: Wav, url: str | None, settings: TurnSettings | None, keyterms: Sequence[str]) -> Ink:
    """The client for this file. The key is for Cartesia alone."""
    key = os.environ.get("CARTESIA_API_KEY", "").strip()
    if url is None and not key:
        raise ListenError(
            "the live service needs a key: make one at https://play.cartesia.ai/keys and set it, "
            "export CARTESIA_API_KEY=…; or name another server with --url"
        )
    try:
        check_url(url or LIVE)
    except ValueError as error:
        raise ListenError(f"--url {error}") from None
    parts = urlsplit(url or LIVE)
    host = parts.hostname or ""
    ours = parts.scheme == "wss" and (host == "cartesia.ai" or host.endswith(".cartesia.ai"))
    try:
        return Ink(
            api_key=key if ours else None,
            settings=settings,
            encoding=wav.encoding,
            sample_rate=wav.rate,
            keyterms=keyterms,
            url=url,
        )
    except ValueError as error:
        raise ListenError(str(error)) from None


def settings_of(text: str | None) -> TurnSettings | None:
    """A profile's name, or `key=value` pairs with commas between them."""
    if text is None or text in PROFILES:
        return None if text is None else PROFILES[text]
    fields = [field.name for field in attrs.fields(TurnSettings)]
    given: dict[str, float] = {}
    try:
        for pair in text.split(","):
            name, _, value = pair.partition("=")
            if name not in fields:
                raise ValueError(f"there is no {name!r}; there is {', '.join([*PROFILES, *fields])}")
            given[name] = int(value) if name == "end_timeout_ms" else float(value)
        return TurnSettings(**given)  # type: ignore[arg-type]
    except ValueError as error:
        raise ListenError(f"--settings {text}: {error}") from None
