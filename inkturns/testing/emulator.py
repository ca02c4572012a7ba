"""InkEmulator: a WebSocket server that speaks Ink 2's turns endpoint (extra `testing`).

Rules of this file: sockets, the query and the clock of the wall, nothing else; what is said, and when, is a Session's,
and goes by the audio received. Nothing of the audio is looked at but its length.
"""

import asyncio
import logging
import sys
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qsl, urlsplit
from weakref import WeakKeyDictionary

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed, WebSocketException
from websockets.http11 import Request, Response

from inkturns.settings import TurnSettings, connect_query
from inkturns.testing.script import Script
from inkturns.testing.session import Closing, Out, Session, effective, error
from inkturns.testing.sound import sound

__all__ = ["PATH", "InkEmulator"]

PATH = "/stt/turns/websocket"
MODELS = ("ink-2", "ink-preview")
WIDTHS = {"pcm_s16le": 2, "pcm_s32le": 4, "pcm_f16le": 2, "pcm_f32le": 4, "pcm_mulaw": 1, "pcm_alaw": 1}  # bytes
AHEAD = 1.0  # seconds that audio may come early
VANISH = 2.0  # seconds that a client has to see that the connection is closed, or gone
SETTINGS: dict[str, type] = {
    "turn_start_threshold": float,
    "turn_eager_end_threshold": float,
    "turn_end_threshold": float,
    "turn_end_timeout_ms": float,
}


class InkEmulator:
    """Ink 2 on this machine: `async with InkEmulator(script) as emulator:` listens, on asyncio, until the block ends.

    script  what its users say: the same script for each connection; or several, the first connection's first, where the
            last one stays for all that come after; or a function of the connection's number, from 0
    host, port  where it listens; port 0: any that is free
    seed    of the request_ids
    speed   how many seconds of audio a second may bring, infinity too; what comes faster, by more than a second, is
            said in the log
    strict  and answered by an error 400 (what the real one does is not known)
    log     is called with a sentence for each thing worth knowing
    keep    whether a session is remembered when its connection is closed: for hours on end, better not

    `sessions` has each connection's Session, in order: what was `sent`, when. Raises TypeError for a script that is
    none, ValueError for a speed that is not above 0, and OSError, on entering, where it cannot listen."""

    def __init__(
        self,
        script: Script | Sequence[Script] | Callable[[int], Script],
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        seed: int = 0,
        speed: float = 1.0,
        strict: bool = False,
        log: Callable[[str], None] | None = None,
        keep: bool = True,
    ) -> None:
        scripts = [script] if isinstance(script, Script) else script
        some = isinstance(scripts, Sequence) and scripts and all(isinstance(one, Script) for one in scripts)
        if not some and not callable(scripts):
            raise TypeError(f"InkEmulator: script is a Script, some, or a function that gives them, not {script!r}")
        if not speed > 0:
            raise ValueError(f"InkEmulator: speed is {speed!r}; it must be above 0")
        self.host, self.port, self.seed, self.speed, self.strict, self.keep = host, port, seed, speed, strict, keep
        self.sessions: list[Session] = []
        self._scripts: Sequence[Script] | Callable[[int], Script] = scripts
        self._log = log
        self._count = 0
        self._callers: WeakKeyDictionary[ServerConnection, tuple[int, Script]] = WeakKeyDictionary()
        self._server: Server | None = None

    @property
    def base_url(self) -> str:
        """`ws://host:port`: what `AsyncCartesia(websocket_base_url=…)` takes."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"ws://{host}:{self.port}"

    @property
    def url(self) -> str:
        """`base_url` with the endpoint's path; the query is the client's to add (`inkturns.connect_query`)."""
        return self.base_url + PATH

    async def __aenter__(self) -> Self:
        # What waits is not bounded: a client that sends on while it is closed could not be heard to agree.
        options: dict[str, Any] = {"compression": None, "max_size": None, "max_queue": sys.maxsize}
        options |= {"process_response": self._upgrade, "close_timeout": VANISH, "logger": LOGGER}
        self._server = await serve(self._speak, self.host, self.port, **options)
        self.port = next(iter(self._server.sockets)).getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes every connection; when it returns, no task is left."""
        assert self._server is not None
        self._server.close()
        await self._server.wait_closed()

    def _say(self, number: int, sentence: str) -> None:
        if self._log is not None:
            self._log(f"connection {number}: {sentence}")

    def _script(self, number: int) -> Script:
        scripts = self._scripts
        return scripts(number) if callable(scripts) else scripts[min(number, len(scripts) - 1)]

    def _upgrade(self, connection: ServerConnection, request: Request, response: Response) -> Response | None:
        if response.status_code != 101:
            return None  # it is no WebSocket's, and so no caller's
        if urlsplit(request.path).path != PATH:
            return connection.respond(404, f"There is only {PATH}\n")
        number, self._count = self._count, self._count + 1
        script = self._script(number)
        if (status := script.refusal) is not None:
            self._say(number, f"refused with HTTP {status}, as its script says")
            return connection.respond(status, "On demand of the script.\n")
        self._callers[connection] = number, script
        return None

    async def _speak(self, connection: ServerConnection) -> None:
        number, script = self._callers[connection]
        assert connection.request is not None
        try:
            settings, rate = self._asked(number, urlsplit(connection.request.path).query)
        except _RefusedError as refusal:
            self._say(number, f"refused: {refusal}")
            await self._send(connection, refusal.outs)
            return
        session = Session(sound(script), settings, seed=self.seed, number=number)
        self.sessions.append(session)
        self._say(number, f"open, {session.request_id}")
        try:
            await self._send(connection, session.begin())
            await self._listen(connection, session, rate, number)
        except ConnectionClosed:
            pass
        if not self.keep:
            self.sessions.remove(session)
        self._say(number, f"closed after {session.seconds:.2f} s of audio")

    async def _listen(self, connection: ServerConnection, session: Session, rate: float, number: int) -> None:
        """Takes what comes, `rate` bytes of audio a second."""
        time = asyncio.get_running_loop().time
        due, received, early = 0.0, 0, False  # due: when a user would have spoken what has come
        async for message in connection:
            if isinstance(message, str):
                self._say(number, f"takes {message[:80]}")
                await self._send(connection, session.command(message))
                continue
            now, received = time(), received + len(message)
            due = max(due, now) + len(message) / rate / self.speed
            if due - now > AHEAD / self.speed:
                if not early:
                    sentence = f"audio comes faster than {self.speed:g} times real time"
                    self._say(number, sentence)
                    if self.strict:
                        await self._send(connection, session.wrong(sentence))
                early = True
            else:
                early = False
            await self._send(connection, session.audio(received / rate - session.seconds))

    async def _send(self, connection: ServerConnection, outs: Sequence[Out]) -> None:
        for out in outs:
            if not isinstance(out, Closing):
                await connection.send(out)
            elif out.code:
                await connection.close(out.code, out.reason)
            else:
                await self._vanish(connection)

    async def _vanish(self, connection: ServerConnection) -> None:
        """Ends the connection without a close frame; not before all that was sent is there, as a reset would."""
        connection.transport.write_eof()
        try:
            async with asyncio.timeout(VANISH):
                await connection.wait_closed()
        except TimeoutError:
            connection.transport.abort()

    # -- the query

    def _asked(self, number: int, query: str) -> tuple[TurnSettings, float]:
        """The settings, and the bytes a second; raises _RefusedError."""
        # "+" is a plus: the server takes a space in a keyterm as %20 alone
        pairs = parse_qsl(query.replace("+", "%2B"), keep_blank_values=True)
        asked = dict(pairs)
        for name in ("model", "encoding", "sample_rate"):
            if not asked.get(name):
                raise _refused(f"{name} is missing")
        if asked["model"] not in MODELS:
            raise _refused(f"model {asked['model']!r}: one of {', '.join(MODELS)}", code="model_not_found")
        terms = [value for name, value in pairs if name == "keyterm"]
        for term in terms:
            if "+" in term:
                self._say(number, f'keyterm "{term}" has a "+", which is a plus here; a space is %20')
        given: dict[str, Any] = {}
        try:
            rate = int(asked["sample_rate"])
            connect_query(encoding=asked["encoding"], sample_rate=rate, keyterms=terms)
            for name, kind in SETTINGS.items():
                if asked.get(name):
                    value = kind(asked[name])
                    short = name.removeprefix("turn_")
                    given[short] = int(value) if short == "end_timeout_ms" and value == int(value) else value
                    TurnSettings(**{short: given[short]})
        except (TypeError, ValueError, OverflowError) as wrong:
            raise _refused(str(wrong)) from None
        try:
            return effective(TurnSettings(**given)), rate * WIDTHS[asked["encoding"]]
        except ValueError as wrong:
            raise _RefusedError(str(wrong), [Closing(1008, "Invalid turn thresholds")]) from None


def _ours(record: logging.LogRecord) -> bool:
    """What a client does, or leaves, is no fault here; what a script's function raises is."""
    return not (record.exc_info and isinstance(record.exc_info[1], WebSocketException))


LOGGER = logging.getLogger(__name__)
LOGGER.addFilter(_ours)


class _RefusedError(Exception):
    def __init__(self, reason: str, outs: list[Out]) -> None:
        super().__init__(reason)
        self.outs = outs


def _refused(reason: str, code: str | None = None) -> _RefusedError:
    """With an `error` instead of `connected`; the code of the close that follows is not known."""
    return _RefusedError(reason, [error(400, "Invalid settings", reason, code), Closing()])
