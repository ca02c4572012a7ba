"""Ink: the settings of one call to Ink 2, and the way to open it.

Rules of this file: a wrong argument is refused when Ink is made, not in the middle of a call. The key is never shown,
neither in the repr nor in a message or the log.
"""

import asyncio
import inspect
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import attrs

from inkturns.events import Disconnected
from inkturns.ink.backoff import Backoff
from inkturns.ink.call import Call, Fill, Stats
from inkturns.ink.opening import check_url
from inkturns.ink.sound import WIDTHS, Backlog
from inkturns.settings import TurnSettings, connect_query
from inkturns.wire import config_command

__all__ = ["LIVE", "VERSION", "Ink"]

LIVE = "wss://api.cartesia.ai/stt/turns/websocket"
VERSION = "2026-08-14"
ON_TRIO = (
    "Ink's client needs asyncio: it is built on `websockets`. On trio, open the socket with another library (such as "
    "trio-websocket) and give its messages to `agent.run`; `inkturns.connect_query` makes the address"
)
# No compression: sound does not shrink, and each connection would hold some 300 KiB for it.
OPTIONS: dict[str, Any] = {"compression": None, "open_timeout": None}
OPTIONS |= {"ping_interval": 5, "ping_timeout": 5, "close_timeout": 1}  # a silent server is left after 11 s

Key = str | Callable[[], Awaitable[str]] | None


@attrs.define(eq=False, kw_only=True)
class Ink:
    """The client of one call.

    api_key       the key; or an async function that gives one, asked at each connection; None: no key (an emulator)
    settings      when turns start and end; None: the server's defaults
    encoding, sample_rate   of the sound: one of ENCODINGS, and Hz
    keyterms      words that the model is to expect, at most 100
    model, version          the vendor's names
    url, urls     another address, or several: each attempt takes the next. One that has sent Retry-After is left out
                  until then
    give_up       seconds without a connection after which the call ends with OutageError; None: never
    keep          seconds of sound that may wait for a connection; of more, the newest is kept
    fill          True: silence is sent while `sound` has nothing; "open_turn": only while a turn is open. The service
                  may bill it
    connect_timeout   seconds for the key, the address and the handshake of one attempt; and then for the server's first
                  frame
    close_timeout     seconds that the server has for its last events, after the hang-up
    options       passed to `websockets.connect`: ssl, proxy, additional_headers, …; by default a ping every 5 s
                  (ping_interval) that the server answers within 5 s (ping_timeout), else the connection is lost

    Raises TypeError or ValueError when made, naming the argument. One Ink serves one call, as one Agent does."""

    api_key: Key = attrs.field(default=None, repr=False)
    settings: TurnSettings | None = None
    encoding: str = "pcm_s16le"
    sample_rate: int = 16000
    keyterms: Sequence[str] = ()
    model: str = "ink-2"
    version: str | None = VERSION
    url: str | None = attrs.field(default=None, repr=False)  # it may hold a password
    urls: Sequence[str] = attrs.field(default=(), repr=False)
    give_up: float | None = 30.0
    keep: float = 2.0
    fill: Fill = False
    connect_timeout: float = 10.0
    close_timeout: float = 10.0
    options: Mapping[str, Any] = attrs.field(factory=dict, repr=False)
    _stats: Stats = attrs.field(factory=Stats, init=False)
    _call: Call | None = attrs.field(default=None, init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        self._query()  # raises for the settings, the encoding and the like
        if isinstance(self.api_key, str):
            self._headers_of(self.api_key)
        elif self.api_key is not None and not callable(self.api_key):
            raise TypeError(f"Ink: api_key must be a string or an async function, got {type(self.api_key).__name__}")
        if isinstance(self.urls, str) or not isinstance(self.urls, Sequence):
            raise TypeError(f"Ink: urls must be a list of addresses, got {type(self.urls).__name__}")
        if self.url is not None and self.urls:
            raise ValueError("Ink: give url or urls, not both")
        if not isinstance(self.options, Mapping):
            raise TypeError(f"Ink: options must be a mapping, got {type(self.options).__name__}")
        for url in self._addresses():
            if not isinstance(url, str):
                raise TypeError(f"Ink: url must be a string, got {type(url).__name__}")
            try:
                check_url(url)
            except ValueError as error:
                raise ValueError(f"Ink: url {error}") from None
        for name in ("give_up", "keep", "connect_timeout", "close_timeout"):
            value = getattr(self, name)
            if value is None and name == "give_up":
                continue
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise TypeError(f"Ink: {name} must be a number of seconds, got {value!r}")
            if not 0 <= value <= 3600:
                raise ValueError(f"Ink: {name} must be from 0 to 3600 seconds, got {value!r}")
        if not isinstance(self.fill, bool) and self.fill != "open_turn":
            raise ValueError(f'Ink: fill must be False, True or "open_turn", got {self.fill!r}')

    @asynccontextmanager
    async def connect(self, sound: AsyncIterable[bytes]) -> AsyncIterator[AsyncIterator[str | bytes | Disconnected]]:
        """Gives the call's frames, as they came off the wire, and a Disconnected after each loss of a connection.

        `sound` is an async iterable of bytes in real time. It is read all the time, without a connection too. Its end
        is the hang-up: the sound that waits is sent, the server is asked for its last events, and the frames end; in
        an outage they end at once. The connection is opened when the first frame is asked for, and
        closed when the block is left.

        Iterating raises RefusedError for a refusal that would only be repeated (401, 402, 403, a setting, a certificate
        that is not trusted), OutageError after `give_up` seconds without a connection, and whatever `sound` or
        `api_key` raised. An OSError of `api_key`, such as a TimeoutError, is retried, like a failed connection."""
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            raise RuntimeError(ON_TRIO) from None
        if self._call is not None:
            raise RuntimeError("one Ink serves one call; make another for the next")
        if not isinstance(sound, AsyncIterable):
            raise TypeError(f"Ink: sound must be an async iterable of bytes, got {type(sound).__name__}")
        width = WIDTHS[self.encoding]
        call = self._call = Call(
            urls=deque(self._addresses()),
            query=self._query,
            headers=self._headers,
            ask_again=callable(self.api_key),
            options={**OPTIONS, **self.options},
            encoding=self.encoding,
            sample_rate=self.sample_rate,
            fill=self.fill,
            connect_timeout=self.connect_timeout,
            close_timeout=self.close_timeout,
            backoff=Backoff(self.give_up),
            backlog=Backlog(round(self.keep * self.sample_rate) * width, width),
            stats=self._stats,
        )
        tasks = [asyncio.create_task(call.read(sound))]
        if self.fill:
            tasks.append(asyncio.create_task(call.send_silence()))
        try:
            yield call
        finally:
            await call.leave(*tasks)

    def use(self, settings: TurnSettings) -> None:
        """Changes the turn settings from here on, for later connections too. Those that are None stay as they are. In a
        call the server is told at once. Raises ValueError where the old and new ones together are out of order."""
        if not isinstance(settings, TurnSettings):
            raise TypeError(f"Ink.use: settings must be a TurnSettings, got {type(settings).__name__}")
        given: dict[str, Any] = dict(settings.given())
        self.settings = attrs.evolve(self.settings or TurnSettings(), **given)
        if self._call is not None:
            self._call.command(config_command(settings))

    @property
    def stats(self) -> Stats:
        """Counts of the call's connections and sound: the same object each time, which is kept up to date."""
        if self._call is not None and self._call.socket is not None:
            self._stats.ping = self._call.socket.latency or self._stats.ping
        return self._stats

    @property
    def connected(self) -> bool:
        """Whether there is a connection now."""
        return self._call is not None and self._call.socket is not None

    @property
    def catching_up(self) -> bool:
        """Whether the server still hears sound that waited for a connection. A turn that begins meanwhile is late for
        that reason: an Agent's recording marks it, and a report leaves its times out."""
        return self._call is not None and self._call.catching_up

    def _addresses(self) -> Sequence[str]:
        return self.urls or [LIVE if self.url is None else self.url]

    def _query(self) -> str:
        return connect_query(self.model, self.encoding, self.sample_rate, self.settings, self.keyterms, self.version)

    async def _headers(self) -> dict[str, str]:
        if not callable(self.api_key):
            return {} if self.api_key is None else self._headers_of(self.api_key)
        key = self.api_key()
        if not inspect.isawaitable(key):
            raise TypeError(f"Ink: api_key must be an async function, this one returned {type(key).__name__}")
        try:
            return self._headers_of(await key)
        except asyncio.CancelledError as cancelled:
            if (task := asyncio.current_task()) is not None and task.cancelling():
                raise
            raise RuntimeError("Ink: api_key raised CancelledError, though nobody had cancelled it") from cancelled

    def _headers_of(self, key: object) -> dict[str, str]:
        if not isinstance(key, str):
            raise TypeError(f"Ink: api_key must be a string, got {type(key).__name__}")
        if not key:
            raise ValueError("Ink: api_key is empty; it is the key of your Cartesia account")
        if not key.isascii() or not key.isprintable() or " " in key:
            raise ValueError(
                "Ink: api_key must be printable ASCII without spaces; this one is not (a line break at its end?)"
            )
        return {"X-API-Key": key}
