"""Pipecat: its frames to events, and a processor that watches a pipeline with a `Turns`.

Rules of this file: the source imports nothing of Pipecat. CHOICE: a frame, which has no `type` but its class, is known
by the name of that, so that a version without eager ends is read too; the package is imported when `TurnWatch` is asked
for. The source has no clock, loop or logger, and a frame that it refuses has changed nothing in it. The watcher hands
every frame on in the step in which it came, whatever the hooks do.

Where to put it: right after the speech service. The user aggregator takes the transcriptions out of the pipeline.
"""

from asyncio import CancelledError
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import attrs

from inkturns.errors import DecodeError
from inkturns.events import (
    Disconnected,
    Event,
    ReplyDone,
    ReplyStarted,
    StopReply,
    TurnEagerEnd,
    TurnEnd,
    TurnResume,
    TurnStart,
    TurnUpdate,
)
from inkturns.hooks import Turns

if TYPE_CHECKING:
    from pipecat.frames.frames import Frame
    from pipecat.processors.frame_processor import FrameDirection

__all__ = ["Pipecat", "TurnWatch"]  # noqa: F822 (see __getattr__)

Events = tuple[Event, ...]


@attrs.define(eq=False, repr=False)  # it holds the caller's words
class Pipecat:
    """The source for Pipecat's frames, as they pass behind its speech service, in either direction; one per call.

    | frame | event |
    |---|---|
    | ProposedUserStartedSpeaking; UserStartedSpeaking where nobody proposes | TurnStart |
    | InterimTranscription | TurnUpdate |
    | EagerTranscription | TurnEagerEnd |
    | EagerEndOfTurnCancel of the service | TurnResume |
    | Transcription, then ProposedUserStoppedSpeaking (or, as above, UserStoppedSpeaking) | TurnEnd |
    | BotStartedSpeaking, BotStoppedSpeaking | ReplyStarted, ReplyDone |
    | Interruption, but for the one of a turn's start | StopReply |
    | End, Cancel | Disconnected |

    A turn's text is its final transcriptions, joined by spaces as Pipecat's aggregator joins them, and the interim one
    after them; the services with turns of their own send one final, which is kept to the letter. The end comes with its
    text (F29): where words were heard and their final is yet to come, a stop waits for it, and only Pipecat's settled
    stop, a second one or a new start ends the turn without it. Other frames of Pipecat's give no event.

    Raises DecodeError, and nothing else, for what is no frame of Pipecat's or has no text where it should."""

    _rows: dict[type, "Row | None"] = attrs.field(init=False, factory=dict)
    _proposed: bool = attrs.field(init=False, default=False)  # does the service propose turns? for the whole call
    _settled: bool = attrs.field(init=False, default=False)  # is the user speaking, as Pipecat has it?
    _open: bool = attrs.field(init=False, default=False)
    _finals: str = attrs.field(init=False, default="")
    _unsaid: bool = attrs.field(init=False, default=False)  # is there a final that no event has told?
    _owed: bool = attrs.field(init=False, default=False)  # have words been heard whose final is yet to come?
    _stopped: bool = attrs.field(init=False, default=False)  # does a stop wait for that?
    _number: int = attrs.field(init=False, default=0)  # the latest turn's, as the machine counts
    _latest: str = attrs.field(init=False, default="")  # what the open turn's words were last
    _last: str = attrs.field(init=False, default="")  # and those of the turn that ended last
    _ended: int = attrs.field(init=False, default=0)
    _spoken: int = attrs.field(init=False, default=0)  # whose reply the bot began to speak last

    def events(self, frame: object) -> Events:
        """The events that a frame says, often one or none. Raises DecodeError for a frame that it cannot read."""
        try:
            row = self._rows[type(frame)]
        except KeyError:
            try:
                row = self._rows[type(frame)] = _row(type(frame))
            except DecodeError:
                raise
            except Exception:  # what a metaclass may do
                raise DecodeError("no frame of Pipecat's") from None
        except Exception:  # a class without a hash
            raise DecodeError("no frame of Pipecat's") from None
        return () if row is None else row(self, frame)

    # -- the user

    def _propose_start(self, frame: object) -> Events:
        self._proposed = True
        return self._start()

    def _settle_start(self, frame: object) -> Events:
        """Where a service proposes, what Pipecat makes of it is an echo, which may come when that turn is over."""
        self._settled = True
        return () if self._proposed or (self._open and not self._stopped) else self._start()

    def _start(self) -> Events:
        before = self._rest()
        if not self._open or self._latest:  # one more start before any word is taken for the same one
            self._number += 1
        self._reset()
        self._open = True
        return (*before, TurnStart())

    def _interim(self, frame: object) -> Events:
        return (TurnUpdate(self._heard(frame)),)

    def _eager(self, frame: object) -> Events:
        return (TurnEagerEnd(self._heard(frame)),)

    def _heard(self, frame: object) -> str:
        """The turn's text with words that are not final."""
        text = _text(frame)
        if text and not text.isspace():
            if self._is_late(text):
                return text
            if not self._open:  # as Pipecat's TranscriptionUserTurnStartStrategy has it; the machine reports it
                self._reset()
                self._open = True
                self._number += 1
            self._owed, self._unsaid = True, False
            if self._finals:
                text = _joined(self._finals, text, frame)
            self._latest = text
        return text

    def _is_late(self, text: str) -> bool:
        """Is it of the turn that is over? The machine reports such words, and opens no turn for them (F30)."""
        return not self._open and not self._unsaid and self._last.startswith(text)

    def _cancel_eager(self, frame: object) -> Events:
        """CHOICE: only a resume where the service withdraws what it said. Pipecat broadcasts the same frame, which has
        a sibling then, when it drops its own speculation: for a tool call, a time-out or a text that did not match.
        Nobody went on speaking, and here a thought has none of these ends (F02, F12)."""
        return (TurnResume(),) if getattr(frame, "broadcast_sibling_id", None) is None else ()

    def _final(self, frame: object) -> Events:
        text = _text(frame)
        self._owed = False
        if text and not text.isspace():
            if self._is_late(text):
                self._finals = text  # a stop that follows is as late (F06)
                return (TurnUpdate(text),)
            self._finals = self._latest = _joined(self._finals, text, frame) if self._finals else text
            self._unsaid = True
        if self._stopped:
            return self._end()
        if self._open:
            return ()
        if self._unsaid:
            self._number += 1
        return self._rest()  # nobody knows whether a stop will come for it

    def _propose_stop(self, frame: object) -> Events:
        self._proposed = True
        return self._stop()

    def _settle_stop(self, frame: object) -> Events:
        self._settled = False
        if self._proposed:  # an echo; but one that comes first is Pipecat's time-out: it waits no longer
            return self._end() if self._stopped else ()
        return self._stop()

    def _stop(self) -> Events:
        if self._owed and not self._stopped:
            self._stopped = True
            return ()
        return self._end()

    def _end(self) -> Events:
        text = self._finals
        self._ended, self._last = self._number, text or self._latest
        self._reset()
        return (TurnEnd(text),)

    def _rest(self) -> Events:
        """What is yet to be told of the turn, where something else comes next."""
        if self._stopped:
            return self._end()
        unsaid, self._unsaid = self._unsaid, False
        return (TurnUpdate(self._finals),) if unsaid else ()

    def _reset(self) -> None:
        self._finals = self._latest = ""
        self._open = self._unsaid = self._owed = self._stopped = False

    # -- the bot

    def _bot_starts(self, frame: object) -> Events:
        """CHOICE: it speaks the reply to the turn that ended last, where that is in flight, else by itself: the machine
        knows which, and passes over the other. The turns are counted here; a count that anomalies have put out of step
        names no reply in flight, and `Policy.interrupts` fails open."""
        self._spoken = self._ended
        return (ReplyStarted(self._ended), ReplyStarted(0)) if self._ended else (ReplyStarted(0),)

    def _bot_stops(self, frame: object) -> Events:
        """By the number that began, since it may come when the next turn has its reply in flight (F42)."""
        return (ReplyDone(self._spoken), ReplyDone(0)) if self._spoken else (ReplyDone(0),)

    def _interrupt(self, frame: object) -> Events:
        """CHOICE: where Pipecat interrupts because the user speaks, which it says after it has settled the start, the
        machine has decided on that already; and a short turn may be over, its own reply in flight."""
        return () if self._settled else (StopReply(),)

    def _leave(self, frame: object) -> Events:
        before = self._rest()
        self._reset()
        return (*before, Disconnected())


Row = Callable[[Pipecat, Any], Events]

ROWS: dict[str, Row | None] = {
    "ProposedUserStartedSpeakingFrame": Pipecat._propose_start,
    "UserStartedSpeakingFrame": Pipecat._settle_start,
    "InterimTranscriptionFrame": Pipecat._interim,
    "EagerTranscriptionFrame": Pipecat._eager,
    "EagerEndOfTurnCancelFrame": Pipecat._cancel_eager,
    "TranscriptionFrame": Pipecat._final,
    "ProposedUserStoppedSpeakingFrame": Pipecat._propose_stop,
    "UserStoppedSpeakingFrame": Pipecat._settle_stop,
    "BotStartedSpeakingFrame": Pipecat._bot_starts,
    "BotStoppedSpeakingFrame": Pipecat._bot_stops,
    "InterruptionFrame": Pipecat._interrupt,
    "EndFrame": Pipecat._leave,
    "CancelFrame": Pipecat._leave,
    "Frame": None,  # any other
}


def _row(kind: type) -> Row | None:
    """What such a frame says: its own class's row, else the nearest one's above it."""
    for above in type.__dict__["__mro__"].__get__(kind):
        if above.__module__.startswith("pipecat.frames") and above.__name__ in ROWS:
            return ROWS[above.__name__]
    raise DecodeError("no frame of Pipecat's")


def _text(frame: Any) -> str:
    try:
        text: str = frame.text
        if type(text) is not str:
            text = str.__str__(text)
        if not text.isascii():
            text.encode()
    except UnicodeEncodeError:
        raise DecodeError("a transcription's text is text that UTF-8 can hold") from None
    except Exception:
        raise DecodeError("a transcription's text is a `str`") from None
    return text


def _joined(before: str, text: str, frame: object) -> str:
    spaced = getattr(frame, "includes_inter_frame_spaces", False) is True
    return before + text if spaced else f"{before} {text}"


def __getattr__(name: str) -> Any:
    """`TurnWatch`, which needs Pipecat, is made when it is asked for."""
    if name != "TurnWatch":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = made = _turn_watch()
    return made


def _turn_watch() -> type:
    try:
        from loguru import logger
        from pipecat.processors.frame_processor import FrameProcessor
    except ImportError as error:
        raise ImportError("TurnWatch needs Pipecat: pip install 'inkturns[pipecat]'") from error

    class TurnWatch(FrameProcessor):
        """A processor that feeds every frame, from either side, to a `Turns` and hands it on untouched.

        turns   the `Turns` to feed, made with `source=Pipecat()`; anything else is a TypeError
        others  as for any FrameProcessor (`name`, `metrics`)

        In direct mode: it has no queue, so no frame is later, or in another order, than without it, and no
        interruption empties it. The hooks are called before the frame goes on, and so before whatever it brings about
        comes back. CHOICE: what they raise is logged by loguru, where Pipecat's own errors go: an ErrorFrame would be
        a frame more, which goes up and may end the call."""

        def __init__(self, turns: Turns, **others: Any) -> None:
            if not isinstance(turns, Turns) or not isinstance(turns.source, Pipecat):
                raise TypeError(f"TurnWatch: turns is a Turns(source=Pipecat()), not {turns!r}")
            super().__init__(enable_direct_mode=True, **others)
            self.turns = turns

        async def process_frame(self, frame: "Frame", direction: "FrameDirection") -> None:
            await super().process_frame(frame, direction)
            try:
                self.turns.feed(frame)
            except (Exception, CancelledError) as error:  # the latter a hook's, of a future that it asked
                logger.opt(exception=error).error(f"{self}: what watches the turns has raised")
            await self.push_frame(frame, direction)

    TurnWatch.__qualname__ = TurnWatch.__name__
    return TurnWatch
