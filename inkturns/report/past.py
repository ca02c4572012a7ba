"""What happened in a call, for asking what else could have: its inputs, and what became of its thoughts and replies.

Rules of this file: pure. A call is read up to the first pause of its recorder: what follows depends on inputs that
nobody knows. The agent's own inputs are kept apart, because another policy makes others of them.
"""

from collections.abc import Mapping

import attrs

from inkturns.actions import Abandon, Action, Interrupt, Listen, Respond, Think
from inkturns.errors import RecordingError
from inkturns.events import Event, ReplyDone, ReplyStarted, ThoughtFailed, Tick, TurnEagerEnd
from inkturns.reader import Header
from inkturns.report.calls import Input, Note, RecordedCall, seconds
from inkturns.report.drafts import CallDraft, RepliedNote, ReportNote, SettledNote, UsageNote, between
from inkturns.report.rows import TurnRow
from inkturns.report.survival import Latencies, Stratum, stratum_of
from inkturns.serialize import converted

__all__ = ["ARM", "Flight", "KnownReply", "KnownThought", "KnownTurn", "PastCall", "PastInput", "past_of"]

ARM = "arm"  # the label that tells arms apart
NOTES: dict[str, type[SettledNote | RepliedNote | ReportNote]] = {
    "settled": SettledNote,
    "replied": RepliedNote,
    "report": ReportNote,
}
OWN = (ReplyDone, ThoughtFailed, Tick)  # inputs that the agent makes


@attrs.frozen
class PastInput:
    """An input that would have come under any policy. `actions` are kept for a frame that could not be read."""

    t: float | None
    event: Event | None
    actions: tuple[Action, ...]


@attrs.define(eq=False)
class KnownThought:
    """A thought. `note`: what its Agent told of it; None beside another agent. `failed_at`: when it raised."""

    text: str
    at: float | None
    note: SettledNote | None = None
    failed_at: float | None = None

    @property
    def began(self) -> float | None:
        return None if self.note is None else seconds(self.note.began)

    @property
    def first_item(self) -> float | None:
        """Seconds from its beginning to its first item."""
        return None if self.note is None else between(self.began, seconds(self.note.first_item))

    @property
    def waited(self) -> float | None:
        """Seconds for which its first item is known not to have come, where it never came."""
        if self.note is None or self.first_item is not None:
            return None
        ends = (seconds(self.note.cancelled_at), self.failed_at, seconds(self.note.finished))
        known = [end for end in ends if end is not None]
        return between(self.began, min(known)) if known and self.note.finished is None else None

    @property
    def making(self) -> float | None:
        """Seconds from its first item to its last, where all of it was made."""
        return None if self.note is None else between(seconds(self.note.first_item), seconds(self.note.finished))

    @property
    def made_for(self) -> float:
        """Seconds from its first item until it was cut, where not all of it was made."""
        return 0.0 if self.note is None else between(self.note.first_item, self.note.cancelled_at) or 0.0

    @property
    def failed_after(self) -> float | None:
        return between(self.began, self.failed_at)

    @property
    def model(self) -> str | None:
        model = None if self.note is None else self.note.notes.get("model")
        return model if isinstance(model, str) else None

    @property
    def usage(self) -> UsageNote | None:
        return None if self.note is None else self.note.usage


@attrs.define(eq=False)
class KnownReply:
    """A reply. `ready`: when its turn was over and its first item was made."""

    ready: float | None
    taken: float | None = None  # when `respond` took its first item
    sounded: float | None = None
    over: float | None = None
    cut: bool = False

    @property
    def take_lag(self) -> float:
        """Seconds from `ready` until its first item was taken."""
        return between(self.ready, self.taken) or 0.0

    @property
    def lag(self) -> float | None:
        """Seconds from `ready` until it was audible."""
        return between(self.ready, self.sounded)

    @property
    def length(self) -> float | None:
        """Seconds for which it was audible; the least, where it was cut."""
        return between(self.sounded, self.over)


@attrs.define(eq=False)
class KnownTurn:
    """A turn, by the input that opened it. `in_flight`: whether a reply was, when it opened or at an eager end."""

    number: int
    in_flight: bool
    thoughts: list[KnownThought] = attrs.field(factory=list)
    reply: KnownReply | None = None

    @property
    def failed(self) -> bool:
        return any(thought.failed_at is not None for thought in self.thoughts)


@attrs.define(eq=False)
class PastCall:
    """A call. `turns` are by the place in `inputs` of the one that opened them; `speeches` how long the application
    spoke by itself, by the place of its ReplyStarted; `paused` whether there is more that nobody can tell."""

    header: Header | None
    inputs: list[PastInput] = attrs.field(factory=list)
    turns: dict[int, KnownTurn] = attrs.field(factory=dict)
    speeches: dict[int, KnownReply] = attrs.field(factory=dict)
    catching_up: list[int] = attrs.field(factory=list)
    rows: list[TurnRow] = attrs.field(factory=list)
    last: float | None = None  # the time of its last line
    paused: bool = False

    @property
    def arm(self) -> str:
        labels = None if self.header is None else self.header.labels
        arm = labels.get(ARM) if isinstance(labels, Mapping) else None
        return arm if isinstance(arm, str) else ""

    @property
    def model(self) -> str | None:
        """The model of its latest thought that names one."""
        models = [thought.model for turn in self.turns.values() for thought in turn.thoughts if thought.model]
        return models[-1] if models else None

    def stratum(self, text: str, model: str | None) -> Stratum:
        return stratum_of(self.arm, model, text)

    def tell(self, latencies: Latencies) -> None:
        """Adds what its thoughts tell of the model."""
        for turn in self.turns.values():
            for thought in turn.thoughts:
                waited = thought.waited if thought.first_item is None else thought.first_item
                if waited is not None:
                    stratum = self.stratum(thought.text, thought.model or self.model)
                    latencies.add(stratum, waited, seen=thought.first_item is not None)


@attrs.define
class Flight:
    """Which reply is in flight, from what went in and what came out."""

    number: int | None = None

    def take(self, event: Event | None, actions: tuple[Action, ...]) -> None:
        if isinstance(event, ReplyStarted) and event.number == 0 and self.number is None:
            self.number = 0
        elif isinstance(event, ReplyDone) and event.number in (None, self.number):
            self.number = None
        for action in actions:
            if isinstance(action, Respond):
                self.number = action.turn.number
            elif isinstance(action, Interrupt):
                self.number = None


def past_of(call: RecordedCall) -> PastCall:
    """Reads a call."""
    return _Reading(PastCall(call.header), CallDraft(call.header)).read(call)


@attrs.define
class _Reading:
    past: PastCall
    draft: CallDraft
    flight: Flight = attrs.field(factory=Flight)
    open: KnownTurn | None = None
    thoughts: dict[tuple[int, int], KnownThought] = attrs.field(factory=dict)
    replies: dict[int, KnownReply] = attrs.field(factory=dict)
    adopted: dict[int, KnownThought] = attrs.field(factory=dict)

    def read(self, call: RecordedCall) -> PastCall:
        past = self.past
        for step in call.steps:
            if isinstance(step, Input):
                past.last = step.t if step.t is not None else past.last
                self.draft.take(step.t, step.event, step.actions)
                self.take(step)
            elif isinstance(step, Note):
                past.last = step.t if step.t is not None else past.last
                self.note(step)
            else:
                past.paused = True
                break
        for number, reply in self.replies.items():
            thought = self.adopted.get(number)
            made = None if thought is None or thought.note is None else seconds(thought.note.first_item)
            if reply.ready is not None and made is not None:
                reply.ready = max(made, reply.ready)
        past.rows = self.draft.rows()
        return past

    def take(self, step: Input) -> None:
        t, event, past, before = step.t, step.event, self.past, self.flight.number
        speech = isinstance(event, ReplyStarted) and event.number == 0
        if not isinstance(event, (*OWN, ReplyStarted)) or speech:
            past.inputs.append(PastInput(t, event, step.actions if event is None else ()))
        if isinstance(event, ReplyStarted):
            if speech and before is None:
                past.speeches[len(past.inputs) - 1] = self.replies[0] = KnownReply(t, sounded=t)
            elif (reply := self.replies.get(event.number)) is not None and reply.sounded is None:
                reply.sounded = t
        elif isinstance(event, ReplyDone) and before is not None and event.number in (None, before):
            self.over(before, t, cut=False)
        elif isinstance(event, ThoughtFailed) and (failed := self.thoughts.get((event.number, event.thought))):
            failed.failed_at = t
        elif isinstance(event, TurnEagerEnd) and self.open is not None and before is not None:
            self.open.in_flight = True
        for action in step.actions:
            self.act(action, t, before)
        self.flight.take(event, step.actions)

    def act(self, action: Action, t: float | None, before: int | None) -> None:
        match action:
            case Listen(turn):
                self.open = KnownTurn(turn.number, before is not None)
                self.past.turns[len(self.past.inputs) - 1] = self.open
            case Think(turn, number) if self.open is not None:
                thought = KnownThought(turn.transcript, t)
                self.thoughts[turn.number, number] = thought
                self.open.thoughts.append(thought)
            case Respond(turn, number) if self.open is not None:
                self.open.reply = self.replies[turn.number] = KnownReply(t)
                if (adopted := self.thoughts.get((turn.number, number))) is not None:
                    self.adopted[turn.number] = adopted
                self.open = None
            case Abandon():
                self.open = None
            case Interrupt(number):
                self.over(number, t, cut=True)

    def over(self, number: int, t: float | None, *, cut: bool) -> None:
        reply = self.replies.get(number)
        if reply is not None and reply.over is None:
            reply.over, reply.cut = t, cut

    def note(self, note: Note) -> None:
        if note.what == "catching_up":
            self.past.catching_up.append(note.turn)
            self.draft.catches_up(note.turn)
        elif note.what in NOTES:
            try:
                said = converted(note.facts.get(note.what), NOTES[note.what])
            except RecordingError:
                return  # a note that cannot be read costs that note
            self.draft.note(note.turn, said)
            if isinstance(said, SettledNote) and (thought := self.thoughts.get((note.turn, said.thought))):
                thought.note = said
            elif isinstance(said, RepliedNote) and (reply := self.replies.get(note.turn)):
                reply.taken = seconds(said.first_item)
