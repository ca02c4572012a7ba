"""What telemetry makes of one call, as it happens or out of a recording: the same inputs and notes give the same spans.

Rules of this file:
- It is told what a recorder is told, and nothing else. It decides nothing, and reads no clock.
- Durations are those of `inkturns.report`: from the times of the inputs, and from the agent's notes.
- The spans of a thought and a reply end where their note says so; those of a watcher, whose thoughts and replies leave
  no notes, where the machine has done with them. A turn's span ends last, once it is closed and all of this is known.
- While a turn is open its spans begin, and nothing else is told: the rest is told in one go when it is over. The same
  work takes less of the processor so than in many small pieces between other calls'.
- Where the call ends, what is still open is ended, and nothing of it is counted.
"""

import math
from collections.abc import Callable, Collection, Iterable
from functools import partial
from typing import Any

import attrs
from opentelemetry.context import Context
from opentelemetry.trace import Span

from inkturns.actions import (
    Abandon,
    Action,
    Cancel,
    Interrupt,
    Listen,
    Report,
    ReportKind,
    Respond,
    Resume,
    Think,
    Turn,
)
from inkturns.events import Event, ReplyDone, ReplyStarted, TurnEagerEnd
from inkturns.telemetry import names
from inkturns.telemetry.metrics import Metrics
from inkturns.telemetry.notes import Clock, ReplyNote, ThoughtNote
from inkturns.telemetry.spans import Spans, Value, inside

__all__ = ["CallTelemetry"]


@attrs.define(eq=False)
class ThoughtState:
    """A thought that is not over."""

    number: int
    speculative: bool
    at: float  # when it was asked for
    eager_end: float | None  # the last one before it
    span: Span
    reason: str | None = None
    began: float | None = None
    first_item: float | None = None  # seconds from its beginning


@attrs.define(eq=False)
class TurnState:
    """A turn whose span is open."""

    span: Span
    thoughts: dict[int, ThoughtState] = attrs.field(factory=dict)  # that are not over
    eager_end: float | None = None  # the last one
    closed: Turn | None = None
    closed_at: float = 0.0
    reply: Span | None = None  # of an agent; a watched one begins when it is known what became of it
    adopted: ThoughtState | None = None
    catching_up: bool = False
    is_replying: bool = False  # its reply is not over
    sounded: float | None = None
    first_item: float | None = None  # when `respond` took it
    ends: float = 0.0  # the latest end of what is inside it
    later: list[Callable[[], object]] = attrs.field(factory=list)  # what is told once it is over


@attrs.define(eq=False)
class CallTelemetry:
    """The state of one call.

    time     when that was, by the calendar
    roles    of the agent; a watcher has none
    hides    (number) -> whether no words of that turn are told, for a recorder's pause"""

    spans: Spans
    metrics: Metrics
    time: Clock
    roles: Collection[str] = ()
    hides: Callable[[int], bool] = lambda number: False
    _turns: dict[int, TurnState] = attrs.field(init=False, factory=dict)
    _now: float = attrs.field(init=False, default=-math.inf)
    _open: int = attrs.field(init=False, default=0)  # the open turn, or the last one

    def __attrs_post_init__(self) -> None:
        self.metrics.call(+1)

    # -- inputs

    def take(self, event: Event | None, actions: tuple[Action, ...], t: float) -> None:
        """One input with its actions."""
        self._now = t = max(self._now, t)  # as in a machine, times never run backwards
        if type(event) is ReplyStarted:
            self._sounds(event.number, t)
        is_eager = type(event) is TurnEagerEnd
        if is_eager:
            kinds = {action.kind for action in actions if type(action) is Report}
            is_eager = not kinds & {ReportKind.LATE, ReportKind.FOREIGN}
            if is_eager and not any(type(action) is Listen for action in actions):
                self._eager_end(t)
        for action in actions:
            if isinstance(action, Listen):
                self._listen(action, t)
                if is_eager:
                    self._eager_end(t)
            elif (act := ACTS.get(type(action))) is not None:
                number = action.number if isinstance(action, Interrupt) else action.turn.number  # type: ignore[attr-defined]
                if (turn := self._turns.get(number)) is not None:
                    act(self, turn, action, t)
        for action in actions:  # once the turn has opened that they are about
            if type(action) is Report:
                self.report(action.kind, t)
        if type(event) is ReplyDone:
            self._reply_done(event.number, t)

    def _sounds(self, number: int, t: float) -> None:
        turn = self._turns.get(number)
        if turn is not None and turn.is_replying and turn.sounded is None:
            turn.sounded = t
            self._event(turn, names.ON_REPLY_STARTED, t)

    def _eager_end(self, t: float) -> None:
        turn = self._turns.get(self._open)
        if turn is not None and turn.closed is None:
            turn.eager_end = t
            self._event(turn, names.ON_EAGER_END, t)

    def _listen(self, action: Listen, t: float) -> None:
        self._open = number = action.turn.number
        if (same := self._turns.pop(number, None)) is not None:  # a recording may say anything
            self._breaks_off(same, t)
        of = {names.NUMBER: number, names.CONTINUES: action.turn.continues}
        self._turns[number] = TurnState(self.spans.turn(self.time(t), of), ends=t)

    def _think(self, turn: TurnState, action: Think, t: float) -> None:
        if (same := turn.thoughts.pop(action.thought, None)) is not None:  # a recording may say anything
            turn.later.append(partial(self.spans.end, same.span, self.time(t), {}))
        span = self.spans.child(names.THOUGHT, turn.span, self.time(t))
        self._words(action.turn.number, span, names.HEARD_WORDS, "user", action.turn.transcript)
        turn.thoughts[action.thought] = ThoughtState(action.thought, action.speculative, t, turn.eager_end, span)

    def _cancel(self, turn: TurnState, action: Cancel, t: float) -> None:
        thought = turn.thoughts.get(action.thought)
        if thought is not None:
            thought.reason = action.reason.value
            if "think" not in self.roles:
                self._thought_over(turn, thought, t, None)

    def _resume(self, turn: TurnState, action: Resume, t: float) -> None:
        self._event(turn, names.ON_RESUME, t)

    def _respond(self, turn: TurnState, action: Respond, t: float) -> None:
        self._close(turn, action.turn, t, answered=True)
        turn.adopted = adopted = turn.thoughts.get(action.thought)
        turn.is_replying = True
        if "respond" in self.roles and turn.reply is None:
            turn.reply = self.spans.child(names.REPLY, turn.span, self.time(t))
        if adopted is not None and "think" not in self.roles:
            self._thought_over(turn, adopted, t, None)

    def _abandon(self, turn: TurnState, action: Abandon, t: float) -> None:
        self._close(turn, action.turn, t, answered=False)
        self._finish(turn)

    def _close(self, turn: TurnState, final: Turn, t: float, *, answered: bool) -> None:
        turn.closed, turn.closed_at = final, t
        self._words(final.number, turn.span, names.HEARD_WORDS, "user", final.transcript)
        self._event(turn, names.ON_END, t)
        turn.later.append(partial(self.metrics.turn, f"{final.end}", answered=answered))

    def _interrupt(self, turn: TurnState, action: Interrupt, t: float) -> None:
        if "respond" in self.roles or turn.sounded is not None:
            self._event(turn, names.ON_INTERRUPTED, t)
        self._watched(turn, "interrupted", t)

    def _reply_done(self, number: int | None, t: float) -> None:
        """The machine takes it for the reply that is in flight, and so for the last."""
        for of, turn in [*self._turns.items()]:
            if number in (None, of):
                self._watched(turn, "heard", t)

    def _watched(self, turn: TurnState, outcome: str, t: float) -> None:
        """The reply to a turn is over, and no note will say so. Without ReplyStarted and ReplyDone it has no span."""
        if not turn.is_replying or "respond" in self.roles:
            return
        turn.is_replying = False
        if turn.sounded is not None or outcome == "heard":
            turn.ends = t
            self._reply_over(turn, outcome, t, None)
        self._finish(turn)

    def report(self, kind: str, t: float) -> None:
        """Something was out of contract: a machine's Report, or the agent's own."""
        self.metrics.report(f"{kind}")
        turn = self._turns.get(self._open)
        if turn is not None:
            self._event(turn, names.ON_REPORT, t, {names.KIND: f"{kind}"})

    # -- an agent's notes

    def context_of(self, number: int, thought: int | None) -> Context | None:
        """What `think` runs in, so that spans of the user's own code are children of the thought's; for no thought,
        what `respond` runs in."""
        turn = self._turns.get(number)
        if turn is None:
            return None
        state = None if thought is None else turn.thoughts.get(thought)
        span = turn.reply if thought is None else None if state is None else state.span
        return inside(span) if span is not None and span.get_span_context().is_valid else None

    def catches_up(self, number: int) -> None:
        """The turn began in sound that was kept from an outage: its times would measure the outage."""
        turn = self._turns.get(number)
        if turn is not None:
            turn.catching_up = True

    def settled(self, number: int, note: ThoughtNote, t: float) -> None:
        turn = self._turns.get(number)
        thought = None if turn is None else turn.thoughts.get(note.thought)
        if turn is not None and thought is not None:
            self._thought_over(turn, thought, t, note)
            self._finish(turn)

    def replied(self, number: int, note: ReplyNote, error: str | None) -> None:
        turn = self._turns.get(number)
        if turn is not None and turn.is_replying and "respond" in self.roles:
            turn.is_replying = False
            turn.first_item = note.first_item
            self._words(number, turn.span, names.SAID_WORDS, "assistant", note.text)
            self._reply_over(turn, f"{note.outcome}", note.over_at, error)
            self._finish(turn)

    # -- what is over

    def _thought_over(self, turn: TurnState, thought: ThoughtState, t: float, note: ThoughtNote | None) -> None:
        del turn.thoughts[thought.number]
        reason, failed = thought.reason, thought.reason == "failed"
        outcome = "failed" if failed else "adopted" if thought is turn.adopted else "cancelled"
        thought.began = thought.at
        of: dict[str, Value] = {names.THOUGHT_NUMBER: thought.number, names.SPECULATIVE: thought.speculative}
        if note is not None:
            failed = note.outcome == "failed"
            outcome = "not_begun" if note.began is None else "failed" if failed else outcome
            thought.began, thought.first_item = note.began, between(note.began, note.first_item)
            t = min((at for at in (note.finished, note.cancelled_at) if at is not None), default=t)
            used = note.usage
            of |= {names.ITEMS: note.items, names.FIRST_CHUNK: thought.first_item}
            if used is not None:
                of |= {names.INPUT_TOKENS: used.input_tokens, names.OUTPUT_TOKENS: used.output_tokens}
                of |= {names.CACHED_TOKENS: used.cached_tokens, names.COST: used.cost}
                turn.later.append(partial(self.metrics.usage, used, outcome))
            turn.later.append(partial(self.metrics.seconds, self.metrics.latency, thought.first_item, outcome))
        reason = None if failed else reason
        turn.later.append(partial(self.metrics.thought, outcome, reason, speculative=thought.speculative))
        t = max(thought.at, t)
        turn.ends = max(turn.ends, t)
        of |= {names.OUTCOME: outcome, names.REASON: reason}
        if thought is turn.adopted:
            of |= {names.HEAD_START: self._head_start(turn), names.THOUGHT_SAVED: self._saved(turn)}
        error = None if note is None else note.error
        turn.later.append(partial(self.spans.end, thought.span, self.time(t), of, failed=failed, error=error))

    def _reply_over(self, turn: TurnState, outcome: str, t: float, error: str | None) -> None:
        turn.ends = max(turn.ends, turn.closed_at, t)
        turn.later.append(partial(self.metrics.reply, outcome))
        turn.later.append(partial(self._reply, turn, outcome, t, error))

    def _reply(self, turn: TurnState, outcome: str | None, t: float, error: str | None) -> None:
        span = turn.reply or self.spans.child(names.REPLY, turn.span, self.time(turn.closed_at))
        failed, at = outcome == "failed", self.time(max(turn.closed_at, t))
        self.spans.end(span, at, {names.REPLY_OUTCOME: outcome}, failed=failed, error=error)

    def _finish(self, turn: TurnState) -> None:
        """Ends the turn's span, and counts its times, once nothing in it is open."""
        final = turn.closed
        if final is None or turn.thoughts or turn.is_replying:
            return
        del self._turns[final.number]
        adopted = turn.adopted
        gap = saved = None
        if adopted is not None and not turn.catching_up:
            gap = between(adopted.eager_end, turn.closed_at) if adopted.speculative else None
            saved = self._saved(turn)
            seconds = partial(partial, self.metrics.seconds)
            turn.later += [
                seconds(self.metrics.gap, gap),
                seconds(self.metrics.saved, saved),
                seconds(self.metrics.first_item, between(turn.closed_at, turn.first_item)),
                seconds(self.metrics.first_sound, between(turn.closed_at, turn.sounded)),
            ]
        self._end_turn(turn, {names.SAVED: saved, names.GAP: gap, names.CATCHING_UP: turn.catching_up or None})

    def _end_turn(self, turn: TurnState, of: dict[str, Value]) -> None:
        if (final := turn.closed) is not None:
            of |= {names.END: f"{final.end}", names.ANSWERED: turn.adopted is not None}
            of |= {names.LATEST_THOUGHT: final.latest_thought, names.INTERRUPTED: final.interrupted}
        each([*turn.later, partial(self.spans.end, turn.span, self.time(turn.ends), of)])

    def over(self, t: float) -> None:
        """The call is over."""
        t = max(self._now, t)
        turns = [*self._turns.values()]
        each([*(partial(self._over, turn, t) for turn in turns), partial(self.metrics.call, -1)])

    def _over(self, turn: TurnState, t: float) -> None:
        if "respond" not in self.roles:  # nobody will tell about the reply
            turn.is_replying = False
            self._finish(turn)
        if turn.closed is None or turn.thoughts or turn.is_replying:
            self._breaks_off(turn, t)

    def _breaks_off(self, turn: TurnState, t: float) -> None:
        """Ends the open spans of a turn, without outcomes: those are not known."""
        turn.ends = max(turn.ends, t)
        at = self.time(turn.ends)
        turn.later += [partial(self.spans.end, thought.span, at, {}) for thought in turn.thoughts.values()]
        if turn.is_replying:
            turn.later.append(partial(self._reply, turn, None, turn.ends, None))
        self._end_turn(turn, {})

    # -- durations

    def _head_start(self, turn: TurnState) -> float | None:
        return None if turn.adopted is None else between(turn.adopted.began, turn.closed_at)

    def _saved(self, turn: TurnState) -> float | None:
        head_start, adopted = self._head_start(turn), turn.adopted
        if turn.catching_up or head_start is None or adopted is None or adopted.first_item is None:
            return None
        return min(head_start, adopted.first_item)

    def _words(self, number: int, span: Span, name: str, role: str, text: str) -> None:
        if not self.hides(number):
            self.spans.words(span, name, role, text)

    def _event(self, turn: TurnState, name: str, t: float, of: dict[str, Value] | None = None) -> None:
        turn.ends = max(turn.ends, t)
        turn.later.append(partial(self.spans.event, turn.span, name, self.time(t), of))


def each(steps: Iterable[Callable[[], object]]) -> None:
    """Takes all steps, also where one raises, so that what has begun is ended; raises the first error then."""
    errors = []
    for step in steps:
        try:
            step()
        except Exception as error:
            errors.append(error)
    if errors:
        raise errors[0]


def between(earlier: float | None, later: float | None) -> float | None:
    """Seconds; 0.0 where the later one was first."""
    return None if earlier is None or later is None else max(0.0, later - earlier)


ACTS: dict[type[Action], Callable[[CallTelemetry, TurnState, Any, float], None]] = {
    Think: CallTelemetry._think,
    Cancel: CallTelemetry._cancel,
    Resume: CallTelemetry._resume,
    Respond: CallTelemetry._respond,
    Abandon: CallTelemetry._abandon,
    Interrupt: CallTelemetry._interrupt,
}
