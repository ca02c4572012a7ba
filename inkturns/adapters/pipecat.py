"""Pipecat: its frames as events, and a processor that watches a pipeline with a `Turns`. `pipecat_guard.py` has the one
that decides.

Rules of this file: the source imports nothing of Pipecat. CHOICE: a frame has no `type` but its class, so it is known
by its class's name: a version without eager ends is read too. The package is imported when `TurnWatch` or `TurnGuard`
is asked for.
The source has no clock, loop or logger; a frame that it refuses changes nothing in it. The watcher hands every frame on
in the step in which it came, whatever the hooks do.

Put the watcher right after the speech service: the user aggregator takes the transcriptions out of the pipeline.
"""

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
from inkturns.turns import Turns

if TYPE_CHECKING:
    from pipecat.frames.frames import Frame
    from pipecat.processors.frame_processor import FrameDirection

__all__ = ["Pipecat", "TurnGuard", "TurnWatch"]  # noqa: F822 (see __getattr__)

Events = tuple[Event, ...]


@attrs.define(eq=False, repr=False)  # it holds the caller's words
class Pipecat:
    """The source for Pipecat's frames, as they pass after its speech service, in both directions; one per call.

    | frame | event |
    |---|---|
    | ProposedUserStartedSpeaking; UserStartedSpeaking where nobody proposes | TurnStart |
    | InterimTranscription | TurnUpdate |
    | EagerTranscription | TurnEagerEnd |
    | EagerEndOfTurnCancel of the service | TurnResume |
    | Transcription, then ProposedUserStoppedSpeaking (or, as above, UserStoppedSpeaking) | TurnEnd |
    | BotStartedSpeaking, BotStoppedSpeaking | ReplyStarted, ReplyDone |
    | Interruption, except the one at a turn's start | StopReply |
    | End, Cancel | Disconnected |

    A turn's text is its final transcriptions, joined by spaces as Pipecat's aggregator joins them, then the interim
    one. Services that detect turns send one final, which is kept to the letter. The end comes with its text (F29):
    where words were heard and their final has not come yet, a stop waits for it; only Pipecat's settled stop, a second
    stop or a new start ends the turn without it. Pipecat's other frames give no event.

    Raises DecodeError, and nothing else, for an object that is not a frame of Pipecat's, and for a missing text."""

    _rows: dict[type, "Row | None"] = attrs.field(init=False, factory=dict)
    _proposed: bool = attrs.field(init=False, default=False)  # whether the service proposes turns, for the whole call
    _settled: bool = attrs.field(init=False, default=False)  # whether Pipecat says that the user is speaking
    _open: bool = attrs.field(init=False, default=False)
    _finals: str = attrs.field(init=False, default="")
    _unsaid: bool = attrs.field(init=False, default=False)  # whether there is a final that no event has told
    _owed: bool = attrs.field(init=False, default=False)  # whether words were heard whose final has not come yet
    _stopped: bool = attrs.field(init=False, default=False)  # whether a stop waits for that final
    _number: int = attrs.field(init=False, default=0)  # the latest turn's, as the machine counts
    _latest: str = attrs.field(init=False, default="")  # the open turn's latest words
    _last: str = attrs.field(init=False, default="")  # the words of the turn that ended last
    _ended: int = attrs.field(init=False, default=0)
    _spoken: int = attrs.field(init=False, default=0)  # the turn whose reply the bot began to speak last

    @property
    def waits_for_final(self) -> bool:
        """Whether a stop has come and its final words have not."""
        return self._stopped

    def events(self, frame: object) -> Events:
        """The events of a frame, often one or none. Raises DecodeError for a frame that it cannot read."""
        try:
            row = self._rows[type(frame)]
        except KeyError:
            try:
                row = self._rows[type(frame)] = _row(type(frame))
            except DecodeError:
                raise
            except Exception:  # what a metaclass may do
                raise DecodeError("not a frame of Pipecat's") from None
        except Exception:  # a class without a hash
            raise DecodeError("not a frame of Pipecat's") from None
        return () if row is None else row(self, frame)

    # -- the user

    def _propose_start(self, frame: object) -> Events:
        self._proposed = True
        return self._start()

    def _settle_start(self, frame: object) -> Events:
        """Where a service proposes turns, Pipecat's own frame repeats the proposal, maybe after that turn is over."""
        self._settled = True
        return () if self._proposed or (self._open and not self._stopped) else self._start()

    def _start(self) -> Events:
        before = self._rest()
        if not self._open or self._latest:  # a second start before any word is the same start
            self._number += 1
        self._reset()
        self._open = True
        return (*before, TurnStart())

    def _interim(self, frame: object) -> Events:
        return (TurnUpdate(self._heard(frame)),)

    def _eager(self, frame: object) -> Events:
        return (TurnEagerEnd(self._heard(frame)),)

    def _heard(self, frame: object) -> str:
        """The turn's text, with the words that are not final."""
        text = _text(frame)
        if text and not text.isspace():
            if self._is_late(text):
                return text
            if not self._open:  # as Pipecat's TranscriptionUserTurnStartStrategy has it; the machine reports it
                if not self._latest:  # else a final has begun it
                    self._reset()
                    self._number += 1
                self._open = True
            self._owed, self._unsaid = True, False
            if self._finals:
                text = _joined(self._finals, text, frame)
            self._latest = text
        return text

    def _is_late(self, text: str) -> bool:
        """Whether it belongs to the turn that is over. The machine reports such words and opens no turn (F30)."""
        return not self._open and not self._unsaid and self._last.startswith(text)

    def _cancel_eager(self, frame: object) -> Events:
        """CHOICE: it is a resume only where the service cancels its eager end. Pipecat broadcasts the same frame,
        then with a sibling, when it drops its own speculation: for a tool call, a timeout or a text that did not match.
        The user did not go on speaking then, and our thought ends for none of these (F02, F12)."""
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
        return self._rest()  # a stop may never come for it

    def _propose_stop(self, frame: object) -> Events:
        self._proposed = True
        return self._stop()

    def _settle_stop(self, frame: object) -> Events:
        self._settled = False
        if self._proposed:  # a repetition; where it comes first, Pipecat's timeout
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
        """The events that the turn still needs before something else comes."""
        if self._stopped:
            return self._end()
        unsaid, self._unsaid = self._unsaid, False
        return (TurnUpdate(self._finals),) if unsaid else ()

    def _reset(self) -> None:
        self._finals = self._latest = ""
        self._open = self._unsaid = self._owed = self._stopped = False

    # -- the bot

    def _bot_starts(self, frame: object) -> Events:
        """CHOICE: the bot speaks the reply to the turn that ended last, if that is in flight, else by itself. Both are
        told; the machine knows which is right and ignores the other. Turns are counted here. A count that anomalies
        have put out of step names no reply in flight, and `Policy.interrupts` fails open."""
        self._spoken = self._ended
        return (ReplyStarted(self._ended), ReplyStarted(0)) if self._ended else (ReplyStarted(0),)

    def _bot_stops(self, frame: object) -> Events:
        """Names the reply that began: the next turn's may be in flight by now (F42)."""
        return (ReplyDone(self._spoken), ReplyDone(0)) if self._spoken else (ReplyDone(0),)

    def _interrupt(self, frame: object) -> Events:
        """CHOICE: an interruption because the user speaks comes after the settled start, on which the machine has
        decided already. A short turn may be over by then, with its own reply in flight."""
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
    """The row of a class of frames: its own, else that of the nearest class above it."""
    for above in type.__dict__["__mro__"].__get__(kind):
        if above.__module__.startswith("pipecat.frames") and above.__name__ in ROWS:
            return ROWS[above.__name__]
    raise DecodeError("not a frame of Pipecat's")


def _text(frame: Any) -> str:
    try:
        text: str = frame.text
        if type(text) is not str:
            text = str.__str__(text)
        if not text.isascii():
            text.encode()
    except UnicodeEncodeError:
        raise DecodeError("text is not valid UTF-8") from None
    except Exception:
        raise DecodeError("transcription's text: expected `str`") from None
    return text


def _joined(before: str, text: str, frame: object) -> str:
    spaced = getattr(frame, "includes_inter_frame_spaces", False) is True
    return before + text if spaced else f"{before} {text}"


def __getattr__(name: str) -> Any:
    """Makes `TurnWatch` and `TurnGuard`, which need Pipecat, when they are asked for."""
    if name not in ("TurnWatch", "TurnGuard"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        made = _turn_watch() if name == "TurnWatch" else _turn_guard()
    except ImportError as error:
        raise ImportError(f"{name} needs Pipecat: pip install 'inkturns[pipecat]'") from error
    globals()[name] = made
    return made


def _turn_guard() -> type:
    from inkturns.adapters.pipecat_guard import TurnGuard

    return TurnGuard


def _turn_watch() -> type:
    from loguru import logger
    from pipecat.processors.frame_processor import FrameProcessor

    class TurnWatch(FrameProcessor):
        """A processor that feeds every frame, from either side, to a `Turns` and hands it on untouched.

        turns   the `Turns` to feed, made with `source=Pipecat()`; anything else is a TypeError
        others  as for any FrameProcessor (`name`, `metrics`)

        It runs in direct mode, without a queue: no frame is later, or in another order, than without it, and no
        interruption empties it. Hooks are called before the frame goes on, and so before its effects come back.
        CHOICE: what they raise is logged by loguru, where Pipecat's errors go. An ErrorFrame would be one frame more,
        which goes up the pipeline and may end the call."""

        def __init__(self, turns: Turns, **others: Any) -> None:
            if not isinstance(turns, Turns) or not isinstance(turns.source, Pipecat):
                raise TypeError(
                    f"TurnWatch: turns must be a Turns(source=Pipecat()), got {type(turns).__name__} without it"
                )
            super().__init__(enable_direct_mode=True, **others)
            self.turns = turns

        async def process_frame(self, frame: "Frame", direction: "FrameDirection") -> None:
            await super().process_frame(frame, direction)
            try:
                self.turns.feed(frame)
            except Exception as error:
                logger.opt(exception=error).error(f"{self}: a hook raised; the frame goes on")
            await self.push_frame(frame, direction)

    TurnWatch.__qualname__ = TurnWatch.__name__
    return TurnWatch
