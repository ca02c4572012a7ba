"""Oracle: the laws of every machine, checked by a reader of events and actions that does not know the machine.

A. Every Respond carries a thought that a Think began and no Cancel cancelled. A turn that ends without a live thought
   gives Think (not speculative), then Respond, in one tuple.
B. Every Think is settled by exactly one Cancel or Respond, in or before the tuple that closes its turn. At most one
   thought is live.
C. Every Listen is settled by exactly one Respond or Abandon. At most one turn is open.
D. Turn numbers, and thought numbers in a turn, start at 1 and only grow. Times never run backwards.
E. No Think or Respond is on blank text. A turn's transcript is the server's last text that is not blank, to the letter.
F. Every change of an open turn's text is a Hear; where no delta is None, a turn's deltas joined are its transcript.
   A Cancel comes before the Hear that caused it.
G. The machine is total: `receive` raises for no event in any phase, whatever the policy's functions do. The same inputs
   give the same actions.
H. A reply gets at most one Interrupt, and none after its ReplyDone.
I. No words are lost: each text of a turn event that is not blank is a prefix of, or is, or is an echo of, the text of a
   turn that is answered or abandoned, or is revised by a later text of its turn, or stands in a LATE or FOREIGN report.
J. Lawful traffic gives no Report, whatever the application does meanwhile (except POLICY_ERROR, and what a connection
   still says after the application has called it Disconnected).
K. While a turn is open, a reply that the policy does not let go on is stopped by the next Hear or Resume of that turn.

Rules of this file: it is written from the laws, never from the table. Each judgement names the letter of its law. It
remembers the open turn, the reply in flight and the last closed turn, so that a session of any length costs the same.
What a law says of a whole session is judged at the first step that breaks it: E makes a turn's text the server's last,
so words that no turn has after their own event, and no report holds, are lost (I). Nobody can see G from outside; K is
judged where the policy is known, by asking its `interrupts`, which must be a pure function.
"""

import re
from collections.abc import Hashable, Iterable
from functools import cache
from typing import Never

import msgspec

from inkturns.actions import (
    Abandon,
    Action,
    Cancel,
    EndReason,
    Hear,
    Interrupt,
    Listen,
    Report,
    ReportKind,
    Respond,
    Resume,
    Stall,
    Think,
    Turn,
)
from inkturns.events import (
    Connected,
    Disconnected,
    EndNow,
    Event,
    ReplyDone,
    ReplyStarted,
    Tick,
    TurnEagerEnd,
    TurnEnd,
    TurnUpdate,
    UsePolicy,
)
from inkturns.policy import Policy, reduced

__all__ = ["LAWS", "Oracle", "check", "shown"]

# The laws by their letters, each as one line.
LAWS: dict[str, str] = {
    letter: " ".join(sentence.split())
    for letter, sentence in re.findall(r"^([A-K])\. (.*?)(?=\n[A-K]\. |\n\n)", __doc__, re.DOTALL | re.MULTILINE)
}

TEXT = (TurnUpdate, TurnEagerEnd, TurnEnd)
ANSWERED = (EndReason.SERVER, EndReason.FORCED, EndReason.STALLED, EndReason.LOST)
ABANDONED = (EndReason.EMPTY, EndReason.SUPERSEDED, EndReason.LOST, EndReason.BACKCHANNEL)
TIMES = ("started", "time")  # of an Oracle's fields
SHOWN_STEPS = 40  # of a broken trace, the last ones


class Oracle(msgspec.Struct, kw_only=True):
    """Whether a session keeps the laws: `step` each input with its actions, in order, from the session's beginning.

    `lawful=True` says that the server keeps its promises, and adds law J. `policy` is the machine's at the beginning
    (None: not known, and law K is not judged until a UsePolicy). The other fields are what it has seen. Two oracles
    that are equal judge every continuation alike; `copy.copy` of one is independent of it."""

    lawful: bool = False
    policy: Policy | None = None
    number: int = 0  # the latest turn's
    open: bool = False  # the next seven are of that turn, while it is
    text: str = ""
    turn_id: str | None = None
    request_id: str | None = None
    started: float | None = None
    thoughts: int = 0  # the latest thought's number
    live: int | None = None  # the live one's
    reply: int | None = None  # whose reply is in flight; 0: the application's own speech
    audible: bool = False  # whether that reply is heard
    owed: str | None = None  # the text of the last turn, which the application closed and the server has yet to end
    owed_id: str | None = None  # and its turn_id
    time: float | None = None  # the latest in any turn

    def step(self, event: Event | None, actions: Iterable[Action]) -> None:
        """Takes one input (None: a frame that was no event) and what came of it.

        Raises AssertionError, its message beginning with "law X:", at the first action that breaks one. After that the
        oracle is of no more use."""
        text = event.transcript if isinstance(event, TEXT) else ""
        if isinstance(event, ReplyDone) and event.number in (None, self.reply):
            self.reply = None
        elif isinstance(event, ReplyStarted) and event.number == (self.reply or 0):
            self.reply, self.audible = event.number, True
        elif isinstance(event, UsePolicy):
            self.policy = event.policy
        stopped: int | None = None  # the reply that a Hear or Resume of this tuple must stop
        heard = False  # has the open turn been heard in this tuple?
        begun: bool | None = None  # did the live thought begin in this tuple, and was it speculative?
        kept: str | None = None  # the text of the turn that this tuple closed last
        reported = False  # do the event's words stand in a report?
        actions = tuple(actions)
        for action in actions:
            match action:
                case Listen(turn):
                    self._open(turn)
                    heard = False
                case Hear(turn, delta):
                    self._seen(turn, turn.transcript)
                    self._hear(turn, delta, event, text)
                    heard = True
                    stopped = self._stopped(turn)
                case Think(turn, thought, speculative):
                    self._think(turn, thought)
                    begun = speculative
                case Cancel(turn, thought):
                    if not self.open or turn.number != self.number or thought != self.live:
                        _broken("B", f"Cancel of thought {thought} of turn {turn.number}, which is not live")
                    if heard:
                        _broken("F", f"Cancel of thought {thought} after the Hear that made it so")
                    self._seen(turn)
                    self.live = begun = None
                case Respond(turn, thought):
                    self._respond(turn, thought)
                    if begun:
                        _broken("A", f"thought {thought}, begun and answered in one tuple, is called speculative")
                    begun, kept = None, self._close(turn, event)
                case Abandon(turn):
                    self._seen(turn, ends=ABANDONED)
                    if self.live is not None:
                        _broken("B", f"turn {turn.number} is closed with thought {self.live} live")
                    kept = self._close(turn, event)
                case Resume(turn):
                    self._seen(turn)
                    stopped = self._stopped(turn)
                case Stall(turn):
                    self._seen(turn)
                case Interrupt(number):
                    if number != self.reply:
                        _broken("H", f"Interrupt of the reply to turn {number}, in flight is {self.reply}")
                    self.reply = None
                case Report(kind, about):
                    if self.lawful:
                        _broken("J", f"Report {kind.name} of lawful traffic")
                    reported |= kind in (ReportKind.LATE, ReportKind.FOREIGN) and about == event
                case _:
                    pass  # an action of a later version says nothing about these laws
        if begun is False:
            _broken("A", f"thought {self.live} is not speculative, and no Respond came with it")
        if stopped is not None and stopped == self.reply:
            _broken("K", f"the reply to turn {stopped} goes on over turn {self.number}")
        if self.open:
            kept = self.text
        elif not actions and self._echo(event):
            kept = text
        self._settle(event, actions)
        if not _blank(text) and not reported and kept != text:
            if kept is not None and kept.startswith(text):
                _broken("E", f"the turn's text is {kept!r}, the server's last {text!r}")
            _broken("I", f"{text!r} is in no turn, and in no LATE or FOREIGN report")

    def key(self, now: float | None = None) -> Hashable:
        """All that it goes by, with ages before `now` for times where that is given: equal keys, equal verdicts."""
        values = {name: getattr(self, name) for name in self.__struct_fields__ if name != "policy"}
        if now is not None:
            values |= {name: now - values[name] for name in TIMES if values[name] is not None}
        return tuple(values.values())

    def _stopped(self, turn: Turn) -> int | None:
        """The reply that this Hear or Resume stops: the one in flight, unless the policy lets it go on."""
        if self.reply is None or self.policy is None:
            return None
        interrupts = self.policy.interrupts
        if not self.audible or interrupts is None:
            return self.reply
        try:
            return self.reply if interrupts(turn) else None
        except Exception:  # the user's; one that raises counts as True
            return self.reply

    def _echo(self, event: Event | None) -> bool:
        """The server's own rest of the turn that the application closed, which says nothing more than the turn did."""
        if self.owed is None or not isinstance(event, TEXT) or event.turn_id != self.owed_id:
            return False
        return reduced(self.owed).startswith(reduced(event.transcript))

    def _settle(self, event: Event | None, actions: tuple[Action, ...]) -> None:
        """The server has ended the turn that the application closed, or its connection is gone. An end of an earlier
        connection, whose turns have the same ids, ends nothing."""
        is_foreign = any(isinstance(action, Report) and action.kind is ReportKind.FOREIGN for action in actions)
        its_own = isinstance(event, TurnEnd) and (
            event.turn_id == self.owed_id or (event.turn_id is None and _blank(event.transcript))
        )
        ended = its_own and not is_foreign
        if ended or isinstance(event, Disconnected) or (isinstance(event, Connected) and not actions):
            self.owed = None

    def _open(self, turn: Turn) -> None:
        if self.open:
            _broken("C", f"turn {turn.number} opens while turn {self.number} is open")
        if turn.number <= self.number or (self.number == 0 and turn.number != 1):
            _broken("D", f"turn {turn.number} comes after turn {self.number}")
        if turn.latest_thought:
            _broken("D", f"turn {turn.number} opens with thoughts")
        if turn.transcript:
            _broken("F", f"turn {turn.number} opens with text, before any Hear")
        self._timed(turn.started_at)
        self.number, self.open, self.started, self.owed = turn.number, True, turn.started_at, None
        self._seen(turn)

    def _seen(self, turn: Turn, text: str | None = None, *, ends: tuple[EndReason, ...] = ()) -> None:
        """What holds of a turn in every action: it is the open one, as the actions before this one left it, with the
        `text` that it is about to have, and has ended where that action closes it."""
        if not self.open or turn.number != self.number:
            _broken("C", f"turn {turn.number} is not open")
        if turn.end not in (ends or (None,)):
            _broken("C", f"turn {turn.number} has end {turn.end}")
        if self.turn_id not in (None, turn.turn_id):
            _broken("C", f"turn {turn.number} had turn_id {self.turn_id!r}, and now {turn.turn_id!r}")
        if self.request_id not in (None, turn.request_id):  # a turn never spans connections
            _broken("C", f"turn {turn.number} had request_id {self.request_id!r}, and now {turn.request_id!r}")
        if turn.started_at != self.started:
            _broken("D", f"turn {turn.number} began at {self.started}, and now at {turn.started_at}")
        if turn.latest_thought != self.thoughts:
            _broken("D", f"turn {turn.number} has {turn.latest_thought} thoughts, its latest is {self.thoughts}")
        if text is None and turn.transcript != self.text:
            _broken("E", f"turn {turn.number} has {turn.transcript!r}, what was heard last is {self.text!r}")
        self.turn_id, self.request_id = turn.turn_id, turn.request_id

    def _hear(self, turn: Turn, delta: str | None, event: Event | None, text: str) -> None:
        now = turn.transcript
        if now != text or _blank(text):
            _broken("E", f"Hear of {now!r}, the server's text is {text!r}")
        if now == self.text:
            _broken("F", f"Hear of {now!r}, which is no change")
        if delta is None and now.startswith(self.text):
            _broken("F", f"{now!r} only adds to {self.text!r}, and the delta is None")
        if delta is not None and self.text + delta != now:
            _broken("F", f"{self.text!r} and the delta {delta!r} are not {now!r}")
        for name in ("turn_id", "request_id"):
            its, theirs = getattr(turn, name), getattr(event, name)
            if None not in (its, theirs) and its != theirs:  # so they do not revise it: they were another turn's
                _broken("I", f"the turn of {name} {its!r} takes the words of {theirs!r}")
        self.text = now

    def _think(self, turn: Turn, thought: int) -> None:
        if self.live is not None:
            _broken("B", f"thought {thought} begins while {self.live} is live")
        if thought <= self.thoughts or (self.thoughts == 0 and thought != 1):
            _broken("D", f"thought {thought} comes after thought {self.thoughts}")
        self.thoughts = thought
        self._seen(turn)
        if _blank(self.text):
            _broken("E", f"thought {thought} begins on blank text")
        self.live = thought

    def _respond(self, turn: Turn, thought: int) -> None:
        self._seen(turn, ends=ANSWERED)
        if _blank(self.text):
            _broken("E", f"turn {turn.number} is answered on blank text")
        if thought != self.live:
            _broken("A", f"Respond with thought {thought}, the live one is {self.live}")
        if self.reply is not None:  # else two replies would want the one Interrupt that the next turn gives
            _broken("H", f"turn {turn.number} is answered over the reply to turn {self.reply}")
        self.live, self.reply, self.audible = None, turn.number, False

    def _close(self, turn: Turn, event: Event | None) -> str:
        self._timed(turn.ended_at)
        text, self.text = self.text, ""
        self.owed, self.owed_id = text if isinstance(event, EndNow | Tick) else None, turn.turn_id
        self.open, self.turn_id, self.request_id, self.started, self.thoughts = False, None, None, None, 0
        return text

    def _timed(self, time: float | None) -> None:
        if time is not None:
            if self.time is not None and time < self.time:
                _broken("D", f"the time runs back from {self.time} to {time}")
            self.time = time


def check(
    trace: Iterable[tuple[Event | None, Iterable[Action]]], *, lawful: bool = False, policy: Policy | None = None
) -> None:
    """Raises AssertionError where a trace, each input with its actions, breaks a law: the law first, then the shortest
    prefix that breaks it, a line a step (the last ones of a long prefix). A trace may stop while a turn is open."""
    oracle, prefix = Oracle(lawful=lawful, policy=policy), list[tuple[Event | None, tuple[Action, ...]]]()
    for event, actions in trace:
        prefix.append((event, tuple(actions)))
        try:
            oracle.step(*prefix[-1])
        except AssertionError as broken:
            raise AssertionError(f"{broken}\n{_lines(prefix)}") from None


_fields = cache(msgspec.structs.fields)  # it reads all annotations anew


def shown(value: object) -> str:
    """An event, an action or a turn as one would write it: only the fields that say something."""
    if not isinstance(value, msgspec.Struct):
        return value.name if isinstance(value, EndReason) else repr(value)
    said = ((f.name, getattr(value, f.name), f.default) for f in _fields(type(value)))
    return f"{type(value).__name__}({', '.join(f'{name}={shown(v)}' for name, v, default in said if v != default)})"


def _lines(prefix: list[tuple[Event | None, tuple[Action, ...]]]) -> str:
    first = max(0, len(prefix) - SHOWN_STEPS)
    lines = [f"  … {first} steps before"] if first else []
    for i, (event, actions) in enumerate(prefix[first:], first + 1):
        lines.append(f"{i:>4}  {'a bad frame' if event is None else shown(event)}")
        lines += [f"        -> {shown(action)}" for action in actions]
    return "\n".join(lines)


def _blank(text: str) -> bool:
    return not text or text.isspace()


def _broken(letter: str, what: str) -> Never:
    raise AssertionError(f"law {letter}: {what}")
