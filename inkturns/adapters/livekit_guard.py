"""LiveKit: the machine between an agent's `stt_node` and LiveKit. `livekit.guarded` is the way in.

Rules of this file: what the machine says comes by the hooks of `Turns`, whoever fed it, and leaves as speech events in
the order of the actions. An event of the node that says the same goes on as it is. Where time, or a reply that ends,
may give LiveKit something to hear first, the node is read in a task (livekit_reader.py).

    Listen                START_OF_SPEECH
    Hear                  INTERIM_TRANSCRIPT; none where Think or Respond comes with it
    Think, speculative    PREFLIGHT_TRANSCRIPT: LiveKit begins to generate
    Respond               FINAL_TRANSCRIPT, END_OF_SPEECH
    Abandon               END_OF_SPEECH
    Cancel                nothing, where other words follow: LiveKit drops the generation then; else see `_settle`

While a reply goes on that the turn does not interrupt (Policy.interrupts), LiveKit hears nothing of the turn.
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias

import attrs

from inkturns.actions import CancelReason, Hear, Turn
from inkturns.adapters.livekit_reader import Reader
from inkturns.errors import DecodeError
from inkturns.events import Disconnected, ReplyDone, ReplyStarted, Tick, TurnUpdate, Unknown, UsePolicy
from inkturns.policy import AfterResume, Policy
from inkturns.sources import Source
from inkturns.turns import Turns

if TYPE_CHECKING:
    from inkturns.recording import Recorder

__all__ = ["STEPS", "Guard", "Session", "Speech"]

Speech: TypeAlias = Any  # LiveKit's SpeechEvent, which is not imported here; and what else its nodes and emitters give
Session: TypeAlias = Any  # its AgentSession

START, INTERIM, PREFLIGHT = "start_of_speech", "interim_transcript", "preflight_transcript"
FINAL, END, USAGE = "final_transcript", "end_of_speech", "recognition_usage"
NO_WORDS = " "
HOOK_RAISED = "a hook raised; the speech goes on"
NOTHING: Speech = object()  # no item: time has passed, or something was fed meanwhile
STEPS: Speech = (
    object()
)  # here LiveKit takes up the turn that has ended; it would join one that starts in the same step

_log = logging.getLogger("inkturns.adapters.livekit")


@attrs.define(eq=False)
class Guard:
    """What LiveKit has been told of the turns of one `Turns`. It outlives a node: LiveKit asks for a new one after a
    failure, and keeps its own state. It holds no Turns, whose hooks hold it."""

    source: Source
    recorder: "Recorder | None"
    session: Session = attrs.field(default=None, init=False)
    node: Reader | None = attrs.field(default=None, init=False)  # the one that began last; None once it has ended
    may_wait: bool = attrs.field(default=False, init=False)  # LiveKit may have to hear something before the next item
    now: Callable[[], float] = attrs.field(default=float, init=False)
    _out: list[Speech] = attrs.field(factory=list, init=False)  # events for LiveKit
    _event: Any = attrs.field(default=object, init=False)  # LiveKit's SpeechEvent: at any other its hearing ends (F10)
    _item: Speech = attrs.field(default=None, init=False)  # the event at hand
    _said: Speech = attrs.field(default=None, init=False)  # the event that last moved the text
    _told: int = attrs.field(default=0, init=False)  # the turn of LiveKit's last START_OF_SPEECH
    _text: str = attrs.field(default="", init=False)  # and the last text of it that LiveKit has
    _think: bool = attrs.field(default=False, init=False)  # a thought has begun, and LiveKit is still to be told
    _begun_on: str | None = attrs.field(default=None, init=False)  # the words on which LiveKit generates
    _void: bool = attrs.field(default=False, init=False)  # that generation was cancelled
    _is_plain: bool = attrs.field(default=False, init=False)  # a Hear alone is an interim, and nothing else
    _policy: Policy | None = attrs.field(default=None, init=False)  # with which that was found
    _preflight: str = attrs.field(default="", init=False)  # the last PREFLIGHT_TRANSCRIPT since the last final text
    _ended_alone: bool = attrs.field(default=False, init=False)  # the last END_OF_SPEECH had no final text
    _owes_end: bool = attrs.field(default=False, init=False)  # the node's END_OF_SPEECH is still to come
    _is_behind: bool = attrs.field(default=False, init=False)  # in this step comes what the node said meanwhile
    _speaks: int | None = attrs.field(default=None, init=False)  # the reply that LiveKit speaks
    _speeches: list[Speech] = attrs.field(factory=list, init=False)  # LiveKit's handles that may not be done
    _woken: asyncio.Future[None] | None = attrs.field(default=None, init=False)

    # -- the hooks of Turns

    def watch(self, turns: Turns) -> None:
        turns.on_eager_end(self._on_eager_end)
        turns.on_cancel(self._on_cancel)
        turns.on_end(self._on_end)
        turns.on_abandon(self._on_abandon)

    def _on_eager_end(self, turn: Turn) -> None:
        self._think, self._is_plain = True, False
        if self._woken is not None:
            self._wake()

    def _on_cancel(self, turn: Turn, reason: CancelReason) -> None:
        if self._think:
            self._think = False
        else:
            self._void, self._is_plain = self._begun_on is not None, False

    def _on_end(self, turn: Turn) -> None:
        text = turn.transcript
        if self._told != turn.number:
            self._start(turn)
        if self._void:
            self._settle(text)
        event = self._speech(FINAL, text)
        self._out.append(event)
        self._owes_end = event is self._item  # the node's own END_OF_SPEECH follows its own final text
        if not self._owes_end:
            self._out.append(self._silent(END))
        if self._ended_alone and text != self._preflight:
            self._note(turn, "LiveKit generates at this final text by its own rule, not by the Policy")
        self._begun_on, self._preflight = None, ""
        self._void = self._think = self._ended_alone = False
        if self._woken is not None:
            self._wake()

    def _on_abandon(self, turn: Turn) -> None:
        if self._told == turn.number:
            self._settle(None)
            self._out.append(self._silent(END))
            self._ended_alone = True
        self._wake()

    # -- to LiveKit

    def _start(self, turn: Turn) -> None:
        self._end_owed()
        is_sent = self._item is not None and self._item.type == START
        may_be_joined = bool(self._out) or not is_sent or self._is_behind
        if may_be_joined and self._told and not self._ended_alone:  # an answered turn may have just ended
            self._out.append(STEPS)
        self._told, self._text = turn.number, ""
        self._out.append(self._silent(START))

    def _end_owed(self) -> None:
        """The node has forgotten its END_OF_SPEECH."""
        if self._owes_end:
            self._owes_end = False
            self._out.append(self._silent(END))

    def _tell(self, turn: Turn, held: bool) -> None:
        """The open turn, as far as LiveKit is still to be told; nothing of it while a reply goes on."""
        if self._item is not None and self._item.alternatives:
            self._said = self._item
        if held:
            return
        text = turn.transcript
        if self._told != turn.number:
            self._start(turn)
        if self._think:
            self._out.append(self._speech(PREFLIGHT, text))
            self._begun_on = self._preflight = text
            self._void = self._think = False
        elif text != self._text:
            self._settle(text)
            self._out.append(self._speech(INTERIM, text))
        self._text = text

    def _settle(self, text: str | None) -> None:
        """Before LiveKit hears this text, or, for None, that the turn is over: it must not keep a generation that was
        cancelled.

        An interim with other words makes LiveKit drop it. Where no words follow, or those that LiveKit takes for the
        same ("-5" for "5"), an interim without words goes first. Left alone, the next turn with the same words would
        adopt it (F15). CHOICE: where a turn is abandoned while LiveKit speaks, that waits for the next words, since any
        interim would interrupt the speech."""
        if not self._void or self._begun_on is None or (text is None and not self._is_quiet()):
            return
        if text is None or _letters(text) == _letters(self._begun_on):
            self._interrupt()  # LiveKit 2.0's preview heeds no interim
            self._out.append(self._speech(INTERIM, NO_WORDS))
        self._void, self._begun_on = False, None

    def _interrupt(self) -> None:
        """Drops the generation where no words follow, if that stops nothing else."""
        if self.session is not None and self._is_quiet():
            self._void, self._begun_on = False, None
            with suppress(RuntimeError):  # the session is closing
                self.session.interrupt()

    def _is_quiet(self) -> bool:
        """As far as is known, LiveKit speaks nothing, and nothing waits to be spoken."""
        if self.session is None:
            return True
        waits = any(speech.scheduled and not speech.done() for speech in self._speeches)
        return self.session.current_speech is None and not waits

    def _speech(self, kind: str, text: str) -> Speech:
        """An event with this text: the event at hand, or the last one, where its text is this one. Its language, words,
        speaker, confidence and ids stay."""
        said, item = self._said, self._item
        for event in (item, said):
            if event is not None and event.alternatives and event.alternatives[0].text == text:
                return event if event.type == kind else replace(event, type=type(event.type)(kind))
        from livekit.agents.stt import SpeechData, SpeechEvent, SpeechEventType

        if said is None:
            data = SpeechData(language="", text=text)  # type: ignore[arg-type, unused-ignore]
            return SpeechEvent(type=SpeechEventType(kind), alternatives=[data])
        data = replace(said.alternatives[0], text=text, words=None)
        return replace(said, type=SpeechEventType(kind), alternatives=[data])

    def _silent(self, kind: str) -> Speech:
        """An event without text: the event at hand, or a new one."""
        item = self._item
        if item is not None and item.type == kind:
            return item
        from livekit.agents.stt import SpeechEvent, SpeechEventType

        return SpeechEvent(type=SpeechEventType(kind))

    def _note(self, turn: Turn, detail: str) -> None:
        if self.recorder is not None:
            self.recorder.note({"t": self.now(), "agent": "livekit", "turn": turn.number, "detail": detail})

    # -- from the node and the session

    def begin(self, turns: Turns, session: Session, node: Reader) -> Callable[[], None]:
        """A node begins. Returns what its end calls. `clear_user_turn` has the next begin before the last is closed."""
        from livekit.agents.stt import SpeechEvent

        if self.node is not None:
            self.end(turns, self.node, is_heard=False)
        self.node = node
        self._event = SpeechEvent
        self.session = session
        self.now = turns.clock or asyncio.get_running_loop().time
        policy = turns.machine.policy
        self.may_wait = _is_timed(policy) or policy.interrupts is not None
        if session is None:
            if policy.after_resume is AfterResume.CANCEL:
                self.feed(turns, UsePolicy(attrs.evolve(policy, after_resume=AfterResume.KEEP)))
            return lambda: None

        def on_state(event: Speech) -> None:
            self._tell_reply(turns, event.new_state)

        def on_speech(event: Speech) -> None:
            self._speeches = [speech for speech in self._speeches if not speech.done()]
            self._speeches.append(event.speech_handle)

        session.on("agent_state_changed", on_state)
        session.on("speech_created", on_speech)
        self._tell_reply(turns, session.agent_state)

        def end() -> None:
            session.off("agent_state_changed", on_state)
            session.off("speech_created", on_speech)

        return end

    def _tell_reply(self, turns: Turns, state: str) -> None:
        """The agent speaks, or has ended: a ReplyStarted and a ReplyDone with the same number (F42)."""
        if state == "speaking" and self._speaks is None:
            self._speaks = turns.machine.reply or 0
            self.feed(turns, ReplyStarted(self._speaks))
        elif state != "speaking" and self._speaks is not None:
            number, self._speaks = self._speaks, None
            self.feed(turns, ReplyDone(number))
            self._wake()

    def take(self, turns: Turns, item: Speech) -> list[Speech]:
        """What LiveKit is to be given now that this has come: an item of the node, or NOTHING."""
        is_known = goes_on = False
        if item is not NOTHING:
            try:
                events = self.source.events(item)
            except DecodeError:
                events = ()
                self.feed(turns, item if turns.source is not None else None)  # a report: LiveKit cannot read it either
            else:
                if isinstance(item, self._event):
                    self._item = item
                    is_known = True
                    goes_on = not events and item.type == USAGE
                if self._owes_end and item.type == END:  # of the turn whose final text has gone on
                    self._owes_end = False
                    self._out.append(self._silent(END))
            for event in events:
                try:
                    actions = turns.feed(event, self.now())
                except Exception:
                    _log.exception(HOOK_RAISED)
                else:
                    if (
                        (len(actions) == 1 and self._is_plain and type(event) is TurnUpdate and is_known)
                        and turns.machine.policy is self._policy
                        and type(action := actions[0]) is Hear
                        and action.turn.number == self._told
                    ):  # as most are
                        self._text, self._said, self._item = action.turn.transcript, item, None
                        return [item]
                goes_on = is_known and type(event) is Unknown  # of a newer LiveKit
        machine = turns.machine
        turn, policy = machine.turn, machine.policy
        held = False
        if turn is not None and (turn.transcript is not self._text or self._think or turn.number != self._told):
            held = machine.reply is not None
            self._tell(turn, held)
        if self._void:
            self._interrupt()
        is_timed = _is_timed(policy)
        self._policy = policy
        self._is_plain = not (self._void or is_timed or policy.interrupts is not None)
        self.may_wait = held or (is_timed and machine.deadline is not None)
        self._item = None
        out, self._out = self._out, []
        if goes_on:
            out.append(item)
        return out

    async def step(self) -> None:
        """Lets LiveKit take up the turn that has ended. Several turns may follow then in one step."""
        for _ in range(5):  # two are enough for LiveKit 1.8
            await asyncio.sleep(0)
        self._is_behind = True
        asyncio.get_running_loop().call_soon(self._has_caught_up)

    def _has_caught_up(self) -> None:
        self._is_behind = False

    def feed(self, turns: Turns, item: object) -> None:
        """CHOICE: what a hook raises is logged, and not raised: it would end the agent's hearing for good."""
        try:
            turns.feed(item, self.now())
        except Exception:
            _log.exception(HOOK_RAISED)

    async def wait(self, turns: Turns, reader: Reader) -> Speech:
        """The node's next item; NOTHING where a deadline, or what somebody fed, came first."""
        ahead, deadline = reader.ask(), turns.machine.deadline
        loop = asyncio.get_running_loop()
        woken = self._woken = loop.create_future()

        def wake(_: object) -> None:
            if not woken.done():
                woken.set_result(None)

        timer = None if deadline is None else loop.call_later(max(0.0, deadline - self.now()), wake, None)
        ahead.add_done_callback(wake)
        try:
            await woken
        finally:
            if self._woken is woken:  # no node has begun meanwhile
                self._woken = None
            ahead.remove_done_callback(wake)
            if timer is not None:
                timer.cancel()
        if ahead.done():
            return reader.take()
        if deadline is not None and self.now() >= deadline:
            self.feed(turns, Tick())
        return NOTHING

    def _wake(self) -> None:
        if self._woken is not None and not self._woken.done():
            self._woken.set_result(None)

    def end(self, turns: Turns, node: Reader, *, is_heard: bool) -> list[Speech]:
        """This node is over; the open turn is handed over. `is_heard`: LiveKit hears of it; else it keeps what it
        generates, which is dropped in the next turn. Nothing, where another node has begun: the turn is that one's."""
        if node is not self.node:
            return []
        self.node = None
        begun_on, ended_alone = self._begun_on, self._ended_alone
        self._end_owed()
        self.feed(turns, Disconnected("the stt_node is over"))
        out = self.take(turns, NOTHING)
        if not is_heard:
            self._begun_on, self._void, self._ended_alone = begun_on, begun_on is not None, ended_alone
        return out


def _is_timed(policy: Policy) -> bool:
    return policy.think_after > 0 or policy.stall_timeout is not None


def _letters(text: str) -> str:
    """Texts that LiveKit takes for the same words have the same letters."""
    return "".join(filter(str.isalnum, text.casefold()))
