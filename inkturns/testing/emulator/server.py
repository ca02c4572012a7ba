"""InkEmulator: a WebSocket server that speaks Ink 2's turns endpoint (extra `testing`).

Rules of this file:
- It owns the sockets, the query and the real clock. What is sent, and when, is decided by a Connection, whose clock is
  the audio received. Only the length of the audio matters.
- No client is trusted: frames, connections and idle time have limits, and nothing grows with what a client sends.
- A line of the log has no control character that came from a client (F57).
"""

import asyncio
import logging
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from ssl import SSLContext
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qsl, urlsplit
from weakref import WeakKeyDictionary

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed, WebSocketException
from websockets.http11 import Request, Response

from inkturns.printable import printable
from inkturns.settings import TurnSettings, connect_query
from inkturns.testing.emulator.connection import Closing, Connection, Out, complete, error_frame
from inkturns.testing.emulator.script import Script

__all__ = ["PATH", "InkEmulator"]

PATH = "/stt/turns/websocket"
MODELS = ("ink-2", "ink-preview")
WIDTHS = {"pcm_s16le": 2, "pcm_s32le": 4, "pcm_f16le": 2, "pcm_f32le": 4, "pcm_mulaw": 1, "pcm_alaw": 1}  # bytes
AHEAD = 1.0  # seconds that audio may come early
PIECE = 1.0  # seconds of audio that are taken at once; then other connections have their turn
VANISH = 2.0  # seconds that a client has to notice that the connection is closed
HANDSHAKES = 50  # sockets beyond `max_connections` that may be in their handshake
HERE = ("localhost", "127.0.0.1", "::1")
ORIGIN = re.compile(r"null|[a-z][a-z0-9+.-]*://[^/?#\sA-Z]+")  # as browsers write it: in lower case, without a path
SETTINGS = ("turn_start_threshold", "turn_eager_end_threshold", "turn_end_threshold", "turn_end_timeout_ms")


class InkEmulator:
    """Ink 2 on this machine: `async with InkEmulator(script) as emulator:` listens, on asyncio, until the block ends.

    script           what its users say: one script for all connections; or a sequence, one for each connection, the
                     last one also for all later ones; or a function of the connection's number, from 0
    host, port       the address it listens on; port 0: any free one
    ssl              a context with a certificate; with it the server speaks TLS (wss://)
    seed             of the request_ids
    speed            how many seconds of audio a client may send in one second (`inf`: any number); where it is ahead by
                     more than a second, that is logged
    strict           answer such a client with an error 400 as well (it is not known what the real server does)
    log              called with a sentence for each connection, refusal and command
    on_audio         called with the connection's number and the bytes of each frame of audio
    keep             keep closed connections in `connections`; False for a server that runs for hours
    origins          origins of web pages that may connect ("https://app.example"); pages of this machine always may
    max_frame        the most bytes of a frame; a longer one closes the connection (1009)
    idle_timeout     seconds without a frame, after which the connection is closed; None: no limit
    max_connections  open at once; one more is refused with HTTP 429

    `connections` has a Connection for each client, in order; its `sent` holds each frame with its time. Raises
    TypeError for another `script`, ValueError for a number that is not above 0 or an origin that no browser sends, and
    OSError, on entering the block, where it cannot listen."""

    def __init__(
        self,
        script: Script | Sequence[Script] | Callable[[int], Script],
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        ssl: SSLContext | None = None,
        seed: int = 0,
        speed: float = 1.0,
        strict: bool = False,
        log: Callable[[str], None] | None = None,
        on_audio: Callable[[int, bytes], object] | None = None,
        keep: bool = True,
        origins: Sequence[str] = (),
        max_frame: int = 1 << 20,
        idle_timeout: float | None = 180.0,
        max_connections: int = 100,
    ) -> None:
        scripts = [script] if isinstance(script, Script) else script
        several = isinstance(scripts, Sequence) and scripts and all(isinstance(one, Script) for one in scripts)
        if not several and not callable(scripts):
            what = "a Script, a sequence of Scripts, or a function that returns one"
            raise TypeError(f"InkEmulator: script must be {what}, got {script!r}")
        limits = {"max_frame": max_frame, "idle_timeout": idle_timeout, "max_connections": max_connections}
        for name, value in {"speed": speed, **limits}.items():
            if value is not None and not value > 0:
                raise ValueError(f"InkEmulator: {name} must be above 0, got {value!r}")
        for origin in origins:
            if not ORIGIN.fullmatch(origin):
                raise ValueError(f"InkEmulator: an origin must be such as https://app.example, got {origin!r}")
        self.host, self.port, self.seed, self.speed, self.strict, self.keep = host, port, seed, speed, strict, keep
        self.ssl = ssl
        self.origins, self.max_frame = tuple(origins), max_frame
        self.idle_timeout, self.max_connections = idle_timeout, max_connections
        self.connections: list[Connection] = []
        self._scripts: Sequence[Script] | Callable[[int], Script] = scripts
        self._log, self._on_audio = log, on_audio
        self._count = 0
        self._accepted: WeakKeyDictionary[ServerConnection, tuple[int, Script]] = WeakKeyDictionary()
        self._server: Server | None = None

    @property
    def base_url(self) -> str:
        """`ws://host:port` (`wss://` with TLS), for `AsyncCartesia(websocket_base_url=…)`."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'ws' if self.ssl is None else 'wss'}://{host}:{self.port}"

    @property
    def url(self) -> str:
        """`base_url` with the endpoint's path. The client adds the query (`inkturns.connect_query`)."""
        return self.base_url + PATH

    async def __aenter__(self) -> Self:
        options: dict[str, Any] = {"compression": None, "max_size": self.max_frame, "max_queue": 2, "ssl": self.ssl}
        options |= {"process_response": self._upgrade, "close_timeout": VANISH, "logger": LOGGER}
        options["create_connection"] = partial(_Limited, limit=self.max_connections + HANDSHAKES)
        self._server = await serve(self._serve, self.host, self.port, **options)
        self.port = next(iter(self._server.sockets)).getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes every connection. When it returns, no task is left."""
        assert self._server is not None
        self._server.close()
        await self._server.wait_closed()

    def _tell(self, sentence: str, number: int | None = None) -> None:
        if self._log is not None:
            self._log(printable(sentence if number is None else f"connection {number}: {sentence}"))

    def _script(self, number: int) -> Script:
        scripts = self._scripts
        return scripts(number) if callable(scripts) else scripts[min(number, len(scripts) - 1)]

    # -- the upgrade

    def _upgrade(self, connection: ServerConnection, request: Request, response: Response) -> Response | None:
        if response.status_code != 101:
            return None  # not a WebSocket's request
        if (path := urlsplit(request.path).path) != PATH:
            self._tell(f"refused with HTTP 404: the path {path[:80]}")
            return connection.respond(404, f"The only path is {PATH}\n")
        origins = request.headers.get_all("Origin")
        if foreign := [origin for origin in origins if not self._allows(origin)]:
            self._tell(f"refused with HTTP 403: a web page from {foreign[0][:80]}; allow it with its origin")
            return connection.respond(403, "Web pages from other machines may not connect.\n")
        assert self._server is not None
        if len(self._server.connections) >= self.max_connections:
            self._tell(f"refused with HTTP 429: the limit of open connections, {self.max_connections}, is reached")
            return connection.respond(429, f"At most {self.max_connections} connections.\n")
        number, self._count = self._count, self._count + 1
        script = self._script(number)
        if (status := script.refusal) is not None:
            self._tell(f"refused with HTTP {status}, as its script says", number)
            return connection.respond(status, "The script asks for this refusal.\n")
        self._accepted[connection] = number, script
        return None

    def _allows(self, origin: str) -> bool:
        """Whether a page of this origin may connect: a browser lets every page try, and names the page's origin."""
        try:
            return origin in self.origins or urlsplit(origin).hostname in HERE
        except ValueError:
            return False

    # -- the call

    async def _serve(self, socket: ServerConnection) -> None:
        number, script = self._accepted[socket]
        assert socket.request is not None
        try:
            settings, rate = self._read_query(number, urlsplit(socket.request.path).query)
        except _RefusedError as refusal:
            self._tell(f"refused: {refusal}", number)
            await self._send(socket, refusal.outs)
            return
        connection = Connection(script.likelihood, settings, seed=self.seed, number=number)
        self.connections.append(connection)
        self._tell(f"open, {connection.request_id}", number)
        why = ""
        try:
            async with asyncio.timeout(self.idle_timeout) as idle:
                await self._send(socket, connection.begin())
                await self._receive(socket, connection, rate, number, idle)
        except TimeoutError:
            why = f", because no frame came for {self.idle_timeout:g} s"
            await self._send(socket, [Closing(1000, "idle")])
        except ConnectionClosed as closed:
            if closed.sent is not None and closed.sent.code == 1009:
                why = f", because a frame had more than {self.max_frame} bytes"
        if not self.keep:
            self.connections.remove(connection)
        self._tell(f"closed after {connection.seconds:.2f} s of audio{why}", number)

    async def _receive(
        self, socket: ServerConnection, connection: Connection, rate: float, number: int, idle: asyncio.Timeout
    ) -> None:
        """Takes the client's frames; `rate` bytes are a second of audio."""
        time = asyncio.get_running_loop().time
        due, received, early = 0.0, 0, False  # due: when a user would have finished speaking this audio
        async for message in socket:
            now = time()
            if self.idle_timeout is not None:
                idle.reschedule(now + self.idle_timeout)
            if isinstance(message, str):
                self._tell(f"gets {message[:80]}", number)
                await self._send(socket, connection.command(message))
                continue
            if self._on_audio is not None:
                self._on_audio(number, message)
            received += len(message)
            due = max(due, now) + len(message) / rate / self.speed
            if due - now > AHEAD / self.speed:
                if not early:
                    sentence = f"audio comes faster than {self.speed:g} times real time"
                    self._tell(sentence, number)
                    if self.strict:
                        await self._send(socket, connection.refuse(sentence))
                early = True
            else:
                early = False
            while (seconds := received / rate - connection.seconds) > PIECE:
                await self._send(socket, connection.audio(PIECE))
                await asyncio.sleep(0)
            await self._send(socket, connection.audio(seconds))

    async def _send(self, socket: ServerConnection, outs: Sequence[Out]) -> None:
        for out in outs:
            if not isinstance(out, Closing):
                await socket.send(out)
            elif out.code:
                await self._close(socket, out)
            else:
                await self._vanish(socket)

    async def _close(self, socket: ServerConnection, closing: Closing) -> None:
        closed = asyncio.create_task(socket.close(closing.code, closing.reason))
        await self._drain(socket)
        await closed

    async def _vanish(self, socket: ServerConnection) -> None:
        """Ends the connection without a close frame, after everything was sent: a reset could overtake that."""
        if socket.transport.can_write_eof():
            socket.transport.write_eof()
        else:  # TLS has no half-closed connections
            socket.transport.close()
        await self._drain(socket)

    async def _drain(self, socket: ServerConnection) -> None:
        """Reads until the client closes: unread frames would keep its close from being seen. A client that sends on
        and never reads is cut off: it would hold up the close frame, too."""
        with suppress(ConnectionClosed):
            try:
                async with asyncio.timeout(VANISH):
                    async for _ in socket:
                        pass
            except TimeoutError:
                socket.transport.abort()

    # -- the query

    def _read_query(self, number: int, query: str) -> tuple[TurnSettings, float]:
        """The settings, and the bytes in a second of audio. Raises _RefusedError."""
        # A "+" stays a plus: the server takes a space in a keyterm as %20 only
        pairs = parse_qsl(query.replace("+", "%2B"), keep_blank_values=True)
        asked = dict(pairs)
        for name in ("model", "encoding", "sample_rate"):
            if not asked.get(name):
                raise _refused(f"{name} is missing")
        if asked["model"] not in MODELS:
            raise _refused(f"model must be one of {', '.join(MODELS)}, got {asked['model']!r}", code="model_not_found")
        terms = [value for name, value in pairs if name == "keyterm"]
        for term in terms:
            if "+" in term:
                self._tell(
                    f'keyterm "{term[:80]}" has a "+", which stands for a plus here; write a space as %20', number
                )
        given: dict[str, Any] = {}
        try:
            rate = int(asked["sample_rate"])
            connect_query(encoding=asked["encoding"], sample_rate=rate, keyterms=terms)
            for name in SETTINGS:
                if asked.get(name):
                    value, short = float(asked[name]), name.removeprefix("turn_")
                    given[short] = int(value) if short == "end_timeout_ms" and value == int(value) else value
                    TurnSettings(**{short: given[short]})
        except (TypeError, ValueError, OverflowError) as error:
            raise _refused(str(error)) from None
        try:
            return complete(TurnSettings(**given)), rate * WIDTHS[asked["encoding"]]
        except ValueError as error:
            raise _RefusedError(str(error), [Closing(1008, "Invalid turn thresholds")]) from None


class _Limited(ServerConnection):
    """A socket that is closed before anything is read from it, where more than `limit` sockets are open."""

    def __init__(self, *arguments: Any, limit: int, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.limit = limit

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if len(self.server.handlers) > self.limit:
            self.transport.abort()


def _is_ours(record: logging.LogRecord) -> bool:
    """Keeps a client's faults out of the log; an error that a script's function raises is logged."""
    return not (record.exc_info and isinstance(record.exc_info[1], WebSocketException))


LOGGER = logging.getLogger(__name__)
LOGGER.addFilter(_is_ours)


class _RefusedError(Exception):
    def __init__(self, reason: str, outs: list[Out]) -> None:
        super().__init__(reason)
        self.outs = outs


def _refused(reason: str, code: str | None = None) -> _RefusedError:
    """A refusal with an `error` instead of `connected`. It is not known with which code the real server closes then."""
    return _RefusedError(reason, [error_frame(400, "Invalid settings", reason, code), Closing()])
