"""A call as it would have gone under another policy: the recorded inputs, with thoughts and replies made anew.

Rules of this file: pure, and no chance: what is drawn depends on the call, the turn and the words alone, so that two
policies that think the same find the model equally quick.

The machine decides. The model is simulated. A thought on words that were thought on in the recorded turn takes as long
as it took then; where it was cancelled before its first item, longer than that; any other takes what Kaplan-Meier
draws. Its reply begins at max(beginning + L, end) plus the recorded delay, lasts as long as the recorded one, and ends
where the machine interrupts it. What the user would have said to another reply nobody knows: the recorded inputs come
as they came.
"""

import math
from collections import Counter
from collections.abc import Mapping
from hashlib import sha256
from heapq import heappop, heappush
from typing import Any

import attrs
from msgspec.structs import replace

from inkturns.actions import Action, Cancel, CancelReason, Interrupt, Listen, Respond, Think
from inkturns.events import Event, ReplyDone, ReplyStarted, ThoughtFailed, Tick, TurnEagerEnd, UsePolicy
from inkturns.machine import TurnMachine
from inkturns.policy import Policy
from inkturns.report.drafts import CallDraft, RepliedNote, SettledNote, UsageNote
from inkturns.report.past import KnownReply, KnownThought, KnownTurn, PastCall
from inkturns.report.rows import TurnRow
from inkturns.report.survival import NEVER, Latencies
from inkturns.report.typical import Typical
from inkturns.serialize import dump_policy, load_policy

__all__ = ["Otherwise", "otherwise"]

NEARLY = 1e-9  # seconds: sums of floats


@attrs.frozen
class Otherwise:
    """A call under another policy.

    rows     its closed turns. Times that are longer than anybody has seen are inf
    same     the numbers of the turns that the same input opened in both worlds: here, and as recorded
    exact    the numbers of the turns in which no reply was in flight in either world, at the opening and at eager ends,
             and no thought failed: what was thought in them is not modelled
    drawn    how many thoughts' time to the first item was drawn, of `thoughts`
    lengths  how many replies' length was not recorded and is a typical one"""

    rows: list[TurnRow]
    same: dict[int, int]
    exact: frozenset[int]
    drawn: int
    thoughts: int
    lengths: int


def otherwise(
    past: PastCall, changes: Mapping[str, Any], latencies: Latencies, typical: Typical | None = None
) -> Otherwise:
    """The call with these fields of its policies changed. Raises RecordingError where such a policy cannot be made."""
    policy = Policy(**changes) if past.header is None else load_policy(past.header.policy, changes)
    world = _World(past, changes, latencies, typical or Typical(), policy)
    for place, one in enumerate(past.inputs):
        if one.t is not None:
            world.until(one.t)
        if one.event is None:
            world.draft.take(one.t, None, one.actions)
        else:
            world.take(one.event, one.t, place)
    if past.last is not None:
        world.until(past.last, whole=True)
    return world.outcome()


@attrs.define(eq=False)
class _Thought:
    """A thought of the other world. `latency`: seconds to its first item, inf where nobody knows; then it is at least
    `least`."""

    turn: int
    number: int
    text: str
    at: float | None
    latency: float | None
    least: float
    own: KnownThought | None
    making: float
    model: str | None
    over: float | None = None
    reason: CancelReason | None = None
    is_adopted: bool = False

    @property
    def first_item(self) -> float | None:
        return None if self.at is None or self.latency is None else self.at + self.latency


@attrs.define(eq=False)
class _World:
    past: PastCall
    changes: Mapping[str, Any]
    latencies: Latencies
    typical: Typical
    policy: Policy
    machine: TurnMachine = attrs.field(init=False)
    draft: CallDraft = attrs.field(init=False)
    due: list[tuple[float, bool, int, Event]] = attrs.field(init=False, factory=list)
    begun: int = 0  # inputs that were made
    was: KnownTurn | None = None  # the open turn, as it was recorded
    turn: int = 0
    live: _Thought | None = None
    thoughts: list[_Thought] = attrs.field(init=False, factory=list)
    said: Counter[str] = attrs.field(init=False, factory=Counter)  # thoughts of the open turn, by their words
    in_flight: set[int] = attrs.field(init=False, factory=set)  # turns that found a reply in flight
    exact: set[int] = attrs.field(init=False, factory=set)
    drawn: int = 0
    lengths: int = 0
    same: dict[int, int] = attrs.field(init=False, factory=dict)
    taken: dict[int, float] = attrs.field(init=False, factory=dict)  # when the replies' first items were taken
    place: int = 0

    def __attrs_post_init__(self) -> None:
        header = self.past.header
        self.machine = TurnMachine(self.policy)
        self.draft = CallDraft(None if header is None else attrs.evolve(header, policy=dump_policy(self.policy)))
        for turn in self.past.catching_up:
            self.draft.catches_up(turn)

    # -- time

    def until(self, t: float, *, whole: bool = False) -> None:
        """Makes the inputs that are due before the next recorded one, at `t`. What waits for that one to be taken first
        is due at `t` only where `whole`."""
        while True:
            deadline = self.machine.deadline
            first = self.due[0] if self.due else None
            if deadline is not None and deadline <= t and (first is None or deadline <= first[0]):
                self.take(Tick(), deadline)
            elif first is not None and (first[0] < t or (first[0] == t and (whole or not first[1]))):
                heappop(self.due)
                self.take(first[3], first[0])
            else:
                return

    def later(self, t: float, event: Event, *, after_inputs: bool = False) -> None:
        self.begun += 1
        heappush(self.due, (t, after_inputs, self.begun, event))

    # -- the machine

    def take(self, event: Event, t: float | None, place: int | None = None) -> None:
        """`place`: of a recorded input."""
        if isinstance(event, UsePolicy):
            event = UsePolicy(attrs.evolve(event.policy, **self.changes))
        if place is not None:
            self.place = place
        before = self.machine.reply
        actions = self.machine.receive(event, t)
        self.draft.take(t, event, actions)
        if isinstance(event, TurnEagerEnd) and before is not None:
            self.in_flight.add(self.turn)
        for action in actions:
            self.act(action, t, before)
        if isinstance(event, ReplyStarted) and event.number == 0 and before is None and t is not None:
            self.speak(self.past.speeches.get(self.place), t)

    def act(self, action: Action, t: float | None, before: int | None) -> None:
        match action:
            case Listen(turn):
                self.turn, self.was = turn.number, self.past.turns.get(self.place)
                self.said.clear()
                if before is not None:
                    self.in_flight.add(turn.number)
                if self.was is not None:
                    self.same[turn.number] = self.was.number
                    if not self.was.in_flight and not self.was.failed:
                        self.exact.add(turn.number)
            case Think(turn, number):
                self.live = self.thought(turn.number, number, turn.transcript, t)
                self.thoughts.append(self.live)
                if t is not None and (own := self.live.own) is not None and own.failed_after is not None:
                    self.later(t + own.failed_after, ThoughtFailed(turn.number, number))
            case Cancel(_, _, reason) if self.live is not None:
                self.live.over, self.live.reason = t, reason
            case Respond(turn) if self.live is not None:
                self.live.is_adopted = True
                self.reply(turn.number, self.live, t)
            case Interrupt(number):
                self.due = [one for one in self.due if getattr(one[3], "number", None) != number]
                self.due.sort()
                if t is not None and self.taken.get(number, t) >= t:
                    self.taken.pop(number, None)  # it was never begun
                cut = next((one for one in reversed(self.thoughts) if one.turn == number and one.is_adopted), None)
                if cut is not None:
                    cut.over = t

    # -- the model

    def thought(self, turn: int, number: int, text: str, t: float | None) -> _Thought:
        own = self.own(text, t)
        nth = self.said[text]
        self.said[text] += 1
        model = self.past.model if own is None or own.model is None else own.model
        latency = None if own is None else own.first_item
        least, drawn = 0.0, False
        if latency is None and not (own is not None and own.failed_after is not None):
            known = self.latencies.of(self.past.stratum(text, model))
            if known.times:
                waited = None if own is None else own.waited
                latency = known.later(NEVER if waited is None else waited, self.chance(text, nth))
                least, drawn = max(known.last, waited or 0.0), True
        self.drawn += drawn
        making = self.typical.making if own is None or own.making is None else own.making
        if own is not None and own.making is None:
            making = max(making, own.made_for)
        return _Thought(turn, number, text, t, latency, least, own, making, model)

    def own(self, text: str, t: float | None) -> KnownThought | None:
        """What the recorded turn thought on these words, at about this time."""
        if self.was is None:
            return None
        ran = [one for one in self.was.thoughts if one.text == text and (one.note is None or one.began is not None)]
        return min(ran, key=lambda one: abs((one.at or 0.0) - (t or 0.0)), default=None)

    def chance(self, text: str, nth: int) -> float:
        """From 0 to 1, always the same for the same words of the same turn, also where they are redacted."""
        header = self.past.header
        key = f"{header and (header.call, header.started, header.line)} {self.turn} {nth} {len(text)}"
        return (int.from_bytes(sha256(key.encode("utf-8", "surrogatepass")).digest()[:6]) + 0.5) / 2**48

    # -- the reply

    def reply(self, number: int, thought: _Thought, t: float | None) -> None:
        """It becomes audible, and is over, in time; where nobody knows when, it stays in flight until it is
        interrupted."""
        if t is None:
            return
        was = None if self.was is None else self.was.reply
        ready = t if thought.first_item is None else max(t, thought.first_item)
        if ready == math.inf:
            return
        taken = ready + (self.typical.take_lag if was is None else was.take_lag)
        if thought.first_item is not None:
            self.taken[number] = taken
        lag = None if was is None else was.lag
        if lag is None:
            lag = self.typical.lag
        if lag is None:  # nobody ever told of a reply
            return
        self.later(ready + lag, ReplyStarted(number))
        length = None if was is None or was.lag is None else was.length
        if length is None:
            length = self.typical.length
            self.lengths += 1
        over = ready + lag + length
        if was is not None and was.cut and was.over is not None and was.over > over - NEARLY:
            self.later(max(was.over, over), ReplyDone(number), after_inputs=True)  # it was longer than was heard of it
        else:
            self.later(over, ReplyDone(number))

    def speak(self, speech: KnownReply | None, t: float) -> None:
        length = None if speech is None else speech.length
        if length is not None:
            self.later(t + length, ReplyDone(0), after_inputs=speech is not None and speech.cut)

    # -- what came of it

    def outcome(self) -> Otherwise:
        for thought in self.thoughts:
            if (note := self.settled(thought)) is not None:
                self.draft.note(thought.turn, note)
        for number, taken in self.taken.items():
            self.draft.note(number, RepliedNote(taken))
        late = {one.turn: one for one in self.thoughts if one.is_adopted and one.latency == math.inf}
        rows = [_beyond(row, late[row.number]) if row.number in late else row for row in self.draft.rows()]
        exact = frozenset(self.exact - self.in_flight)
        return Otherwise(rows, self.same, exact, self.drawn, len(self.thoughts), self.lengths)

    def settled(self, thought: _Thought) -> SettledNote | None:
        """What an Agent would have noted; None where the recording has no such notes."""
        at, first, over = thought.at, thought.first_item, thought.over
        if at is None or (thought.latency is None and (thought.own is None or thought.own.note is None)):
            return None
        came = first is not None and (over is None or first <= over)
        finished = None if first is None or not came else first + thought.making
        if finished is not None and over is not None and finished >= over:
            finished = None
        ran = over is None or over > at or thought.is_adopted
        outcome = "adopted" if thought.is_adopted else "cancelled"
        return SettledNote(
            thought=thought.number,
            outcome=outcome,
            began=at if ran else None,
            first_item=first if came and first != math.inf else None,
            finished=finished if finished != math.inf else None,
            cancelled_at=over if finished is None else None,
            notes={} if thought.model is None else {"model": thought.model},
            usage=self.usage(thought),
        )

    def usage(self, thought: _Thought) -> UsageNote | None:
        """What the thought used where it ran too, and else what such thoughts use."""
        if thought.own is not None and thought.own.note is not None:
            return thought.own.usage
        return self.typical.adopted if thought.is_adopted else self.typical.cancelled


def _beyond(row: TurnRow, thought: _Thought) -> TurnRow:
    """The row, where the first item came later than any that was seen: what is known then."""
    if row.head_start is None:
        return row
    saved = row.head_start if row.head_start <= thought.least else math.inf
    late: dict[str, Any] = dict.fromkeys(("first_item", "end_to_first_item", "end_to_first_item_without"), math.inf)
    return replace(row, **late, saved=saved)
