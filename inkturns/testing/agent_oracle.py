"""AgentOracle: whether a call kept the agent's laws, judged from outside.

Rules of this file: the oracle is told what can be seen from outside, in order: what was spoken, which role was called,
was cancelled and ended, which hook was called. It never looks inside the agent. Each verdict begins with the number of
its law. The first verdict is kept and raised at the end: user code tells the oracle, and the agent would catch what
user code raises.

The agent's laws:

1. Nothing is spoken for a turn before its end, and nothing of a cancelled thought is ever spoken.
2. What is spoken answers the turn's final text, as the policy's match decides; each piece is spoken once, in order.
3. Each turn that starts is closed once, by on_end or on_abandon. Each turn that ends is answered once, or its reply is
   interrupted. A reply that nothing interrupts is spoken whole, or its failure is seen.
4. After a start (with `interrupts`: after the Interrupt) nothing more of an earlier reply is spoken.
5. `feed` returns before any of the user's tasks runs, and does not raise.
6. Each thought, each reply and each `say` ends in exactly one way that is seen: a thought is settled once, a reply is
   replied once, the outcome of a `say` is true, and each error is seen once.
7. After the storm's last frame each whole turn is answered.
8. When `run` has returned nothing runs and nothing is left behind. Only a task that was reported may delay its return.
9. A block under `async with committed()` runs whole or not at all, and never for a cancelled thought.
10. The history holds what each committed thought recorded, once, calls with their results; and nothing that another
    thought recorded.
"""

from collections import Counter
from collections.abc import Callable
from typing import Any

import attrs

from inkturns.actions import EndReason, Report, ReportKind, Turn
from inkturns.events import ReplyDone, ReplyStarted, TurnEagerEnd, TurnEnd, TurnResume, TurnUpdate, UsePolicy
from inkturns.outcomes import Outcome, Replied, ReplyOutcome, Settled
from inkturns.policy import Policy

__all__ = ["AgentOracle", "Asked", "Piece"]

SHOWN = 80  # lines of a broken call, the last ones


@attrs.define(eq=False)
class Asked:
    """One call of a role, from the first line of the user's code to the last."""

    role: str
    turn: Turn | None
    number: int  # of its kind, from 1
    pieces: int = 0  # that a think made
    blocks: list[float] = attrs.field(factory=list)  # when those began that are open
    block_over: float = 0.0  # the last one's end
    over: str | None = None  # "done", "cancelled", "failed"
    error: BaseException | None = None

    def __str__(self) -> str:
        of = f" of turn {self.turn.number}.{self.turn.latest_thought}" if self.turn else ""
        return f"{self.role} #{self.number}{of}"


class Piece(str):
    """What a think makes and a respond speaks; it knows where it comes from."""

    __slots__ = ("of", "place")

    def __new__(cls, of: "Asked", place: int) -> "Piece":
        piece = super().__new__(cls, f"[{of}: {place}]")
        piece.of, piece.place = of, place
        return piece

    of: "Asked"
    place: int


@attrs.define(eq=False)
class SeenReply:
    """What is known of a reply: a turn's, or the application's own speech."""

    turn: Turn | None
    policy: Policy
    asked: Asked | None = None
    spoken: list[Piece] = attrs.field(factory=list)
    cut: str | None = None  # by what
    sounded: bool = False  # something was spoken, or with Audible.TOLD its respond said so
    audible: bool = False  # it has sounded, or the application said so
    is_done: bool = False  # said the application, while it may be in flight: the agent may cut it off

    @property
    def in_flight(self) -> bool:
        return self.cut is None and (self.asked is None or self.asked.over is None)


@attrs.define(eq=False)
class AgentOracle:
    """Tell it all that is seen, as it is seen, and `judge` at the end."""

    policy: Policy
    grace: float
    committed_block_timeout: float
    now: Callable[[], float]
    forgives: bool  # there is an on_failure
    is_told: bool = False  # a reply is audible when `respond` says so (Audible.TOLD)
    drain_timeout: float = 30.0
    broken: str | None = None
    feeding: bool = False
    closing: float | None = None  # since when, by the application
    at_once: bool = False
    returned: float | None = None
    items_over: float | None = None
    calm: tuple[str, ...] = ()
    log: list[str] = attrs.field(factory=list)
    asked: list[Asked] = attrs.field(factory=list)
    started: dict[int, Turn] = attrs.field(factory=dict)
    started_at: dict[int, float] = attrs.field(factory=dict)
    closed: dict[int, Turn] = attrs.field(factory=dict)
    replies: dict[int, SeenReply] = attrs.field(factory=dict)
    speeches: list[SeenReply] = attrs.field(factory=list)
    thoughts: dict[tuple[int, int], Asked] = attrs.field(factory=dict)
    settled: dict[tuple[int, int], Settled] = attrs.field(factory=dict)
    replied: Counter[int] = attrs.field(factory=Counter)  # by the number of the turn
    told: set[int] = attrs.field(factory=set)  # replies that a hook called audible before their on_end was called
    recorded: dict[str, tuple[Asked, int]] = attrs.field(factory=dict)  # by the call's id: who, how many messages
    messages: list[Any] | None = None  # what the history holds after the call
    stuck: list[float] = attrs.field(factory=list)
    raised: list[tuple[BaseException, Asked | None, bool]] = attrs.field(factory=list)  # and whether it must be seen
    failures: list[BaseException] = attrs.field(factory=list)
    ended: dict[Asked, float] = attrs.field(factory=dict)

    def breaks(self, law: int, what: str) -> None:
        self.notes(f"*** law {law}: {what}")
        self.broken = self.broken or f"law {law}: {what}"

    def judge(self, *, lost: bool = False) -> None:
        """Raises AssertionError, its message beginning with "law N:", where the call broke a law. `lost`: what was
        raised is nowhere to be seen, since the call was cancelled from outside."""
        if self.broken is None:
            self._at_the_end(lost)
        if self.broken is not None:
            first = max(0, len(self.log) - SHOWN)
            lines = [*self.log[:1], f"  … {first} lines before", *self.log[first:]] if first else self.log
            raise AssertionError("\n".join([self.broken, *lines]))

    # -- the hooks

    def on_start(self, turn: Turn) -> None:
        self.notes(f"on_start {turn.number}")
        if turn.number in self.started or any(number > turn.number for number in self.started):
            self.breaks(3, f"turn {turn.number} is started after turn {max(self.started)}")
        for number in self.started.keys() - self.closed.keys():
            self.breaks(3, f"turn {turn.number} is started while turn {number} is open")
        self.started[turn.number] = turn
        self.started_at[turn.number] = self.now()
        for reply in self._replies():
            if self.policy.interrupts is None or not reply.audible:
                self._cut(reply, f"the start of turn {turn.number}")
            reply.is_done = reply.is_done or not reply.sounded  # only the application said that it is audible

    def on_end(self, turn: Turn) -> None:
        self.notes(f"on_end {turn.number}.{turn.latest_thought} {turn.end} {turn.transcript!r}")
        self._close(turn)
        for reply in self._replies():
            self._cut(reply, f"the end of turn {turn.number}")
        self.replies[turn.number] = SeenReply(turn, self.policy, audible=turn.number in self.told)

    def on_abandon(self, turn: Turn) -> None:
        self.notes(f"on_abandon {turn.number}.{turn.latest_thought} {turn.end} {turn.transcript!r}")
        self._close(turn)

    def on_interrupt(self, number: int) -> None:
        self.notes(f"on_interrupt {number}")
        for reply in self._replies():
            if number == (reply.turn.number if reply.turn else 0):
                self._cut(reply, f"the interrupt of {number}")

    def on_settled(self, settled: Settled) -> None:
        key = (settled.turn.number, settled.thought)
        self.notes(f"on_settled {key} {settled.outcome} {settled.reason} of {settled.items}")
        if key in self.settled:
            self.breaks(6, f"thought {key} is settled twice")
        self.settled[key] = settled
        asked = self.thoughts.get(key)
        if asked is not None and asked.over is None:
            self.breaks(6, f"thought {key} is settled before it is over")
        if asked is not None and settled.items != asked.pieces:
            self.breaks(6, f"thought {key} made {asked.pieces} pieces, and is settled with {settled.items}")

    def on_replied(self, replied: Replied) -> None:
        number = replied.turn.number
        self.notes(f"on_replied {number} {replied.outcome} {replied.text!r}")
        self.replied[number] += 1
        reply = self.replies.get(number)
        if number and self.replied[number] > 1:
            self.breaks(6, f"the reply to turn {number} is replied {self.replied[number]} times")
        if reply is not None and replied.outcome is ReplyOutcome.HEARD and reply.cut is not None:
            self.breaks(6, f"the reply to turn {number} was heard, and yet {reply.cut}")

    def on_failure(self, turn: Turn | None, error: BaseException) -> None:
        self.notes(f"on_failure {turn.number if turn else None} {error!r}")
        self.failures.append(error)

    def on_report(self, report: Report) -> None:
        self.notes(f"on_report {report.kind} {report.detail if report.kind is ReportKind.STUCK_TASK else ''}")
        if report.kind is ReportKind.STUCK_TASK:
            self.stuck.append(self.now())

    # -- the roles

    def called(self, asked: Asked) -> None:
        self.notes(f"{asked} is called")
        self.not_in_feed(asked)
        turn = asked.turn
        others = [other for other in self.asked if other.role == asked.role and other.over is None]
        if others and not self.stuck:
            self.breaks(8, f"{asked} runs beside {others[0]}, which was not reported")
        if asked.role == "listen" and turn and any(o.role == "listen" and o.turn == turn for o in self.asked):
            self.breaks(3, f"listen of turn {turn.number} is called twice")
        self.asked.append(asked)
        if asked.role == "think" and turn is not None:
            key = (turn.number, turn.latest_thought)
            if key in self.thoughts:
                self.breaks(6, f"thought {key} begins twice")
            self.thoughts[key] = asked
        elif asked.role == "respond" and turn is None:
            self.speeches.append(SeenReply(None, self.policy, asked))
        elif asked.role == "respond" and turn is not None:
            self._respond(asked, turn)

    def was_cancelled(self, asked: Asked) -> None:
        self.notes(f"{asked} is cancelled")
        self.not_in_feed(asked)
        reply = self._reply_of(asked)
        if reply is not None and self.items_over is not None and self.now() >= self.items_over + self.drain_timeout:
            self._cut(reply, "the end of the drain timeout")
        elif (
            reply is not None and reply.turn is None and not reply.sounded and self.started.keys() - self.closed.keys()
        ):
            self._cut(reply, "what the user said before it was audible")
        if reply is not None and reply.in_flight and not reply.is_done and reply.asked and self.closing is None:
            self.breaks(3, f"{asked} is cancelled, and nothing cut the reply off")

    def is_over(self, asked: Asked, how: str, error: BaseException | None = None) -> None:
        self.notes(f"{asked} is over: {how} {error or ''}")
        self.not_in_feed(asked)
        if asked.over is not None:
            self.breaks(6, f"{asked} is over twice")
        asked.over, asked.error = how, error
        self.ended[asked] = self.now()
        if error is not None:
            self.raises(error, asked, must_be_seen=asked.role != "think" or self._reply_of(asked) is not None)

    def raises(
        self, error: BaseException, asked: Asked | None = None, *, must_be_seen: bool = True, closes: bool = True
    ) -> None:
        """User code raised."""
        self.notes(f"{asked or 'a hook'} raises {error!r}")
        if must_be_seen and closes and not self.forgives:
            self.closes("a failure")
        if all(error is not other for other, _, _ in self.raised):  # a reply passes on what its thought raised
            self.raised.append((error, asked, must_be_seen))

    def made(self, asked: Asked) -> None:
        self.not_in_feed(asked)
        asked.pieces += 1

    def spoke(self, asked: Asked, piece: object) -> None:
        self.notes(f"{asked} speaks {piece}")
        self.not_in_feed(asked)
        if self.is_closed:
            self.breaks(8, f"{asked} speaks after the call was closed")
        reply = self._reply_of(asked)
        if not isinstance(piece, Piece) or reply is None:
            self.breaks(2, f"{asked} speaks {piece!r}, which nobody thought")
            return
        if reply.cut is not None:
            self.breaks(4, f"{asked} speaks {piece} after {reply.cut}")
        thought, end = piece.of.turn, reply.turn
        if (thought is None) is not (end is None):
            self.breaks(2, f"{asked} speaks {piece}")
        if thought is not None and end is not None:
            if (thought.number, thought.latest_thought) != (end.number, end.latest_thought):
                self.breaks(1, f"{asked} speaks {piece}, of a thought that is not turn {end.number}'s reply")
            if not self._matches(reply.policy, thought.transcript, end.transcript):
                self.breaks(2, f"{asked} speaks {piece} on {thought.transcript!r}, the turn says {end.transcript!r}")
        before = reply.spoken[-1] if reply.spoken else None
        if piece.place != len(reply.spoken) or (before is not None and before.of is not piece.of):
            self.breaks(2, f"{asked} speaks {piece} after {before}")
        reply.spoken.append(piece)
        reply.sounded = reply.sounded or not self.is_told
        reply.audible = reply.audible or reply.sounded

    def sounded(self, asked: Asked) -> None:
        """A respond has said that its reply is audible."""
        self.notes(f"{asked} is audible")
        reply = self._reply_of(asked)
        if reply is not None and reply.cut is None:
            reply.sounded = reply.audible = True

    def records(self, asked: Asked, call: str) -> None:
        """A think has recorded the call of a tool; the second time, its result."""
        self.notes(f"{asked} records {call!r}")
        self.recorded[call] = (asked, self.recorded.get(call, (asked, 0))[1] + 1)

    def said(self, asked: Asked, outcome: object) -> None:
        """What was given to `say` is over."""
        self.notes(f"{asked} is over: {outcome}")
        speech = next((s for s in self.speeches if any(piece.of is asked for piece in s.spoken)), None)
        is_failed = speech is not None and speech.asked is not None and speech.asked.error is not None
        if outcome is ReplyOutcome.HEARD and speech is not None and (speech.cut is not None or is_failed):
            self.breaks(6, f"{asked} was heard, and yet {speech.cut or speech.asked}")
        if outcome is ReplyOutcome.INTERRUPTED and speech is None and not self.is_told:
            self.breaks(6, f"{asked} was interrupted, and nothing of it was spoken")
        if outcome is ReplyOutcome.NOT_BEGUN and speech is not None and not self.is_told:
            self.breaks(6, f"{asked} was not begun, and yet it was spoken")

    def exhausted(self, asked: Asked) -> None:
        """A respond has taken all that its thought has."""
        self.notes(f"{asked} has it all")
        reply = self._reply_of(asked)
        if reply is None or reply.cut is not None or reply.is_done or reply.turn is None or self.closing is not None:
            return
        thought = self.thoughts.get((reply.turn.number, reply.turn.latest_thought))
        if thought is None or thought.over != "done" or len(reply.spoken) != thought.pieces:
            self.breaks(3, f"{asked} has {len(reply.spoken)} pieces of {thought and thought.pieces}, and no more come")

    def begins_block(self, asked: Asked) -> None:
        self.notes(f"{asked} begins a block")
        self.has_effect(asked)
        asked.blocks.append(self.now())

    def has_effect(self, asked: Asked) -> None:
        """A thought is past `committed()`."""
        reply = self._reply_of(asked)
        if reply is None:
            self.breaks(9, f"{asked} has an effect, and is no reply")
        elif reply.cut is not None or self.is_closed:
            self.breaks(9, f"{asked} has an effect after {reply.cut or 'the call was closed'}")

    def ends_block(self, asked: Asked, *, whole: bool) -> None:
        self.notes(f"{asked} ends a block: {'whole' if whole else 'cut'}")
        since = asked.blocks.pop()
        asked.block_over = self.now()
        if not whole and self.now() < since + self.committed_block_timeout:
            self.breaks(9, f"{asked} was cut off in its block after {self.now() - since} s")

    # -- the application

    def is_fed(self, item: object, *, by_hook: bool = False) -> None:
        self.notes(f"    <- {item!r}")
        if not by_hook:
            self.told.clear()
        elif isinstance(item, ReplyStarted):
            self.told.add(item.number)
        if isinstance(item, UsePolicy):
            self.policy = item.policy
        elif isinstance(item, TurnUpdate | TurnEagerEnd | TurnResume | TurnEnd):  # the user goes on
            for reply in self._replies():
                reply.is_done = reply.is_done or (reply.turn is None and not reply.sounded)  # it may be withdrawn
        elif isinstance(item, ReplyStarted | ReplyDone):
            for reply in self._replies():
                if item.number in (None, reply.turn.number if reply.turn else 0):
                    reply.audible = True
                    reply.is_done = reply.is_done or isinstance(item, ReplyDone)

    def interrupts(self) -> None:
        for reply in self._replies():
            self._cut(reply, "the application's interrupt")

    def closes(self, why: str, *, at_once: bool = True) -> None:
        """`at_once`: the agent knows; a cancellation from outside reaches it with its next step."""
        self.notes(f"the call is over: {why}")
        self.at_once = self.at_once or at_once
        if self.closing is None:
            self.closing = self.now()

    def not_in_feed(self, asked: Asked) -> None:
        if self.feeding:
            self.breaks(5, f"{asked} runs inside feed")
        if self.returned is not None:
            self.breaks(8, f"{asked} runs after run has returned")

    def returns(self) -> None:
        self.notes("run has returned")
        self.returned = self.now()
        for asked in self.asked:
            if asked.over is None:
                self.breaks(8, f"{asked} still runs, and run has returned")
        since = self.closing if self.closing is not None else self.items_over or 0.0
        last = max(self.ended.values(), default=0.0)
        if self.returned > max(since, last):
            self.breaks(8, f"run has returned at {self.returned}, all was over at {max(since, last)}")
        if self.closing is not None:
            held = [a for a, at in self.ended.items() if at > max(self.closing, a.block_over) + self.grace]
            if len(held) > len(self.stuck):
                self.breaks(8, f"{held[-1]} held run up until {self.ended[held[-1]]}, and was not reported")

    # -- the end

    def _at_the_end(self, lost: bool) -> None:
        for number in self.started.keys() - self.closed.keys():
            self.breaks(3, f"turn {number} was started, and neither ended nor abandoned")
        for text in self.calm:
            answers = [reply for reply in self.replies.values() if reply.turn and reply.turn.transcript == text]
            if not any(r.spoken and r.cut is None and len(r.spoken) == r.spoken[0].of.pieces for r in answers):
                self.breaks(7, f"{text!r} is not answered")
        for number, reply in self.replies.items():
            late = self.items_over is not None and self.started_at[number] >= self.items_over  # by whom is it fed?
            if reply.asked is None and not reply.cut and not reply.is_done and self.closing is None and not late:
                self.breaks(3, f"turn {number} ended, and is not answered")
            thoughts = reply.turn.latest_thought if reply.turn else 0
            for thought in range(1, thoughts + 1):
                self._was_settled((number, thought))
        for key in self.thoughts:
            self._was_settled(key)
        if self.messages is not None:
            self._recorded_is_kept(self.messages)
        seen = Counter(id(error) for error in self.failures)
        for error, asked, must_be_seen in self.raised:
            times = seen.pop(id(error), 0)
            if times != must_be_seen and not (lost and not times):
                self.breaks(6, f"{asked or 'a hook'} raised {error!r}, which is seen {times} times")
        for error in self.failures:
            if id(error) in seen:
                self.breaks(6, f"{error!r} is seen, and nobody raised it")

    def _recorded_is_kept(self, messages: list[Any]) -> None:
        calls = [call["id"] for message in messages for call in message.get("tool_calls", ())]
        results = [message["tool_call_id"] for message in messages if message.get("role") == "tool"]
        done = {call for call, (asked, count) in self.recorded.items() if count == 2 and self._reply_of(asked)}
        if sorted(calls) != sorted(done) or results != calls:
            self.breaks(10, f"the history holds the calls {calls} and the results {results}; done were {sorted(done)}")

    def _was_settled(self, key: tuple[int, int]) -> None:
        settled, reply = self.settled.get(key), self.replies.get(key[0])
        adopted = reply is not None and reply.turn is not None and reply.turn.latest_thought == key[1]
        asked = self.thoughts.get(key)
        failed = asked is not None and asked.error is not None
        if settled is None:
            self.breaks(6, f"thought {key} is never settled")
        elif adopted is (settled.reason is not None) or (adopted and failed is (settled.outcome is Outcome.ADOPTED)):
            self.breaks(6, f"thought {key} is settled as {settled.outcome}: adopted {adopted}, failed {failed}")

    # -- what is known

    @property
    def is_closed(self) -> bool:
        return self.closing is not None and (self.at_once or self.now() > self.closing)

    def _reply_of(self, asked: Asked) -> SeenReply | None:
        """The reply that a respond speaks; for a think, the one that its thought is."""
        reply = self.replies.get(asked.turn.number) if asked.turn else None
        if asked.role == "think" and reply and reply.turn and asked.turn:
            return reply if reply.turn.latest_thought == asked.turn.latest_thought else None
        return next((reply for reply in [*self.replies.values(), *self.speeches] if reply.asked is asked), None)

    def _replies(self) -> list[SeenReply]:
        return [reply for reply in [*self.replies.values(), *self.speeches] if reply.in_flight]

    def _respond(self, asked: Asked, turn: Turn) -> None:
        reply = self.replies.get(turn.number)
        if reply is None:
            self.breaks(1, f"{asked} is called, and its turn has not ended")
            self.replies[turn.number] = SeenReply(turn, self.policy, asked)
            return
        if reply.asked is not None:
            self.breaks(3, f"turn {turn.number} is answered twice")
        if reply.cut is not None:
            self.breaks(4, f"{asked} is called after {reply.cut}")
        reply.asked = asked
        at = self.closed[turn.number].ended_at
        if at is not None and self.now() < at + self.grace:
            for other in self.asked:
                if other.role == "listen" and other.turn and other.turn.number == turn.number and other.over is None:
                    self.breaks(4, f"{asked} is called while {other} runs")

    def _close(self, turn: Turn) -> None:
        if turn.number not in self.started:
            self.breaks(3, f"turn {turn.number} ends, and was not started")
        if turn.number in self.closed:
            self.breaks(3, f"turn {turn.number} ends twice")
        if turn.end is EndReason.EMPTY and turn.transcript.strip():
            self.breaks(3, f"turn {turn.number} is abandoned as empty, with {turn.transcript!r}")
        self.closed[turn.number] = turn

    def _cut(self, reply: SeenReply, why: str) -> None:
        reply.cut = why

    def _matches(self, policy: Policy, eager: str, final: str) -> bool:
        try:
            return eager == final or bool(policy.match(eager, final))
        except Exception:
            return False

    def notes(self, line: str) -> None:
        self.log.append(f"{self.now():10.4f}  {line}")
