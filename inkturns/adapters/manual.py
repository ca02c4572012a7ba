"""Ink 2 and ink-whisper without turn detection (`/stt/websocket`): chunks and your voice-activity signals as events.

Rules of this file: the client makes the turns. A turn opens when the user speaks, its text is the final chunks joined
verbatim (F45), and it closes when the last `finalize` that it asked for is answered while the user is silent. So a turn
may outlive a connection (the SDK silently makes a new one); a `finalize` does not. A turn's state is built at its
start, never patched (F15). Signals are frames like the server's, handled in the order in which all were fed.

| what is fed                    | events                                                                       |
|--------------------------------|------------------------------------------------------------------------------|
| speech_started(), no turn open | TurnStart                                                                    |
| speech_started() in a turn     | TurnResume after an eager end, else none: the turn goes on                   |
| transcript                     | TurnUpdate where the text moved: all final chunks, then the one not final    |
| transcript, no turn open       | TurnUpdate: the machine opens a turn and reports the missing start           |
| speech_stopped()               | TurnEagerEnd where there is text; `finalize` is due                          |
| flush_done                     | TurnEnd, unless the user speaks again or another `finalize` is due or asked  |
| done, which answers `close`    | TurnEnd where a turn is open: all audio has been processed                   |
| end_now()                      | EndNow                                                                       |
| disconnected()                 | Disconnected: the turn will never end; TurnStart where the user is speaking  |
| error                          | ServerError                                                                  |
| anything else                  | Unknown                                                                      |
"""

from typing import ClassVar, Literal

import attrs
from msgspec import Struct

from inkturns.adapters.messages import readers
from inkturns.events import (
    Disconnected,
    EndNow,
    Event,
    ServerError,
    TurnEagerEnd,
    TurnEnd,
    TurnResume,
    TurnStart,
    TurnUpdate,
    Unknown,
)

__all__ = ["ManualFinalize", "Signal"]


class FromInk(Struct, frozen=True, gc=False, tag_field="type", kw_only=True):
    """One message."""

    request_id: str | None = None


class Transcript(FromInk, frozen=True, tag="transcript"):
    """A chunk: what was said since the last final one. One that is not final is replaced by the next."""

    is_final: bool
    text: str | None = None


class FlushDone(FromInk, frozen=True, tag="flush_done"):
    """The answer to a `finalize`: all chunks of the audio before it have come."""


class Done(FromInk, frozen=True, tag="done"):
    """The answer to `close`, in the same way; the server closes the connection."""


_read_json, _read_any = readers(Transcript, FlushDone, Done, ServerError)


SIGNALS = ("speech started", "speech stopped", "end now", "disconnected")


class Signal(Struct, frozen=True):
    """What the client knows and the server does not. ManualFinalize makes it, and it is fed like a frame."""

    kind: Literal["speech started", "speech stopped", "end now", "disconnected"]
    reason: str | None = None

    def __post_init__(self) -> None:
        if self.kind not in SIGNALS:
            raise ValueError(f"Signal.kind must be one of {SIGNALS}, got {self.kind!r}")
        if not isinstance(self.reason, str | None):
            raise TypeError(f"Signal.reason must be a str or None, got {self.reason!r}")


@attrs.define(eq=False)
class _Turn:
    turn_id: str
    speaking: bool | None = None  # None: no signal has told yet
    eager: bool = False  # there was an eager end, and no resume since
    due: bool = False  # a `finalize` has to be sent
    final: str = ""
    shown: str = ""  # the latest text, final or not; once it has words it is never blank again


@attrs.define(eq=False)
class ManualFinalize:
    """The source for `/stt/websocket`; one per call, over all of its connections.

    Takes raw frames (str, bytes, mappings), the objects of the Cartesia SDK (`client.stt.manual_finalize`), and its own
    signals: `turns.feed(ink.speech_started())`. After a signal or a frame, ask whether something has to be sent:

        if frame := ink.finalize():
            await socket.send(frame)

    Send it at once, or after as long a silence as you like: the eager end is already out, and if the user speaks again
    nothing has to be sent. A push-to-talk button gives the same signals. The `turn_id` counts the turns, from "1"."""

    checks_fields: ClassVar[bool] = True  # msgspec checks them

    _turns: int = attrs.field(init=False, default=0)
    _turn: _Turn | None = attrs.field(init=False, default=None)
    _unanswered: int = attrs.field(init=False, default=0)
    _request_id: str | None = attrs.field(init=False, default=None)

    def speech_started(self) -> Signal:
        """Feed it when the user begins to speak."""
        return Signal("speech started")

    def speech_stopped(self) -> Signal:
        """Feed it when the user falls silent, for a breath or for good."""
        return Signal("speech stopped")

    def end_now(self) -> Signal:
        """Feed it instead of `EndNow`, and when a turn stalls: the turn closes with its words so far. An answer that
        comes later ends no other turn."""
        return Signal("end now")

    def disconnected(self, reason: str | None = None) -> Signal:
        """Feed it instead of `Disconnected`, when the connection is lost and the open turn with it. A user who is
        speaking goes on in another turn. It is not needed where the call ends, or where the user's words go on in the
        same turn over a new connection. Raises TypeError where the reason is not a str."""
        return Signal("disconnected", reason)

    def finalize(self) -> Literal["finalize"] | None:
        """The frame to send now, plain text, or None. It counts as sent: the turn ends at its answer."""
        if self._turn is None or not self._turn.due:
            return None
        self._turn.due = False
        self._unanswered += 1
        return "finalize"

    def events(self, frame: object) -> tuple[Event, ...]:
        """The events of a frame or a signal. Raises DecodeError for a frame that it cannot read, and nothing else."""
        if type(frame) is Signal:
            return self._signalled(frame)
        try:
            message = _read_json(frame)
        except Exception:  # not only msgspec's own, as in `decode`
            message = _read_any(frame)
        kind = type(message)
        if kind is ServerError or kind is Unknown:
            return (message,)
        if message.request_id != self._request_id:
            self._connected(message.request_id)
        if kind is Transcript:
            return self._transcribed(message)
        asked = self._unanswered > 0  # else it answers a `finalize` that somebody else sent
        self._unanswered = max(0, self._unanswered - 1) if kind is FlushDone else 0
        turn = self._turn
        if turn is None or (kind is FlushDone and (turn.speaking or self._unanswered or (asked and turn.due))):
            return ()
        self._turn = None
        return (TurnEnd(turn.final, turn_id=turn.turn_id),)

    def _signalled(self, signal: Signal) -> tuple[Event, ...]:
        turn = self._turn
        if signal.kind == "disconnected":
            self._turn, self._unanswered, self._request_id = None, 0, None
            lost = Disconnected(signal.reason)
            return (lost, *self._begin()) if turn is not None and turn.speaking else (lost,)
        if signal.kind == "end now":
            self._turn, self._unanswered = None, 0
            return (EndNow(),)
        if signal.kind == "speech started":
            if turn is None:
                return self._begin()
            resumes, turn.speaking, turn.eager, turn.due = turn.eager, True, False, False
            return (TurnResume(turn_id=turn.turn_id),) if resumes else ()
        if turn is None or turn.speaking is False:
            return ()
        turn.speaking, turn.due, turn.eager = False, True, bool(turn.shown)
        return (TurnEagerEnd(turn.shown, turn_id=turn.turn_id),) if turn.eager else ()

    def _begin(self) -> tuple[Event, ...]:
        turn = self._open()
        turn.speaking = True
        return (TurnStart(turn_id=turn.turn_id),)

    def _transcribed(self, chunk: Transcript) -> tuple[Event, ...]:
        text, turn = chunk.text or "", self._turn
        if turn is None:
            if not text or text.isspace():
                return ()
            turn = self._open()
        shown = turn.final + text
        if chunk.is_final:
            turn.final = shown
        if not shown or shown.isspace() or shown == turn.shown:
            return ()
        turn.shown = shown
        return (TurnUpdate(shown, turn_id=turn.turn_id),)

    def _open(self) -> _Turn:
        self._turns += 1
        self._turn = _Turn(str(self._turns))
        return self._turn

    def _connected(self, request_id: str | None) -> None:
        """A new connection answers no `finalize` of the old one: a turn that waits for an answer has to ask again.
        CHOICE: a `finalize` that was sent in between counts for the old one too. A turn that never ends would be
        worse."""
        if request_id is None:
            return
        if self._request_id is not None:
            self._unanswered = 0
            if self._turn is not None:
                self._turn.due = self._turn.speaking is False
        self._request_id = request_id
