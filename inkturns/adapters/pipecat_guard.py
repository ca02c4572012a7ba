"""Pipecat: a processor that lets the machine decide. `from inkturns.adapters.pipecat import TurnGuard`.

Rules of this file:
- The machine decides; the guard says its actions in Pipecat's frames. Where a frame of the service says the same, that
  very frame goes on, in the step in which it came.
- Every frame of a turn leaves through the outbox (`pipecat_outbox.py`), which keeps the order. A frame that overtakes
  by itself (a start, a cancel, an interruption) is sent with `waits=True`.
- What the aggregator decides by itself, it decides by the policy (`pipecat_strategies.py`).
- Only frames of turns are looked at. All others go on at once.
- This file imports Pipecat; it is imported when somebody asks for the guard. It imports no other adapter.
"""

import asyncio
from collections.abc import Callable
from typing import Any
from weakref import WeakSet

from loguru import logger
from pipecat.frames.frames import (
    BotStartedSpeakingFrame,
    BotStoppedSpeakingFrame,
    CancelFrame,
    EagerEndOfTurnCancelFrame,
    EagerTranscriptionFrame,
    EndFrame,
    ErrorFrame,
    Frame,
    InterimTranscriptionFrame,
    InterruptionFrame,
    LLMMessagesAppendFrame,
    LLMRunFrame,
    ProposedUserStartedSpeakingFrame,
    ProposedUserStoppedSpeakingFrame,
    StartFrame,
    STTMetadataFrame,
    TranscriptionFrame,
    UserBackchannelFrame,
    UserStartedSpeakingFrame,
    UserStoppedSpeakingFrame,
)
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.turns.user_turn_strategies import ExternalUserTurnStrategies
from pipecat.utils.time import time_now_iso8601

from inkturns.actions import Abandon, Cancel, CancelReason, EndReason, Hear, Interrupt, Listen, Respond, Think
from inkturns.adapters.pipecat_outbox import PATIENCE, Outbox
from inkturns.adapters.pipecat_strategies import by_the_policy
from inkturns.adapters.pipecat_timer import Timer
from inkturns.events import ReplyDone, ReplyStarted, ThoughtFailed, Tick
from inkturns.turn import Turn
from inkturns.turns import Turns

__all__ = ["TurnGuard"]

PROPOSALS = (ProposedUserStartedSpeakingFrame, ProposedUserStoppedSpeakingFrame)
SPOKEN = (InterimTranscriptionFrame, EagerTranscriptionFrame, TranscriptionFrame)
DOWN = FrameDirection.DOWNSTREAM
QUICK = {InterimTranscriptionFrame, EagerTranscriptionFrame}  # the most frequent ones, found without a search
FROM_SERVICE = (*PROPOSALS, *SPOKEN, EagerEndOfTurnCancelFrame)
BOT = (BotStartedSpeakingFrame, BotStoppedSpeakingFrame)
TOLD = (*BOT, UserStartedSpeakingFrame, UserStoppedSpeakingFrame, InterruptionFrame, EndFrame, CancelFrame)
Told = Listen | Think | Cancel | Respond | Interrupt | Abandon  # the actions that become frames
LOOKED_AT = (*FROM_SERVICE, *TOLD, ErrorFrame, StartFrame, STTMetadataFrame)

_guarded: WeakSet[Turns] = WeakSet()


class TurnGuard(FrameProcessor):
    """A processor right after the speech service: what that sends is repaired, and the turns' `Policy` decides.

    turns   made with `source=Pipecat()`; anything else is a TypeError. One guard a Turns, and one before an aggregator;
            a second is a ValueError, or only watches. Its hooks and its recorder work as anywhere.
            Feed it the application's own events (`turns.feed(EndNow())`) whenever you like, in the loop's thread
    others  as for any FrameProcessor (`name`, `metrics`)

    It decides where the service proposes its turns, as those for Ink 2 and Flux do; with others it only watches. Then
    the aggregator has no `user_turn_strategies` but the service's: the guard puts `Policy.match` into these, and
    passes a start on only where `Policy.interrupts` lets the turn interrupt, whatever `should_interrupt` says.

    `Policy.think_after` and `stall_timeout` are counted by `turns.clock`, or by the loop's where that is None. What a
    hook raises is logged by loguru, and the call goes on."""

    def __init__(self, turns: Turns, **others: Any) -> None:
        if not isinstance(turns, Turns) or not hasattr(turns.source, "waits_for_final"):
            raise TypeError(
                f"TurnGuard: turns must be a Turns(source=Pipecat()), got {type(turns).__name__} without it"
            )
        if turns in _guarded:
            raise ValueError("TurnGuard: turns has a guard already, which feeds it; make one Turns for each guard")
        _guarded.add(turns)
        super().__init__(enable_direct_mode=True, **others)
        self.turns = turns
        self._source: Any = turns.source
        self._clock: Callable[[], float] | None = None
        self._may_decide = True  # no other guard stands behind
        self._decides = False
        self._actions: list[Told] = []  # what the machine has said, and no frame yet
        self._feeding = False
        self._is_over = False  # the call: nothing is said any more
        self._timer = Timer(self._now, self._is_due)
        self._speaking: asyncio.Task[None] | None = None  # says what the application's own events or the timer gave
        # the open turn
        self._start: Frame | None = None  # held: the reply in flight may go on
        self._finals: list[TranscriptionFrame] = []  # held until the stop decides what they are
        self._stop: Frame | None = None  # held until its final words have come, or its time is over
        self._stop_due: float | None = None
        self._latest: Any = None  # the service's latest words: whose they are, and in which language
        self._reply = 0  # the turn whose reply the bot began last
        # what the pipeline has been told
        self._open = False  # a turn
        self._ahead: tuple[int, int] | None = None  # a thought, by its turn and number
        self._confirming: int | None = None  # the id of a stop that confirms one and has not been processed
        self._adopted = False  # the last stop confirmed one, and the aggregator has asked the model for nothing since
        self._asks_again = False  # that one turned out to be lost
        self._outbox = Outbox(self, on_processed=self._has_processed, on_asked=self._has_asked)

        turns.on_start(lambda turn: self._told(Listen(turn)))
        turns.on_eager_end(lambda turn: self._told(Think(turn, turn.latest_thought, True)))
        turns.on_cancel(lambda turn, reason: self._told(Cancel(turn, turn.latest_thought, reason)))
        turns.on_end(lambda turn: self._told(Respond(turn, turn.latest_thought)))
        turns.on_interrupt(lambda number: self._told(Interrupt(number)))
        turns.on_abandon(lambda turn: self._told(Abandon(turn)))

    # -- frames that come

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if not self._outbox.is_empty and direction is DOWN and isinstance(frame, FROM_SERVICE):
            await self._outbox.room()
        if self._actions:  # what the application has fed meanwhile
            await self._say(None)
        if direction is DOWN and type(frame) in QUICK:
            await self._from_service(frame)
        elif not isinstance(frame, LOOKED_AT):
            await self.push_frame(frame, direction)
        elif direction is DOWN and isinstance(frame, FROM_SERVICE):
            await self._from_service(frame)
        else:
            await self._from_elsewhere(frame, direction)

    async def _from_service(self, frame: Frame) -> None:
        kind = type(frame)
        moved = self._feed(frame)
        if kind is InterimTranscriptionFrame:
            self._latest = frame
            if not self._actions and self._start is None and self._decides and self._outbox.is_empty:
                if self.turns.machine.deadline != self._timer.due:
                    self._set_timer()
                if moved:
                    await self.push_frame(frame)
                return
        self._decides = self._decides or (self._may_decide and isinstance(frame, PROPOSALS))
        if not self._decides:
            self._actions.clear()
            await self.push_frame(frame)
            return
        if isinstance(frame, SPOKEN):
            self._latest = frame
            if isinstance(frame, TranscriptionFrame) and frame.text.strip() and self._is_open():
                self._finals.append(frame)
        elif isinstance(frame, ProposedUserStoppedSpeakingFrame):
            if self._source.waits_for_final:
                self._stop, self._stop_due = frame, self._now() + PATIENCE
            elif not self._actions:  # it repeats an end
                self._stop = None
        if self._actions or moved:
            await self._say(frame, moved)
        elif self._stop_due is not None:
            self._set_timer()

    async def _from_elsewhere(self, frame: Frame, direction: FrameDirection) -> None:
        if isinstance(frame, StartFrame):
            self._may_decide = not any(isinstance(one, TurnGuard) for one in self._outbox.look_downstream())
            if not self._may_decide:
                logger.error(f"{self}: it only watches, since the TurnGuard behind it decides; remove one of the two")
        elif isinstance(frame, STTMetadataFrame):
            if self._may_decide and isinstance(frame.user_turn_strategies, ExternalUserTurnStrategies):
                self._decides = True
                frame.user_turn_strategies = by_the_policy(frame.user_turn_strategies, self.turns)
        elif isinstance(frame, CancelFrame):
            await self._end()
        if direction is FrameDirection.UPSTREAM and isinstance(frame, ErrorFrame | EagerEndOfTurnCancelFrame):
            await self._fail(frame)
        elif isinstance(frame, BOT) and self._decides:
            self._feed(self._reply_event(frame))
        elif isinstance(frame, TOLD):
            if isinstance(frame, UserStoppedSpeakingFrame):
                self._open = False
            self._feed(frame)
        if self._decides and not isinstance(frame, CancelFrame):
            await self._say(frame)
        self._actions.clear()
        if isinstance(frame, EndFrame) and direction is DOWN:
            await self._outbox.send(frame)
        else:
            await self.push_frame(frame, direction)

    async def _fail(self, frame: Frame) -> None:
        """The model has failed, or has cancelled its own speculation to call a tool, or Pipecat's timeout has.
        CHOICE: an error is the thought's, whichever processor behind the guard it comes from: that costs one call of
        the model, and the other way round the user would hear nothing (F03)."""
        if self._ahead is not None and not self._outbox.is_behind():
            self._feed(ThoughtFailed(*self._ahead))
        elif self._adopted and self._confirming is not None:
            self._asks_again = True
        elif self._adopted and isinstance(frame, EagerEndOfTurnCancelFrame):
            await self._ask_again()  # F02: the aggregator has committed what the model has dropped

    async def _ask_again(self) -> None:
        self._adopted = self._asks_again = False
        await self._outbox.send(LLMRunFrame())

    # -- the machine

    def _reply_event(self, frame: Frame) -> ReplyStarted | ReplyDone:
        """The bot begins the reply in flight, or speaks by itself; it stops what it began (F42). The source counts
        turns, and does not see those that the application ends."""
        if isinstance(frame, BOT[0]):
            self._adopted = False
            self._reply = self.turns.machine.reply or 0
            return ReplyStarted(self._reply)
        return ReplyDone(self._reply)

    def _now(self) -> float:
        if self._clock is None:
            self._clock = self.turns.clock or asyncio.get_running_loop().time
        return self._clock()

    def _is_open(self) -> bool:
        return self.turns.machine.turn is not None or any(isinstance(action, Respond) for action in self._actions)

    def _feed(self, item: object, least: float = 0.0) -> bool:
        """Feeds a frame or an event. Whether the open turn's text has moved."""
        self._feeding = True
        try:
            now = self._now()
            actions = self.turns.feed(item, now if now > least else least)
        except Exception as error:
            logger.opt(exception=error).error(f"{self}: a hook raised; the call goes on")
            return True  # what it returns is lost with it; interim words that say nothing new do no harm
        finally:
            self._feeding = False
        if len(actions) == 1:
            return type(actions[0]) is Hear
        return Hear in map(type, actions)

    def _told(self, action: Told) -> None:
        if not self._is_over and (self._decides or self._feeding):
            self._actions.append(action)
            if not self._feeding:
                self._speak_soon()

    def _speak_soon(self) -> None:
        self._speaking = self._speaking or self.create_task(self._speak())

    async def _speak(self) -> None:
        try:
            while self._actions or self._is_to_ask():
                if self._is_to_ask():
                    await self._ask_again()
                await self._say(None)
        finally:
            self._speaking = None

    def _is_to_ask(self) -> bool:
        return self._adopted and self._asks_again and self._confirming is None

    def _set_timer(self) -> None:
        dues = [due for due in (self.turns.machine.deadline, self._stop_due) if due is not None]
        self._timer.set(min(dues) if dues and not self._is_over else None)

    def _is_due(self, due: float) -> None:
        if self._stop_due is not None and self._stop_due <= due:
            self._stop_due = None
            self._feed(UserStoppedSpeakingFrame(), due)  # the source waits for the final words no longer
        else:
            self._feed(Tick(), due)
        if self._actions:
            self._speak_soon()
        self._set_timer()

    # -- actions as frames

    async def _say(self, frame: Frame | None, moved: bool = False) -> None:
        """Says what the machine has said, with this frame of the service's, if any, wherever it says the same. `moved`:
        its words are new."""
        actions, self._actions = self._actions, []
        machine = self.turns.machine
        goes_on = machine.reply is not None  # the reply in flight
        thinks = False
        for action in actions:
            goes_on = goes_on and type(action) is not Interrupt and type(action) is not Respond
            thinks = thinks or type(action) is Think
        interrupts = False  # whether the start of this turn interrupts
        mismatched = False
        for action in actions:
            match action:
                case Listen():
                    self._start = frame if isinstance(frame, PROPOSALS[0]) else PROPOSALS[0]()
                    if not goes_on:
                        interrupts = await self._tell_start()
                case Interrupt():
                    interrupts = await self._tell_start() or interrupts
                    if not interrupts and not isinstance(frame, InterruptionFrame):
                        await self._outbox.send(InterruptionFrame(), waits=True)
                case Think(turn, thought):
                    await self._tell_start()
                    is_same = isinstance(frame, EagerTranscriptionFrame) and frame.text == turn.transcript
                    await self._outbox.send(frame if is_same and frame else self._spoken(EagerTranscriptionFrame, turn))
                    self._ahead = (turn.number, thought)
                case Cancel(_, _, reason):
                    self._ahead = None
                    if reason is CancelReason.MISMATCHED:  # the aggregator finds that out itself, in this order
                        mismatched = True
                    elif not isinstance(frame, EagerEndOfTurnCancelFrame):
                        await self._outbox.send(EagerEndOfTurnCancelFrame(), waits=True)
                    elif frame.broadcast_sibling_id is None:
                        await self._outbox.send(frame, waits=True)
                case Respond(turn) if isinstance(frame, EndFrame):  # the end of the call answers nobody
                    self._take_stop(frame)
                    await self._keep_words(turn)
                case Respond(turn):
                    await self._tell_start()
                    await self._tell_end(turn, frame, mismatched)
                case _:
                    await self._tell_abandoned(action.turn, frame)
        if self._start is not None and not goes_on:  # the reply has ended by itself
            await self._tell_start()
            moved = True
        turn_now = machine.turn
        if moved and not thinks and self._start is None and turn_now is not None and turn_now.transcript:
            if isinstance(frame, InterimTranscriptionFrame):
                await self._outbox.send(frame)
            elif not isinstance(frame, TranscriptionFrame):
                await self._outbox.send(self._spoken(InterimTranscriptionFrame, turn_now))
        if machine.deadline != self._timer.due or self._stop_due is not None:
            self._set_timer()

    async def _tell_start(self) -> bool:
        """Tells the turn's start, if it is held. Whether the aggregator will interrupt for it."""
        start, self._start = self._start, None
        if start is None:
            return False
        opens, self._open = not self._open, True
        await self._outbox.send(start, waits=True)
        return opens

    async def _tell_end(self, turn: Turn, frame: Frame | None, waits: bool) -> None:
        finals, self._finals = self._finals, []
        if len(finals) == 1 and finals[0].text == turn.transcript:
            await self._outbox.send(finals[0], waits)
        else:
            await self._outbox.send(self._spoken(TranscriptionFrame, turn, finalized=True), waits)
        stop = self._take_stop(frame)
        self._adopted, self._asks_again = self._ahead is not None, False
        self._confirming = stop.id if self._adopted and self._outbox.follows else None
        self._ahead = None
        self._open = False
        await self._outbox.send(stop)

    async def _tell_abandoned(self, turn: Turn, frame: Frame | None) -> None:
        self._finals.clear()
        self._ahead = None
        if turn.end is EndReason.BACKCHANNEL:
            said = self._latest.user_id if self._latest else ""
            await self._outbox.send(UserBackchannelFrame(turn.transcript, said, time_now_iso8601()))
        else:
            await self._keep_words(turn)
        stop = self._take_stop(frame)
        if self._start is not None:
            self._start = None  # nobody has been told of it
        elif turn.end is not EndReason.SUPERSEDED and not isinstance(frame, EndFrame):
            await self._outbox.send(stop)

    async def _keep_words(self, turn: Turn) -> None:
        """Puts words that nobody answers into the context (F05)."""
        if turn.transcript.strip():
            await self._outbox.send(
                LLMMessagesAppendFrame([{"role": "user", "content": turn.transcript}], run_llm=False)
            )

    def _take_stop(self, frame: Frame | None) -> Frame:
        held, self._stop, self._stop_due = self._stop, None, None
        return frame if isinstance(frame, PROPOSALS[1]) else held or PROPOSALS[1]()

    def _spoken(self, kind: Any, turn: Turn, **fields: Any) -> Frame:
        user_id, language = (self._latest.user_id, self._latest.language) if self._latest else ("", None)
        made: Frame = kind(turn.transcript, user_id, time_now_iso8601(), language, **fields)
        return made

    # -- what the outbox tells

    def _has_processed(self, frame_id: int) -> None:
        if frame_id == self._confirming:
            self._confirming = None
            if self._is_to_ask():
                self._speak_soon()

    def _has_asked(self) -> None:
        self._adopted = False

    # -- the end

    async def cleanup(self) -> None:
        await self._end()
        self._outbox.unlink()
        await super().cleanup()

    async def _end(self) -> None:
        self._is_over = True
        self._timer.set(None)
        speaking, self._speaking = self._speaking, None
        if speaking is not None:
            await self.cancel_task(speaking)
        await self._outbox.close()
