"""Call: one call's frames, over as many connections as it takes.

Rules of this file:
- The task that iterates drives the connection: `__anext__` receives, sees a loss, and connects again. Another task
  reads the sound, with or without a connection. It never waits for the network: sound that cannot be sent goes to a
  Backlog.
- The hang-up is a flag, `_over`, and not an item in a queue, which somebody could take away (F61). Once it is set, no
  connection is opened any more, and waiting for one stops.
- Nothing waits for ever: connecting, the server's first frame and its last events, closing and the sound's own end
  have timeouts.
"""

import asyncio
import inspect
import logging
from collections import deque
from collections.abc import AsyncIterable, Awaitable, Callable, Mapping
from typing import Any, Literal, Self

import attrs
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.server import broadcast
from websockets.exceptions import ConnectionClosed, ConnectionClosedError
from websockets.frames import Close, CloseCode
from websockets.protocol import State

from inkturns.errors import DecodeError, OutageError, RefusedError
from inkturns.events import Disconnected, ServerError, TurnEagerEnd, TurnEnd, TurnResume, TurnStart, TurnUpdate
from inkturns.ink.backoff import LIMITER, Backoff
from inkturns.ink.opening import POLICY_VIOLATION, Refusal, open_socket, plain, refusal_of
from inkturns.ink.sound import WIDTHS, Backlog, silence
from inkturns.wire import close_command, decode

__all__ = ["Call", "Stats"]

Fill = Literal[False, True, "open_turn"]

LATE = 0.2  # seconds that sound may be late before silence is sent instead
LONGEST_SILENCE = 1.0  # seconds of silence sent at once, where the loop was blocked for longer
AGAIN = 0.05  # seconds until the network is asked again whether it takes more
SHOWN = 1.0  # seconds from a sound to the words that Ink makes of it
AHEAD = 1.0  # seconds of sound that are taken before the loop gets its turn

logger = logging.getLogger("inkturns.ink")


@attrs.define
class Stats:
    """Counts of a call's connections, and of its sound in seconds of sound. Everything that `sound` has given is
    `sent`, `dropped`, or still waits. `sent` means that the network took it: some of it is lost when a connection is
    lost, and nobody can say how much."""

    connections: int = 0  # opened
    losses: int = 0  # connections that were lost before the hang-up
    refusals: int = 0  # connections that the server refused: 401, 429, 5xx and the like
    sent: float = 0.0  # seconds
    kept: float = 0.0  # seconds of `sent` that waited for a connection or for the network
    dropped: float = 0.0  # seconds that were too many to keep, the oldest first, or were left at the hang-up
    silence: float = 0.0  # seconds of silence that `fill` added; the service may bill them
    ping: float | None = None  # the latest round trip, in seconds of time


@attrs.define(eq=False, kw_only=True)
class Call:
    """An async iterator of one call's frames, and of a Disconnected after each loss. `Ink.connect` makes it."""

    urls: deque[str]  # without a query; the first is the next attempt's
    query: Callable[[], str]  # of the present settings
    headers: Callable[[], Awaitable[Mapping[str, str]]]
    ask_again: bool  # `headers` may have another key next time, so one 401 is not final
    options: Mapping[str, Any]
    encoding: str
    sample_rate: int
    fill: Fill
    connect_timeout: float
    close_timeout: float
    backoff: Backoff
    backlog: Backlog
    stats: Stats
    socket: ClientConnection | None = None
    _late_until: float = 0.0  # the loop's time until which the server hears what was kept
    _over: bool = False  # the caller has hung up, or the block was left
    _error: BaseException | None = None  # of the sound
    _outage: asyncio.Timeout | None = None  # while there is no connection
    _first: bool = True
    _url: str = ""  # of the latest attempt
    _busy: dict[str, float] = attrs.field(factory=dict)  # the loop's time before which an address asks not to be tried
    _reason: str = ""  # why there is no connection
    _since: float = 0.0  # when this connection was opened
    _accepted: bool = False  # it has said more than an error
    _refusal: Refusal | None = None  # what it has said instead
    _asked_again: bool = False
    _turn_open: bool = False
    _covered: float = 0.0  # the loop's time up to which the server has sound
    _lost: float = 0.0  # seconds dropped, and not logged yet
    _again: asyncio.TimerHandle | None = None
    _commands: list[str] = attrs.field(factory=list)  # since the latest attempt began

    # -- the loop: receive, see a loss, connect again

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str | bytes | Disconnected:
        while True:
            if self.socket is None and not await self._connect():
                if self._error is not None:
                    raise self._error
                raise StopAsyncIteration
            assert self.socket is not None
            try:
                frame = await (self.socket.recv() if self._accepted else self._answer(self.socket))
            except ConnectionClosed as closed:
                if lost := self._closed(closed):
                    return lost
            else:
                if not self._accepted or self.fill == "open_turn":
                    self._look(frame)
                return frame

    async def _answer(self, socket: ClientConnection) -> str | bytes:
        """Receives a frame of a server that has not accepted yet. A server that says nothing for `connect_timeout` is
        lost: it answers pings, so nothing else would end the wait."""
        try:
            async with asyncio.timeout(self.connect_timeout):
                return await socket.recv()
        except TimeoutError:
            socket.transport.abort()
            silence = Close(CloseCode.GOING_AWAY, f"the server said nothing for {self.connect_timeout:g} s")
            raise ConnectionClosedError(None, silence) from None

    def _closed(self, closed: ConnectionClosed) -> Disconnected | None:
        """The connection is closed. Returns the Disconnected of a loss; None after a hang-up or a refusal, which are no
        loss to the turns."""
        self.socket, self._turn_open = None, False
        self.backoff.over(_now() - self._since, accepted=self._accepted)
        if self._over:
            return None
        if closed.rcvd is not None and closed.rcvd.code == POLICY_VIOLATION:
            self.stats.refusals += 1
            raise RefusedError(f"Ink 2 refused: {plain(closed.rcvd.reason) or 'no reason given'}", POLICY_VIOLATION)
        if not self._accepted and self._refusal is not None:
            self._refused(self._refusal)
            return None
        self.stats.losses += 1
        self._reason = _why(closed)
        logger.warning("%s; connecting again", self._reason)
        return Disconnected(self._reason)

    def _look(self, frame: str | bytes) -> None:
        """Notes whether the server has accepted this connection, and whether a turn is open."""
        try:
            event = decode(frame)
        except DecodeError:
            return
        if isinstance(event, ServerError) and not self._accepted:
            self._refusal = refusal_of(event)
        else:
            self._accepted, self._asked_again = True, False
        if isinstance(event, TurnEnd):
            self._turn_open = False
        elif isinstance(event, TurnStart | TurnUpdate | TurnEagerEnd | TurnResume):
            self._turn_open = True

    # -- connecting: attempts with pauses between them, until `give_up` or the hang-up

    async def _connect(self) -> bool:
        """Connects, with pauses between the attempts. Returns False where the caller hangs up meanwhile. Raises
        RefusedError, and OutageError after `give_up` seconds."""
        began, left = _now(), self.backoff.left
        try:
            async with asyncio.timeout(left) as self._outage:
                while not self._over:
                    if not self._first:
                        await self._pause()
                    self._first = False
                    if await self._attempt():
                        return True
        except TimeoutError:
            if not self._over:
                raise self._given_up() from None
        finally:
            self._outage = None
            self.backoff.outage += _now() - began
        return False

    async def _pause(self) -> None:
        """Waits before the next attempt. Takes the next address that may be tried now, or else the one that may be
        tried first."""
        now = _now()
        waits = [max(0.0, self._busy.get(url, now) - now) for url in self.urls]
        wait = min(waits)
        if self.backoff.give_up is not None and wait > self.backoff.give_up:
            raise self._given_up(f"; it asks to wait for {wait:.0f} s")
        self.urls.rotate(-waits.index(wait))
        await asyncio.sleep(max(self.backoff.pause(), wait))
        await asyncio.sleep(LIMITER.wait())

    async def _attempt(self) -> bool:
        url = self._url = self.urls[0]
        self.urls.rotate(-1)
        try:
            async with asyncio.timeout(self.connect_timeout) as limit:
                headers = await self.headers()
                self._commands.clear()
                found = await open_socket(f"{url}{'&' if '?' in url else '?'}{self.query()}", headers, self.options)
        except OSError as error:  # from the function that gives the key, or of the timeout
            if limit.expired():
                found = f"no connection within {self.connect_timeout:g} s"
            else:
                found = f"no key: {plain(str(error)) or type(error).__name__}"
        if isinstance(found, ClientConnection):
            if self._over:  # the hang-up came in this step and saw no connection, so this one is closed here
                found.transport.abort()
                return False
            self._connected(found)
            return True
        if isinstance(found, Refusal):
            self._refused(found)
        else:
            self._reason = found
            logger.warning("%s", found)
        return False

    def _connected(self, socket: ClientConnection) -> None:
        self.socket, self._since = socket, _now()
        self._accepted, self._refusal = False, None
        self.stats.connections += 1
        logger.info("connected")
        for text in self._commands:
            self.command(text)
        if self.backlog.size:
            self._late_until = self._since + self._seconds(self.backlog.size) + SHOWN
        self._send_backlog()

    def _refused(self, refusal: Refusal) -> None:
        """Raises RefusedError where the refusal is final. Of a 401, where `headers` may have another key next time,
        only the second in a row is."""
        self.stats.refusals += 1
        again = self.ask_again and not self._asked_again and refusal.status == 401
        if refusal.final and not again:
            raise RefusedError(f"Ink 2 refused: {refusal.sentence}", refusal.status)
        self._asked_again = again
        self._busy[self._url] = _now() + refusal.wait
        self._reason = f"refused: {refusal.sentence}"
        logger.warning("%s", self._reason)

    def _given_up(self, more: str = "") -> OutageError:
        return OutageError(
            f"no connection to Ink 2 for {self.backoff.give_up:g} s: {self._reason or 'no answer'}{more}"
        )

    # -- sound: one task reads it, to its end

    async def read(self, sound: AsyncIterable[bytes]) -> None:
        """Sends the sound until it ends, which is the hang-up. An error that it raises is kept, and `__anext__` raises
        it."""
        self._covered = _now()
        turn = self._covered + AHEAD
        try:
            stream = aiter(sound)
            try:
                async for chunk in stream:
                    self._put(chunk)
                    if not chunk or self._covered > turn:
                        await asyncio.sleep(0)  # a sound that never waits would hold up the loop
                        turn = self._covered + AHEAD
            finally:
                if inspect.isasyncgen(stream):
                    await stream.aclose()
        except asyncio.CancelledError as cancelled:
            if self._over:  # by `leave`
                raise
            self._error = RuntimeError("Ink: sound raised CancelledError, though nobody had cancelled it")
            self._error.__cause__ = cancelled
        except BaseException as error:  # whatever it is, the call must not wait for more sound
            self._error = error
        await self._hang_up()

    def _put(self, chunk: bytes) -> None:
        if not isinstance(chunk, bytes | bytearray | memoryview):
            raise TypeError(f"Ink: sound must be an async iterable of bytes, got {type(chunk).__name__}")
        chunk = self.backlog.whole(bytes(chunk))
        self._covered = max(self._covered, _now()) + self._seconds(len(chunk))
        if not self.backlog.size and self._takes():
            self._send(chunk)
        else:
            self._drop(self.backlog.put(chunk))
            self._send_backlog()

    def _takes(self) -> bool:
        """Whether the network takes more: not while the socket's own buffer holds something."""
        socket = self.socket
        return socket is not None and socket.state is State.OPEN and not socket.transport.get_write_buffer_size()

    def _send(self, chunk: bytes) -> None:
        if chunk:
            assert self.socket is not None
            broadcast([self.socket], chunk)  # `send` would wait for the network and let other tasks run
            self.stats.sent += self._seconds(len(chunk))

    def _send_backlog(self) -> None:
        while self.backlog.size and self._takes():
            chunk = self.backlog.pop()
            self.stats.kept += self._seconds(len(chunk))
            self._send(chunk)
        if not self.backlog.size:
            self._log_dropped()
        elif self.socket is not None and self._again is None:
            self._again = asyncio.get_running_loop().call_later(AGAIN, self._ask_again)

    def _ask_again(self) -> None:
        self._again = None
        self._send_backlog()

    def _drop(self, size: int) -> None:
        self.stats.dropped += self._seconds(size)
        self._lost += self._seconds(size)

    def _log_dropped(self) -> None:
        if self._lost:
            logger.warning("%.1f s of sound were dropped", self._lost)
            self._lost = 0.0

    def _seconds(self, size: int) -> float:
        return size / WIDTHS[self.encoding] / self.sample_rate

    async def send_silence(self) -> None:
        """Sends silence, in real time, for each moment in which `sound` gives nothing, until the hang-up."""
        while not self._over:
            late = _now() - self._covered
            if late < LATE:
                await asyncio.sleep(max(LATE - late, 0.01))
                continue
            self._covered = _now()
            if (self.fill is True or self._turn_open) and not self.backlog.size and self._takes():
                quiet = silence(self.encoding, round(min(late, LONGEST_SILENCE) * self.sample_rate))
                assert self.socket is not None
                broadcast([self.socket], quiet)
                self.stats.silence += self._seconds(len(quiet))

    def command(self, text: str) -> None:
        """Sends a text frame now. Where there is no connection, the address of the next attempt says the same; and the
        attempt that is under way has asked for the old settings, so the frame is sent when it succeeds."""
        if self.socket is None:
            self._commands.append(text)
        else:
            broadcast([self.socket], text)

    @property
    def catching_up(self) -> bool:
        return _now() < self._late_until

    # -- the end

    async def _hang_up(self) -> None:
        """Sends the sound that waits, and asks the server for its last events, all within `close_timeout`."""
        self._stop()
        try:
            if (socket := self.socket) is not None:
                async with asyncio.timeout(self.close_timeout):
                    while self.backlog.size:
                        chunk = self.backlog.pop()
                        self.stats.sent += self._seconds(len(chunk))
                        await socket.send(chunk)
                    if rest := self.backlog.rest():
                        await socket.send(rest)
                    await socket.send(close_command())
                    await socket.wait_closed()
        except ConnectionClosed:
            pass
        except TimeoutError:
            logger.warning("the server did not close within %g s", self.close_timeout)
            assert socket is not None
            socket.transport.abort()
        self._drop(self.backlog.clear())
        self._log_dropped()

    def _stop(self) -> None:
        self._over = True
        if self._outage is not None and not self._outage.expired():
            self._outage.reschedule(0)  # whatever waits for a connection stops
        if self._again is not None:
            self._again.cancel()

    async def leave(self, *tasks: asyncio.Task[None]) -> None:
        """Closes the connection and ends these tasks: the block is left."""
        self._stop()
        for task in tasks:
            task.cancel()
        if (socket := self.socket) is not None:
            try:
                await socket.close()
            finally:
                socket.transport.abort()  # where even the closing was cancelled
        _, stuck = await asyncio.wait(tasks, timeout=self.close_timeout)
        if stuck:
            logger.warning("the sound has not ended %g s after it was cancelled", self.close_timeout)


def _now() -> float:
    return asyncio.get_running_loop().time()


def _why(closed: ConnectionClosed) -> str:
    if closed.rcvd is not None:
        said = plain(closed.rcvd.reason)
        return f"the server closed the connection ({closed.rcvd.code}{said and ': '}{said})"
    if closed.sent is not None:  # by the client: a ping without an answer, a frame that it cannot read
        return f"the connection was lost ({plain(closed.sent.reason) or closed.sent.code})"
    return "the connection was lost"
