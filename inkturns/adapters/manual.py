"""Ink 2 and ink-whisper without turn detection (`/stt/websocket`): deltas and your voice-activity signals, to events.

Rules of this file: a turn is the client's here: it opens when the user speaks, its text is the final chunks joined
verbatim (F45), and it closes when the last `finalize` that it asked for is answered while the user is silent. So it
outlives a connection (the SDK makes a new one in silence); a `finalize` does not. A turn's state is built at its start,
never patched (F15). Signals are frames like the server's own, handled in the order in which all were fed.

| what is fed                    | events                                                                       |
|--------------------------------|------------------------------------------------------------------------------|
| speech_started(), no turn open | TurnStart                                                                    |
| speech_started() in a turn     | TurnResume after an eager end, else none: the turn goes on                   |
| transcript                     | TurnUpdate where the text moved: all final chunks, then the one not final    |
| transcript, no turn open       | TurnUpdate: it opens a turn, and the machine reports that its start is missed |
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

from inkturns.adapters import readers
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
    """A chunk: what was said since the last final one. Until it is final, a later one takes its place."""

    is_final: bool
    text: str | None = None


class FlushDone(FromInk, frozen=True, tag="flush_done"):
    """A `finalize` is answered: all chunks of the audio before it have come."""


class Done(FromInk, frozen=True, tag="done"):
    """`close` is answered, in the same way; the server closes the connection."""


_straight, _the_long_way = readers(Transcript, FlushDone, Done, ServerError)


SIGNALS = ("speech started", "speech stopped", "end now", "disconnected")


class Signal(Struct, frozen=True):
    """What the client knows better than the server; made by ManualFinalize, and fed like a frame."""

    kind: Literal["speech started", "speech stopped", "end now", "disconnected"]
    reason: str | None = None

    def __post_init__(self) -> None:
        if self.kind not in SIGNALS:
            raise ValueError(f"there is no signal {self.kind!r}")
        if not isinstance(self.reason, str | None):
            raise TypeError(f"a reason is a str, not {self.reason!r}")


@attrs.define(eq=False)
class _Turn:
    turn_id: str
    speaking: bool | None = None  # None: no signal has said so yet
    eager: bool = False  # an eager end was said, and no resume since
    due: bool = False  # a `finalize` is to be sent
    final: str = ""
    shown: str = ""  # the latest text that was said, final or not; never blank again


@attrs.define(eq=False)
class ManualFinalize:
    """The source for `/stt/websocket`; one per call, over all of its connections.

    Takes raw frames (str, bytes, mappings), the objects of the Cartesia SDK (`client.stt.manual_finalize`), and its own
    signals: `turns.feed(ink.speech_started())`. After a signal or a frame, ask for what is to be sent:

        if frame := ink.finalize():
            await socket.send(frame)

    at once, or when the silence has lasted as long as you like: there is an eager end meanwhile, and speech takes back
    what was due. A push-to-talk button is such a signal, too. The `turn_id` is a count of its own, from "1"."""

    checks_fields: ClassVar[bool] = True  # msgspec does, as it reads them

    _turns: int = attrs.field(init=False, default=0)
    _turn: _Turn | None = attrs.field(init=False, default=None)
    _unanswered: int = attrs.field(init=False, default=0)
    _request_id: str | None = attrs.field(init=False, default=None)

    def speech_started(self) -> Signal:
        """To be fed when the user begins to speak."""
        return Signal("speech started")

    def speech_stopped(self) -> Signal:
        """To be fed when the user falls silent, for a breath or for good."""
        return Signal("speech stopped")

    def end_now(self) -> Signal:
        """To be fed, in place of `EndNow`, and when a turn stalls: it closes with its words so far, and an answer that
        is yet to come ends no later turn."""
        return Signal("end now")

    def disconnected(self, reason: str | None = None) -> Signal:
        """To be fed, in place of `Disconnected`, when the connection is lost and the open turn with it; who is speaking
        goes on in another turn. Not needed where the call ends, nor where the user's words go on in the same turn over
        a new connection. Raises TypeError for a reason that is no str."""
        return Signal("disconnected", reason)

    def finalize(self) -> Literal["finalize"] | None:
        """The frame that is to be sent now, plain text, or None. It counts as sent: the turn ends at its answer."""
        if self._turn is None or not self._turn.due:
            return None
        self._turn.due = False
        self._unanswered += 1
        return "finalize"

    def events(self, frame: object) -> tuple[Event, ...]:
        """The events that a frame or a signal says. Raises DecodeError for a frame that it cannot read, and nothing
        else."""
        if type(frame) is Signal:
            return self._signalled(frame)
        try:
            message = _straight(frame)
        except Exception:  # not only msgspec's own, as in `decode`
            message = _the_long_way(frame)
        kind = type(message)
        if kind is ServerError or kind is Unknown:
            return (message,)
        if message.request_id != self._request_id:
            self._connected(message.request_id)
        if kind is Transcript:
            return self._transcribed(message)
        asked = self._unanswered > 0  # else it answers a `finalize` that was sent by other means
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
        CHOICE: what was asked in between counts for the old one, too; a turn that never ends would be worse."""
        if request_id is None:
            return
        if self._request_id is not None:
            self._unanswered = 0
            if self._turn is not None:
                self._turn.due = self._turn.speaking is False
        self._request_id = request_id
