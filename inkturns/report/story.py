"""What happened in a call: its turns, thoughts and replies, and when.

Rules of this file: pure; what the recording does not tell is None, never guessed; times are seconds since the call's
first input, and never run backwards; words are as they were recorded.
"""

from typing import Any

import attrs

from inkturns.actions import (
    Abandon,
    Action,
    Cancel,
    CancelReason,
    Hear,
    Interrupt,
    Listen,
    Report,
    Respond,
    Resume,
    Stall,
    Think,
    Turn,
)
from inkturns.errors import RecordingError
from inkturns.events import Disconnected, Event, ReplyDone, ReplyStarted, ServerEvent, TurnEagerEnd
from inkturns.report.calls import Input, Missing, Note, RecordedCall, Step, seconds
from inkturns.report.picture import MarkKind

__all__ = ["Happened", "PastReply", "PastThought", "PastTurn", "Story", "story_of"]


@attrs.define(eq=False)
class PastTurn:
    """A turn of the user. `ended` None: it was still open when the recording ended, or, in all that stands here, at
    `unseen`, from when on the recording does not tell of it."""

    number: int
    begun: float
    words: str = ""
    continues: int | None = None
    interrupted: int | None = None
    ended: float | None = None
    end: str = ""
    answered: bool = False
    thoughts: int = 0
    unseen: float | None = None


@attrs.define(eq=False)
class PastThought:
    """A thought, from its Think on. `decided`: when it was adopted (`adopted`) or cancelled (`reason`)."""

    turn: int
    number: int
    asked: float
    speculative: bool
    adopted: bool = False
    decided: float | None = None
    reason: CancelReason | None = None
    began: float | None = None
    first_item: float | None = None
    finished: float | None = None
    cut: float | None = None
    items: int | None = None
    error: str | None = None
    unseen: float | None = None
    usage: dict[str, float] = attrs.field(factory=dict)
    told: float | None = None  # what the agent said that it saved

    @property
    def saved(self) -> float | None:
        """Seconds that its reply began earlier; 0 for one that was begun at the end, None where nobody can tell."""
        if not self.speculative or self.told is not None:
            return self.told or 0.0
        if self.first_item is None or self.decided is None:
            return None
        began = self.asked if self.began is None else self.began
        return max(0.0, min(self.decided, self.first_item) - began)


@attrs.define(eq=False)
class PastReply:
    """What the agent said: `number` is its turn's, 0 where the application spoke by itself. `sound` None: nobody heard
    it. `over` None: it went on when the recording ended. `cut`: it was interrupted."""

    number: int
    begun: float
    thought: PastThought | None = None
    sound: float | None = None
    over: float | None = None
    cut: bool = False
    failed: bool = False
    words: str | None = None
    unseen: float | None = None


@attrs.frozen
class Happened:
    """A moment, and what the recording says of it."""

    kind: MarkKind
    at: float
    text: str = ""


@attrs.define(eq=False)
class Story:
    """All of it. `noted`: an Agent wrote the recording; `sounds`: somebody told when replies became audible."""

    zero: float
    now: float = 0.0
    turns: list[PastTurn] = attrs.field(factory=list)
    thoughts: dict[tuple[int, int], PastThought] = attrs.field(factory=dict)
    replies: list[PastReply] = attrs.field(factory=list)
    marks: list[Happened] = attrs.field(factory=list)
    noted: bool = False
    sounds: bool = False
    _turn: PastTurn | None = None  # the open one
    _lost: Happened | None = None  # a connection; it counts once the server is heard again

    def take(self, step: Step) -> None:
        """The next step of the call."""
        if isinstance(step, Missing):
            self._mark(MarkKind.PAUSE, str(step.inputs))
            self._lose_sight()
            return
        if step.t is not None:
            self.now = max(self.now, round(step.t - self.zero, 4))
        if isinstance(step, Note):
            self.noted = True
            self._note(step)
            return
        if self._lost is not None and isinstance(step.event, ServerEvent):
            self.marks.append(self._lost)
            self._lost = None
        self._event(step.event)
        for action in step.actions:
            self._act(action)
        if isinstance(step.event, TurnEagerEnd) and self._turn is not None:
            self._mark(MarkKind.EAGER_END)

    def _lose_sight(self) -> None:
        """Nobody knows what becomes of what is open."""
        thoughts = [thought for thought in self.thoughts.values() if thought.decided is None]
        for one in (self._turn, self._reply(None), *thoughts):
            if one is not None and one.unseen is None:
                one.unseen = self.now
        self._turn = None

    def _mark(self, kind: MarkKind, text: str = "") -> None:
        self.marks.append(Happened(kind, self.now, text))

    # -- inputs

    def _event(self, event: Event | None) -> None:
        match event:
            case Disconnected(reason):
                self._lost = Happened(MarkKind.LOST, self.now, reason or "")
            case ReplyStarted(number):
                self.sounds = True
                reply = self._reply(number)
                if reply is None and number == 0:
                    reply = PastReply(0, self.now)
                    self.replies.append(reply)
                if reply is not None and reply.sound is None:
                    reply.sound = self.now
            case ReplyDone(number):
                self._over(number, cut=False)

    def _reply(self, number: int | None) -> PastReply | None:
        """The reply in flight, where it is that one (None: whichever it is)."""
        reply = self.replies[-1] if self.replies else None
        return (
            reply
            if reply is not None and reply.over is reply.unseen is None and number in (None, reply.number)
            else None
        )

    def _over(self, number: int | None, *, cut: bool) -> None:
        reply = self._reply(number)
        if reply is not None:
            reply.over, reply.cut = self.now, cut

    # -- actions

    def _act(self, action: Action) -> None:
        match action:
            case Listen(turn):
                if self._turn is not None:  # lines are missing
                    self._lose_sight()
                self._turn = PastTurn(turn.number, self.now, continues=turn.continues)
                self.turns.append(self._turn)
            case Hear(turn, delta):
                if self._turn is not None:
                    self._turn.words = turn.transcript
                if delta is None:
                    self._mark(MarkKind.REVISED, turn.transcript)
                else:
                    self._mark(MarkKind.WORDS, delta)
            case Resume():
                self._mark(MarkKind.RESUME)
            case Stall():
                self._mark(MarkKind.STALL)
            case Think(turn, number, speculative):
                self.thoughts[turn.number, number] = PastThought(turn.number, number, self.now, speculative)
                if self._turn is not None:
                    self._turn.thoughts += 1
            case Cancel(turn, number, reason):
                if (thought := self.thoughts.get((turn.number, number))) is not None:
                    thought.decided, thought.reason = self.now, reason
            case Respond(turn, number):
                if (thought := self.thoughts.get((turn.number, number))) is not None:
                    thought.decided, thought.adopted = self.now, True
                self._close(turn, answered=True)
                self.replies.append(PastReply(turn.number, self.now, thought))
            case Abandon(turn):
                self._close(turn, answered=False)
            case Interrupt(number):
                self._over(number, cut=True)
            case _:
                assert isinstance(action, Report)
                self._mark(MarkKind.REPORT, f"{action.kind.replace('_', ' ')}: {action.detail}")

    def _close(self, turn: Turn, *, answered: bool) -> None:
        opened, self._turn = self._turn, None
        if opened is not None:
            opened.ended, opened.answered, opened.end = self.now, answered, str(turn.end or "").replace("_", " ")
            opened.words, opened.interrupted = turn.transcript, turn.interrupted

    # -- notes

    def _note(self, note: Note) -> None:
        inner = note.facts.get(note.what)  # the thought that is settled, the reply that is over
        facts = {**note.facts, **(inner if isinstance(inner, dict) else {})}
        if note.what in ("heard", "replied"):
            self._replied(note.turn, facts)
            return
        if note.what == "report":
            self._mark(MarkKind.REPORT, f"{str(facts.get('kind')).replace('_', ' ')}: {facts.get('detail')}")
            return
        number = facts.get("thought")
        thought = self.thoughts.get((note.turn, number)) if isinstance(number, int) else None
        if thought is None:
            return
        if note.what == "began":
            thought.began = self.now
        elif note.what == "first":
            thought.first_item = self.now
        elif note.what in ("finished", "failed"):
            thought.finished = self.now
        elif note.what == "settled":
            self._settled(thought, facts)
        if isinstance(items := facts.get("items"), int):
            thought.items = items

    def _settled(self, thought: PastThought, facts: dict[str, Any]) -> None:
        thought.began = self._when(facts, "began", thought.began)
        thought.first_item = self._when(facts, "first_item", thought.first_item)
        thought.finished = self._when(facts, "finished", thought.finished)
        thought.cut = self._when(facts, "cancelled_at", None)
        thought.told = seconds(facts.get("saved"))
        thought.error = error if isinstance(error := facts.get("error"), str) else None
        used = facts.get("usage")
        if isinstance(used, dict):
            counts = {name: seconds(used.get(name)) for name in ("input_tokens", "output_tokens", "cost")}
            thought.usage = {name: count for name, count in counts.items() if count}

    def _replied(self, number: int, facts: dict[str, Any]) -> None:
        reply = next((one for one in reversed(self.replies) if one.number == number), None)
        if reply is None:
            return
        outcome, sounded_at = facts.get("outcome"), self._when(facts, "sounded_at", None)
        if number == 0 and outcome is not None and sounded_at is None:
            return  # another one, which was not heard
        reply.sound = reply.sound if sounded_at is None else sounded_at
        reply.over = self._when(facts, "over_at", reply.over)
        reply.cut = reply.cut or outcome in ("interrupted", "not_begun")
        reply.failed = outcome == "failed"
        if reply.thought is not None and reply.thought.told is None:
            reply.thought.told = seconds(facts.get("saved"))
        text = facts.get("text")
        reply.words = text if isinstance(text, str) else reply.words

    def _when(self, facts: dict[str, Any], name: str, otherwise: float | None) -> float | None:
        t = seconds(facts.get(name))
        return otherwise if t is None else min(max(0.0, round(t - self.zero, 4)), self.now)


def story_of(call: RecordedCall) -> Story:
    """Raises RecordingError where no input has a time: then there is nothing to place anything by."""
    times = [step.t for step in call.steps if isinstance(step, Input) and step.t is not None]
    if not times:
        raise RecordingError(
            "no input of the call has a time, so it has no timeline; "
            "an Agent records times, and so does Turns(clock=time.monotonic, recorder=…)"
        )
    story = Story(times[0])
    for step in call.steps:
        story.take(step)
    return story
