"""A call while its recording is read, and the rows that come of it.

Rules of this file: pure; it counts what it is told in the order of the lines, and decides nothing.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Annotated, Any

import attrs
import msgspec

from inkturns.actions import (
    Abandon,
    Action,
    Cancel,
    CancelReason,
    Hear,
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
from inkturns.policy import Policy
from inkturns.reader import Header
from inkturns.report.rows import ThoughtRow, TurnRow
from inkturns.serialize import dump_policy

__all__ = ["CallDraft", "RepliedNote", "ReportNote", "SettledNote", "between"]


# -- what an Agent's notes say


Count = Annotated[int, msgspec.Meta(ge=0)]
Money = Annotated[float, msgspec.Meta(ge=0, le=1e9)]


class UsageNote(msgspec.Struct, frozen=True, gc=False):
    input_tokens: Count = 0
    output_tokens: Count = 0
    cost: Money = 0.0


class SettledNote(msgspec.Struct, frozen=True):
    """What became of a thought, as far as rows need it."""

    thought: int
    outcome: str
    began: float | None = None
    first_item: float | None = None
    finished: float | None = None
    cancelled_at: float | None = None
    notes: dict[str, Any] = {}
    usage: UsageNote | None = None


class ReportNote(msgspec.Struct, frozen=True, gc=False):
    """The kind of an Agent's own report."""

    kind: str


class RepliedNote(msgspec.Struct, frozen=True, gc=False):
    """When `respond` took the reply's first item."""

    first_item: float | None = None


# -- a turn and a call, while they are read


NO_USAGE = UsageNote()
BACKWARDS = 1e-3  # seconds: what rounding may do
BARE = Header(0, None)


@attrs.define(eq=False)
class _ThoughtDraft:
    think: Think
    at: float | None
    eager_end: float | None  # when the last one before it came
    cancelled: str | None = None
    settled: SettledNote | None = None

    def row(self, final: Turn, adopted: bool) -> ThoughtRow:
        settled, reason, think = self.settled, self.cancelled, self.think
        outcome = "adopted" if adopted else "failed" if reason == CancelReason.FAILED else "cancelled"
        reason = None if outcome == "failed" else reason
        exact = think.turn.transcript == final.transcript
        if settled is None:
            return ThoughtRow(
                number=think.thought, speculative=think.speculative, outcome=outcome, reason=reason, exact=exact
            )
        usage, model = settled.usage or NO_USAGE, settled.notes.get("model")
        return ThoughtRow(
            number=think.thought,
            speculative=think.speculative,
            outcome="failed" if settled.outcome == "failed" else outcome,
            reason=reason,
            exact=exact,
            ran=settled.began is not None,
            first_item=between(settled.began, settled.first_item),
            ended=between(settled.began, _stopped(settled)),
            finished=settled.finished is not None,
            usage=settled.usage is not None,
            tokens=usage.input_tokens + usage.output_tokens,
            output_tokens=usage.output_tokens,
            cost=usage.cost,
            model=model if isinstance(model, str) else None,
        )

    @property
    def began(self) -> float | None:
        return self.at if self.settled is None else self.settled.began


@attrs.define(eq=False)
class _TurnDraft:
    """An open turn, and then a closed one, of which notes may still tell."""

    thoughts: dict[int, _ThoughtDraft] = attrs.field(factory=dict)
    eager_ends: int = 0
    resumes: int = 0
    eager_end: float | None = None  # when the last one came
    closed: Respond | Abandon | None = None
    at: float | None = None  # when it closed
    reports: dict[str, int] = attrs.field(factory=dict)
    replied: RepliedNote | None = None
    sounded: float | None = None  # ReplyStarted, where the application tells it
    is_audible: bool = False
    interrupted: bool = False
    catching_up: bool = False


@attrs.define(eq=False)
class CallDraft:
    """One call. Tell it what the lines say, in their order; then `rows` are its closed turns."""

    header: Header | None = None
    turns: dict[int, _TurnDraft] = attrs.field(factory=dict)
    open: int | None = None  # the open turn's number
    in_flight: int | None = None  # the turn whose reply is
    reports: Counter[str] = attrs.field(factory=Counter)  # since the last turn closed

    # -- what the lines say

    def take(self, t: float | None, event: Event | None, actions: Iterable[Action]) -> None:
        """One input. Of the events TurnEagerEnd, ReplyStarted and ReplyDone count; others may be None."""
        if isinstance(event, TurnEagerEnd):
            self._take_eager_end(t, tuple(actions))
        elif isinstance(event, ReplyStarted) and event.number == self.in_flight:
            reply = self.turns[event.number]
            reply.is_audible = True
            reply.sounded = t if reply.sounded is None else reply.sounded
        elif isinstance(event, ReplyDone) and event.number in (None, self.in_flight):
            self.in_flight = None
        for action in actions:
            if not isinstance(action, Hear):  # most of them, and of no concern
                self._act(action, t)

    def _take_eager_end(self, t: float | None, actions: tuple[Action, ...]) -> None:
        if any(isinstance(one, Report) and one.kind in (ReportKind.LATE, ReportKind.FOREIGN) for one in actions):
            return
        number = next((one.turn.number for one in actions if isinstance(one, Listen)), self.open)
        if number is not None:  # else an echo, or blank
            turn = self._turn(number)
            turn.eager_ends += 1
            turn.eager_end = t

    def _act(self, action: Action, t: float | None) -> None:
        match action:
            case Listen(turn):
                self.open = turn.number
            case Think(turn, thought):
                of = self._turn(turn.number)
                of.thoughts[thought] = _ThoughtDraft(action, t, of.eager_end)
            case Resume(turn):
                self._turn(turn.number).resumes += 1
            case Cancel(turn, thought, reason) if (known := self._thought(turn.number, thought)) is not None:
                known.cancelled = reason.value
            case Interrupt(number) if number in self.turns:
                self.turns[number].interrupted = True
                self.in_flight = None
            case Report(kind):
                self.reports[kind.value] += 1
            case Respond(turn) | Abandon(turn):
                of = self._turn(turn.number)
                of.closed, of.at = action, t
                if isinstance(action, Respond):
                    self.in_flight = turn.number
                if self.reports:
                    of.reports, self.reports = dict(self.reports), Counter()
                self.open = None

    def _turn(self, number: int) -> _TurnDraft:
        if (turn := self.turns.get(number)) is None:
            turn = self.turns[number] = _TurnDraft()
        return turn

    def _thought(self, turn: int, thought: int) -> _ThoughtDraft | None:
        return self.turns[turn].thoughts.get(thought) if turn in self.turns else None

    def note(self, turn: int, said: SettledNote | RepliedNote | ReportNote) -> None:
        """What the Agent wrote about that turn. A note on a turn that is not known is passed over."""
        if isinstance(said, ReportNote):
            self.reports[said.kind] += 1
        elif turn not in self.turns:
            return
        elif isinstance(said, RepliedNote):
            self.turns[turn].replied = said
        elif (known := self._thought(turn, said.thought)) is not None:
            known.settled = said

    def catches_up(self, turn: int) -> None:
        """The turn began in sound that was kept from an outage. This may be said before the turn opens."""
        self._turn(turn).catching_up = True

    # -- rows

    def rows(self) -> list[TurnRow]:
        """The closed turns, in the order of their numbers."""
        closed = [(number, turn) for number, turn in sorted(self.turns.items()) if turn.closed is not None]
        if closed and self.reports:
            last = closed[-1][1]
            last.reports = dict(Counter(last.reports) + self.reports)
        spans = [_spans(turn) for _, turn in closed]
        in_call = sorted(span for some in spans for span in some)
        if not any(later[0] < one[1] or later[0] == one[0] for one, later in pairwise(in_call)):
            in_call = []  # no two at once, as in most calls
        about = self.header or BARE
        shared: dict[str, Any] = {
            "call": _text(about.call),
            "begins": about.line,
            "started": _text(about.started) if not _is_number(about.started) else str(about.started),
            "source": _text(about.source),
            "policy": _changed(about.policy),
            "settings": {name: value for name, value in _items(about.settings) if _is_number(value)},
            "labels": {name: value for name, value in _items(about.labels) if isinstance(value, str)},
        }
        return [self._row(*one, mine, in_call, shared) for one, mine in zip(closed, spans, strict=True)]

    def _row(
        self, number: int, turn: _TurnDraft, mine: "list[Span]", in_call: "list[Span]", shared: dict[str, Any]
    ) -> TurnRow:
        assert turn.closed is not None
        final = turn.closed.turn
        answered = isinstance(turn.closed, Respond)
        adopted = turn.thoughts.get(turn.closed.thought) if isinstance(turn.closed, Respond) else None
        times: dict[str, Any] = {}
        if adopted is not None and not turn.catching_up:
            settled = adopted.settled
            head_start = _at_least_0(adopted.began, turn.at)  # one that begins at the end may wait for its task
            if adopted.think.speculative and adopted.eager_end is not None:
                head_start = None if between(adopted.eager_end, turn.at) is None else head_start
            first_item = None if settled is None else between(settled.began, settled.first_item)
            saved = None if first_item is None or head_start is None else min(head_start, first_item)
            to_item = None if turn.replied is None else between(turn.at, turn.replied.first_item)
            times = {
                "gap": between(adopted.eager_end, turn.at) if adopted.think.speculative else None,
                "head_start": head_start,
                "first_item": first_item,
                "saved": saved,
                "end_to_first_item": to_item,
                "end_to_first_item_without": None if to_item is None or saved is None else to_item + saved,
                "end_to_first_sound": between(turn.at, turn.sounded),
            }
        return TurnRow(
            number=number,
            end=str(final.end),
            answered=answered,
            length=len(final.transcript),
            eager_ends=turn.eager_ends,
            resumes=turn.resumes,
            thoughts=tuple([thought.row(final, thought is adopted) for thought in turn.thoughts.values()]),
            false_end=final.continues is not None and final.continues == final.interrupted,
            interrupted=answered and turn.interrupted and turn.is_audible,
            reports=turn.reports,
            peak_calls=_peak(mine, in_call),
            catching_up=turn.catching_up,
            **shared,
            **times,
        )


Span = tuple[float, float]  # when a thought began, and when its model was done


def _spans(turn: _TurnDraft) -> list[Span]:
    found = []
    for thought in turn.thoughts.values():
        settled = thought.settled
        if settled is not None and settled.began is not None:
            stopped = _stopped(settled)
            found.append((settled.began, settled.began if stopped is None else stopped))
    return found


def _stopped(settled: SettledNote) -> float | None:
    """When its model was done, or cut."""
    if settled.finished is None or settled.cancelled_at is None:
        return settled.cancelled_at if settled.finished is None else settled.finished
    return min(settled.finished, settled.cancelled_at)


def _peak(mine: list[Span], in_call: list[Span]) -> int | None:
    """The most that ran at once. It is reached where one begins. `in_call` is empty where no two overlap."""
    if not mine or not in_call:
        return len(mine[:1]) or None
    starts = [at for at, _ in in_call if any(began <= at < ended or at == began for began, ended in mine)]
    return max(sum(began <= at < ended or at == began for began, ended in in_call) for at in starts)


def between(earlier: float | None, later: float | None) -> float | None:
    """The seconds; None where one of the times is not known, or where time ran backwards."""
    seconds = _at_least_0(earlier, later)
    return None if earlier is None or later is None or later - earlier < -BACKWARDS else seconds


def _at_least_0(earlier: float | None, later: float | None) -> float | None:
    if earlier is None or later is None or not math.isfinite(later - earlier):
        return None
    return max(0.0, later - earlier)


# -- the header's members, of which a recording may say anything


DEFAULTS = dump_policy(Policy())


def _changed(policy: object) -> dict[str, Any]:
    """The fields of a recorded policy that are not as by default."""
    return {name: value for name, value in _items(policy) if name in DEFAULTS and value != DEFAULTS[name]}


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _items(value: object) -> Iterable[tuple[str, Any]]:
    return value.items() if isinstance(value, Mapping) else ()


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
